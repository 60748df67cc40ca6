"""Results: the records of a study gathered into one labelled Dataset, a view that can be made again at will."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import xarray as xr

from ..errors import StoreError
from .datasets import open_dataset, publish_dataset
from .ids import plain
from .result_variables import empty_results
from .runs import read_arrays, read_record, record_state
from .schema import BASELINES, BOUNDS, CELL_DIMS, CURVE_DIMS, CV_DIMS, HYPER_DIMS, Status
from .study import Study, checked_run_id, locate

_BASELINE_DIMS = ("input", "repeat")
_CURVE_BASELINE_DIMS = (*_BASELINE_DIMS, "trials")
_AXES = {"input": "inputs", "depth": "depths", "connection": "connections", "repeat": "repeats", "muscle": "muscles",
         "fold": "folds", "trials": "trials"}  # fmt: skip
_SCORES = ("nrmse", "nrmse_train", "r2", "bic", "aicc", "residual_variance")


@dataclass(frozen=True, kw_only=True)
class ResultPlan:
    """Which runs make up the results: the labels of every axis, and the run of every cell.

    Parameters
    ----------
    inputs, depths, connections, repeats, muscles : tuple
        Labels of the test table.
    folds : tuple
        Labels of the cross-validation; no folds, no cross-validation.
    grid : mapping of name to tuple
        Values of the hyper-parameters, `HYPER_DIMS`.
    trials : tuple
        Sizes of the learning curve.
    runs : mapping of label tuple to run id or None
        ``(input, depth, connection, repeat)``: the final training, None while its hyperparameters are not chosen;
        ``(input, repeat)``: the baselines;
        the first with the fold and the values of the grid: a training of the cross-validation;
        both with the number of trials: the learning curve.
        A cell that is not in it counts as None.
    attrs : mapping
        Plain values for the attributes of the Dataset, such as the ids of head and volumes; no dates, no hosts.

    Raises
    ------
    StoreError
        For a key that is no cell of the axes.

    Examples
    --------
    >>> ResultPlan(inputs=("e_norm",), depths=(3,), connections=("direct",), repeats=(0,), muscles=("FDI",),
    ...            runs={("e_norm", 0): "0123456789abcdef"}).cells(("input", "repeat"))
    {('e_norm', 0): '0123456789abcdef'}
    """

    inputs: tuple
    depths: tuple
    connections: tuple
    repeats: tuple
    muscles: tuple
    folds: tuple = ()
    grid: Mapping = field(default_factory=dict)
    trials: tuple = ()
    runs: Mapping = field(default_factory=dict)
    attrs: Mapping = field(default_factory=dict)

    def __post_init__(self):
        kinds = (_BASELINE_DIMS, _CURVE_BASELINE_DIMS, CELL_DIMS, CURVE_DIMS, CV_DIMS)
        known = {key for dims in kinds for key in self._keys(dims)}
        stray = [key for key in self.runs if key not in known]
        if stray:
            raise StoreError(
                f"planning the results: {stray[0]!r} is no cell of the axes ({len(stray)} such keys); its run would "
                f"not be shown. Keys are tuples of labels along {_BASELINE_DIMS}, {CELL_DIMS} or {CV_DIMS}"
            )
        for run_id in self.runs.values():
            if run_id is not None:
                checked_run_id(run_id)

    def labels(self, dim: str) -> tuple:
        """Give the labels along a dimension of the results."""
        return tuple(self.grid.get(dim, ()) if dim in HYPER_DIMS else getattr(self, _AXES[dim]))

    def cells(self, dims: tuple) -> dict:
        """Give the run id (or None) of every cell along `dims`, in the order of the axes."""
        return {key: self.runs.get(key) for key in self._keys(dims)}

    def _keys(self, dims):
        return product(*(self.labels(dim) for dim in dims))


@dataclass(frozen=True)
class _Run:
    """One run as the results need it: where it sits, its state, and its record once there is one."""

    at: tuple
    run_id: str
    status: Status
    record: dict
    arrays: dict

    def score(self, name):
        value = self.record.get("scores", {}).get(name)
        return math.nan if value is None else value


def collect(study, plan: ResultPlan, complete=None) -> xr.Dataset:
    """Build ``results.zarr`` from the records of the runs that the plan names, and open it.

    Only those records are read, so runs of older configurations do not show. The same records give the same bytes, in
    whatever order and on whatever machine they were made: nothing of time or host goes in.

    Parameters
    ----------
    study : Study or path-like
    plan : ResultPlan
    complete : callable, optional
        Fills in what follows from all runs together: takes the Dataset in memory, and returns it.

    Returns
    -------
    xarray.Dataset
        See `open_results`.

    Raises
    ------
    StoreError
        For a damaged record, or records of one repeat that were tested on different trials; and where the disk
        refuses (the old results are kept).

    Examples
    --------
    >>> collect("studies/quick", plan).nrmse.mean("repeat")        # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    cells = _read_runs(study, plan, CELL_DIMS, with_arrays=True)
    baselines = _read_runs(study, plan, _BASELINE_DIMS, with_arrays=True)
    results = empty_results(_coords(plan, cells, baselines), cross_validation=bool(plan.folds))
    values = {name: variable.values for name, variable in results.data_vars.items()}
    for run in cells:
        _fill_cell(values, run)
    for run in baselines:
        _fill_baseline(values, run)
    if plan.folds:
        for run in _read_runs(study, plan, CV_DIMS, with_arrays=False):
            _fill_state(values, "cv_", run)
            values["cv_nrmse"][run.at] = run.score("nrmse")
    if plan.trials:
        _fill_curve(values, study, plan)
    results = results if complete is None else complete(results)
    results = results.assign_attrs(plain(dict(plan.attrs), "attrs"))
    publish_dataset(results, study.results, study.making, f"writing {study.results}")
    return open_results(study)


