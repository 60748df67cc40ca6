import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import PoseError
from motorsweep.sim.coil import coil_inside_head, load_coil
from motorsweep.sim.pose import Pose, grid_poses, random_poses, tangential_pose, unique_poses
from motorsweep.sim.scalp import Scalp
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

RADIUS = 0.085
KNOB = np.array([-0.037, -0.021, 0.058])


@pytest.fixture(scope="module")
def head(round_head):
    return round_head


def rigid(rotation_vector=(0.0, 0.0, 0.0), centre_m=(0.0, 0.0, 0.1)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    matrix[:3, 3] = centre_m
    return matrix


@settings(max_examples=30)
@given(turn=st.tuples(*[st.floats(-3, 3)] * 3), centre=st.tuples(*[st.floats(-0.3, 0.3)] * 3))
def test_rigid_transforms_are_kept(turn, centre):
    matrix = rigid(turn, centre)
    pose = Pose(matrix)
    np.testing.assert_allclose(pose.matrix, matrix, atol=1e-15)
    assert Pose(pose.matrix) == pose
    assert Pose(pose.matrix).id == pose.id
    np.testing.assert_array_equal(pose.centre_m, matrix[:3, 3])


def test_rounded_matrices_become_exactly_orthonormal():
    pose = Pose(np.round(rigid([0.4, -0.9, 2.0]), 4))
    np.testing.assert_allclose(pose.matrix[:3, :3].T @ pose.matrix[:3, :3], np.eye(3), atol=1e-14)
    np.testing.assert_allclose(pose.matrix, rigid([0.4, -0.9, 2.0]), atol=1e-4)
    assert Pose(pose.matrix).id == pose.id


def test_a_pose_cannot_be_changed():
    pose = Pose(rigid())
    with pytest.raises(ValueError, match="read-only"):
        pose.matrix[0, 0] = 2
    source = rigid()
    pose = Pose(source)
    source[0, 3] = 1
    assert pose.centre_m[0] == 0


def test_ids_tell_poses_apart():
    assert Pose(rigid()).id == Pose(rigid()).id
    assert Pose(rigid()).id != Pose(rigid(centre_m=(1e-9, 0, 0.1))).id
    assert len({Pose(rigid()), Pose(rigid())}) == 1
    assert Pose(rigid()).raised(0.01).centre_m[2] == pytest.approx(0.09)


def test_name_and_rate_of_current_are_no_geometry():
    named = Pose(rigid(), name="Sample 12", didt=7e7)
    assert (named.name, named.didt) == ("Sample 12", 7e7)
    assert (Pose(rigid()).name, Pose(rigid()).didt) == ("", None)
    assert named == Pose(rigid())
    assert named.id == Pose(rigid()).id
    assert hash(named) == hash(Pose(rigid()))
    with pytest.raises(AttributeError, match="cannot assign"):
        named.didt = 1.0
    for didt in (0.0, -1e6, np.inf, np.nan):
        with pytest.raises(PoseError, match=r"rate of change of the current is .* must be positive.*180 degrees"):
            Pose(rigid(), didt=didt)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_unique_poses_and_their_index_give_all_poses_back(places):
    poses = [Pose(rigid(centre_m=(0.001 * place, 0.0, 0.1)), name=str(i)) for i, place in enumerate(places)]
    unique, index = unique_poses(poses)
    assert [unique[i] for i in index] == poses
    assert index.dtype == np.int64
    assert len({pose.id for pose in unique}) == len(unique) == len(set(places))
    assert [pose.name for pose in unique] == [str(places.index(place)) for place in dict.fromkeys(places)]
    again, identity = unique_poses(unique)
    assert (again, identity.tolist()) == (unique, list(range(len(unique))))


def test_negative_zeros_make_no_other_pose():
    unique, index = unique_poses([Pose(rigid()), Pose(rigid() * np.where(rigid() == 0, -1, 1))])
    assert (len(unique), index.tolist()) == (1, [0, 0])


def sheared():
    matrix = rigid()
    matrix[0, 1] = 0.05
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), r"shape \(3, 3\)"),
        (np.full((4, 4), np.nan), "NaN or infinity"),
        (rigid().T, r"last row is .*not 0 0 0 1.*transposed"),
        (sheared(), r"Sheared matrices have silently bent coils"),
        (rigid() * [[2], [2], [2], [1]], r"scales or shears"),
        (np.diag([-1.0, 1.0, 1.0, 1.0]), r"left-handed \(determinant -1\).*negate the first column"),
        (rigid() @ np.diag([1.0021, 1, 1, 1]), r"not orthonormal \(singular values 1\.002, 1, 1\)"),
        (rigid(centre_m=(-37, -21, 90)), r"translation is in millimetres"),
        (rigid(centre_m=(1e300, 1e300, 0)), r"centre is inf m from the origin"),
    ],
)
def test_what_is_no_pose_is_refused(matrix, message):
    with pytest.raises(PoseError, match=message):
        Pose(matrix)


