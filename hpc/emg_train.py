"""The stage ``train`` of an eeg study: EEG connectivity to EMG connectivity, one network or predictor a task."""

import time
from dataclasses import dataclass

import numpy as np

from ..learn.accelerator import accelerator_of
from ..learn.matrix_models import MODELS, shuffled_pairs
from ..learn.matrix_records import FittedMatrices
from ..learn.matrix_scores import by_entry, pooled
from ..learn.matrix_training import EmgTraining, fit_emgnet
from ..learn.scores import nrmse
from ..zarr_store.features import open_features
from ..zarr_store.runs import write_run
from ..zarr_store.study import Study
from .emg_names import CONTROLS, METRICS, PARTS, TRUTH
from .records import record_of
from .run_task import RunTask


@dataclass(frozen=True, kw_only=True)
class EmgTrainTask(RunTask):
    """Train one network, or fit one predictor.

    Parameters
    ----------
    study, run, device, deterministic
        As in `RunTask`.
    training : EmgTraining or None
        Of a network.
    """

    training: EmgTraining | None = None


def train_emg_run(task):
    """Fit what the task says, and write its record.

    Parameters
    ----------
    task : EmgTrainTask

    Returns
    -------
    float
        Mean squared error on the test records, off the diagonal.
    """
    began, study, run = time.time(), Study(task.study), task.run
    features = open_features(study)
    inputs = features["eeg_connectivity"].values
    targets = features["emg_granger"].values.astype(np.float64)
    subjects = np.array([str(each) for each in features["subject"].values])
    how, fitted = {}, None
    if run.kind == "network":
        accelerator = accelerator_of(task.device, deterministic=task.deterministic)
        how = accelerator.described()
        fitted = _fit_network(task, study, inputs, targets, accelerator)
    elif run.model == TRUTH:
        fitted = FittedMatrices(prediction=features["emg_granger_expected"].values.astype(np.float64))
    else:
        fitted = _fit_predictor(run, inputs, targets, subjects)
    # As it is stored, so that whoever computes a score from the arrays finds the same.
    prediction = fitted.prediction.astype(np.float32)
    scores, arrays = score_run(targets, prediction, run.split, subjects)
    scores["n_parameters"] = sum(array.size for name, array in fitted.arrays.items() if name.startswith("weights."))
    arrays = dict(fitted.arrays) | arrays | {"prediction": prediction, **_curves(fitted.loss)}
    record = record_of(run, began, scores=scores, loss=fitted.loss.get("training", ()), how=how)
    write_run(study, run.id, record | {"notes": list(fitted.notes)}, arrays)
    return float(scores["mse_test"])


def _fit_network(task, study, inputs, targets, accelerator):
    run, checkpoint = task.run, study.checkpoint(task.run.id)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    pairs, seed = _pairs(run, targets), run.spec["seed"]
    return fit_emgnet(inputs, pairs, run.split, task.training, seed, checkpoint, accelerator=accelerator)


def _fit_predictor(run, inputs, targets, subjects):
    fit = MODELS[run.model.removesuffix("_shuffled")]
    return fit(inputs, _pairs(run, targets), run.split, run.spec["seed"], subjects)


def _pairs(run, targets):
    """Targets as the run learns them: for a control, those of other records of the same part."""
    if run.model not in CONTROLS:
        return targets
    return targets[shuffled_pairs(run.split, len(targets), run.spec["shuffle_seed"])]


def _curves(loss):
    """Training and validation loss along the steps; NaN where the validation loss was not computed."""
    if not loss:
        return {}
    training = np.asarray(loss["training"], np.float64)
    validation = np.full(len(training), np.nan)
    validation[np.asarray(loss["validation_step"], np.int64) - 1] = loss["validation"]
    return {"loss_training": training, "loss_validation": validation}


def score_run(targets, prediction, split, subjects):
    """Score a prediction: pooled by part, by subject and by entry of the test records.

    Parameters
    ----------
    targets, prediction : ndarray (record, m, m)
    split : RecordSplit
    subjects : ndarray (record,) of str

    Returns
    -------
    scores : dict of str to float
        ``<metric>_<part>`` off the diagonal, ``<metric>_with_diagonal_<part>`` with it, and ``nrmse``, equation 7 of
        the first paper on the test records.
    arrays : dict of ndarray
        ``<metric>_subject`` along the sorted subjects, ``<metric>_entry`` (m, m), and the parts' record numbers.
    """
    parts = dict(zip(PARTS, (split.train, split.validation, split.test)))
    parts["all"] = np.sort(np.concatenate(list(parts.values())))
    scores = {}
    for part, rows in parts.items():
        for suffix, diagonal in (("", False), ("_with_diagonal", True)):
            found = pooled(targets[rows], prediction[rows], diagonal=diagonal)
            scores |= {f"{metric}{suffix}_{part}": found[metric] for metric in METRICS}
    test = split.test
    arrays = {f"{metric}_entry": array for metric, array in by_entry(targets[test], prediction[test]).items()}
    names = np.unique(subjects)
    tested = [test[subjects[test] == name] for name in names]
    found = [
        pooled(targets[rows], prediction[rows]) if len(rows) else dict.fromkeys(METRICS, np.nan) for rows in tested
    ]
    arrays |= {f"{metric}_subject": np.array([each[metric] for each in found]) for metric in METRICS}
    scores["nrmse"] = nrmse(_off(targets[test]), _off(prediction[test]))
    return scores, arrays | {part: np.asarray(parts[part], np.int64) for part in PARTS[:3]}


def _off(matrices):
    return matrices[:, ~np.eye(matrices.shape[1], dtype=bool)]
