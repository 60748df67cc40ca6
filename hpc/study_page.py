"""A study as its user thinks of it: poses, pace, trainings, best score, failures, jobs; as plain values for a page."""

import os
import threading
import tomllib
from contextlib import suppress

from ..zarr_store.feature_layout import FEATURES
from ..zarr_store.shards import VOLUMES
from ..zarr_store.study import Study
from .best_scores import best_scores
from .coordinator import coordinator
from .dask_address import find_dashboard
from .event_tail import EventTail
from .events import format_clock
from .job_table import JobTable
from .pace import curve_of, pace_of
from .study_tally import PoseTally, RunTally

_CLOCKS_APART = 5.0


def study_snapshot(study, now: float) -> dict:
    """Return how a study stands, as values that JSON can hold.

    For one look; who looks again and again keeps a :class:`StudyPage`, which reads only what has changed.

    Parameters
    ----------
    study : Study or path-like
    now : float
        Seconds since the epoch.

    Returns
    -------
    dict
        See :meth:`StudyPage.snapshot`.

    Examples
    --------
    >>> study_snapshot("studies/nowhere", 0.0)["state"]
    'not begun'
    """
    return StudyPage(study).snapshot(now)


class StudyPage:
    """What the dashboard's page shows of a study; cheap to ask every two seconds.

    Parameters
    ----------
    study : Study or path-like
        It need not exist yet.

    Examples
    --------
    >>> page = StudyPage("studies/quick")                    # doctest: +SKIP
    >>> page.snapshot(time.time())["poses"]                  # doctest: +SKIP
    {'done': 48, 'failed': 1, 'pending': 0, 'total': 49}
    """

    def __init__(self, study):
        self.study = study if isinstance(study, Study) else Study(study)
        self._events = EventTail(self.study.events)
        self._kind, self._poses, self._runs = "tms", PoseTally(self.study), RunTally(self.study)
        self._jobs = JobTable(self.study)
        self._begun, self._best = 0, (-1, [])
        self._named = None, self.study.folder.name
        self._lock = threading.Lock()

    def snapshot(self, now: float) -> dict:
        """Look at the study.

        Parameters
        ----------
        now : float
            Seconds since the epoch.

        Returns
        -------
        dict
            ``name``; ``kind`` of study; ``now``; ``state``: "not begun", "running", "stopped", "idle" or "finished";
            ``sentence``: what a person should know of it; ``stages``: the five, with state, failures, seconds, and
            pieces done a second; ``stage``: the present one with its pace, or None; ``poses``: counts (of records in
            a study of EEG and EMG); ``trainings``: counts of each kind; ``best``: scores; ``failures``; ``failed``:
            how many there are; ``jobs``; ``dask``: address of Dask's dashboard, where it is on this machine;
            ``events``; ``last_event``: seconds since the epoch, or
            None.
        """
        with self._lock:
            self._events.update()
            if self._events.stages_begun != self._begun:
                self._begun = self._events.stages_begun
                self._runs.recheck()
            self._read_config()
            self._poses.update()
            self._runs.update()
            return self._assembled(now)

    def _assembled(self, now):
        owner = coordinator(self.study)
        stage = self._stage(now, owner)
        poses = self._poses.counts
        trainings = self._runs.kinds(stage["began"] if _runs(stage) else None)
        steps = self._steps(stage, poses, trainings)
        state = self._state(owner, stage, steps)
        jobs = self._jobs.rows()
        dask = find_dashboard(self.study)
        failed = poses["failed"] + sum(each["failed"] for each in trainings)
        return {
            "name": self._named[1],
            "kind": self._kind,
            "now": now,
            "state": state,
            "sentence": _sentence(state, owner, stage, steps, jobs),
            "stages": [{"verb": verb, **step, **self._spent(verb)} for verb, step in steps.items()],
            "stage": stage,
            "poses": poses,
            "trainings": trainings,
            "best": self._best_scores(),
            "failures": (self._runs.failures() + self._poses.failures())[:20] if failed else [],
            "failed": failed,
            "jobs": jobs,
            "dask": dask.address if dask is not None and dask.is_here else None,
            "events": [_line(event) for event in reversed(self._events.recent)],
            "last_event": self._events.last_time,
        }

    def _best_scores(self):
        if self._best[0] != self._runs.changes:
            self._best = self._runs.changes, best_scores(self._runs.records, self._runs.expected)
        return self._best[1]

    def _read_config(self):
        """Name and kind of the study, read again only when its study file is another."""
        with suppress(OSError, ValueError):
            written = os.stat(self.study.config).st_mtime_ns
            if written != self._named[0]:
                raw = tomllib.loads(self.study.config.read_text(encoding="utf-8"))
                self._named = written, str(raw.get("name") or self.study.folder.name)
                if raw.get("kind", "tms") != self._kind:
                    self._kind = str(raw.get("kind", "tms"))
                    self._poses = PoseTally(self.study, FEATURES if self._kind == "eeg" else VOLUMES)

    def _state(self, owner, stage, steps):
        if owner is not None:
            return "running"
        if stage is None and not self._poses.counts["total"]:
            return "not begun"
        if all(step["state"] == "done" for step in steps.values()):
            return "finished"
        return "stopped" if stage is not None and stage["state"] == "stopped" else "idle"

    def _spent(self, verb):
        spent = self._events.spent.get(verb)
        if not spent or not spent["seconds"]:
            return {"seconds": None, "per_second": None}
        return {"seconds": round(spent["seconds"], 1), "per_second": round(spent["done"] / spent["seconds"], 4)}

    def _steps(self, stage, poses, trainings):
        """State of each stage (done, running or left), and how many of its pieces failed."""
        counts = {"simulate": poses, "encode": _sum(trainings, "autoencoder"), "train": _sum(trainings, None)}
        if self._kind == "eeg":  # the matrices are the codes
            counts["encode"] = poses | {"failed": 0, "done": poses["done"] + poses["failed"]}
        steps = {verb: {"state": _step(count), "failed": count["failed"]} for verb, count in counts.items()}
        for verb, path in (("collect", self.study.results), ("report", self.study.report / "index.html")):
            steps[verb] = {"state": "done" if path.exists() else "left", "failed": 0}
        if _runs(stage):
            steps["simulate" if stage["verb"] == "basis" else stage["verb"]]["state"] = "running"
        return steps

    def _stage(self, now, owner):
        """The stage that the log is in, with its pace and the time left."""
        event = self._events.stage
        if event is None:
            return None
        state = event["state"]
        if state == "started":  # an owner that came later has not begun a stage yet: another one was killed in this one
            state = "running" if owner and owner["since"] < event["began"] + _CLOCKS_APART else "stopped"
        until = now if state == "running" else event["seen"] if event["state"] != "started" else self._events.last_time
        counts = self._counts_of(event)
        left = max(0, counts["total"] - counts["done"] - counts["failed"])
        pace = pace_of(self._events.ends, event["began"], until)
        return {
            "verb": event["verb"],
            "unit": event.get("unit", "tasks"),
            "state": state,
            "reason": event.get("reason") or "",
            "executor": event.get("executor", ""),
            "began": event["began"],
            "seconds": round(max(0.0, until - event["began"]), 1),
            **counts,
            "per_second": pace["done"],
            "left_seconds": left / pace["ended"] if pace["ended"] and state == "running" else None,
            "curve": curve_of(self._events.ends, event["began"], until),
        }

    def _counts_of(self, event):
        """Done, failed and total of a stage: those of the whole study where the stores count them."""
        if event["verb"] == "simulate" and self._poses.counts["total"]:
            return {key: self._poses.counts[key] for key in ("done", "failed", "total")}
        if event["verb"] in self._runs.expected:
            kind = "autoencoder" if event["verb"] == "encode" else None
            counts = _sum(self._runs.kinds(), kind)
            return {key: counts[key] for key in ("done", "failed", "total")}
        done = sum(each[1] for each in self._events.ends)
        failed = sum(each[2] for each in self._events.ends)
        return {"done": done, "failed": failed, "total": int(event.get("total", 0))}


