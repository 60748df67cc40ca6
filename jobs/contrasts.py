"""Paired differences of test scores between models, with bootstrap intervals over the test trials."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..learn.comparison import bootstrap_nrmse, combined_interval, compare


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How much lower the second side's NRMSE is than the first's: above 0 where the second is better.

    Attributes
    ----------
    first, second : float
        Mean NRMSE of the two sides, over their models and the repeats that all of them have.
    by_repeat : ndarray (r,)
        First minus second in each of these repeats.
    interval : ndarray (2,)
        95 % interval of the difference, for itself; NaN where there are no predictions to resample.
    """

    first: float
    second: float
    by_repeat: np.ndarray
    interval: np.ndarray

    @property
    def difference(self) -> float:
        """First minus second, mean over the repeats."""
        return float(self.by_repeat.mean())

    @property
    def sure(self) -> int:
        """1 where the second side is better beyond chance, -1 where the first is, 0 where nobody can tell."""
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def contrast(results, first, second, pose_of_trial=None) -> Contrast | None:
    """Compare two sides of the same number of models, on the same trials.

    Parameters
    ----------
    results : xarray.Dataset
    first, second : sequence of tuple
        Keys (input, depth, connection) or (input, baseline), paired; a side's NRMSE is the mean over its models. Pairs
        that are not done in every repeat are left out, unless there are no others.
    pose_of_trial : ndarray (t,) of int, optional
        Trials of one pose are drawn together.

    Returns
    -------
    Contrast or None
        None where no repeat has both sides of a pair.

    Examples
    --------
    >>> raw, rate = ("e_norm", 3, "both"), ("firing_rate", 3, "both")
    >>> contrast(open_results("studies/quick"), [raw], [rate]).difference        # doctest: +SKIP
    0.028
    """
    scores = np.array([[scores_of(results, a), scores_of(results, b)] for a, b in zip(first, second)])
    if not scores.size:
        return None
    there = np.isfinite(scores).all(axis=1)  # (pairs, repeats)
    pairs = there.all(axis=1)
    if not pairs.any():
        pairs = there[:, int(np.argmax(there.sum(axis=0)))]
    repeats = np.flatnonzero(there[pairs].all(axis=0)) if pairs.any() else []
    if not len(repeats):
        return None
    means = scores[pairs][..., repeats].mean(axis=0)
    keys = [key for pair, kept in zip(zip(first, second), pairs) for key in pair if kept]
    signs = np.tile([1.0, -1.0], int(pairs.sum())) / pairs.sum()
    interval = np.full(2, np.nan)
    if (tested := _predictions(results, keys, repeats)) is not None:
        try:
            interval = combined_interval(bootstrap_nrmse(*tested, _groups(results, pose_of_trial)), signs)
        except InputError:
            pass  # one test pose, or responses that are all 0: no interval
    return Contrast(
        first=float(means[0].mean()), second=float(means[1].mean()), by_repeat=means[0] - means[1], interval=interval
    )


def against(results, reference, keys, pose_of_trial=None) -> dict[tuple, np.ndarray]:
    """Differences of several models to one: NRMSE minus the reference's, with intervals that hold all at once.

    Parameters
    ----------
    results, pose_of_trial
        As in `contrast`.
    reference : tuple
    keys : sequence of tuple
        Models that are not done in all repeats of the reference are left out.

    Returns
    -------
    dict of tuple to ndarray (3,)
        Difference, low and high end, by key; empty where there are no predictions to resample.
    """
    repeats = np.flatnonzero(np.isfinite(scores_of(results, reference)))
    done = [key for key in keys if key != reference and np.isfinite(scores_of(results, key)[repeats]).all()]
    done = [key for key in done if _predictions(results, [key], repeats) is not None]
    tested = _predictions(results, [reference, *done], repeats) if done and len(repeats) else None
    if tested is None:
        return {}
    try:
        found = compare(*tested, _groups(results, pose_of_trial), reference="0")
    except InputError:
        return {}
    rows = np.column_stack([found.difference, found.simultaneous])
    return dict(zip(done, rows[1:]))


def scores_of(results, key) -> np.ndarray:
    """Test NRMSE (repeats,) of a model by its key; NaN where it is not done."""
    name = "nrmse" if len(key) == 3 else "baseline_nrmse"
    values = _at(results, name, key)
    return values if len(key) == 2 else np.where(_at(results, "status", key) == 1, values, np.nan)


def _at(results, name, key):
    dims = ("input", "depth", "connection") if len(key) == 3 else ("input", "baseline")
    return results[name].sel(dict(zip(dims, key))).values


def _predictions(results, keys, repeats):
    """Measured responses, predictions by number of the key, and trials, each a list over repeats; None with holes."""
    trials = [row[row >= 0] for row in results["test_trial"].values[repeats]]
    measured = [results["measured"].values[r, : len(rows)] for r, rows in zip(repeats, trials)]
    models = {}
    for number, key in enumerate(keys):
        values = _at(results, "prediction" if len(key) == 3 else "baseline_prediction", key)
        models[str(number)] = [values[r, : len(rows)] for r, rows in zip(repeats, trials)]
    parts = [*measured, *(part for model in models.values() for part in model)]
    if not all(part.size and np.isfinite(part).all() for part in parts):
        return None
    return measured, models, trials


def _groups(results, pose_of_trial):
    """Pose of each trial where it is known for all of them."""
    known = pose_of_trial is not None and results["test_trial"].values.max() < len(pose_of_trial)
    return pose_of_trial if known else None
