import numpy as np
import pytest
from motorsweep.sim.head import Head
from motorsweep.sim.mesh_quality import tet_volumes
from motorsweep.sim.recovery import gradient_weights
from motorsweep.sim.sampling import build_sampler
from motorsweep.sim.space import build_space
from scipy.spatial import Delaunay


@pytest.fixture(scope="module")
def cube():
    """Two tissues that meet at x = 0."""
    ticks = np.linspace(-1, 1, 9)
    nodes = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)
    nodes += np.random.default_rng(0).uniform(-0.02, 0.02, nodes.shape) * (np.abs(nodes) < 0.99) * (nodes[:, :1] != 0)
    tets = Delaunay(nodes).simplices
    tets = tets[np.abs(tet_volumes(nodes, tets)) > 1e-7]
    volumes = tet_volumes(nodes, tets)
    tets[volumes < 0] = tets[volumes < 0][:, [1, 0, 2, 3]]
    tissue = np.where(nodes[tets].mean(1)[:, 0] < 0, 1, 2).astype(np.int16)
    return Head(nodes, tets, tissue, np.ones(len(tets)))


def points(count=500):
    x = np.random.default_rng(1).uniform(-0.95, 0.95, (count, 3))
    return x[np.abs(x[:, 0]) > 0.02]


def test_shape_gradients_reproduce_a_linear_function(cube):
    slope = np.array([1.0, -2.0, 3.0])
    weights = gradient_weights(cube.nodes, cube.tets)
    gradient = np.einsum("eik,ei->ek", weights, (cube.nodes @ slope)[cube.tets])
    np.testing.assert_allclose(gradient, np.broadcast_to(slope, gradient.shape), atol=1e-11)


def test_a_constant_field_is_recovered_exactly_and_both_parts_add_up(cube):
    x = points()
    sampler = build_sampler(cube, build_space(cube, 1), x)
    slope, constant = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.25, -1.0])
    dadt = np.broadcast_to(constant[:, None], (len(cube.nodes), 3, 1))
    e = sampler.field((cube.nodes @ slope)[None], dadt)
    np.testing.assert_allclose(e[0], np.broadcast_to(-slope - constant, x.shape), atol=1e-10)


def test_the_jump_between_tissues_stays(cube):
    """A potential with a kink at x = 0: 1 V/m on one side, 3 V/m on the other, nothing between."""
    x = points()
    sampler = build_sampler(cube, build_space(cube, 1), x)
    kinked = np.where(cube.nodes[:, 0] < 0, 1.0, 3.0) * cube.nodes[:, 0]
    e = sampler.field(kinked[None], np.zeros((len(cube.nodes), 3, 1)))[0]
    np.testing.assert_allclose(e[:, 0], np.where(x[:, 0] < 0, -1.0, -3.0), atol=1e-9)
    assert (sampler.tissue == np.where(x[:, 0] < 0, 1, 2)).all()


def test_recovery_beats_element_gradients_on_a_smooth_field(cube):
    x = points()
    x = x[(np.abs(x) < 0.7).all(1)]
    sampler = build_sampler(cube, build_space(cube, 1), x)
    potential = (cube.nodes**2).sum(1) / 2
    e = sampler.field(potential[None], np.zeros((len(cube.nodes), 3, 1)))[0]
    from motorsweep.sim.volume import locate

    element, _ = locate(cube.nodes, cube.tets, x)
    constant = -np.einsum("eik,ei->ek", gradient_weights(cube.nodes, cube.tets), potential[cube.tets])[element]
    recovered, plain = (np.linalg.norm(values + x) / np.linalg.norm(x) for values in (e, constant))
    assert recovered < 0.35 * plain, f"recovered {recovered:.3f}, element values {plain:.3f}"


def test_outside_the_head_the_field_is_zero(cube):
    sampler = build_sampler(cube, build_space(cube, 1), np.array([[2.0, 0, 0], [0.5, 0, 0]]))
    e = sampler.field(cube.nodes[:, :1].T.copy(), np.ones((len(cube.nodes), 3, 1)))
    assert (e[0, 0] == 0).all()
    np.testing.assert_allclose(e[0, 1], [-2, -1, -1], atol=1e-9)
    assert sampler.tissue.tolist() == [0, 2]
