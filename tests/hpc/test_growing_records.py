"""Recordings that come to a folder whose others are done: these stay done, the features are those of a new study."""

import os
import shutil

import pytest
import xarray as xr
from motorsweep.errors import StoreError
from motorsweep.hpc.connect_records import connect_shard
from motorsweep.hpc.eeg_identity import check_same_features, rows_before, study_records
from motorsweep.hpc.prepare_records import prepare_features
from motorsweep.jobs.eeg_plan import make_eeg_plan
from motorsweep.zarr_store.features import (
    open_features,
    read_feature_status,
    write_feature_shard,
)

from .test_connect_records import OWN, begun, noise, write_tables

DONE, FAILED = 1, 2


def write_trials(folder, *names):
    for name in names:
        seed = int(name[1:])
        write_tables(folder / "data/s1", name, noise(seed, 5), noise(100 + seed, 2))


def finished(folder, *names, text=OWN):
    """A study of some trials, all of them connected."""
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
    assert not check_same_features(study, config)
    simulate = make_eeg_plan(config).stages[0]
    assert (simulate.done, simulate.pending) == (3, 3) and "median of 3" in simulate.basis

    _, _, tasks = begun(tmp_path, OWN)
    assert read_feature_status(study).tolist() == [0, DONE, 0, DONE, DONE, 0]
    assert check_same_features(study, config)
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
    same = check_same_features(study, config)
    with pytest.raises(StoreError, match=r"growing .* to 3 records: a file .* cannot be read"):
        prepare_features(study, config, same)
    assert read_feature_status(study).tolist() == [DONE, DONE]
    assert not list(study.making.iterdir())


def test_planted_records_of_another_number_are_another_study(tmp_path):
    from .test_connect_records import STUDY

    _, _, tasks = begun(tmp_path, STUDY)
    connect_shard(tasks[0])
    with pytest.raises(StoreError, match=r"planted\.subjects: 2 there, 3 now"):
        begun(tmp_path, STUDY.replace("subjects = 2", "subjects = 3"))
