import numpy as np
import pytest
from motorsweep.errors import PoseError
from motorsweep.sim import pose as pose_module
from motorsweep.sim.pose import Pose
from motorsweep.sim.pose_files import MATRIX_COLUMNS, READERS, read_poses, write_poses
from scipy.io import savemat
from scipy.spatial.transform import Rotation


@pytest.fixture
def poses():
    rng = np.random.default_rng(0)
    matrices = np.tile(np.eye(4), (5, 1, 1))
    matrices[:, :3, :3] = Rotation.random(5, random_state=1).as_matrix()
    matrices[:, :3, 3] = rng.uniform(-0.1, 0.1, (5, 3))
    return [Pose(matrix) for matrix in matrices]


def in_mm(poses):
    matrices = np.array([pose.matrix for pose in poses])
    matrices[:, :3, 3] *= 1e3
    return matrices


def assert_same(read, poses):
    np.testing.assert_allclose([p.matrix for p in read], [p.matrix for p in poses], atol=1e-15)


def test_written_poses_are_read_back(tmp_path, poses):
    path = tmp_path / "poses.csv"
    write_poses(path, poses)
    assert path.read_text().splitlines()[0] == ",".join(MATRIX_COLUMNS)
    assert_same(read_poses(path), poses)


def test_readers_are_offered_beside_the_pose():
    assert pose_module.read_poses is read_poses
    assert pose_module.write_poses is write_poses
    with pytest.raises(AttributeError, match="no attribute 'red_poses'"):
        _ = pose_module.red_poses


@pytest.mark.parametrize("with_x", [True, False])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_centre_and_axes_are_read(tmp_path, poses, with_x, delimiter):
    path = tmp_path / "axes.csv"
    axes = "xyz" if with_x else "yz"
    header = ["name", "Center_x_mm", "center_y_mm", "center_z_mm", *(f"{axis}_{c}" for axis in axes for c in "xyz")]
    lines = [delimiter.join(header)]
    for i, matrix in enumerate(in_mm(poses)):
        columns = [matrix[:3, 3], *(matrix[:3, "xyz".index(axis)] for axis in axes)]
        lines.append(delimiter.join([f"target {i}", *(repr(float(v)) for v in np.concatenate(columns))]))
    path.write_text("\n".join(lines) + "\n")
    assert_same(read_poses(path), poses)


@pytest.mark.parametrize("delimiter", [",", " ", "\t"])
@pytest.mark.parametrize("gap", ["", "\n"])
def test_simnibs_blocks_are_read(tmp_path, poses, delimiter, gap):
    path = tmp_path / "simnibs.csv"
    blocks = ["".join(delimiter.join(map(repr, row)) + "\n" for row in m.tolist()) for m in in_mm(poses)]
    path.write_text(gap.join(blocks))
    assert_same(read_poses(path), poses)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_decimal_commas_are_read_where_fields_are_separated_otherwise(tmp_path, mark):
    rows = [["1", "0", "0", "-38,5"], ["0", "-1", "0", "20,25"], ["0", "0", "-1", "9,5e1"], ["0", "0", "0", "1,0"]]
    expected = [[1, 0, 0, -0.0385], [0, -1, 0, 0.02025], [0, 0, -1, 0.095], [0, 0, 0, 1]]
    (tmp_path / "blocks.csv").write_text("\n".join(map(mark.join, rows)))
    write_poses(tmp_path / "points.csv", [Pose(expected)])
    text = (tmp_path / "points.csv").read_text()
    (tmp_path / "table.csv").write_text(text.replace(",", mark).replace(".", ","))
    for name in ("blocks.csv", "table.csv"):
        (pose,) = read_poses(tmp_path / name)
        np.testing.assert_allclose(pose.matrix, expected, rtol=0, atol=1e-12)
    assert pose.number == 0


