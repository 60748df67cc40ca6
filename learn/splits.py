"""Which trials train, validate and test: drawn per stimulus intensity, the same for every model.

Test sets follow section 2.4 of the paper: a tenth of the trials, drawn anew for each repeat. Validation folds are a
partition of the calibration trials, so that every configuration is tried on every fold.
"""

import numpy as np

from ..errors import InputError

_TEST, _FOLD, _LABELLED = 1, 2, 3  # keep the draws of one seed and repeat apart


def test_split(strata: np.ndarray, repeat: int, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibration and test trials of one repeat.

    Each stratum gives its share, rounded to whole trials. Where that would leave the test set short (strata of a few
    trials, such as intensities that all differ), the trials that are missing are drawn from what the strata leave,
    evenly over them, so that the test set still holds its share of all trials.

    Parameters
    ----------
    strata : array, shape (t,)
        The stratum of each trial: its intensity in % of the resting motor threshold.
    repeat : int
        Number of the repeat; each draws another test set.
    test_fraction : float
        Share of the trials that goes to the test set, above 0 and below 1.
    seed : int
        Seed of the study.

    Returns
    -------
    calibration, test : int64 arrays, ascending, disjoint, together all trials

    Raises
    ------
    InputError
        There are fewer than two trials, or the fraction is not between 0 and 1.

    Examples
    --------
    >>> calibration, test = test_split(np.repeat([110, 120], [20, 10]), repeat=0, test_fraction=0.1, seed=1)
    >>> len(calibration), len(test)
    (27, 3)
    """
    strata = np.asarray(strata)
    if len(strata) < 2 or not 0 < test_fraction < 1:
        raise InputError(
            f"test set of repeat {repeat}: {len(strata)} trials and a test fraction of {test_fraction} cannot be split "
            "into a calibration and a test set; both sets need trials. Give a [validation] test_fraction between 0 "
            "and 1, and at least 2 trials."
        )
    generator = np.random.default_rng([_TEST, seed, repeat])
    classes = _shuffled_strata(strata, generator)
    wanted = min(max(1, round(test_fraction * len(strata))), len(strata) - 1)
    counts = _test_counts(classes, test_fraction, wanted)
    test = np.concatenate([stratum[:count] for stratum, count in zip(classes, counts)])
    if len(test) < wanted:
        rest = np.concatenate([stratum[count:] for stratum, count in zip(classes, counts)])
        # One of each run of neighbours, so that what is drawn is spread over the intensities.
        drawn = [generator.choice(run) for run in np.array_split(rest, wanted - len(test))]
        test = np.concatenate([test, drawn])
    elif len(test) == len(strata):
        test = test[:wanted]
    test = np.sort(test.astype(np.int64))
    return np.setdiff1d(np.arange(len(strata)), test), test


def _test_counts(classes, test_fraction, wanted):
    """Trials that each stratum gives; none for those that are due less than one, where rounding misses `wanted`."""
    counts = [round(test_fraction * len(stratum)) for stratum in classes]
    if sum(counts) == wanted:
        return counts
    return [count if test_fraction * len(stratum) >= 1 - 1e-9 else 0 for count, stratum in zip(counts, classes)]


test_split.__test__ = False  # the name begins like a test's; pytest must not collect it


def fold_split(
    calibration: np.ndarray, strata: np.ndarray, fold: int, folds: int, seed: int, repeat: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation trials of one fold of the cross-validation.

    Parameters
    ----------
    calibration : int array, shape (c,)
        Trials that are not in the repeat's test set.
    strata : array, shape (t,)
        The stratum of every trial of the study.
    fold, folds : int
        Number of this fold, from 0, and how many there are.
    seed, repeat : int
        As in `test_split`.

    Returns
    -------
    train, validation : int64 arrays, ascending, disjoint, together the calibration trials

    Raises
    ------
    InputError
        Fewer than 2 folds, more folds than trials, or a fold number outside 0 … folds - 1.

    Examples
    --------
    >>> train, validation = fold_split(np.arange(10), np.zeros(10), fold=0, folds=5, seed=1, repeat=0)
    >>> len(train), len(validation)
    (8, 2)
    """
    calibration = np.asarray(calibration)
    if not 2 <= folds <= len(calibration) or not 0 <= fold < folds:
        raise InputError(
            f"fold {fold} of {folds} over {len(calibration)} calibration trials cannot be made: there must be 2 to "
            f"{len(calibration)} folds, numbered from 0. Change [validation] folds."
        )
    generator = np.random.default_rng([_FOLD, seed, repeat])
    classes = _shuffled_strata(np.asarray(strata)[calibration], generator)
    # Dealing the strata one after another like cards gives folds whose sizes differ by one at most.
    dealt = np.concatenate(classes)
    validation = np.sort(calibration[dealt[fold::folds]])
    return np.setdiff1d(calibration, validation), validation


def labelled_subset(calibration: np.ndarray, strata: np.ndarray, count: int, seed: int, repeat: int) -> np.ndarray:
    """The first trials of the calibration set for a learning curve, each stratum in its share.

    Sets of one seed and repeat are nested: a larger count adds trials and takes none away.

    Parameters
    ----------
    calibration : int array, shape (c,)
        Trials that are not in the repeat's test set.
    strata : array, shape (t,)
        The stratum of every trial of the study.
    count : int
        Trials wanted, 1 to c.
    seed, repeat : int
        As in `test_split`.

    Returns
    -------
    int64 array, shape (count,), ascending

    Raises
    ------
    InputError
        More trials are wanted than there are.

    Examples
    --------
    >>> labelled_subset(np.arange(12), np.repeat([110, 120], 6), count=4, seed=1, repeat=0) // 6
    array([0, 0, 1, 1])
    """
    calibration = np.asarray(calibration)
    if not 1 <= count <= len(calibration):
        raise InputError(
            f"learning curve: {count} trials were asked of {len(calibration)} calibration trials; there is no such "
            "subset. Change [validation] curve_trials."
        )
    generator = np.random.default_rng([_LABELLED, seed, repeat])
    classes = _shuffled_strata(np.asarray(strata)[calibration], generator)
    # Places along (0, 1), evenly for each stratum: any beginning holds each stratum in its share.
    place = np.concatenate([(np.arange(len(each)) + 0.5) / len(each) for each in classes])
    order = np.concatenate(classes)[np.argsort(place, kind="stable")]
    return np.sort(calibration[order[:count]].astype(np.int64))


def _shuffled_strata(strata: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    return [generator.permutation(np.flatnonzero(strata == value)) for value in np.unique(strata)]
