"""Cancelling worker jobs: all of a run in one call, and those that a killed driver has left."""

import re
import subprocess
import time

from .slurm_jobs import ANSWER_SECONDS, read_jobs

BUSY = re.compile(
    r"unable to contact|timed out|zero bytes|connection|communication|temporarily|try again|not respond", re.IGNORECASE
)
"""What SLURM's commands say when its controller does not answer for a while."""

ATTEMPTS = 3
PAUSE_SECONDS = 5.0
_IDS_OF_A_CALL = 500


def cancel_jobs(ids) -> None:
    """Cancel jobs; those that have ended are no trouble, and a controller that does not answer is asked again.

    Parameters
    ----------
    ids : sequence of str
    """
    for start in range(0, len(ids), _IDS_OF_A_CALL):
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            if not BUSY.search(_said(["scancel", *ids[start : start + _IDS_OF_A_CALL]])[1]):
                break


def cancel_leftovers(study, name) -> list:
    """Cancel the worker jobs that a killed driver of a study has left; for the holder of the study's lock.

    Parameters
    ----------
    study : Study
    name : str
        Of the jobs; one that SLURM knows by another is not touched, whatever its id.

    Returns
    -------
    list of str
        Their ids.
    """
    noted = {job["job"] for job in read_jobs(study) if job["role"] == "worker"}
    if not noted:
        return []
    alive, _ = _said(["squeue", "--noheader", "--me", f"--name={name}", "--format=%i"])
    left = sorted(noted & set(alive.split()))
    cancel_jobs(left)
    return left


def _said(words):
    """What a command answers, and what it complains of."""
    try:
        # In a session of its own, so that Ctrl-C on a terminal does not end it half-way.
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return "", "timed out"
    return done.stdout, done.stderr
