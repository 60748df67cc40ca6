"""Studies by modes through the real command: one basis for many studies, whatever happens to them on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from motorsweep import open_volumes
from motorsweep.hpc.bases import load_basis
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import Head
from motorsweep.sim.pose import Pose
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.zarr_store.bases import read_basis
from motorsweep.zarr_store.schema import Method

STUDY = """name = "{name}"
seed = {seed}
[head]
source = "head.msh"
hand_knob_mm = [0.0, 0.0, 75.0]
[poses]
grid = 3
spacing_mm = 6.0
random = {random}
random_radius_mm = {radius}
random_angle_deg = 180.0
[volume]
n = 32
spacing_mm = 2.0
[solver]
kind = "{kind}"
tolerance = {tolerance}
poses_per_shard = {shard}
{solver}
[stimulation]
intensities_percent_rmt = [110]
trials = [12]
[responses]
muscles = ["FDI", "APB", "ADM"]
[responses.synthetic]
synergies = 2
[mappers]
synergies = 2
[executor]
kind = "serial"
workers = 1  # of the threads that make a basis: another number of them changes its last bits
"""
REGION = "[solver.region]\nradius_mm = 15.0\nangle_deg = [-180, 180]\ndistance_mm = {}\ntilt_deg = 0.0\n"
POSES, TOLERANCE = 49, 1e-2
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "map2000.toml"
DRAWN = 20


def errors_in_brain(found, exact, tissue):
    """Relative L2 difference of each pose's field over brain tissue."""
    brain = np.isin(tissue, (1, 2))
    found, exact = found[:, brain].astype(float), exact[:, brain].astype(float)
    difference, whole = (array.reshape(len(array), -1) for array in (found - exact, exact))
    return np.linalg.norm(difference, axis=1) / np.linalg.norm(whole, axis=1)


def compared(study, seed, count=DRAWN):
    """Poses by modes, drawn at random, and their exact fields: errors of |E| as stored, and of E, and estimates."""
    volumes = open_volumes(study)
    by_modes = np.flatnonzero(volumes["method"].values == int(Method.MODES))
    drawn = np.sort(np.random.default_rng(seed).choice(by_modes, min(count, len(by_modes)), replace=False))
    rows = volumes.isel(pose=drawn)
    poses = [Pose(matrix) for matrix in rows["pose_matrix"].values]
    basis, coil = load_basis(json.loads((study / "basis.json").read_text())["path"]), load_coil("magstim-70mm")
    head = Head.load(next((study / "cache").glob("head-*.npz")))
    solver = FieldSolver(head, coil, SolverConfig(kind="direct"), region=basis.grid)
    exact, tissue = solver.volumes(basis.grid, poses), rows["tissue"].values
    fields = basis.volumes(basis.coefficients(coil, poses))
    stored = rows["e_norm"].values
    np.testing.assert_allclose(stored, np.linalg.norm(fields, axis=-1), rtol=1e-4, atol=1e-4 * stored.max())
    of_norms = errors_in_brain(stored, np.linalg.norm(exact, axis=-1), tissue)
    return of_norms, errors_in_brain(fields, exact, tissue), rows["error_estimate"].values


def write_study(folder, name, *, seed=3, random=40, radius=14.0, kind="modes", tolerance=TOLERANCE, shard=7, solver=""):
    text = STUDY.format(
        name=name, seed=seed, random=random, radius=radius, kind=kind, tolerance=tolerance, shard=shard, solver=solver
    )
    (folder / f"{name}.toml").write_text(text)
    return f"{name}.toml"


def times_of(folder):
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def bases_in(folder):
    return [path.name for path in sorted(folder.glob("*")) if path.name != ".making"]


def same_volumes(one, other):
    """Bit for bit, but for the seconds that they took."""
    one, other = open_volumes(one).load(), open_volumes(other).load()
    assert one.data_vars.keys() == other.data_vars.keys()
    for name in set(one.data_vars) - {"seconds"}:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


