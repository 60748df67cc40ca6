"""How sure a ranking of models is: intervals of the mean NRMSE, and paired differences, from the test trials' errors.

A mean over three repeats of a split says little by itself. Here the test trials are resampled (bootstrap, Efron &
Tibshirani 1993): a trial that is in several repeats' test sets is one observation, drawn for all of them at once, as
are trials of one group (a coil pose) where groups are given. All models are scored on the same resamples, so that what
makes a trial hard for all of them cancels in their differences.

What this speaks of is new trials like these for the models as they were fitted. That another training set would have
given other models shows only in the standard deviation over repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .resampling import (
    TrialErrors,
    differences_to,
    expansion,
    intervals,
    mean_nrmse,
    resample,
    sign_flip,
    simultaneous_width,
    tally_errors,
)

INTERVALS = ("expanded", "percentile", "bca")


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """NRMSE of m models over r repeats, with what the resamples say.

    Parameters
    ----------
    models : tuple of str
        Names, in the order of all arrays.
    nrmse : array, shape (m, r)
        Equation 7, for each repeat's test set.
    mean, sd : array, shape (m,)
        Over repeats; the standard deviation is the sample's (NaN for one repeat).
    interval : array, shape (m, 2)
        Interval of the mean, at the confidence asked for.
    resamples : array, shape (b, m)
        Mean NRMSE in each resample of the trials, the same trials for all models.
    units : float
        Trials (or groups) in a test set, of which few widen an interval.
    """

    models: tuple[str, ...]
    nrmse: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    interval: np.ndarray
    resamples: np.ndarray
    units: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences of m models to one of them: above 0 where a model is worse than the reference.

    Parameters
    ----------
    estimates : Estimates
        The models' own scores.
    reference : str
        The model that the others are compared to.
    difference : array, shape (m,)
        Mean NRMSE minus the reference's.
    interval : array, shape (m, 2)
        Interval of each difference for itself.
    simultaneous : array, shape (m, 2)
        Intervals that hold all at once with the confidence asked for (max-|t| over the models; over all pairs of
        models where the reference was not named but is the best of these very data).
    p : array, shape (m,)
        Sign-flip permutation test of no difference in normalised squared error.
    p_adjusted : array, shape (m,)
        The same, adjusted for the number of models (Westfall & Young's single-step max-T).
    repeats_lower : int array, shape (m,)
        Repeats in which the model's NRMSE is below the reference's.
    share_best : array, shape (m,)
        Share of resamples in which the model has the lowest mean NRMSE; equal models share.
    """

    estimates: Estimates
    reference: str
    difference: np.ndarray
    interval: np.ndarray
    simultaneous: np.ndarray
    p: np.ndarray
    p_adjusted: np.ndarray
    repeats_lower: np.ndarray
    share_best: np.ndarray


def bootstrap_nrmse(
    measured: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    trials: Sequence[np.ndarray],
    groups: Mapping[int, int] | np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    method: str = "expanded",
    resamples: int = 5000,
    seed: int = 0,
) -> Estimates:
    """Mean NRMSE over repeats of each model, and its bootstrap interval over test trials.

    Parameters
    ----------
    measured : sequence over repeats of arrays, shape (T, k)
        Scaled responses of each repeat's test trials; T may differ between repeats.
    predictions : mapping
        Name of a model to its predictions, shaped as `measured`.
    trials : sequence over repeats of int arrays, shape (T,)
        Which trial each row is; the same number in two repeats is the same trial.
    groups : array or mapping, optional
        Group of each trial number (``groups[trial]``), such as its pose; groups are then drawn in place of trials.
    confidence : float
        Of the interval, above 0 and below 1.
    method : str
        ``"percentile"``; ``"expanded"``, the percentiles widened for few trials (Hesterberg 2015); or ``"bca"``
        (bias-corrected and accelerated, Efron 1987), which on simulated data of this kind was no better.
    resamples : int
        Number of resamples.
    seed : int
        Settles them.

    Returns
    -------
    Estimates

    Raises
    ------
    InputError
        Arrays that do not fit each other or are not finite, fewer than two trials (or groups), or an option out of
        range.

    Examples
    --------
    >>> measured = [np.array([[3.0, 4.0], [3.0, 4.0]])]
    >>> found = bootstrap_nrmse(measured, {"a": [np.array([[3.0, 3.0], [3.0, 3.0]])]}, [np.array([7, 9])])
    >>> found.mean.tolist(), found.interval.tolist()
    ([0.2], [[0.2, 0.2]])
    """
    _check_options(confidence, method, resamples)
    errors = tally_errors(measured, predictions, trials, groups)
    drawn = resample(errors, resamples, seed)
    return _estimates(errors, drawn, confidence, method)


