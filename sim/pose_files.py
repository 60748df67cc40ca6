"""Reading and writing coil poses. Files are in millimetres, poses in metres.

Three forms are read:

- CSV with a header of matrix elements, ``m00,m01,m02,m03_mm, … m33`` (row by row; column 3 is the centre in mm), which
  is what `write_poses` writes;
- CSV with a header of the centre and two or three axes, ``centre_x_mm … y_x, y_y, y_z, z_x, z_y, z_z`` (``x_*`` may be
  left out: x = y × z);
- SimNIBS matrices (``matsimnibs``, mm): CSV without a header, four rows of four numbers per pose, or MATLAB ``.mat``.
"""

import csv
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ..errors import PoseError
from .pose import Pose

MATRIX_COLUMNS = tuple(f"m{i}{j}" + ("_mm" if j == 3 and i < 3 else "") for i in range(4) for j in range(4))
CENTRE_COLUMNS = ("centre_x_mm", "centre_y_mm", "centre_z_mm")
AXIS_COLUMNS = {axis: tuple(f"{axis}_{component}" for component in "xyz") for axis in "xyz"}


def read_poses(path) -> list[Pose]:
    """Read coil poses from a file.

    Parameters
    ----------
    path : str or Path
        Its suffix picks the reader from `READERS`.

    Returns
    -------
    list of Pose
        In the order of the file.

    Raises
    ------
    PoseError
        Naming file and row, where the file is absent or of an unknown form, a number is missing or not finite, or a
        matrix is no rigid transform in millimetres.

    Examples
    --------
    >>> poses = read_poses("grid.csv")                        # doctest: +SKIP
    """
    path = Path(path).expanduser()
    reader = READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        found = f"files of type {path.suffix or '(none)'!r} are unknown" if reader is None else "there is no such file"
        raise PoseError(
            f"reading coil poses from {path}: {found}, so there is nothing to simulate. "
            f"Give the path of a file of type {', '.join(READERS)} (see motorsweep.sim.pose_files)."
        )
    poses = [_pose(matrix, path, where) for where, matrix in reader(path)]
    if not poses:
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


def _pose(matrix_mm, path, where):
    """A pose from a matrix in mm; errors name file and place."""
    matrix = np.array(matrix_mm, dtype=np.float64)
    try:
        if matrix.shape == (4, 4) and np.linalg.norm(matrix[:3, 3]) < 1:
            raise PoseError(
                f"coil pose: the centre is {np.linalg.norm(matrix[:3, 3]):.3g} mm from the origin, deep in the head; "
                "the translation is probably in metres. Write it in millimetres."
            )
        matrix[:3, 3] *= 1e-3
        return Pose(matrix)
    except PoseError as error:
        raise PoseError(f"reading {path}, {where}: {error}") from error


def _read_csv(path):
    """Pairs (place, 4x4 matrix in mm)."""
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
        (number, [field.strip() for field in (line.split(delimiter) if delimiter else line.split())])
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip(" \t;,")
    ]
    if not rows:
        return []
    if all(_is_number(field) for field in rows[0][1]):
        return _matrix_blocks(path, rows)
    header = [name.lower().replace("center", "centre") for name in rows[0][1]]
    build = _header_form(path, header)
    return [(f"line {number}", build(_named(path, number, header, fields))) for number, fields in rows[1:]]


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
            f"reading coil poses from {path}, line {number}, column {column + 1}: found {fields[column]!r}, not a "
            "finite number, and a pose with a hole in it cannot be simulated. Repair or remove the line."
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


def _header_form(path, header):
    """The function from a row's named numbers to a matrix in mm that suits the header."""
    if set(MATRIX_COLUMNS) <= set(header):
        return lambda row: np.array([row[name] for name in MATRIX_COLUMNS]).reshape(4, 4)
    if {*CENTRE_COLUMNS, *AXIS_COLUMNS["y"], *AXIS_COLUMNS["z"]} <= set(header):
        return _from_axes
    raise PoseError(
        f"reading coil poses from {path}, line 1: the header is {', '.join(header)[:200]!r}, from which no pose can "
        f"be made. Name the columns {', '.join(MATRIX_COLUMNS)} (what write_poses writes), or "
        f"{', '.join(CENTRE_COLUMNS + AXIS_COLUMNS['y'] + AXIS_COLUMNS['z'])}; or give SimNIBS matrices, no header."
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
    return [(f"pose {i} at line {rows[4 * i][0]}", matrix) for i, matrix in enumerate(numbers)]


def _read_mat(path):
    """Matrices of a MATLAB file: every ``matsimnibs`` in it, however deep; else every numeric 4x4 variable."""
    try:
        content = loadmat(path, simplify_cells=True)
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        raise PoseError(
            f"reading coil poses from {path}: not a MATLAB file that SciPy can read ({error}). "
            "Save it with -v7, or as CSV."
        ) from error
    content = {name: value for name, value in content.items() if not name.startswith("__")}
    found = list(_matsimnibs(content, "")) or [
        item for name, value in content.items() for item in _stack(value, name) if not isinstance(value, dict)
    ]
    if not found:
        raise PoseError(
            f"reading coil poses from {path}: no variable `matsimnibs` and no 4x4 matrix among "
            f"{', '.join(content) or 'no variables'}. Save the 4x4 poses (mm) as `matsimnibs`, (4, 4) or (n, 4, 4)."
        )
    return found


def _matsimnibs(value, name):
    if isinstance(value, dict):
        for key, item in value.items():
            place = f"{name}.{key}" if name else key
            yield from _stack(item, place) if key == "matsimnibs" else _matsimnibs(item, place)
    elif isinstance(value, (list, np.ndarray)) and (isinstance(value, list) or value.dtype == object):
        for i, item in enumerate(value):
            yield from _matsimnibs(item, f"{name}[{i}]")


def _stack(value, name):
    """Matrices of an array (4, 4), (n, 4, 4) or (4, 4, n); nothing where it is of another shape."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        return []
    if array.shape == (4, 4):
        return [(f"variable {name}", array)]
    if array.ndim != 3:
        return []
    if array.shape[1:] != (4, 4) or (array.shape == (4, 4, 4) and not np.allclose(array[:, 3], (0, 0, 0, 1))):
        array = np.moveaxis(array, -1, 0)
    return [(f"variable {name}[{i}]", matrix) for i, matrix in enumerate(array)] if array.shape[1:] == (4, 4) else []


_KNOWN_COLUMNS = {*MATRIX_COLUMNS, *CENTRE_COLUMNS, *(name for names in AXIS_COLUMNS.values() for name in names)}

READERS = {".csv": _read_csv, ".mat": _read_mat}
"""Pose file readers by suffix, each from a path to pairs (place in the file, 4x4 matrix in mm)."""