def events_of(study):
    path = study / "events.jsonl"
    return (
        [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []
    )


def killed(command, folder, file, moment):
    """Run `motorsweep simulate` until a moment of its events, and kill it there."""
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "simulate", file, "--quiet"]
    process = subprocess.Popen(line, cwd=folder, env=command.environment, stdout=-3, stderr=-3)
    study, until = folder / "studies" / file.removesuffix(".toml"), time.monotonic() + 120
    while not any(map(moment, events_of(study))) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return study


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder of studies, with a head."""
    folder = tmp_path_factory.mktemp("studies by modes")
    layered_sphere(2).save_msh(folder / "head.msh")
    return folder


@pytest.fixture(scope="module")
def first(place, command):
    """The study that makes the basis of the others; not to be changed."""
    done = command("simulate", write_study(place, "first"), folder=place)
    return place / "studies/first", done


@pytest.fixture(scope="module")
def wide(place, first, command):
    """A study that is given the first one's basis, and has poses beyond its region too; not to be changed."""
    _, path = given(first)
    done = command("simulate", write_study(place, "wide", radius=18.0, shard=2, solver=path), folder=place)
    return place / "studies/wide", done


def given(first):
    path = json.loads((first[0] / "basis.json").read_text())["path"]
    return Path(path), f'basis = "{path}"'


# ---- one study, and more of its kind -----------------------------------------------------------------------------


def test_a_study_by_modes_says_what_it_did(first):
    study, done = first
    assert f"simulate  {POSES} poses done in" in done.stdout and "(49 by modes, 0 solved exactly)" in done.stdout
    basis = load_basis(given(first)[0])
    assert f": {basis.rank} modes, {len(basis.points)} sample points, held-out error 0." in done.stderr
    assert "basis made in" in done.stderr and "solved exactly" not in done.stderr
    assert [event["state"] for event in events_of(study) if event["verb"] == "basis"] == ["started", "finished"]


def test_its_fields_are_right_to_the_tolerance_and_labelled(first):
    study, _ = first
    of_norms, errors, told = compared(study, seed=1)
    assert (of_norms <= TOLERANCE).all() and (errors <= TOLERANCE).all(), errors.max()
    assert (told >= errors).all() and (told <= TOLERANCE).all() and np.median(told / errors) < 10
    volumes = xr.open_zarr(study / "volumes.zarr", consolidated=True)
    assert volumes["method"].attrs["flag_meanings"].split()[int(Method.MODES)] == "modes"
    assert volumes["error_estimate"].attrs["units"] == "1" and "NaN" in volumes["error_estimate"].attrs["comment"]
    xr.testing.assert_equal(volumes["error_estimate"].compute(), open_volumes(study)["error_estimate"].compute())


def test_workers_give_the_same_bits_from_the_same_basis(first, place, command):
    study, _ = first
    before = times_of(place / "studies/bases")
    file = write_study(place, "workers")
    done = command("simulate", file, "--executor", "local", "--workers", 2, folder=place)
    assert "basis found: " in done.stderr and "dashboard" in done.stderr
    assert times_of(place / "studies/bases") == before and bases_in(place / "studies/bases") == [given(first)[0].name]
    same_volumes(study, place / "studies/workers")


def test_other_poses_of_the_same_region_need_no_basis_of_their_own(first, place, command):
    study, _ = first
    before = times_of(place / "studies/bases")
    done = command("simulate", write_study(place, "other", seed=4), folder=place)
    assert f"basis found: {load_basis(given(first)[0]).rank} modes" in done.stderr
    assert "basis made" not in done.stderr and times_of(place / "studies/bases") == before
    assert not any(event["verb"] == "basis" for event in events_of(place / "studies/other"))
    held = [open_volumes(each)["pose_matrix"].values for each in (study, place / "studies/other")]
    assert not np.array_equal(*held)
    _, errors, told = compared(place / "studies/other", seed=2)
    assert (errors <= TOLERANCE).all() and (told >= errors).all()


def test_poses_outside_the_region_are_solved_exactly_and_counted(wide, first):
    study, done = wide
    volumes, basis = open_volumes(study).load(), load_basis(given(first)[0])
    head = Head.load(next((study / "cache").glob("head-*.npz")))
    poses = [Pose(matrix) for matrix in volumes["pose_matrix"].values]
    served = np.zeros(POSES, bool)
    served[basis.serve(load_coil("magstim-70mm"), poses, head, TOLERANCE)[0]] = True
    outside = ~basis.region.contains(poses, head)
    assert 5 < outside.sum() < POSES - 5 and not (served & outside).any()
    np.testing.assert_array_equal(volumes["method"], np.where(served, int(Method.MODES), int(Method.DIRECT)))
    estimates, residuals = volumes["error_estimate"].values, volumes["residual"].values
    assert np.isnan(estimates[~served]).all() and (estimates[served] <= TOLERANCE).all()
    assert np.isnan(residuals[served]).all() and (residuals[~served] < 1e-10).all()
    left = (~served).sum()
    assert f"{left} poses are outside the basis's region or over the tolerance: solved exactly" in done.stderr
    assert f"({served.sum()} by modes, {left} solved exactly)" in done.stdout
    assert "basis found" in done.stderr and not any(event["verb"] == "basis" for event in events_of(study))


