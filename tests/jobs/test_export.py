"""Fields of a study as files of other programs, and the facts and picture of a pose: the real commands."""

import dataclasses
import json
import os
import re
import shutil
import types
from pathlib import Path

import h5py
import meshio
import nibabel
import numpy as np
import pytest
import zarr
from motorsweep import open_volumes
from motorsweep.errors import ConfigError, InputError, MissingPackageError, StoreError
from motorsweep.hpc.export import element_fields, elements_in_cube, field_solver, stored_grid
from motorsweep.jobs import scene
from motorsweep.jobs.destination import check_destination
from motorsweep.jobs.export import OpenedStudy, export_study
from motorsweep.jobs.pose_facts import _notes, show_pose
from motorsweep.sim.pose import Pose
from motorsweep.sim.sphere_field import sphere_field
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.trials import open_trials
from PIL import Image

from .conftest import TINY, changed
from .test_scene import need_drawing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, command):
    """Folder of a study of four poses with components, of which only the fields are there; not to be changed."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    folder = tmp_path_factory.mktemp("simulated")
    text = changed(TINY, poses__grid="1", volume__components="true")
    (folder / "study.toml").write_text(text)
    command("simulate", "study.toml", folder=folder)
    return folder / "studies/tiny"


@pytest.fixture
def mine(simulated, tmp_path):
    """A copy of the study that may be changed: pose 1 failed, pose 2 was never solved."""
    folder = tmp_path / "mine"
    shutil.copytree(simulated, folder)
    group = zarr.open_group(folder / "volumes.zarr", mode="r+")
    group["status"][1:3] = [int(Status.FAILED), int(Status.PENDING)]
    group["residual"][2:3] = np.nan
    group["seconds"][2:3] = np.nan
    group["reason"][1:2] = np.array(["diverged: residual 1e-3"], dtype=object)
    return folder


def read_matrix(path):
    with h5py.File(path) as file:
        return {name: file[name][...] for name in file}, dict(file.attrs)


# ---- images ---------------------------------------------------------------------------------------------------------


def test_image_is_the_stored_volume_times_the_current(simulated, tmp_path):
    told = export_study(simulated, "nii.gz", pose=2, didt_a_per_us=1.5, out=tmp_path / "e.nii.gz")
    volumes, image = open_volumes(simulated), nibabel.load(told.path)
    np.testing.assert_allclose(image.get_fdata(), 1.5 * volumes["e_norm"].values[2], rtol=1e-6)
    assert image.header["descrip"].item().decode() == "|E| V/m at 1.5 A/us" and image.header["sform_code"] == 1
    places_m = nibabel.affines.apply_affine(image.affine, np.argwhere(np.ones(image.shape))) * 1e-3
    np.testing.assert_allclose(places_m, stored_grid(volumes).points(), atol=1e-8)


def test_components_are_a_vector_image_and_turn_with_the_current(simulated, tmp_path):
    out = tmp_path / "e.nii"
    export_study(simulated, "nii.gz", pose=0, didt_a_per_us=-2, components=True, out=out)
    stored = np.moveaxis(open_volumes(simulated)["e_field"].values[0], 0, -1)
    np.testing.assert_allclose(nibabel.load(out).get_fdata(), -2 * stored, rtol=1e-6)


def test_components_that_were_not_kept_are_refused(finished, tmp_path):
    study = finished[0] / "studies/tiny"
    with pytest.raises(InputError, match=r"keeps \|E\| only.*components = true in \[volume\]"):
        export_study(study, "nii.gz", pose=0, components=True, out=tmp_path / "e.nii")
    with pytest.raises(InputError, match=r"keeps \|E\| only"):
        export_study(study, "e_matrix", components=True, out=tmp_path / "e.h5")


# ---- meshes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mesh_file(simulated, tmp_path_factory):
    path = tmp_path_factory.mktemp("mesh") / "pose.msh"
    return path, export_study(simulated, "msh", pose=3, out=path)


def test_mesh_holds_the_field_of_the_closed_form(mesh_file, simulated):
    """Sarvas' formula at the centres of the brain's elements under the coil: the field of a whole sphere."""
    path, told = mesh_file
    opened, mesh = OpenedStudy(simulated), meshio.read(path)
    head, coil = opened.solver.head, opened.solver.coil
    near = elements_in_cube(head, stored_grid(opened.volumes))
    placed = coil.placed(Pose(opened.volumes["pose_matrix"].values[3]))
    expected = sphere_field(head.nodes[head.tets[near]].mean(1), *placed)
    e = mesh.get_cell_data("E", "tetra")
    error = np.linalg.norm(e[near] - expected, axis=1) / np.linalg.norm(expected, axis=1).max()
    assert np.sqrt((error**2).mean()) < 0.04
    np.testing.assert_allclose(mesh.get_cell_data("magnE", "tetra"), np.linalg.norm(e, axis=1))
    assert told.facts["solved"].endswith(tuple("0123456789")) and f"{len(head.tets):,} elements" in told.content


def test_grid_for_paraview_holds_the_same_field_times_the_current(mesh_file, simulated, tmp_path):
    told = export_study(simulated, "vtu", pose=3, didt_a_per_us=2, out=tmp_path / "pose.vtu")
    first, second = meshio.read(mesh_file[0]), meshio.read(told.path)
    np.testing.assert_allclose(second.points, first.points)
    np.testing.assert_allclose(second.cell_data["E"][0], 2 * first.get_cell_data("E", "tetra"), rtol=1e-6, atol=1e-9)


# ---- matrix ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["motor_mask", "brain"])
def test_matrix_over_voxels_is_the_stored_field(of, simulated, tmp_path):
    told = export_study(simulated, "e_matrix", of=of, didt_a_per_us=0.5, out=tmp_path / "e.hdf5")
    volumes = open_volumes(simulated)
    mask = volumes["motor_mask"].values.astype(bool) if of == "motor_mask" else np.isin(volumes["tissue"], (1, 2))
    file, attrs = read_matrix(told.path)
    np.testing.assert_allclose(file["e_matrix"], 0.5 * volumes["e_norm"].values[:, mask], rtol=1e-6)
    np.testing.assert_array_equal(volumes["e_norm"].values[0][tuple(file["column"].T)] / 2, file["e_matrix"][0])
    np.testing.assert_allclose(nibabel.affines.apply_affine(file["affine"], file["column"]), file["point"])
    np.testing.assert_allclose(file["pose_matrix"][:, :3, :3], volumes["pose_matrix"].values[:, :3, :3])
    np.testing.assert_allclose(file["pose_matrix"][:, :3, 3], 1e3 * volumes["pose_matrix"].values[:, :3, 3])
    assert attrs["didt_a_per_s"] == 0.5e6 and attrs["coil"] == "magstim-70mm"
    assert told.poses == file["pose"].tolist() == [0, 1, 2, 3]


def test_matrix_over_elements_has_the_values_of_the_mesh(mesh_file, simulated, tmp_path):
    told = export_study(simulated, "e_matrix", of="elements", poses="2:", components=True, out=tmp_path / "e.h5")
    file, _ = read_matrix(told.path)
    mesh = meshio.read(mesh_file[0])
    np.testing.assert_allclose(file["e_matrix"][1], mesh.get_cell_data("magnE", "tetra")[file["column"]], rtol=1e-5)
    np.testing.assert_allclose(file["e_vector"][1], mesh.get_cell_data("E", "tetra")[file["column"]], atol=1e-5)
    centres_mm = mesh.points[mesh.get_cells_type("tetra")[file["column"]]].mean(1)
    np.testing.assert_allclose(file["point"], centres_mm)
    offset = np.abs(centres_mm - np.array(open_volumes(simulated).attrs["grid_centre_m"]) * 1e3)
    assert (offset <= 32.0).all() and np.isin(file["tissue"], (1, 2)).all() and told.poses == [2, 3]


def test_blocks_of_poses_do_not_change_the_field(simulated):
    opened = OpenedStudy(simulated)
    solver = field_solver(opened.study, opened.config, opened.volumes)
    matrices = opened.volumes["pose_matrix"].values
    some = np.arange(0, len(solver.head.tets), 97)
    whole, parts = (np.concatenate(list(element_fields(solver, matrices, some, block=size))) for size in (4, 3))
    np.testing.assert_allclose(whole, parts, rtol=1e-7, atol=1e-9)


def test_trials_that_share_a_pose_find_their_row_and_field(finished, tmp_path):
    """26 trials of 12 poses, of which ten are exported: E of a trial is that of its pose, times its dI/dt."""
    study = finished[0] / "studies/tiny"
    told = export_study(study, "e_matrix", poses="2:12", didt_a_per_us=0.5, out=tmp_path / "e.h5")
    (file, attrs), trials, volumes = read_matrix(told.path), open_trials(study), open_volumes(study)
    pose, row = trials["pose_index"].values, file["trial_row"]
    assert len(row) == 26 > len(set(pose)) and (pose < 2).any()
    np.testing.assert_array_equal(row, np.where(pose < 2, -1, pose - 2))
    np.testing.assert_allclose(file["trial_didt_a_per_us"], trials["didt"].values * 1e-6)
    np.testing.assert_array_equal(file["response"], trials["response"].values)
    assert [name.decode() for name in file["muscle"]] == ["FDI", "APB", "ADM"]
    here, mask = row >= 0, volumes["motor_mask"].values.astype(bool)
    e = file["e_matrix"][row[here]] * file["trial_didt_a_per_us"][here, None] / attrs["didt_a_per_us"]
    expected = volumes["e_norm"].values[pose[here]][:, mask] * trials["didt"].values[here, None] * 1e-6
    np.testing.assert_allclose(e, expected, rtol=1e-5)
    assert f"trials    {here.sum()} of 26 have their pose in the file: trial_row tells its row" in told.lines()
    assert "10 poses x" in told.content


def test_poses_without_a_field_are_left_out_and_named(mine, tmp_path):
    told = export_study(mine, "e_matrix", out=tmp_path / "e.h5")
    assert (told.poses, told.skipped) == ([0, 3], [1, 2])
    assert "left out  2 poses that have no field: 1, 2" in told.lines()
    assert read_matrix(told.path)[0]["pose"].tolist() == [0, 3]


# ---- what cannot be exported ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "choices", "message"),
    [
        ("stl", {"pose": 0}, "format 'stl' is not known; choose msh, vtu, nii.gz, e_matrix"),
        ("msh", {}, "holds one pose; name it with --pose"),
        ("nii.gz", {"pose": 0, "poses": "0:2"}, "holds one pose"),
        ("e_matrix", {"pose": 0, "poses": "0:2"}, "not both"),
        ("e_matrix", {"of": "skull"}, "'skull' are not known; choose motor_mask, brain, elements"),
        ("msh", {"pose": 4}, "pose 4: the study has the poses 0 to 3"),
        ("vtu", {"pose": -1}, "pose -1: the study has the poses 0 to 3"),
        ("msh", {"pose": 1}, r"pose 1: it failed \(diverged: residual 1e-3\).*--retry-failed"),
        ("nii.gz", {"pose": 2}, "pose 2: it is not solved yet; `motorsweep simulate STUDY.toml`"),
        ("e_matrix", {"pose": 1}, "pose 1: it failed"),
        ("e_matrix", {"poses": "1:3"}, "none of the 2 poses asked for has a field"),
        ("e_matrix", {"poses": "3:2"}, "names no range of this study's poses 0 to 3"),
        ("e_matrix", {"poses": "0:9"}, "STOP at most 4, such as 0:4"),
        ("e_matrix", {"poses": "1,2"}, "give START:STOP"),
        ("msh", {"pose": 0, "didt_a_per_us": 0.0}, "dI/dt is 0.0 A/us"),
        ("msh", {"pose": 0, "didt_a_per_us": float("nan")}, "dI/dt is nan"),
        ("msh", {"pose": 0, "of": "brain"}, "--of chooses the columns of e_matrix; a file of format msh has none"),
        ("vtu", {"pose": 0, "components": True}, "holds E along x, y and z always; leave --components out"),
        ("msh", {"pose": 0, "out": "pose.txt"}, r"pose.txt does not end in \.msh"),
        ("e_matrix", {"out": "pose.mat"}, r"does not end in \.hdf5 or \.h5"),
    ],
)
def test_what_cannot_be_exported_says_why(kind, choices, message, mine):
    with pytest.raises(InputError, match=message):
        export_study(mine, kind, **choices)
    assert not (mine / "exports").exists()


def inputs_of(folder):
    """A study file beside the files that it names, its study in another folder."""
    names = {"head": "ernie.msh", "coil": "mine.nii.gz", "poses": "poses.hdf5", "responses": "responses.h5"}
    text = TINY
    for table, name in names.items():
        (folder / name).write_text("precious")
        text = changed(text, **{f"{table}__{'source' if table in ('head', 'coil') else 'file'}": f'"{name}"'})
    (folder / "mask.nii").write_text("precious")
    text = changed(text, volume__mask_file='"mask.nii"', head__hand_knob_mm="[0, 0, 80]")
    return text, [*names.values(), "mask.nii"]


def test_files_that_the_study_needs_are_never_written_over(simulated, tmp_path, monkeypatch):
    """By their names, by links to them, and where only the study's folder is given."""
    text, names = inputs_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(simulated, "study")
    text = text.replace("seed = 3", 'seed = 3\nfolder = "study"')
    (tmp_path / "study.toml").write_text(text)
    os.symlink("mask.nii", "link.nii")
    for given in ("study.toml", "study"):
        opened = OpenedStudy(given)
        for name in names:
            with pytest.raises(InputError, match=rf"export: {name} is the file of the .* would be lost; give --out"):
                check_destination(name, opened, "export")
        with pytest.raises(InputError, match=r"lies in the study's own folder .*only exports is for such files"):
            check_destination("study/volumes.zarr/e.nii", opened, "export")
        check_destination("study/exports/e.nii", opened, "export")
        (tmp_path / "study/study.toml").write_text(text)
    with pytest.raises(InputError, match=r"link\.nii is the file of the motor mask"):
        check_destination("link.nii", OpenedStudy("study.toml"), "export")
    with pytest.raises(InputError, match=r"study\.toml is the study file"):
        check_destination(tmp_path / "study.toml", OpenedStudy("study.toml"), "show")
    assert all((tmp_path / name).read_text() == "precious" for name in names)
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("study/.*-e.nii"))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder.msh", r"folder\.msh is a folder; give --out the name of a file in it"),
        ("file/pose.msh", r"/file is a file, so nothing can be written in it"),
        ("none/pose.msh", r"there is no folder .*/none for pose\.msh; make it first"),
        ("n" * 250 + ".msh", r"cannot be written \(File name too long\)"),
        ("/proc/pose.msh", r"/proc/pose\.msh cannot be written \("),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_solve(out, message, simulated, tmp_path, command):
    if out.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("needs Linux")
    (tmp_path / "folder.msh").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="export: .*" + message):
        export_study(simulated, "msh", pose=0, out=tmp_path / out)
    with pytest.raises(InputError, match="show: .*" + message.replace("msh", "png")):
        show_pose(simulated, 0, out=tmp_path / out.replace("msh", "png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.msh", "folder.png"]
    if out == "file/pose.msh":
        done = command("export", simulated, "--pose", 0, "--format", "msh", "--out", out, folder=tmp_path, code=2)
        assert done.stderr.startswith("motorsweep: export: ") and done.stderr.count("\n") == 1
        done = command("show", simulated, 0, "--out", "pose.jpg", folder=tmp_path, code=2)
        assert done.stderr == (
            "motorsweep: show: pose.jpg does not end in .png, and the picture is a PNG; give --out such a name.\n"
        )


def test_study_without_fields_names_the_command(tmp_path, command):
    (tmp_path / "study.toml").write_text(TINY)
    told = command("export", "study.toml", "--pose", "0", "--format", "msh", folder=tmp_path, code=2).stderr
    assert "there is no study in" in told and "`motorsweep simulate STUDY.toml`" in told
    (tmp_path / "studies/tiny").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"`motorsweep simulate STUDY\.toml` makes it"):
        show_pose(tmp_path / "studies/tiny", 0)
    with pytest.raises(ConfigError, match="there is no study file in the folder"):
        OpenedStudy(tmp_path / "studies/tiny").config  # noqa: B018


