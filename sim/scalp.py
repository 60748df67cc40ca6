"""The head's outer surface: what is inside, the closest point on it, its smoothed normal."""

from functools import cached_property

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from ..errors import MeshError


class Scalp:
    """A closed triangle surface with the questions that coil poses ask of it.

    Parameters
    ----------
    nodes : ndarray (n, 3)
        m, head coordinates.
    triangles : ndarray (k, 3)
        Node indices, outward orientation.

    Examples
    --------
    >>> scalp = Scalp.of(head)                                   # doctest: +SKIP
    >>> point, triangle = scalp.closest([[-0.037, -0.021, 0.058]])  # doctest: +SKIP
    """

    def __init__(self, nodes, triangles):
        used, inverse = np.unique(np.asarray(triangles), return_inverse=True)
        if not used.size:
            raise MeshError("the head has no outer surface (no boundary triangles). Give a head with tetrahedra.")
        self.nodes = np.ascontiguousarray(np.asarray(nodes, dtype=np.float64)[used])
        self.triangles = np.ascontiguousarray(inverse.reshape(-1, 3).astype(np.int64))
        corners = self.nodes[self.triangles]
        self.centroids = corners.mean(axis=1)
        self.area_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
        self._reach = np.linalg.norm(corners - self.centroids[:, None], axis=2).max()

    @classmethod
    def of(cls, head) -> "Scalp":
        """Surface of a head; a `Scalp` is given back as it is."""
        return head if isinstance(head, cls) else cls(head.nodes, head.scalp())

    def inside(self, points_m) -> np.ndarray:
        """Which points lie inside, bool (n,), by the parity of crossings of a ray along +z.

        A point on the ray's way exactly through an edge or node is counted once (half-open edges, and an edge gives
        the same intersection from both sides), so no jitter is needed.
        """
        points = np.ascontiguousarray(points_m, dtype=np.float64)
        result = np.zeros(len(points), dtype=bool)
        low, high = self.nodes.min(axis=0), self.nodes.max(axis=0)
        near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
        if near.size:
            result[near] = _crossing_parity(points[near], self.nodes, self.triangles, *self._columns)
        return result

    def closest(self, points_m) -> tuple[np.ndarray, np.ndarray]:
        """Closest surface points (n, 3) m and their triangles (n,), exact."""
        points = np.ascontiguousarray(np.atleast_2d(points_m), dtype=np.float64)
        nearest, _ = self._node_tree.query(points)
        candidates = self._centroid_tree.query_ball_point(points, nearest + self._reach + 1e-9, return_sorted=True)
        counts = np.array([len(c) for c in candidates])
        flat = np.concatenate([np.asarray(c, dtype=np.int64) for c in candidates])
        return _closest_on_triangles(points, self.nodes, self.triangles, flat, np.concatenate([[0], counts.cumsum()]))

    def normals(self, points_m, smooth_m: float = 0.010) -> np.ndarray:
        """Outward unit normals (n, 3), averaged over triangles with a Gaussian of standard deviation `smooth_m`.

        The averaging keeps the tilt of a coil from jittering with single triangles.
        """
        points = np.atleast_2d(points_m)
        closest, triangle = self.closest(points)
        normals = np.empty_like(closest)
        near = self._centroid_tree.query_ball_point(closest, 2.5 * smooth_m, return_sorted=True)
        for i, candidates in enumerate(near):
            candidates = np.append(np.asarray(candidates, dtype=np.int64), triangle[i])
            square = ((self.centroids[candidates] - closest[i]) ** 2).sum(axis=1)
            weight = np.exp(-square / (2 * smooth_m**2))
            normals[i] = weight @ self.area_normals[candidates]
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)

    @cached_property
    def _node_tree(self):
        return cKDTree(self.nodes)

    @cached_property
    def _centroid_tree(self):
        return cKDTree(self.centroids)

    @cached_property
    def _columns(self):
        """Triangles by column of a grid over x and y: origin (2,), cell (2,), shape (2,), start, triangle numbers."""
        low, high = self.nodes[:, :2].min(axis=0), self.nodes[:, :2].max(axis=0)
        side = int(np.clip(np.sqrt(len(self.triangles)), 1, 512))
        cell = (high - low) / side + 1e-12
        corners = self.nodes[self.triangles][:, :, :2]
        first = np.clip(((corners.min(axis=1) - low) / cell).astype(np.int64), 0, side - 1)
        last = np.clip(((corners.max(axis=1) - low) / cell).astype(np.int64), 0, side - 1)
        extent = last - first + 1
        count = extent.prod(axis=1)
        owner = np.repeat(np.arange(len(count)), count)
        step = np.arange(len(owner)) - np.repeat(count.cumsum() - count, count)
        column = (first[owner, 0] + step // extent[owner, 1]) * side + first[owner, 1] + step % extent[owner, 1]
        order = np.argsort(column, kind="stable")
        start = np.concatenate([[0], np.bincount(column, minlength=side * side).cumsum()])
        return low, cell, side, start, owner[order]


@njit(cache=True)
def _crossing_parity(points, nodes, triangles, low, cell, side, start, members):
    result = np.zeros(points.shape[0], dtype=np.bool_)
    for p in range(points.shape[0]):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        i = min(side - 1, int((x - low[0]) / cell[0]))
        j = min(side - 1, int((y - low[1]) / cell[1]))
        column = i * side + j
        odd = False
        for m in range(start[column], start[column + 1]):
            triangle = triangles[members[m]]
            if _over(x, y, nodes, triangle) and _height(x, y, nodes, triangle) > z:
                odd = not odd
        result[p] = odd
    return result


@njit(cache=True)
def _over(x, y, nodes, triangle):
    """Whether (x, y) lies in the triangle's shadow on the x-y plane."""
    odd = False
    for k in range(3):
        a, b = triangle[k], triangle[(k + 1) % 3]
        if a > b:
            a, b = b, a
        ya, yb = nodes[a, 1], nodes[b, 1]
        if (ya > y) != (yb > y):
            crossing = nodes[a, 0] + (y - ya) * (nodes[b, 0] - nodes[a, 0]) / (yb - ya)
            if x < crossing:
                odd = not odd
    return odd


@njit(cache=True)
def _height(x, y, nodes, triangle):
    """Z of the triangle's plane at (x, y); minus infinity where the plane stands upright."""
    a, b, c = nodes[triangle[0]], nodes[triangle[1]], nodes[triangle[2]]
    u, v = b - a, c - a
    nx, ny, nz = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
    if nz == 0.0:
        return -np.inf
    return a[2] - ((x - a[0]) * nx + (y - a[1]) * ny) / nz


@njit(cache=True)
def _closest_on_triangles(points, nodes, triangles, candidates, start):
    closest = np.empty_like(points)
    which = np.empty(points.shape[0], dtype=np.int64)
    for p in range(points.shape[0]):
        best = np.inf
        for m in range(start[p], start[p + 1]):
            corner = triangles[candidates[m]]
            point = _closest_on_triangle(points[p], nodes[corner[0]], nodes[corner[1]], nodes[corner[2]])
            square = ((point - points[p]) ** 2).sum()
            if square < best:
                best, which[p] = square, candidates[m]
                closest[p] = point
    return closest, which


@njit(cache=True)
def _closest_on_triangle(p, a, b, c):
    """Closest point of triangle abc to p: of the face where p lies over it, else of the nearest edge."""
    u, v, w = b - a, c - a, p - a
    uu, uv, vv, wu, wv = (u * u).sum(), (u * v).sum(), (v * v).sum(), (w * u).sum(), (w * v).sum()
    determinant = uu * vv - uv * uv
    if determinant > 0.0:
        s = (vv * wu - uv * wv) / determinant
        t = (uu * wv - uv * wu) / determinant
        if s >= 0.0 and t >= 0.0 and s + t <= 1.0:
            return a + s * u + t * v
    best, closest = np.inf, a
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        length = (edge * edge).sum()
        along = 0.0 if length == 0.0 else min(1.0, max(0.0, ((p - start) * edge).sum() / length))
        point = start + along * edge
        square = ((p - point) ** 2).sum()
        if square < best:
            best, closest = square, point
    return closest
