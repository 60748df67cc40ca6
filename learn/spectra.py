"""Connectivity by Fourier segments: coherence, and the phase lag index with its weighted and debiased forms.

One transform serves all: the recording is cut into segments (Welch 1967), each centred, windowed and transformed.
Coherence comes from the mean cross-spectra, the phase lag indices from the signs or sizes of the imaginary parts of the
cross-spectra of each segment.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import get_window

from ..errors import InputError
from .connectivity_arrays import Arrays, arrays_on, averaged, bands_of, checked, in_batches, standardised

# A sine of a phase difference that is only rounding is no lag: copies of a channel, scaled, have none.
_NO_LAG = 1e-12


@dataclass(frozen=True, eq=False)
class SegmentSpectra:
    """Fourier coefficients of segments: values (batch, f, channel, segment), frequencies (f,) in Hz."""

    values: object
    frequencies: np.ndarray
    space: Arrays

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return self.values.shape[-1]

    def cross(self):
        """Mean cross-spectra (batch, f, c, c), entry [i, j] = mean of X_i conj(X_j), without physical scale."""
        return self.values @ self.values.conj().swapaxes(-1, -2) / self.segments


def segment_samples(samples: int, fs: float, segment_s: float, overlap: float, doing: str) -> tuple[int, int]:
    """Length of a segment and from one start to the next, samples.

    Raises
    ------
    InputError
        A length or overlap that means nothing, or fewer than two segments: one segment makes every coherence 1.
    """
    if not (np.isfinite(segment_s) and segment_s > 0 and 0 <= overlap < 1):
        raise InputError(
            f"{doing}: segments of {segment_s!r} s overlapping by {overlap!r} mean nothing; give seconds above zero "
            "and an overlap of at least 0 and below 1."
        )
    length = round(segment_s * fs)
    hop = max(1, length - int(length * overlap))
    if length < 4 or samples < length + hop:
        raise InputError(
            f"{doing}: {samples} samples at {fs:g} Hz give fewer than two segments of {segment_s:g} s ({length} "
            "samples), and one segment alone makes every coherence and phase lag index 1. Take shorter segments or a "
            "longer record."
        )
    return length, hop


def segment_spectra(z: np.ndarray, fs: float, length: int, hop: int, limits, space: Arrays, window=None):
    """Fourier coefficients of the segments of z (batch, c, samples), at the frequencies within `limits` (low, high).

    The window is Hann's (periodic, as `scipy.signal.welch`) unless its samples are given; each segment is centred
    before, as there.
    """
    frequencies = np.fft.rfftfreq(length, 1 / fs)
    kept = np.flatnonzero((frequencies >= limits[0] - 1e-9 * fs) & (frequencies <= limits[1] + 1e-9 * fs))
    first, last = (kept[0], kept[-1] + 1) if len(kept) else (0, 0)
    window = get_window("hann", length) if window is None else np.asarray(window, np.float64)
    if space.xp is np:
        pieces = np.lib.stride_tricks.sliding_window_view(z, length, axis=-1)[..., ::hop, :]
    else:
        pieces = space.put(z).unfold(-1, length, hop)
    centred = pieces - pieces.mean(-1)[..., None]
    centred *= space.put(window)
    values = space.xp.fft.rfft(centred)[..., first:last]
    order = (0, 3, 1, 2)
    moved = np.ascontiguousarray(values.transpose(order)) if space.xp is np else values.permute(order).contiguous()
    return SegmentSpectra(moved, frequencies[first:last], space)


def coherence_spectrum(spectra: SegmentSpectra) -> np.ndarray:
    """Magnitude-squared coherence (batch, f, c, c) of each frequency."""
    cross = spectra.cross()
    power = spectra.space.xp.einsum("...ii->...i", cross).real
    squared = cross.real**2 + cross.imag**2
    return spectra.space.get(squared / (power[..., :, None] * power[..., None, :]))


def band_correlation(spectra: SegmentSpectra, totals: np.ndarray) -> np.ndarray:
    """Correlation at no delay (batch, band, c, c) of the parts within bands: Re of the summed cross-spectra, scaled."""
    joint = averaged(spectra.space.get(spectra.cross().real), totals, single=False)
    power = np.einsum("...ii->...i", joint)
    return joint / np.sqrt(power[..., :, None] * power[..., None, :])


def phase_lag_spectrum(spectra: SegmentSpectra, *, weighted: bool = False, debiased: bool = False) -> np.ndarray:
    """Phase lag index (batch, f, c, c) of each frequency; the diagonal is zero."""
    space, values = spectra.space, spectra.values
    size = space.xp.abs(values)
    unit = values / (size + (size == 0))
    real, imaginary = unit.real + 0.0, unit.imag + 0.0  # copies, contiguous
    out = np.zeros((*values.shape[:2], values.shape[2], values.shape[2]))
    for i in range(1, values.shape[2]):
        lag = imaginary[:, :, i : i + 1] * real[:, :, :i] - real[:, :, i : i + 1] * imaginary[:, :, :i]
        weight = size[:, :, i : i + 1] * size[:, :, :i] if weighted else None
        out[:, :, i, :i] = out[:, :, :i, i] = space.get(_index_of_lags(lag, weight, debiased, space.xp))
    return out


def _index_of_lags(lag, weight, debiased: bool, xp):
    """The index over the last axis of sines of phase differences, weighted with the cross-spectra's sizes or not."""
    n, sign = lag.shape[-1], xp.trunc(xp.clip(lag * (1 / _NO_LAG), -1.0, 1.0))
    if weight is None:
        index = xp.abs(sign.sum(-1)) / n
        return (n * index**2 - 1) / (n - 1) if debiased else index
    sizes = lag * weight * sign
    total, all_sizes = (sizes * sign).sum(-1), sizes.sum(-1)
    if not debiased:
        return xp.abs(total) / (all_sizes + (all_sizes == 0))
    squares = (sizes * sizes).sum(-1)
    below = all_sizes**2 - squares
    return (total**2 - squares) / (below + (below == 0))