def test_matlab_files_are_read(tmp_path, poses):
    mm = in_mm(poses)
    variants = {
        "session": {"poslist": {"pos": [{"matsimnibs": m, "didt": 1e6} for m in mm]}, "other": np.eye(4)},
        "stack": {"matsimnibs": mm},
        "stack_last": {"matsimnibs": np.moveaxis(mm, 0, -1)},
        "plain": {f"pose_{i}": m for i, m in enumerate(mm)},
    }
    for name, content in variants.items():
        savemat(tmp_path / f"{name}.mat", content)
        assert_same(read_poses(tmp_path / f"{name}.mat"), poses)
    for stack in (mm[:4], np.moveaxis(mm[:4], 0, -1)):
        savemat(tmp_path / "four.mat", {"matsimnibs": stack})
        assert_same(read_poses(tmp_path / "four.mat"), poses[:4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the file holds none"),
        (",".join(MATRIX_COLUMNS) + "\n", r"the file holds none"),
        ("a,b,c\n1,2,3\n", r"line 1: the header is 'a, b, c'.*m00.*m33.*centre_x_mm"),
        ("1,0,0,10\n0,1,0,20\n0,0,1,30\n", r"four rows of four numbers per pose, but there are 3 rows"),
        ("1,0,0,10\n0,1,0\n0,0,1,30\n0,0,0,1\n", r"line 2 has another number"),
        ("1,0,0,10\n0,1,x,20\n0,0,1,30\n0,0,0,1\n", r"line 2, column 3: found 'x'"),
        ("1,0,0,10\n0,1,nan,20\n0,0,1,30\n0,0,0,1\n", r"line 2, column 3: found 'nan'"),
        ("1,0,0,10\n0,1,0.2,20\n0,0,1,30\n0,0,0,1\n", r"pose 0 at line 1: .*[Ss]heared"),
        ("1,0,0,.03\n0,1,0,.02\n0,0,1,.08\n0,0,0,1\n", r"probably in metres"),
        (
            "1,0,0,1e200\n0,1,0,1e200\n0,0,1,30\n0,0,0,1\n",
            r"pose 0 at line 1: .*inf mm from the origin, which no coil is",
        ),
        (",".join(MATRIX_COLUMNS) + "\n1,0,0\n", r"line 2: found 3 fields where the header names 16"),
        (",".join(MATRIX_COLUMNS) + "\n-1,0,0,50,0,1,0,50,0,0,1,50,0,0,0,1\n", r"line 2: .*left-handed"),
    ],
)
def test_damaged_csv_is_refused_by_line(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(PoseError, match=r"bad\.csv.*" + message):
        read_poses(path)


def test_csv_that_is_not_utf_8_is_refused_by_byte(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes("größe,m00\n".encode("cp1252"))
    with pytest.raises(PoseError, match=r"excel\.csv: byte 2 is not UTF-8.*save it as CSV UTF-8"):
        read_poses(path)


def test_tables_have_no_sections(tmp_path, poses):
    write_poses(tmp_path / "poses.csv", poses)
    with pytest.raises(
        PoseError, match=r"poses\.csv: only navigators' files \(\.txt, \.xml\) have sections such as 'samp"
    ):
        read_poses(tmp_path / "poses.csv", section="samples")


def test_damaged_matlab_file_is_refused(tmp_path):
    path = tmp_path / "bad.mat"
    path.write_bytes(b"not a matlab file" * 20)
    with pytest.raises(PoseError, match=r"bad\.mat.*not a MATLAB file"):
        read_poses(path)
    savemat(path, {"a": np.eye(3)})
    with pytest.raises(PoseError, match=r"no variable `matsimnibs` and no 4x4 matrix among a"):
        read_poses(path)


@pytest.mark.parametrize(("name", "message"), [("x.csv", "no such file"), ("x.xyz", "type '.xyz' are unknown")])
def test_absent_and_unknown_files_name_the_readers(tmp_path, name, message):
    with pytest.raises(PoseError, match=rf"{message}.*{', '.join(READERS)}"):
        read_poses(tmp_path / name)
