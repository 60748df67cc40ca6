"""A study's basis, found or made, and the shards that it serves: a real head of few elements, real stores."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from motorsweep import open_volumes
from motorsweep.errors import ConvergenceError, InputError, PoseError, StoreError
from motorsweep.hpc.bases import load_basis, study_basis, study_region
from motorsweep.hpc.by_modes import memory_of_basis_gb, modes_tasks, serve_shard
from motorsweep.hpc.events import EventLog, read_events
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.farm import run_stage
from motorsweep.hpc.prepare import prepare_volumes, study_grid, study_head
from motorsweep.hpc.progress import Progress
from motorsweep.hpc.simulate import ShardResult, shard_tasks, solve_shard, write_failed_shard
from motorsweep.hpc.stimuli import study_poses
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.options import RunOptions
from motorsweep.jobs.plan import make_plan
from motorsweep.jobs.simulation import Simulation
from motorsweep.jobs.timeline import stage_rows
from motorsweep.sim import basis as making
from motorsweep.sim.coil import load_coil
from motorsweep.sim.pose import Pose
from motorsweep.sim.pose_region import PoseRegion
from motorsweep.sim.scalp import Scalp
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.zarr_store.bases import read_basis, write_basis
from motorsweep.zarr_store.schema import Method, Status
from motorsweep.zarr_store.shards import pending_shards, reset_volumes
from motorsweep.zarr_store.study import Study

SMALL = {"TRAINING": 80, "ADDED": 40, "MOST": 200, "HELD_OUT": 10, "FITTED": 100}
POSES, SHARD = 18, 5

STUDY = """name = "by-modes"
seed = 3
folder = "{folder}"
[head]
source = "{head}"
hand_knob_mm = [0.0, 0.0, 75.0]
[poses]
grid = 3
spacing_mm = 6.0
random = 9
random_radius_mm = 14.0
random_angle_deg = 180.0
[volume]
n = 32
spacing_mm = 2.0
components = {components}
[solver]
kind = "modes"
tolerance = {tolerance}
bases = "bases"
poses_per_shard = 5
{solver}
"""
REGION = "[solver.region]\nradius_mm = {}\nangle_deg = [-180, 180]\ndistance_mm = [3.0, 5.0]\ntilt_deg = 5.0\n"
WIDE, NARROW = REGION.format(15.0), REGION.format(9.0)


def tried(*_):
    """Stands where a basis is made."""
    raise PoseError("tried")


@pytest.fixture(scope="module", autouse=True)
def few_poses():
    """Bases of few poses: what is tested here is where they go."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(making, name, value)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with head models, and the bases that the tests share."""
    folder = tmp_path_factory.mktemp("by modes")
    layered_sphere(2).save_msh(folder / "head.msh")
    layered_sphere(2, (0.079, 0.083, 0.089, 0.095)).save_msh(folder / "other.msh")
    return folder


def config_of(
    place, folder, *, head="head.msh", tolerance=1e-2, components="false", solver="", region=WIDE, more="", seed=3
):
    text = (
        STUDY.format(folder=folder, head=head, tolerance=tolerance, components=components, solver=solver)
        + region
        + more
    )
    path = place / f"{os.path.basename(folder)}.toml"
    path.write_text(text.replace("seed = 3", f"seed = {seed}"))
    return load_study_config(path)


