import shutil

import numpy as np
import pytest
import xarray as xr
from motorsweep.errors import GridMismatchError, InputError, StoreError
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.datasets import consolidate
from motorsweep.zarr_store.schema import SCHEMA_VERSION, VOLUME_DIMS, Method, Status
from motorsweep.zarr_store.volumes import (
    create_volumes,
    open_volumes,
    pending_shards,
    read_status,
    read_volumes,
    verify_volumes,
    write_shard,
)

D, F, P = Status.DONE, Status.FAILED, Status.PENDING


def write(study, small, start, stop, status=None, **more):
    fields = np.stack([small.field_of(pose) for pose in range(start, stop)])
    write_shard(study, start, fields, status or [D] * (stop - start), **more)


def test_what_is_written_is_read_back_with_labels(study, small):
    small.make_volumes(study)
    assert pending_shards(study) == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 18)]
    for start, stop in pending_shards(study):
        size = stop - start
        write(
            study, small, start, stop, iterations=np.arange(size), residual=np.full(size, 1e-11), seconds=[0.5] * size
        )
    volumes = open_volumes(study)
    assert volumes.e_norm.dims == VOLUME_DIMS
    assert volumes.e_norm.dtype == np.float32
    assert volumes.e_norm.chunks[0] == (4, 4, 4, 4, 2)  # lazy, one shard at a time
    expected = np.stack([small.field_of(pose) for pose in range(small.POSES)])
    np.testing.assert_array_equal(volumes.e_norm, expected)
    np.testing.assert_array_equal(volumes.status, np.full(small.POSES, D))
    np.testing.assert_array_equal(volumes.iterations[:4], [0, 1, 2, 3])
    np.testing.assert_array_equal(volumes.seconds, 0.5)
    np.testing.assert_allclose(volumes.pose_matrix[5, :, 3], [5e-3, 0, 0, 1])
    np.testing.assert_allclose(volumes.x, 0.01 + (np.arange(6) - 2.5) * 2e-3)
    np.testing.assert_array_equal(volumes.tissue, 2)
    assert volumes.motor_mask.dtype == bool
    np.testing.assert_array_equal(read_volumes(study, [17, 3, 3]), expected[[17, 3, 3]])
    assert pending_shards(study) == []
    xr.testing.assert_identical(open_volumes(study.folder).load(), open_volumes(study.volumes).load())


def test_the_store_explains_itself(study, small):
    store_id = small.make_volumes(study, notes={"made for": "a test"})
    volumes = open_volumes(study)
    assert "pose_matrix" in volumes.coords
    assert volumes.attrs["id"] == store_id
    assert volumes.attrs["motorsweep_schema"] == SCHEMA_VERSION
    assert volumes.attrs["head_id"] == "head-a"
    assert volumes.attrs["didt_a_per_s"] == 1e6
    assert {volumes[dim].attrs["units"] for dim in "xyz"} == {"m"}
    assert volumes.e_norm.attrs["units"] == "V m-1"
    assert "1 A/us" in volumes.e_norm.attrs["comment"]
    assert volumes.status.attrs["flag_meanings"] == "pending done failed"
    assert all({"units", "long_name"} <= v.attrs.keys() for v in volumes.variables.values())
    assert "electric field" not in repr(volumes.attrs["notes"])


def test_how_each_field_was_found_is_kept_with_its_error(study, small):
    small.make_volumes(study)
    how = [Method.MODES, Method.DIRECT, Method.ITERATIVE, Method.NONE]
    errors = [2e-4, np.nan, np.nan, np.nan]
    write(study, small, 0, 4, [D, D, D, F], method=how, error_estimate=errors, reason=["", "", "", "diverged: it did"])
    write(study, small, 4, 8)
    volumes = open_volumes(study)
    assert volumes.method.values[:8].tolist() == [3, 1, 2, 0, 0, 0, 0, 0]
    assert volumes.method.attrs["flag_meanings"] == "none direct iterative modes"
    assert volumes.method.attrs["flag_values"] == [0, 1, 2, 3]
    np.testing.assert_array_equal(volumes.error_estimate[:8], errors + 4 * [np.nan])
    assert "brain tissue; NaN: solved exactly" in volumes.error_estimate.attrs["comment"]
    write(study, small, 0, 4, method=4 * [Method.DIRECT], error_estimate=4 * [np.nan])  # solved again, exactly
    assert open_volumes(study).method.values[:4].tolist() == 4 * [1]
    assert np.isnan(open_volumes(study).error_estimate).all()
    with pytest.raises(StoreError, match=r"error_estimate has the shape \(3,\)"):
        write(study, small, 0, 4, error_estimate=[0.1, 0.1, 0.1])


