"""Where tasks run: in this process, in worker processes of this machine or of SLURM jobs, or on ranks.

Every executor keeps the same contract, so that a study gives the same numbers on each of them: ``run(function, tasks)``
yields ``(task, outcome)`` as tasks end, takes tasks only as it has room for them, and raises at once what no other
task would survive (see :mod:`.outcomes`).
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..learn.protocols import DEVICES
from .dask_address import publish
from .outcomes import Outcome, attempt

GIB = 2**30
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """The [executor] table of a study: where its tasks run.

    Attributes
    ----------
    kind : str
        A key of :data:`EXECUTORS`.
    workers : int
        Worker processes; 0 = as many as cores and memory allow. ``serial`` has one whatever is asked.
    threads : int
        Threads of the numerics (BLAS, torch, numba) in each worker.
    ranks_per_head : int
        Under mpirun: how many ranks solve one head together. No effect elsewhere.
    dashboard : bool
        Serve the live view of the workers on this machine's loopback.
    device : str
        That networks are trained on: ``"auto"`` (a GPU where there is one), ``"cpu"`` or ``"cuda"``.
    deterministic : bool
        Whether a GPU takes deterministic kernels and no timed choices; the CPU always does.

    Examples
    --------
    >>> ExecutorConfig(kind="local", workers=2).threads
    1
    """

    # Read by pydantic in jobs.config, which checks study files; nothing here needs pydantic.
    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - a plain class attribute is what pydantic looks for

    kind: str = "local"
    workers: int = 0
    threads: int = 1
    ranks_per_head: int = 1
    dashboard: bool = True
    device: str = "auto"
    deterministic: bool = False

    def __post_init__(self):
        if self.kind not in EXECUTORS:
            raise ConfigError(f"kind is {self.kind!r}; it must be one of {', '.join(EXECUTORS)}")
        if self.device not in DEVICES:
            raise ConfigError(f"device is {self.device!r}; it must be one of {', '.join(DEVICES)}")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be 0 (as many as fit) or more")
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be 1 or more")
        if self.ranks_per_head < 1:
            raise ConfigError(f"ranks_per_head is {self.ranks_per_head}; it must be 1 or more")


class SerialExecutor:
    """Runs tasks one after another in this process: the reference, and the place for a debugger."""

    workers = 1
    dashboard = None

    def __init__(self, threads: int = 1):
        self.threads = threads

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        return f"serial: this process, {count_of(self.threads, 'thread')}"

    def run(self, function: Callable[[Any], Any], tasks: Iterable) -> Iterator[tuple[Any, Outcome]]:
        """Yield ``(task, outcome)`` in the order of the tasks."""
        for task in tasks:
            yield task, attempt(function, task)


@contextmanager
def _open_serial(config, **_):
    import numba  # noqa: F401 - must be loaded to be held: it refuses a change of its variable once it has threads

    with limited_threads(config.threads):
        yield SerialExecutor(config.threads)


def _open_local(config, **places):
    # Inside, so that `motorsweep --help` and serial runs do not pay for dask.
    from .local_cluster import open_local

    return open_local(config, **places)


def _open_slurm(config, **places):
    # Inside, so that only who has SLURM needs dask-jobqueue.
    from .slurm_cluster import open_slurm

    return open_slurm(config, **places)


def _open_mpi(config, **places):
    # Inside, as it imports from here.
    from .mpi_executor import open_mpi

    return open_mpi(config, **places)


def _open_ranks(config, **places):
    # Inside, as it imports from here.
    from .rank_executor import open_ranks

    return open_ranks(config, **places)


EXECUTORS = {
    "serial": _open_serial,
    "local": _open_local,
    "slurm": _open_slurm,
    "mpi": _open_mpi,
    "ranks": _open_ranks,
}


@contextmanager
def open_executor(
    config: ExecutorConfig,
    *,
    scratch=None,
    log=None,
    memory_per_worker_gb=1.0,
    at_most=None,
    announce=True,
    slurm=None,
    study=None,
    verb="",
):
    """Open the executor that a study asks for, and close it at the end of the ``with`` block.

    Among ranks that a launcher started the tasks run on those, whatever kind is asked for.

    The workers end with the block: after the last task, on an error, on Ctrl-C, and also when this process is killed.

    Parameters
    ----------
    config : ExecutorConfig
        Kind, number of workers and threads.
    scratch : path-like, optional
        Folder for the workers' temporary files, removed at the end; default: the system's temporary folder.
    log : path-like, optional
        File that the workers' output is appended to; default: dropped at the end with the scratch.
    memory_per_worker_gb : float
        What a worker will need, for ``workers=0``.
    at_most : int, optional
        More workers than this are no use (the number of tasks).
    announce : bool
        Print the dashboard's address on stderr.
    slurm : SlurmConfig, optional
        What jobs ask of the cluster; kind ``slurm`` needs it, and the next two.
    study : Study, optional
        That the jobs belong to.
    verb : str
        The stage, for the names of jobs and logs.

    Yields
    ------
    executor
        With ``run(function, tasks)``, ``describe()``, ``workers`` and ``dashboard`` (address or None).

    Examples
    --------
    >>> with open_executor(ExecutorConfig(kind="serial")) as executor:
    ...     [outcome.value for task, outcome in executor.run(abs, [-1, 2])]
    [1, 2]
    """
    from .mpi_executor import on_ranks  # inside, as it imports from here
    from .ranks import current_session

    kind = "mpi" if on_ranks() else "ranks" if current_session() else config.kind
    places = {"scratch": scratch, "log": log, "memory_per_worker_gb": memory_per_worker_gb, "at_most": at_most}
    places |= {"slurm": slurm, "study": study, "verb": verb}
    with EXECUTORS[kind](config, **places) as executor, publish(study, executor) as address:
        if announce and address:
            how = getattr(executor, "tunnel", "") or f"({executor.describe()})"
            print(f"dashboard  {address}  {how}", file=sys.stderr, flush=True)
        yield executor


def automatic_workers(*, cores: int, memory_bytes: float, threads: int, memory_per_worker_gb: float) -> int:
    """Return how many workers fit: by cores, by memory, and at least one.

    Examples
    --------
    >>> automatic_workers(cores=16, memory_bytes=32 * GIB, threads=2, memory_per_worker_gb=6)
    5
    """
    by_cores = cores // threads
    by_memory = int(memory_bytes / (memory_per_worker_gb * GIB)) if memory_per_worker_gb > 0 else by_cores
    return max(1, min(by_cores, by_memory))


@contextmanager
def limited_threads(threads: int):
    """Hold the numerics of this process, and of processes started from it, to a number of threads.

    A sum over another number of threads has other rounding, so serial and local runs must not differ in it. The
    variables act on libraries that load later; those already loaded are told directly.
    """
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    from threadpoolctl import threadpool_limits  # after the variables: it may load libraries that read them

    try:
        # numba first: when it starts its threads, it sets OpenMP's number, which torch shares, to that of the cores.
        with _limited_library("numba", threads), _limited_library("torch", threads), threadpool_limits(threads):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _limited_library(name, threads):
    library = sys.modules.get(name)
    if library is None:
        yield
        return
    before = library.get_num_threads()
    # numba refuses more threads than it started with.
    library.set_num_threads(min(threads, library.config.NUMBA_NUM_THREADS) if name == "numba" else threads)
    try:
        yield
    finally:
        library.set_num_threads(before)


def count_of(number: int, noun: str) -> str:
    """Return ``1 worker`` or ``2 workers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
