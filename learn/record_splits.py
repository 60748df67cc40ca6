"""Which records train, validate and test.

A split by record, as the paper's two are, puts records of every subject into all parts: it says how well a model does
on more records of the same people. Leaving a subject out says how well it does on somebody new, which is the question
that a brain-computer interface asks.

=========================  =========================================================================================
``"80-20"``                a fifth tests; a tenth of the rest validates (the paper, section 2.4)
``"70-10-20"``             a fifth tests, a tenth of all validates (the paper, section 3)
``"leave-one-subject-out"`` each subject tests once; of the others a tenth, but at least one, validates whole: stopping
                           is then also settled on somebody new. With two subjects in all, a tenth of the records of
                           the one that trains
``"k-fold"``               each record tests once; a tenth of the others validates
=========================  =========================================================================================

Records are drawn so that each subject, and each condition of a subject, gives every part its share, up to one record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from ..errors import InputError

KINDS = ("80-20", "70-10-20", "leave-one-subject-out", "k-fold")
_TEST, _VALIDATION, _SUBJECTS = 11, 12, 13  # keep the draws of one seed and fold apart


@dataclass(frozen=True, kw_only=True)
class RecordSplit:
    """Three disjoint sets of records.

    Parameters
    ----------
    name : str
        One of `KINDS`.
    fold : int
        From 0: the number of the fold, of the subject left out, or of the repeat.
    train, validation, test : int64 arrays
        Numbers of records, ascending.
    """

    name: str
    fold: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def record_splits(
    kind: str,
    subjects: Sequence[str],
    seed: int,
    conditions: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    folds: int = 5,
    repeats: int = 1,
) -> list[RecordSplit]:
    """All splits of a kind.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    subjects : sequence of str, length n
        Subject of each record.
    seed : int
        Settles all draws.
    conditions : sequence of str, length n, optional
        Such as rest and activity; records are drawn evenly from them.
    rows : sequence of int, optional
        Records that can be used, where some failed; all without it.
    folds : int
        Of ``"k-fold"``.
    repeats : int
        How often ``"80-20"`` and ``"70-10-20"`` are drawn, and ``"k-fold"`` dealt, anew; folds are then numbered on.
        Without effect on ``"leave-one-subject-out"``, in which each subject tests once.

    Returns
    -------
    list of RecordSplit
        ``repeats``, ``repeats * folds``, or as many as there are subjects (sorted by name).

    Raises
    ------
    InputError
        An unknown kind, a negative seed, fewer than 4 records, fewer than 2 subjects where they are left out, fewer
        than 2 folds or more than records, or subjects and conditions of different lengths.

    Examples
    --------
    >>> split, = record_splits("80-20", ["a", "b"] * 50, seed=1)
    >>> len(split.train), len(split.validation), len(split.test)
    (72, 8, 20)
    """
    if kind not in KINDS:
        raise InputError(f"split {kind!r} is not known; choose [validation] splits from {', '.join(KINDS)}.")
    subjects, strata, rows = _checked(kind, subjects, conditions, rows, repeats, seed)
    if kind == "leave-one-subject-out":
        return _each_subject(kind, subjects, strata, rows, seed)
    if kind == "k-fold":
        return _k_folds(kind, strata, rows, seed, folds, repeats)
    splits = []
    for repeat in range(repeats):
        rest, test = _drawn(rows, strata, 0.2, [_TEST, KINDS.index(kind), seed, repeat])
        share = 0.1 if kind == "80-20" else 0.1 * len(rows) / len(rest)
        train, validation = _drawn(rest, strata, share, [_VALIDATION, KINDS.index(kind), seed, repeat])
        splits.append(RecordSplit(name=kind, fold=repeat, train=train, validation=validation, test=test))
    return splits


def _each_subject(kind, subjects, strata, rows, seed) -> list[RecordSplit]:
    names = np.unique(subjects[rows]).tolist()
    if len(names) < 2:
        raise InputError(
            f"split {kind!r}: all {len(rows)} records that can be used are of subject {names[0]!r}, so that nobody "
            "would be left to train on. Give records of at least 2 subjects, or choose another of [validation] splits."
        )
    # Around a circle, so that each subject validates as often as it tests.
    circle = np.random.default_rng([_SUBJECTS, seed]).permutation(len(names))
    count = max(1, round(0.1 * (len(names) - 1)))
    splits = []
    for fold, name in enumerate(names):
        test, rest = rows[subjects[rows] == name], rows[subjects[rows] != name]
        if len(names) > 2:
            place = int(np.flatnonzero(circle == fold)[0])
            chosen = [names[circle[(place + step) % len(names)]] for step in range(1, count + 1)]
            validates = np.isin(subjects[rest], chosen)
            train, validation = rest[~validates], rest[validates]
        else:
            train, validation = _drawn(rest, strata, 0.1, [_VALIDATION, KINDS.index(kind), seed, fold])
        _check_training(kind, fold, train, validation)
        splits.append(RecordSplit(name=kind, fold=fold, train=train, validation=validation, test=test))
    return splits


def _k_folds(kind, strata, rows, seed, folds, repeats) -> list[RecordSplit]:
    if isinstance(folds, bool) or not isinstance(folds, Integral) or not 2 <= folds <= len(rows):
        raise InputError(
            f"split {kind!r}: {folds} folds of {len(rows)} records cannot be made; there must be 2 to {len(rows)}. "
            "Change [validation] folds."
        )
    splits = []
    for repeat in range(repeats):
        dealt = _one_after_another(rows, strata, np.random.default_rng([_TEST, KINDS.index(kind), seed, repeat]))
        for part in range(folds):
            test, number = np.sort(dealt[part::folds]), repeat * folds + part
            rest = np.setdiff1d(rows, test)
            train, validation = _drawn(rest, strata, 0.1, [_VALIDATION, KINDS.index(kind), seed, number])
            _check_training(kind, number, train, validation)
            splits.append(RecordSplit(name=kind, fold=number, train=train, validation=validation, test=test))
    return splits


def _one_after_another(rows, strata, generator) -> np.ndarray:
    """Rows, stratum after stratum, shuffled within each."""
    shuffled = generator.permutation(rows)
    return shuffled[np.argsort(strata[shuffled], kind="stable")]


def _drawn(rows, strata, share: float, key) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay and rows that are drawn, both ascending; at least one of each where there are two.

    A systematic sample of the strata laid end to end: every run of them gives its share up to one.
    """
    generator = np.random.default_rng(key)
    ordered = _one_after_another(rows, strata, generator)
    count = min(max(1, round(share * len(rows))), max(len(rows) - 1, 1))
    places = np.floor((np.arange(count) + generator.random()) * len(rows) / count).astype(np.int64)
    drawn = np.sort(ordered[places])
    return np.setdiff1d(rows, drawn), drawn


