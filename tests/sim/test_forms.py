import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.sim.forms import assemble, right_hand_sides
from motorsweep.sim.head import Head
from motorsweep.sim.space import EDGES, build_space
from motorsweep.sim.volume import VolumeGrid


@pytest.fixture(scope="module")
def box():
    """Unit cube of 6 · 3³ tetrahedra, conductivity 1 below z = 1/3 and 5 above."""
    ticks = np.linspace(0, 1, 4)
    nodes = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)
    corner = lambda i, j, k: (i * 4 + j) * 4 + k  # noqa: E731
    tets = []
    for i, j, k in np.ndindex(3, 3, 3):
        for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
            steps = np.cumsum(np.insert(np.eye(3, dtype=int)[list(order)], 0, (i, j, k), axis=0), axis=0)
            tets.append([corner(*step) for step in steps])
    tets = np.array(tets)
    a, b, c, d = (nodes[tets[:, n]] for n in range(4))
    inverted = np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    low = nodes[tets].mean(1)[:, 2] < 1 / 3
    return Head(nodes, tets, np.where(low, 1, 2).astype(np.int16), np.where(low, 1.0, 5.0))


def gauss_cube(function):
    """∫ over the unit cube of sigma times a function that is smooth below and above z = 1/3: 4-point Gauss."""
    x, w = np.polynomial.legendre.leggauss(4)
    x, w = (x + 1) / 2, w / 2
    total = 0.0
    for low, high, sigma in ((0, 1 / 3, 1.0), (1 / 3, 1, 5.0)):
        z = low + (high - low) * x
        grid = np.stack(np.meshgrid(x, x, z, indexing="ij"), -1).reshape(-1, 3)
        weight = (w[:, None, None] * w[:, None] * w).ravel() * (high - low)
        total += sigma * (weight * function(grid)).sum()
    return total


PAIRS = ((0, 1), (1, 2), (0, 2))


def quadratic(c):
    """A polynomial of degree 2 with ten coefficients, and its gradient."""

    def value(x):
        return c[0] + x @ c[1:4] + (x**2) @ c[4:7] + sum(c[7 + n] * x[:, i] * x[:, j] for n, (i, j) in enumerate(PAIRS))

    def gradient(x):
        slope = c[1:4] + 2 * x * c[4:7]
        for n, (i, j) in enumerate(PAIRS):
            slope[:, i] += c[7 + n] * x[:, j]
            slope[:, j] += c[7 + n] * x[:, i]
        return slope

    return value, gradient


def held(space, value):
    return space.coefficients(value(space.points()).reshape(space.size, -1))


numbers = st.lists(st.floats(-3, 3), min_size=10, max_size=10).map(np.array)


@settings(max_examples=20, deadline=None)
@given(u=numbers, v=numbers)
def test_energy_of_two_quadratics_is_the_integral(box, u, v):
    space = build_space(box, 2)
    stiffness, _ = assemble(box, space)
    (u, du), (v, dv) = quadratic(u), quadratic(v)
    expected = gauss_cube(lambda x: (du(x) * dv(x)).sum(1))
    assert held(space, u)[:, 0] @ (stiffness @ held(space, v)[:, 0]) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(parts=st.tuples(numbers, numbers, numbers), v=numbers)
def test_load_of_a_quadratic_vector_potential_is_the_integral(box, parts, v):
    space = build_space(box, 2)
    _, load = assemble(box, space)
    values = [quadratic(c)[0] for c in parts]
    v, dv = quadratic(v)
    expected = -gauss_cube(lambda x: sum(value(x) * dv(x)[:, k] for k, value in enumerate(values)))
    found = held(space, v)[:, 0] @ sum(load[k] @ held(space, values[k])[:, 0] for k in range(3))
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_matrix_is_symmetric_its_kernel_the_constants_and_the_linear_block_is_that_of_linear_elements(box):
    space = build_space(box, 2, VolumeGrid((0.5, 0.5, 0.8), 0.1, 4), 0.05)
    assert 0 < len(space.edges) < len(build_space(box, 2).edges)
    stiffness, _ = assemble(box, space)
    dense = stiffness.toarray()
    np.testing.assert_allclose(dense, dense.T, atol=1e-15)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert abs(eigenvalues[0]) < 1e-12 and eigenvalues[1] > 1e-3
    n = len(box.nodes)
    constant = np.r_[np.ones(n), np.zeros(len(space.edges))]
    assert np.abs(dense @ constant).max() < 1e-13
    linear, load = assemble(box, build_space(box, 1))
    np.testing.assert_allclose(dense[:n, :n], linear.toarray(), atol=1e-15)
    slope = np.einsum("k,kn->n", [1.0, 2.0, -1.0], [load[k] @ np.ones(n) for k in range(3)])
    np.testing.assert_allclose(linear @ (box.nodes @ [-1.0, -2.0, 1.0]), slope, atol=1e-13)


def test_a_gradient_as_vector_potential_is_cancelled_by_the_potential(box):
    """A = -grad(psi) with psi quadratic: phi = psi up to a constant, whatever the conductivities, and E = 0."""
    space = build_space(box, 2)
    stiffness, load = assemble(box, space)
    psi, slope = quadratic(np.arange(1.0, 11.0))
    dadt = space.coefficients(-slope(space.points()))
    found = np.zeros(space.size)
    right = sum(load[k] @ dadt[:, k] for k in range(3))
    found[1:] = np.linalg.solve(stiffness.toarray()[1:, 1:], right[1:])
    expected = held(space, psi)[:, 0]
    expected[: len(box.nodes)] -= expected[0]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_right_hand_sides_of_many_poses_are_the_sums_of_three_products(box):
    space = build_space(box, 2)
    _, load = assemble(box, space)
    dadt = np.random.default_rng(0).normal(size=(space.size, 3, 5))
    expected = sum(load[k] @ dadt[:, k] for k in range(3))
    np.testing.assert_allclose(right_hand_sides(load, dadt), expected, atol=1e-14)


def test_bits_do_not_depend_on_the_number_of_threads(box):
    space = build_space(box, 2)
    threads = numba.get_num_threads()
    if threads < 2:
        pytest.skip("one core: nothing to compare")
    try:
        numba.set_num_threads(1)
        alone = assemble(box, space)
    finally:
        numba.set_num_threads(threads)
    together = assemble(box, space)
    for a, b in zip((alone[0], *alone[1]), (together[0], *together[1])):
        np.testing.assert_array_equal(a.data, b.data)
        np.testing.assert_array_equal(a.indices, b.indices)
    assert (EDGES[:, 0] < EDGES[:, 1]).all()
