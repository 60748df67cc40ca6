import json
import os
import shutil
import time

import numpy as np
import pytest
import xarray as xr
import zarr
from motorsweep.errors import InputError, StoreError
from motorsweep.zarr_store import bases
from motorsweep.zarr_store.bases import (
    basis_id,
    basis_path,
    basis_spec_of,
    check_bases_folder,
    open_basis,
    read_basis,
    write_basis,
)
from motorsweep.zarr_store.ids import content_id

SPEC = {
    "head": {"source": "template", "conductivities": {"bone": 0.01}},
    "coil": "magstim-70mm",
    "region": {"radius_m": 0.03, "angle_deg": [-180.0, 180.0]},
    "tolerance": 1e-3,
    "grid": {"n": 64, "spacing_mm": 1.0},
    "elements": {"order": 2, "margin_mm": 8.0},
}


def some_arrays(modes=4, voxels=50, points=7):
    rng = np.random.default_rng(1)
    return {
        "fields": rng.normal(size=(modes, voxels, 3)).astype(np.float32),
        "voxels": np.arange(voxels, dtype=np.int64) * 3,
        "points": rng.normal(size=(points, 3)),
        "weights": rng.normal(size=(modes + 2, 3 * points)),
        "brain": rng.normal(size=(modes + 2, modes + 2)),
        "scale": np.array(1.5),
        "floor": np.array(1e-5),
        "singular_values": np.array([3.0, 2.0, 1.0]),
        "heldout_errors": np.array([1e-4, 2e-4]),
        "heldout_estimates": np.array([2e-4, 2e-4]),
        "heldout_others": np.array([3e-4, 3e-4]),
        "something_new": rng.normal(size=(2, 3)),
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "my bases"


def test_a_basis_comes_back_as_it_was(folder):
    arrays = some_arrays()
    made = write_basis(folder, arrays, SPEC, {"seconds": 12.5, "rank": 4})
    assert made == content_id(SPEC)
    path = basis_path(folder, SPEC)
    assert path == folder / f"{made}.zarr"
    held, spec, notes = read_basis(path, expected_spec=SPEC)
    assert spec == SPEC
    assert notes == {"seconds": 12.5, "rank": 4}
    assert held.keys() == arrays.keys()
    for name, array in arrays.items():
        assert held[name].dtype == array.dtype
        np.testing.assert_array_equal(held[name], array)
    assert basis_id(path) == made and basis_spec_of(path) == SPEC
    assert sorted(each.name for each in folder.iterdir()) == [path.name]


def test_a_basis_of_several_files_and_one_without_held_out_poses(folder, monkeypatch):
    monkeypatch.setattr(bases, "_BYTES_PER_CHUNK", 700)
    arrays = {**some_arrays(modes=5), "heldout_errors": np.zeros(0)}
    arrays |= {"heldout_estimates": np.zeros(0), "heldout_others": np.zeros(0)}
    write_basis(folder, arrays, SPEC)
    assert zarr.open_group(basis_path(folder, SPEC))["fields"].nchunks == 5
    held = read_basis(basis_path(folder, SPEC))[0]
    np.testing.assert_array_equal(held["fields"], arrays["fields"])
    assert held["heldout_errors"].shape == (0,)


def test_users_see_labels_and_units(folder):
    write_basis(folder, some_arrays(), SPEC, {"rank": 4})
    basis = open_basis(basis_path(folder, SPEC))
    assert basis.fields.dims == ("mode", "voxel", "component")
    assert basis.fields.attrs["units"] == "V m-1"
    assert basis.component.values.tolist() == basis.axis.values.tolist() == ["x", "y", "z"]
    assert "voxels" in basis.coords
    assert basis.something_new.dims == ("something_new_0", "something_new_1")
    assert all({"units", "long_name"} <= v.attrs.keys() for name, v in basis.variables.items())
    assert basis.attrs["spec"]["tolerance"] == 1e-3
    assert basis.attrs["motorsweep_schema"] == 1
    assert float(basis.heldout_errors.max()) == 2e-4
    np.testing.assert_array_equal(basis.fields.sel(component="y")[1], some_arrays()["fields"][1, :, 1])
    assert isinstance(basis, xr.Dataset)


def test_a_basis_that_is_there_is_left(folder):
    arrays = some_arrays()
    write_basis(folder, arrays, SPEC)
    write_basis(folder, {**arrays, "scale": np.array([9.0])}, SPEC)
    np.testing.assert_array_equal(read_basis(basis_path(folder, SPEC))[0]["scale"], 1.5)
    assert write_basis(folder, arrays, {**SPEC, "tolerance": 1e-2}) != content_id(SPEC)
    assert len(list(folder.iterdir())) == 2


WRITE = """
import sys
import numpy as np
from motorsweep.zarr_store.bases import write_basis
print("ready", flush=True)
sys.stdin.readline()
fields = np.random.default_rng(1).normal(size=(40, 20000, 3)).astype(np.float32)
print(write_basis(sys.argv[1], {"fields": fields, "voxels": np.arange(20000)}, {"head": "a"}))
"""


def test_processes_that_write_the_same_at_once_all_succeed(folder):
    import subprocess
    import sys

    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, folder], text=True, stdin=-1, stdout=-1, stderr=-1)
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    told = []
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        out, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err
        told.append(out.strip())
    assert told == 3 * [content_id({"head": "a"})]
    assert [each.name for each in folder.iterdir() if each.name != ".making"] == [f"{told[0]}.zarr"]
    assert list(folder.glob(".making/*")) == []
    assert read_basis(basis_path(folder, {"head": "a"}))[0]["fields"].shape == (40, 20000, 3)


