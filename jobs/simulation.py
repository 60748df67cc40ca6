"""The solving part of the stage ``simulate``: by modes where the study takes them, exactly where it does not."""

import os
import time

from ..errors import ConvergenceError, PoseError
from ..hpc.bases import study_basis
from ..hpc.by_modes import memory_of_basis_gb, modes_tasks, serve_shard
from ..hpc.events import StageEvent, TaskEvent, format_clock
from ..hpc.executors import count_of, limited_threads
from ..hpc.progress import Progress
from ..hpc.simulate import shard_tasks, solve_shard, write_failed_shard
from ..hpc.solver_choice import resolved_method
from ..hpc.study_solver import head_sizes, memory_per_worker_gb, study_solver
from ..zarr_store.bases import open_basis
from ..zarr_store.schema import Method, Status
from ..zarr_store.shards import pending_shards
from ..zarr_store.volumes import open_volumes

# Elements of the default head are themselves some per cent off (docs/accuracy.md).
_SENSIBLE_TOLERANCE = 1e-4


class Simulation:
    """Takes the pending poses of a study to volumes.

    Parameters
    ----------
    study : Study
        With its volume store.
    config : StudyConfig
    events : EventLog
    options : RunOptions
    farm : callable
        ``farm(verb, function, tasks, unit, memory_gb, on_outcome)`` runs tasks on the study's executor.
    say : callable
        ``say(verb, text)`` tells the user something.

    Examples
    --------
    >>> Simulation(study, config, events, options, farm, say).run()               # doctest: +SKIP
    ''
    """

    def __init__(self, study, config, events, options, farm, say):
        self.study, self.config, self.events, self.options = study, config, events, options
        self._farm, self._say, self._told = farm, say, set()
        self.sizes = head_sizes(open_volumes(study))
        self.solver = study_solver(config, *self.sizes)
        self.by_modes = resolved_method(config)

    def run(self):
        """Find the field of every pending pose; gives what is worth saying of it."""
        modes = self.by_modes.method == "modes"
        shards = self._pending()
        if shards and modes and self._serve(shards):
            shards = self._pending()
        if shards:
            self._solve(shards, modes)
        return self._served() if modes else ""

    def _pending(self):
        return pending_shards(self.study, self.options.retry_failed)

    def _serve(self, shards):
        """Whether there is a basis, and all that it can serve is served."""
        tolerance = self.config.solver.tolerance
        self._say("simulate", f"by modes, to {100 * tolerance:g} % in the brain: {self.by_modes.reason}")
        if tolerance < _SENSIBLE_TOLERANCE:
            self._say(
                "simulate",
                f"a tolerance of {tolerance:.1g} costs modes and buys nothing: the mesh itself is "
                "off by much more (docs/accuracy.md); 0.001 is plenty",
            )
        try:
            basis = self._basis()
        except (PoseError, ConvergenceError) as error:
            if self.config.solver.kind == "modes":
                raise
            self._say("simulate", f"no basis of modes for these poses, so that all are solved exactly: {error}")
            return False
        tasks = modes_tasks(self.study, self.config, shards, basis)
        memory = memory_of_basis_gb(self.config, basis)
        lost = []
        self._farm("simulate", serve_shard, tasks, "poses", memory, lambda *ended: self._note_served(lost, *ended))
        left = open_volumes(self.study)["status"].values == int(Status.PENDING)
        for task in lost:
            left[task.start : task.stop] = False
        if left.any():
            text = f"{left.sum()} poses are outside the basis's region or over the tolerance: solved exactly"
            self._say("simulate", text)
        return True

    def _note_served(self, lost, task, outcome):
        if not outcome.ok:
            lost.append(task)
            self._say_once(
                outcome.reason, f"{task.name}: {outcome.reason}: {outcome.message.rstrip('.')}; solved exactly"
            )

    def _say_once(self, about, text):
        if about not in self._told:
            self._told.add(about)
            self._say("simulate", text)

    def _solve(self, shards, modes):
        solver = self.solver
        if modes:
            # Few may be left, not worth a factor. Those solved already count, so that an interruption changes nothing.
            rest = int((open_volumes(self.study)["method"].values != int(Method.MODES)).sum())
            solver = study_solver(self.config, *self.sizes, n_poses=rest)
        self._say("simulate", f"{self.sizes[0]:,} unknowns, {solver.kind} solver: {solver.reason}")
        tasks = shard_tasks(self.study, self.config, shards, solver.kind, keep_modes=modes)
        memory = memory_per_worker_gb(self.config, solver.kind, *self.sizes)
        self._farm("simulate", solve_shard, tasks, "poses", memory, self._note_shard)

    def _note_shard(self, task, outcome):
        if not outcome.ok:
            write_failed_shard(task, f"{outcome.reason}: {outcome.message}")
        elif outcome.value.note and outcome.pid != os.getpid():  # this process's own solver has warned by itself
            self._say_once(outcome.value.note, outcome.value.note)

    def _basis(self):
        """The study's basis, found or made; its path."""
        on_slurm = self.config.executor.kind == "slurm"
        threads = self.config.slurm.driver.cpus if on_slurm else threads_of(self.config.executor)
        with _BasisProgress(self.events, self.options.quiet, threads) as progress, limited_threads(threads):
            kind = study_solver(self.config, *self.sizes, alone=True).kind
            basis = study_basis(self.study, self.config, kind, progress.tell)
        held = open_basis(basis.path)
        how = f"made in {format_clock(basis.seconds)}" if basis.made else "found"
        self._say(
            "simulate",
            f"basis {how}: {held.sizes['mode']} modes, {held.sizes['point']} sample points, held-out error "
            f"{float(held['heldout_errors'].max()):.2%} at most ({basis.path})",
        )
        return basis.path

    def _served(self):
        method = open_volumes(self.study)["method"].values
        served = int((method == int(Method.MODES)).sum())
        exact = int(((method == int(Method.DIRECT)) | (method == int(Method.ITERATIVE))).sum())
        return f"{served} by modes, {exact} solved exactly"


