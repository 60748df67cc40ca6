import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.hpc.stimuli import read_stimuli, study_poses
from motorsweep.hpc.trials import check_responses
from motorsweep.jobs.config import load_study_config
from motorsweep.sim.pose import Pose, write_poses


def placed(x_mm):
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, -1, -1])
    matrix[:3, 3] = x_mm * 1e-3, 0, 0.1
    return Pose(matrix)


def localite(didts):
    """Trigger markers, one at each of the places 0, 1, 0, 2 mm: Localite's x points along the coil's -z."""
    markers = []
    for x, didt in zip((0, 1, 0, 2), didts):
        # SimNIBS axes (x, y, z) = (1, 0, 0), (0, -1, 0), (0, 0, -1): Localite's are (z, -y, x).
        rows = [(0, 0, 1, x), (0, 1, 0, 0), (-1, 0, 0, 100), (0, 0, 0, 1)]
        data = " ".join(f'data{i}{j}="{v}"' for i, row in enumerate(rows) for j, v in enumerate(row))
        markers.append(
            f"<TriggerMarker><ResponseValues><Value key='valueA' response='{didt}'/></ResponseValues>"
            f"<Matrix4D {data}/></TriggerMarker>"
        )
    return f'<TriggerMarkerList coordinateSpace="RAS">{"".join(markers)}</TriggerMarkerList>'


@pytest.fixture
def study(tmp_path):
    def make(poses, responses):
        name = "poses.csv" if isinstance(poses, list) else "poses.xml"
        if isinstance(poses, list):
            write_poses(tmp_path / name, poses)
        else:
            (tmp_path / name).write_text(poses)
        (tmp_path / "meps.csv").write_text(responses)
        toml = f'name = "a"\n[poses]\nfile = "{name}"\n[responses]\nfile = "meps.csv"\n[mappers]\nsynergies = 1\n'
        (tmp_path / "study.toml").write_text(toml)
        return load_study_config(tmp_path / "study.toml")

    return make


def test_a_place_that_comes_twice_is_one_pose_and_its_responses_find_it(study):
    config = study([placed(0), placed(1), placed(0), placed(2)], "intensity_percent_rmt,FDI [uV]\n" + "110,5\n" * 4)
    stimuli = read_stimuli(config)
    assert [round(pose.centre_m[0] * 1e3) for pose in study_poses(config, None)] == [0, 1, 2]
    assert stimuli.pose_of.tolist() == [0, 1, 0, 2] and stimuli.didt is None
    assert check_responses(config, n_poses=3).pose_index.tolist() == [0, 1, 0, 2]


def test_pose_numbers_of_responses_count_the_rows_of_the_pose_file(study):
    table = "pose,intensity_percent_rmt,FDI [uV]\n3,110,5\n2,120,6\n"
    config = study([placed(0), placed(1), placed(0), placed(2)], table)
    assert check_responses(config, n_poses=3).pose_index.tolist() == [2, 0]
    config = study([placed(0), placed(0)], "pose,intensity_percent_rmt,FDI [uV]\n2,110,5\n")
    with pytest.raises(InputError, match=r"meps\.csv, line 2, column 'pose'"):
        check_responses(config, n_poses=1)


def test_rate_of_the_navigator_counts_where_the_responses_have_none(study):
    config = study(localite((100, 110, 120, 130)), "pose,FDI [uV]\n3,5\n0,6\n")
    table = check_responses(config, n_poses=3)
    np.testing.assert_allclose(table.didt, [130e6, 100e6])
    assert table.pose_index.tolist() == [2, 0]
    config = study(localite((100, 110, 120, 130)), "pose,didt_a_per_us,FDI [uV]\n3,77,5\n")
    np.testing.assert_allclose(check_responses(config, n_poses=3).didt, [77e6])
    config = study(localite((100, "NaN", 120, 130)), "pose,FDI [uV]\n3,5\n")
    with pytest.raises(InputError, match="neither a column didt_a_per_us nor intensity_percent_rmt, and the poses"):
        check_responses(config, n_poses=3)
