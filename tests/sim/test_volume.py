import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.sim.head import Head
from motorsweep.sim.mesh_quality import tet_volumes
from motorsweep.sim.volume import VolumeGrid, locate, sample
from scipy.spatial import Delaunay


def test_grid_axes_points_and_affine_agree():
    grid = VolumeGrid((0.01, -0.02, 0.03), spacing_m=2e-3, n=4)
    points = grid.points().reshape(4, 4, 4, 3)
    for k, axis in enumerate(grid.axes()):
        assert axis.mean() == pytest.approx(grid.centre_m[k])
        np.testing.assert_allclose(np.diff(axis), 2e-3)
    np.testing.assert_allclose(points[1, 2, 3], (grid.affine() @ [1, 2, 3, 1])[:3])
    assert grid.id == VolumeGrid([0.01, -0.02, 0.03], 2e-3, 4).id != VolumeGrid((0.01, -0.02, 0.03), 2e-3, 8).id


@pytest.mark.parametrize(
    "arguments", [((0, 0), 1e-3, 4), ((0, 0, np.nan), 1e-3, 4), ((0, 0, 0), 0, 4), ((0, 0, 0), 1e-3, 0)]
)
def test_an_impossible_grid_is_refused(arguments):
    with pytest.raises(InputError, match="no cube"):
        VolumeGrid(*arguments)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_located_points_are_where_the_weights_say_and_agree_with_qhull(seed):
    rng = np.random.default_rng(seed)
    nodes = rng.uniform(-1, 1, (40, 3))
    mesh = Delaunay(nodes)
    points = rng.uniform(-1.2, 1.2, (300, 3))
    element, weights = locate(nodes, mesh.simplices, points)
    assert ((element >= 0) == (mesh.find_simplex(points) >= 0)).all()
    inside = element >= 0
    corners = nodes[mesh.simplices[element[inside]]]
    np.testing.assert_allclose(np.einsum("pi,pik->pk", weights[inside], corners), points[inside], atol=1e-9)
    assert (weights[inside] > -1e-8).all()
    assert (weights[~inside] == 0).all()


def small_head():
    nodes = np.random.default_rng(3).uniform(-1, 1, (60, 3))
    return Head(nodes, *tets_of(nodes))


def tets_of(nodes):
    tets = Delaunay(nodes).simplices
    inverted = tet_volumes(nodes, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return tets, np.ones(len(tets), np.int16), np.ones(len(tets))


def test_sampling_a_linear_function_is_exact_and_zero_outside():
    head, grid = small_head(), VolumeGrid((0.1, 0, 0), spacing_m=0.25, n=11)
    slopes = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])
    inside = (locate(head.nodes, head.tets, grid.points())[0] >= 0).reshape(grid.shape)
    assert 100 < inside.sum() < inside.size
    expected = np.where(inside[..., None], (grid.points() @ slopes.T + [5.0, -4.0]).reshape(11, 11, 11, 2), 0)
    both = sample(head, grid, head.nodes @ slopes.T + [5.0, -4.0])
    assert both.dtype == np.float32 and both.shape == (11, 11, 11, 2)
    np.testing.assert_allclose(both, expected, atol=1e-6)
    assert (both[~inside] == 0).all()
    one = sample(head, grid, head.nodes @ slopes[0] + 5.0)
    assert one.shape == grid.shape
    np.testing.assert_array_equal(one, both[..., 0])


@pytest.mark.parametrize("shape", [(59,), (60, 2, 2), ()])
def test_sampling_needs_a_value_for_each_node(shape):
    with pytest.raises(InputError, match="the head has 60 nodes"):
        sample(small_head(), VolumeGrid((0, 0, 0)), np.zeros(shape))
