"""Reading and writing coil poses. Files are in millimetres, poses in metres.

These forms are read:

- CSV with a header of matrix elements, ``m00,m01,m02,m03_mm, … m33`` (row by row; column 3 is the centre in mm), which
  is what `write_poses` writes;
- CSV with a header of the centre and two or three axes, ``centre_x_mm … y_x, y_y, y_z, z_x, z_y, z_z`` (``x_*`` may be
  left out: x = y × z);
- SimNIBS matrices (``matsimnibs``, mm): CSV without a header, four rows of four numbers per pose, or MATLAB ``.mat``;
- text files that Brainsight exports, in NIfTI coordinates (``.txt``, see `brainsight`);
- trigger and instrument markers of the Localite TMS Navigator (``.xml``, see `localite`);
- tables of positions without orientation, ``x_mm,y_mm,z_mm`` (see `position_columns`), which become poses over a head
  (see `pose_targets`).

CSV (``.csv``, ``.tsv``) may be separated by commas, semicolons or tabs; beside the latter two, numbers may have decimal
commas.
"""

import csv
from pathlib import Path

import numpy as np

from ..errors import PoseError
from .brainsight import read_brainsight
from .decimals import DECIMAL_COMMA_BESIDE, with_points
from .localite import read_localite
from .markers import Marker, Target, warn_of_untracked
from .matlab_poses import read_matlab
from .position_columns import has_positions, position_markers
from .quotation import quoted
from .rigid import Pose

MATRIX_COLUMNS = tuple(f"m{i}{j}" + ("_mm" if j == 3 and i < 3 else "") for i in range(4) for j in range(4))
CENTRE_COLUMNS = ("centre_x_mm", "centre_y_mm", "centre_z_mm")
AXIS_COLUMNS = {axis: tuple(f"{axis}_{component}" for component in "xyz") for axis in "xyz"}


def read_poses(path, section=None) -> list[Pose]:
    """Read coil poses from a file.

    Parameters
    ----------
    path : str or Path
        Its suffix picks the reader from `READERS`.
    section : {"samples", "targets"}, optional
        Of a navigator's file (``.txt``, ``.xml``): the stimuli as they happened, or the places where they were planned.
        Without it the samples where there are some, or else the targets.

    Returns
    -------
    list of Pose
        In the order of the file, one per stimulus: the same place twice is there twice (see `unique_poses`). Poses of
        a navigator have its name and, where the file tells it, dI/dt; all have their number in the file.

    Raises
    ------
    PoseError
        Naming file and row, where the file is absent or of an unknown form, a number is missing or not finite, a
        matrix is no rigid transform in millimetres, or the file holds positions without orientation.

    Warns
    -----
    SkippedMarkerWarning
        Where the navigator had lost sight of the coil; such markers are left out.

    Examples
    --------
    >>> poses = read_poses("grid.csv")                             # doctest: +SKIP
    >>> planned = read_poses("session.txt", section="targets")     # doctest: +SKIP
    """
    poses = [pose for pose in read_markers(path, section) if pose is not None]
    if isinstance(poses[0], Target):
        raise PoseError(
            f"reading coil poses from {path}: it holds positions without the coil's orientation, which are no poses "
            "before the coil is laid over a head. Use it as [poses] file of a study, or read_markers and place_targets."
        )
    return poses


def read_markers(path, section=None) -> list[Pose | Target | None]:
    """Read a file as `read_poses` does, with a place kept for each marker that has no pose.

    Other tables number stimuli as the navigator does, those that it did not see included.

    Parameters
    ----------
    path, section
        As in `read_poses`.

    Returns
    -------
    list of Pose, Target or None
        One for each marker of the section; entry i has the number i, or is None where the coil was not tracked. Targets
        throughout where the file is a table of positions.

    Raises
    ------
    PoseError
        As in `read_poses`, and where no marker has a pose.

    Warns
    -----
    SkippedMarkerWarning
        Where markers have no pose, with their numbers.

    Examples
    --------
    >>> [pose is None for pose in read_markers("triggers.xml")]    # doctest: +SKIP
    [False, False, True]
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    reader = READERS.get(suffix)
    if reader is None or not path.is_file():
        found = f"files of type {path.suffix or '(none)'!r} are unknown" if reader is None else "there is no such file"
        raise PoseError(
            f"reading coil poses from {path}: {found}, so there is nothing to simulate. "
            f"Give the path of a file of type {', '.join(READERS)} (see motorsweep.sim.pose_files)."
        )
    if section is not None and suffix not in _SECTIONED:
        raise PoseError(
            f"reading coil poses from {path}: only navigators' files ({', '.join(_SECTIONED)}) have sections such as "
            f"{quoted(section)}. Leave the section out."
        )
    markers = reader(path, section) if suffix in _SECTIONED else reader(path)
    warn_of_untracked(path, markers)
    poses = [_pose(i, marker, path) if marker.tracked else None for i, marker in enumerate(markers)]
    if not any(poses):
        raise PoseError(f"reading coil poses from {path}: the file holds none. Export the poses again.")
    return poses


def write_poses(path, poses) -> None:
    """Write poses as CSV with the header `MATRIX_COLUMNS`, in mm, such that reading gives them back to 1e-12 m.

    Parameters
    ----------
    path : str or Path
        Should end in ``.csv``.
    poses : iterable of Pose
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(MATRIX_COLUMNS)
        for pose in poses:
            matrix = pose.matrix.copy()
            matrix[:3, 3] *= 1e3
            writer.writerow([repr(float(value)) for value in matrix.ravel()])


