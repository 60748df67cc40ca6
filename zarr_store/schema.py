"""The labels of every store in one place: dimensions, status codes, and the variables of the results with units."""

import enum
from dataclasses import dataclass

import numpy as np
import xarray as xr

SCHEMA_VERSION = 1
"""Attribute ``motorsweep_schema`` of every store; a store of another version is refused by name."""

CONVENTIONS = "CF-1.11"
VOLUME_DIMS = ("pose", "x", "y", "z")
FIELD_DIMS = ("pose", "component", "x", "y", "z")
GRID_DIMS = ("x", "y", "z")
CODE_DIMS = ("trial", "code_x", "code_y", "code_z")
CELL_DIMS = ("input", "depth", "connection", "repeat")
HYPER_DIMS = ("dropout", "l1", "activation", "scaling")
CV_DIMS = (*CELL_DIMS, "fold", *HYPER_DIMS)
CURVE_DIMS = (*CELL_DIMS, "trials")
BASELINES = ("mean", "ridge", "pls", "ridge_voxels", "gp_position", "response_model", "best_possible")
BOUNDS = ("low", "high")


class Status(enum.IntEnum):
    """State of a pose, a run or a cell of the results.

    Examples
    --------
    >>> Status.DONE.value
    1
    """

    PENDING = 0
    DONE = 1
    FAILED = 2


STATUS_ATTRS = {
    "flag_values": [int(status) for status in Status],
    "flag_meanings": " ".join(status.name.lower() for status in Status),
    "units": "1",
}


class Method(enum.IntEnum):
    """How the field of a pose was found: not at all, by an exact solve of one kind, or from modes within a tolerance.

    Examples
    --------
    >>> Method.MODES.value
    3
    """

    NONE = 0
    DIRECT = 1
    ITERATIVE = 2
    MODES = 3