def begun(config):
    """Study of a config, with its volume store."""
    study = Study(config.folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    prepare_volumes(study, config)
    return study


def serve(study, config, basis):
    return [serve_shard(task) for task in modes_tasks(study, config, pending_shards(study), basis)]


def solve_the_rest(study, config):
    return [solve_shard(t) for t in shard_tasks(study, config, pending_shards(study), "direct", keep_modes=True)]


@pytest.fixture(scope="module")
def served(place):
    """A study served whole from its basis, and how each shard ended; not to be changed."""
    config = config_of(place, "served")
    study = begun(config)
    found = study_basis(study, config, "direct")
    return study, config, found, serve(study, config, found.path)


@pytest.fixture
def copied(served, tmp_path):
    """The same study in a folder of its own."""
    study, config, found, _ = served
    shutil.copytree(study.folder, tmp_path / "copy")
    return Study(tmp_path / "copy"), replace(config, folder=str(tmp_path / "copy")), found


@pytest.fixture(scope="module")
def exact(served):
    """Exact fields of the served study's poses."""
    study, config, _, _ = served
    head, grid = study_head(study, config), study_grid(config)
    solver = FieldSolver(head, load_coil("magstim-70mm"), SolverConfig(kind="direct"), region=grid)
    return solver.volumes(grid, [Pose(matrix) for matrix in open_volumes(study)["pose_matrix"].values])


def errors_of(volumes, exact):
    brain = np.isin(volumes["tissue"].values, (1, 2))
    found, truth = volumes["e_norm"].values[:, brain], np.linalg.norm(exact, axis=-1)[:, brain]
    return np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)


# ---- the basis ---------------------------------------------------------------------------------------------------


def test_a_basis_is_made_once_and_then_found(served):
    study, config, found, _ = served
    assert found.made and found.seconds > 0
    before = {path: path.stat().st_mtime_ns for path in study.bases.parent.rglob("bases/**/*")}
    told = []
    again = study_basis(study, config, "iterative", told.append)
    assert not again.made and again.path == found.path and again.seconds == pytest.approx(found.seconds)
    assert told == [], "nothing was solved"
    assert before == {path: path.stat().st_mtime_ns for path in study.bases.parent.rglob("bases/**/*")}
    note = json.loads(study.basis.read_text())
    assert note["path"] == found.path and f"{note['id']}.zarr" == os.path.basename(found.path)


def test_it_knows_what_it_was_made_for(served):
    study, config, found, _ = served
    arrays, spec, notes = read_basis(found.path)
    head, basis = study_head(study, config), load_basis(found.path)
    assert spec["head"] == head.id and spec["coil"] == load_coil("magstim-70mm").id
    assert spec["conductivities"]["4"] == [0.01] and set(spec["conductivities"]) == {"2", "3", "4", "5"}
    assert spec["elements"] == {"order": 2, "margin_mm": 8.0} and spec["tolerance"] == 1e-2
    assert basis.grid == study_grid(config) and basis.region == PoseRegion(**spec["region"])
    assert basis.region.contains([Pose(m) for m in open_volumes(study)["pose_matrix"].values], Scalp.of(head)).all()
    assert notes["training_poses"] == len(arrays["singular_values"]) and notes["head_name"] == "head"
    assert basis.rank == len(arrays["fields"]) and basis.tolerance == 1e-2
    assert memory_of_basis_gb(config, found.path) > 0.8 + 2 * arrays["fields"].nbytes / 1e9


def test_a_study_of_other_poses_in_the_same_region_shares_it(place, served):
    study, _, found, _ = served
    other = config_of(place, "of other poses", seed=4)
    second = begun(other)
    assert not np.array_equal(open_volumes(second)["pose_matrix"].values, open_volumes(study)["pose_matrix"].values)
    shared = study_basis(second, other, "direct")
    assert not shared.made and shared.path == found.path
    assert sum(result.done for result in serve(second, other, shared.path)) == POSES


def test_without_a_region_of_its_own_a_study_takes_that_of_its_poses(place):
    """Rounded, so that other poses of the same kind have the same, and its basis."""
    regions = []
    for seed in (3, 4):
        config = config_of(place, f"derived {seed}", region="", seed=seed)
        config = replace(config, poses=replace(config.poses, random_angle_deg=30.0))
        head, grid = study_head(Study(config.folder), config), study_grid(config)
        poses = study_poses(config, head)
        regions.append(study_region(config, grid, poses, Scalp.of(head)))
        assert regions[-1].contains(poses, head).all()
    assert regions[0] == regions[1]
    assert regions[0].radius_m == pytest.approx(0.015) and regions[0].angle_deg == (15.0, 75.0)


