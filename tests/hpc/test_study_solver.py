"""The memory that a study's solver may take, and what follows from it: kind, blocks, workers."""

from dataclasses import replace

import pytest
from motorsweep.hpc import bases
from motorsweep.hpc import study_solver as of_study
from motorsweep.hpc.executors import automatic_workers
from motorsweep.hpc.slurm_config import DriverConfig, SimulateConfig, SlurmConfig
from motorsweep.hpc.study_solver import (
    memory_per_worker_gb,
    memory_to_make_basis_gb,
    solver_bytes,
    solver_config,
    study_solver,
)
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.options import RunOptions
from motorsweep.jobs.stages import Coordinator
from motorsweep.sim.solver_memory import basis_bytes, block_size, machine_bytes, process_bytes
from motorsweep.sim.sphere_mesh import layered_sphere

NY_HEAD = (617_023, 319_704)  # unknowns and nodes; a factor of 5.3 GB
OF_BASIS = basis_bytes(NY_HEAD[0], 64**3, 300, 150)
SHARD = 32 * 64**3 * 4 * 4  # 32 volumes of three components, and of |E|

STUDY = """name = "shared"
[head]
source = "head.msh"
hand_knob_mm = [0.0, 0.0, 75.0]
[poses]
grid = 3
random = 0
[volume]
n = 32
spacing_mm = 2.0
[stimulation]
intensities_percent_rmt = [110, 140]
trials = [14, 12]
"""


@pytest.fixture
def machine(monkeypatch):
    """Sets how much memory the machine has."""
    return lambda gb: monkeypatch.setattr(of_study, "machine_bytes", lambda: gb * 1e9)


@pytest.fixture
def config_of(tmp_path):
    """Makes a study's config, with keys of [executor]."""
    layered_sphere(1).save_msh(tmp_path / "head.msh")

    def load(**executor):
        (tmp_path / "study.toml").write_text(STUDY)
        config = load_study_config(tmp_path / "study.toml")
        return replace(config, executor=replace(config.executor, **executor), volume=replace(config.volume, n=64))

    return load


def test_workers_share_the_machine_in_kind_and_in_block(config_of, machine):
    machine(24)
    alone, shared = config_of(workers=1), config_of(workers=4)
    assert study_solver(alone, *NY_HEAD).kind == "direct"
    assert study_solver(shared, *NY_HEAD).reason == "with a factor it would take about 8.1 GB of 6.0"
    assert solver_config(alone, "direct", *NY_HEAD).memory_bytes == 24e9 - SHARD
    for workers in (2, 3, 4, 16):
        config = config_of(workers=workers)
        kind = study_solver(config, *NY_HEAD).kind
        assert solver_config(config, kind, *NY_HEAD).memory_bytes == 24e9 / workers - SHARD
        if workers < 16:  # where even Python and the operators find no room
            assert memory_per_worker_gb(config, kind, *NY_HEAD) < 0.95 * 24 / workers  # at which Dask ends a worker
    large = config_of(workers=2)  # volumes of a shard: 1.1 GB
    large = replace(large, volume=replace(large.volume, n=128))
    assert memory_per_worker_gb(large, "direct", *NY_HEAD) < 0.95 * 12
    # serial has one worker, whatever is asked
    assert solver_bytes(config_of(kind="serial", workers=4), *NY_HEAD) == 24e9


@pytest.mark.parametrize("gb", [10, 16, 24, 64, 256])
def test_as_many_workers_as_fit_are_held_to_what_each_takes(gb, config_of, machine):
    """Kind and block do not know of the number; the number comes of them."""
    machine(gb)
    config = config_of(workers=0)
    kind = study_solver(config, *NY_HEAD).kind
    assert kind == ("direct" if gb > 9.2 else "iterative")
    assert solver_config(config, kind, *NY_HEAD).memory_bytes == gb * 1e9 - SHARD
    need = memory_per_worker_gb(config, kind, *NY_HEAD)
    for free_gb in (0.4 * gb, gb):
        workers = automatic_workers(cores=64, memory_bytes=free_gb * 1e9, threads=1, memory_per_worker_gb=need)
        assert need < 0.95 * gb / workers


