"""The stages of a study, each run by one coordinator: what is missing is found, farmed out, and recorded."""

import shutil
import time
from dataclasses import replace
from functools import partial

from .. import __version__
from ..errors import StoreError
from ..hpc.complete_results import complete_results
from ..hpc.events import EventLog
from ..hpc.executors import open_executor
from ..hpc.farm import run_stage
from ..hpc.identity import volumes_spec
from ..hpc.mpi_executor import check_ranks
from ..hpc.prepare import check_same_volumes, head_path, prepare_volumes
from ..hpc.progress import Progress
from ..hpc.sweep import check_trials
from ..hpc.trials import prepare_trials, trial_intensities
from ..zarr_store.ids import folder_id
from ..zarr_store.results import collect as collect_results
from ..zarr_store.schema import Status
from ..zarr_store.study import Study, atomic_write_text
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .options import StageResult
from .report_tables import score_lines
from .simulation import Simulation
from .training import Training


class Coordinator:
    """Runs the stages of one study; holds the study's lock while it is used in a ``with`` block.

    Parameters
    ----------
    config : StudyConfig
    options : RunOptions

    Examples
    --------
    >>> with Coordinator(config, RunOptions()) as coordinator:                    # doctest: +SKIP
    ...     print(coordinator.simulate().line())
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

            device_of("cuda")  # a GPU that is not there is told before hours of solves
        self._lock.__enter__()
        try:
            check_same_volumes(self.study, volumes_spec(self.config))
            self._clear_leftovers()
            atomic_write_text(self.study.config, self.config.text)
            self.study.logs.mkdir(exist_ok=True)
            self._events = EventLog(self.study.events)
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _clear_leftovers(self):
        """Remove what a killed run was in the middle of; only the holder of the lock may."""
        for folder in (self.study.making, self.study.scratch):
            shutil.rmtree(folder, ignore_errors=True)
        for part in self.study.cache.glob("tmp*"):
            part.unlink(missing_ok=True)

    def __exit__(self, *error):
        return self._lock.__exit__(*error)

    # ---- simulate ----------------------------------------------------------------------------------------------

    def simulate(self):
        """Find the fields of the poses that are not done, then make the trials."""
        began = time.monotonic()
        if not head_path(self.study, self.config).exists():
            self._say("simulate", "preparing head, poses and volume store; meshing a new head takes a minute or two")
        prepare_volumes(self.study, self.config)
        volumes = open_volumes(self.study)
        check_trials(self.config, trial_intensities(self.config, volumes.sizes["pose"]))
        total = volumes.sizes["pose"]
        before = int((volumes["status"].values == int(Status.DONE)).sum())
        config = replace(self.config, executor=self._executor_config)  # workers share the memory that a solver may take
        told = Simulation(self.study, config, self._events, self.options, self._farm, self._say).run()
        status = open_volumes(self.study)["status"].values
        done, failed = int((status == int(Status.DONE)).sum()), int((status == int(Status.FAILED)).sum())
        if done + failed < total:
            raise StoreError(
                f"simulating: {total - done - failed} of {total} poses are neither done nor failed after the stage, so "
                "their tasks were lost; logs/simulate.log tells why. The same command solves them again."
            )
        prepare_trials(self.study, self.config)
        self._tell_of_limits(volumes.attrs["notes"])
        seconds = time.monotonic() - began
        return StageResult(
            verb="simulate", unit="poses", done=done - before, skipped=before, failed=failed, seconds=seconds, note=told
        )

    def _tell_of_limits(self, notes):
        limit, asked = notes.get("coil_didt_max"), float(open_trials(self.study)["didt"].max())
        if limit and asked > limit:
            self._say(
                "simulate",
                f"trials ask for up to {asked * 1e-6:.0f} A/µs, but {notes['coil_name']} reaches "
                f"{limit * 1e-6:.0f} by its file; check intensities and motor threshold",
            )

    # ---- encode and train --------------------------------------------------------------------------------------

    def _training(self):
        config = replace(self.config, executor=self._executor_config)
        return Training(self.study, config, self.options, self._farm)

    def encode(self):
        """Train the autoencoders that are not done, and keep their codes."""
        return self._training().encode()

    def train(self):
        """Train the mappers that are not done: cross-validation first where asked for, then the test table."""
        return self._training().train()

    # ---- collect -----------------------------------------------------------------------------------------------

    def collect(self):
        """Build results.zarr from the records."""
        training = self._training()
        training.need_trials("collect")
        began, before = time.monotonic(), folder_id(self.study.results)
        poses = open_trials(self.study)["pose_index"].values
        complete = partial(complete_results, pose_of_trial=poses, seed=self.config.seed)
        dataset = collect_results(self.study, training.result_plan(), complete)
        status = dataset["status"].values
        done, failed = int((status == int(Status.DONE)).sum()), int((status == int(Status.FAILED)).sum())
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

    # ---- report ------------------------------------------------------------------------------------------------

    def report(self):
        """Write the report, unless the one that is there was made from the same results by the same version."""
        from .report import write_report

        began, stamp = time.monotonic(), self.study.report / "made-from.txt"
        made_from = f"{__version__} {folder_id(self.study.results)}"
        page = self.study.report / "index.html"
        fresh = page.exists() and stamp.exists() and stamp.read_text() == made_from
        if not fresh:
            page = write_report(self.study)
            atomic_write_text(stamp, made_from)
        seconds = time.monotonic() - began
        counts = {"skipped": 1} if fresh else {"done": 1}
        return StageResult(verb="report", unit="report", **counts, seconds=seconds, note=str(page))

    # ---- farm --------------------------------------------------------------------------------------------------

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
            import sys

            print(f"{verb:<9} {text}", file=sys.stderr, flush=True)
