"""Granger causality from products of lagged channels: pairwise, conditional, and pairwise by frequency.

No design matrix is solved. A Cholesky factor whose variables stand in the order "own past, other's past, present" holds
in its last row what the other's past explains beyond the own, as a sum of squares: ln(restricted / full) comes out
without a difference of nearly equal variances, and is never negative. For the conditional form, leaving a channel out
of a fit raises its residual variances by bᵀ V⁻¹ b, with b its coefficients and V their block of the inverse covariance.
"""

import numpy as np

from ..errors import InputError
from .connectivity_arrays import arrays_on, averaged, bands_of, checked, in_batches, standardised
from .lagged_products import floats_of_products
from .var_models import check_criterion, chosen_order, order_criteria
from .var_models_gram import (
    LagFactor,
    LagGram,
    check_order,
    cholesky,
    factor,
    lag_gram,
    refuse_deficient_rank,
)
from .var_models_theory import is_stable

DOING = "Granger causality"


def granger(
    x, fs, order=None, *, conditional=False, bands=None, max_order=20, criterion="bic", regularise=0.0, device="cpu"
) -> np.ndarray:
    """How much better a channel is predicted with another one's past than without (Granger 1969; Geweke 1982, 1984).

    GC from j to i = ln(restricted residual variance / full residual variance), at least 0, with least squares over the
    same samples and a constant in both fits:

    - pairwise: restricted to i's own past, full with j's past beside (equation 1 of the EEG-to-EMG paper,
      Samadi et al. 2025);
    - `conditional`: full with the past of all channels, restricted with all but j's (equation 2 there, whose printed
      ratio V_full / V_restricted is upside down: its logarithm would be at most 0. The text's bound by 1 does not hold
      either: there is none).

    Where nothing flows, samples × GC has about the mean `order` (chi-squared with `order` degrees of freedom), so
    `order` / samples is the level of noise. It assumes stationary channels. A factor of a channel changes nothing; a
    filter of one does in practice (Barnett and Seth 2011).

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings, in any unit.
    fs : float
        Sampling rate, Hz.
    order : int, optional
        Lags, samples. Unless given, `select_order` chooses it record by record, up to `max_order` by `criterion`, and
        the fits are over the same samples as that choice.
    conditional : bool
        Given all other channels.
    bands : optional
        Pairwise spectral causality averaged over these bands, Hz (Geweke 1982): its average from 0 to fs / 2 is the
        causality in time as the order grows. Taken every hundredth of the rate or, if finer, every tenth of the
        narrowest band.
    max_order : int
        Largest order to choose from.
    criterion : str
        ``"aic"``, ``"bic"`` or ``"hqic"``.
    regularise : float
        Variance of white noise that every channel counts as carrying besides, as a share of its own. With more than a
        very little, causality shrinks, and some appears where there is none (Newbold 1978).
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Returns
    -------
    ndarray (..., channels, channels), or (..., bands, channels, channels) where bands are given
        [i, j] from j to i; the diagonal 0.

    Raises
    ------
    InputError
        Too few samples for the order, one channel, flat channels, NaN, copies of a channel, lags that follow from one
        another, and for the conditional form channels of deficient rank, of which nothing is lost when one is left out.

    Examples
    --------
    >>> e = np.random.default_rng(0).normal(size=(2, 20_000))
    >>> x = e.copy()
    >>> x[0, 1:] += 0.5 * e[1, :-1]
    >>> granger(x, 1000.0, 1).round(1)  # ln 1.25 from 1 to 0
    array([[0. , 0.2],
           [0. , 0. ]])
    """
    values, space = checked(x, fs, DOING), arrays_on(device)
    check_criterion(criterion, DOING)
    check_order(max_order if order is None else order, DOING)
    wanted = None if bands is None else bands_of(bands, fs, DOING)
    if wanted is not None and conditional:
        raise InputError("Granger causality by frequency is offered pairwise; leave out `conditional` or the bands.")
    longest = max_order if order is None else order
    c, t = values.shape[-2:]
    regressors = 2 * longest if order is not None and not conditional else 0

    def compute(records):
        z, _ = standardised(records)
        gram = lag_gram(z, longest, space, DOING, floor=regularise, regressors=regressors)
        if conditional:
            refuse_conditional(gram)
        out = np.empty((len(z), *(() if wanted is None else (len(wanted.names),)), c, c))
        orders = np.full(len(z), longest)
        if order is None:
            orders = chosen_order(order_criteria(gram, criterion, DOING))
        for each in np.unique(orders):
            these = np.flatnonzero(orders == each)
            out[these] = _of_gram(gram.of(these), int(each), conditional, wanted, fs)
        return (out,)

    floats = floats_of_products(c, t, longest) + 4 * (c * (longest + 1)) ** 2 + 3 * (c * (2 * longest + 1)) ** 2
    return in_batches(compute, values, floats)[0]


