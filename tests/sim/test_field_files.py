"""Fields written for other programs, read back by independent readers."""

import json
import os
import subprocess
import sys

import h5py
import meshio
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.sim.field_files import e_fields, write_e_matrix, write_field_msh, write_nifti, write_vtu
from motorsweep.sim.head import Head
from motorsweep.sim.msh_files import read_msh
from motorsweep.sim.pose import Pose
from motorsweep.sim.volume import VolumeGrid


@pytest.fixture(scope="module")
def cube():
    """A cube of 5 cm in 6 tetrahedra, of two tissues."""
    nodes = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * 0.05
    paths = [(0, a, b, 7) for a, b in ((1, 3), (3, 2), (2, 6), (6, 4), (4, 5), (5, 1))]
    tissue = np.array([1, 2, 2, 1, 2, 2], np.int16)
    tets = np.array(paths, np.int32)
    flipped = np.linalg.det(nodes[tets[:, 1:]] - nodes[tets[:, :1]]) < 0
    tets[flipped] = tets[flipped][:, [1, 0, 2, 3]]
    return Head(nodes, tets, tissue, np.ones(6))


@pytest.fixture
def e():
    return np.random.default_rng(2).normal(size=(6, 3))


def left_behind(folder):
    """Names of the files in a folder that are no finished ones."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# ---- meshes ---------------------------------------------------------------------------------------------------------


def test_msh_read_by_meshio_has_the_same_values(cube, e, tmp_path):
    potential = np.arange(8.0)
    write_field_msh(tmp_path / "pose.msh", cube, e_fields(e), {"v": potential, "A": np.outer(potential, [1, 2, 3])})
    mesh = meshio.read(tmp_path / "pose.msh")
    np.testing.assert_allclose(mesh.points, cube.nodes * 1e3)
    np.testing.assert_array_equal(mesh.get_cells_type("tetra"), cube.tets)
    np.testing.assert_array_equal(mesh.get_cell_data("E", "tetra"), e)
    np.testing.assert_array_equal(mesh.get_cell_data("magnE", "tetra"), np.linalg.norm(e, axis=1))
    np.testing.assert_array_equal(mesh.point_data["v"].ravel(), potential)
    np.testing.assert_array_equal(mesh.point_data["A"], np.outer(potential, [1, 2, 3]))


def test_msh_is_a_head_again(cube, e, tmp_path):
    write_field_msh(tmp_path / "pose.msh", cube, e_fields(e))
    nodes, tets, tag = read_msh(tmp_path / "pose.msh")[:3]
    assert Head(nodes, tets, tag, cube.conductivity).id == cube.id


def test_msh_read_by_gmsh_has_the_same_values(cube, e, tmp_path):
    """In a process of its own: the library of Gmsh has one state for all."""
    if subprocess.run([sys.executable, "-c", "import gmsh"], capture_output=True).returncode:
        pytest.skip("Gmsh's own library (pip install gmsh) is not here, or lacks libGLU or an X library")
    write_field_msh(tmp_path / "pose.msh", cube, e_fields(e), {"v": np.arange(8.0)})
    program = (
        "import sys, json, gmsh\n"
        "gmsh.initialize(); gmsh.option.setNumber('General.Terminal', 0); gmsh.open(sys.argv[1])\n"
        "views = {}\n"
        "for tag in gmsh.view.getTags():\n"
        "    name = gmsh.view.option.getString(tag, 'Name')\n"
        "    kind, tags, data, time, components = gmsh.view.getModelData(tag, 0)\n"
        "    views[name] = [kind, [int(t) for t in tags], [list(map(float, row)) for row in data], components]\n"
        "types, numbers, nodes = gmsh.model.mesh.getElements(3)\n"
        "print(json.dumps([views, [int(n) for n in numbers[0]]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "pose.msh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    views, numbers = json.loads(done.stdout.splitlines()[-1])
    assert sorted(numbers) == views["E"][1] == [1, 2, 3, 4, 5, 6]
    assert (views["E"][0], views["E"][3], views["v"][0]) == ("ElementData", 3, "NodeData")
    np.testing.assert_array_equal(views["E"][2], e)
    np.testing.assert_array_equal(np.ravel(views["magnE"][2]), np.linalg.norm(e, axis=1))
    np.testing.assert_array_equal(np.ravel(views["v"][2]), np.arange(8.0))


def test_sections_have_the_layout_of_the_format(cube, e, tmp_path):
    """One string tag, one real tag, four integer tags: what the reader of SimNIBS insists on."""
    write_field_msh(tmp_path / "pose.msh", cube, {"E": e})
    text = (tmp_path / "pose.msh").read_bytes()
    section = text[text.index(b"$ElementData") :]
    header = b'$ElementData\n1\n"E"\n1\n0.0\n4\n0\n3\n6\n0\n'
    assert section.startswith(header) and section.endswith(b"\n$EndElementData\n")
    assert len(section) == len(header) + 6 * (4 + 3 * 8) + len(b"\n$EndElementData\n")


def test_vtu_is_in_mm_with_tissues(cube, e, tmp_path):
    write_vtu(tmp_path / "pose.vtu", cube, e_fields(e), {"v": np.arange(8.0)})
    mesh = meshio.read(tmp_path / "pose.vtu")
    np.testing.assert_allclose(mesh.points, cube.nodes * 1e3)
    np.testing.assert_array_equal(mesh.cell_data["E"][0], e)
    np.testing.assert_array_equal(mesh.cell_data["tissue"][0], cube.tissue)
    np.testing.assert_array_equal(mesh.point_data["v"], np.arange(8.0))


def test_vtu_read_by_vtk(cube, e, tmp_path):
    pyvista = pytest.importorskip("pyvista", exc_type=ImportError, reason="the extra view is not installed")
    write_vtu(tmp_path / "pose.vtu", cube, e_fields(e))
    grid = pyvista.read(tmp_path / "pose.vtu")
    np.testing.assert_array_equal(grid.cell_data["E"], e)
    assert grid.volume == pytest.approx(50.0**3)


@pytest.mark.parametrize("write", [write_field_msh, write_vtu])
@pytest.mark.parametrize("shape", [(5,), (6, 2), (6, 1, 3), (8, 3)])
def test_a_field_of_another_shape_is_refused_and_nothing_is_left(write, shape, cube, tmp_path):
    with pytest.raises(InputError, match=r"field 'E' is \(.*but the head has 6 elements.*give an array \(6,\)"):
        write(tmp_path / "pose.vtu", cube, {"E": np.zeros(shape)})
    with pytest.raises(InputError, match="head has 8 nodes"):
        write(tmp_path / "pose.vtu", cube, {}, {"v": np.zeros(6)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", 'a"b', "a\nb"])
def test_a_name_that_would_break_the_mesh_is_refused(name, cube, tmp_path):
    with pytest.raises(InputError, match="one line without quotation marks"):
        write_field_msh(tmp_path / "pose.msh", cube, {name: np.zeros(6)})


def test_a_write_that_fails_leaves_the_old_file(cube, e, tmp_path, monkeypatch):
    path = tmp_path / "pose.msh"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"writing the mesh .*pose\.msh: No space left") as raised:
        write_field_msh(path, cube, e_fields(e))
    assert raised.value.errno == 28 and path.read_text() == "old" and not left_behind(tmp_path)


# ---- images ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    centre=st.tuples(*[st.floats(-0.1, 0.1)] * 3),
    spacing=st.floats(2e-4, 5e-3),
    n=st.integers(1, 6),
    seed=st.integers(0),
)
def test_voxels_of_an_image_lie_where_those_of_the_grid_do(centre, spacing, n, seed, tmp_path_factory):
    grid = VolumeGrid(centre, spacing, n)
    values = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)
    path = tmp_path_factory.mktemp("image") / "e.nii.gz"
    write_nifti(path, grid, values, units="V/m at 1 A/us", name="|E|")
    image = nibabel.load(path)
    index = np.argwhere(np.ones(grid.shape))
    for affine in (image.get_sform(), image.get_qform(), image.affine):
        places_mm = nibabel.affines.apply_affine(affine, index)
        np.testing.assert_allclose(places_mm, grid.points() * 1e3, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)
    assert image.get_data_dtype() == np.float32


@pytest.mark.parametrize(("space", "code"), [("scanner", 1), ("aligned", 2), ("mni", 4)])
def test_image_says_units_and_space(space, code, tmp_path):
    grid = VolumeGrid((0, 0, 0.07), 1e-3, 4)
    vectors = np.random.default_rng(1).normal(size=(4, 4, 4, 3))
    write_nifti(tmp_path / "e.nii", grid, vectors, units="V/m at 1 A/us", name="E", space=space)
    image = nibabel.load(tmp_path / "e.nii")
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["descrip"].item() == b"E V/m at 1 A/us"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (code, code)
    assert image.shape == (4, 4, 4, 3)
    np.testing.assert_array_equal(image.get_fdata(), vectors.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros((4, 4, 5))}, r"values are \(4, 4, 5\), but the grid is \(4, 4, 4\)"),
        ({"values": np.zeros((3, 4, 4, 4))}, "components along a last axis"),
        ({"path": "e.img"}, r"ends in \.nii or \.nii\.gz"),
        ({"space": "t1"}, "space 't1' is not scanner"),
    ],
)
def test_image_refuses_what_does_not_fit(change, message, tmp_path):
    named = {"path": "e.nii", "values": np.zeros((4, 4, 4)), "space": "scanner"} | change
    with pytest.raises(InputError, match=message):
        write_nifti(
            tmp_path / named["path"], VolumeGrid((0, 0, 0), 1e-3, 4), named["values"], units="V/m", space=named["space"]
        )
    assert not list(tmp_path.iterdir())


# ---- matrix ---------------------------------------------------------------------------------------------------------


def poses_of(count):
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, 3] = np.random.default_rng(5).normal(scale=0.05, size=(count, 3))
    return [Pose(matrix) for matrix in matrices]


def test_matrix_of_blocks_is_that_of_the_whole(tmp_path):
    """37 poses in blocks that are no whole chunks: |E| is that of the components, to float32."""
    rows = np.random.default_rng(3).normal(size=(37, 50, 3))
    poses, columns = poses_of(37), np.arange(100, 150)
    blocks = (rows[start : start + 5] for start in range(0, 37, 5))
    write_e_matrix(
        tmp_path / "e.hdf5", blocks, poses=poses, columns=columns, didt=2e6, points_m=rows[0] * 0.01,
        tissue=np.full(50, 2), notes={"head": "ernie"},
    )  # fmt: skip
    with h5py.File(tmp_path / "e.hdf5") as file:
        assert file["e_matrix"].shape == (37, 50) and file["e_matrix"].dtype == np.float32
        np.testing.assert_allclose(file["e_matrix"][...], np.linalg.norm(rows, axis=2), rtol=1e-6)
        np.testing.assert_array_equal(file["e_vector"][...], rows.astype(np.float32))
        np.testing.assert_array_equal(file["column"][...], columns)
        np.testing.assert_allclose(file["point"][...], rows[0] * 10)
        np.testing.assert_allclose(file["pose_matrix"][:, :3, 3], [pose.centre_m * 1e3 for pose in poses])
        assert (file["tissue"][...] == 2).all()
        assert file["e_matrix"].attrs["units"] == "V/m" and file["point"].attrs["units"] == "mm"
        assert file.attrs["didt_a_per_s"] == 2e6 and file.attrs["head"] == "ernie"


def test_trials_find_their_row_and_their_field(tmp_path):
    """Six trials of four poses, three with one pose, one with a pose that is not there: E is at the trial's dI/dt."""
    rows = np.random.default_rng(4).normal(size=(3, 7, 3))
    pose, didt = [9, 4, 9, 5, 8, 9], np.array([1.0, 2.0, 3.0, -4.0, 5.0, 6.0]) * 1e7
    response = np.random.default_rng(5).random((6, 2))
    trials = {"pose": pose, "didt": didt, "response": response, "muscle": ["FDI", "ADM µ"]}
    write_e_matrix(
        tmp_path / "e.hdf5", rows, poses=poses_of(3), columns=np.arange(7), numbers=[4, 8, 9], didt=-2e6, trials=trials
    )
    with h5py.File(tmp_path / "e.hdf5") as file:
        row, per_us = file["trial_row"][...], file["trial_didt_a_per_us"][...]
        np.testing.assert_array_equal(row, [2, 0, 2, -1, 1, 2])
        np.testing.assert_allclose(per_us, [10, 20, 30, -40, 50, 60])
        np.testing.assert_array_equal(file["response"][...], response)
        assert [name.decode() for name in file["muscle"]] == ["FDI", "ADM µ"]
        assert file["response"].attrs["units"] == "V" and file["trial_didt_a_per_us"].attrs["units"] == "A/us"
        assert file["e_matrix"].attrs["rows"] == "poses" and file.attrs["didt_a_per_us"] == pytest.approx(-2)
        told = file.attrs["of_trials"]
        assert "E of trial i = e_vector[trial_row[i]] * trial_didt_a_per_us[i] / didt_a_per_us" in told
        factor = per_us / file.attrs["didt_a_per_us"]
        e = file["e_vector"][...][row[5]] * factor[5]
        np.testing.assert_allclose(e, rows[2] * 60 / -2, rtol=1e-6)
        np.testing.assert_allclose(file["e_matrix"][...][row[5]] * abs(factor[5]), np.linalg.norm(e, axis=1), rtol=1e-6)


