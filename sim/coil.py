"""TMS coils as clouds of magnetic dipoles, and the electric field -dA/dt that they induce.

The coil frame is that of SimNIBS: origin at the coil's centre on the casing's bottom plane, z into the head (so every
winding lies at negative z), y the prolongation of the handle, x = y × z.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit, prange

from ..errors import CoilError, PoseError
from .figure_of_eight import figure_of_eight
from .scalp import Scalp

MU0_OVER_4PI = 1e-7
"""Magnetic constant over 4 pi, T·m/A."""

_BLOCK = 128
_TOUCH_M = 1e-4  # a casing that touches the scalp is not in it, whatever the rounding of a pose file


@dataclass(frozen=True, eq=False)
class Coil:
    """A stimulation coil made of magnetic dipoles.

    Parameters
    ----------
    name : str
        What to call it in messages and attributes.
    positions : ndarray (d, 3)
        Dipole positions in the coil frame, m.
    moments : ndarray (d, 3)
        Dipole moments per ampere of coil current, A·m² / A.

    Raises
    ------
    CoilError
        Where the arrays do not fit together, are empty, or hold NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from motorsweep.sim.pose import Pose
    >>> Coil("loop", np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]])).dadt([[0.1, 0.0, 0.0]], Pose(np.eye(4))).round(6)
    array([[ 0., 10.,  0.]])
    """

    name: str
    positions: np.ndarray
    moments: np.ndarray

    def __post_init__(self):
        for field in ("positions", "moments"):
            array = np.array(getattr(self, field), dtype=np.float64, order="C")
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        shapes = self.positions.shape, self.moments.shape
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1:] != (3,) or not shapes[0][0]:
            raise CoilError(
                f"coil {self.name!r}: positions are {shapes[0]} and moments {shapes[1]}, but a coil needs at least one "
                "dipole, and one moment per position, both (d, 3). Give two arrays of the same shape."
            )
        if not (np.isfinite(self.positions).all() and np.isfinite(self.moments).all()):
            raise CoilError(
                f"coil {self.name!r}: a dipole's position or moment is NaN or infinite, which would spoil the field "
                "everywhere. Repair or remove that dipole."
            )

    @property
    def id(self) -> str:
        """Content hash of positions and moments, 16 hex digits."""
        digest = hashlib.sha256(str(self.positions.shape).encode())
        digest.update((self.positions + 0.0).tobytes())
        digest.update((self.moments + 0.0).tobytes())
        return digest.hexdigest()[:16]

    def placed(self, pose) -> tuple[np.ndarray, np.ndarray]:
        """Dipole positions (d, 3) m and moments (d, 3) A·m²/A in head coordinates at a pose."""
        rotation = pose.matrix[:3, :3]
        return self.positions @ rotation.T + pose.matrix[:3, 3], self.moments @ rotation.T

    def dadt(self, points_m, pose, didt: float = 1e6) -> np.ndarray:
        """Time derivative of the vector potential, by direct summation over the dipoles.

        dA/dt(r) = dI/dt · 1e-7 · Σ m × (r - p) / |r - p|³ (Coulomb gauge; the primary field is E = -dA/dt). The cost
        is points × dipoles, the extra memory that of the output.

        Parameters
        ----------
        points_m : array_like (n, 3)
            Points in head coordinates, m.
        pose : Pose
            Where the coil is.
        didt : float
            Rate of change of the coil current, A/s. The default, 1e6, is 1 A/µs.

        Returns
        -------
        ndarray (n, 3)
            dA/dt in V/m.

        Raises
        ------
        PoseError
            Where a point coincides with a dipole: the field is infinite there.
        """
        points = np.ascontiguousarray(points_m, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise CoilError(
                f"dA/dt of coil {self.name!r}: points are {points.shape}, but must be (n, 3) in metres. "
                "Reshape them; a single point is [[x, y, z]]."
            )
        positions, moments = self.placed(pose)
        field = np.empty_like(points)
        _sum_dipoles(points, positions, moments * (MU0_OVER_4PI * didt), field)
        bad = np.flatnonzero(~np.isfinite(field).all(axis=1))
        if bad.size:
            raise PoseError(
                f"dA/dt of coil {self.name!r} at pose {pose.id}: {bad.size} of {len(points)} points, the first "
                f"number {bad[0]} at {np.round(points[bad[0]] * 1e3, 3)} mm, are not finite or lie on a dipole, where "
                "the field is infinite. Move the coil out of the head, or mend the points."
            )
        return field


@njit(parallel=True, cache=True, fastmath={"contract"})
def _sum_dipoles(points, positions, moments, out):
    """Sum of m × (r - p) / |r - p|³, in blocks of points: the inner loop runs over points, so it vectorises as is."""
    count = points.shape[0]
    for block in prange((count + _BLOCK - 1) // _BLOCK):
        start = block * _BLOCK
        size = min(_BLOCK, count - start)
        r = np.empty((3, _BLOCK))
        a = np.zeros((3, _BLOCK))
        for i in range(size):
            for c in range(3):
                r[c, i] = points[start + i, c]
        for d in range(positions.shape[0]):
            px, py, pz = positions[d, 0], positions[d, 1], positions[d, 2]
            mx, my, mz = moments[d, 0], moments[d, 1], moments[d, 2]
            for i in range(size):
                x, y, z = r[0, i] - px, r[1, i] - py, r[2, i] - pz
                square = x * x + y * y + z * z
                # x / 0 is an exception in numba; infinity is told from 0 by the caller
                weight = 1.0 / (square * np.sqrt(square)) if square > 0.0 else np.inf
                a[0, i] += (my * z - mz * y) * weight
                a[1, i] += (mz * x - mx * z) * weight
                a[2, i] += (mx * y - my * x) * weight
        for i in range(size):
            for c in range(3):
                out[start + i, c] = a[c, i]


def _magstim_70mm():
    return Coil("magstim-70mm", *figure_of_eight())


def _dipole():
    return Coil("dipole", np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]))


COILS = {"magstim-70mm": _magstim_70mm, "dipole": _dipole}
"""Built-in coils: the figure of eight, and one dipole of 1 A·m²/A along z at the origin of the coil frame."""


def load_coil(name_or_path) -> Coil:
    """Load a built-in coil by name, or a dipole coil file.

    Parameters
    ----------
    name_or_path : str or Path
        A key of `COILS`, or a path whose suffix is in `coil_files.READERS`.

    Returns
    -------
    Coil

    Raises
    ------
    CoilError
        Where the name is unknown, or the file absent, damaged or of another format.

    Examples
    --------
    >>> load_coil("magstim-70mm").positions.shape
    (760, 3)
    """
    from .coil_files import READERS

    if str(name_or_path) in COILS:
        return COILS[str(name_or_path)]()
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() in READERS and path.is_file():
        return READERS[path.suffix.lower()](path)
    found = "no such file" if not path.is_file() else f"a file of type {path.suffix or '(none)'!r}"
    raise CoilError(
        f"loading coil {str(name_or_path)!r}: found {found}, so there is nothing to compute a field from. "
        f"Give one of the built-in coils ({', '.join(COILS)}) or a file of type {', '.join(READERS)}."
    )


def coil_inside_head(coil: Coil, pose, head) -> int:
    """Number of the coil's dipoles that lie inside the head's outer surface.

    Parameters
    ----------
    coil : Coil
    pose : Pose
    head : Head or Scalp
        Give a `Scalp` when asking for many poses: it is built from the head only once.

    Returns
    -------
    int
    """
    return int(Scalp.of(head).inside(coil.placed(pose)[0]).sum())


def check_coil_outside(coil: Coil, poses, head) -> None:
    """Refuse poses that put part of the coil into the head.

    Dipoles stand for windings, some mm above the casing's underside, so the middle of the underside (the origin of the
    coil frame) is asked for too.

    Parameters
    ----------
    coil : Coil
    poses : sequence of Pose
    head : Head or Scalp

    Raises
    ------
    PoseError
        Naming the first such pose by index, what of it is inside and by how many millimetres.
    """
    scalp = Scalp.of(head)
    for index, pose in enumerate(poses):
        positions = coil.placed(pose)[0]
        inside = positions[scalp.inside(positions)]
        if len(inside):
            found = f"{len(inside)} of {len(positions)} dipoles lie inside the head, the deepest"
            depth = _depth_m(scalp, inside)
        else:
            found = "no dipole, but the middle of the casing's underside lies inside the head,"
            depth = _depth_m(scalp, pose.centre_m[None])
        if len(inside) or depth > _TOUCH_M:
            raise PoseError(
                f"pose {index} ({pose.id}) of coil {coil.name!r}: {found} {1e3 * depth:.1f} mm below its surface. "
                "No coil can be held there, and the field of a current source inside the conductor is not what this "
                "solver computes. Move the coil outwards along -z, raise distance_mm, or check that the pose belongs "
                "to this head (same subject, millimetres, RAS)."
            )


def _depth_m(scalp, points_m):
    """How far the deepest of the points lies below the surface, m; 0 where all are outside."""
    inside = points_m[scalp.inside(points_m)]
    return np.linalg.norm(scalp.closest(inside)[0] - inside, axis=1).max() if len(inside) else 0.0
