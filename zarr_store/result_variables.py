"""The variables of results.zarr in one place: dimensions, units, names and formulas."""

import xarray as xr

from .schema import CELL_DIMS, CURVE_DIMS, CV_DIMS, Status, Variable, global_attrs, label_array

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
    "curve_baseline_run_id": Variable(
        dims=("input", "repeat", "trials"), long_name="run of the baselines", dtype="object", missing=""
    ),
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
