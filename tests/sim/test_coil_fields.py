"""Wire, sampled fields and the table of a coil's field, against closed forms and direct sums."""

import pickle
from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import CoilError, PoseError
from motorsweep.sim import coil_table
from motorsweep.sim.coil import Coil, check_coil_outside, coil_inside_head, load_coil
from motorsweep.sim.coil_clearance import check_grids_hold_head
from motorsweep.sim.coil_grid import FieldGrid
from motorsweep.sim.coil_harmonics import curl_of_sums, irregular_sums, recurrence, term_count
from motorsweep.sim.coil_sources import segment_nodes
from motorsweep.sim.coil_table import FieldTable
from motorsweep.sim.pose import Pose
from motorsweep.sim.scalp import Scalp
from scipy.integrate import quad_vec
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation
from scipy.special import ellipe, ellipk

HERE = Pose(np.eye(4))


def pose_of(rotation_vector, centre_m):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    matrix[:3, 3] = centre_m
    return Pose(matrix)


def polygon(count, radius_m, centre_m=(0, 0, 0)):
    """A closed loop in the xy plane, counter-clockwise, as segments (count, 2, 3)."""
    turn = np.arange(count) * 2 * np.pi / count
    corners = np.asarray(centre_m) + radius_m * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)


def wired_eight(turns=3, count=40):
    """A figure of eight of wire, 8 mm above the casing's underside."""
    loops = []
    for radius in np.linspace(0.028, 0.044, turns):
        loops.append(polygon(count, radius, (0.045, 0, -0.008)))
        loops.append(polygon(count, radius, (-0.045, 0, -0.008))[:, ::-1])
    return Coil("wired", segments=np.concatenate(loops))


