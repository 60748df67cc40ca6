"""All recordings of a study: by patterns of file names, or as BIDS lays them out; whole or cut into parts."""

import re
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

from ..errors import InputError
from .bids import bids_files, is_bids
from .quotation import quoted
from .recording_files import RecordingSource, read_recording

__all__ = ["RecordingSource", "cut_at_events", "cut_into_windows", "find_recordings"]

_PLACES = ("subject", "condition", "name")
_OWN = {"eeg", "emg", *_PLACES, "eeg_table", "emg_table", "event_table", "start_s", "stop_s"}


def find_recordings(folder, *, eeg="", emg="", events=(), record_s=0.0, **reading) -> list[RecordingSource]:
    """List the recordings of a folder, sorted by name.

    Parameters
    ----------
    folder : path-like
        Root of a BIDS data set, if no pattern is given; else what patterns start from. Or one file.
    eeg, emg : str
        Patterns such as ``{subject}/{name}/eeg_data.csv``. ``{subject}``, ``{condition}``, ``{name}`` and ``*`` each
        stand for part of a path's component. What they stood for in `eeg` is put into `emg`, the first ``*`` for the
        first and so on. Without `emg` both are in one file.
    events : sequence of str
        Labels. Each event of one of them becomes a recording of its own, the label its condition (see `cut_at_events`).
    record_s : float
        Cut recordings into parts of so many seconds (see `cut_into_windows`); 0 leaves them whole.
    **reading
        Options of `RecordingSource` that all have in common.

    Returns
    -------
    list of RecordingSource
        Names are the parts that placeholders stood for, joined by "-", or a BIDS file's entities.

    Raises
    ------
    InputError
        Where nothing fits, an EEG file has no EMG file, two recordings have one name, or an option is unknown.

    Examples
    --------
    >>> find_recordings("data", eeg="{subject}/{name}/eeg.csv", emg="{subject}/{name}/emg.csv")     # doctest: +SKIP
    """
    unknown = sorted(set(reading) - {field.name for field in fields(RecordingSource)} | set(reading) & _OWN)
    if unknown:
        raise InputError(f"looking for recordings in {folder}: {', '.join(unknown)} is no option of reading.")
    reading = {key: tuple(value) if isinstance(value, list) else value for key, value in reading.items()}
    folder = Path(folder).expanduser()
    if not folder.exists():
        raise InputError(f"looking for recordings in {folder}: it is not there. Correct `source` in [records].")
    if eeg:
        found = _by_pattern(folder, eeg, emg, reading)
    elif folder.is_file():
        found = [RecordingSource(eeg=str(folder), emg=emg, name=folder.stem, **reading)]
    elif is_bids(folder):
        found = [_from_bids(each, reading) for each in bids_files(folder)]
    else:
        raise InputError(
            f"looking for recordings in {folder}: it is no BIDS data set, and without a pattern which files are "
            'recordings cannot be told. Give `eeg = "{subject}/{name}/eeg.csv"` or the like.'
        )
    if events:
        found = [part for source in found for part in cut_at_events(source, events, record_s)]
    if record_s:
        found = [part for source in found for part in cut_into_windows(source, record_s)]
    return _uniquely_named(folder, found)


def _from_bids(each, reading):
    return RecordingSource(
        eeg=each.eeg,
        emg=each.emg,
        subject=each.subject,
        condition=each.task,
        name=each.name,
        eeg_table=each.eeg_table,
        emg_table=each.emg_table,
        event_table=each.event_table,
        **reading,
    )


def _by_pattern(folder, eeg, emg, reading):
    pattern, keys = _expression(eeg)
    found, without = [], []
    for path in sorted(folder.glob(re.sub(r"\{\w+\}", "*", eeg))):
        fit = pattern.fullmatch(path.relative_to(folder).as_posix())
        if not fit or not path.is_file():
            continue
        parts = dict(zip(keys, fit.groups()))
        partner = folder / _filled(emg, parts) if emg else None
        if partner is not None and not partner.is_file():
            without.append(str(partner))
            continue
        found.append(
            RecordingSource(
                eeg=str(path),
                emg=str(partner) if partner else "",
                subject=parts.get("subject", ""),
                condition=parts.get("condition", ""),
                name="-".join(dict.fromkeys(parts.values())) or path.stem,
                **reading,
            )
        )
    if without:
        raise InputError(
            f"looking for recordings in {folder}: {len(without)} EEG files have no EMG file, the first would be "
            f"{without[0]}. Add the files, or correct the pattern {emg!r}."
        )
    if not found:
        raise InputError(f"looking for recordings in {folder}: no file fits {eeg!r}. Correct the pattern.")
    return found


