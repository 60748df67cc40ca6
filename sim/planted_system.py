"""The planted system: cortical channels and muscles that drive each other, as an autoregression with known answers.

Every channel i has an innovation that is driven by those of others, with delays and without memory of its own, and
that rings through a filter of its own::

    u_i(t) = e_i(t) + Σ_j g_ij u_j(t - d_ij)        e white, unit variance, independent
    x_i(t) = u_i(t) - Σ_k a_ik x_i(t - k)

This is a vector autoregression with A(z) = (1 - G(z)) diag(a_i(z)). Filters are the maximum-entropy models of given
spectra, stable by construction; the loops are stable because the spectral radius of |g| is below one. Delays, spectra
and filter lengths are given in seconds and hertz, so that another sampling rate means the same system.

Cortex drives cortex and muscles, muscles drive muscles, no muscle drives cortex.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

MEMORY_S = 2.0
"""No correlation of a planted system reaches further: longest autocovariance, and what is simulated before a record."""

LOOP_BOUND = 0.8
"""Largest spectral radius of the gains' moduli. Below one, every loop decays whatever its delays and signs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedSystem:
    """One record's autoregression; cortical channels first, then muscles.

    Attributes
    ----------
    n_eeg : int
        Number of cortical channels among the n.
    rate_hz : float
    target, source, delay : ndarray (e,) int64
        Couplings source → target; delays in samples, at least 1. Sorted by target.
    gain : ndarray (e,)
        g of the couplings, in innovations per innovation.
    denominators : ndarray (n, p + 1)
        a of the filters, 1 first.
    scale_v : ndarray (n,)
        Volts per unit of x.
    noise_v : ndarray (n,)
        Standard deviation of the white sensor noise on top, V.
    """

    n_eeg: int
    rate_hz: float
    target: np.ndarray
    source: np.ndarray
    delay: np.ndarray
    gain: np.ndarray
    denominators: np.ndarray
    scale_v: np.ndarray
    noise_v: np.ndarray

    @property
    def n(self) -> int:
        """Number of channels."""
        return len(self.scale_v)

    def coefficients(self) -> np.ndarray:
        """Coefficients of the whole autoregression in volts (order, n, n): x(t) = Σ_k A[k - 1] x(t - k) + noise."""
        length = self.denominators.shape[1]
        coupled = np.zeros((int(self.delay.max(initial=0)) + 1, self.n, self.n))
        coupled[0] = np.eye(self.n)
        np.subtract.at(coupled, (self.delay, self.target, self.source), self.gain)
        polynomial = np.zeros((len(coupled) + length - 1, self.n, self.n))
        for lag in range(length):
            polynomial[lag : lag + len(coupled)] += coupled * self.denominators[:, lag]
        return -polynomial[1:] * self.scale_v[:, None] / self.scale_v

    @cached_property
    def innovation_autocovariance(self) -> np.ndarray:
        """E[u(t) u(t - k)'] for lags 0 to `MEMORY_S` / 8, (lags + 1, n, n)."""
        lags = round(MEMORY_S / 8 * self.rate_hz)
        return np.fft.irfft(self._innovation_spectrum(4 * lags), axis=0)[: lags + 1]

    def spectrum(self, points: int) -> np.ndarray:
        """Cross-spectrum of the volts without sensor noise at `points` + 1 frequencies from 0 to rate/2, (f, n, n).

        Its inverse transform over 2 `points` samples is the autocovariance; entry [i, j] belongs to E[x_i(t) x_j(t-k)].
        """
        ring = (self.scale_v / np.fft.rfft(self.denominators, 2 * points, axis=1).T).T.T
        return self._innovation_spectrum(points) * ring[:, :, None] * ring[:, None].conj()

    def _innovation_spectrum(self, points):
        turn = np.exp(-1j * np.pi * np.outer(np.arange(points + 1) / points, self.delay))
        open_loop = np.zeros((points + 1, self.n, self.n), dtype=complex)
        for edge, (to, of) in enumerate(zip(self.target, self.source)):
            open_loop[:, to, of] -= self.gain[edge] * turn[:, edge]
        response = _inverse_of_one_plus(open_loop, self.n_eeg)
        return response @ response.conj().swapaxes(1, 2)

    def simulate(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """Volts of one record without sensor noise (n, samples), stationary from its first sample."""
        before = round(MEMORY_S * self.rate_hz)
        drive = rng.standard_normal((samples + before, self.n))
        start = np.searchsorted(self.target, np.arange(self.n + 1))
        _couple(drive, start, self.source, self.delay, self.gain)
        drive = np.ascontiguousarray(drive.T)
        filters = zip(self.scale_v, self.denominators, drive)
        return np.stack([lfilter([scale], below, row)[before:] for scale, below, row in filters])


def _inverse_of_one_plus(loop, n_eeg):
    """(1 + loop)^-1 by blocks: cortex, muscles, and what cortex does to muscles."""
    n = loop.shape[-1]
    answer = np.zeros_like(loop)
    cortex, muscle = slice(0, n_eeg), slice(n_eeg, n)
    answer[:, cortex, cortex] = np.linalg.inv(loop[:, cortex, cortex] + np.eye(n_eeg))
    answer[:, muscle, muscle] = np.linalg.inv(loop[:, muscle, muscle] + np.eye(n - n_eeg))
    answer[:, muscle, cortex] = -answer[:, muscle, muscle] @ loop[:, muscle, cortex] @ answer[:, cortex, cortex]
    return answer


@njit(cache=True)
def _couple(drive, start, source, delay, gain):
    samples, n = drive.shape
    for t in range(samples):
        for i in range(n):
            total = drive[t, i]
            for edge in range(start[i], start[i + 1]):
                if t >= delay[edge]:
                    total += gain[edge] * drive[t - delay[edge], source[edge]]
            drive[t, i] = total


def bounded(gain, target, source, n: int) -> np.ndarray:
    """Gains (e,), scaled down together where the spectral radius of their moduli is above `LOOP_BOUND`."""
    moduli = np.zeros((n, n))
    np.add.at(moduli, (target, source), np.abs(gain))
    return gain * min(1.0, LOOP_BOUND / max(np.abs(np.linalg.eigvals(moduli)).max(), 1e-300))


def resonator(power, rate_hz: float, memory_s: float) -> np.ndarray:
    """Denominator of the all-pole filter whose autocorrelation is that of a spectrum, up to its length (Yule-Walker).

    Parameters
    ----------
    power : callable
        Positive power at frequencies in Hz, any unit.
    rate_hz : float
    memory_s : float
        Length of the filter, s.

    Returns
    -------
    ndarray (p + 1,)
        1 first. Stable, since the autocorrelation of a positive spectrum is positive definite.
    """
    order = max(2, round(memory_s * rate_hz))
    points = max(2048, 8 * order)
    correlation = np.fft.irfft(power(np.arange(points + 1) * rate_hz / 2 / points))[: order + 1]
    return np.concatenate([[1.0], -solve_toeplitz(correlation[:order], correlation[1:])])


def cortical_power(alpha_hz, alpha, beta):
    """Spectrum of a cortical channel: 1/f^1.5 above 4 Hz, an alpha and a beta (21 Hz) rhythm, and a floor of -30 dB."""
    return lambda f: (
        (1 + (f / 4.0) ** 2) ** -0.75
        + alpha * np.exp(-(((f - alpha_hz) / 1.5) ** 2) / 2)
        + beta * np.exp(-(((f - 21.0) / 4.0) ** 2) / 2)
        + 1e-3
    )


def muscle_power(low_hz, high_hz):
    """Spectrum of a surface EMG: fh⁴ f² / ((f² + fl²) (f² + fh²)²), peak 1, over a floor of -17 dB.

    The shape is that of Shwedyk, Balasubramanian & Scott, IEEE Trans. Biomed. Eng. 24 (1977) 417-424.
    """

    def shape(f):
        return f**2 / ((f**2 + low_hz**2) * (f**2 + high_hz**2) ** 2)

    peak = shape(np.linspace(1.0, 4 * high_hz, 2000)).max()
    return lambda f: shape(f) / peak + 0.02
