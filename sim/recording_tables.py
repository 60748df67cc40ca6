"""Recordings in tables: CSV, TSV and the like, a row for each sample, with or without time stamps."""

import contextlib
import csv
import io
import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from .quotation import quoted
from .recording_signals import Signals, channel_type, damaged, file_bytes, name_and_volts
from .recording_stamps import is_time_title, parse_stamps, title_unit

_MISSING = {"", "nan", "n/a", "na", "null", "none", "inf", "-inf", "+inf"}
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


def read_table(path, *, time_column="", time_unit="auto") -> Signals:
    """Read a table of samples.

    Delimiter (comma, semicolon, tab), header and decimal commas are found. Lines that begin with ``#`` or ``%`` before
    the header are passed over. A missing value (empty, ``nan``, ``n/a``) becomes nan.

    Parameters
    ----------
    path : path-like
        UTF-8, UTF-16 with its mark, or Windows-1252.
    time_column : str
        Title of the column with time stamps; "" finds it by its title. Without stamps the rate must be known otherwise.
    time_unit : str
        Of numeric stamps: "s", "ms", "us", "ns"; "auto" takes the title's, or else tells by their size.

    Returns
    -------
    Signals

    Raises
    ------
    InputError
        Naming file, line and column, where the table is damaged or a field is no number.

    Examples
    --------
    >>> read_table("trial_01/eeg_data.csv").names                                     # doctest: +SKIP
    """
    path = Path(path)
    file_bytes(path)
    text, skipped = _without_preamble(path)
    delimiter = _delimiter(text)
    header = _header(path, text, delimiter)
    titles = header or [f"ch{n + 1}" for n in range(len(_first_row(path, text, delimiter)))]
    time = _time_column(path, titles, time_column, header)
    columns, stamps = _columns(path, text, delimiter, titles, time, skipped, bool(header))
    stamps_s, origin, note = None, "own", ""
    if time is not None:
        unit = (title_unit(titles[time]) or "auto") if time_unit == "auto" else time_unit
        where = f"reading {path}, column {quoted(titles[time])}"
        stamps_s, origin, note = parse_stamps(stamps, where, unit)
    kept = [n for n in range(len(titles)) if n != time]
    pairs = [name_and_volts(titles[n]) for n in kept]
    return Signals(
        what=str(path),
        values=columns,
        names=tuple(name for name, _ in pairs),
        types=tuple(channel_type(name) for name, _ in pairs),
        volts=tuple(volts for _, volts in pairs),
        stamps_s=stamps_s,
        origin=origin,
        bad={},
        notes=(f"{path.name}: {note}",) if note else (),
    )


def _without_preamble(path):
    """Text from the header on, and how many lines stand before it."""
    data = path.read_bytes()
    text = None
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            break
    if text is None or "\0" in text:
        raise InputError(f"reading {path}: found bytes that no text has, so it is no table. Export it again as CSV.")
    lines = text.splitlines()
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].lstrip()[0] in "#%"):
        skipped += 1
    if len(lines) - skipped < 2:
        raise InputError(f"reading {path}: found no rows of samples, so nothing can be read. Export it again.")
    return "\n".join(lines[skipped:]), skipped


def _delimiter(text):
    first = text.partition("\n")[0]
    return next((mark for mark in ("\t", ";", ",") if mark in first), ",")


def _first_row(path, text, delimiter):
    try:
        return [field.strip() for field in next(csv.reader(io.StringIO(text), delimiter=delimiter))]
    except (csv.Error, StopIteration) as error:
        raise damaged(path, "table", error) from error


def _header(path, text, delimiter):
    """Titles, or None where the first row holds numbers and times alone."""
    fields = _first_row(path, text, delimiter)
    plain = [field for field in fields if not _NUMBER.fullmatch(field) and field.lower() not in _MISSING]
    return fields if any(not re.match(r"\d[\d:.,T /+-]*Z?$", field) for field in plain) else None


def _time_column(path, titles, wanted, header):
    if wanted:
        if wanted not in titles:
            raise InputError(
                f"reading {path}: there is no column {quoted(wanted)} for time stamps among "
                f"{quoted(', '.join(titles))}. Correct `time_column`."
            )
        return titles.index(wanted)
    if not header:
        return None
    return next((n for n, title in enumerate(titles) if is_time_title(title)), None)


def _columns(path, text, delimiter, titles, time, skipped, has_header):
    """Values (channels, samples) and the stamps' texts."""
    import pandas as pd

    _check_fields(path, text, delimiter, titles, skipped, has_header)
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=delimiter,
            header=None,
            names=range(len(titles)),
            index_col=False,
            skiprows=int(has_header),
            dtype={time: str} if time is not None else None,
            skip_blank_lines=True,
            skipinitialspace=True,
            decimal="," if delimiter in "\t;" and not re.search(r"\d\.\d", text[:100_000].partition("\n")[2]) else ".",
            low_memory=False,
        )
    except Exception as error:  # the parser fails on damaged text in more ways than it states
        raise damaged(path, "table", error) from error
    if not len(frame):
        raise InputError(f"reading {path}: found no rows of samples, so nothing can be read. Export it again.")
    kept = [n for n in range(len(titles)) if n != time]
    values = np.empty((len(kept), len(frame)))
    for row, column in enumerate(kept):
        values[row] = _numbers(path, frame[column], titles[column], skipped + has_header)
    stamps = None if time is None else frame[time].fillna("").astype(str).tolist()
    return values, stamps


def _check_fields(path, text, delimiter, titles, skipped, has_header):
    """Every row has as many fields as the header: pandas fills a short row without a word."""
    for number, line in enumerate(text.split("\n")[int(has_header) :]):
        quotes = '"' in line
        fields = len(next(csv.reader([line], delimiter=delimiter))) if quotes else line.count(delimiter) + 1
        if line.strip() and fields != len(titles):
            raise InputError(
                f"reading {path}, line {number + 1 + has_header + skipped}: found {fields} fields where the table has "
                f"{len(titles)} columns, so samples would land in the wrong channel; the file may be cut short. "
                "Repair or remove the line."
            )


def _numbers(path, column, title, before):
    import pandas as pd

    if column.dtype.kind in "fiu":
        return column.to_numpy(float)
    texts = column.fillna("").astype(str).str.strip()
    values = pd.to_numeric(texts, errors="coerce").to_numpy(float)
    wrong = np.isnan(values) & ~texts.str.lower().isin(_MISSING).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"reading {path}, line {row + 1 + before}, column {quoted(title)}: found {quoted(texts.iloc[row])}, which "
            "is no number, so the channel has no value there. Repair the field, or leave it empty for a missing sample."
        )
    return values
