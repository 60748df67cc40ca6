"""Many mappers in one task: forced on the CPU here, where the probe would say no; a GPU only changes the device."""

from dataclasses import replace

import numpy as np
import pytest
from motorsweep.hpc.encode import SplitConfig
from motorsweep.hpc.identity import mapper_training
from motorsweep.hpc.sweep import Sweep
from motorsweep.hpc.train import TrainTask
from motorsweep.hpc.train_fused import LARGEST_GROUP, TrainGroup, group_mappers, train_any
from motorsweep.jobs.config import parse_study
from motorsweep.zarr_store.codes import write_codes
from motorsweep.zarr_store.mocks import mock_trials
from motorsweep.zarr_store.runs import read_arrays, read_record
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.trials import write_trials

TRIALS = 26
TEXT = """name = "fused"
[inputs]
kinds = ["e_norm"]
[mappers]
depths = [3]
connections = ["direct", "synergy"]
epochs = 2
batch = 8
learning_rate = 0.02
synergies = 2
[validation]
repeats = 1
folds = 3
dropout_grid = [0.0, 0.2]
"""


@pytest.fixture
def config():
    return parse_study(TEXT)


def made(folder, config):
    """A study with trials and codes, and the tasks of its cross-validation."""
    study, sweep = Study(folder), Sweep(config, "t")
    write_trials(study, mock_trials(trials=TRIALS))
    generator = np.random.default_rng(0)
    for run in sweep.autoencoders:
        write_codes(study, run.id, generator.random((TRIALS, 8, 8, 8)).astype(np.float32), {"input": run.input})
    split = SplitConfig(test_fraction=0.1, folds=3, seed=config.seed)
    how = {"study": str(folder), "training": mapper_training(config), "split": split, "device": "cpu"}
    return study, [TrainTask(run=run, **how) for run in sweep.validation]


def test_groups_hold_one_architecture_each_and_are_not_too_large(config, tmp_path):
    many = replace(config, validation=replace(config.validation, repeats=6))
    _, tasks = made(tmp_path, many)
    groups = group_mappers(tasks)
    assert sorted(run.id for group in groups for run in group.runs) == sorted(task.run.id for task in tasks)
    assert [len(group.runs) for group in groups] == [LARGEST_GROUP, 6] * 2
    for group in groups:
        assert len({(run.cell.depth, run.cell.connection) for run in group.runs}) == 1


def test_a_group_gives_the_records_of_its_members_alone(config, tmp_path):
    alone, tasks = made(tmp_path / "alone", config)
    for task in tasks:
        train_any(task)
    together, tasks = made(tmp_path / "together", config)
    asked = []

    def pays(members, accelerator):
        asked.append(len(members))
        return True

    for group in group_mappers(tasks):
        assert isinstance(group, TrainGroup)
        train_any(group, pays)
    assert sum(asked) == len(tasks), "folds of 7 and 8 trials: a program for each size"
    for task in tasks:
        one, other = (read_record(study, task.run.id) for study in (alone, together))
        assert one["status"] == other["status"] == "done"
        np.testing.assert_allclose(other["loss"], one["loss"], rtol=1e-3)
        assert other["scores"]["nrmse"] == pytest.approx(one["scores"]["nrmse"], rel=1e-2)
        a, b = (read_arrays(study, task.run.id) for study in (alone, together))
        assert a.keys() == b.keys()
        np.testing.assert_array_equal(a["measured"], b["measured"])
        np.testing.assert_allclose(b["prediction_all"], a["prediction_all"], atol=2e-2)


def test_without_a_gpu_the_probe_says_no_and_members_are_trained_one_by_one(config, tmp_path):
    study, tasks = made(tmp_path / "study", config)
    group = next(each for each in group_mappers(tasks))
    train_any(group)
    other, again = made(tmp_path / "other", config)
    for task in again[:1]:
        train_any(task)
        assert read_record(study, task.run.id)["loss"] == read_record(other, task.run.id)["loss"]


@pytest.mark.parametrize("together", [True, False])
def test_a_member_that_diverges_is_a_failed_run_and_the_others_are_done(config, tmp_path, together):
    """A penalty that is infinite in float32."""
    wild = replace(config, validation=replace(config.validation, dropout_grid=(), l1_grid=(1e-4, 1e39)))
    wild = replace(wild, mappers=replace(wild.mappers, connections=("direct",)))
    study, tasks = made(tmp_path, wild)
    for group in group_mappers(tasks):
        train_any(group, lambda members, accelerator: together)
    for task in tasks:
        record = read_record(study, task.run.id)
        expected = "failed" if task.run.cell.l1 > 1 else "done"
        assert record["status"] == expected, record["reason"]
        assert expected == "done" or "diverged: training, epoch" in record["reason"]


def test_a_program_that_the_device_cannot_hold_is_left_for_one_by_one(config, tmp_path):
    def too_large(members, accelerator):
        raise RuntimeError("CUDA out of memory")

    study, tasks = made(tmp_path, config)
    for group in group_mappers(tasks):
        train_any(group, too_large)
    assert {read_record(study, task.run.id)["status"] for task in tasks} == {"done"}


def test_a_member_that_cannot_be_prepared_fails_alone(config, tmp_path):
    study, tasks = made(tmp_path, config)
    group = next(group for group in group_mappers(tasks) if group.tasks[0].run.cell.connection == "direct")
    lost = replace(group.tasks[1], split=replace(group.tasks[1].split, folds=99))
    train_any(TrainGroup(tasks=(group.tasks[0], lost, *group.tasks[2:])))
    states = [read_record(study, run.id)["status"] for run in group.runs]
    assert states[1] == "failed" and set(states[:1] + states[2:]) == {"done"}
    assert "bad_input: fold" in read_record(study, group.runs[1].id)["reason"]


def test_folds_whose_synergies_differ_in_number_are_programs_of_their_own(config, tmp_path):
    released = replace(config, protocol="released", mappers=replace(config.mappers, synergies=0, synergy_vaf=0.9))
    study, tasks = made(tmp_path, released)
    for group in group_mappers(tasks):
        train_any(group, lambda members, accelerator: True)
    ranks = {
        read_arrays(study, task.run.id)["synergy_basis"].shape[1]
        for task in tasks
        if task.run.cell.connection == "synergy"
    }
    assert {read_record(study, task.run.id)["status"] for task in tasks} == {"done"} and ranks <= {1, 2, 3}
