"""Train and collect of an eeg study: which runs are missing, who trains them, and what becomes of their records."""

import json
import time
from functools import partial

import numpy as np

from ..errors import StoreError
from ..hpc.emg_comparison import complete_emg_results
from ..hpc.emg_names import MODELS, NO_OPTIMIZER
from ..hpc.emg_sweep import EmgRecords, EmgSweep, network_training
from ..hpc.emg_train import EmgTrainTask, train_emg_run
from ..hpc.records import record_of
from ..zarr_store.emg_results import EmgPlan, collect_emg
from ..zarr_store.features import open_features
from ..zarr_store.ids import folder_id
from ..zarr_store.runs import run_state, write_failure
from ..zarr_store.schema import Status
from ..zarr_store.study import atomic_write_text
from .eeg_score_tables import score_lines
from .options import StageResult

_BYTES_OF_A_PROCESS = 1.0e9  # Python with torch


class EegTraining:
    """Takes the pending runs of an eeg study to records, and the records to results.

    Parameters
    ----------
    study : Study
    config : EegConfig
        With the executor in effect.
    options : RunOptions
    farm : callable
        ``farm(verb, function, tasks, unit, memory_gb, on_outcome, at_most)`` runs tasks on the study's executor.

    Examples
    --------
    >>> EegTraining(study, config, options, farm).train().line()                  # doctest: +SKIP
    'train     204 trainings done in 96.0 s'
    """

    def __init__(self, study, config, options, farm):
        self.study, self.config, self.options, self._farm = study, config, options, farm

    def sweep(self):
        """All runs of the study, for the features that it has.

        Raises
        ------
        StoreError
            Where there are no features, or some of them are still to be made.
        InputError
            Where they allow none of the splits.
        """
        features = open_features(self.study)
        pending = int((features["status"].values == int(Status.PENDING)).sum())
        if pending:
            raise StoreError(
                f"planning the trainings: the connectivity of {pending} of {features.sizes['record']} records is still "
                f"to be computed, and every model would be another one with them. `motorsweep simulate "
                f"{self.config.path}` goes on, `motorsweep run` does all that is needed."
            )
        return EmgSweep(self.config, EmgRecords.of(features))

    def train(self):
        """Train the networks, and fit the predictors beside them, that are not done."""
        began, sweep = time.monotonic(), self.sweep()
        self._note_expected(sweep.runs)
        before = {run.id: run_state(self.study, run.id) for run in sweep.runs}
        ready = [run for run in sweep.runs if self._to_do(before[run.id])]
        self._farm(
            "train", train_emg_run, [self._task(run) for run in self._dearest_first(ready)], "trainings",
            self._memory_gb(), self._record_failure, self._trainings_at_once(),
        )  # fmt: skip
        after = [run_state(self.study, run.id) for run in sweep.runs]
        return StageResult(
            verb="train",
            unit="trainings",
            done=sum(run_state(self.study, run.id) is Status.DONE for run in ready),
            skipped=sum(state is Status.DONE for state in before.values()),
            failed=sum(state is Status.FAILED for state in after),
            seconds=time.monotonic() - began,
            note=impossible_words(sweep.impossible),
        )

    def _to_do(self, state):
        return state is Status.PENDING or (state is Status.FAILED and self.options.retry_failed)

    def _dearest_first(self, runs):
        # So that no worker is left with a long one at the end.
        return sorted(runs, key=lambda run: (run.kind != "network", -len(run.split.train)))

    def _task(self, run):
        executor = self.config.executor
        return EmgTrainTask(
            study=str(self.study.folder),
            run=run,
            training=network_training(self.config, run.model, run.optimizer) if run.optimizer != NO_OPTIMIZER else None,
            device=executor.device,
            deterministic=executor.deterministic,
        )

    def _memory_gb(self):
        features = open_features(self.study)["eeg_connectivity"]
        return (_BYTES_OF_A_PROCESS + 8 * 8 * features.size) / 1e9  # float64, and a few copies in the decompositions

    def _trainings_at_once(self):
        """Workers that share a GPU, where there is one and the study does not say; None for no limit of its own."""
        from ..learn.accelerator import device_of, trainings_at_once  # with torch

        executor = self.config.executor
        return None if executor.workers else trainings_at_once(device_of(executor.device))

    def _record_failure(self, task, outcome):
        if not outcome.ok:
            for run in task.runs:
                reason = f"{outcome.reason}: {outcome.message}"
                write_failure(self.study, run.id, record_of(run, time.time(), reason=reason))

    def _note_expected(self, runs):
        """Keep which runs the study wants, for `status`, which may have no study file at hand."""
        path = self.study.expected
        wanted = json.loads(path.read_text()) if path.exists() else {}
        wanted["train"] = {run.id: run.name for run in runs}
        atomic_write_text(path, json.dumps(wanted, indent=1, sort_keys=True))

    def collect(self):
        """Build results.zarr from the records."""
        began, before, sweep = time.monotonic(), folder_id(self.study.results), self.sweep()
        complete = partial(complete_emg_results, seed=self.config.seed)
        dataset = collect_emg(self.study, self.plan(sweep), open_features(self.study), complete)
        planned = dataset["status"].values[dataset["run_id"].values != ""]
        done, failed = int((planned == int(Status.DONE)).sum()), int((planned == int(Status.FAILED)).sum())
        same = folder_id(self.study.results) == before
        return StageResult(
            verb="collect",
            unit="models",
            done=0 if same else done,
            skipped=done if same else 0,
            failed=failed,
            seconds=time.monotonic() - began,
            note=str(self.study.results),
            table=tuple(score_lines(dataset)),
        )

    def plan(self, sweep):
        """Which run fills which cell of the results.

        Parameters
        ----------
        sweep : EmgSweep

        Returns
        -------
        EmgPlan
        """
        models = {run.model for run in sweep.runs}
        features = open_features(self.study).attrs
        return EmgPlan(
            models=tuple(name for name in MODELS if name in models),
            optimizers=(*sweep.optimizers, NO_OPTIMIZER),
            splits=tuple(sweep.splits),
            folds=tuple(np.unique([split.fold for splits in sweep.splits.values() for split in splits]).tolist()),
            runs={run.cell: run.id for run in sweep.runs},
            attrs={
                "study": self.config.name,
                "seed": self.config.seed,
                "features_id": features["id"],
                "impossible_splits": sweep.impossible,
                "network": vars(self.config.network),
                "features": {key: features[key] for key in features.get("identity", [])},
            },
        )


def impossible_words(impossible):
    """Say which splits the records do not allow, and why; empty where they allow all."""
    return "; ".join(f"not made: {reason}" for reason in impossible.values())