def threads_of(executor):
    """Threads of a basis in the making: those of all workers, which wait for it, or all cores of this machine.

    Parameters
    ----------
    executor : ExecutorConfig

    Returns
    -------
    int

    Examples
    --------
    >>> threads_of(ExecutorConfig(workers=4, threads=2))
    8
    """
    if executor.workers:
        return executor.threads * executor.workers
    # macOS has no affinity of processes.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _BasisProgress:
    """Shows a basis in the making as a stage; shows nothing where one is found."""

    def __init__(self, events, quiet, threads):
        self.events, self.progress = events, Progress(quiet=quiet)
        self.where = f"this process, {count_of(threads, 'thread')}"
        self.shown, self.done, self.began, self.total = None, 0, time.monotonic(), 0

    def __enter__(self):
        return self

    def tell(self, told):
        """Show how far it is."""
        if self.shown is None:
            started = self._event("started", told.total)
            self.events.write(started)
            self.shown = self.progress.stage(started)
            self.shown.__enter__()
        if told.total != self.total:
            self.progress.foresee(told.total)
        if told.done > self.done:
            size = told.done - self.done
            self.progress.update(TaskEvent(verb="basis", task=told.doing, status="done", size=size))
        self.done, self.total = told.done, told.total

    def _event(self, state, total, reason=""):
        seconds = round(time.monotonic() - self.began, 3)
        return StageEvent(
            verb="basis",
            state=state,
            total=total,
            unit="poses",
            done=self.done,
            seconds=seconds,
            executor=self.where,
            reason=reason,
        )

    def __exit__(self, kind, error, traceback):
        if self.shown is None:
            return
        self.shown.__exit__(kind, error, traceback)
        state, reason = ("stopped", f"{kind.__name__}: {error}") if error is not None else ("finished", "")
        self.events.write(self._event(state, self.total, reason))
