"""Tasks on worker processes of this machine, by Dask.

Dask schedules, starts again workers that died, and serves the dashboard; nothing listens but on the loopback. This
module adds what a sweep needs: few tasks in flight, results let go of as they come, and a dead worker blamed on the
task that killed it and on no other.
"""

import logging
import os
import queue
import shutil
import signal
import tempfile
from collections import deque
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster
from distributed.system import MEMORY_LIMIT

from ..errors import MotorsweepError
from ..sim.solver_memory import free_bytes
from .executors import THREAD_VARIABLES, automatic_workers, count_of, limited_threads
from .outcomes import Outcome, attempt, task_name

IN_FLIGHT_PER_WORKER = 2
"""One task runs and one waits, so that no worker idles between two tasks."""

ATTEMPTS_ALONE = 2
"""How often a task whose worker died is run again with nothing else in flight, before it counts as failed."""

NO_WORKER_SECONDS = 120.0
"""How long a run waits for a worker when all are dead."""

_POLL_SECONDS = 2.0

# All those that Dask gives a handler of their own.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado", "tornado.application")

# Runs in each worker before its first task. Ctrl-C reaches all processes of a terminal, and only the coordinator may
# act on it, as it knows what to close in which order. Libraries such as PETSc write to the descriptors themselves.
_WORKER_SETUP = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
os.dup2(log, 1)
os.dup2(log, 2)
"""


class LocalExecutor:
    """Runs tasks on the workers of a Dask cluster of this machine."""

    def __init__(self, client, *, workers, threads, dashboard, log, deaths):
        self.client, self.workers, self.threads = client, workers, threads
        self.log, self._deaths = log, deaths
        self.dashboard = client.cluster.dashboard_link if dashboard else None
        self._serial_number = count()

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        return f"local: {count_of(self.workers, 'worker')} x {count_of(self.threads, 'thread')}"

    def run(self, function, tasks):
        """Yield ``(task, outcome)`` as tasks end; tasks are taken from the iterable only as there is room for them.

        A task that was on a worker when it died is set aside and run again alone after all others, so that a task
        that kills its worker cannot take its neighbours with it.
        """
        suspects = []
        for task, outcome in self._stream(function, tasks, limit=IN_FLIGHT_PER_WORKER * self.workers):
            if outcome is None:
                suspects.append(task)
            else:
                yield task, outcome
        for task in suspects:
            yield task, self._run_alone(function, task)

    def _run_alone(self, function, task):
        memory_kills = len(self._memory_kills())
        for _ in range(ATTEMPTS_ALONE):
            ((_, outcome),) = self._stream(function, [task], limit=1)
            if outcome is not None:
                return outcome
        by_memory = len(self._memory_kills()) > memory_kills
        finding = "it went over the memory of a worker" if by_memory else self._deaths.last()
        return Outcome(
            reason="out_of_memory" if by_memory else "crashed",
            message=f"{task_name(task)}: the worker died {ATTEMPTS_ALONE} times while it ran this task and no other "
            f"task ran ({finding}). The other tasks are unharmed. "
            f'The workers\' output is in {self.log}; kind = "serial" in [executor] runs it under your eyes.',
            pid=0,
        )

    def _memory_kills(self):
        return self.client.get_events("worker-restart-memory")

    def _stream(self, function, tasks, limit):
        """Yield ``(task, outcome)``, or ``(task, None)`` where the worker died, with at most ``limit`` in flight."""
        ended = queue.SimpleQueue()
        flying = {}
        waiting = iter(tasks)
        try:
            while True:
                self._fill(flying, function, waiting, limit, ended)
                if not flying:
                    return
                future = self._next(ended)
                task = flying.pop(future.key)[0]
                yield task, _outcome_of(future)
        finally:
            if flying:
                self.client.cancel([future for _, future in flying.values()], force=True)

    def _fill(self, flying, function, waiting, limit, ended):
        while len(flying) < limit:
            try:
                task = next(waiting)
            except StopIteration:
                return
            # The number makes the key new: Dask would hand back the old result of a key that it still knows.
            key = f"{getattr(function, '__name__', 'task')}-{next(self._serial_number)}"
            future = self.client.submit(attempt, function, task, key=key, pure=False)
            flying[key] = (task, future)
            future.add_done_callback(ended.put)

    def _next(self, ended):
        """Wait for a task to end, but not for ever when no worker is left."""
        waited = 0.0
        while True:
            try:
                return ended.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                waited = 0.0 if self.client.cluster.scheduler.workers else waited + _POLL_SECONDS
            if waited >= NO_WORKER_SECONDS:
                raise MotorsweepError(
                    f"{self.describe()}: no worker has come back for {NO_WORKER_SECONDS:.0f} s "
                    f"({self._deaths.last()}). What was finished is kept. Their output is in {self.log}."
                )


def _outcome_of(future):
    try:
        return future.result()
    except KilledWorker:
        return None
    finally:
        future.release()


class _Deaths(logging.Handler):
    """Remembers how workers ended, which Dask says only in its log."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.found = deque(maxlen=10)

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("Worker process"):
            self.found.append(text[0].lower() + text[1:])

    def last(self):
        return self.found[-1] if self.found else "the log does not say how"


