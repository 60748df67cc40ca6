import warnings
from pathlib import Path

import numpy as np
import pytest
from motorsweep.errors import InputError, StoreError
from motorsweep.hpc import solver_choice
from motorsweep.hpc.identity import volumes_spec
from motorsweep.hpc.solver_choice import basis_seconds, break_even_poses, pose_count, resolved_method
from motorsweep.hpc.stimuli import read_stimuli
from motorsweep.jobs.config import load_study_config
from motorsweep.sim.pose import Pose, write_poses
from motorsweep.zarr_store.bases import basis_path, write_basis
from motorsweep.zarr_store.ids import content_id

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def study(tmp_path):
    def load(text):
        (tmp_path / "study.toml").write_text('name = "a"\n' + text)
        return load_study_config(tmp_path / "study.toml")

    return load


def poses_file(folder, count):
    poses = []
    for i in range(count):
        matrix = np.diag([1.0, -1.0, -1.0, 1.0])
        matrix[:3, 3] = (1e-5 * i, 0.0, 0.1)
        poses.append(Pose(matrix))
    write_poses(folder / "poses.csv", [*poses, poses[0]])  # a place that comes twice is solved once


def test_break_even_is_where_the_seconds_are_equal():
    even = break_even_poses()
    exact, modes = (
        lambda n: solver_choice.EXACT_SECONDS * n,
        lambda n: basis_seconds() + solver_choice.MODES_SECONDS * n,
    )
    assert modes(even) <= exact(even)
    assert modes(even - 1) > exact(even - 1)
    assert modes(solver_choice.EARNED_FROM * even) == pytest.approx(
        exact(solver_choice.EARNED_FROM * even) / 2, rel=0.05
    )
    assert (even, basis_seconds()) == (617, 180.0)


@pytest.mark.parametrize(
    ("text", "method", "reason"),
    [
        ("[poses]\ngrid = 3\nrandom = 1", "exact", "10 poses are fewer than the 1234"),
        ("[poses]\nrandom = 1184", "exact", "1233 poses are fewer than the 1234"),
        ("[poses]\nrandom = 1185", "modes", "1234 poses reach the 1234 from which a basis saves half of the time"),
        ("[poses]\nrandom = 5000\n[solver]\nkind = 'direct'", "exact", "asked for"),
        ("[poses]\nrandom = 5000\n[solver]\nkind = 'iterative'", "exact", "asked for"),
        ("[poses]\ngrid = 1\n[solver]\nkind = 'modes'", "modes", "asked for"),
        ("[solver]\nbasis = 'a.zarr'", "modes", "a basis is given"),
    ],
)
def test_modes_must_earn_their_place(study, text, method, reason):
    choice = resolved_method(study(text))
    assert choice.method == method
    assert choice.reason.startswith(reason)
    assert choice.break_even == 617


def test_poses_of_a_file_are_counted_once_each(study, tmp_path):
    poses_file(tmp_path, 12)
    config = study("[poses]\nfile = 'poses.csv'")
    assert pose_count(config) == len(read_stimuli(config).poses) == 12
    poses_file(tmp_path, 13)
    assert pose_count(config) == 13
    (tmp_path / "poses.csv").unlink()
    with pytest.raises(InputError, match=r"reading .*poses\.csv: No such file.*check the path in the study file"):
        resolved_method(config)


def test_exact_studies_keep_the_ids_they_had(study):
    # What the ids were before there were modes; the numerics version is of that day, for raising it renames all.
    specs = {name: volumes_spec(load_study_config(EXAMPLES / f"{name}.toml")) for name in ("paper", "quick")}
    ids = {name: content_id(spec | {"numerics": 2}) for name, spec in specs.items()}
    assert ids == {"paper": "7a383933064b8e0d", "quick": "c3bcda04595795bf"}
    specs = [volumes_spec(study(f"[solver]\nkind = '{kind}'\ntolerance = 0.01")) for kind in ("direct", "iterative")]
    assert specs[0] == specs[1] == volumes_spec(study(""))
    assert "modes" not in specs[0]


REGION = "[solver.region]\nradius_mm = 30\nangle_deg = [-180, 180]\ndistance_mm = [4, 10]\ntilt_deg = 10"


def test_fields_by_modes_have_ids_of_their_own(study, tmp_path):
    modes = volumes_spec(study("[solver]\nkind = 'modes'"))
    assert modes["modes"] == {"tolerance": 0.001, "region": None}
    assert {**volumes_spec(study("")), "modes": modes["modes"]} == modes
    coarse = volumes_spec(study("[solver]\nkind = 'modes'\ntolerance = 0.01"))
    elsewhere = volumes_spec(study("[solver]\nkind = 'modes'\nbases = 'elsewhere'"))
    given = volumes_spec(study("[solver]\nkind = 'modes'\n" + REGION))
    assert given["modes"]["region"] == {
        "radius_mm": 30.0,
        "angle_deg": [-180.0, 180.0],
        "distance_mm": [4.0, 10.0],
        "tilt_deg": 10.0,
    }
    assert elsewhere == modes  # where a basis lies changes no field
    assert len({content_id(spec) for spec in (modes, coarse, given)}) == 3
    many = "[poses]\nrandom = 1900\n"
    assert volumes_spec(study(many)) == volumes_spec(study(many + "[solver]\nkind = 'modes'"))


def test_a_basis_that_is_given_is_part_of_the_id(study, tmp_path):
    made = write_basis(tmp_path, {"scale": np.ones(1)}, {"head": "a"})
    basis_path(tmp_path, {"head": "a"}).rename(tmp_path / "mine.zarr")
    config = study("[solver]\nbasis = 'mine.zarr'")
    assert volumes_spec(config)["modes"] == {"tolerance": 0.001, "region": None, "basis": made}
    with pytest.raises(StoreError, match=r"\[solver\] basis names .*nothing\.zarr, which is not there; put it"):
        volumes_spec(study("[solver]\nbasis = 'nothing.zarr'"))


def test_counting_warns_of_nothing(study, tmp_path):
    poses_file(tmp_path, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolved_method(study("[poses]\nfile = 'poses.csv'")).method == "exact"
