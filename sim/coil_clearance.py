"""Whether a coil that is placed by a pose stays out of the head, near it, and knows its field all over it."""

import numpy as np
from scipy.spatial import ConvexHull

from ..errors import PoseError
from .quotation import quoted
from .scalp import Scalp

_TOUCH_M = 1e-4  # a casing that touches the scalp is not in it, whatever the rounding of a pose file
_FARTHEST_M = 0.1


def coil_inside_head(coil, pose, head) -> int:
    """Number of the coil's sources (see `Coil.sources`) that lie inside the head's outer surface.

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
    return int(Scalp.of(head).inside(coil.sources(pose)).sum())


def check_coil_outside(coil, poses, head, *, from_grid: bool = False) -> None:
    """Refuse poses that put part of the coil into the head, or the coil so far away that nothing is stimulated.

    Dipoles and wire are windings, some mm above the casing's underside, so the middle of the underside (the origin of
    the coil frame) is asked for too; of a sampled field it is all that is known.

    Parameters
    ----------
    coil : Coil
    poses : sequence of Pose
    head : Head or Scalp
    from_grid : bool
        Whether the poses were made at a chosen distance from the scalp, which can be raised.

    Raises
    ------
    PoseError
        Naming the first such pose by index, name and marker, what is wrong with it and by how many millimetres, and
        how many poses are affected.
    """
    scalp = Scalp.of(head)
    apart = _apart_m(scalp, poses)
    affected = [i for i, pose in enumerate(poses) if apart[i] > _FARTHEST_M or _is_inside(coil, pose, scalp)]
    if not affected:
        return
    index = affected[0]
    where = f"{_named(index, poses[index])}{_others(affected, poses)} of coil {coil.name!r}"
    if apart[index] > _FARTHEST_M:
        raise PoseError(
            f"{where}: the coil's centre is {1e3 * apart[index]:.0f} mm from the scalp; no stimulus is given from "
            "there. Remove the pose (and its trials), or check that it belongs to this head (same subject, "
            "millimetres, RAS)."
        )
    outwards = "Move the coil outwards along -z, raise distance_mm" if from_grid else "Move the coil outwards along -z"
    raise PoseError(
        f"{where}: {_found_inside(coil, poses[index], scalp)} below its surface. No coil can be held there, and the "
        "field of a current source inside the conductor is not what this solver computes. "
        f"{outwards}, or check that the pose belongs to this head (same subject, millimetres, RAS)."
    )


def check_grids_hold_head(coil, poses, head) -> None:
    """Refuse poses at which part of the head lies outside a field of the coil that is known only on a grid.

    The grid is a parallelepiped, so the corners of the head's convex hull tell of all its points.

    Parameters
    ----------
    coil : Coil
        One without sampled fields passes.
    poses : sequence of Pose
    head : Head or Scalp

    Raises
    ------
    PoseError
        Naming the first such pose, how far the head reaches out of the grid, and how many poses are affected.
    """
    if not coil.grids:
        return
    outermost = head.nodes[ConvexHull(head.nodes).vertices]
    missing = [max(_missing_m(grid, pose, outermost) for grid in coil.grids) for pose in poses]
    affected = [i for i, missed in enumerate(missing) if missed > 0]
    if affected:
        index = affected[0]
        raise PoseError(
            f"{_named(index, poses[index])}{_others(affected, poses)} of coil {coil.name!r}: the head reaches "
            f"{1e3 * missing[index]:.0f} mm out of the coil's sampled field, which is not known there and not zero; "
            "use a coil of dipoles or wire, or a grid that holds the whole head, or cut the head to what the grid "
            "holds."
        )


def _missing_m(grid, pose, points):
    """How far the farthest of the points lies outside the grid, along its axes, m; 0 where all are inside."""
    inverse = np.linalg.inv(pose.matrix @ grid.affine)
    at = points @ inverse[:3, :3].T + inverse[:3, 3]
    last = np.array(grid.values.shape[:3]) - 1
    out = np.maximum(-at, at - last)
    # the interpolation allows the same for rounding
    return (np.where(out > 1e-9 * last, out, 0) * np.linalg.norm(grid.affine[:3, :3], axis=0)).max()


def _apart_m(scalp, poses):
    """Distance of each coil's centre from the scalp, inside or outside of it, m."""
    centres = np.array([pose.centre_m for pose in poses]).reshape(-1, 3)
    return np.linalg.norm(scalp.closest(centres)[0] - centres, axis=1) if len(centres) else np.zeros(0)


def _windings(coil, pose):
    """Points of dipoles and wire in head coordinates; none where all the coil is a sampled field."""
    return coil.sources(pose)[: None if len(coil.segments) or len(coil.positions) else 0]


def _is_inside(coil, pose, scalp):
    return scalp.inside(_windings(coil, pose)).any() or _depth_m(scalp, pose.centre_m[None]) > _TOUCH_M


def _found_inside(coil, pose, scalp):
    positions = _windings(coil, pose)
    inside = positions[scalp.inside(positions)]
    if not len(inside):
        depth = _depth_m(scalp, pose.centre_m[None])
        return f"no winding, but the middle of the casing's underside lies inside the head, {1e3 * depth:.1f} mm"
    what = "points of the wire and dipoles" if len(coil.segments) else "dipoles"
    depth = _depth_m(scalp, inside)
    return f"{len(inside)} of {len(positions)} {what} lie inside the head, the deepest {1e3 * depth:.1f} mm"


def _named(index, pose):
    """A pose as people know it: by its name and marker where it is from a file."""
    known = [quoted(pose.name)] if pose.name else []
    known += [] if pose.number is None else [f"marker {pose.number}"]
    return f"pose {index} ({', '.join(known) or pose.id})"


def _others(affected, poses):
    return f" and {len(affected) - 1} more of {len(poses)} poses" if len(affected) > 1 else ""


def _depth_m(scalp, points_m):
    """How far the deepest of the points lies below the surface, m; 0 where all are outside."""
    inside = points_m[scalp.inside(points_m)]
    return np.linalg.norm(scalp.closest(inside)[0] - inside, axis=1).max() if len(inside) else 0.0
