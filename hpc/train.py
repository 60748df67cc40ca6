"""The stage ``train``: codes to responses, one mapper (or the predictors without a network of one input) a task."""

import time
from dataclasses import dataclass

from ..learn import scores
from ..learn.accelerator import accelerator_of
from ..learn.cells import fit_cell, nrmse_by_muscle
from ..learn.protocols import MapperTraining
from ..learn.references import fit_references
from ..learn.response_model import fit_response_model
from ..learn.synergy import vaf_curve
from ..zarr_store.codes import read_codes
from ..zarr_store.runs import read_arrays, write_run
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .encode import SplitConfig, split_of, trial_inputs
from .records import record_of


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """Train one mapper, or fit the predictors without a network.

    Parameters
    ----------
    study : str
        Study folder.
    run : Run
    training : MapperTraining
    split : SplitConfig
    device, deterministic
        As in `ExecutorConfig`.
    """

    study: str
    run: object
    training: MapperTraining
    split: SplitConfig
    device: str = "auto"
    deterministic: bool = True

    @property
    def name(self):
        """What messages call it."""
        return self.run.name


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
    trials, codes = open_trials(study), read_codes(study, run.needs[0])
    responses = trials["response"].values
    train, evaluate = split_of(run, task.split, trials["intensity_percent_rmt"].values)
    if run.kind == "baseline":
        found, arrays = _fit_baselines(study, run, codes, trials, train, evaluate, task.split.seed)
        write_run(study, run.id, record_of(run, began, scores=found), arrays)
        return float(found["ridge"])
    checkpoint = study.checkpoint(run.id)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    synergy = read_arrays(study, run.needs[1]) if len(run.needs) > 1 else None
    accelerator = accelerator_of(task.device, deterministic=task.deterministic)
    how = {"checkpoint": checkpoint, "accelerator": accelerator}
    seed = task.split.seed
    result = fit_cell(codes, responses, train, evaluate, run.cell, task.training, seed, synergy, **how)
    record = record_of(run, began, scores=result.scores, loss=result.loss, device=str(accelerator.device))
    write_run(study, run.id, record, result.arrays)
    return float(result.scores["nrmse"])


def _fit_baselines(study, run, codes, trials, train, evaluate, seed):
    """Scores and arrays of the references, of our response model, and of the synergies by their number."""
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