def test_a_basis_that_is_gone_is_made_again_the_same(copied, tmp_path):
    study, config, found = copied
    config = replace(config, solver=replace(config.solver, bases=str(tmp_path / "elsewhere")))
    again = study_basis(study, config, "direct")
    assert again.made and os.path.basename(again.path) == os.path.basename(found.path)
    one, other = read_basis(found.path)[0], read_basis(again.path)[0]
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


OTHER = {
    "head": ({"head": "other.msh"}, r"head: [0-9a-f]{16} there, [0-9a-f]{16} asked for"),
    "conductivity": (
        {"more": "[head.conductivities]\nbone = 0.02\n"},
        r"conductivities\.4: \[0\.01\] there, \[0\.02\] asked for",
    ),
    "coil": ({"more": '[coil]\nsource = "dipole"\n'}, r"\(coil: [0-9a-f]{16} there, [0-9a-f]{16} asked for\)"),
    "spacing": ({"text": ("spacing_mm = 2.0", "spacing_mm = 2.5")}, r"\(grid\.spacing_m: 0\.002 there, 0\.0025 asked"),
    "size": ({"text": ("n = 32", "n = 64")}, r"\(grid\.n: 32 there, 64 asked for\)"),
    "centre": (
        {"text": ("n = 32", "n = 32\ncentre_mm = [0.0, 1.0, 75.0]")},
        r"\(grid\.centre_m: \[0\.0, 0\.0, 0\.075\] ",
    ),
    "order": ({"solver": "order = 1"}, r"elements\.order: 2 there, 1 asked for"),
    "looser": ({"tolerance": 5e-3}, r"\(tolerance: 0\.01 there, 0\.005 asked for\)"),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_basis_for_something_else_is_refused_by_name(place, served, what):
    changes, message = OTHER[what]
    changes = dict(changes)
    old, new = changes.pop("text", ("", ""))
    given = f'basis = "{served[2].path}"\n' + changes.pop("solver", "")
    config = config_of(place, f"other {what}", solver=given, **changes)
    if old:
        path = place / f"other {what}.toml"
        path.write_text(path.read_text().replace(old, new))
        config = load_study_config(path)
    study = begun(config)
    with pytest.raises(StoreError, match=rf"made for something else.*{message}") as told:
        study_basis(study, config, "direct")
    assert "Leave [solver] basis out" in str(told.value) and "region" not in str(told.value)
    assert pending_shards(study) == [(0, 5), (5, 10), (10, 15), (15, 18)]


def test_a_tighter_basis_of_any_region_is_taken_where_it_is_given(place, served, exact):
    """Only what lies in its region is served."""
    _, _, found, _ = served
    config = config_of(place, "looser", tolerance=0.05, solver=f'basis = "{found.path}"')
    study = begun(config)
    assert study_basis(study, config, "direct") == replace(found, made=False)
    assert sum(result.done for result in serve(study, config, found.path)) == POSES
    assert (open_volumes(study)["error_estimate"].values <= 0.01).all()


def test_a_basis_that_does_not_say_what_it_is_for_is_refused(place, served, tmp_path):
    arrays, spec, _ = read_basis(served[2].path)
    broken = {"no region": {k: v for k, v in spec.items() if k != "region"}, "region of text": spec | {"region": "all"}}
    broken |= {
        "no tolerance": {k: v for k, v in spec.items() if k != "tolerance"},
        "of text": spec | {"tolerance": "x"},
    }
    for name, held in broken.items():
        made = write_basis(tmp_path, arrays, held)
        config = config_of(place, f"unsaid {name}", solver=f'basis = "{tmp_path / made}.zarr"')
        with pytest.raises(StoreError, match=r"does not say for which poses it was made.*leave \[solver\] basis out"):
            study_basis(begun(config), config, "direct")


def test_a_region_that_is_none_in_a_basis_is_told(place, served, tmp_path):
    arrays, spec, _ = read_basis(served[2].path)
    made = write_basis(tmp_path, arrays, spec | {"region": spec["region"] | {"radius_m": -1.0}})
    config = config_of(place, "minus", solver=f'basis = "{tmp_path / made}.zarr"')
    with pytest.raises((StoreError, InputError), match="radius_mm is -1000"):
        study_basis(begun(config), config, "direct")


@pytest.mark.parametrize("given", [False, True])
def test_a_damaged_basis_is_refused_with_a_sentence(place, served, tmp_path, given):
    bases = tmp_path / "bases"
    shutil.copytree(os.path.dirname(served[2].path), bases)
    path = bases / os.path.basename(served[2].path)
    text = f'basis = "{path}"' if given else ""
    config = config_of(place, f"damaged {given}", solver=text)
    config = replace(config, solver=replace(config.solver, bases=str(bases)))
    study = begun(config)
    chunk = next(each for each in sorted((path / "weights/c").rglob("*")) if each.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-100])
    message = r"it is damaged \(weights .*Delete that folder; `motorsweep simulate STUDY.toml` makes it again"
    with pytest.raises(StoreError, match=message):
        study_basis(study, config, "direct")
    with pytest.raises(StoreError, match=message):
        serve_shard(modes_tasks(study, config, [(0, 5)], str(path))[0])
    assert (open_volumes(study)["status"] == 0).all()
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"basis|damaged"):
        study_basis(study, config, "direct")
    (path / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"it is damaged \(its zarr\.json is missing\).*Delete that folder"):
        study_basis(study, config, "direct")


