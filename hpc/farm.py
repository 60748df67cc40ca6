"""Runs one stage: hands its tasks to an executor and tells the log and the progress how each ended."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .events import EventLog, StageEvent, TaskEvent
from .outcomes import Outcome, disk_full_error, no_space, task_name, task_size
from .progress import Progress


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """What a stage did: pieces of work done and failed, and its wall time in seconds."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0


def run_stage(
    verb: str,
    function: Callable[[Any], Any],
    tasks: Iterable,
    executor,
    events: EventLog,
    progress: Progress,
    label: str = "tasks",
    *,
    on_outcome: Callable[[Any, Outcome], None] | None = None,
) -> StageSummary:
    """Run all tasks of a stage; a failed task is counted and told, and the others go on.

    Parameters
    ----------
    verb : str
        The stage's name, for events and progress: ``simulate``, ``encode``, ``train``.
    function : callable
        Called with a task where the task runs. It must be importable by name, and deterministic: it may run twice
        when a worker dies. What it returns is sent back, so it should be small. Where a task holds several pieces,
        the value's ``failed`` (if it has one) says how many of them failed, and ``done`` how many it did; the others
        it left: they were done before, or another task takes them up.
    tasks : iterable of frozen dataclasses
        Plain values; ``name`` (or ``id``) is how messages call the task, ``size`` how many pieces it holds.
    executor
        From :func:`.executors.open_executor`.
    events : EventLog
        Gets one line per task, and one for the stage's start and end.
    progress : Progress
        Shown while the stage runs.
    label : str
        What the pieces are called, in the plural: ``poses``, ``trainings``.
    on_outcome : callable, optional
        ``on_outcome(task, outcome)`` in this process, before the task's event, to record what the task itself
        could not (that it failed, that its process died).

    Returns
    -------
    StageSummary

    Raises
    ------
    DiskFullError
        The disk is full, here or in a worker.
    Exception
        A bug, a damaged store or a missing package, as the task raised it: see :mod:`.outcomes`.

    Examples
    --------
    >>> with open_executor(config) as executor:                                            # doctest: +SKIP
    ...     run_stage("simulate", solve_shard, shards, executor, log, Progress(), "poses")
    StageSummary(done=49, failed=0, seconds=12.3)
    """
    tasks = list(tasks)
    stage = _Stage(verb, tasks, executor, label)
    try:
        events.write(started := stage.event("started"))
        with progress.stage(started):
            for task, outcome in executor.run(function, tasks):
                if on_outcome is not None:
                    on_outcome(task, outcome)
                event = stage.count(task, outcome)
                events.write(event)
                progress.update(event)
        events.write(stage.event("finished"))
    except BaseException as error:
        if no_space(error):
            raise disk_full_error(verb, error) from error
        events.write(stage.event("stopped", reason=f"{type(error).__name__}: {error}"))
        raise
    return StageSummary(done=stage.done, failed=stage.failed, seconds=stage.seconds)


class _Stage:
    """The counts of a stage while it runs."""

    def __init__(self, verb, tasks, executor, label):
        self.verb, self.label, self.executor = verb, label, executor.describe()
        self.total = sum(task_size(task) for task in tasks)
        self.done = self.failed = 0
        self.start = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.start

    def event(self, state, reason=""):
        return StageEvent(
            verb=self.verb,
            state=state,
            total=self.total,
            unit=self.label,
            done=self.done,
            failed=self.failed,
            seconds=round(self.seconds, 3),
            executor=self.executor,
            reason=reason,
        )

    def count(self, task, outcome):
        size = task_size(task)
        failed = int(getattr(outcome.value, "failed", 0)) if outcome.ok else size
        done = int(getattr(outcome.value, "done", size - failed))
        self.done += done
        self.failed += failed
        return TaskEvent(
            verb=self.verb,
            task=task_name(task),
            status="done" if outcome.ok and not failed else "failed",
            size=size,
            failed=failed,
            left=size - failed - done,
            seconds=round(outcome.seconds, 3),
            peak_memory_bytes=outcome.peak_memory_bytes,
            reason=outcome.reason,
            message=outcome.message,
            host=outcome.host,
            pid=outcome.pid,
        )
