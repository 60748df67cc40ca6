"""Recordings that come to a folder whose others are done: these stay done, the features are those of a new study."""

import errno
import os
import shutil
from dataclasses import replace

import pytest
import xarray as xr
from motorsweep.errors import StoreError
from motorsweep.hpc.connect_records import connect_shard
from motorsweep.hpc.eeg_identity import check_same_features, rows_before, study_records
from motorsweep.hpc.prepare_records import prepare_features, record_tasks
from motorsweep.hpc.shard_of_records import ShardOfRecords
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.eeg_plan import make_eeg_plan
from motorsweep.jobs.eeg_stages import EegCoordinator
from motorsweep.jobs.options import RunOptions
from motorsweep.zarr_store.features import (
    open_features,
    pending_feature_shards,
    read_feature_status,
    verify_features,
    write_feature_shard,
)
from motorsweep.zarr_store.study import Study

from .records_study import OWN, STUDY, begun, noise, write_tables

DONE, FAILED = 1, 2


def write_trials(folder, *names):
    for name in names:
        seed = int(name[1:])
        write_tables(folder / "data/s1", name, noise(seed, 5), noise(100 + seed, 2))


def finished(folder, *names, text=OWN):
    """A study of some trials, all of them connected."""
    folder.mkdir(exist_ok=True)
    write_trials(folder, *names)
    study, config, tasks = begun(folder, text)
    for task in tasks:
        connect_shard(task)
    return study, config


def test_records_that_come_leave_the_others_done_and_make_the_store_of_a_new_study(tmp_path):
    study, config = finished(tmp_path, "t2", "t4", "t6")
    before = open_features(study).load()
    write_trials(tmp_path, "t1", "t3", "t7")
    assert rows_before(study, study_records(study, config)).tolist() == [-1, 0, -1, 1, 2, -1]
    assert not check_same_features(study, study_records(study, config))
    simulate = make_eeg_plan(config).stages[0]
    assert (simulate.done, simulate.pending) == (3, 3) and "median of 3" in simulate.basis

    _, _, tasks = begun(tmp_path, OWN)
    assert read_feature_status(study).tolist() == [0, DONE, 0, DONE, DONE, 0]
    assert check_same_features(study, study_records(study, config))
    kept = open_features(study).load().sel(record=before["record"])
    xr.testing.assert_identical(kept.drop_attrs(), before.drop_attrs())
    assert [connect_shard(task).done for task in tasks] == [1, 1, 1]

    (tmp_path / "fresh").mkdir()
    shutil.copytree(tmp_path / "data", tmp_path / "fresh/data")
    fresh, _ = finished(tmp_path / "fresh", text=OWN)
    grown, anew = open_features(study).load(), open_features(fresh).load()
    xr.testing.assert_equal(grown.drop_vars("seconds"), anew.drop_vars("seconds"))
    assert grown.attrs["id"] == anew.attrs["id"] and grown.attrs["id"] != before.attrs["id"]
    assert not list(study.making.iterdir())


def test_a_failed_record_stays_failed_with_its_reason_and_may_leave(tmp_path):
    study, _ = finished(tmp_path, "t1", "t2", "t3")
    rows = {name: open_features(study)[name].values[2:].copy() for name in ("eeg_connectivity", "emg_granger")}
    write_feature_shard(study, 2, [FAILED], **rows, reason=["bad_input: the amplifier was off"])
    write_trials(tmp_path, "t4")
    begun(tmp_path, OWN)
    assert read_feature_status(study).tolist() == [DONE, DONE, FAILED, 0]
    assert str(open_features(study)["reason"].values[2]) == "bad_input: the amplifier was off"
    shutil.rmtree(tmp_path / "data/s1/t3")
    begun(tmp_path, OWN)
    assert read_feature_status(study).tolist() == [DONE, DONE, 0]


def test_channels_remain_those_of_the_study(tmp_path):
    study, _ = finished(tmp_path, "t2", "t3")
    write_tables(tmp_path / "data/s1", "t1", noise(1, 4), noise(101, 2), eeg_names=("C3", "Cz", "C4", "Pz"))
    _, _, tasks = begun(tmp_path, OWN)
    assert [str(name) for name in open_features(study)["eeg_i"].values] == ["C3", "Cz", "C4", "Pz", "Oz"]
    for task in tasks:
        connect_shard(task)
    features = open_features(study)
    assert features["status"].values.tolist() == [FAILED, DONE, DONE]
    assert "Oz" in str(features["reason"].values[0])


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2), (1, 100), (100, 1)])
def test_shards_may_be_of_another_size(tmp_path, sizes):
    before, after = (OWN.replace("records_per_task = 2", f"records_per_task = {size}") for size in sizes)
    study, config = finished(tmp_path, "t1", "t2", "t4", "t5", "t6", text=before)
    held = open_features(study).load()
    write_trials(tmp_path, "t3")
    begun(tmp_path, after)
    assert read_feature_status(study).tolist() == [DONE, DONE, 0, DONE, DONE, DONE]
    xr.testing.assert_equal(open_features(study).load().sel(record=held["record"]), held)
    (tmp_path / "study.toml").write_text(after)
    assert open_features(study).attrs["shard"] == sizes[1] and make_eeg_plan(config).shards == 1


def test_a_record_that_comes_while_the_study_begins_changes_nothing_of_the_others(tmp_path):
    study, _ = finished(tmp_path / "alone", "t2", "t4")
    alone = open_features(study).load()
    write_trials(tmp_path, "t2", "t4")
    (tmp_path / "study.toml").write_text(OWN)
    config = replace(load_study_config(tmp_path / "study.toml"), folder=str(tmp_path / "a study"))
    study = Study(config.folder)
    records = study_records(study, config)
    write_trials(tmp_path, "t1")
    prepare_features(study, config, records, check_same_features(study, records))
    for task in record_tasks(study, config, records, pending_feature_shards(study)):
        connect_shard(task)
    xr.testing.assert_equal(open_features(study).load().drop_vars("seconds"), alone.drop_vars("seconds"))


