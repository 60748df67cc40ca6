"""Where a coil sits on the scalp: what its axis and its casing meet there."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from .pose import FOOTPRINT_M, Pose, tangents
from .scalp import Scalp

_ONE_POINT_M = 1e-10  # triangles that the coil's axis meets this close together are met at their common edge or node


@dataclass(frozen=True)
class PlaceOnScalp:
    """Where a coil sits on the scalp.

    Parameters
    ----------
    offset_m : float
        Straight distance from the region's middle to the scalp point that the coil's axis meets, m.
    angle_deg : float
        Angle between handle and midline as in `tangential_pose`, after the tilt is taken back; in (-180, 180].
    distance_m : float
        Smallest gap between casing plane and scalp under the footprint, m; negative where the plane cuts the scalp.
    tilt_deg : float
        Angle between the coil's axis and the smoothed normal of the scalp.
    """

    offset_m: float
    angle_deg: float
    distance_m: float
    tilt_deg: float


def measure(pose: Pose, scalp, centre_m, left: bool | None = None) -> PlaceOnScalp:
    """Measure where a coil sits on the scalp: the inverse of `tangential_pose` and of `PoseRegion.draw`.

    Parameters
    ----------
    pose : Pose
    scalp : Head or Scalp
        Give a `Scalp` when asking often.
    centre_m : array_like (3,)
        As in `PoseRegion`, m.
    left : bool, optional
        Whether the angle counts as in the left hemisphere; by default where the centre's x is not positive.

    Returns
    -------
    PlaceOnScalp
        Where the coil's axis misses the head, of the scalp point closest to the coil's centre.

    Examples
    --------
    >>> measure(tangential_pose(scalp, point, 45, 4e-3, True), scalp, point)      # doctest: +SKIP
    PlaceOnScalp(offset_m=0.0, angle_deg=45.0, distance_m=0.004, tilt_deg=0.0)
    """
    scalp = Scalp.of(scalp)
    middle, left = scalp.closest(centre_m)[0][0], centre_m[0] <= 0 if left is None else left
    return PlaceOnScalp(*places([pose], scalp, middle, left)[0].tolist())


def places(poses, scalp, middle, left):
    """Offset, angle, distance and tilt of poses, (p, 4), as in `PlaceOnScalp`, from the middle of a region."""
    matrices = np.array([pose.matrix for pose in poses]).reshape(-1, 4, 4)
    centres, handles, axes = matrices[:, :3, 3], matrices[:, :3, 1], matrices[:, :3, 2]
    gaps, heights, owners, met = _under_coils(matrices, scalp.nodes, scalp.triangles, *FOOTPRINT_M)
    lost = np.flatnonzero(~np.isfinite(heights))
    if len(lost):
        near, triangles = scalp.closest(centres[lost])
        heights[lost] = ((near - centres[lost]) * axes[lost]).sum(axis=1)
        owners, met = np.append(owners, lost), np.append(met, triangles)
    feet = centres + heights[:, None] * axes
    feet[lost] = scalp.closest(centres[lost])[0] if len(lost) else feet[lost]
    # the smoothed normal differs a little between the triangles of an edge: the pose was made with one of them
    normals = scalp.normals(feet[owners] + 1e-7 * (scalp.centroids[met] - feet[owners])) if len(met) else feet
    likely = np.lexsort(((normals * axes[owners]).sum(axis=1), owners))
    normals = normals[likely[np.searchsorted(owners[likely], np.arange(len(poses)))]]
    upright, (forwards, aside) = turned(handles, axes, -normals), tangents(normals, left)
    tilts = np.arctan2(np.linalg.norm(np.cross(normals, axes), axis=1), -(normals * axes).sum(axis=1))
    angles = np.arctan2((upright * aside).sum(axis=1), (upright * forwards).sum(axis=1))
    offsets = np.linalg.norm(feet - middle, axis=1)
    return np.stack([offsets, np.rad2deg(angles), np.minimum(gaps, heights), np.rad2deg(tilts)], axis=1)


def turned(vectors, before, after):
    """Vectors (n, 3), turned by the smallest rotations that take unit vectors `before` to `after`."""
    sums = before + after
    along = (vectors * sums).sum(axis=1, keepdims=True) / (1 + (before * after).sum(axis=1, keepdims=True) + 1e-15)
    return vectors - along * sums + 2 * (vectors * before).sum(axis=1, keepdims=True) * after


def feet(scalp, middle, offsets, directions):
    """Scalp points (n, 3) at given straight distances from the middle, in given directions of its tangent plane.

    Each is the scalp point closest to one of the tangent plane, whose own distance is found by iteration. No sum runs
    over several points, so that a point does not depend on how many are asked for.
    """
    along, across = tangents(scalp.normals(middle)[0], True)
    ahead = np.cos(directions)[:, None] * along + np.sin(directions)[:, None] * across
    reach = offsets.copy()
    feet, triangle = scalp.closest(middle + reach[:, None] * ahead)
    for step in range(60):
        found = np.sqrt(((feet - middle) ** 2).sum(axis=1))
        # over a fold the closest point leaps, so in the end any that is not too far will do
        off = np.abs(found - offsets) > 1e-6 if step < 30 else found > offsets + 1e-6
        if not off.any():
            break
        reach[off] *= offsets[off] / np.maximum(found[off], 1e-12) if step < 30 else 0.98
        feet[off], triangle[off] = scalp.closest(middle + reach[off, None] * ahead[off])
    # on an edge or node of the surface the smoothed normal would hang on rounding
    return feet + 1e-3 * (scalp.centroids[triangle] - feet)


def tilted(axes, tilt, way):
    """Axes of a coil, the columns, turned by `tilt` (rad) about a line of its plane."""
    before = axes[:, 2]
    after = np.cos(tilt) * before + np.sin(tilt) * (np.cos(way) * axes[:, 0] + np.sin(way) * axes[:, 1])
    return turned(axes.T, before[None], after[None]).T


def rested(scalp, foot, axes, distance):
    """Pose whose axis meets the scalp at `foot`, raised along it to a gap under the footprint."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, foot
    matrix[:3, 3] -= (distance - min(gap_under(matrix, scalp), 0.0)) * axes[:, 2]
    return Pose(matrix)


