from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.hpc.emg_names import BY_SUBJECT, NETWORKS, OURS, TUNED
from motorsweep.hpc.emg_sweep import EmgRecords, EmgSweep, network_training
from motorsweep.jobs.config import load_study_config
from motorsweep.zarr_store.emg_mocks import write_mock_features
from motorsweep.zarr_store.features import open_features
from motorsweep.zarr_store.study import Study

TOML = """kind = "eeg"
name = "small"
seed = 5
[network]
optimizers = ["adam", "sgdm"]
[validation]
folds = 3
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "eeg.toml").write_text(TOML)
    return load_study_config(tmp_path / "eeg.toml")


def records(subjects=5, each=4, failed=(), planted=True, features_id="f" * 16, n_eeg=19):
    n = subjects * each
    return EmgRecords(
        features_id=features_id,
        names=tuple(f"r{k}" for k in range(n)),
        subjects=tuple(f"s{k // each}" for k in range(n)),
        conditions=tuple("rest" if k % 2 else "activity" for k in range(n)),
        done=tuple(k not in failed for k in range(n)),
        n_eeg=n_eeg,
        planted=planted,
    )


def ids(config, found):
    return {run.cell: run.id for run in EmgSweep(config, found).runs}


def changed(before, after):
    assert before.keys() == after.keys()
    return {cell for cell in before if before[cell] != after[cell]}


def test_every_split_and_fold_has_all_models(config):
    sweep = EmgSweep(config, records())
    assert {name: len(splits) for name, splits in sweep.splits.items()} == {
        "80-20": 1, "70-10-20": 1, BY_SUBJECT: 5, "k-fold": 3,
    }  # fmt: skip
    models = {(run.model, run.optimizer) for run in sweep.runs}
    predictors = {"mean", "ridge", "pls", OURS, "ridge_shuffled", "planted_truth"}
    networks = {("network", "adam"), ("network", "sgdm"), (TUNED, "adam"), ("network_shuffled", "adam")}
    assert models == networks | {(name, "none") for name in predictors}
    assert len(sweep.runs) == 10 * 10 and len({run.id for run in sweep.runs}) == 100
    assert {run.kind for run in sweep.runs if run.model in NETWORKS} == {"network"}
    assert sweep.runs[0].name == "network, adam, 80-20, fold 0"
    assert sweep.runs[3].name == "network, network_shuffled, adam, 80-20, fold 0"
    assert sweep.runs[0].labels == {"model": "network", "optimizer": "adam", "split": "80-20", "fold": 0}


def test_without_a_planted_truth_there_is_no_score_of_it(config):
    assert "planted_truth" not in {run.model for run in EmgSweep(config, records(planted=False)).runs}


def test_ids_are_the_same_for_the_same_study(config):
    assert ids(config, records()) == ids(config, records())


def test_ids_change_with_the_features_and_with_the_records_left_out(config):
    before = ids(config, records())
    assert changed(before, ids(config, records(features_id="e" * 16))) == set(before)
    assert changed(before, ids(config, records(failed=(7,)))) == set(before)


def test_a_failed_record_is_in_no_part(config):
    for run in EmgSweep(config, records(failed=(7,))).runs:
        parts = np.concatenate([run.split.train, run.split.validation, run.split.test])
        assert 7 not in parts and len(np.unique(parts)) == 19


def test_how_networks_are_trained_changes_networks_alone(config):
    before = ids(config, records())
    other = replace(config, network=replace(config.network, epochs=11))
    assert {cell[0] for cell in changed(before, ids(other, records()))} == {"network", "network_shuffled"}
    assert len(changed(before, ids(other, records()))) == 10 * 3


def test_another_number_of_folds_changes_that_split_alone(config):
    before = ids(config, records())
    after = ids(replace(config, validation=replace(config.validation, folds=4)), records())
    assert {cell[2] for cell in before if after.get(cell) != before[cell]} == {"k-fold"}


def test_another_seed_changes_everything_and_where_work_runs_nothing(config):
    before = ids(config, records())
    assert changed(before, ids(replace(config, seed=6), records())) == set(before)
    assert ids(replace(config, executor=replace(config.executor, workers=3)), records()) == before
    assert ids(replace(config, name="another"), records()) == before


def test_all_models_of_a_fold_share_records_and_seed(config):
    runs = [run for run in EmgSweep(config, records()).runs if run.cell[2:] == ("k-fold", 1)]
    assert len({run.spec["split"]["records"] for run in runs}) == len({run.spec["seed"] for run in runs}) == 1
    controls = {run.model: run.spec["shuffle_seed"] for run in runs if "shuffle_seed" in run.spec}
    assert controls.keys() == {"network_shuffled", "ridge_shuffled"} and len(set(controls.values())) == 1


def test_one_subject_cannot_be_left_out_and_the_other_splits_are_made(config):
    sweep = EmgSweep(config, records(subjects=1, each=20))
    assert sweep.splits.keys() == {"80-20", "70-10-20", "k-fold"}
    assert "of subject 's0'" in sweep.impossible[BY_SUBJECT]


def test_networks_are_left_out_where_there_are_too_few_eeg_channels_for_them(config):
    sweep = EmgSweep(config, records(n_eeg=12))
    assert sweep.impossible == {
        "network": "EMG network for 12 EEG channels: its kernels of 7², 5² and 3² without padding leave nothing of an "
        "image smaller than 13 x 13; give at least 13 EEG channels, or go by the predictors without a network."
    }
    assert sweep.optimizers == () and len(sweep.runs) == 10 * 6
    assert {run.model for run in sweep.runs} == {"mean", "ridge", "pls", OURS, "ridge_shuffled", "planted_truth"}


def test_the_number_of_eeg_channels_is_in_no_id(config):
    enough = ids(config, records(n_eeg=13))
    assert ids(config, records(n_eeg=19)) == enough
    assert ids(config, records(n_eeg=12)) == {cell: each for cell, each in enough.items() if cell[0] not in NETWORKS}


def test_the_number_of_eeg_channels_is_that_of_the_features(tmp_path):
    write_mock_features(Study(tmp_path), subjects=2, per_subject=2, n_eeg=7, n_emg=3)
    assert EmgRecords.of(open_features(Study(tmp_path))).n_eeg == 7


def test_records_that_allow_no_split_are_refused(config):
    with pytest.raises(InputError, match=r"planning the trainings: the records allow none of the splits in \[valid"):
        EmgSweep(config, records(subjects=1, each=3))
    with pytest.raises(InputError, match="the records allow none of the splits"):
        EmgSweep(config, records(subjects=1, each=3, n_eeg=6))


def test_the_training_of_a_network_is_that_of_the_study_file(config):
    tuned = network_training(config, TUNED, "adam")
    assert (tuned.optimizer, tuned.scale, tuned.epochs, tuned.learning_rate) == ("adam", True, 50, 0.001)
    training = network_training(config, "network", "sgdm")
    assert (training.optimizer, training.epochs, training.batch, training.patience) == ("sgdm", 10, 32, 20)