def _of_gram(gram: LagGram, order: int, conditional: bool, wanted, fs: float) -> np.ndarray:
    if conditional:
        fitted = factor(gram, DOING)
        refuse_unstable(gram.space.get(fitted.coefficients(order)), DOING)
        return conditional_granger(fitted, order)
    if wanted is None:
        return pairwise_granger(gram, order)
    return band_granger(gram, order, wanted, fs)


def refuse_conditional(gram: LagGram) -> None:
    """Refuse conditional causality of channels that follow from one another, whatever the regularisation.

    Raises
    ------
    InputError
        So.
    """
    so = (
        "Causality given all other channels has no meaning then, as the one left out is still there in them: take the "
        "pairwise form"
    )
    refuse_deficient_rank(gram.rank, gram.channels, DOING, so)


def refuse_unstable(coefficients: np.ndarray, doing: str) -> None:
    """Refuse a fit (batch, order, c, c) that is not stable.

    Raises
    ------
    InputError
        So.
    """
    if not is_stable(coefficients).all():
        raise InputError(
            f"{doing}: the fitted VAR of order {coefficients.shape[1]} is not stable: it describes a signal "
            "that grows without bound, which has no spectrum or transfer function. The record drifts or is too short: "
            "remove slow trends (high-pass), take a lower order or a longer record."
        )


def pairwise_granger(gram: LagGram, order: int) -> np.ndarray:
    """Pairwise causality (batch, c, c), [i, j] from j to i, from covariances of lagged channels."""
    xp, p, c = gram.space.xp, order, gram.channels
    by_pair = _by_pair(gram, p)
    own = xp.stack([by_pair[:, i, i] for i in range(c)], axis=1)
    size = 2 * p + 1
    pairs = gram.space.zeros((len(gram.rank), c, c, size, size))
    pairs[..., :p, :p] = own[:, :, None, 1:, 1:]
    pairs[..., p : 2 * p, p : 2 * p] = own[:, None, :, 1:, 1:]
    pairs[..., p : 2 * p, :p] = by_pair.swapaxes(1, 2)[..., 1:, 1:]
    pairs[..., 2 * p, :p] = own[:, :, None, 0, 1:]
    pairs[..., 2 * p, p : 2 * p] = by_pair[..., 0, 1:]
    pairs[..., 2 * p, 2 * p] = own[:, :, None, 0, 0]
    # A channel beside itself would be singular; without the products it stands for any channel of no influence.
    diagonal = list(range(c))
    pairs[:, diagonal, diagonal, p : 2 * p, :p] = 0.0
    pairs[:, diagonal, diagonal, 2 * p, p : 2 * p] = 0.0
    last = cholesky(pairs, gram.space, DOING, gram.floor)[..., 2 * p, :]
    causality = xp.log1p((last[..., p : 2 * p] ** 2).sum(-1) / last[..., 2 * p] ** 2)
    causality[:, diagonal, diagonal] = 0.0
    return gram.space.get(causality)