def open_results(study) -> xr.Dataset:
    """Open the results of a study; every value is read when it is used.

    Parameters
    ----------
    study : Study or path-like
        The study, its folder, or its ``results.zarr``.

    Returns
    -------
    xarray.Dataset
        Scores ``(input, depth, connection, repeat)``, predictions, baselines, and the cross-validation where there
        was one; ``status`` tells done from failed and pending. Of a study of EEG and EMG: scores ``(model, optimizer,
        split, fold, part)``, skill over the mean matrix and predictions, as in `emg_result_variables`. Each variable
        says its unit, name and formula.

    Raises
    ------
    StoreError
        Where there are none yet, naming the command that makes them.

    Examples
    --------
    >>> results = open_results("studies/quick")                                        # doctest: +SKIP
    >>> results.nrmse.sel(input="firing_rate").mean("repeat").to_pandas()              # doctest: +SKIP
    >>> results.reason.where(results.status == Status.FAILED, drop=True)               # doctest: +SKIP
    """
    return open_dataset(locate(study, "results"), "collect")


def _read_runs(study, plan, dims, with_arrays):
    axes = [{label: i for i, label in enumerate(plan.labels(dim))} for dim in dims]
    runs = []
    for key, run_id in plan.cells(dims).items():
        at = tuple(axis[label] for axis, label in zip(axes, key))
        record = read_record(study, run_id) if run_id else None
        status = record_state(study, run_id, record)
        if record is not None:
            _check_labels(study, run_id, record, dict(zip(dims, key)))
        arrays = read_arrays(study, run_id) if with_arrays and status is Status.DONE else {}
        scored = record if status is not Status.PENDING else None  # arrays gone: the run is made again
        runs.append(_Run(at, run_id or "", status, scored or {}, arrays))
    return runs


def _check_labels(study, run_id, record, asked):
    wrong = {dim: record["labels"].get(dim) for dim in asked if record["labels"].get(dim, asked[dim]) != asked[dim]}
    if wrong:
        raise StoreError(
            f"collecting {study.record(run_id)}: it is labelled {wrong}, its place in the results is {asked}; its "
            "scores would stand in a wrong cell. Remove the folder of the run and run the same command again"
        )


def _coords(plan, cells, baselines):
    done = [run for run in [*cells, *baselines] if run.status is Status.DONE]
    n_test = max((len(run.arrays["evaluate"]) for run in done if "evaluate" in run.arrays), default=0)
    bases = [run.arrays["synergy_basis"] for run in done if "synergy_basis" in run.arrays]
    n_synergies = max((basis.shape[1] for basis in bases), default=0)
    n_ranks = max((len(run.arrays["synergy_vaf"]) for run in done if "synergy_vaf" in run.arrays), default=0)
    names = ["input", "depth", "connection", "repeat", "muscle"]
    names += ["fold", *HYPER_DIMS] if plan.folds else []
    names += ["trials"] if plan.trials else []
    coords = {dim: plan.labels(dim) for dim in names} | {"rank": np.arange(1, n_ranks + 1), "bound": BOUNDS}
    return coords | {"baseline": BASELINES, "test": np.arange(n_test), "synergy": np.arange(n_synergies)}


