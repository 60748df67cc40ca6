"""Vector autoregressions (VAR) of recordings: fit, order, stability, autocovariance, and the Granger causality of one.

x_t = Σ_k A_k x_{t-k} + e_t, with A_k[i, j] from channel j to channel i and e_t white with covariance Σ. Fits are
ordinary least squares with a constant (Lütkepohl 2005, chapter 3), which for Gaussian noise is maximum likelihood.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .connectivity_arrays import arrays_on, checked, in_batches, standardised
from .lagged_products import floats_of_products
from .var_models_gram import LagFactor, LagGram, check_order, factor, lag_gram
from .var_models_theory import autocovariance, granger_of_var, is_stable, spectral_radius

__all__ = [
    "CRITERIA",
    "OrderSelection",
    "VarFit",
    "autocovariance",
    "fit_var",
    "granger_of_var",
    "is_stable",
    "select_order",
    "spectral_radius",
]

CRITERIA = ("aic", "bic", "hqic")


class VarFit(NamedTuple):
    """Coefficients (…, order, c, c), entry [k, i, j] of x_i on x_j lagged by k + 1, and noise covariance (…, c, c)."""

    coefficients: np.ndarray
    noise_covariance: np.ndarray


@dataclass(frozen=True, eq=False)
class OrderSelection:
    """Orders that a criterion chose.

    Attributes
    ----------
    order : int, or ndarray (...) of them
        In samples, at least 1: of order 0 nothing would follow.
    values : ndarray (..., max_order + 1)
        The criterion of every order from 0 on, over the same samples.
    criterion : str
        Which.
    fs : float or None
        Sampling rate, Hz.
    """

    order: int | np.ndarray
    values: np.ndarray
    criterion: str
    fs: float | None = None

    @property
    def order_ms(self):
        """The order in milliseconds, or None where the rate is not known."""
        return None if self.fs is None else 1e3 * self.order / self.fs


def fit_var(x, order, *, regularise: float = 0.0, device="cpu") -> VarFit:
    """Fit a VAR with a constant by ordinary least squares.

    Equal to `statsmodels.tsa.api.VAR(x.T).fit(order, trend="c")`: `coefs`, and `sigma_u_mle` for the noise, the
    residual covariance divided by the number of samples. It is solved through the products of lagged channels, centred
    and scaled, and refused where that would cost digits.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings, in any unit u.
    order : int
        Lags, samples.
    regularise : float
        Variance of white noise that every channel counts as carrying besides its own, as a share of its variance: 0 for
        plain least squares. With it channels of deficient rank get the answer of smallest norm as the share goes to 0.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Returns
    -------
    VarFit
        `coefficients` (..., order, c, c) and `noise_covariance` (..., c, c), u².

    Raises
    ------
    InputError
        Too few samples for the order, flat channels, NaN, deficient rank or nearly dependent lags without
        `regularise`.

    Examples
    --------
    >>> e = np.random.default_rng(0).normal(size=(2, 20_000))
    >>> x = e.copy()
    >>> x[0, 1:] += 0.5 * e[1, :-1]
    >>> fit_var(x, 1).coefficients[0].round(1) + 0.0
    array([[0. , 0.5],
           [0. , 0. ]])
    """
    doing, space = f"VAR of order {order}", arrays_on(device)
    check_order(order, doing)
    values = checked(x, 1.0, doing, least_channels=1)

    def compute(records):
        z, scale = standardised(records)
        fitted = factor(lag_gram(z, order, space, doing, floor=regularise), doing)
        coefficients, noise = standardised_fit(fitted, order)
        ratio = scale[:, :, None] / scale[:, None, :]
        return coefficients * ratio[:, None], noise * (scale[:, :, None] * scale[:, None, :])

    return VarFit(*in_batches(compute, values, _floats(values, order)))


def select_order(
    x, max_order: int, criterion: str = "bic", *, fs: float | None = None, regularise: float = 0.0, device="cpu"
) -> OrderSelection:
    """Choose the order of a VAR by an information criterion over the same samples for every order.

    With Σ_p the residual covariance of order p over the n = samples - `max_order` instants that all orders can use,
    and m = p c² + c coefficients (Lütkepohl 2005, section 4.3; statsmodels' `VAR.select_order`):

    - ``"aic"``: ln det Σ_p + 2 m / n (Akaike 1974);
    - ``"bic"``: ln det Σ_p + ln(n) m / n (Schwarz 1978);
    - ``"hqic"``: ln det Σ_p + 2 ln(ln n) m / n (Hannan and Quinn 1979).

    The order does not change when channels are mixed by any invertible matrix. So for channels of rank r < c it is that
    of their r whitened principal components, whose VAR is well-posed, with c = r in m; the values are then those of the
    components.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Recordings.
    max_order : int
        Largest order, samples.
    criterion : str
        One of `CRITERIA`.
    fs : float, optional
        Sampling rate, Hz: gives the order in milliseconds too.
    regularise, device
        As for `fit_var`.

    Returns
    -------
    OrderSelection

    Raises
    ------
    InputError
        As `fit_var`, or an unknown criterion.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(2, 5000))
    >>> for t in range(3, 5000):
    ...     x[:, t] += 0.6 * x[:, t - 3]
    >>> chosen = select_order(x, 8, fs=500.0)
    >>> int(chosen.order), float(chosen.order_ms)
    (3, 6.0)
    """
    doing, space = "choice of the VAR's order", arrays_on(device)
    check_criterion(criterion, doing)
    check_order(max_order, doing)
    values = checked(x, 1.0 if fs is None else fs, doing, least_channels=1)

    def compute(records):
        z, scale = standardised(records)
        gram = lag_gram(z, max_order, space, doing, floor=regularise)
        full = gram.rank == gram.channels
        found = order_criteria(gram, criterion, doing)
        return (found + 2 * np.log(scale).sum(axis=1)[:, None] * full[:, None],)

    (found,) = in_batches(compute, values, _floats(values, max_order))
    chosen = chosen_order(found)
    return OrderSelection(int(chosen) if chosen.ndim == 0 else chosen, found, criterion, fs)


def check_criterion(criterion: str, doing: str) -> None:
    """Refuse a criterion that is not one of `CRITERIA`.

    Raises
    ------
    InputError
        So.
    """
    if criterion not in CRITERIA:
        raise InputError(f"{doing}: the criterion {criterion!r} is not known; choose from {', '.join(CRITERIA)}.")


def chosen_order(values: np.ndarray) -> np.ndarray:
    """Order, at least 1, of the smallest value (..., orders from 0 on); the lowest of equal ones."""
    return values[..., 1:].argmin(axis=-1) + 1


def order_criteria(gram: LagGram, criterion: str, doing: str, factored: LagFactor | None = None) -> np.ndarray:
    """The criterion (batch, max order + 1) of every order, of standardised channels or their principal components."""
    if factored is not None and (gram.rank == gram.channels).all():
        return _criteria(factored, gram.samples, criterion)
    out = np.empty((len(gram.rank), gram.order + 1))
    for rank in np.unique(gram.rank):
        these = np.flatnonzero(gram.rank == rank)
        part = gram.of(these)
        part = part if rank == gram.channels else _principal(part, int(rank))
        out[these] = _criteria(factor(part, doing), gram.samples, criterion)
    return out


def standardised_fit(fitted: LagFactor, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (batch, order, c, c) and noise covariance (batch, c, c) of standardised channels."""
    noise = fitted.residual_covariances()[:, order]
    return fitted.space.get(fitted.coefficients(order)), fitted.space.get(noise)


