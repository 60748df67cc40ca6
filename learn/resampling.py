"""Resampling of test trials: squared errors summed by trial, bootstrap, intervals and sign-flip tests from them."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import InputError

_BLOCK = 2_000_000  # draws at once: 16 MB
_RESAMPLE, _FLIP = 1, 2  # keep the two draws of one seed apart


@dataclass(frozen=True, kw_only=True)
class TrialErrors:
    """Sums over each unit of resampling (a trial, or a group of them), by repeat: all that a bootstrap needs.

    Parameters
    ----------
    models : tuple of str
        Names of the m models.
    squared : array, shape (m, r, c)
        Squared error of each model, repeat and unit; 0 where the unit is not in the repeat's test set.
    size : array, shape (r, c)
        Squared response.
    """

    models: tuple[str, ...]
    squared: np.ndarray
    size: np.ndarray

    @property
    def units(self) -> float:
        """Units in a repeat's test set, mean over repeats."""
        return float((self.size > 0).sum(axis=1).mean())

    def without_each(self) -> tuple[np.ndarray, np.ndarray]:
        """Totals (m, r, c) and (r, c) with one unit left out."""
        left = self.squared.sum(axis=2, keepdims=True) - self.squared
        return np.maximum(left, 0.0), np.maximum(self.size.sum(axis=1, keepdims=True) - self.size, 0.0)


def tally_errors(measured, predictions, trials, groups) -> TrialErrors:
    """Sum the squared errors of the models by trial or group; arguments and errors as in `bootstrap_nrmse`."""
    measured = [np.asarray(m, np.float64) for m in measured]
    trials = [np.asarray(t) for t in trials]
    _check_shapes(measured, predictions, trials)
    units = trials if groups is None else [_group_of(groups, t) for t in trials]
    known, place = np.unique(np.concatenate(units), return_inverse=True)
    if len(known) < 2:
        raise InputError(
            f"comparing models: the test sets hold {len(known)} different trials (or groups of trials); an interval "
            "needs at least 2. Test on more trials."
        )
    places = np.split(place, np.cumsum([len(unit) for unit in units])[:-1])
    total = lambda values, at: np.bincount(at, (values**2).sum(axis=1), minlength=len(known))  # noqa: E731 - one line
    size = np.stack([total(m, at) for m, at in zip(measured, places)])
    if not size.sum(axis=1).all():
        raise InputError(
            f"comparing models: all responses of repeat {int(np.argmin(size.sum(axis=1)))} are 0, so its NRMSE is not "
            "defined. Leave that repeat out."
        )
    squared = [
        [total(m - np.asarray(p), at) for m, p, at in zip(measured, rows, places)] for rows in predictions.values()
    ]
    return TrialErrors(models=tuple(predictions), squared=np.array(squared), size=size)


def _group_of(groups, trials) -> np.ndarray:
    try:
        return np.array([groups[trial] for trial in trials.tolist()])
    except (LookupError, TypeError) as error:
        raise InputError(
            f"comparing models: groups give none for a test trial ({type(error).__name__}: {error}); give the group of "
            "every trial, by its number."
        ) from None


def _check_shapes(measured, predictions, trials) -> None:
    shapes = [m.shape for m in measured]
    if not shapes or not predictions or [(len(m),) for m in measured] != [t.shape for t in trials]:
        raise InputError(
            f"comparing models: {len(predictions)} models, measured responses of shapes {shapes} and trial numbers of "
            f"shapes {[t.shape for t in trials]}; each repeat needs one number for each of its trials, and there must "
            "be a repeat and a model."
        )
    for name, rows in {"the measured responses": measured, **predictions}.items():
        found = [np.shape(row) for row in rows]
        bad = [r for r, row in enumerate(rows) if not np.isfinite(row).all()]
        if found != shapes or any(len(shape) != 2 for shape in found) or bad:
            what = f"are not finite in repeat {bad[0]}" if bad else f"have shapes {found}"
            raise InputError(
                f"comparing models: the values of {name} {what}; finite ones of shapes {shapes} (trials, muscles) are "
                "needed, one array a repeat. Leave out a model that failed."
            )


