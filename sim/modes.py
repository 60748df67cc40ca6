"""Fields of many poses from a few modes: no solve for a pose, and an estimate of the error that this leaves.

The fields of all poses of a region lie close to a space of a few dozen modes. A pose's coefficients are functionals of
the coil's dA/dt (see `motorsweep.sim.adjoint`), which a few hundred sample points in the head determine. What is left
for a pose is dA/dt at those points and two small products.

More modes are told of than are summed: the share that a pose has of the first modes left out, its tail, tells how much
of its field the others miss. Scaled by what held-out exact solves showed, that is the error estimate.
"""

from dataclasses import dataclass, fields

import numba
import numpy as np

from ..errors import InputError
from .pose_region import PoseRegion
from .volume import VolumeGrid

PLAIN_FIELDS = frozenset({"grid", "region", "tolerance", "head_id", "coil_id"})
"""Of a `Basis`: what is no array."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Basis:
    """Modes of the field of one coil in one head, on one grid, for the poses of a region.

    Parameters
    ----------
    grid : VolumeGrid
    region : PoseRegion
        The poses that it was made for.
    tolerance : float
        Relative L2 error in brain tissue that it was made for.
    head_id, coil_id : str
        Of the head and the coil that it was made for.
    voxels : ndarray (v,) int64
        Flat indices in the grid of the voxels in the head.
    fields : ndarray (r, v, 3) float32
        The modes.
    points : ndarray (m, 3), m
        Where dA/dt is asked for.
    weights : ndarray (r + q, 3 m)
        dA/dt at the points (V/m, point by point) to coefficients, those of the q modes left out last.
    brain : ndarray (r + q, r + q)
        Inner products of the modes over brain tissue.
    scale, floor : ndarray (), float
        The error estimate is scale · sqrt(tail² + floor²).
    singular_values : ndarray
        Of the training fields, relative to the largest.
    heldout_errors, heldout_estimates : ndarray
        Relative L2 error in brain tissue of poses that were solved exactly and not trained on, and their estimates.
    heldout_others : ndarray
        The same error in all other tissues together; 0 where the grid holds none.

    Raises
    ------
    InputError
        For arrays that do not fit each other or the grid.

    Examples
    --------
    >>> e, estimates = basis.volumes(basis.coefficients(coil, poses))             # doctest: +SKIP
    """

    grid: VolumeGrid
    region: PoseRegion
    tolerance: float
    head_id: str
    coil_id: str
    voxels: np.ndarray
    fields: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    brain: np.ndarray
    scale: np.ndarray
    floor: np.ndarray
    singular_values: np.ndarray
    heldout_errors: np.ndarray
    heldout_estimates: np.ndarray
    heldout_others: np.ndarray

    def __post_init__(self):
        fault = _misfit(self)
        if fault:
            raise InputError(f"basis of modes: {fault}; its fields would be wrong. Make it anew.")

    @property
    def rank(self):
        """Number of modes that are summed."""
        return len(self.fields)

    def arrays(self):
        """The arrays by name, for a store."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in PLAIN_FIELDS}

    def coefficients(self, coil, poses, didt=1e6):
        """Coefficients of the fields of some poses.

        Parameters
        ----------
        coil : Coil
            The one that the basis was made for.
        poses : sequence of Pose, length p
        didt : float, A/s

        Returns
        -------
        ndarray (p, r + q)
        """
        if not len(poses):
            raise InputError("E of coil poses by modes: there is no pose; give one or more.")
        dadt = np.stack([coil.dadt(self.points, pose, didt).ravel() for pose in poses])
        return dadt @ self.weights.T

    def serve(self, coil, poses, scalp, tolerance=None, didt=1e6):
        """Find the poses that the basis can serve: those of its region, with an error estimate within the tolerance.

        Parameters
        ----------
        coil : Coil
        poses : sequence of Pose, length p
        scalp : Head or Scalp
        tolerance : float, optional
            That of the basis by default.
        didt : float, A/s

        Returns
        -------
        places : ndarray (s,) int
            Of the poses that are served.
        coefficients : ndarray (s, r + q)
        estimates : ndarray (s,)
            Of their relative L2 error in brain tissue.

        Raises
        ------
        InputError
            For another coil than that of the basis.
        """
        if coil.id != self.coil_id:
            raise InputError(
                f"poses by modes: the coil is {coil.id}, the basis was made for {self.coil_id}, so its fields would be "
                "those of another coil; give the coil that it was made for, or make a basis for this one."
            )
        places = np.flatnonzero(self.region.contains(poses, scalp))
        if not len(places):
            return places, np.empty((0, len(self.weights))), np.empty(0)
        coefficients = self.coefficients(coil, [poses[k] for k in places], didt)
        estimates = self.estimates(coefficients)
        good = estimates <= (self.tolerance if tolerance is None else tolerance)
        return places[good], coefficients[good], estimates[good]

    def estimates(self, coefficients):
        """Estimate the relative L2 error in brain tissue.

        Parameters
        ----------
        coefficients : ndarray (p, r + q)

        Returns
        -------
        ndarray (p,)
        """
        return estimate(coefficients, self.brain, self.rank, self.scale, self.floor)

    def volumes(self, coefficients):
        """Sum the modes.

        Parameters
        ----------
        coefficients : ndarray (p, r + q)

        Returns
        -------
        ndarray (p, n, n, n, 3) float32, V/m; zero outside the head
        """
        volumes = np.zeros((len(coefficients), self.grid.n**3, 3), np.float32)
        sums = self._used(coefficients) @ self.fields.reshape(self.rank, -1)
        volumes[:, self.voxels] = sums.reshape(len(sums), len(self.voxels), 3)
        return volumes.reshape(-1, *self.grid.shape, 3)

    def norms(self, coefficients):
        """Sum the modes and keep |E|: `volumes` and their norm, in less time and memory.

        Parameters
        ----------
        coefficients : ndarray (p, r + q)

        Returns
        -------
        ndarray (p, n, n, n) float32, V/m; zero outside the head
        """
        norms = np.zeros((len(coefficients), self.grid.n**3), np.float32)
        used, modes = self._used(coefficients), self.fields.reshape(self.rank, -1)
        for start in range(0, len(self.voxels), _VOXELS):
            voxels = self.voxels[start : start + _VOXELS]
            sums = used @ modes[:, 3 * start : 3 * (start + _VOXELS)]
            _norms(sums.reshape(len(used), len(voxels), 3), voxels, norms)
        return norms.reshape(-1, *self.grid.shape)

    def _used(self, coefficients):
        """Coefficients of the modes that are summed, as BLAS takes them."""
        return np.ascontiguousarray(coefficients[:, : self.rank], dtype=np.float32)


