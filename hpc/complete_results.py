"""What the results say beyond single runs: how sure their order is, and which synergies are the same."""

from itertools import product

import numpy as np

from ..learn.comparison import bootstrap_nrmse, compare
from ..learn.synergy import match_synergies
from ..zarr_store.schema import Status

_BOUND = "best_possible"


def complete_results(results, pose_of_trial, seed=0):
    """Fill in what follows from the predictions of all runs together: intervals, comparisons, matched synergies.

    Parameters
    ----------
    results : xarray.Dataset
        As gathered from the records; changed in place.
    pose_of_trial : ndarray (t,) of int
        Trials of one pose are resampled together, as they share their input.
    seed : int
        Of the bootstrap.

    Returns
    -------
    xarray.Dataset
        The same.
    """
    _match_synergies(results)
    sets = [row[row >= 0] for row in results["test_trial"].values]
    if any(len(np.unique(pose_of_trial[rows])) < 2 for rows in sets):
        return results  # a repeat without any run yet, or with one pose: nothing to resample
    measured = [results["measured"].values[repeat, : len(rows)] for repeat, rows in enumerate(sets)]
    if not all(each.any() for each in measured):
        return results  # NRMSE of responses that are all zero is not defined
    models = _models(results, sets)
    bounds = {key: models.pop(key) for key in list(models) if key[-1] == _BOUND}
    if models:
        named = {str(number): each for number, each in enumerate(models.values())}
        found = compare(measured, named, sets, pose_of_trial, seed=seed)
        for number, key in enumerate(models):
            _put_estimate(results, key, found.estimates, number)
            _put_difference(results, key, found, number)
    if bounds:
        named = {str(number): each for number, each in enumerate(bounds.values())}
        found = bootstrap_nrmse(measured, named, sets, pose_of_trial, seed=seed)
        for number, key in enumerate(bounds):
            _put_estimate(results, key, found, number)
    return results


def _models(results, sets):
    """Predictions by model, for those that are done in every repeat: networks by three labels, others by two."""
    models = {}
    for prefix, dims in (("", ("input", "depth", "connection")), ("baseline_", ("input", "baseline"))):
        values = results[f"{prefix}prediction"].transpose("repeat", *dims, "test", "muscle").values
        done = results[f"{prefix}status"].values == int(Status.DONE)
        for at in product(*(range(results.sizes[dim]) for dim in dims)):
            key = tuple(results[dim].values[i] for dim, i in zip(dims, at))
            each = [values[repeat, *at, : len(rows)] for repeat, rows in enumerate(sets)]
            finished = done[at].all() if not prefix else done[at[0]].all()
            if finished and all(np.isfinite(part).all() for part in each):
                models[key] = each
    return models


def _place(results, key):
    """Prefix of the variables of a model, and its place in them."""
    dims = ("input", "depth", "connection") if len(key) == 3 else ("input", "baseline")
    at = tuple(int(np.flatnonzero(results[dim].values == label)[0]) for dim, label in zip(dims, key))
    return ("" if len(key) == 3 else "baseline_"), at


def _put_estimate(results, key, estimates, number):
    prefix, at = _place(results, key)
    results[f"{prefix}nrmse_mean"].values[at] = estimates.mean[number]
    results[f"{prefix}nrmse_sd"].values[at] = estimates.sd[number]
    results[f"{prefix}nrmse_interval"].values[at] = estimates.interval[number]


def _put_difference(results, key, comparison, number):
    prefix, at = _place(results, key)
    above = "nrmse_above_best" if not prefix else "baseline_above_best"
    results[above].values[at] = comparison.difference[number]
    results[f"{above}_interval"].values[at] = comparison.simultaneous[number]
    results[f"{prefix}best_share"].values[at] = comparison.share_best[number]


def _match_synergies(results):
    """Put each repeat's synergies in the order of the first repeat's, and say how alike they are."""
    bases = results["synergy_basis"].values
    there = [repeat for repeat, basis in enumerate(bases) if np.isfinite(basis).any()]
    if not there:
        return
    reference = _filled(bases[there[0]])
    for repeat in there:
        basis = _filled(bases[repeat])
        order, cosine = match_synergies(basis, reference)
        bases[repeat] = np.nan
        paired = np.flatnonzero(order >= 0)
        bases[repeat][:, paired] = basis[:, order[paired]]
        results["synergy_similarity"].values[repeat, : len(cosine)] = cosine
        more = np.setdiff1d(np.arange(basis.shape[1]), order)
        bases[repeat][:, len(reference.T) : len(reference.T) + len(more)] = basis[:, more]


def _filled(basis):
    """The columns of a padded basis that hold a synergy."""
    return basis[:, np.isfinite(basis).all(axis=0)]