def test_a_place_that_is_no_folder_is_an_error_that_names_it(tmp_path):
    """Neither the cleaning up nor HDF5 hides it."""
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=r"writing the matrix .*e\.hdf5: (File exists|Not a directory)"):
        write_e_matrix(tmp_path / "file/e.hdf5", np.ones((2, 5)), poses=poses_of(2), columns=np.arange(5))
    (tmp_path / "folder.hdf5").mkdir()
    with pytest.raises(OSError, match=r"writing the matrix .*folder\.hdf5: Is a directory"):
        write_e_matrix(tmp_path / "folder.hdf5", np.ones((2, 5)), poses=poses_of(2), columns=np.arange(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.hdf5"]


def test_matrix_over_voxels_gives_their_places(tmp_path):
    grid = VolumeGrid((0.01, -0.02, 0.05), 2e-3, 4)
    voxels = np.argwhere(np.random.default_rng(0).random(grid.shape) < 0.4)
    e = np.random.default_rng(1).random((2, len(voxels)))
    write_e_matrix(tmp_path / "e.hdf5", e, poses=poses_of(2), columns=voxels, affine=grid.affine())
    with h5py.File(tmp_path / "e.hdf5") as file:
        places_mm = nibabel.affines.apply_affine(file["affine"][...], file["column"][...])
        expected = grid.points().reshape(*grid.shape, 3)[tuple(voxels.T)] * 1e3
        np.testing.assert_allclose(places_mm, expected, atol=1e-12)
        np.testing.assert_array_equal(file["e_matrix"][...], e.astype(np.float32))
        assert "e_vector" not in file


def test_large_matrix_is_written_without_holding_it(tmp_path):
    """A matrix of 400 MB (400 poses, 250 000 elements) raises the memory of its process by less than 150 MB."""
    program = (
        "import resource, sys, numpy as np\n"
        "from motorsweep.sim.field_files import write_e_matrix\n"
        "block = np.ones((8, 250_000), np.float32)\n"
        "poses = np.tile(np.eye(4), (400, 1, 1))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "write_e_matrix(sys.argv[1], (block for _ in range(50)), poses=poses, columns=np.arange(250_000))\n"
        "print((peak() - before) / 1024)\n"
    )
    path = tmp_path / "e.hdf5"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150
    assert path.stat().st_size < 20e6  # compressed
    with h5py.File(path) as file:
        assert file["e_matrix"].shape == (400, 250_000) and file["e_matrix"][399, 249_999] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"e": np.ones((3, 5))}, r"rows 0 and on are \(3, 5\), but 2 rows"),
        ({"e": np.ones((1, 5))}, "1 rows came for 2 poses"),
        ({"e": np.ones((2, 4))}, r"but 2 rows of \(5,\) values"),
        ({"e": np.ones((2, 5, 2))}, "one value .or three. for each column"),
        ({"e": [np.ones((1, 5, 3)), np.ones((1, 5))]}, r"rows 1 and on are \(1, 5\)"),
        ({"e": [np.ones((1, 5)), np.full((1, 5), np.nan)]}, "row 1 holds NaN"),
        ({"columns": np.zeros((5, 2))}, r"columns are \(5, 2\)"),
        ({"columns": np.zeros(0)}, "at least one element's index"),
        ({"poses": np.eye(4)}, r"poses make an array \(4, 4\)"),
        ({"tissue": np.zeros(4)}, r"tissue is \(4,\); the columns need \(5,\)"),
        (
            {"trials": {"pose": [0, 1], "didt": [1.0], "response": np.ones((2, 1)), "muscle": ["FDI"]}},
            r"poses \(2,\), dI/dt \(1,\) and responses \(2, 1\) of 1 muscles",
        ),
        ({"points_m": np.zeros(5)}, r"point is \(5,\); the columns need \(5, 3\)"),
    ],
)
def test_matrix_refuses_what_does_not_fit_and_leaves_nothing(change, message, tmp_path):
    named = {"e": np.ones((2, 5)), "poses": poses_of(2), "columns": np.arange(5)} | change
    with pytest.raises(InputError, match=message):
        write_e_matrix(tmp_path / "e.hdf5", named.pop("e"), **named)
    assert not list(tmp_path.iterdir())
