"""Blocks, memory, and what happens where memory does not suffice for a factor."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.coil import load_coil
from motorsweep.sim.linear import FactorMemoryError, _petsc
from motorsweep.sim.pose import Pose
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.solver_memory import block_size, choose_solver, factor_bytes, pose_bytes, process_bytes
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
