import numpy as np
import pytest
from motorsweep.errors import ConfigError
from motorsweep.sim.head import Head
from motorsweep.sim.mesh_quality import tet_volumes
from motorsweep.sim.sampling import build_sampler
from motorsweep.sim.space import EDGES, build_space
from motorsweep.sim.volume import VolumeGrid
from scipy.spatial import Delaunay


@pytest.fixture(scope="module")
def cube():
    ticks = np.linspace(-1, 1, 7)
    nodes = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)
    nodes += np.random.default_rng(0).uniform(-0.05, 0.05, nodes.shape) * (np.abs(nodes) < 0.99)
    tets = Delaunay(nodes).simplices
    tets = tets[np.abs(tet_volumes(nodes, tets)) > 1e-7]
    inverted = tet_volumes(nodes, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return Head(nodes, tets, np.full(len(tets), 2, np.int16), np.ones(len(tets)))


@pytest.fixture(scope="module")
def corner():
    """A cube within the cube: 0.2 to 1 along each axis."""
    return VolumeGrid((0.6, 0.6, 0.6), 0.1, 8)


def test_an_edge_has_a_bubble_where_all_elements_around_it_are_of_second_order(cube, corner):
    space = build_space(cube, 2, corner)
    centres = cube.nodes[cube.tets].mean(1)
    second = np.flatnonzero((np.abs(centres - 0.6) <= 0.4).all(1))
    np.testing.assert_array_equal(space.second, second)
    around = {}
    for e, tet in enumerate(cube.tets):
        for ends in tet[EDGES]:
            around.setdefault(tuple(sorted(ends.tolist())), []).append(e)
    chosen = set(second.tolist())
    expected = sorted(ends for ends, elements in around.items() if set(elements) <= chosen)
    assert sorted(map(tuple, space.edges.tolist())) == expected
    assert 0 < len(expected) < len({ends for ends, elements in around.items() if set(elements) & chosen})
    for e, unknowns in zip(space.second, space.edge_unknowns):
        for ends, unknown in zip(cube.tets[e][EDGES], unknowns):
            ends = tuple(sorted(ends.tolist()))
            assert (unknown < 0) == (ends not in expected)
            assert unknown < 0 or tuple(space.edges[unknown - len(cube.nodes)]) == ends


def test_margin_widens_the_region_and_no_region_is_all(cube, corner):
    narrow, wide, every = build_space(cube, 2, corner), build_space(cube, 2, corner, 0.3), build_space(cube, 2)
    assert set(narrow.second) < set(wide.second) < set(every.second)
    assert len(every.second) == len(cube.tets) and (every.edge_unknowns >= 0).all()
    linear = build_space(cube, 1, corner)
    assert linear.size == len(cube.nodes) and not len(linear.second)
    with pytest.raises(ConfigError, match="order 3 are not built; choose 1 or 2"):
        build_space(cube, 3)


def test_functions_are_continuous_across_the_border_of_the_region(cube, corner):
    """Random coefficients, seen from both sides of the faces between elements of first and second order."""
    space = build_space(cube, 2, corner)
    values = np.random.default_rng(1).normal(size=space.size)
    faces = cube.tets[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]].reshape(-1, 3)
    owner = np.repeat(np.arange(len(cube.tets)), 4)
    ordered = np.sort(faces, axis=1)
    key, count = np.unique(ordered, axis=0, return_counts=True)
    is_second = np.isin(np.arange(len(cube.tets)), space.second)
    shares = np.random.default_rng(2).dirichlet(np.ones(3), len(key))
    table, checked = space.unknowns(cube.tets), 0
    for face, times, share in zip(key, count, shares):
        if times != 2:
            continue
        owners = owner[(ordered == face).all(1)]
        if is_second[owners].sum() != 1:
            continue
        seen = []
        for e in owners:
            weights = np.array([share[list(face).index(c)] if c in face else 0.0 for c in cube.tets[e]])
            basis = np.append(weights, 4 * weights[EDGES[:, 0]] * weights[EDGES[:, 1]])
            held = table[e] >= 0
            seen.append(basis[held] @ values[table[e][held]])
        assert seen[0] == pytest.approx(seen[1], abs=1e-12)
        checked += 1
    assert checked > 20


def test_a_quadratic_is_held_exactly_and_its_gradient_too(cube):
    space = build_space(cube, 2)
    x = np.random.default_rng(3).uniform(-0.95, 0.95, (300, 3))
    sampler = build_sampler(cube, space, x)

    def quadratic(x):
        return 1 + x[:, 0] - 2 * x[:, 1] ** 2 + 3 * x[:, 0] * x[:, 2]

    held = space.coefficients(quadratic(space.points())[:, None])
    np.testing.assert_allclose(sampler.interpolation @ held[:, 0], quadratic(x), atol=1e-12)
    slopes = (sampler.slopes @ held[:, 0]).reshape(-1, 3)
    exact = np.stack([1 + 3 * x[:, 2], -4 * x[:, 1], 3 * x[:, 0]], axis=1)
    np.testing.assert_allclose(slopes, exact, atol=1e-11)


def test_a_linear_function_is_held_exactly_whatever_the_region(cube, corner):
    space = build_space(cube, 2, corner)
    x = np.random.default_rng(4).uniform(-0.95, 0.95, (300, 3))
    sampler = build_sampler(cube, space, x)
    slope = np.array([1.0, -2.0, 3.0])
    held = space.coefficients((space.points() @ slope)[:, None])
    assert np.abs(held[len(cube.nodes) :]).max() < 1e-14
    e = sampler.field(held.T, np.zeros((space.size, 3, 1)))
    np.testing.assert_allclose(-e[0], np.broadcast_to(slope, x.shape), atol=1e-10)
