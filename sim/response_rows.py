"""Rows, titles and numbers of a table of responses, whichever form it has."""

import contextlib
import csv
import re

import numpy as np

from ..errors import InputError
from .decimals import DECIMAL_COMMA_BESIDE, with_points
from .quotation import quoted

UNITS = {"v": 1.0, "mv": 1e-3, "uv": 1e-6, "nv": 1e-9}
"""Volts per unit; µ and μ are read as u, and case does not matter."""

TRIAL_COLUMNS = ("pose", "intensity_percent_rmt", "didt_a_per_us")
"""Columns that say something of a trial as a whole."""

_LONGEST_TITLE = 200
_LARGEST_V = 0.1  # twice what any muscle gives at the skin


def place(path, number, column):
    """Begin of a message about one field."""
    return f"reading responses from {path}, line {number}, column {quoted(column)}"


def read_rows(path):
    """Header fields and pairs (line number, fields), every row as long as the header."""
    if not path.is_file():
        raise InputError(f"reading responses from {path}: there is no such file. Correct `file` in [responses].")
    text = _decoded(path)
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ("\t", ";") if mark in first), ",")
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
    except csv.Error as error:
        raise InputError(
            f"reading responses from {path}, line {reader.line_num}: the line cannot be taken apart ({error}), perhaps "
            "for a quotation mark without its partner. Repair the line."
        ) from error
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
    return header, with_points(rows[1:]) if delimiter in DECIMAL_COMMA_BESIDE else rows[1:]


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


def volts_per_unit(title):
    """Name and volts per unit of a title such as "FDI [uV]"; (title, None) where it has no unit that is known."""
    # a damaged title of 100 k blanks would keep the expression busy for minutes
    match = re.fullmatch(r"(.+?)\s*\[\s*(\S+?)\s*\]", title) if len(title) <= _LONGEST_TITLE else None
    unit = match[2].lower().replace("µ", "u").replace("μ", "u") if match else ""
    return (match[1], UNITS[unit]) if unit in UNITS else (title, None)


def amplitude(path, number, column, field, scale):
    """A peak-to-peak amplitude in V, not negative and such as a muscle can give."""
    value = scale * number_in(path, number, column, field)
    if value < 0:
        raise InputError(
            f"{place(path, number, column)}: a peak-to-peak amplitude of {value / scale:g} is negative, which no such "
            "amplitude is. Give peak-to-peak values, or rectify them."
        )
    if value > _LARGEST_V:
        raise InputError(
            f"{place(path, number, column)}: a response of {value:g} V is there, and muscle responses are below 50 mV, "
            "so the unit in the header is wrong, or the number. Correct it; units are V, mV, uV and nV."
        )
    return value


def number_in(path, number, column, field):
    """The finite number of one field."""
    try:
        value = float(field)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(
            f"{place(path, number, column)}: found {quoted(field)} instead of a finite number, which scaling and "
            "training cannot pass over. Fill in the value or leave the whole trial out (and number the poses of the "
            "others)."
        )
    return value


def trial_number(path, number, field):
    """The whole number of a trial."""
    value = number_in(path, number, "trial", field)
    if value != np.floor(value) or abs(value) >= 2**53:
        raise InputError(
            f"{place(path, number, 'trial')}: found {quoted(field)}, but trials are ordered by whole numbers. "
            "Number them."
        )
    return int(value)
