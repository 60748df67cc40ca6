import nibabel
import numpy as np
import pytest
import xarray as xr
from motorsweep.errors import InputError, PoseError
from motorsweep.hpc import prepare
from motorsweep.hpc.prepare import prepare_volumes
from motorsweep.hpc.stimuli import read_stimuli, study_poses
from motorsweep.hpc.trials import _measured, _peak, check_responses
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.plan import make_plan
from motorsweep.sim.markers import SkippedMarkerWarning
from motorsweep.sim.pose import Pose, write_poses
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import open_volumes


def placed(x_mm):
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, -1, -1])
    matrix[:3, 3] = x_mm * 1e-3, 0, 0.1
    return Pose(matrix)


def localite(didts, places=(0, 1, 0, 2)):
    """Trigger markers, one at each of the places in mm, None where the coil was not seen."""
    markers = []
    for x, didt in zip(places, didts):
        # SimNIBS axes (x, y, z) = (1, 0, 0), (0, -1, 0), (0, 0, -1): Localite's are (z, -y, x).
        rows = [(0, 0, 1, x), (0, 1, 0, 0), (-1, 0, 0, 100), (0, 0, 0, 1)] if x is not None else np.eye(4).tolist()
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
    assert stimuli.pose_of.tolist() == [0, 1, 0, 2] and np.isnan(stimuli.didt).all()
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
    np.testing.assert_allclose(check_responses(config, n_poses=3).didt, [130e6])  # nobody asks for the unknown one
    config = study(localite((100, "NaN", 120, 130)), "pose,FDI [uV]\n3,5\n1,6\n1,7\n")
    with pytest.raises(InputError, match=r"neither .* and 1 of 2 stimuli that are asked for has no dI/dt \(marker 1\)"):
        check_responses(config, n_poses=3)
    config = study([placed(x) for x in range(7)], "FDI [uV]\n" + "5\n" * 7)
    with pytest.raises(InputError, match=r"7 of 7 stimuli .* have no dI/dt \(markers 0, 1, 2, 3, 4 and 2 more\)"):
        check_responses(config, n_poses=7)


EIGHT = localite(range(100, 108), (0, 0, 1, None, 2, 3, 3, 1))
"""Eight triggers; number 3 was not tracked."""


def test_numbers_of_responses_count_markers_without_a_pose(study):
    config = study(EIGHT, "pose,FDI [uV]\n0,5\n1,5\n2,5\n4,5\n5,5\n6,5\n")
    with pytest.warns(SkippedMarkerWarning, match=r"1 of 8 markers has no pose \(3\): trials that belong"):
        table = check_responses(config, n_poses=4)
    assert table.pose_index.tolist() == [0, 0, 1, 2, 3, 3]
    np.testing.assert_allclose(table.didt, [100e6, 101e6, 102e6, 104e6, 105e6, 106e6])
    with pytest.warns(SkippedMarkerWarning):
        stimuli = read_stimuli(config)
    assert stimuli.pose_of.tolist() == [0, 0, 1, -1, 2, 3, 3, 1]
    assert [pose.number for pose in stimuli.poses] == [0, 2, 4, 5]
    assert np.isnan(stimuli.didt[3]) and stimuli.didt[7] == 107e6


@pytest.mark.filterwarnings("ignore::motorsweep.sim.markers.SkippedMarkerWarning")
def test_trials_of_markers_without_a_pose_are_left_out_and_counted(study):
    trials = _measured(study(EIGHT, "FDI [uV]\n" + "".join(f"{i}\n" for i in range(8))), 4, rmt=100.0)
    assert trials.attrs["left_out_trials"] == 1
    assert trials["pose_index"].values.tolist() == [0, 0, 1, 2, 3, 3, 1]
    np.testing.assert_allclose(trials["response"].values[:, 0] * 1e6, [0, 1, 2, 4, 5, 6, 7])
    np.testing.assert_allclose(trials["intensity_percent_rmt"], [100, 101, 102, 104, 105, 106, 107])
    config = study(EIGHT, "pose,FDI [uV]\n3,5\n3,5\n")
    with pytest.raises(InputError, match=r"all 2 trials belong to markers of .*poses\.xml that have no pose"):
        check_responses(config, 4)
    with pytest.raises(InputError, match=r"found 7 trials for 8 poses .*count markers without a pose too"):
        check_responses(study(EIGHT, "FDI [uV]\n" + "5\n" * 7), 4)


