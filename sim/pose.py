"""Grids of coil poses over the scalp, and all else that has to do with poses, offered in one place.

`Pose` and `unique_poses` are written in `rigid`, `read_poses`, `read_markers` and `write_poses` in `pose_files`.
"""

import numpy as np

from ..errors import PoseError
from .pose_files import read_markers, read_poses, write_poses
from .rigid import Pose, unique_poses
from .scalp import Scalp

__all__ = [
    "FOOTPRINT_M",
    "Pose",
    "grid_poses",
    "random_poses",
    "read_markers",
    "read_poses",
    "tangential_pose",
    "unique_poses",
    "write_poses",
]

FOOTPRINT_M = (0.095, 0.050)
"""Half width (along the coil's x) and half depth (along y) of the casing of a 70 mm figure of eight, m."""


def tangential_pose(scalp, point_m, angle_deg: float, distance_m: float, left: bool, footprint_m=FOOTPRINT_M) -> Pose:
    """Pose of a flat coil that rests on the scalp over a point.

    The coil's plane is tangent to the scalp smoothed over 10 mm. The coil is raised along the normal until the smallest
    gap between the casing's plane and the scalp under its footprint is `distance_m`: over a convex head that is the
    distance at the point itself; over a hollow the coil rests on the hollow's rim.

    Parameters
    ----------
    scalp : Head or Scalp
    point_m : array_like (3,)
        Its closest scalp point lies under the coil's centre, m.
    angle_deg : float
        Angle between handle and midline: 0 points the handle backwards, 45 backwards and to the side, away from the
        midline.
    distance_m : float
        Smallest gap between casing and scalp, m.
    left : bool
        Whether the point belongs to the left hemisphere.
    footprint_m : pair of float
        Half extents of the casing along the coil's x and y, m.

    Returns
    -------
    Pose

    Raises
    ------
    PoseError
        Where the scalp faces forwards or backwards, so that the angle to the midline means nothing.
    """
    scalp = Scalp.of(scalp)
    point, normal = scalp.closest(point_m)[0][0], scalp.normals(point_m)[0]
    if abs(normal[1]) > 0.95:
        raise PoseError(
            f"tangential pose at {np.round(point * 1e3, 1)} mm: the scalp faces straight forwards or backwards there, "
            "so the handle's angle to the midline is undefined. Choose a point over the motor cortex."
        )
    forwards, aside = tangents(normal, left)
    turn = np.deg2rad(angle_deg)
    y = np.cos(turn) * forwards + np.sin(turn) * aside
    z = -normal
    axes = np.stack([np.cross(y, z), y, z], axis=1)
    local = (scalp.nodes - point) @ axes
    under = (np.abs(local[:, 0]) < footprint_m[0]) & (np.abs(local[:, 1]) < footprint_m[1])
    bump = max(0.0, -local[under, 2].min(initial=0.0))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, point + (distance_m + bump) * normal
    return Pose(matrix)


def tangents(normals, left):
    """Unit vectors of tangent planes (..., 3): forwards (RAS +y), and where the handle's angle turns to.

    That is to the right in the left hemisphere. Where the normal is forwards or backwards, both are zero.
    """
    forwards = np.array([0.0, 1.0, 0.0]) - normals[..., 1:2] * normals
    forwards /= np.maximum(np.sqrt(np.vecdot(forwards, forwards)), 1e-12)[..., None]
    right = np.cross(forwards, normals)
    return forwards, right if left else -right


def _walk(scalp, origin, offsets, step_m=0.002):
    """Scalp points (n, 3) reached from `origin` by going straight ahead over the surface.

    `offsets` (n, 2) are path lengths to the right and forwards, m: direction and length of each walk.
    """
    normal = scalp.normals(origin)[0]
    forwards, right = tangents(normal, True)
    lengths = np.linalg.norm(offsets, axis=1)
    steps = max(1, int(np.ceil(lengths.max(initial=0.0) / step_m)))
    heading = offsets @ np.stack([right, forwards]) / np.maximum(lengths, 1e-12)[:, None]
    points = np.repeat(origin[None], len(offsets), axis=0)
    moving = lengths > 0
    for _ in range(steps if moving.any() else 0):
        normals = scalp.normals(points[moving])
        ahead = heading[moving]
        ahead = ahead - (ahead * normals).sum(axis=1, keepdims=True) * normals
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        heading[moving] = ahead
        points[moving] = scalp.closest(points[moving] + ahead * (lengths[moving] / steps)[:, None])[0]
    return points


