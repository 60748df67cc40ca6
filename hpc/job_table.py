"""The SLURM jobs of a study and their states, for a page that is asked every two seconds."""

import importlib.util
import threading
import time
from contextlib import suppress

JOBS_SECONDS = 30.0
"""How long the states of SLURM jobs are kept before SLURM is asked again."""
JOBS_SHOWN = 50


class JobTable:
    """The SLURM jobs of a study; SLURM is asked in a thread of its own, as it may take its time.

    Parameters
    ----------
    study : Study
    """

    def __init__(self, study):
        self._study, self._states, self._asked, self._thread = study, {}, -JOBS_SECONDS, None

    def rows(self) -> list[dict]:
        """Return the newest jobs: texts ``job``, ``name``, ``role``, ``verb``, ``state``, ``reason``, ``nodes``, ..."""
        if not self._study.jobs.exists() or importlib.util.find_spec(f"{__package__}.slurm_jobs") is None:
            return []
        from .slurm_jobs import read_jobs

        jobs = list(read_jobs(self._study))[-JOBS_SHOWN:]
        self._ask([str(job["job"]) for job in jobs])
        return [_job_row(job, self._states.get(str(job["job"]))) for job in reversed(jobs)]

    def _ask(self, ids):
        if time.monotonic() - self._asked < JOBS_SECONDS or (self._thread is not None and self._thread.is_alive()):
            return
        self._asked = time.monotonic()
        self._thread = threading.Thread(target=self._read_states, args=(ids,), name="motorsweep-jobs", daemon=True)
        self._thread.start()

    def _read_states(self, ids):
        from .slurm_jobs import job_states

        with suppress(Exception):  # no SLURM here, or it does not answer: the states stay unknown
            self._states = job_states(ids)


def _job_row(job, state):
    row = {key: str(job.get(key, "")) for key in ("job", "name", "role", "verb")}
    return row | {key: str(getattr(state, key, None) or "") for key in ("state", "reason", "nodes", "elapsed")}
