"""Products of channels with their own pasts, from which every autoregressive fit of a record follows.

The matrix of these products comes from `lagged_products`. With the lags in order, one Cholesky factor of it holds the
residual covariance and the coefficients of every order at once.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .connectivity_arrays import Arrays
from .lagged_products import centred_products

# Relative eigenvalue of the covariance of channels below which a direction holds nothing: above the rounding of samples
# stored as float32, and far below what an amplifier's noise leaves.
RANK_TOLERANCE = 1e-10
# With R the correlations of the lagged channels, relative errors of coefficients by rounding, and at worst those of
# residual variances, are about `_ROUNDING` over 1 / tr R⁻¹. At the least that passes, about five digits are right.
_ROUNDING, _LEAST_INVERSE_TRACE = 1e-15, 1e-10


@dataclass(frozen=True, eq=False)
class LagGram:
    """Covariances of standardised channels with their pasts.

    Attributes
    ----------
    products : array (batch, order + 1, c, order + 1, c)
        [a, i, b, j]: channel i lagged by a with channel j lagged by b, over the samples, each centred over its own.
    samples : int
        How many instants were regressed: those that have `order` samples before them.
    rank : ndarray (batch,)
        Of the covariance of the channels themselves.
    floor : float
        Variance of white noise that every channel counts as carrying besides, over its own variance.
    """

    products: object
    samples: int
    rank: np.ndarray
    floor: float
    space: Arrays

    @property
    def order(self) -> int:
        """Largest lag."""
        return self.products.shape[1] - 1

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return self.products.shape[2]

    def of(self, records) -> "LagGram":
        """The same of some records of the batch."""
        return LagGram(self.products[records], self.samples, self.rank[records], self.floor, self.space)


@dataclass(frozen=True, eq=False)
class LagFactor:
    """Cholesky factor of a `LagGram`, its variables in the order lag 1, …, lag p, lag 0."""

    past: object  # (batch, p·c, p·c), lower
    now: object  # (batch, c, p·c): the present's rows
    left: object  # (batch, c, c): of the residual covariance of the largest order
    channels: int
    space: Arrays

    @property
    def order(self) -> int:
        """Largest order."""
        return self.now.shape[-1] // self.channels

    def residual_covariances(self):
        """Residual covariances (batch, p + 1, c, c) of the orders 0 to p, by adding up what each lag explains."""
        b, c, _ = self.now.shape
        xp, smallest = self.space.xp, self.left @ self.left.swapaxes(-1, -2)
        if not self.order:
            return smallest[:, None]
        by_lag = self.now.reshape(b, c, self.order, c).swapaxes(1, 2)
        back = list(range(self.order - 1, -1, -1))
        explained = xp.cumsum((by_lag @ by_lag.swapaxes(-1, -2))[:, back], axis=1)[:, back]
        return xp.concatenate([smallest[:, None] + explained, smallest[:, None]], axis=1)

    def transposed_coefficients(self, order: int):
        """Least-squares coefficients (batch, order·c, c) of an order up to the largest, regressors along the rows."""
        m = order * self.channels
        return self.space.solve_transposed(self.past[:, :m, :m], self.now[:, :, :m].swapaxes(-1, -2))

    def coefficients(self, order: int):
        """Coefficients (batch, order, c, c) of standardised channels, entry [k, i, j] of x_i on x_j lagged by k + 1."""
        b, c, _ = self.now.shape
        return self.transposed_coefficients(order).reshape(b, order, c, c).swapaxes(-1, -2)


def lag_gram(
    z: np.ndarray, order: int, space: Arrays, doing: str, *, floor: float = 0.0, regressors: int = 0
) -> LagGram:
    """Covariances of standardised channels z (batch, c, samples) with their pasts up to `order`.

    Parameters
    ----------
    z : ndarray (batch, c, samples)
        Of mean 0 and variance 1, which keeps the sums accurate.
    order : int
        Largest lag, samples.
    space : Arrays
        Where to compute.
    doing : str
        For the messages.
    floor : float
        Relative variance of white noise added to each channel, in expectation.
    regressors : int
        Of one equation, to be compared with the samples; all channels at all lags unless given.

    Raises
    ------
    InputError
        An order below 1, too few samples for it, or a floor that is negative.
    """
    _batch, c, t = z.shape
    check_order(order, doing)
    if not (np.isfinite(floor) and 0 <= floor < 1):
        raise InputError(f"{doing}: regularise is {floor!r}; give a share of a channel's variance, from 0 to below 1.")
    unknown, n = (regressors or order * c) + 1, t - order
    if n <= unknown + c:
        raise InputError(
            f"{doing}: {t} samples are too few for order {order}: each equation has {unknown} coefficients and only "
            f"{max(n, 0)} instants have so long a past, so that the fit would be perfect and mean nothing. Take a "
            "lower order, fewer channels or a longer record."
        )
    products = centred_products(space.put(z), order, space)
    products /= n
    rank = covariance_rank(space.get(products[:, 0, :, 0, :]))
    if floor:
        size = (order + 1) * c
        products.reshape(-1, size, size)[:, list(range(size)), list(range(size))] += floor
    return LagGram(products, n, rank, float(floor), space)


def covariance_rank(covariance: np.ndarray) -> np.ndarray:
    """Ranks (batch,) of covariances (batch, c, c) of channels: eigenvalues above `RANK_TOLERANCE` of the largest."""
    values = np.linalg.eigvalsh(covariance)
    return (values > RANK_TOLERANCE * values[:, -1:]).sum(axis=1)


def check_order(order, doing: str) -> None:
    """Refuse an order that is not a whole number of at least 1.

    Raises
    ------
    InputError
        So.
    """
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 1:
        raise InputError(f"{doing}: the order is {order!r}; give a whole number of lags, at least 1.")


def factor(gram: LagGram, doing: str) -> LagFactor:
    """Cholesky factor of all covariances.

    Raises
    ------
    InputError
        Channels of deficient rank, or lags that follow from one another, without regularisation.
    """
    c, p = gram.channels, gram.order
    if not gram.floor:
        refuse_deficient_rank(
            gram.rank, c, doing, "The autoregression has no single answer then: give `regularise` (1e-6, say)"
        )
    size = (p + 1) * c
    order = [*range(c, size), *range(c)]
    flat = gram.products.reshape(-1, size, size)[:, order][:, :, order]
    lower = cholesky(flat, gram.space, doing, gram.floor)
    m = p * c
    return LagFactor(lower[:, :m, :m], lower[:, m:, :m], lower[:, m:, m:], c, gram.space)


def refuse_deficient_rank(rank: np.ndarray, channels: int, doing: str, so: str) -> None:
    """Refuse channels that follow from one another.

    Raises
    ------
    InputError
        Where a rank is below the number of channels.
    """
    low = np.flatnonzero(rank < channels)
    if len(low):
        raise InputError(
            f"{doing}: the {channels} channels have rank {rank[low[0]]}: some follow exactly from the others, "
            f"as after removing ICA components, an average reference or an interpolated channel. {so}, or leave "
            "channels out until the rank is full."
        )


def cholesky(matrices, space: Arrays, doing: str, floor: float):
    """Lower Cholesky factors (…, n, n), refused where rounding would show in what they are taken for.

    `floor` is what the least eigenvalue is known to be at least. The trace of the inverse, with all variances at 1, is
    then at most trace / floor, and mostly need not be computed.

    Raises
    ------
    InputError
        So.
    """
    try:
        lower = space.xp.linalg.cholesky(matrices)
    except (np.linalg.LinAlgError, RuntimeError) as error:
        # torch's error of this kind is a RuntimeError, as are its lack of memory and others, which are not ours.
        if space.xp is not np and not isinstance(error, space.xp.linalg.LinAlgError):
            raise
        raise InputError(_singular(doing, "1")) from error
    variances = space.xp.einsum("...ii->...i", matrices)
    if not floor > _LEAST_INVERSE_TRACE * float(variances.sum(-1).max()):
        trace = float(space.inverse_squares(lower / space.xp.sqrt(variances)[..., None]).max())
        if not trace * _LEAST_INVERSE_TRACE < 1:
            raise InputError(_singular(doing, f"{_ROUNDING * trace:.0e}"))
    return lower


def _singular(doing: str, error: str) -> str:
    return (
        f"{doing}: the lagged channels follow from one another (relative error of the fit by rounding: "
        f"up to about {error}), so that the fit would mean little. Channels may be copies of each other, "
        "drift far beyond their size, or be band-limited far below half of the sampling rate: remove slow trends, "
        "resample to about three times the highest frequency that is left, lower the order, or give `regularise` "
        "(1e-6, say)."
    )
