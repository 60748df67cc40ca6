"""Results of an eeg study: the records of its runs gathered into one labelled Dataset, which can be made again at will.

As for a tms study the records are the truth; `results.open_results` opens what is written here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from ..errors import StoreError
from .datasets import publish_dataset
from .emg_result_variables import CELL, METRICS, PARTS, empty_emg_results
from .ids import plain
from .results import open_results
from .runs import read_arrays, read_record, record_state
from .schema import BOUNDS, Status
from .study import Study, checked_run_id

_NETWORK = "network"


@dataclass(frozen=True, kw_only=True)
class EmgPlan:
    """Which runs make up the results: the labels of the axes, and the run of each cell that has one.

    Parameters
    ----------
    models, optimizers, splits : tuple of str
    folds : tuple of int
        Of the split that has most.
    runs : mapping of (model, optimizer, split, fold) to run id
    attrs : mapping
        Plain values for the attributes of the Dataset; no dates, no hosts.

    Raises
    ------
    StoreError
        For a key that is no cell of the axes.

    Examples
    --------
    >>> plan = EmgPlan(models=("ridge",), optimizers=("none",), splits=("k-fold",), folds=(0,),
    ...                runs={("ridge", "none", "k-fold", 0): "0123456789abcdef"})
    >>> plan.place("ridge", "none", "k-fold", 0)
    (0, 0, 0, 0)
    """

    models: tuple
    optimizers: tuple
    splits: tuple
    folds: tuple
    runs: Mapping
    attrs: Mapping = field(default_factory=dict)

    def __post_init__(self):
        for key, run_id in self.runs.items():
            if any(label not in labels for label, labels in zip(key, self._axes)) or len(key) != len(CELL):
                raise StoreError(
                    f"planning the results: {key!r} is no cell of the axes, so its run would not be shown. Keys are "
                    f"labels along {CELL}"
                )
            checked_run_id(run_id)

    @property
    def _axes(self):
        return self.models, self.optimizers, self.splits, self.folds

    def place(self, *key):
        """Give the indices of a cell."""
        return tuple(labels.index(label) for label, labels in zip(key, self._axes))


@dataclass(frozen=True)
class _Run:
    """One run as the results need it."""

    key: tuple
    at: tuple
    run_id: str
    status: Status
    record: dict
    arrays: dict


def collect_emg(study, plan: EmgPlan, features: xr.Dataset, complete=None) -> xr.Dataset:
    """Build ``results.zarr`` of an eeg study from the records of the runs that the plan names, and open it.

    The same records give the same bytes, in whatever order and on whatever machine they were made.

    Parameters
    ----------
    study : Study or path-like
    plan : EmgPlan
    features : xarray.Dataset
        Of `features.open_features`: what the runs learned from.
    complete : callable, optional
        Fills in what follows from all runs together: takes the Dataset in memory, and returns it.

    Returns
    -------
    xarray.Dataset
        Scores ``(model, optimizer, split, fold, part)`` and more; see `emg_result_variables.EMG_VARIABLES`.

    Raises
    ------
    StoreError
        For a damaged record, arrays that belong to other features, or a full disk (the old results are kept).

    Examples
    --------
    >>> collect_emg("studies/eeg", plan, open_features("studies/eeg")).skill               # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    runs = [_read_run(study, plan, key, run_id) for key, run_id in plan.runs.items()]
    results = empty_emg_results(_coords(plan, features, runs))
    values = {name: variable.values for name, variable in results.data_vars.items()}
    _fill_records(values, features)
    for run in runs:
        _fill_state(values, run)
        if run.status is Status.DONE:
            _fill_scores(values, run)
    for run in sorted((run for run in runs if run.status is Status.DONE), key=lambda run: run.at[3]):
        _fill_prediction(values, run)
    results = results if complete is None else complete(results)
    results = results.assign_attrs(plain(dict(plan.attrs), "attrs"))
    publish_dataset(results, study.results, study.making, f"writing {study.results}")
    return open_results(study)


