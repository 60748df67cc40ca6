"""Coil poses: where the coil is."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..errors import PoseError

TOLERANCE = 2e-3
"""Largest deviation of a singular value of the rotation from 1 that is taken for a file's rounding.

Numbers printed with three decimals, as Brainsight prints them, are off by 5e-4 at most and singular values of nine such
numbers by 1.5e-3 (Weyl's inequality). A shear as small as that turns an axis by 0.1 degrees.
"""


@dataclass(frozen=True, eq=False)
class Pose:
    """A rigid placement of the coil: the transform from coil to head coordinates.

    The axes are those of SimNIBS: the columns of the matrix are x, y, z and the centre; z points into the head, y is
    the prolongation of the handle (the handle itself lies towards -y), x = y × z. Head coordinates are RAS, in metres.

    Poses are equal, and have one `id`, where their matrices are; name, dI/dt and number say nothing of the geometry.

    Parameters
    ----------
    matrix : array_like (4, 4)
        Last row 0 0 0 1. A rotation that is orthonormal to `TOLERANCE` (a file's rounding) is replaced by the nearest
        exact one, that of the polar decomposition.
    name : str
        What the navigator calls it, such as "Sample 12".
    didt : float, optional
        Rate of change of the coil current in the stimulus that was given here, A/s, where it is known.
    number : int, optional
        Of the marker in its file, from 0; markers without a pose count too.

    Raises
    ------
    PoseError
        Where the matrix is not a rigid right-handed transform in metres, or `didt` is not a positive number.

    Examples
    --------
    >>> Pose([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.1], [0, 0, 0, 1]]).centre_m
    array([0. , 0. , 0.1])
    """

    matrix: np.ndarray
    name: str = field(default="", kw_only=True)
    didt: float | None = field(default=None, kw_only=True)
    number: int | None = field(default=None, kw_only=True)

    def __post_init__(self):
        matrix = _rigid(np.array(self.matrix, dtype=np.float64, order="C"))
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        if self.didt is not None and not 0 < self.didt < np.inf:
            raise PoseError(
                f"coil pose: the rate of change of the current is {self.didt} A/s, but it must be positive. Give None "
                "where it is not known; for a reversed current turn the coil by 180 degrees about its z axis."
            )

    @property
    def centre_m(self) -> np.ndarray:
        """Origin of the coil frame in head coordinates (3,), m."""
        return self.matrix[:3, 3]

    @property
    def id(self) -> str:
        """Content hash of the matrix, 16 hex digits."""
        return hashlib.sha256((self.matrix + 0.0).tobytes()).hexdigest()[:16]

    def __eq__(self, other):
        return np.array_equal(self.matrix, other.matrix) if isinstance(other, Pose) else NotImplemented

    def __hash__(self):
        return hash(self.id)

    def raised(self, distance_m: float) -> "Pose":
        """The same pose moved outwards, along -z, by `distance_m`."""
        matrix = self.matrix.copy()
        matrix[:3, 3] -= distance_m * matrix[:3, 2]
        return Pose(matrix, name=self.name, didt=self.didt, number=self.number)


def unique_poses(poses: Iterable[Pose]) -> tuple[list[Pose], np.ndarray]:
    """Give each placement of the coil once, however many stimuli were given there.

    Parameters
    ----------
    poses : iterable of Pose
        One for each of t stimuli.

    Returns
    -------
    unique : list of Pose
        Different matrices, in the order in which they first occur, each with name, dI/dt and number of its first
        stimulus.
    index : ndarray (t,) int64
        Stimulus i was given at ``unique[index[i]]``.

    Examples
    --------
    >>> unique, index = unique_poses(read_poses("samples.txt"))    # doctest: +SKIP
    >>> field[index]                                               # doctest: +SKIP
    """
    place = {}
    unique, index = [], []
    for pose in poses:
        if pose not in place:
            place[pose] = len(unique)
            unique.append(pose)
        index.append(place[pose])
    return unique, np.array(index, dtype=np.int64)


def _rigid(matrix):
    """The matrix, with its rotation made exact; or a PoseError that says what is wrong with it."""
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        what = "NaN or infinity" if matrix.shape == (4, 4) else f"an array of shape {matrix.shape}"
        raise PoseError(f"coil pose: found {what}, but a pose is a 4x4 matrix of finite numbers. Remove or repair it.")
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-9):
        raise PoseError(
            f"coil pose: the last row is {matrix[3]}, not 0 0 0 1, so this is no rigid transform. "
            "A matrix stored column by column must be transposed."
        )
    with np.errstate(over="ignore"):
        distance = np.linalg.norm(matrix[:3, 3])
    if distance > 10:
        raise PoseError(
            f"coil pose: the centre is {distance:.4g} m from the origin, which no coil is; the translation is in "
            "millimetres. Divide it by 1000, or read the file with read_poses."
        )
    u, stretch, vt = np.linalg.svd(matrix[:3, :3])
    if np.abs(stretch - 1).max() > TOLERANCE:
        raise PoseError(
            f"coil pose: the axes are not orthonormal (singular values {', '.join(f'{s:.4g}' for s in stretch)}), so "
            "the matrix scales or shears. Sheared matrices have silently bent coils, and with them the field. Export "
            "the pose as a rigid transform, in the coordinates of the subject's T1."
        )
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise PoseError(
            "coil pose: the axes are left-handed (determinant -1), so the coil would be mirrored and its current "
            "reversed. Flip the x axis (negate the first column), or convert the coordinates from LPS to RAS."
        )
    if np.abs(stretch - 1).max() > 1e-12:
        matrix[:3, :3] = u @ vt
    return matrix
