"""A queue of numbered tasks in a folder that several processes, on several machines, take from; and signs of life.

Everything is a small file, written whole: no process waits for another's answer, and one that dies holds nothing up but
the task that it had. A task is taken by making a file that only one process can make. Outcomes are JSON, so that
nothing that is read can run.
"""

import json
import os
import socket
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

from .. import errors
from ..zarr_store.atomic import atomic_write_text
from .outcomes import BUGS, DiskFullError, Outcome

BEAT_SECONDS = 1.0
"""How often a process gives a sign of life."""

LOST_SECONDS = 120.0
"""Without a sign for so long, a process on another machine counts as dead. File systems may show a change late."""

_RAISED = {each.__name__: each for each in (*BUGS, DiskFullError)} | {
    name: each for name, each in vars(errors).items() if isinstance(each, type)
}


class TaskQueue:
    """Tasks 0 to `count` - 1, each taken by one process.

    Parameters
    ----------
    folder : path-like
        Empty at first; when it is gone, nothing is left to take.
    count : int

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     queue = TaskQueue(folder, 2)
    ...     first, second, third = queue.claim(), queue.claim(), queue.claim()
    ...     queue.finish(first, Outcome(value=0.5))
    ...     new = [(number, ended.value) for number, ended in queue.ended()]
    >>> first, second, third, new
    (0, 1, None, [(0, 0.5)])
    """

    def __init__(self, folder, count: int):
        self.folder, self.count = Path(folder), count
        self._next, self._seen = 0, set()

    def claim(self) -> int | None:
        """Take the first task that nobody has taken; None where there is none.

        Returns
        -------
        int or None
        """
        while self._next < self.count:
            number, self._next = self._next, self._next + 1
            try:
                os.close(os.open(self.folder / f"claim-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                return number
            except FileExistsError:
                continue
            except FileNotFoundError:
                return None
        return None

    def finish(self, number: int, ended: Outcome | Exception) -> None:
        """Tell how a task ended: its outcome, or an error that no other task would survive."""
        text = _outcome_text(ended) if isinstance(ended, Outcome) else _error_text(ended)
        atomic_write_text(self.folder / f"ended-{number}.json", text)

    def ended(self) -> list[tuple[int, Outcome | Exception]]:
        """What has been told since the last call: (task number, outcome or error), by number."""
        new = sorted(self._told() - self._seen)
        self._seen.update(new)
        return [(number, _read(self.folder / f"ended-{number}.json")) for number in new]

    def has_news(self) -> bool:
        """Whether `ended` has something to tell."""
        return bool(self._told() - self._seen)

    def error(self) -> Exception | None:
        """The first error that a task has ended with, told before or not."""
        found = (_read(self.folder / f"ended-{number}.json") for number in sorted(self._told()))
        return next((each for each in found if isinstance(each, Exception)), None)

    def _told(self):
        with suppress(FileNotFoundError):
            return {int(each.name[6:-5]) for each in os.scandir(self.folder) if each.name.startswith("ended-")}
        return set()


def _outcome_text(outcome) -> str:
    value = outcome.value
    if hasattr(value, "failed"):
        value = {"done": getattr(value, "done", None), "failed": value.failed}
    elif not isinstance(value, (int, float, type(None))):
        value = None  # nothing here makes use of it
    return json.dumps(asdict(replace(outcome, value=None)) | {"value": value})


def _error_text(error) -> str:
    kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _RAISED), "MotorsweepError")
    message = str(error) if kind == type(error).__name__ else f"{type(error).__name__}: {error}"
    notes = [*getattr(error, "__notes__", []), "".join(traceback.format_tb(error.__traceback__)).rstrip()]
    told = {"error": kind, "message": message, "errno": getattr(error, "errno", None)}
    return json.dumps(told | {"notes": [note for note in notes if note]})


def _read(path) -> Outcome | Exception:
    told = json.loads(path.read_text(encoding="utf-8"))
    if "error" not in told:
        value = told["value"]
        if isinstance(value, dict):
            value = SimpleNamespace(**{name: each for name, each in value.items() if each is not None})
        return Outcome(**{**told, "value": value})
    raised = _RAISED[told["error"]](told["message"])
    if told["errno"] is not None:
        raised.errno = told["errno"]
    for note in told["notes"]:
        raised.add_note(note)
    return raised


class LifeSign:
    """Signs of life of one of several processes, given by a thread that somebody else runs.

    Parameters
    ----------
    folder : path-like
        Shared by all.
    rank, size : int

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sign = LifeSign(folder, 0, 1)
    ...     sign.give()
    ...     sign.lost([0])
    []
    """

    def __init__(self, folder, rank: int, size: int):
        self.folder, self.rank, self.size = Path(folder), rank, size
        self._own = {"machine": machine_id(), "pid": os.getpid(), "started": _start_of(os.getpid())}
        self._beat = 0
        self._since = {}

    def give(self) -> None:
        """Renew the own sign; without a word where the folder is gone."""
        self._beat += 1
        with suppress(OSError):
            # Not atomic_write_text, which waits for the disk and makes the folder anew.
            beside = self.folder / f".alive-{self.rank}"
            beside.write_text(json.dumps(self._own | {"beat": self._beat}))
            os.replace(beside, self.folder / f"alive-{self.rank}")

    def lost(self, ranks, now: float | None = None) -> list[int]:
        """Which ranks are dead: their process is gone, or has given no sign for :data:`LOST_SECONDS`.

        Parameters
        ----------
        ranks : iterable of int
            Those to look at; call it often, since what is new is told by comparison.
        now : float, optional
            Seconds, as of `time.monotonic`.

        Returns
        -------
        list of int
        """
        now = time.monotonic() if now is None else now
        return [rank for rank in ranks if self._is_lost(rank, now)]

    def _is_lost(self, rank, now):
        text = ""
        with suppress(OSError):
            text = (self.folder / f"alive-{rank}").read_text()
        known, since = self._since.get(rank, (None, now))
        if known is None or known != text:
            self._since[rank] = text, now
            since = now
        told = json.loads(text) if text else None
        if told and told["machine"] == self._own["machine"]:
            return _start_of(told["pid"]) != told["started"]
        return now - since > LOST_SECONDS


def machine_id() -> str:
    """Return what tells this machine, and the name space of its process numbers, from all others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _start_of(pid) -> str | None:
    """When a process of this machine began, which tells it from a later one of its number; None where it is gone."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return ""
    with suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    return None
