"""Channels out of one file, before EEG and EMG are brought onto one clock: names, types, units."""

import re
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .quotation import quoted
from .recording import Event

UNITS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9, "counts": 1e-6}
"""Volts per unit. Counts of a device with no scale are written as if they were microvolts, and a note says so."""

_BRACKETED = re.compile(r"^(?P<name>.*?)\s*[\[(](?P<unit>[^\])]*)[\])]$")
_SUFFIXED = re.compile(r"^(?P<name>.+)_(?P<unit>[munµμ]?V)$")
_OTHER = re.compile(
    r"^(trig|sti\b|sti\d|stim|status|marker|event|counter|sample|packet|index|battery|label|annot|aux|acc|gyr|mag|"
    r"hr\b|resp|temp|gsr|eda|ppg|time|stamp|unix|local|lsl)|\b(eog|ecg|ekg|heog|veog)|^[hv]?eog|^e[ck]g",
    re.IGNORECASE,
)
_MUSCLE = re.compile(
    r"emg|muscle|\bmyo|^(fdi|apb|adm|fcr|ecr|fcu|ecu|edc|fds|fdp|brd|bic|tri|delt|ta|gm|gl|sol|rf|vl|vm|bf)\b|"
    r"biceps|triceps|deltoid|flexor|extensor|brachiorad|soleus|gastroc|tibialis|trapez|pector",
    re.IGNORECASE,
)
_SCALP = re.compile(
    r"^(eeg[\s_-]*)?(nz|n|fp|af|aff|f|ffc|fft|ft|ftt|fc|fcc|t|tt|ttp|c|cc|ccp|cp|cpp|tp|tpp|p|pp|ppo|po|poo|o|oi|i|iz)"
    r"(z|\d{1,2}h?)([-_].*)?$|^(a|m)[12]$|eeg",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """Channels of one file that share a clock.

    Attributes
    ----------
    what : str
        The file, for messages.
    values : ndarray (channels, samples)
        As the file has them: in `volts` V each.
    names : tuple of str
    types : tuple of str
        "eeg", "emg", "other", or "" where neither the file nor the name tells.
    volts : tuple of float
        Volts per unit of each channel; nan where the file does not say.
    rate_hz : float
        Samples per second; 0 where only the stamps tell.
    shared_rate : bool
        The file holds `rate_hz` for other signals too, so that it may be true of those alone.
    stamps_s : ndarray (samples,) or None
        A time for each sample, s after `start_s`.
    gap_s : float
        Where the file itself says that samples are missing where stamps jump: least step that is a jump. 0 where a jump
        may be a packet that was read late.
    start_s : float
        Time of the first sample where there are no stamps, or else of the stamps' zero, s.
    origin : str
        What times count from: "date" (1970-01-01), "day" (midnight), "own" (a zero of the file's own).
    events : tuple of Event
        Onsets from the first sample.
    bad : dict of str to str
        Channels that the file marks as bad, and where it says so.
    notes : tuple of str
    """

    what: str
    values: np.ndarray
    names: tuple
    types: tuple
    volts: tuple
    rate_hz: float = 0.0
    shared_rate: bool = False
    stamps_s: np.ndarray | None = None
    gap_s: float = 0.0
    start_s: float = 0.0
    origin: str = "own"
    events: tuple[Event, ...] = ()
    bad: dict
    notes: tuple = ()


def channel_type(name: str) -> str:
    """Tell by its name whether a channel is EEG, EMG or neither; "" where the name does not tell.

    Examples
    --------
    >>> channel_type("Fp1"), channel_type("EMG_biceps"), channel_type("VEOG"), channel_type("ch7")
    ('eeg', 'emg', 'other', '')
    """
    if _MUSCLE.search(name):
        return "emg"
    if _OTHER.search(name):
        return "other"
    return "eeg" if _SCALP.search(name) else ""


def volts_of(unit: str) -> float:
    """Volts per unit, nan for what is no voltage.

    Examples
    --------
    >>> volts_of("µV"), volts_of("mV")
    (1e-06, 0.001)
    """
    written = unit.strip().replace("µ", "u").replace("μ", "u")
    spellings = {"microv": "uV", "microvolt": "uV", "microvolts": "uV", "volt": "V", "volts": "V", "millivolts": "mV"}
    written = spellings.get(written.lower(), written)
    return {name.lower(): volts for name, volts in UNITS.items() if name != "counts"}.get(written.lower(), np.nan)


def name_and_volts(title: str) -> tuple[str, float]:
    """Split a column's title such as ``Fz [uV]``, ``Fz (µV)`` or ``Fz_uV`` into name and volts per unit.

    Examples
    --------
    >>> name_and_volts("Fz [uV]"), name_and_volts("C3_mV")
    (('Fz', 1e-06), ('C3', 0.001))
    """
    for pattern in (_BRACKETED, _SUFFIXED):
        found = pattern.match(title)
        if found and found["name"] and not np.isnan(volts_of(found["unit"])):
            return found["name"], volts_of(found["unit"])
    return title, np.nan


def damaged(path, kind, error, remedy="Copy or export it again") -> InputError:
    """Error for a file that its reader could not take apart, with the reader's own words cut short."""
    reason = " ".join("".join(mark if mark.isprintable() else " " for mark in str(error)).split())[:200]
    return InputError(f"reading {path}: no {kind}, or a damaged one ({type(error).__name__}: {reason}). {remedy}.")


def file_bytes(path):
    """Size of a file that must be there and hold something.

    Raises
    ------
    InputError
        Where there is none, or it is empty.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"reading {quoted(str(path))}: the system does not open it ({error}). Correct the path."
        ) from None
    if size is None:
        raise InputError(f"reading {path}: there is no such file. Correct the path or pattern in [records].")
    if not size:
        raise InputError(f"reading {path}: the file is empty, so nothing was recorded or copied. Copy it again.")
    return size
