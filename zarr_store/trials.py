"""Trials: which pose at which intensity gave which muscle responses."""

import numpy as np
import xarray as xr

from ..errors import InputError
from .datasets import open_dataset, publish_dataset
from .schema import Variable, global_attrs
from .study import Study, locate

_RESPONSE = ("trial", "muscle")
TRIAL_VARIABLES = {
    "pose_index": Variable(dims=("trial",), long_name="pose of the trial", comment="index along pose in volumes.zarr"),
    "intensity_percent_rmt": Variable(
        dims=("trial",), long_name="stimulation intensity, percent of the resting motor threshold", units="percent"
    ),
    "didt": Variable(dims=("trial",), long_name="rate of change of the coil current", units="A s-1"),
    "response": Variable(dims=_RESPONSE, long_name="measured response, peak to peak", units="V"),
    "expected_response": Variable(
        dims=_RESPONSE,
        long_name="mean response given pose and intensity",
        units="V",
        comment="the best possible prediction",
    ),
    "median_response": Variable(dims=_RESPONSE, long_name="median response given pose and intensity", units="V"),
}
OPTIONAL = frozenset({"expected_response", "median_response"})


def write_trials(study, dataset: xr.Dataset) -> None:
    """Write ``trials.zarr`` whole: beside its place, then swapped in.

    Parameters
    ----------
    study : Study or path-like
    dataset : xarray.Dataset
        Dims (trial, muscle): ``pose_index (trial)`` int; ``intensity_percent_rmt (trial)``; ``didt (trial)`` A/s;
        ``response (trial, muscle)`` V; optional ``expected_response``, ``median_response (trial, muscle)`` V; muscle
        names as coordinate; attribute ``id`` and whatever else tells where the responses come from. Units and long
        names are added.

    Raises
    ------
    InputError
        For a variable that is missing, has other dims, or holds something that is not finite.
    StoreError
        Where the disk refuses; the old trials are kept.

    Examples
    --------
    >>> write_trials("studies/quick", mock_trials())        # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    _check(dataset, study.trials)
    known = [name for name in TRIAL_VARIABLES if name in dataset]
    order = [*known, *(name for name in dataset.data_vars if name not in TRIAL_VARIABLES)]
    dataset = dataset[order].assign_attrs(global_attrs("motorsweep trials") | dataset.attrs)
    if "trial" not in dataset.coords:
        dataset = dataset.assign_coords(trial=np.arange(dataset.sizes["trial"]))
    dataset = dataset.assign_coords(muscle=("muscle", dataset.muscle.values.astype(object)))
    dataset = dataset.assign({name: dataset[name].assign_attrs(TRIAL_VARIABLES[name].attrs) for name in known})
    dataset.muscle.attrs.update(long_name="muscle", units="1")
    dataset.trial.attrs.update(long_name="trial", units="1")
    publish_dataset(dataset.drop_encoding(), study.trials, study.making, f"writing {study.trials}")


def open_trials(study) -> xr.Dataset:
    """Open ``trials.zarr`` of a study (a Study, its folder, or the store): see `write_trials`; values read when used.

    Raises
    ------
    StoreError
        Where there is none, naming the command that makes it.

    Examples
    --------
    >>> open_trials("studies/quick").response.sel(muscle="FDI")        # doctest: +SKIP
    """
    return open_dataset(locate(study, "trials"), "simulate")


def _check(dataset, path):
    missing = [name for name in TRIAL_VARIABLES if name not in OPTIONAL and name not in dataset]
    missing += [name for name in ("muscle",) if name not in dataset.coords]
    missing += [] if dataset.attrs.get("id") else ["the attribute id"]
    if missing:
        raise InputError(
            f"writing {path}: the trials lack {', '.join(missing)}; nothing could be trained on them. Give all of "
            f"{', '.join(name for name in TRIAL_VARIABLES if name not in OPTIONAL)}, muscle names and an id"
        )
    for name in TRIAL_VARIABLES:
        if name not in dataset:
            continue
        values, dims = dataset[name].values, TRIAL_VARIABLES[name].dims
        if dataset[name].dims != dims:
            raise InputError(f"writing {path}: {name} has dims {dataset[name].dims}, not {dims}; transpose it")
        if not np.isfinite(values).all():
            trial = int(np.argwhere(~np.isfinite(values))[0][0])
            raise InputError(
                f"writing {path}: {name} of trial {trial} is not finite, so no score of it would be; leave that trial "
                "out"
            )
    if dataset.pose_index.dtype.kind not in "iu" or (dataset.pose_index.values < 0).any():
        raise InputError(
            f"writing {path}: pose_index must hold indices from 0 along pose; it is {dataset.pose_index.dtype}"
        )