METHOD_ATTRS = {
    "flag_values": [int(method) for method in Method],
    "flag_meanings": " ".join(method.name.lower() for method in Method),
    "units": "1",
}


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What a variable of a store is: dimensions, dtype, the value of a cell that is not there, and its attributes."""

    dims: tuple[str, ...]
    long_name: str
    dtype: str = "float64"
    missing: object = np.nan
    units: str = "1"
    comment: str = ""

    @property
    def attrs(self) -> dict:
        """CF attributes: ``units``, ``long_name``, ``comment`` where there is one, the flags of a status."""
        texts = {"long_name": self.long_name, "units": self.units, "comment": self.comment}
        flags = STATUS_ATTRS if self.dtype == "int8" else {}
        return {key: value for key, value in {**texts, **flags}.items() if value != ""}

    def empty(self, sizes: dict) -> xr.Variable:
        """Return the variable with every cell missing, shaped by the `sizes` of the dimensions."""
        values = np.full([sizes[dim] for dim in self.dims], self.missing, dtype=self.dtype)
        return xr.Variable(self.dims, values, self.attrs)


_NRMSE = "equation 7: sqrt(sum_j ||error_j||^2 / sum_j ||measured_j||^2) over the trials j"
_SCALED = "scaled as the training responses of the repeat: (V - response_minimum) / response_range"
_VARIANCE = "log of residual_variance on the training trials (equation 9), N trials, k muscles, p = n_parameters"
_BOOTSTRAP = "by the bootstrap over test trials, drawn for all repeats together"
_PAIRED = "from the same bootstrap samples for both; the best model is that of the lowest mean, best_possible left out"
_PREDICTION = (*CELL_DIMS, "test", "muscle")
_BASELINE = ("input", "baseline", "repeat")

RESULT_VARIABLES = {
    "nrmse": Variable(dims=CELL_DIMS, long_name="normalised RMSE on the test trials", comment=_NRMSE),
    "nrmse_train": Variable(dims=CELL_DIMS, long_name="normalised RMSE on the training trials", comment=_NRMSE),
    "r2": Variable(dims=CELL_DIMS, long_name="coefficient of determination on the test trials"),
    "bic": Variable(
        dims=CELL_DIMS,
        long_name="Bayesian information criterion",
        comment=f"equation 10: N k log(variance) + p log(N k); {_VARIANCE}; ranks by size where p is large",
    ),
    "aicc": Variable(
        dims=CELL_DIMS,
        long_name="corrected Akaike information criterion",
        comment=f"equation 11: N k log(variance) + N k (p + N k) / (N k - p - 2); {_VARIANCE}; "
        "its penalty is negative, and means nothing, where criteria_valid is false",
    ),
    "criteria_valid": Variable(
        dims=CELL_DIMS, long_name="the criteria are inside their domain", dtype="bool", missing=False
    ),
    "residual_variance": Variable(
        dims=CELL_DIMS, long_name="residual variance on the training trials", comment="equation 9, in scaled units"
    ),
    "n_parameters": Variable(
        dims=("depth", "connection", "repeat"), long_name="trainable parameters", dtype="int64", missing=0,
        comment="0: not known yet",
    ),
    "nrmse_muscle": Variable(
        dims=(*CELL_DIMS, "muscle"), long_name="normalised RMSE per muscle on the test trials", comment=_NRMSE
    ),
    "dropout_selected": Variable(dims=CELL_DIMS, long_name="dropout rate of the final training"),
    "l1_selected": Variable(dims=CELL_DIMS, long_name="L1 penalty of the final training"),
    "activation_selected": Variable(
        dims=CELL_DIMS, long_name="inner activation of the final training", dtype="object", missing=""
    ),
    "scaling_selected": Variable(
        dims=CELL_DIMS, long_name="scaling of inputs and codes of the final training", dtype="object", missing=""
    ),
    "status": Variable(
        dims=CELL_DIMS, long_name="state of the final training", dtype="int8", missing=int(Status.PENDING)
    ),
    "run_id": Variable(
        dims=CELL_DIMS, long_name="run of the final training: runs/<run_id>/record.json", dtype="object", missing=""
    ),
    "reason": Variable(dims=CELL_DIMS, long_name="why the final training failed", dtype="object", missing=""),
    "prediction": Variable(dims=_PREDICTION, long_name="predicted response of the test trials", comment=_SCALED),
    "measured": Variable(
        dims=("repeat", "test", "muscle"), long_name="measured response of the test trials", comment=_SCALED
    ),
    "test_trial": Variable(
        dims=("repeat", "test"), long_name="trial at each position of the test set", dtype="int64", missing=-1,
        comment="index along trial in trials.zarr; -1: no such position in this repeat, or not known yet",
    ),
    "response_minimum": Variable(
        dims=("repeat", "muscle"), long_name="smallest training response, the zero of the scaled responses", units="V"
    ),
    "response_range": Variable(
        dims=("repeat", "muscle"), long_name="range of the training responses, the unit of the scaled ones", units="V"
    ),
    "baseline_nrmse": Variable(dims=_BASELINE, long_name="normalised RMSE of the baseline", comment=_NRMSE),
    "baseline_nrmse_muscle": Variable(
        dims=(*_BASELINE, "muscle"), long_name="normalised RMSE of the baseline per muscle", comment=_NRMSE
    ),
    "baseline_prediction": Variable(
        dims=(*_BASELINE, "test", "muscle"), long_name="response predicted by the baseline", comment=_SCALED
    ),
    "baseline_sd": Variable(
        dims=(*_BASELINE, "test", "muscle"), long_name="predictive standard deviation of the response",
        comment=_SCALED + "; of predictors that tell their uncertainty, trial-to-trial variability included",
    ),
    "baseline_status": Variable(
        dims=("input", "repeat"), long_name="state of the baselines", dtype="int8", missing=int(Status.PENDING)
    ),
    "baseline_run_id": Variable(
        dims=("input", "repeat"), long_name="run of the baselines", dtype="object", missing=""
    ),
    "synergy_basis": Variable(
        dims=("repeat", "muscle", "synergy"), long_name="muscle synergies of the training responses",
        comment="basis of the non-negative factorisation, of the repeat's first trained synergy cell; in the order of "
        "the first repeat's synergies that they are most like",
    ),
    "synergy_similarity": Variable(
        dims=("repeat", "synergy"), long_name="cosine to the same synergy of the first repeat",
    ),
    "synergy_vaf": Variable(
        dims=("repeat", "rank"), long_name="variance of the training responses that synergies account for",
        comment="1 - ||M - B A||^2 / ||M||^2, about zero, of scaled responses",
    ),
    "synergy_vaf_chance": Variable(
        dims=("repeat", "rank"), long_name="synergy_vaf of responses that are shuffled over the trials",
        comment="each muscle on its own: what amplitudes give without anything that muscles have in common",
    ),
    "synergy_vaf_muscle": Variable(
        dims=("repeat", "rank", "muscle"), long_name="synergy_vaf of each muscle",
    ),
    "nrmse_mean": Variable(dims=CELL_DIMS[:3], long_name="mean over the repeats of nrmse"),
    "nrmse_sd": Variable(dims=CELL_DIMS[:3], long_name="standard deviation over the repeats of nrmse"),
    "nrmse_interval": Variable(
        dims=(*CELL_DIMS[:3], "bound"), long_name="95 % confidence interval of nrmse_mean", comment=_BOOTSTRAP
    ),
    "nrmse_above_best": Variable(
        dims=CELL_DIMS[:3], long_name="nrmse_mean minus that of the best model", comment=_PAIRED
    ),
    "nrmse_above_best_interval": Variable(
        dims=(*CELL_DIMS[:3], "bound"), long_name="95 % confidence interval of nrmse_above_best",
        comment=f"{_PAIRED}; simultaneous over all models",
    ),
    "best_share": Variable(
        dims=CELL_DIMS[:3], long_name="share of the bootstrap samples in which this model is the best",
        comment="among networks and predictors without one, but for best_possible",
    ),
    "baseline_nrmse_mean": Variable(dims=_BASELINE[:2], long_name="mean over the repeats of baseline_nrmse"),
    "baseline_nrmse_sd": Variable(
        dims=_BASELINE[:2], long_name="standard deviation over the repeats of baseline_nrmse"
    ),
    "baseline_nrmse_interval": Variable(
        dims=(*_BASELINE[:2], "bound"), long_name="95 % confidence interval of baseline_nrmse_mean",
        comment=_BOOTSTRAP,
    ),
    "baseline_above_best": Variable(
        dims=_BASELINE[:2], long_name="baseline_nrmse_mean minus that of the best model", comment=_PAIRED
    ),
    "baseline_above_best_interval": Variable(
        dims=(*_BASELINE[:2], "bound"), long_name="95 % confidence interval of baseline_above_best",
        comment=f"{_PAIRED}; simultaneous over all models",
    ),
    "baseline_best_share": Variable(
        dims=_BASELINE[:2], long_name="share of the bootstrap samples in which this predictor is the best"
    ),
}  # fmt: skip
"""The variables of results.zarr. A cell without a finished run is present, with status pending and NaN."""

CV_VARIABLES = {
    "cv_nrmse": Variable(
        dims=CV_DIMS, long_name="normalised RMSE on the validation trials of the fold", comment=_NRMSE
    ),
    "cv_status": Variable(
        dims=CV_DIMS, long_name="state of the training of the fold", dtype="int8", missing=int(Status.PENDING)
    ),
    "cv_run_id": Variable(dims=CV_DIMS, long_name="run of the training of the fold", dtype="object", missing=""),
}
"""Added where cross-validation was asked for."""

CURVE_VARIABLES = {
    "curve_nrmse": Variable(
        dims=CURVE_DIMS, long_name="normalised RMSE on the test trials, after training on fewer trials",
        comment=f"{_NRMSE}; hyper-parameters and codes are those of the whole calibration set",
    ),
    "curve_run_id": Variable(dims=CURVE_DIMS, long_name="run of the training", dtype="object", missing=""),
    "curve_baseline_nrmse": Variable(
        dims=(*_BASELINE, "trials"), long_name="normalised RMSE of the baseline, after fitting to fewer trials",
        comment=_NRMSE,
    ),
}  # fmt: skip
"""Added where a learning curve was asked for."""

LABELS = {
    "input": "what the networks see: |E| or the firing rate",
    "depth": "convolution layers of the mapper",
    "connection": "how the mapper reaches the muscles: direct, through synergies, or the sum of both",
    "repeat": "random split of the trials into calibration and test",
    "muscle": "muscle",
    "baseline": "predictor without a network; response_model is our own, best_possible the mean response that the "
    "simulation knows",
    "test": "position in the test set",
    "synergy": "synergy",
    "fold": "fold of the cross-validation",
    "dropout": "dropout rate",
    "l1": "L1 penalty",
    "activation": "inner activation of the mapper",
    "scaling": "scaling of inputs and codes",
    "trials": "labelled trials of the training",
    "rank": "number of synergies",
    "bound": "end of the interval",
}


def global_attrs(title: str) -> dict:
    """Give the attributes that every store carries: what it is, by which convention, made by what.

    Examples
    --------
    >>> global_attrs("field volumes")["Conventions"]
    'CF-1.11'
    """
    from .. import __version__

    source = f"motorsweep {__version__}"
    return {"title": title, "Conventions": CONVENTIONS, "source": source, "motorsweep_schema": SCHEMA_VERSION}


def empty_results(coords: dict, cross_validation: bool) -> xr.Dataset:
    """Build the results Dataset with every label in place and every cell missing.

    Parameters
    ----------
    coords : dict
        Labels along every dimension: `LABELS`, without fold and hyper-parameters where there is no cross-validation,
        without trials where there is no learning curve.
    cross_validation : bool
        Whether to add `CV_VARIABLES`.

    Returns
    -------
    xarray.Dataset
        In memory; status pending, scores NaN.
    """
    variables = RESULT_VARIABLES | (CV_VARIABLES if cross_validation else {})
    variables |= CURVE_VARIABLES if "trials" in coords else {}
    sizes = {dim: len(labels) for dim, labels in coords.items()}
    return xr.Dataset(
        {name: variable.empty(sizes) for name, variable in variables.items()},
        {dim: (dim, label_array(labels), {"long_name": LABELS[dim], "units": "1"}) for dim, labels in coords.items()},
        {**global_attrs("motorsweep results: muscle responses from TMS fields")},
    )


def label_array(labels) -> np.ndarray:
    """Turn labels into an array; text becomes dtype object, which Zarr stores with variable length."""
    array = np.asarray(labels)
    if array.dtype.kind == "U":
        return array.astype(object)
    return array if array.size else array.astype(np.int64)
