"""Synthetic muscle responses with a known noise ceiling.

What is planted: each muscle listens to patches of motor cortex, partly through patches that several muscles share
(synergies) and partly through one of its own. A patch's activation is the mean firing rate over it. The weighted mean
of the activations is the muscle's drive. The logarithm of the response follows a sigmoid of the logarithm of the drive,
between a floor and a saturation; trial-to-trial variability acts on the drive, before the recruitment curve, and
measurement noise after it (after Goetz et al. 2014, PMC4108579, simplified).
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.special import erf

from ..errors import InputError
from .firing import firing_rate
from .motor_map import MUSCLES, MotorMap, ResponseModel, plant

__all__ = [
    "MUSCLES",
    "MotorMap",
    "ResponseModel",
    "Responses",
    "calibrate",
    "expected_response",
    "folded_mean",
    "model_attributes",
    "plant",
    "recruit",
    "respond",
    "simulate_responses",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """Simulated trials: peak-to-peak amplitudes (t, k) in V, and the drive (t, k) behind them.

    Attributes
    ----------
    measured : ndarray
        With trial-to-trial variability and measurement noise.
    expected : ndarray
        Mean of `measured` given pose and intensity: what no prediction can beat in squared error.
    median : ndarray
        Amplitude at unit gain without measurement noise.
    drive : ndarray
        Without trial-to-trial variability.
    """

    measured: np.ndarray
    expected: np.ndarray
    median: np.ndarray
    drive: np.ndarray


def calibrate(motor_map: MotorMap, e_norm, e50, slope, model: ResponseModel, muscle: int = 0, threshold_v=50e-6):
    """Tie the recruitment curves to the resting motor threshold.

    By its definition, at threshold intensity over the hotspot the target muscle's response exceeds 50 µV in half of the
    trials. All half drives are scaled by one factor that makes its median there just that.

    Parameters
    ----------
    motor_map : MotorMap
    e_norm : ndarray (n, n, n)
        |E| of the hotspot pose at 100 % RMT, V/m.
    e50, slope : float
        Of `firing_rate`, V/m.
    model : ResponseModel
    muscle : int
        The target muscle.
    threshold_v : float
        V.

    Returns
    -------
    MotorMap
        With other half drives.

    Raises
    ------
    InputError
        Where the field at threshold does not reach the muscle's patches at all, or the threshold lies outside the
        muscle's range.
    """
    drive = motor_map.drive(firing_rate(np.ravel(e_norm)[motor_map.voxels], e50, slope))[muscle]
    low, high = model.floor_v, motor_map.saturation_v[muscle]
    if not (drive > 0 and np.isfinite(drive) and low < threshold_v < high):
        raise InputError(
            f"calibrating the recruitment of {motor_map.muscles[muscle]!r}: its drive at motor threshold is "
            f"{drive:.3g}, its range {low * 1e6:.3g} to {high * 1e6:.3g} µV, so no curve passes "
            f"through {threshold_v * 1e6:.3g} µV. "
            "Check that the hotspot pose lies over the motor mask, and rmt_e_v_per_m."
        )
    height = np.log(threshold_v / low) / np.log(high / low)
    wanted = drive * (1 / height - 1) ** (1 / model.steepness)
    return replace(motor_map, half_drive=motor_map.half_drive * wanted / motor_map.half_drive[muscle])


def recruit(drive, saturation_v, half_drive, model: ResponseModel) -> np.ndarray:
    """Response amplitude (V) from the drive: log V rises from floor to saturation along a Hill curve of the drive.

    log V = log floor + (log saturation - log floor) / (1 + (half_drive / drive)^steepness); without drive, the floor.
    """
    rise = np.asarray(drive, dtype=np.float64) ** model.steepness
    height = rise / (rise + np.asarray(half_drive) ** model.steepness)
    return model.floor_v * (np.asarray(saturation_v) / model.floor_v) ** height


def folded_mean(amplitude, noise_v) -> np.ndarray:
    """Mean of ``|amplitude + noise|`` for normal noise of standard deviation `noise_v`, closed form, V."""
    if noise_v == 0:
        return np.abs(amplitude)
    ratio = np.asarray(amplitude) / noise_v
    return noise_v * (np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + ratio * erf(ratio / np.sqrt(2)))


def expected_response(drive, motor_map: MotorMap, model: ResponseModel) -> np.ndarray:
    """Mean response (…, k) in V given the drive (…, k), over gains and measurement noise.

    The gain of one muscle is log-normal with variance gain_sd² + muscle_sd²; its mean is taken by the trapezoidal rule
    at 65 points over ±8 standard deviations (relative error below 1e-9: the integrand is analytic), the noise in closed
    form.
    """
    nodes = np.linspace(-8, 8, 65)
    weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()
    total_sd = np.hypot(model.gain_sd, model.muscle_sd)
    mean = np.zeros(np.shape(drive))
    for node, weight in zip(nodes, weights):
        amplitude = recruit(drive * np.exp(total_sd * node), motor_map.saturation_v, motor_map.half_drive, model)
        mean += weight * folded_mean(amplitude, model.noise_v)
    return mean


def simulate_responses(
    e_norm, pose_index, didt, e50: float, slope: float, motor_map: MotorMap, model: ResponseModel, seed: int
) -> Responses:
    """Simulate the responses of trials, one pose's field in memory at a time.

    Parameters
    ----------
    e_norm : callable or indexable (p, n, n, n)
        |E| per 1 A/µs of a pose, V/m: ``e_norm(pose)`` or ``e_norm[pose]`` gives (n, n, n).
    pose_index : array_like (t,) int
    didt : array_like (t,)
        A/s.
    e50, slope : float
        Of `firing_rate`, V/m.
    motor_map : MotorMap
    model : ResponseModel
    seed : int
        Of the trials' gains and noise.

    Returns
    -------
    Responses

    Raises
    ------
    InputError
        Where a pose has no finite field, or indices and rates do not match.
    """
    pose_index, didt = np.asarray(pose_index, dtype=np.int64), np.asarray(didt, dtype=np.float64)
    if pose_index.ndim != 1 or pose_index.shape != didt.shape:
        raise InputError(
            f"simulating responses: {pose_index.shape} pose numbers and {didt.shape} rates of change; each trial needs "
            "one of both. Give two vectors of the same length."
        )
    field_of = e_norm if callable(e_norm) else e_norm.__getitem__
    drive = np.empty((len(pose_index), len(motor_map.muscles)))
    for pose in np.unique(pose_index):
        field = np.asarray(field_of(int(pose)), dtype=np.float32).reshape(-1)[motor_map.voxels]
        if not np.isfinite(field).all():
            raise InputError(
                f"simulating responses: the field of pose {pose} is not finite in the motor mask, so it was never "
                "solved or failed. Solve it (or leave its trials out) before responses are simulated."
            )
        for trial in np.flatnonzero(pose_index == pose):
            drive[trial] = motor_map.drive(firing_rate(field * np.float32(didt[trial] * 1e-6), e50, slope))
    return respond(drive, motor_map, model, seed)


def respond(drive, motor_map: MotorMap, model: ResponseModel, seed: int) -> Responses:
    """Responses of trials whose drive (t, k) is known: gains, recruitment, noise; see `simulate_responses`."""
    rng = np.random.default_rng([seed, 1])
    gain = np.exp(model.gain_sd * rng.normal(size=(len(drive), 1)) + model.muscle_sd * rng.normal(size=drive.shape))
    noise = model.noise_v * rng.normal(size=drive.shape)
    curve = motor_map.saturation_v, motor_map.half_drive, model
    return Responses(
        measured=np.abs(recruit(drive * gain, *curve) + noise),
        expected=expected_response(drive, motor_map, model),
        median=recruit(drive, *curve),
        drive=drive,
    )


def model_attributes(model: ResponseModel) -> dict:
    """The model as plain values, for attributes of a store and for content hashes."""
    return asdict(model)
