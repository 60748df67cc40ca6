"""Scores of predicted EMG matrices: the four of the paper's Table 3, and the one that settles what they cannot.

Pooled R² is about one mean over all entries and records, as one long vector of numbers is scored. Entries differ from
each other far more than records do, so that predicting the training records' mean matrix for everybody scores well in
it, and in r: a pooled R² of 0.9 can be no prediction at all. `skill` is the share of the mean matrix's own squared
error that a model takes away: 0 is the mean matrix, and below 0 is worse than it.

A Granger matrix has zeros on its diagonal by definition. They are left out, unless ``diagonal=True``, which is how
the paper's 36 outputs must have been scored, and which as a rule makes R² larger still.
"""

import numpy as np

from ..errors import InputError

SCORES = ("r2", "mse", "mae", "r")


def pooled(measured: np.ndarray, predicted: np.ndarray, *, diagonal: bool = False) -> dict[str, float]:
    """R², MSE, MAE and Pearson's r over all entries of all records as one vector.

    Parameters
    ----------
    measured, predicted : arrays (n, m, m)
        Matrices of n records, in one unit.
    diagonal : bool
        Whether diagonal entries count, as in the paper.

    Returns
    -------
    dict
        ``r2``: 1 - Σ(measured - predicted)² / Σ(measured - mean)², the mean being over all that is scored; ``mse``,
        ``mae``: means of squared and absolute errors; ``r``. NaN where `why_undefined` has a reason.

    Raises
    ------
    InputError
        Arrays that do not fit each other or are not finite.

    Examples
    --------
    >>> measured = np.array([[[0.0, 1.0], [3.0, 0.0]]])
    >>> {name: round(value, 3) for name, value in pooled(measured, measured + 1).items()}
    {'r2': 0.0, 'mse': 1.0, 'mae': 1.0, 'r': 1.0}
    """
    columns = [part.reshape(-1, 1) for part in _entries(measured, predicted, diagonal)]
    return {name: float(value[0]) for name, value in _by_column(*columns).items()}


