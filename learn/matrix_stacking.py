"""A linear model of connectivity that does better than the paper's network: ridge on several views, stacked.

1. Views (`matrix_views`): each measure on its own even scale, the correlation matrix's logarithm, the mean of the even
   ones' kernels, and all measures as they are (the rows that plain ridge has).
2. Ridge on each view (`matrix_kernel_ridge`), with a logarithmic link for entries that are never negative, the penalty
   chosen for each principal component of the entries apart: what moves all muscles together is known better than the
   rest (Breiman & Friedman 1997). Where subjects are given, each has a level of its own, a random effect: records of
   one subject are not independent evidence, and for a subject that trains, its level is known.
3. Weights of the views by least squares on predictions of inner folds, none negative: a view that says nothing, and a
   model that knows nothing, fall back to the mean matrix (Wolpert 1992, Breiman 1996).

Penalties and weights come from inner folds of the training records. These leave out whole subjects where the test
records' subjects are not in training, so that what is chosen is what serves somebody new.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls
from sklearn.model_selection import GroupKFold, KFold

from .matrix_kernel_ridge import fit_entries
from .matrix_records import FittedMatrices, check_records, check_subjects
from .matrix_views import plain_rows, views_of
from .record_splits import RecordSplit

_FOLDS = 5
_FEWEST_RECORDS = 4


def inner_folds(
    split: RecordSplit, seed: int, subjects: Sequence[str] | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to five folds of the training records: places within ``split.train`` to fit on, and to predict.

    Parameters
    ----------
    split : RecordSplit
    seed : int
        Settles which records, or subjects, are left out together.
    subjects : sequence of str, length n, optional
        With them, whole subjects are left out where none of the test records' is in training, and at least two are.

    Raises
    ------
    InputError
        Subjects of another number than records.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> split = record_splits("leave-one-subject-out", list("aabbccdd"), seed=1)[0]
    >>> [len(left_out) for _, left_out in inner_folds(split, 1, list("aabbccdd"))]
    [2, 2]
    """
    count = len(split.train)
    if subjects is not None:
        subjects = check_subjects(subjects, 1 + max(int(part.max()) for part in (split.train, split.test)))
        known = subjects[split.train]
        several = len(np.unique(known))
        if several > 1 and not np.isin(subjects[split.test], known).any():
            folds = GroupKFold(min(_FOLDS, several), shuffle=True, random_state=seed)
            return list(folds.split(known, groups=known))
    if count < 2:
        return []
    return list(KFold(min(_FOLDS, count), shuffle=True, random_state=seed).split(np.arange(count)))


def fit_stacked(
    features: np.ndarray,
    targets: np.ndarray,
    split: RecordSplit,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
) -> FittedMatrices:
    """Fit the stacked ridge to the training records, and predict all.

    Parameters
    ----------
    features : array (n, measures, eeg, eeg)
    targets : array (n, emg, emg)
    split : RecordSplit
    seed : int
        Settles the inner folds.
    subjects : sequence of str, length n, optional
        As in `inner_folds`; also gives each subject a level of its own. Without them all records count as independent.

    Returns
    -------
    FittedMatrices
        ``arrays``: ``weights (views,)``; their names stand in the notes.

    Raises
    ------
    InputError
        As `matrix_records.check_records` and `inner_folds`.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> features = np.random.default_rng(0).random((40, 1, 3, 3))
    >>> split, = record_splits("80-20", ["a"] * 40, seed=1)
    >>> fitted = fit_stacked(features, features[:, 0], split)
    >>> fitted.prediction.shape, float(fitted.arrays["weights"].sum().round(1))
    ((40, 3, 3), 1.0)
    """
    records = check_records(features, targets, split)
    rows = np.flatnonzero(records.predictable)
    train, y, active = records.training_rows()
    kernels = _kernels(records.features[rows], train) if len(train) >= _FEWEST_RECORDS and active.any() else {}
    predicted = np.tile(y.mean(0), (len(rows), 1))
    if not kernels:
        notes = ("fewer than 4 training records, or nothing in them varies: the mean matrix is predicted",)
        return FittedMatrices(prediction=records.spread_over_all(predicted), notes=notes)
    folds, known = inner_folds(split, seed, subjects), None
    if subjects is not None:
        names = check_subjects(subjects, len(records.targets))
        known = names[rows][:, None] == names[split.train]
    fitted = [fit_entries(kernel, train, y[:, active], folds, known) for kernel in kernels.values()]
    weights = _weights(np.stack([left_out for left_out, _ in fitted]), y[:, active])
    # Deviations from the mean matrix, so that what weights leave over goes to it.
    parts = np.stack([everywhere for _, everywhere in fitted]) - y[:, active].mean(0)
    predicted[:, active] += np.tensordot(weights, parts, 1)
    said = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(kernels, weights) if weight > 0)
    return FittedMatrices(
        prediction=records.spread_over_all(predicted),
        arrays={"weights": weights},
        notes=(f"weights of the views: {said}" if said else "no view predicts anything: the mean matrix",),
    )


def _kernels(features, train) -> dict[str, np.ndarray]:
    """Kernels (n, t) by name; none where no feature varies."""
    views = views_of(features, train)
    kernels = {view.name: view.rows @ view.rows[train].T for view in views}
    even = [view.name for view in views if view.even]
    if len(even) > 1:
        kernels["all, even"] = np.mean([kernels[name] for name in even], axis=0)
    if views:
        plain = plain_rows(features, train)
        kernels["all, as they are"] = plain @ plain[train].T
    return kernels


def _weights(left_out, y) -> np.ndarray:
    """Weights (m,) of predictions (m, t, k): not negative, at most 1 in all."""
    rows = (left_out - y.mean(0)).reshape(len(left_out), -1)
    # In the square root of the normal equations, so that the active set sees m rows instead of one for each target.
    gram = rows @ rows.T
    ridge = 1e-6 * np.trace(gram) / len(gram)
    if not ridge > 0:
        return np.zeros(len(gram))
    root = np.linalg.cholesky(gram + ridge * np.eye(len(gram)))
    weights, _ = nnls(root.T, np.linalg.solve(root, rows @ (y - y.mean(0)).ravel()))
    return weights / max(weights.sum(), 1.0)
