"""Coil poses out of the text files that Brainsight exports.

A file is text in UTF-8, its fields are separated by tabs, lengths are in mm. After some lines ``# key: value`` come
sections, each with a line of column names that begins with ``#``: targets (column ``Target Name``), samples (``Sample
Name``), electrodes, landmarks. ``Loc. X``, ``Loc. Y``, ``Loc. Z`` are the centre and ``m0n0`` … ``m2n2`` the axes: m
counts axes, n components. Brainsight's x and z are opposite to those of SimNIBS: M · diag(-1, 1, -1, 1). What has no
value is ``(null)``.

Coordinates are those of the head model only if they are those of the NIfTI file: ``NIfTI:Aligned`` or ``NIfTI:Scanner``
up to version 13 of the format, ``NIfTI:Q:…`` (of its q-form) or ``NIfTI:S:…`` (of its s-form) from version 14 on.
"""

import re

import numpy as np

from ..errors import PoseError
from .markers import Marker, chosen_section, finite_number
from .quotation import quoted

_CENTRE = ("Loc. X", "Loc. Y", "Loc. Z")
_AXES = tuple(f"m{axis}n{component}" for axis in range(3) for component in range(3))
_SECTION_OF = {"Sample Name": "samples", "Target Name": "targets"}
_USABLE = re.compile(r"NIfTI:(Aligned|Scanner|[QS]:.+)", re.IGNORECASE)
_EMPTY = ("", "(null)")
_TO_SIMNIBS = np.diag([-1.0, 1.0, -1.0, 1.0])


def read_brainsight(path, section=None) -> list[Marker]:
    """Read a Brainsight text export.

    Parameters
    ----------
    path : Path
    section : {"samples", "targets"}, optional
        Without it the samples, or else the targets.

    Returns
    -------
    list of Marker
        In the order of the file; without a matrix where the coil was not tracked.

    Raises
    ------
    PoseError
        Naming file and line, where it is no such export, its coordinates are not those of the head's NIfTI file, a
        column is missing or a number is damaged.
    """
    lines = _lines(path)
    _check_coordinates(path, lines)
    rows = chosen_section(path, _rows_by_section(lines), section)
    return [_marker(path, *row) for row in rows]


def _lines(path):
    """Pairs (number from 1, text) of lines that are not empty, whatever the line ends."""
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise PoseError(
            f"reading coil poses from {path}: byte {error.start} is not {encoding[:6].upper()}, in which Brainsight "
            "writes, so the file is damaged or was saved by another program. Export it again."
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _check_coordinates(path, lines):
    """Refuse coordinates that are not those of the NIfTI file, and lengths that are not in mm."""
    systems = _values(lines, "coordinate system")
    if not systems:
        raise PoseError(
            f"reading coil poses from {path}: no line '# Coordinate system: …', so this is no Brainsight export, or "
            "one without its head. Export the session again; give SimNIBS matrices as .csv or .mat."
        )
    for number, system in systems:
        if not _USABLE.fullmatch(system):
            raise PoseError(
                f"reading coil poses from {path}, line {number}: the coordinate system is {quoted(system)}, which is "
                "not that of the head model, so the coil would be somewhere else. Export again from Brainsight with "
                "the NIfTI coordinate system (NIfTI:Aligned, NIfTI:Scanner, NIfTI:Q:… or NIfTI:S:…) of the image that "
                "the head was made from."
            )
    for number, units in _values(lines, "units"):
        if not re.search(r"\b(milli(metre|meter)s?|mm)\b", units, re.IGNORECASE):
            raise PoseError(
                f"reading coil poses from {path}, line {number}: the units are {quoted(units)}, but lengths are "
                "expected in millimetres. Export again in millimetres."
            )


def _values(lines, key):
    matches = [(number, re.match(rf"#\s*{key}\s*:\s*(.*)", line, re.IGNORECASE)) for number, line in lines]
    return [(number, match[1].strip()) for number, match in matches if match]


def _rows_by_section(lines):
    """Rows (line number, columns, fields) of samples and of targets, unread as yet."""
    found = {"samples": [], "targets": []}
    columns, section = [], None
    for number, line in lines:
        fields = [field.strip() for field in line.split("\t")]
        if line.startswith("#"):
            fields[0] = fields[0].lstrip("# ")
            if any(field.endswith(" Name") for field in fields):
                columns = fields
                section = next((_SECTION_OF[field] for field in fields if field in _SECTION_OF), None)
        elif section:
            found[section].append((number, columns, fields))
    return found


def _marker(path, number, columns, fields):
    where = f"reading coil poses from {path}, line {number}"
    missing = [name for name in _CENTRE + _AXES if name not in columns]
    if missing:
        raise PoseError(
            f"{where}: the section has no column {', '.join(missing)}, so its coil cannot be placed. Export again with "
            "location and orientation."
        )
    row = dict(zip(columns, fields))
    lost = [name for name in _CENTRE + _AXES if name not in row]
    if lost:
        raise PoseError(
            f"{where}: found {len(fields)} fields where the section names {len(columns)} columns; {lost[0]} is not "
            "there. Repair or remove the line."
        )
    name = next(row.get(title, "") for title in _SECTION_OF if title in columns)
    turned, placed = (any(row[title] not in _EMPTY for title in titles) for titles in (_AXES, _CENTRE))
    if not (turned and placed):
        problem = "no orientation" if placed else "no location" if turned else "not tracked ((null))"
        return Marker(f"line {number}", None, name, problem=problem)
    axes, centre = (
        [finite_number(row[title], f"{where}, column {title!r}") for title in titles] for titles in (_AXES, _CENTRE)
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.reshape(axes, (3, 3)).T, centre
    return Marker(f"line {number} ({quoted(name)})", matrix @ _TO_SIMNIBS, name)
