"""Which rank a process is, by what launchers leave in its environment; and ranks that meet through files."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from motorsweep.errors import ConfigError, MotorsweepError
from motorsweep.hpc import meeting
from motorsweep.hpc.meeting import choose_backend, meet, slots_of
from motorsweep.hpc.rank_session import is_broken, lost_text
from motorsweep.hpc.ranks import Ranks, ranks_of

# As the launchers set them on this kind of machine; trimmed to what matters.
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "n1"}
SRUN = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "PMIX_RANK": "2",
    "PMIX_NAMESPACE": "1170079745",
}
HOROVOD = {
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
    "HOROVOD_GLOO_RENDEZVOUS_PORT": "1234",
    "HOROVOD_RANK": "1",
    "HOROVOD_SIZE": "2",
    "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_LOCAL_SIZE": "2",
    "HOROVOD_HOSTNAME": "localhost",
}
TORCH = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}


@pytest.mark.parametrize(
    ("environment", "launcher", "place", "node"),
    [
        (SRUN, "srun", (3, 4, 1, 0), "n1"),
        (OPEN_MPI, "mpirun", (2, 3, 0, 2), ""),
        (HYDRA, "mpirun", (1, 2, 1, 2), ""),
        (HOROVOD, "horovodrun", (1, 2, 1, 2), "localhost"),
        (TORCH, "torchrun", (1, 2, 1, 2), ""),
        (SRUN | OPEN_MPI, "mpirun", (2, 3, 0, 2), "n1"),
        (BATCH | HOROVOD, "horovodrun", (1, 2, 1, 2), "n1"),
    ],
    ids=["srun", "open mpi", "hydra", "horovodrun", "torchrun", "mpirun by srun", "horovodrun in a job"],
)
def test_the_innermost_launcher_says_who_this_is(environment, launcher, place, node):
    found = ranks_of(environment)
    assert (found.rank, found.size, found.local_rank, found.local_size) == place
    assert (found.launcher, found.node, found.elastic) == (launcher, node, False)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH,
        SRUN | {"SLURM_STEP_NUM_TASKS": "1"},
        OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"PMIX_RANK": "0"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        HOROVOD | {"HOROVOD_SIZE": "1"},
        SRUN | {"SLURM_PROCID": "none"},
    ],
    ids=[
        "alone",
        "batch step",
        "srun -n 1",
        "mpirun -n 1",
        "pmix alone",
        "somebody's RANK",
        "one of horovod",
        "unclear",
    ],
)
def test_a_process_alone_is_no_rank(environment):
    assert ranks_of(environment) is None


def test_elastic_horovod_may_begin_with_one_rank():
    found = ranks_of(HOROVOD | {"HOROVOD_SIZE": "1", "HOROVOD_RANK": "0", "HOROVOD_ELASTIC": "1"})
    assert found.elastic and (found.rank, found.size) == (0, 1)


@pytest.mark.parametrize(
    ("environment", "own", "shared"),
    [
        (SRUN, {"SLURM_PROCID": "1", "SLURMD_NODENAME": "n2"}, {"SLURM_RESTART_COUNT": "1"}),
        (OPEN_MPI, {"OMPI_COMM_WORLD_RANK": "0"}, {"PMIX_NAMESPACE": "2"}),
        (HOROVOD, {"HOROVOD_RANK": "0"}, {"HOROVOD_GLOO_RENDEZVOUS_PORT": "99"}),
        (TORCH, {"RANK": "0"}, {"MASTER_PORT": "1"}),
    ],
)
def test_ranks_of_one_start_share_its_name_and_another_start_has_its_own(environment, own, shared):
    start = ranks_of(environment).start
    assert ranks_of(environment | own).start == start != ranks_of(environment | shared).start


def test_slots_are_horovods_also_where_ranks_go_round_the_nodes():
    hosts = pytest.importorskip("horovod.runner.common.util.hosts", reason="needs Horovod")
    plan = hosts.get_host_assignments(hosts.parse_hosts("a:2,b:2,c:1"), 5)
    assert slots_of(["a", "a", "b", "b", "c"]) == [vars(slot) for slot in plan]
    assert [slot["local_rank"] for slot in slots_of(["a", "b", "a", "b"])] == [0, 0, 1, 1]
    assert {slot["cross_size"] for slot in slots_of(["a", "b", "a", "b"])} == {2}


def test_backends_that_cannot_be_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="MOTORSWEEP_BACKEND is 'mpi'; here it must be one of auto, horovod, torch"):
        choose_backend("mpi")
    with pytest.raises(ConfigError, match="is 'torch'; here it must be one of auto, horovod"):
        choose_backend("torch", elastic=True)
    monkeypatch.setattr(meeting, "find_spec", lambda name: None)
    assert choose_backend("auto") == "torch"
    with pytest.raises(
        MotorsweepError, match=r"Horovod, which is not installed; `pip install \"motorsweep\[cluster\]\"`"
    ):
        choose_backend("auto", elastic=True)


MEET = """
import json, os, sys, psutil
from motorsweep.hpc.meeting import choose_backend, meet
from motorsweep.hpc.ranks import ranks_of
with meet(ranks_of(os.environ), sys.argv[1], choose_backend(sys.argv[2]), seconds=60) as communicator:
    listening = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    found = communicator.gather((os.getpid(), os.environ.get("HOROVOD_LOCAL_SIZE"), sorted(set(listening))))
    communicator.barrier()
