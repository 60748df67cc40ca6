"""What is wrong with channels, found by their values; and whether recordings have the same channels."""

import numpy as np

from ..errors import InputError
from .quotation import quoted
from .recording import ChannelFault

LARGEST_STD_V = {"eeg": 200e-6, "emg": 10e-3}
"""Standard deviation within one second, median over seconds, above which a channel is out of range."""

FAULTY_SHARE = 0.05
"""Share of the samples from which on a flat stretch, or samples cut off, make a channel faulty."""

_LEAST_SHARE = {"not finite": 0.5, "flat": FAULTY_SHARE, "saturated": FAULTY_SHARE}
_FLAT_S = 1.0
_FLAT_V = 1e-9
_RAIL_SAMPLES = 3
_RAIL_SHARE = 1e-3
_RAIL_PILE = 4.0  # times the mean of the five next values' counts


def check_channels(
    values_v, names, rate_hz, kind, bad=None, scaled=None
) -> tuple[tuple[ChannelFault, ...], tuple[str, ...]]:
    """Check channels as they were recorded, before any filter or resampling.

    - "not finite": half of the samples or more are nan or infinite in the file;
    - "flat": a range below 1 nV, or one value for a second or longer and for `FAULTY_SHARE` of the time;
    - "saturated": the signal was cut off at its largest or smallest value (which is there at least three times, in
      0.1 % of samples, and four times as often as the five next values are on average) in `FAULTY_SHARE` of samples;
    - "out of range": the standard deviation within a second, median over seconds, is above `LARGEST_STD_V`, which the
      signals of a scalp or of a muscle's surface do not reach: a loose electrode, or another unit;
    - "duplicate": the same values as a channel before it;
    - "marked bad": the file, or a table beside it, says so.

    The first three to a smaller extent are no fault, for most of the channel can be used; they are noted.

    Parameters
    ----------
    values_v : ndarray (channels, samples)
        V.
    names : sequence of str
    rate_hz : float
    kind : str
        "eeg" or "emg"; any other has no range.
    bad : dict of str to str, optional
        Channels marked as bad, and where.
    scaled : sequence of bool, optional
        Channels whose scale is known; all if not given. Others, counts written as 1 uV each, are never out of range,
        and flat only where their value does not change.

    Returns
    -------
    faults : tuple of ChannelFault
    notes : tuple of str

    Examples
    --------
    >>> check_channels(np.zeros((1, 500)), ["Cz"], 250.0, "eeg")[0][0].fault
    'flat'
    """
    faults, notes, seen = [], [], {}
    for x, name, known in zip(np.asarray(values_v), names, [True] * len(names) if scaled is None else scaled):
        found = list(_of_values(x, rate_hz, kind, known))
        if "flat" not in [fault for fault, *_ in found] and (twin := seen.setdefault(x.tobytes(), name)) != name:
            found.append(("duplicate", f"the same values as {twin}", 1.0))
        if bad and name in bad:
            found.append(("marked bad", f"in {bad[name]}", 1.0))
        for fault, text, share in found:
            if share >= _LEAST_SHARE.get(fault, 0.0):
                faults.append(ChannelFault(channel=name, fault=fault, found=text))
            else:
                notes.append(f"{name} is {fault} in part: {text}")
    return tuple(faults), tuple(notes)


def _of_values(x, rate_hz, kind, scaled):
    """Fault, what was found, and the share of samples that it holds for."""
    finite = np.isfinite(x)
    if not finite.all():
        yield "not finite", f"{np.sum(~finite)} of {len(x)} samples are nan or infinite", np.mean(~finite)
    there = x[finite]
    if not len(there):
        return
    unit = "uV" if scaled else "counts"
    with np.errstate(over="ignore"):
        if np.ptp(there) < (_FLAT_V if scaled else np.finfo(float).tiny):
            yield "flat", f"{there[0] * 1e6:.6g} {unit} in all {len(there)} samples", 1.0
            return
        first, length = _longest_run(there)
        if length >= max(_FLAT_S * rate_hz, 10):
            value, begin = f"{there[first] * 1e6:.6g} {unit}", f"{first / rate_hz:.3g} s"
            yield "flat", f"{value} for {length / rate_hz:.3g} s from {begin} on", length / len(x)
        text, count = _rails(there, unit)
        if count:
            yield "saturated", f"{text} of {len(x)} samples", count / len(x)
        std, limit = _std_v(there, rate_hz), LARGEST_STD_V.get(kind, np.inf)
        if scaled and not std <= limit:
            told = f"standard deviation {std * 1e6:.4g} uV within a second; {kind.upper()} stays below {limit * 1e6:g}"
            yield "out of range", told, 1.0