@contextmanager
def open_local(config, *, scratch=None, log=None, memory_per_worker_gb=1.0, at_most=None):
    """Start the workers of an :class:`ExecutorConfig` and yield a :class:`LocalExecutor`."""
    workers = config.workers or automatic_workers(
        cores=CPU_COUNT,
        memory_bytes=_memory_bytes(),
        threads=config.threads,
        memory_per_worker_gb=memory_per_worker_gb,
    )
    if at_most is not None:
        workers = max(1, min(workers, at_most))
    with ExitStack() as stack:
        folder = stack.enter_context(_scratch_folder(scratch))
        log = Path(log or folder / "workers.log").resolve()
        log.parent.mkdir(parents=True, exist_ok=True)
        # Ctrl-C can end the tracker of shared semaphores before their owners; it cleans up, and need not tell the user.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        stack.enter_context(limited_threads(config.threads))
        stack.enter_context(dask.config.set(_dask_settings(config.threads, log)))
        deaths = stack.enter_context(_logged_to(log))
        cluster = stack.enter_context(_cluster(workers, config.dashboard, folder))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        yield LocalExecutor(
            client, workers=workers, threads=config.threads, dashboard=config.dashboard, log=log, deaths=deaths
        )


def _memory_bytes():
    # Dask, which holds the workers to shares of MEMORY_LIMIT, knows of limits that are no control group's too.
    return min(MEMORY_LIMIT, free_bytes())


def _dask_settings(threads, log):
    return {
        # Set before the worker starts, hence before numpy and torch read them.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, str(threads)),
        # Not in the line above, which also acts on this process: numba here may have its threads already.
        "distributed.nanny.environ": {"NUMBA_NUM_THREADS": str(threads)},
        "distributed.worker.multiprocessing-method": "spawn",  # forking after MPI or torch started is not safe
        "distributed.worker.preload": [_WORKER_SETUP.format(log=os.fspath(log))],
        # We decide what a dead worker means, see LocalExecutor.run.
        "distributed.scheduler.allowed-failures": 0,
        # A long factorisation holds the interpreter's lock: silence does not mean that the worker is dead.
        "distributed.scheduler.worker-ttl": None,
        # Results are small and the memory is the numerics': there is nothing to spill and no use in a pause.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
        "logging": {"distributed": "warning"},
    }


@contextmanager
def _scratch_folder(scratch):
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="dask-", dir=scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _logged_to(path):
    """Send what Dask and its web server log in this process to a file, so that the terminal keeps to progress."""
    file = logging.FileHandler(path, delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    deaths = _Deaths()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [file, deaths], False
        logger.setLevel(logging.INFO)
    try:
        yield deaths
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        file.close()


@contextmanager
def _cluster(workers, dashboard, folder):
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # without it the scheduler would serve its health page on all interfaces
        scheduler_kwargs={"dashboard": dashboard},
        local_directory=os.fspath(folder),
        silence_logs=logging.WARNING,  # of the streams; the handlers of _logged_to are no streams of the terminal
    )
    try:
        yield cluster
    except BaseException:
        _kill_workers(cluster)
        raise
    finally:
        cluster.close()


def _kill_workers(cluster):
    """End busy workers now: one deep in a factorisation would not hear a polite request for minutes.

    Nothing is lost by it, as a task's result counts only once it is written as a whole.
    """
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid:
            try:
                os.kill(nanny.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