@pytest.mark.slow
def test_a_plan_says_by_modes_and_why_and_ten_poses_pay_for_no_basis(first, place, command):
    plan = command("plan", "first.toml", folder=place).stdout
    assert "solver    modes: asked for" in plan and "basis" not in plan.partition("set-up:")[2].partition("\n")[0]
    fresh = command("plan", write_study(place, "planned", random=1991, kind="auto"), folder=place).stdout
    assert "solver    modes: 2000 poses reach the 1234" in fresh and "set-up: basis " in fresh
    ten = command("plan", write_study(place, "ten", random=1, kind="auto"), folder=place).stdout
    assert "10 poses are fewer than the 1234" in ten and "set-up: basis" not in ten


@pytest.mark.slow
def test_ten_poses_are_solved_without_a_basis(first, place, command):
    before = times_of(place / "studies/bases")
    done = command("simulate", write_study(place, "ten", random=1, kind="auto"), folder=place)
    assert "modes" not in done.stdout and times_of(place / "studies/bases") == before
    volumes = open_volumes(place / "studies/ten")
    assert (volumes["method"] == int(Method.DIRECT)).all() and np.isnan(volumes["error_estimate"].values).all()


@pytest.mark.slow
def test_where_no_basis_can_be_made_auto_solves_all_and_says_why(place, command):
    file = write_study(place, "no_basis", random=1230, kind="auto", shard=32, solver=REGION.format([6.0, 9.0]))
    done = command("simulate", file, folder=place)
    said = " ".join(done.stderr.split())
    assert "no basis of modes for these poses, so that all are solved exactly: " in said
    assert "none of the study's 1239 poses lies in [solver.region]" in said
    assert (open_volumes(place / "studies/no_basis")["method"] == int(Method.DIRECT)).all()


# ---- interrupted, and at the same time ---------------------------------------------------------------------------


def a_basis_in_the_making(event):
    return event["verb"] == "basis"


def shards_by_modes(event):
    return event["event"] == "task" and event["task"].startswith("poses 4:")


def shards_of_exact_poses(event):
    return event["event"] == "task" and "by modes" not in event["task"]


@pytest.mark.slow
def test_killed_while_the_basis_is_made_it_goes_on_to_the_same_bits(first, command, tmp_path):
    shutil.copy(first[0].parents[1] / "head.msh", tmp_path)
    file = write_study(tmp_path, "killed")
    study = killed(command, tmp_path, file, a_basis_in_the_making)
    assert bases_in(tmp_path / "studies/bases") == [] and (open_volumes(study)["status"] == 0).all()
    done = command("simulate", file, folder=tmp_path)
    assert "basis made in" in done.stderr and bases_in(tmp_path / "studies/bases") == [given(first)[0].name]
    same_volumes(study, first[0])
    one, other = (read_basis(each)[0] for each in (given(first)[0], tmp_path / "studies/bases" / given(first)[0].name))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [shards_by_modes, shards_of_exact_poses])
def test_killed_among_its_shards_it_goes_on_to_the_same_bits(wide, first, place, command, moment):
    file = write_study(place, moment.__name__, radius=18.0, shard=2, solver=given(first)[1])
    study = killed(command, place, file, moment)
    status = open_volumes(study)["status"].values
    assert 0 < (status == 1).sum() < POSES
    done = command("simulate", file, folder=place)
    assert "basis found" in done.stderr and f"all {POSES} poses" not in done.stdout
    same_volumes(study, wide[0])
    assert "all is well" in command("verify", file, folder=place).stdout


@pytest.mark.slow
def test_two_studies_that_make_the_same_basis_at_once_both_end_well(first, command, tmp_path):
    shutil.copy(first[0].parents[1] / "head.msh", tmp_path)
    files = [write_study(tmp_path, name) for name in ("one", "two")]
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "simulate"]
    both = [
        subprocess.Popen([*line, file], cwd=tmp_path, env=command.environment, stdout=-1, stderr=-1, text=True)
        for file in files
    ]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "(49 by modes, 0 solved exactly)" in out
    assert bases_in(tmp_path / "studies/bases") == [given(first)[0].name]
    assert list(tmp_path.glob("studies/bases/.making/*")) == []
    for name in ("one", "two"):
        same_volumes(tmp_path / "studies" / name, first[0])


