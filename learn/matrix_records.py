"""What predictors of EMG matrices are given and give back, and the checks that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from .record_splits import RecordSplit


@dataclass(frozen=True, kw_only=True)
class FittedMatrices:
    """What a fitted predictor says of every record.

    Parameters
    ----------
    prediction : array (n, m, m)
        Of all records, training ones included; NaN for records that are in no part of the split and whose features
        are not finite. float64, in the unit of the targets.
    loss : dict
        Curves of a training by name; empty for what is fitted in one step.
    arrays : dict of arrays
        What was chosen or found in the training records: penalties, components, weights.
    notes : tuple of str
        Sentences for whoever reads the result.
    """

    prediction: np.ndarray
    loss: dict[str, list[float]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MatrixRecords:
    """Checked features and targets of n records.

    Parameters
    ----------
    features : array (n, measures, eeg, eeg)
    targets : array (n, emg, emg)
        float64.
    split : RecordSplit
    predictable : bool array (n,)
        Records whose features are finite.
    """

    features: np.ndarray
    targets: np.ndarray
    split: RecordSplit
    predictable: np.ndarray

    def training_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a linear model of the entries is fitted to.

        Returns
        -------
        train : int array (t,)
            Places of the training records among the predictable ones.
        y : array (t, emg * emg)
            Their targets, a row each.
        active : bool array (emg * emg,)
            Entries that vary over them; the others are predicted by their mean.
        """
        train = np.searchsorted(np.flatnonzero(self.predictable), self.split.train)
        y = self.targets[self.split.train].reshape(len(train), -1)
        return train, y, np.ptp(y, axis=0) > 1e-12 * np.abs(y).max(0)

    def spread_over_all(self, prediction: np.ndarray) -> np.ndarray:
        """Matrices (n, emg, emg) of all records from those of the predictable ones; NaN elsewhere."""
        full = np.full(self.targets.shape, np.nan)
        full[self.predictable] = np.asarray(prediction, np.float64).reshape(-1, *self.targets.shape[1:])
        return full


def check_records(features: np.ndarray, targets: np.ndarray, split: RecordSplit) -> MatrixRecords:
    """Refuse what no predictor could be fitted to.

    Records in no part of the split may be anything: they are records that failed, say, and are left out of it.

    Parameters
    ----------
    features : array (n, measures, eeg, eeg)
        Connectivity of the EEG.
    targets : array (n, emg, emg)
        Connectivity of the EMG.
    split : RecordSplit

    Raises
    ------
    InputError
        Shapes that do not fit each other; values of a record of the split that are not finite; a part of the split that
        is empty (but validation), names records that do not exist, or shares records with another.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> split, = record_splits("80-20", ["a"] * 10, seed=1)
    >>> check_records(np.zeros((10, 5, 19, 19)), np.zeros((10, 6, 6)), split).predictable.all()
    np.True_
    """
    features, targets = np.asarray(features), np.asarray(targets, np.float64)
    _check_shapes(features.shape, targets.shape, split)
    _check_parts(len(targets), split)
    used = np.concatenate([split.train, split.validation, split.test])
    finite = {
        "EEG connectivity": np.isfinite(features).all(axis=(1, 2, 3)),
        "EMG connectivity": np.isfinite(targets).all(axis=(1, 2)),
    }
    for name, good in finite.items():
        bad = np.sort(used[~good[used]])
        if len(bad):
            others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise InputError(
                f"{_named(split)}: the {name} of record {bad[0]}{others} holds values that are not finite, from which "
                "nothing can be learned or scored. Leave these records out of the split, or mend them."
            )
    return MatrixRecords(features=features, targets=targets, split=split, predictable=finite["EEG connectivity"])


def check_subjects(subjects: Sequence[str], count: int) -> np.ndarray:
    """Subjects of at least count records, as an array of str.

    Raises
    ------
    InputError
        There are fewer.

    Examples
    --------
    >>> check_subjects(["a", "b"], 2).tolist()
    ['a', 'b']
    """
    subjects = np.asarray(subjects, dtype=str)
    if subjects.ndim != 1 or len(subjects) < count:
        raise InputError(
            f"predicting EMG connectivity: there are subjects of {subjects.size} records, and {count} records. Give "
            "the subject of every record, in the same order."
        )
    return subjects


def _named(split: RecordSplit) -> str:
    return f"split {split.name!r}, fold {split.fold}"


def _check_shapes(features: tuple[int, ...], targets: tuple[int, ...], split: RecordSplit) -> None:
    square = len(features) == 4 and len(targets) == 3 and features[2] == features[3] and targets[1] == targets[2]
    if not square or features[0] != targets[0] or 0 in (*features, *targets):
        raise InputError(
            f"{_named(split)}: the EEG connectivity has shape {features}, the EMG connectivity {targets}; needed are "
            "(records, measures, channels, channels) and (records, muscles, muscles) of the same records, in the same "
            "order. Check how they were put together."
        )


def _check_parts(count: int, split: RecordSplit) -> None:
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    for name, rows in parts.items():
        if len(rows) == 0 and name != "validation":
            raise InputError(f"{_named(split)}: it has no {name} records. Give it some, or leave out this fold.")
        if len(rows) and not (0 <= min(rows) and max(rows) < count):
            raise InputError(
                f"{_named(split)}: its {name} part names records {min(rows)} to {max(rows)}, and there are {count}, "
                "numbered from 0. Make the split for these records."
            )
    rows = np.concatenate(list(parts.values()))
    if len(np.unique(rows)) < len(rows):
        raise InputError(
            f"{_named(split)}: some records are in it twice, so that a model would be tested on what it has seen. "
            "Make the parts disjoint."
        )
