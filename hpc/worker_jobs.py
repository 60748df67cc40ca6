"""The SLURM jobs of Dask workers: asked for, replaced when they end, and cancelled at the end."""

import asyncio
import math
import re
import shlex
import signal
import sys
import time
from copy import copy
from functools import cache
from itertools import count

from distributed import Status

from ..errors import MotorsweepError
from .executors import count_of
from .slurm_cancel import BUSY, cancel_jobs
from .slurm_jobs import job_states, note_job
from .slurm_scripts import log_name, sbatch_words

DUDS_PER_JOB = 3
"""So many worker jobs for each that is wanted may end before they connect, until the run is given up."""

SUBMISSIONS_AT_ONCE = 4
LOOK_SECONDS = 2.0
"""How often is looked whether all jobs have their workers."""

ASK_SECONDS = (3.0, 30.0)
"""How often SLURM is asked about jobs without workers: at first, and when they have been so for long."""

REFUSED_SECONDS = 30.0
"""After which SLURM is asked again for jobs that it refused."""

_TELLING = re.compile(r"worker process|slurmstepd|oom.kill|killed|error", re.I)
_LOG_LINES = 15


@cache
def slurm_classes() -> tuple:
    """Return `WorkerJob` and `WorkerJobs` as classes of dask-jobqueue, which is loaded here.

    Examples
    --------
    >>> job_class, cluster_class = slurm_classes()                                # doctest: +SKIP
    >>> cluster_class.job_cls is job_class                                        # doctest: +SKIP
    True
    """
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob

    # It takes Ctrl-C to exit with 0, in the middle of anything.
    signal.signal(signal.SIGINT, on_ctrl_c)

    class SlurmWorkerJob(WorkerJob, SLURMJob):
        pass

    class SlurmWorkerJobs(WorkerJobs, SLURMCluster):
        job_cls = SlurmWorkerJob

    return SlurmWorkerJob, SlurmWorkerJobs


class WorkerJob:
    """One job of workers. That SLURM refuses it is no error here, but a fact that `WorkerJobs` acts upon.

    Parameters
    ----------
    study : Study
    verb : str
        The stage.
    gate : asyncio.Semaphore
        How many are submitted at once.
    """

    def __init__(self, scheduler=None, name=None, *, study=None, verb="", gate=None, **job):
        super().__init__(scheduler, name, **job)
        self.study, self.verb, self.gate, self.refused = study, verb, gate, ""

    @property
    def log(self):
        """The job's output, a path."""
        return self.study.logs / log_name(f"{self.verb}-worker", self.job_id)

    async def start(self):
        """Submit the job and note it in the study."""
        try:
            async with self.gate:
                await super().start()
        except (RuntimeError, ValueError) as error:
            self.refused = _words_of(str(error))
            self.status = Status.running  # Dask's cluster fails as a whole where a job does not start
            return
        note_job(self.study, job=self.job_id, verb=self.verb, role="worker", name=self.job_name, log=str(self.log))

    async def _submit_job(self, script_filename):
        words = sbatch_words(script_filename, str(self.study.folder))
        words[1:1] = [f"--output=logs/{log_name(f'{self.verb}-worker', '%j')}"]
        # Ctrl-C on a terminal must not end sbatch between a job's start and its id.
        return await self._call(words, start_new_session=True)

    async def close(self):
        """Cancel the job."""
        if self.status is not Status.closed:
            await super().close()
            self.forget()

    def forget(self):
        """Take the job as ended."""
        self.status = Status.closed


