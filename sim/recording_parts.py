"""Recordings cut into parts that are records: at events, or into windows of one length. No sample is in two of them."""

from collections import defaultdict
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from ..errors import InputError
from .quotation import quoted
from .recording_files import read_recording
from .recording_options import RecordingSource

_TOLD = {
    "failing": "recordings that cannot be cut, each one record that fails with its reason",
    "none": "recordings of which no event gives a record",
    "doubled": "events left out, since another of these events begins with them",
    "short": "events left out, since too little is left of them",
    "ended": "parts that end before their event does, where the next of these begins or the recording ends",
    "gap": "parts left out, since nothing was recorded in them",
    "rest": "parts whose last seconds are in no record, as they are shorter than `record_s`",
}
_KEPT = ("name", "condition", "start_s", "stop_s")
_TOLERANCE_S = 1e-6
_NEVER_S = 1e9


def cut_recordings(found, events=(), record_s=0.0, known=None) -> tuple[list[RecordingSource], tuple[str, ...]]:
    """Cut the recordings of a study at events, into windows, or first the one and then the other.

    An event of one of the labels is a part, its condition the label. It lasts as long as the event; one without a
    duration lasts `record_s`, or else to the recording's end. All end where the next event of these labels begins, at
    the latest. Of events that begin with the same sample the longest counts, and none if their labels differ.

    Windows of `record_s` follow one another; what is left at the end is in no record.

    A recording that cannot be read, or is shorter than one window, stays as one record, so that it is seen to fail.

    Parameters
    ----------
    found : sequence of RecordingSource
        Whole recordings, with a name each.
    events : sequence of str
        Labels; none for windows alone.
    record_s : float
        Seconds of a window; 0 leaves parts at events whole.
    known : dict, optional
        How recordings were cut before, by name, in plain values without paths: these are not read. Takes what is cut
        now, but for recordings that cannot be read.

    Returns
    -------
    parts : list of RecordingSource
    notes : tuple of str
        What was left out, shortened or cannot be cut, and why: number and first case.

    Raises
    ------
    InputError
        Where no recording gives a record, with what the first says, or two records would have one name.

    Examples
    --------
    >>> parts, notes = cut_recordings(find_recordings("data", eeg="{name}.edf"), ("rest", "grip"))   # doctest: +SKIP
    """
    known = {} if known is None else known
    parts, told, some = [], defaultdict(list), False
    for source in found:
        try:
            cut = known[source.name] = known.get(source.name) or _cut(source, events, record_s)
        except InputError as error:
            # Asks for more than there is, to fail even if the file can be read by then: whole it is no record of these.
            cut = _plain([replace(source, stop_s=_NEVER_S)], [("failing", str(error))])
        parts += [replace(source, **values) for values in cut["parts"]]
        for kind, case in cut["told"]:
            told[kind].append(case)
        some |= bool(cut["parts"]) and "failing" not in dict(cut["told"])
    doing = "cutting recordings into records"
    if not some:
        first = next(case for kind in _TOLD for case in told[kind])
        raise InputError(f"{doing}: none of {len(found)} gives one. The first says: {first}")
    uniquely_named(doing, parts)
    notes = (f"{_TOLD[kind]}: {len(told[kind])}, the first: {told[kind][0]}" for kind in _TOLD if told[kind])
    return parts, tuple(notes)


def uniquely_named(doing, found):
    """Refuse two recordings, or parts, of one name.

    Raises
    ------
    InputError
    """
    seen = {}
    for source in found:
        if source.name in seen:
            raise InputError(
                f"{doing}: {seen[source.name]} and {source.eeg} would both be called {source.name!r}, and results are "
                "found by name. Put {subject} and {name} into the pattern."
            )
        seen[source.name] = source.eeg


def _plain(parts, told):
    return {"parts": [{key: getattr(part, key) for key in _KEPT} for part in parts], "told": [list(e) for e in told]}


