"""When samples were taken, out of the time stamps that a file has for them.

A stamp is often the time at which a program got the sample, not the one at which the device took it: devices send
packets, programs read late, and what waited is then read at once. Such stamps come in bursts, and a pause between them
is no gap in the signal. Other devices do lose samples, and the pause is a gap. `fit_clock` tells the two apart by the
signal: over a true gap it moves on by as much as it does in that time, between two samples in a row by one step.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..errors import InputError

KINDS = ("auto", "regular", "gapped")

_PAUSE = 4.0  # usual steps; a longer one is a pause
_FEWEST_PAUSES = 5
_SET_BACK_S = 1.0
_MOST_LOST = 10.0
_NOTED_DELAY_S = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class Clock:
    """Places of a file's samples on a regular grid.

    Attributes
    ----------
    start_s : float
        Time of place 0, s.
    rate_hz : float
        Places per second.
    places : ndarray (samples,) int64
        Place of each sample, rising from 0. What is passed over was not recorded.
    notes : tuple of str
        What was measured and assumed.
    """

    start_s: float
    rate_hz: float
    places: np.ndarray
    notes: tuple = ()

    @property
    def stop_s(self):
        """Time of the last sample, s."""
        return self.start_s + self.places[-1] / self.rate_hz


def fit_clock(stamps_s, values, what, *, kind="auto", rate_hz=0.0, gap_s=0.0) -> Clock:
    """Find rate, start and gaps of a recording from its time stamps.

    Parameters
    ----------
    stamps_s : ndarray (samples,)
        s, in the order in which the samples were taken.
    values : ndarray (channels, samples)
        The signals, in any unit.
    what : str
        Begin of messages and notes.
    kind : str
        "regular": samples are equally spaced whatever the stamps say, none is lost. "gapped": where stamps pause (by
        more than four usual steps) and do not catch up, samples are missing. "auto": as "regular" without pauses; with
        five or more, as the signals tell (median over channels of the step over a pause: nearer to one sample's step or
        to the step over that much time, in logarithms); else "gapped".
    rate_hz : float
        The device's rate, where it is known; 0 measures it.
    gap_s : float
        Where the file itself says that samples are missing where stamps jump: least step that is a jump. The signal is
        not asked then, and `kind` does not count.

    Returns
    -------
    Clock
        Measured rates: without pauses by least squares over all stamps; "regular" with pauses by least squares over the
        first stamp after each pause, when the reader had waited for the sample; "gapped" by
        the median slope within runs, then by least squares.
        The start is the mean of stamp minus grid where these scatter by less than half a step; else the least one, for
        a sample can be read late, not early.

    Raises
    ------
    InputError
        Where stamps are too few, not finite, do not rise, are set back by more than a second, or leave out more than
        ten times of what they hold.

    Examples
    --------
    >>> clock = fit_clock(np.arange(100) / 50 + 3, np.zeros((1, 100)), "a table")
    >>> round(clock.rate_hz, 9), round(clock.start_s, 9)
    (50.0, 3.0)
    """
    stamps = np.asarray(stamps_s, float)
    steps = _checked_steps(stamps, what)
    usual = np.median(steps)
    pauses = np.flatnonzero(steps > (gap_s or max(_PAUSE * usual, 1e-9)))
    notes = _order_notes(steps)
    if gap_s:
        kind = "gapped"
    if kind == "auto":
        kind, why = _kind_by_signal(values, steps, pauses, usual)
        notes += why
    fit = _gapped if kind == "gapped" else _regular
    clock = fit(stamps, pauses, rate_hz, what)
    return Clock(
        start_s=clock.start_s,
        rate_hz=clock.rate_hz,
        places=clock.places,
        notes=tuple(f"{what}: {note}" for note in (*notes, *clock.notes)),
    )


def _checked_steps(stamps, what):
    if len(stamps) < 3 or not np.isfinite(stamps).all():
        raise InputError(
            f"reading {what}: {len(stamps)} time stamps, of which {np.isfinite(stamps).sum()} are finite, are too few "
            "for a clock. Give a longer recording."
        )
    steps = np.diff(stamps)
    if steps.min() < -_SET_BACK_S:
        row = int(np.argmin(steps))
        raise InputError(
            f"reading {what}: the time stamp of sample {row + 2} is {-steps.min():.3g} s before the one before it; the "
            "clock was set back or two recordings are in one file. Split the file there."
        )
    if stamps[-1] <= stamps[0]:
        raise InputError(f"reading {what}: time stamps do not rise, so there is no rate. Give `rate_hz` and no stamps.")
    return steps


def _order_notes(steps):
    notes = []
    if np.any(steps == 0):
        notes.append(f"{np.sum(steps == 0)} of {len(steps) + 1} time stamps are those of the sample before")
    if np.any(steps < 0):
        notes.append(f"{np.sum(steps < 0)} time stamps step back, by up to {-steps.min() * 1e3:.3g} ms")
    return notes


def _kind_by_signal(values, steps, pauses, usual):
    """Whether pauses are gaps, by the signals on both sides of them."""
    if not len(pauses):
        return "regular", []
    longest = f"{len(pauses)} pauses in the stamps, up to {steps.max() * 1e3:.3g} ms"
    if len(pauses) < _FEWEST_PAUSES:
        return "gapped", [f"{longest}: too few to tell by the signal; taken as lost samples"]
    share = _share_of_way(values, steps, pauses, usual)
    if share is None:
        return "gapped", [f"{longest}: the signals do not tell whether samples are lost there; taken as lost"]
    told = f"the signals go {share:.0%} of the way that a gap would leave (log scale)"
    if share < 0.5:
        return "regular", [f"{longest}; {told}: packets read late, no samples lost; taken as equally spaced"]
    return "gapped", [f"{longest}; {told}: samples are lost there"]


def _share_of_way(values, steps, pauses, usual):
    """0 where signals step over a pause as between two samples in a row, 1 where as over the pause's length."""
    runs = np.diff(np.concatenate([[-1], pauses, [values.shape[1] - 1]]))
    usual = max(usual, 1e-9)
    lag = int(min(max(round(np.median(steps[pauses]) / usual), 2), np.quantile(runs, 0.9) - 1))
    if lag < 2:
        return 0.0  # stamps of a packet are all alike: there is no run to compare with, and nothing speaks for losses
    crossed = np.concatenate([[0], np.cumsum(steps > max(_PAUSE * usual, 1e-9))])
    within = np.flatnonzero(crossed[lag:] == crossed[:-lag])
    inside = np.setdiff1d(np.arange(len(steps)), pauses, assume_unique=True)
    shares = []
    with np.errstate(all="ignore"):
        for x in values[np.isfinite(values).any(axis=1)]:
            near, far = np.nanmedian(np.abs(np.diff(x)[inside])), np.nanmedian(np.abs(x[within + lag] - x[within]))
            over = np.nanmedian(np.abs(np.diff(x)[pauses]))
            if near > 0 and far > 1.5 * near and over > 0:
                shares.append(np.log(over / near) / np.log(far / near))
    return float(np.median(shares)) if shares else None


