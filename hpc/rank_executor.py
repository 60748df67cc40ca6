"""Tasks on the ranks that srun, horovodrun, mpirun or torchrun started: kind "ranks", for what trains.

Rank 0 coordinates and works as well; the others serve it without a word. All take the next task from one queue, the
dearest first, so that they are busy to the end whatever a task takes. Where there are fewer tasks than ranks, and the
function can share a task (its attribute ``data_parallel``), all ranks do each task together.

Rank 0 works in its main thread, like any process, so that signals, torch's settings and errors are as anywhere; it
hands on what the others have done after each task of its own.
"""

import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import MotorsweepError
from .executors import count_of, limited_threads
from .outcomes import attempt, task_name
from .rank_session import RankSession, RanksStopped, is_broken
from .ranks import current_session
from .task_queue import TaskQueue

LEFT_ALONE_SECONDS = 60.0
"""How long a rank whose part of a shared task failed waits for the others to fail as well."""

_STOP_SEEN_SECONDS = 10.0  # by then a rank knows why a training that it shares was stopped by another


class RankExecutor:
    """Runs tasks on all ranks of a session; for rank 0 alone.

    Attributes
    ----------
    workers : int
        Ranks.
    idle_share : float
        Part of the ranks' time in the last run that no task took: 0 is a perfect balance.
    """

    dashboard = None
    idle_share = 0.0

    def __init__(self, config, session, log):
        self.config, self._session, self._log = config, session, log
        self.workers = session.size

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        session = self._session
        through = f"{session.launcher}, {session.communicator.name}"
        return f"ranks: {count_of(session.size, 'rank')} ({through}), {count_of(self.config.threads, 'thread')} each"

    def run(self, function, tasks):
        """Yield ``(task, outcome)`` as tasks end; those of other ranks when this rank's own task has ended."""
        tasks, session = list(tasks), self._session
        together = bool(getattr(function, "data_parallel", False)) and len(tasks) < session.size
        folder = session.new_place("queue")
        order = _Order(function, tasks, together, self.config.threads, self._log, str(folder))
        session.order(order)
        work, began, busy = _Work(session, order), time.monotonic(), 0.0
        try:
            for number, outcome in work.all_together() if together else work.all_outcomes():
                busy += outcome.seconds * (session.size if together else 1)
                yield tasks[number], outcome
        except RanksStopped as stop:
            raise (work.queue.error() if stop.reason == "error" else None) or stop from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._note_balance(order, busy, time.monotonic() - began)

    def _note_balance(self, order, busy, seconds):
        self.idle_share = max(0.0, 1 - busy / max(self.workers * seconds, 1e-9))
        how = "by all ranks together" if order.together else "by one rank each"
        if self._log:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(
                    f"{len(order.tasks)} tasks, {how}, on {count_of(self.workers, 'rank')} in {seconds:.1f} s; "
                    f"the ranks were idle {self.idle_share:.1%} of it\n"
                )


@dataclass(frozen=True)
class _Order:
    """What rank 0 asks for; sent through the communicator."""

    function: object
    tasks: list
    together: bool
    threads: int
    log: str | None
    folder: str


def serve(session: RankSession) -> None:
    """Work off the orders of rank 0 until it ends the session. Of the other ranks.

    Raises
    ------
    RanksStopped
    """
    while (order := session.next_order()) is not None:
        with _logged(order.log), limited_threads(order.threads):
            work = _Work(session, order)
            if order.together:
                for _ in work.all_together():
                    pass
            else:
                while work.take():
                    pass


class _Work:
    """One rank's part in an order."""

    def __init__(self, session, order):
        self.session, self.tasks, self.function = session, order.tasks, order.function
        self.queue = TaskQueue(order.folder, len(order.tasks))

    def take(self) -> bool:
        """Do the next task that nobody has; whether there was one."""
        number = self.queue.claim()
        if number is not None:
            self._tell(number, self._attempt(self.function, number))
        return number is not None

    def all_outcomes(self):
        """Work, and yield (number, outcome) of all tasks, by whomever they were done."""
        left = len(self.tasks)
        while left:
            if not self.take():
                self.session.wait_for(self.queue.has_news)
            for number, ended in self.queue.ended():
                if isinstance(ended, Exception):
                    raise ended
                left -= 1
                yield number, ended

    def all_together(self):
        """Do each task with all ranks; yield (number, this rank's outcome)."""
        for number in range(len(self.tasks)):
            ended = self._attempt(self._shared, number)
            with suppress(FileNotFoundError):  # rank 0 has done its part of all tasks, and cleared up
                (Path(self.queue.folder) / f"part-{number}-{self.session.rank}").touch()
            if isinstance(ended, Exception) or not ended.ok:
                self._wait_for_same(number, ended)
            if isinstance(ended, Exception):
                raise ended
            yield number, ended

    def _shared(self, task):
        try:
            return self.function(task, communicator=self.session.communicator)
        except Exception as error:
            if is_broken(error):
                self.session.lose(error)
            raise

    def _attempt(self, function, number):
        """The outcome of a task, or an error that no other would survive."""
        self.session.check()
        try:
            return attempt(function, self.tasks[number])
        except Exception as error:
            error.add_note(f"on rank {self.session.rank}")
            return error
        except KeyboardInterrupt:
            # Of a training that was asked to stop, perhaps by another rank that shares it.
            self.session.wait_for(lambda: False, _STOP_SEEN_SECONDS)
            raise

    def _tell(self, number, ended):
        self.queue.finish(number, ended)
        if isinstance(ended, Exception):
            self.session.tell_stop("error")
            if self.session.rank:
                self.session.check()

    def _wait_for_same(self, number, ended):
        """Wait for all to fail at the task that failed here; they cannot go on without a rank that failed alone."""
        parts = [Path(self.queue.folder) / f"part-{number}-{rank}" for rank in range(self.session.size)]
        if self.session.wait_for(lambda: all(part.exists() for part in parts), LEFT_ALONE_SECONDS):
            return
        what = f"{type(ended).__name__}: {ended}" if isinstance(ended, Exception) else ended.message
        self._tell(
            number,
            MotorsweepError(
                f"{task_name(self.tasks[number])}: rank {self.session.rank} failed alone in what all ranks do "
                f"together: {what}. All ranks end; what was written is kept, and the same command goes on from there."
            ),
        )


@contextmanager
def _logged(log):
    """Send what this process and its libraries write to a file."""
    if not log:
        yield
        return
    before = os.dup(1), os.dup(2)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        yield
    finally:
        for number, old in enumerate(before, 1):
            os.dup2(old, number), os.close(old)
        os.close(descriptor)


@contextmanager
def open_ranks(config, *, log=None, **_):
    """Yield the `RankExecutor` of the session that this process leads."""
    session = current_session()
    if session is None:
        raise MotorsweepError("tasks cannot be shared among ranks: this process is not one of several.")
    import numba  # noqa: F401 - must be loaded to be held to a number of threads

    session.clear_older()
    with limited_threads(config.threads):
        yield RankExecutor(config, session, None if log is None else os.fspath(log))