def test_a_task_of_a_run_before_the_growth_writes_nothing(tmp_path):
    write_trials(tmp_path, "t2", "t4")
    study, _, tasks = begun(tmp_path, OWN.replace("records_per_task = 2", "records_per_task = 1"))
    connect_shard(tasks[0])
    late = ShardOfRecords(tasks[1])
    write_trials(tmp_path, "t1")
    begun(tmp_path, OWN.replace("records_per_task = 2", "records_per_task = 1"))
    held = open_features(study).load()
    with pytest.raises(StoreError, match="no longer those that this task was planned for"):
        late.write()
    with pytest.raises(StoreError, match=r"connecting records 1:2 of .*Nothing was written"):
        connect_shard(tasks[1])
    xr.testing.assert_identical(open_features(study).load(), held)


def test_a_failed_record_beside_a_new_one_is_not_tried_again_unless_asked(tmp_path):
    study, config = finished(tmp_path, "t1", "t3")
    rows = {name: open_features(study)[name].values.copy() for name in ("eeg_connectivity", "emg_granger")}
    write_feature_shard(study, 0, [DONE, FAILED], **rows, reason=["", "crashed: the worker died"])
    write_trials(tmp_path, "t2", "t4")
    _, _, tasks = begun(tmp_path, OWN)
    for task in tasks:
        connect_shard(task)
    features = open_features(study).load()
    assert features["status"].values.tolist() == [DONE, DONE, FAILED, DONE]
    assert str(features["reason"].values[2]) == "crashed: the worker died"
    shards = pending_feature_shards(study, retry_failed=True)
    (task,) = record_tasks(study, config, study_records(study, config), shards, retry_failed=True)
    connect_shard(task)
    assert read_feature_status(study).tolist() == [DONE] * 4


def test_a_growth_that_was_killed_between_its_two_renames_loses_nothing(tmp_path):
    study, config = finished(tmp_path, "t1", "t2")
    before = open_features(study).load()
    study.making.mkdir(exist_ok=True)
    study.features.rename(study.making / f"old-{study.features.name}-123-89abcdef")
    with EegCoordinator(config, RunOptions(quiet=True)):
        pass
    xr.testing.assert_identical(open_features(study).load(), before)
    assert not study.making.exists()


def test_a_disk_without_room_leaves_the_old_store(tmp_path, monkeypatch):
    study, config = finished(tmp_path, "t1", "t2")
    before = open_features(study).load()
    write_trials(tmp_path, "t3")
    records = study_records(study, config)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("motorsweep.zarr_store.feature_growth.write_feature_shard", full)
    with pytest.raises(StoreError, match=r"growing .* to 3 records: .* has no room for it"):
        prepare_features(study, config, records, same=False)
    xr.testing.assert_identical(open_features(study).load(), before)
    assert not list(study.making.iterdir())


def test_damage_before_a_growth_is_mended_by_verify_alone(tmp_path):
    study, config = finished(tmp_path, "t1", "t2", "t3")
    next(path for path in (study.features / "emg_granger/c").rglob("*") if path.is_file()).unlink()
    write_trials(tmp_path, "t4")
    records = study_records(study, config)
    with pytest.raises(StoreError, match=r"a file of emg_granger is gone.*verify STUDY\.toml --repair"):
        prepare_features(study, config, records, same=False)
    assert len(verify_features(study, repair=True)) in (1, 2)
    prepare_features(study, config, records, same=False)
    states = read_feature_status(study).tolist()
    assert states[3] == 0 and sorted(states[:3]) in ([0, 0, DONE], [0, DONE, DONE])


@pytest.mark.parametrize("change", ["gone", "other samples", "other settings"])
def test_a_record_that_is_done_is_never_dropped(tmp_path, change):
    study, _ = finished(tmp_path, "t1", "t2")
    write_trials(tmp_path, "t3")
    text = OWN
    if change == "gone":
        shutil.rmtree(tmp_path / "data/s1/t1")
    elif change == "other samples":
        shutil.rmtree(tmp_path / "data/s1/t1")
        write_tables(tmp_path / "data/s1", "t1", noise(9, 5), noise(2, 2))
    else:
        text = OWN.replace("ica = false", "ica = false\nband_hz = [2, 40]")
    before = open_features(study).load()
    with pytest.raises(StoreError, match="made with other records or settings"):
        begun(tmp_path, text)
    xr.testing.assert_identical(open_features(study).load(), before)


def test_a_torn_file_stops_the_growth_and_leaves_the_old_store(tmp_path):
    study, config = finished(tmp_path, "t1", "t2")
    write_trials(tmp_path, "t3")
    torn = next(path for path in (study.features / "eeg_connectivity/c").rglob("*") if path.is_file())
    os.truncate(torn, 20)
    records = study_records(study, config)
    assert not check_same_features(study, records)
    with pytest.raises(StoreError, match=r"growing .* to 3 records: records that are done cannot be read"):
        prepare_features(study, config, records, same=False)
    assert read_feature_status(study).tolist() == [DONE, DONE]
    assert not list(study.making.iterdir())


def test_planted_records_of_another_number_are_another_study(tmp_path):
    _, _, tasks = begun(tmp_path, STUDY)
    connect_shard(tasks[0])
    with pytest.raises(StoreError, match=r"planted\.subjects: 2 there, 3 now"):
        begun(tmp_path, STUDY.replace("subjects = 2", "subjects = 3"))