def test_what_a_killed_writer_left_a_day_ago_is_cleared_and_nothing_else(folder):
    for name, age_s in (("old", 25 * 3600), ("new", 3600)):
        (folder / ".making" / name / "fields").mkdir(parents=True)
        os.utime(folder / ".making" / name, 2 * (time.time() - age_s,))
    write_basis(folder, some_arrays(), SPEC)
    assert [each.name for each in (folder / ".making").iterdir()] == ["new"]


def test_a_folder_that_takes_bases_is_made_and_left_empty(folder):
    check_bases_folder(folder)
    assert list(folder.iterdir()) == []
    (folder / "file").write_text("")
    with pytest.raises(StoreError, match=r"making a basis for .*file: .*run the same command again"):
        check_bases_folder(folder / "file")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"head": {"source": "sphere", "conductivities": {"bone": 0.01}}}, "head.source: template there, sphere asked"),
        ({"head": {"source": "template", "conductivities": {"bone": 0.008}}}, r"head.conductivities.bone: 0.01 there"),
        ({"coil": {"file": "abc"}}, "coil: magstim-70mm there.*coil.file: None there, abc asked for"),
        ({"region": {"radius_m": 0.02, "angle_deg": [-180.0, 180.0]}}, r"region.radius_m: 0.03 there, 0.02 asked for"),
        ({"tolerance": 1e-4}, "tolerance: 0.001 there, 0.0001 asked for"),
        ({"grid": {"n": 32, "spacing_mm": 1.0}}, "grid.n: 64 there, 32 asked for"),
        ({"elements": {"order": 1}}, "elements.margin_mm: 8.0 there, None asked for; elements.order: 2 there, 1"),
    ],
)
def test_a_basis_of_something_else_is_refused_by_name(folder, change, named):
    write_basis(folder, some_arrays(), SPEC)
    with pytest.raises(StoreError, match=rf"made for something else \(.*{named}.*Leave \[solver\] basis out"):
        read_basis(basis_path(folder, SPEC), expected_spec={**SPEC, **change})


def edit_metadata(path, change):
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata)
    (path / "zarr.json").write_text(json.dumps(metadata))


def in_array(name, **values):
    def change(metadata):
        metadata["consolidated_metadata"]["metadata"][name].update(values)

    return lambda path: edit_metadata(path, change)


def in_tiny_chunks(path):
    """A thousand million files, says its metadata; nobody may look for them."""
    in_array("fields", shape=[10**9, 50, 3])(path)
    edit_metadata(path, lambda metadata: metadata["attributes"]["arrays"].update(fields=[10**9, 50, 3]))


def in_root(change):
    return lambda path: edit_metadata(path, lambda metadata: change(metadata["attributes"]))


