"""Answers of the questions ``status``, ``show`` and ``verify``: values with lines for people and a dict for scripts."""

import json
import shutil
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError, StoreError
from ..hpc.events import format_clock
from ..hpc.predictor_names import LIMITS
from ..zarr_store.codes import read_codes
from ..zarr_store.features import open_features, verify_features
from ..zarr_store.results import open_results
from ..zarr_store.runs import read_arrays, read_record, run_state
from ..zarr_store.schema import Status
from ..zarr_store.shards import verify_volumes
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .job_report import job_lines, noted_jobs
from .ranking import completed, ranking


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Parameters
    ----------
    folder : str
    parts : dict
        Part to counts ``{"done", "pending", "failed"}``.
    causes : list of dict
        ``{"part", "cause", "count", "ids", "reason"}``, empty unless asked for.
    best : dict
        Labels and NRMSE of the best predictor so far; empty before there are results.
    jobs : list of NotedJob
        On a cluster: those of the last submission.
    logs : bool
        Show the last lines of the logs of jobs that crashed.
    """

    folder: str
    parts: dict
    causes: list = field(default_factory=list)
    best: dict = field(default_factory=dict)
    jobs: list = field(default_factory=list)
    logs: bool = False

    @classmethod
    def of(cls, folder, failed):
        """Read the status from the study's folder."""
        study = Study(folder)
        if not study.folder.is_dir():
            raise InputError(f"status: there is no study in {study.folder} yet; `motorsweep run STUDY.toml` makes it.")
        parts, failures = _simulated(study)
        for verb, runs in _expected(study).items():
            states = {run_id: run_state(study, run_id) for run_id in runs}
            parts[verb] = _counts(states.values())
            failures += [(verb, run_id, _reason(study, run_id)) for run_id, s in states.items() if s is Status.FAILED]
        causes = _by_cause(failures) if failed else []
        best = {} if study.kind == "eeg" else _best(study)
        return cls(str(study.folder), parts, causes, best, noted_jobs(study), failed)

    def lines(self):
        """Lines for people."""
        lines = [f"study     {self.folder}"]
        for part, counts in self.parts.items():
            words = ", ".join(f"{counts[key]} {key}" for key in ("done", "pending", "failed") if counts[key])
            lines.append(f"{part:<9} {words or 'nothing yet'}")
        if self.best:
            place = "" if self.best["input"] == "–" else f", {self.best['input']}"
            lines.append(f"best      NRMSE {self.best['nrmse']:.3f}: {self.best['model']}{place} (mean of repeats)")
        lines += job_lines(self.jobs, self.logs)
        for cause in self.causes:
            ids = ", ".join(map(str, cause["ids"][:5])) + (" …" if cause["count"] > 5 else "")
            lines.append(f"  {cause['cause']:<13} {cause['count']:>4}  {cause['part']} {ids}  {cause['reason']}")
        if self.causes:
            lines.append("retry     motorsweep run STUDY.toml --retry-failed")
        return lines

    def as_dict(self):
        """Plain values for scripts."""
        jobs = [job.as_dict() for job in self.jobs]
        return {"folder": self.folder, "parts": self.parts, "failures": self.causes, "best": self.best, "jobs": jobs}


def _counts(states):
    counted = Counter(states)
    return {s.name.lower(): counted.get(s, 0) for s in (Status.DONE, Status.PENDING, Status.FAILED)}


def _simulated(study):
    """Counts of the study's records or poses, and those that failed, with their reasons."""
    eeg, tms = ("record", study.features, open_features), ("pose", study.volumes, open_volumes)
    row, path, opened = eeg if study.kind == "eeg" else tms
    if not path.exists():
        return {"simulate": _counts([])}, []
    store = opened(study)
    states = [Status(int(value)) for value in store["status"].values]
    bad = [k for k, state in enumerate(states) if state is Status.FAILED]
    names = store["record"].values.tolist() if row == "record" else range(len(states))
    reasons = store["reason"].values if bad else []
    return {"simulate": _counts(states)}, [(row, names[k], str(reasons[k])) for k in bad]


def _expected(study):
    if not study.expected.exists():
        return {}
    try:
        return json.loads(study.expected.read_text())
    except ValueError as error:
        raise StoreError(f"status: {study.expected} is damaged ({error}); `motorsweep run` writes it again.") from error


def _reason(study, run_id):
    return (read_record(study, run_id) or {}).get("reason", "")


def _by_cause(failures):
    groups = defaultdict(list)
    for part, key, reason in failures:
        groups[part, reason.partition(":")[0]].append((key, reason))
    return [
        {"part": part, "cause": cause, "count": len(rows), "ids": [key for key, _ in rows], "reason": rows[0][1]}
        for (part, cause), rows in groups.items()
    ]


def _best(study):
    """The predictor with the lowest mean NRMSE, with a network or without."""
    if not study.results.exists():
        return {}
    found = [each for each in ranking(completed(open_results(study))) if each.known.size and each.key[1] not in LIMITS]
    if not found:
        return {}
    best = found[0]
    labels = dict(zip(("depth", "connection"), best.key[1:])) if best.is_network else {}
    return {"model": best.label, "input": best.input_name, **labels, "nrmse": best.mean}


