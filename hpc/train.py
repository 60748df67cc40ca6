"""The stage ``train``: codes to responses, one mapper (or the predictors without a network of one input) a task."""

import time
from dataclasses import dataclass

from ..learn import scores
from ..learn.accelerator import accelerator_of
from ..learn.cells import nrmse_by_muscle, prepare_cell
from ..learn.protocols import MapperTraining
from ..learn.references import fit_references
from ..learn.response_model import fit_response_model
from ..learn.synergy import vaf_curve
from ..learn.training import fit_mapper
from ..zarr_store.codes import read_codes
from ..zarr_store.runs import read_arrays, write_run
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .encode import SplitConfig, split_of, trial_inputs
from .records import record_of
from .run_task import RunTask


@dataclass(frozen=True, kw_only=True)
class TrainTask(RunTask):
    """Train one mapper, or fit the predictors without a network.

    Parameters
    ----------
    study, run, device, deterministic
        As in `RunTask`.
    training : MapperTraining
    split : SplitConfig
    """

    training: MapperTraining
    split: SplitConfig


def train_run(task):
    """Fit what the task says, and write its record.

    Parameters
    ----------
    task : TrainTask

    Returns
    -------
    float
        NRMSE on the trials it was evaluated on (of ridge, for the predictors without a network).
    """
    began, study, run = time.time(), Study(task.study), task.run
    if run.kind == "baseline":
        found, arrays = _fit_baselines(study, run, task.split)
        write_run(study, run.id, record_of(run, began, scores=found), arrays)
        return float(found["ridge"])
    return train_prepared(task, prepare_run(task), began)


def train_prepared(task, prepared, began):
    """Train a mapper whose cell is ready, and write its record; its NRMSE on the trials it was evaluated on."""
    run, accelerator = task.run, accelerator_of(task.device, deterministic=task.deterministic)
    checkpoint = Study(task.study).checkpoint(run.id)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    fitted = fit_mapper(*prepared.mapper, run.spec["training_seed"], checkpoint, accelerator=accelerator)
    return finish_run(task, prepared.finish(*fitted), began, accelerator)


def prepare_run(task):
    """A mapper's cell, ready to be trained.

    Parameters
    ----------
    task : TrainTask

    Returns
    -------
    PreparedCell
    """
    study, run = Study(task.study), task.run
    trials, codes = open_trials(study), read_codes(study, run.needs[0])
    train, evaluate = split_of(run, task.split, trials["intensity_percent_rmt"].values)
    synergy = read_arrays(study, run.needs[1]) if len(run.needs) > 1 else None
    responses, seed = trials["response"].values, task.split.seed
    return prepare_cell(codes, responses, train, evaluate, run.cell, task.training, seed, synergy)


def finish_run(task, result, began, accelerator, fused=1):
    """Write the record of a mapper, trained with `fused` - 1 others; its NRMSE on the trials it was evaluated on."""
    how = accelerator.described() | ({"fused": fused} if fused > 1 else {})
    record = record_of(task.run, began, scores=result.scores, loss=result.loss, how=how)
    write_run(Study(task.study), task.run.id, record, result.arrays)
    return float(result.scores["nrmse"])


def _fit_baselines(study, run, split):
    """Scores and arrays of the references, of our response model, and of the synergies by their number."""
    trials, codes, seed = open_trials(study), read_codes(study, run.needs[0]), split.seed
    train, evaluate = split_of(run, split, trials["intensity_percent_rmt"].values)
    inputs, mask = trial_inputs(study, run.input)
    voxels = inputs[:, mask]
    poses = trials["pose_index"].values
    positions = open_volumes(study)["pose_matrix"].values[poses, :3, 3]
    intensity, responses = trials["intensity_percent_rmt"].values, trials["response"].values
    expected = trials["expected_response"].values if "expected_response" in trials else None
    result = fit_references(codes, voxels, positions, intensity, responses, train, evaluate, expected, seed)
    arrays, measured = result.arrays, result.arrays["measured"]
    minimum, unit = arrays["response_minimum"], arrays["response_range"]
    model = fit_response_model(voxels, positions, intensity, responses, train, evaluate, seed)
    prediction = (model.mean - minimum) / unit
    curve = vaf_curve(((responses[train] - minimum) / unit).T, None, seed)
    return result.scores | {"response_model": scores.nrmse(measured, prediction)}, arrays | {
        "prediction_response_model": prediction,
        "sd_response_model": model.sd / unit,
        "nrmse_muscle_response_model": nrmse_by_muscle(measured, prediction),
        "synergy_vaf": curve.vaf,
        "synergy_vaf_muscle": curve.vaf_muscle,
        "synergy_vaf_chance": curve.chance,
    }