def truncate(path):
    file = path / "fields" / "c" / "0" / "0" / "0"
    os.truncate(file, file.stat().st_size // 2)


def flip_a_byte(path):
    file = path / "fields" / "c" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[100] ^= 0xFF
    file.write_bytes(data)


def write_nan(path):
    zarr.open_group(path)["weights"][1, 2] = np.nan


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (truncate, "fields is shorter than it was written"),
        (flip_a_byte, "fields cannot be read .*checksum do not match"),
        (lambda path: os.remove(path / "voxels" / "c" / "0"), "a file of voxels is missing"),
        (lambda path: shutil.rmtree(path / "fields" / "c"), "a file of fields is missing"),
        (write_nan, "weights holds NaN"),
        (
            lambda path: edit_metadata(path, lambda m: m["consolidated_metadata"]["metadata"].pop("points")),
            "points is missing",
        ),
        (in_root(lambda attrs: attrs.pop("arrays")), "its list of arrays is missing"),
        (in_root(lambda attrs: attrs["arrays"].update(weights=[6, 20])), r"weights has the shape \(6, 21\)"),
        (in_root(lambda attrs: attrs["spec"].update(tolerance=0.1)), "does not fit its id"),
        (in_root(lambda attrs: attrs.pop("spec")), "does not fit its id"),
        (in_tiny_chunks, "fields is in 250000000 pieces"),
        (lambda path: os.remove(path / "zarr.json"), "its zarr.json is missing"),
        (in_array("fields", shape=[10**9, 50, 3]), r"fields has the shape \(1000000000, 50, 3\)"),
    ],
)
def test_a_damaged_basis_is_refused(folder, damage, found):
    write_basis(folder, some_arrays(), SPEC)
    path = basis_path(folder, SPEC)
    damage(path)
    with pytest.raises(StoreError, match=rf"(?s)reading the basis at .*damaged \(.*{found}.*Delete that folder"):
        read_basis(path, expected_spec=SPEC)


def test_what_is_no_basis_is_refused(folder):
    with pytest.raises(StoreError, match="found nothing there"):
        read_basis(folder / "0123.zarr")
    write_basis(folder, some_arrays(), SPEC)
    path = basis_path(folder, SPEC)
    (path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match="its metadata cannot be read"):
        read_basis(path)


def test_half_a_basis_is_damaged_for_whoever_opens_it(folder):
    write_basis(folder, some_arrays(), SPEC)
    path = basis_path(folder, SPEC)
    in_array("fields", shape=[4, 49, 3])(path)
    with pytest.raises(StoreError, match=r"damaged \(.*conflicting sizes.*Delete that folder"):
        open_basis(path)
    (path / "zarr.json").unlink()
    for read in (basis_id, basis_spec_of, open_basis):
        with pytest.raises(StoreError, match=r"its zarr\.json is missing.*Delete that folder"):
            read(path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"brain": np.ones((6, 5))}, r"brain has the shape \(6, 5\), it must be square"),
        ({"brain": np.ones((5, 5))}, "brain has 5 along coefficient, weights has 6"),
        ({"weights": np.ones((6, 20))}, "weights has 20 samples, not 3 for each of 7 points"),
        ({"voxels": np.arange(49)}, "voxels has 49 along voxel, fields has 50"),
        ({"points": np.ones((7, 2))}, "points has 2 along axis"),
        ({"fields": np.ones((4, 150), np.float32)}, r"fields has the shape \(4, 150\), not one of mode, voxel"),
        ({"scale": np.array([np.nan])}, "scale holds NaN or infinity"),
        ({"fields": np.ones((4, 50, 3))}, "fields holds float64, not float32"),
        ({"voxels": np.arange(50, dtype=np.int32)}, "voxels holds int32, not int64"),
        ({"extra": np.array(["text"])}, "extra holds <U4, not numbers"),
        ({"component": np.ones(3)}, "'component' is no name for an array"),
        ({"a/b": np.ones(3)}, "'a/b' is no name for an array"),
    ],
)
def test_arrays_that_do_not_fit_are_not_written(folder, change, found):
    with pytest.raises(InputError, match=f"writing the basis .*: {found}"):
        write_basis(folder, {**some_arrays(), **change}, SPEC)
    assert not folder.exists()
