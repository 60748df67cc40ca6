"""EEG and EMG in folders laid out as BIDS (Brain Imaging Data Structure) says: files and the tables beside them."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .quotation import quoted
from .recording import Event
from .recording_companions import without_later_parts

SUFFIXES = (".edf", ".bdf", ".vhdr", ".fif")

_TYPES = {"EEG": "eeg", "EMG": "emg"}
_LARGEST = 64 << 20


@dataclass(frozen=True, kw_only=True)
class BidsFile:
    """One EEG file of a data set, and what lies beside it.

    Attributes
    ----------
    eeg, emg : str
        Files; `emg` is "" where there is none of its own.
    subject : str
        Label without ``sub-``.
    task : str
    name : str
        The file's entities: ``sub-01_ses-2_task-grip_run-1``.
    eeg_table, emg_table, event_table : str
        Tables of channels and events; "" for none.
    """

    eeg: str
    emg: str
    subject: str
    task: str
    name: str
    eeg_table: str
    emg_table: str
    event_table: str


def is_bids(folder) -> bool:
    """Tell whether a folder is the root of a BIDS data set with EEG."""
    folder = Path(folder)
    return (folder / "dataset_description.json").is_file() or any(folder.glob("sub-*/**/eeg/*_eeg.*"))


def bids_files(root) -> list[BidsFile]:
    """EEG files of a data set, sorted by name, with the EMG and tables that belong to them.

    EMG is in the EEG's file, or in ``emg/`` beside ``eeg/`` under the same entities. A table is looked for beside the
    file and above it up to the root; the nearest whose entities are all the file's own counts. Of a recording split
    into several FIF files the first stands for all.

    Parameters
    ----------
    root : path-like

    Returns
    -------
    list of BidsFile

    Raises
    ------
    InputError
        Where there is no EEG, or ``participants.tsv`` names a subject that has none.

    Examples
    --------
    >>> [each.name for each in bids_files("ds004")]                                   # doctest: +SKIP
    """
    root = Path(root)
    files = sorted(path for path in root.glob("sub-*/**/eeg/*_eeg.*") if path.suffix.lower() in SUFFIXES)
    files = without_later_parts(files)
    if not files:
        raise InputError(
            f"looking for EEG in {root}: found no sub-*/[ses-*/]eeg/*_eeg with one of {', '.join(SUFFIXES)}. Correct "
            "the folder, or give patterns for files that are not laid out as BIDS."
        )
    found = [_bids_file(root, path) for path in files]
    _check_participants(root, {each.subject for each in found})
    return found


def _bids_file(root, path):
    stem = path.stem.removesuffix("_eeg")
    emg = next(
        (
            str(each)
            for each in sorted((path.parent.parent / "emg").glob(f"{stem}_emg.*"))
            if each.suffix.lower() in SUFFIXES
        ),
        "",
    )
    entities = _entities(stem)
    return BidsFile(
        eeg=str(path),
        emg=emg,
        subject=entities.get("sub", path.parent.name),
        task=entities.get("task", ""),
        name=stem,
        eeg_table=_table(root, path, stem, "channels"),
        emg_table=_table(root, Path(emg), stem, "channels") if emg else "",
        event_table=_table(root, path, stem, "events"),
    )


def _entities(stem):
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)", stem))


def _table(root, path, stem, suffix):
    own = set(_entities(stem).items())
    folder = path.parent
    while True:
        fitting = [each for each in folder.glob(f"*{suffix}.tsv") if set(_entities(each.stem).items()) <= own]
        if fitting:
            return str(max(fitting, key=lambda each: len(each.stem)))
        if folder == root or folder == folder.parent:
            return ""
        folder = folder.parent


def _check_participants(root, subjects):
    path = root / "participants.tsv"
    if not path.is_file():
        return
    listed = {row["participant_id"].removeprefix("sub-") for row in read_tsv(path, ("participant_id",))}
    if unlisted := sorted(subjects - listed):
        raise InputError(
            f"reading {path}: it does not list {', '.join(unlisted)[:200]}, whose EEG is there; one of them is named "
            "wrongly, and splits by subject would mix people. Correct the table or the files' names."
        )


def read_tsv(path, needed) -> list[dict]:
    """Rows of a BIDS table by title.

    Raises
    ------
    InputError
        Naming the file, where it is none, lacks a column, or a row has another number of fields.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"reading {path}: {path.stat().st_size >> 20} MiB are too many for such a table.")
        text = path.read_text(encoding="utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"reading {path}: no table that can be read ({error}). Copy it again.") from error
    titles = [title.strip() for title in rows[0]] if rows else []
    if missing := [title for title in needed if title not in titles]:
        raise InputError(f"reading {path}: there is no column {', '.join(missing)}, which BIDS asks for. Add it.")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(titles):
            raise InputError(
                f"reading {path}, row {number}: found {len(row)} fields where the header names {len(titles)} columns. "
                "Repair the row."
            )
    return [dict(zip(titles, (field.strip() for field in row))) for row in rows[1:]]


def channel_table(path) -> tuple[dict, dict]:
    """Types and bad channels of a ``*_channels.tsv``.

    Units are those of the data file, which is what is read; the table's only repeat them.

    Returns
    -------
    types : dict of str to str
        "eeg", "emg" or "other" by channel.
    bad : dict of str to str
        Channels of status ``bad`` to where that is said and why.

    Examples
    --------
    >>> channel_table("sub-01_task-grip_channels.tsv")                                # doctest: +SKIP
    """
    rows = read_tsv(path, ("name", "type"))
    types = {row["name"]: _TYPES.get(row["type"].upper(), "other") for row in rows}
    bad = {}
    for row in rows:
        if row.get("status", "").lower() == "bad":
            why = row.get("status_description", "n/a")
            bad[row["name"]] = Path(path).name + ("" if why in ("", "n/a") else f": {why}")
    return types, bad


def event_table(path) -> tuple[Event, ...]:
    """Events of a ``*_events.tsv``, in order of their onsets.

    The label is the column ``trial_type``, else ``value``, else ``event``.

    Raises
    ------
    InputError
        Naming file and row, where an onset is no number.
    """
    rows = read_tsv(path, ("onset", "duration"))
    return tuple(sorted((_event(path, number, row) for number, row in enumerate(rows, 2)), key=lambda e: e.onset_s))


def _event(path, number, row):
    times = []
    for key in ("onset", "duration"):
        text = row[key]
        try:
            times.append(0.0 if key == "duration" and text in ("n/a", "") else float(text))
        except ValueError:
            times.append(math.nan)
        if not math.isfinite(times[-1]) or (key == "duration" and times[-1] < 0):
            raise InputError(
                f"reading {path}, row {number}: {key} is {quoted(text)}, but must be seconds; when it happened is not "
                "known. Repair the row."
            )
    label = next((row[key] for key in ("trial_type", "value", "event") if row.get(key, "n/a") not in ("n/a", "")), "")
    return Event(onset_s=times[0], duration_s=times[1], label=label)