def _spectral(x, fs, kind, doing, *, fmin, fmax, bands, segment_s, overlap, device) -> np.ndarray:
    """A measure over segments, averaged over bands: `kind` makes (batch, f, c, c) of `SegmentSpectra`."""
    values, space = checked(x, fs, doing), arrays_on(device)
    wanted = bands_of([(fmin, fmax)] if bands is None else bands, fs, doing)
    length, hop = segment_samples(values.shape[-1], fs, segment_s, overlap, doing)
    limits = wanted.lowest, wanted.highest

    def compute(records):
        spectra = segment_spectra(standardised(records)[0], fs, length, hop, limits, space)
        weights = wanted.weights(spectra.frequencies, doing)
        return (averaged(kind(spectra), weights, bands is None),)

    return in_batches(compute, values, 4 * values.shape[-2] * values.shape[-1])[0]


def coherence(x, fs, *, fmin=1.0, fmax=45.0, bands=None, segment_s=1.0, overlap=0.5, device="cpu") -> np.ndarray:
    """Magnitude-squared coherence, averaged over the frequencies of a band.

    C_ij(f) = |G_ij(f)|² / (G_ii(f) G_jj(f)), equation 7 of the EEG-to-EMG paper (Samadi et al. 2025), with Welch's
    cross-spectra (Welch 1967; Carter, Knapp and Nuttall 1973 for coherence): segments centred, Hann's window, as
    `scipy.signal.coherence` at each frequency. Between n independent segments of unrelated channels its expectation
    is 1/n, not 0; overlapping segments count as fewer.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings, in any unit: a factor of a channel changes nothing.
    fs : float
        Sampling rate, Hz.
    fmin, fmax : float
        The band, Hz, both ends included.
    bands : optional
        Several bands instead: pairs (low, high), triples (name, low, high) or a mapping from names to pairs.
    segment_s : float
        Length of a segment, s; frequencies are 1 / segment_s apart.
    overlap : float
        Share of a segment that the next one repeats.
    device : str
        ``"cpu"`` (NumPy), ``"cuda"``, or ``"auto"``: the GPU where there is one.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        Symmetric, from 0 to 1, the diagonal 1.

    Raises
    ------
    InputError
        One channel, flat channels, NaN, fewer than two segments, or a band that the rate or the segments cannot hold.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(2, 4000))
    >>> coherence(np.stack([x[0], 2 * x[0], x[1]]), 100.0).round(1)
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """
    options = {"fmin": fmin, "fmax": fmax, "bands": bands, "segment_s": segment_s, "overlap": overlap}
    return _spectral(x, fs, coherence_spectrum, "coherence", **options, device=device)


def phase_lag_index(
    x, fs, *, fmin=1.0, fmax=45.0, bands=None, weighted=False, debiased=False, segment_s=1.0, overlap=0.5, device="cpu"
) -> np.ndarray:
    """How steadily one channel's phase leads another's: blind to anything that reaches both without a delay.

    - phase lag index |mean of sign(Im S_ij)| (Stam, Nolte and Daffertshofer 2007), the "phase delay index" of the
      EEG-to-EMG paper as far as can be told, which gives no formula;
    - `weighted`: |Σ Im S_ij| / Σ |Im S_ij| (Vinck et al. 2011, eq. 8);
    - `debiased`: estimates of their squares without the bias of few segments, which can be negative:
      (n PLI² - 1)/(n - 1), and for the weighted one the sum over different segments (Vinck et al. 2011).

    The mean is over segments, at each frequency of the band, and then over these frequencies; S_ij is a segment's
    cross-spectrum. Stam's paper averages over instants of band-passed signals: the same quantity of a band, seen by
    Hilbert's transform. Imaginary parts within rounding of zero count as no lag.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings, in any unit.
    fs : float
        Sampling rate, Hz.
    fmin, fmax, bands, segment_s, overlap, device
        As for `coherence`.
    weighted, debiased : bool
        Which of the four.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        Symmetric, from 0 to 1 (debiased ones slightly below 0 too), the diagonal 0.

    Raises
    ------
    InputError
        As `coherence`.

    Examples
    --------
    >>> t = np.arange(4000) / 100.0
    >>> x = np.stack([np.sin(2 * np.pi * 10 * t), np.sin(2 * np.pi * 10 * t + 1), 3 * np.sin(2 * np.pi * 10 * t)])
    >>> phase_lag_index(x, 100.0, fmin=10, fmax=10.5).round(6)
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 1., 0.]])
    """
    options = {"fmin": fmin, "fmax": fmax, "bands": bands, "segment_s": segment_s, "overlap": overlap}

    def kind(spectra):
        return phase_lag_spectrum(spectra, weighted=weighted, debiased=debiased)

    return _spectral(x, fs, kind, "phase lag index", **options, device=device)
