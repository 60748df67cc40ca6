"""A user's own positions and responses in one table, from the file to the scores."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from motorsweep import open_results, open_trials, open_volumes
from motorsweep.errors import ConfigError, InputError
from motorsweep.hpc.identity import trials_spec, volumes_spec
from motorsweep.hpc.stimuli import read_stimuli
from motorsweep.hpc.trials import check_responses
from motorsweep.jobs.config import load_study_config, parse_study
from motorsweep.jobs.plan import make_plan
from motorsweep.sim.pose import write_poses
from motorsweep.sim.position_columns import axes_matrix
from motorsweep.sim.rigid import Pose
from motorsweep.zarr_store.ids import content_id

from .conftest import TINY, changed

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/real_map.toml"
SHIFT_MM = np.array([88.0, 140.0, 128.0])


def nexstim_map(count=24, seed=0):
    """Positions on the cortex at the top of the layered sphere, in Nexstim's axes and mm, and responses in µV."""
    generator = np.random.default_rng(seed)
    flat = generator.uniform(-22, 22, (count, 2))
    points = np.c_[flat, np.sqrt(75**2 - (flat**2).sum(axis=1))]
    hotspot = np.exp(-((flat - [6, -4]) ** 2).sum(axis=1) / 200)
    mep = 900 * hotspot * np.exp(0.4 * generator.standard_normal(count))
    return points @ axes_matrix("LSA") + SHIFT_MM, np.where(mep > 50, mep, 0)


def written(path, positions, mep):
    rows = [f"{x:.1f};{y:.1f};{z:.1f};{v:.1f}" for (x, y, z), v in zip(positions, mep)]
    path.write_text("\n".join(["x_mm;y_mm;z_mm;MEP [uV]", *rows]) + "\n")


@pytest.fixture
def study(tmp_path):
    """A study file on a map; keys of its tables may be changed."""

    def make(positions=None, mep=None, **tables):
        own = nexstim_map()
        written(tmp_path / "map.csv", own[0] if positions is None else positions, own[1] if mep is None else mep)
        text = changed(TINY, poses__file='"map.csv"', poses__align='"hand-knob"', poses__axes='"LSA"')
        text = changed(text, responses__file='"map.csv"', stimulation__intensities_percent_rmt="[110]")
        text = changed(text, stimulation__trials="[1]", mappers__connections='["direct"]', mappers__synergies="1")
        (tmp_path / "study.toml").write_text(changed(text, **tables))
        return load_study_config(tmp_path / "study.toml")

    return make


def test_example_is_valid_and_plans(tmp_path, monkeypatch):
    written(tmp_path / "map.csv", *nexstim_map(50))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOTORSWEEP_MAP", str(tmp_path / "map.csv"))
    config = load_study_config(EXAMPLE)
    assert config.volume.n == 64 and config.poses.file == config.responses.file == str(tmp_path / "map.csv")
    assert (config.poses.align, config.poses.axes, config.mappers.connections) == ("hand-knob", "LSA", ("direct",))
    plan = make_plan(config)
    assert plan.trials == 50 and plan.stages[0].pending == 50
    monkeypatch.delenv("MOTORSWEEP_MAP")
    with pytest.raises(ConfigError, match="no variable MOTORSWEEP_MAP"):
        load_study_config(EXAMPLE)


def test_line_of_the_docs_makes_a_map_of_the_public_file(tmp_path, data_folder):
    (code,) = re.findall(r"\n    (awk .*?> map\.csv)\n", (ROOT / "docs/study-file.md").read_text(), re.S)
    folder = data_folder / "mep/grid_tms_maps"
    code = code.replace('"grid mappings.csv"', f'"{folder}/grid mappings.csv"')
    subprocess.run(["sh", "-c", code], cwd=tmp_path, check=True)
    (tmp_path / "study.toml").write_text(
        EXAMPLE.read_text().replace("$MOTORSWEEP_MAP", "map.csv").replace('name = "real-map"', 'name = "a"')
    )
    config = load_study_config(tmp_path / "study.toml")
    table = check_responses(config, 480)
    assert table.muscles == ("MEP",) and len(table.response) == 489
    assert table.response.max() < 10e-3 and 0.05 < (table.response > 50e-6).mean() < 0.6
    stimuli = read_stimuli(config)
    assert (len(stimuli.poses), len(stimuli.pose_of)) == (480, 489)
    np.testing.assert_array_equal(stimuli.poses[0].point_m, np.array([121.7, 204.6, 106.5]) * 1e-3)