def test_head_that_is_gone_and_another_coil_are_refused(mine):
    text = (mine / "study.toml").read_text()
    (mine / "study.toml").write_text(changed(text, coil__source='"dipole"'))
    with pytest.raises(InputError, match=r"coil dipole: it is not the one \(magstim-70mm\).*set \[coil\] source"):
        export_study(mine, "msh", pose=0)
    (mine / "study.toml").write_text(changed(text, coil__source='"data/mine.ccd"'))
    with pytest.raises(InputError, match=r"no such file.*give the study's TOML file in place of its folder"):
        export_study(mine, "msh", pose=0)
    for path in (mine / "cache").glob("head-*.npz"):
        path.unlink()
    with pytest.raises(StoreError, match=r"which simulate keeps, is gone; `motorsweep simulate STUDY\.toml` makes it"):
        export_study(mine, "msh", pose=0)


# ---- the commands ---------------------------------------------------------------------------------------------------


def test_export_command_writes_into_the_studys_folder(mine, command):
    done = command("export", mine, "--pose", 3, "--format", "nii.gz", "--didt", 2, folder=mine.parent)
    assert done.stdout.startswith("exported  pose 3: |E| (V/m) in 32,768 voxels, at 2 A/us") and not done.stderr
    done = command("export", mine, "--format", "e_matrix", "--poses", "0:1", "--json", folder=mine.parent)
    told = json.loads(done.stdout)
    assert Path(told["path"]) == mine / "exports/e_matrix-motor_mask-poses-0-1.hdf5" and told["poses"] == [0]
    assert "export 1/1 poses" in done.stderr
    assert sorted(path.name for path in (mine / "exports").iterdir()) == [
        "e_matrix-motor_mask-poses-0-1.hdf5", "pose-0003-2A-per-us.nii.gz",
    ]  # fmt: skip


