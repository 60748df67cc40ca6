import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError, PoseError
from motorsweep.sim.map_alignment import alignment
from motorsweep.sim.markers import SkippedMarkerWarning, Target
from motorsweep.sim.pose import tangential_pose
from motorsweep.sim.pose_files import read_markers, read_poses
from motorsweep.sim.pose_targets import place_targets
from motorsweep.sim.position_columns import axes_matrix, coordinate
from motorsweep.sim.response_files import read_responses
from motorsweep.sim.rigid import unique_poses
from motorsweep.sim.scalp import Scalp
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

RADIUS = 0.085
KNOB = np.array([-0.037, -0.021, 0.058])
OUTWARDS = KNOB / np.linalg.norm(KNOB)


@pytest.fixture(scope="module")
def scalp(round_head):
    return Scalp.of(round_head)


def cap(centre=KNOB, half_width_m=0.024, side=7):
    """A map on the sphere through a place: rings around it, so that their mean lies under the place."""
    centre = np.asarray(centre)
    radius, out = np.linalg.norm(centre), centre / np.linalg.norm(centre)
    right = np.cross([0, 1.0, 0], out)
    right /= np.linalg.norm(right)
    rings = [
        (ring * half_width_m / side / radius, turn)
        for ring in range(1, side + 1)
        for turn in np.arange(6 * ring) * np.pi / (3 * ring)
    ]
    far, turn = np.array([(0.0, 0.0), *rings]).T
    sideways = np.cos(turn)[:, None] * right + np.sin(turn)[:, None] * np.cross(out, right)
    return radius * (np.cos(far)[:, None] * out + np.sin(far)[:, None] * sideways)


def moved(points, axes, shift_m):
    """RAS points in the coordinates of a navigator with these axes and another origin."""
    return points @ axes_matrix(axes) + np.array(shift_m)


def table(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("title", "name"),
    [
        *[(title, "x") for title in ("x", "X_mm", "x [mm]", "X (mm)", "Loc. X", "pos_x", "EF max x (mm)", "E-field x")],
        *[
            ("centre_z_mm", "z"),
            ("target.y", "y"),
            ("angle_deg", "angle"),
            ("Angle [deg]", "angle"),
            ("angle", "angle"),
        ],
        *[(title, None) for title in ("FDI [uV]", "EXT [uV]", "x_m", "max [uV]", "normal_x", "pose", "", "x" * 10**6)],
    ],
)
def test_titles_of_coordinates(title, name):
    assert coordinate(title) == name


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_positions_are_read_beside_other_columns(tmp_path, mark):
    rows = [["name", "X [mm]", "Y [mm]", "Z [mm]", "angle_deg", "FDI [uV]"]]
    rows += [["a", "-37.5", "-21", "58", "45", "120"], ['"b"', "-37.5", "-21", "58", "30", "0"]]
    rows += [["c", "-37.5", "-21", "58", "45", "7.5"]]
    path = table(tmp_path / "map.tsv", "\n".join(mark.join(row) for row in rows) + "\n")
    markers = read_markers(path)
    place = (-0.0375, -0.021, 0.058)
    assert markers == [Target(place, 45.0), Target(place, 30.0), Target(place, 45.0)]
    assert [marker.number for marker in markers] == [0, 1, 2]
    assert unique_poses(markers)[1].tolist() == [0, 1, 0]
    with pytest.raises(PoseError, match=r"map\.tsv: it holds positions without the coil's orientation"):
        read_poses(path)


def test_one_table_holds_positions_and_responses(tmp_path):
    path = table(tmp_path / "map.csv", "x_mm;y_mm;z_mm;FDI [uV];APB [mV]\n-37,5;-21;58;120;0,5\n-30;-20;60;0;0\n")
    assert [marker.point_m[0] for marker in read_markers(path)] == [-0.0375, -0.03]
    read = read_responses(path, 2)
    assert read.muscles == ("FDI", "APB") and read.pose_index.tolist() == [0, 1]
    np.testing.assert_allclose(read.response, [[120e-6, 0.5e-3], [0, 0]])


