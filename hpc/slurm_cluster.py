"""Tasks on Dask workers that are jobs of SLURM: the scheduler is in this process, the driver.

Worker jobs end before their walltime and are replaced, as are those that were lost; a task whose worker died runs again
among the others, since a node that fails or a partition that takes its nodes back may cost a hundred workers at once.
"""

import importlib.util
import math
import os
import re
import shlex
import shutil
import sys
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import dask
from distributed import Client

from ..errors import ConfigError, MissingPackageError
from ..zarr_store.atomic import atomic_write_text
from .dask_address import ssh_line
from .dask_executor import IN_FLIGHT_PER_WORKER, SETTINGS, DaskExecutor, logged_to, scratch_folder
from .executors import count_of
from .slurm_cancel import cancel_leftovers
from .slurm_config import walltime_seconds
from .slurm_scripts import directive, environment_lines, log_name, memory_text
from .slurm_worker import node_address
from .tls import is_encrypted, temporary_security
from .worker_jobs import slurm_classes

DEATH_TIMEOUT_SECONDS = 60
"""After which a worker ends that finds no scheduler, as when the driver was killed."""

LIFETIME_SHARE, STAGGER_SHARE, LONGEST_STAGGER_SECONDS = 0.8, 0.05, 900
"""Of the walltime: when workers end, give or take a random part, so that not all are replaced at once."""

_SCHEDULER_SETTINGS = {
    # One task on a worker, the others wait here: a worker that dies is blamed on the task that it ran.
    "distributed.scheduler.worker-saturation": 1.0,
    # A long factorisation holds the interpreter's lock: silence does not mean that the worker is dead. That of a node
    # is noticed by TCP.
    "distributed.scheduler.worker-ttl": "1 hour",
}


class SlurmExecutor(DaskExecutor):
    """Runs tasks on the workers of SLURM jobs."""

    attempts_alone = 1

    def __init__(self, client, *, retries, **cluster):
        super().__init__(client, **cluster)
        self.retries, self._jobs = retries, client.cluster
        place = urlsplit(self.dashboard or "")
        self.tunnel = ssh_line(place.hostname, place.port) if self.dashboard else ""

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        jobs, workers = count_of(self._jobs.jobs, "worker job"), count_of(self._jobs.processes, "worker")
        return f"slurm: {jobs} x {workers} x {count_of(self.threads, 'thread')}"

    def _room(self):
        # Of those workers that are there: what waits for a queue of jobs would all go to the first that comes.
        return IN_FLIGHT_PER_WORKER * min(self.workers, max(1, len(self.scheduler.running)))

    def _tend(self, left):
        self._jobs.look_after(left)

    def _finding(self, worker):
        return self._jobs.last_words(worker.name)


@contextmanager
def open_slurm(config, *, slurm, study, verb, scratch=None, log=None, memory_per_worker_gb=0.0, at_most=None):
    """Ask for the worker jobs of a study and yield a :class:`SlurmExecutor`; see :func:`.executors.open_executor`.

    The jobs are cancelled with the block, however it ends. Those of a driver that was killed end by themselves when
    they find no scheduler, and are cancelled by the next one.

    Raises
    ------
    MissingPackageError
        Without dask-jobqueue or sbatch.
    ConfigError
        If the jobs have too few CPUs for their threads, or there is no such network interface.
    """
    _check(config, slurm)
    simulate = slurm.simulate
    jobs = _wanted_jobs(config, simulate, at_most)
    _warn_of_memory(simulate, memory_per_worker_gb, verb)
    name = re.sub(r"[^\w.-]+", "_", f"{study.folder.name}-{verb}-worker")
    study.logs.mkdir(parents=True, exist_ok=True)
    cancel_leftovers(study, name)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(scratch or study.scratch))
        address = node_address(slurm.interface)
        security = stack.enter_context(temporary_security(folder)) if is_encrypted(slurm.tls, address) else None
        stack.enter_context(dask.config.set(SETTINGS | _SCHEDULER_SETTINGS))
        stack.enter_context(logged_to(log or study.logs / f"{verb}.log"))
        cluster = stack.enter_context(
            _cluster(
                config, slurm, study, verb, jobs=jobs, name=name, folder=folder, address=address, security=security
            )
        )
        client = stack.enter_context(Client(cluster, set_as_default=False, security=security))
        yield SlurmExecutor(
            client,
            workers=jobs * simulate.processes,
            threads=config.threads,
            dashboard=config.dashboard,
            log=study.logs / log_name(f"{verb}-worker", "*"),
            retries=simulate.retries,
        )


