import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from motorsweep.errors import StoreError
from motorsweep.hpc.emg_comparison import complete_emg_results
from motorsweep.hpc.emg_names import BY_SUBJECT
from motorsweep.hpc.emg_sweep import EmgRecords, EmgSweep, network_training
from motorsweep.hpc.emg_train import EmgTrainTask, train_emg_run
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.eeg_training import EegTraining
from motorsweep.zarr_store.emg_mocks import write_mock_features
from motorsweep.zarr_store.emg_results import EmgPlan, collect_emg
from motorsweep.zarr_store.features import open_features
from motorsweep.zarr_store.ids import content_id, folder_id
from motorsweep.zarr_store.results import open_results
from motorsweep.zarr_store.runs import read_arrays, read_record, write_failure
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study

TOML = """kind = "eeg"
name = "small"
seed = 5
[network]
optimizers = ["adam"]
epochs = 2
batch = 8
[validation]
splits = ["80-20", "leave-one-subject-out"]
"""
NETWORK, RIDGE = ("network", "adam"), ("ridge", "none")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of 4 subjects, its runs all done but one that failed, collected."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "eeg.toml").write_text(TOML)
    study, config = Study(folder / "study"), load_study_config(folder / "eeg.toml")
    write_mock_features(study, subjects=4, per_subject=5, failed=(3,))
    sweep = EmgSweep(config, EmgRecords.of(open_features(study)))
    for run in sweep.runs:
        training = network_training(config, run.model, run.optimizer) if run.optimizer != "none" else None
        if run.cell == ("pls", "none", BY_SUBJECT, 2):
            spec = {"kind": run.kind, "spec": run.spec, "labels": run.labels}
            write_failure(study, run.id, spec | {"reason": "diverged: for the test"})
        else:
            train_emg_run(EmgTrainTask(study=str(study.folder), run=run, training=training, device="cpu"))
    plan = EegTraining(study, config, None, None).plan(sweep)
    results = collect_emg(study, plan, open_features(study), partial(complete_emg_results, seed=5)).load()
    return SimpleNamespace(study=study, plan=plan, sweep=sweep, results=results, features=open_features(study).load())


def scores_by_hand(measured, predicted):
    """The paper's four scores of two vectors, in numpy."""
    error = measured - predicted
    return {
        "r2": 1 - (error**2).sum() / ((measured - measured.mean()) ** 2).sum(),
        "mse": (error**2).mean(),
        "mae": np.abs(error).mean(),
        "r": np.corrcoef(measured, predicted)[0, 1],
    }


def off(matrices):
    return matrices[:, ~np.eye(matrices.shape[1], dtype=bool)]


def test_the_scores_are_those_of_the_arrays_of_each_run(made):
    measured = made.features["emg_granger"].values.astype(float)
    for run in made.sweep.runs:
        if made.results["status"].sel(dict(zip(("model", "optimizer", "split", "fold"), run.cell))) != Status.DONE:
            continue
        arrays = read_arrays(made.study, run.id)
        prediction = arrays["prediction"].astype(float)
        rows = {part: arrays[part] for part in ("training", "validation", "test")}
        rows["all"] = np.concatenate(list(rows.values()))
        for part, some in rows.items():
            cell = made.results.sel(dict(zip(("model", "optimizer", "split", "fold"), run.cell))).sel(part=part)
            for name, value in scores_by_hand(off(measured[some]).ravel(), off(prediction[some]).ravel()).items():
                assert cell[name].item() == pytest.approx(value, rel=1e-9), (run.name, part, name)
            for name, value in scores_by_hand(measured[some].ravel(), prediction[some].ravel()).items():
                assert cell[f"{name}_with_diagonal"].item() == pytest.approx(value, rel=1e-9)
            assert made.results["n_records"].sel(split=run.split.name, fold=run.split.fold, part=part) == len(some)


