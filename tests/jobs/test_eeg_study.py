"""The stages of a study of EEG and EMG up to its features, through the command line."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from motorsweep import open_features, open_results
from motorsweep.hpc.study_page import study_snapshot
from motorsweep.zarr_store.features import read_feature_status
from motorsweep.zarr_store.study import Study

from ..hpc.records_study import OWN, noise, write_tables
from .eeg_study import TINY_EEG

TIMED = ("seconds",)


def features_of(folder, name="tiny"):
    return open_features(folder / "studies" / name).load()


def same_features(one, other):
    """Equal bit for bit, but for how long it took."""
    left, right = features_of(one), features_of(other)
    assert left.attrs == right.attrs and list(left.variables) == list(right.variables)
    for name in left.variables:
        if name not in TIMED:
            assert left[name].values.tolist() == right[name].values.tolist() or (
                left[name].values.tobytes() == right[name].values.tobytes()
            ), name


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, command):
    """A tiny study whose records are connected, in this process; not to be changed."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "study.toml").write_text(TINY_EEG)
    return folder, command("simulate", "study.toml", folder=folder)


def test_simulate_fills_the_store_and_says_what_it_did(simulated):
    folder, done = simulated
    assert done.stdout.startswith("simulate  12 records done in")
    features = features_of(folder)
    assert {k: features.sizes[k] for k in ("record", "measure", "band", "eeg_i", "emg_j")} == {
        "record": 12, "measure": 5, "band": 1, "eeg_i": 6, "emg_j": 3,
    }  # fmt: skip
    assert (features["status"] == 1).all()
    for name in ("eeg_connectivity", "eeg_connectivity_band", "emg_granger", "emg_granger_expected", "seconds"):
        assert np.isfinite(features[name].values).all(), name
    off = ~np.eye(3, dtype=bool)
    measured, expected = (features[name].values[:, off].ravel() for name in ("emg_granger", "emg_granger_expected"))
    assert np.corrcoef(measured, expected)[0, 1] > 0.9
    assert set(features["condition"].values) == {"rest", "activity"} and len(set(features["subject"].values)) == 3


def test_the_same_command_again_and_encode_have_nothing_to_do(simulated, command):
    folder, _ = simulated
    again = command("simulate", "study.toml", folder=folder).stdout
    assert again == "simulate  nothing to do: all 12 records are done already\n"
    told = command("encode", "study.toml", folder=folder).stdout
    assert told == "encode    nothing to do: the connectivity matrices are the codes\n"


def test_status_plan_verify_and_the_page_count_records(simulated, command):
    folder, _ = simulated
    status = json.loads(command("status", "study.toml", "--json", folder=folder).stdout)
    assert status["parts"]["simulate"] == {"done": 12, "pending": 0, "failed": 0} and status["best"] == {}
    plan = json.loads(command("plan", "study.toml", "--json", folder=folder).stdout)
    simulate, encode, train = plan["stages"]
    assert (simulate["done"], simulate["pending"], plan["shards"]) == (12, 0, 0)
    assert encode["pending"] == 0 and "nothing to do" in encode["basis"] and train["pending"] > 0
    told = command("verify", "study.toml", folder=folder).stdout
    assert "read 12 records" in told and "all is well" in told
    page = study_snapshot(folder / "studies/tiny", time.time())
    assert page["kind"] == "eeg" and page["poses"] == {"done": 12, "failed": 0, "pending": 0, "total": 12}
    assert [each["state"] for each in page["stages"]][:2] == ["done", "done"]


def test_a_plan_computes_nothing(command, tmp_path):
    (tmp_path / "study.toml").write_text(TINY_EEG)
    told = command("plan", "study.toml", folder=tmp_path).stdout
    assert "records   12 planted ones of 3 subjects, 6 s at 250 Hz, 6 EEG and 3 EMG channels" in told
    assert "simulate  12 records: 0 done, 12 pending" in told and "4 shards to write" in told
    assert "train     to be planned when all records are done" in told
    assert not (tmp_path / "studies/tiny/features.zarr").exists()


