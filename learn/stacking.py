"""Combining predictors by their left-out predictions, and how far trials scatter around the combination."""

import numpy as np
from scipy.optimize import nnls

from .log_link import deviance
from .scores import nrmse

# A few hundred heavy-tailed trials tell good predictors apart poorly: their evidence counts a sixteenth.
_TEMPER = 16.0
_WEIGHT_SD = 0.1
_FOLDS = 5
_LEAST = 0.02  # of a muscle's mean response: the deviance of a mean of nothing is infinite


def tempered_weights(left_out, responses) -> np.ndarray:
    """Weights (m,) of m predictors that fall with their left-out deviance: exp(-Δ / (2 · 16 · dispersion)).

    The deviance is that of a variance proportional to the mean, which judges predictions of the mean response as
    squared error does, and does not leave the verdict to the few largest responses.

    Parameters
    ----------
    left_out : ndarray (m, n, k)
    responses : ndarray (n, k)

    Examples
    --------
    >>> truth = np.arange(200.0)[:, None]
    >>> tempered_weights(np.stack([truth, truth]), truth)
    array([0.5, 0.5])
    """
    least = np.maximum(_LEAST * responses.mean(0), np.finfo(float).tiny)
    deviances = np.array([deviance(responses, np.maximum(part, least), 1.0) for part in left_out]) * responses.size
    dispersion = max(deviances.min() / responses.size, 1e-9 * responses.mean())
    weights = np.exp((deviances.min() - deviances) / (2 * _TEMPER * dispersion))
    return weights / weights.sum()


def stack_weights(left_out, responses) -> np.ndarray:
    """Weights (m,) of m predictors, not negative, that add up to 1, by least squares drawn to `tempered_weights`.

    The prior's standard deviation is a tenth: few trials leave it nearly as it is, many overrule it.

    Parameters
    ----------
    left_out : ndarray (m, n, k)
    responses : ndarray (n, k)

    Examples
    --------
    >>> truth = np.arange(200.0)[:, None]
    >>> stack_weights(np.stack([truth, 0 * truth]), truth).round(3)
    array([1., 0.])
    """
    prior = tempered_weights(left_out, responses)
    if len(prior) == 1:
        return prior
    noise = _noise(((left_out - responses) ** 2).sum((1, 2)), responses)
    rows = left_out.reshape(len(left_out), -1) / np.sqrt(noise)
    # The normal equations in a square root: the active-set steps then see m rows instead of a row for each response.
    gram = rows @ rows.T
    gram[np.diag_indices_from(gram)] += _WEIGHT_SD**-2
    total = 1e3 * np.trace(gram)
    right = rows @ responses.ravel() / np.sqrt(noise) + prior / _WEIGHT_SD**2 + total
    root = np.linalg.cholesky(gram + total)
    weights, _ = nnls(root.T, np.linalg.solve(root, right))
    return weights / weights.sum()


def _noise(squares, responses):
    return max(squares.min() / responses.size, 1e-9 * max(float((responses**2).mean()), 1e-300))


def held_out_stack(left_out, responses, generator) -> np.ndarray:
    """Predictions (n, k) of the combination whose weights never saw the trial: five folds."""
    fold = generator.permutation(responses.shape[0]) % min(_FOLDS, responses.shape[0])
    predicted = np.empty_like(responses)
    for k in np.unique(fold):
        weights = stack_weights(left_out[:, fold != k], responses[fold != k])
        predicted[fold == k] = np.tensordot(weights, left_out[:, fold == k], 1)
    return predicted


def score(responses, predicted) -> float:
    """NRMSE of all muscles together, each in units of its largest response."""
    unit = responses.max(0)
    unit = np.where(unit > 0, unit, 1.0)
    return nrmse(responses / unit, predicted / unit)


def clearly_better(left_out, other, responses) -> bool:
    """Whether squared errors of one predictor (n, k) are below the other's by over two standard errors of the mean."""
    gained = ((other - responses) ** 2 - (left_out - responses) ** 2).sum(1)
    return bool(gained.mean() > 2 * gained.std(ddof=1) / np.sqrt(len(gained)))