def _read_run(study, plan, key, run_id):
    record = read_record(study, run_id)
    status = record_state(study, run_id, record)
    if record is not None:
        wrong = {n: record["labels"].get(n) for n, label in zip(CELL, key) if record["labels"].get(n, label) != label}
        if wrong:
            raise StoreError(
                f"collecting {study.record(run_id)}: it is labelled {wrong}, its place in the results is {key}; its "
                "scores would stand in a wrong cell. Remove the folder of the run and run the same command again"
            )
    arrays = read_arrays(study, run_id) if status is Status.DONE else {}
    scored = record if record is not None and status is not Status.PENDING else {}
    return _Run(key, plan.place(*key), run_id, status, scored, arrays)


def _coords(plan, features, runs):
    steps = max((len(run.arrays["loss_training"]) for run in runs if "loss_training" in run.arrays), default=0)
    return {
        "model": plan.models,
        "optimizer": plan.optimizers,
        "split": plan.splits,
        "fold": plan.folds,
        "part": PARTS,
        "subject": subjects_of(features),
        "record": [str(name) for name in features["record"].values],
        "emg_i": [str(name) for name in features["emg_i"].values],
        "emg_j": [str(name) for name in features["emg_j"].values],
        "step": np.arange(steps),
        "bound": BOUNDS,
    }


def subjects_of(features) -> list[str]:
    """Give the subjects of the features, sorted: the axis of all scores by subject."""
    return sorted({str(subject) for subject in features["subject"].values})


def _fill_records(values, features):
    values["measured"][...] = features["emg_granger"].values
    if "emg_granger_expected" in features:
        values["expected"][...] = features["emg_granger_expected"].values
    values["subject_of_record"][...] = [str(each) for each in features["subject"].values]
    values["condition"][...] = [str(each) for each in features["condition"].values]
    values["record_status"][...] = features["status"].values


def _fill_state(values, run):
    values["status"][run.at] = run.status
    values["run_id"][run.at] = run.run_id
    values["reason"][run.at] = run.record.get("reason", "")
    values["seconds"][run.at] = run.record.get("seconds", math.nan)


def _fill_scores(values, run):
    scores, (model, optimizer, split, fold) = run.record["scores"], run.at
    for i, part in enumerate(PARTS):
        for name in [f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_with_diagonal")]:
            found = scores.get(f"{name}_{part}")
            values[name][*run.at, i] = math.nan if found is None else found
    for name in [f"{metric}{suffix}" for metric in METRICS for suffix in ("_subject", "_entry")]:
        _put(values[name], run.at, run, name)
    parts = [run.arrays[part] for part in PARTS[:3]]
    counts = [*map(len, parts), sum(map(len, parts))]
    held = values["n_records"][split, fold]
    if held.any() and list(held) != counts:
        raise StoreError(
            f"collecting run {run.run_id}: its parts have {counts} records, those of another run of the same fold "
            f"{held.tolist()}, so their scores cannot be compared. Remove the older of the two run folders and run the "
            "same command again"
        )
    held[...] = counts
    values["n_parameters"][model, optimizer] = scores.get("n_parameters") or 0
    if run.key[0] == _NETWORK:
        for name in ("loss_training", "loss_validation"):
            curve = run.arrays.get(name, np.empty(0))
            values[name][optimizer, split, fold, : len(curve)] = curve


def _put(target, at, run, name):
    array = run.arrays.get(name)
    if array is None:
        return
    if array.shape != target[at].shape:
        raise StoreError(
            f"collecting run {run.run_id}: its {name} has the shape {array.shape}, the results need "
            f"{target[at].shape}; it belongs to other subjects or muscles. Remove the folder of the run and run the "
            "same command again"
        )
    target[at] = array


def _fill_prediction(values, run):
    """Put the predictions of a fold's test records, where no earlier fold has tested them."""
    prediction, test, (*cell, split, fold) = run.arrays["prediction"], run.arrays["test"], run.at
    target, tested = values["prediction"][*cell, split], values["test_fold"][split]
    if prediction.shape != target.shape:
        raise StoreError(
            f"collecting run {run.run_id}: its predictions have the shape {prediction.shape}, the features need "
            f"{target.shape}. Remove the folder of the run and run the same command again"
        )
    tested[test[tested[test] < 0]] = fold
    mine = test[tested[test] == fold]
    target[mine] = prediction[mine]
