"""The stage ``train``: codes to responses, one mapper (or the baselines of one input) a task."""

import time
from dataclasses import dataclass

from ..learn.cells import fit_baselines, fit_cell
from ..learn.training import MapperTraining
from ..zarr_store.codes import read_codes
from ..zarr_store.runs import read_arrays, write_run
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from .encode import SplitConfig, split_of
from .records import record_of


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """Train one mapper, or fit the baselines.

    Parameters
    ----------
    study : str
        Study folder.
    run : Run
    training : MapperTraining
    split : SplitConfig
    """

    study: str
    run: object
    training: MapperTraining
    split: SplitConfig

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
        NRMSE on the trials it was evaluated on (of ridge, for baselines).
    """
    began, study, run = time.time(), Study(task.study), task.run
    trials, codes = open_trials(study), read_codes(study, run.needs[0])
    responses = trials["response"].values
    train, evaluate = split_of(run, task.split, trials["intensity_percent_rmt"].values)
    if run.kind == "baseline":
        expected = trials["expected_response"].values if "expected_response" in trials else None
        result = fit_baselines(codes, responses, train, evaluate, expected=expected, seed=task.split.seed)
        write_run(study, run.id, record_of(run, began, scores=result.scores), result.arrays)
        return float(result.scores["ridge"])
    checkpoint = study.checkpoint(run.id)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    synergy = read_arrays(study, run.needs[1]) if len(run.needs) > 1 else None
    result = fit_cell(
        codes, responses, train, evaluate, run.cell, task.training, task.split.seed, synergy, checkpoint=checkpoint
    )
    write_run(study, run.id, record_of(run, began, scores=result.scores, loss=result.loss), result.arrays)
    return float(result.scores["nrmse"])