def estimate(coefficients, brain, rank, scale=1.0, floor=0.0):
    """Error estimate from the tail of the coefficients.

    Parameters
    ----------
    coefficients : ndarray (p, r + q)
    brain : ndarray (r + q, r + q)
        Inner products of the modes over brain tissue.
    rank : int
        r
    scale, floor : float

    Returns
    -------
    ndarray (p,)
        scale · sqrt(t² + floor²), where t is the tail's norm over brain tissue as a share of the whole's.
    """
    head, tail = coefficients[:, :rank], coefficients[:, rank:]
    whole = np.einsum("pi,ij,pj->p", head, brain[:rank, :rank], head)
    left = np.einsum("pi,ij,pj->p", tail, brain[rank:, rank:], tail)
    return scale * np.sqrt(np.maximum(left, 0) / np.maximum(whole, np.finfo(float).tiny) + floor**2)


def _misfit(basis):
    """What does not fit in a basis; nothing where all does."""
    told, points = len(basis.brain) if basis.brain.ndim else 0, len(basis.points) if basis.points.ndim else 0
    shapes = {
        "fields": (len(basis.fields) if basis.fields.ndim else 0, basis.voxels.size, 3),
        "voxels": (basis.voxels.size,),
        "points": (points, 3),
        "weights": (told, 3 * points),
        "brain": (told, told),
        "scale": (),
        "floor": (),
    }
    for name, shape in shapes.items():
        if getattr(basis, name).shape != shape or 0 in shape:
            return f"{name} has the shape {getattr(basis, name).shape}, which does not fit its other arrays"
    if basis.rank > told:
        return f"it sums {basis.rank} modes, and has coefficients of {told}"
    # `_norms` writes where they say, unchecked
    if basis.voxels.min() < 0 or basis.voxels.max() >= basis.grid.n**3:
        return f"its voxels are {basis.voxels.min()} to {basis.voxels.max()}, the grid has {basis.grid.n**3}"
    return ""


_VOXELS = 2048  # of which sums stay in the cache until their norms are taken


# Not parallel: numba's threads and those of BLAS would wait for each other at every part.
@numba.njit(cache=True)
def _norms(sums, voxels, norms):
    for pose in range(len(sums)):
        for i in range(len(voxels)):
            x, y, z = sums[pose, i]
            norms[pose, voxels[i]] = np.sqrt(x * x + y * y + z * z)
