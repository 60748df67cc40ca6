"""What of a recording can be used: channels without signal, and the longest stretch without gaps."""

import numpy as np

from ..errors import InputError
from .recording import ChannelFault, Recording

LEAST_FINITE = 0.5
"""A channel of which a smaller share of samples is finite is faulty; gaps of others are cut out of all channels."""


def sample_faults(recording: Recording) -> tuple[ChannelFault, ...]:
    """Faults that show in the samples and are not in the recording's own list: flat and mostly missing channels."""
    known = {fault.channel for fault in recording.faults}
    found = []
    for names, signal in ((recording.eeg_names, recording.eeg), (recording.emg_names, recording.emg)):
        for name, row in zip(names, signal):
            fault = None if name in known else _fault(name, row)
            if fault:
                found.append(fault)
    return tuple(found)


def _fault(name, row):
    finite = np.isfinite(row)
    if finite.mean() < LEAST_FINITE:
        return ChannelFault(
            channel=name, fault="not finite", found=f"{100 * finite.mean():.0f} % of its samples are finite"
        )
    values = row[finite]
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return ChannelFault(channel=name, fault="flat", found=f"{values[0]:.3g} V throughout")
    return None


def longest_stretch(recording, usable: dict, gaps: str, shortest_s: float, doing: str) -> tuple[slice, tuple[str, ...]]:
    """The samples to keep, and a note where that is not all of them.

    Parameters
    ----------
    recording : Recording
    usable : dict
        "eeg" and "emg": which channels are looked at, (n,) bool. What others lack does not matter.
    gaps : str
        "longest" or "refuse".
    shortest_s : float
        Shortest stretch that is worth keeping, s.
    doing : str
        For messages.

    Raises
    ------
    InputError
        Where no stretch without gaps is long enough, or gaps are refused.
    """
    whole = np.isfinite(recording.eeg[usable["eeg"]]).all(axis=0) & np.isfinite(recording.emg[usable["emg"]]).all(
        axis=0
    )
    edges = np.flatnonzero(np.diff(np.concatenate([[0], whole.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    best = int((stops - starts).argmax()) if len(starts) else None
    kept = slice(int(starts[best]), int(stops[best])) if len(starts) else slice(0, 0)
    kept_s, all_s = (kept.stop - kept.start) / recording.rate_hz, len(whole) / recording.rate_hz
    if kept_s == all_s and kept_s >= shortest_s:
        return kept, ()
    missing_s = (~whole).sum() / recording.rate_hz
    if gaps == "refuse" and missing_s:
        raise InputError(
            f"{doing}: {missing_s:.3g} of {all_s:.3g} s have missing samples (NaN) on usable channels, which a filter "
            'would spread over everything. Cut them out, or keep the longest stretch without (gaps = "longest").'
        )
    if kept_s < shortest_s:
        raise InputError(
            f"{doing}: the longest stretch without missing samples is {kept_s:.3g} of {all_s:.3g} s, too little to "
            f"estimate anything from (shortest_s = {shortest_s:g}). Leave the recording out, or lower shortest_s."
        )
    start_s = kept.start / recording.rate_hz
    return kept, (f"{missing_s:.3g} of {all_s:.3g} s have gaps; {kept_s:.3g} s from {start_s:.3g} s on were kept",)
