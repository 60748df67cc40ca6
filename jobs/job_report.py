"""The jobs of a study in `motorsweep status`: how each is, where it runs, and what to do where it went wrong."""

import os
from collections import Counter
from dataclasses import dataclass

from ..hpc.slurm_jobs import has_slurm, job_states, read_jobs
from ..hpc.slurm_states import JobState, with_log
from ..hpc.slurm_walltime import REQUEUE

WORKERS = 2000
"""Workers whose states are asked for, at most; the newest."""
_TAIL_BYTES = 64_000
_LOG_LINES = 10

_ON = "then motorsweep submit goes on"


@dataclass(frozen=True)
class NotedJob:
    """A job as it was noted, with its state."""

    job: str
    verb: str
    role: str
    log: str
    state: JobState

    def as_dict(self):
        """Plain values for scripts."""
        found = self.state
        return {
            **{"job": self.job, "verb": self.verb, "role": self.role, "state": found.state, "reason": found.reason},
            **{"exit_code": found.exit_code, "nodes": found.nodes, "elapsed": found.elapsed},
            **{"restarts": found.restarts, "log": self.log},
        }


def noted_jobs(study) -> list[NotedJob]:
    """Jobs of the last submission with their states: the newest of each verb, and the workers that came after it.

    Parameters
    ----------
    study : Study

    Returns
    -------
    list of NotedJob
        Empty where nothing was submitted, or SLURM cannot be asked.
    """
    if not study.jobs.exists() or not has_slurm():
        return []
    drivers, workers = {}, []
    for job in read_jobs(study):
        if job["role"] == "driver":
            drivers[job["verb"]] = job
            workers = [each for each in workers if each["verb"] != job["verb"]]
        else:
            workers.append(job)
    chosen = [*drivers.values(), *workers[-WORKERS:]]
    states = job_states(job["job"] for job in chosen)
    return [_noted(job, states[job["job"]]) for job in chosen]


def _noted(job, state):
    if state.state == "failed":
        state = with_log(state, _end_of(job["log"]))
    return NotedJob(job["job"], job["verb"], job["role"], job["log"], state)


def job_lines(jobs, failed=False) -> list[str]:
    """Lines for people, one a driver with its workers; with `failed`, the last lines of the logs of those that crashed.

    Parameters
    ----------
    jobs : list of NotedJob
    failed : bool

    Returns
    -------
    list of str
    """
    lines = []
    for driver in (job for job in jobs if job.role == "driver"):
        workers = [job for job in jobs if job.role != "driver" and job.verb == driver.verb]
        line = f"{driver.verb} {driver.job}: {_in_words(driver.state)}"
        counts = Counter(job.state.state for job in workers)
        if driver.state.is_over:
            # It let its workers go: only those that should be gone, or had to end, are worth a word.
            counts = {state: counts[state] for state in counts if state not in ("done", "cancelled", "unknown")}
        if counts:
            line += "; worker jobs: " + ", ".join(f"{count} {state}" for state, count in counts.items())
        lines.append(f"{'' if lines else 'jobs':<9} {line}")
        table = "slurm.train" if driver.verb == "train" else "slurm.driver"
        told = {_advice(driver.state, table, driver.log): None}
        told |= {_advice(job.state, "slurm.simulate", job.log): None for job in workers if job.state.state in _MENDED}
        lines += [f"{'':<11} {advice}" for advice in told if advice]
        crashed = [job for job in [driver, *workers] if job.state.state == "failed"]
        for job in crashed[-3:] if failed else ():
            lines += [f"{'':<11} | {line}" for line in _end_of(job.log).splitlines()[-_LOG_LINES:]]
    return lines


# A worker's walltime and its node's death are met without anybody's help.
_MENDED = ("out of memory", "failed")


def _in_words(found):
    state = found.state
    if state == "running":
        text = f"running on {found.nodes}" if found.nodes else "running"
    elif state == "unknown":
        return f"unknown: {found.reason}" if found.reason else "not known to SLURM any more"
    elif state == "failed":
        code, _, signal = found.exit_code.partition(":")
        text = f"failed by signal {signal}" if signal not in ("", "0") else f"failed with exit code {code or '?'}"
        text += f" on {found.nodes}" if found.nodes else ""
    else:
        text = f"{state} on {found.nodes}" if found.nodes and found.is_over else state
    if found.reason == "Dependency":
        text += " until the job before it has ended"
    elif found.reason and not found.is_over:
        text += f" ({found.reason})"
    if state not in ("queued", "requeued") and found.elapsed.strip("0:"):
        text += f", {found.elapsed}"
    times = "once" if found.restarts == 1 else f"{found.restarts} times"
    return text + (f", queued again {times}" if found.restarts else "")


def _advice(found, table, log):
    state = found.state
    if state == "timed out":
        return f"raise walltime in [{table}], {_ON}"
    if state == "out of memory":
        return f"raise memory_gb in [{table}], {_ON}"
    if state == "node failed":
        return "no fault of the study: motorsweep submit goes on"
    if state == "cancelled":
        never = found.reason == "DependencyNeverSatisfied"
        return "the job before it did not end well" if never else "motorsweep submit goes on"
    if state == "failed" and found.exit_code.startswith(f"{REQUEUE}:"):
        return f"the walltime came more often than requeue in [slurm] allows: raise it, or walltime in [{table}], {_ON}"
    if state == "failed":
        return f"why: {log}"
    return ""


def _end_of(path):
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
