"""Studies whose recordings are cut into records: data that move, come, or cannot be cut."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from motorsweep.errors import InputError
from motorsweep.hpc.connect_records import connect_shard
from motorsweep.hpc.eeg_identity import check_same_features, rows_before, study_records
from motorsweep.hpc.prepare_records import memory_per_worker_gb
from motorsweep.jobs.config import load_study_config
from motorsweep.zarr_store.features import open_features
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.study import Study

from .records_study import OWN, begun, noise, write_tables

CUT = OWN.replace("rate_hz = 250.0", "rate_hz = 250.0\nrecord_s = 2.0", 1)
DONE, FAILED = 1, 2


def write_trials(folder, *names, samples=1500):
    for name in names:
        seed = int(name[1:])
        write_tables(folder / "data/s1", name, noise(seed, 5, samples), noise(100 + seed, 2, samples))


def begun_without_store(folder, text=CUT):
    (folder / "study.toml").write_text(text)
    config = replace(load_study_config(folder / "study.toml"), folder=str(folder / "a study"))
    return Study(config.folder), config


def finished(folder):
    study, config, tasks = begun(folder, CUT)
    for task in tasks:
        connect_shard(task)
    return study, config


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_data_that_move_lose_nothing(tmp_path, cache, monkeypatch):
    write_trials(tmp_path, "t1", "t2")
    study, config = finished(tmp_path)
    before = open_features(study).load()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    if cache == "kept":
        monkeypatch.setattr("motorsweep.sim.recording_parts.read_recording", lambda *_: pytest.fail("read again"))
    else:
        shutil.rmtree(study.cache)
    study, config, tasks = begun(tmp_path, CUT.replace('source = "data"', 'source = "elsewhere"'))
    records = study_records(study, config)
    assert check_same_features(study, records) and tasks == []
    assert all("elsewhere" in source.eeg and "elsewhere" in source.emg for source in records.sources)
    xr.testing.assert_identical(open_features(study).load(), before)


def test_recordings_that_come_are_cut_alone_and_the_records_of_others_stay_done(tmp_path, monkeypatch):
    from motorsweep.sim import recording_parts

    write_trials(tmp_path, "t1", "t3")
    study, config = finished(tmp_path)
    write_trials(tmp_path, "t2")
    read, real = [], recording_parts.read_recording
    monkeypatch.setattr(recording_parts, "read_recording", lambda source: read.append(source.name) or real(source))
    records = study_records(study, config)
    assert read == ["s1-t2"]
    assert rows_before(study, records).tolist() == [0, 1, 2, -1, -1, -1, 3, 4, 5]
    _, _, tasks = begun(tmp_path, CUT)
    assert sum(connect_shard(task).done for task in tasks) == 3
    assert open_features(study)["status"].values.tolist() == [DONE] * 9


def test_recordings_that_cannot_be_cut_fail_alone_and_are_noted(tmp_path):
    write_trials(tmp_path, "t1", "t2", "t3")
    write_trials(tmp_path, "t4", samples=400)
    torn = tmp_path / "data/s1/t2/emg.csv"
    text = torn.read_text()
    torn.write_text(text[:3000])
    study, _ = finished(tmp_path)
    features = open_features(study).load()
    told = dict(zip(features["record"].values, zip(features["status"].values, map(str, features["reason"].values))))
    good = [f"s1-{trial}-{number:03d}" for trial in ("t1", "t3") for number in (1, 2, 3)]
    assert {name for name, (state, _) in told.items() if state == DONE} == set(good)
    assert sorted(told.keys() - set(good)) == ["s1-t2", "s1-t4"]
    assert told["s1-t2"][1].startswith("bad_input: ") and "emg.csv" in told["s1-t2"][1]
    assert "from 0 to 2.0 s is not in the 1." in told["s1-t4"][1]
    (note,) = features.attrs["notes"]["recordings"]
    assert note.startswith("recordings that cannot be cut, each one record that fails with its reason: 2, the first: ")
    # The torn one is copied again: its records come, what was done stays.
    torn.write_text(text)
    _, _, tasks = begun(tmp_path, CUT)
    assert sum(connect_shard(task).done for task in tasks) == 3
    assert open_features(study)["status"].values.tolist() == [DONE] * 9 + [FAILED]


def test_a_study_is_refused_where_no_recording_can_be_cut(tmp_path):
    write_trials(tmp_path, "t1", "t2", samples=400)
    with pytest.raises(InputError, match=r"none of 2 gives one.*cutting s1-t1 into records of 2 s: it has 1\.600 s"):
        begun(tmp_path, CUT)


def test_every_file_of_a_recording_counts_for_its_id_and_its_memory(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    channels = "\n".join(f"Ch{k}={name},,0.1,µV" for k, name in enumerate(["C3", "Cz", "FDI", "APB"], 1))
    (data / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nDataFile=other.eeg\n"
        "DataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=4\nSamplingInterval=4000\n\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n\n[Channel Infos]\n{channels}\n"
    )
    values = (100 * np.random.default_rng(1).normal(size=(5000, 4))).astype("<i2")
    (data / "other.eeg").write_bytes(values.tobytes())
    text = OWN.replace('eeg = "{subject}/{name}/eeg.csv"\nemg = "{subject}/{name}/emg.csv"', 'eeg = "{name}.vhdr"')
    pytest.importorskip("mne")
    study, config, _ = begun(tmp_path, text)
    records = study_records(study, config)
    assert len(records.spec["records"]["a"]["files"]) == 2
    size = sum(path.stat().st_size for path in data.iterdir())
    assert memory_per_worker_gb(config, records) == pytest.approx(0.6 + 16 * 8 * size / 2 / 2**30)
    (data / "other.eeg").write_bytes((values + 1).tobytes())
    assert content_id(study_records(study, config).spec) != content_id(records.spec)


def test_a_cutting_that_is_stopped_goes_on(tmp_path, monkeypatch):
    from motorsweep.sim import recording_parts

    write_trials(tmp_path, "t1", "t2", "t3")
    study, config, real, read = *begun_without_store(tmp_path), recording_parts.read_recording, []

    def stopped(source):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(source.name)
        return real(source)

    monkeypatch.setattr(recording_parts, "read_recording", stopped)
    with pytest.raises(KeyboardInterrupt):
        study_records(study, config)
    assert read == ["s1-t1", "s1-t2"]
    read.clear()
    monkeypatch.setattr(recording_parts, "read_recording", lambda source: read.append(source.name) or real(source))
    assert len(study_records(study, config).table) == 9 and read == ["s1-t3"]


def test_a_worker_needs_no_memory_for_cleaning_all_of_a_recording_of_which_it_does_a_part(tmp_path):
    write_trials(tmp_path, *(f"t{number}" for number in range(3)), samples=60000)
    needed = {}
    for record_s in (2.0, 120.0, 240.0):
        study, config = begun_without_store(tmp_path, CUT.replace("record_s = 2.0", f"record_s = {record_s}"))
        needed[record_s] = memory_per_worker_gb(config, study_records(study, config)) - 0.6
    assert needed[2.0] == pytest.approx(needed[240.0] / 4) and needed[120.0] == pytest.approx(needed[240.0] / 2)