def test_the_reason_why_the_hotspot_has_no_field_is_told():
    volumes = xr.Dataset(
        {"status": ("pose", [int(Status.FAILED)] * 2), "reason": ("pose", ["", "the factor is lost."])}
    )
    with pytest.raises(InputError, match=r"pose 1, the hotspot .*, has no field \(the factor is lost\)\. Try"):
        _peak(None, volumes, 1)
    with pytest.raises(InputError, match=r"pose 0, the hotspot .*, has no field\. Try"):
        _peak(None, volumes, 0)


@pytest.mark.filterwarnings("ignore::motorsweep.sim.markers.SkippedMarkerWarning")
def test_the_plan_refuses_what_simulate_refuses_and_counts_what_is_left(study):
    assert make_plan(study(EIGHT, "FDI [uV]\n" + "5\n" * 8)).trials == 7
    with pytest.raises(InputError, match=r"meps\.csv, line 2, column 'pose': found 8"):
        make_plan(study(EIGHT, "pose,FDI [uV]\n8,5\n"))


BALL = """name = "a"
[head]
source = "ball.npz"
hand_knob_mm = [0, 0, 20]
[head.mesh]
fine_mm = 6
[volume]
n = 32
[solver]
order = 1
"""


@pytest.fixture
def ball(tmp_path, monkeypatch):
    """A study of a ball of 36 mm, grey matter but for its skin, with one pose over it and others that are asked for."""
    monkeypatch.chdir(tmp_path)
    grid = np.stack(np.meshgrid(*[np.arange(-42, 43, 6.0)] * 3, indexing="ij"))
    radius = np.linalg.norm(grid, axis=0)
    affine = np.diag([6.0, 6, 6, 1])
    affine[:3, 3] = -42
    labels = np.where(radius <= 30, 2, np.where(radius <= 36, 5, 0)).astype(np.uint8)
    np.savez(tmp_path / "ball.npz", labels=labels, affine=affine)

    def make(*centres_mm, coil="dipole"):
        matrices = [np.diag([1.0, -1, -1, 1]) for _ in centres_mm]
        for matrix, centre in zip(matrices, centres_mm):
            matrix[:3, 3] = np.array(centre) * 1e-3
        write_poses(tmp_path / "poses.csv", map(Pose, matrices))
        toml = BALL + f'[coil]\nsource = "{coil}"\n[poses]\nfile = "poses.csv"\n'
        (tmp_path / "study.toml").write_text(toml)
        config = load_study_config(tmp_path / "study.toml")
        return Study(config.folder), config

    return make


def test_a_store_is_made_once_and_tells_of_its_poses(ball, monkeypatch):
    study, config = ball((0, 0, 50), (5, 0, 50), (0, 0, 50))
    prepare_volumes(study, config)
    notes = open_volumes(study).attrs["notes"]
    assert (notes["pose_names"], notes["pose_markers"]) == (["", ""], [0, 1])
    assert notes["unknowns"] == notes["head_nodes"]
    # whoever takes up a study has the unknowns from the store: to number a head's nodes again takes seconds
    monkeypatch.delattr(prepare, "build_space")
    prepare_volumes(study, config)
    assert open_volumes(study).attrs["notes"] == notes


def test_poses_that_cannot_be_simulated_are_refused_before_there_is_a_store(ball, tmp_path):
    study, config = ball((0, 0, 50), (0, 0, 300), (0, 0, 30))
    with pytest.raises(PoseError, match=r"^pose 1 \(marker 1\) and 1 more of 3 poses .* mm from the scalp; no stim"):
        prepare_volumes(study, config)
    affine = np.array([[10.0, 0, 0, -50], [0, 10, 0, -50], [0, 0, 10, -10], [0, 0, 0, 1]])
    nibabel.Nifti1Image(np.full((11, 11, 11, 3), 1e-6, np.float32), affine).to_filename(tmp_path / "field.nii.gz")
    study, config = ball((0, 0, 50), (20, 0, 50), coil="field.nii.gz")
    with pytest.raises(PoseError, match=r"^pose 1 \(marker 1\) of coil 'field': the head reaches \d mm out of the"):
        prepare_volumes(study, config)
    assert not study.volumes.exists()
