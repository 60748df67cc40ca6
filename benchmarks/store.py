"""Volumes per second written to and read from the store, by compression, beside Zarr's own default codec.

Run as ``python benchmarks/store.py``. The volumes are 64^3 fields of a magnetic dipole in folded tissue, piecewise
constant in 2 mm cells as finite elements give them and zero outside of the head.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import (
    COMPRESSIONS,
    create_volumes,
    open_volumes,
    pending_shards,
    read_volumes,
    write_shard,
)

N = 64


def field_like(count):
    """|E| (count, 64, 64, 64) float32, V/m, of a source that moves along x."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*[(np.arange(N) - 31.5) * 1e-3] * 3, indexing="ij")
    folds = 1 + 0.3 * np.sin(300 * x) * np.sin(250 * y) * np.cos(280 * z)
    fields = np.empty((count, N, N, N), np.float32)
    for i in range(count):
        distance2 = (x - 1e-3 * i) ** 2 + y**2 + (z - 0.04) ** 2 + 1e-6
        cells = np.kron(1 + 0.05 * rng.standard_normal((N // 2,) * 3), np.ones((2, 2, 2)))
        fields[i] = 1e-4 / distance2 * folds * cells
    fields[..., 48:] = 0
    return fields


def ours(folder, fields, shards, compression):
    """Seconds to write and to read back, and bytes per volume, through write_shard and read_volumes."""
    size = len(fields)
    poses = np.tile(np.eye(4), (size * shards, 1, 1))
    cube = np.ones((N, N, N))
    study = Study(folder)
    create_volumes(study, grid=VolumeGrid((0, 0, 0), n=N), poses=poses, shard=size, attrs={"head_id": "benchmark"},
                   tissue=cube, motor_mask=cube, compression=compression)  # fmt: skip
    start = time.perf_counter()
    for first, _ in pending_shards(study):
        write_shard(study, first, fields, [Status.DONE] * size, seconds=np.ones(size))
    written = time.perf_counter() - start
    start = time.perf_counter()
    for first in range(0, size * shards, size):
        volumes = read_volumes(study, np.arange(first, first + size))
    read = time.perf_counter() - start
    assert np.array_equal(volumes, fields)
    return written, read, bytes_of(study.volumes / "e_norm") / (size * shards)


def zarr_default(folder, fields, shards):
    """The same through a bare Zarr array with its default codec, without status or checks."""
    size = len(fields)
    array = zarr.create_array(str(folder / "plain.zarr"), shape=(size * shards, N, N, N), chunks=(1, N, N, N),
                              shards=(size, N, N, N), dtype="float32")  # fmt: skip
    start = time.perf_counter()
    for shard in range(shards):
        array[shard * size : (shard + 1) * size] = fields
    written = time.perf_counter() - start
    start = time.perf_counter()
    for shard in range(shards):
        array[shard * size : (shard + 1) * size]
    return written, time.perf_counter() - start, bytes_of(folder / "plain.zarr") / (size * shards)


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def plan_large(folder, count):
    """Seconds to make a store of `count` poses, to list what is pending while none and once nearly all is done."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    cube = np.ones((N, N, N))
    study = Study(folder)
    start = time.perf_counter()
    create_volumes(study, grid=VolumeGrid((0, 0, 0), n=N), poses=poses, shard=16, attrs={"head_id": "benchmark"},
                   tissue=cube, motor_mask=cube)  # fmt: skip
    yield "made", time.perf_counter() - start
    start = time.perf_counter()
    pending_shards(study)
    yield "pending listed, nothing done", time.perf_counter() - start
    zarr.open_group(study.volumes, mode="r+")["status"][: count - 16] = int(Status.DONE)
    start = time.perf_counter()
    assert len(pending_shards(study)) == 1
    yield "pending listed, all but one shard done", time.perf_counter() - start
    start = time.perf_counter()
    open_volumes(study)
    yield "opened as a Dataset", time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=8, help="shards of 16 volumes to write per case")
    parser.add_argument("--poses", type=int, default=100_000, help="poses of the large store that is planned")
    arguments = parser.parse_args()
    fields = field_like(16)
    total = 16 * arguments.shards
    folder = Path(tempfile.mkdtemp())
    try:
        reference = zarr_default(folder, fields, arguments.shards)
        rows = {"Zarr default (reference)": reference}
        rows |= {f"ours, {name}": ours(folder / name, fields, arguments.shards, name) for name in COMPRESSIONS}
        print(f"{'64^3 float32, shards of 16':30s} written/s   read/s  KiB/volume  write ratio")
        for name, (written, read, size) in rows.items():
            ratio = reference[0] / written
            print(f"{name:30s} {total / written:9.0f} {total / read:8.0f} {size / 1024:11.0f} {ratio:12.1f}")
        for what, seconds in plan_large(folder / "large", arguments.poses):
            print(f"{arguments.poses} poses: {what}: {seconds:.2f} s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
