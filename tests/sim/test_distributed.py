"""One head on the ranks of a real mpirun: the fields are those of one process."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from motorsweep.sim.distributed import WholeRows, joined, no_open_ports, own_share, together

SCRIPT = """
import sys
import numpy as np
from mpi4py import MPI
from motorsweep.errors import PoseError
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import Head
from motorsweep.sim.pose import Pose
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.volume import VolumeGrid

comm, head, coil = MPI.COMM_WORLD, Head.load(sys.argv[1]), load_coil("magstim-70mm")
grid = VolumeGrid((0, 0, 0.063), 1e-3, 32)
points = grid.points()[::41]


def pose(x, z=0.101):
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[:3, 3] = x, 0.3 * x, z
    return Pose(matrix)


poses = [pose(0.004 * k) for k in range(5)]
for kind in sys.argv[2:]:
    config = SolverConfig(kind=kind, block=3, margin_m=4e-3)
    shared = FieldSolver(head, coil, config, region=grid, comm=comm)
    e, potentials = shared.at(points, poses), shared.solve(poses[:1])
    assert [r.residual < 1e-10 for r in shared.reports] == [True] and e.shape == (5, len(points), 3)
    same = comm.allgather(e.tobytes())
    assert all(each == same[0] for each in same)  # the ranks agree to the bit
    if comm.Get_rank() == 0:
        alone = FieldSolver(head, coil, config, region=grid)
        truth = alone.at(points, poses)
        for k in range(5):
            assert np.linalg.norm(e[k] - truth[k]) < 1e-8 * np.linalg.norm(truth[k]), (kind, k)
        own = alone.solve(poses[:1])
        assert np.linalg.norm(potentials - own) < 1e-8 * np.linalg.norm(own)
    try:  # the bad pose is of the last rank alone: all must leave together
        bad = coil.positions[0] * [1, -1, -1]
        matrix = np.diag([1.0, -1, -1, 1])
        exact = (bad + (head.nodes - bad) == head.nodes).all(1)  # a dipole must lie on a node to the bit
        matrix[:3, 3] = head.nodes[exact][0] - bad
        shared.solve([*poses[:2], Pose(matrix)])
        raise SystemExit("the bad pose was solved")
    except PoseError:
        pass
    mean_field = shared._mean_field
    if comm.Get_rank() == comm.Get_size() - 1:  # memory ends on the last rank alone
        shared._mean_field = lambda potentials, dadt: [][1]
    try:
        shared.elements(poses[:3])
        raise SystemExit("there was memory")
    except IndexError:
        shared._mean_field = mean_field
    again = shared.at(points, poses[:2])  # after the error the ranks are still in step
    assert np.linalg.norm(again - e[:2]) < 1e-8 * np.linalg.norm(e[:2])
print("done", flush=True)
"""


def test_without_a_communicator_everything_is_own():
    assert own_share(None, 7) == slice(0, 7)
    assert together(None, lambda: 3) == 3
    values = np.arange(6.0).reshape(2, 3)
    assert joined(None, values) is values
    rows = WholeRows(3)
    assert rows.to_rows(values)[0] is values and rows.total(2.5) == 2.5


@pytest.mark.parametrize(
    ("launcher", "transport"),
    [
        ({}, "self"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, "self,vader"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_NODES": "1"}, "self,vader"),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_NODES": "2"}, None),
    ],
)
def test_only_ranks_of_several_machines_may_open_ports(launcher, transport, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMIX_", "PMI_", "MV2_", "SLURM_"))]:
        monkeypatch.delenv(name)
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with no_open_ports():
        assert os.environ.get("OMPI_MCA_btl") == transport
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here (openmpi-bin)")
@pytest.mark.parametrize(("ranks", "kinds"), [(2, ("direct", "iterative")), (3, ("direct",))])
def test_ranks_that_share_a_head_give_the_fields_of_one(ranks, kinds, small_sphere, tmp_path):
    pytest.importorskip("mpi4py", reason="needs mpi4py")
    small_sphere.save(tmp_path / "head.npz")
    (tmp_path / "shared_head.py").write_text(SCRIPT)
    flags = ["--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    line = ["mpirun", *flags, "-n", str(ranks), sys.executable, "-m", "mpi4py", "shared_head.py", "head.npz", *kinds]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("done") == ranks


@pytest.fixture(scope="module")
def small_sphere(mesh_cache):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    from motorsweep.sim.head import MeshSizes, load_head

    sizes = MeshSizes(fine_m=9e-3, coarse_m=14e-3, fine_radius_m=0.04)
    return load_head("sphere", sizes=sizes, hand_knob_m=(0, 0, 0.08), cache=mesh_cache)
