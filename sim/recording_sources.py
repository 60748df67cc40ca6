"""All recordings of a study: by patterns of file names, or as BIDS lays them out; whole (see `recording_parts`)."""

import re
from dataclasses import fields
from pathlib import Path

from ..errors import InputError
from .bids import bids_files, is_bids
from .recording_companions import without_later_parts
from .recording_options import RecordingSource
from .recording_parts import uniquely_named

__all__ = ["RecordingSource", "find_recordings"]

_PLACES = ("subject", "condition", "name")
_OWN = {"eeg", "emg", *_PLACES, "eeg_table", "emg_table", "event_table", "start_s", "stop_s"}


def find_recordings(folder, *, eeg="", emg="", **reading) -> list[RecordingSource]:
    """List the recordings of a folder, sorted by name.

    Parameters
    ----------
    folder : path-like
        Root of a BIDS data set, if no pattern is given; else what patterns start from. Or one file.
    eeg, emg : str
        Patterns such as ``{subject}/{name}/eeg_data.csv``. ``{subject}``, ``{condition}``, ``{name}`` and ``*`` each
        stand for part of a path's component. What they stood for in `eeg` is put into `emg`, the first ``*`` for the
        first and so on. Without `emg` both are in one file.
    **reading
        Options of `RecordingSource` that all have in common.

    Returns
    -------
    list of RecordingSource
        Names are the parts that placeholders stood for, joined by "-", or a BIDS file's entities. FIF files that
        another goes on in are no recordings of their own.

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
    uniquely_named(f"looking for recordings in {folder}", found)
    return found


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
    fitting, found, without = {}, [], []
    for path in sorted(folder.glob(re.sub(r"\{\w+\}", "*", eeg))):
        fit = pattern.fullmatch(path.relative_to(folder).as_posix())
        if fit and path.is_file():
            fitting[path] = dict(zip(keys, fit.groups()))
    for path in without_later_parts(fitting):
        parts = fitting[path]
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