def compare(
    measured: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    trials: Sequence[np.ndarray],
    groups: Mapping[int, int] | np.ndarray | None = None,
    *,
    reference: str | None = None,
    confidence: float = 0.95,
    method: str = "expanded",
    resamples: int = 5000,
    seed: int = 0,
) -> Comparison:
    """Compare every model to one of them, on the same resamples of the test trials.

    The permutation test flips the sign of each trial's difference in squared error (over its repeats and muscles, each
    repeat normalised as in equation 7): under no difference, either model could have made either error.

    Parameters
    ----------
    measured, predictions, trials, groups, confidence, method, resamples, seed
        As in `bootstrap_nrmse`; there are as many permutations as resamples.
    reference : str, optional
        Model to compare to; the one with the lowest mean when None.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        As in `bootstrap_nrmse`, or an unknown reference.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> measured = [generator.random((50, 3)) for _ in range(2)]
    >>> noisy = {name: [m + sd * generator.standard_normal(m.shape) for m in measured]
    ...          for name, sd in {"good": 0.1, "bad": 0.3}.items()}
    >>> found = compare(measured, noisy, [np.arange(50), np.arange(50, 100)])
    >>> found.reference, bool(found.simultaneous[1, 0] > 0), found.repeats_lower.tolist()
    ('good', True, [0, 0])
    """
    _check_options(confidence, method, resamples)
    errors = tally_errors(measured, predictions, trials, groups)
    if reference is not None and reference not in errors.models:
        raise InputError(
            f"comparing models: the reference {reference!r} is not among them; choose from {', '.join(errors.models)}."
        )
    drawn = resample(errors, resamples, seed)
    estimates = _estimates(errors, drawn, confidence, method)
    at = int(np.argmin(estimates.mean)) if reference is None else errors.models.index(reference)
    pairs = differences_to(at, errors)
    jackknife = mean_nrmse(*errors.without_each())
    difference = estimates.mean - estimates.mean[at]
    width = simultaneous_width(drawn, estimates.mean, None if reference is None else at, confidence)
    width *= expansion(errors.units, confidence)
    half = width * np.std(drawn - drawn[:, [at]], axis=0, ddof=1)
    p, p_adjusted = sign_flip(pairs, resamples, seed)
    best = drawn == drawn.min(axis=1, keepdims=True)
    return Comparison(
        estimates=estimates,
        reference=errors.models[at],
        difference=difference,
        interval=intervals(
            difference, drawn - drawn[:, [at]], jackknife - jackknife[:, [at]], confidence, method, errors.units
        ),
        simultaneous=difference[:, None] + half[:, None] * np.array([-1.0, 1.0]),
        p=p,
        p_adjusted=p_adjusted,
        repeats_lower=(estimates.nrmse < estimates.nrmse[at]).sum(axis=1),
        share_best=(best / best.sum(axis=1, keepdims=True)).mean(axis=0),
    )


def combined_interval(estimates: Estimates, weights: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Interval (2,) of a weighted sum of the models' means, such as one group of models less another.

    Parameters
    ----------
    estimates : Estimates
    weights : array, shape (m,)
    confidence : float

    Examples
    --------
    >>> measured = [np.random.default_rng(0).random((9, 2))]
    >>> found = bootstrap_nrmse(measured, {"a": [measured[0] + 1], "b": [measured[0] + 1]}, [np.arange(9)])
    >>> combined_interval(found, np.array([1.0, -1.0])).tolist()
    [0.0, 0.0]
    """
    drawn = estimates.resamples @ np.asarray(weights, np.float64)
    return intervals(None, drawn[:, None], None, confidence, "expanded", estimates.units)[0]


def within_chance(comparison: Comparison) -> dict[str, bool]:
    """For each model but the reference: whether its difference may be chance, its simultaneous interval holding 0.

    Examples
    --------
    >>> measured = [np.random.default_rng(0).random((9, 2))]
    >>> within_chance(compare(measured, {"a": [measured[0] + 1], "b": [measured[0] + 1]}, [np.arange(9)]))
    {'b': True}
    """
    names, bounds = comparison.estimates.models, comparison.simultaneous
    holds = (bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)
    return {name: bool(held) for name, held in zip(names, holds) if name != comparison.reference}


def _estimates(errors: TrialErrors, drawn, confidence, method) -> Estimates:
    nrmse = np.sqrt(errors.squared.sum(axis=2) / errors.size.sum(axis=1))
    mean = nrmse.mean(axis=1)
    several = nrmse.shape[1] > 1
    return Estimates(
        models=errors.models,
        nrmse=nrmse,
        mean=mean,
        sd=nrmse.std(axis=1, ddof=1) if several else np.full(len(mean), np.nan),
        interval=intervals(mean, drawn, mean_nrmse(*errors.without_each()), confidence, method, errors.units),
        units=errors.units,
        resamples=drawn,
    )


def _check_options(confidence, method, resamples) -> None:
    if not 0 < confidence < 1 or method not in INTERVALS or resamples < 100:
        raise InputError(
            f"comparing models: confidence {confidence}, method {method!r}, {resamples} resamples; confidence must lie "
            f"between 0 and 1, method be one of {', '.join(INTERVALS)}, and fewer than 100 resamples tell no interval."
        )
