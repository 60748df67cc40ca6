"""What happened while a stage ran: values, and the log that keeps them.

The farm makes one :class:`StageEvent` when a stage starts and one when it ends, and one :class:`TaskEvent` per task.
:class:`EventLog` appends them to ``events.jsonl``; :class:`.progress.Progress` shows them on stderr. Neither knows the
other.
"""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path


def utc_now() -> str:
    """Return the time now in UTC as ISO 8601 text, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, kw_only=True)
class StageEvent:
    """A stage started, finished or stopped before its end.

    Attributes
    ----------
    verb : str
        The stage: ``simulate``, ``encode``, ``train``.
    state : str
        ``started``, ``finished`` or ``stopped``.
    total : int
        Pieces of work in the stage (poses, trainings).
    unit : str
        What a piece is called, in the plural.
    done, failed : int
        Pieces done and failed so far.
    seconds : float
        Wall time since the start.
    executor : str
        Where it ran, as :meth:`Executor.describe` says.
    reason : str
        Why it stopped; empty otherwise.
    time : str
        UTC, ISO 8601.
    """

    verb: str
    state: str
    total: int
    unit: str = "tasks"
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    executor: str = ""
    reason: str = ""
    time: str = field(default_factory=utc_now)


@dataclass(frozen=True, kw_only=True)
class TaskEvent:
    """A task came to its end.

    Attributes
    ----------
    verb : str
        The stage.
    task : str
        The task's name, unique in its stage.
    status : str
        ``done`` or ``failed``.
    size : int
        Pieces of work in the task.
    failed : int
        How many of them failed.
    left : int
        How many of them it did not do: done before, or left to another task.
    seconds : float
        Run time of the task where it ran.
    peak_memory_bytes : int
        Highest resident memory of the process that ran it, up to the task's end; 0 = unknown.
    reason, message : str
        Class and sentence of the failure; empty when done.
    host : str
        Name of the machine.
    pid : int
        The process.
    job : str
        SLURM job id; empty outside SLURM.
    time : str
        UTC, ISO 8601.
    """

    verb: str
    task: str
    status: str
    size: int = 1
    failed: int = 0
    left: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    reason: str = ""
    message: str = ""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    job: str = field(default_factory=lambda: os.environ.get("SLURM_JOB_ID", ""))
    time: str = field(default_factory=utc_now)


Event = StageEvent | TaskEvent
_KINDS = {StageEvent: "stage", TaskEvent: "task"}


class EventLog:
    """Appends events to a file, one JSON object a line.

    Each event is one ``write`` to a file opened for appending, so threads and processes may share the file. A line
    that a killed process left half written is ended first, so that it spoils no other.

    Parameters
    ----------
    path : path-like
        The file; it and its folder are made when missing.

    Examples
    --------
    >>> log = EventLog(study.events)                                               # doctest: +SKIP
    >>> log.write(TaskEvent(verb="simulate", task="poses 0:16", status="done"))    # doctest: +SKIP
    """

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")

    def write(self, event: Event) -> None:
        """Append one event."""
        line = json.dumps({"event": _KINDS[type(event)], **asdict(event)}, ensure_ascii=False) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_events(path) -> Iterator[dict]:
    """Yield the events of a log, oldest first.

    Each is the fields of the event and ``event``: ``"stage"`` or ``"task"``. Lines that are not whole JSON objects (a
    process was killed while it wrote) are skipped; a missing file has no events.
    """
    if not Path(path).exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event


def format_clock(seconds: float) -> str:
    """Return a duration in seconds as ``m:ss`` or ``h:mm:ss``.

    Examples
    --------
    >>> format_clock(32), format_clock(6723)
    ('0:32', '1:52:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
