"""How fast a stage goes: pieces a second now, and their curve over the last while."""

from itertools import takewhile

import numpy as np

PACE_SECONDS = 60.0
"""Pieces that ended so long ago count for the pace, and more where fewer than :data:`PACE_ENDS` tasks did."""
PACE_ENDS = 20
CURVE_SECONDS = 600.0
"""How far back the curve of the pace goes."""
CURVE_POINTS = 60


def pace_of(ends, began: float, until: float) -> dict:
    """Return pieces a second, ``done`` and ``ended`` (with those that failed), over the last while.

    Parameters
    ----------
    ends : sequence of (time, done, failed)
        In the order of time; seconds since the epoch.
    began, until : float
        Start of the stage and end of the window.

    Examples
    --------
    >>> pace_of([(10.0, 16, 0), (20.0, 15, 1)], began=0.0, until=20.0)
    {'done': 1.55, 'ended': 1.6}
    """
    if not ends:
        return {"done": 0.0, "ended": 0.0}
    # Tasks longer than the window would give a pace of nothing between two ends of them.
    oldest = ends[-PACE_ENDS][0] if len(ends) >= PACE_ENDS else began
    start = max(began, min(until - PACE_SECONDS, oldest))
    inside = _since(start, ends)
    seconds = max(until - start, 1e-3)
    done, failed = sum(each[1] for each in inside), sum(each[2] for each in inside)
    return {"done": round(done / seconds, 4), "ended": round((done + failed) / seconds, 4)}


def _since(start, ends):
    """Those of the ends after a time, newest first."""
    return list(takewhile(lambda each: each[0] > start, reversed(ends)))


def curve_of(ends, began: float, until: float) -> list[float]:
    """Return pieces done a second at evenly spaced times of the last while, each over a moving window.

    Parameters
    ----------
    ends, began, until
        As for :func:`pace_of`.

    Returns
    -------
    list of float
        Oldest first; empty before two tasks have ended.

    Examples
    --------
    >>> curve = curve_of([(float(second), 2, 0) for second in range(1, 101)], began=0.0, until=100.0)
    >>> len(curve), min(curve[10:]), max(curve[10:])
    (60, 2.0, 2.0)
    """
    span = min(max(until - began, 1.0), CURVE_SECONDS)
    recent = _since(until - 2 * span, ends)[::-1]
    if len(recent) < 2:
        return []
    when, done = np.array([(when, done) for when, done, _ in recent]).T
    gap = (when[-1] - when[0]) / (len(when) - 1)
    window = max(span / 20, 3 * gap, 1.0)
    at = np.linspace(until - span, until, CURVE_POINTS + 1)[1:]
    total = np.concatenate([[0], np.cumsum(done)])
    counted = total[np.searchsorted(when, at, "right")] - total[np.searchsorted(when, at - window, "right")]
    return [round(float(value), 4) for value in counted / window]
