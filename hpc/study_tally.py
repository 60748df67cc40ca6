"""How many poses, records and trainings are done, failed and left: from the stores, reading only what has changed."""

import json
import os
import time
from collections import Counter
from contextlib import suppress

import numpy as np

from ..errors import StoreError
from ..zarr_store.datasets import open_group
from ..zarr_store.schema import Status
from ..zarr_store.shards import VOLUMES
from ..zarr_store.study import locate

_FAILURES_SHOWN = 20
_KEPT = ("kind", "status", "reason", "labels", "scores")
_YOUNG_SECONDS = 2.0
_READ_AT_ONCE = 512  # more changed chunks than this are read faster all together


class PoseTally:
    """States of the poses of a study, or of the records of a study of EEG and EMG.

    Every shard has a file of its own for the states of its rows, replaced as a whole, so that another file under the
    same name means another state. With nothing changed a look costs one call to the file system.

    Parameters
    ----------
    study : Study
    of : ShardedStore
        Volumes or features.

    Attributes
    ----------
    counts : dict
        ``done``, ``failed``, ``pending``, ``total``; all 0 before there is a store.

    Examples
    --------
    >>> tally = PoseTally(study)                             # doctest: +SKIP
    >>> tally.update()                                       # doctest: +SKIP
    >>> tally.counts                                         # doctest: +SKIP
    {'done': 48, 'failed': 1, 'pending': 0, 'total': 49}
    """

    def __init__(self, study, of=VOLUMES):
        self._path, self.row = locate(study, of.part), of.row
        self.forget()

    def forget(self):
        """Read everything anew at the next look."""
        self._group, self._made, self._changed, self._files = None, None, None, {}
        self._status, self._chunk = np.empty(0, np.int8), 1
        self._failed = {}
        self.counts = _counts(self._status)

    def update(self) -> None:
        """Read the states that have changed since the last look."""
        made = _identity(self._path / "zarr.json")
        if made != self._made:
            self.forget()
        if made is None:
            return
        if self._group is None:
            with suppress(StoreError):  # half made, or of another version: other commands say so
                self._group, self._made = open_group(self._path, "simulate"), made
                self._status = np.zeros(self._group["status"].shape, np.int8)
                self._chunk = self._group["status"].chunks[0]
        if self._group is not None:
            self._read_changed()

    def _read_changed(self):
        folder = self._path / "status" / "c"
        changed = _identity(folder)
        if changed is not None and changed == self._changed:
            return
        files = _files_of(folder)
        dirty = [k for k in files.keys() | self._files.keys() if files.get(k) != self._files.get(k)]
        if len(dirty) > _READ_AT_ONCE and self._read_all():
            self._failed = {}
            dirty = (np.unique(np.flatnonzero(self._status == Status.FAILED)) // self._chunk).tolist()
        else:
            for first, stop in _ranges(sorted(dirty)):
                self._read_chunks(first, stop)
        for k in dirty:
            self._failed.pop(k, None)
            if (self._status[self._place(k)] == Status.FAILED).any():
                self._failed[k] = None  # in the order in which they were found
        self._changed, self._files, self.counts = _settled(changed), files, _counts(self._status)

    def _place(self, k, stop=None):
        return slice(k * self._chunk, (k + 1 if stop is None else stop) * self._chunk)

    def _read_all(self):
        with suppress(Exception):
            self._status = self._group["status"][...]
            return True
        return False

    def _read_chunks(self, first, stop):
        place = self._place(first, stop)
        try:
            self._status[place] = self._group["status"][place]
        except Exception:
            if stop - first > 1:
                for k in range(first, stop):
                    self._read_chunks(k, k + 1)
            else:
                self._status[place] = Status.PENDING  # torn, which counts as not done

    def failures(self) -> list[dict]:
        """Return the poses that failed most recently, with reasons: ``{"what", "reason"}``, newest first."""
        found = []
        for k in reversed(self._failed):
            if len(found) >= _FAILURES_SHOWN:
                break
            if self._failed[k] is None:
                self._failed[k] = self._reasons(k)
            found += self._failed[k]
        return found[:_FAILURES_SHOWN]

    def _reasons(self, k):
        bad = np.flatnonzero(self._status[self._place(k)] == Status.FAILED)
        try:
            reasons = self._group["reason"][self._place(k)]
            names = self._group["record"][self._place(k)] if self.row == "record" else None
        except Exception:
            reasons, names = ["its reason cannot be read"] * self._chunk, None
        names = range(k * self._chunk, (k + 1) * self._chunk) if names is None else names
        return [{"what": f"{self.row} {names[each]}", "reason": str(reasons[each])} for each in bad]


def _ranges(numbers):
    """Ranges (first, stop) of consecutive numbers, in order."""
    known = set(numbers)
    starts, stops = (k for k in numbers if k - 1 not in known), (k + 1 for k in numbers if k + 1 not in known)
    return list(zip(starts, stops))


def _counts(status):
    count = np.bincount(status, minlength=len(Status))
    states = {state.name.lower(): int(count[state]) for state in (Status.DONE, Status.FAILED, Status.PENDING)}
    return states | {"total": len(status)}


def _identity(path):
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _settled(identity):
    """The identity of a folder, or None where it is so young that another change may bear the same time."""
    return None if identity is None or time.time() - identity[1] / 1e9 < _YOUNG_SECONDS else identity


def _files_of(folder):
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return {int(each.name): each.inode() for each in entries if each.name.isdecimal()}
    return {}


class RunTally:
    """States and scores of the trainings that the study asks for.

    A record is read once; of those that are not there only the folders of trainings that have begun are looked at.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    expected : dict
        Stage to ``{run id: name}``.
    records : dict
        Run id to ``{"kind", "status", "reason", "labels", "scores", "seen"}`` of each record.
    changes : int
        Grows whenever a record is new, changed or gone.

    Examples
    --------
    >>> tally = RunTally(study)                              # doctest: +SKIP
    >>> tally.update()                                       # doctest: +SKIP
    >>> tally.kinds(since=None)[0]                           # doctest: +SKIP
    {'kind': 'autoencoder', 'done': 4, 'failed': 0, 'running': 0, 'pending': 0, 'total': 4}
    """

    def __init__(self, study):
        self._study = study
        self.expected, self.records = {}, {}
        self._wanted, self._listed = None, None
        self._folders, self._seen, self._open = set(), {}, set()
        self._kinds, self._totals, self._counted, self.changes = {}, Counter(), (-1, Counter()), 0

    def update(self) -> None:
        """Read the records that are new since the last look."""
        self._read_expected()
        listed = _identity(self._study.runs)
        if listed is None or listed != self._listed:
            with suppress(FileNotFoundError):
                self._folders = set(os.listdir(self._study.runs))
            self._listed = _settled(listed)
        for run_id in [each for each in self._open if each in self._folders]:
            self._look(run_id)

    def recheck(self) -> None:
        """Look at every record again at the next look: one that was done may have been set back."""
        self._open = set(self._kinds)

    def _read_expected(self):
        wanted = _identity(self._study.expected)
        if wanted == self._wanted:
            return
        with suppress(OSError, ValueError):
            self.expected = json.loads(self._study.expected.read_text())
            self._wanted = wanted
            self._kinds = {run_id: _kind(name) for runs in self.expected.values() for run_id, name in runs.items()}
            self._totals = Counter(self._kinds.values())
            self.records = {run_id: each for run_id, each in self.records.items() if run_id in self._kinds}
            self._seen = {run_id: each for run_id, each in self._seen.items() if run_id in self.records}
            self.changes += 1
            self.recheck()

    def _look(self, run_id):
        path = self._study.runs / run_id / "record.json"
        seen = _identity(path)
        if seen == self._seen.get(run_id):
            pass
        elif seen is None:
            self.changes += 1
            self.records.pop(run_id, None)
            self._seen.pop(run_id, None)
        else:
            with suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text(encoding="utf-8"))
                # The rest, the loss of each epoch above all, is not for this page.
                self.records[run_id] = {key: record[key] for key in _KEPT} | {"seen": seen[1] / 1e9}
                self._seen[run_id] = seen
                self.changes += 1
        if self.records.get(run_id, {}).get("status") == "done":
            self._open.discard(run_id)

    def kinds(self, since=None) -> list[dict]:
        """Return the counts of each kind of training.

        Parameters
        ----------
        since : float, optional
            Start of the stage that runs (seconds since the epoch): trainings that have written in their folder since
            are running. Without it none is.

        Returns
        -------
        list of dict
            ``kind``, ``done``, ``failed``, ``running``, ``pending``, ``total``.
        """
        running = Counter(self._kinds[run_id] for run_id in self._begun() if since and self._written(run_id) >= since)
        ended = self._ended()
        found = []
        for kind, total in sorted(self._totals.items(), key=lambda each: _ORDER.index(each[0])):
            counts = {"done": ended[kind, "done"], "failed": ended[kind, "failed"], "running": running[kind]}
            found.append({"kind": kind, **counts, "pending": total - sum(counts.values()), "total": total})
        return found

    def _begun(self):
        """Runs that have a folder and no record."""
        return [run_id for run_id in self._open if run_id in self._folders and run_id not in self.records]

    def _written(self, run_id):
        found = _identity(self._study.runs / run_id)
        return found[1] / 1e9 if found is not None else 0.0

    def _ended(self):
        """How many of each kind are done and failed, counted again only when a record is new."""
        if self._counted[0] != self.changes:
            states = ((self._kinds[run_id], record["status"]) for run_id, record in self.records.items())
            self._counted = self.changes, Counter(states)
        return self._counted[1]

    def failures(self) -> list[dict]:
        """Return the trainings that failed most recently: ``{"what", "reason", "time"}``, newest first."""
        names = {run_id: name for runs in self.expected.values() for run_id, name in runs.items()}
        failed = [
            {"what": names[run_id], "reason": record["reason"], "time": record["seen"]}
            for run_id, record in self.records.items()
            if record["status"] == "failed" and run_id in names
        ]
        return sorted(failed, key=lambda each: -each["time"])[:_FAILURES_SHOWN]


_ORDER = ("autoencoder", "baseline", "mapper in cross-validation", "mapper on the learning curve", "mapper",
          "network", "predictor", "other")  # fmt: skip


def _kind(name):
    words = name.split(", ")
    if words[0] == "mapper" and any(word.startswith("fold ") for word in words):
        return "mapper in cross-validation"
    if words[0] == "mapper" and any(word.endswith(" trials") for word in words):
        return "mapper on the learning curve"
    return words[0] if words[0] in _ORDER else "other"
