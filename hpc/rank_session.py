"""What keeps ranks together besides their work: orders of rank 0, signs of life, and a stop that all obey.

Ranks that wait look for files, and enter a broadcast only once rank 0 is there: so a signal is heard at once, and no
library gives up on a rank that merely works for long. A stop is a file as well. Whichever rank gets the signal, or
finds another rank dead, writes it; all keep what they have, wait for each other, and leave together, since a launcher
ends all ranks with the first that fails.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import MotorsweepError
from .ranks import set_session
from .task_queue import BEAT_SECONDS, LifeSign

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))

PATIENCE_SECONDS = {"SIGUSR1": 40.0, "rank lost": 20.0}
"""How long a training that was asked to stop may take to the end of its step, by the reason; then it is broken off."""

MEETING_AGAIN = ("rank lost", "hosts changed")
"""Reasons for which elastic ranks leave each other only to meet again."""

_PATIENCE_SECONDS = 3.0  # for any other reason: who sent SIGTERM soon sends SIGKILL
_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}
_LAST_SECONDS = 20.0  # from then on to the end of the process
_POLL_SECONDS = 0.05


class RanksStopped(KeyboardInterrupt):
    """All ranks leave their work.

    Attributes
    ----------
    reason : str
        Name of a signal, ``"rank lost"``, ``"hosts changed"`` or ``"error"``.
    rank : int
        This one.
    told_by : int
        The rank that said so.
    text : str
        A sentence for the user.
    lost : list of int
        Ranks that have died.
    """

    def __init__(self, rank: int, *, reason: str, told_by: int, text: str = "", lost=()):
        super().__init__(text or reason)
        self.rank, self.reason, self.told_by, self.text, self.lost = rank, reason, told_by, text, list(lost)


class RankSession:
    """The ranks of one command, from their meeting to their end; used in a ``with`` block.

    Parameters
    ----------
    communicator : Communicator
    folder : path-like
        Shared by all ranks; the session takes a new folder in it.
    ranks : Ranks
        Who started them, and whether a process goes on after it has lost others.
    """

    def __init__(self, communicator, folder, ranks):
        self.communicator, self.launcher, self._elastic = communicator, ranks.launcher, ranks.elastic
        self.rank, self.size = communicator.rank, communicator.size
        self.place = Path(folder) / communicator.broadcast(secrets.token_hex(8))
        self._orders = self._places = 0
        self._stop, self._since, self._patience = None, 0.0, 0.0
        self._talking = self._leaving = False
        self._late = 0
        self._ended = threading.Event()
        self._sign = LifeSign(self.place, self.rank, self.size)

    def __enter__(self):
        if self.rank == 0:
            self.place.mkdir(parents=True)
        self.communicator.barrier()
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._alarm = signal.signal(signal.SIGALRM, self._break_off)
        self._sign.give()
        self._watcher = threading.Thread(target=self._watch, name="ranks", daemon=True)
        self._watcher.start()
        set_session(self)
        return self

    def __exit__(self, *error):
        from ..learn.checkpoints import forget_stop  # with torch

        self._leaving = True
        if self._stop:
            self._wait_for_others()
        self._end_watch()
        set_session(None)
        for number, handler in [*self._before.items(), (signal.SIGALRM, self._alarm)]:
            signal.signal(number, handler)
        forget_stop()
        if self.rank == 0:
            _remove(self.place)
        if self._late:
            os.kill(os.getpid(), self._late)  # it came while the ranks were leaving to meet again

    def _end_watch(self):
        self._ended.set()
        self._watcher.join()

    # ---- orders ------------------------------------------------------------------------------------------------

    def order(self, content) -> None:
        """Send an order to all ranks; None ends their service. Of rank 0."""
        self.check()
        self._orders += 1
        with self._talk():
            (self.place / f"order-{self._orders}").touch()
            self.communicator.broadcast(content)

    def next_order(self):
        """Wait for rank 0's next order, and return it. Of the other ranks.

        Raises
        ------
        RanksStopped
        """
        self._orders += 1
        self.wait_for((self.place / f"order-{self._orders}").exists)
        with self._talk():
            return self.communicator.broadcast(None)

    def finish(self) -> None:
        """Wait for all ranks, after the order that ends their service."""
        self._end_watch()
        with self._talk():
            self.communicator.barrier()

    @contextmanager
    def _talk(self):
        """Let no stop come between this rank and the others, which wait for it; unless they are gone."""
        self._talking = True
        try:
            yield
        except Exception as error:
            if is_broken(error):
                self.lose(error)
            raise
        finally:
            self._talking = False

    def new_place(self, name: str) -> Path:
        """Make a new folder among the session's files."""
        self._places += 1
        folder = self.place / f"{name}-{self._places}"
        folder.mkdir()
        return folder

    def wait_for(self, condition, seconds: float = float("inf")) -> bool:
        """Wait until a condition holds, or for some seconds; whether it holds.

        Raises
        ------
        RanksStopped
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def clear_older(self):
        """Remove what earlier sessions of this study left when they were killed; only the holder of its lock may."""
        for folder in self.place.parent.iterdir():
            if folder != self.place and not folder.name.startswith("meeting-"):
                shutil.rmtree(folder, ignore_errors=True)

    # ---- stop --------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether all ranks are to leave."""
        return self._stop is not None

    def tell_stop(self, reason: str, text: str = "", lost=()) -> None:
        """Make all ranks leave; of several reasons the first counts. May be called by a signal handler."""
        stop = {"reason": reason, "told_by": self.rank, "text": text, "lost": list(lost)}
        with suppress(OSError):
            beside = self.place / f".stop-{self.rank}-{secrets.token_hex(4)}"
            beside.write_text(json.dumps(stop))
            if not (self.place / "stop").exists():
                os.replace(beside, self.place / "stop")
        self._look_for_stop(otherwise=stop)

    def lose(self, error: Exception) -> None:
        """Make all ranks leave, as they can no longer talk to each other; raises `RanksStopped`."""
        if self._stop is None:
            lost = self._sign.lost(range(self.size))
            self.tell_stop("rank lost", lost_text(lost, self.launcher, str(error)), lost)
        self.check()

    def check(self) -> None:
        """Raise `RanksStopped` if all ranks are to leave."""
        if self._stop is not None:
            raise RanksStopped(self.rank, **self._stop)

    def _look_for_stop(self, otherwise=None):
        if self._stop is not None:
            return
        try:
            stop = json.loads((self.place / "stop").read_text())
        except (OSError, ValueError):
            if otherwise is None:
                return
            stop = otherwise
        from ..learn.checkpoints import request_stop

        self._since = time.monotonic()
        patience = PATIENCE_SECONDS.get(stop["reason"], _PATIENCE_SECONDS) if request_stop() else 0.0
        # A process that goes on must not be broken off: it might be in the middle of an import.
        self._patience = float("inf") if self._elastic and stop["reason"] in MEETING_AGAIN else patience
        self._stop = stop

    def _on_signal(self, number, frame):
        if self._stop is None and not self._ended.is_set():
            self.tell_stop(signal.Signals(number).name)
            if not self._patience:
                self._break_off()
        elif self._stop and self._stop["reason"] in MEETING_AGAIN:
            self._late = number

    def _break_off(self, *_):
        if not self._talking and not self._leaving:
            self.check()

    def _watch(self):
        """Give signs of life, look for those of others and for a stop, and see that a stop comes to its end."""
        others = [rank for rank in range(self.size) if rank != self.rank] if self.rank == 0 else [0]
        broken_off = False
        while not self._ended.wait(BEAT_SECONDS):
            self._sign.give()
            self._look_for_stop()
            if self._stop is None:
                if (lost := self._sign.lost(others)) and self.place.exists():
                    self.tell_stop("rank lost", lost_text(lost, self.launcher), lost)
                continue
            waited = time.monotonic() - self._since
            if not broken_off and waited > self._patience:
                broken_off = True
                signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
            if waited > self._patience + _LAST_SECONDS:
                # It is held in a library that waits for a rank that is gone.
                end_process(_EXIT_CODES.get(self._stop["reason"], 1))

    def _wait_for_others(self):
        """Wait until all ranks have kept what they have; not for those that are dead, nor beyond what is sensible."""
        with suppress(OSError):
            (self.place / f"left-{self.rank}").touch()
        deadline = time.monotonic() + self._patience + _LAST_SECONDS / 2
        while time.monotonic() < deadline and self.place.exists():
            here = [rank for rank in range(self.size) if not (self.place / f"left-{rank}").exists()]
            if not set(here) - set(self._sign.lost(here)):
                return
            time.sleep(_POLL_SECONDS)


