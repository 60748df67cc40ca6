import doctest
import io
import json
import re
import shutil
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from motorsweep.errors import StoreError
from motorsweep.hpc import emg_names
from motorsweep.hpc.emg_comparison import complete_emg_results
from motorsweep.hpc.emg_names import BY_SUBJECT, METRICS, PARTS
from motorsweep.hpc.emg_sweep import EmgRecords, EmgSweep
from motorsweep.hpc.emg_train import score_run
from motorsweep.hpc.records import record_of
from motorsweep.jobs import eeg_evidence, eeg_score_tables
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.eeg_evidence import read_eeg_evidence, skill_text
from motorsweep.jobs.eeg_findings import answer, data_words, summary
from motorsweep.jobs.eeg_methods import method_words
from motorsweep.jobs.eeg_records import fact_rows, note_rows
from motorsweep.jobs.eeg_report import write_eeg_report
from motorsweep.jobs.eeg_score_tables import PAPER_TABLE_3, score_lines, score_text, skill_tables
from motorsweep.jobs.eeg_training import EegTraining
from motorsweep.zarr_store import emg_results
from motorsweep.zarr_store.emg_mocks import write_mock_features
from motorsweep.zarr_store.emg_results import collect_emg
from motorsweep.zarr_store.features import open_features
from motorsweep.zarr_store.results import open_results
from motorsweep.zarr_store.runs import write_failure, write_run
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from PIL import Image

from .written_page import Page

TOML = """kind = "eeg"
name = "small"
seed = 5
[network]
optimizers = ["adam", "sgdm"]
[validation]
splits = ["80-20", "leave-one-subject-out"]
"""


def knows(truth, mean, generator):
    """A model that halves the error of the mean matrix, and more."""
    return mean + 0.8 * (truth - mean)


def knows_nothing(truth, mean, generator):
    """The mean matrix with errors of its own, which cost a little."""
    return mean + 0.3 * np.nanstd(truth) * generator.standard_normal(truth.shape)


def is_worse(truth, mean, generator):
    """The mean matrix of something else."""
    return mean - 1.2 * (truth - mean)


