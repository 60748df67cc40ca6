"""What happened while a stage ran: values, the log that keeps them and the progress that shows them.

The farm makes one :class:`StageEvent` when a stage starts and one when it ends, and one :class:`TaskEvent` per task.
:class:`EventLog` appends them to ``events.jsonl``; :class:`Progress` shows them on stderr. Neither knows the other.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


class Progress:
    """Shows how far a stage is, on stderr: a bar on a terminal, one line a minute elsewhere.

    Parameters
    ----------
    stream : text file, optional
        Default: stderr.
    quiet : bool
        Show nothing.
    terminal : bool, optional
        Whether ``stream`` is a terminal; default: ask it.
    interval : float
        Seconds between two lines where there is no terminal.

    Examples
    --------
    >>> progress = Progress()                                          # doctest: +SKIP
    >>> with progress.stage(started):                                  # doctest: +SKIP
    ...     progress.update(task_event)
    """

    def __init__(self, *, stream=None, quiet=False, terminal=None, interval=60.0):
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.terminal = self.stream.isatty() if terminal is None else terminal
        self.interval = interval
        self._view = None

    @contextmanager
    def stage(self, started: StageEvent):
        """Show one stage from its start to the end of the ``with`` block."""
        if self.quiet:
            yield self
            return
        self._view = _Bar(self.stream, started) if self.terminal else _Lines(self.stream, started, self.interval)
        try:
            yield self
        finally:
            self._view.close()
            self._view = None

    def update(self, event: TaskEvent) -> None:
        """Count a task that came to its end."""
        if self._view is not None:
            self._view.update(event)

    def foresee(self, total: int) -> None:
        """Take another total, of a stage that turned out to be longer."""
        if self._view is not None:
            self._view.foresee(total)


class _Bar:
    """A rich bar with the rest of the time, refreshed in place."""

    def __init__(self, stream, started):
        # Inside, so that `motorsweep --help` does not pay for rich.
        from rich import progress
        from rich.console import Console

        self.failed = 0
        self.bar = progress.Progress(
            progress.TextColumn("{task.description:<9}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn(started.unit + "{task.fields[note]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(file=stream, force_terminal=True),
            redirect_stdout=False,  # stdout carries the answer of --json; only stderr may be drawn over
        )
        self.row = self.bar.add_task(started.verb, total=started.total, note="")
        self.bar.start()

    def update(self, event):
        self.failed += event.failed
        note = f" ({self.failed} failed)" if self.failed else ""
        self.bar.update(self.row, advance=event.size, note=note)

    def foresee(self, total):
        self.bar.update(self.row, total=total)

    def close(self):
        self.bar.stop()


class _Lines:
    """A line a minute, whether or not a task came to its end, and a last line."""

    def __init__(self, stream, started, interval):
        self.stream, self.started, self.interval = stream, started, interval
        self.start = time.monotonic()
        self.ended, self.failed, self.total = 0, 0, started.total
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._every_interval, name="motorsweep-progress", daemon=True)
        self.thread.start()

    def _every_interval(self):
        while not self.stop.wait(self.interval):
            self._print()

    def _print(self):
        seconds = time.monotonic() - self.start
        with self.lock:
            ended, failed, total = self.ended, self.failed, self.total
        parts = [
            f"{datetime.now():%H:%M:%S} {self.started.verb} {ended}/{total} {self.started.unit}",
            f"{100 * ended / max(total, 1):5.1f}%",
            *([f"{failed} failed"] if failed else []),
            self.started.executor,
            f"took {format_clock(seconds)}" if ended >= total else f"eta {self._eta(seconds, ended, total)}",
        ]
        print("  ".join(part for part in parts if part), file=self.stream, flush=True)

    @staticmethod
    def _eta(seconds, ended, total):
        return format_clock(seconds * (total - ended) / ended) if ended else "unknown"

    def update(self, event):
        with self.lock:
            self.ended += event.size
            self.failed += event.failed

    def foresee(self, total):
        with self.lock:
            self.total = total

    def close(self):
        self.stop.set()
        self.thread.join()
        self._print()
