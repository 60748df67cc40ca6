"""What the trainings of all kinds of study share: how many go at once, what is noted of them, and how they are told."""

import json
import time

from ..hpc.records import record_of
from ..zarr_store.ids import folder_id
from ..zarr_store.runs import write_failure
from ..zarr_store.schema import Status
from ..zarr_store.study import atomic_write_text
from .options import StageResult


class TrainingStage:
    """Takes the pending runs of a study to records, and the records to results.

    A kind of study gives it the stages that train, and ``_gather``.

    Parameters
    ----------
    study : Study
    config : StudyConfig or EegConfig
        With the executor in effect.
    options : RunOptions
    farm : callable
        ``farm(verb, function, tasks, unit, memory_gb, on_outcome, at_most)`` runs tasks on the study's executor.
    """

    def __init__(self, study, config, options, farm):
        self.study, self.config, self.options, self._farm = study, config, options, farm

    def _trainings_at_once(self):
        """Workers that share a GPU, where there is one and the study does not say; None for no limit of its own."""
        from ..learn.accelerator import device_of, trainings_at_once  # with torch

        executor = self.config.executor
        return None if executor.workers else trainings_at_once(device_of(executor.device))

    def _record_failure(self, task, outcome):
        if not outcome.ok:
            reason = f"{outcome.reason}: {outcome.message}"
            for run in task.runs:
                write_failure(self.study, run.id, record_of(run, time.time(), reason=reason))

    def _note_expected(self, verb, runs):
        """Keep which runs the study wants, for `status`, which may have no study file at hand."""
        path = self.study.expected
        wanted = json.loads(path.read_text()) if path.exists() else {}
        wanted[verb] = {run.id: run.name for run in runs}
        atomic_write_text(path, json.dumps(wanted, indent=1, sort_keys=True))

    def collect(self):
        """Build results.zarr from the records."""
        began, before = time.monotonic(), folder_id(self.study.results)
        states, table = self._gather()
        done, failed = (int((states == int(state)).sum()) for state in (Status.DONE, Status.FAILED))
        same = folder_id(self.study.results) == before
        return StageResult(
            verb="collect",
            unit="models",
            done=0 if same else done,
            skipped=done if same else 0,
            failed=failed,
            seconds=time.monotonic() - began,
            note=str(self.study.results),
            table=tuple(table),
        )

    def _gather(self):
        """Write the results; the `Status` of each run in them (an array), and the lines of their scores."""
        raise NotImplementedError