def wins_here_and_loses_there(truth, mean, generator):
    """Better for every other record's subject: by the sign of a wave along the records."""
    sign = np.sign(np.sin(np.arange(len(truth)) // 6 * np.pi + 0.5))
    return mean + 0.1 * sign[:, None, None] * (truth - mean)


def study_of(
    folder, network=knows, ridge=knows, subjects=6, control=knows_nothing, skip=(), fail=(), text=TOML, **features
):
    """A study whose runs predict by rule, collected; nothing is trained."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eeg.toml").write_text(text)
    study, config = Study(folder / "study"), load_study_config(folder / "eeg.toml")
    write_mock_features(study, subjects=subjects, per_subject=6, n_emg=4, **features)
    study.config.write_text(text.replace("small", "small <study>"))
    data = open_features(study).load()
    sweep = EmgSweep(config, EmgRecords.of(data))
    for number, run in enumerate(sweep.runs):
        if run.cell[0] in skip:
            continue
        if run.cell[0] in fail:
            write_failure(study, run.id, record_of(run, time.time(), reason="diverged: at <step> 7"))
            continue
        rules = {"network": network, "mean": None, "network_shuffled": control, "ridge_shuffled": control}
        write_predicted(study, run, data, rules.get(run.model, ridge), number)
    plan = EegTraining(study, config, None, None).plan(sweep)
    collect_emg(study, plan, open_features(study), partial(complete_emg_results, seed=5))
    return study


def write_predicted(study, run, data, rule, number):
    measured, subjects = data["emg_granger"].values.astype(float), data["subject"].values.astype(str)
    mean = np.broadcast_to(measured[run.split.train].mean(0), measured.shape)
    prediction = mean if rule is None else rule(measured, mean, np.random.default_rng(number))
    if run.model == "planted_truth":
        prediction = data["emg_granger_expected"].values
    prediction = prediction.astype(np.float32)
    scores, arrays = score_run(np.nan_to_num(measured), np.nan_to_num(prediction), run.split, subjects)
    curves = {}
    if run.kind == "network":
        scores["n_parameters"] = 1234
        validation = np.where(np.arange(12) % 4 == 3, np.linspace(2, 1, 12), np.nan)
        curves = {"loss_training": np.linspace(3, 1, 12), "loss_validation": validation}
    write_run(study, run.id, record_of(run, time.time(), scores=scores), arrays | curves | {"prediction": prediction})


def evidence_of(folder, **how):
    return read_eeg_evidence(study_of(folder, **how))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Six subjects, a network that knows, a failed record, a failed model."""
    study = study_of(tmp_path_factory.mktemp("full"), failed=(3,), fail=("pls",))
    page = Page(write_eeg_report(study).read_text(encoding="utf-8"))
    return study, open_results(study).load(), page


def rows_of(page, table, label):
    return [row[1:] for row in page.tables[table] if row and row[0] == label]


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_the_skill_table_holds_the_numbers_of_the_results(full):
    _, results, page = full
    for at, split in enumerate((BY_SUBJECT, "80-20")):
        for model, optimizer, label in (("network", "sgdm", "Network, SGD with momentum"), ("ridge", "none", "Ridge")):
            cell = results.sel(model=model, optimizer=optimizer, split=split)
            row = rows_of(page, "skill", label)[at]
            assert row[0] == skill_text(cell["skill"].item())
            assert row[1] == " to ".join(map(skill_text, cell["skill_interval"].values))
            assert (
                row[2] == f"{cell['skill_wins'].item()} of 6 subjects" and row[3] == cell["verdict"].item() == "beats"
            )
            scores = [np.nanmean(cell[name].sel(part="test").values) for name in ("r2", "r")]
            assert row[4:] == [f"{score:.3f}" for score in scores]
    assert rows_of(page, "skill", "Mean matrix")[0][:4] == ["+0.000", "–", "–", "–"]
    assert rows_of(page, "skill", "PLS (0/6)")[0][0] == "failed"


def test_table_3_holds_all_scores_of_all_parts(full):
    _, results, page = full
    for split in ("80-20", BY_SUBJECT):
        cell = results.sel(model="network", optimizer="adam", split=split)
        wanted = [
            score_text(metric, np.nanmean(cell[f"{metric}_with_diagonal"].sel(part=part).values))
            for part in PARTS
            for metric in METRICS
        ]
        assert rows_of(page, f"table-3-{split}", "Network, Adam") == [wanted]
        heads = [cell for row in page.tables[f"table-3-{split}"][:2] for cell in row]
        assert heads == ["Model", "Training", "Validation", "Test", "All", *["R²", "MSE", "MAE", "r"] * 4]


def test_the_paper_s_table_stands_beside_its_own_splits(full):
    page = full[-1]
    assert rows_of(page, "table-3-80-20", "Adam")[0][8:12] == ["0.927", "18.5", "0.400", "0.949"]
    assert rows_of(page, f"table-3-{BY_SUBJECT}", "RMSprop")[0][:4] == ["0.939", "20.1", "0.400", "0.967"]


def test_what_is_said_of_the_paper_s_table_is_so():
    rows = np.array([row for parts in PAPER_TABLE_3.values() for row in parts])
    r2, mse, mae, r = rows.T
    assert (r2 > r**2).sum() == 9 and len(rows) == 12
    assert 36 < (mse / mae).min() < 37 and 50 < (mse / mae).max() < 52


def test_the_best_predictor_and_the_truth_come_first(full):
    page = full[-1]
    labels = [row[0] for row in page.tables["skill"] if len(row) == 7 and row[0] != "Model"]
    assert labels[0] == "Planted truth" and labels.index("Ridge") < labels.index("Mean matrix")


def test_the_lines_for_the_terminal_hold_the_same(full):
    _, results, _ = full
    line = next(line for line in score_lines(results) if line.startswith("Network, Adam"))
    cell = results.sel(model="network", optimizer="adam", split=BY_SUBJECT)
    assert skill_text(cell["skill"].item()) in line and line.endswith("6 of 6  beats")
    assert any(re.match(r"PLS \(0/6\) +failed", line) for line in score_lines(results))


@pytest.mark.parametrize(
    "metric, value, text",
    [
        ("r2", -0.5, "−0.500"),
        ("mse", 2.5e-4, "0.250"),
        ("mse", 9.1234e-6, "0.0091"),
        ("mse", 0.0185, "18.5"),
        ("mse", 0.1234, "123"),
        ("mae", 2.0, "2.00e+03"),
        ("r", np.nan, "–"),
    ],
)
def test_scores_are_written_with_three_digits(metric, value, text):
    assert score_text(metric, value) == text


# ---- sentences ------------------------------------------------------------------------------------------------------


def test_a_network_that_beats_the_mean_matrix_is_told_with_its_figures(full):
    study, results, page = full
    cell = results.sel(model="network", optimizer="adam", split=BY_SUBJECT)
    skill, (low, high) = cell["skill"].item(), cell["skill_interval"].values
    assert answer(read_eeg_evidence(study)) == (
        "On subjects that it has never seen, the network (Adam) beats the mean matrix: it makes "
        f"{100 * skill:.1f} % less squared error than the mean matrix (skill {skill_text(skill)}, 95 % interval "
        f"{skill_text(low)} to {skill_text(high)}; the smaller error in 6 of 6 subjects, sign test p = 0.016)."
    )
    assert answer(read_eeg_evidence(study)) in page.text
    assert skill == pytest.approx(0.96, abs=1e-3), "an error of a fifth is a squared error of 4 %"


def test_a_network_that_is_worse_is_told(tmp_path):
    said = answer(evidence_of(tmp_path, network=is_worse))
    assert re.match(
        r"On subjects that it has never seen, the network \(Adam\) does not beat the mean matrix, it is worse: it "
        r"makes 4\.84 times the squared error of the mean matrix \(skill −3\.840, .*; the smaller error in 0 of 6 "
        r"subjects\)\.",
        said,
    )


def test_a_network_that_cannot_be_told_from_the_mean_matrix_does_not_beat_it(tmp_path):
    evidence = evidence_of(tmp_path, network=wins_here_and_loses_there, ridge=knows)
    assert re.match(
        r"On subjects .*, the network \(Adam\) does not beat the mean matrix beyond chance: .* in 3 of 6 subjects, "
        r"sign test p = 0\.66\)\.",
        answer(evidence),
    )
    told = " ".join(summary(evidence))
    assert re.search(
        r"Without a network \(leave one subject out\), (ridge|PLS|stacked ridge \(ours\)) beats the mean matrix \(",
        told,
    )
    assert ", and does better than the network." in told


def test_few_subjects_are_too_few(tmp_path):
    evidence = evidence_of(tmp_path, subjects=3)
    assert re.match(
        r"On subjects that it has never seen, it cannot be told whether the network \(Adam\) beats the mean matrix: 3 "
        r"subjects are too few\. As far as it goes, it makes 96\.0 % less",
        answer(evidence),
    )
    told = " ".join(summary(evidence))
    assert "3 subjects can carry no statement about people" in told and "18 records are few for 12 entries each" in told


def test_one_subject_says_nothing_of_unseen_ones(tmp_path):
    study = study_of(tmp_path, subjects=1, planted=False)
    evidence = read_eeg_evidence(study)
    assert answer(evidence) == (
        "All records are of one subject, so whether the network beats the mean matrix on subjects that it has never "
        "seen cannot be told from this study."
    )
    told = summary(evidence)
    assert told[1].startswith(
        "On further records of the same subject (80/20 by record), it cannot be told whether it beats the mean matrix: "
        "1 fold is too few."
    )
    assert "1 subject can carry no statement about people" in " ".join(told)
    page = Page(write_eeg_report(study).read_text(encoding="utf-8"))
    assert "nobody would be left to train on" in page.text
    assert "the true influence of muscles on each other is not known" in page.text
    assert "Planted truth" not in page.text and not (study.report / "subjects.png").exists()


def test_planted_records_without_a_closed_form_are_not_called_measured(tmp_path):
    evidence = evidence_of(tmp_path, planted=False)
    rectified = replace(evidence, features=evidence.features.assign_attrs(notes={"source": "planted"}))
    assert method_words(evidence)[-1].startswith("These records are measured:")
    assert method_words(rectified)[-1].startswith("These records are planted, but the truth is known of raw EMG alone")


def test_a_subject_of_whom_no_record_can_be_used_is_not_counted(tmp_path):
    """Six subjects are listed; of the other ones all records failed."""
    splits = TOML.replace('["80-20", "leave-one-subject-out"]', '["leave-one-subject-out", "k-fold"]')
    one = evidence_of(tmp_path / "one", text=splits, failed=range(6, 36))
    assert one.results.sizes["subject"] == 6 and set(one.results["skill_unit"].values) == {"fold"}
    row = one.row("k-fold", "network", "adam")
    assert (row.units, row.wins, row.verdict) == (5, 5, "beats"), "five folds of one subject, not one subject"
    assert answer(one).startswith("All records that can be used are of one subject, so whether the network beats")
    told = " ".join(summary(one))
    assert "On further records of the same subject (k-fold by record), it beats the mean matrix" in told
    assert "1 subject can carry no statement about people" in told
    few = evidence_of(tmp_path / "few", text=splits, failed=range(18, 36))
    assert set(few.results["skill_unit"].values) == {"subject"}
    assert "3 subjects can carry no statement about people: a sign test needs at least 5" in " ".join(summary(few))
    assert data_words(few)[0] == (
        "18 records of 3 subjects (9 of activity, 9 of rest); 18 more failed and are in no part of any split, among "
        "them all those of 3 subjects: s03, s04, s05."
    )


def test_too_few_folds_are_called_folds(tmp_path):
    told = " ".join(summary(evidence_of(tmp_path, subjects=1)))
    assert re.search(r"\(not the paper's\): skill \+\d\.\d{3}, of too few folds to judge\.", told)
    assert "too few subjects" not in told


def shrunken(truth, mean, generator):
    """The mean matrix, and a thousandth of the way to the truth."""
    return mean + 0.001 * (truth - mean)


def test_a_gain_of_next_to_nothing_is_not_called_chance(tmp_path):
    evidence = evidence_of(tmp_path, network=shrunken)
    row = evidence.row(BY_SUBJECT, "network", "adam")
    assert 0 < row.interval[0] < row.skill < 0.01 and row.wins == 6 and row.verdict == "unclear"
    assert "the network (Adam) differs from the mean matrix by less than a hundredth of its squared error:" in answer(
        evidence
    )


def test_what_cannot_be_told_is_not_called_small(tmp_path):
    evidence = evidence_of(tmp_path, network=wins_here_and_loses_there)
    row = evidence.row("80-20", "network", "adam")
    assert abs(row.skill) < 0.01 and row.interval[0] < -0.1 and row.interval[1] > 0.1
    assert "it does not beat the mean matrix beyond chance: it makes 1.0 % more" in summary(evidence)[1]


def test_controls_of_too_few_subjects_are_not_called_harmless(tmp_path):
    told = next(
        text for text in summary(evidence_of(tmp_path, subjects=3, control=knows)) if text.startswith("Trained on EEG")
    )
    assert told.endswith("skill of the network +0.960 and of ridge +0.960; of too few subjects to judge.")


def test_why_no_network_could_be_trained_is_told(tmp_path):
    evidence = evidence_of(tmp_path, fail=("network", "network_shuffled"))
    assert answer(evidence).endswith("that it has never seen: no training succeeded.")
    assert summary(evidence)[1] == "No network could be trained. at <step> 7"
    page = Page(write_eeg_report(evidence.study).read_text(encoding="utf-8"))
    assert "Not drawn: no network is trained (leave one subject out)." in page.text


def test_without_networks_the_report_says_why_and_how_the_best_predictor_did(tmp_path):
    study = study_of(tmp_path, n_eeg=6, ridge=knows)
    evidence = read_eeg_evidence(study)
    best = evidence.best_rival(BY_SUBJECT)
    told = summary(evidence)
    assert told[:2] == [
        "Whether the network beats the mean matrix on subjects that it has never seen cannot be told: no network was "
        "trained.",
        "EMG network for 6 EEG channels: its kernels of 7², 5² and 3² without padding leave nothing of an image "
        "smaller than 13 x 13; give at least 13 EEG channels, or go by the predictors without a network.",
    ]
    assert re.match(
        r"Without a network \(leave one subject out\), (ridge|PLS|stacked ridge \(ours\)) beats the mean matrix "
        rf"\(skill {re.escape(skill_text(best.skill))}, 95 % interval .*; the smaller error in 6 of 6 subjects, "
        r"sign test p = 0\.016\)\.$",
        told[2],
    )
    assert not [text for text in told[3:] if "network" in text], "nothing is said of what was not trained"
    page = Page(write_eeg_report(study).read_text(encoding="utf-8"))
    assert f"Not made: {told[1]}" in page.text
    assert "Not drawn: no network is trained (leave one subject out)." in page.text
    assert "The paper's network, which reads the connectivity matrices of the EEG, was not trained." in page.text
    assert "The network has" not in page.text and "trained as its Table 2 says" not in page.text
    labels = {row[0] for row in page.tables["skill"]} | {row[0] for row in page.tables[f"table-3-{BY_SUBJECT}"]}
    assert {"Ridge", "PLS", "Mean matrix"} < labels and not [label for label in labels if "Network" in label]
    names = {path.stem for path in study.report.glob("*.png")}
    assert {"emg_means", "emg_skill", "emg_records", "scatter", "subjects"} < names and "curves" not in names


def test_one_subject_of_few_channels_is_told_of_both(tmp_path):
    evidence = evidence_of(tmp_path, subjects=1, n_eeg=6)
    told = summary(evidence)
    assert told[0].endswith("cannot be told: no network was trained.") and told[1].startswith("EMG network for 6 EEG")
    assert re.match(r"Without a network \(80/20 by record\), .* is the best, of too few folds to judge \(", told[2])
    assert told[-1] == "6 records are few for 12 entries each: scores may change a good deal with other records."
    words = data_words(evidence)
    assert [text[:12] for text in words[-2:]] == ["Not made: sp", "Not made: EM"]


def test_the_split_that_tests_most_is_shown_where_no_subject_is_left_out(tmp_path):
    splits = TOML.replace('["80-20", "leave-one-subject-out"]', '["80-20", "k-fold"]')
    evidence = evidence_of(tmp_path, text=splits, ridge=is_worse)
    assert evidence.splits == ["k-fold", "80-20"] and evidence.shown_split == "k-fold"
    assert answer(evidence) == (
        "Whether the network beats the mean matrix on subjects that it has never seen was not tried: that split was "
        "not asked for."
    )
    told = summary(evidence)
    assert told[1].startswith(
        "On further records of subjects that it knows (k-fold by record), it beats the mean matrix"
    )
    assert "is the best, and does worse than the mean matrix (skill −3.840" in " ".join(told)
    assert "and the network does better." in " ".join(told)


def test_high_scores_of_the_mean_matrix_are_told_as_what_they_are(full):
    study, results, _ = full
    mean, network = (
        results.sel(model=m, optimizer=o, split=BY_SUBJECT) for m, o in (("mean", "none"), ("network", "adam"))
    )
    r2, r = (np.nanmean(mean[f"{name}_with_diagonal"].sel(part="test")) for name in ("r2", "r"))
    ours = np.nanmean(network["r2_with_diagonal"].sel(part="test"))
    said = next(text for text in summary(read_eeg_evidence(study)) if text.startswith("By the paper's scores"))
    assert f"the mean matrix, which has seen no EEG, reaches R² {r2:.3f} and r {r:.3f} on test records" in said
    assert f"The network reaches R² {ours:.3f} and r " in said


def test_controls_that_know_nothing_are_as_they_must_be_and_others_are_a_leak(full, tmp_path):
    fine = " ".join(summary(read_eeg_evidence(full[0])))
    assert re.search(
        r"Trained on EEG and EMG of different records: .* neither beats the mean matrix, as it must be\.", fine
    )
    leaky = " ".join(summary(evidence_of(tmp_path, control=knows)))
    assert "they beat the mean matrix, by chance or because something leaks. Find out before" in leaky
    html = str(skill_tables(read_eeg_evidence(tmp_path / "study")))
    row = html.split("Ridge, shuffled pairs</th>")[1].split("</tr>")[0]
    assert "var(--alert)" in row and "var(--best)" not in row, "a control that beats is no success"


def test_what_is_not_done_is_told(tmp_path):
    evidence = evidence_of(tmp_path, skip=("network",), fail=("pls",))
    assert answer(evidence) == (
        "Whether the network beats the mean matrix on subjects that it has never seen: no training is finished yet."
    )
    planned, done = evidence.results["run_id"].values != "", evidence.results["status"].values == int(Status.DONE)
    assert summary(evidence)[-1] == (
        f"{done.sum()} of {planned.sum()} trainings are done (14 pending, 7 failed); what is said is of those."
    )
    page = Page(str(skill_tables(evidence)))
    assert rows_of(page, "skill", "Network, Adam (0/6)")[0][0] == "pending"


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_escapes_what_it_is_given(full):
    page = full[-1]
    assert page.references and all(re.match(r"data:image/png;base64,|#", each) for each in page.references)
    assert not {"script", "link", "iframe", "object", "study", "step"} & {tag for tag, _ in page.tags}
    anchors = {each[1:] for each in page.references if each.startswith("#")}
    assert anchors <= {attrs.get("id") for _, attrs in page.tags}
    assert "small <study>" in page.text


def test_pictures_are_there_in_light_and_dark_and_not_blank(full):
    study, _, page = full
    names = {path.stem for path in study.report.glob("*.png")}
    eeg = {f"eeg_{name}" for name in ("correlation", "coherence", "phase_lag_index", "granger", "dtf")}
    assert names == eeg | {"emg_means", "emg_skill", "emg_records", "scatter", "subjects", "curves"}
    for name in names:
        pixels = np.asarray(Image.open(io.BytesIO((study.report / f"{name}.png").read_bytes())))
        assert pixels.std() > 5 and (pixels[0, 0] == 255).all()
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    dark = [attrs for tag, attrs in page.tags if tag == "source"]
    assert len(pictures) == len(dark) == len(names) and all(attrs["alt"] for attrs in pictures)


def test_failures_are_named_with_the_command_that_shows_them(full):
    study, results, page = full
    assert rows_of(page, "failures", "record s00-r03")[0][0] == "bad_input: E0 is flat"
    why, more = rows_of(page, "failures", "PLS, leave-one-subject-out, fold 2")[0]
    run_id = results["run_id"].sel(model="pls", optimizer="none", split=BY_SUBJECT, fold=2).item()
    assert why == "diverged: at <step> 7" and more == f"motorsweep show {study.folder} {run_id}"


def test_what_the_records_are_like_is_told(full):
    study, _, page = full
    features = open_features(study).load()
    facts = {row["What"]: row["Value"] for row in fact_rows(features)}
    assert facts["EMG channels"] == "4: M0, M1, M2, M3"
    assert facts["Order of the EEG's autoregression"] == "8 samples; 80 ms"
    assert facts["Rank of the cleaned EEG"] == "12 of 13"
    assert facts["Artefact components removed"] == "0 to 2, median 1 a record"
    assert note_rows(features) == [
        {"Number": "1", "Note": "E1 is saturated: 12 % of its samples at 5 V", "Records": "s00-r01"}
    ]
    features["notes"].values[:3] = [
        "E1 is saturated: 9 % of its samples at 5 V\nE2 is flat",
        "E1 is saturated: 12 % of its samples at 5 V",
        "E2 is flat",
    ]
    assert note_rows(features) == [
        {
            "Number": "2",
            "Note": "E1 is saturated: 9 % of its samples at 5 V (other numbers in others)",
            "Records": "s00-r00, s00-r01",
        },
        {"Number": "2", "Note": "E2 is flat", "Records": "s00-r00, s00-r02"},
    ]
    assert (
        "35 records of 6 subjects (18 of activity, 17 of rest); 1 more failed and is in no part of any split."
        in page.text
    )
    assert "The network has 1,234 parameters" in page.text
    assert all(rows_of(page, "facts", what) == [[value]] for what, value in facts.items())


@pytest.mark.parametrize("features", ["gone", "of more records"])
def test_a_study_without_the_features_of_its_results_still_has_a_report(full, tmp_path, features):
    left_out = shutil.ignore_patterns("report", *(["features.zarr"] if features == "gone" else []))
    shutil.copytree(full[0].folder, tmp_path / "study", ignore=left_out)
    if features == "of more records":
        described = tmp_path / "study/features.zarr/zarr.json"
        values = json.loads(described.read_text())
        values["attributes"]["id"] = "0123456789abcdef"
        described.write_text(json.dumps(values))
    page = Page(write_eeg_report(tmp_path / "study").read_text(encoding="utf-8"))
    assert "the features that these results were made from are not there" in page.text and "facts" not in page.tables


def test_without_results_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(StoreError, match="motorsweep collect"):
        write_eeg_report(tmp_path)


@pytest.mark.parametrize("module", [emg_names, emg_results, eeg_evidence, eeg_score_tables])
def test_the_examples_of_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0
