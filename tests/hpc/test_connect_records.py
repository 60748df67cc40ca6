"""Records to features, a shard at a time: in this process and on workers that really die."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError, StoreError
from motorsweep.hpc import connect_records
from motorsweep.hpc.channel_sets import check_still_whole, faulty_channels, in_study_order, study_channels
from motorsweep.hpc.connect_records import connect_record, connect_shard, write_failed_records
from motorsweep.hpc.eeg_identity import study_records
from motorsweep.hpc.emg_sweep import EmgRecords
from motorsweep.hpc.prepare_records import memory_per_worker_gb, record_tasks
from motorsweep.learn.connectivity import ConnectivityConfig, connect
from motorsweep.sim.cleaning import CleaningConfig, clean, emg_power_gain
from motorsweep.sim.planted_recordings import PlantedConfig, planted_recording
from motorsweep.sim.recording import ChannelFault, Recording
from motorsweep.zarr_store.features import (
    open_features,
    pending_feature_shards,
    read_feature_status,
    reset_features,
)
from motorsweep.zarr_store.schema import Status

from .records_study import OWN, STUDY, begun, noise, write_tables

PLANTED = PlantedConfig(subjects=2, records_per_subject=3, seconds=4.0, rate_hz=250.0, n_eeg=5, n_emg=3)


# ---- a shard ---------------------------------------------------------------------------------------------------------


def test_a_record_is_what_the_steps_give_one_after_the_other(tmp_path):
    study, _, tasks = begun(tmp_path)
    assert [(task.name, task.size) for task in tasks] == [("records 0:4", 4), ("records 4:6", 2)]
    result = connect_shard(tasks[1])
    assert (result.done, result.failed) == (2, 0)
    assert read_feature_status(study).tolist() == [0] * 4 + [1] * 2
    features = open_features(study).load()
    planted = planted_recording(PLANTED, 5, 4)
    cleaned = clean(planted.recording, CleaningConfig(seed=5))
    eeg = connect(cleaned.recording.eeg, 250.0, ConnectivityConfig(max_order=6, bands_hz=(("alpha", 8, 13),)))
    emg = connect(cleaned.recording.emg, 250.0, ConnectivityConfig(measures=("granger",), max_order=6))
    here = features.sel(record=planted.recording.name)
    np.testing.assert_array_equal(here.eeg_connectivity, eeg.matrices[:, 0].astype(np.float32))
    np.testing.assert_array_equal(here.eeg_connectivity_band[:, 0], eeg.matrices[:, 1].astype(np.float32))
    np.testing.assert_array_equal(here.emg_granger, emg.matrices[0, 0].astype(np.float32))
    gain = emg_power_gain(CleaningConfig(), 250.0)
    expected = planted.expected_granger("emg", order=emg.order, power_gain=gain, floor=1e-6)
    np.testing.assert_allclose(here.emg_granger_expected, expected, rtol=1e-5)
    assert (int(here.eeg_order), float(here.emg_order_ms)) == (eeg.order, emg.order_ms)
    assert (int(here.eeg_rank), int(here.removed_components)) == (cleaned.eeg_rank, len(cleaned.removed))
    assert float(here.length_s) == 4.0 and float(here.seconds) > 0
    assert "not recorded from anyone" in str(here.notes.values)


def test_eeg_and_emg_are_connected_at_their_lower_rates(tmp_path):
    study, _, tasks = begun(tmp_path, STUDY.replace("rate_hz = 250.0", "rate_hz = 500.0") + "rate_hz = 250.0\n")
    connect_shard(tasks[1])
    row = open_features(study).isel(record=5).load()
    # 500 Hz: every third sample for the EEG (150 Hz and not below), every second for the EMG
    assert float(row.eeg_order_ms) == pytest.approx(int(row.eeg_order) * 1e3 / (500 / 3))
    assert float(row.emg_order_ms) == pytest.approx(int(row.emg_order) * 1e3 / 250)
    planted = planted_recording(replace(PLANTED, rate_hz=500.0), 5, 5)
    gain = emg_power_gain(CleaningConfig(), 500.0)
    expected = planted.expected_granger(order=int(row.emg_order), every=2, power_gain=gain, floor=1e-6)
    np.testing.assert_allclose(row.emg_granger_expected, expected, rtol=1e-5)


@pytest.mark.parametrize("emg", ["rectified", "envelope"])
def test_of_emg_that_is_not_raw_no_truth_is_told(tmp_path, emg):
    study, _, tasks = begun(tmp_path, STUDY + f'[cleaning]\nemg = "{emg}"\n')
    assert connect_shard(tasks[1]).failed == 0
    features = open_features(study)
    assert "emg_granger_expected" not in features and not EmgRecords.of(features).planted


def test_offsets_of_electrodes_change_no_connectivity(tmp_path):
    """With a band that is open below, as of an amplifier that is coupled to DC."""
    text = STUDY.replace("rate_hz = 250.0", "rate_hz = 500.0") + "[cleaning]\nband_hz = [0.0, 45.0]\nica = false\n"
    _, _, tasks = begun(tmp_path, text)
    task, real = tasks[0].pieces()[0], connect_records._recording
    plain = connect_record(task)
    offsets_v = 1e-2 * np.random.default_rng(0).normal(size=(5, 1))

    def with_offsets(task):
        recording, planted = real(task)
        return replace(recording, eeg=recording.eeg + offsets_v), planted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect_records, "_recording", with_offsets)
        moved = connect_record(task)
    assert np.abs(plain["eeg_connectivity"]).max() > 0.3
    np.testing.assert_allclose(moved["eeg_connectivity"], plain["eeg_connectivity"], atol=1e-9)


def test_the_same_shard_twice_gives_the_same_bytes(tmp_path):
    study, _, tasks = begun(tmp_path)
    connect_shard(tasks[1])
    first = open_features(study).load()
    reset_features(study, [4, 5])
    connect_shard(tasks[1])
    second = open_features(study).load()
    for name in ("eeg_connectivity", "eeg_connectivity_band", "emg_granger", "emg_granger_expected"):
        assert first[name].values.tobytes() == second[name].values.tobytes(), name


def test_a_record_that_fails_leaves_the_others_and_is_tried_again_alone(tmp_path, monkeypatch):
    study, config, tasks = begun(tmp_path)
    real = connect_records._recording

    def broken(task):
        if task.start + task.only == 2:
            raise InputError("reading a record: it is torn. Copy it again.")
        if task.start + task.only == 3:
            raise ValueError("a library's own words")
        return real(task)

    monkeypatch.setattr(connect_records, "_recording", broken)
    result = connect_shard(tasks[0])
    assert (result.done, result.failed) == (2, 2)
    before = open_features(study).load()
    assert before["status"].values.tolist() == [1, 1, 2, 2, 0, 0]
    assert str(before["reason"].values[2]) == "bad_input: reading a record: it is torn. Copy it again."
    assert str(before["reason"].values[3]) == "crashed: ValueError: a library's own words"
    assert np.isnan(before["emg_granger"].values[2]).all()
    monkeypatch.undo()
    assert pending_feature_shards(study) == [(4, 6)]
    shards = pending_feature_shards(study, retry_failed=True)
    (again, _) = record_tasks(study, config, study_records(study, config), shards, retry_failed=True)
    assert list(again.pieces()) == [2, 3] and again.pieces()[2].name == "record s01-002-rest"
    result = connect_shard(again)
    assert (result.done, result.failed) == (2, 0)
    after = open_features(study).load()
    for name in ("eeg_connectivity", "emg_granger", "seconds", "notes"):
        np.testing.assert_array_equal(after[name].values[:2], before[name].values[:2])
    assert after["reason"].values[:4].tolist() == [""] * 4 and np.isfinite(after["emg_granger"].values[:4]).all()


def test_what_stops_every_record_stops_the_run(tmp_path, monkeypatch):
    _, _, tasks = begun(tmp_path)
    monkeypatch.setattr(connect_records, "clean", lambda *_: (_ for _ in ()).throw(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        connect_shard(tasks[0])


def test_a_lost_task_keeps_what_was_done_before(tmp_path):
    study, _, tasks = begun(tmp_path)
    connect_shard(tasks[0])
    before = open_features(study).load()
    reset_features(study, [1])
    write_failed_records(tasks[0], "crashed: records 0:4: the worker died 2 times")
    after = open_features(study).load()
    assert after["status"].values.tolist() == [1, 2, 1, 1, 0, 0]
    assert "the worker died" in str(after["reason"].values[1])
    np.testing.assert_array_equal(after["emg_granger"].values[[0, 2, 3]], before["emg_granger"].values[[0, 2, 3]])


def test_one_record_alone_writes_nothing_and_killers_are_not_done(tmp_path):
    study, _, tasks = begun(tmp_path)
    piece = tasks[0].pieces()[1]
    assert np.isfinite(connect_record(piece)["emg_granger"]).all()
    connect_shard(piece)
    assert (read_feature_status(study) == int(Status.PENDING)).all()
    result = connect_shard(tasks[0].without({1: "crashed: record s01-001-activity: the worker died"}))
    assert (result.done, result.failed) == (3, 1)
    assert read_feature_status(study).tolist()[:4] == [1, 2, 1, 1]


def test_memory_grows_with_the_record(tmp_path):
    study, config, _ = begun(tmp_path)
    longer = replace(config, records=replace(config.records, planted=replace(config.records.planted, seconds=4000.0)))
    values = 4000 * 250 * 8
    records = study_records(study, config)
    assert memory_per_worker_gb(longer, records) - memory_per_worker_gb(config, records) == pytest.approx(
        16 * 8 * values * 0.999 / 2**30
    )


# ---- what the features depend on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed = 5", "seed = 6", "seed: 5 there, 6 now"),
        ("seconds = 4.0", "seconds = 5.0", "planted.seconds: 4.0 there, 5.0 now"),
        ("alpha = [8, 13]", "alpha = [8, 12]", "eeg.bands_hz"),
        ("[connectivity.emg]", "[connectivity.emg]\ncriterion = 'aic'", "emg.criterion: 'bic' there, 'aic' now"),
        ("[connectivity]", "[cleaning]\nica = false\n[connectivity]", "cleaning.ica: True there, False now"),
        ("[connectivity]", "[connectivity]\nrate_hz = 0", "eeg.rate_hz: 150.0 there, 0.0 now"),
    ],
)
def test_other_settings_are_refused_once_a_record_is_done(tmp_path, old, new, told):
    begun(tmp_path)
    begun(tmp_path, STUDY.replace(old, new))  # nothing is done yet, so nothing is lost
    _, _, tasks = begun(tmp_path)
    connect_shard(tasks[1])
    with pytest.raises(StoreError, match="made with other records or settings") as caught:
        begun(tmp_path, STUDY.replace(old, new))
    assert told in str(caught.value)
    begun(tmp_path, STUDY.replace("records_per_task = 4", "records_per_task = 2") + "[network]\nepochs = 3\n")


def test_files_count_by_content_and_are_hashed_once(tmp_path, monkeypatch):
    for name in ("t1", "t2"):
        write_tables(tmp_path / "data/s1", name, noise(1, 5), noise(2, 2))
    study, config, _ = begun(tmp_path, OWN)
    spec = study_records(study, config).spec
    assert list(spec["records"]) == ["s1-t1", "s1-t2"]
    monkeypatch.setattr("motorsweep.hpc.eeg_identity.file_hash", lambda path: pytest.fail("hashed again"))
    assert study_records(study, config).spec == spec
    monkeypatch.undo()
    path = tmp_path / "data/s1/t1/eeg.csv"
    text = path.read_text()
    path.write_text(text)
    os.utime(path, (1, 1))
    assert study_records(study, config).spec == spec
    path.write_text(text.replace("0.004000", "0.004001"))
    assert study_records(study, config).spec != spec


def test_recordings_that_are_cut_are_read_for_it_only_once(tmp_path, monkeypatch):
    write_tables(tmp_path / "data/s1", "t1", noise(1, 5), noise(2, 2))
    study, config, tasks = begun(tmp_path, OWN.replace("rate_hz", "record_s = 2.5\nrate_hz"))
    assert [name for name, *_ in study_records(study, config).table] == ["s1-t1-001", "s1-t1-002"]
    monkeypatch.setattr("motorsweep.sim.recording_parts.read_recording", lambda *_: pytest.fail("read again"))
    assert [source.start_s for source in study_records(study, config).sources] == [0.0, 2.5]
    monkeypatch.undo()
    assert connect_shard(tasks[0]).done == 2
    np.testing.assert_allclose(open_features(study)["length_s"].values, 2.5, atol=0.005)


# ---- channels --------------------------------------------------------------------------------------------------------


def recording(eeg_names, emg_names=("FDI", "APB"), faults=()):
    rng = np.random.default_rng(0)
    return Recording(
        eeg=rng.normal(size=(len(eeg_names), 10)), emg=rng.normal(size=(len(emg_names), 10)), rate_hz=100.0,
        eeg_names=tuple(eeg_names), emg_names=tuple(emg_names), subject="s", condition="", name="r1", faults=faults,
    )  # fmt: skip


def test_channels_come_in_the_studys_order_with_eog_after_them():
    given = recording(["C4", "HEOG", "C3"], ["APB", "FDI"])
    ordered = in_study_order(given, ("C3", "C4"), ("FDI", "APB"))
    assert ordered.eeg_names == ("C3", "C4", "HEOG") and ordered.emg_names == ("FDI", "APB")
    np.testing.assert_array_equal(ordered.eeg, given.eeg[[2, 0, 1]])
    np.testing.assert_array_equal(ordered.emg, given.emg[[1, 0]])
    assert study_channels(given) == (("C4", "C3"), ("APB", "FDI"))


def test_other_channels_are_told_by_name():
    with pytest.raises(InputError, match=r"record r1: its EEG lacks C4 and has besides P3, against the 2 EEG channels"):
        in_study_order(recording(["C3", "P3"]), ("C3", "C4"), ("FDI", "APB"))
    with pytest.raises(InputError, match=r"its EMG has besides ADM.*drop_channels"):
        in_study_order(recording(["C3", "C4"], ["FDI", "APB", "ADM"]), ("C3", "C4"), ("FDI", "APB"))
    with pytest.raises(InputError, match=r"record r1 has 1 EMG channels \(FDI\)"):
        study_channels(recording(["C3", "C4"], ["FDI"]))
    fault = ChannelFault(channel="C4", fault="flat", found="0 uV in all 10 samples")
    with pytest.raises(InputError, match=r'left out C4 \(channel C4 is flat: 0 uV.*drop_channels = \["C4"\]'):
        check_still_whole(recording(["C3", "Cz"], faults=(fault,)), ("C3", "C4"), ("FDI", "APB"))


def test_bad_records_are_rows_with_a_sentence_and_the_others_go_on(tmp_path):
    """NaN, a flat EMG, too short, other channels, clocks that do not overlap, a torn file: each fails alone."""
    data = tmp_path / "data/s1"
    write_tables(data, "a-good", noise(1, 5), noise(2, 2))
    gap = noise(3, 5)
    gap[:, ::400] = np.nan
    write_tables(data, "b-nan", gap, noise(4, 2))
    flat = noise(5, 2)
    flat[1] = 0
    write_tables(data, "c-flat", noise(6, 5), flat)
    write_tables(data, "d-short", noise(7, 5, 200), noise(8, 2, 200))
    write_tables(data, "e-other", noise(9, 5), noise(10, 2), eeg_names=("C3", "Cz", "C4", "Pz", "Fz"))
    write_tables(data, "f-apart", noise(11, 5), noise(12, 2))
    late = (data / "f-apart/emg.csv").read_text().splitlines()
    shifted = [late[0]] + [f"{float(line.split(',')[0]) + 100:.6f},{line.split(',', 1)[1]}" for line in late[1:]]
    (data / "f-apart/emg.csv").write_text("\n".join(shifted) + "\n")
    write_tables(data, "g-torn", noise(13, 5), noise(14, 2))
    torn = (data / "g-torn/eeg.csv").read_text()
    (data / "g-torn/eeg.csv").write_text(torn[: len(torn) // 2])
    write_tables(data, "h-good", noise(15, 5), noise(16, 2))
    study, _, tasks = begun(tmp_path, OWN)
    results = [connect_shard(task) for task in tasks]
    features = open_features(study).load()
    told = dict(zip(features["record"].values, map(str, features["reason"].values)))
    assert (sum(each.done for each in results), sum(each.failed for each in results)) == (2, 6), told
    for name, words in {
        "s1-b-nan": "missing samples",
        "s1-c-flat": "APB",
        "s1-d-short": "s1-d-short",
        "s1-e-other": "lacks Oz and has besides Fz",
        "s1-f-apart": "overlap",
        "s1-g-torn": "line",
    }.items():
        assert told[name].startswith("bad_input: ") and words in told[name], told[name]
    assert (told["s1-a-good"], told["s1-h-good"]) == ("", "")
    assert faulty_channels(map(str, features["notes"].values))["APB"] == 1


def test_a_study_of_which_no_record_can_be_read_is_refused_before_the_farm(tmp_path):
    write_tables(tmp_path / "data/s1", "t1", noise(1, 5), noise(2, 2))
    (tmp_path / "data/s1/t1/eeg.csv").write_text("nothing\n")
    with pytest.raises(InputError, match=r"none of the 1 records of .*data can be used. The first says: reading"):
        begun(tmp_path, OWN)
    with pytest.raises(InputError, match="no file fits"):
        begun(tmp_path, OWN.replace("eeg.csv", "brain.csv"))


# ---- a record that kills its process ---------------------------------------------------------------------------------


def _connect_but_die_of_one(task):
    """Connect a shard, in a process that one record of the study kills."""
    real = connect_records._recording

    def deadly(task):
        if task.start + task.only == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(task)

    connect_records._recording = deadly
    try:
        return connect_shard(task)
    finally:
        connect_records._recording = real


@pytest.mark.slow
def test_a_record_that_kills_its_process_costs_that_record(tmp_path, monkeypatch):
    import sys

    import cloudpickle
    from motorsweep.jobs import eeg_stages
    from motorsweep.jobs.options import RunOptions

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test file by its name
    study, config, _ = begun(tmp_path, STUDY + "[executor]\nworkers = 1\n")
    monkeypatch.setattr(eeg_stages, "connect_shard", _connect_but_die_of_one)
    with eeg_stages.EegCoordinator(config, RunOptions(quiet=True)) as coordinator:
        told = coordinator.simulate()
    assert (told.done, told.failed) == (5, 1)
    features = open_features(study).load()
    assert features["status"].values.tolist() == [1, 2, 1, 1, 1, 1]
    assert str(features["reason"].values[1]).startswith("crashed: record s01-001-activity: the worker died again")
    monkeypatch.undo()
    with eeg_stages.EegCoordinator(config, RunOptions(quiet=True, retry_failed=True, executor="serial")) as again:
        told = again.simulate()
    assert (told.done, told.failed) == (1, 0)
