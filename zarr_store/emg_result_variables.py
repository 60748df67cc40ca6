"""The variables of an eeg study's results.zarr in one place: dimensions, units, names and formulas."""

import xarray as xr

from .schema import Status, Variable, global_attrs, label_array

CELL = ("model", "optimizer", "split", "fold")
PARTS = ("training", "validation", "test", "all")
METRICS = ("r2", "mse", "mae", "r")

_OFF = "over the entries off the diagonal, which is 0 by definition, of all records of the part together"
_ON = "over all entries, the diagonal of zeros included, as the paper has it: those raise R² and r, and tell nothing"
_FORMULAS = {
    "r2": "1 - sum (measured - predicted)² / sum (measured - mean of measured)²",
    "mse": "mean (measured - predicted)²",
    "mae": "mean |measured - predicted|",
    "r": "Pearson's correlation of measured and predicted",
}
_NAMES = {"r2": "coefficient of determination", "mse": "mean squared error", "mae": "mean absolute error",
          "r": "correlation of measured and predicted"}  # fmt: skip
_SKILL = "1 - sum (measured - predicted)² / sum (measured - predicted by the mean matrix of the training records)²"
_FIRST = "each record as the first fold that has it in its test part predicts it"


def _scores(suffix, dims, where, comment):
    return {
        f"{metric}{suffix}": Variable(
            dims=(*CELL, *dims), long_name=f"{_NAMES[metric]} {where}", comment=f"{_FORMULAS[metric]}, {comment}"
        )
        for metric in METRICS
    }