def grid_poses(
    head, centre_m, n: int = 7, spacing_m: float = 4.4e-3, angle_deg: float = 45.0, distance_m: float = 4e-3
) -> list[Pose]:
    """Square grid of tangential poses on the scalp around a point of the cortex.

    The grid's centre is the scalp point closest to `centre_m`; the others lie at their path lengths over the scalp to
    the right and forwards. The default is the 7 × 7 grid over 7 cm² of the M2M-Net paper (section 2.1). The handle
    points backwards and to the side at `angle_deg` from the midline; the side is that of `centre_m` (x ≤ 0 is left).

    Parameters
    ----------
    head : Head or Scalp
        RAS coordinates, m.
    centre_m : array_like (3,)
        The hand knob, say, m.
    n : int
        Points per side, odd, so that one is in the middle.
    spacing_m, angle_deg, distance_m : float
        Spacing over the scalp, angle between handle and midline, smallest gap between casing and scalp.

    Returns
    -------
    list of Pose
        n² poses; pose i·n + j is column i from left to right and row j from back to front; n² // 2 is the middle one.

    Raises
    ------
    PoseError
        Where `n` is even or not positive, or the scalp faces forwards or backwards.

    Examples
    --------
    >>> poses = grid_poses(head, (-0.037, -0.021, 0.058))     # doctest: +SKIP
    >>> hotspot = poses[len(poses) // 2]                      # doctest: +SKIP
    """
    if n < 1 or n % 2 == 0:
        raise PoseError(
            f"grid of coil poses: {n} points per side has no point in the middle, and the middle pose is the hotspot "
            "that the motor threshold refers to. Give an odd number of points, such as 7."
        )
    scalp = Scalp.of(head)
    ticks = (np.arange(n) - n // 2) * spacing_m
    offsets = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    points = _walk(scalp, scalp.closest(centre_m)[0][0], offsets)
    left = centre_m[0] <= 0
    return [tangential_pose(scalp, point, angle_deg, distance_m, left) for point in points]


def random_poses(
    head,
    centre_m,
    count: int,
    radius_m: float = 0.015,
    angle_deg: float = 45.0,
    angle_spread_deg: float = 30.0,
    distance_m: float = 4e-3,
    *,
    seed: int,
) -> list[Pose]:
    """Random tangential poses around a point of the cortex.

    Positions are uniform over the disc of scalp within `radius_m` of the point closest to `centre_m`; handle angles are
    uniform within `angle_spread_deg` of `angle_deg`.

    Parameters
    ----------
    head, centre_m, angle_deg, distance_m
        As in `grid_poses`.
    count : int
        Number of poses. The first k of a longer list are those of a list of k.
    radius_m, angle_spread_deg : float
        Radius of the disc over the scalp, m; half width of the range of angles, degrees.
    seed : int
        Of numpy's default generator.

    Returns
    -------
    list of Pose
    """
    scalp = Scalp.of(head)
    draws = np.random.default_rng(seed).random((count, 3))
    radius, phi = radius_m * np.sqrt(draws[:, 0]), 2 * np.pi * draws[:, 1]
    offsets = np.stack([radius * np.cos(phi), radius * np.sin(phi)], axis=1)
    # one walk each: the number of steps, and so the last bits, must not depend on the other poses
    origin = scalp.closest(centre_m)[0][0]
    points = [_walk(scalp, origin, offset[None])[0] for offset in offsets]
    angles = angle_deg + angle_spread_deg * (2 * draws[:, 2] - 1)
    left = centre_m[0] <= 0
    return [tangential_pose(scalp, point, angle, distance_m, left) for point, angle in zip(points, angles)]
