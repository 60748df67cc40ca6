"""Connectivity between the channels of recordings: correlation, coherence, phase lag, Granger causality, transfer.

All take x (…, channels, samples), and give matrices (…, channels, channels) with [i, j] from j to i where they are
directed. `connect` makes all matrices of a record at once, with transforms and products of lagged channels shared.
The measures are those of the EEG-to-EMG paper, E. Samadi et al. 2025; each docstring gives its equation there and its
source.
"""

import numpy as np

from .connectivity_arrays import arrays_on, bands_of, checked, in_batches, standardised
from .connectivity_config import MEASURES, ConnectivityConfig
from .connectivity_record import Connectivity, connect
from .connectivity_transfer import (
    grid_of,
    partial_coherence,
    transfer_function,
    transfer_measure,
)
from .granger import granger, refuse_unstable
from .lagged_products import floats_of_products
from .spectra import band_correlation, coherence, phase_lag_index, segment_samples, segment_spectra
from .var_models import check_criterion, chosen_order, order_criteria, standardised_fit
from .var_models_gram import check_order, factor, lag_gram

__all__ = [
    "MEASURES",
    "Connectivity",
    "ConnectivityConfig",
    "coherence",
    "connect",
    "correlation",
    "ddtf",
    "dtf",
    "full_frequency_dtf",
    "granger",
    "phase_lag_index",
]


def correlation(x, fs, *, bands=None, segment_s=1.0, overlap=0.5, device="cpu") -> np.ndarray:
    """Pearson's correlation of the samples, equation 3 of the EEG-to-EMG paper.

    ρ_ij = cov(x_i, x_j) / sqrt(var x_i · var x_j). With `bands`, of the parts of the signals within each band: the real
    part of the cross-spectra summed over the band, over the root of the summed powers, with the segments of
    `coherence`.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings, in any unit: a positive factor of a channel changes nothing.
    fs : float
        Sampling rate, Hz.
    bands, segment_s, overlap, device
        As for `coherence`.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        Symmetric, from -1 to 1, the diagonal 1.

    Raises
    ------
    InputError
        One channel, flat channels, NaN, or bands that the rate or the segments cannot hold.

    Examples
    --------
    >>> correlation([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], 100.0).round(9)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    doing, space = "correlation", arrays_on(device)
    values = checked(x, fs, doing)
    wanted = None if bands is None else bands_of(bands, fs, doing)

    def compute(records):
        z, _ = standardised(records)
        if wanted is None:
            there = space.put(z)
            return (space.get(there @ there.swapaxes(-1, -2)) / z.shape[-1],)
        length, hop = segment_samples(z.shape[-1], fs, segment_s, overlap, doing)
        spectra = segment_spectra(z, fs, length, hop, (wanted.lowest, wanted.highest), space)
        return (band_correlation(spectra, wanted.weights(spectra.frequencies, doing, total=True)),)

    return in_batches(compute, values, 5 * values.shape[-2] * values.shape[-1])[0]


def dtf(x, fs, order=None, **options) -> np.ndarray:
    """Directed transfer function: the share of what reaches channel i at a frequency that comes from noise in j.

    DTF²_ij(f) = |H_ij(f)|² / Σ_m |H_im(f)|², squared and normalised by row at each frequency (Kamiński and Blinowska
    1991; equation 4 of the EEG-to-EMG paper), with H the transfer function of the VAR fitted to all channels; then the
    mean over the frequencies of a band. It shows what arrives along any path, also through other channels.

    |H_ij|² goes with the square of x_i over that of x_j, and the normalisation takes out x_i only: unlike coherence and
    Granger causality DTF changes with the units of single channels. So by default the channels are standardised, as
    Kamiński and Blinowska do, and then it does not.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings.
    fs : float
        Sampling rate, Hz.
    order : int, optional
        Lags, samples; chosen by `criterion` up to `max_order` where not given, as for `granger`.
    fmin, fmax : float
        The band, Hz: 1 to 45 unless given.
    bands : optional
        Several bands instead, as for `coherence`.
    step_hz : float
        Distance of the frequencies, multiples of it within the band: 1 Hz unless given.
    max_order, criterion, regularise, device
        As for `granger`: 20, ``"bic"``, 0 and ``"cpu"`` unless given.
    standardise : bool
        Scale channels to variance 1 first: so unless given.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        [i, j] from j to i; rows sum to 1.

    Raises
    ------
    InputError
        As `fit_var`; a fit that is not stable; bands that the rate or the step cannot hold.

    Examples
    --------
    >>> e = np.random.default_rng(0).normal(size=(2, 20_000))
    >>> x = e.copy()
    >>> x[0, 1:] += e[1, :-1]
    >>> dtf(x, 100.0, 1, standardise=False).round(1) + 0.0
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    return _directed("dtf", x, fs, order, **options)