def test_grid_is_tangential_and_at_its_distance(head):
    poses = grid_poses(head, KNOB, distance_m=4e-3)
    assert len(poses) == 49
    for pose in poses:
        outwards = pose.centre_m / np.linalg.norm(pose.centre_m)
        assert -pose.matrix[:3, 2] @ outwards > np.cos(np.deg2rad(1.0))
        assert np.linalg.norm(pose.centre_m) == pytest.approx(RADIUS + 4e-3, abs=1e-4)
    middle = poses[49 // 2].centre_m
    np.testing.assert_allclose(middle / np.linalg.norm(middle), KNOB / np.linalg.norm(KNOB), atol=2e-2)


def test_grid_is_equidistant_and_in_its_documented_order(head):
    poses = grid_poses(head, KNOB, n=7, spacing_m=4.4e-3, distance_m=0.0)
    centre = np.array([pose.centre_m for pose in poses]).reshape(7, 7, 3)
    for axis in (0, 1):
        spacing = np.linalg.norm(np.diff(centre, axis=axis), axis=2)
        # straight walks of equal length over a sphere come closer sideways by (path / radius)² / 6
        np.testing.assert_allclose(spacing, 4.4e-3, rtol=0.015)
    assert (np.diff(centre[..., 0], axis=0) > 0).all()  # columns from left to right
    assert (np.diff(centre[..., 1], axis=1) > 0).all()  # rows from back to front
    assert grid_poses(head, KNOB, n=1)[0] == grid_poses(head, KNOB, n=7)[24]


@pytest.mark.parametrize("side", [-1, 1])
def test_the_handle_points_backwards_and_to_the_side(head, side):
    pose = grid_poses(head, KNOB * [-side, 1, 1], n=1, angle_deg=45)[0]
    handle, normal = -pose.matrix[:3, 1], -pose.matrix[:3, 2]
    assert (KNOB * [-side, 1, 1])[0] * handle[0] > 0  # away from the midline
    assert handle[1] < 0
    backwards = np.array([0, -1.0, 0]) + normal[1] * normal
    assert handle @ backwards / np.linalg.norm(backwards) == pytest.approx(np.cos(np.pi / 4), abs=1e-9)


def test_handle_at_no_angle_points_straight_back(head):
    pose = grid_poses(head, (0.0, 0.0, 0.06), n=1, angle_deg=0)[0]
    np.testing.assert_allclose(pose.matrix[:3, 1], [0, 1, 0], atol=0.02)
    np.testing.assert_allclose(pose.matrix[:3, 2], [0, 0, -1], atol=0.02)


@pytest.mark.parametrize("distance_m", [0.0, 4e-3])
def test_no_dipole_enters_a_round_head(head, distance_m):
    scalp, coil = Scalp.of(head), load_coil("magstim-70mm")
    poses = [*grid_poses(scalp, KNOB, distance_m=distance_m), *random_poses(scalp, KNOB, 10, seed=1)]
    assert [coil_inside_head(coil, pose, scalp) for pose in poses] == [0] * len(poses)


def test_over_a_hollow_the_coil_rests_on_the_rim(head):
    nodes = head.nodes.copy()
    towards = nodes @ KNOB / np.linalg.norm(KNOB) / RADIUS
    dent = towards > np.cos(0.25)
    nodes[dent] *= 1 - 0.12 * (towards[dent, None] - np.cos(0.25)) / (1 - np.cos(0.25))
    scalp = Scalp(nodes, head.scalp())
    pose = tangential_pose(scalp, scalp.closest(KNOB * 1.3)[0][0], 45, 3e-3, left=True)
    depth = (nodes - pose.centre_m) @ pose.matrix[:3, 2]
    assert depth.min() == pytest.approx(3e-3, abs=1e-9)  # the smallest gap, and nothing above the casing's plane
    gap_under_centre = np.linalg.norm(pose.centre_m - scalp.closest(pose.centre_m)[0][0])
    assert gap_under_centre > 5e-3


def test_coarse_triangles_do_not_tilt_the_coil():
    k = np.arange(400) + 0.5  # edges of 16 mm
    polar, turn = np.arccos(1 - 2 * k / 400), np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    triangles = ConvexHull(unit).simplices
    a, b, c = (unit[triangles[:, i]] for i in range(3))
    inwards = (np.cross(b - a, c - a) * a).sum(axis=1) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    scalp = Scalp(RADIUS * unit, triangles)
    points = scalp.closest(np.random.default_rng(0).normal(size=(100, 3)))[0]
    exact = points / np.linalg.norm(points, axis=1, keepdims=True)
    facet = scalp.area_normals[scalp.closest(points)[1]]
    facet /= np.linalg.norm(facet, axis=1, keepdims=True)

    def tilt(normals):
        return np.rad2deg(np.arccos((normals * exact).sum(axis=1).clip(-1, 1))).max()

    assert tilt(scalp.normals(points)) < 0.35 * tilt(facet)


def test_random_poses_stay_within_radius_and_angle(head):
    poses = random_poses(head, KNOB, 40, radius_m=0.015, angle_deg=45, angle_spread_deg=30, distance_m=0.0, seed=5)
    origin = grid_poses(head, KNOB, n=1, distance_m=0.0)[0].centre_m
    path = RADIUS * np.arccos([pose.centre_m @ origin / np.linalg.norm(pose.centre_m) / RADIUS for pose in poses])
    assert path.max() < 0.0155
    assert (path > 0.0075).sum() > 20  # uniform over the disc: three in four in the outer ring
    angles = []
    for pose in poses:
        normal = -pose.matrix[:3, 2]
        forwards = np.array([0, 1.0, 0]) - normal[1] * normal
        angles.append(np.rad2deg(np.arccos(pose.matrix[:3, 1] @ forwards / np.linalg.norm(forwards))))
    assert 14.9 < min(angles) < 25
    assert 65 < max(angles) < 75.1


def test_random_poses_depend_on_the_seed_alone(head):
    first = random_poses(head, KNOB, 5, seed=1)
    assert random_poses(head, KNOB, 5, seed=1) == first
    assert random_poses(head, KNOB, 3, seed=1) == first[:3]
    assert random_poses(head, KNOB, 5, seed=2) != first
    assert random_poses(head, KNOB, 0, seed=1) == []


@pytest.mark.parametrize("n", [0, 4, -1])
def test_a_grid_needs_a_middle(head, n):
    with pytest.raises(PoseError, match=rf"{n} points per side has no point in the middle"):
        grid_poses(head, KNOB, n=n)


def test_the_angle_means_nothing_at_the_forehead(head):
    with pytest.raises(PoseError, match="angle to the midline is undefined"):
        grid_poses(head, (0.0, 0.08, 0.0), n=1)