def test_one_intensity_is_that_of_all_trials(study):
    table = check_responses(study(), 24)
    np.testing.assert_array_equal(table.intensity_percent_rmt, np.full(24, 110.0))
    several = study(stimulation__intensities_percent_rmt="[110, 120]", stimulation__trials="[1, 1]")
    with pytest.raises(InputError, match=r"24 of 24 stimuli .*if all were given at one intensity, name that alone"):
        check_responses(several, 24)


def test_ids_follow_what_changes_the_numbers(study):
    positions, mep = nexstim_map()
    ids = lambda config: (content_id(volumes_spec(config)), content_id(trials_spec(config)))  # noqa: E731
    volumes, trials = ids(study())
    other_mep = ids(study(mep=mep + 1))
    assert other_mep[0] == volumes and other_mep[1] != trials  # responses change no field
    for changes in (
        {"positions": positions + np.array([0.1, 0, 0])},
        {"poses__align": '"scalp"'},
        {"poses__angle_deg": "30.0"},
        {"poses__distance_mm": "5.0"},
        {"poses__align_centre_mm": "[88.0, 215.0, 128.0]"},
    ):
        assert ids(study(**changes))[0] != volumes, changes
    assert ids(study(poses__grid="5"))[0] == volumes  # a file takes the grid's place
    stronger = ids(study(stimulation__intensities_percent_rmt="[120]"))
    assert stronger[0] == volumes and stronger[1] != trials


def test_ids_of_grids_and_of_whole_poses_know_nothing_of_positions(study, tmp_path):
    assert "align" not in volumes_spec(study(poses__file='""', poses__align='"none"', poses__axes='"RAS"'))["poses"]
    write_poses(tmp_path / "whole.csv", [Pose(np.diag([1.0, -1, -1, 1]) + np.diag([0.1], 3))])
    spec = volumes_spec(study(poses__file='"whole.csv"', poses__align='"none"', poses__axes='"RAS"'))
    assert spec["poses"].keys() == {"file", "section"}
    with pytest.raises(InputError, match=r"whole\.csv: it holds whole poses, .* Remove the two keys"):
        read_stimuli(study(poses__file='"whole.csv"'))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('align = "hand-knob"', "align and axes are of positions in a file, but there is no file"),
        ('axes = "RRS"', r"axes is \"RRS\"; Give three letters|axes is 'RRS'; Give three letters"),
        ('file = "a.csv"\nalign = "handknob"', r"align is \"handknob\"; it must be .*did you mean hand-knob"),
        ('file = "a.csv"\nalign_centre_mm = [1.0, 2.0, 3.0]', 'align_centre_mm is given, but align is "none"'),
        ('file = "a.csv"\nalign = "scalp"\nalign_centre_mm = [1.0]', "align_centre_mm has too few numbers"),
    ],
)
def test_keys_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        parse_study(f'name = "a"\n[poses]\n{keys}\n')


@pytest.mark.slow
def test_a_study_of_positions_runs_to_its_end(study, command, tmp_path):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    config = study(validation__repeats="1", inputs__kinds='["e_norm"]')
    command("run", "study.toml", folder=tmp_path)
    folder = tmp_path / "studies/tiny"
    trials, volumes, results = (read(folder) for read in (open_trials, open_volumes, open_results))
    positions, mep = nexstim_map()
    assert trials.sizes["trial"] == len(mep) and trials["muscle"].values.tolist() == ["MEP"]
    np.testing.assert_allclose(trials["response"].values[:, 0] * 1e6, np.round(mep, 1), atol=1e-9)
    np.testing.assert_array_equal(trials["intensity_percent_rmt"].values, 110.0)
    assert trials.attrs["positions"].startswith("measured on another head: moved rigidly onto this one")
    centres = volumes["pose_matrix"].values[:, :3, 3] * 1e3
    here = (positions - positions.mean(axis=0)) @ axes_matrix("LSA").T + [0, 0, 75]
    unit = lambda points: points / np.linalg.norm(points, axis=1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(unit(centres), unit(here), atol=0.08)  # the plane is turned by a few degrees
    assert np.isfinite(results["nrmse"].values).all() and results.sizes["muscle"] == 1
    assert config.name == "tiny" and os.path.exists(folder / "report/index.html")