def full_frequency_dtf(x, fs, order=None, **options) -> np.ndarray:
    """DTF over the inflow at all frequencies of fmin to fmax, so that weak frequencies count little.

    F²_ij(f) = |H_ij(f)|² / Σ_f Σ_m |H_im(f)|² (Korzeniewska et al. 2003; in equation 6 of the EEG-to-EMG paper),
    summed over the frequencies of the band, not averaged: a share of the inflow, whatever the step of the grid.

    Parameters, errors and the effect of units are those of `dtf`; bands must lie within fmin to fmax.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        [i, j] from j to i; over the whole range rows sum to 1.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(3, 5000))
    >>> full_frequency_dtf(x, 100.0, 2).sum(axis=-1).round(6)
    array([1., 1., 1.])
    """
    return _directed("full_frequency_dtf", x, fs, order, **options)


def ddtf(x, fs, order=None, **options) -> np.ndarray:
    """Direct DTF: full-frequency DTF times squared partial coherence, so that flows through other channels drop out.

    dDTF²_ij(f) = F²_ij(f) C²_ij(f) (Korzeniewska et al. 2003; equation 6 of the EEG-to-EMG paper), with F² of
    `full_frequency_dtf` and C²_ij = |G_ij|² / (G_ii G_jj), G(f) the inverse of the spectral matrix of the same VAR;
    summed over the frequencies of the band. The diagonal is F² there.

    Parameters, errors and the effect of units are those of `dtf`; bands must lie within fmin to fmax.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        [i, j] from j to i, directly; from 0 to 1.

    Examples
    --------
    >>> e = np.random.default_rng(0).normal(size=(3, 50_000))
    >>> x = e.copy()
    >>> x[1, 1:] += x[0, :-1]
    >>> x[2, 1:] += x[1, :-1]  # 0 to 1 to 2
    >>> bool(dtf(x, 100.0, 2)[2, 0] > 0.1), bool(ddtf(x, 100.0, 2)[2, 0] < 0.001)
    (True, True)
    """
    return _directed("ddtf", x, fs, order, **options)


def _directed(
    kind,
    x,
    fs,
    order,
    *,
    fmin=1.0,
    fmax=45.0,
    bands=None,
    step_hz=1.0,
    max_order=20,
    criterion="bic",
    regularise=0.0,
    standardise=True,
    device="cpu",
) -> np.ndarray:
    doing, space = kind.replace("_", " ").replace("dtf", "DTF"), arrays_on(device)
    values, longest = checked(x, fs, doing), max_order if order is None else order
    check_criterion(criterion, doing)
    check_order(longest, doing)
    whole = bands_of([(fmin, fmax)], fs, doing)
    wanted = whole if bands is None else bands_of(bands, fs, doing)
    frequencies = grid_of((whole, wanted), step_hz, doing)
    c, t = values.shape[-2:]

    def compute(records):
        z, scale = standardised(records)
        gram = lag_gram(z, longest, space, doing, floor=regularise)
        fitted = factor(gram, doing)
        orders = np.full(len(z), longest)
        if order is None:
            orders = chosen_order(order_criteria(gram, criterion, doing, fitted))
        out = np.empty((len(z), len(wanted.names), c, c))
        for each in np.unique(orders):
            these = np.flatnonzero(orders == each)
            coefficients, noise = (a[these] for a in standardised_fit(fitted, int(each)))
            refuse_unstable(coefficients, doing)
            if not standardise:
                ratio = scale[these, :, None] / scale[these, None, :]
                coefficients, noise = coefficients * ratio[:, None], noise * scale[these, :, None] * scale[these, None]
            transfer = transfer_function(coefficients, frequencies, fs, space)
            partial = partial_coherence(coefficients, noise, frequencies, fs) if kind == "ddtf" else None
            out[these] = transfer_measure(kind, transfer, partial, wanted, whole, frequencies, doing)
        return (out if bands is not None else out[:, 0],)

    floats = floats_of_products(c, t, longest) + 5 * (c * (longest + 1)) ** 2 + 8 * len(frequencies) * c * c
    return in_batches(compute, values, floats)[0]