def by_entry(measured: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of each entry apart, over records.

    Parameters
    ----------
    measured, predicted : arrays (n, m, m)

    Returns
    -------
    dict of arrays (m, m)
        As `pooled`. R² is about that entry's mean over the records given, so that it says what `pooled` cannot: whether
        a model knows how records differ. NaN where an entry does not vary (the diagonal of Granger matrices), for r
        also where its prediction does not; `why_undefined` has the reason.

    Raises
    ------
    InputError
        As `pooled`.

    Examples
    --------
    >>> measured = np.array([[[0.0, 1.0], [3.0, 0.0]], [[0.0, 2.0], [5.0, 0.0]]])
    >>> by_entry(measured, measured + 0.5)["r2"]
    array([[ nan, 0.  ],
           [0.75,  nan]])
    """
    parts = _checked(measured, predicted)
    size = parts[0].shape[1]
    columns = [part.reshape(len(part), size**2) for part in parts]
    return {name: value.reshape(size, size) for name, value in _by_column(*columns).items()}


def skill(measured: np.ndarray, predicted: np.ndarray, baseline: np.ndarray, *, diagonal: bool = False) -> float:
    """Share of the mean matrix's squared error that a model takes away: 1 - SSE(model) / SSE(mean matrix).

    Parameters
    ----------
    measured, predicted : arrays (n, m, m)
    baseline : array (m, m) or (n, m, m)
        The mean matrix of the training records, which saw none of these; one for each record where folds differ.
    diagonal : bool
        As in `pooled`.

    Returns
    -------
    float
        1 is perfect, 0 as good as the mean matrix, below 0 worse; NaN where the mean matrix makes no error.

    Raises
    ------
    InputError
        As `pooled`.

    Examples
    --------
    >>> measured = np.array([[[0.0, 2.0], [2.0, 0.0]]])
    >>> skill(measured, measured - 1, np.zeros((2, 2)))
    0.75
    """
    measured, predicted, baseline = _with_baseline(measured, predicted, baseline)
    counted = _counted(measured.shape[1], diagonal)
    errors = (measured - predicted)[:, counted], (measured - baseline)[:, counted]
    return float(_ratio_from_one(*(np.sum(error**2, keepdims=True) for error in errors)).item())


def skill_by_entry(measured: np.ndarray, predicted: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """`skill` (m, m) of each entry apart; NaN where the mean matrix makes no error.

    Examples
    --------
    >>> measured = np.array([[[0.0, 2.0], [2.0, 0.0]]])
    >>> skill_by_entry(measured, measured, np.zeros((2, 2)))
    array([[nan,  1.],
           [ 1., nan]])
    """
    measured, predicted, baseline = _with_baseline(measured, predicted, baseline)
    return _ratio_from_one(((measured - predicted) ** 2).sum(0), ((measured - baseline) ** 2).sum(0))


def why_undefined(measured: np.ndarray, predicted: np.ndarray, *, diagonal: bool = False) -> dict[str, str]:
    """Why scores of `pooled` are NaN: name to reason, empty where none is.

    Examples
    --------
    >>> why_undefined(np.zeros((0, 6, 6)), np.zeros((0, 6, 6)))["mse"]
    'there are no records'
    >>> why_undefined(np.arange(8.0).reshape(2, 2, 2), np.ones((2, 2, 2)))
    {'r': 'the predicted entries are all equal'}
    """
    measured, predicted = _entries(measured, predicted, diagonal)
    if measured.size == 0:
        return dict.fromkeys(SCORES, "there are no records" if len(measured) == 0 else "there are no entries")
    reasons = {}
    if not _varies(predicted.reshape(-1, 1))[0]:
        reasons["r"] = "the predicted entries are all equal"
    if not _varies(measured.reshape(-1, 1))[0]:
        reasons |= dict.fromkeys(("r2", "r"), "the measured entries are all equal")
    return reasons


def _by_column(measured, predicted) -> dict[str, np.ndarray]:
    """Scores of columns (n, c)."""
    if len(measured) == 0:
        return {name: np.full(measured.shape[1], np.nan) for name in SCORES}
    error = measured - predicted
    squares = (error**2).sum(0)
    about, said = measured - measured.mean(0), predicted - predicted.mean(0)
    spread, known, told = (about**2).sum(0), _varies(measured), _varies(predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(known, 1 - squares / spread, np.nan)
        # Each divided by its own size first: the product of two small sums of squares would underflow.
        r = (about / np.sqrt(spread) * (said / np.sqrt((said**2).sum(0)))).sum(0)
    return {
        "r2": r2,
        "mse": squares / len(measured),
        "mae": np.abs(error).mean(0),
        "r": np.where(known & told, np.clip(r, -1, 1), np.nan),
    }


def _varies(columns) -> np.ndarray:
    """Whether columns differ from their mean by more than rounding."""
    return np.ptp(columns, axis=0) > 1e-12 * np.abs(columns).max(0)


def _ratio_from_one(squares, of) -> np.ndarray:
    return 1 - np.divide(squares, of, out=np.full(np.shape(of), np.nan), where=of > 0)


def _counted(size: int, diagonal: bool) -> np.ndarray:
    return np.ones((size, size), bool) if diagonal else ~np.eye(size, dtype=bool)


def _entries(measured, predicted, diagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """The entries that count, (n, c) each."""
    measured, predicted = _checked(measured, predicted)
    counted = _counted(measured.shape[1], diagonal)
    return measured[:, counted], predicted[:, counted]


def _with_baseline(measured, predicted, baseline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    measured, predicted = _checked(measured, predicted)
    baseline = np.asarray(baseline, np.float64)
    if baseline.shape == measured.shape[1:]:
        baseline = np.broadcast_to(baseline, measured.shape)
    return measured, predicted, _checked(measured, baseline)[1]


def _checked(measured, predicted) -> tuple[np.ndarray, np.ndarray]:
    measured, predicted = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    square = measured.ndim == 3 and measured.shape[1] == measured.shape[2]
    if not square or measured.shape != predicted.shape:
        raise InputError(
            f"scoring EMG matrices: measured ones have shape {measured.shape}, predicted ones {predicted.shape}; both "
            "must be (records, muscles, muscles), of the same records."
        )
    for name, matrices in {"measured": measured, "predicted": predicted}.items():
        bad = np.flatnonzero(~np.isfinite(matrices).all(axis=(1, 2)))
        if len(bad):
            raise InputError(
                f"scoring EMG matrices: {len(bad)} of {len(matrices)} {name} ones, first that of row {bad[0]}, hold "
                "values that are not finite, and so would every score. Leave out records that failed."
            )
    return measured, predicted