def gap_under(matrix, scalp) -> float:
    """Smallest z, in coordinates of the coil, of the scalp nodes under its footprint, m; infinite where none is."""
    return _into_coil(matrix, scalp.nodes, *FOOTPRINT_M, np.empty_like(scalp.nodes))


@njit(cache=True)
def _under_coils(matrices, nodes, triangles, half_x, half_y):
    """What coils see of the scalp along their axes.

    For each coil the smallest z of the scalp nodes under its footprint, and the z at which its axis meets the scalp
    nearest to it, infinite where it misses; then pairs of coil and triangle that meet there, several on an edge.
    """
    gaps, nearest = np.full(len(matrices), np.inf), np.full(len(matrices), np.inf)
    local = np.empty_like(nodes)
    owners, met = [0 for _ in range(0)], [0 for _ in range(0)]
    for p in range(len(matrices)):
        gaps[p] = _into_coil(matrices[p], nodes, half_x, half_y, local)
        crossed, heights = [0 for _ in range(0)], [0.0 for _ in range(0)]
        for t in range(len(triangles)):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            if _astride(local[a, 0], local[b, 0], local[c, 0]) and _astride(local[a, 1], local[b, 1], local[c, 1]):
                height = _height_on_axis(local[a], local[b], local[c])
                if height < np.inf:
                    crossed.append(t)
                    heights.append(height)
                    nearest[p] = height if abs(height) < abs(nearest[p]) else nearest[p]
        for t, height in zip(crossed, heights):
            if abs(height - nearest[p]) < _ONE_POINT_M:
                owners.append(p)
                met.append(t)
    return gaps, nearest, np.array(owners, dtype=np.int64), np.array(met, dtype=np.int64)


@njit(cache=True)
def _into_coil(matrix, nodes, half_x, half_y, local):
    """Fill in the nodes in coordinates of the coil; returns the smallest z under its footprint."""
    axes, centre = matrix[:3, :3], matrix[:3, 3]
    gap = np.inf
    for i in range(len(nodes)):
        x, y, z = nodes[i, 0] - centre[0], nodes[i, 1] - centre[1], nodes[i, 2] - centre[2]
        for k in range(3):
            local[i, k] = x * axes[0, k] + y * axes[1, k] + z * axes[2, k]
        if abs(local[i, 0]) < half_x and abs(local[i, 1]) < half_y:
            gap = min(gap, local[i, 2])
    return gap


@njit(cache=True)
def _astride(a, b, c):
    return min(a, b, c) <= _ONE_POINT_M and max(a, b, c) >= -_ONE_POINT_M


@njit(cache=True)
def _height_on_axis(a, b, c):
    """Z at which the z axis meets triangle abc, its edges included to rounding; infinity where it misses."""
    ab, bc, ca = a[0] * b[1] - a[1] * b[0], b[0] * c[1] - b[1] * c[0], c[0] * a[1] - c[1] * a[0]
    area = ab + bc + ca
    # twice an area over the length of a side is a distance from it; sides are shorter than 0.1 m
    edge = 0.1 * _ONE_POINT_M
    outside = min(ab, bc, ca) < -edge if area > 0 else max(ab, bc, ca) > edge
    if outside or abs(area) < 1e-14:
        return np.inf
    return (ab * c[2] + bc * a[2] + ca * b[2]) / area
