"""Simultaneous recordings of brain (EEG) and muscle (EMG): what every step after the reading is given.

A recording is in SI units whatever file it came from. Channels that were found faulty stay in the arrays, so that all
recordings of a study have one shape, and are told in `faults`.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ChannelFault:
    """One thing that is wrong with one channel.

    Parameters
    ----------
    channel : str
        Name of the channel.
    fault : str
        "flat", "saturated", "not finite", "marked bad" or "duplicate".
    found : str
        What was found, for people: how many samples, at what value, in which file it was marked.
    """

    channel: str
    fault: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened during a recording.

    Parameters
    ----------
    onset_s : float
        Seconds after the recording's first sample.
    duration_s : float
        Seconds; 0 where the file gives none.
    label : str
        The file's own word for it.
    """

    onset_s: float
    duration_s: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Recording:
    """EEG and EMG of one record, on one clock.

    Parameters
    ----------
    eeg : ndarray, shape (n_eeg, samples)
        Volts, float64.
    emg : ndarray, shape (n_emg, samples)
        Volts, float64.
    rate_hz : float
        Samples per second, of both.
    eeg_names, emg_names : tuple of str
        Names of the rows of `eeg` and of `emg`.
    subject : str
        Who was recorded.
    condition : str
        "rest", "activity", or the data's own word; "" where unknown.
    name : str
        One name per recording of a study.
    events : tuple of Event
        What happened when, within the recording.
    faults : tuple of ChannelFault
        What is wrong with channels. They stay in the arrays.
    notes : tuple of str
        What a reader of results must know of how this recording was read and aligned.

    Examples
    --------
    >>> import numpy as np
    >>> recording = Recording(eeg=np.zeros((19, 600)), emg=np.zeros((6, 600)), rate_hz=100.0,
    ...                       eeg_names=tuple(f"E{n}" for n in range(19)), emg_names=tuple(f"M{n}" for n in range(6)),
    ...                       subject="01", condition="rest", name="01-rest")
    >>> recording.seconds
    6.0
    """

    eeg: np.ndarray
    emg: np.ndarray
    rate_hz: float
    eeg_names: tuple[str, ...]
    emg_names: tuple[str, ...]
    subject: str
    condition: str
    name: str
    events: tuple[Event, ...] = ()
    faults: tuple[ChannelFault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def seconds(self):
        """Length of the recording, s: samples over rate."""
        return self.eeg.shape[-1] / self.rate_hz