def _criteria(fitted: LagFactor, samples: int, criterion: str) -> np.ndarray:
    _sign, log_determinant = fitted.space.xp.linalg.slogdet(fitted.residual_covariances())
    c = fitted.channels
    coefficients = np.arange(fitted.order + 1) * c * c + c
    each = {"aic": 2.0, "bic": np.log(samples), "hqic": 2 * np.log(np.log(samples))}[criterion]
    return fitted.space.get(log_determinant) + each / samples * coefficients


def _principal(gram: LagGram, rank: int) -> LagGram:
    """The covariances of the whitened principal components, as many as the rank."""
    space, p = gram.space, gram.order
    values, vectors = np.linalg.eigh(space.get(gram.products[:, 0, :, 0, :]))
    whitener = space.put(vectors[:, :, -rank:] / np.sqrt(values[:, None, -rank:]))
    half = gram.products @ whitener[:, None, None]
    products = space.xp.einsum("zaibj,zir->zarbj", half, whitener)
    assert products.shape[1:] == (p + 1, rank, p + 1, rank)
    return LagGram(products, gram.samples, gram.rank, gram.floor / float(values.max()), space)


def _floats(values: np.ndarray, order: int) -> int:
    c, t = values.shape[-2:]
    return floats_of_products(c, t, order) + 4 * (c * (order + 1)) ** 2
