"""Transposes: <adjoint(v), x> is <v, forward(x)>, for each operator and for what a pose's field has of a pattern."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import ConvergenceError
from motorsweep.sim.adjoint import field_functionals
from motorsweep.sim.coil import Coil, load_coil
from motorsweep.sim.pose import Pose
from motorsweep.sim.sampling import build_sampler
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.space import build_space
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.sim.volume import VolumeGrid

GRID = VolumeGrid((0.004, -0.003, 0.066), 6e-3, 10)  # in all tissues and in the air above
SMALL = VolumeGrid((0, 0, 0.07), 6e-3, 5)  # second order only here: the grid above lies in elements of both orders

_TURN = np.linspace(0, 2 * np.pi, 13)
_RING = np.stack([0.03 * np.cos(_TURN), 0.03 * np.sin(_TURN), np.full(13, -0.005)], axis=1)
COILS = {
    "dipoles": load_coil("magstim-70mm"),
    "wire": Coil("ring of wire", segments=np.stack([_RING[:-1], _RING[1:]], axis=1)),
}
SPACES = {"linear": (1, None), "second": (2, None), "both": (2, SMALL)}


def over(tilt_deg, turn_deg=0.0, distance_m=0.005):
    """Coil on the sphere, z inwards, rolled about the y axis and turned about its own."""
    tilt, turn = np.radians([tilt_deg, turn_deg])
    roll, matrix = np.eye(4), np.eye(4)
    roll[:3, :3] = [[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]]
    matrix[:3, :3] = np.diag([1.0, -1, -1]) @ [
        [np.cos(turn), -np.sin(turn), 0],
        [np.sin(turn), np.cos(turn), 0],
        [0, 0, 1],
    ]
    matrix[2, 3] = 0.095 + distance_m
    return Pose(roll @ matrix)


POSES = [over(0), over(14, 35, 0.008), over(-20, 110), over(8, 270, 0.02)]


class Given:
    """In place of a coil: dA/dt that was drawn."""

    def __init__(self, dadt):
        self.values = dadt

    def dadt(self, points, pose, didt=1e6):
        assert points.shape == self.values.shape
        return self.values


@pytest.fixture(scope="module")
def head():
    return layered_sphere(2)


@pytest.fixture(scope="module")
def spaces(head):
    return {name: build_space(head, *how) for name, how in SPACES.items()}


@pytest.fixture(scope="module")
def samplers(head, spaces):
    return {name: build_sampler(head, space, GRID.points()) for name, space in spaces.items()}


def test_the_spaces_here_are_of_first_order_of_second_and_of_both(head, spaces, samplers):
    sizes = [spaces[name].size for name in SPACES]
    assert sizes[0] == len(head.nodes) < sizes[2] < sizes[1]
    assert samplers["linear"].slopes.nnz == 0 and samplers["second"].recovery.nnz == 0
    assert samplers["both"].slopes.nnz > 0 and samplers["both"].recovery.nnz > 0
    assert set(np.unique(samplers["both"].tissue)) >= {0, 2, 3, 4, 5}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 3))
@pytest.mark.parametrize("order", SPACES)
def test_sampling_and_its_transpose(spaces, samplers, order, seed, count):
    rng, sampler, size = np.random.default_rng(seed), samplers[order], spaces[order].size
    potentials, dadt = rng.normal(size=(count, size)), rng.normal(size=(size, 3, count))
    values = rng.normal(size=(GRID.n**3, 3, count))
    of_potential, of_dadt = sampler.adjoint(values)
    assert of_potential.shape == (size, count) and of_dadt.shape == (size, 3, count)
    field = sampler.field(potentials, dadt)
    forward = np.einsum("kpc,pck->k", field, values)
    back = np.einsum("ks,sk->k", potentials, of_potential) + np.einsum("sck,sck->k", dadt, of_dadt)
    scale = np.linalg.norm(field, axis=(1, 2)) * np.linalg.norm(values, axis=(0, 1))
    assert (np.abs(forward - back) <= 1e-12 * scale).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tail=st.sampled_from([(), (1,), (3,), (3, 2)]))
@pytest.mark.parametrize("order", SPACES)
def test_interpolation_and_its_transpose(spaces, order, seed, tail):
    rng, space = np.random.default_rng(seed), spaces[order]
    values, functionals = rng.normal(size=(space.size, *tail)), rng.normal(size=(space.size, *tail))
    kept = functionals.copy()
    forward = (space.coefficients(values.reshape(space.size, -1)).reshape(values.shape) * functionals).sum()
    back = (space.coefficients_adjoint(functionals) * values).sum()
    scale = np.linalg.norm(values) * np.linalg.norm(functionals)
    assert abs(forward - back) <= 1e-12 * scale
    np.testing.assert_array_equal(functionals, kept)


@pytest.mark.parametrize("ground", [0, 700])
@pytest.mark.parametrize(("kind", "bound"), [("direct", 1e-12), ("iterative", 1e-8)])
@pytest.mark.parametrize("order", SPACES)
def test_solving_and_its_transpose(head, order, kind, bound, ground):
    rng, (degree, region) = np.random.default_rng([ground, len(kind)]), SPACES[order]
    solver = FieldSolver(head, Given(None), SolverConfig(kind=kind, order=degree, ground=ground), region=region)
    functionals, drawn = rng.normal(size=(solver.space.size, 5)), rng.normal(size=(2, solver.space.size, 3))
    of_dadt = solver.adjoint(functionals)
    assert of_dadt.shape == (solver.space.size, 3, 5)
    for values in drawn:
        solver.coil = Given(values)
        potential = solver.solve(POSES[:1])[0]
        back = np.einsum("sc,sck->k", solver.space.coefficients(values), of_dadt)
        scale = np.linalg.norm(potential) * np.linalg.norm(functionals, axis=0)
        assert (np.abs(functionals.T @ potential - back) <= bound * scale).all()


def test_a_transpose_that_does_not_converge_is_told(head):
    solver = FieldSolver(head, COILS["wire"], SolverConfig(kind="iterative", order=1, rtol=1e-30))
    with pytest.raises(ConvergenceError, match=r"true residual of .* after \d+ iterations"):
        solver.adjoint(np.random.default_rng(0).normal(size=(solver.space.size, 1)))


@pytest.mark.parametrize("coil", COILS)
@pytest.mark.parametrize("order", SPACES)
def test_functionals_of_dadt_are_the_products_of_pattern_and_exact_field(head, order, coil):
    """17 patterns: one more than in two blocks; some of a single voxel, to see that none is taken for another.

    Of random patterns the products cancel to a small part of |u||E|, so the last ones are fields themselves.
    """
    degree, region = SPACES[order]
    solver = FieldSolver(head, COILS[coil], SolverConfig(kind="direct", order=degree, block=16), region=region)
    exact = solver.volumes(GRID, POSES).reshape(len(POSES), -1, 3).astype(float)
    voxels, rng = np.flatnonzero(solver.sampler(GRID).tissue > 0), np.random.default_rng(5)
    patterns = rng.normal(size=(17, len(voxels), 3))
    patterns[:3] = 0
    patterns[np.arange(3), [0, len(voxels) // 2, len(voxels) - 1], np.arange(3)] = 1
    patterns[13:] = exact[:, voxels]
    functionals = field_functionals(solver, GRID, voxels, patterns)
    assert functionals.dtype == np.float32 and functionals.shape == (solver.space.size, 3, 17)
    points = solver.space.points()
    for pose, field in zip(POSES, exact):
        found = np.tensordot(solver.coil.dadt(points, pose), functionals, ((0, 1), (0, 1)))
        expected = np.einsum("kvc,vc->k", patterns, field[voxels])
        scale = np.linalg.norm(patterns, axis=(1, 2)) * np.linalg.norm(field[voxels])
        assert (np.abs(found - expected) <= 1e-6 * scale).all(), np.abs(found - expected) / scale
    whole = np.einsum("kvc,kvc->k", patterns[13:], exact[:, voxels])
    found = [
        np.tensordot(solver.coil.dadt(points, p), functionals, ((0, 1), (0, 1)))[13 + k] for k, p in enumerate(POSES)
    ]
    np.testing.assert_allclose(found, whole, rtol=1e-6)


@pytest.mark.parametrize(("block", "sizes"), [(5, [2, 2, 1]), (1, [1] * 5), (64, [5])])
def test_patterns_are_taken_half_as_many_at_a_time_as_poses(head, block, sizes):
    """Their functionals of dA/dt take about twice the memory of a pose; the block is as large as memory allows."""

    class Counting(FieldSolver):
        def adjoint(self, functionals):
            found.append(functionals.shape[1])
            return super().adjoint(functionals)

    found, solver = [], Counting(head, COILS["wire"], SolverConfig(order=1, block=block))
    voxels = np.flatnonzero(solver.sampler(SMALL).tissue > 0)
    patterns = np.random.default_rng(3).normal(size=(5, len(voxels), 3))
    functionals = field_functionals(solver, SMALL, voxels, patterns)
    assert found == sizes
    alone = field_functionals(solver, SMALL, voxels, patterns[4:])
    np.testing.assert_allclose(functionals[..., 4:], alone, rtol=1e-5, atol=1e-6 * np.abs(alone).max())
