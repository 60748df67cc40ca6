"""Tasks on the workers of a Dask cluster, wherever these are: what a sweep needs beyond Dask.

Few tasks are in flight, results are let go of as they come, and a dead worker is blamed on the task that killed it and
on no other: a task whose worker died runs again, then with nothing beside it, and is at last taken apart, so that one
pose that kills its process costs one pose.
"""

import logging
import math
import queue
import shutil
import tempfile
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import dask
from distributed import KilledWorker

from ..errors import MotorsweepError
from .outcomes import Outcome, attempt, task_name

IN_FLIGHT_PER_WORKER = 2
"""One task runs and one waits, so that no worker idles between two tasks."""

HOPELESS_TASKS, HOPELESS_PIECES = 3, 8
"""More tasks than this that kill their worker, and none that does not, stop a run; so many pieces
show that it is none of them in particular."""

_POLL_SECONDS = 0.5
_FETCH_SECONDS = 5.0  # for a result that is there already, unless its worker is gone
_NEWS_SECONDS = 0.1  # by which the news of why a worker was killed may come after that of its end

# All those that Dask gives a handler of their own.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado", "tornado.application")


@dataclass(frozen=True, kw_only=True)
class Death:
    """How a worker died while it ran a task: the class of failure, and what was found."""

    reason: str
    finding: str


class DaskExecutor:
    """Runs tasks on the workers of a Dask cluster, whose scheduler is in this process.

    Parameters
    ----------
    client : distributed.Client
    workers, threads : int
        Worker processes at most, and threads of the numerics of each.
    dashboard : bool
        Whether there is one.
    log : path-like
        Where the workers' output is.
    """

    retries = 0
    """How often a task whose worker died runs again among the others, before it is a suspect."""

    attempts_alone = 2
    """How often a suspect runs with nothing else in flight, before it is taken apart, or counts as failed."""

    def __init__(self, client, *, workers, threads, dashboard, log):
        self.client, self.workers, self.threads, self.log = client, workers, threads, log
        self.scheduler = client.cluster.scheduler
        self.dashboard = client.cluster.dashboard_link if dashboard else None
        self._serial_number = count()

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        raise NotImplementedError

    def run(self, function, tasks):
        """Yield ``(task, outcome)`` as tasks end; tasks are taken from the iterable only as there is room for them.

        A task with ``pieces()`` (a dict of tasks for the same function that keep nothing) and ``without(killers)``
        (what is to run in place of it, once the pieces that kill their worker are known, with a reason for each) is
        taken apart if its worker dies even while nothing else runs.
        """
        suspects, survived, hopeless = [], 0, 0
        for task, ended in self._stream(function, tasks, self._room, self.retries):
            if isinstance(ended, Death):
                suspects.append(task)
            else:
                survived += 1
                yield task, ended
        for task in suspects:
            ended = self._run_suspect(function, task)
            survived, hopeless = survived + isinstance(ended, Outcome), hopeless + isinstance(ended, Death)
            if hopeless > HOPELESS_TASKS and not survived:
                raise MotorsweepError(f"every task kills its worker. {self._sentence(task, ended)}")
            yield task, ended if isinstance(ended, Outcome) else self._failed(task, ended)

    # ---- what clusters differ in ---------------------------------------------------------------------------------

    def _room(self):
        """How many tasks may be in flight now."""
        return IN_FLIGHT_PER_WORKER * self.workers

    def _tend(self, left):
        """Look after the workers; called again and again while tasks are awaited, with how many are left if known."""

    def _finding(self, worker):
        """Say how a worker (as Dask's scheduler last knew it) died."""
        raise NotImplementedError

    # ---- suspects ------------------------------------------------------------------------------------------------

    def _run_suspect(self, function, task):
        ended = self._run_alone(function, task, self.attempts_alone)
        if isinstance(ended, Death) and hasattr(task, "pieces"):
            ended = self._run_without_killers(function, task, ended)
        return ended

    def _run_alone(self, function, task, attempts=1):
        """Outcome of a task with nothing else in flight; a Death if its worker died each time."""
        for _ in range(attempts):
            ((_, ended),) = self._stream(function, [task], lambda: 1, 0)
            if isinstance(ended, Outcome):
                break
        return ended

    def _run_without_killers(self, function, task, death):
        pieces = task.pieces()
        suspects = self._suspects_among(function, pieces)
        if len(suspects) == len(pieces):
            return death  # no pose is worse than another
        killers = {}
        for label in suspects:
            how = self._run_alone(function, pieces[label])
            if isinstance(how, Death):
                killers[label] = f"{how.reason}: {self._sentence(pieces[label], how, attempts=1)}"
        return self._run_alone(function, task.without(killers))

    def _suspects_among(self, function, pieces):
        """Labels of the pieces whose worker died; of all of them, if it did with each of the first."""
        labels = {id(piece): label for label, piece in pieces.items()}
        suspects, survived = [], False
        for piece, how in self._stream(function, pieces.values(), self._room, 0):
            survived |= isinstance(how, Outcome)
            if isinstance(how, Death):
                suspects.append(labels[id(piece)])
            if len(suspects) == HOPELESS_PIECES and not survived:
                return list(pieces)
        return suspects

    def _failed(self, task, death):
        return Outcome(reason=death.reason, message=self._sentence(task, death), pid=0)

    def _sentence(self, task, death, attempts=None):
        attempts = attempts or self.attempts_alone
        times = f"{attempts} times" if attempts > 1 else "again"
        return (
            f"{task_name(task)}: the worker died {times} while it ran this task and no other task ran "
            f"({death.finding}). The other tasks are unharmed. "
            f'The workers\' output is in {self.log}; kind = "serial" in [executor] runs it under your eyes.'
        )

    # ---- the stream ----------------------------------------------------------------------------------------------

    def _stream(self, function, tasks, room, retries):
        """Yield ``(task, outcome)``, or ``(task, death)`` where workers died, with at most ``room()`` in flight."""
        ended, flying, again = queue.SimpleQueue(), {}, deque()
        fresh = ((task, 0) for task in tasks)
        try:
            while True:
                more = self._fill(flying, function, again, fresh, room(), ended)
                if not flying:
                    return
                left = math.inf if more else len(flying)
                future = self._next(ended, left)
                if future is None:
                    continue
                task, strikes, _ = flying.pop(future.key)
                how = self._end_of(future, left)
                if isinstance(how, Death) and strikes < retries:
                    again.append((task, strikes + 1))
                else:
                    yield task, how
        finally:
            if flying:
                self.client.cancel([future for *_, future in flying.values()], force=True)

    def _fill(self, flying, function, again, fresh, room, ended):
        """Hand out tasks until there is no room; False when there are no more tasks."""
        while len(flying) < room:
            task, strikes = again.popleft() if again else next(fresh, (None, -1))
            if strikes < 0:
                return False
            # The number makes the key new: Dask would hand back the old result of a key that it still knows.
            key = f"{getattr(function, '__name__', 'task')}-{next(self._serial_number)}"
            future = self.client.submit(attempt, function, task, key=key, pure=False)
            flying[key] = (task, strikes, future)
            future.add_done_callback(ended.put)
        return True

    def _next(self, ended, left):
        """Wait a moment for a task to end; None if none does."""
        self._tend(left)
        try:
            return ended.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return None

    def _end_of(self, future, left):
        try:
            while True:
                # A worker that dies before its result is fetched takes it along, and the task waits for another one.
                with suppress(TimeoutError):
                    return future.result(timeout=_FETCH_SECONDS)
                self._tend(left)
        except KilledWorker as error:
            return self._death(error.last_worker)
        finally:
            future.release()

    def _death(self, worker):
        time.sleep(_NEWS_SECONDS)
        by_memory = any(event["worker"] == worker.address for _, event in self._memory_kills())
        finding = "it went over the memory of a worker" if by_memory else self._finding(worker)
        return Death(reason="out_of_memory" if by_memory else "crashed", finding=finding)

    def _memory_kills(self):
        return self.client.get_events("worker-restart-memory")