def _longest_run(x):
    edges = np.flatnonzero(np.concatenate([[True], np.diff(x) != 0, [True]]))
    longest = int(np.argmax(np.diff(edges)))
    return int(edges[longest]), int(edges[longest + 1] - edges[longest])


def _rails(x, unit):
    """Text of the rails that a signal is cut off at, and the number of samples there."""
    levels, counts = np.unique(x, return_counts=True)
    if len(levels) < 3:
        return "", 0
    texts, count = [], 0
    for at, beside in ((-1, counts[-6:-1]), (0, counts[1:6])):
        if counts[at] >= max(_RAIL_SAMPLES, _RAIL_SHARE * len(x), _RAIL_PILE * beside.mean()):
            texts.append(f"{levels[at] * 1e6:.6g} {unit} in {counts[at]}")
            count += counts[at]
    return " and ".join(texts), int(count)


def _std_v(x, rate_hz):
    length = min(max(int(rate_hz), 2), len(x))
    return float(np.median(x[: len(x) // length * length].reshape(-1, length).std(axis=1)))


def unique_names(names, what):
    """Names, doubled ones numbered, and faults that tell of them.

    Examples
    --------
    >>> unique_names(["C3", "Cz", "C3"], "a file")[0]
    ('C3', 'Cz', 'C3 (2)')
    """
    taken, faults = [], []
    for name in names:
        own, number = name, 1
        while own in taken or (own != name and own in names):
            number += 1
            own = f"{name} ({number})"
        if own != name:
            faults.append(ChannelFault(channel=own, fault="duplicate", found=f"a second {name} in {what}"))
        taken.append(own)
    return tuple(taken), tuple(faults)


def common_channels(channels, *, differing="error"):
    """Channels that all recordings have, in the order of the first.

    Parameters
    ----------
    channels : dict of str to (sequence of str, sequence of str)
        Names of EEG and EMG channels by recording.
    differing : str
        "error", or "intersection": leave out what is not in all.

    Returns
    -------
    eeg, emg : tuple of str
    note : str
        What was left out; "" if nothing.

    Raises
    ------
    InputError
        Where recordings differ (in names or their order) and that is not allowed, or nothing is common to them.

    Examples
    --------
    >>> common_channels({"a": (["C3", "C4"], ["FDI"]), "b": (["C3"], ["FDI"])}, differing="intersection")[0]
    ('C3',)
    """
    if not channels:
        raise InputError("comparing channels: there is no recording. Correct the folder or pattern in [records].")
    common, left = [], []
    for role, label in enumerate(("EEG", "EMG")):
        first, names = next((key, list(value[role])) for key, value in channels.items())
        for key, value in channels.items():
            if list(value[role]) != names and differing != "intersection":
                raise InputError(
                    f"comparing {label} channels: {quoted(first)} and {quoted(key)} differ: "
                    f"{_difference(names, value[role])}; entries of their connectivity matrices would mean "
                    "different pairs. Leave out what some of them lack (`drop_channels`)."
                )
        kept = tuple(name for name in names if all(name in value[role] for value in channels.values()))
        if not kept:
            raise InputError(
                f"comparing {label} channels: no channel is in all {len(channels)} recordings, so they cannot be "
                "studied together. Name channels alike, or make a study of each group."
            )
        left += sorted({name for value in channels.values() for name in value[role]} - set(kept))
        common.append(kept)
    note = f"left out, for not all recordings have them: {', '.join(left)}" if left else ""
    return common[0], common[1], note


def _difference(names, others):
    missing = [name for name in names if name not in others]
    added = [name for name in others if name not in names]
    parts = [f"only the first has {quoted(', '.join(missing))}"] if missing else []
    parts += [f"only the second has {quoted(', '.join(added))}"] if added else []
    return " and ".join(parts) or "the same names in another order"
