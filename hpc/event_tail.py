"""The stage that an event log is in, read as the log grows: each byte once, however long the log is."""

import json
import os
from collections import deque
from datetime import datetime
from pathlib import Path

_STAGE = b'{"event": "stage"'
_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 14
_MOST = 8 << 20  # read of a stage that began before the first look; its pace needs no more
_ENDS_KEPT = 20_000
_LINES_KEPT = 12


class EventTail:
    """The present stage of a study and how its tasks ended, from ``events.jsonl``.

    Parameters
    ----------
    path : path-like
        The log; it need not exist yet.

    Attributes
    ----------
    stage : dict or None
        The event that the stage started with, with the state, reason and time of the newest event of the stage itself.
    ends : deque of (float, int, int)
        When tasks ended (seconds since the epoch), and how many pieces of each were done and failed.
    recent : deque of dict
        The newest events.
    stages_begun : int
        Stages that the log saw start.
    spent : dict
        Verb to ``{"seconds", "done"}`` of all its stages that ended: wall time and pieces done.
    last_time : float or None
        Time of the newest event.

    Examples
    --------
    >>> tail = EventTail(study.events)                  # doctest: +SKIP
    >>> tail.update()                                   # doctest: +SKIP
    >>> tail.stage["verb"], len(tail.ends)              # doctest: +SKIP
    ('simulate', 31)
    """

    def __init__(self, path):
        self.path = Path(path)
        self._forget()

    def _forget(self):
        self.stage, self.ends, self.recent = None, deque(maxlen=_ENDS_KEPT), deque(maxlen=_LINES_KEPT)
        self.stages_begun, self.last_time, self.spent = 0, None, {}
        self._place, self._file = None, None

    def update(self) -> None:
        """Read what was written since the last look; a line that is not whole yet waits for its end."""
        try:
            with open(self.path, "rb") as file:
                self._read(file)
        except FileNotFoundError:
            self._forget()

    def _read(self, file):
        state = os.fstat(file.fileno())
        if self._file != (state.st_dev, state.st_ino) or state.st_size < self._place:
            self._forget()
            self._file, self._place = (state.st_dev, state.st_ino), self._begin(file, state.st_size)
        file.seek(self._place)
        while block := file.read(_BLOCK):
            whole, newline, _ = block.rpartition(b"\n")
            if not newline:
                if len(block) < _BLOCK:
                    return
                whole = block  # no event is so long: let go of it
            self._place += len(whole) + len(newline)
            file.seek(self._place)
            for line in whole.split(b"\n"):
                self._take(line)

    def _begin(self, file, size):
        """Where to read on: at the last start of a stage or, if that is far back, later; earlier stages are taken."""
        lines = list(_stage_lines(file, size))
        starts = [place for place, line in lines if b'"state": "started"' in line]
        last = starts[-1] if starts else max(0, size - _LONGEST_LINE)
        far = size - last > _MOST
        for place, line in lines:
            if place < last or far:
                self._take(line)
        if not far:
            return last
        file.seek(size - _MOST)
        file.readline(_LONGEST_LINE)
        return file.tell()

    def _take(self, line):
        try:
            event = json.loads(line)
            when = event["seen"] = datetime.fromisoformat(event["time"]).timestamp()
            {"stage": self._take_stage, "task": self._take_task}[event["event"]](event)
        except (ValueError, KeyError, TypeError):
            return
        self.last_time = when
        self.recent.append(event)

    def _take_stage(self, event):
        verb, state = event["verb"], event["state"]
        if state == "started":
            self.stage, self.ends = {"began": event["seen"], **event}, deque(maxlen=_ENDS_KEPT)
            self.stages_begun += 1
            return
        spent = self.spent.setdefault(verb, {"seconds": 0.0, "done": 0})
        spent["seconds"] += float(event.get("seconds", 0))
        spent["done"] += int(event.get("done", 0))
        if self.stage is not None and self.stage["verb"] == verb:
            self.stage |= {key: event.get(key) for key in ("state", "reason", "seen", "done", "failed", "seconds")}

    def _take_task(self, event):
        size, failed, left = (int(event.get(key, 0)) for key in ("size", "failed", "left"))
        if self.stage is not None and event["verb"] == self.stage["verb"]:
            self.ends.append((event["seen"], size - failed - left, failed))


def _stage_lines(file, size):
    """Yield (place, line) of each event of a stage that a log of `size` bytes holds whole."""
    begin = 0
    while begin < size:
        file.seek(begin)
        block = file.read(min(_BLOCK, size - begin) + _LONGEST_LINE)
        found = block.find(_STAGE)
        while 0 <= found < _BLOCK:
            line, newline, _ = block[found : found + _LONGEST_LINE].partition(b"\n")
            if newline:
                yield begin + found, line
            found = block.find(_STAGE, found + 1)
        begin += _BLOCK
