r"""When the data records of an EDF+ or BDF+ file were taken, and what was annotated in it.

Each data record holds time-stamped annotation lists (edfplus.info, 2.2.2): ``+12.5\x14\x14\0`` first, the record's
onset, then annotations ``+13\x152\x14grip\x14\0`` with onset, duration and texts; seconds from the header's start.
"""

import numpy as np

from ..errors import InputError
from .recording import Event
from .recording_guards import EdfChannels

ONSET_S = 1e-3
"""Onsets are often written to the millisecond: by that much two records may seem to lie apart or over each other."""


def first_onset(path, header: EdfChannels) -> float:
    """Onset of an EDF+ file's first sample after its header's start, s; 0 where it has none, as a plain EDF."""
    if not header.plus or not header.annotations:
        return 0.0
    onset = _onset(_lists(path, header, 1)[0])
    return onset if np.isfinite(onset) else 0.0


def record_times(path, header: EdfChannels) -> tuple[np.ndarray, tuple[Event, ...]]:
    """Onsets of all data records of a discontinuous file (EDF+D, BDF+D), and its events.

    Parameters
    ----------
    path : Path
    header : EdfChannels

    Returns
    -------
    onsets_s : ndarray (records,)
        s after the header's start.
    events : tuple of Event
        Onsets from the first sample.

    Raises
    ------
    InputError
        Where a record has no onset, or begins before the one before it ends.

    Examples
    --------
    >>> record_times(path, edf_channels(path, size))[0]                               # doctest: +SKIP
    array([ 0.,  1., 22., 23.])
    """
    if not header.annotations:
        raise InputError(
            f"reading {path}: its header says that it has gaps (EDF+D), but no annotations tell where they are, so its "
            "samples have no times. Export it without gaps (EDF+C), or each part as a file."
        )
    lists = _lists(path, header, header.records)
    onsets = np.array([_onset(each) for each in lists])
    if not np.isfinite(onsets).all():
        raise InputError(
            f"reading {path}: data record {np.argmin(np.isfinite(onsets)) + 1} does not tell its onset, so its samples "
            "have no time. The file is damaged: copy it again, or export it without gaps (EDF+C)."
        )
    over = header.record_s - np.diff(onsets)
    if len(over) and over.max() > ONSET_S + 0.5 / max(header.rates_hz):
        number = int(np.argmax(over))
        raise InputError(
            f"reading {path}: data record {number + 2} begins {over[number]:.6g} s before the one before it ends, so "
            "samples would have two values at a time. Export it again, without gaps (EDF+C)."
        )
    events = [event for each in lists for one in each for event in _events(one, float(onsets[0]))]
    return onsets, tuple(sorted(events, key=lambda event: event.onset_s))


def _lists(path, header, count):
    """Annotation lists of the first `count` records."""
    body = np.memmap(path, np.uint8, "r", offset=header.header_bytes, shape=(count, header.record_bytes))
    parts = [body[:, first:last] for first, last in header.annotations]
    return [[one for part in parts for one in part[number].tobytes().split(b"\0") if one] for number in range(count)]


def _onset(lists):
    """Onset of a record, from the first of its lists, whose first text is empty; nan where there is none."""
    try:
        return float(lists[0].partition(b"\x14\x14")[0])
    except (IndexError, ValueError):
        return np.nan


def _events(one, begin):
    times, *texts = one.split(b"\x14")
    try:
        onset, _, duration = times.partition(b"\x15")
        moment, lasts = float(onset) - begin, float(duration or 0)
    except ValueError:
        return []
    if not np.isfinite(moment):
        return []
    lasts = lasts if 0 <= lasts < np.inf else 0.0
    return [Event(onset_s=moment, duration_s=lasts, label=text.decode("utf-8", "replace")) for text in texts if text]
