"""Reading measured muscle responses from a table."""

import contextlib
import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError

UNITS = {"v": 1.0, "mv": 1e-3, "uv": 1e-6, "nv": 1e-9}
"""Volts per unit; µ and μ are read as u, and case does not matter."""

_LEAST_PERCENT = 10  # per cent of the threshold; a table that stays below it holds fractions

TRIAL_COLUMNS = ("pose", "intensity_percent_rmt", "didt_a_per_us")


@dataclass(frozen=True, kw_only=True, eq=False)
class ResponseTable:
    """Responses of some muscles in some trials.

    Attributes
    ----------
    response : ndarray (t, k)
        Peak-to-peak amplitude, V.
    muscles : tuple of str
        k names.
    pose_index : ndarray (t,) int
        Which pose each trial belongs to, from 0.
    intensity_percent_rmt : ndarray (t,) or None
        Stimulator intensity in per cent of the resting motor threshold, where the table has it.
    didt : ndarray (t,) or None
        Rate of change of the coil current, A/s, where the table has it.
    """

    response: np.ndarray
    muscles: tuple[str, ...]
    pose_index: np.ndarray
    intensity_percent_rmt: np.ndarray | None = None
    didt: np.ndarray | None = None


def read_responses(path, n_poses: int | None = None) -> ResponseTable:
    """Read a wide CSV or TSV table: one row per trial, one column per muscle.

    A muscle's column is headed by its name and unit, ``FDI [uV]``. Beside them there may be ``pose`` (number of the
    pose, from 0; without it trial i belongs to pose i), ``intensity_percent_rmt`` and ``didt_a_per_us``.

    Parameters
    ----------
    path : str or Path
        ``.csv`` (comma or semicolon) or ``.tsv``/``.txt`` (tab), in UTF-8 or, as Excel saves it, Windows-1252.
    n_poses : int, optional
        Number of poses that the responses belong to; then pose numbers are checked against it.

    Returns
    -------
    ResponseTable

    Raises
    ------
    InputError
        Naming file, line, column and remedy, where something is missing, not finite, doubled or out of range.

    Examples
    --------
    >>> table = read_responses("meps.csv", n_poses=49)        # doctest: +SKIP
    >>> table.response[:, table.muscles.index("FDI")]         # doctest: +SKIP
    """
    path = Path(path).expanduser()
    header, rows = _read_rows(path)
    muscles, scale, places = _muscle_columns(path, header)
    trial = {name: header.index(name) for name in TRIAL_COLUMNS if name in header}
    response = np.empty((len(rows), len(muscles)))
    columns = {name: np.empty(len(rows)) for name in trial}
    for t, (number, fields) in enumerate(rows):
        for k, column in enumerate(places):
            response[t, k] = scale[k] * _number(path, number, header[column], fields[column])
            if response[t, k] < 0:
                raise InputError(
                    f"{_place(path, number, header[column])}: a peak-to-peak amplitude of {fields[column]} is "
                    "negative, which no such amplitude is. Give peak-to-peak values, or rectify them."
                )
        for name, column in trial.items():
            columns[name][t] = _number(path, number, name, fields[column])
    return ResponseTable(
        response=response,
        muscles=muscles,
        pose_index=_pose_index(path, rows, columns.get("pose"), n_poses),
        intensity_percent_rmt=_percent(path, rows, columns),
        didt=_positive(path, rows, columns, "didt_a_per_us", 1e6),
    )


def _place(path, number, column):
    return f"reading responses from {path}, line {number}, column {column!r}"


def _read_rows(path):
    """Header fields and pairs (line number, fields), every row as long as the header."""
    if not path.is_file():
        raise InputError(f"reading responses from {path}: there is no such file. Correct `file` in [responses].")
    text = _decoded(path)
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ("\t", ";") if mark in first), ",")
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    rows = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
    rows = [(number, fields) for number, fields in rows if any(fields)]
    if len(rows) < 2:
        raise InputError(
            f"reading responses from {path}: found {len(rows)} rows, but a header and at least one trial are needed. "
            "Export the table again."
        )
    header = rows[0][1]
    for number, fields in rows[1:]:
        if len(fields) != len(header):
            raise InputError(
                f"reading responses from {path}, line {number}: found {len(fields)} fields where the header names "
                f"{len(header)} columns, so amplitudes would land at the wrong muscle. Repair the line."
            )
    return header, rows[1:]


