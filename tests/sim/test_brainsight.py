import numpy as np
import pytest
from motorsweep.errors import PoseError
from motorsweep.sim.markers import SkippedMarkerWarning
from motorsweep.sim.pose import read_poses
from scipy.spatial.transform import Rotation

LOC = ["Loc. X", "Loc. Y", "Loc. Z"]
AXES = [f"m{m}n{n}" for m in range(3) for n in range(3)]
# over the left motor cortex: m0 forwards, m1 to the left, m2 out of the head (up); one number for each of LOC + AXES
PLAIN = [-38.5, -20.25, 95.0, 0, 1, 0, -1, 0, 0, 0, 0, 1]
# by hand: x = -m0, y = m1, z = -m2 (into the head)
PLAIN_POSE = [[0, -1, 0, -0.0385], [-1, 0, 0, -0.02025], [0, 0, -1, 0.095], [0, 0, 0, 1]]


def head(version=14, system="NIfTI:Q:Scanner"):
    return [
        f"# Version: {version}",
        f"# Coordinate system: {system}",
        "# Created by: Brainsight 2.5.3",
        "# Units: millimetres, degrees, milliseconds, and microvolts",
        "# Encoding: UTF-8",
        "# Notes: Each column is delimited by a tab. Each value within a column is delimited by a semicolon.",
    ]


def section(title, rows, columns=LOC + AXES):
    return ["\t".join([f"# {title} Name", *columns]), *("\t".join([name, *map(str, row)]) for name, row in rows)]


def write(tmp_path, lines, end="\n", encoding="utf-8"):
    path = tmp_path / "session.txt"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("version", "system"),
    [(7, "NIfTI:Aligned"), (12, "NIfTI:Scanner"), (14, "NIfTI:Q:Aligned"), (14, "NIfTI:S:Scanner"), (15, "nifti:q:x")],
)
@pytest.mark.parametrize(
    ("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig"), ("\r", "utf-8"), ("\r\n", "utf-16")]
)
def test_samples_become_simnibs_poses(tmp_path, version, system, end, encoding):
    lines = [*head(version, system), *section("Target", [("Zürich", PLAIN)]), *section("Sample", [("Sample ü", PLAIN)])]
    (pose,) = read_poses(write(tmp_path, lines, end, encoding))
    np.testing.assert_allclose(pose.matrix, PLAIN_POSE, atol=1e-15)
    assert (pose.name, pose.didt) == ("Sample ü", None)


def test_columns_are_found_by_name_in_any_order(tmp_path):
    order = np.random.default_rng(0).permutation(12)
    columns, row = [(LOC + AXES)[i] for i in order], [PLAIN[i] for i in order]
    header = "\t".join([*columns[:4], "Index", "Sample Name", *columns[4:], "Comment"])
    text = "\t".join([*map(str, row[:4]), "1", "Sample 1", *map(str, row[4:]), "a comment\twith a tab"])
    (pose,) = read_poses(write(tmp_path, [*head(), f"# {header}", text]))
    np.testing.assert_allclose(pose.matrix, PLAIN_POSE, atol=1e-15)
    assert pose.name == "Sample 1"


def test_stimuli_come_before_plans_and_either_can_be_asked_for(tmp_path):
    moved = [PLAIN[0] + 1, *PLAIN[1:]]
    targets, samples = section("Target", [("T", PLAIN)]), section("Sample", [("S", moved), ("S", moved)])
    landmarks = ["# Planned Landmark Name\tLoc. X\tLoc. Y\tLoc. Z", "Nasion\t1\t2\t3"]
    path = write(tmp_path, [*head(), *targets, *samples, *landmarks])
    assert [pose.name for pose in read_poses(path)] == ["S", "S"]  # a stimulus each, though at one place
    assert [pose.name for pose in read_poses(path, section="targets")] == ["T"]
    write(tmp_path, [*head(), *targets, *section("Sample", []), *landmarks])
    assert [pose.name for pose in read_poses(path)] == ["T"]
    with pytest.raises(PoseError, match=r"session\.txt: no 'samples' in it \(it holds 0 samples and 1 targets\)"):
        read_poses(path, section="samples")
    with pytest.raises(PoseError, match=r"no 'planned' in it.*samples or targets"):
        read_poses(path, section="planned")


def test_untracked_samples_are_skipped_and_named(tmp_path):
    rows = [("S0", PLAIN), ("S1", ["(null)"] * 12), ("S2", PLAIN), ("S3", [1, 2, 3, *["(null)"] * 9])]
    path = write(tmp_path, [*head(), *section("Sample", rows)])
    with pytest.warns(SkippedMarkerWarning, match=r"2 of 4 markers have no pose \(1, 3\): .*: no orientation; not"):
        assert [pose.name for pose in read_poses(path)] == ["S0", "S2"]
    with pytest.warns(SkippedMarkerWarning), pytest.raises(PoseError, match="the file holds none"):
        read_poses(write(tmp_path, [*head(), *section("Sample", rows[1:2])]))


