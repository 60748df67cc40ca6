import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import PoseError
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import load_head
from motorsweep.sim.pose import Pose, grid_poses, random_poses, tangential_pose
from motorsweep.sim.pose_region import PoseRegion, measure, region_of
from motorsweep.sim.scalp import Scalp
from scipy.spatial.transform import Rotation

RADIUS = 0.085
KNOB = (-0.037, -0.021, 0.058)
REGION = PoseRegion(KNOB, 0.03, (-180, 180), (0.004, 0.010), 10, True)


@pytest.fixture(scope="module")
def scalp(round_head):
    return Scalp(round_head.nodes, round_head.scalp())


def measured(poses, scalp, centre=KNOB):
    places = [measure(pose, scalp, centre) for pose in poses]
    return SimpleNamespace(**{key: np.array([getattr(p, key) for p in places]) for key in vars(places[0])})


@settings(max_examples=40, deadline=None)
@given(
    polar=st.floats(0, 1.2),
    around=st.floats(-3.1, 3.1),
    angle=st.floats(-179.9, 179.9),
    distance=st.floats(0, 0.03),
)
def test_measure_is_the_inverse_of_tangential_pose(scalp, polar, around, angle, distance):
    point = RADIUS * np.array([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)])
    point = scalp.closest(point)[0][0]
    left = bool(point[0] <= 0)
    pose = tangential_pose(scalp, point, angle, distance, left)
    place = measure(pose, scalp, KNOB)
    assert np.mod(measure(pose, scalp, KNOB, left).angle_deg - angle + 180, 360) == pytest.approx(180, abs=1e-6)
    assert place.distance_m == pytest.approx(distance, abs=1e-9)
    assert place.tilt_deg == pytest.approx(0, abs=1e-6)
    assert place.offset_m == pytest.approx(np.linalg.norm(point - scalp.closest(KNOB)[0][0]), abs=1e-9)


def test_measure_meets_nodes_and_edges_of_the_surface(scalp):
    corner = scalp.nodes[scalp.triangles[:40]]
    for point in [*corner[:, 0], *corner[:, :2].mean(axis=1)]:
        if abs(point[1]) < 0.9 * RADIUS:
            place = measure(tangential_pose(scalp, point, 30.0, 0.005, True), scalp, KNOB, True)
            assert (place.angle_deg, place.distance_m) == (pytest.approx(30, abs=1e-6), pytest.approx(0.005, abs=1e-9))
            assert place.tilt_deg < 1e-6


def test_tilt_is_taken_back_before_the_angle_is_measured(scalp):
    pose = tangential_pose(scalp, KNOB, 45.0, 0.02, True)
    foot = scalp.closest(KNOB)[0][0]
    for way in np.linspace(0, 2 * np.pi, 7):
        axis = np.cos(way) * pose.matrix[:3, 0] + np.sin(way) * pose.matrix[:3, 1]
        matrix = pose.matrix.copy()
        matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(8) * axis).as_matrix() @ matrix[:3, :3]
        matrix[:3, 3] = foot - 0.02 * matrix[:3, 2]
        place = measure(Pose(matrix), scalp, KNOB)
        assert (place.tilt_deg, place.angle_deg) == (pytest.approx(8, abs=1e-6), pytest.approx(45, abs=1e-6))
        assert place.offset_m == pytest.approx(0, abs=1e-9)
        assert place.distance_m < 0.02  # one side of the casing comes down over the round head


def test_a_pose_beside_the_head_is_measured_from_the_closest_point(scalp):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.diag([1, -1, -1]), (0.0, 0.12, 0.0)  # its axis runs past the head
    place = measure(Pose(matrix), scalp, KNOB)
    assert place.tilt_deg == pytest.approx(90, abs=1)
    assert np.isfinite([place.offset_m, place.distance_m]).all()
    assert not REGION.contains([Pose(matrix)], scalp).any()


def test_draws_fill_the_region_evenly(scalp):
    poses = REGION.draw(scalp, 400, seed=3)
    place = measured(poses, scalp)
    assert REGION.contains(poses, scalp).all()
    # uniform in a disc: the squares of the distances from its middle are uniform; so are angles, distances
    for values, low, high in (
        (place.offset_m**2, 0, 0.03**2),
        (place.angle_deg, -180, 180),
        (place.distance_m, 0.004, 0.010),
        (place.tilt_deg**2, 0, 100),
    ):
        assert low - 1e-9 <= values.min()
        assert values.max() <= high * 1.001
        uniform = np.sort((values - low) / (high - low))
        assert np.abs(uniform - (np.arange(400) + 0.5) / 400).max() < 0.082  # Kolmogorov-Smirnov, p = 0.01


