"""Tasks on worker processes of this machine, by Dask.

Dask schedules, starts again workers that died, and serves the dashboard; nothing listens but on the loopback. How
tasks are handed to the workers, and what a dead one means, is :mod:`.dask_executor`'s.
"""

import logging
import os
import signal
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from ..errors import MotorsweepError
from ..sim.solver_memory import free_bytes
from .dask_executor import IN_FLIGHT_PER_WORKER, SETTINGS, DaskExecutor, NoWorkers, logged_to, scratch_folder
from .executors import THREAD_VARIABLES, automatic_workers, count_of, limited_threads

__all__ = ["IN_FLIGHT_PER_WORKER", "LocalExecutor", "open_local"]

NO_WORKER_SECONDS = 120.0
"""How long a run waits for a worker when all are dead."""

# Runs in each worker before its first task. Ctrl-C reaches all processes of a terminal, and only the coordinator may
# act on it, as it knows what to close in which order. Libraries such as PETSc write to the descriptors themselves.
_WORKER_SETUP = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
os.dup2(log, 1)
os.dup2(log, 2)
"""


class LocalExecutor(DaskExecutor):
    """Runs tasks on the workers of a Dask cluster of this machine."""

    def __init__(self, client, *, deaths, **cluster):
        super().__init__(client, **cluster)
        self._deaths, self._no_workers = deaths, NoWorkers()

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        return f"local: {count_of(self.workers, 'worker')} x {count_of(self.threads, 'thread')}"

    def _tend(self, left):
        """Not wait for ever when no worker is left."""
        if self._no_workers.seconds(self.scheduler.workers) >= NO_WORKER_SECONDS:
            raise MotorsweepError(
                f"{self.describe()}: no worker has come back for {NO_WORKER_SECONDS:.0f} s "
                f"({self._deaths.last()}). What was finished is kept. Their output is in {self.log}."
            )

    def _finding(self, worker):
        return self._deaths.last()


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
def open_local(config, *, scratch=None, log=None, memory_per_worker_gb=1.0, at_most=None, **_):
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
        folder = stack.enter_context(scratch_folder(scratch))
        log = Path(log or folder / "workers.log").resolve()
        log.parent.mkdir(parents=True, exist_ok=True)
        # Ctrl-C can end the tracker of shared semaphores before their owners; it cleans up, and need not tell the user.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        stack.enter_context(limited_threads(config.threads))
        stack.enter_context(dask.config.set(_dask_settings(config.threads, log)))
        deaths = _Deaths()
        stack.enter_context(logged_to(log, deaths))
        cluster = stack.enter_context(_cluster(workers, config.dashboard, folder))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        yield LocalExecutor(
            client, workers=workers, threads=config.threads, dashboard=config.dashboard, log=log, deaths=deaths
        )


def _memory_bytes():
    # Dask, which holds the workers to shares of MEMORY_LIMIT, knows of limits that are no control group's too.
    return min(MEMORY_LIMIT, free_bytes())


def _dask_settings(threads, log):
    return SETTINGS | {
        # Set before the worker starts, hence before numpy and torch read them.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, str(threads)),
        # Not in the line above, which also acts on this process: numba here may have its threads already.
        "distributed.nanny.environ": {"NUMBA_NUM_THREADS": str(threads)},
        "distributed.worker.preload": [_WORKER_SETUP.format(log=os.fspath(log))],
        # A long factorisation holds the interpreter's lock: silence does not mean that the worker is dead.
        "distributed.scheduler.worker-ttl": None,
    }


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
        silence_logs=logging.WARNING,  # of the streams; the handlers of logged_to are no streams of the terminal
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
