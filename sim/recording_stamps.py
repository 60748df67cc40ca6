"""Time stamps as tables have them: clock times, dates, seconds and fractions of seconds."""

import re
from datetime import UTC, datetime

import numpy as np

from ..errors import InputError
from .quotation import quoted

SECONDS_PER = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds per unit of a column of plain numbers."""

_DAY_S = 86400.0
_STEP_BACK_S = 60.0
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2}(?:[.,]\d+)?)")
_TIME_TITLE = re.compile(
    r"^(unix[ _]?)?(time|times|timestamp|timestamps|time[ _]stamp|lsl[ _]?time\w*|datetime|date[ _]?time|clock|t|sec|"
    r"secs|seconds|ms|msec|milliseconds)([ _]*[\[(]?(s|sec|ms|us|µs|ns)[\])]?)?$",
    re.IGNORECASE,
)


def is_time_title(title: str) -> bool:
    """Tell whether a column's title names time stamps.

    Examples
    --------
    >>> is_time_title("timestamp"), is_time_title("Time [ms]"), is_time_title("T7")
    (True, True, False)
    """
    return bool(_TIME_TITLE.match(title.strip()))


def title_unit(title: str) -> str:
    """Unit that a title of stamps names: "ms", "s", ..., "" where it names none.

    Examples
    --------
    >>> title_unit("Time [ms]"), title_unit("time_s"), title_unit("timestamp")
    ('ms', 's', '')
    """
    found = re.search(r"(?:^|[ _\[(])(s|sec|secs|seconds|ms|msec|milliseconds|us|µs|ns)[\])]?$", title.strip(), re.I)
    word = found[1].lower().replace("µ", "u") if found else ""
    return {"sec": "s", "secs": "s", "seconds": "s", "msec": "ms", "milliseconds": "ms"}.get(word, word)


def parse_stamps(texts, where, unit="auto"):
    """Seconds of a column of stamps.

    Parameters
    ----------
    texts : sequence of str
        Clock times (``19:21:14.494664``; a step back of more than 12 hours is midnight), ISO date-times, or numbers.
    where : str
        Begin of messages, naming file and column.
    unit : str
        Of plain numbers: "s", "ms", "us", "ns", or "auto": seconds since 1970 are known by their size; whole numbers
        that step by 1 or more are milliseconds; else seconds.

    Returns
    -------
    stamps_s : ndarray (samples,)
    origin : str
        "day" (clock times), "date" (since 1970-01-01; a date-time without zone is taken as UTC) or "own".
    note : str
        What was assumed; "" if nothing.

    Raises
    ------
    InputError
        Naming the first line (data rows counted from 1) that cannot be read; or where there is none.

    Examples
    --------
    >>> parse_stamps(["23:59:59.5", "00:00:00.5"], "a table")
    (array([86399.5, 86400.5]), 'day', '')
    """
    if not len(texts):
        raise InputError(f"{where}: there are no time stamps, so no sample has a place in time. Give a longer table.")
    first = texts[0].strip()
    if _CLOCK.fullmatch(first):
        return _past_midnight(_each(texts, _clock_time, where)), "day", ""
    if ":" in first or re.match(r"\d{4}-\d{2}-\d{2}", first):
        return _each(texts, _date_time, where), "date", ""
    return _numbers(_each(texts, lambda text: float(text.replace(",", ".")), where), unit)


def _each(texts, parse, where):
    stamps = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            stamps[row] = parse(text.strip())
        except (ValueError, OverflowError):
            stamps[row] = np.nan
        if not np.isfinite(stamps[row]):
            raise InputError(
                f"{where}, row {row + 1} of data: found {quoted(text)}, which is no time of the kind that the first "
                "row has, so the sample has no place in time. Repair the line or remove it."
            )
    return stamps


def _clock_time(text):
    hours, minutes, seconds = _CLOCK.fullmatch(text).groups() if _CLOCK.fullmatch(text) else ("x",) * 3
    time = int(hours) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    if int(hours) > 24 or int(minutes) > 59 or float(seconds.replace(",", ".")) >= 61:
        raise ValueError(text)
    return time


def _date_time(text):
    moment = datetime.fromisoformat(text.replace("/", "-"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _past_midnight(stamps):
    steps = np.diff(stamps)
    # A stamp that steps back a little over midnight undoes the new day; a pause of half a day does not.
    days = (steps < -_DAY_S / 2).astype(int) - (steps > _DAY_S - _STEP_BACK_S)
    return stamps + _DAY_S * np.concatenate([[0], np.cumsum(days)])


def _numbers(stamps, unit):
    if unit != "auto":
        return stamps * SECONDS_PER[unit], "date" if stamps[0] * SECONDS_PER[unit] > 1e9 else "own", ""
    size = abs(stamps[0])
    for epoch, word in ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e9, "s")):
        if size > epoch:
            return stamps * SECONDS_PER[word], "date", f"stamps taken as {word} since 1970 by their size"
    step = np.median(np.abs(np.diff(stamps))) if len(stamps) > 1 else 0.0
    if step >= 1 and not np.any(stamps % 1):
        return stamps * 1e-3, "own", "stamps are whole numbers that step by 1 or more: taken as milliseconds"
    return stamps, "own", ""
