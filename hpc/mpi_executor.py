"""Tasks on the ranks of one `mpirun`, in groups that may share a head.

World rank 0 is the only coordinator, and the leader of the first group; the other ranks serve it without a word. Group
g takes every G-th task from the g-th on. A function with an attribute ``collective`` is called by all ranks of a group
with the same task, and finds their communicator by `group_comm`; any other runs on one rank, as if groups were of one.

Waiting ranks sleep, so that they take no core from those that work. A rank that dies ends the whole by mpirun itself;
one that leaves its group alone (an error that the others do not have) ends it by `MPI_Abort`, after a sentence.
"""

import os
import sys
import time
import warnings
from contextlib import contextmanager

from ..errors import ConfigError, MissingPackageError, MotorsweepError
from ..sim.distributed import no_open_ports
from .executors import count_of, limited_threads
from .outcomes import attempt, task_name
from .ranks import SIMULATING, current_session, leave_mpi, ranks_of

LEFT_ALONE_SECONDS = 60.0
"""How long a rank whose task failed waits for its group to fail as well."""

_POLL_SECONDS = 0.005
_ORDER, _ANSWER = 1, 2  # tags

_world = None


def group_comm():
    """Communicator of the ranks that share this rank's head (of mpi4py); None where there is one rank, or no MPI."""
    return None if _world is None else _world.shared


def leads_group():
    """Whether this process writes what its group worked out; true without MPI."""
    comm = group_comm()
    return comm is None or comm.Get_rank() == 0


def on_ranks():
    """Whether this process is one of several that mpirun started and that share the work."""
    return _world is not None


def memory_share(ranks_per_head=1):
    """Which part of its machine's memory a group of ranks may take; 1 without mpirun.

    Parameters
    ----------
    ranks_per_head : int

    Returns
    -------
    float
    """
    return ranks_per_head / (_world.local_size or _world.size) if on_ranks() else 1.0


def check_ranks(config):
    """Refuse ranks that do not make whole groups; say where ranks_per_head can have no effect.

    Parameters
    ----------
    config : ExecutorConfig

    Raises
    ------
    ConfigError
        If the ranks cannot be divided by ``ranks_per_head``, or ``kind`` is "mpi" and mpirun did not start this.
    """
    k = config.ranks_per_head
    if current_session():
        return  # ranks that train, of any launcher
    if on_ranks() and _world.size % k:
        raise ConfigError(
            f"[executor] ranks_per_head is {k}, but mpirun started {count_of(_world.size, 'rank')}, which do not make "
            f"whole groups of {k}. Start {_world.size // k * k or k} or {(_world.size // k + 1) * k}, or set another "
            "ranks_per_head."
        )
    if config.kind == "mpi" and not on_ranks():
        raise ConfigError(
            '[executor] kind is "mpi", but this was not started by mpirun with several ranks. Use `mpirun -n N '
            'motorsweep ...`, or kind = "local"; under mpirun either works.'
        )
    if config.kind == "ranks":
        raise ConfigError(
            '[executor] kind is "ranks", but this is no training that srun, horovodrun or mpirun started with several '
            'ranks. Use kind = "local" or "serial"; under such a launcher `encode` and `train` take its ranks anyway.'
        )
    if k > 1 and not on_ranks():
        warnings.warn(
            f"[executor] ranks_per_head is {k}, which has an effect only under mpirun (`mpirun -n {k} motorsweep "
            "simulate ...`); here each head is solved by one process.",
            stacklevel=2,
        )


def run_command(call, arguments):
    """Run a command of the command line: alone, or as one of the ranks of an mpirun.

    Parameters
    ----------
    call : callable
        Of no arguments; runs the command and returns its exit code.
    arguments : list of str
        Those of the command line.

    Returns
    -------
    int
        Exit code of this process.
    """
    ranks = ranks_of(os.environ)
    if ranks is None or arguments[:1] not in ([name] for name in SIMULATING) or {"-h", "--help"} & set(arguments):
        return 0 if ranks and ranks.rank else _alone(call)
    try:
        world = _World(ranks.local_size)
    except MissingPackageError as error:
        if not ranks.rank:
            print(f"motorsweep: {error}", file=sys.stderr)
        return 2
    return world.run(call)


def _alone(call):
    """Without the launcher's variables PETSc starts an MPI of its own, and so do workers, which inherit them."""
    leave_mpi()
    return call()