def _expression(pattern):
    """Regular expression of a pattern, and the keys of its groups: placeholders, and numbers of stars."""
    text, keys = "", []
    if ".." in Path(pattern).parts or Path(pattern).is_absolute():
        raise InputError(f"pattern {pattern!r}: it leaves the folder. Give a pattern of paths within it.")
    for piece in re.split(r"(\{\w*\}|\*+|\?|\[[^\]]*\])", pattern):
        if re.fullmatch(r"\{\w*\}", piece):
            if piece[1:-1] not in _PLACES:
                known = ", ".join(f"{{{key}}}" for key in _PLACES)
                raise InputError(f"pattern {pattern!r}: {piece} is none of {known}. Use one of them, or *.")
            text += f"(?P={piece[1:-1]})" if piece[1:-1] in keys else f"(?P<{piece[1:-1]}>[^/]+)"
            keys += [] if piece[1:-1] in keys else [piece[1:-1]]
        elif piece == "*":
            text += "([^/]*)"
            keys.append(sum(isinstance(key, int) for key in keys))
        elif piece == "?" or piece.startswith("[") or piece.startswith("**"):
            raise InputError(f"pattern {pattern!r}: {piece!r} is not known here. Use * and {{name}}.")
        else:
            text += re.escape(piece)
    return re.compile(text), keys


def _filled(pattern, parts):
    _expression(pattern)
    stars = iter(range(pattern.count("*")))

    def value(found):
        key = next(stars) if found[0] == "*" else found[0][1:-1]
        if key not in parts:
            raise InputError(f"pattern {pattern!r} of the EMG: {found[0]} stands for nothing in that of the EEG.")
        return parts[key]

    return re.sub(r"\{\w+\}|\*", value, pattern)


def cut_at_events(source: RecordingSource, labels, record_s=0.0) -> list[RecordingSource]:
    """Cut a recording at its events of some labels: a part for each, its condition the label.

    A part lasts as long as its event; one without a duration lasts `record_s`, or else up to the next event of these
    labels or the recording's end. Parts are cut off at the end of the recording.

    Raises
    ------
    InputError
        Where the recording has no such event.

    Examples
    --------
    >>> cut_at_events(RecordingSource(eeg="s01.edf", name="s01"), ("rest", "grip"))           # doctest: +SKIP
    """
    recording = read_recording(source)
    chosen = [event for event in recording.events if event.label in labels]
    if not chosen:
        there = sorted({event.label for event in recording.events})
        raise InputError(
            f"cutting {source.eeg} at events: none of {quoted(', '.join(labels))} is among its labels "
            f"{quoted(', '.join(there))}. Correct `events` in [records]."
        )
    parts = []
    for number, event in enumerate(chosen):
        following = chosen[number + 1].onset_s if number + 1 < len(chosen) else recording.seconds
        length = event.duration_s or record_s or following - event.onset_s
        stop = min(event.onset_s + length, recording.seconds)
        if stop - event.onset_s < 2 / recording.rate_hz:
            continue
        name = f"{source.name}-{event.label}-{number + 1:03d}"
        start = source.start_s + event.onset_s
        parts.append(replace(source, name=name, condition=event.label, start_s=start, stop_s=source.start_s + stop))
    return parts


def cut_into_windows(source: RecordingSource, record_s) -> list[RecordingSource]:
    """Cut a recording into parts of `record_s` seconds, one after the other. What is left at the end is not used.

    Raises
    ------
    InputError
        Where the recording is shorter than one part.

    Examples
    --------
    >>> cut_into_windows(RecordingSource(eeg="s01.edf", name="s01"), 60.0)                     # doctest: +SKIP
    """
    seconds = (source.stop_s - source.start_s) if source.stop_s else read_recording(source).seconds
    count = int((seconds + 1e-6) / record_s) if record_s > 0 else 0
    if not count:
        raise InputError(
            f"cutting {source.eeg} into records of {record_s:g} s: it has {seconds:.3f} s. Give a shorter `record_s`."
        )
    edges = [source.start_s + number * record_s for number in range(count + 1)]
    return [
        replace(source, start_s=a, stop_s=b, name=source.name if count == 1 else f"{source.name}-{number + 1:03d}")
        for number, (a, b) in enumerate(pairwise(edges))
    ]


def _uniquely_named(folder, found):
    seen = {}
    for source in found:
        if source.name in seen:
            raise InputError(
                f"looking for recordings in {folder}: {seen[source.name]} and {source.eeg} would both be called "
                f"{source.name!r}, and results are found by name. Put {{subject}} and {{name}} into the pattern."
            )
        seen[source.name] = source.eeg
    return found
