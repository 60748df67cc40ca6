"""Whether a coil that is placed by a pose stays out of the head."""

import numpy as np

from ..errors import PoseError
from .scalp import Scalp

_TOUCH_M = 1e-4  # a casing that touches the scalp is not in it, whatever the rounding of a pose file


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


def check_coil_outside(coil, poses, head) -> None:
    """Refuse poses that put part of the coil into the head.

    Dipoles and wire are windings, some mm above the casing's underside, so the middle of the underside (the origin of
    the coil frame) is asked for too; of a sampled field it is all that is known.

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
    what = "points of the wire and dipoles" if len(coil.segments) else "dipoles"
    sampled = not (len(coil.segments) or len(coil.positions))
    for index, pose in enumerate(poses):
        positions = coil.sources(pose)[: 0 if sampled else None]
        inside = positions[scalp.inside(positions)]
        if len(inside):
            found = f"{len(inside)} of {len(positions)} {what} lie inside the head, the deepest"
            depth = _depth_m(scalp, inside)
        else:
            found = "no winding, but the middle of the casing's underside lies inside the head,"
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
