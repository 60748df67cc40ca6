"""Tables of positions: places that were stimulated, without the coil's orientation.

A column is a coordinate if its title is x, y or z in mm, whatever navigators and people write around it: ``x_mm``,
``X [mm]``, ``Loc. X``, ``EF max y (mm)``. Beside them there may be ``angle_deg``, the angle between handle and midline,
and any other columns, such as the responses.
"""

import re

import numpy as np

from ..errors import InputError, PoseError
from .markers import Marker, finite_number
from .quotation import quoted

_BEFORE = r"(?:(?:coil|loc|location|pos|position|target|centre|center|coord|e-?field|ef|max|peak|mni)[\s._-]*)*"
_COORDINATE = re.compile(_BEFORE + r"([xyz])[\s._-]*(?:mm|\[mm\]|\(mm\))?")
_ANGLE = re.compile(r"(?:handle|coil)?[\s._-]*angle[\s._-]*(?:deg|\[deg\]|\(deg\)|°|\[°\])?")
_LONGEST_TITLE = 60

OPPOSITE = str.maketrans("RLAPSI", "LRPAIS")
"""Of the letters that name directions of axes."""

_EMPTY = ("", "-", "nan", "na", "n/a", "null", "(null)")


def coordinate(title) -> str | None:
    """Which of x, y, z and angle a column's title names, or None.

    Examples
    --------
    >>> [coordinate(title) for title in ("X [mm]", "Loc. Y", "z_mm", "angle_deg", "FDI [uV]")]
    ['x', 'y', 'z', 'angle', None]
    """
    title = title.strip().lower()
    if len(title) > _LONGEST_TITLE:
        return None
    found = _COORDINATE.fullmatch(title)
    return found[1] if found else "angle" if _ANGLE.fullmatch(title) else None


def has_positions(header) -> bool:
    """Whether a table with this header holds positions."""
    return set("xyz") <= {coordinate(title) for title in header}


def position_markers(path, header, rows) -> list[Marker]:
    """Markers of a table of positions.

    Parameters
    ----------
    path : Path
        For messages.
    header : list of str
    rows : list of (int, list of str)
        Line number and fields.

    Returns
    -------
    list of Marker
        With a point, and an angle where there is one, in place of a matrix; without either where all three coordinates
        are empty.

    Raises
    ------
    PoseError
        Naming file, line and column, where a coordinate is there twice, or a number missing or damaged.
    """
    where = _places(path, header)
    markers = []
    for number, fields in rows:
        if len(fields) != len(header):
            raise PoseError(
                f"reading positions from {path}, line {number}: found {len(fields)} fields where the header names "
                f"{len(header)} columns, so the coordinates cannot be told. Repair the line."
            )
        markers.append(_marker(path, number, fields, header, where))
    points = [marker.point_mm for marker in markers if marker.tracked]
    if points and max(abs(value) for point in points for value in point) < 1:
        raise PoseError(
            f"reading positions from {path}: no coordinate is as large as 1, so all positions would lie deep in the "
            "head; they are probably in metres. Write them in millimetres."
        )
    return markers


def _places(path, header):
    where = {}
    for column, title in enumerate(header):
        name = coordinate(title)
        if name in where:
            raise PoseError(
                f"reading positions from {path}, line 1: columns {quoted(header[where[name]])} and {quoted(title)} "
                f"both name {name}, and which of them counts cannot be told. Remove or rename one of them."
            )
        if name:
            where[name] = column
    return where


def _marker(path, number, fields, header, where):
    place = f"line {number}"
    texts = [fields[where[axis]] for axis in "xyz"]
    if all(text.lower() in _EMPTY for text in texts):
        return Marker(place, None, problem="the row has no position")
    numbers = {
        name: finite_number(
            fields[column],
            f"reading positions from {path}, {place}, column {quoted(header[column])}",
            "a position with a hole in it cannot be simulated. Repair the line, or leave x, y and z empty for a "
            "stimulus whose place is not known",
        )
        for name, column in where.items()
    }
    return Marker(place, None, point_mm=tuple(numbers[axis] for axis in "xyz"), angle_deg=numbers.get("angle"))


def axes_matrix(axes: str) -> np.ndarray:
    """Matrix (3, 3) that turns coordinates along named axes into RAS.

    Parameters
    ----------
    axes : str
        Where x, y and z point to, a letter for each: R or L (right, left), A or P (front, back), S or I (up, down).

    Returns
    -------
    ndarray (3, 3)
        A signed permutation; its determinant is -1 for a left-handed system.

    Raises
    ------
    InputError
        Where the letters do not name three axes.

    Examples
    --------
    >>> axes_matrix("LSA") @ [1, 2, 3]   # Nexstim: x to the left, y up, z to the front
    array([-1.,  3.,  2.])
    """
    pairs = [{letter, letter.translate(OPPOSITE)} for letter in axes]
    if len(axes) != 3 or any({*"RAS"}.isdisjoint(pair) for pair in pairs) or len(set(map(frozenset, pairs))) != 3:
        raise InputError(
            f"axes of positions: {axes!r} does not tell where x, y and z point to. Give three letters, one of R and L, "
            "one of A and P, one of S and I in their order, such as RAS (right, front, up) or LSA (left, up, front)."
        )
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row = "RAS".find(letter)
        matrix[row if row >= 0 else "LPI".find(letter), column] = 1.0 if row >= 0 else -1.0
    return matrix
