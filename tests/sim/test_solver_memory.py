"""Blocks, memory, and what happens where memory does not suffice for a factor."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
from motorsweep.errors import InputError
from motorsweep.sim import basis as making
from motorsweep.sim.basis import make_basis
from motorsweep.sim.coil import load_coil
from motorsweep.sim.linear import FactorMemoryError, _petsc
from motorsweep.sim.pose import Pose
from motorsweep.sim.pose_region import PoseRegion
from motorsweep.sim.scalp import Scalp
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.solver_memory import (
    basis_bytes,
    block_size,
    choose_solver,
    factor_bytes,
    free_bytes,
    machine_bytes,
    pose_bytes,
    process_bytes,
)
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.sim.volume import VolumeGrid

COIL = load_coil("magstim-70mm")
GRID = VolumeGrid((0, 0, 0.063), 4e-3, 12)
NY_HEAD = (617_023, 319_704)  # unknowns and nodes


def pose(k, step_m=1e-3):
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[:3, 3] = step_m * k, 0.4 * step_m * k, 0.102
    return Pose(matrix)


POSES = [pose(k) for k in range(7)]


@pytest.fixture(scope="module")
def head():
    return layered_sphere(2)


@pytest.fixture
def tight_memory():
    """MUMPS may take one megabyte from here on."""
    options = _petsc().Options()
    options.setValue("mat_mumps_icntl_23", 1)
    yield
    options.delValue("mat_mumps_icntl_23")


def test_blocks_are_as_large_as_memory_holds():
    assert block_size(*NY_HEAD, "direct", 12e9) == 64
    assert block_size(*NY_HEAD, "direct", 9e9) == 6
    # The factor alone takes 5.8 GB with its reserve, and operators 2 GB: 7 GB hold no block.
    assert block_size(*NY_HEAD, "direct", 7e9) == 1
    assert block_size(*NY_HEAD, "iterative", 7e9) == 64
    for memory in (8e9, 9e9, 10e9):
        block = block_size(*NY_HEAD, "direct", memory)
        taken = process_bytes(*NY_HEAD, "direct") + block * pose_bytes(NY_HEAD[0])
        assert block == 1 or taken <= 0.9 * memory
        assert block == 64 or taken + pose_bytes(NY_HEAD[0]) > 0.9 * memory
    assert block_size(*NY_HEAD, "direct", 9e9, voxels=128**3) < 6
    assert process_bytes(*NY_HEAD, "direct") - process_bytes(*NY_HEAD, "iterative") >= factor_bytes(*NY_HEAD)


WHOLE = psutil.virtual_memory().total
GROUPS = {
    "version 2, its own": ("0::/job/step\n", {"job/step/memory.max": "3000000\n", "memory.max": "max\n"}, 3_000_000),
    "version 2, one above": (
        "0::/job/step\n",
        {"job/step/memory.max": "max\n", "job/memory.max": "4000000"},
        4_000_000,
    ),
    "version 2, the least": ("0::/job/step\n", {"job/step/memory.max": "9000000", "job/memory.max": "40000"}, 40_000),
    "version 1": ("4:memory:/a\n3:cpu:/\n0::/\n", {"memory/a/memory.limit_in_bytes": "5000000"}, 5_000_000),
    "version 1, seen as the top": ("4:memory:/docker/f00\n", {"memory/memory.limit_in_bytes": "6000000"}, 6_000_000),
    "version 1, no limit": ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, WHOLE),
    "another group's": (
        "0::/job\n3:cpu:/other\n",
        {"other/memory.max": "1", "memory/other/memory.limit_in_bytes": "1"},
        WHOLE,
    ),
    "no limit": ("0::/job\n", {"job/memory.max": "max\n"}, WHOLE),
    "damaged": ("0::/job\n", {"job/memory.max": ""}, WHOLE),
}


@pytest.mark.parametrize("own, files, expected", GROUPS.values(), ids=GROUPS)
def test_a_container_has_the_memory_of_its_control_groups(own, files, expected, tmp_path):
    for name, text in {
        "proc/self/cgroup": own,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_bytes(tmp_path) == expected


def test_a_machine_without_control_groups_has_all_its_memory(tmp_path):
    assert machine_bytes(tmp_path) == WHOLE
    assert 0 < free_bytes() <= machine_bytes() <= WHOLE


def test_what_the_making_of_a_basis_takes_is_foreseen(monkeypatch):
    """Beside the solver and its blocks; the peak is where modes are found, since this head has few unknowns."""
    for name, value in {"TRAINING": 40, "ADDED": 20, "MOST": 60, "HELD_OUT": 5, "FITTED": 30}.items():
        monkeypatch.setattr(making, name, value)
    grid, head = VolumeGrid((0, 0, 0.06), 2e-3, 32), layered_sphere(1)
    solver = FieldSolver(head, COIL, SolverConfig(kind="direct", block=2), region=grid)
    solver.volumes(grid, [pose(0)])
    region = PoseRegion((0, 0, 0.095), 0.01, (-20, 20), (0.004, 0.006), 0, True)
    tracemalloc.start()
    try:
        basis = make_basis(solver, grid, region, 1e-2, Scalp.of(head))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    solved, told = len(basis.singular_values) + len(basis.heldout_errors), len(basis.brain)
    expected = basis_bytes(solver.space.size, len(basis.voxels), solved, told) + 2 * pose_bytes(
        solver.space.size, 32**3
    )
    assert 0.6 * expected < peak < 1.1 * expected, f"{peak / 1e6} MB, expected {expected / 1e6}"
    # and where there are many unknowns, the functionals count
    assert basis_bytes(10**8, 1000, 300, 150) == pytest.approx(150 * 10**8 * 12, rel=1e-2)


def test_a_pose_or_two_are_not_charged_for_a_factor():
    assert choose_solver(100_000, 100_000, 8e9, n_poses=1) == ("iterative", "a factor does not pay for 1 pose")
    assert choose_solver(100_000, 100_000, 8e9, n_poses=2)[1] == "a factor does not pay for 2 poses"
    assert choose_solver(100_000, 100_000, 8e9, n_poses=3)[0] == choose_solver(100_000, 100_000, 8e9)[0] == "direct"


def test_blocks_do_not_change_the_field(head):
    solvers = [FieldSolver(head, COIL, SolverConfig(kind="direct", block=block)) for block in (None, 1, 3)]
    assert solvers[0].block >= len(POSES)
    potentials = [solver.solve(POSES) for solver in solvers]
    volumes = [solver.volumes(GRID, POSES) for solver in solvers]
    e = [solver.at(GRID.points(), POSES) for solver in solvers]
    for k in (1, 2):
        assert len(solvers[k].reports) == len(POSES)
        for whole, parts, limit in ((potentials[0], potentials[k], 1e-12), (e[0], e[k], 1e-12)):
            for a, b in zip(whole, parts):
                assert np.linalg.norm(a - b) < limit * np.linalg.norm(a)
        # float32, so the last digit may be rounded the other way
        np.testing.assert_allclose(volumes[k], volumes[0], rtol=2**-23, atol=1e-12 * np.abs(volumes[0]).max())


def test_no_pose_is_told(head):
    for kind in ("direct", "modes"):
        solver = FieldSolver(head, COIL, SolverConfig(kind=kind))
        with pytest.raises(InputError, match="there is no pose; give one or more"):
            solver.volumes(GRID, [])


PEAK = """
import gc, sys
sys.path.insert(0, sys.argv[1])
from test_solver_memory import COIL, GRID, FieldSolver, SolverConfig, layered_sphere, pose