def conditional_granger(fitted: LagFactor, order: int) -> np.ndarray:
    """Causality given all other channels, (batch, c, c), [i, j] from j to i."""
    xp, c, m = fitted.space.xp, fitted.channels, order * fitted.channels
    inverse = xp.linalg.inv(fitted.past[:, :m, :m])
    b = len(inverse)
    by_source = inverse.reshape(b, m, order, c)
    by_source = xp.stack([by_source[..., j] for j in range(c)], axis=1)  # (b, source, m, order)
    block = by_source.swapaxes(-1, -2) @ by_source
    coefficients = fitted.transposed_coefficients(order).reshape(b, order, c, c).swapaxes(1, 2)
    explained = (coefficients * xp.linalg.solve(block, coefficients)).sum(2)  # (b, source, target)
    residual = xp.einsum("bii->bi", fitted.residual_covariances()[:, order])
    causality = xp.log1p(explained.swapaxes(1, 2) / residual[:, :, None])
    causality[:, list(range(c)), list(range(c))] = 0.0
    return fitted.space.get(causality)


def band_granger(gram: LagGram, order: int, bands, fs: float) -> np.ndarray:
    """Geweke's pairwise causality (batch, band, c, c) by frequency, averaged over bands.

    f_{j→i}(ω) = ln(S_ii / (S_ii - (Σ_jj - Σ_ij²/Σ_ii) |H_ij|²)), with the pair's own fit; for two channels the
    determinant of A(ω) falls out, and what is left has no difference of nearly equal spectra.
    """
    p, c = order, gram.channels
    row, column = np.triu_indices(c, 1)
    step = min(fs / 100, min(high - low for low, high in bands.edges) / 10)
    frequencies = bands.grid(step)
    weights = bands.weights(frequencies, DOING)
    coefficients, noise = _pair_fits(gram, p, row, column)
    turn = np.exp(-2j * np.pi / fs * np.outer(frequencies, np.arange(1, p + 1)))
    a = np.eye(2) - np.einsum("fk,zmkij->zfmij", turn, coefficients, optimize=True)
    out = np.zeros((len(noise), len(frequencies), c, c))
    for i, j, target, source in ((0, 1, row, column), (1, 0, column, row)):
        share = noise[:, :, i, j] / noise[:, :, i, i]
        extra = noise[:, :, j, j] - share * noise[:, :, i, j]
        own = np.abs(a[..., j, j] - share[:, None] * a[..., i, j]) ** 2 * noise[:, None, :, i, i]
        out[:, :, target, source] = np.log1p(extra[:, None] * np.abs(a[..., i, j]) ** 2 / own)
    return averaged(out, weights, single=False)


def _by_pair(gram: LagGram, p: int):
    """Covariances (batch, i, j, p + 1, p + 1) of channel i lagged by the row with channel j lagged by the column."""
    return gram.space.xp.einsum("zaibj->zijab", gram.products[:, : p + 1, :, : p + 1])


def _pair_fits(gram: LagGram, p: int, row, column) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (batch, pair, p, 2, 2) and noise covariances (batch, pair, 2, 2) of each pair alone."""
    space, by_pair = gram.space, _by_pair(gram, p)
    parts = [[by_pair[:, a, b] for b in (row, column)] for a in (row, column)]
    join = space.xp.concatenate
    block = join([join([each[..., 1:, 1:] for each in line], axis=-1) for line in parts], axis=-2)
    now = join([join([each[..., :1, 1:] for each in line], axis=-1) for line in parts], axis=-2)
    present = join([join([each[..., :1, :1] for each in line], axis=-1) for line in parts], axis=-2)
    side = now.swapaxes(-1, -2)
    whole = join([join([block, side], axis=-1), join([now, present], axis=-1)], axis=-2)
    lower = cholesky(whole, space, DOING, gram.floor)
    m = 2 * p
    solved = space.xp.linalg.solve(lower[..., :m, :m].swapaxes(-1, -2), lower[..., m:, :m].swapaxes(-1, -2))
    noise = lower[..., m:, m:] @ lower[..., m:, m:].swapaxes(-1, -2)
    solved = solved.reshape(*solved.shape[:-2], 2, p, 2)  # (batch, pair, source, lag, target)
    return np.moveaxis(space.get(solved), (-3, -2, -1), (-1, -3, -2)), space.get(noise)
