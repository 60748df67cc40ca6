import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError, StoreError
from motorsweep.hpc import emg_train
from motorsweep.hpc.best_scores import best_scores
from motorsweep.hpc.emg_names import BY_SUBJECT, NETWORKS
from motorsweep.hpc.emg_sweep import EmgRecords, EmgSweep
from motorsweep.hpc.events import EventLog
from motorsweep.hpc.executors import open_executor
from motorsweep.hpc.farm import run_stage
from motorsweep.hpc.progress import Progress
from motorsweep.hpc.records import record_of
from motorsweep.hpc.study_tally import RunTally
from motorsweep.jobs.answers import Shown
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.eeg_training import EegTraining
from motorsweep.jobs.options import RunOptions
from motorsweep.zarr_store.emg_mocks import write_mock_features
from motorsweep.zarr_store.features import open_features, reset_features
from motorsweep.zarr_store.ids import folder_id
from motorsweep.zarr_store.results import open_results
from motorsweep.zarr_store.runs import read_arrays, read_record, write_failure
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study

TOML = """kind = "eeg"
name = "small"
seed = 5
[network]
optimizers = ["adam", "rmsprop"]
tuned = false
epochs = 1
batch = 8
[validation]
splits = ["80-20", "leave-one-subject-out"]
[executor]
kind = "serial"
device = "cpu"
"""
SMALL = {"subjects": 3, "per_subject": 4, "n_emg": 2}


def study_of(folder, **features):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eeg.toml").write_text(TOML)
    study = Study(folder / "study")
    write_mock_features(study, **SMALL | features)
    return study, load_study_config(folder / "eeg.toml")


