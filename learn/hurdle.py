"""Responses that are often exactly zero: whether there is one, times how large it is then."""

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import expit

from .log_link import fit_log_link

_STEPS, _LEVERAGE = 40, 0.95
_STRENGTHS = (0.3, 0.6, 1.2, 2.4)
FEWEST = 5  # trials with, and trials without a response


def fit_hurdle(trend, bases, responses) -> tuple[np.ndarray, np.ndarray]:
    """Left-out and evaluation predictions of probability × size for one muscle.

    The probability of a response is logistic in the trend's columns and in a smooth deviation from them; several
    lengths and strengths of the deviation are averaged, weighted by their left-out likelihood. The size has a
    logarithmic link in the trend's columns and a variance of mean^1.5.

    Parameters
    ----------
    trend : pair of ndarray (n, q), (e, q)
        Columns of the trend, the first of ones, of training and evaluation trials.
    bases : sequence of KernelBasis
        The smooth deviations.
    responses : ndarray (n,)
        At least `FEWEST` positive and `FEWEST` zero, of mean about 1.

    Returns
    -------
    left_out (n,), predicted (e,)
    """
    some = responses > 0
    probabilities = _probability(trend, bases, some)
    size = responses[some].mean()
    penalty = np.r_[1e-3, np.ones(trend[0].shape[1] - 1)]
    fit = fit_log_link(trend[0][some], responses[some] / size, penalty, power=1.5)
    sizes = fit.predict(trend[0]), fit.predict(trend[1])
    sizes[0][some] = fit.left_out
    return tuple(p * np.clip(s, 0.02, 20) * size for p, s in zip(probabilities, sizes))


def _probability(trend, bases, some):
    """Averages over lengths and strengths of the probability of a response: left out (n,) and evaluation (e,)."""
    found = []
    for basis in bases:
        root = np.sqrt(basis.values)
        train, evaluate = np.hstack([trend[0], basis.vectors * root]), np.hstack([trend[1], basis.evaluate * root])
        start = None
        for strength in _STRENGTHS:
            penalty = np.r_[1e-3, np.full(trend[0].shape[1] - 1, 0.1), np.full(len(root), strength**-2)]
            start, left_out = _logistic(train, some, penalty, start)
            loss = np.sum(np.logaddexp(0, left_out) - some * left_out)
            found.append((loss, expit(left_out), expit(evaluate @ start)))
    losses = np.array([loss for loss, *_ in found])
    weights = np.exp(losses.min() - losses)
    weights /= weights.sum()
    return weights @ np.array([p for _, p, _ in found]), weights @ np.array([p for *_, p in found])


def _logistic(features, outcome, penalty, start):
    """Penalised logistic regression: coefficients, and the left-out linear predictors by one Newton step."""
    b = np.zeros(features.shape[1]) if start is None else start
    for _ in range(_STEPS):
        mean = expit(features @ b)
        factor = _factor(features, mean * (1 - mean), penalty)
        step = cho_solve(factor, features.T @ (mean - outcome) + penalty * b)
        # The penalised loss is convex and flat far out: a bounded step cannot overshoot it.
        b = b - step * min(1.0, 4.0 / max(np.abs(features @ step).max(), 1e-300))
        if np.abs(features @ step).max() < 1e-6:
            break
    mean = expit(features @ b)
    curvature = np.maximum(mean * (1 - mean), 1e-9)
    spread = np.einsum("ij,ji->i", features, cho_solve(_factor(features, curvature, penalty), features.T))
    leverage = np.minimum(curvature * spread, _LEVERAGE)
    return b, features @ b + spread * (mean - outcome) / (1 - leverage)


def _factor(features, curvature, penalty):
    hessian = (features * curvature[:, None]).T @ features
    hessian[np.diag_indices_from(hessian)] += penalty
    try:
        return cho_factor(hessian, lower=True, check_finite=False)
    except LinAlgError:
        hessian[np.diag_indices_from(hessian)] += 1e-6 * np.trace(hessian)
        return cho_factor(hessian, lower=True, check_finite=False)
