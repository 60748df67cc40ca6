"""Recordings in EDF, BDF, BrainVision and FIF files, read with MNE."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingPackageError
from .recording import Event
from .recording_companions import companions
from .recording_edf_times import ONSET_S, first_onset, record_times
from .recording_guards import check_fif, edf_channels, require_mne
from .recording_segments import SKIPPED, events_at, is_skip, recorded_runs, segment_times
from .recording_signals import Signals, channel_type, damaged, file_bytes, volts_of

SUFFIXES = (".edf", ".bdf", ".vhdr", ".fif")

_KINDS = {"eeg": "eeg", "emg": "emg"}
_JOIN = "EDGE boundary"  # as mne.concatenate_raws marks it
_NOT_EVENTS = ("EDF Annotations", "New Segment/")


def read_with_mne(path) -> list[Signals]:
    """Read an EDF, BDF, BrainVision (``.vhdr``) or FIF file.

    Channels of one rate come together: an EDF with EEG at 256 Hz and EMG at 1024 Hz gives two `Signals`, neither
    resampled. Where the recording was interrupted (EDF+D, BDF+D, dated segments of BrainVision, what MNE annotates as
    BAD_ACQ_SKIP), samples come with their times, and those that a reader filled in are left out.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    list of Signals

    Raises
    ------
    MissingPackageError
        If MNE is not installed.
    InputError
        Naming the file, where it is not there, cut short, damaged or of another format, or it was interrupted for
        nobody knows how long.

    Examples
    --------
    >>> [signals.rate_hz for signals in read_with_mne("night.edf")]                   # doctest: +SKIP
    """
    path = Path(path)
    size = file_bytes(path)
    require_mne(f"reading {path}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if path.suffix.lower() in (".edf", ".bdf"):
                return _edf(path, size)
            if path.suffix.lower() == ".fif":
                for part in (path, *companions(path)):
                    check_fif(part, file_bytes(part))
            return [_signals(path, _open(path))]
        except (InputError, MissingPackageError):
            raise
        except MemoryError as error:
            raise damaged(path, "recording that fits into memory", error, "Cut it into shorter files") from error
        except Exception as error:  # MNE meets damaged bytes with almost any exception
            raise damaged(path, f"{path.suffix} recording", error) from error


def _open(path, **options):
    import mne

    if path.suffix.lower() == ".vhdr":
        return mne.io.read_raw_brainvision(path, verbose="error")
    if path.suffix.lower() == ".fif":
        return mne.io.read_raw_fif(path, verbose="error")
    read = mne.io.read_raw_edf if path.suffix.lower() == ".edf" else mne.io.read_raw_bdf
    return read(path, stim_channel=None, verbose="error", **options)


def _edf(path, size):
    header = edf_channels(path, size)
    rates = sorted(set(header.rates_hz), reverse=True)
    found = []
    for rate in rates:
        others = [name for name, each in zip(header.names, header.rates_hz) if each != rate]
        here = [n for n, each in enumerate(header.rates_hz) if each == rate]
        raw = _open(path, exclude=[name for name in others if name not in {header.names[n] for n in here}])
        if len(raw.ch_names) != len(here):
            raise InputError(
                f"reading {path}: channels of one name have different rates, and which is which cannot be told. "
                "Rename channels."
            )
        # MNE gives volts where it knows the unit, and leaves a number as it is where it does not.
        known = np.array([volts_of(header.units[n]) for n in here])
        scaled = np.array([_mne_volts(header.units[n]) for n in here])
        names = [header.names[n] for n in here]
        # What a discontinuous file leaves out is told by its records, whose times MNE's samples do not have.
        runs = [(0, raw.n_times)] if header.gaps else None
        found.append(_signals(path, raw, names=names, volts=known / scaled, runs=runs))
    return _with_gaps(path, header, found) if header.gaps else _later(found, first_onset(path, header))


def _with_gaps(path, header, found):
    """Signals of a discontinuous file, whose records MNE puts one after the other, each sample with its own time."""
    onsets, events = record_times(path, header)
    told = f"{path.name}: a discontinuous file (EDF+D or BDF+D), read by its data records' onsets"
    placed = []
    for signals in found:
        each = round(header.record_s * signals.rate_hz)
        if signals.values.shape[1] != each * len(onsets):
            raise InputError(
                f"reading {path}: {signals.values.shape[1]} samples do not fill {len(onsets)} data records of {each}, "
                "so gaps cannot be placed. Export it without gaps (EDF+C)."
            )
        stamps = (onsets[:, None] + np.arange(each) / signals.rate_hz).ravel()
        gap_s = 1.5 / signals.rate_hz + ONSET_S
        placed.append(replace(signals, stamps_s=stamps, gap_s=gap_s, events=events, notes=(*signals.notes, told)))
    return placed


def _later(found, seconds):
    """Signals that begin later than the header says, which has whole seconds."""
    return [replace(signals, start_s=signals.start_s + seconds) for signals in found]


def _mne_volts(unit):
    if unit in ("μV", "µV", "\x83\xcaV", "uV"):
        return 1e-6
    return 1e-3 if unit == "mV" else 1.0


def _signals(path, raw, names=None, volts=None, runs=None):
    """Channels of what was recorded; with times where something was skipped. `runs` are stretches to read, if known."""
    names = names or list(raw.ch_names)
    rate, moment = float(raw.info["sfreq"]), raw.info["meas_date"]
    runs = recorded_runs(raw) if runs is None else runs
    samples = sum(end - first for first, end in runs)
    if samples < 2 or not np.isfinite(rate) or rate <= 0:
        raise InputError(f"reading {path}: found {samples} samples, so nothing was recorded. Export it again.")
    parts = [raw.get_data(start=first, stop=end, verbose="error") for first, end in runs]
    signals = Signals(
        what=str(path),
        values=np.concatenate(parts, axis=1, dtype=float),
        names=tuple(names),
        types=tuple(_type(name, kind) for name, kind in zip(names, raw.get_channel_types())),
        volts=tuple(volts) if volts is not None else (1.0,) * len(names),
        rate_hz=rate,
        start_s=float(raw.first_time) + (moment.timestamp() if moment else 0.0),
        origin="date" if moment else "own",
        events=_events(raw),
        bad={name: path.name for name in raw.info["bads"]},
        notes=_joins(path, raw),
    )
    return _at_times(path, signals, runs, raw.n_times)


def _joins(path, raw):
    """A note on recordings that somebody put together: how far apart they were taken, no file tells."""
    count = sum(each["description"] == _JOIN for each in raw.annotations)
    if not count:
        return ()
    told = f"{count} joins of recordings that were put together" if count > 1 else "a join of two recordings"
    return (f"{path.name}: {told} ({_JOIN}): filters and autoregressions run across, so read them apart if you can",)


def _at_times(path, signals, runs, samples):
    """Signals of an interrupted recording, each of its `samples` in `runs` with its own time; others as they are."""
    rate, recorded = signals.rate_hz, signals.values.shape[1]
    found = segment_times(path, samples, rate) if path.suffix.lower() == ".vhdr" else None
    if recorded == samples and not found:
        return signals
    times, told = np.arange(samples) / rate, []
    if found:
        start, times = found
        signals = replace(signals, start_s=start.timestamp())
        told.append(f"{path.name}: a recording with pauses, its segments at the dates of its New Segment markers")
    if recorded < samples:
        told.append(f"{path.name}: what is annotated as {SKIPPED} was not recorded")
    stamps = np.concatenate([times[first:end] for first, end in runs])
    events = events_at(signals.events, times, rate, stamps[0])
    return replace(signals, stamps_s=stamps, gap_s=1.5 / rate, events=events, notes=(*signals.notes, *told))


def _type(name, kind):
    """A file's own type counts, but EDF and BrainVision know none and MNE calls all of theirs EEG."""
    if kind == "eeg":
        return channel_type(name)
    return _KINDS.get(kind, "other")


def _events(raw):
    first = float(raw.first_time)
    return tuple(
        Event(onset_s=float(each["onset"]) - first, duration_s=float(each["duration"]), label=str(each["description"]))
        for each in raw.annotations
        if not str(each["description"]).startswith(_NOT_EVENTS) and not is_skip(each["description"])
    )
