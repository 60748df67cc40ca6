"""What the results of an eeg study say beyond single runs: how much better than the mean matrix each model is."""

from itertools import product

import numpy as np

from ..errors import InputError
from ..learn.matrix_comparison import beats_mean, unit_skills
from ..learn.matrix_scores import by_entry, skill, skill_by_entry
from ..zarr_store.schema import Status
from .emg_names import MEAN, NO_OPTIMIZER

UNDEFINED = "undefined"
"""Verdict where the mean matrix makes no error in some unit, of which no share can be taken away."""


def complete_emg_results(results, seed=0):
    """Fill in each model's skill over the mean matrix of the same fold, on records that neither has seen.

    Parameters
    ----------
    results : xarray.Dataset
        As gathered from the records; changed in place.
    seed : int
        Of the bootstrap.

    Returns
    -------
    xarray.Dataset
        The same.
    """
    for split in map(str, results["split"].values):
        at = {"split": split}
        results["skill_unit"].loc[at] = unit = _unit(results)
        if MEAN not in results["model"].values:
            continue
        baseline = results["prediction"].sel(model=MEAN, optimizer=NO_OPTIMIZER, **at).values
        for model, optimizer in product(map(str, results["model"].values), map(str, results["optimizer"].values)):
            _compare(results, {"model": model, "optimizer": optimizer, **at}, baseline, unit, seed)
    return results


def usable(results):
    """Positions of the records that have features; the others are in no part of any split.

    Parameters
    ----------
    results : xarray.Dataset

    Returns
    -------
    ndarray of int (n,)
    """
    return np.flatnonzero(results["record_status"].values == int(Status.DONE))


def usable_subjects(results):
    """Subjects of the `usable`, sorted: those that a result can say something of.

    Parameters
    ----------
    results : xarray.Dataset
        Its axis `subject` also holds those of whom all records failed.

    Returns
    -------
    list of str
    """
    return np.unique(results["subject_of_record"].values[usable(results)].astype(str)).tolist()


def _unit(results):
    """What a model is compared over: subjects, or folds where all records are of one."""
    return "subject" if len(usable_subjects(results)) > 1 else "fold"


def _compare(results, at, baseline, unit, seed):
    predicted = results["prediction"].sel(at).values
    rows = np.flatnonzero(np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(baseline).all(axis=(1, 2)))
    if not len(rows):
        return
    measured = results["measured"].values[rows]
    predicted, baseline = predicted[rows], baseline[rows]
    results["skill_pooled"].loc[at] = skill(measured, predicted, baseline)
    results["skill_entry"].loc[at] = skill_by_entry(measured, predicted, baseline)
    results["r2_records"].loc[at] = by_entry(measured, predicted)["r2"]
    subjects = results["subject_of_record"].values[rows].astype(str)
    for subject, value in zip(*unit_skills(measured, predicted, baseline, subjects)):
        results["skill_subject"].loc[at | {"subject": subject}] = value
    units = subjects if unit == "subject" else results["test_fold"].sel(split=at["split"]).values[rows].astype(str)
    _put_verdict(results, at, (measured, predicted, baseline, units), seed)


def _put_verdict(results, at, compared, seed):
    try:
        found = beats_mean(*compared, seed=seed)
    except InputError:
        results["verdict"].loc[at] = UNDEFINED
        return
    results["skill"].loc[at] = found.mean_skill
    results["skill_interval"].loc[at] = np.array(found.interval)
    results["skill_units"].loc[at] = len(found.units)
    results["skill_wins"].loc[at] = found.wins
    results["skill_p"].loc[at] = found.p
    results["verdict"].loc[at] = found.verdict if at["model"] != MEAN else ""