class WorkerJobs:
    """A Dask scheduler in this process, and the SLURM jobs of its workers.

    Parameters
    ----------
    study : Study
    verb : str
    jobs : int
        That are wanted, at most.
    adapt : bool
        Let go of those that there is no work for.
    **cluster
        As for `dask_jobqueue.SLURMCluster`.
    """

    def __init__(self, *, study, verb, jobs, adapt, processes, **cluster):
        self.study, self.verb, self.jobs, self.adapts, self.processes = study, verb, jobs, adapt, processes
        self._numbers, self._seen, self._duds, self._told = count(), set(), 0, set()
        self._logs, self._missing, self._pause = {}, set(), ASK_SECONDS[0]
        self._look_at = self._ask_at = self._more_at = 0.0
        gate = asyncio.Semaphore(SUBMISSIONS_AT_ONCE)
        super().__init__(study=study, verb=verb, gate=gate, processes=processes, **cluster)

    def _new_worker_name(self, worker_number):
        # Never that of a job before, whose last words may still be under way.
        return f"{self._name}-{next(self._numbers)}"

    def _get_worker_security(self, security):
        if security is None:
            return None
        quoted = copy(security)
        for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
            setattr(quoted, name, shlex.quote(getattr(security, name)))
        return quoted

    # ---- as many as are wanted -----------------------------------------------------------------------------------

    def look_after(self, left=math.inf):
        """Replace jobs that have ended, and let go of those that there is no work for; to be called now and then.

        Parameters
        ----------
        left : float
            Tasks that are not done; infinity where more may come.

        Raises
        ------
        MotorsweepError
            If SLURM refuses the jobs, or they end again and again before their workers connect.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        working = {self._job_of(worker.name) for worker in self.scheduler.workers.copy().values()}
        missing = {name: job for name, job in self.workers.copy().items() if name not in working}
        over = self._over(missing, now)
        of_use = math.ceil(min(left, self.jobs * self.processes) / self.processes)
        wanted = max(1, of_use) if self.adapts else self.jobs
        more = wanted - (len(self.workers) - len(over))
        if over or more < 0 or (more and now >= self._more_at):
            self.sync(self._change, over, more if now >= self._more_at else min(more, 0), working)

    def _update_worker_status(self, op, msg):
        # Dask tells of each worker that comes; one that dies at once would not be seen by looking now and then.
        if op == "add":
            self._seen |= {self._job_of(worker["name"]) for worker in msg["workers"].values()}
            self._duds = 0
        super()._update_worker_status(op, msg)

    def _job_of(self, worker):
        return str(worker).rpartition("-")[0] if self.processes > 1 else str(worker)

    def _over(self, missing, now):
        """Names of the jobs without workers that have ended, or were refused."""
        if missing.keys() - self._missing:
            self._ask_at, self._pause = now, ASK_SECONDS[0]
        self._missing = set(missing)
        if not missing or now < self._ask_at:
            return set()
        self._ask_at, self._pause = now + self._pause, min(1.5 * self._pause, ASK_SECONDS[1])
        refused = {name: job.refused for name, job in missing.items() if job.refused}
        states = job_states([job.job_id for job in missing.values() if not job.refused])
        states = {name: states[job.job_id] for name, job in missing.items() if not job.refused}
        # Unknown with a reason: SLURM itself does not answer.
        ended = {name for name, job in states.items() if job.is_over and not (job.state == "unknown" and job.reason)}
        self._count_duds(missing, ended - self._seen, states)
        self._tell_of_queue([state for state in states.values() if state.state == "queued"])
        if refused:
            self._more_at = now + REFUSED_SECONDS
            self._judge(set(refused.values()), len(self.workers) - len(refused) - len(ended))
        return ended | set(refused)

    def _judge(self, words, others):
        """Stop if SLURM refused all jobs for good; if it is only busy, or others go on, so does the run."""
        for_good = [each for each in words if not BUSY.search(each)]
        if for_good and not others:
            raise MotorsweepError(
                f"asking SLURM for {count_of(self.jobs, 'worker job')}: it refuses them ({for_good[0]}). Check "
                "[slurm] and [slurm.simulate] in the study file; what was finished is kept."
            )
        for each in words:
            self._say(each, f"SLURM does not take a worker job now, and is asked again later: {each}")

    def _count_duds(self, jobs, duds, states):
        self._duds += len(duds)
        if duds and self._duds >= DUDS_PER_JOB * self.jobs:
            name = max(duds, key=lambda each: int(jobs[each].job_id))
            log = jobs[name].log
            raise MotorsweepError(
                f"{self._duds} worker jobs have ended before their workers connected, the last one "
                f"({jobs[name].job_id}) as {states[name].state}. What was finished is kept. The end of its log, "
                f"{log}:\n{last_lines(log)}"
            )

    def _tell_of_queue(self, queued):
        if queued and not self.scheduler.workers and self._pause > 2 * ASK_SECONDS[0]:
            reason = f" ({queued[0].reason})" if queued[0].reason else ""
            self._say("queue", f"{count_of(len(queued), 'worker job')} queued{reason}; waiting for the cluster")

    def _say(self, about, text):
        if about not in self._told:
            self._told.add(about)
            print(f"{self.verb:<9} {text}", file=sys.stderr, flush=True)

    async def _change(self, over, more, working):
        for name in over:
            self.worker_spec.pop(name, None)
            if (job := self.workers.pop(name, None)) is not None:
                job.forget()
        for _ in range(more):
            self.worker_spec.update(self.new_worker_spec())
        for name in self._idle(working)[: max(0, -more)]:
            self.worker_spec.pop(name)
        await self._correct_state()
        self._logs |= {name: job.log for name, job in self.workers.items() if job.job_id}

    def _idle(self, working):
        """Jobs without a task, those first that have not begun."""
        busy = {self._job_of(worker.name) for worker in self.scheduler.workers.values() if worker.processing}
        return sorted((name for name in self.worker_spec if name not in busy), key=lambda name: name in working)

    # ---- what became of them -------------------------------------------------------------------------------------

    def last_words(self, worker) -> str:
        """Return what the log of a worker's job says of its end.

        Parameters
        ----------
        worker : str
            Name that Dask knows it by.
        """
        log = self._logs.get(self._job_of(worker))
        told = [line for line in last_lines(log, 200).splitlines() if _TELLING.search(line)] if log else []
        where = f"log {log.name}" if log else "no log"
        return f"{where}: {told[-1].strip()}" if told else f"{where} does not say how"

    def cancel(self):
        """Cancel all jobs in one call; where SLURM does not listen, they end when they find no scheduler."""
        jobs = [job for job in list(self.workers.values()) if job.job_id]
        cancel_jobs([job.job_id for job in jobs])
        for job in jobs:
            job.forget()


def last_lines(path, lines=_LOG_LINES) -> str:
    """Return the end of a log; a sentence where there is none.

    Examples
    --------
    >>> last_lines("/nowhere/simulate-worker-1.log")
    '(there is no such file)'
    """
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 20_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(there is no such file)"
    return "\n".join(text.splitlines()[-lines:]) or "(it is empty)"


def _words_of(text):
    """What sbatch said, out of dask-jobqueue's account of it."""
    found = re.findall(r"^(?:sbatch: )?error: (.+)$", text, re.M)
    return found[-1].strip() if found else " ".join(text.split())