@dataclass(frozen=True)
class Shown:
    """One run's record."""

    run_id: str
    record: dict

    @classmethod
    def of(cls, folder, run_id):
        """Read the record of a run; an unambiguous beginning of its id will do."""
        study = Study(folder)
        matches = sorted(p.name for p in study.runs.glob("*") if p.name.startswith(run_id)) if run_id else []
        if len(matches) != 1:
            found = f"{len(matches)} runs begin so" if matches else "there is none"
            raise InputError(
                f"show {run_id!r}: {found} in {study.runs}; "
                "the results' run_id and `motorsweep status --failed` name them."
            )
        record = read_record(study, matches[0])
        if record is None:
            raise InputError(
                f"show {matches[0]}: the run has begun and is not done yet; `motorsweep run` goes on with it."
            )
        return cls(matches[0], record)

    def lines(self):
        """Lines for people."""
        record = self.record
        labels = ", ".join(f"{k} {v}" for k, v in record["labels"].items() if v is not None)
        lines = [f"run       {self.run_id}  ({record['kind']}, {record['status']})", f"labels    {labels}"]
        if record.get("reason"):
            lines.append(f"reason    {record['reason']}")
        for name, value in record.get("scores", {}).items():
            lines.append(f"  {name:<20} {value:.6g}" if isinstance(value, float) else f"  {name:<20} {value}")
        if record.get("loss"):
            loss = record["loss"]
            lines.append(f"loss      {loss[0]:.4g} -> {loss[-1]:.4g} in {len(loss)} epochs")
        source = record.get("provenance", {})
        lines.append(
            f"took      {format_clock(record.get('seconds', 0))} on {source.get('host')}, {record.get('started')}"
        )
        lines.append(f"code      {source.get('version')} {source.get('commit') or ''}".rstrip())
        lines.append("spec      " + json.dumps(record["spec"], sort_keys=True))
        return lines

    def as_dict(self):
        """Plain values for scripts."""
        return {"run_id": self.run_id, **self.record}


@dataclass(frozen=True)
class Damage:
    """What `verify` found.

    Parameters
    ----------
    folder : str
    checked : dict
        What was read, and how many.
    problems : list of str
    repaired : bool
    """

    folder: str
    checked: dict
    problems: list
    repaired: bool = False

    @property
    def ok(self):
        """Whether the study can be trusted as it is: nothing damaged, or all of it marked as pending again."""
        return not self.problems or self.repaired

    @classmethod
    def of(cls, folder, repair):
        """Read every volume, code, record and result."""
        study = Study(folder)
        if not study.folder.is_dir():
            raise InputError(f"verify: there is no study in {study.folder}.")
        with study.lock() if repair else nullcontext():
            return cls._of(study, repair)

    @classmethod
    def _of(cls, study, repair):
        checked, problems = {}, []
        if study.volumes.exists():
            problems += [str(problem) for problem in verify_volumes(study, repair=repair)]
            checked["poses"] = int((open_volumes(study)["status"].values == int(Status.DONE)).sum())
        if study.features.exists():
            problems += [str(problem) for problem in verify_features(study, repair=repair)]
            checked["records"] = int((open_features(study)["status"].values == int(Status.DONE)).sum())
        for name, opener, path in (("trials", open_trials, study.trials), ("results", open_results, study.results)):
            if path.exists():
                checked[name] = 1
                problems += _read_through(name, path, opener, study, repair)
        checked["runs"], found = _runs(study, repair)
        return cls(str(study.folder), checked, problems + found, repair)

    def lines(self):
        """Lines for people."""
        read = ", ".join(f"{count} {name}" for name, count in self.checked.items())
        lines = [f"verify    read {read}: " + ("all is well" if not self.problems else f"{len(self.problems)} damaged")]
        lines += [f"  {problem}" for problem in self.problems]
        if self.problems:
            lines.append(
                "mended    marked as not done; `motorsweep run STUDY.toml` makes them again"
                if self.repaired
                else "mend      motorsweep verify STUDY --repair, then motorsweep run STUDY.toml"
            )
        return lines

    def as_dict(self):
        """Plain values for scripts."""
        return {
            "folder": self.folder,
            "checked": self.checked,
            "problems": self.problems,
            "repaired": self.repaired,
            "ok": self.ok,
        }


def _read_through(name, path, opener, study, repair):
    try:
        dataset = opener(study).load()
        lost = [key for key in ("response", "didt") if key in dataset and not np.isfinite(dataset[key].values).all()]
        if lost:
            raise StoreError(f"{', '.join(lost)} has holes, so a file of it is gone")
    except Exception as error:
        if repair:
            shutil.rmtree(path)
        return [f"{name}: {path} cannot be read ({error})"]
    return []


def _runs(study, repair):
    """Read records, arrays and codes of the runs that are done."""
    count, problems = 0, []
    for folder in sorted(study.runs.glob("*")) if study.runs.exists() else []:
        run_id = folder.name
        try:
            record = read_record(study, run_id)
            if record is None or record["status"] != "done":
                continue
            count += 1
            read_arrays(study, run_id)
            if record["kind"] == "autoencoder" and not np.isfinite(read_codes(study, run_id)).all():
                raise StoreError("its codes are not finite")
        except Exception as error:
            problems.append(f"run {run_id}: {error}")
            if repair:
                study.record(run_id).unlink(missing_ok=True)
                shutil.rmtree(study.codes / run_id, ignore_errors=True)
    return count, problems
