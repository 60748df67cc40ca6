"""Ranks of a real mpirun that share tasks, and what a process without mpirun must not do: open ports."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from motorsweep.errors import ConfigError
from motorsweep.hpc.executors import ExecutorConfig
from motorsweep.hpc.mpi_executor import check_ranks, group_comm, leads_group, memory_share, run_command

pytest.importorskip("petsc4py", reason="needs petsc4py")

FACTOR = """
import json, os, psutil
import numpy as np, scipy.sparse as sp
from motorsweep.sim.linear import DirectSolver

def listening(process):
    return [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]

before = dict(os.environ)
x, _ = DirectSolver(sp.csr_array(sp.diags_array([2.0, 4.0]))).solve(np.ones((1, 2)))
assert np.allclose(x, [[0.5, 0.25]]) and os.environ == before
me = psutil.Process()
children = me.children(recursive=True)
print(json.dumps([sum(map(listening, [me, *children]), []), [child.name() for child in children]]))
"""

# What srun gives a process where it has no PMI.
SRUN = {
    name: "1"
    for name in ("SLURM_JOBID", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")
} | {"SLURM_NODELIST": "here", "SLURM_STEPID": "0", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}


def start(line, folder, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def mpirun(ranks, *words):
    flags = ["--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    return ["mpirun", *flags, "-n", str(ranks), sys.executable, *words]


@pytest.mark.parametrize("variables", [{}, SRUN], ids=["alone", "srun"])
def test_a_process_that_solves_listens_to_nobody_and_starts_no_daemon(variables, tmp_path):
    listening, children = json.loads(start([sys.executable, "-c", FACTOR], tmp_path, **variables).stdout)
    assert set(listening) <= {"127.0.0.1", "::1"}
    assert children == []


def test_the_users_own_settings_of_open_mpi_stay(tmp_path):
    line = [sys.executable, "-c", FACTOR + "print(os.environ['OMPI_MCA_btl'])"]
    assert start(line, tmp_path, OMPI_MCA_btl="self,tcp").stdout.splitlines()[1] == "self,tcp"


def test_without_mpirun_a_command_is_run_as_it_is(monkeypatch):
    monkeypatch.setenv("PMIX_RANK", "0")  # as of `srun -n 1`: workers must not take it for their own
    asked = []
    assert run_command(lambda: asked.append(os.environ.get("PMIX_RANK")) or 7, ["simulate"]) == 7
    assert asked == [None]
    assert group_comm() is None and leads_group() and memory_share(3) == 1
    with pytest.raises(ConfigError, match='kind is "mpi", but this was not started by mpirun'):
        check_ranks(ExecutorConfig(kind="mpi"))
    with pytest.warns(UserWarning, match="ranks_per_head is 2, which has an effect only under mpirun"):
        check_ranks(ExecutorConfig(ranks_per_head=2))


NO_MPI4PY = """
import sys
sys.modules["mpi4py"] = None  # as Python marks what cannot be imported
from motorsweep.hpc.mpi_executor import run_command
sys.exit(run_command(lambda: 0, ["run"]))
"""


def test_ranks_without_mpi4py_say_so_once():
    said = []
    for rank in "01":
        environment = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": rank}
        done = subprocess.run([sys.executable, "-c", NO_MPI4PY], env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        said.append(done.stderr)
    assert said[0].startswith("motorsweep: mpirun started several ranks") and "pip install mpi4py" in said[0]
    assert said[1] == ""


RANKS = (
    FACTOR.partition("before =")[0]
    + """
import sys
from types import SimpleNamespace
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.mpi_executor import group_comm, memory_share, run_command
from motorsweep.hpc.study_solver import solver_bytes, study_solver
from motorsweep.sim.solver_memory import basis_bytes, machine_bytes, process_bytes

def shared(task):
    comm = group_comm()
    return comm.allgather(task), comm.bcast(os.getpid()), listening(psutil.Process())

shared.collective = True

def solved(task):
    if task == 1:
        raise MemoryError("as a task has it")
    x, _ = DirectSolver(sp.csr_array(sp.diags_array([2.0, 4.0]))).solve(np.ones((1, 2)))
    return group_comm() is None, x[0, 0], os.getpid()

def command():
    config = ExecutorConfig(kind="local", ranks_per_head=2)
    with open_executor(config) as executor:
        of_groups = [[task, *outcome.value] for task, outcome in executor.run(shared, [10, 11, 12])]
        of_ranks = [[task, outcome.reason, outcome.value] for task, outcome in executor.run(solved, [0, 1])]
        where = executor.describe()
    study = SimpleNamespace(executor=config, solver=SimpleNamespace(kind="auto"), volume=SimpleNamespace(n=64))
    says = [study_solver(study, 1000, 1000, alone).reason.split(" of ")[1] for alone in (False, True)]
    # a group keeps the head twice; a basis is made while the other group waits
    group = machine_bytes() / 2 - process_bytes(1000, 1000, "iterative")
    alone = machine_bytes() - basis_bytes(1000, 64**3, 300, 150)
    print(json.dumps([of_groups, of_ranks, where, says, [f"{group / 1e9:.1f}", f"{alone / 1e9:.1f}"]]))
    for expected, memory in ((group, solver_bytes(study, 1000, 1000)), (alone, solver_bytes(study, 1000, 1000, True))):
        assert memory == expected, (memory, expected)
    assert memory_share(1) == 0.25 and memory_share(4) == 1
    return 0

sys.exit(run_command(command, ["simulate"]))
"""
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here (openmpi-bin)")
def test_groups_of_ranks_share_tasks_memory_and_no_port(tmp_path):
    pytest.importorskip("mpi4py", reason="needs mpi4py")
    (tmp_path / "ranks.py").write_text(RANKS)
    of_groups, of_ranks, where, says, memory = json.loads(start(mpirun(4, "ranks.py"), tmp_path).stdout)
    assert where == "mpi: 4 ranks, 2 to a head, 1 thread each"
    found = {task: (tasks, leader) for task, tasks, leader, _ in of_groups}
    assert {task: tasks for task, (tasks, _) in found.items()} == {k: [k, k] for k in (10, 11, 12)}
    assert found[10][1] == found[12][1] != found[11][1]  # every second task is of the second group
    assert all(listening == [] for *_, listening in of_groups)
    # Two tasks for four ranks, and PETSc on one of them alone: all came to their end.
    solved = {task: (reason, value) for task, reason, value in of_ranks}
    assert solved[0][1][:2] == [True, 0.5] and solved[1] == ("out_of_memory", None)
    assert says == memory
