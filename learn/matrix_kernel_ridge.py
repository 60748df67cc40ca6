"""Ridge regression of matrix entries in its dual form: penalties by component, subjects' own levels, a log link."""

import numpy as np

PENALTIES = 10.0 ** np.arange(-3, 4.1, 0.5)
"""Of kernels whose training rows have a mean square of 1, for each 100 rows."""
SUBJECT_SHARES = (0.0, 0.1, 0.3, 1.0)
"""Variance of a subject's own level, beside a kernel whose rows have a mean square of 1."""
_FLOOR = 0.3


def fit_entries(kernel, train, entries, folds, same_subject=None) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of entries: those of inner folds, and those of all rows.

    Entries that are never negative over the training rows, as Granger causalities are, are fitted as log(y + floor),
    the floor being 0.3 of each entry's median: what raises a coupling multiplies its Granger causality. Predictions go
    back through exp, bounded by the largest training value, times the factor that makes the inner folds' mean right
    (Duan 1983).

    Parameters
    ----------
    kernel : array (n, t)
        Between all rows and the training rows.
    train : int array (t,)
        Training rows among all.
    entries : array (t, k)
        Of the training rows; each varies.
    folds : list of (fitted, left out)
        Places among the training rows.
    same_subject : bool array (n, t), optional
        Where a row is of a training row's subject.

    Returns
    -------
    left_out (t, k), everywhere (n, k)

    Examples
    --------
    >>> x = np.arange(1.0, 9.0)
    >>> folds = [(np.arange(6), np.arange(6, 8)), (np.arange(2, 8), np.arange(2)), (np.r_[:2, 6:8], np.arange(2, 6))]
    >>> fit_entries(np.outer(x, x), np.arange(8), x[:, None] - 4, folds)[1].round(1)[:, 0]
    array([-3., -2., -1.,  0.,  1.,  2.,  3.,  4.])
    """
    floor = _FLOOR * np.median(entries, axis=0)
    if entries.min() < 0 or not (floor > 0).all():
        return _fit(kernel, train, entries, folds, same_subject)
    logarithms = np.log(entries + floor)
    most = logarithms.max(0)
    parts = [np.exp(np.minimum(part, most)) for part in _fit(kernel, train, logarithms, folds, same_subject)]
    factor = (entries + floor).mean(0) / parts[0].mean(0)
    return parts[0] * factor - floor, parts[1] * factor - floor


def _fit(kernel, train, entries, folds, same_subject) -> tuple[np.ndarray, np.ndarray]:
    """Each principal component of the entries has the penalty and the subject share that are best in the folds."""
    mean = entries.mean(0)
    _, sizes, axes = np.linalg.svd(entries - mean, full_matrices=False)
    axes = axes[sizes > 1e-10 * sizes[0]]
    components = (entries - mean) @ axes.T
    best = np.full(components.shape[1], np.inf)
    left_out, everywhere = np.zeros_like(components), np.zeros((len(kernel), components.shape[1]))
    for share in SUBJECT_SHARES if same_subject is not None else (0.0,):
        mixed = kernel + share * same_subject if share else kernel
        found = _best_penalties(mixed, train, components, folds)
        error = ((found[0] - components) ** 2).sum(0)
        better = error < best
        best[better] = error[better]
        left_out[:, better], everywhere[:, better] = found[0][:, better], found[1][:, better]
    return left_out @ axes + mean, everywhere @ axes + mean


def _best_penalties(kernel, train, components, folds) -> tuple[np.ndarray, np.ndarray]:
    own = kernel[train]
    tried = np.empty((len(PENALTIES), *components.shape))
    for fitted, some in folds:
        tried[:, some] = dual_ridge(own[np.ix_(fitted, fitted)], own[np.ix_(some, fitted)], components[fitted])
    best = np.argmin(((tried - components) ** 2).sum(1), axis=0)
    everywhere, columns = dual_ridge(own, kernel, components), np.arange(components.shape[1])
    return tried[best, :, columns].T, everywhere[best, :, columns].T


def dual_ridge(own, across, y, penalties=None) -> np.ndarray:
    """Predictions (penalties, e, c) of ridge with an intercept that is not penalised.

    Parameters
    ----------
    own : array (t, t)
        Kernel of the rows that are fitted.
    across : array (e, t)
        Kernel between the rows to predict and these.
    y : array (t, c)
    penalties : array, optional
        `PENALTIES` times t / 100 without it.

    Examples
    --------
    >>> x = np.arange(5.0)
    >>> dual_ridge(np.outer(x, x), np.outer([7.0], x), 2 * x[:, None] + 1, np.array([1e-9])).round(3)
    array([[[15.]]])
    """
    penalties = PENALTIES * len(y) / 100 if penalties is None else penalties
    centre, mean = own.mean(0), y.mean(0)
    across = across - centre - (across.mean(1, keepdims=True) - own.mean())
    values, vectors = np.linalg.eigh(own - centre - own.mean(1, keepdims=True) + own.mean())
    values = np.maximum(values, 0.0)
    turned, seen = vectors.T @ (y - mean), across @ vectors
    return np.stack([mean + (seen / (values + penalty)) @ turned for penalty in penalties])