def in_root(change):
    return lambda metadata: change(metadata["attributes"])


def in_array(name, **values):
    return lambda metadata: metadata["consolidated_metadata"]["metadata"][name].update(values)


DAMAGE = {
    "no list": (in_root(lambda attrs: attrs.update(arrays={})), "brain, fields, floor, .* is missing"),
    "a list": (in_root(lambda attrs: attrs.update(arrays=["fields"])), "its list of arrays is missing"),
    "one left out": (in_root(lambda attrs: attrs["arrays"].pop("weights")), "weights is missing"),
    "spec": (in_root(lambda attrs: attrs.update(spec=None)), "what it was made for does not fit its id"),
    "type": (in_array("fields", data_type="int32", fill_value=0), "fields holds int32, not float32"),
    "other type": (in_array("voxels", data_type="uint64"), "voxels holds uint64, not int64"),
    "dimensions": (in_array("fields", dimension_names=["a", "b", "c"]), r"fields has the dimensions \('a', 'b', 'c'\)"),
    "size": (in_array("fields", shape=[3, 4, 3]), "fields has the shape"),
}


@pytest.mark.parametrize("key", ["bases", "basis"])
@pytest.mark.parametrize("what", DAMAGE)
def test_a_basis_whose_metadata_were_changed_is_refused_before_it_serves(place, served, tmp_path, what, key):
    change, found = DAMAGE[what]
    bases = tmp_path / "bases"
    shutil.copytree(os.path.dirname(served[2].path), bases)
    root = bases / os.path.basename(served[2].path) / "zarr.json"
    config = config_of(place, f"changed {what} {key}")
    named = {"bases": bases, "basis": root.parent}[key]
    config = replace(config, solver=replace(config.solver, **{key: str(named)}))
    study = begun(config)
    metadata = json.loads(root.read_text())
    change(metadata)
    root.write_text(json.dumps(metadata))
    for read in (lambda: study_basis(study, config, "direct"), lambda: load_basis(root.parent)):
        with pytest.raises(StoreError, match=rf"is damaged \(.*{found}.*Delete that folder"):
            read()


