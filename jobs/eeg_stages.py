"""The stages of a study of EEG and EMG: records to connectivity, connectivity to networks and predictors."""

import time
from dataclasses import replace

from ..errors import StoreError
from ..hpc.channel_sets import faulty_channels, listed
from ..hpc.connect_records import connect_shard, write_failed_records
from ..hpc.eeg_identity import check_same_features, rows_before, study_records
from ..hpc.prepare_records import memory_per_worker_gb, prepare_features, record_tasks
from ..zarr_store.features import open_features, pending_feature_shards, read_feature_status
from ..zarr_store.schema import Status
from .options import StageResult
from .stage_runner import StageRunner


class EegCoordinator(StageRunner):
    """Runs the stages of one study of EEG and EMG; holds the study's lock while it is used in a ``with`` block.

    Parameters
    ----------
    config : EegConfig
    options : RunOptions

    Examples
    --------
    >>> with EegCoordinator(config, RunOptions()) as coordinator:                 # doctest: +SKIP
    ...     print(coordinator.simulate().line())
    """

    def _check_same(self):
        self._records = study_records(self.study, self.config)
        self._same = check_same_features(self.study, self._records)

    def simulate(self):
        """Read, clean and connect the records that are not done."""
        began = time.monotonic()
        prepare_features(self.study, self.config, self._records, self._same)
        for note in self._records.notes:
            self._say("simulate", note)
        self._same, retry = True, self.options.retry_failed
        before = int((read_feature_status(self.study) == int(Status.DONE)).sum())
        shards = pending_feature_shards(self.study, retry)
        tasks = record_tasks(self.study, self.config, self._records, shards, retry)
        memory = memory_per_worker_gb(self.config, self._records) if tasks else 0
        self._farm("simulate", connect_shard, tasks, "records", memory, _note_shard)
        status = read_feature_status(self.study)
        done, failed = (int((status == int(state)).sum()) for state in (Status.DONE, Status.FAILED))
        if done + failed < len(status):
            raise StoreError(
                f"simulating: {len(status) - done - failed} of {len(status)} records are neither done nor failed after "
                "the stage, so their tasks were lost; logs/simulate.log tells why. The same command does them again."
            )
        seconds = time.monotonic() - began
        return StageResult(
            verb="simulate",
            unit="records",
            done=done - before,
            skipped=before,
            failed=failed,
            seconds=seconds,
            note=self._advice(status) if failed else "",
        )

    def _advice(self, status):
        """Which channels to leave out of the study, where records failed that have faulty ones, and what that takes."""
        notes = open_features(self.study)["notes"].values.astype(str)
        names, counts = faulty_channels(notes[status == int(Status.FAILED)]), faulty_channels(notes)
        if not names:
            return ""
        found = listed([f"{name} in {counts[name]}" for name in names])
        drop = "[records] drop_channels = [" + ", ".join(f'"{name}"' for name in names) + "]"
        told = f"records that failed have faulty channels ({found} of {len(notes)} records)"
        if not (status == int(Status.DONE)).any():
            return f"{told}; without them: {drop}"
        return (
            f"{told}; the study goes on without these records, or, under another name, without these channels in any "
            f"record: {drop}"
        )

    def encode(self):
        """Nothing: the connectivity matrices are the codes."""
        return StageResult(verb="encode", nothing="the connectivity matrices are the codes")

    def train(self):
        """Train the networks that are not done, and fit the predictors beside them."""
        return self._training("train").train()

    def collect(self):
        """Build results.zarr from the records of the trainings."""
        return self._training("collect").collect()

    def _training(self, verb):
        came = 0 if self._same else self._came()
        if came:
            self._say(verb, f"{came} recordings came since `simulate`, and are not in this; `motorsweep run` adds them")
        elif not self._same:
            raise StoreError(
                f"{verb}: there are no features of these records and settings yet; `motorsweep simulate "
                f"{self.config.path}` makes them, `motorsweep run` does all that is needed."
            )
        from .eeg_training import EegTraining  # with torch, which `simulate` does without

        config = replace(self.config, executor=self._executor_config)
        return EegTraining(self.study, config, self.options, self._farm)

    def _came(self):
        """Records that came since the features were made, where nothing else is another."""
        rows = rows_before(self.study, self._records)
        return int((rows < 0).sum()) if (rows >= 0).any() else 0

    def _write_report(self):
        from .eeg_report import write_eeg_report

        return write_eeg_report(self.study)


def _note_shard(task, outcome):
    if not outcome.ok:
        write_failed_records(task, f"{outcome.reason}: {outcome.message}")
