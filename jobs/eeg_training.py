"""Train and collect of an eeg study: which runs are missing, who trains them, and what becomes of their records."""

import time
from functools import partial

import numpy as np

from ..errors import StoreError
from ..hpc.emg_comparison import complete_emg_results
from ..hpc.emg_names import MODELS, NO_OPTIMIZER
from ..hpc.emg_sweep import EmgRecords, EmgSweep, network_training
from ..hpc.emg_train import EmgTrainTask, train_emg_run
from ..zarr_store.emg_results import EmgPlan, collect_emg
from ..zarr_store.features import open_features
from ..zarr_store.runs import run_state
from ..zarr_store.schema import Status
from .eeg_score_tables import score_lines
from .options import StageResult
from .training_stage import TrainingStage

_BYTES_OF_A_PROCESS = 1.0e9  # Python with torch


class EegTraining(TrainingStage):
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
        self._note_expected("train", sweep.runs)
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

    def _gather(self):
        complete = partial(complete_emg_results, seed=self.config.seed)
        dataset = collect_emg(self.study, self.plan(self.sweep()), open_features(self.study), complete)
        return dataset["status"].values[dataset["run_id"].values != ""], score_lines(dataset)

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
                "impossible": sweep.impossible,
                "network": vars(self.config.network),
                "features": {key: features[key] for key in features.get("identity", [])},
            },
        )


def impossible_words(impossible):
    """Say which splits or networks the records do not allow, and why; empty where they allow all."""
    return "; ".join(f"not made: {reason.removesuffix('.')}" for reason in impossible.values())