def _pose(number, marker, path):
    """A pose from a matrix in mm, or a target from a point; errors name file and place."""
    if marker.point_mm is not None:
        return Target(tuple(value * 1e-3 for value in marker.point_mm), marker.angle_deg, number=number)
    matrix = np.array(marker.matrix_mm, dtype=np.float64)
    try:
        with np.errstate(over="ignore"):
            distance_mm = np.linalg.norm(matrix[:3, 3])
        if distance_mm < 1:
            raise PoseError(
                f"coil pose: the centre is {distance_mm:.3g} mm from the origin, deep in the head; the translation is "
                "probably in metres. Write it in millimetres."
            )
        if distance_mm > 1e4:
            raise PoseError(
                f"coil pose: the centre is {distance_mm:.3g} mm from the origin, which no coil is. Repair or remove it."
            )
        matrix[:3, 3] *= 1e-3
        return Pose(matrix, name=marker.name, didt=marker.didt, number=number)
    except PoseError as error:
        raise PoseError(f"reading {path}, {marker.place}: {error}") from error


def _read_csv(path):
    """Markers of a table of poses or positions, or of SimNIBS matrices one below the other."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PoseError(
            f"reading coil poses from {path}: byte {error.start} is not UTF-8, so the columns cannot be told; "
            "save it as CSV UTF-8."
        ) from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((mark for mark in ("\t", ";", ",") if mark in first), None)
    rows = [
        (number, [field.strip(' \t\r"') for field in (line.split(delimiter) if delimiter else line.split())])
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip(" \t;,")
    ]
    if delimiter in DECIMAL_COMMA_BESIDE:
        rows = with_points(rows)
    if not rows:
        return []
    if all(_is_number(field) for field in rows[0][1]):
        return _matrix_blocks(path, rows)
    header = [name.lower().replace("center", "centre") for name in rows[0][1]]
    if not _names_axes(header) and has_positions(header):
        return position_markers(path, header, rows[1:])
    build = _header_form(path, header)
    return [Marker(f"line {number}", build(_named(path, number, header, fields))) for number, fields in rows[1:]]


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(path, number, fields):
    values = np.array([float(field) if _is_number(field) else np.nan for field in fields])
    if not np.isfinite(values).all():
        column = int(np.flatnonzero(~np.isfinite(values))[0])
        raise PoseError(
            f"reading coil poses from {path}, line {number}, column {column + 1}: found {quoted(fields[column])}, not "
            "a finite number, and a pose with a hole in it cannot be simulated. Repair or remove the line."
        )
    return values


def _named(path, number, header, fields):
    if len(fields) != len(header):
        raise PoseError(
            f"reading coil poses from {path}, line {number}: found {len(fields)} fields where the header names "
            f"{len(header)} columns. Repair the line."
        )
    wanted = [(name, field) for name, field in zip(header, fields) if name in _KNOWN_COLUMNS]
    return dict(zip([name for name, _ in wanted], _numbers(path, number, [field for _, field in wanted])))


def _names_axes(header):
    return not _KNOWN_COLUMNS.difference(CENTRE_COLUMNS).isdisjoint(header)


def _header_form(path, header):
    """The function from a row's named numbers to a matrix in mm that suits the header."""
    if set(MATRIX_COLUMNS) <= set(header):
        return lambda row: np.array([row[name] for name in MATRIX_COLUMNS]).reshape(4, 4)
    if {*CENTRE_COLUMNS, *AXIS_COLUMNS["y"], *AXIS_COLUMNS["z"]} <= set(header):
        return _from_axes
    raise PoseError(
        f"reading coil poses from {path}, line 1: the header is {', '.join(header)[:200]!r}, from which no pose can "
        f"be made. Name the columns {', '.join(MATRIX_COLUMNS)} (what write_poses writes), or "
        f"{', '.join(CENTRE_COLUMNS + AXIS_COLUMNS['y'] + AXIS_COLUMNS['z'])}; or x_mm, y_mm, z_mm for positions "
        "without orientation; or give SimNIBS matrices, no header."
    )


def _from_axes(row):
    y, z = (np.array([row[name] for name in AXIS_COLUMNS[axis]]) for axis in "yz")
    x = np.array([row[name] for name in AXIS_COLUMNS["x"]]) if set(AXIS_COLUMNS["x"]) <= set(row) else np.cross(y, z)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([x, y, z], axis=1)
    matrix[:3, 3] = [row[name] for name in CENTRE_COLUMNS]
    return matrix


def _matrix_blocks(path, rows):
    uneven = next((number for number, fields in rows if len(fields) != 4), None)
    if uneven is not None or len(rows) % 4:
        found = f"line {uneven} has another number of fields" if uneven else f"there are {len(rows)} rows"
        raise PoseError(
            f"reading coil poses from {path}: a file of numbers without a header must hold SimNIBS matrices, four rows "
            f"of four numbers per pose, but {found}. Export the matrices again, or add a header."
        )
    numbers = np.array([_numbers(path, number, fields) for number, fields in rows]).reshape(-1, 4, 4)
    return [Marker(f"pose {i} at line {rows[4 * i][0]}", matrix) for i, matrix in enumerate(numbers)]


_KNOWN_COLUMNS = {*MATRIX_COLUMNS, *CENTRE_COLUMNS, *(name for names in AXIS_COLUMNS.values() for name in names)}

READERS = {".csv": _read_csv, ".tsv": _read_csv, ".mat": read_matlab, ".txt": read_brainsight, ".xml": read_localite}
"""Pose file readers by suffix, each from a path (and a section, where there are some) to a list of Marker."""

_SECTIONED = (".txt", ".xml")