def _line(places, stamps):
    """Slope and intercept by least squares."""
    x = places - places.mean()
    slope = (x @ (stamps - stamps.mean())) / (x @ x)
    return slope, stamps.mean() - slope * places.mean()


def _start(residual, step):
    return residual.mean() if residual.std() < step / 2 else residual.min()


def _regular(stamps, pauses, rate_hz, what):
    places = np.arange(len(stamps))
    usable = pauses + 1 if len(pauses) >= _FEWEST_PAUSES else places
    step = 1 / rate_hz if rate_hz else _line(usable, stamps[usable])[0]
    _check_step(step, what)
    residual = stamps - places * step
    start = _start(residual, step)
    mean_hz = (len(stamps) - 1) / (stamps[-1] - stamps[0])
    notes = [f"{len(stamps)} samples, {1 / step:.6g} Hz {'as stated' if rate_hz else 'measured'}"]
    if abs(mean_hz * step - 1) > 0.02:
        notes.append(f"stamps themselves run at {mean_hz:.4g} a second: they are times of reading, not of sampling")
    late = residual - start
    if late.max() > max(_NOTED_DELAY_S, 3 * step):
        where = "the first" if late.argmax() < len(late) / 2 else "the last"
        notes.append(f"stamps are up to {late.max():.3g} s late ({where} ones most): samples had waited to be read")
    if late.argmin() > 0.98 * len(late) and late.max() > _NOTED_DELAY_S:
        notes.append("to its end the reader had not caught up, so all of the recording may lie earlier than said")
    return Clock(start_s=float(start), rate_hz=float(1 / step), places=places, notes=tuple(notes))


def _gapped(stamps, pauses, rate_hz, what):
    edges = np.concatenate([[0], pauses + 1, [len(stamps)]])
    count = np.arange(len(stamps))
    runs = [slice(a, b) for a, b in pairwise(edges)]
    step = 1 / rate_hz if rate_hz else _step_within(runs, stamps, what)
    places = count
    for _ in range(3):
        _check_step(step, what)
        offsets = np.array([(stamps[run] - count[run] * step).min() for run in runs])
        lost = np.maximum.accumulate(np.maximum(np.round((offsets - offsets[0]) / step), 0))
        if lost[-1] > _MOST_LOST * len(stamps):
            raise InputError(
                f"reading {what}: time stamps leave {lost[-1] / len(stamps):.3g} times as many samples unrecorded as "
                "are recorded, so there is hardly a signal. Split the file at its longest pause, or correct the stamps."
            )
        places = count + np.repeat(lost.astype(np.int64), np.diff(edges))
        if rate_hz:
            break
        step = _line(places, stamps)[0]
    notes = [f"{len(stamps)} samples, {1 / step:.6g} Hz {'as stated' if rate_hz else 'measured'}"]
    if missing := int(places[-1] + 1 - len(places)):
        gaps = int(np.sum(np.diff(places) > 1))
        notes.append(f"{missing} of {places[-1] + 1} samples are missing, in {gaps} gaps; they are nan")
    return Clock(
        start_s=float(_start(stamps - places * step, step)), rate_hz=float(1 / step), places=places, notes=tuple(notes)
    )


def _step_within(runs, stamps, what):
    """Median of slopes within runs, over as many samples as most runs allow: a late reading or two do not count."""
    lengths = [run.stop - run.start for run in runs]
    lag = int(np.clip(np.quantile(lengths, 0.9) // 2, 1, 256))
    slopes = [(stamps[run][lag:] - stamps[run][:-lag]) / lag for run, length in zip(runs, lengths) if length > lag]
    step = float(np.median(np.concatenate(slopes))) if slopes else 0.0
    _check_step(step, what)
    return step


def _check_step(step, what):
    if not np.isfinite(step) or step <= 1e-7:
        raise InputError(
            f"reading {what}: the stamps give no rate (samples of a burst have one time). Take the samples as equally "
            'spaced (`clock = "regular"`) and state the device\'s rate.'
        )
