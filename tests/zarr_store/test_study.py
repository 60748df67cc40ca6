import errno
import pickle
import signal
import socket

import pytest
from motorsweep.errors import InputError, StoreError
from motorsweep.zarr_store.atomic import disk_errors, folder_in_the_making, is_disk_full
from motorsweep.zarr_store.study import Study, atomic_write_bytes, atomic_write_text, locate


def test_the_names_of_a_study(tmp_path):
    study = Study(tmp_path)
    names = {"config": "study.toml", "volumes": "volumes.zarr", "trials": "trials.zarr", "codes": "codes.zarr",
             "runs": "runs", "results": "results.zarr", "report": "report", "logs": "logs", "events": "events.jsonl",
             "cache": "cache"}  # fmt: skip
    assert {key: getattr(study, key).relative_to(tmp_path).as_posix() for key in names} == names
    assert study.checkpoint("0" * 16) == tmp_path / "runs" / ("0" * 16) / "checkpoint.pt"
    assert pickle.loads(pickle.dumps(study)) == study
    assert list(tmp_path.iterdir()) == []  # names make nothing


def test_a_study_does_not_depend_on_where_a_worker_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study("studies/../quick")
    monkeypatch.chdir("/")
    assert study.folder == tmp_path / "quick"


@pytest.mark.parametrize("run_id", ["../../../../etc", "0" * 15, "ABCDEF0123456789", "", None, "0" * 16 + "\n"])
def test_only_run_ids_become_folders(run_id):
    with pytest.raises(InputError, match="a run id is 16 hexadecimal digits"):
        Study("x").run(run_id)


def test_a_store_is_found_by_study_folder_or_its_own_path(tmp_path):
    expected = tmp_path / "trials.zarr"
    assert (
        locate(Study(tmp_path), "trials") == locate(str(tmp_path), "trials") == locate(expected, "trials") == expected
    )


def test_atomic_writes_replace_whole_files_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "new" / "record.json"
    atomic_write_text(path, "één")
    atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    atomic_write_text(path, "old")
    with pytest.raises(TypeError):
        atomic_write_bytes(path, "text instead of bytes")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_replaces_another_only_when_it_is_whole(tmp_path):
    target, making = tmp_path / "results.zarr", tmp_path / ".making"
    for text in ("one", "two"):
        with folder_in_the_making(making, target) as beside:
            atomic_write_text(beside / "a", text)
            assert text == "one" or (target / "a").read_text() == "one"
    with pytest.raises(ZeroDivisionError), folder_in_the_making(making, target) as beside:
        atomic_write_text(beside / "a", "three")
        1 / 0  # noqa: B018
    assert (target / "a").read_text() == "two"
    with folder_in_the_making(making, target, replace=False) as beside:
        atomic_write_text(beside / "a", "four")
    assert (target / "a").read_text() == "two"
    assert list(making.iterdir()) == []


def test_a_full_disk_is_named_and_known_after_pickling(tmp_path):
    with pytest.raises(StoreError, match=r"writing x: the disk mounted at /.* has no room .*Make room") as caught:
        with disk_errors("writing x", tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(pickle.loads(pickle.dumps(caught.value)))
    assert caught.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(StoreError, match="Permission denied") as caught, disk_errors("writing x", tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert not is_disk_full(caught.value)


HOLD_LOCK = """
import sys, time
from motorsweep.zarr_store.study import Study
with Study(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_coordinator_is_told_of_the_first_and_a_killed_one_frees_the_study(study, small):
    first = small.run_python(HOLD_LOCK, study.folder)
    assert first.stdout.readline() == "locked\n"
    host = socket.gethostname()
    with pytest.raises(StoreError, match=f"process {first.pid} on host {host} coordinates it already"):
        with study.lock():
            pass
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with study.lock(), pytest.raises(StoreError, match="coordinates it already"), Study(study.folder).lock():
        pass
    with study.lock():
        pass