def test_submit_writes_the_same_three_jobs(command, tmp_path):
    (tmp_path / "study.toml").write_text(TINY_EEG)
    told = command("submit", "study.toml", "--dry-run", folder=tmp_path).stdout
    assert "simulate  12 records: 0 done, 12 pending" in told and "nothing was submitted" in told
    for verb in ("simulate", "train", "collect"):
        assert f"studies/tiny/slurm/{verb}.sh" in told


def test_a_study_of_few_eeg_channels_runs_to_its_end_without_networks(simulated, command, tmp_path):
    shutil.copytree(simulated[0], tmp_path, dirs_exist_ok=True)
    why = "not made: EMG network for 6 EEG channels: its kernels of 7², 5² and 3² without padding leave nothing"
    run = command("run", "study.toml", folder=tmp_path)
    assert re.search(r"train +24 trainings done in .*  \(" + why, run.stdout) and "failed" not in run.stdout
    assert re.search(r"collect +24 models done in ", run.stdout)
    results = open_results(tmp_path / "studies/tiny")
    assert why.removeprefix("not made: ") in results.attrs["impossible"]["network"]
    planned = results["run_id"].values != ""
    assert planned.sum() == 24 and (results["status"].values[planned] == 1).all()
    status = json.loads(command("status", "study.toml", "--json", folder=tmp_path).stdout)
    assert status["parts"]["train"] == {"done": 24, "pending": 0, "failed": 0}
    told = command("plan", "study.toml", folder=tmp_path).stdout
    assert "train     24 trainings: 24 done, 0 pending" in told and why in told
    assert "next      nothing is left to do" in told
    assert "all is well" in command("verify", "study.toml", folder=tmp_path).stdout
    page = study_snapshot(tmp_path / "studies/tiny", time.time())
    assert page["state"] == "finished" and page["failed"] == 0 and not page["failures"]
    assert "cannot be told: no network was trained." in (tmp_path / "studies/tiny/report/index.html").read_text()
    again = command("run", "study.toml", folder=tmp_path).stdout
    assert "train     nothing to do: all 24 trainings are done already" in again


def test_what_needs_poses_or_features_says_so(simulated, command, tmp_path):
    folder, _ = simulated
    for words in (("show", "study.toml", "3"), ("export", "studies/tiny", "--format", "nii.gz", "--pose", "1")):
        told = command(*words, folder=folder, code=2).stderr
        assert "is a study of EEG and EMG, which has records and no coil poses" in told and "Traceback" not in told
    (tmp_path / "study.toml").write_text(TINY_EEG)
    told = command("train", "study.toml", folder=tmp_path, code=1).stderr
    assert "there are no features of these records and settings yet; `motorsweep simulate" in told


