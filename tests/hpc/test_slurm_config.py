"""The [slurm] table: what it takes, and what it refuses with which words."""

import pytest
from motorsweep.errors import ConfigError
from motorsweep.hpc.slurm_config import DriverConfig, SimulateConfig, SlurmConfig, TrainConfig, walltime_seconds
from motorsweep.jobs.config import parse_study


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:00:01", 1), ("4:00:00", 14400), ("100:00:00", 360000), ("2-03:04:05", 183845)]
)
def test_walltimes(text, seconds):
    assert walltime_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "60", "4:00", "0:00:00", "1:60:00", "1:0:0", "1-1", "infinite", "-1:00:00", "1:00:00\n"]
)
def test_walltimes_that_are_none(text):
    with pytest.raises(ConfigError, match=r"walltime is .*; it must be hours:minutes:seconds"):
        DriverConfig(walltime=text)


@pytest.mark.parametrize(
    ("table", "keys", "words"),
    [
        (SlurmConfig, {"partition": "a b"}, "partition is 'a b'; it must be one word"),
        (SlurmConfig, {"prologue": ("a\nrm -r b",)}, "prologue holds .* it must be printable text on one line"),
        (SlurmConfig, {"constraint": "a\n#SBATCH --uid=0"}, "constraint holds .* on one line"),
        (SlurmConfig, {"python": "/a\n/b"}, "python holds .* on one line"),
        (SlurmConfig, {"extra": ("mail-type=END",)}, "extra holds 'mail-type=END'; it must be options of sbatch"),
        (SlurmConfig, {"tls": "maybe"}, "tls is 'maybe'; it must be one of auto, on, off"),
        (SlurmConfig, {"requeue": -1}, "requeue is -1; it must be 0 or more"),
        (SlurmConfig, {"at_once": -1}, "at_once is -1; it must be 0 or more"),
        (DriverConfig, {"cpus": 0}, "cpus is 0; it must be 1 or more"),
        (DriverConfig, {"memory_gb": 0.0}, "memory_gb is 0; it must be greater than 0"),
        (SimulateConfig, {"processes": 3, "cpus": 2}, "processes is 3, but a job has 2 cpus"),
        (SimulateConfig, {"retries": -1}, "retries is -1; it must be 0 or more"),
        (SimulateConfig, {"memory_gb": float("inf")}, "memory_gb is inf; it must be greater than 0"),
        (TrainConfig, {"launcher": "ssh"}, "launcher is 'ssh'; it must be one of srun, horovodrun, mpirun"),
        (TrainConfig, {"backend": "nccl"}, "backend is 'nccl'; it must be one of auto, horovod, torch"),
        (TrainConfig, {"elastic": True}, 'elastic is Horovod\'s: it needs launcher = "horovodrun"'),
        (TrainConfig, {"elastic": True, "launcher": "horovodrun", "backend": "torch"}, "elastic is Horovod's"),
    ],
)
def test_what_is_refused(table, keys, words):
    with pytest.raises(ConfigError, match=words):
        table(**keys)


def test_ranks_of_a_job():
    assert TrainConfig(nodes=3, ranks_per_node=4).ranks == 12


def test_table_of_a_study_file():
    slurm = parse_study(
        'name = "a"\n[slurm]\npartition = "long"\nmodules = ["petsc"]\n[slurm.train]\nnodes = 2\nelastic = true\n'
        'launcher = "horovodrun"\n[slurm.simulate]\njobs = 40\n'
    ).slurm
    assert (slurm.partition, slurm.modules, slurm.simulate.jobs) == ("long", ("petsc",), 40)
    assert slurm.train == TrainConfig(nodes=2, elastic=True, launcher="horovodrun") and slurm.driver == DriverConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[slurm]\npartitoin = "long"', r"\[slurm\] partitoin is not a key; did you mean partition\?"),
        ("[slurm.simulate]\njobs = 0", r"\[slurm.simulate\] jobs is 0; it must be 1 or more"),
        ('[slurm.train]\nwalltime = "1h"', r"\[slurm.train\] walltime is '1h'; it must be hours:minutes:seconds"),
    ],
)
def test_faults_name_their_table(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_study(f'name = "a"\n{text}\n')
