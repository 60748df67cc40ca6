"""The planted motor system: which patches of cortex drive which muscles.

Each muscle listens to patches of motor cortex, partly through patches that several muscles share (synergies) and partly
through one of its own. A patch's activation is the mean firing rate over it; the weighted mean of the activations is
the muscle's drive. `motorsweep.sim.responses` makes responses of it.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

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