def _cut(source, labels, record_s):
    """Parts of one recording, and what there is to tell: pairs of a key of `_TOLD` and a case."""
    recording = read_recording(source)
    if labels:
        parts, told = _at_events(source, recording, labels, record_s)
    elif 0 < record_s <= recording.seconds + _TOLERANCE_S:
        # Nothing follows that a window's end, rounded up, could share a sample with; at events it could.
        parts, told = [replace(source, stop_s=source.start_s + recording.seconds + _TOLERANCE_S)], []
    else:
        why = (
            f"cutting {source.name} into records of {record_s:g} s: it has {recording.seconds:.3f} s. Give a shorter "
            "`record_s`."
        )
        return _plain([replace(source, stop_s=source.start_s + record_s)], [("failing", why)])
    if record_s:
        parts, told = _windows(parts, record_s, told)
    return _plain(*_recorded(source, recording, parts, told))


def _recorded(source, recording, parts, told):
    """Parts but for those in which EEG or EMG has not one sample, and what there is to tell."""
    gone = np.isnan(recording.eeg).all(axis=0) | np.isnan(recording.emg).all(axis=0)
    kept = []
    for part in parts:
        first, last = (round((moment - source.start_s) * recording.rate_hz) for moment in (part.start_s, part.stop_s))
        if gone[first:last].all():
            told.append(("gap", f"{part.start_s:g} to {part.stop_s:g} s of {source.name}"))
        else:
            kept.append(part)
    return kept, told


def _windows(parts, record_s, told):
    windows = []
    for part in parts:
        seconds = part.stop_s - part.start_s
        count = int((seconds + _TOLERANCE_S) / record_s)
        edges = [min(part.start_s + number * record_s, part.stop_s) for number in range(count + 1)]
        windows += [
            replace(part, start_s=a, stop_s=b, name=part.name if count == 1 else f"{part.name}-{number:03d}")
            for number, (a, b) in enumerate(pairwise(edges), 1)
        ]
        if seconds - count * record_s > 2 * _TOLERANCE_S:
            told.append(("rest", f"{seconds - count * record_s:.3f} s of {part.name}"))
    return windows, told


def _at_events(source, recording, labels, record_s):
    """Parts of a recording at its events, and what there is to tell."""
    chosen = [event for event in recording.events if event.label in labels]
    where = f"cutting {source.name} at events"
    if not chosen:
        there = quoted(", ".join(sorted({event.label for event in recording.events})))
        why = (
            f"{where}: none of {quoted(', '.join(labels))} is among its labels {there}. Correct `events` in [records]."
        )
        return [], [("none", why)]
    by_sample = groupby(enumerate(chosen, 1), key=lambda each: round(each[1].onset_s * recording.rate_hz))
    groups = [list(group) for _, group in by_sample]
    ends = [group[0][1].onset_s for group in groups[1:]] + [recording.seconds]
    least = record_s or 2 / recording.rate_hz
    parts, told = [], []
    for group, end_s in zip(groups, ends):
        kept = max(group, key=lambda each: each[1].duration_s) if len({e.label for _, e in group}) == 1 else None
        told += [("doubled", _case(source, each[1])) for each in group if each is not kept]
        if kept:
            part, wanted_s = _part(source, *kept, record_s, end_s)
            seconds = part.stop_s - part.start_s
            long_enough = seconds + _TOLERANCE_S >= least
            parts += [part] * long_enough
            if not long_enough or seconds + _TOLERANCE_S < wanted_s:
                told.append(("ended" if long_enough else "short", _case(source, kept[1], part)))
    if not parts:
        told.append(("none", f"{where}: of its {len(chosen)} none lasts {least:g} s until it ends or the next begins. "
                             "Give a shorter `record_s`."))  # fmt: skip
    return parts, told


def _part(source, number, event, record_s, end_s):
    """Part at an event that ends at `end_s` at the latest, and the seconds that it should have."""
    wanted_s = event.duration_s or record_s or end_s - event.onset_s
    part = replace(
        source,
        name=f"{source.name}-{event.label}-{number:03d}",
        condition=event.label,
        start_s=source.start_s + event.onset_s,
        stop_s=source.start_s + min(event.onset_s + wanted_s, end_s),
    )
    return part, wanted_s


def _case(source, event, part=None):
    left = f", {part.stop_s - part.start_s:.3f} s" if part else ""
    return f"{quoted(event.label)} at {source.start_s + event.onset_s:g} s of {source.name}{left}"
