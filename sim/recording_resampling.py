"""Regular samples at other times and another rate: low-pass and interpolation in one step.

Each new sample is a weighted sum of the old ones around it, weights a Kaiser-windowed sinc (beta 8.6, 32 zeros to each
side, stop band about -86 dB) and summing to 1. For a lower rate the sinc is widened, so that all above the new Nyquist
frequency is gone; frequencies up to 0.8 of the lower of both Nyquist frequencies pass. Phase is zero.
"""

import numpy as np
from scipy.sparse import csr_array

PASSED = 0.8
"""Part of the lower Nyquist frequency up to which amplitudes are kept."""

_ZEROS, _BETA = 32, 8.6
_CUT = 0.9  # of the new Nyquist frequency: half of the transition band fits between it and 1
_WEIGHTS_AT_ONCE = 2**20


def resample(values, rate_hz, offset_s, new_rate_hz, count):
    """Signals at `count` new times, the first `offset_s` after the first old sample.

    Parameters
    ----------
    values : ndarray (channels, samples)
        nan where nothing was recorded.
    rate_hz, new_rate_hz : float
        Old and new samples per second.
    offset_s : float
    count : int
        Number of new samples; those before the first or after the last old one are held at it.

    Returns
    -------
    ndarray (channels, count)
        nan where one of the two old samples around a new one is missing. Elsewhere the old ones that are missing count
        as lying on a line between their neighbours.

    Examples
    --------
    >>> resample(np.ones((1, 100)), 100.0, 0.005, 50.0, 3)
    array([[1., 1., 1.]])
    """
    ratio = min(1.0, new_rate_hz / rate_hz)
    if ratio > 1 - 1e-9:
        ratio = 1.0
    place = (offset_s + np.arange(count) / new_rate_hz) * rate_hz
    nearest = np.round(place)
    if ratio == 1.0 and np.abs(place - nearest).max(initial=0.0) < 1e-6:
        return values[:, np.clip(nearest.astype(int), 0, values.shape[1] - 1)]
    missing = ~np.isfinite(values)
    filled = _filled(values, missing)
    out = np.empty((len(values), count))
    at_once = max(1, int(_WEIGHTS_AT_ONCE * ratio / (2 * _ZEROS)))
    for first in range(0, count, at_once):
        rows = slice(first, first + at_once)
        out[:, rows] = (_weights(place[rows], ratio, values.shape[1]) @ filled.T).T
    if missing.any():
        below = np.clip(np.floor(place + 1e-9).astype(int), 0, values.shape[1] - 1)
        above = np.clip(np.ceil(place - 1e-9).astype(int), 0, values.shape[1] - 1)
        out[missing[:, below] | missing[:, above]] = np.nan
    return out


def _filled(values, missing):
    filled = np.array(values, float)
    count = np.arange(values.shape[1])
    for row in np.flatnonzero(missing.any(axis=1)):
        there = ~missing[row]
        filled[row] = np.interp(count, count[there], values[row, there]) if there.any() else 0.0
    return filled


def _weights(place, ratio, samples):
    """Sparse (new, old) matrix."""
    cut = ratio if ratio == 1.0 else _CUT * ratio
    half = int(np.ceil(_ZEROS / ratio))
    base = np.floor(place).astype(int)
    reach = np.arange(-half + 1, half + 1)
    # At a ratio of whole numbers a few fractions come again and again: their weights are found once.
    fractions, which = np.unique(np.round(place - base, 9), return_inverse=True)
    away = fractions[:, None] - reach
    weights = np.sinc(cut * away) * np.i0(_BETA * np.sqrt(np.clip(1 - (away / half) ** 2, 0, None)))
    weights = (weights / weights.sum(axis=1, keepdims=True))[which]
    columns = base[:, None] + reach
    ends = np.arange(len(place) + 1) * columns.shape[1]
    columns = np.clip(columns, 0, samples - 1)
    return csr_array((weights.ravel(), columns.ravel(), ends), shape=(len(place), samples))