# ---- what is refused ---------------------------------------------------------------------------------------------


def refused(command, place, *, code=1, more="", **study):
    """What the command says of a study that it refuses, in one line, before it solves anything."""
    name = f"refused-{len(list(place.glob('refused*.toml')))}"
    file = write_study(place, name, **study)
    (place / file).write_text((place / file).read_text() + more)
    done = command("simulate", file, "--quiet", folder=place, code=code)
    assert "Traceback" not in done.stderr and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    if (place / "studies" / name).exists():
        assert not any(event["event"] == "task" for event in events_of(place / "studies" / name))
    return done.stderr


@pytest.mark.slow
def test_a_damaged_basis_is_refused_and_made_again_when_it_is_gone(first, command, tmp_path):
    shutil.copy(first[0].parents[1] / "head.msh", tmp_path)
    path = tmp_path / "studies/bases" / given(first)[0].name
    shutil.copytree(given(first)[0], path)
    chunk = next(each for each in sorted((path / "fields/c").rglob("*")) if each.is_file())
    os.truncate(chunk, 1000)
    said = refused(command, tmp_path)
    assert f"reading the basis at {path}: it is damaged (fields is shorter than it was written)" in said
    assert "Delete that folder; `motorsweep simulate STUDY.toml` makes it again" in said
    shutil.rmtree(path)
    assert "basis made in" in command("simulate", "refused-0.toml", folder=tmp_path).stderr
    same_volumes(tmp_path / "studies/refused-0", first[0])


@pytest.mark.slow
def test_a_basis_of_another_conductivity_is_refused_by_name(first, place, command):
    said = refused(command, place, solver=given(first)[1], more="[head.conductivities]\nbone = 0.02\n")
    assert f"reading the basis {given(first)[0].stem} at" in said and "it was made for something else" in said
    assert "(conductivities.4: [0.01] there, [0.02] asked for" in said and "Leave [solver] basis out" in said


@pytest.mark.slow
def test_a_region_that_holds_no_pose_or_begins_in_the_head_is_refused(first, place, command):
    said = refused(command, place, code=2, solver=REGION.format([6.0, 9.0]))
    assert "none of the study's 49 poses lies in [solver.region]" in said and "Leave [solver.region] out" in said
    said = refused(command, place, code=2, solver=REGION.format([-1.0, 5.0]))
    assert "distance_mm is [-1.0, 5.0]; it must ascend from 0" in said


@pytest.mark.slow
def test_a_place_where_no_basis_can_be_kept_is_told_before_one_is_made(first, place, command):
    (place / "taken").write_text("")
    said = refused(command, place, solver='bases = "taken"')
    assert "making a basis for" in said and "taken" in said and "run the same command again" in said


@pytest.mark.slow
def test_a_tolerance_that_no_basis_reaches_is_told_in_a_sentence(first, command, place):
    said = refused(command, place, tolerance=1e-5)
    assert "with 800 training poses the worst held-out field is off by" in said
    assert "a tolerance of 1e-05 asks for a third of it" in said and 'or choose kind = "direct"' in said


# ---- the example -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_poses_of_the_example_agree_with_exact_solves(command, tmp_path):
    """The study of examples/map2000.toml as it is, and exact fields of 20 of its poses, drawn at random."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    shutil.copy(EXAMPLE, tmp_path)
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "simulate", EXAMPLE.name]
    done = subprocess.run(line, cwd=tmp_path, env=command.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    volumes = open_volumes(tmp_path / "studies/map2000")
    assert volumes.sizes["pose"] == 2000 and (volumes["status"] == 1).all()
    method, estimates = volumes["method"].values, volumes["error_estimate"].values
    served = method == int(Method.MODES)
    assert f"{served.sum()} by modes, {2000 - served.sum()} solved exactly" in done.stdout
    assert served.mean() > 0.95 and (estimates[served] <= 1e-3).all() and np.isnan(estimates[~served]).all()
    of_norms, errors, told = compared(tmp_path / "studies/map2000", seed=2000)
    print(f"errors of |E| {of_norms.max():.2g}, of E {errors.max():.2g}, estimates {told.min():.2g} {told.max():.2g}")
    assert len(errors) == DRAWN
    assert (of_norms <= 1e-3).all() and (errors <= 1e-3).all(), (of_norms.max(), errors.max())
    assert (told >= errors).all(), (told / errors).min()
