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

MUSCLES = (
    *("FDI", "APB", "ADM", "FPB", "EIP", "FDS", "EDC", "FCR"),
    *("ECR", "FCU", "ECU", "BRD", "BIC", "TRI", "DEL"),
)
"""Fifteen muscles of hand and arm, from the hand upwards."""


@dataclass(frozen=True, kw_only=True)
class ResponseModel:
    """What the planted motor system is like.

    Attributes
    ----------
    synergies : int
        Number of patches that several muscles share.
    direct_share : float
        Share of a muscle's drive that comes from its own patch, in [0, 1].
    gain_sd, muscle_sd : float
        Standard deviations of the logarithm of the drive's trial-to-trial gain: common to all muscles (excitability)
        and of each muscle alone.
    noise_v : float
        Standard deviation of the measurement noise, V.
    floor_v : float
        Amplitude without any drive, V.
    saturation_v : pair of float
        Largest amplitude of the first and of the last muscle, V; the others lie between, geometrically, with scatter.
    steepness : float
        Exponent of the recruitment curve in the drive.
    patch_sd_m : pair of float
        Range of the patches' spread (standard deviation; 2.5 to 4 mm are 6 to 9 mm across at half height), m.
    strip_m : pair of float
        Where along the strip, from the hand knob towards the midline, the first and the last muscle lie, m.
    scatter_m : float
        Standard deviation of the patches' centres around the strip, m.
    proximal_threshold : float
        How many times more drive the last muscle needs than the first; the others lie between.
    seed : int
        Of everything that is planted.
    """

    synergies: int = 9
    direct_share: float = 0.3
    gain_sd: float = 0.3
    muscle_sd: float = 0.3
    noise_v: float = 10e-6
    floor_v: float = 5e-6
    saturation_v: tuple[float, float] = (5e-3, 1e-3)
    steepness: float = 0.8
    patch_sd_m: tuple[float, float] = (0.0025, 0.004)
    strip_m: tuple[float, float] = (-0.004, 0.018)
    scatter_m: float = 0.004
    proximal_threshold: float = 2.0
    seed: int = 1

    def __post_init__(self):
        wrong = [name for name in ("gain_sd", "muscle_sd", "noise_v") if not 0 <= getattr(self, name) < np.inf]
        wrong += [name for name in ("floor_v", "steepness") if not 0 < getattr(self, name) < np.inf]
        wrong += [] if self.synergies >= 1 else ["synergies"]
        wrong += [] if 0 <= self.direct_share <= 1 else ["direct_share"]
        wrong += [] if min(self.patch_sd_m) > 0 else ["patch_sd_m"]
        wrong += [] if min(self.saturation_v) > self.floor_v else ["saturation_v"]
        if wrong:
            found = ", ".join(f"{name} = {getattr(self, name)!r}" for name in wrong)
            raise InputError(
                f"synthetic responses: {found} cannot be simulated. Standard deviations and noise must be 0 or more, "
                "floor, steepness and spreads positive, direct_share within 0 and 1, at least one synergy, and "
                "saturations above the floor."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class MotorMap:
    """A planted motor cortex.

    Attributes
    ----------
    muscles : tuple of str
        k names.
    voxels : ndarray (m,) int
        Grey-matter voxels that count, flat C-order indices into the (n, n, n) volume.
    weights : ndarray (r + k, m) float32
        Weight of each voxel in each patch, r synergies and then k muscles; every row sums to 1.
    mixing : ndarray (k, r + k)
        Drive of the muscles from the patches' activations; every row sums to 1.
    centres_m : ndarray (r + k, 3)
        Patch centres, m.
    saturation_v, half_drive : ndarray (k,)
        Largest amplitude (V) and the drive at which half of the curve's log range is reached.
    """

    muscles: tuple[str, ...]
    voxels: np.ndarray
    weights: np.ndarray
    mixing: np.ndarray
    centres_m: np.ndarray
    saturation_v: np.ndarray
    half_drive: np.ndarray

    def drive(self, rate) -> np.ndarray:
        """Drive of the muscles (k,) in [0, 1] from firing rates (m,) at `voxels`."""
        return self.mixing @ (self.weights @ rate).astype(np.float64)


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


def plant(axes, tissue, motor_mask, muscles, centre_m, model: ResponseModel, grey_matter: int = 2) -> MotorMap:
    """Plant a motor map into the grey matter around the hand knob.

    Patch centres lie along the strip that runs from the hand knob to the midline, upwards and slightly backwards, in
    the order of the muscles' names (hand muscles first, at the side), with some scatter, each moved to the nearest
    grey-matter voxel of the mask; synergies are spread evenly over the same strip, and a muscle takes part in its three
    or so nearest ones.

    Parameters
    ----------
    axes : triple of ndarray (n,)
        Voxel centres along x, y, z in head coordinates, m (`VolumeGrid.axes()`).
    tissue : ndarray (n, n, n) int
        Tissue tags.
    motor_mask : ndarray (n, n, n) bool
    muscles : sequence of str
        k names, hand first.
    centre_m : array_like (3,)
        The hand knob, m; x ≤ 0 is the left hemisphere.
    model : ResponseModel
    grey_matter : int
        Tag of grey matter.

    Returns
    -------
    MotorMap
        Its `half_drive` is a guess; `calibrate` ties it to the motor threshold.

    Raises
    ------
    InputError
        Where the mask holds no grey matter.
    """
    voxels = np.flatnonzero((np.asarray(tissue) == grey_matter) & np.asarray(motor_mask, dtype=bool))
    if not voxels.size:
        raise InputError(
            f"planting the motor map: the motor mask holds {np.count_nonzero(motor_mask)} voxels, none of them grey "
            f"matter (tag {grey_matter}), so no muscle could ever respond. Check the hand knob's coordinates (mm, RAS, "
            "same space as the head) and the mask."
        )
    points = _points_at(axes, np.asarray(tissue).shape, voxels)
    rng = np.random.default_rng([model.seed, 0])
    k = len(muscles)
    along = np.concatenate([_along(model.strip_m, model.synergies), _along(model.strip_m, k)])
    centres = _patch_centres(points, np.asarray(centre_m, dtype=np.float64), along, model.scatter_m, rng)
    spread = rng.uniform(*model.patch_sd_m, size=len(along))
    weights = np.stack([_patch(points, centre, sd) for centre, sd in zip(centres, spread)])
    scatter = np.exp(rng.normal(0, 0.3, k))
    return MotorMap(
        muscles=tuple(muscles),
        voxels=voxels,
        weights=weights.astype(np.float32),
        mixing=_mixing(along[: model.synergies], along[model.synergies :], model.direct_share, rng),
        centres_m=centres,
        saturation_v=np.maximum(np.geomspace(*model.saturation_v, k) * scatter, 2 * model.floor_v),
        half_drive=0.05 * np.geomspace(1, model.proximal_threshold, k) * np.exp(rng.normal(0, 0.25, k)),
    )


def _points_at(axes, shape, voxels):
    return np.stack([np.asarray(axis)[index] for axis, index in zip(axes, np.unravel_index(voxels, shape))], axis=1)


def _along(strip_m, count):
    return np.linspace(*strip_m, count) if count > 1 else np.zeros(1)


def _patch_centres(points, centre, along, scatter_m, rng):
    side = 1.0 if centre[0] <= 0 else -1.0
    strip = np.array([0.75 * side, -0.25, 0.6])
    wanted = centre + along[:, None] * strip / np.linalg.norm(strip) + rng.normal(0, scatter_m, (len(along), 3))
    return np.array([points[((points - want) ** 2).sum(axis=1).argmin()] for want in wanted])


def _patch(points, centre, sd):
    weight = np.exp(-((points - centre) ** 2).sum(axis=1) / (2 * sd**2))
    weight[weight < 1e-3] = 0.0
    return weight / weight.sum()


def _mixing(synergy_along, muscle_along, direct_share, rng):
    """Shares of the patches in each muscle's drive (k, r + k): a sparse non-negative basis, and the muscle's own."""
    distance = np.abs(muscle_along[:, None] - synergy_along[None]) / 0.004
    basis = rng.gamma(0.7, size=distance.shape) * np.exp(-(distance**2) / 2) + 1e-12
    basis[basis < 0.1 * basis.max(axis=1, keepdims=True)] = 0.0
    basis /= basis.sum(axis=1, keepdims=True)
    return np.hstack([(1 - direct_share) * basis, direct_share * np.eye(len(muscle_along))])


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
            f"{drive:.3g}, its range {low * 1e6:.3g} to {high * 1e6:.3g} µV, so no curve passes through {threshold_v * 1e6:.3g} µV. "
            "Check that the hotspot pose lies over the motor mask, and rmt_e_v_per_m."
        )
    height = np.log(threshold_v / low) / np.log(high / low)
    wanted = drive * (1 / height - 1) ** (1 / model.steepness)
    return replace(motor_map, half_drive=motor_map.half_drive * wanted / motor_map.half_drive[muscle])


def recruit(drive, saturation_v, half_drive, model: ResponseModel) -> np.ndarray:
    """Response amplitude (V) from the drive: log V rises from floor to saturation along a Hill curve of the drive.

    log V = log floor + (log saturation - log floor) / (1 + (half_drive / drive)^steepness); the floor itself at drive 0.
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
