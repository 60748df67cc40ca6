"""Connectivity matrices as rows for a linear model: each measure on a scale where its noise is even.

Correlations and other values within (-1, 1) that take both signs are Fisher-transformed (arctanh), values that are
never negative (coherence, phase lag index, Granger causality, DTF) are taken as logarithms, log(x + their training
median): estimates of both kinds scatter the less evenly the closer they are to their bounds. Beside them, a matrix that
is a correlation matrix (symmetric, ones on its diagonal, positive semi-definite) is read as a point of its own
geometry: the upper triangle of its matrix logarithm (log-Euclidean, Arsigny et al. 2006), in which direct connections
stand out from those through third channels.
"""

from dataclasses import dataclass

import numpy as np

_SHRINKAGE = 0.05
"""Part of the identity in a correlation matrix before its logarithm: after ICA it is singular."""
_SYMMETRIC = 1e-5
_LARGEST_CORRELATION = 1 - 1e-6


@dataclass(frozen=True, kw_only=True)
class View:
    """Standardised rows of one way to see all records.

    Parameters
    ----------
    name : str
        The measure's number, and what was done to it.
    rows : array (n, p)
        Training mean 0 and standard deviation 1 in each column, divided by √p.
    even : bool
        Whether it is a measure on its even scale, of which there is one for each measure.
    """

    name: str
    rows: np.ndarray
    even: bool


def views_of(features: np.ndarray, train: np.ndarray) -> list[View]:
    """All views of connectivity matrices whose columns vary over the training records.

    Parameters
    ----------
    features : array (n, measures, channels, channels)
        Finite.
    train : int array
        Rows that settle transforms, means and scales.

    Returns
    -------
    list of View
        Empty where nothing varies.

    Examples
    --------
    >>> matrices = np.random.default_rng(0).random((9, 1, 3, 3))
    >>> [(view.name, view.rows.shape) for view in views_of(matrices, np.arange(6))]
    [('0 log', (9, 9))]
    """
    found = []
    for measure in range(features.shape[1]):
        matrices = features[:, measure].astype(np.float64)
        name, even = _evened(matrices, train)
        known = matrices[train]
        symmetric = np.abs(known - known.swapaxes(1, 2)).max() <= _SYMMETRIC * np.abs(known).max()
        found.append((f"{measure} {name}", _columns(even, symmetric), True))
        if symmetric and _correlations(known):
            found.append((f"{measure} matrix logarithm", _columns(_matrix_logarithm(matrices), True), False))
    views = [View(name=name, rows=_standardised(rows, train), even=even) for name, rows, even in found]
    return [view for view in views if view.rows.shape[1]]


def plain_rows(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Rows (n, p) of all that varies over the training rows, as it is: centred, each measure of the same weight.

    A measure is divided by one number, so that its entries keep their sizes; the rows' mean square is 1.

    Parameters
    ----------
    features : array (n, measures, channels, channels)
    train : int array

    Examples
    --------
    >>> plain_rows(np.arange(4.0).reshape(2, 1, 1, 2), np.arange(2)).round(3)
    array([[-0.707, -0.707],
           [ 0.707,  0.707]])
    """
    parts = []
    for measure in range(features.shape[1]):
        x = features[:, measure].reshape(len(features), -1).astype(np.float64)
        known = x[train]
        varies = np.ptp(known, axis=0) > 1e-7 * np.abs(known).max(0)
        if varies.any():
            x = x[:, varies] - known[:, varies].mean(0)
            parts.append(x / np.sqrt(np.mean((x[train] ** 2).sum(1))))
    return np.concatenate(parts, axis=1) / np.sqrt(len(parts)) if parts else np.empty((len(features), 0))


def _evened(matrices: np.ndarray, train: np.ndarray) -> tuple[str, np.ndarray]:
    """Name of the transform that the training matrices' range asks for, and what it makes of all."""
    known = matrices[train]
    low, high = known.min(), known.max()
    if low >= 0 and high > 0:
        floor = np.median(known[known > 0])
        return "log", np.log(np.maximum(matrices, 0.0) + floor)
    if low > -1 - 1e-6 and high < 1 + 1e-6:
        return "Fisher z", np.arctanh(np.clip(matrices, -_LARGEST_CORRELATION, _LARGEST_CORRELATION))
    return "as it is", matrices


def _correlations(known: np.ndarray) -> bool:
    """Whether training matrices, symmetric already, are correlation matrices."""
    diagonals = np.diagonal(known, axis1=1, axis2=2)
    return bool(
        known.shape[1] > 1 and np.abs(diagonals - 1).max() < 1e-4 and np.linalg.eigvalsh(known).min() > -_SHRINKAGE / 2
    )


def _matrix_logarithm(matrices: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((matrices + matrices.swapaxes(1, 2)) / 2)
    # A record that was not trained on may be anything; its logarithm has to exist.
    values = np.log(np.maximum((1 - _SHRINKAGE) * values + _SHRINKAGE, _SHRINKAGE / 2))
    return (vectors * values[:, None, :]) @ vectors.swapaxes(1, 2)


def _columns(matrices: np.ndarray, symmetric: bool) -> np.ndarray:
    size = matrices.shape[1]
    kept = np.triu(np.ones((size, size), bool)) if symmetric else np.ones((size, size), bool)
    return matrices[:, kept]


def _standardised(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    known = rows[train]
    varies = np.ptp(known, axis=0) > 1e-7 * np.abs(known).max(0)
    known, rows = known[:, varies], rows[:, varies]
    return (rows - known.mean(0)) / known.std(0) / np.sqrt(max(rows.shape[1], 1))