def test_rows_without_a_position_keep_their_number(tmp_path):
    path = table(tmp_path / "map.csv", "x,y,z,FDI [uV]\n-37,-21,58,5\n,,,6\nNaN,nan,-,7\n-36,-21,58,8\n")
    with pytest.warns(SkippedMarkerWarning, match=r"2 of 4 markers have no pose \(1, 2\).*the row has no position"):
        markers = read_markers(path)
    assert [marker and marker.number for marker in markers] == [0, None, None, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n1,2,3\n1,,3\n", r"line 3, column 'y': found '', not a finite number.*leave x, y and z empty"),
        ("x,y,z\n1,2,inf\n", r"line 2, column 'z': found 'inf'"),
        ("x,y,z,angle\n1,2,3,\n", r"line 2, column 'angle': found ''"),
        ("x,y,z\n1,2\n", r"line 2: found 2 fields where the header names 3"),
        ("x_mm,pos_x,y,z\n1,2,3,4\n", r"columns 'x_mm' and 'pos_x' both name x"),
        ("x,y,z\n-.037,-.021,.058\n.03,.02,.05\n", r"no coordinate is as large as 1.*probably in metres"),
        ("x,y\n1,2\n", r"header is 'x, y', from which no pose.*or x_mm, y_mm, z_mm for positions"),
        ("x,y,z\n", r"the file holds none"),
    ],
)
def test_damaged_positions_are_refused_by_line(tmp_path, text, message):
    with pytest.raises(PoseError, match=r"bad\.csv.*" + message):
        read_markers(table(tmp_path / "bad.csv", text))


def test_axes_by_letters():
    np.testing.assert_array_equal(axes_matrix("RAS"), np.eye(3))
    np.testing.assert_array_equal(axes_matrix("LPS") @ [1, 2, 3], [-1, -2, 3])
    np.testing.assert_array_equal(axes_matrix("PIR") @ [1, 2, 3], [3, -1, -2])
    assert np.linalg.det(axes_matrix("LSA")) == 1 and np.linalg.det(axes_matrix("RSA")) == -1
    for wrong in ("RRS", "RLS", "RA", "RASS", "ras", "xyz", ""):
        with pytest.raises(InputError, match=r"axes of positions: .* Give three letters"):
            axes_matrix(wrong)


def test_the_coil_lies_over_the_target_at_its_distance_and_angle(scalp):
    targets = [Target(tuple(1.1 * RADIUS * OUTWARDS)), Target(tuple(KNOB), 0.0, number=7)]
    above, turned = place_targets(scalp, targets, KNOB, angle_deg=45.0, distance_m=4e-3)
    for pose in (above, turned):  # from outside and from the cortex: the same place
        np.testing.assert_allclose(pose.centre_m, (RADIUS + 4e-3) * OUTWARDS, atol=2e-4)
        np.testing.assert_allclose(pose.matrix[:3, 2], -OUTWARDS, atol=0.01)
    assert turned.matrix[:3, 1] @ above.matrix[:3, 1] == pytest.approx(np.cos(np.pi / 4), abs=1e-3)
    assert above == tangential_pose(scalp, 1.1 * RADIUS * OUTWARDS, 45.0, 4e-3, left=True)
    assert turned.matrix[0, 1] == pytest.approx(0, abs=0.2) and turned.matrix[1, 1] > 0.9  # straight ahead
    assert (above.number, turned.number) == (None, 7)


def test_axes_count_without_alignment_too(scalp):
    points = cap()
    there = place_targets(scalp, [Target(tuple(point)) for point in points[:5]], KNOB)
    lps = place_targets(scalp, [Target(tuple(point)) for point in moved(points[:5], "LPS", 0)], KNOB, axes="LPS")
    np.testing.assert_allclose([p.matrix for p in lps], [p.matrix for p in there], atol=1e-12)