def _fill_state(values, prefix, run):
    values[f"{prefix}status"][run.at] = run.status
    values[f"{prefix}run_id"][run.at] = run.run_id


def _fill_cell(values, run):
    _fill_state(values, "", run)
    values["reason"][run.at] = run.record.get("reason", "")
    if run.status is not Status.DONE:
        return
    for name in _SCORES:
        values[name][run.at] = run.score(name)
    scores, labels = run.record["scores"], run.record["labels"]
    values["criteria_valid"][run.at] = bool(scores.get("criteria_valid", False))
    values["n_parameters"][run.at[1:]] = scores.get("n_parameters") or 0
    for name in HYPER_DIMS:
        if labels.get(name) is not None:
            values[f"{name}_selected"][run.at] = labels[name]
    _put(values["nrmse_muscle"], run.at, run.arrays.get("nrmse_muscle"), run)
    _put(values["prediction"], run.at, run.arrays.get("prediction"), run, may_be_shorter=True)
    _fill_repeat(values, run, repeat=run.at[3])
    basis = run.arrays.get("synergy_basis")
    if basis is not None and np.isnan(values["synergy_basis"][run.at[3]]).all():
        _put(values["synergy_basis"][..., : basis.shape[1]], run.at[3:], basis, run)


def _fill_curve(values, study, plan):
    for run in _read_runs(study, plan, CURVE_DIMS, with_arrays=False):
        values["curve_run_id"][run.at] = run.run_id
        values["curve_nrmse"][run.at] = run.score("nrmse")
    for run in _read_runs(study, plan, _CURVE_BASELINE_DIMS, with_arrays=False):
        values["curve_baseline_run_id"][run.at] = run.run_id
        for i, name in enumerate(BASELINES):
            values["curve_baseline_nrmse"][run.at[0], i, run.at[1], run.at[2]] = run.score(name)


def _fill_baseline(values, run):
    _fill_state(values, "baseline_", run)
    if run.status is not Status.DONE:
        return
    for i, name in enumerate(BASELINES):
        at = (run.at[0], i, run.at[1])
        values["baseline_nrmse"][at] = run.score(name)
        _put(values["baseline_nrmse_muscle"], at, run.arrays.get(f"nrmse_muscle_{name}"), run)
        _put(values["baseline_prediction"], at, run.arrays.get(f"prediction_{name}"), run, may_be_shorter=True)
        _put(values["baseline_sd"], at, run.arrays.get(f"sd_{name}"), run, may_be_shorter=True)
    for name in ("synergy_vaf", "synergy_vaf_chance", "synergy_vaf_muscle"):
        _put(values[name], run.at[1:], run.arrays.get(name), run, may_be_shorter=True)
    _fill_repeat(values, run, repeat=run.at[1])


def _fill_repeat(values, run, repeat):
    """Put what all runs of a repeat share: the test trials, what was measured, the scale of the responses."""
    shared = {"test_trial": "evaluate", "measured": "measured"}
    shared |= {name: name for name in ("response_minimum", "response_range")}
    for name, array in shared.items():
        if array not in run.arrays:
            continue
        new = np.full_like(values[name][repeat], -1 if name == "test_trial" else np.nan)
        _put(new[None], (0,), run.arrays[array], run, may_be_shorter=array in ("evaluate", "measured"))
        old = values[name][repeat]
        unset = (old == -1).all() if name == "test_trial" else np.isnan(old).all()
        if not unset and not np.allclose(old, new, rtol=1e-6, atol=0, equal_nan=True):
            raise StoreError(
                f"collecting run {run.run_id}: its {array} differs from that of another run of the same repeat, so "
                "their scores cannot be compared. Remove the older of the two run folders and run the same command "
                "again"
            )
        values[name][repeat] = old if not unset else new


def _put(target, at, array, run, may_be_shorter=False):
    """Copy an array of a run into its cell; along its first axis it may be shorter, which leaves the rest missing."""
    if array is None:
        return
    cell = target[at]
    shorter = may_be_shorter and array.shape[1:] == cell.shape[1:] and len(array) < len(cell)
    if array.shape != cell.shape and not shorter:
        raise StoreError(
            f"collecting run {run.run_id}: an array of the shape {array.shape} does not fit the cell of shape "
            f"{cell.shape} in the results; it belongs to other muscles or trials. Remove the folder of the run and "
            "run the same command again"
        )
    cell[: len(array)] = array