def test_a_sample_without_a_location_is_untracked(tmp_path):
    rows = [("S0", PLAIN), ("S1", [*["(null)"] * 3, *PLAIN[3:]]), ("S2", PLAIN)]
    with pytest.warns(SkippedMarkerWarning, match=r"1 of 3 markers has no pose \(1\): trials.*: no location"):
        poses = read_poses(write(tmp_path, [*head(), *section("Sample", rows)]))
    assert [(pose.name, pose.number) for pose in poses] == [("S0", 0), ("S2", 2)]


def test_three_decimals_become_an_exact_rotation(tmp_path):
    turns = Rotation.random(200, random_state=3).as_matrix()
    rows = [("S", [1, 2, 90, *np.round(turn.T, 3).ravel()]) for turn in turns]
    for pose, turn in zip(read_poses(write(tmp_path, [*head(), *section("Sample", rows)])), turns):
        np.testing.assert_allclose(pose.matrix[:3, :3].T @ pose.matrix[:3, :3], np.eye(3), atol=1e-14)
        np.testing.assert_allclose(pose.matrix[:3, :3], turn * [-1, 1, -1], atol=1.5e-3)


def changed(column, value):
    row = list(PLAIN)
    row[(LOC + AXES).index(column)] = value
    return [*head(), *section("Sample", [("S 1", row)])]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (head(12, "Brainsight"), r"line 2: the coordinate system is 'Brainsight'.*Export again.*NIfTI:Aligned"),
        (head(14, "World"), r"line 2: the coordinate system is 'World'"),
        (head(14, "MNI"), r"line 2: the coordinate system is 'MNI'"),
        (head(9, "NIfTI:Talairach"), r"line 2: the coordinate system is 'NIfTI:Talairach'"),
        (["1 0 0 30", "0 1 0 20"], r"no line '# Coordinate system.*SimNIBS matrices as \.csv"),
        (
            [line.replace("millimetres", "inches") for line in head()],
            r"line 4: the units are 'inches, deg.*millimetres",
        ),
        (head(), r"no 'samples' in it \(it holds 0 samples and 0 targets\)"),
        (changed("m1n2", "(null)"), r"line 8, column 'm1n2': found '\(null\)', not a finite number"),
        (changed("Loc. Y", "nan"), r"line 8, column 'Loc\. Y': found 'nan'"),
        (changed("m0n1", "1e400"), r"line 8, column 'm0n1': found '1e400'"),
        (changed("m0n0", 0.05), r"line 8 \('S 1'\): .*[Ss]heared matrices"),
        (changed("m2n2", -1), r"line 8 \('S 1'\): .*left-handed"),
        (changed("Loc. X", 1e6), r"line 8 \('S 1'\): .*1e\+06 mm from the origin, which no coil is"),
        ([*head(), *section("Sample", [("S", PLAIN[:9])])], r"line 8: found 10 fields where the section names 13 col"),
        ([*head(), *section("Sample", [("S", PLAIN[:3])], LOC)], r"line 8: the section has no column m0n0, m0n1"),
    ],
)
def test_what_cannot_be_used_is_refused_by_line(tmp_path, lines, message):
    with pytest.raises(PoseError, match=r"session\.txt.*" + message):
        read_poses(write(tmp_path, lines))


def test_other_encodings_are_refused_by_byte(tmp_path):
    lines = [*head(), *section("Sample", [("ü", PLAIN)])]
    with pytest.raises(PoseError, match=r"session\.txt: byte \d+ is not UTF-8.*Export it again"):
        read_poses(write(tmp_path, lines, encoding="cp1252"))


def test_real_session_points_into_the_head(data_folder):
    path = data_folder / "nav" / "niiImage_niftialignedcoord.txt"
    poses = read_poses(path)
    assert len(poses) == 101
    assert poses[11].name == "Sample 12"
    # by hand from the file's line of Sample 12: x = -m0, y = m1, z = -m2
    expected = [[-0.777, 0.288, 0.560], [0.581, 0.670, 0.462], [-0.242, 0.685, -0.688]]
    np.testing.assert_allclose(poses[11].matrix[:3, :3], expected, atol=1.5e-3)
    np.testing.assert_allclose(poses[11].centre_m, [-0.046576, -0.070252, 0.042076], atol=1e-12)
    centre = np.array([0.0, 0.01, 0.0])  # between the ears' landmarks of the file, 30 mm above them
    for pose in [*poses, *read_poses(path, section="targets")]:
        towards = centre - pose.centre_m
        assert pose.matrix[:3, 2] @ towards / np.linalg.norm(towards) > 0.85
