"""Where a recording is and how it is to be read."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .quotation import quoted
from .recording_arrays import LAYOUTS
from .recording_clocks import KINDS
from .recording_signals import UNITS
from .recording_stamps import SECONDS_PER


@dataclass(frozen=True, kw_only=True)
class RecordingSource:
    """Where a recording is, and how it is to be read: plain texts and numbers, so that it can go to any worker.

    Attributes
    ----------
    eeg, emg : str
        Files. `emg` is "" where both are in one.
    subject, condition, name : str
        As in `Recording`.
    eeg_channels, emg_channels : tuple of str
        Channels by name, in this order. Empty: by the file's types, `channels.tsv`, or else by their names; of a file
        for EEG (or EMG) alone, all but those known to be something else.
    drop_channels : tuple of str
        Channels to leave out.
    eeg_unit, emg_unit : str
        "V", "mV", "uV", "nV", "counts" (no scale known, so no channel is out of range), or "auto": what the file
        says, or else uV.
    eeg_rate_hz, emg_rate_hz : float
        The device's rate, which then counts before the file's; 0: what the file says, or else measured on the time
        stamps.
    clock : str
        What pauses in time stamps are: "auto", "regular", "gapped" (see `recording_clocks.fit_clock`). EDF+D and BDF+D
        say themselves where samples are missing.
    align : str
        "stamps": by the files' own times (of times of day also across midnight). "start": both files begin at once,
        whatever they say.
    emg_delay_s : float
        Known delay of the EMG's stamps behind the EEG's, s, taken off them.
    time_column, time_unit : str
        Of tables: title of the stamps ("" finds it), and "s", "ms", "us", "ns" or "auto".
    eeg_array, emg_array, layout : str
        Of .mat and HDF5: see `recording_arrays.read_arrays_of`.
    eeg_table, emg_table, event_table : str
        BIDS tables of channels and events; "" for none.
    start_s, stop_s : float
        Part of the aligned recording, s; `stop_s` 0 is its end.
    """

    eeg: str
    emg: str = ""
    subject: str = ""
    condition: str = ""
    name: str = ""
    eeg_channels: tuple[str, ...] = ()
    emg_channels: tuple[str, ...] = ()
    drop_channels: tuple[str, ...] = ()
    eeg_unit: str = "auto"
    emg_unit: str = "auto"
    eeg_rate_hz: float = 0.0
    emg_rate_hz: float = 0.0
    clock: str = "auto"
    align: str = "stamps"
    emg_delay_s: float = 0.0
    time_column: str = ""
    time_unit: str = "auto"
    eeg_array: str = ""
    emg_array: str = ""
    layout: str = "auto"
    eeg_table: str = ""
    emg_table: str = ""
    event_table: str = ""
    start_s: float = 0.0
    stop_s: float = 0.0


def check_options(source: RecordingSource, rate_hz) -> None:
    """Refuse options that are none.

    Raises
    ------
    InputError
        Naming the option and what it may be.
    """
    units = (*UNITS, "auto")
    for name, known in (
        ("eeg_unit", units), ("emg_unit", units), ("clock", KINDS), ("align", ("stamps", "start")),
        ("layout", LAYOUTS), ("time_unit", ("auto", *SECONDS_PER)),
    ):  # fmt: skip
        if getattr(source, name) not in known:
            raise InputError(
                f"reading {source.eeg}: {name} is {quoted(getattr(source, name))}; it is one of {', '.join(known)}."
            )
    for name, value in (("rate_hz", rate_hz), *((n, getattr(source, n)) for n in ("eeg_rate_hz", "emg_rate_hz"))):
        if not (np.isfinite(value) and 0 <= value <= 1e6):
            raise InputError(
                f"reading {source.eeg}: {name} is {value!r}; give samples per second, or 0 for the file's."
            )
    for name in ("emg_delay_s", "start_s", "stop_s"):
        if not np.isfinite(getattr(source, name)):
            raise InputError(f"reading {source.eeg}: {name} is {getattr(source, name)!r}; give seconds.")