def peak_of(solver, count):
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    solver.volumes(GRID, [pose(0.5 * k) for k in range(count)])
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

solver = FieldSolver(layered_sphere(3), COIL, SolverConfig(kind="direct", block=4))
solver.volumes(GRID, [pose(k) for k in range(8)])
few, many = peak_of(solver, 10), peak_of(solver, 60)
solver.block = 60
print(solver.space.size, few, many, peak_of(solver, 60))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux alone")
def test_memory_is_bounded_by_the_block_not_by_the_number_of_poses():
    """Fifty poses more may take their volumes, 20 kB each, and 12 MB of the allocator's slack; in one block they take
    what `pose_bytes` says."""
    line = [sys.executable, "-c", PEAK, str(Path(__file__).parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    size, few, many, whole = map(float, done.stdout.split())
    assert many - few < 12, f"peaks of 10 and of 60 poses: {few} and {many} MB"
    expected = 56 * pose_bytes(int(size), GRID.n**3) / 2**20
    assert 0.6 * expected < whole - many < 1.2 * expected, f"{whole - many} MB, expected {expected}"


@pytest.mark.parametrize("config", [SolverConfig(), SolverConfig(kind="direct", may_fall_back=True)])
def test_a_factor_that_finds_no_memory_gives_way_to_the_iterative_solver(head, config, tight_memory):
    solver = FieldSolver(head, COIL, config, region=GRID)
    assert solver.kind == "direct"
    with pytest.warns(UserWarning, match=r"memory did not suffice for a factor \(MUMPS INFOG\(1\) = -\d+\), so poses"):
        e = solver.volumes(GRID, POSES[:3])
    assert solver.kind == "iterative"
    assert "memory did not suffice for a factor (MUMPS INFOG(1) = -" in solver.reason
    assert all(report.iterations > 3 for report in solver.reports)
    _petsc().Options().delValue("mat_mumps_icntl_23")
    direct = FieldSolver(head, COIL, SolverConfig(kind="direct"), region=GRID)
    x = GRID.points()[::5]
    for a, b in zip(solver.at(x, POSES[:3]), direct.at(x, POSES[:3])):
        assert np.linalg.norm(a - b) < 1e-8 * np.linalg.norm(b)
    np.testing.assert_allclose(e, direct.volumes(GRID, POSES[:3]), rtol=1e-5, atol=1e-5 * np.abs(e).max())


def test_a_factor_that_was_asked_for_and_finds_no_memory_is_told(head, tight_memory):
    solver = FieldSolver(head, COIL, SolverConfig(kind="direct"))
    sentence = r'9792 unknowns: memory did not suffice .*Choose solver kind = "iterative", which needs none, or fewer'
    with pytest.raises(FactorMemoryError, match=sentence) as caught:
        solver.solve(POSES[:1])
    assert isinstance(caught.value, MemoryError)
    _petsc().Options().delValue("mat_mumps_icntl_23")
    assert solver.solve(POSES[:1]).shape == (1, 9793)  # what was factored so far is no hindrance


LIMITED = """
import resource, sys
import psutil
sys.path.insert(0, sys.argv[1])
from test_solver_memory import COIL, POSES, FactorMemoryError, FieldSolver, SolverConfig, layered_sphere
from motorsweep.sim import linear, solve

linear._petsc()  # loads what it needs
make = solve.make_solver

def limited(*args, **kwargs):
    room = psutil.Process().memory_info().vms + 10_000_000
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    try:
        return make(*args, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

solve.make_solver = limited
try:
    FieldSolver(layered_sphere(3), COIL, SolverConfig(kind="direct")).solve(POSES[:1])
except FactorMemoryError as error:
    print("told:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is held to on Linux alone")
def test_an_operating_system_that_gives_no_memory_is_told():
    line = [sys.executable, "-c", LIMITED, str(Path(__file__).parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("told: factoring the stiffness matrix of 39072 unknowns: memory"), done.stderr


def test_nearby_poses_start_from_each_other():
    """Blocks of one pose have nothing to start from."""
    head, near = layered_sphere(3), [pose(k, 2e-3) for k in range(8)]
    counts = {}
    for block in (1, 8):
        solver = FieldSolver(head, COIL, SolverConfig(kind="iterative", block=block), region=GRID)
        solver.solve(near)
        counts[block] = [report.iterations for report in solver.reports]
    assert counts[8][0] == counts[1][0]
    assert all(warm < cold for warm, cold in zip(counts[8][2:], counts[1][2:])), counts
    assert sum(counts[8]) < 0.85 * sum(counts[1]), counts