def stage_of(study, config, **options):
    """The stages on a real executor, as a coordinator farms them out."""
    said = []

    def farm(verb, function, tasks, unit, memory_gb, on_outcome=None, at_most=None):
        said.append(len(tasks))
        if tasks:
            where = {"scratch": study.scratch, "log": None, "memory_per_worker_gb": memory_gb}
            with open_executor(config.executor, **where) as executor:
                events, progress = EventLog(study.events), Progress(quiet=True)
                run_stage(verb, function, tasks, executor, events, progress, unit, on_outcome=on_outcome)

    stage = EegTraining(study, config, RunOptions(quiet=True, **options), farm)
    stage.farmed = said
    return stage


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study of three subjects, trained and collected; not to be changed."""
    study, config = study_of(tmp_path_factory.mktemp("done"))
    stage = stage_of(study, config)
    return study, config, stage.train(), stage.collect()


@pytest.fixture
def copied(done, tmp_path):
    shutil.copytree(done[0].folder, tmp_path / "study")
    return Study(tmp_path / "study"), done[1]


def test_all_runs_are_trained_and_told(done):
    study, _, trained, collected = done
    assert (trained.verb, trained.unit, trained.done, trained.skipped, trained.failed) == (
        "train",
        "trainings",
        36,
        0,
        0,
    )
    assert (collected.done, collected.failed, collected.note) == (36, 0, str(study.results))
    assert collected.line().startswith("collect   36 models done in")
    wanted = json.loads(study.expected.read_text())["train"]
    assert len(wanted) == 36 and all(read_record(study, run_id)["status"] == "done" for run_id in wanted)


def test_the_table_holds_the_skill_of_every_model_by_split(done):
    study, *_, collected = done
    results = open_results(study)
    assert max(map(len, collected.table)) <= 80
    heads = [k for k, line in enumerate(collected.table) if "Skill" in line]
    assert heads == [0, 10] and collected.table[0].startswith("leave one subject out"), "what matters comes first"
    ridge = next(line for line in collected.table if line.startswith("Ridge  "))
    skill = results["skill"].sel(model="ridge", optimizer="none", split=BY_SUBJECT).item()
    assert f"{skill:+.3f}".replace("-", "−") in ridge and ridge.endswith("too few")
    assert collected.table[1].startswith("Planted truth")
    assert list(collected.table[-2:]) == [
        "better: subjects in which the error is the smaller one",
        "beats: 95 % interval above 0, and sign test of “better” with p <= 0.05",
    ]


def test_a_second_call_has_nothing_to_do(done):
    study, config, *_ = done
    stage, before = stage_of(study, config), folder_id(study.runs)
    assert stage.train().line() == "train     nothing to do: all 36 trainings are done already"
    assert stage.farmed == [0] and folder_id(study.runs) == before
    assert stage.collect().line().startswith("collect   nothing to do: all 36 models are done already")


def test_what_is_missing_is_trained_anew_to_the_same_numbers(copied):
    study, config = copied
    gone = [
        next(i for i, n in json.loads(study.expected.read_text())["train"].items() if w in n)
        for w in ("adam, ", "pls, ")
    ]
    before = {run_id: read_arrays(study, run_id) for run_id in gone}
    for run_id in gone:
        shutil.rmtree(study.run(run_id))
    found = stage_of(study, config).train()
    assert (found.done, found.skipped) == (2, 34)
    for run_id in gone:
        after = read_arrays(study, run_id)
        assert after.keys() == before[run_id].keys()
        for name, array in after.items():
            np.testing.assert_array_equal(array, before[run_id][name])


@pytest.mark.slow
def test_two_processes_find_the_same_numbers(done, tmp_path):
    study, config = study_of(tmp_path / "two")
    config = replace(config, executor=replace(config.executor, kind="local", workers=2))
    assert stage_of(study, config).train().done == 36
    for run_id in json.loads(study.expected.read_text())["train"]:
        here, there = read_arrays(study, run_id), read_arrays(done[0], run_id)
        np.testing.assert_array_equal(here["prediction"], there["prediction"])


def test_networks_that_cannot_be_built_fail_with_a_reason_and_the_others_go_on(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise InputError("EMG network: 13 is too few")

    monkeypatch.setattr(emg_train, "fit_emgnet", refuse)
    study, config = study_of(tmp_path)
    stage = stage_of(study, config)
    found = stage.train()
    assert (found.done, found.failed) == (24, 12)
    assert (stage_of(study, config).train().line()).endswith("24 done before, 12 failed")
    collected = stage.collect()
    assert collected.failed == 12
    results = open_results(study)
    reasons = set(results["reason"].values[results["status"].values == int(Status.FAILED)])
    assert len(reasons) == 1 and next(iter(reasons)).startswith("bad_input: ") and "13" in next(iter(reasons))
    again = stage_of(study, config, retry_failed=True)
    assert again.train().failed == 12 and again.farmed == [12]


def test_with_few_eeg_channels_networks_are_left_out_and_told(tmp_path):
    study, config = study_of(tmp_path, n_eeg=12)
    stage = stage_of(study, config)
    found = stage.train()
    assert (found.done, found.failed) == (24, 0)
    assert found.note == (
        "not made: EMG network for 12 EEG channels: its kernels of 7², 5² and 3² without padding leave nothing of an "
        "image smaller than 13 x 13; give at least 13 EEG channels, or go by the predictors without a network"
    )
    assert (stage_of(study, config, retry_failed=True).train().line()).startswith("train     nothing to do: all 24 ")
    collected = stage.collect()
    assert (collected.done, collected.failed) == (24, 0)
    assert any(line.startswith("Ridge ") for line in collected.table)
    assert not any("etwork" in line or "failed" in line for line in collected.table)
    results = open_results(study)
    assert results["optimizer"].values.tolist() == ["none"] and not set(NETWORKS) & set(results["model"].values)
    assert results.attrs["impossible"] == {"network": found.note.removeprefix("not made: ") + "."}
    assert (results["status"].values[results["run_id"].values != ""] == int(Status.DONE)).all()
    skills = results["skill"].sel(optimizer="none", model=["ridge", "pls", "stacked"])
    assert np.isfinite(skills.values).all() and skills.sizes["split"] == 2


def test_failed_networks_of_before_are_no_longer_counted(tmp_path):
    """A study of few channels whose networks were once tried, and failed."""
    study, config = study_of(tmp_path, n_eeg=12)
    enough = replace(EmgRecords.of(open_features(study)), n_eeg=13)
    for run in EmgSweep(config, enough).runs:
        if run.kind == "network":
            write_failure(study, run.id, record_of(run, 0.0, reason="bad_input: 12 EEG channels are too few"))
    stage = stage_of(study, config)
    assert (stage.train().failed, stage.collect().failed) == (0, 0)
    tally = RunTally(study)
    tally.update()
    assert [(each["kind"], each["done"], each["failed"]) for each in tally.kinds()] == [("predictor", 24, 0)]


def test_features_that_are_half_made_are_not_learned_from(tmp_path):
    study, config = study_of(tmp_path)
    reset_features(study, [0])
    with pytest.raises(StoreError, match=r"the connectivity of \d+ of 12 records is still to be computed"):
        stage_of(study, config).train()


def test_with_one_subject_the_split_by_subject_is_left_out_and_told(tmp_path):
    study, config = study_of(tmp_path, subjects=1, per_subject=12)
    stage = stage_of(study, config)
    found = stage.train()
    assert found.done == 9 and "nobody would be left to train on" in found.note
    stage.collect()
    results = open_results(study)
    assert list(results["split"].values) == ["80-20"] and set(results.attrs["impossible"]) == {BY_SUBJECT}
    assert results["skill_unit"].values.tolist() == ["fold"]
    assert results["verdict"].sel(model="ridge", optimizer="none").item() == "too few", "one fold is one unit"


def test_the_dashboard_counts_networks_and_names_the_best(done):
    study = done[0]
    tally = RunTally(study)
    tally.update()
    counts = {each["kind"]: (each["done"], each["total"]) for each in tally.kinds()}
    assert counts == {"network": (12, 12), "predictor": (24, 24)}
    best = best_scores(tally.records, tally.expected)
    assert {each["network"] for each in best} == {True, False}
    assert all(each["count"] == 3 and each["of"] == "test" for each in best), "three subjects are left out in turn"
    network = next(each for each in best if each["network"])
    found = [
        r["scores"]["nrmse"]
        for r in tally.records.values()
        if r["labels"]["split"] == BY_SUBJECT
        and (r["labels"]["model"], r["labels"]["optimizer"]) == ("network", network["model"].split(", ")[1].lower())
    ]
    assert network["nrmse"] == pytest.approx(np.mean(found))


def test_a_record_can_be_shown(done):
    study = done[0]
    run_id = next(
        i for i, name in json.loads(study.expected.read_text())["train"].items() if name.startswith("network, adam")
    )
    lines = Shown.of(study.folder, run_id).lines()
    assert lines[0] == f"run       {run_id}  (network, done)"
    assert lines[1].startswith("labels    model network, optimizer adam, split ")
    assert any(line.strip().startswith("mse_test ") for line in lines)