def _remove(folder):
    """Remove a folder that others may just be writing to for the last time."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_POLL_SECONDS)


def lost_text(lost, launcher: str, why: str = "") -> str:
    """Return the sentence that tells of dead ranks, or of ranks that others cannot reach for some reason.

    Examples
    --------
    >>> lost_text([1, 3], "srun")[:60]
    'ranks 1, 3 have died, of those that srun started: the machin'
    """
    if lost:
        who = f"rank {lost[0]} has" if len(lost) == 1 else f"ranks {', '.join(map(str, lost))} have"
        found = f"{who} died, of those that {launcher} started: the machine failed, or the process was killed"
        found += ", perhaps for want of memory"
    else:
        found = f"a rank, of those that {launcher} started, can no longer be reached ({why})"
    return f"{found}. What was finished is kept, and the same command goes on from there."


def is_broken(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, means that ranks can no longer talk to each other."""
    while error is not None:
        if type(error).__name__ in ("HorovodInternalError", "DistBackendError", "DistNetworkError"):
            return True
        if isinstance(error, RuntimeError) and ("gloo" in str(error).lower() or "by peer" in str(error)):
            return not isinstance(error, MotorsweepError)
        error = error.__cause__ or error.__context__
    return False


def end_process(code: int) -> None:
    """End this process without what Python and libraries do at the end, which may wait for ranks that are gone."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
