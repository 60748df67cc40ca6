"""Responses from a long table: one row per trial and muscle."""

from itertools import islice

import numpy as np

from ..errors import InputError
from .quotation import quoted
from .response_rows import TRIAL_COLUMNS, amplitude, number_in, place, trial_number, volts_per_unit

_AMPLITUDES = ("response", "amplitude", "mep")
_KEYS = ("trial", "muscle")
_NAMED_AT_MOST = 5


def is_long(header) -> bool:
    """Whether the table is long: its header has a column ``muscle``."""
    return "muscle" in [title.lower() for title in header]


def read_long(path, header, rows):
    """Bring a long table into the form of a wide one.

    Parameters
    ----------
    path : Path
    header : list of str
    rows : list of (int, list of str)
        Line number and fields.

    Returns
    -------
    muscles : tuple of str
        k names, in the order of their first rows.
    response : ndarray (t, k)
        Peak-to-peak amplitude, V, of the trials in the order of their numbers.
    columns : dict of ndarray (t,)
        Those of `TRIAL_COLUMNS` that the table has.
    first : list of (int, list of str)
        First row of each trial.

    Raises
    ------
    InputError
        Naming file, line and column, where a column is unknown, missing or doubled, a trial lacks a muscle or has one
        twice, or its rows differ in what belongs to the trial.
    """
    where, value, scale = _columns(path, header)
    cells, first = {}, {}
    for number, fields in rows:
        trial = trial_number(path, number, fields[where["trial"]])
        muscle = fields[where["muscle"]]
        if not muscle:
            raise InputError(f"{place(path, number, 'muscle')}: it is empty. Fill in the muscle or remove the row.")
        if (trial, muscle) in cells:
            raise InputError(
                f"{place(path, number, 'muscle')}: muscle {quoted(muscle)} of trial {trial} is there twice, first in "
                f"line {cells[trial, muscle][0]}, and which response counts cannot be told. Remove one of the rows."
            )
        cells[trial, muscle] = number, amplitude(path, number, header[value], fields[value], scale)
        _agree(path, where, first.setdefault(trial, (number, fields)), (number, fields), trial)
    muscles = tuple(dict.fromkeys(muscle for _, muscle in cells))
    trials = sorted(first)
    _complete(path, cells, trials, muscles)
    response = np.array([[cells[trial, muscle][1] for muscle in muscles] for trial in trials])
    ordered = [first[trial] for trial in trials]
    columns = {
        name: np.array([number_in(path, number, name, fields[where[name]]) for number, fields in ordered])
        for name in TRIAL_COLUMNS
        if name in where
    }
    return muscles, response, columns, ordered


def _columns(path, header):
    """Places of the known columns, place of the amplitudes, and their volts per unit."""
    titles = [title.lower() for title in header]
    where, value, scale = {}, None, None
    for column, title in enumerate(titles):
        name, volts = volts_per_unit(title)
        if title in _KEYS + TRIAL_COLUMNS and title not in where:
            where[title] = column
        elif name in _AMPLITUDES and volts is not None and value is None:
            value, scale = column, volts
        else:
            raise InputError(
                f"{place(path, 1, header[column])}: of a long table (one with a column 'muscle') the column is unknown "
                f"or there twice. There may be {', '.join(_KEYS + TRIAL_COLUMNS)}, each once, and one of "
                f"{', '.join(f'{known} [uV]' for known in _AMPLITUDES)} (in V, mV, uV or nV). Rename or remove it."
            )
    missing = [name for name in _KEYS if name not in where] + ["response [uV]"] * (value is None)
    if missing:
        raise InputError(
            f"reading responses from {path}, line 1: the long table (it has a column 'muscle') lacks "
            f"{' and '.join(missing)}, so rows cannot be put together to trials. Add the column, or give a wide table, "
            "one row per trial with columns such as 'FDI [uV]'."
        )
    return where, value, scale


def _agree(path, where, one, other, trial):
    """Refuse rows of one trial that differ in pose or intensity."""
    for name in TRIAL_COLUMNS:
        if name not in where:
            continue
        values = [number_in(path, number, name, fields[where[name]]) for number, fields in (one, other)]
        if values[0] != values[1]:
            raise InputError(
                f"{place(path, other[0], name)}: trial {trial} has {values[1]:g} here and {values[0]:g} in line "
                f"{one[0]}, but a trial is one stimulus. Correct one of them, or the number of the trial."
            )


def _complete(path, cells, trials, muscles):
    count = len(trials) * len(muscles) - len(cells)
    if count == 0:
        return
    missing = ((trial, muscle) for trial in trials for muscle in muscles if (trial, muscle) not in cells)
    named = ", ".join(f"{quoted(muscle)} of trial {trial}" for trial, muscle in islice(missing, _NAMED_AT_MOST))
    more = f" and {count - _NAMED_AT_MOST} more" if count > _NAMED_AT_MOST else ""
    raise InputError(
        f"reading responses from {path}: no row for muscle {named}{more}, and scaling and training cannot pass over a "
        "hole. Add the rows, or leave such trials (or such muscles) out altogether."
    )
