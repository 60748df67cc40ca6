"""The [slurm] table of a study: what its jobs ask of the cluster."""

import re
from dataclasses import dataclass

from ..errors import ConfigError

LAUNCHERS = ("srun", "horovodrun", "mpirun")
BACKENDS = ("auto", "horovod", "torch")
TLS = ("auto", "on", "off")

_WALLTIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")


def walltime_seconds(text: str) -> int:
    """Return a walltime of SLURM's form ``[days-]hours:minutes:seconds`` in seconds.

    Raises
    ------
    ConfigError
        For any other text.

    Examples
    --------
    >>> walltime_seconds("1-02:00:30")
    93630
    """
    found = _WALLTIME.fullmatch(text)
    if found is None or not any(int(each or 0) for each in found.groups()):
        raise ConfigError(f"walltime is {text!r}; it must be hours:minutes:seconds or days-hours:minutes:seconds")
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


class _Checked:
    # Read by pydantic in jobs.config, which checks study files; nothing here needs pydantic.
    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - a plain class attribute is what pydantic looks for

    def _at_least(self, least, *names):
        for name in names:
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name):g}; it must be {least:g} or more")

    def _positive(self, *names):
        for name in names:
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name):g}; it must be greater than 0")

    def _one_of(self, name, valid):
        if getattr(self, name) not in valid:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(valid)}")

    def _one_line(self, *names):
        for name in names:
            held = getattr(self, name)
            for text in (held,) if isinstance(held, str) else held:
                if not text.isprintable():
                    raise ConfigError(
                        f"{name} holds {text!r}; it must be printable text on one line, as it stands in a script"
                    )

    def _one_word(self, *names):
        self._one_line(*names)
        for name in names:
            if re.search(r"\s", getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one word")


@dataclass(frozen=True, kw_only=True)
class DriverConfig(_Checked):
    """[slurm.driver]: the job that plans, hosts Dask's scheduler, and collects.

    Attributes
    ----------
    cpus : int
    memory_gb : float
    walltime : str
        ``hours:minutes:seconds`` or ``days-hours:minutes:seconds``; at its end the job is queued again and goes on.
    partition : str
        Empty: that of [slurm].
    """

    cpus: int = 1
    memory_gb: float = 4.0
    walltime: str = "24:00:00"
    partition: str = ""

    def __post_init__(self):
        self._at_least(1, "cpus")
        self._positive("memory_gb")
        self._one_word("partition")
        walltime_seconds(self.walltime)


@dataclass(frozen=True, kw_only=True)
class SimulateConfig(_Checked):
    """[slurm.simulate]: the jobs of Dask workers that solve the poses.

    Attributes
    ----------
    jobs : int
        Worker jobs at once, at most.
    adapt : bool
        Ask for as many as there is work for, and let go of them; otherwise for all at once.
    processes : int
        Worker processes of a job; each has its own factor of the head.
    cpus : int
        Of a job.
    memory_gb : float
        Of a job.
    walltime : str
        Of a job; its workers end before it, between two shards, and are replaced.
    partition : str
        Empty: that of [slurm].
    retries : int
        How often a shard whose worker died runs again before it counts as its own fault.
    """

    jobs: int = 4
    adapt: bool = False
    processes: int = 1
    cpus: int = 1
    memory_gb: float = 16.0
    walltime: str = "4:00:00"
    partition: str = ""
    retries: int = 2

    def __post_init__(self):
        self._at_least(1, "jobs", "processes", "cpus")
        self._at_least(0, "retries")
        self._positive("memory_gb")
        self._one_word("partition")
        walltime_seconds(self.walltime)
        if self.processes > self.cpus:
            raise ConfigError(
                f"processes is {self.processes}, but a job has {self.cpus} cpus; each process needs one of its own"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Checked):
    """[slurm.train]: the job whose ranks train autoencoders and mappers.

    Attributes
    ----------
    nodes : int
    ranks_per_node : int
    cpus_per_rank : int
    memory_gb : float
        Of a node.
    walltime : str
        At its end the job writes checkpoints, is queued again and goes on.
    gpus_per_node : int
    partition : str
        Empty: that of [slurm].
    launcher : str
        One of :data:`LAUNCHERS`.
    backend : str
        What the ranks talk through: one of :data:`BACKENDS`; ``"auto"`` takes Horovod where it is installed.
    elastic : bool
        Go on with fewer ranks when some die (``launcher = "horovodrun"`` only).
    min_ranks : int
        Fewest ranks that an elastic job goes on with.
    """

    nodes: int = 1
    ranks_per_node: int = 4
    cpus_per_rank: int = 1
    memory_gb: float = 16.0
    walltime: str = "12:00:00"
    gpus_per_node: int = 0
    partition: str = ""
    launcher: str = "srun"
    backend: str = "auto"
    elastic: bool = False
    min_ranks: int = 1

    def __post_init__(self):
        self._at_least(1, "nodes", "ranks_per_node", "cpus_per_rank", "min_ranks")
        self._at_least(0, "gpus_per_node")
        self._positive("memory_gb")
        self._one_word("partition")
        walltime_seconds(self.walltime)
        self._one_of("launcher", LAUNCHERS)
        self._one_of("backend", BACKENDS)
        if self.elastic and (self.launcher != "horovodrun" or self.backend == "torch"):
            raise ConfigError(
                'elastic is Horovod\'s: it needs launcher = "horovodrun", and backend "auto" or "horovod"'
            )

    @property
    def ranks(self) -> int:
        """Ranks of the whole job."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True, kw_only=True)
class SlurmConfig(_Checked):
    """The [slurm] table of a study: what its jobs ask of the cluster.

    Attributes
    ----------
    partition, account, qos, constraint : str
        As sbatch's options; empty: the cluster's default.
    modules : tuple of str
        Loaded in each job, in this order.
    prologue : tuple of str
        Lines of shell that each job runs first.
    python : str
        Interpreter of the jobs; empty: the one that submits.
    extra : tuple of str
        Further options of sbatch for all jobs, such as ``"--mail-type=END"``.
    interface : str
        Network interface that scheduler, workers and ranks talk on; empty: the one that the host's name leads to.
    dashboard_port : int
        Of Dask's dashboard on the driver's node; 0: any that is free.
    tls : str
        Encrypt what scheduler and workers say: ``"auto"`` does beyond the loopback.
    at_once : int
        Of several studies that are submitted together: how many run at once; 0: no limit.
    requeue : int
        How often a job that met its walltime is queued again.
    driver, simulate, train
        The jobs.

    Examples
    --------
    >>> SlurmConfig(partition="long").simulate.jobs
    4
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    modules: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str = ""
    extra: tuple[str, ...] = ()
    interface: str = ""
    dashboard_port: int = 0
    tls: str = "auto"
    at_once: int = 0
    requeue: int = 10
    driver: DriverConfig = DriverConfig()
    simulate: SimulateConfig = SimulateConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        self._one_word("partition", "account", "qos", "interface")
        self._one_line("constraint", "modules", "prologue", "python", "extra")
        self._one_of("tls", TLS)
        self._at_least(0, "dashboard_port", "at_once", "requeue")
        for option in self.extra:
            if not option.startswith("-"):
                raise ConfigError(f'extra holds {option!r}; it must be options of sbatch, such as "--mail-type=END"')