def _decoded(path):
    """Text of the table: UTF-8, or else Windows-1252, in which Excel saves a plain CSV with its µ."""
    data = path.read_bytes()
    for encoding in ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if "\0" not in text:
                return text
    raise InputError(
        f"reading responses from {path}: it is text neither in UTF-8 nor in Windows-1252, so columns and muscles "
        "cannot be told. Save it as CSV UTF-8."
    )


def _muscle_columns(path, header):
    muscles, scale, places = [], [], []
    for place, title in enumerate(header):
        if title in TRIAL_COLUMNS:
            if header.index(title) != place:
                raise InputError(f"{_place(path, 1, title)}: the column is there twice. Remove one of them.")
            continue
        match = re.fullmatch(r"(.+?)\s*\[\s*(\S+?)\s*\]", title)
        unit = match[2].lower().replace("µ", "u").replace("μ", "u") if match else ""
        if unit not in UNITS:
            raise InputError(
                f"{_place(path, 1, title)}: found no unit that is known, and an amplitude without one could be off "
                f"by a thousand. Write the header as 'FDI [uV]', with one of V, mV, uV, nV; or, if this is no muscle, "
                f"remove the column (others may be {', '.join(TRIAL_COLUMNS)})."
            )
        if match[1] in muscles:
            raise InputError(
                f"{_place(path, 1, title)}: muscle {match[1]!r} is there twice, and results are found by the muscle's "
                "name. Rename or remove one of the two columns."
            )
        muscles.append(match[1])
        scale.append(UNITS[unit])
        places.append(place)
    if not muscles:
        raise InputError(f"reading responses from {path}, line 1: no muscle's column. Add some, such as 'FDI [uV]'.")
    return tuple(muscles), scale, places


def _number(path, number, column, field):
    try:
        value = float(field)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(
            f"{_place(path, number, column)}: found {field!r} instead of a finite number, which scaling and training "
            "cannot pass over. Fill in the value or leave the whole trial out (and number the poses of the others)."
        )
    return value


def _pose_index(path, rows, pose, n_poses):
    if pose is None:
        if n_poses is not None and len(rows) != n_poses:
            raise InputError(
                f"reading responses from {path}: found {len(rows)} trials for {n_poses} poses and no column 'pose', so "
                "trials cannot be told to poses. Add a column 'pose' (numbers from 0), or give one trial per pose."
            )
        return np.arange(len(rows))
    limit = np.inf if n_poses is None else n_poses
    for (number, _), value in zip(rows, pose):
        if value != np.floor(value) or not 0 <= value < limit:
            span = "0 or more" if n_poses is None else f"0 to {n_poses - 1}"
            raise InputError(
                f"{_place(path, number, 'pose')}: found {value:g}, but poses are whole numbers, {span} (counted from "
                "0). Correct the number, or give the file with all poses."
            )
    return pose.astype(np.int64)


def _positive(path, rows, columns, name, scale=1.0):
    if name not in columns:
        return None
    for (number, _), value in zip(rows, columns[name]):
        if value <= 0:
            raise InputError(
                f"{_place(path, number, name)}: found {value:g}, but a stimulus has a positive intensity (some "
                "navigators write 0 for unknown). Fill in the intensity or leave the trial out."
            )
    return columns[name] * scale


def _percent(path, rows, columns):
    """Intensities in per cent; refused where they can only be fractions of the threshold."""
    values = _positive(path, rows, columns, "intensity_percent_rmt")
    if values is not None and values.max() < _LEAST_PERCENT:
        raise InputError(
            f"reading responses from {path}, column 'intensity_percent_rmt': the largest intensity is "
            f"{values.max():g} %, which no muscle answers to; these look like fractions of the resting motor threshold "
            "and would make every field a hundred times too small. Give per cent: 120, not 1.2."
        )
    return values