def _check_training(kind, fold, train, validation) -> None:
    if len(train) < 2 or not len(validation):
        raise InputError(
            f"split {kind!r}, fold {fold}: {len(train)} records would be left for training and {len(validation)} for "
            "validation; at least 2 and 1 are needed. Give more records, or choose another of [validation] splits."
        )


def _checked(kind, subjects, conditions, rows, repeats, seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subjects, the number of each record's stratum (sorted by subject, then condition), and usable rows."""
    subjects = np.asarray(subjects, dtype=str)
    conditions = np.full(len(subjects), "") if conditions is None else np.asarray(conditions, dtype=str)
    rows = np.arange(len(subjects)) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
    if subjects.ndim != 1 or conditions.shape != subjects.shape:
        raise InputError(
            f"split {kind!r}: there are {subjects.size} subjects and {conditions.size} conditions; each record needs "
            "one of both. Give them in the order of the records."
        )
    if seed < 0:
        raise InputError(f"split {kind!r}: the seed is {seed}; seeds are not negative. Give 0 or more.")
    if len(rows) < 4 or repeats < 1 or rows[0] < 0 or rows[-1] >= len(subjects):
        raise InputError(
            f"split {kind!r}: {len(rows)} of {len(subjects)} records can be used in {repeats} "
            f"repeat{'' if repeats == 1 else 's'}; training, validation and test need at least 4 records together, and "
            "there must be one repeat. "
            "Give more records; a record that failed says why in the features' status."
        )
    pairs = np.stack([subjects, conditions], axis=1)
    _, strata = np.unique(pairs, axis=0, return_inverse=True)
    return subjects, strata.reshape(-1), rows.astype(np.int64)