def mean_nrmse(squared, size) -> np.ndarray:
    """Mean over repeats (n, m) of totals (m, r, n) and (r, n); repeats without a response in them do not count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.sqrt(squared / size)
        counted = size > 0
        return (np.where(counted, each, 0.0).sum(axis=1) / counted.sum(axis=0)).T


def resample(errors: TrialErrors, resamples: int, seed: int) -> np.ndarray:
    """Mean NRMSE (b, m) in each resample of the units, drawn with replacement and the same for all models.

    A resample that holds no response of any repeat is left out.
    """
    generator = np.random.default_rng([_RESAMPLE, seed])
    units = errors.size.shape[1]
    step, parts = max(1, _BLOCK // units), []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        draws = generator.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        times = np.bincount(draws.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)
        # One product for each row, not one of matrices: equal models must come out equal to the last bit.
        squared = np.array([[times @ row for row in model] for model in errors.squared])
        parts.append(mean_nrmse(squared, np.array([times @ row for row in errors.size])))
    drawn = np.concatenate(parts)
    return drawn[np.isfinite(drawn).all(axis=1)]


def expansion(units: float, confidence: float) -> float:
    """Factor by which an interval of few units is widened (Hesterberg 2015, The American Statistician 69:371).

    A bootstrap spreads by √((n - 1)/n) too little, and its percentiles are the normal's where Student's are due.
    """
    tail, n = (1 + confidence) / 2, max(units, 2.0)
    return float(np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1) / stats.norm.ppf(tail))


def intervals(estimate, drawn, jackknife, confidence: float, method: str, units: float) -> np.ndarray:
    """Intervals (m, 2) of estimates (m,) from resamples (b, m), leave-one-out values (c, m) and units in a test set."""
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method != "bca":
        factor = expansion(units, confidence) if method == "expanded" else 1.0
        return np.quantile(drawn, stats.norm.cdf(factor * stats.norm.ppf(tails)), axis=0).T
    below = ((drawn < estimate).mean(axis=0) + (drawn <= estimate).mean(axis=0)) / 2
    bias = stats.norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))[:, None]
    influence = np.nanmean(jackknife, axis=0) - jackknife
    cubes, squares = np.nansum(influence**3, axis=0), np.nansum(influence**2, axis=0)
    acceleration = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > 0)[:, None]
    shifted = bias + stats.norm.ppf(tails)
    levels = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    return np.array([np.quantile(column, level) for column, level in zip(drawn.T, levels)])


def simultaneous_width(drawn, mean, at: int | None, confidence: float) -> float:
    """Quantile of the largest |t| over all differences to model `at`, or over all pairs of models without one."""
    centred = drawn - mean
    largest = np.zeros(len(drawn))
    for other in range(len(mean)) if at is None else [at]:
        differences = np.abs(centred - centred[:, [other]])
        spread = np.std(drawn - drawn[:, [other]], axis=0, ddof=1)
        t = np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 0)
        largest = np.maximum(largest, t.max(axis=1))
    return float(np.quantile(largest, confidence))


def differences_to(at: int, errors: TrialErrors) -> np.ndarray:
    """Each unit's share (c, m) in the difference of normalised squared error, mean over repeats."""
    share = (errors.squared - errors.squared[at]) / errors.size.sum(axis=1)[:, None]
    return share.mean(axis=1).T


def sign_flip(pairs, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """P-values (m,) of no difference, for each model and adjusted for all, by flipping the signs of units (c, m)."""
    generator = np.random.default_rng([_FLIP, seed])
    spread = np.sqrt((pairs**2).sum(axis=0))
    pairs = np.divide(pairs, spread, out=np.zeros_like(pairs), where=spread > 0)
    observed = np.abs(pairs.sum(axis=0)) * (1 - 1e-9)  # equal sums may differ in the last bits
    step, each, most = max(1, _BLOCK // len(pairs)), 1, 1
    for start in range(0, permutations, step):
        count = min(step, permutations - start)
        flipped = np.abs((1.0 - 2.0 * generator.integers(2, size=(count, len(pairs)))) @ pairs)
        each = each + (flipped >= observed).sum(axis=0)
        most = most + (flipped.max(axis=1, keepdims=True) >= observed).sum(axis=0)
    return each / (permutations + 1), most / (permutations + 1)