@pytest.mark.parametrize("axes", ["RAS", "LSA", "PIR", "RSA"])
def test_a_map_of_the_same_head_comes_back_to_its_place(scalp, axes):
    points, shift = cap(), np.array([0.088, 0.14, 0.128])
    there = moved(points, axes, shift)
    centre = moved(KNOB, axes, shift)
    motion = alignment(there, scalp, KNOB, "hand-knob", axes, centre)
    back = there @ motion[:3, :3].T + motion[:3, 3]
    np.testing.assert_allclose(back, points, atol=3e-4)  # the hull's smoothed normal is off by some 0.5 degrees
    onto = alignment(there, scalp, KNOB, "scalp", axes, centre)
    np.testing.assert_allclose(onto[:3, :3], motion[:3, :3], atol=1e-15)
    np.testing.assert_allclose(onto[:3, :3] @ centre + onto[:3, 3], RADIUS * OUTWARDS, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    shift=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    noise=st.floats(0, 1e-3),
)
def test_alignment_is_rigid_parallel_and_centred(scalp, turn, shift, noise):
    points = cap() + noise * np.random.default_rng(0).standard_normal((len(cap()), 3))
    there = moved(points @ Rotation.from_rotvec(turn).as_matrix().T, "LSA", shift)
    motion = alignment(there, scalp, KNOB, axes="LSA")
    rotation = motion[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    here = there @ rotation.T + motion[:3, 3]
    np.testing.assert_allclose(here.mean(axis=0), KNOB, atol=1e-12)
    across = np.linalg.svd(here - here.mean(axis=0))[2][2]
    assert abs(across @ scalp.normals(KNOB, 0.02)[0]) == pytest.approx(1, abs=1e-9)
    assert (here[0] - KNOB) @ OUTWARDS > 0  # the middle of the cap bulges outwards


def test_maps_that_cannot_lie_so_are_refused(scalp):
    points, shift = cap(), (0.088, 0.14, 0.128)
    there = moved(points, "LSA", shift)
    with pytest.raises(InputError, match=r"with axes RPS their plane is \d\d degrees off .*Nexstim: LSA.* give LPS"):
        alignment(there, scalp, KNOB, axes="RPS")
    with pytest.raises(InputError, match=r"with axes RSA their plane is .*of the other hemisphere give LSA"):
        alignment(there, scalp, KNOB, axes="RSA")
    with pytest.raises(InputError, match="with axes RIP they lie like the inside of a bowl"):
        alignment(there, scalp, KNOB, axes="RIP")
    with pytest.raises(InputError, match=r"aligning 9 positions: they spread over 0\.0 mm .*are no patch"):
        alignment(np.linspace(0, 0.05, 9)[:, None] * [[1, 0, 0]], scalp, KNOB)
    with pytest.raises(InputError, match="are no patch"):
        alignment(np.random.default_rng(0).standard_normal((50, 3)) * 0.02, scalp, KNOB)
    with pytest.raises(InputError, match="aligning 1 positions"):
        alignment(there[:1], scalp, KNOB)


def test_a_flat_map_is_no_bowl(scalp):
    generator = np.random.default_rng(1)
    right = np.cross([0, 1.0, 0], OUTWARDS)
    flat = KNOB + generator.uniform(-0.02, 0.02, (60, 2)) @ [right, np.cross(OUTWARDS, right)]
    noisy = flat + 1e-3 * generator.standard_normal((60, 1)) * OUTWARDS
    motion = alignment(noisy, scalp, KNOB)
    assert np.rad2deg(np.arccos((np.trace(motion[:3, :3]) - 1) / 2)) < 3


def test_positions_of_another_head_are_refused_with_the_way_out(scalp):
    far = [Target((0.120, 0.200, 0.115), number=i) for i in range(3)]
    with pytest.raises(PoseError, match=r"3 of 3 are over 60 mm .*row 0, 17\d mm.*align = \"hand-knob\""):
        place_targets(scalp, far, KNOB)
    targets = [Target(tuple(point)) for point in moved(cap(), "LSA", (0.1, 0.1, 0.1))]
    with pytest.raises(PoseError, match=r"over 60 mm from the scalp .*check align_centre_mm"):
        place_targets(scalp, targets, KNOB, align="hand-knob", axes="LSA", centre_m=(0, 0, 0))


def test_real_maps_lie_over_the_hand_knob(scalp, data_folder):
    """Nexstim's axes fit the maps of all subjects, others fit none; and a cell of the grid stays a cell."""
    maps = np.genfromtxt(data_folder / "mep/grid_tms_maps/grid mappings.csv", delimiter=";")
    for subject in range(1, 9):
        points = maps[(maps[:, 0] == subject) & (maps[:, 1] == 1), 2:5][:98] * 1e-3
        for wrong in ("RAS", "RSA", "RIP"):
            with pytest.raises(InputError, match=f"with axes {wrong} the"):
                alignment(points, scalp, KNOB, axes=wrong)
        poses = place_targets(
            scalp, [Target(tuple(p)) for p in points], KNOB, align="hand-knob", axes="LSA", distance_m=4e-3
        )
        centres = np.array([pose.centre_m for pose in poses])
        np.testing.assert_allclose(np.linalg.norm(centres, axis=1), RADIUS + 4e-3, atol=5e-4)
        assert np.linalg.norm(centres.mean(axis=0) / (RADIUS * OUTWARDS) - 1) < 0.15
        apart, before = (cKDTree(p).query(p, 2)[0][:, 1].mean() for p in (centres, points))
        assert 0.8 < apart / before < 1.6  # the scalp's sphere is larger than the cortex's