def test_the_scores_by_subject_and_by_entry_are_of_the_test_records(made):
    measured = made.features["emg_granger"].values.astype(float)
    run = next(run for run in made.sweep.runs if run.cell == (*NETWORK, "80-20", 0))
    arrays = read_arrays(made.study, run.id)
    cell = made.results.sel(model="network", optimizer="adam", split="80-20", fold=0)
    test, prediction = arrays["test"], arrays["prediction"].astype(float)
    for subject in made.results["subject"].values:
        rows = test[made.features["subject"].values[test] == subject]
        found = scores_by_hand(off(measured[rows]).ravel(), off(prediction[rows]).ravel())
        assert cell["mse_subject"].sel(subject=subject).item() == pytest.approx(found["mse"], rel=1e-9)
    found = scores_by_hand(measured[test][:, 0, 2], prediction[test][:, 0, 2])
    assert cell["r2_entry"].values[0, 2] == pytest.approx(found["r2"], rel=1e-9)
    assert cell["mae_entry"].values[0, 2] == pytest.approx(found["mae"], rel=1e-9)
    assert np.isnan(cell["r2_entry"].values[1, 1]), "the diagonal does not vary"
    left_out = made.results["mse_subject"].sel(model="ridge", optimizer="none", split=BY_SUBJECT).values
    assert (np.isfinite(left_out) == np.eye(4, dtype=bool)).all(), "each fold tests one subject"


def test_predictions_are_those_of_the_fold_that_tests_the_record(made):
    folds = made.results["test_fold"].sel(split=BY_SUBJECT).values
    assert folds[3] == -1 and (folds[np.arange(20) != 3] == np.repeat([0, 1, 2, 3], [4, 5, 5, 5])).all()
    drawn = made.results["prediction"].sel(model="ridge", optimizer="none", split=BY_SUBJECT).values
    for run in made.sweep.runs:
        if run.cell[:3] == (*RIDGE, BY_SUBJECT):
            arrays = read_arrays(made.study, run.id)
            np.testing.assert_array_equal(drawn[arrays["test"]], arrays["prediction"][arrays["test"]])
    assert np.isnan(drawn[3]).all()


def test_skill_is_the_mean_over_subjects_of_the_share_of_the_mean_matrix_s_error(made):
    results = made.results.sel(split=BY_SUBJECT)
    measured, who = results["measured"].values.astype(float), results["subject_of_record"].values
    predicted = results["prediction"].sel(model="ridge", optimizer="none").values.astype(float)
    mean = results["prediction"].sel(model="mean", optimizer="none").values.astype(float)
    there = np.isfinite(predicted).all(axis=(1, 2))
    squares = {
        name: (off(measured - each) ** 2).sum(axis=1) for name, each in {"ridge": predicted, "mean": mean}.items()
    }
    each = [
        1 - squares["ridge"][there & (who == s)].sum() / squares["mean"][there & (who == s)].sum()
        for s in np.unique(who)
    ]
    cell = results.sel(model="ridge", optimizer="none")
    assert cell["skill"].item() == pytest.approx(np.mean(each), rel=1e-6)
    np.testing.assert_allclose(cell["skill_subject"].values, each, rtol=1e-6)
    pooled = 1 - squares["ridge"][there].sum() / squares["mean"][there].sum()
    assert cell["skill_pooled"].item() == pytest.approx(pooled, rel=1e-6)
    assert cell["skill_units"].item() == 4 and cell["skill_wins"].item() == sum(s > 0 for s in each)
    assert cell["verdict"].item() == "too few", "4 subjects prove nothing"
    assert np.isnan(cell["skill_interval"].values).all(), "4 values do not tell their spread"
    assert results.sel(model="mean", optimizer="none")["skill"].item() == 0


def test_the_mean_matrix_is_that_of_the_training_records(made):
    run = next(run for run in made.sweep.runs if run.cell == ("mean", "none", BY_SUBJECT, 1))
    arrays = read_arrays(made.study, run.id)
    expected = made.features["emg_granger"].values[arrays["training"]].astype(float).mean(0)
    np.testing.assert_allclose(arrays["prediction"][0], expected, rtol=1e-6)


def test_the_planted_truth_scores_what_the_simulation_knows(made):
    run = next(run for run in made.sweep.runs if run.cell == ("planted_truth", "none", "80-20", 0))
    test = read_arrays(made.study, run.id)["test"]
    measured, expected = (
        made.features[name].values[test].astype(float) for name in ("emg_granger", "emg_granger_expected")
    )
    assert made.results["mse"].sel(
        model="planted_truth", optimizer="none", split="80-20", fold=0, part="test"
    ).item() == (pytest.approx((off(measured - expected) ** 2).mean(), rel=1e-6))


