"""Reading measured muscle responses from a table."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .long_responses import is_long, read_long
from .position_columns import coordinate
from .quotation import quoted
from .response_rows import TRIAL_COLUMNS, UNITS, amplitude, number_in, place, read_rows, trial_number, volts_per_unit

__all__ = ["TRIAL_COLUMNS", "UNITS", "ResponseTable", "read_responses"]

_LEAST_PERCENT = 10  # per cent of the threshold; a table that stays below it holds fractions


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
    """Read a CSV or TSV table, wide or long. The header alone decides: a column ``muscle`` makes it long.

    Wide, one row per trial: a muscle's column is headed by its name and unit, ``FDI [uV]``. Trials are in the order of
    their rows; a column ``trial`` may number them, which changes nothing.

    Long, one row per trial and muscle, in any order: columns ``trial`` (a whole number), ``muscle`` and one of
    ``response [uV]``, ``amplitude [uV]`` and ``mep [uV]``. Every trial has every muscle once. Trials are in the order
    of their numbers, muscles in that of their first rows. Upper and lower case do not matter in the header.

    A wide table may be the file of positions too: columns such as ``x_mm`` and ``angle_deg`` are passed over.

    Units are V, mV, uV (µV) or nV. In both forms there may be ``pose`` (number of the pose, from 0; without it the
    first trial belongs to pose 0, the next to pose 1, …), ``intensity_percent_rmt`` and ``didt_a_per_us``; in the long
    form all rows of a trial have the same. Beside semicolons or tabs numbers may have decimal commas.

    Parameters
    ----------
    path : str or Path
        ``.csv`` (comma or semicolon) or ``.tsv``/``.txt`` (tab), in UTF-8 or, as Excel saves it, Windows-1252.
    n_poses : int, optional
        Number of poses that the responses belong to, those that were not tracked included; then pose numbers are
        checked against it.

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
    header, rows = read_rows(path)
    muscles, response, columns, rows = (read_long if is_long(header) else _read_wide)(path, header, rows)
    return ResponseTable(
        response=response,
        muscles=muscles,
        pose_index=_pose_index(path, rows, columns.get("pose"), n_poses),
        intensity_percent_rmt=_percent(path, rows, columns),
        didt=_positive(path, rows, columns, "didt_a_per_us", 1e6),
    )


def _read_wide(path, header, rows):
    """Muscles, response (t, k) in V, columns of the trials by name, and the trials' rows."""
    muscles, scale, places = _muscle_columns(path, header)
    titles = [title.lower() for title in header]
    trial = {name: titles.index(name) for name in TRIAL_COLUMNS if name in titles}
    response = np.empty((len(rows), len(muscles)))
    columns = {name: np.empty(len(rows)) for name in trial}
    for t, (number, fields) in enumerate(rows):
        for k, column in enumerate(places):
            response[t, k] = amplitude(path, number, header[column], fields[column], scale[k])
        for name, column in trial.items():
            columns[name][t] = number_in(path, number, name, fields[column])
        if "trial" in titles:
            trial_number(path, number, fields[titles.index("trial")])
    return muscles, response, columns, rows


def _muscle_columns(path, header):
    muscles, scale, places = [], [], []
    titles = [title.lower() for title in header]
    for column, title in enumerate(header):
        if titles[column] in (*TRIAL_COLUMNS, "trial"):
            if titles.index(titles[column]) != column:
                raise InputError(f"{place(path, 1, title)}: the column is there twice. Remove one of them.")
            continue
        if coordinate(title):
            continue
        muscle, volts = volts_per_unit(title)
        if volts is None:
            raise InputError(
                f"{place(path, 1, title)}: found no unit that is known, and an amplitude without one could be off by a "
                f"thousand. Write the header as 'FDI [uV]', with one of V, mV, uV, nV; or, if this is no muscle, "
                f"remove the column (others may be trial, {', '.join(TRIAL_COLUMNS)}; a long table has 'muscle' and "
                "'trial')."
            )
        if muscle in muscles:
            raise InputError(
                f"{place(path, 1, title)}: muscle {quoted(muscle)} is there twice, and results are found by the "
                "muscle's name. Rename or remove one of the two columns."
            )
        muscles.append(muscle)
        scale.append(volts)
        places.append(column)
    if not muscles:
        raise InputError(f"reading responses from {path}, line 1: no muscle's column. Add some, such as 'FDI [uV]'.")
    return tuple(muscles), scale, places


def _pose_index(path, rows, pose, n_poses):
    if pose is None:
        if n_poses is not None and len(rows) != n_poses:
            raise InputError(
                f"reading responses from {path}: found {len(rows)} trials for {n_poses} poses and no column 'pose', so "
                "trials cannot be told to poses. Add a column 'pose' (numbers from 0; in a navigator's file they count "
                "markers without a pose too), or give one trial per pose."
            )
        return np.arange(len(rows))
    limit = 2**31 if n_poses is None else n_poses
    for (number, _), value in zip(rows, pose):
        if value != np.floor(value) or not 0 <= value < limit:
            span = "0 or more" if n_poses is None else f"0 to {n_poses - 1}"
            raise InputError(
                f"{place(path, number, 'pose')}: found {value:g}, but poses are whole numbers, {span} (counted from "
                "0). Correct the number, or give the file with all poses."
            )
    return pose.astype(np.int64)


def _positive(path, rows, columns, name, scale=1.0):
    if name not in columns:
        return None
    for (number, _), value in zip(rows, columns[name]):
        if value <= 0:
            raise InputError(
                f"{place(path, number, name)}: found {value:g}, but a stimulus has a positive intensity (some "
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
