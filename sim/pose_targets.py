"""Poses over places that were stimulated, where the coil's orientation is not known."""

import numpy as np

from ..errors import PoseError
from .map_alignment import alignment
from .markers import Target
from .pose import tangential_pose
from .position_columns import axes_matrix
from .rigid import Pose
from .scalp import Scalp

__all__ = ["FARTHEST_M", "Target", "place_targets"]

FARTHEST_M = 0.060
"""Of a target from the scalp: deeper no field of a coil stimulates, farther out no coil does."""


def place_targets(
    head,
    targets,
    knob_m,
    angle_deg: float = 45.0,
    distance_m: float = 4e-3,
    *,
    align: str = "none",
    axes: str = "RAS",
    centre_m=None,
) -> list[Pose]:
    """Tangential poses over the scalp points nearest to the targets.

    Parameters
    ----------
    head : Head or Scalp
        RAS coordinates, m.
    targets : sequence of Target
        Coil centres or places in the cortex, as `read_markers` gives them for a table of positions.
    knob_m : array_like (3,)
        The hand knob, m; its side of the head (x ≤ 0 is left) is where the handles' angle turns to.
    angle_deg, distance_m : float
        As in `tangential_pose`; the angle counts for targets that have none.
    align : {"none", "hand-knob", "scalp"}
        ``"none"`` for positions in this head's coordinates; else see `alignment`.
    axes : str
        Where the positions' x, y and z point to: see `axes_matrix`.
    centre_m : array_like (3,), optional
        As in `alignment`.

    Returns
    -------
    list of Pose
        One for each target, with its number.

    Raises
    ------
    PoseError
        Where a target is farther from the scalp than `FARTHEST_M`, or over face or neck.
    InputError
        Where positions cannot be aligned.

    Examples
    --------
    >>> targets = [target for target in read_markers("map.csv") if target]                    # doctest: +SKIP
    >>> poses = place_targets(head, targets, (-0.037, -0.021, 0.058), align="hand-knob")      # doctest: +SKIP
    """
    scalp = Scalp.of(head)
    points = np.array([target.point_m for target in targets])
    if align == "none":
        points = points @ axes_matrix(axes).T
    else:
        motion = alignment(points, scalp, knob_m, align, axes, centre_m)
        points = points @ motion[:3, :3].T + motion[:3, 3]
    _check_near(scalp, points, targets, align)
    left = knob_m[0] <= 0
    poses = []
    for target, point in zip(targets, points):
        angle = angle_deg if target.angle_deg is None else target.angle_deg
        pose = tangential_pose(scalp, point, angle, distance_m, left)
        poses.append(Pose(pose.matrix, number=target.number))
    return poses


def _check_near(scalp, points, targets, align):
    apart = np.linalg.norm(scalp.closest(points)[0] - points, axis=1)
    far = np.flatnonzero(apart > FARTHEST_M)
    if not len(far):
        return
    first = far[0]
    remedy = (
        'give the positions in its coordinates (RAS, mm), or bring the map onto it: [poses] align = "hand-knob"'
        if align == "none"
        else "check align_centre_mm and the positions, and leave out those that are no part of the map"
    )
    raise PoseError(
        f"laying the coil over positions: {len(far)} of {len(points)} are over {1e3 * FARTHEST_M:.0f} mm from the "
        f"scalp (the first, row {targets[first].number}, {1e3 * apart[first]:.0f} mm), where no coil stimulates; they "
        f"are not of this head. Check them: {remedy}."
    )