def test_a_failed_run_is_told_and_what_is_no_run_is_empty(made):
    cell = made.results.sel(model="pls", optimizer="none", split=BY_SUBJECT, fold=2)
    assert cell["status"] == Status.FAILED and cell["reason"] == "diverged: for the test"
    assert np.isnan(cell["mse"].values).all()
    for key in (("network", "none", "80-20", 0), ("mean", "adam", "80-20", 0), ("ridge", "none", "80-20", 3)):
        cell = made.results.sel(dict(zip(("model", "optimizer", "split", "fold"), key)))
        assert cell["run_id"] == "" and cell["status"] == Status.PENDING and np.isnan(cell["mse"].values).all()


def test_the_losses_and_the_size_of_the_network_are_kept(made):
    run = next(run for run in made.sweep.runs if run.cell == (*NETWORK, "80-20", 0))
    record = read_record(made.study, run.id)
    cell = made.results.sel(optimizer="adam", split="80-20", fold=0)
    curve = cell["loss_training"].values
    np.testing.assert_allclose(curve[np.isfinite(curve)], record["loss"], rtol=1e-6)
    validated = np.flatnonzero(np.isfinite(cell["loss_validation"].values))
    assert validated.tolist() == [3], "two epochs of two steps; a validation after the fourth"
    weights = 5 * 25 * 49 + 25 + 25 * 50 * 25 + 50 + 50 * 100 * 9 + 100 + 100 * 9 + 9
    assert made.results["n_parameters"].sel(model="network", optimizer="adam") == weights
    assert made.results["n_parameters"].sel(model="ridge", optimizer="none") == 0


def test_collecting_twice_gives_the_same_bytes_and_open_results_opens_them(made):
    before = folder_id(made.study.results)
    shuffled = dict(reversed(list(made.plan.runs.items())))
    plan = EmgPlan(**{**vars(made.plan), "runs": shuffled})
    collect_emg(made.study, plan, open_features(made.study), partial(complete_emg_results, seed=5))
    assert folder_id(made.study.results) == before
    opened = open_results(made.study)
    assert opened.attrs["kind"] == "eeg" and opened.attrs["features_id"] == made.features.attrs["id"]
    assert opened["skill"].dims == ("model", "optimizer", "split")
    assert opened["mse"].dims == ("model", "optimizer", "split", "fold", "part")
    assert all(each.attrs.get("long_name") and each.attrs.get("units") for each in opened.variables.values())


def test_a_study_without_runs_is_all_pending(made, tmp_path):
    study = Study(tmp_path)
    shutil.copytree(made.study.features, study.features)
    results = collect_emg(study, made.plan, open_features(study), complete_emg_results).load()
    planned = results["run_id"].values != ""
    assert planned.sum() == len(made.plan.runs) and (results["status"].values == Status.PENDING).all()
    assert np.isnan(results["skill"].values).all() and (results["test_fold"].values == -1).all()


def test_a_record_in_a_wrong_place_is_refused(made, tmp_path):
    study = Study(tmp_path)
    shutil.copytree(made.study.features, study.features)
    run = next(run for run in made.sweep.runs if run.cell == (*RIDGE, "80-20", 0))
    shutil.copytree(made.study.run(run.id), study.run(run.id))
    record = json.loads(study.record(run.id).read_text())
    study.record(run.id).write_text(json.dumps(record | {"labels": record["labels"] | {"model": "pls"}}))
    with pytest.raises(StoreError, match=r"labelled \{'model': 'pls'\}, its place in the results is"):
        collect_emg(study, made.plan, open_features(study))


def test_arrays_of_other_features_are_refused(made, tmp_path):
    study = Study(tmp_path)
    shutil.copytree(made.study.features, study.features)
    run = next(run for run in made.sweep.runs if run.cell == (*RIDGE, "80-20", 0))
    shutil.copytree(made.study.run(run.id), study.run(run.id))
    arrays = read_arrays(study, run.id)
    np.savez(study.arrays(run.id), **arrays | {"prediction": arrays["prediction"][:-1]})
    with pytest.raises(StoreError, match=r"its predictions have the shape \(19, 3, 3\)"):
        collect_emg(study, made.plan, open_features(study))


def test_a_plan_with_a_cell_outside_of_its_axes_is_refused():
    with pytest.raises(StoreError, match="is no cell of the axes"):
        EmgPlan(
            models=("ridge",), optimizers=("none",), splits=("80-20",), folds=(0,),
            runs={("ridge", "none", "80-20", 1): content_id({})},
        )  # fmt: skip
