"""Predictors beside the network, on the same connectivity: what it has to beat, and controls that must not.

All that is fitted (means, scales, penalties, numbers of components) sees the training records alone; validation records
are not used. A feature that does not vary over them is left out, and a target that does not is predicted by its mean.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import RidgeCV

from .matrix_records import FittedMatrices, MatrixRecords, check_records, check_subjects
from .matrix_stacking import fit_stacked, inner_folds
from .matrix_views import plain_rows
from .partial_least_squares import predict_pls
from .record_splits import RecordSplit

RIDGE_ALPHAS = tuple(10.0**exponent for exponent in np.arange(-4, 5.1, 0.5))
"""Penalties of rows whose mean square is 1."""
_SHUFFLE = 21
_FEWEST_RECORDS = 3  # below it, leaving one out leaves nothing to fit


def fit_mean(
    features: np.ndarray,
    targets: np.ndarray,
    split: RecordSplit,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
) -> FittedMatrices:
    """The training records' mean matrix for everybody: what a model must beat to know anything of the EEG.

    Parameters
    ----------
    features : array (n, measures, eeg, eeg)
    targets : array (n, emg, emg)
    split : RecordSplit
    seed : int
        Without effect, as are subjects.
    subjects : sequence of str, length n, optional

    Returns
    -------
    FittedMatrices
        ``arrays``: ``mean (emg, emg)``.

    Raises
    ------
    InputError
        As `matrix_records.check_records`.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> split, = record_splits("80-20", ["a"] * 10, seed=1)
    >>> fit_mean(np.zeros((10, 1, 4, 4)), np.ones((10, 2, 2)), split).prediction[0]
    array([[1., 1.],
           [1., 1.]])
    """
    records = check_records(features, targets, split)
    mean = records.targets[split.train].mean(0)
    predicted = np.broadcast_to(mean, (int(records.predictable.sum()), *mean.shape))
    return FittedMatrices(prediction=records.spread_over_all(predicted), arrays={"mean": mean})


def fit_ridge(
    features: np.ndarray,
    targets: np.ndarray,
    split: RecordSplit,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
) -> FittedMatrices:
    """Ridge regression of all entries on all connectivities, one penalty, chosen leaving one training record out.

    Each measure is centred entry by entry and divided by one number, so that all have the same weight: Granger
    causalities are a hundredth of correlations. Rows then have a mean square of 1.

    Parameters
    ----------
    features, targets, split, seed, subjects
        As in `fit_mean`.

    Returns
    -------
    FittedMatrices
        ``arrays``: ``alpha ()``.

    Raises
    ------
    InputError
        As `matrix_records.check_records`.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> features = np.random.default_rng(0).random((20, 1, 3, 3))
    >>> split, = record_splits("80-20", ["a"] * 20, seed=1)
    >>> fit_ridge(features, features[:, 0], split).prediction.shape
    (20, 3, 3)
    """
    return _fit(check_records(features, targets, split), _ridge, None)


def fit_pls(
    features: np.ndarray,
    targets: np.ndarray,
    split: RecordSplit,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
) -> FittedMatrices:
    """Partial least squares on features scaled as in `fit_ridge`; 1 to 15 components, chosen by five inner folds.

    Parameters
    ----------
    features, targets, split
        As in `fit_mean`.
    seed : int
        Settles the inner folds.
    subjects : sequence of str, length n, optional
        With them, inner folds leave out whole subjects where the test records' subjects are not in training.

    Returns
    -------
    FittedMatrices
        ``arrays``: ``components ()``.

    Raises
    ------
    InputError
        As `matrix_records.check_records`.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> features = np.random.default_rng(0).random((20, 1, 3, 3))
    >>> split, = record_splits("80-20", ["a"] * 20, seed=1)
    >>> fit_pls(features, features[:, 0], split).prediction.shape
    (20, 3, 3)
    """
    records = check_records(features, targets, split)
    return _fit(records, _pls, inner_folds(records.split, seed, subjects))


def shuffled_pairs(split: RecordSplit, count: int, seed: int, subjects: Sequence[str] | None = None) -> np.ndarray:
    """Rows of the targets that each record is paired with in a control: other EMG for the same EEG.

    A model that is fitted to ``targets[shuffled_pairs(...)]`` knows how targets are distributed, and nothing of how the
    EEG goes with them. Training and validation records are shuffled each among themselves, so that the training mean
    stays what it is; test and other records keep their own targets, on which the control is scored.

    Parameters
    ----------
    split : RecordSplit
    count : int
        n, records in all.
    seed : int
    subjects : sequence of str, length n, optional
        With them, only records of one subject are exchanged: a control that still knows who is who.

    Returns
    -------
    int64 array (n,)

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> split, = record_splits("80-20", ["a"] * 10, seed=1)
    >>> rows = shuffled_pairs(split, 10, seed=1)
    >>> bool((rows[split.test] == split.test).all()), sorted(rows.tolist()) == list(range(10))
    (True, True)
    """
    rows = np.arange(count)
    groups = (
        np.zeros(count, int) if subjects is None else np.unique(check_subjects(subjects, count), return_inverse=True)[1]
    )
    for number, part in enumerate((split.train, split.validation)):
        generator = np.random.default_rng([_SHUFFLE, seed, number])
        for group in np.unique(groups[part]):
            some = part[groups[part] == group]
            rows[some] = generator.permutation(some)
    return rows


MODELS: dict[str, Callable[..., FittedMatrices]] = {
    "mean": fit_mean,
    "ridge": fit_ridge,
    "pls": fit_pls,
    "stacked": fit_stacked,
}


def _fit(records: MatrixRecords, predictor, folds) -> FittedMatrices:
    """The predictor's word on entries that vary over the training records, the mean on the others."""
    train, y, active = records.training_rows()
    x = plain_rows(records.features[records.predictable], train)
    predicted, arrays = np.tile(y.mean(0), (len(x), 1)), {}
    notes = ("fewer than 3 training records, or nothing in them varies: the mean matrix is predicted",)
    if len(train) >= _FEWEST_RECORDS and active.any() and x.shape[1]:
        predicted[:, active], arrays = predictor(x, train, y[:, active], folds)
        notes = ()
    return FittedMatrices(prediction=records.spread_over_all(predicted), arrays=arrays, notes=notes)


def _ridge(x, train, y, folds) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    found = RidgeCV(alphas=np.array(RIDGE_ALPHAS)).fit(x[train], y)
    return found.predict(x).reshape(len(x), -1), {"alpha": np.array(found.alpha_)}


def _pls(x, train, y, folds) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = _rotated(x, train)
    prediction, components = predict_pls(x[train], y, x, folds)
    return prediction, {"components": np.array(components)}


def _rotated(x, train) -> np.ndarray:
    """The same rows along the training rows' principal axes: as many columns as rows at most, nothing lost to PLS."""
    _, sizes, axes = np.linalg.svd(x[train], full_matrices=False)
    return x @ axes[sizes > 1e-10 * sizes[0]].T
