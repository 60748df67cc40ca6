"""How far a stage is, shown on stderr from its events: a bar on a terminal, lines elsewhere."""

import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime

from .events import StageEvent, TaskEvent, format_clock


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
