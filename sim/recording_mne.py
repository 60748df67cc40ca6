"""Recordings in EDF, BDF, BrainVision and FIF files, read with MNE."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingPackageError
from .recording import Event
from .recording_guards import check_fif, edf_channels
from .recording_signals import Signals, channel_type, damaged, file_bytes, volts_of

SUFFIXES = (".edf", ".bdf", ".vhdr", ".fif")

_KINDS = {"eeg": "eeg", "emg": "emg"}
_NOT_EVENTS = ("EDF Annotations", "New Segment/")


def read_with_mne(path) -> list[Signals]:
    """Read an EDF, BDF, BrainVision (``.vhdr``) or FIF file.

    Channels of one rate come together: an EDF with EEG at 256 Hz and EMG at 1024 Hz gives two `Signals`, neither
    resampled.

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
        Naming the file, where it is not there, cut short, damaged or of another format.

    Examples
    --------
    >>> [signals.rate_hz for signals in read_with_mne("night.edf")]                   # doctest: +SKIP
    """
    path = Path(path)
    size = file_bytes(path)
    if importlib.util.find_spec("mne") is None:
        raise MissingPackageError(
            f"reading {path}: MNE, which reads {', '.join(SUFFIXES)}, is not installed; `make setup EXTRAS=eeg` "
            "installs it (or `pip install 'motorsweep[eeg]'`), and CSV, .mat and HDF5 need nothing."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if path.suffix.lower() in (".edf", ".bdf"):
                return _edf(path, size)
            if path.suffix.lower() == ".fif":
                check_fif(path, size)
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
        found.append(_signals(path, raw, names=names, volts=known / scaled))
    return found


def _mne_volts(unit):
    if unit in ("μV", "µV", "\x83\xcaV", "uV"):
        return 1e-6
    return 1e-3 if unit == "mV" else 1.0


def _signals(path, raw, names=None, volts=None):
    data = np.array(raw.get_data(verbose="error"), dtype=float)
    names = names or list(raw.ch_names)
    if data.ndim != 2 or data.shape[1] < 2 or not np.isfinite(raw.info["sfreq"]) or raw.info["sfreq"] <= 0:
        raise InputError(f"reading {path}: found {data.shape[-1]} samples, so nothing was recorded. Export it again.")
    moment = raw.info["meas_date"]
    start = float(raw.first_time) + (moment.timestamp() if moment else 0.0)
    return Signals(
        what=str(path),
        values=data,
        names=tuple(names),
        types=tuple(_type(name, kind) for name, kind in zip(names, raw.get_channel_types())),
        volts=tuple(volts) if volts is not None else (1.0,) * len(names),
        rate_hz=float(raw.info["sfreq"]),
        start_s=start,
        origin="date" if moment else "own",
        events=_events(raw),
        bad={name: path.name for name in raw.info["bads"]},
    )


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
        if not str(each["description"]).startswith(_NOT_EVENTS)
    )