def test_stores_of_earlier_versions_go_on_without_the_method(study, small):
    store_id = small.make_volumes(study)
    for name in ("method", "error_estimate"):
        shutil.rmtree(study.volumes / name)
    consolidate(study.volumes, [])
    assert small.make_volumes(study) == store_id
    for start, stop in pending_shards(study):
        size = stop - start
        write(study, small, start, stop, method=[Method.MODES] * size, error_estimate=[1e-4] * size)
    assert "method" not in open_volumes(study)
    assert verify_volumes(study) == []
    assert pending_shards(study) == []


def test_components_are_kept_beside_the_magnitude(study, small):
    small.make_volumes(study, components=True)
    e_field = np.random.default_rng(0).normal(size=(2, 3, 6, 6, 6)).astype(np.float32)
    write_shard(study, 16, np.linalg.norm(e_field, axis=1), [D, D], e_field=e_field)
    np.testing.assert_array_equal(open_volumes(study).e_field.sel(component="z")[16:], e_field[:, 2])
    np.testing.assert_array_equal(read_volumes(study, [16], "e_field"), e_field[:1])
    with pytest.raises(StoreError, match="the store holds e_field"):
        write(study, small, 0, 4)


def test_a_failed_pose_is_a_row_with_its_reason(study, small):
    small.make_volumes(study)
    write(study, small, 0, 4, [D, F, D, P], reason=["", "diverged: residual 0.1 after 500 iterations", "", ""])
    volumes = open_volumes(study)
    assert str(volumes.reason[1].values) == "diverged: residual 0.1 after 500 iterations"
    assert np.isnan(volumes.e_norm[1]).all() and np.isnan(volumes.e_norm[3]).all()
    np.testing.assert_array_equal(volumes.e_norm[2], small.field_of(2))
    assert volumes.where(volumes.status == F, drop=True).reason.item().startswith("diverged")
    write(study, small, 4, 8, [F] * 4, reason=["bad_input"] * 4)  # an all-missing shard, of which Zarr writes no file
    assert (4, 8) not in pending_shards(study)
    assert pending_shards(study, retry_failed=True)[:2] == [(0, 4), (4, 8)]
    with pytest.raises(StoreError, match=r"failed poses without a reason \(row 1\)"):
        write(study, small, 8, 12, [D, F, D, D])
    with pytest.raises(StoreError, match=r"reading pose 1 .* not done"):
        read_volumes(study, [0, 1])


def test_a_zero_field_that_is_done_is_not_a_pose_that_was_never_written(study, small):
    small.make_volumes(study)
    write_shard(study, 0, np.zeros((4, 6, 6, 6)), [D] * 4)
    np.testing.assert_array_equal(open_volumes(study).e_norm[:4], 0)
    assert np.isnan(open_volumes(study).e_norm[4:]).all()
    assert read_status(study).tolist() == [1] * 4 + [0] * 14


def test_done_volumes_are_finite(study, small):
    small.make_volumes(study)
    fields = np.zeros((4, 6, 6, 6))
    fields[2, 1, 1, 1] = np.inf
    with pytest.raises(InputError, match="e_norm of pose 6 is marked done and is not finite"):
        write_shard(study, 4, fields, [D] * 4)
    assert (4, 8) in pending_shards(study)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 5), (2, 4), (0, 8), (16, 17), (12, 18), (20, 24)])
def test_part_of_a_shard_is_refused(study, small, start, stop):
    small.make_volumes(study)
    with pytest.raises(
        StoreError, match=r"not one whole shard of 4 poses out of 18.*lose each other's volumes.*pending"
    ):
        write(study, small, start, stop)
    assert len(pending_shards(study)) == 5


def test_volumes_of_another_grid_are_refused(study, small):
    small.make_volumes(study)
    with pytest.raises(GridMismatchError, match=r"shape \(4, 7, 7, 7\), the store takes \(4, 6, 6, 6\).*head head-a"):
        write_shard(study, 0, np.zeros((4, 7, 7, 7)), [D] * 4)
    with pytest.raises(StoreError, match=r"seconds has the shape \(3,\)"):
        write(study, small, 0, 4, seconds=[1.0] * 3)