class NoWorkers:
    """Measures for how long there has been no worker.

    Examples
    --------
    >>> NoWorkers().seconds(workers=2)
    0.0
    """

    def __init__(self):
        self._since = None

    def seconds(self, workers) -> float:
        """Return for how long there has been none, given those that there are now."""
        if workers:
            self._since = None
            return 0.0
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since


SETTINGS = {
    "distributed.worker.multiprocessing-method": "spawn",  # forking after MPI or torch started is not safe
    # We decide what a dead worker means, see DaskExecutor.run.
    "distributed.scheduler.allowed-failures": 0,
    # Dask would end for good what starts a dead worker again, if that takes longer, as on a busy machine.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    # Results are small and the memory is the numerics': there is nothing to spill and no use in a pause.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # The study's own page, beside Dask's; see dask_address.publish.
    "distributed.scheduler.http.routes": [
        *dask.config.get("distributed.scheduler.http.routes"),
        f"{__package__}.dashboard",
    ],
    "logging": {"distributed": "warning"},
}
"""Dask's settings, for all kinds of clusters."""


@contextmanager
def scratch_folder(scratch=None):
    """Make a folder for temporary files, in ``scratch`` or the system's own, and remove it at the end."""
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="dask-", dir=scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def logged_to(path, *more):
    """Send what Dask and its web server log in this process to a file, so that the terminal keeps to progress.

    Parameters
    ----------
    path : path-like
    *more : logging.Handler
        That shall see it as well.
    """
    file = logging.FileHandler(path, delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [file, *more], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        file.close()
