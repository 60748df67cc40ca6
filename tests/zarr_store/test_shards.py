import os
import shutil
import signal
import time

import numpy as np
import pytest
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.volumes import (
    open_volumes,
    pending_shards,
    read_status,
    read_volumes,
    reset_volumes,
    verify_volumes,
    write_shard,
)

WRITE_SHARDS = """
import sys
import numpy as np
from motorsweep.zarr_store.volumes import pending_shards, write_shard
study, numbers = sys.argv[1], [int(word) for word in sys.argv[2].split(",")]
for number in numbers:
    start, stop = pending_shards(study, retry_failed=True)[0] if number < 0 else (number * 4, min(number * 4 + 4, 18))
    field = [(p * 1000 + np.arange(216)).reshape(6, 6, 6) for p in range(start, stop)]
    write_shard(study, start, np.array(field), [1] * (stop - start), seconds=[float(start)] * (stop - start))
    print(start, flush=True)
"""


def write_all(study, small):
    for start, stop in pending_shards(study):
        fields = np.stack([small.field_of(pose) for pose in range(start, stop)])
        write_shard(study, start, fields, [Status.DONE] * (stop - start))


def assert_whole(study, small):
    assert pending_shards(study) == []
    assert verify_volumes(study) == []
    expected = np.stack([small.field_of(pose) for pose in range(small.POSES)])
    np.testing.assert_array_equal(read_volumes(study, range(small.POSES)), expected)


def shard_file(study, array, number):
    return study.volumes / array / "c" / str(number) / ("0/0/0" if array == "e_norm" else "")


def test_processes_that_own_different_shards_lose_nothing(study, small):
    small.make_volumes(study)
    writers = [
        small.run_python(WRITE_SHARDS, study.folder, numbers) for numbers in ("0,3", "4,1", "2,3")
    ]  # 3 runs twice
    for writer in writers:
        assert writer.wait(timeout=60) == 0, writer.stderr.read()
        writer.communicate()
    assert_whole(study, small)
    np.testing.assert_array_equal(open_volumes(study).seconds[:6], [0, 0, 0, 0, 4, 4])


def test_a_killed_writer_costs_at_most_its_shard(study, small):
    small.make_volumes(study)
    writer = small.run_python(WRITE_SHARDS, study.folder, "0,1," + ",".join(["2"] * 500))
    while writer.stdout.readline().strip() != "8":  # then it writes shard 2 over and over
        pass
    time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert (read_status(study)[:8] == Status.DONE).all()
    assert verify_volumes(study, repair=True) == []
    assert list(study.volumes.rglob("*.partial")) == []
    write_all(study, small)
    assert_whole(study, small)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("number", [1, 4])  # a full shard and the short last one
@pytest.mark.parametrize(
    ("damage", "all_poses", "found"),
    [(truncate, True, "cannot be read"), (os.remove, True, "its file is gone"), (flip_a_byte, False, "cannot be read")],
)
def test_a_damaged_shard_is_found_reset_and_written_again(study, small, number, damage, all_poses, found):
    small.make_volumes(study)
    write_all(study, small)
    damage(shard_file(study, "e_norm", number))
    problems = verify_volumes(study)
    poses = list(range(small.POSES))[number * 4 : number * 4 + 4]
    assert {problem.number for problem in problems} <= set(poses)
    assert len(problems) == (len(poses) if all_poses else 1)
    assert found in str(problems[0])
    assert pending_shards(study) == []  # looking changes nothing
    assert verify_volumes(study, repair=True) == problems
    assert pending_shards(study) == [(poses[0], poses[-1] + 1)]
    write_all(study, small)
    assert_whole(study, small)


@pytest.mark.parametrize("name", ["status", "reason", "seconds"])
def test_a_torn_file_beside_the_volumes_is_found_too(study, small, name):
    small.make_volumes(study)
    size = 4
    fields = np.stack([small.field_of(pose) for pose in range(size)])
    told = {"seconds": [1.0, 2.0, 3.0, 4.0], "reason": ["", "", "", "later"]}
    write_shard(study, 0, fields, [1, 1, 1, 0], **told)
    shard_file(study, name, 0).write_bytes(b"torn")
    assert {problem.number for problem in verify_volumes(study, repair=True)} >= {0, 1, 2}
    assert pending_shards(study)[0] == (0, 4)
    write_shard(study, 0, fields, [1] * 4, **told)
    assert verify_volumes(study) == []
    np.testing.assert_array_equal(open_volumes(study).seconds[:4], told["seconds"])


def test_reset_touches_only_the_poses_named(study, small):
    small.make_volumes(study)
    write_all(study, small)
    reset_volumes(study, [5, 17])
    assert np.flatnonzero(read_status(study) == Status.PENDING).tolist() == [5, 17]
    np.testing.assert_array_equal(open_volumes(study).e_norm[5], small.field_of(5))  # the volume itself stays


WRITE_WITH_LIMIT = """
import resource, sys, errno
import numpy as np
from motorsweep.errors import StoreError
from motorsweep.zarr_store.volumes import write_shard
rng = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_shard(sys.argv[1], 4, rng.random((4, 6, 6, 6)), [1] * 4)
except StoreError as error:
    print(error, error.errno == error.__cause__.errno)
"""


def test_a_file_size_limit_leaves_the_shard_pending_and_names_the_disk(study, small):
    small.make_volumes(study)
    write_all(study, small)
    reset_volumes(study, range(4, 8))
    writer = small.run_python(WRITE_WITH_LIMIT, study.folder, 1500)
    out, err = writer.communicate(timeout=60)
    assert "writing the poses 4:8" in out, err
    assert "the disk mounted at /" in out and "GiB free" in out and "File too large" in out
    assert out.endswith("True\n")
    assert pending_shards(study) == [(4, 8)]
    assert list(study.volumes.rglob("*.partial")) == []
    assert verify_volumes(study) == []
    write_all(study, small)
    assert_whole(study, small)


def test_a_disk_that_is_really_full(study, small, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or not shutil.which("mount")
        or os.system(f"mount -t tmpfs -o size=320k tmpfs '{disk}' 2>/dev/null")
    ):
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        small.make_volumes(disk)
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(b"\0" * (free - 4096))
        writer = small.run_python(WRITE_WITH_LIMIT, disk, -1)
        out, err = writer.communicate(timeout=60)
        assert f"the disk mounted at {disk} (0.00 of 0.00 GiB free)" in out and "No space left" in out, err
        assert (4, 8) in pending_shards(disk)
        filler.unlink()
        write_all(disk, small)
        assert_whole(disk, small)
    finally:
        os.system(f"umount '{disk}'")