def test_on_slurm_the_memory_is_that_of_the_jobs_and_not_of_this_machine(config_of, machine):
    machine(1)
    config = config_of(kind="slurm", workers=7)
    simulate, driver = SimulateConfig(memory_gb=48.0, processes=4, cpus=4), DriverConfig(memory_gb=20.0)
    config = replace(config, slurm=SlurmConfig(simulate=simulate, driver=driver))
    assert solver_bytes(config, *NY_HEAD) == 12e9
    assert solver_config(config, "direct", *NY_HEAD).memory_bytes == 12e9 - SHARD
    assert study_solver(config, *NY_HEAD).reason.endswith(" of 12.0")
    assert solver_config(config, "direct", *NY_HEAD, alone=True).memory_bytes == 20e9 - OF_BASIS


def test_a_basis_is_made_with_all_the_memory_that_it_leaves(config_of, machine):
    machine(24)
    for config in (config_of(workers=0), config_of(workers=4)):
        assert solver_config(config, "direct", *NY_HEAD, alone=True).memory_bytes == 24e9 - OF_BASIS
        assert study_solver(config, *NY_HEAD, alone=True).kind == "direct"
    config = config_of(workers=1)
    need = memory_to_make_basis_gb(config, "direct", *NY_HEAD)
    assert need == pytest.approx((process_bytes(*NY_HEAD, "direct") + OF_BASIS) / 1e9 + 64 * 0.041, abs=0.1)
    machine(11)  # enough for a factor, not for one beside the fields of a basis
    assert study_solver(config, *NY_HEAD).kind == "direct"
    assert study_solver(config, *NY_HEAD, alone=True).kind == "iterative"
    machine(2)
    assert study_solver(config, *NY_HEAD, alone=True).reason == "with a factor it would take about 8.1 GB of 0.0"


def test_ranks_keep_the_head_once_for_each(config_of, machine, monkeypatch):
    """As on a machine of four ranks (`test_mpi_executor` has real ones)."""
    machine(24)
    monkeypatch.setattr(of_study, "on_ranks", lambda: True)
    monkeypatch.setattr(of_study, "memory_share", lambda ranks_per_head: ranks_per_head / 4)
    each = process_bytes(*NY_HEAD, "iterative")
    for ranks, left in ((1, 6e9), (2, 12e9 - each), (4, 24e9 - 3 * each)):
        config = config_of(ranks_per_head=ranks, workers=3)  # workers have no effect on ranks
        assert solver_bytes(config, *NY_HEAD) == left
        assert solver_config(config, "direct", *NY_HEAD).memory_bytes == left - SHARD
        assert study_solver(config, *NY_HEAD).reason.endswith(f" of {left / 1e9:.1f}")
        assert solver_bytes(config, *NY_HEAD, alone=True) == 24e9 - OF_BASIS


def test_a_study_knows_of_the_workers_of_the_command_line(config_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = config_of(workers=1)
    config = replace(config, volume=replace(config.volume, n=32))
    with Coordinator(config, RunOptions(executor="local", workers=40)) as coordinator:
        coordinator.simulate()
    told = capsys.readouterr().err
    assert f"direct solver: its factor takes about 0.0 GB of {machine_bytes() / 40e9:.1f}" in told


def test_the_solver_of_a_basis_gets_the_memory_that_its_kind_was_chosen_by(config_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of(workers=4)
    config = replace(config, volume=replace(config.volume, n=32))
    with Coordinator(config, RunOptions(executor="serial", quiet=True)) as coordinator:
        coordinator.simulate()

    made = []

    def keep_solver(solver, *_):
        made.append(solver)
        raise KeyboardInterrupt

    monkeypatch.setattr(bases, "make_basis", keep_solver)
    with pytest.raises(KeyboardInterrupt):
        bases.study_basis(coordinator.study, config, "direct")
    (solver,) = made
    sizes = solver.space.size, len(solver.head.nodes)
    assert solver.config.memory_bytes == machine_bytes() - basis_bytes(sizes[0], 32**3, 300, 150)
    assert solver.block == block_size(*sizes, "direct", solver.config.memory_bytes, 32**3)