def under_the_coil(count, seed=0, nearest_m=2e-3):
    """Points in the half space that the coil looks at, most of them near it."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.05, (count, 3))
    points[:, 2] = nearest_m + np.abs(rng.exponential(0.05, count))
    return points


def sphere(radius_m=0.09, count=2000):
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    triangles = ConvexHull(unit).simplices.astype(np.int64)
    a, b, c = (unit[triangles[:, i]] for i in range(3))
    inwards = (np.cross(b - a, c - a) * (a + b + c)).sum(axis=1) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    return Scalp(radius_m * unit, triangles)


# ---- wire


def test_a_segment_is_the_line_integral():
    segment = np.array([[[0.01, -0.02, 0.0], [0.03, 0.04, 0.01]]])
    points = np.array([[0.05, 0.0, 0.02], [0.02, 0.0, 0.001], [-0.3, 0.5, 0.1], [0.03, 0.041, 0.01]])
    step = segment[0, 1] - segment[0, 0]
    expected, _ = quad_vec(
        lambda t: 1e-7 * step / np.linalg.norm(points - segment[0, 0] - t * step, axis=1)[:, None], 0, 1, epsrel=1e-12
    )
    field = Coil("piece", segments=segment).dadt(points, HERE, didt=1.0, tolerance=0)
    np.testing.assert_allclose(field, expected, rtol=1e-10)


def test_a_fine_polygon_is_the_circular_loop():
    """A of a loop of radius a: 4e-7 / k · sqrt(a / ρ) ((1 - k²/2) K - E), k² = 4 a ρ / ((a + ρ)² + z²)."""
    a, count = 0.04, 2000
    # the polygon of the same area is nearest to the circle
    radius = a * np.sqrt(2 * np.pi / count / np.sin(2 * np.pi / count))
    rng = np.random.default_rng(1)
    points = rng.uniform([-0.1, -0.1, 0.004], [0.1, 0.1, 0.1], (200, 3))
    rho, z = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    k2 = 4 * a * rho / ((a + rho) ** 2 + z**2)
    size = 4e-7 / np.sqrt(k2) * np.sqrt(a / rho) * ((1 - k2 / 2) * ellipk(k2) - ellipe(k2))
    expected = size[:, None] * np.stack([-points[:, 1] / rho, points[:, 0] / rho, 0 * rho], axis=1)
    field = Coil("loop", segments=polygon(count, radius)).dadt(points, HERE, didt=1.0, tolerance=0)
    np.testing.assert_allclose(field, expected, rtol=1e-5, atol=1e-6 * size.max())


def test_a_small_loop_is_a_dipole():
    radius, count = 5e-4, 64
    area = count / 2 * radius**2 * np.sin(2 * np.pi / count)
    dipole = Coil("dipole", np.zeros((1, 3)), np.array([[0, 0, area]]))
    points = np.array([[0.05, 0.0, 0.02], [0.0, -0.03, 0.04], [0.02, 0.03, -0.06]])
    loop = Coil("loop", segments=polygon(count, radius))
    expected = dipole.dadt(points, HERE)
    np.testing.assert_allclose(loop.dadt(points, HERE, tolerance=0), expected, atol=3e-4 * np.abs(expected).max())


def test_point_currents_stand_for_wire_outside_the_clearance():
    rng = np.random.default_rng(3)
    segments = np.concatenate([wired_eight().segments, [[[0, 0, -0.008], [0.3, 0.1, -0.05]]]])
    for clearance in (2e-3, 5e-3):
        nodes, weights = segment_nodes(segments, clearance)
        np.testing.assert_allclose(weights.sum(axis=0), (segments[:, 1] - segments[:, 0]).sum(axis=0), atol=1e-14)
        piece = segments[rng.integers(len(segments), size=200)]
        along = piece[:, 1] - piece[:, 0]
        away = np.cross(along, rng.normal(size=(200, 3)))
        points = piece[:, 0] + rng.uniform(size=(200, 1)) * along
        points += clearance * away / np.linalg.norm(away, axis=1, keepdims=True)
        points = points[points[:, 2] > -0.008 + 0.9 * clearance]
        quadrature = (weights[None] / np.linalg.norm(points[:, None] - nodes[None], axis=2)[..., None]).sum(axis=1)
        exact = Coil("wire", segments=segments).dadt(points, HERE, 1e7, tolerance=0)
        assert np.abs(quadrature - exact).max() < 1e-6 * np.abs(exact).max()


def test_a_point_on_the_wire_is_an_error():
    coil = Coil("loop", segments=[[[0, 0, 0], [0.01, 0, 0]]])
    for point in ([0.005, 0, 0], [0, 0, 0], [0.01, 0, 0]):
        with pytest.raises(PoseError, match=r"lie on a dipole or wire"):
            coil.dadt([point], HERE)
    assert np.isfinite(coil.dadt([[0.02, 0, 0]], HERE)).all()  # beyond its end on its line


@pytest.mark.parametrize(
    "segments", [np.zeros((1, 2, 3)), np.ones((4, 3)), [[[0, 0, 0], [np.nan, 0, 0]]], [[[0, 0, 0], [np.inf, 0, 0]]]]
)
def test_wire_that_is_none_is_refused(segments):
    with pytest.raises(CoilError, match=r"the start and the end of each piece|reaches inf m from the coil's centre"):
        Coil("c", segments=segments)


def test_wire_in_the_head_is_found_between_its_ends():
    scalp = sphere(0.09)
    through = Coil("through", segments=[[[-0.2, 0, -0.01], [0.2, 0, -0.01]]])
    over = pose_of([np.pi, 0, 0], [0, 0, 0.095])
    check_coil_outside(through, [over], scalp)
    sunk = pose_of([np.pi, 0, 0], [0, 0, 0.05])
    assert coil_inside_head(through, sunk, scalp) > 20
    with pytest.raises(
        PoseError, match=r"of 81 points of the wire and dipoles lie inside the head, the deepest (29|30)"
    ):
        check_coil_outside(through, [over, sunk], scalp)
    np.testing.assert_allclose(through.sources(HERE)[[0, 40, -1], 0], [-0.2, 0, 0.2], atol=1e-12)


def test_dipoles_and_wire_add():
    dipoles, wire = load_coil("dipole"), wired_eight(1)
    both = Coil("both", dipoles.positions, dipoles.moments, segments=wire.segments)
    points = under_the_coil(50)
    total = dipoles.dadt(points, HERE) + wire.dadt(points, HERE, tolerance=0)
    np.testing.assert_allclose(both.dadt(points, HERE, tolerance=0), total, rtol=1e-11, atol=1e-13)
    assert len({both.id, dipoles.id, wire.id, wired_eight(2).id}) == 4


# ---- harmonics and the table


@pytest.mark.parametrize("kind", ["dipoles", "currents"])
def test_expansion_converges_as_its_degree(kind):
    """The error falls by the ratio of radius and distance with every degree."""
    rng = np.random.default_rng(5)
    sources = rng.normal(size=(40, 3))
    sources *= 2 / np.linalg.norm(sources, axis=1, keepdims=True)
    vectors = rng.normal(size=(40, 3))
    points = rng.normal(size=(60, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    r = points[:, None] - sources
    distance = np.linalg.norm(r, axis=2, keepdims=True)
    exact = (np.cross(vectors, r) / distance**3 if kind == "dipoles" else vectors / distance).sum(axis=1)
    errors = []
    for order in (4, 8, 12):
        out, pairs = np.empty((term_count(order), 3, 2)), np.empty((term_count(order + 1), 3, 2))
        columns = [np.ascontiguousarray(a.T) for a in (sources, vectors)]
        if kind == "dipoles":
            irregular_sums(np.zeros(3), 1.0, *columns, order + 1, pairs)
            curl_of_sums(pairs, order, out)
        else:
            irregular_sums(np.zeros(3), 1.0, *columns, order, out)
        errors.append(np.abs(harmonics(points, order, out) - exact).max() / np.abs(exact).max())
    assert errors[0] < 5e-3
    for low, high in pairwise(errors):
        assert high < 3 * 0.25**4 * low, errors


def harmonics(points, order, sums):
    """The polynomials by their recurrence, in plain NumPy."""
    beta, gamma, _ = recurrence(order)
    x, y, z = points.T
    square, values, k = (points**2).sum(axis=1), 0.0, 0
    for m in range(order + 1):
        phase = (x + 1j * y) ** m
        u = [np.zeros_like(x), np.ones_like(x)]
        for n in range(m, order + 1):
            if n > m:
                u.append(z * u[-1] - beta[k] * square * u[-2])
            coefficient = gamma[k] * sums[k]
            values = values + (u[-1] * phase.real)[:, None] * coefficient[:, 0]
            values = values + (u[-1] * phase.imag)[:, None] * coefficient[:, 1]
            k += 1
    return values


def random_dipoles():
    rng = np.random.default_rng(6)
    return Coil(
        "random", rng.uniform([-0.09, -0.05, -0.03], [0.09, 0.05, -0.003], (300, 3)), rng.normal(0, 1e-4, (300, 3))
    )


TABULATED = {"magstim": lambda: load_coil("magstim-70mm"), "wire": wired_eight, "random": random_dipoles}


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8])
@pytest.mark.parametrize("name", TABULATED)
def test_table_keeps_its_tolerance(name, tolerance):
    coil, points = TABULATED[name](), under_the_coil(1500, nearest_m=0.0)
    points[:20] *= 8  # some beyond the table
    pose = pose_of([0.4, -1.0, 2.0], [0.02, 0.05, 0.1])
    points = points @ pose.matrix[:3, :3].T + pose.centre_m
    exact, fast = (coil.dadt(points, pose, tolerance=t) for t in (0, tolerance))
    error, size = np.linalg.norm(fast - exact, axis=1), np.linalg.norm(exact, axis=1)
    assert (error <= tolerance * size.max()).all()
    # the scale of the bound is the field around the point, which may vanish in it, but not in most
    assert np.quantile(error / size, 0.99) < tolerance
    assert np.linalg.norm(error) < 0.2 * tolerance * np.linalg.norm(size)
    assert coil.table(tolerance).nbytes < 80e6


def test_default_tolerance_is_far_below_discretisation():
    coil, points = load_coil("magstim-70mm"), under_the_coil(4000, nearest_m=4e-3)
    exact, fast = coil.dadt(points, HERE, tolerance=0), coil.dadt(points, HERE)
    assert np.linalg.norm(fast - exact) < 1e-7 * np.linalg.norm(exact)
    assert np.abs(fast - exact).max() < 1e-6 * np.abs(exact).max()


def test_bits_depend_neither_on_other_points_nor_threads_nor_history(monkeypatch):
    points, pose = under_the_coil(700, nearest_m=-2e-3), pose_of([0.1, 0.2, -2.0], [0.0, 0.03, 0.1])
    points = points @ pose.matrix[:3, :3].T + pose.centre_m
    for make in (load_coil, lambda _: wired_eight(1)):
        whole = make("magstim-70mm").dadt(points, pose)
        coil = make("magstim-70mm")
        np.testing.assert_array_equal(
            np.concatenate([coil.dadt(points[k : k + 7], pose) for k in range(0, 210, 7)]), whole[:210]
        )
        np.testing.assert_array_equal(coil.dadt(points[::-1], pose)[::-1], whole)
        threads = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            np.testing.assert_array_equal(make("magstim-70mm").dadt(points, pose), whole)
        finally:
            numba.set_num_threads(threads)
        with monkeypatch.context() as tight:  # a table with hardly any room is emptied on the way
            tight.setattr(coil_table, "_BYTES", 300_000)
            small = make("magstim-70mm")
            np.testing.assert_array_equal(small.dadt(points, pose), whole)
            assert small.table().nbytes < 400_000


def test_cubes_are_made_where_points_ask_and_used_again():
    coil, points = load_coil("magstim-70mm"), under_the_coil(1000, nearest_m=4e-3)
    assert coil.table().cells == 0
    coil.dadt(points, HERE)
    cells = coil.table().cells
    assert 0 < cells <= 1000
    turned = pose_of([0.3, 0.2, 0.1], [0.01, 0.02, 0.03])
    coil.dadt(points @ turned.matrix[:3, :3].T + turned.centre_m, turned)
    assert coil.table().cells <= cells + 5  # rounding may put a point over an edge
    assert coil.table() is coil.table(1e-5)
    assert pickle.loads(pickle.dumps(coil)).table().cells == 0


@settings(max_examples=15, deadline=None)
@given(turn=st.tuples(*[st.floats(-3, 3)] * 3), shift=st.tuples(*[st.floats(-0.1, 0.1)] * 3))
def test_moving_coil_and_head_together_turns_the_tabulated_field(turn, shift):
    coil, pose = SHARED_COIL, pose_of(turn, shift)
    points = under_the_coil(200, nearest_m=4e-3)
    moved = coil.dadt(points @ pose.matrix[:3, :3].T + pose.centre_m, pose)
    still = coil.dadt(points, HERE)
    # a point that rounding moves over a cube's face is read off the neighbour
    np.testing.assert_allclose(moved @ pose.matrix[:3, :3], still, atol=1e-6 * np.abs(still).max())


SHARED_COIL = load_coil("magstim-70mm")


@pytest.mark.parametrize("tolerance", [-1e-4, 1e-9, 0.5, np.nan, np.inf])
def test_a_tolerance_that_means_nothing_is_refused(tolerance):
    with pytest.raises(CoilError, match=r"the tolerance is .* 1e-8 to 1e-2 .* or 0 for the exact sum"):
        SHARED_COIL.dadt([[0, 0, 0.01]], HERE, tolerance=tolerance)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_are_refused_by_the_table_too(bad):
    with pytest.raises(PoseError, match=r"1 of 2 points, the first number 1 .*are not finite"):
        SHARED_COIL.dadt([[0, 0, 0.01], [0, bad, 0.01]], HERE)


def test_a_source_in_the_middle_of_a_cube_does_no_harm():
    """Middles of cubes of 80, 40, 20, ... mm lie at round numbers, and so do the dipoles of measured coils."""
    middles = [np.full(3, 0.64 - 0.08 * 0.5**level) % 0.04 for level in range(7)]
    positions = np.concatenate([np.array(middles) - [0, 0, 0.05], np.random.default_rng(0).normal(0, 0.02, (90, 3))])
    coil = Coil("round", positions - [0, 0, 0.05], np.ones((97, 3)))
    points = np.concatenate([coil.positions + 1e-3, under_the_coil(200)])
    exact = coil.dadt(points, HERE, tolerance=0)
    np.testing.assert_allclose(coil.dadt(points, HERE), exact, atol=1e-5 * np.abs(exact).max())


def test_table_of_no_points_is_empty():
    assert SHARED_COIL.dadt(np.zeros((0, 3)), HERE).shape == (0, 3)
    table = FieldTable(*[(np.ones((1, 3)), np.ones((1, 3)))] * 2, 1e-4)
    values, rest = table.field(np.zeros((0, 3)), np.eye(3), np.zeros(3))
    assert (values.shape, rest.shape) == ((0, 3), (0,))


# ---- sampled fields


def sampled(coil, spacing_m, low=(-0.08, -0.06, 0.0), high=(0.08, 0.06, 0.1), dtype=np.float64, turn=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(turn).as_matrix() * spacing_m
    affine[:3, 3] = low
    shape = np.round((np.asarray(high) - low) / spacing_m).astype(int) + 1
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = index.reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    values = coil.dadt(points, HERE, 1.0, tolerance=0).reshape(*shape, 3)
    return Coil("sampled", grids=[FieldGrid(values.astype(dtype), affine)])


def test_sampled_field_is_fourth_order():
    coil, pose = wired_eight(2), pose_of([0.5, 0.5, 0.5], [0.02, 0.03, 0.04])
    local = np.random.default_rng(8).uniform([-0.07, -0.05, 0.012], [0.07, 0.05, 0.09], (400, 3))
    points = local @ pose.matrix[:3, :3].T + pose.centre_m
    exact = coil.dadt(points, pose, tolerance=0)
    error = []
    for spacing in (8e-3, 4e-3, 2e-3):
        field = sampled(coil, spacing).dadt(points, pose)
        error.append(np.linalg.norm(field - exact) / np.linalg.norm(exact))
    orders = np.log2(np.divide(error[:-1], error[1:]))
    assert error[-1] < 1e-4 and (orders > 3.4).all(), (error, orders)


def test_sampled_field_is_exact_for_cubics_to_its_faces():
    """Per ampere, V·s/m; whatever the grid's axes and the type of its numbers."""
    rng = np.random.default_rng(9)
    powers = np.array([(i, j, k) for i in range(4) for j in range(4) for k in range(4)])
    coefficients = rng.normal(size=(64, 3)) * 1e-6

    def cubic(points):
        return (100 * points[:, None]).__pow__(powers).prod(axis=2) @ coefficients

    class Cubic:
        def dadt(self, points, pose, didt, tolerance):
            return cubic(points)

    low, high = (-0.01, -0.01, 0.0), (0.01, 0.012, 0.01)
    points = rng.uniform(low, high, (300, 3))
    points[:8] = [(x, y, z) for x in (-0.01, 0.01) for y in (-0.01, 0.012) for z in (0.0, 0.01)]
    for dtype, rtol in ((np.float64, 1e-10), (np.float32, 1e-6)):
        coil = sampled(Cubic(), 2e-3, low, high, dtype)
        expected = 1e6 * cubic(points)
        np.testing.assert_allclose(coil.dadt(points, HERE), expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def test_a_point_outside_the_grid_is_an_error_that_says_where():
    coil, pose = sampled(wired_eight(1), 1e-2), pose_of([0, 0, 0], [0.1, 0, 0])
    with pytest.raises(
        PoseError,
        match=r"1 of 2 points, the first number 1 at \[ *100\. +0\. +120\. *\] mm.*"
        r"it is at \[ *0\. +0\. +120\. *\] mm.*"
        r"spans \[-80\. +-60\. +0\. *\] to \[ *80\. +60\. +100\. *\] mm.*zero would be wrong.*Use a coil of dipoles",
    ):
        coil.dadt([[0.1, 0, 0.05], [0.1, 0, 0.12]], pose)
    with pytest.raises(PoseError, match="outside the coil's sampled field"):
        coil.dadt([[np.nan, 0, 0.05]], pose)


def test_a_sampled_coil_is_kept_out_by_its_underside():
    scalp, coil = sphere(0.09), sampled(wired_eight(1), 1e-2)
    np.testing.assert_array_equal(coil.sources(pose_of([0, 0, 0], [0.1, 0, 0])), [[0.1, 0, 0]])
    check_coil_outside(coil, [pose_of([np.pi, 0, 0], [0, 0, 0.0902])], scalp)
    with pytest.raises(PoseError, match=r"no winding, but the middle of the casing's underside lies inside the head"):
        check_coil_outside(coil, [pose_of([np.pi, 0, 0], [0, 0, 0.08])], scalp)


def test_a_grid_must_hold_the_whole_head_at_every_pose():
    head = sphere(0.03)
    coil = sampled(wired_eight(1), 1e-2)  # x ±80, y ±60, z 0 to 100 mm of the coil's frame
    over, aside = pose_of([np.pi, 0, 0], [0, 0, 0.035]), pose_of([np.pi, 0, 0], [0.06, 0, 0.035])
    check_grids_hold_head(coil, [over], head)
    coil.dadt(head.nodes, over)
    with pytest.raises(PoseError, match=r"^pose 1 .* and 1 more of 3 poses .*: the head reaches 10 mm out"):
        check_grids_hold_head(coil, [over, aside, aside], head)
    with pytest.raises(PoseError, match="lie outside the coil's sampled field"):
        coil.dadt(head.nodes, aside)
    check_grids_hold_head(load_coil("dipole"), [aside], head)


def grid_with(value=1e-6, shape=(4, 4, 4, 3), spacing=1e-3, **cells):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    for place, number in cells.items():
        affine[int(place[1]), int(place[2])] = number
    return np.full(shape, value), affine


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (*grid_with(shape=(4, 4, 3, 3)), r"must be \(nx, ny, nz, 3\) with four and more"),
        (*grid_with(shape=(4, 4, 4)), r"must be \(nx, ny, nz, 3\)"),
        (*grid_with(a03=np.nan), r"must be 4x4, finite"),
        (*grid_with(a30=1.0), r"last row 0 0 0 1"),
        (*grid_with(spacing=1.0), r"samples are \[1000\. 1000\. 1000\.\] mm apart.*it is in millimetres"),
        (*grid_with(a22=0.0, a12=1e-3), r"lie in one plane"),
        (*grid_with(value=0.0), r"largest component is 0, but must be above 0"),
        (*grid_with(value=np.nan), r"largest component is nan"),
        (*grid_with(value=30.0), r"Values in V/m belong to a current that changes: divide them by its rate"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(values, affine, message):
    with pytest.raises(CoilError, match=message):
        FieldGrid(values, affine)


def test_id_covers_grids():
    first, second = sampled(wired_eight(1), 1e-2), sampled(wired_eight(1), 1e-2, dtype=np.float32)
    assert first.id == Coil("other name", grids=first.grids, didt_max=1e8).id
    assert first.id != second.id