def test_the_first_draws_of_a_longer_list_are_the_same(scalp):
    assert REGION.draw(scalp, 9, seed=4) == REGION.draw(scalp, 31, seed=4)[:9]
    assert REGION.draw(scalp, 3, seed=4) != REGION.draw(scalp, 3, seed=5)


def test_the_slack_is_what_a_region_admits_beyond_itself(scalp):
    flat = PoseRegion(KNOB, 0.02, (45, 45), (0.004, 0.004), 0, True)
    wide = flat.with_slack()
    assert (wide.radius_m, wide.angle_deg, wide.tilt_deg) == (pytest.approx(0.0201), (44.9, 45.1), 0.1)
    assert (wide.centre_m, wide.distance_m) == (flat.centre_m, pytest.approx((0.0039, 0.0041)))
    poses = flat.draw(scalp, 60, seed=3, slack=True)
    assert poses == wide.draw(scalp, 60, seed=3) != flat.draw(scalp, 60, seed=3)
    place = measured(poses, scalp)
    for values, low, high in (
        (place.distance_m, 0.0039, 0.0041),
        (place.angle_deg, 44.9, 45.1),
        (place.tilt_deg, 0, 0.1),
    ):
        spread = high - low
        assert low - 1e-3 * spread <= values.min() < low + 0.2 * spread < high - 0.2 * spread < values.max()
        assert values.max() <= high + 1e-3 * spread


def test_the_slack_of_what_is_as_wide_as_can_be_is_none():
    widest = PoseRegion(KNOB, 0.08, (-180, 180), (0.0, 0.1), 45, True)
    assert widest.with_slack() == replace(widest, radius_m=0.0801)
    assert widest.with_slack().with_slack() == widest.with_slack()
    for first, spread in ((-0.3, 359.9), (10.1, 359.8), (-179.95, 360.0)):
        low, high = replace(widest, angle_deg=(first, first + spread)).with_slack().angle_deg
        assert high - low == pytest.approx(360)


def test_draws_without_tilt_are_tangential_poses(scalp):
    flat = replace(REGION, tilt_deg=0.0)
    for pose in flat.draw(scalp, 20, seed=6):
        place = measure(pose, scalp, KNOB)
        foot = pose.centre_m + place.distance_m * pose.matrix[:3, 2]  # but for the facets of the round head
        again = tangential_pose(scalp, foot, place.angle_deg, place.distance_m, True)
        assert place.tilt_deg < 1e-6
        np.testing.assert_allclose(again.matrix, pose.matrix, atol=2e-3)


@settings(max_examples=15, deadline=None)
@given(
    radius=st.floats(0.002, 0.08),
    first=st.floats(-180, 180),
    spread=st.floats(0, 360),
    low=st.floats(0, 0.02),
    thick=st.floats(0, 0.02),
    tilt=st.floats(0, 30),
    seed=st.integers(0, 99),
)
def test_a_region_holds_its_draws_and_the_region_of_its_draws_too(scalp, radius, first, spread, low, thick, tilt, seed):
    centre = (-0.01, -0.005, 0.08)
    region = PoseRegion(centre, radius, (first, first + spread), (low, low + thick), tilt, True)
    poses = region.draw(scalp, 12, seed)
    assert region.contains(poses, scalp).all()
    found = region_of(poses, scalp, centre)
    assert found.contains(poses, scalp).all()
    assert found.radius_m <= np.ceil(radius / 0.005) * 0.005 + 1e-9
    assert found.distance_m[0] >= np.floor(low * 1e3 + 1e-9) * 1e-3 - 1e-9
    assert found == region_of(poses[::-1], scalp, centre)