def test_making_the_same_store_again_keeps_what_is_there(study, small):
    first = small.make_volumes(study)
    write(study, small, 0, 4)
    assert small.make_volumes(study, shard=7, mask=False, notes={"x": 1}) == first
    volumes = open_volumes(study)
    assert volumes.attrs["shard"] == 4
    assert not volumes.motor_mask.any()  # fields do not depend on the mask, so it may change
    assert pending_shards(study)[0] == (4, 8)
    assert not any(study.making.iterdir())


def test_a_store_made_for_something_else_is_refused_with_the_keys_that_differ(study, small):
    small.make_volumes(study)
    with pytest.raises(GridMismatchError, match=r"These keys differ: grid_id: .*another name or folder, or remove"):
        small.make_volumes(study, grid=VolumeGrid((0, 0, 0), spacing_m=2e-3, n=6))
    other = {"head_id": "head-b", "coil_id": "coil-a", "config": {"solver": {"rtol": 1e-8}}, "frame": "head"}
    with pytest.raises(
        StoreError, match=r"config.solver.rtol: the store has 1e-10, asked for is 1e-08; head_id"
    ) as caught:
        small.make_volumes(study, attrs=other)
    assert "coil_id" not in str(caught.value)
    with pytest.raises(StoreError, match="poses_id"):
        small.make_volumes(study, poses=17)
    with pytest.raises(StoreError, match="components: the store has False, asked for is True"):
        small.make_volumes(study, components=True)


def test_shapes_are_checked_before_anything_is_made(study, small):
    kinds = {"poses": np.zeros((0, 4, 4)), "tissue": np.zeros((6, 6, 6)), "motor_mask": np.zeros((6, 6, 6))}
    make = dict(grid=VolumeGrid((0, 0, 0), n=6), shard=4, attrs={}, **kinds)
    with pytest.raises(InputError, match=r"poses have the shape \(0, 4, 4\)"):
        create_volumes(study, **make)
    make["poses"] = np.eye(4)[None]
    with pytest.raises(InputError, match="0 poses per shard"):
        create_volumes(study, **{**make, "shard": 0})
    with pytest.raises(GridMismatchError, match=r"tissue has the shape \(5, 6, 6\)"):
        create_volumes(study, **{**make, "tissue": np.zeros((5, 6, 6))})
    assert not study.volumes.exists()


def test_a_missing_or_foreign_store_is_said_so(study, small):
    with pytest.raises(StoreError, match=r"found nothing there.*`motorsweep simulate STUDY.toml` makes it"):
        open_volumes(study)
    small.make_volumes(study)
    root = study.volumes / "zarr.json"
    root.write_text(root.read_text().replace('"motorsweep_schema": 1', '"motorsweep_schema": 99'))
    with pytest.raises(StoreError, match="motorsweep_schema is 99, this version reads 1"):
        pending_shards(study)
    root.write_text("{")
    with pytest.raises(StoreError, match="its metadata cannot be read"):
        open_volumes(study)


def test_a_store_that_would_unpickle_is_not_opened(study):
    study.volumes.mkdir(parents=True)  # Zarr format 2 can name a codec that unpickles, and with it run anything
    (study.volumes / ".zgroup").write_text('{"zarr_format": 2}')
    (study.volumes / "e_norm").mkdir()
    (study.volumes / "e_norm" / ".zarray").write_text(
        '{"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": null, "order": "C", '
        '"compressor": null, "filters": [{"id": "pickle"}]}'
    )
    with pytest.raises(StoreError, match=r"a folder without zarr.json"):
        open_volumes(study)


def test_a_study_of_100_000_poses_is_planned_without_writing_volumes(study, small):
    small.make_volumes(study, poses=100_000, shard=16)
    assert sum(1 for path in study.volumes.rglob("*") if path.is_file()) < 50
    todo = pending_shards(study)
    assert (len(todo), todo[0], todo[-1]) == (6250, (0, 16), (99_984, 100_000))
    write(study, small, 99_984, 100_000)
    assert len(pending_shards(study)) == 6249
    volumes = open_volumes(study)
    np.testing.assert_array_equal(volumes.e_norm[99_999], small.field_of(99_999))
    assert volumes.reason[99_999].values == "" and volumes.reason.dtype == object
