from pathlib import Path

import numba
import numpy as np
import pytest
import threadpoolctl
from motorsweep.errors import ConfigError, ConvergenceError, InputError
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import Head, load_head
from motorsweep.sim.linear import DirectSolver, IterativeSolver
from motorsweep.sim.pose import Pose
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.solver_memory import choose_solver
from motorsweep.sim.sphere_field import sphere_field
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.sim.volume import VolumeGrid

COIL = load_coil("magstim-70mm")


def over_the_top(distance_m=0.005, angle_deg=0.0, tilt_deg=0.0):
    """Coil over the sphere's top, z into the head, turned about its own axis, then moved along the sphere."""
    turn, tilt = np.radians([angle_deg, tilt_deg])
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, -1, -1])
    c, s = np.cos(turn), np.sin(turn)
    matrix[:3, :3] = matrix[:3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    matrix[:3, 3] = 0, 0, 0.095 + distance_m
    c, s = np.cos(tilt), np.sin(tilt)
    roll = np.eye(4)
    roll[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return Pose(roll @ matrix)


POSES = [over_the_top(), over_the_top(0.008, 45, 10), over_the_top(0.004, 100, -12)]


@pytest.fixture(scope="module")
def brain_points():
    x = np.random.default_rng(0).normal(size=(30_000, 3))
    x *= np.random.default_rng(1).uniform(0.05, 0.0795, (len(x), 1)) / np.linalg.norm(x, axis=1)[:, None]
    return x[np.linalg.norm(x - [0, 0, 0.08], axis=1) < 0.035]


REGION = VolumeGrid((0, 0, 0.063))


@pytest.fixture(scope="module")
def solver(sphere_head):
    return FieldSolver(sphere_head, COIL, region=REGION)


def exact(points, pose, didt=1e6):
    turned = pose.matrix[:3, :3].T
    return sphere_field(points, COIL.positions @ turned + pose.centre_m, COIL.moments @ turned, didt)


def error_of(solver, points):
    """Relative L2 error against the closed form, for each pose."""
    fields = zip(POSES, solver.at(points, POSES))
    truth = [(exact(points, pose), e) for pose, e in fields]
    return np.array([np.linalg.norm(e - t) / np.linalg.norm(t) for t, e in truth])


def test_field_in_a_sphere_of_voxels_meets_the_closed_form(solver, brain_points):
    """Edges of 4 mm; what is left comes from the rough borders (tests/sim/test_convergence.py has smooth ones)."""
    found = error_of(solver, brain_points)
    assert (found < 0.022).all(), f"relative L2 errors {found}"
    assert solver.kind == "direct" and len(solver.space.second) < len(solver.head.tets)
    assert all(report.residual < 1e-10 and report.iterations == 0 for report in solver.reports)


@pytest.mark.slow
def test_default_edge_lengths_are_within_two_per_cent_of_the_closed_form(mesh_cache, brain_points):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    head = load_head("sphere", cache=mesh_cache)
    found = error_of(FieldSolver(head, COIL, region=REGION), brain_points)
    assert (found < 0.02).all(), f"relative L2 errors {found}"


def test_linear_elements_with_recovery_meet_the_closed_form(sphere_head, brain_points):
    found = error_of(FieldSolver(sphere_head, COIL, SolverConfig(order=1)), brain_points)
    assert (found < 0.018).all(), f"relative L2 errors {found}"


def test_second_order_in_the_region_is_as_good_there_as_everywhere(solver, brain_points):
    """The grid's voxels in the brain, against second order in all elements of the same mesh."""
    x = REGION.points()[::97]
    x = x[np.linalg.norm(x, axis=1) < 0.079]
    everywhere = FieldSolver(solver.head, COIL, SolverConfig(kind="iterative")).at(x, POSES[:1])
    apart = np.linalg.norm(solver.at(x, POSES[:1]) - everywhere) / np.linalg.norm(everywhere)
    linear = FieldSolver(solver.head, COIL, SolverConfig(order=1)).at(x, POSES[:1])
    assert apart < 0.005, f"{apart:.4f}"
    assert apart < 0.5 * np.linalg.norm(linear - everywhere) / np.linalg.norm(everywhere)


def test_ground_node_order_and_threads_do_not_matter(sphere_head, solver, brain_points):
    x = brain_points[:300]
    e = solver.at(x, POSES[:1])
    rng = np.random.default_rng(7)
    ground = int(rng.integers(len(sphere_head.nodes)))
    order, elements = rng.permutation(len(sphere_head.nodes)), rng.permutation(len(sphere_head.tets))
    place = np.argsort(order)
    shuffled = Head(
        sphere_head.nodes[order], place[sphere_head.tets[elements]].astype(np.int32), sphere_head.tissue[elements],
        sphere_head.conductivity[elements],
    )  # fmt: skip
    others = {
        "ground": FieldSolver(sphere_head, COIL, SolverConfig(ground=ground), region=REGION),
        "order": FieldSolver(shuffled, COIL, region=REGION),
        "iterative": FieldSolver(sphere_head, COIL, SolverConfig(kind="iterative"), region=REGION),
    }
    for name, other in others.items():
        apart = np.linalg.norm(other.at(x, POSES[:1]) - e) / np.linalg.norm(e)
        assert apart < 1e-8, f"{name}: {apart:.1e}"
    assert 3 < others["iterative"].reports[0].iterations < 100
    before = numba.get_num_threads()
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            try:
                other = FieldSolver(sphere_head, COIL, region=REGION).at(x, POSES[:1])
            finally:
                numba.set_num_threads(before)
        assert np.linalg.norm(other - e) < 1e-8 * np.linalg.norm(e), f"{threads} threads"


@pytest.mark.parametrize("ground", [-1, 10**9])
def test_ground_must_be_a_node(sphere_head, ground):
    with pytest.raises(ConfigError, match=rf"ground is node {ground}, but the head has \d+, counted from 0"):
        FieldSolver(sphere_head, COIL, SolverConfig(ground=ground), region=REGION)


def test_points_and_poses_that_cannot_be_used_are_told(solver):
    for points in (np.zeros((0, 3)), [0, 0, 0.07], [[0, 0, np.nan]]):
        with pytest.raises(InputError, match=r"must be finite numbers \(n, 3\) in metres"):
            solver.at(points, POSES[:1])
    with pytest.raises(InputError, match="there is no pose; give one or more"):
        solver.at([[0, 0, 0.07]], [])
    with pytest.raises(InputError, match="dI/dt is nan"):
        solver.at([[0, 0, 0.07]], POSES[:1], didt=float("nan"))


@pytest.mark.slow
def test_the_default_is_within_one_per_cent_of_second_order_everywhere_on_a_real_head(data_folder):
    """Second order everywhere, 2.6 million unknowns, was solved once (benchmarks/accuracy.py) and is kept here."""
    head = load_head(data_folder / "heads" / "ny_head_320k.msh.gz")
    coil = load_coil(data_folder / "coils" / "MagStim_D70.ccd")
    with np.load(Path(__file__).with_name("second_order_everywhere.npz")) as kept:
        assert str(kept["head"]) == head.id
        poses = [Pose(matrix) for matrix in kept["pose_matrix"]]
        points, tissue, truth = kept["points_m"], kept["tissue"], kept["e"]
    region = VolumeGrid((-0.037, -0.021, 0.058))
    found = {}
    for order in (2, 1):
        e = FieldSolver(head, coil, SolverConfig(kind="iterative", order=order), region=region).at(points, poses)
        found[order] = np.array(
            [[np.linalg.norm((a - t)[tissue == tag]) / np.linalg.norm(t[tissue == tag]) for tag in (1, 2)]
             for a, t in zip(e, truth)]
        )  # fmt: skip
    assert (found[2] < 0.01).all(), f"white and grey matter of each pose: {found[2]}"
    assert (found[1] > 5 * found[2]).all(), f"linear elements: {found[1]}"


def test_table_of_the_coil_is_as_good_as_its_sum(solver, brain_points):
    class Summed:
        @staticmethod
        def dadt(points, pose, didt):
            return COIL.dadt(points, pose, didt, tolerance=0)

    x = brain_points[:300]
    truth = FieldSolver(solver.head, Summed, region=REGION).at(x, POSES)
    for e, t in zip(solver.at(x, POSES), truth):
        assert np.linalg.norm(e - t) < 1e-6 * np.linalg.norm(t)


def test_field_is_linear_in_the_rate_and_does_not_depend_on_the_block(solver, brain_points):
    x = brain_points[:50]
    together = solver.at(x, POSES)
    np.testing.assert_allclose(solver.at(x, POSES[1:2], didt=2e6)[0], 2 * together[1], rtol=1e-9)


def test_conductivities_of_the_layers_do_not_matter_in_a_sphere(sphere_head, brain_points):
    """Heller & van Hulsteyn 1992: true up to the discretisation error."""
    uniform = Head(sphere_head.nodes, sphere_head.tets, sphere_head.tissue, np.full(len(sphere_head.tets), 0.33))
    found = error_of(FieldSolver(uniform, COIL, region=REGION), brain_points)
    assert (found < 0.015).all(), f"relative L2 errors {found}"


@pytest.mark.parametrize("order", [1, 2])
def test_head_and_coil_turned_together_give_the_turned_field(order, brain_points):
    """Second order everywhere: a cube along the axes would not turn with the head."""
    sphere_head = layered_sphere(2)
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = rotation, (0.01, -0.02, 0.03)
    turned = Head(
        sphere_head.nodes @ rotation.T + move[:3, 3], sphere_head.tets, sphere_head.tissue, sphere_head.conductivity
    )
    x = brain_points[:200]
    config = SolverConfig(order=order)
    e = FieldSolver(turned, COIL, config).at(x @ rotation.T + move[:3, 3], [Pose(move @ POSES[1].matrix)])[0]
    expected = FieldSolver(sphere_head, COIL, config).at(x, POSES[1:2])[0] @ rotation.T
    assert np.linalg.norm(e - expected) < 1e-9 * np.linalg.norm(expected)


def test_volumes_are_the_field_at_voxel_centres_and_zero_in_air(solver):
    grid = VolumeGrid((0, 0, 0.09), 2e-3, 12)
    volume = solver.volumes(grid, POSES[:1])[0]
    assert volume.dtype == np.float32 and volume.shape == (12, 12, 12, 3)
    np.testing.assert_allclose(volume.reshape(-1, 3), solver.at(grid.points(), POSES[:1])[0], rtol=1e-5, atol=1e-6)
    radius = np.linalg.norm(grid.points(), axis=1).reshape(grid.shape)
    tissue = solver.sampler(grid).tissue.reshape(grid.shape)
    assert (tissue[radius > 0.0965] == 0).all() and (volume[radius > 0.0965] == 0).all()
    assert (tissue[radius < 0.079] == 2).all() and (volume[radius < 0.079] != 0).all()


def test_prepared_or_not_the_field_is_the_same(sphere_head, solver):
    grid = VolumeGrid((0, 0, 0.06), 4e-3, 8)
    prepared = FieldSolver(sphere_head, COIL, region=REGION)
    prepared.prepare(grid)
    np.testing.assert_array_equal(prepared.volumes(grid, POSES[:1]), solver.volumes(grid, POSES[:1]))


def test_elements_hold_the_mean_field(sphere_head, solver):
    centres = sphere_head.nodes[sphere_head.tets].mean(1)
    near = (np.linalg.norm(centres - [0, 0, 0.07], axis=1) < 0.02) & (sphere_head.tissue == 2)
    truth = exact(centres[near], POSES[0])
    for config, region, bound in ((SolverConfig(order=1), None, 0.08), (None, REGION, 0.03)):
        other = solver if region else FieldSolver(sphere_head, COIL, config)
        e = other.elements(POSES[:1])[0][near]
        found = np.linalg.norm(e - truth) / np.linalg.norm(truth)
        assert found < bound, f"{found:.4f}"


def test_mean_field_of_an_element_is_the_mean_of_its_field(solver):
    """Against a quadrature that is exact for the element's field."""
    rng = np.random.default_rng(3)
    chosen = rng.choice(solver.space.second, 200, replace=False)
    a, b = (5 - np.sqrt(5)) / 20, (5 + 3 * np.sqrt(5)) / 20
    shares = np.full((4, 4), a) + (b - a) * np.eye(4)
    x = np.einsum("qi,eik->eqk", shares, solver.head.nodes[solver.head.tets[chosen]])
    e = solver.at(x.reshape(-1, 3), POSES[:1])[0].reshape(200, 4, 3).mean(1)
    np.testing.assert_allclose(solver.elements(POSES[:1])[0][chosen], e, atol=1e-9)


def test_a_solve_that_does_not_converge_is_told(sphere_head):
    solver = FieldSolver(sphere_head, COIL, SolverConfig(kind="iterative", rtol=1e-30))
    with pytest.raises(ConvergenceError, match=r"true residual of .* after \d+ iterations"):
        solver.solve(POSES[:1])


def test_solver_is_chosen_by_memory_and_unknown_kinds_are_refused():
    assert choose_solver(320_000, 320_000, 16e9)[0] == choose_solver(600_000, 320_000, 16e9)[0] == "direct"
    assert choose_solver(2_600_000, 320_000, 64e9)[0] == "iterative"
    kind, why = choose_solver(5_000_000, 5_000_000, 16e9)
    assert kind == "iterative" and "GB of 16.0" in why
    with pytest.raises(ConfigError, match="choose auto, modes, direct, iterative"):
        SolverConfig(kind="lu")
    with pytest.raises(ConfigError, match="order 3 are not built; choose 1 or 2"):
        SolverConfig(order=3)
    for wrong in ({"margin_m": float("nan")}, {"margin_m": -1e-3}, {"rtol": 0.0}, {"rtol": 1e3}):
        with pytest.raises(ConfigError, match="cannot be used; give a length from 0, and a number between 0 and 1"):
            SolverConfig(**wrong)


@pytest.mark.parametrize("tolerance", [0.0, 9e-6, 0.11, -1e-3, float("nan"), float("inf")])
def test_a_tolerance_of_modes_that_means_nothing_is_refused(tolerance):
    with pytest.raises(ConfigError, match=rf"a tolerance of {tolerance} for fields by modes cannot be used; give"):
        SolverConfig(kind="modes", tolerance=tolerance)
    assert [SolverConfig(tolerance=good).tolerance for good in (1e-5, 0.1)] == [1e-5, 0.1]


def test_modes_are_not_made_by_several_ranks(sphere_head):
    class Ranks:
        """What is asked of a communicator before anything is shared."""

        @staticmethod
        def Get_size():
            return 3

    with pytest.raises(ConfigError, match="kind modes is of one process, but 3 ranks share this head; choose auto"):
        FieldSolver(sphere_head, COIL, SolverConfig(kind="modes"), region=REGION, comm=Ranks)


def test_both_solvers_meet_a_known_solution():
    """Tridiagonal (−1, 2.1, −1): the answer from numpy."""
    from scipy.sparse import csr_array, diags

    matrix = csr_array(diags([-1, 2.1, -1], [-1, 0, 1], shape=(300, 300)))
    loads = np.random.default_rng(0).normal(size=(3, 300))
    truth = np.linalg.solve(matrix.toarray(), loads.T).T
    for solver in (DirectSolver(matrix), IterativeSolver(matrix, 1e-12)):
        x, reports = solver.solve(loads)
        np.testing.assert_allclose(x, truth, rtol=1e-8, atol=1e-10)
        assert len(reports) == 3
