"""Which of several ranks this process is, and who started it: read from what launchers leave in the environment."""

import hashlib
import os
from dataclasses import dataclass

LAUNCHER_VARIABLES = (
    "HOROVOD_RANK",
    "HOROVOD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMIX_RANK",
    "SLURM_STEP_NUM_TASKS",
    "TORCHELASTIC_RUN_ID",
    "WORLD_SIZE",
)
"""Where none of them is set, no launcher started this process."""

TRAINING = ("encode", "train")
"""Commands that the ranks of any launcher share."""

SIMULATING = ("run", "simulate")
"""Commands that the ranks of MPI share; of any other, rank 0 alone answers."""

_MPI_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "MPI_LOCAL", "MV2_")

# Of a launcher's variables, those that all ranks of a start share, and other starts seldom have.
_START = {
    "horovodrun": ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
    "torchrun": ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
    "mpirun": ("PMIX_NAMESPACE", "OMPI_MCA_orte_precondition_transports", "PMI_JOBID", "SLURM_JOB_ID"),
    "srun": ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_SRUN_COMM_PORT"),
}

_session = None


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where this process stands among the ranks that were started together.

    Attributes
    ----------
    launcher : str
        ``"horovodrun"``, ``"torchrun"``, ``"mpirun"`` (any launcher of MPI) or ``"srun"``.
    rank, size : int
    local_rank, local_size : int
        The same among the ranks of this node; `local_size` is 0 where the launcher does not say.
    node : str
        Name of this node; empty: that of the machine. SLURM's, as several nodes of a test are one machine.
    start : str
        The same for the ranks that were started together, and hardly for others.
    elastic : bool
        Whether ranks may come and go (of horovodrun); rank and size are then those of the first meeting.
    """

    launcher: str
    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 0
    node: str = ""
    start: str = ""
    elastic: bool = False


def ranks_of(environment) -> Ranks | None:
    """Read this process's rank; None where it is alone.

    A launcher may run under another's allocation (mpirun in a job of SLURM), so the innermost is asked first. The batch
    step of a SLURM job is one process, however many tasks the job has.

    Parameters
    ----------
    environment : mapping of str
        ``os.environ``.

    Returns
    -------
    Ranks or None

    Examples
    --------
    >>> srun = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURMD_NODENAME": "n2"}
    >>> found = ranks_of(srun)
    >>> found.launcher, found.rank, found.size, found.local_rank, found.node
    ('srun', 3, 4, 1, 'n2')
    >>> ranks_of({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None
    True
    """
    number = lambda *names: next((int(v) for n in names if (v := environment.get(n, "")).isdecimal()), None)  # noqa: E731
    node = environment.get("SLURMD_NODENAME", "")
    elastic = environment.get("HOROVOD_ELASTIC") == "1"
    found = [
        (
            "horovodrun",
            number("HOROVOD_RANK") if "HOROVOD_GLOO_RENDEZVOUS_ADDR" in environment else None,
            number("HOROVOD_SIZE"),
            number("HOROVOD_LOCAL_RANK"),
            number("HOROVOD_LOCAL_SIZE"),
        ),
        (
            "torchrun",
            number("RANK") if {"LOCAL_RANK", "MASTER_ADDR"} <= environment.keys() else None,
            number("WORLD_SIZE"),
            number("LOCAL_RANK"),
            number("LOCAL_WORLD_SIZE"),
        ),
        (
            "mpirun",
            number("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK"),
            number("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"),
            number("OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"),
            number("OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"),
        ),
        ("srun", number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS"), number("SLURM_LOCALID"), None),
    ]
    for launcher, rank, size, local_rank, local_size in found:
        if rank is None or not size or (size == 1 and not (elastic and launcher == "horovodrun")):
            continue
        return Ranks(
            launcher=launcher,
            rank=rank,
            size=size,
            local_rank=local_rank or 0,
            local_size=local_size or 0,
            node=node or environment.get("HOROVOD_HOSTNAME", ""),
            start=_start_of(launcher, environment),
            elastic=elastic and launcher == "horovodrun",
        )
    return None


def _start_of(launcher, environment) -> str:
    told = "\n".join(f"{name}={environment.get(name, '')}" for name in _START[launcher])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def leave_mpi():
    """Forget that a launcher of MPI started this process: a library that starts MPI shall start one of its own."""
    for name in [name for name in os.environ if name.startswith(_MPI_PREFIXES)]:
        del os.environ[name]


def current_session():
    """Return the `RankSession` that this process works in; None where it is alone."""
    return _session


def set_session(session) -> None:
    """Make a session, or None, the current one."""
    global _session
    _session = session