@pytest.mark.parametrize("notes", ["text", None, {"seconds": "long"}, {"seconds": [1]}, {}])
def test_notes_do_not_matter(place, served, tmp_path, notes):
    bases = tmp_path / "bases"
    shutil.copytree(os.path.dirname(served[2].path), bases)
    root = bases / os.path.basename(served[2].path) / "zarr.json"
    metadata = json.loads(root.read_text())
    metadata["attributes"]["notes"] = notes
    root.write_text(json.dumps(metadata))
    config = config_of(place, "of other notes")
    config = replace(config, solver=replace(config.solver, bases=str(bases)))
    found = study_basis(begun(config), config, "direct")
    assert (found.path, found.made, found.seconds) == (str(root.parent), False, 0.0)


def test_voxels_outside_the_grid_are_refused(served, tmp_path):
    """They are written to without a check of their own."""
    arrays, spec, _ = read_basis(served[2].path)
    for value in (-1, 32**3):
        voxels = arrays["voxels"].copy()
        voxels[7] = value
        made = write_basis(tmp_path, arrays | {"voxels": voxels}, spec | {"version": value})
        with pytest.raises(StoreError, match=rf"damaged \(.*its voxels are .*{value}.*, the grid has 32768"):
            load_basis(tmp_path / f"{made}.zarr")


def test_a_region_that_holds_none_of_the_poses_is_told_before_anything_is_solved(place, monkeypatch):
    monkeypatch.setattr("motorsweep.hpc.bases.make_basis", lambda *_: pytest.fail("it was made"))
    config = config_of(place, "of none", region=WIDE.replace("[3.0, 5.0]", "[8.0, 9.0]"))
    study = begun(config)
    with pytest.raises(
        PoseError, match=r"none of the study's 18 poses lies in \[solver.region\].* or mend its figures"
    ):
        study_basis(study, config, "direct")


def test_a_region_that_reaches_into_the_head_is_told_with_its_figures(place):
    """The coil's dipole lies 3 mm below its casing: none of the study's poses puts it into the head."""
    (place / "low.ccd").write_text("1\n0 0 0.003 0 0 1\n")
    region = WIDE.replace("[3.0, 5.0]", "[0.0, 5.0]")
    config = config_of(place, "into the head", region=region, more='[coil]\nsource = "low.ccd"\n')
    study = begun(config)
    message = r"it reaches into the head\. Raise the lower distance_mm, now 0, or make tilt_deg, now 5, smaller"
    with pytest.raises(PoseError, match=message):
        study_basis(study, config, "direct")
    assert not study.basis.exists() and pending_shards(study) == [(0, 5), (5, 10), (10, 15), (15, 18)]


def test_a_place_that_takes_no_basis_is_told_before_anything_is_solved(place, tmp_path, monkeypatch):
    monkeypatch.setattr("motorsweep.hpc.bases.make_basis", lambda *_: pytest.fail("it was made"))
    (tmp_path / "file").write_text("")
    config = config_of(place, "of no place")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        config = replace(config, solver=replace(config.solver, bases=str(folder)))
        with pytest.raises(StoreError, match=r"making a basis for .*file.*run the same command again"):
            study_basis(begun(config), config, "direct")


def test_settings_that_make_no_basis_can_be_changed_as_long_as_no_pose_is_done(place):
    """The errors say: raise tolerance, leave [solver.region] out, choose direct; that must work in the same folder."""
    made = []
    for changes in ({"tolerance": 1e-4}, {}, {"region": ""}):
        config = config_of(place, "changed", **changes)
        study = begun(config)
        made.append(open_volumes(study).attrs["volumes_id"])
        assert begun(config) == study and open_volumes(study).attrs["volumes_id"] == made[-1]
    assert len(set(made)) == 3 and not list(study.making.glob("*"))
    exact = replace(config, solver=replace(config.solver, kind="direct", poses_per_shard=2))
    assert make_plan(exact).stages[0].pending == POSES
    study = begun(exact)
    assert pending_shards(study)[:2] == [(0, 2), (2, 4)]
    solve_shard(shard_tasks(study, exact, [(0, 2)], "direct")[0])
    for again in (begun, make_plan):
        with pytest.raises(StoreError, match=r"made with other settings \(modes.*None there, .*"):
            again(config)
    assert (open_volumes(study)["status"].values[:3] == [1, 1, 0]).all()


