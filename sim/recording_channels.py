"""Which channels of a file are EEG and which EMG, and their scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import recording_mne
from .bids import channel_table
from .quotation import quoted
from .recording_signals import UNITS, Signals


def eeg_and_emg(source, read) -> tuple[Signals, Signals]:
    """EEG's and EMG's channels of a recording, each on one clock.

    Parameters
    ----------
    source : RecordingSource
    read : callable
        Gives a file's list of `Signals`.

    Raises
    ------
    InputError
        Where there is no such channel, or those of one kind have different rates.
    """
    found = {}
    for role in ("eeg", "emg"):
        path = getattr(source, role) or source.eeg
        if role == "emg" and not source.emg:
            files = found["files"]
        else:
            files = [_marked(each, getattr(source, f"{role}_table")) for each in read(path, source)]
        found["files"] = files
        found[role] = _picked(files, role, source, path)
    return found["eeg"], found["emg"]


def _marked(signals, table):
    """Types, units and bad channels as a BIDS table has them."""
    if not table:
        return signals
    types, bad = channel_table(table)
    return replace(
        signals,
        types=tuple(types.get(name, kind) for name, kind in zip(signals.names, signals.types)),
        bad={**signals.bad, **bad},
    )


def _picked(files, role, source, path):
    """Channels of one kind, from the one group of a file that has them."""
    wanted = getattr(source, f"{role}_channels")
    alone = bool(source.emg)
    groups = []
    for signals in files:
        rows = _rows(signals, role, source, wanted, alone)
        if rows:
            groups.append((signals, rows))
    names = [name for signals in files for name in signals.names]
    found = {signals.names[row] for signals, rows in groups for row in rows}
    if missing := [name for name in wanted if name not in found]:
        raise InputError(
            f"reading {path}: there is no channel {quoted(', '.join(missing))} among {quoted(', '.join(names))}. "
            f"Correct `{role}_channels`."
        )
    if not groups:
        raise InputError(
            f"reading {path}: found no {role.upper()} channel among {', '.join(map(quoted, names[:40]))}. Name them in "
            f"`{role}_channels`" + ("." if alone else ", or give the EMG's own file.")
        )
    if len(groups) > 1:
        rates = ", ".join(f"{signals.rate_hz:g}" for signals, _ in groups)
        raise InputError(
            f"reading {path}: {role.upper()} channels have different rates ({rates} Hz). Name those of one rate in "
            f"`{role}_channels`."
        )
    signals, rows = groups[0]
    left = [
        name
        for row, (name, kind) in enumerate(zip(signals.names, signals.types))
        if row not in rows and kind not in ("eeg", "emg")
        if name not in (*source.drop_channels, *source.eeg_channels, *source.emg_channels)
    ]
    told = f"{Path(path).name}: left out, neither EEG nor EMG by type or name: {', '.join(left)}"
    return replace(
        signals,
        values=signals.values[rows],
        names=tuple(signals.names[row] for row in rows),
        types=(role,) * len(rows),
        volts=tuple(signals.volts[row] for row in rows),
        notes=(*signals.notes, told[:300]) if left else signals.notes,
    )


def _rows(signals, role, source, wanted, alone):
    if wanted:
        return [signals.names.index(name) for name in wanted if name in signals.names]
    other = source.emg_channels if role == "eeg" else source.eeg_channels
    rows = []
    for row, (name, kind) in enumerate(zip(signals.names, signals.types)):
        if name in source.drop_channels or (not alone and name in other):
            continue
        # In a file for both, what is of unknown kind is EEG once the EMG has been named, and the other way round.
        if (
            kind == role
            or (not kind and (alone or other))
            or (alone and kind in ("eeg", "emg") and role not in signals.types)
        ):
            rows.append(row)
    return rows


def in_volts(signals: Signals, kind, source) -> tuple[Signals, list, np.ndarray]:
    """Signals in V, notes on units that were assumed, and which channels have a scale (counts of a device have none).

    Examples
    --------
    >>> signals, notes, scaled = in_volts(signals, "eeg", source)                     # doctest: +SKIP
    """
    unit = getattr(source, f"{kind}_unit")
    volts = np.array(signals.volts)
    notes = []
    what = Path(signals.what).name
    scaled = ~np.isnan(volts) | (unit != "counts")
    if np.isnan(volts).any():
        taken = "uV" if unit == "auto" else unit
        volts = np.where(np.isnan(volts), UNITS[taken], volts)
        if taken == "counts":
            notes = [
                f"{what}: {kind.upper()} in counts of the device, with no scale; written as 1 uV each, and not checked "
                "for being out of range"
            ]
        else:
            notes = [f"{what}: the file names no unit; {taken} {'assumed' if unit == 'auto' else 'as stated'}"]
    elif (
        unit != "auto"
        and not np.allclose(volts, UNITS[unit])
        and not signals.what.lower().endswith(recording_mne.SUFFIXES)
    ):
        notes = [f"{what}: the file names its unit; the stated {unit} was not used"]
    return replace(signals, values=signals.values * volts[:, None]), notes, scaled