def test_show_tells_of_a_pose_and_draws_it(mine, command):
    need_drawing()
    done = command("show", mine, 3, "--json", "--out", mine.parent / "a.png", folder=mine.parent)
    told = json.loads(done.stdout)
    assert told["picture"] == str(mine.parent / "a.png") and told["status"] == "done" and not done.stderr
    picture = Image.open(mine.parent / "a.png")
    assert picture.size == (1400, 1000) and np.asarray(picture.convert("L")).std() > 10


def test_facts_are_told_where_nothing_can_be_drawn(mine, monkeypatch):
    monkeypatch.setattr(scene.importlib.util, "find_spec", lambda name: None)
    facts = show_pose(mine, 3)
    (line,) = (line for line in facts.lines() if line.startswith("picture"))
    assert line.startswith("picture   not drawn: ") and "`make setup EXTRAS=view` installs it" in line
    assert facts.picture == "" and facts.peak_v_per_m > 0
    with pytest.raises(MissingPackageError, match="make setup EXTRAS=view"):
        show_pose(mine, 3, out=mine.parent / "a.png")
    (mine / "exports").write_text("a file")
    assert "is a file, so nothing can be written" in show_pose(mine, 3).not_drawn


def test_a_pose_out_of_range_is_told_alike(mine, command):
    for number in (4, -1):
        done = command("show", mine, number, folder=mine.parent, code=2)
        assert done.stderr == f"motorsweep: pose {number}: the study has the poses 0 to 3; give one of them.\n"