def _sum(trainings, kind):
    chosen = [each for each in trainings if (each["kind"] == kind if kind else each["kind"] != "autoencoder")]
    return {key: sum(each[key] for each in chosen) for key in ("done", "failed", "total")}


def _step(count):
    if not count["total"] or count["done"] + count["failed"] < count["total"]:
        return "left"
    return "done"


def _sentence(state, owner, stage, steps, jobs):
    if state == "running":
        where = f"process {owner['pid']} on {owner['host']}"
        return f"{stage['executor']} ({where})" if _runs(stage) else f"Between two stages ({where})."
    waiting = next((job for job in reversed(jobs) if job["state"] in ("queued", "requeued")), None)
    if waiting is not None:
        return f"Job {waiting['job']} ({waiting['verb']}) is {waiting['state']}."
    if state == "not begun":
        return "Nothing has been computed yet: `motorsweep run STUDY.toml` begins, and this page then shows it."
    if state == "finished":
        failed = [verb for verb, step in steps.items() if step["failed"]]
        return f"All is done, but for what failed in {' and '.join(failed)}." if failed else "All is done."
    reason = f" by {stage['reason']}" if state == "stopped" and stage["reason"] else ""
    begin = f"Stopped{reason}" if state == "stopped" else "Nothing runs now"
    return f"{begin}; what is done is kept, and `motorsweep run STUDY.toml` goes on from here."


def _runs(stage):
    return stage is not None and stage["state"] == "running"


def _line(event):
    if event["event"] == "stage":
        words = f"{event['verb']} {event['state']}"
        words += f": {event['total']} {event.get('unit', 'tasks')}" if event["state"] == "started" else ""
        words += f" after {format_clock(event.get('seconds') or 0)}" if event["state"] != "started" else ""
    else:
        words = f"{event['verb']}: {event['task']} {event['status']} in {event.get('seconds') or 0:.1f} s"
        words += f" on {event['host']}" if event.get("host") else ""
    return {"time": event["seen"], "text": words + (f" ({event['reason']})" if event.get("reason") else "")}
