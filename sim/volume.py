"""The regular grid on which fields become images, and the search for the element that holds each point."""

import hashlib
from dataclasses import dataclass

import numba
import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class VolumeGrid:
    """A cube of voxels along the axes of the head's coordinates.

    Parameters
    ----------
    centre_m : sequence of 3 floats, m
    spacing_m : float, m
    n : int
        Voxels along each axis.

    Raises
    ------
    InputError
        If the spacing or the number of voxels is not positive, or the centre is not finite.

    Examples
    --------
    >>> grid = VolumeGrid((0, 0, 0), spacing_m=1e-3, n=2)
    >>> grid.axes()[0].tolist()
    [-0.0005, 0.0005]
    """

    centre_m: tuple[float, float, float]
    spacing_m: float = 1e-3
    n: int = 64

    def __post_init__(self):
        centre = tuple(float(v) for v in self.centre_m)
        object.__setattr__(self, "centre_m", centre)
        if len(centre) != 3 or not np.isfinite(centre).all() or not self.spacing_m > 0 or self.n < 1:
            raise InputError(
                f"volume grid: centre {centre} m, spacing {self.spacing_m} m, {self.n} voxels a side is no cube; give "
                "three finite coordinates and positive sizes."
            )

    @property
    def shape(self):
        """(n, n, n), axis order x, y, z."""
        return (self.n,) * 3

    @property
    def id(self):
        """Content hash, 16 hex digits."""
        words = repr((self.centre_m, float(self.spacing_m), int(self.n)))
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def axes(self):
        """Voxel centres along x, y and z: three arrays (n,), m."""
        offset = (np.arange(self.n) - (self.n - 1) / 2) * self.spacing_m
        return tuple(centre + offset for centre in self.centre_m)

    def points(self):
        """All voxel centres (n³, 3), m; the last axis (z) runs fastest."""
        return np.stack(np.meshgrid(*self.axes(), indexing="ij"), axis=-1).reshape(-1, 3)

    def affine(self):
        """Voxel index to m, (4, 4)."""
        affine = np.diag([self.spacing_m] * 3 + [1.0])
        affine[:3, 3] = [axis[0] for axis in self.axes()]
        return affine


def locate(nodes, tets, points, chosen=None):
    """Element that holds each point, with its barycentric coordinates.

    A point on a face shared by several elements is given to the one with the lowest index.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)
    points : ndarray (p, 3), m
    chosen : ndarray of int, optional
        Elements to search; all by default.

    Returns
    -------
    element : ndarray (p,) int64; -1 outside the mesh
    weights : ndarray (p, 4); zero outside the mesh

    Examples
    --------
    >>> nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    >>> locate(nodes, np.array([[0, 1, 2, 3]]), np.array([[0.25, 0.25, 0.25], [2, 2, 2.0]]))[0].tolist()
    [0, -1]
    """
    points = np.ascontiguousarray(points, dtype=float)
    chosen = np.arange(len(tets)) if chosen is None else np.asarray(chosen, dtype=np.int64)
    corners = nodes[tets[chosen]]
    low, high = corners.min(1), corners.max(1)
    box_low, box_high = points.min(0), points.max(0)
    near = ((low <= box_high) & (high >= box_low)).all(1)
    chosen, corners, low, high = chosen[near], corners[near], low[near], high[near]
    element, weights = np.full(len(points), -1, np.int64), np.zeros((len(points), 4))
    if not len(chosen):
        return element, weights
    # Cells about as large as the elements: few candidates for a point, few cells for an element.
    size = max(float(np.median((high - low).max(1))), 1e-9)
    shape = np.maximum(np.ceil((box_high - box_low) / size).astype(np.int64), 1)
    start, content = _bins(points, box_low, size, shape)
    _search(chosen, corners, low, high, points, box_low, size, shape, start, content, element, weights)
    return element, weights


def sample(head, grid, values):
    """Nodal values of a head on a grid, by linear interpolation in its elements.

    Exact for what is linear in space. For the electric field see `motorsweep.sim.solve`, which recovers it tissue by
    tissue first; this is for what is continuous across tissues, such as a potential.

    Parameters
    ----------
    head : Head
    grid : VolumeGrid
    values : array_like (n,) or (n, k)
        One value, or k of them, at each node of the head.

    Returns
    -------
    ndarray (grid.n, grid.n, grid.n) or (grid.n, grid.n, grid.n, k) float32
        Axis order x, y, z; in the unit of the values; zero outside the head.

    Raises
    ------
    InputError
        If there is not one row of values for each node.

    Examples
    --------
    >>> height_m = sample(head, VolumeGrid((0, 0, 0.07), n=32), head.nodes[:, 2])  # doctest: +SKIP
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (1, 2) or len(values) != len(head.nodes):
        raise InputError(
            f"sampling on a volume grid: values are {values.shape}, but the head has {len(head.nodes)} nodes, and each "
            "needs its value; give an array (n,) or (n, k)."
        )
    element, weights = locate(head.nodes, head.tets, grid.points())
    inside = element >= 0
    volume = np.zeros((len(element), *values.shape[1:]), np.float32)
    volume[inside] = np.einsum("pi,pi...->p...", weights[inside], values[head.tets[element[inside]]])
    return volume.reshape(*grid.shape, *values.shape[1:])


def _bins(points, origin, size, shape):
    cell = np.clip(((points - origin) / size).astype(np.int64), 0, shape - 1)
    flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    start = np.zeros(shape.prod() + 1, np.int64)
    np.cumsum(np.bincount(flat, minlength=shape.prod()), out=start[1:])
    return start, np.argsort(flat, kind="stable")


@numba.njit(cache=True)
def _search(chosen, corners, low, high, points, origin, size, shape, start, content, element, weights):
    tolerance = -1e-9
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for e in range(len(chosen)):
        for k in range(3):
            first[k] = min(max(int(np.floor((low[e, k] - origin[k]) / size)), 0), shape[k] - 1)
            last[k] = min(max(int(np.floor((high[e, k] - origin[k]) / size)), 0), shape[k] - 1)
        a = corners[e, 0]
        inverse = np.linalg.inv(np.stack((corners[e, 1] - a, corners[e, 2] - a, corners[e, 3] - a)).T.copy())
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                for k in range(first[2], last[2] + 1):
                    cell = (i * shape[1] + j) * shape[2] + k
                    for position in range(start[cell], start[cell + 1]):
                        p = content[position]
                        if element[p] >= 0:
                            continue
                        d0, d1, d2 = points[p, 0] - a[0], points[p, 1] - a[1], points[p, 2] - a[2]
                        u = inverse[0, 0] * d0 + inverse[0, 1] * d1 + inverse[0, 2] * d2
                        v = inverse[1, 0] * d0 + inverse[1, 1] * d1 + inverse[1, 2] * d2
                        w = inverse[2, 0] * d0 + inverse[2, 1] * d1 + inverse[2, 2] * d2
                        if min(min(u, v), min(w, 1 - u - v - w)) >= tolerance:
                            element[p] = chosen[e]
                            weights[p, 0] = 1 - u - v - w
                            weights[p, 1], weights[p, 2], weights[p, 3] = u, v, w
