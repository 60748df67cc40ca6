"""Penalised regression of the mean response with a logarithmic link, and its leave-one-out predictions.

Responses to TMS are never negative, often exactly zero, and the more variable the larger they are: their variance grows
about like a power of their mean. Quasi-likelihood (Wedderburn 1974) asks for nothing more: the mean is exp(X b), the
variance proportional to mean^power. What is estimated is the conditional mean itself, as squared error wants it, so
that nothing has to be transformed back, and large responses, which are noisy ones, do not decide everything.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import xlogy

_STEPS, _HALVINGS, _TOLERANCE = 60, 14, 1e-8
# Of the logarithm of the mean over the mean response: beyond, exp would only overflow or vanish.
_LOWEST, _HIGHEST = -14.0, 5.0
# Leverage above which the one-step formula of leaving out is no longer trusted.
_LEVERAGE = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class LogLinkFit:
    """Coefficients (p,), and the mean of each training response when it is left out (n,)."""

    coefficients: np.ndarray
    left_out: np.ndarray
    deviance: float

    def predict(self, features) -> np.ndarray:
        """Mean response (e,) at features (e, p), in units of the mean training response."""
        return bounded_exp(features @ self.coefficients)


def bounded_exp(log_mean) -> np.ndarray:
    """Exponential within the bounds that a mean response, in units of the overall mean, can have."""
    return np.exp(np.clip(log_mean, _LOWEST, _HIGHEST))


def deviance(responses, mean, power: float) -> float:
    """Mean quasi-deviance for a variance of mean^power, 1 <= power < 2; zero for a perfect prediction.

    Examples
    --------
    >>> float(deviance(np.array([0.0, 2.0]), np.array([1.0, 2.0]), power=1.0))
    1.0
    """
    y, mean = np.asarray(responses, np.float64), np.asarray(mean, np.float64)
    if power == 1:
        return 2 * float(np.mean(xlogy(y, y / mean) - (y - mean)))
    first = y ** (2 - power) / ((1 - power) * (2 - power))
    return 2 * float(np.mean(first - y * mean ** (1 - power) / (1 - power) + mean ** (2 - power) / (2 - power)))


def fit_log_link(features, responses, penalty, power: float = 1.0, start=None) -> LogLinkFit:
    """Fit log mean = features · b by penalised quasi-likelihood: Newton steps with halving, from `start`.

    Parameters
    ----------
    features : ndarray (n, p)
        A column of ones among them.
    responses : ndarray (n,)
        Not negative, of mean about 1.
    penalty : ndarray (p,)
        Of the squared coefficients; not negative.
    power : float
        The variance is proportional to mean^power, 1 <= power < 2.
    start : ndarray (p,), optional
        Coefficients of a fit with nearly the same penalty, which shortens the way.

    Returns
    -------
    LogLinkFit
        Its `left_out` is one Newton step from the fit to the one without that trial (approximate leave-one-out).

    Examples
    --------
    >>> fit = fit_log_link(np.ones((4, 1)), np.array([0.0, 1.0, 1.0, 2.0]), np.zeros(1))
    >>> float(fit.predict(np.ones((1, 1))).round(6)[0])
    1.0
    """
    b = np.zeros(features.shape[1]) if start is None else np.array(start, np.float64)
    value, gradient, curvature = _objective(features, responses, penalty, power, b)
    for _ in range(_STEPS):
        step = cho_solve(_factor(features, curvature, penalty), features.T @ gradient + penalty * b)
        size = 1.0
        for _ in range(_HALVINGS):
            trial = _objective(features, responses, penalty, power, b - size * step)
            if trial[0] <= value:
                break
            size /= 2
        else:
            break
        gained, b = value - trial[0], b - size * step
        value, gradient, curvature = trial
        if gained <= _TOLERANCE * (1 + abs(value)):
            break
    factor = _factor(features, curvature, penalty)
    spread = np.einsum("ij,ji->i", features, cho_solve(factor, features.T))
    leverage = np.minimum(curvature * spread, _LEVERAGE)
    left_out = bounded_exp(features @ b + spread * gradient / (1 - leverage))
    return LogLinkFit(coefficients=b, left_out=left_out, deviance=deviance(responses, left_out, power))


def _objective(features, y, penalty, power, b):
    """Half the penalised deviance up to a constant, and its first two derivatives by the linear predictor."""
    f = np.clip(features @ b, _LOWEST, _HIGHEST)
    mean = np.exp(f)
    if power == 1:
        value, gradient, curvature = mean - y * f, mean - y, mean
    else:
        first, second = np.exp((2 - power) * f), y * np.exp((1 - power) * f)
        value = first / (2 - power) - second / (1 - power)
        gradient = first - second
        curvature = (2 - power) * first + (power - 1) * second
    return value.sum() + (penalty * b * b).sum() / 2, gradient, curvature


def _factor(features, curvature, penalty):
    hessian = (features * curvature[:, None]).T @ features
    diagonal = np.diag_indices_from(hessian)
    hessian[diagonal] += penalty
    scale = hessian[diagonal].mean()
    for jitter in (1e-10, 1e-6, 1e-2):
        hessian[diagonal] += jitter * scale
        try:
            return cho_factor(hessian, lower=True, check_finite=False)
        except LinAlgError:
            continue
    hessian[diagonal] += scale
    return cho_factor(hessian, lower=True, check_finite=False)