def test_poses_that_no_few_modes_hold_are_told(copied, tmp_path, monkeypatch):
    study, config, _ = copied
    for name, value in {"TRAINING": 20, "ADDED": 10, "MOST": 30}.items():
        monkeypatch.setattr(making, name, value)
    config = replace(config, solver=replace(config.solver, bases=str(tmp_path / "none"), tolerance=1e-4))
    with pytest.raises(ConvergenceError, match=r'with 30 training poses.*choose kind = "direct"'):
        study_basis(study, config, "direct")
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").glob("*.zarr"))
    monkeypatch.setattr("motorsweep.hpc.bases.make_basis", tried)
    with pytest.raises(ConvergenceError, match=r"with 30 training poses.*An earlier run found this; delete .*basis"):
        study_basis(study, config, "direct")
    for tolerance, kind in [(2e-4, "direct"), (1e-4, "iterative")]:
        other = replace(config, solver=replace(config.solver, tolerance=tolerance))
        with pytest.raises(PoseError, match="tried"):
            study_basis(study, other, kind)
    study.basis.write_text('{"id": 3')
    with pytest.raises(PoseError, match="tried"):
        study_basis(study, config, "direct")


# ---- shards ------------------------------------------------------------------------------------------------------


def test_served_volumes_are_the_fields_of_their_poses(served, exact):
    study, _, _, results = served
    assert [(result.done, result.failed, result.left) for result in results] == [(5, 0, 0)] * 3 + [(3, 0, 0)]
    volumes = open_volumes(study)
    assert (volumes["status"] == int(Status.DONE)).all() and (volumes["method"] == int(Method.MODES)).all()
    estimates, errors = volumes["error_estimate"].values, errors_of(volumes, exact)
    assert (errors <= 1e-2).all() and (estimates <= 1e-2).all() and (estimates > 0).all()
    assert (estimates >= errors).mean() >= 0.9
    assert (volumes["iterations"] == -1).all() and np.isnan(volumes["residual"].values).all()
    assert (volumes["seconds"].values > 0).all() and (volumes["reason"] == "").all()


def test_served_again_they_stay_as_they_are(copied):
    study, config, found = copied
    before = open_volumes(study).load()
    (task,) = modes_tasks(study, config, [(5, 10)], found.path)
    assert serve_shard(task) == ShardResult(done=0, failed=0, left=0)
    after = open_volumes(study).load()
    for name in before.data_vars:
        np.testing.assert_array_equal(after[name].values, before[name].values, err_msg=name)


def test_poses_outside_the_region_are_left_and_then_only_they_are_solved(place, exact):
    config = config_of(place, "narrow", region=NARROW)
    study = begun(config)
    found = study_basis(study, config, "direct")
    basis, head = load_basis(found.path), study_head(study, config)
    poses = [Pose(matrix) for matrix in open_volumes(study)["pose_matrix"].values]
    inside = basis.region.contains(poses, Scalp.of(head))
    assert 4 <= inside.sum() <= 14, "some in, some out"
    good = inside & (basis.estimates(basis.coefficients(load_coil("magstim-70mm"), poses)) <= 1e-2)
    shards = pending_shards(study)
    results = serve(study, config, found.path)
    assert [r.done for r in results] == [good[a:b].sum() for a, b in shards]
    assert [r.left for r in results] == [(~good[a:b]).sum() for a, b in shards] and not any(r.failed for r in results)
    before = open_volumes(study).load()
    np.testing.assert_array_equal(before["status"].values == int(Status.DONE), good)
    assert (before["status"].values[~good] == int(Status.PENDING)).all()
    assert np.isnan(before["e_norm"].values[~good]).all()
    solved = solve_the_rest(study, config)
    assert sum(result.done for result in solved) == (~good).sum() and not any(r.failed for r in solved)
    after = open_volumes(study).load()
    assert (after["status"] == int(Status.DONE)).all() and pending_shards(study) == []
    for name in before.data_vars:
        if "pose" in before[name].dims:
            np.testing.assert_array_equal(after[name].values[good], before[name].values[good], err_msg=name)
    assert (after["method"].values == np.where(good, int(Method.MODES), int(Method.DIRECT))).all()
    assert (
        np.isnan(after["error_estimate"].values[~good]).all() and (after["error_estimate"].values[good] <= 1e-2).all()
    )
    assert (after["residual"].values[~good] < 1e-10).all() and np.isnan(after["residual"].values[good]).all()
    errors = errors_of(after, exact)
    assert (errors[~good] < 1e-6).all() and (errors[good] <= 1e-2).all() and errors[good].min() > 1e-6


