"""Interruptions of a recording: segments of a BrainVision file, and samples that MNE filled in for what was skipped.

A BrainVision marker ``Mk7=New Segment,,15001,1,0,20230405101112123456`` says that sample 15001 (from 1 on) is the first
after a pause, and when it was taken, to the microsecond in local time; zeros, or nothing, where no one knows.
"""

import re
from datetime import UTC, datetime

import numpy as np

from ..errors import InputError
from .recording import Event
from .recording_companions import companions

SKIPPED = "BAD_ACQ_SKIP"
"""MNE's annotation of samples that were not recorded."""

OVERLAP_S = 1e-3
"""By so much, and half a sample, two segments may seem to lie over each other, as their starts come from a clock."""

_MARKER = re.compile(r"^Mk\d+=New Segment,[^,\r\n]*,\s*(\d+)(?:,[^,\r\n]*,[^,\r\n]*(?:,([^,\r\n]*))?)?", re.MULTILINE)


def segment_times(path, samples, rate_hz) -> tuple[datetime, np.ndarray] | None:
    """When the samples of a BrainVision file were taken.

    Parameters
    ----------
    path : Path
        The header, ``.vhdr``.
    samples : int
    rate_hz : float

    Returns
    -------
    start : datetime
        Of the first sample; local time, said to be UTC as MNE does.
    times_s : ndarray (samples,)
        s after the start.

    None in their place for a recording without a pause, or with none of a sample's length.

    Raises
    ------
    InputError
        Where a segment has no date, or begins before the one before it ends.

    Examples
    --------
    >>> segment_times(Path("paused.vhdr"), 30000, 500.0)[1][14999:15001]              # doctest: +SKIP
    array([29.998, 95.25 ])
    """
    dates = _dates(path, samples)
    firsts = sorted(dates)
    if len(firsts) < 2:
        return None
    lengths = np.diff([*firsts, samples])
    starts = [(dates[first] - dates[0]).total_seconds() * rate_hz for first in firsts]
    places = [0]
    for number, start in enumerate(starts[1:], 2):
        end = places[-1] + int(lengths[number - 2])
        if end - start > 0.5 + OVERLAP_S * rate_hz:
            raise InputError(
                f"reading {path}: by the dates of its New Segment markers segment {number}, from sample "
                f"{firsts[number - 1] + 1} on, begins {(end - start) / rate_hz:.6g} s before the one before it ends, "
                "so samples would have two values at a time. Export each segment as a file."
            )
        places.append(max(round(start), end))
    if places == firsts:
        return None
    return dates[0], (np.repeat(np.array(places) - firsts, lengths) + np.arange(samples)) / rate_hz


def _dates(path, samples):
    """Date of each segment by its first sample; nothing for one segment, which needs none."""
    dates = {0: None} | {first: date for first, date in _markers(path).items() if first < samples}
    if len(dates) < 2:
        return {}
    for number, first in enumerate(sorted(dates), 1):
        if dates[first] is None:
            raise InputError(
                f"reading {path}: the recording was interrupted ({len(dates)} segments), and the New Segment marker "
                f"of segment {number}, from sample {first + 1} on, has no date, so how long the pause was is not known "
                "and samples after it have no times. Export each segment as a file, or with dates."
            )
    return dates


def _markers(path):
    """Date, or None, of each segment by its first sample, from 0 on; of several there the last that has one."""
    found = {}
    for marks in companions(path)[1:]:
        text = marks.read_bytes().decode("latin-1")
        for position, written in _MARKER.findall(text):
            first = max(int(position) - 1, 0)
            found[first] = _date(written) or found.get(first)
    return found


def _date(written):
    try:
        return datetime.strptime(written.strip().ljust(20, "0"), "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def recorded_runs(raw) -> list[tuple[int, int]]:
    """First sample and end of each stretch that was recorded: what MNE does not annotate as skipped.

    Parameters
    ----------
    raw : mne.io.BaseRaw

    Returns
    -------
    list of (int, int)
        One, of all samples, for a recording without interruption; none where all were skipped.
    """
    skipped = np.zeros(raw.n_times + 2, bool)
    skipped[[0, -1]] = True
    for each in raw.annotations:
        if is_skip(each["description"]):
            begin = float(each["onset"]) - float(raw.first_time)
            edges = np.round(np.array([begin, begin + float(each["duration"])]) * raw.info["sfreq"])
            first, end = np.clip(edges, 0, raw.n_times).astype(int)
            skipped[1 + first : 1 + end] = True
    edges = np.flatnonzero(np.diff(skipped))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def is_skip(label) -> bool:
    """Tell whether an annotation means samples that were not recorded; BrainVision puts a type before it.

    Examples
    --------
    >>> is_skip("BAD_ACQ_SKIP"), is_skip("Comment/BAD_ACQ_SKIP"), is_skip("BAD_muscle")
    (True, True, False)
    """
    return str(label).split("/")[-1].upper() == SKIPPED


def events_at(events, times_s, rate_hz, start_s) -> tuple[Event, ...]:
    """Events that a reader laid at their samples, one after the other, at the samples' times.

    Parameters
    ----------
    events : sequence of Event
        Onsets are numbers of samples over `rate_hz`.
    times_s : ndarray (samples,)
    rate_hz : float
    start_s : float
        New onsets count from here.

    Returns
    -------
    tuple of Event
        One that goes on over a pause lasts longer by it.
    """

    def moment(place):
        sample = min(max(int(place + 1e-6), 0), len(times_s) - 1)
        return times_s[sample] + (place - sample) / rate_hz

    moved = []
    for event in events:
        first, further = event.onset_s * rate_hz, max(event.duration_s * rate_hz - 1, 0)
        begin = moment(first)
        pause = float(moment(first + further) - begin - further / rate_hz)
        duration = event.duration_s + (pause if abs(pause) > 0.5 / rate_hz else 0.0)
        moved.append(Event(onset_s=float(begin - start_s), duration_s=duration, label=event.label))
    return tuple(moved)
