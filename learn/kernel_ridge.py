"""Kernel ridge regression of many muscles at once: the penalty by leave-one-out, in closed form.

The same as the mean of a Gaussian process whose signal-to-noise ratio was chosen by leave-one-out (Rasmussen &
Williams 2006, sections 2.7 and 5.4.2), for each component of the muscles apart (Breiman & Friedman 1997). On the root
of the responses, whose variability hardly grows with their size, a second step with a logarithmic link takes
predictions back to the mean response.
"""

import numpy as np

from .kernel_bases import KernelBasis
from .log_link import fit_log_link

PENALTIES = 10.0 ** np.arange(-4, 4.1, 0.5)
_LINK_PENALTY = np.array([1e-6, 1e-3, 1.0])


def ridge(basis: KernelBasis, responses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left-out and evaluation predictions of kernel ridge with an intercept.

    Muscles share synergies and excitability, so that their principal components differ more in signal-to-noise ratio
    than they do: each component has the penalty with the smallest sum of squared left-out errors, and its predictions
    are turned back into muscles. One muscle is its own component.

    Parameters
    ----------
    basis : KernelBasis
        Of a centred kernel.
    responses : ndarray (n, k)

    Returns
    -------
    left_out (n, k), predicted (e, k), penalties (c,)
        c components, the largest first.

    Examples
    --------
    >>> from .kernel_bases import basis_of
    >>> x = np.arange(8.0)
    >>> left_out, predicted, penalties = ridge(basis_of("x", np.outer(x, x), 7), 2 * x[:7, None])
    >>> float(predicted[0, 0].round(2))
    14.0
    """
    mean, spread = responses.mean(0), responses.std(0)
    spread = np.where(spread > 1e-12 * np.abs(mean), spread, 1.0)
    _, _, axes = np.linalg.svd((responses - mean) / spread, full_matrices=False)
    components = (responses - mean) / spread @ axes.T
    left_out, predicted, penalties = _ridge_by_column(basis, components)
    return left_out @ axes * spread + mean, predicted @ axes * spread + mean, penalties


def _ridge_by_column(basis, centred):
    """The same of columns of mean zero, each with its own penalty."""
    rotated, squares = basis.vectors.T @ centred, basis.vectors**2
    columns = range(centred.shape[1])
    best, error = np.full(len(columns), np.inf), np.empty_like(centred)
    kept, penalties = np.empty((len(basis.values), len(columns))), np.empty(len(columns))
    for penalty in PENALTIES:
        share = basis.values / (basis.values + penalty)
        leverage = np.minimum(squares @ share + 1 / len(centred), 1 - 1e-6)
        errors = (centred - basis.vectors @ (share[:, None] * rotated)) / (1 - leverage)[:, None]
        loss = (errors**2).sum(0)
        better = loss < best
        best[better], error[:, better], penalties[better] = loss[better], errors[:, better], penalty
        kept[:, better] = share[:, None]
    return centred - error, basis.evaluate @ (kept * rotated), penalties


def ridge_of_root(basis: KernelBasis, responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left-out (n, k) and evaluation predictions (e, k) of the mean, by `ridge` on the root of the responses.

    The mean response is exp of a parabola in the logarithm of the predicted root, fitted on left-out predictions.
    """
    left_out, predicted, _ = ridge(basis, np.sqrt(responses))
    means = [np.empty_like(left_out), np.empty_like(predicted)]
    for k in range(responses.shape[1]):
        unit = responses[:, k].mean()
        if not unit > 0:
            means[0][:, k] = means[1][:, k] = 0.0
            continue
        train, evaluate = _link_features(left_out[:, k], predicted[:, k], np.sqrt(unit))
        fit = fit_log_link(train, responses[:, k] / unit, _LINK_PENALTY)
        means[0][:, k], means[1][:, k] = fit.left_out * unit, fit.predict(evaluate) * unit
    return means[0], means[1]


def _link_features(left_out, predicted, unit):
    logs = [np.log(np.maximum(root, 0.05 * unit)) for root in (left_out, predicted)]
    centre, spread = logs[0].mean(), logs[0].std()
    spread = spread if spread > 1e-9 else 1.0
    # A parabola means nothing far beyond the predictions that it was fitted on.
    logs[1] = np.minimum(logs[1], logs[0].max() + spread)
    return [np.column_stack([np.ones(len(x)), (x - centre) / spread, ((x - centre) / spread) ** 2]) for x in logs]