def test_poses_over_the_tolerance_are_left(copied):
    study, config, found = copied
    estimates = open_volumes(study)["error_estimate"].values
    limit = float(np.median(estimates))
    reset_volumes(study, range(POSES))
    tasks = modes_tasks(study, config, pending_shards(study), found.path)
    results = [serve_shard(replace(task, tolerance=limit)) for task in tasks]
    good = estimates <= limit
    assert sum(r.done for r in results) == good.sum() == POSES // 2
    np.testing.assert_array_equal(open_volumes(study)["status"].values == int(Status.DONE), good)
    assert sum(result.done for result in solve_the_rest(study, config)) == (~good).sum()
    method = open_volumes(study)["method"].values
    np.testing.assert_array_equal(method, np.where(good, int(Method.MODES), int(Method.DIRECT)))


def test_a_shard_of_which_nothing_can_be_served_is_left_whole(copied):
    study, config, found = copied
    reset_volumes(study, range(POSES))
    (task,) = modes_tasks(study, config, [(15, 18)], found.path)
    assert serve_shard(replace(task, tolerance=1e-9)) == ShardResult(done=0, failed=0, left=3)
    assert pending_shards(study) == [(0, 5), (5, 10), (10, 15), (15, 18)]


def test_components_are_kept_too(place, exact):
    config = config_of(place, "components", components="true")
    study = begun(config)
    found = study_basis(study, config, "direct")
    assert not found.made, "the same basis whether or not components are kept"
    tasks = modes_tasks(study, config, pending_shards(study), found.path)
    serve_shard(tasks[0])
    serve_shard(replace(tasks[1], tolerance=1e-9))
    solve_shard(shard_tasks(study, config, [(5, 10)], "direct", keep_modes=True)[0])
    volumes = open_volumes(study).isel(pose=slice(0, 10)).load()
    assert volumes["method"].values.tolist() == [int(Method.MODES)] * 5 + [int(Method.DIRECT)] * 5
    field = np.moveaxis(volumes["e_field"].values, 1, -1)
    np.testing.assert_allclose(np.linalg.norm(field, axis=-1), volumes["e_norm"].values, rtol=1e-6)
    brain = np.isin(volumes["tissue"].values, (1, 2))
    apart = np.linalg.norm((field - exact[:10])[:, brain], axis=(1, 2)) / np.linalg.norm(exact[:10, brain], axis=(1, 2))
    assert (apart[:5] <= 1e-2).all() and (apart[5:] < 1e-6).all(), apart