def test_what_leaves_the_region_by_one_figure_is_outside(scalp):
    region = PoseRegion(KNOB, 0.01, (15, 75), (0.004, 0.006), 0, True)
    point = scalp.closest(KNOB)[0][0]
    good = tangential_pose(scalp, point, 45, 0.005, True)
    tilted = good.matrix.copy()
    tilted[:3, :3] = Rotation.from_rotvec(np.deg2rad(1) * tilted[:3, 0]).as_matrix() @ tilted[:3, :3]
    others = [
        tangential_pose(scalp, point, 76, 0.005, True),
        tangential_pose(scalp, point, 14, 0.005, True),
        tangential_pose(scalp, point, -135, 0.005, True),
        tangential_pose(scalp, point, 45, 0.0065, True),
        tangential_pose(scalp, point, 45, 0.0035, True),
        tangential_pose(scalp, point + np.array([0.012, 0.0, 0.0]), 45, 0.005, True),
        Pose(tilted),
    ]
    assert region.contains([good, *others], scalp).tolist() == [True] + 7 * [False]
    at_the_edge = [tangential_pose(scalp, point, angle, d, True) for angle, d in ((15, 0.004), (75, 0.006))]
    assert region.contains(at_the_edge, scalp).all()
    assert region.contains([], scalp).shape == (0,)
    over_the_cut = replace(region, angle_deg=(150, 210))
    poses = [tangential_pose(scalp, point, angle, 0.005, True) for angle in (151, -179, 180, -151, -149)]
    assert over_the_cut.contains(poses, scalp).tolist() == [True, True, True, True, False]


def test_studies_with_similar_poses_share_a_region(scalp):
    grid = grid_poses(scalp, KNOB)
    region = region_of(grid, scalp, KNOB)
    assert region == PoseRegion(KNOB, 0.02, (45, 45), (0.004, 0.004), 0, True)
    wide = [region_of(grid + random_poses(scalp, KNOB, 60, seed=seed), scalp, KNOB) for seed in (1, 2)]
    assert wide[0] == wide[1] == replace(region, angle_deg=(15, 75))
    nudged = region_of(grid, scalp, np.array(KNOB) + 3e-4)
    assert nudged == region
    turned = [tangential_pose(scalp, KNOB, angle, 0.0042, True) for angle in range(0, 301, 20)]
    assert region_of(turned, scalp, KNOB).angle_deg == (0, 300)
    assert region_of([*turned, tangential_pose(scalp, KNOB, 310, 0.0042, True)], scalp, KNOB).angle_deg == (-180, 180)
    right = grid_poses(scalp, (0.037, -0.021, 0.058))
    assert region_of(right, scalp, (0.037, -0.021, 0.058)).left is False
    assert region_of(right, scalp, (0.037, -0.021, 0.058)).angle_deg == (45, 45)


def tilted_by(pose, degrees):
    matrix = pose.matrix.copy()
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * matrix[:3, 0]).as_matrix() @ matrix[:3, :3]
    return Pose(matrix)


def outliers(scalp):
    """Poses that no region can hold, by what is wrong with them."""
    middle = grid_poses(scalp, KNOB, n=1)[0]
    return {
        "casing": middle.raised(-0.006),
        "distance_mm": middle.raised(0.11),
        "tilt_deg": tilted_by(middle.raised(0.06), 60),
        "radius_mm": tangential_pose(scalp, (RADIUS, 0, 0), 0, 0.004, True),
    }


def test_poses_that_no_region_can_hold_are_left_out_of_it(scalp):
    grid = grid_poses(scalp, KNOB, n=3)
    strange = list(outliers(scalp).values())
    region = region_of(grid, scalp, KNOB)
    assert region_of([strange[0], *grid, *strange[1:]], scalp, KNOB) == region
    assert region_of(grid[:4] + strange, scalp, KNOB).tilt_deg == 0, "half of them is enough"
    assert region.contains(grid + strange, scalp).tolist() == 9 * [True] + 4 * [False]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("casing", r"the casing of 3 of 5 poses cuts the scalp, by up to 2\.0 mm.*solver kind direct"),
        ("distance_mm", r"distance_mm is up to 115, and beyond 100, the most that it may be, for 3 of 5 poses.*direct"),
        ("tilt_deg", r"tilt_deg is 60, and over 45 for 3 of 5 poses; it must be 0 to 45.*stands on its edge.*direct"),
        ("radius_mm", r"radius_mm is 1\d[05], but must be over 0 and at most 80, and 3 of 5 poses lie farther away\."),
    ],
)
def test_a_region_of_fewer_than_half_of_the_poses_is_refused(scalp, fault, message):
    strange, grid = outliers(scalp), grid_poses(scalp, KNOB, n=3)
    with pytest.raises(PoseError, match=f"^region of coil poses: {message}"):
        region_of([strange[fault]] * 3 + grid[:2], scalp, KNOB)
    if fault != "casing":
        with pytest.raises(PoseError, match=r"3 of 6 poses.* 1 more fit in no region either\.$"):
            region_of([strange[fault]] * 3 + [strange["casing"], *grid[:2]], scalp, KNOB)