def _check(config, slurm):
    simulate = slurm.simulate
    if simulate.processes * config.threads > simulate.cpus:
        raise ConfigError(
            f"[slurm.simulate] cpus is {simulate.cpus}, but {count_of(simulate.processes, 'worker')} of "
            f"{count_of(config.threads, 'thread')} ([executor] threads) need {simulate.processes * config.threads}"
        )
    if shutil.which("sbatch") is None:
        raise MissingPackageError(
            'kind = "slurm" in [executor] asks SLURM for worker jobs, but there is no sbatch here; without SLURM take '
            'kind = "local".'
        )
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise MissingPackageError(
            "workers on SLURM need dask-jobqueue: pip install 'motorsweep[cluster]'; or take kind = \"local\"."
        )


def _wanted_jobs(config, simulate, at_most):
    """Jobs at once: those of [slurm.simulate], no more than ``workers`` ask for, nor than there are tasks for."""
    limits = [count for count in (config.workers, at_most) if count]
    return min([simulate.jobs, *(math.ceil(count / simulate.processes) for count in limits)])


def _warn_of_memory(simulate, needed_gb, verb):
    held = simulate.memory_gb / simulate.processes
    if needed_gb > held:
        print(
            f"{verb:<9} a worker may need {needed_gb:.1f} GB and has {held:.1f}: raise memory_gb in [slurm.simulate], "
            "or lower processes",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _cluster(config, slurm, study, verb, *, jobs, name, folder, address, security):
    simulate = slurm.simulate
    _, cluster_class = slurm_classes()
    cluster = cluster_class(
        study=study,
        verb=verb,
        jobs=jobs,
        adapt=simulate.adapt,
        name=name,
        security=security,
        scheduler_options={
            "host": address,
            # Not on all interfaces, where it would be by default, and its health page even without a dashboard.
            "dashboard_address": f"{address}:{slurm.dashboard_port}",
            "dashboard": config.dashboard,
        },
        silence_logs=False,
        **_job_settings(config, slurm, name, folder),
    )
    try:
        study.slurm.mkdir(parents=True, exist_ok=True)
        atomic_write_text(study.slurm / f"{verb}-worker.sh", cluster.job_script())
        cluster.look_after()
        yield cluster
    finally:
        cluster.cancel()
        cluster.close()


def _job_settings(config, slurm, name, folder):
    """What dask-jobqueue is told of a worker job. It puts all as it is into the script: what needs quotes has them."""
    simulate = slurm.simulate
    walltime = walltime_seconds(simulate.walltime)
    stagger = min(STAGGER_SHARE * walltime, LONGEST_STAGGER_SECONDS)
    lifetime = LIFETIME_SHARE * walltime - stagger
    directives = {"qos": slurm.qos, "constraint": slurm.constraint, "open-mode": "append"}
    lines = [directive(option, value).removeprefix("#SBATCH ") for option, value in directives.items() if value]
    return {
        "job_name": name,
        "queue": simulate.partition or slurm.partition or None,
        "account": slurm.account or None,
        "cores": simulate.processes,  # one task at a time in each process
        "processes": simulate.processes,
        "memory": f"{simulate.memory_gb:f}GB",
        "job_cpu": simulate.cpus,
        "job_mem": memory_text(simulate.memory_gb),
        "walltime": simulate.walltime,
        # Lost jobs are replaced, see WorkerJobs; one that SLURM queued again would find another driver, or none.
        "job_extra_directives": [*lines, *slurm.extra, "--no-requeue"],
        "job_script_prologue": environment_lines(slurm, config.threads, NUMBA_NUM_THREADS=str(config.threads)),
        "python": f"exec {shlex.quote(slurm.python or sys.executable)}",
        "worker_command": "motorsweep.hpc.slurm_worker",
        "interface": slurm.interface or None,
        "local_directory": shlex.quote(os.fspath(folder)),
        "death_timeout": DEATH_TIMEOUT_SECONDS,
        "worker_extra_args": [
            *("--nworkers", simulate.processes, "--nanny"),
            *("--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{stagger:.0f}s", "--no-lifetime-restart"),
        ],
    }
