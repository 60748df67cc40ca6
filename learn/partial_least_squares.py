"""Partial least squares with as many components as predict best what was left out."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.exceptions import ConvergenceWarning

PLS_COMPONENTS = 15
"""At most."""


def predict_pls(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, int]:
    """Fit all rows with the number of components that has the smallest squared error in inner folds, and predict.

    Parameters
    ----------
    x : array (t, p)
        Rows to fit, all columns of one weight.
    y : array (t, k)
    x_new : array (e, p)
        Rows to predict.
    folds : sequence of (int array, int array)
        Places within the t rows to fit on, and to predict.

    Returns
    -------
    prediction : array (e, k)
    components : int
        At most one fewer than the rows of the smallest fold; with 0 the prediction is the mean.

    Examples
    --------
    >>> x = np.arange(4.0)[:, None]
    >>> halves = [(np.array([0, 1]), np.array([2, 3])), (np.array([2, 3]), np.array([0, 1]))]
    >>> predict_pls(x, 2 * x, np.array([[5.0]]), halves)
    (array([[10.]]), 1)
    """
    most = min(PLS_COMPONENTS, x.shape[1], *(len(fitted) - 1 for fitted, _ in folds))
    if most < 1:
        return np.tile(y.mean(0), (len(x_new), 1)), 0
    errors = np.zeros(most)
    for fitted, left_out in folds:
        errors += ((_by_components(x[fitted], y[fitted], x[left_out], most) - y[left_out]) ** 2).sum((1, 2))
    best = int(np.argmin(errors)) + 1
    return _by_components(x, y, x_new, best)[-1], best


def _by_components(x, y, x_new, most: int) -> np.ndarray:
    """Predictions (most, e, k) with 1 to `most` components of one fit: later components leave earlier ones as are."""
    model = PLSRegression(most, scale=False)
    with warnings.catch_warnings():
        # Nothing left to explain, or a power iteration that wavers between two equal axes: the fit stands.
        warnings.filterwarnings("ignore", "y residual is constant", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    parts = model.transform(x_new)[:, None, :] * model.y_loadings_  # (e, k, most)
    return y.mean(0) + np.moveaxis(np.cumsum(parts, axis=2), 2, 0)