def test_plain_values_make_the_region_again():
    values = REGION.as_dict()
    assert values["centre_m"] == list(KNOB)
    assert values["left"] is True
    assert PoseRegion(**values) == REGION
    assert {type(value) for value in values.values()} == {list, float, bool}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius_m": 0.095}, r'radius_mm is 95, but must be over 0 and at most 80.*solver kind "direct"'),
        ({"radius_m": 0.0}, "radius_mm is 0"),
        ({"distance_m": (-0.001, 0.004)}, "distance_mm begins at -1, so the coil would reach into the head"),
        ({"distance_m": (0.005, 0.004)}, "distance_mm is 5 to 4; it must ascend"),
        ({"angle_deg": (10, -10)}, "angle_deg is 10 to -10; it must ascend"),
        ({"angle_deg": (-200, 200)}, "angle_deg is -200 to 200"),
        ({"angle_deg": (1, 2, 3)}, "a lower and an upper figure"),
        ({"tilt_deg": 60}, "tilt_deg is 60; it must be 0 to 45"),
        ({"radius_m": np.nan}, "not finite"),
    ],
)
def test_regions_that_no_coil_can_take_are_refused(change, message):
    with pytest.raises(PoseError, match=f"region of coil poses: .*{message}"):
        replace(REGION, **change)


def test_a_region_that_reaches_into_the_head_is_refused(scalp):
    coil = load_coil("dipole")
    assert len(REGION.draw(scalp, 5, 1, coil=coil)) == 5
    into = SimpleNamespace(**{key: getattr(coil, key) for key in ("name", "segments", "positions")})
    into.sources = lambda pose: pose.centre_m[None] + 0.02 * pose.matrix[:3, 2]  # a winding 20 mm below the casing
    with pytest.raises(
        PoseError, match=r"reaches into the head\. Raise the lower distance_mm, now 4, or make tilt_deg"
    ):
        REGION.draw(scalp, 5, 1, coil=into)
    low = [pose.raised(-0.006) for pose in grid_poses(scalp, KNOB, n=3)]
    with pytest.raises(PoseError, match=r"casing of 9 of 9 poses cuts the scalp, by up to 2\.0 mm.*solver kind direct"):
        region_of(low, scalp, KNOB)
    with pytest.raises(PoseError, match="there is no pose"):
        region_of([], scalp, KNOB)
    with pytest.raises(PoseError, match=r"Raise the lower distance_mm, now 4, or make tilt_deg, now 10, smaller"):
        REGION.draw(scalp, 5, 1, coil=into, slack=True)


def test_a_region_around_the_head_or_over_the_face_is_refused(scalp):
    around = [tangential_pose(scalp, point, 0, 0.004, True) for point in ((0, 0, RADIUS), (RADIUS, 0, 0))]
    with pytest.raises(PoseError, match=r"radius_mm is 1\d\d, .*at most 80.*direct"):
        region_of(around, scalp, (-RADIUS, 0.0, 0.02))
    with pytest.raises(PoseError, match=r"with radius_mm 60 it reaches .*straight forwards.*Make radius_mm smaller"):
        replace(REGION, centre_m=(0.0, 0.07, 0.05), radius_m=0.06).draw(scalp, 100, 1)


def assert_region_serves(head, knob, count):
    scalp, coil = Scalp.of(head), load_coil("magstim-70mm")
    region = replace(REGION, centre_m=knob)
    poses = region.draw(scalp, count, seed=1, coil=coil)
    assert region.contains(poses, scalp).all()
    place = measured(poses, scalp, knob)
    assert 0.004 - 1e-9 < place.distance_m.min() <= place.distance_m.max() < 0.010 + 1e-9
    assert region_of(poses, scalp, knob) == region
    grid = grid_poses(scalp, knob) + random_poses(scalp, knob, 20, seed=2)
    place = measured(grid, scalp, knob)
    np.testing.assert_allclose(place.distance_m, 0.004, atol=1e-9)
    np.testing.assert_allclose(place.angle_deg[:49], 45, atol=1e-6)
    assert place.tilt_deg.max() < 1e-5


def test_region_on_the_sphere(sphere_head):
    assert_region_serves(sphere_head, (-0.02, -0.01, 0.08), 200)


@pytest.mark.slow
def test_region_on_the_template():
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    assert_region_serves(load_head("template"), KNOB, 300)


@pytest.mark.slow
def test_region_on_the_real_head(data_folder):
    assert_region_serves(load_head(os.path.join(data_folder, "heads", "ny_head_320k.msh.gz")), KNOB, 500)
