"""What the coordinators of all kinds of study share: the lock, the farm, the report, and what is told to the user."""

import shutil
import sys
import time
from dataclasses import replace

from .. import __version__
from ..errors import StoreError
from ..hpc.events import EventLog
from ..hpc.executors import open_executor
from ..hpc.farm import run_stage
from ..hpc.mpi_executor import check_ranks
from ..hpc.progress import Progress
from ..zarr_store.atomic import put_back
from ..zarr_store.ids import folder_id
from ..zarr_store.study import Study, atomic_write_text
from .options import StageResult


class StageRunner:
    """Holds a study's lock while it is used in a ``with`` block, and runs the tasks of its stages.

    A kind of study gives it ``_check_same`` and ``_write_report``, and the stages.

    Parameters
    ----------
    config : StudyConfig
    options : RunOptions
    """

    def __init__(self, config, options):
        self.config, self.options = config, options
        self.study = Study(config.folder)
        self._lock = self.study.lock()
        self._executor_config = replace(
            config.executor,
            kind=options.executor or config.executor.kind,
            workers=config.executor.workers if options.workers is None else options.workers,
        )

    def __enter__(self):
        check_ranks(self._executor_config)
        if self._executor_config.device == "cuda":
            from ..learn.accelerator import device_of  # with torch

            device_of("cuda")  # a GPU that is not there is told before hours of work
        self._lock.__enter__()
        try:
            self._check_kind()
            for store in (self.study.features, self.study.results):
                put_back(self.study.making, store)
            self._check_same()
            self._clear_leftovers()
            atomic_write_text(self.study.config, self.config.text)
            self.study.logs.mkdir(exist_ok=True)
            self._events = EventLog(self.study.events)
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _check_kind(self):
        """Refuse to mix two kinds of study in one folder: the commands could not tell whose trainings are whose."""
        if self.study.config.exists() and self.study.kind != self.config.kind:
            raise StoreError(
                f"beginning a study of the kind {self.config.kind!r} in {self.study.folder}: it holds one of the kind "
                f"{self.study.kind!r}. Give the study another name or folder"
            )

    def _check_same(self):
        """Refuse to go on in a folder that was begun with other settings."""
        raise NotImplementedError

    def _clear_leftovers(self):
        """Remove what a killed run was in the middle of; only the holder of the lock may."""
        for folder in (self.study.making, self.study.scratch):
            shutil.rmtree(folder, ignore_errors=True)
        for part in self.study.cache.glob("tmp*"):
            part.unlink(missing_ok=True)

    def __exit__(self, *error):
        return self._lock.__exit__(*error)

    def report(self):
        """Write the report, unless the one that is there was made from the same results by the same version."""
        began, stamp = time.monotonic(), self.study.report / "made-from.txt"
        made_from = f"{__version__} {folder_id(self.study.results)}"
        page = self.study.report / "index.html"
        fresh = page.exists() and stamp.exists() and stamp.read_text() == made_from
        if not fresh:
            page = self._write_report()
            atomic_write_text(stamp, made_from)
        seconds = time.monotonic() - began
        counts = {"skipped": 1} if fresh else {"done": 1}
        return StageResult(verb="report", unit="report", **counts, seconds=seconds, note=str(page))

    def _write_report(self):
        """Write the report; its page."""
        raise NotImplementedError

    def _farm(self, verb, function, tasks, unit, memory_gb, on_outcome=None, at_most=None):
        if not tasks:
            return
        scratch = self.study.scratch
        progress = Progress(quiet=self.options.quiet)
        try:
            with open_executor(
                self._executor_config,
                scratch=scratch,
                log=self.study.logs / f"{verb}.log",
                memory_per_worker_gb=memory_gb,
                at_most=min(len(tasks), at_most or len(tasks)),
                slurm=self.config.slurm,
                study=self.study,
                verb=verb,
            ) as executor:
                run_stage(verb, function, tasks, executor, self._events, progress, unit, on_outcome=on_outcome)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _say(self, verb, text):
        if not self.options.quiet:
            print(f"{verb:<9} {text}", file=sys.stderr, flush=True)