EMG_VARIABLES = {
    **_scores("", ("part",), "of the part's records", _OFF),
    **_scores("_with_diagonal", ("part",), "of the part's records, with the diagonal", _ON),
    **_scores("_subject", ("subject",), "on the subject's test records", "off the diagonal"),
    **_scores("_entry", ("emg_i", "emg_j"), "of the entry j to i on the test records", "over the test records"),
    "skill": Variable(
        dims=CELL[:3], long_name="skill over the mean matrix on test records, mean over the units",
        comment=f"{_SKILL}; of each unit of skill_unit, off the diagonal; {_FIRST}",
    ),
    "skill_interval": Variable(
        dims=(*CELL[:3], "bound"), long_name="95 % confidence interval of skill",
        comment="bootstrap-t over units, NaN below 5 of them; that training sets of folds overlap it cannot see",
    ),
    "skill_wins": Variable(
        dims=CELL[:3], long_name="units in which the error is smaller than the mean matrix's", dtype="int64",
        missing=-1, comment="-1: not known",
    ),
    "skill_units": Variable(
        dims=CELL[:3], long_name="units that were compared", dtype="int64", missing=0
    ),
    "skill_p": Variable(dims=CELL[:3], long_name="p of an exact, one-sided sign test over the units"),
    "verdict": Variable(
        dims=CELL[:3], long_name="whether the mean matrix is beaten", dtype="object", missing="",
        comment="beats, loses, unclear, or too few units to tell; empty where it is not known",
    ),
    "skill_unit": Variable(
        dims=("split",), long_name="what the skill is compared over", dtype="object", missing="",
        comment="subject, or fold where all records are of one subject",
    ),
    "skill_pooled": Variable(
        dims=CELL[:3], long_name="skill over the mean matrix on all test records together",
        comment=f"{_SKILL}; off the diagonal; {_FIRST}",
    ),
    "skill_subject": Variable(
        dims=(*CELL[:3], "subject"), long_name="skill over the mean matrix on the subject's test records",
        comment=f"{_SKILL}; off the diagonal; {_FIRST}",
    ),
    "skill_entry": Variable(
        dims=(*CELL[:3], "emg_i", "emg_j"), long_name="skill over the mean matrix of the entry j to i on test records",
        comment=f"{_SKILL}; {_FIRST}",
    ),
    "r2_records": Variable(
        dims=(*CELL[:3], "emg_i", "emg_j"), long_name="R² of the entry j to i over all test records",
        comment=f"about the entry's own mean over these records; {_FIRST}",
    ),
    "n_records": Variable(
        dims=("split", "fold", "part"), long_name="records of the part", dtype="int64", missing=0,
        comment="0: the split has no such fold",
    ),
    "status": Variable(dims=CELL, long_name="state of the run", dtype="int8", missing=int(Status.PENDING)),
    "run_id": Variable(
        dims=CELL, long_name="run of the cell: runs/<run_id>/record.json", dtype="object", missing="",
        comment="empty where there is no such run: a predictor has no optimizer, a split no such fold",
    ),
    "reason": Variable(dims=CELL, long_name="why the run failed", dtype="object", missing=""),
    "seconds": Variable(dims=CELL, long_name="wall time of the run", units="s"),
    "n_parameters": Variable(
        dims=CELL[:2], long_name="trainable parameters", dtype="int64", missing=0, comment="0: none, or not known yet"
    ),
    "loss_training": Variable(
        dims=("optimizer", "split", "fold", "step"), long_name="training loss of the network", dtype="float32",
        comment="mean squared error of the step's batch, before the step; over all entries, diagonal included",
    ),
    "loss_validation": Variable(
        dims=("optimizer", "split", "fold", "step"), long_name="validation loss of the network", dtype="float32",
        comment="mean squared error over the validation records after the step; NaN where it was not computed",
    ),
    "measured": Variable(
        dims=("record", "emg_i", "emg_j"), long_name="measured Granger causality of the EMG, j to i", dtype="float32"
    ),
    "expected": Variable(
        dims=("record", "emg_i", "emg_j"), long_name="planted Granger causality of the EMG, j to i", dtype="float32",
        comment="in closed form from the planted model; NaN where nothing is planted",
    ),
    "prediction": Variable(
        dims=(*CELL[:3], "record", "emg_i", "emg_j"), long_name="predicted Granger causality of the EMG, j to i",
        dtype="float32", comment=f"of test records: {_FIRST}",
    ),
    "test_fold": Variable(
        dims=("split", "record"), long_name="first fold that has the record in its test part", dtype="int64",
        missing=-1, comment="-1: in no test part",
    ),
    "subject_of_record": Variable(dims=("record",), long_name="subject", dtype="object", missing=""),
    "condition": Variable(dims=("record",), long_name="condition", dtype="object", missing=""),
    "record_status": Variable(
        dims=("record",), long_name="state of the record's features", dtype="int8", missing=int(Status.PENDING)
    ),
}  # fmt: skip
"""A cell without a finished run is present, with status pending and NaN."""

LABELS = {
    "model": "predictor of the EMG's connectivity; planted_truth is what the simulation knows, the shuffled ones learn "
    "from EEG and EMG of different records",
    "optimizer": "optimizer of a network; none for the others",
    "split": "how records are dealt into training, validation and test",
    "fold": "fold, or repeat of a random split",
    "part": "part of the records",
    "subject": "subject",
    "record": "record",
    "emg_i": "muscle that is driven",
    "emg_j": "muscle that drives",
    "step": "training step, from 0",
    "bound": "end of the interval",
}


def empty_emg_results(coords: dict) -> xr.Dataset:
    """Build the results Dataset with every label in place and every cell missing.

    Parameters
    ----------
    coords : dict
        Labels along every dimension of `LABELS`.

    Returns
    -------
    xarray.Dataset
        In memory; status pending, scores NaN.
    """
    sizes = {dim: len(labels) for dim, labels in coords.items()}
    return xr.Dataset(
        {name: variable.empty(sizes) for name, variable in EMG_VARIABLES.items()},
        {dim: (dim, label_array(labels), {"long_name": LABELS[dim], "units": "1"}) for dim, labels in coords.items()},
        {**global_attrs("motorsweep results: connectivity of muscles from connectivity of the EEG"), "kind": "eeg"},
    )