def test_a_folder_of_another_kind_or_of_other_records_is_refused(simulated, command, tmp_path):
    shutil.copytree(simulated[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "study.toml").write_text('name = "tiny"\n[head]\nsource = "sphere"\n')
    told = command("simulate", "study.toml", folder=tmp_path, code=1).stderr
    assert "beginning a study of the kind 'tms'" in told and "it holds one of the kind 'eeg'" in told
    (tmp_path / "study.toml").write_text(TINY_EEG.replace("seed = 3", "seed = 4"))
    told = command("simulate", "study.toml", folder=tmp_path, code=1).stderr
    assert "seed: 3 there, 4 now" in told and "another name or folder" in told


def test_damage_is_found_and_mended(simulated, command, tmp_path):
    shutil.copytree(simulated[0], tmp_path, dirs_exist_ok=True)
    store = tmp_path / "studies/tiny/features.zarr"
    torn = store / "eeg_connectivity/c/1/0/0/0"
    torn.write_bytes(torn.read_bytes()[:50])
    (store / "emg_granger/c/3/0/0").unlink()
    found = command("verify", "study.toml", folder=tmp_path, code=1).stdout
    assert "6 damaged" in found and "record 3: eeg_connectivity cannot be read" in found
    assert "record 9: emg_granger is marked done and is not finite, or its file is gone" in found
    command("verify", "study.toml", "--repair", folder=tmp_path)
    assert command("simulate", "study.toml", folder=tmp_path).stdout.startswith("simulate  6 records done in")
    same_features(simulated[0], tmp_path)


def test_a_subject_who_comes_later_is_added_by_the_same_command(command, tmp_path):
    def record_subject(name, seed):
        for trial in range(3):
            signals = noise(seed + trial, 5), noise(50 + seed + trial, 2)
            write_tables(tmp_path / "data" / name, f"t{trial}", *signals)

    text = OWN + '[validation]\nsplits = ["leave-one-subject-out"]\n[executor]\nkind = "serial"\n'
    (tmp_path / "study.toml").write_text(text)
    record_subject("s1", 1)
    record_subject("s3", 7)
    assert command("simulate", "study.toml", folder=tmp_path).stdout.startswith("simulate  6 records done in")
    record_subject("s2", 13)
    plan = command("plan", "study.toml", folder=tmp_path).stdout
    assert "simulate  9 records: 6 done, 3 pending" in plan
    told = command("train", "study.toml", folder=tmp_path)
    assert "3 recordings came since `simulate`, and are not in this" in told.stderr
    assert told.stdout.startswith("train     10 trainings done in")
    told = command("run", "study.toml", folder=tmp_path).stdout
    assert told.startswith("simulate  3 records done in") and ", 6 done before\n" in told
    results = open_results(tmp_path / "studies/a").load()
    assert list(results["subject"].values) == ["s1", "s2", "s3"] and results.sizes["record"] == 9
    tested = results["skill_subject"].sel(model="ridge", optimizer="none", split="leave-one-subject-out")
    assert np.isfinite(tested).all()


def own_study(folder, flat=(), other_names=(), trials=6):
    """Trials of one subject; the muscle FDI is flat in some, and an electrode has another name in others."""
    for trial in range(trials):
        eeg, emg = noise(trial, 5), noise(50 + trial, 2)
        emg[0] *= trial not in flat
        names = ("C3", "Cz", "C4", "Pz", "O1") if trial in other_names else None
        write_tables(folder / "data" / "s1", f"t{trial}", eeg, emg, eeg_names=names)
    text = OWN + '[validation]\nsplits = ["80-20", "k-fold"]\n[executor]\nkind = "serial"\n'
    (folder / "study.toml").write_text(text)
    return text


def test_the_advice_to_drop_a_channel_says_what_it_takes(command, tmp_path):
    text = own_study(tmp_path, flat=(2,))
    told = command("simulate", "study.toml", folder=tmp_path, code=1).stdout
    advice = '[records] drop_channels = ["FDI"]'
    assert "(FDI in 1 of 6 records)" in told and "under another name" in told and advice in told
    dropped = text.replace("[cleaning]", 'drop_channels = ["FDI"]\n[cleaning]')
    (tmp_path / "study.toml").write_text(dropped)
    refused = command("simulate", "study.toml", folder=tmp_path, code=1).stderr
    assert "Give the study another name or folder" in refused, "as the advice says"


def test_a_channel_that_is_faulty_in_all_records_is_dropped_under_the_same_name(command, tmp_path):
    own_study(tmp_path, flat=range(6))
    told = command("simulate", "study.toml", folder=tmp_path, code=1).stdout
    assert "(FDI in 6 of 6 records); without them: [records] drop_channels" in told and "another name" not in told


def test_a_plan_is_printed_where_too_few_records_are_left(command, tmp_path):
    own_study(tmp_path, other_names=(2, 3, 4, 5))
    assert "2 records done" in command("simulate", "study.toml", folder=tmp_path, code=1).stdout
    lines = command("plan", "study.toml", folder=tmp_path).stdout.splitlines()
    assert (
        lines[1].startswith("records   6 of 1 subject in ")
        and "simulate  6 records: 2 done, 0 pending, 4 failed" in lines
    )
    assert "train     impossible: the records allow none of the splits in [validation]" in lines
    not_made = [line for line in lines if line.startswith("          not made: split")]
    assert [line.split("'")[1] for line in not_made] == ["80-20", "k-fold"]
    assert all("2 of 6 records can be used" in line for line in not_made)
    assert lines[-1].startswith(
        "next      give more records that can be used, or other [validation] splits; `motorsweep "
    )
    plan = json.loads(command("plan", "study.toml", "--json", folder=tmp_path).stdout)
    assert plan["stages"][2]["pending"] == 0 and len(plan["not_made"]) == 2


def test_what_is_left_of_recordings_that_are_cut_is_told_everywhere(command, tmp_path):
    text = own_study(tmp_path, trials=3)
    (tmp_path / "study.toml").write_text(text.replace("rate_hz = 250.0", "rate_hz = 250.0\nrecord_s = 2.5", 1))
    note = "as they are shorter than `record_s`: 3, the first: 1.000 s of s1-t0"
    assert note in command("plan", "study.toml", folder=tmp_path).stdout
    told = command("run", "study.toml", folder=tmp_path)
    assert told.stdout.startswith("simulate  6 records done in") and note in told.stderr
    page = (tmp_path / "studies/a/report/index.html").read_text(encoding="utf-8")
    assert "Parts whose last seconds are in no record" in page and "1.000 s of s1-t0." in page


@pytest.mark.slow
def test_two_dask_workers_give_the_same_bits(simulated, command, tmp_path):
    (tmp_path / "study.toml").write_text(TINY_EEG)
    done = command("simulate", "study.toml", "--executor", "local", "--workers", 2, folder=tmp_path)
    assert "dashboard  http://127.0.0.1:" in done.stderr
    same_features(simulated[0], tmp_path)


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bits(simulated, command, tmp_path):
    """SIGKILL when the first shard is written, then the same command."""
    text = TINY_EEG.replace("seconds = 6.0", "seconds = 60.0").replace('name = "tiny"', 'name = "long"')
    for name in ("through", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.toml").write_text(text)
    command("simulate", "study.toml", folder=tmp_path / "through")
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "simulate", "study.toml"]
    folder, study = tmp_path / "killed", Study(tmp_path / "killed/studies/long")
    process = subprocess.Popen(
        line, cwd=folder, env=command.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 300
    while not (study.features / "status/c/0").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = int((read_feature_status(study) == 1).sum())
    assert 3 <= done < 12
    told = command("simulate", "study.toml", folder=folder).stdout
    assert f"simulate  {12 - done} records done in" in told and f"{done} done before" in told
    left, right = features_of(tmp_path / "through", "long"), features_of(folder, "long")
    for name in ("eeg_connectivity", "eeg_connectivity_band", "emg_granger", "emg_granger_expected"):
        assert left[name].values.tobytes() == right[name].values.tobytes(), name


REAL = """kind = "eeg"
name = "real"
[records]
source = "$MOTORSWEEP_TEST_DATA/eeg_emg"
eeg = "{subject}/{name}/eeg_data.csv"
emg = "{subject}/{name}/emg_data.csv"
rate_hz = 200.0
[connectivity.emg]
rate_hz = 100.0
[executor]
kind = "serial"
"""


@pytest.mark.slow
def test_real_recordings_go_through_and_their_faulty_channels_are_told(data_folder, command, tmp_path, monkeypatch):
    monkeypatch.setitem(command.environment, "MOTORSWEEP_TEST_DATA", str(data_folder))
    (tmp_path / "study.toml").write_text(REAL)
    told = command("simulate", "study.toml", folder=tmp_path, code=1).stdout
    assert told.startswith("simulate  0 records done in") and "12 failed" in told
    drop = told[told.index("drop_channels = [") : told.index("]", told.index("drop_channels = [")) + 1]
    assert '"ch20"' in drop and '"ch1"' not in drop
    why = command("status", "study.toml", "--failed", folder=tmp_path).stdout
    assert "bad_input" in why and "subject_01-trial_01" in why
    (tmp_path / "study.toml").write_text(REAL.replace("rate_hz = 200.0", f"rate_hz = 200.0\n{drop}"))
    told = command("simulate", "study.toml", folder=tmp_path).stdout
    assert told.startswith("simulate  12 records done in")
    features = features_of(tmp_path, "real")
    assert features.sizes["record"] == 12 and features.sizes["emg_i"] == 8
    assert "ch1" in features["eeg_channel"].values and "ch20" not in features["eeg_channel"].values
    assert np.isfinite(features["eeg_connectivity"].values).all() and np.isfinite(features["emg_granger"].values).all()
    assert (features["length_s"].values > 3).all()
    notes = str(features["notes"].values[0])
    assert "times of reading, not of sampling" in notes and "no unit" in notes
