"""SLURM's jobs of a study: sending them, noting their ids in the study, and asking how they are."""

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ..errors import MissingPackageError, MotorsweepError
from ..zarr_store.atomic import disk_errors
from .slurm_states import (
    SACCT_FIELDS,
    SQUEUE_FIELDS,
    JobState,
    parse_jobcomp,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)

ANSWER_SECONDS = 30.0
"""How long SLURM's commands may take to answer."""


def note_job(study, *, job: str, verb: str, role: str, name: str = "", log: str = "") -> None:
    """Note a job in the study, a line of ``slurm/jobs.jsonl``; a line is one write, so that several may note at once.

    Parameters
    ----------
    study : Study
    job : str
        ``"123"``, or ``"123_4"`` for an element of an array.
    verb : str
        ``"simulate"``, ``"train"`` or ``"collect"``.
    role : str
        ``"driver"``, or ``"worker"`` of a driver.
    name : str
    log : path-like
        Made absolute.

    Raises
    ------
    StoreError
        Where the disk refuses.
    """
    time = datetime.now(UTC).isoformat(timespec="seconds")
    log = os.path.abspath(log) if log else ""
    line = json.dumps({"job": str(job), "verb": verb, "role": role, "name": name, "log": log, "time": time})
    with disk_errors(f"noting job {job}", study.jobs):
        study.jobs.parent.mkdir(parents=True, exist_ok=True)
        with study.jobs.open("ab") as file:
            file.write(f"{line}\n".encode())


def read_jobs(study) -> list[dict]:
    """Read the jobs that were noted, oldest first; half a line at the end, of a writer that was killed, is left out.

    Parameters
    ----------
    study : Study

    Returns
    -------
    list of dict
        ``job``, ``verb``, ``role``, ``name``, ``log``, ``time``: texts.
    """
    try:
        lines = study.jobs.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    jobs = []
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("job"):
            jobs.append({key: str(found.get(key, "")) for key in ("job", "verb", "role", "name", "log", "time")})
    return jobs


def submit_script(words) -> str:
    """Send a job and return its id.

    Parameters
    ----------
    words : sequence of str
        sbatch's command line, as `sbatch_words` gives it.

    Returns
    -------
    str

    Raises
    ------
    MissingPackageError
        If there is no sbatch.
    MotorsweepError
        With what sbatch said, if it refused.
    """
    what = Path(words[-1]).name
    if shutil.which(words[0]) is None:
        raise MissingPackageError(
            f"submitting {what}: there is no sbatch here; `motorsweep submit` is for the login node of a cluster with "
            "SLURM (`--dry-run` works anywhere; without SLURM: motorsweep run)."
        )
    try:
        done = subprocess.run(list(words), capture_output=True, text=True, timeout=4 * ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise MotorsweepError(
            f"submitting {what}: sbatch did not answer within {4 * ANSWER_SECONDS:g} s. Whether the job was taken is "
            "not known: see `squeue --me` before you submit again."
        ) from None
    job = re.match(r"\d+", done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else None
    if done.returncode or job is None:
        said = "; ".join(line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip())
        raise MotorsweepError(
            f"submitting {what}: sbatch refused it ({said or f'exit code {done.returncode}, no word'}). See [slurm] of "
            "the study file, and `sinfo` for the cluster's partitions."
        )
    return job[0]


def has_slurm() -> bool:
    """Tell whether SLURM can be asked from here."""
    return shutil.which("squeue") is not None


def job_states(ids) -> dict:
    """Ask how jobs are: squeue for all at once, then sacct for those that have left the queue, or else scontrol.

    Parameters
    ----------
    ids : iterable of str

    Returns
    -------
    dict
        Each id to its JobState; ``"unknown"``, with what SLURM said as the reason, where it does not tell.

    Examples
    --------
    >>> job_states([])
    {}
    """
    wanted = list(dict.fromkeys(map(str, ids)))
    if not wanted:
        return {}
    states, trouble = {}, ""
    for ask in (_squeue, _sacct, _scontrol, _jobcomp):
        missing = [job for job in wanted if job not in states]
        if missing:
            found, said = ask(missing)
            states |= {job: found[job] for job in missing if job in found}
            trouble = trouble or said
            if "did not answer" in said or "contact" in said:
                break  # the controller is away, and each of the others would wait for it in turn
    return {job: states.get(job) or JobState(id=job, reason=trouble) for job in wanted}


def _squeue(ids):
    fields = ",".join(f"{name}:|" for name in SQUEUE_FIELDS)
    text, said = _answer(["squeue", "--noheader", "--array", f"--jobs={','.join(ids)}", f"--Format={fields}"])
    # A job that is not in the queue is no trouble.
    return parse_squeue(text), "" if "Invalid job id" in said else said


def _sacct(ids):
    words = ["--noheader", "--parsable2", f"--jobs={','.join(ids)}", f"--format={','.join(SACCT_FIELDS)}"]
    return parse_sacct(_answer(["sacct", *words])[0]), ""  # many clusters keep no accounts


def _scontrol(ids):
    # It takes one id, or none for all: one question in any case.
    text, _ = _answer(["scontrol", "--oneliner", "show", "job", *(ids if len(ids) == 1 else [])])
    return parse_scontrol(text), ""


def _jobcomp(ids):
    settings, _ = _answer(["scontrol", "show", "config"])
    found = dict(re.findall(r"^(JobCompType|JobCompLoc)\s*=\s*(.+)$", settings, re.MULTILINE))
    if found.get("JobCompType", "").strip() != "jobcomp/filetxt":
        return {}, ""
    try:
        return parse_jobcomp(Path(found.get("JobCompLoc", "").strip()).read_text(errors="replace")), ""
    except OSError:
        return {}, ""


def _answer(words):
    """What a command of SLURM answers, and what it complains of."""
    # Ids of an array's elements in full; the user's own formats must not matter.
    environment = {**os.environ, "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            env=environment,
            check=False,
        )
    except OSError:
        return "", ""
    except subprocess.TimeoutExpired:
        return "", f"{words[0]} did not answer within {ANSWER_SECONDS:g} s"
    return (done.stdout, "") if done.returncode == 0 else ("", " ".join(done.stderr.split()))
