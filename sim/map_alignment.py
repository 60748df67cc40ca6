"""A motor map that was measured on another head, brought onto this one.

Positions of a navigator mean nothing on a head that they were not measured on. What a map keeps there is its shape and,
as far as heads are alike, how it lies: a patch over the hand's motor cortex, parallel to the scalp.
"""

import numpy as np

from ..errors import InputError
from .position_columns import OPPOSITE, axes_matrix
from .scalp import Scalp

ALIGNMENTS = {
    "hand-knob": "their centre at the hand knob",
    "scalp": "their centre at the scalp over the hand knob",
}
"""Ways to align, and where the centre of the positions comes to lie."""

_LARGEST_TURN_DEG = 45.0
_SMOOTH_M = 0.02
_LEAST_WIDTH_M, _THICKEST = 1e-3, 0.5
_HOLLOW_M, _HOLLOW_T = 1e-3, 4.0


def alignment(points_m, scalp, knob_m, onto: str = "hand-knob", axes: str = "RAS", centre_m=None) -> np.ndarray:
    """Rigid motion that brings the positions of a map from another head onto this one.

    The axes are renamed to RAS; the plane that fits the positions best is turned the shortest way until it is parallel
    to the scalp over the hand knob (smoothed over 20 mm); then the centre is moved to its place. The direction within
    the plane is therefore that of the other head's axes, and the map's place an assumption. Responses play no part.

    Parameters
    ----------
    points_m : array_like (n, 3)
        Positions in the other head's coordinates, m.
    scalp : Head or Scalp
    knob_m : array_like (3,)
        This head's hand knob, m.
    onto : {"hand-knob", "scalp"}
        Where the centre goes: to the hand knob (positions in the cortex, such as a navigator's field maximum), or to
        the scalp over it (positions of the coil).
    axes : str
        As in `axes_matrix`.
    centre_m : array_like (3,), optional
        The map's centre in the other head's coordinates, m; without it the mean of the positions.

    Returns
    -------
    ndarray (4, 4)
        Homogeneous; its determinant is -1 for left-handed axes.

    Raises
    ------
    InputError
        Where the positions are no patch, or lie in a way that no map over the hand knob does.

    Examples
    --------
    >>> motion = alignment(points, head, (-0.037, -0.021, 0.058), axes="LSA")     # doctest: +SKIP
    """
    points, scalp = np.asarray(points_m, np.float64).reshape(-1, 3), Scalp.of(scalp)
    to_ras, knob = axes_matrix(axes), np.asarray(knob_m, np.float64)
    outwards = scalp.normals(knob, _SMOOTH_M)[0]
    normal = _normal(points @ to_ras.T, outwards, axes)
    centre = points.mean(axis=0) if centre_m is None else np.asarray(centre_m, np.float64)
    motion = np.eye(4)
    motion[:3, :3] = _shortest_turn(normal, outwards) @ to_ras
    motion[:3, 3] = (knob if onto == "hand-knob" else scalp.closest(knob)[0][0]) - motion[:3, :3] @ centre
    return motion


def _normal(points, outwards, axes):
    """Unit normal of the plane that fits best, away from the head; refused where it cannot be that of a map."""
    centred = points - points.mean(axis=0)
    _, spread, ways = np.linalg.svd(centred, full_matrices=False) if len(points) > 2 else (None, np.zeros(3), None)
    width, thickness = spread[1:] / np.sqrt(len(points))
    if width < _LEAST_WIDTH_M or thickness > _THICKEST * width:
        raise InputError(
            f"aligning {len(points)} positions: they spread over {1e3 * width:.1f} mm (standard deviation) across the "
            f"line and {1e3 * thickness:.1f} mm across the plane that fit them best, so they are no patch of scalp or "
            "cortex, and how it lies cannot be told. Give positions of this head and align = 'none'."
        )
    normal = ways[2] if ways[2] @ outwards > 0 else -ways[2]
    angle = np.rad2deg(np.arccos(min(1.0, normal @ outwards)))
    if angle > _LARGEST_TURN_DEG:
        raise InputError(
            f"aligning {len(points)} positions: with axes {axes} their plane is {angle:.0f} degrees off the scalp over "
            f"the hand knob, more than the {_LARGEST_TURN_DEG:.0f} by which heads differ. {_mend(axes)}"
        )
    if _is_hollow(centred, ways[:2], normal):
        raise InputError(
            f"aligning {len(points)} positions: with axes {axes} they lie like the inside of a bowl, not like a patch "
            f"of a head. {_mend(axes)}"
        )
    return normal


def _mend(axes):
    mirrored = "".join(letter.translate(OPPOSITE) if letter in "RL" else letter for letter in axes)
    return (
        "Correct [poses] axes: the letters tell where x, y and z point to (Nexstim: LSA); for a map of the other "
        f"hemisphere give {mirrored}, or the hand knob of that side."
    )


def _is_hollow(centred, ways, normal):
    """Whether the rim lies farther outwards than the middle: least squares, by 1 mm and four standard errors."""
    flat = centred @ ways.T
    square = (flat**2).sum(axis=1)
    design = np.c_[np.ones(len(flat)), flat, square]
    if len(flat) <= design.shape[1] + 1:
        return False
    height = centred @ normal
    coefficient = np.linalg.lstsq(design, height, rcond=None)[0]
    variance = ((height - design @ coefficient) ** 2).sum() / (len(flat) - design.shape[1])
    error = np.sqrt(variance * np.linalg.pinv(design.T @ design)[3, 3])
    return coefficient[3] * np.percentile(square, 95) > _HOLLOW_M and coefficient[3] > _HOLLOW_T * error


def _shortest_turn(start, end):
    """Rotation (3, 3) about the axis at right angles to both that takes a unit vector to another, not opposite one."""
    axis = np.cross(start, end)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)
