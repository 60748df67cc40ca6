"""The training stages: which runs of the sweep are done, which can go now, and what becomes of each."""

import time
from functools import partial

from ..errors import StoreError
from ..hpc.complete_results import complete_results
from ..hpc.encode import EncodeTask, SplitConfig, encode_run
from ..hpc.identity import autoencoder_training, mapper_training
from ..hpc.records import record_of
from ..hpc.sweep import Sweep, check_trials, validation_score
from ..hpc.train import TrainTask
from ..hpc.train_fused import group_mappers, train_any
from ..hpc.trials import expected_trials_id
from ..zarr_store.codes import has_codes
from ..zarr_store.results import ResultPlan
from ..zarr_store.results import collect as collect_results
from ..zarr_store.runs import read_record, run_state, write_failure
from ..zarr_store.schema import Status
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .options import StageResult
from .report_tables import score_lines
from .training_cost import measured_seconds, training_seconds
from .training_stage import TrainingStage

_BUILDS_ON = "it builds on run"


class Training(TrainingStage):
    """Takes the pending runs of a study's sweep to records, and the records to results.

    Parameters
    ----------
    study : Study
    config : StudyConfig
        With the executor in effect.
    options : RunOptions
    farm : callable
        ``farm(verb, function, tasks, unit, memory_gb, on_outcome, at_most)`` runs tasks on the study's executor.

    Examples
    --------
    >>> Training(study, config, options, farm).train().line()                     # doctest: +SKIP
    'train     36 trainings done in 182.0 s'
    """

    def sweep(self):
        """All runs of the study, for the trials that it has."""
        return Sweep(self.config, expected_trials_id(self.study, self.config))

    def encode(self):
        """Train the autoencoders that are not done, and keep their codes."""
        self.need_trials("encode")
        training, common = autoencoder_training(self.config), self._common()
        make = lambda run: EncodeTask(  # noqa: E731 - one line of wiring
            study=str(self.study.folder), run=run, training=training, **common
        )
        return self._train_all("encode", encode_run, make, self._autoencoder_waves, "autoencoders")

    def train(self):
        """Train the mappers that are not done: cross-validation first where asked for, then the test table."""
        self.need_trials("train")
        training, common = mapper_training(self.config), self._common()
        make = lambda run: TrainTask(  # noqa: E731 - one line of wiring
            study=str(self.study.folder), run=run, training=training, **common
        )
        gather = group_mappers if self._trains_on_gpu() else list
        return self._train_all("train", train_any, make, self._mapper_waves, "trainings", gather)

    def _trains_on_gpu(self):
        from ..learn.accelerator import device_of  # with torch

        executor = self.config.executor
        return not executor.deterministic and device_of(executor.device).type == "cuda"

    def _common(self):
        """What all training tasks are given: the splits, and where they run."""
        validation, executor = self.config.validation, self.config.executor
        split = SplitConfig(test_fraction=validation.test_fraction, folds=validation.folds, seed=self.config.seed)
        return {"split": split, "device": executor.device, "deterministic": executor.deterministic}

    def need_trials(self, verb):
        """Refuse to learn from trials that are not there, of other settings, or too few.

        Raises
        ------
        StoreError, InputError
        """
        trials = open_trials(self.study) if self.study.trials.exists() else None
        held = trials.attrs.get("id") if trials is not None else None
        if held != expected_trials_id(self.study, self.config):
            found = "there are no trials yet" if held is None else "the trials were made with other settings"
            raise StoreError(
                f"{verb}: {found}, so what is learned from them would stand under a wrong name; "
                f"`motorsweep simulate {self.config.path}` makes them, `motorsweep run` does all that is needed."
            )
        check_trials(self.config, trials["intensity_percent_rmt"].values)

    def _autoencoder_waves(self, sweep):
        return sweep.autoencoders

    def _mapper_waves(self, sweep):
        """Runs that can be named now: more of them can once the cross-validation is over."""
        chosen = sweep.choose(self._score)
        runs = sweep.validation + [run for run in sweep.final(chosen).values() if run] + list(sweep.curve().values())
        runs = runs + sweep.below(runs) + sweep.baselines + sweep.curve_baselines
        return list({run.id: run for run in runs}.values())

    def _score(self, run_id):
        return validation_score(self.study, run_id)

    def _train_all(self, verb, function, make, waves, unit, gather=list):
        """Train in waves, each of what has all that it needs, until nothing more can be trained."""
        # A task holds the inputs of all trials and a scaled or masked copy (mappers less: the predictors beside them).
        memory = 2.0 + 2 * open_trials(self.study).sizes["trial"] * self.config.volume.n**3 * 4 / 1e9
        began, sweep = time.monotonic(), self.sweep()
        state, done, skipped, retried = {}, 0, None, set()
        while True:
            runs = waves(sweep)
            self._note_expected(verb, runs)
            for run in runs:
                if run.id not in state:
                    state[run.id] = self._state(run)
                if self.options.retry_failed and state[run.id] is Status.FAILED and run.id not in retried:
                    state[run.id] = Status.PENDING
                    retried.add(run.id)
            if skipped is None:
                skipped = sum(state[run.id] is Status.DONE for run in runs)
            ready = self._ready(runs, state)
            if not ready:
                break
            tasks = gather([make(run) for run in ready])
            self._farm(verb, function, tasks, unit, memory, self._record_failure, self._trainings_at_once())
            for run in ready:
                state[run.id] = run_state(self.study, run.id)
                done += state[run.id] is Status.DONE
        failed = sum(state[run.id] is Status.FAILED for run in runs)
        return StageResult(
            verb=verb, unit=unit, done=done, skipped=skipped, failed=failed, seconds=time.monotonic() - began
        )

    def _state(self, run):
        """State of a run; an autoencoder without its codes is to be trained on from its checkpoint, which is cheap."""
        state = run_state(self.study, run.id)
        if run.kind == "autoencoder" and state is Status.DONE and not has_codes(self.study, run.id):
            return Status.PENDING
        if state is Status.FAILED and _BUILDS_ON in read_record(self.study, run.id)["reason"]:
            return Status.PENDING  # whether it can be trained is found anew: what it builds on may have been mended
        return state

    def _ready(self, runs, state):
        """Pending runs whose needs are done; a run below which something failed is recorded as failed."""
        ready = []
        for run in runs:
            if state[run.id] is not Status.PENDING:
                continue
            needs = [state[need] if need in state else run_state(self.study, need) for need in run.needs]
            if Status.FAILED in needs:
                below = run.needs[needs.index(Status.FAILED)]
                reason = f"bad_input: {_BUILDS_ON} {below}, which failed (`motorsweep show STUDY {below}`)"
                write_failure(self.study, run.id, record_of(run, time.time(), reason=reason))
                state[run.id] = Status.FAILED
            elif all(need is Status.DONE for need in needs):
                ready.append(run)
        # Long ones first, so that no worker is left with a long one at the end.
        trials, measured = open_trials(self.study).sizes["trial"], measured_seconds(self.study)
        return sorted(ready, key=lambda run: -training_seconds(run, self.config, trials, measured))

    def collect(self):
        """Build results.zarr from the records."""
        self.need_trials("collect")
        return super().collect()

    def _gather(self):
        poses = open_trials(self.study)["pose_index"].values
        complete = partial(complete_results, pose_of_trial=poses, seed=self.config.seed)
        dataset = collect_results(self.study, self.result_plan(), complete)
        return dataset["status"].values, score_lines(dataset)

    def result_plan(self):
        """Which run fills which cell of the results."""
        sweep, trials = self.sweep(), open_trials(self.study)
        chosen = sweep.choose(self._score)
        runs = {cell: run and run.id for cell, run in sweep.final(chosen).items()}
        runs |= {(run.input, run.repeat): run.id for run in sweep.baselines}
        runs |= {(run.input, run.repeat, run.trials): run.id for run in sweep.curve_baselines}
        runs |= {cell: run.id for cell, run in sweep.curve().items()}
        for run in sweep.validation:
            cell = run.cell
            at = (run.input, cell.depth, cell.connection, run.repeat, run.fold)
            runs[*at, *(getattr(cell, name) for name in sweep.grid)] = run.id
        volumes = open_volumes(self.study).attrs
        return ResultPlan(
            inputs=tuple(sweep.inputs),
            depths=tuple(sweep.depths),
            connections=tuple(sweep.connections),
            repeats=tuple(sweep.repeats),
            muscles=tuple(map(str, trials["muscle"].values)),
            folds=tuple(sweep.folds),
            grid=sweep.grid,
            trials=sweep.curve_trials,
            runs=runs,
            attrs={
                "study": self.config.name,
                "protocol": self.config.protocol,
                "seed": self.config.seed,
                "trials_id": trials.attrs["id"],
                "volumes_id": volumes["volumes_id"],
                "head": volumes["notes"]["head_name"],
                "coil": volumes["notes"]["coil_name"],
            },
        )
