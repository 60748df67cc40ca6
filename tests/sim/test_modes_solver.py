"""Volumes of `FieldSolver` of kind modes: by modes where they hold, exact elsewhere, in the order of the poses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim import basis as making
from motorsweep.sim import modes_solver
from motorsweep.sim.coil import load_coil
from motorsweep.sim.modes import Basis
from motorsweep.sim.pose import Pose, tangential_pose
from motorsweep.sim.scalp import Scalp
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.sim.volume import VolumeGrid

COIL = load_coil("magstim-70mm")
GRID = VolumeGrid((0, 0, 0.064), 4e-3, 16)
TOLERANCE, RATE = 1e-2, 3.7e6
SMALL = {"TRAINING": 60, "ADDED": 20, "MOST": 120, "HELD_OUT": 10, "FITTED": 100}


class Counting(FieldSolver):
    """Tells how many poses were solved."""

    solved = 0

    def exact_volumes(self, grid, poses, didt=1e6):
        self.solved += len(poses)
        return super().exact_volumes(grid, poses, didt)


@pytest.fixture(scope="module")
def head():
    return layered_sphere(2)


@pytest.fixture(scope="module")
def scalp(head):
    return Scalp.of(head)


def near_the_top(scalp, seed, count=7):
    """Poses of one region, and after the second and the last one that no region holds: tilted by 60 degrees."""
    rng, poses = np.random.default_rng(seed), []
    for _ in range(count):
        point = np.array([*rng.uniform(-0.003, 0.003, 2), 0.095])
        poses.append(tangential_pose(scalp, point, rng.uniform(20, 40), rng.uniform(0.0042, 0.0048), True))
    c, s, turn = 0.5, np.sqrt(0.75), np.eye(4)
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    askew = [Pose(pose.raised(0.06).matrix @ turn) for pose in (poses[1], poses[-1])]
    return [*poses[:2], askew[0], *poses[2:], askew[1]], np.isin(np.arange(count + 2), (2, count + 1), invert=True)


@pytest.fixture(scope="module")
def calls(head, scalp):
    """Two calls of one solver, and what each gave."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(making, name, value)
        solver = Counting(head, COIL, SolverConfig(kind="modes", tolerance=TOLERANCE), region=GRID)
        found = []
        for seed in (1, 2):
            poses, inside = near_the_top(scalp, seed)
            before = solver.solved
            volumes = solver.volumes(GRID, poses, RATE)
            call = {"volumes": volumes, "reports": solver.reports, "solved": solver.solved - before}
            found.append(SimpleNamespace(poses=poses, inside=inside, **call))
    return solver, found


@pytest.fixture(scope="module")
def exact(calls, head):
    solver = FieldSolver(head, COIL, SolverConfig(kind="direct"), region=GRID)
    return [solver.volumes(GRID, call.poses, RATE) for call in calls[1]]


def errors_of(volumes, exact, where):
    apart = np.linalg.norm((volumes - exact)[:, where].astype(float), axis=(1, 2))
    return apart / np.linalg.norm(exact[:, where].astype(float), axis=(1, 2))


def test_each_pose_is_served_or_solved_and_told_so(calls, exact):
    solver, found = calls
    brain = np.isin(solver.sampler(GRID).tissue.reshape(GRID.shape), (1, 2))
    for call, truth in zip(found, exact):
        errors = errors_of(call.volumes, truth, brain)
        assert call.volumes.dtype == np.float32 and call.volumes.shape == (9, *GRID.shape, 3)
        estimates = np.array([report.error_estimate for report in call.reports])
        np.testing.assert_array_equal(np.isfinite(estimates), call.inside)
        assert (errors[call.inside] <= TOLERANCE).all() and (errors[call.inside] > 1e-6).all(), errors
        assert (errors[~call.inside] < 1e-6).all(), errors
        assert (estimates[call.inside] <= TOLERANCE).all() and (estimates >= errors)[call.inside].all()
        residuals = np.array([report.residual for report in call.reports])
        np.testing.assert_array_equal(np.isnan(residuals), call.inside)
        assert (residuals[~call.inside] < 1e-10).all() and all(report.seconds > 0 for report in call.reports)


def test_the_first_call_makes_the_basis_and_the_second_uses_it(calls):
    _, (first, second) = calls
    assert first.solved >= SMALL["TRAINING"] + SMALL["HELD_OUT"] + 2 and second.solved == 2


def test_the_rate_scales_all(calls):
    solver, (call, _) = calls
    once = solver.volumes(GRID, call.poses)
    scale = np.abs(once).max()
    np.testing.assert_allclose(call.volumes, 3.7 * once, rtol=1e-4, atol=1e-5 * scale)


def test_few_poses_are_summed_at_a_time(calls, monkeypatch):
    """So that memory beside the volumes does not grow with their number."""
    (solver, (call, _)), sizes, volumes = calls, [], Basis.volumes
    monkeypatch.setattr(modes_solver, "_AT_ONCE", 2)
    monkeypatch.setattr(Basis, "volumes", lambda basis, c: sizes.append(len(c)) or volumes(basis, c))
    again = solver.volumes(GRID, call.poses, RATE)
    assert sizes == [2, 1, 2, 2, 0]
    np.testing.assert_allclose(again, call.volumes, rtol=1e-4, atol=1e-5 * np.abs(again).max())
    kept = [report.error_estimate for report in solver.reports]
    np.testing.assert_allclose(kept, [report.error_estimate for report in call.reports], rtol=1e-9)


def test_poses_of_which_none_is_served_are_solved(calls, exact):
    solver, (call, _) = calls
    found = solver.volumes(GRID, [call.poses[2], call.poses[8]], RATE)
    np.testing.assert_allclose(found, exact[0][[2, 8]], rtol=1e-5, atol=1e-6 * np.abs(found).max())
    assert np.isnan([report.error_estimate for report in solver.reports]).all()


@pytest.mark.parametrize("differs", ["grid", "head", "coil"])
def test_a_basis_of_something_else_is_refused(calls, differs):
    solver, (call, _) = calls
    basis = solver._modes.bases[GRID.id]
    other = {
        "grid": {"grid": VolumeGrid((0, 0, 0.06), 4e-3, 16)},
        "head": {"head_id": "0" * 16},
        "coil": {"coil_id": "0" * 16},
    }
    wrong = modes_solver.ModesSolver(solver, TOLERANCE)
    wrong.bases[GRID.id] = replace(basis, **other[differs])
    with pytest.raises(InputError, match=rf"the basis was made for {differs} [0-9a-f]+, but [0-9a-f]+ is asked for"):
        wrong.volumes(GRID, call.poses)


def test_no_pose_is_told(calls):
    with pytest.raises(InputError, match="there is no pose; give one or more"):
        calls[0].volumes(GRID, [])