print(json.dumps([communicator.name, found]))
"""


@pytest.mark.parametrize("backend", ["horovod", "torch"])
def test_ranks_meet_on_the_loopback_whatever_an_earlier_start_has_left(backend, tmp_path):
    pytest.importorskip("horovod" if backend == "horovod" else "torch", reason=f"needs {backend}")
    srun = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_NUM_TASKS"}
    environments = [
        {**os.environ, **srun, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURMD_NODENAME": f"n{rank}"}
        for rank in (0, 1)
    ]
    folder = tmp_path / f"meeting-{ranks_of(environments[0]).start}"
    folder.mkdir()
    for name in ("rank-1.json", "answer.json"):  # of ranks that were killed
        plan = {"number": "0", "id": "0", "size": 2, "numbers": ["0", "0"], "node": "n9", "machine": "m", "read": "0"}
        (folder / name).write_text(json.dumps(plan))
    line = [sys.executable, "-c", MEET, str(tmp_path), backend]
    second = subprocess.Popen(line, env=environments[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    first = subprocess.run(line, env=environments[0], capture_output=True, text=True, timeout=120)
    told, errors = second.communicate(timeout=60)
    assert first.returncode == second.returncode == 0, first.stderr + errors
    (name, found), (_, nothing) = json.loads(first.stdout), json.loads(told)
    assert name == backend and nothing is None
    assert found[1][0] == second.pid and {addresses for *_, held in found for addresses in held} <= {"127.0.0.1"}
    assert not folder.exists()
    if backend == "horovod":
        assert [local_size for _, local_size, _ in found] == ["1", "1"]  # SLURM's nodes, though one machine


ALONE = Ranks(launcher="srun", rank=0, size=3, node="n1", start="0123")


def test_a_rank_that_does_not_come_is_named(tmp_path):
    def arrive():
        with (
            pytest.raises(MotorsweepError, match="could not meet: rank 0 did not answer"),
            meet(replace(ALONE, rank=1), tmp_path, "torch", seconds=2),
        ):
            pass
        told.append(True)

    told = []
    arriving = threading.Thread(target=arrive)
    arriving.start()
    with (
        pytest.raises(MotorsweepError, match="the 3 ranks that srun started could not meet: rank 2 did not come"),
        meet(ALONE, tmp_path, "torch", seconds=1),
    ):
        pass
    arriving.join()
    assert told == [True]


def test_an_unknown_interface_is_told_with_those_that_are_there(tmp_path):
    with pytest.raises(ConfigError, match=r"interface 'ib9', and .* has none .*; it has .*lo"):
        meeting._interface_address("ib9")


def test_a_broken_line_is_told_from_a_failed_task():
    closed = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    error = ValueError("what came of it")
    error.__cause__ = closed
    assert is_broken(closed) and is_broken(error)
    assert not is_broken(RuntimeError("DataLoader")) and not is_broken(MotorsweepError("gloo"))
    assert "ranks 1, 2 have died, of those that mpirun started" in lost_text([1, 2], "mpirun")
    assert "can no longer be reached (closed)" in lost_text([], "srun", "closed")
