"""A coil's vector potential sampled on a grid in the coil's frame."""

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from ..errors import CoilError, PoseError

LARGEST = 1e-2
"""V·s/m per ampere. Ten times more than any coil reaches at its own wire: a grid that holds more is in other units."""


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """Samples of the vector potential per ampere, interpolated by cubics in each direction.

    Parameters
    ----------
    values : ndarray (nx, ny, nz, 3)
        A / I in V·s/m per ampere (T·m/A), components along the axes of the coil frame; float32 or float64.
    affine : ndarray (4, 4)
        From indices of the grid to the coil frame, m.

    Raises
    ------
    CoilError
        Where the arrays are no such grid.

    Notes
    -----
    Four samples in each direction make the interpolation fourth order in the spacing. The error is that of the
    sampling, about (spacing / distance from the windings)⁴.
    """

    values: np.ndarray
    affine: np.ndarray

    def __post_init__(self):
        values, affine = np.asarray(self.values), np.array(self.affine, dtype=np.float64)
        values = np.array(values, dtype=np.float32 if values.dtype == np.float32 else np.float64, order="C")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "affine", affine)
        if values.ndim != 4 or values.shape[3] != 3 or min(values.shape[:3]) < 4:
            raise CoilError(
                f"sampled field of a coil: the samples are {values.shape}, but must be (nx, ny, nz, 3) with four and "
                "more along each axis, or nothing can be interpolated. Give one vector per grid point."
            )
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise CoilError(
                f"sampled field of a coil: the affine is {affine.tolist()}, but must be 4x4, finite, with last row "
                "0 0 0 1. Without it nobody knows where the samples lie; export the coil again."
            )
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not (
            1e-5 < spacing.min() and spacing.max() < 0.1 and abs(np.linalg.det(affine[:3, :3])) > 1e-3 * spacing.prod()
        ):
            raise CoilError(
                f"sampled field of a coil: the samples are {1e3 * spacing} mm apart in the three directions, or those "
                "lie in one plane, so this is no grid around a coil. Check the affine: it is in millimetres."
            )
        largest = np.abs(values).max()
        if not 0 < largest < LARGEST:
            raise CoilError(
                f"sampled field of a coil: the largest component is {largest:.3g}, but must be above 0 and below "
                f"{LARGEST:g} V·s/m per ampere; NaN and infinity would spoil the field. Values in V/m belong to a "
                "current that changes: divide them by its rate in A/s."
            )
        for array in (values, affine):
            array.setflags(write=False)

    @property
    def limits_m(self) -> np.ndarray:
        """Smallest and largest coordinates of the grid's corners in the coil frame (2, 3), m."""
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.values.shape[:3]], indexing="ij"), axis=-1)
        corners = corners.reshape(-1, 3) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def add(self, points, pose, factor: float, out) -> None:
        """Add the vector potential at points (n, 3) m in head coordinates, times `factor`, to out (n, 3).

        Raises
        ------
        PoseError
            Where a point lies outside the grid: the field is not known there, and it is not zero.
        """
        inverse = np.linalg.inv(pose.matrix @ self.affine)
        inside = np.empty(len(points), dtype=np.bool_)
        _interpolate(points, self.values, inverse, np.ascontiguousarray(pose.matrix[:3, :3]), factor, inside, out)
        outside = np.flatnonzero(~inside)
        if outside.size:
            first = points[outside[0]]
            local = (first - pose.matrix[:3, 3]) @ pose.matrix[:3, :3]
            low, high = np.round(1e3 * self.limits_m, 1)
            raise PoseError(
                f"dA/dt at pose {pose.id}: {outside.size} of {len(points)} points, the first number {outside[0]} at "
                f"{np.round(1e3 * first, 1)} mm, lie outside the coil's sampled field: in the coil frame it is at "
                f"{np.round(1e3 * local, 1)} mm, the grid spans {low} to {high} mm. The field is not known there, and "
                "to take it for zero would be wrong. Use a coil of dipoles or wire, or a grid that holds the whole "
                "head, or cut the head to what the grid holds."
            )


@njit(parallel=True, cache=True)
def _interpolate(points, values, inverse, rotation, factor, inside, out):
    """Add the interpolated field, turned into head coordinates; tells which points lie in the grid."""
    for i in prange(len(points)):
        weights, first = np.empty((3, 4)), np.empty(3, np.int64)
        inside[i] = True
        for axis in range(3):
            at = inverse[axis, 3]
            for c in range(3):
                at += inverse[axis, c] * points[i, c]
            last = values.shape[axis] - 1
            # a point on the grid's face may be off it by rounding
            if not (-1e-9 * last <= at <= last * (1 + 1e-9)):
                inside[i] = False
                break
            first[axis] = min(max(int(at) - 1, 0), last - 3)
            t = at - first[axis]
            weights[axis, 0] = -(t - 1) * (t - 2) * (t - 3) / 6
            weights[axis, 1] = t * (t - 2) * (t - 3) / 2
            weights[axis, 2] = -t * (t - 1) * (t - 3) / 2
            weights[axis, 3] = t * (t - 1) * (t - 2) / 6
        if not inside[i]:
            continue
        field = np.zeros(3)
        for a in range(4):
            for b in range(4):
                for c in range(4):
                    weight = weights[0, a] * weights[1, b] * weights[2, c]
                    for d in range(3):
                        field[d] += weight * values[first[0] + a, first[1] + b, first[2] + c, d]
        for d in range(3):
            out[i, d] += factor * (rotation[d, 0] * field[0] + rotation[d, 1] * field[1] + rotation[d, 2] * field[2])
