"""One recording out of its file or files: EEG and EMG in volts, on one clock, with what was found wrong in them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import recording_arrays, recording_mne
from .bids import event_table
from .recording import Event, Recording
from .recording_alignment import SHORTEST_S, aligned, with_clock
from .recording_arrays import read_arrays_of
from .recording_channels import eeg_and_emg, in_volts
from .recording_checks import check_channels, unique_names
from .recording_mne import read_with_mne
from .recording_options import RecordingSource, check_options
from .recording_resampling import PASSED, resample
from .recording_signals import Signals
from .recording_tables import read_table

__all__ = ["RecordingSource", "read_recording", "read_signals"]

_TABLES = (".csv", ".tsv", ".txt")
_NEXT = 1e-3  # of a sample: so near to the end of the last one, rates that were measured miss it
_ONE_SAMPLE = 1.5


def read_recording(source: RecordingSource, rate_hz: float = 0.0) -> Recording:
    """Read, align and check one recording.

    The recording begins where both EEG and EMG have begun and ends where one of them ends. Both are resampled to
    `rate_hz` on one grid (see `recording_resampling`); a signal that is on it already is not touched. Samples that were
    not recorded (gaps) are nan in both arrays' channels. Channels are checked before they are resampled. An EMG channel
    that is called as one of the EEG is named anew, with "EMG" before its name.

    Parameters
    ----------
    source : RecordingSource
    rate_hz : float
        Samples per second of the result; 0 takes the higher of both rates.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        Naming the file: where it cannot be read, has no EEG or EMG, no rate, clocks that do not overlap or cannot be
        compared, or is shorter than the part that is wanted.
    MissingPackageError
        If MNE is needed and not installed.

    Examples
    --------
    >>> source = RecordingSource(eeg="trial_01/eeg_data.csv", emg="trial_01/emg_data.csv", name="01", emg_unit="counts")
    >>> recording = read_recording(source, rate_hz=250.0)                             # doctest: +SKIP
    """
    check_options(source, rate_hz)
    eeg, emg = eeg_and_emg(source, read_signals)
    emg = _told_apart(emg, eeg)
    (eeg, eeg_clock), (emg, emg_clock) = with_clock(eeg, source, "eeg"), with_clock(emg, source, "emg")
    clocks = aligned([eeg_clock, emg_clock], eeg, emg, source)
    rate = float(rate_hz or max(clock.rate_hz for clock in clocks))
    begin, count = _part(source, clocks, rate)
    arrays, faults, notes = [], [], []
    for kind, signals, clock in zip(("eeg", "emg"), (eeg, emg), clocks):
        signals, told, scaled = in_volts(signals, kind, source)
        names, doubled = unique_names(signals.names, Path(signals.what).name)
        window = _within(clock, begin, count / rate, signals.what)
        found, partly = check_channels(signals.values[:, window], names, clock.rate_hz, kind, signals.bad, scaled)
        faults += [*doubled, *found]
        arrays.append((names, _on_grid(signals.values, clock, begin, rate, count)))
        notes += [*signals.notes, *told, *clock.notes, *partly, *_band_note(kind, clock.rate_hz, rate)]
    (eeg_names, eeg_v), (emg_names, emg_v) = arrays
    return Recording(
        eeg=eeg_v,
        emg=emg_v,
        rate_hz=rate,
        eeg_names=eeg_names,
        emg_names=emg_names,
        subject=source.subject,
        condition=source.condition,
        name=source.name or Path(source.eeg).stem,
        events=_events(eeg, source, clocks[0], begin, count / rate),
        faults=tuple(faults),
        notes=tuple(dict.fromkeys([*notes, *_gap_notes(eeg_v, emg_v)])),
    )


def read_signals(path, source: RecordingSource = RecordingSource(eeg="")) -> list[Signals]:
    """Read one file by its suffix.

    Raises
    ------
    InputError
        Where the suffix is none that is read, or the file is damaged.
    """
    suffix = Path(path).suffix.lower()
    if suffix in recording_mne.SUFFIXES:
        return read_with_mne(path)
    if suffix in recording_arrays.SUFFIXES:
        return read_arrays_of(path, eeg_array=source.eeg_array, emg_array=source.emg_array, layout=source.layout)
    if suffix in _TABLES:
        return [read_table(path, time_column=source.time_column, time_unit=source.time_unit)]
    known = ", ".join((*recording_mne.SUFFIXES, *_TABLES, *recording_arrays.SUFFIXES))
    raise InputError(f"reading {path}: recordings are read from {known}. Export it as one of these.")


def _told_apart(emg, eeg):
    """EMG without channels that are called as one of the EEG: faults and results are found by name alone."""
    own = {name: f"EMG {name}" if name in eeg.names else name for name in emg.names}
    same = [name for name in own if own[name] != name]
    if not same:
        return emg
    told = f"{Path(emg.what).name}: {', '.join(same)} of the EMG have EEG channels' names; EMG was put before theirs"
    return replace(
        emg,
        names=tuple(own[name] for name in emg.names),
        bad={own.get(name, name): why for name, why in emg.bad.items()},
        notes=(*emg.notes, told[:300]),
    )


def _part(source, clocks, rate):
    """Time of the first sample of the result, and the number of its samples."""
    # A sample stands for the step that it begins, so that 60 s of two rates are 60 s, whichever is the slower one.
    begin, end = max(clock.start_s for clock in clocks), min(clock.stop_s + 1 / clock.rate_hz for clock in clocks)
    if end - begin < SHORTEST_S:
        spans = " and ".join(f"{clock.start_s:.6f} to {clock.stop_s:.6f} s" for clock in clocks)
        raise InputError(
            f"aligning {source.eeg} and {source.emg or 'its EMG'}: EEG and EMG run from {spans}, which overlap by "
            f"{end - begin:.3f} s; nothing was recorded at the same time. Check that the files belong together and "
            'their clocks agree; if both began at once, say `align = "start"`.'
        )
    whole = int(np.floor((end - begin) * rate + _NEXT))
    first = round(source.start_s * rate)
    last = min(round(source.stop_s * rate), whole) if source.stop_s else whole
    if first < 0 or last - first < 2 or (source.stop_s and round(source.stop_s * rate) > whole + 1):
        raise InputError(
            f"reading {source.eeg}: the part from {source.start_s:g} to {source.stop_s or 'the end'} s is not in the "
            f"{(end - begin):.3f} s that EEG and EMG have in common. Correct start and stop, or `record_s`."
        )
    return begin + first / rate, last - first


def _within(clock, begin, seconds, what):
    """Slice of the samples as recorded within the part."""
    times = (begin - clock.start_s) * clock.rate_hz
    first, last = np.searchsorted(clock.places, [times - 1e-6, times + seconds * clock.rate_hz - 1e-6])
    if last <= first and seconds * clock.rate_hz >= 2:
        raise InputError(
            f"reading {what}: the {seconds:.3f} s that are wanted lie in a gap of the recording, so there is not one "
            "sample. Choose another part, or leave this record out."
        )
    return slice(int(first), max(int(last), int(first) + 1))


def _on_grid(values, clock, begin, rate, count):
    grid = values
    if len(clock.places) <= clock.places[-1]:
        grid = np.full((len(values), int(clock.places[-1]) + 1), np.nan)
        grid[:, clock.places] = values
    return resample(grid, clock.rate_hz, begin - clock.start_s, rate, count)


def _band_note(kind, own_hz, rate):
    if abs(own_hz / rate - 1) < 1e-6:
        return []
    lower = min(own_hz, rate)
    return [
        f"{kind.upper()} resampled from {own_hz:.6g} to {rate:.6g} Hz (windowed sinc): it holds nothing above "
        f"{lower / 2:.4g} Hz and is kept up to {PASSED * lower / 2:.4g} Hz, whatever band is asked for later"
    ]


def _gap_notes(eeg_v, emg_v):
    notes = []
    for kind, x in (("EEG", eeg_v), ("EMG", emg_v)):
        gone = np.isnan(x).all(axis=0)
        if gone.any():
            notes.append(f"{kind}: {gone.mean():.1%} of the recording are gaps (nan in all channels)")
    return notes


def _events(eeg, source, clock, begin, seconds):
    """Events of the file and its table that begin within the part, counted from its first sample.

    One that lasts a sample of the EEG is a moment: BrainVision's stimuli are of that length.
    """
    events = event_table(source.event_table) if source.event_table else eeg.events
    lasts = [e.duration_s if e.duration_s * clock.rate_hz > _ONE_SAMPLE else 0.0 for e in events]
    shift = clock.start_s - begin
    moved = [Event(onset_s=e.onset_s + shift, duration_s=s, label=e.label) for e, s in zip(events, lasts)]
    return tuple(e for e in moved if -1e-9 <= e.onset_s < seconds)