def test_a_lost_exact_task_leaves_served_poses_alone(copied):
    study, config, found = copied
    before = open_volumes(study).load()
    reset_volumes(study, [6, 7])
    (task,) = shard_tasks(study, config, pending_shards(study), "direct", keep_modes=True)
    write_failed_shard(task, "crashed: the worker died 2 times")
    after = open_volumes(study).load()
    assert after["status"].values.tolist() == [1] * 6 + [2, 2] + [1] * 10
    others = np.delete(np.arange(POSES), [6, 7])
    for name in ("e_norm", "method", "error_estimate", "seconds"):
        np.testing.assert_array_equal(after[name].values[others], before[name].values[others])
    assert pending_shards(study) == [] and pending_shards(study, retry_failed=True) == [(5, 10)]
    (task,) = modes_tasks(study, config, [(5, 10)], found.path)
    assert serve_shard(task) == ShardResult(done=2, failed=0, left=0)
    again = open_volumes(study).load()
    np.testing.assert_array_equal(again["e_norm"].values[others], before["e_norm"].values[others])
    # Two poses are served with other rounding than five: products of other sizes, by kernels that fit the processor.
    found, were = (each["e_norm"].values[[6, 7]] for each in (again, before))
    np.testing.assert_allclose(found, were, rtol=0, atol=1e-5 * were.max())
    assert (again["reason"] == "").all()


def test_another_coil_in_the_place_of_the_studys_is_refused(copied):
    study, config, found = copied
    (task,) = modes_tasks(study, config, [(0, 5)], found.path)
    with pytest.raises(InputError, match="not the one that the study was begun with"):
        serve_shard(replace(task, coil_id="0" * 16))


# ---- the stage ---------------------------------------------------------------------------------------------------


def simulated(study, config, dying=(), retry_failed=False):
    """Run the stage where serving some shards finds no memory: its last words, and all that it said."""
    said = []

    def farm(verb, function, tasks, unit, memory_gb, on_outcome=None):
        def run(task):
            if function is serve_shard and task.start in dying:
                raise MemoryError(f"no room for {task.start}.")
            return function(task)

        with open_executor(ExecutorConfig(kind="serial")) as executor:
            run_stage(verb, run, tasks, executor, events, Progress(quiet=True), unit, on_outcome=on_outcome)

    events, options = EventLog(study.events), RunOptions(quiet=True, retry_failed=retry_failed)
    told = Simulation(study, config, events, options, farm, lambda verb, text: said.append(text)).run()
    assert (open_volumes(study)["status"] == int(Status.DONE)).all()
    return told, said


def test_shards_that_could_not_be_served_are_told_with_their_reason(copied):
    study, config, _ = copied
    reset_volumes(study, range(POSES))
    told, said = simulated(study, config, dying=(10, 15))
    assert told == "10 by modes, 8 solved exactly"
    lost = [text for text in said if text.endswith("; solved exactly")]
    assert lost == ["poses 10:15 by modes: out_of_memory: MemoryError: no room for 10; solved exactly"]
    assert not any("outside the basis's region" in text for text in said)
    pieces = stage_rows(read_events(study.events))[0]["Pieces"]
    assert pieces == f"{POSES} poses, 8 failed"


def test_failed_poses_of_a_shard_that_could_not_be_served_are_tried_again_when_asked(copied):
    study, config, found = copied
    reset_volumes(study, [15, 16, 17])
    write_failed_shard(modes_tasks(study, config, [(15, 18)], found.path)[0], "crashed: it died")
    assert (open_volumes(study)["status"].values[15:] == int(Status.FAILED)).all()
    told, _ = simulated(study, config, dying=(15,), retry_failed=True)
    assert told == "15 by modes, 3 solved exactly"


def test_leftover_poses_are_counted_once(place):
    config = config_of(place, "leftover", region=NARROW)
    study = begun(config)
    told, said = simulated(study, config)
    left = int((open_volumes(study)["method"].values == int(Method.DIRECT)).sum())
    assert 0 < left < POSES and told == f"{POSES - left} by modes, {left} solved exactly"
    assert f"{left} poses are outside the basis's region or over the tolerance: solved exactly" in said
    rows = {row["Stage"]: row for row in stage_rows(read_events(study.events))}
    assert rows["simulate"]["Pieces"] == f"{POSES} poses"
    ended = [e for e in read_events(study.events) if e["event"] == "stage" and e.get("state") == "finished"]
    assert [e["done"] for e in ended if e["verb"] == "simulate"] == [POSES - left, left]