class _World:
    """The ranks of this mpirun."""

    def __init__(self, local_size):
        try:
            with no_open_ports():
                from mpi4py import MPI
        except ImportError as error:
            raise MissingPackageError(
                "mpirun started several ranks of motorsweep, which need mpi4py to share the work; `pip install "
                "mpi4py`, or start motorsweep without mpirun."
            ) from error
        self.comm, self.any_rank = MPI.COMM_WORLD, MPI.ANY_SOURCE
        self.rank, self.size, self.local_size = self.comm.Get_rank(), self.comm.Get_size(), local_size
        self.group = self.shared = None
        self._groups = {}
        self.busy = False

    def run(self, call):
        """Coordinate (rank 0) or serve (the others) until the command has ended; the exit code."""
        global _world
        _world = self
        if self.rank:
            return self._serve()
        code = 1
        try:
            code = call()
        finally:
            # Also on a bug, whose traceback then comes after mpirun's words. Ranks at work cannot be told to stop.
            if self.busy or sys.exc_info()[0]:
                sys.stdout.flush()
                sys.stderr.flush()
                if sys.exc_info()[0] and not isinstance(sys.exc_info()[1], SystemExit):
                    sys.excepthook(*sys.exc_info())
                self.comm.Abort(code or 1)
            for rank in range(1, self.size):
                self.comm.send(None, rank, _ORDER)
        return code

    def divide(self, ranks_per_head):
        """Groups of ranks; collective, and made once for a size."""
        if ranks_per_head not in self._groups:
            group = self.comm.Split(self.rank // ranks_per_head, self.rank)
            self._groups[ranks_per_head] = group, group.Dup()
        self.group, self.in_step = self._groups[ranks_per_head]
        self.shared = self.group if ranks_per_head > 1 else None

    def _serve(self):
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # mpirun and rank 0 see to it
        terminal = os.dup(2)
        try:
            while (order := self._receive(0, _ORDER)) is not None:
                k, threads, log, function, tasks = order
                if log:
                    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                    os.dup2(descriptor, 1), os.dup2(descriptor, 2), os.close(descriptor)
                self.divide(k)
                with limited_threads(threads):
                    for task, ended in self.own(function, tasks):
                        if self.group.Get_rank() == 0:
                            self.comm.send((task, ended), 0, _ANSWER)
        except BaseException as error:
            self._abort(f"rank {self.rank} failed while it served: {type(error).__name__}: {error}", terminal)
        return 0

    def own(self, function, tasks):
        """Tasks of this group, and what each ended with: an outcome, or an error that no other task would survive."""
        groups = self.size // self.group.Get_size()
        for task in tasks[self.rank // self.group.Get_size() :: groups]:
            try:
                ended = attempt(function, task)
            except Exception as error:
                ended = error
            self._stay_in_step(task, ended)
            yield task, ended
            if isinstance(ended, Exception):
                return

    def _stay_in_step(self, task, ended):
        """Wait for the group. It cannot go on without a rank whose task failed there alone."""
        if self.shared is None:
            return
        failed = isinstance(ended, Exception) or not ended.ok
        request, began = self.in_step.Ibarrier(), time.monotonic()
        while not request.Test():
            if failed and time.monotonic() - began > LEFT_ALONE_SECONDS:
                what = f"{type(ended).__name__}: {ended}" if isinstance(ended, Exception) else ended.message
                self._abort(f"{task_name(task)}: rank {self.rank} failed alone in its group: {what}", 2)
            time.sleep(_POLL_SECONDS)

    def _abort(self, sentence, descriptor):
        advice = "All ranks end; what was written is kept, and the same command goes on from there."
        os.write(descriptor, f"motorsweep: {sentence}. {advice}\n".encode())
        self.comm.Abort(1)

    def _receive(self, source, tag):
        while not self.comm.Iprobe(source, tag):
            time.sleep(_POLL_SECONDS)
        return self.comm.recv(source=source, tag=tag)


class MpiExecutor:
    """Runs tasks on groups of ranks of this mpirun; for rank 0 alone."""

    dashboard = None

    def __init__(self, config, world, log):
        self.config, self._world, self._log = config, world, log
        self.workers = world.size // config.ranks_per_head

    def describe(self) -> str:
        """Return where tasks run, in a few words."""
        ranks, k = count_of(self._world.size, "rank"), self.config.ranks_per_head
        heads = f", {k} to a head" if k > 1 else ""
        return f"mpi: {ranks}{heads}, {count_of(self.config.threads, 'thread')} each"

    def run(self, function, tasks):
        """Yield ``(task, outcome)`` as tasks end; those of other groups when this rank's own task has ended."""
        world, tasks = self._world, list(tasks)
        k = self.config.ranks_per_head if getattr(function, "collective", False) else 1
        world.busy = True
        for rank in range(1, world.size):
            world.comm.send((k, self.config.threads, self._log, function, tasks), rank, _ORDER)
        world.divide(k)
        left = len(tasks)
        for task, ended in world.own(function, tasks):
            left -= 1
            yield task, _checked(ended)
            while world.comm.Iprobe(tag=_ANSWER):
                task, ended = world.comm.recv(tag=_ANSWER)
                left -= 1
                yield task, _checked(ended)
        while left:
            task, ended = world._receive(world.any_rank, _ANSWER)
            left -= 1
            yield task, _checked(ended)
        world.busy = False


def _checked(ended):
    if isinstance(ended, Exception):
        raise ended
    return ended


@contextmanager
def open_mpi(config, *, log=None, **_):
    """Yield the `MpiExecutor` of this mpirun."""
    check_ranks(config)
    if not on_ranks():
        raise MotorsweepError("tasks cannot be shared among ranks: mpirun did not start this process.")
    import numba  # noqa: F401 - must be loaded to be held to a number of threads

    with limited_threads(config.threads):
        yield MpiExecutor(config, _world, None if log is None else os.fspath(log))