def test_more_than_the_coil_reaches_is_told(mine):
    volumes = zarr.open_group(mine / "volumes.zarr", mode="r+")
    volumes.attrs["notes"] = volumes.attrs["notes"] | {"coil_didt_max": 1.5e8}
    told = export_study(mine, "nii.gz", pose=0, didt_a_per_us=-200)
    assert "beware    magstim-70mm reaches 150 A/us by its file; -200 A/us is beyond it" in told.lines()
    assert Path(told.path).name == "pose-0000-minus-200A-per-us.nii.gz"
    assert export_study(mine, "nii.gz", pose=0, didt_a_per_us=150).facts == {}


def test_words_below_the_picture(simulated):
    facts = show_pose(simulated, 0, picture=False)
    wound, sampled = (types.SimpleNamespace(positions=np.zeros((n, 3)), segments=[]) for n in (1, 0))
    told = _notes(facts, wound)
    assert re.fullmatch(r"In grey matter within the mask: .* Grey: outside of the stored volume\.", told)
    assert _notes(facts, sampled).endswith("The coil is a sampled field: it has no windings to draw.")
    failed = dataclasses.replace(facts, status="failed", peak_v_per_m=None)
    assert _notes(failed, wound) == "No field: the pose failed."


def test_facts_of_a_pose_are_those_of_the_store(simulated):
    facts, volumes = show_pose(simulated, 2, picture=False), open_volumes(simulated)
    inside = volumes["motor_mask"].values.astype(bool) & (volumes["tissue"].values == 2)
    e_norm = np.where(inside, volumes["e_norm"].values[2], 0)
    ordered = np.sort(e_norm[inside])
    at = 0.999 * (len(ordered) - 1)
    assert facts.peak_v_per_m == pytest.approx(np.interp(at, np.arange(len(ordered)), ordered))
    index = np.argwhere(e_norm >= ordered[-(len(ordered) // 100)])
    places, weight = index * 2.0 + 1e3 * volumes["x"].values[0], e_norm[tuple(index.T)]
    places[:, 2] += 1e3 * (volumes["z"].values[0] - volumes["x"].values[0])
    np.testing.assert_allclose(facts.peak_mm, (places * weight[:, None]).sum(0) / weight.sum(), atol=0.1)
    matrix = volumes["pose_matrix"].values[2]
    np.testing.assert_allclose(facts.centre_mm, matrix[:3, 3] * 1e3, atol=1e-3)
    np.testing.assert_allclose(facts.handle, -matrix[:3, 1], atol=1e-3)
    # The scalp is a sphere of 95 mm, save for its facets.
    assert facts.scalp_mm == pytest.approx(np.linalg.norm(facts.centre_mm) - 95, abs=1.0)
    assert facts.residual == volumes["residual"].values[2] and facts.residual < 1e-10
    (field,) = (line for line in facts.lines() if line.startswith("field"))
    assert field.startswith("field     99.9th percentile of |E| in grey matter within the mask")


@pytest.mark.parametrize(("pose", "status", "reason"), [(1, "failed", "diverged: residual 1e-3"), (2, "pending", "")])
def test_pose_without_a_field_is_shown_as_far_as_it_is_known(pose, status, reason, mine):
    need_drawing()
    facts = show_pose(mine, pose)
    assert (facts.status, facts.reason, facts.peak_v_per_m) == (status, reason, None)
    assert Path(facts.picture) == mine / f"exports/pose-000{pose}.png" and Path(facts.picture).exists()
    assert facts.lines()[0] == f"pose      {pose}  ({status})"
    json.dumps(facts.as_dict(), allow_nan=False)
    with pytest.raises(InputError, match="pose 4: the study has the poses 0 to 3"):
        show_pose(mine, 4)
