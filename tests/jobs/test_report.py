import base64
import io
import json
import re
import shlex

import numpy as np
import pytest
from motorsweep.errors import StoreError
from motorsweep.hpc.events import EventLog, StageEvent, TaskEvent
from motorsweep.jobs import report, report_page
from motorsweep.jobs.evidence import read_evidence
from motorsweep.jobs.field_figure import field_view
from motorsweep.jobs.report import write_report
from motorsweep.jobs.timeline import stage_rows, task_spans
from motorsweep.jobs.training_tables import chosen_table, validation_table
from motorsweep.sim.firing import firing_rate
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.datasets import publish_dataset
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.mocks import mock_results, mock_trials
from motorsweep.zarr_store.runs import write_failure, write_run
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.trials import write_trials
from motorsweep.zarr_store.volumes import create_volumes, write_shard
from PIL import Image

from .written_page import Page

CELLS = ("input", "depth", "connection", "repeat")
BEST = {"input": "firing_rate", "depth": 3, "connection": "both"}
CLOSE = {"input": "e_norm", "depth": 3, "connection": "direct"}
ATTRS = {"hotspot_pose": 1, "rmt_a_per_us": 50.0, "rmt_e_v_per_m": 60.0, "e50_v_per_m": 69.0, "slope_v_per_m": 4.8}


def small(drawn=False, **changes):
    """A results Dataset that is quick to draw: without predictions, uncertainty and synergies unless `drawn`."""
    results = mock_results(**({"repeats": (0,), "connections": ("direct", "both"), "depths": (3,)} | changes))
    for name in () if drawn else ("measured", "baseline_prediction", "baseline_sd", "synergy_vaf", "synergy_basis"):
        results[name].values[...] = np.nan
    return results


def store(folder, results, *, name="quick", volumes=False, expected=True, muscles=("FDI", "APB", "ADM")):
    """Write a study: results, trials, and volumes where they are asked for."""
    study = Study(folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    study.config.write_text(f"name = {json.dumps(name)}\n", encoding="utf-8")
    publish_dataset(results, study.results, study.making, "writing results")
    trials = mock_trials(trials=20, muscles=muscles)
    write_trials(study, (trials if expected else trials.drop_vars("expected_response")).assign_attrs(ATTRS))
    if volumes:
        store_volumes(study)
    return study


def store_volumes(study, n=12):
    grid = VolumeGrid((-0.037, -0.021, 0.058), 2e-3, n)
    tissue = np.full((n, n, n), 5, np.uint8)
    tissue[:, :, :9], tissue[:, :, :7], tissue[:, :, :4] = 3, 2, 1
    mask = np.isin(tissue, (1, 2)) & (np.linalg.norm(np.indices(tissue.shape) - 5.5, axis=0) < 5)
    notes = {"head_name": "template", "head_comment": "shells, an approximation", "coil_name": "eight"}
    notes |= {"head_nodes": 1234, "head_tets": 5678}
    create_volumes(
        study,
        grid=grid,
        poses=np.repeat(np.eye(4)[None], 3, 0),
        shard=1,
        tissue=tissue,
        motor_mask=mask,
        attrs={"head_id": "a", "coil_id": "b"},
        notes=notes,
    )
    field = np.exp(-np.linalg.norm(np.indices(tissue.shape) - np.array([5, 6, 6])[:, None, None, None], axis=0) / 4)
    for pose in (0, 1):
        write_shard(study, pose, field[None] * 1.2, [Status.DONE], [31], [1e-11], [0.5], [""])
    write_shard(study, 2, field[None], [Status.FAILED], reason=["diverged: residual 3e-2 <after> 500 iterations"])


def store_runs(study, results, fail=None):
    """A record for every cell, one of them failed; returns the failed id."""
    failed = None
    for at in np.ndindex(results["status"].shape):
        labels = {dim: results[dim].values[i].item() if dim in ("depth", "repeat") else str(results[dim].values[i])
                  for dim, i in zip(CELLS, at)}  # fmt: skip
        below = {"kind": "autoencoder", "input": labels["input"], "repeat": labels["repeat"]}
        made = {"version": "0.1.0", "commit": "c0ffee" * 4, "dirty": False, "packages": {"numpy": "2.4.6"}}
        common = {"scores": {}, "seconds": 1.0, "provenance": made}
        write_run(study, content_id(below), {"kind": "autoencoder", "spec": below, **common, "loss": [3.0, 2.0, 1.5],
                  "labels": {"input": labels["input"], "repeat": labels["repeat"], "fold": None}})  # fmt: skip
        spec = {"kind": "mapper", **labels, "autoencoder": content_id(below)}
        record = {
            "kind": "mapper",
            "spec": spec,
            "labels": {**labels, "fold": None},
            **common,
            "loss": [1.0, 0.1, 0.01],
        }
        results["run_id"].values[at] = content_id(spec)
        if at == fail:
            failed = content_id(spec)
            results["status"].values[at], results["nrmse"].values[at] = Status.FAILED, np.nan
            write_failure(study, failed, record | {"reason": "diverged: NaN in <epoch> 12", "loss": []})
        else:
            write_run(study, content_id(spec), record)
    publish_dataset(results, study.results, study.making, "writing results")
    return failed


def page_of(study):
    return Page(write_report(study).read_text(encoding="utf-8"))


def tables_of(study, *makers):
    evidence = read_evidence(study)
    return Page("".join(maker(evidence) for maker in makers))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Three repeats, both inputs, both depths; one failed cell, one failed pose, events."""
    muscles = ("FDI", "Ärm <b>", "ADM")
    results = mock_results(repeats=(0, 1, 2), muscles=muscles, connections=("direct", "both"), trials=(5, 10))
    results["nrmse_above_best"].loc[BEST] = 0.0
    results["nrmse_above_best_interval"].loc[BEST] = [0.0, 0.0]
    results["nrmse_above_best"].loc[CLOSE] = 0.02
    results["nrmse_above_best_interval"].loc[CLOSE] = [-0.01, 0.05]
    results["baseline_above_best_interval"].values[..., 0] = 0.05
    results["nrmse_interval"].loc[BEST] = [0.31, 0.52]
    study = store(tmp_path_factory.mktemp("full"), results, volumes=True, muscles=muscles)
    failed = store_runs(study, results, fail=(1, 1, 1, 2))
    log = EventLog(study.events)
    log.write(StageEvent(verb="simulate", state="started", total=3, unit="poses", time="2026-01-01T10:00:00+00:00",
                         executor="local: 2 workers x 1 thread"))  # fmt: skip
    for pose, seconds in enumerate((4.0, 8.0, 6.0)):
        where = {"host": "node", "pid": pose % 2, "peak_memory_bytes": 2_500_000_000}
        time = f"2026-01-01T10:00:{10 + pose}+00:00"
        log.write(TaskEvent(verb="simulate", task=f"poses {pose}", status="done", seconds=seconds, time=time, **where))
    log.write(StageEvent(verb="simulate", state="finished", total=3, unit="poses", seconds=83.0))
    page = page_of(study)
    return study, results, failed, page


def test_the_scores_hold_mean_sd_interval_and_difference(full):
    _, results, _, page = full
    scores = results["nrmse"].sel(CLOSE).values
    assert page.score("3-layer Direct", "raw |E|") == [
        f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}",
        "{:.3f} to {:.3f}".format(*results["nrmse_interval"].sel(CLOSE).values),
        "+0.020 (−0.010 to +0.050)", "within chance",
        f"{results['n_parameters'].sel(depth=3, connection='direct').values.min():,} to "
        f"{results['n_parameters'].sel(depth=3, connection='direct').values.max():,}",
        "0.658 ± 0.042",
    ]  # fmt: skip
    assert page.score("3-layer Both", "firing rate")[1:4] == ["0.310 to 0.520", "–", "best"]
    assert page.score("3-layer Both", "firing rate")[-1] == "0.500 ± 0.043"
    two = results["nrmse"].sel(input="firing_rate", depth=6, connection="both").values[:2]
    assert page.score("6-layer Both", "firing rate")[0] == f"{two.mean():.3f} ± {two.std(ddof=1):.3f} (2/3)"


def test_predictors_without_a_network_stand_in_the_same_table(full):
    _, results, _, page = full
    ridge = results["baseline_nrmse"].sel(baseline="ridge", input="firing_rate").values
    row = page.score("Ridge on the codes", "firing rate")
    assert row[0] == f"{ridge.mean():.3f} ± {ridge.std(ddof=1):.3f}" and row[3:] == ["worse", "–", "–"]
    for name in ("PLS on the codes", "Ridge on the voxels", "Response model (ours)"):
        assert {r[1] for r in page.tables["scores"] if r and r[0] == name} == {"raw |E|", "firing rate"}
    for name in ("Training mean (ceiling)", "GP on coil position", "Best possible (floor)"):
        assert [r[1] for r in page.tables["scores"] if r and r[0] == name] == ["–"], "they do not depend on the input"


def test_the_table_has_the_floor_first_and_then_the_best(full):
    page = full[-1]
    rows = [row for row in page.tables["scores"][1:] if row]
    assert rows[0][0] == "Best possible (floor)" and rows[0][5] == "floor"
    complete = [float(row[2].split(" ±")[0]) for row in rows[1:] if "(2/3)" not in row[2]]
    assert complete == sorted(complete) and len(complete) == 7 + 4 * 2 + 2
    assert "(2/3)" in rows[-1][2], "a mean over other test trials comes last"


def test_the_best_and_what_is_within_chance_of_it_are_marked(full):
    study, results, _, _ = full
    html = (study.report / "index.html").read_text(encoding="utf-8")
    table = html.split('id="scores" class="table"')[1].split("</table>")[0]
    marked = re.findall(r'style="(?:[^"]*; ?)?background: var\(--best\);[^>]*>([^<]*)<', table)
    means = [results["nrmse"].sel(at).mean().item() for at in (BEST, CLOSE)]
    assert {text.split(" ±")[0] for text in marked} == {"best", "within chance", *(f"{mean:.3f}" for mean in means)}


def test_muscles_have_their_scores_with_the_best_other_predictor_and_ours(full):
    _, results, _, page = full
    rows = {row[0]: row[1:] for row in page.tables["muscles"] if len(row) == 6}
    assert rows.keys() >= {"FDI", "ADM"}
    mean = results["baseline_nrmse"].mean("repeat")
    kind = str(mean["input"].values[np.argmin(mean.sel(baseline="response_model").values)])
    ours = results["baseline_nrmse_muscle"].sel(baseline="response_model", input=kind, muscle="FDI").mean().item()
    floor = results["baseline_nrmse_muscle"].sel(baseline="best_possible", input="e_norm", muscle="ADM").mean().item()
    assert rows["FDI"][1] == f"{ours:.3f}" and rows["ADM"][4] == f"{floor:.3f}"


def test_the_conclusions_are_a_table_with_the_paper_beside(full):
    page = full[-1]
    here, paper, verdict = page.row("conclusions", "Firing rate beats raw |E|")
    assert re.match(r"NRMSE 0\.\d{3} with raw \|E\|, 0\.\d{3} with firing rate: difference [+−]0\.\d{3}, 95 %", here)
    assert paper == "+0.137" and verdict in ("holds", "does not hold", "cannot be told from chance")
    assert "What the paper did not ask" in page.text


def test_more_parameters_than_data_is_said(full):
    page = full[-1]
    said = r"All networks have more parameters than data: p = [\d,]+ to [\d,]+ for Nk = 45 responses\."
    assert re.search(said, page.text)


def test_table_2_holds_criteria_parameters_and_caution(full):
    _, results, _, page = full
    row = page.row("criteria", "Direct")
    sizes = results["n_parameters"].sel(depth=3, connection="direct").values
    assert row[0] == f"{sizes.min():,} to {sizes.max():,}"
    bic = results["bic"].sel(input="e_norm", depth=3, connection="direct").values.mean()
    assert row[1] == f"{bic:.3f}"
    assert row[5] == "no", "the mock's criteria are outside their domain"
    assert row[6:] == ["1221.000", "−72.660"]  # the paper's, in thousands as no scale is common to both
    assert "AICc (equation 11) needs p < Nk − 2" in page.text


def test_failures_are_named_with_the_command_that_shows_them(full):
    study, _, failed, page = full
    assert page.row("failures", "pose 2")[0] == "diverged: residual 3e-2 <after> 500 iterations"
    why, more = page.row("failures", "mapper 6-layer Both on firing rate, repeat 2")
    assert why == "diverged: NaN in <epoch> 12"
    assert more == f"motorsweep show {study.folder} {failed}"
    assert "11 of 12" not in page.text and "23 of 24 trainings are done (1 failed)" in page.text


def test_the_page_needs_nothing_else(full):
    page = full[-1]
    assert page.references
    assert all(re.match(r"data:image/png;base64,|#", each) for each in page.references)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    anchors = {each[1:] for each in page.references if each.startswith("#")}
    assert anchors <= {attrs.get("id") for _, attrs in page.tags}


def test_text_from_files_is_escaped(full):
    study, _, _, page = full
    assert not [tag for tag, _ in page.tags if tag in ("after", "epoch")]
    html = (study.report / "index.html").read_text(encoding="utf-8")
    assert "Ärm <b>" not in html and "Ärm &lt;b&gt;" not in html.split("<main>")[0]


def test_pictures_are_there_in_light_and_dark_and_not_blank(full):
    study, _, _, page = full
    names = {path.stem for path in study.report.glob("*.png")}
    assert names >= {"fig1_axial", "fig1_coronal", "fig1_sagittal", "fig3_truth", "fig3_prediction_direct"}
    assert names >= {"fig3_best_possible", "fig3_prediction_response_model", "muscles", "fig4_complexity", "scores"}
    assert names >= {"curve_e_norm", "curve_firing_rate", "synergy_vaf", "synergy_basis", "timeline", "loss_mappers"}
    assert names >= {"calibration_coverage", "calibration_error"}
    inline = [each.split(",")[1] for each in page.references if each.startswith("data:")]
    assert len(inline) == 2 * len(names)
    shades = []
    for each in inline:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("L"), float)
        assert pixels.var() > 50
        shades.append(pixels[0, 0])
    assert set(shades) == {255.0, shades[0]} and shades[0] < 40  # corners: dark source first, then light image
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")


def test_the_same_study_gives_the_same_pictures(full):
    study = full[0]
    before = {path.name: path.read_bytes() for path in study.report.glob("*.png")}
    write_report(study)
    assert before == {path.name: path.read_bytes() for path in study.report.glob("*.png")}


def test_assumptions_and_facts_are_stated(full):
    page = full[-1]
    for text in (
        "shells, an approximation",
        "E50 = 69.0 V/m",
        "slope of 4.8 V/m",
        "60.0 V/m at 100 % RMT",
        "50.0 A/µs",
        "This peak is the 99.9th percentile of these voxels; Fig. 1 shows the maximum.",
        "turns firing rates, of the same sigmoid, E50 and slope as the firing-rate input, into muscle responses",
    ):
        assert text in page.text
    assert page.row("facts", "Poses") == ["3, of which 2 solved; largest relative residual 1.0e-11"]
    assert page.row("versions", "numpy")[0] == "2.4.6"
    assert page.row("versions", "commit")[0] == "c0ffeec0ffee"


def test_stage_table_and_spans(full):
    page, events = full[-1], read_evidence(full[0]).events
    assert page.row("stages", "simulate") == ["3 poses", "3", "2", "1:23", "6 s", "8 s (poses 1)", "2.50 GB"]
    spans = task_spans(events)
    assert [span.stop - span.start for span in spans] == pytest.approx([8.0, 4.0, 6.0])  # by start
    assert spans[0].worker == "node · 1"


def test_a_stage_that_was_killed_counts_up_to_its_last_task():
    events = [
        {"event": "stage", "verb": "train", "state": "started", "time": "2026-01-01T10:00:00+00:00"},
        {"event": "task", "verb": "train", "seconds": 5, "size": 1, "time": "2026-01-01T10:00:30+00:00"},
        {"event": "stage", "verb": "train", "state": "started", "time": "2026-01-01T12:00:00+00:00"},
        {"event": "task", "verb": "train", "seconds": 5, "size": 1, "time": "2026-01-01T12:00:07+00:00"},
        {"event": "stage", "verb": "train", "state": "finished", "seconds": 8, "time": "2026-01-01T12:00:08+00:00"},
        {"event": "task", "verb": "train", "seconds": None, "time": "yesterday"},
    ]
    assert stage_rows(events)[0]["Wall time"] == "0:38"


def test_the_field_is_that_of_the_hotspot_at_the_middle_intensity(full):
    evidence = read_evidence(full[0])
    view, why = field_view(evidence.volumes, evidence.trials)
    assert why == "" and view.percent in (110, 120, 130)
    np.testing.assert_allclose(view.e_norm, evidence.volumes["e_norm"][1].values * 50 * view.percent / 100, rtol=1e-6)
    np.testing.assert_array_equal(view.rate, firing_rate(view.e_norm, 69.0, 4.8))
    assert view.peak == (5, 6, 6) and view.tissue[view.peak] == 2
    assert f"{view.e_norm.max():.1f} V/m" in view.sentence()


# ---- studies that lack something ------------------------------------------------------------------------------------


def test_one_input_one_depth_one_repeat(tmp_path):
    page = page_of(store(tmp_path, small(inputs=("firing_rate",))))
    assert re.fullmatch(r"0\.\d{3}", page.score("3-layer Direct", "firing rate")[0])
    assert "one repeat, so no sd" in page.text
    assert "Not drawn. There are no volumes" in page.text
    assert "There are no events" in page.text
    assert "beats raw" not in page.text


def test_measured_responses_have_no_best_possible_row(tmp_path):
    results = small()
    results["baseline_nrmse"].loc[{"baseline": "best_possible"}] = np.nan
    results["baseline_nrmse_muscle"].loc[{"baseline": "best_possible"}] = np.nan
    results["baseline_prediction"].loc[{"baseline": "best_possible"}] = np.nan
    study = store(tmp_path, results, expected=False)
    page = page_of(study)
    assert not [row for row in page.tables["scores"] if row and row[0].startswith("Best possible")]
    assert "Responses: as measured" in page.text and "best possible" not in page.text.split("Scores")[0]
    assert not (study.report / "fig3_best_possible.png").exists()


def test_a_study_where_nothing_is_done_says_so(tmp_path):
    results = small()
    for name, variable in results.data_vars.items():
        if variable.dtype == np.float64:
            variable.values[...] = np.nan
        elif name.endswith("status"):
            variable.values[...] = Status.PENDING
    results["n_parameters"].values[...] = 0
    page = page_of(store(tmp_path, results))
    assert "No network of this study is finished yet. 0 of 4 trainings are done (4 pending)." in page.text
    assert page.score("3-layer Direct", "raw |E|") == ["pending", "–", "–", "pending", "not known yet", "0.658 ± 0.042"]
    assert {row[2] for row in page.tables["scores"][1:] if row} == {"pending"}
    assert {"muscles", "conclusions"}.isdisjoint(page.tables) and "nan" not in page.text.lower().split()
    assert page.row("criteria", "Direct")[0] == "not known yet"


def test_a_cell_without_any_score_is_named_by_its_state_and_not_as_0(tmp_path):
    results = small(drawn=True)
    results["status"].loc[{"input": "e_norm", "connection": "both"}] = Status.FAILED
    results["nrmse"].loc[{"input": "e_norm", "connection": "both"}] = np.nan
    results["status"].loc[{"input": "firing_rate", "connection": "direct"}] = Status.PENDING
    results["nrmse"].loc[{"input": "firing_rate", "connection": "direct"}] = np.nan
    page = page_of(store(tmp_path, results))
    assert page.score("3-layer Both", "raw |E|")[0] == "failed"
    assert page.score("3-layer Direct", "firing rate")[0] == "pending"
    assert "Direct: pending." in page.text or "Both: failed." in page.text  # of the input that is drawn


def test_many_failures_end_with_a_command_that_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SHOWN_FAILURES", 1)
    results = small()
    study = store(tmp_path / "hand knob", results, volumes=True)
    store_runs(study, results, fail=(0, 0, 0, 0))
    text = page_of(study).text
    found = re.search(r"And 1 more\. All of them, by cause: (.* --failed)", text).group(1)
    assert shlex.split(found) == ["motorsweep", "status", str(study.folder), "--failed"]


def test_cross_validation_adds_its_table_and_what_was_chosen(tmp_path):
    results = small(folds=(0, 1), dropouts=(0.1, 0.2), l1s=(1e-4,))
    results["dropout_selected"].values[1] = 0.2
    page = tables_of(store(tmp_path, results), validation_table, chosen_table)
    mean = results["cv_nrmse"].sel(input="e_norm", dropout=0.1).mean().item()
    row = page.row("validation", "dropout 0.1, L1 0.0001")
    assert row[:2] + row[3:] == [f"{mean:.3f}", "2 of 2", "0 of 2"]
    assert page.row("chosen", "Direct") == ["dropout 0.1, L1 0.0001", "dropout 0.2, L1 0.0001"]


def test_configurations_that_were_not_tried_have_no_row(tmp_path):
    results = small(folds=(0, 1), dropouts=(0.1, 0.2), l1s=(1e-4, 1e-3), inputs=("e_norm",))
    untried = {"dropout": 0.2, "l1": 1e-3}
    results["cv_run_id"].loc[untried] = ""
    results["cv_status"].loc[untried] = Status.PENDING
    results["cv_nrmse"].loc[untried] = np.nan
    page = tables_of(store(tmp_path, results), validation_table)
    labels = [row[0] for row in page.tables["validation"] if row]
    assert labels[1:] == ["dropout 0.1, L1 0.0001", "dropout 0.1, L1 0.001", "dropout 0.2, L1 0.0001"]


def test_a_muscle_that_never_responds_is_named_and_has_a_dash(tmp_path):
    results = small(drawn=True, inputs=("e_norm",))
    for name in ("nrmse_muscle", "baseline_nrmse_muscle"):
        results[name].loc[{"muscle": "APB"}] = np.nan
    results["measured"].loc[{"muscle": "APB"}] = 0.0
    results["baseline_sd"].loc[{"muscle": "APB"}] = 0.0
    page = page_of(store(tmp_path, results))
    assert set(page.row("muscles", "APB")) == {"–"}
    assert "Responds in no test trial, so there is nothing to score: APB." in page.text


@pytest.mark.parametrize("muscles", [("FDI",), ("FDI", "APB")])
def test_few_muscles_and_no_synergies(tmp_path, muscles):
    results = small(inputs=("e_norm",), connections=("direct",), muscles=muscles, n_synergies=0)
    results = results.isel(rank=slice(0, 0))
    page = page_of(store(tmp_path, results, muscles=muscles))
    assert len(page.row("muscles", "FDI")) == 5
    assert "synergies" not in {attrs.get("id") for _, attrs in page.tags}


def test_no_page_says_nan(tmp_path):
    """Scores of one repeat, and nothing else that could be missing."""
    results = small(connections=("direct", "synergy", "both"), depths=(3, 6), trials=(5,))
    for name in results.data_vars:
        if "interval" in name or "above" in name or name.startswith(("curve", "synergy", "baseline_sd")):
            if results[name].dtype.kind == "f":
                results[name].values[...] = np.nan
    page = page_of(store(tmp_path, results))
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    assert page.score("3-layer Direct", "raw |E|")[1:4] == ["–", "–", "–"]


def test_results_of_an_older_version_are_shown_as_far_as_they_go(tmp_path):
    results = small(connections=("direct", "synergy", "both"), depths=(3, 6), repeats=(0, 1))
    added = re.compile("interval|above|share|_mean$|_sd$|synergy_[sv]|activation|scaling")
    results = results.drop_vars([name for name in results.data_vars if added.search(name)])
    results = results.drop_dims(["rank", "bound"], errors="ignore")
    results = results.sel(baseline=["mean", "ridge", "best_possible"])
    results["n_parameters"] = results["n_parameters"].isel(repeat=0, drop=True)
    page = page_of(store(tmp_path, results))
    scores = results["baseline_nrmse"].sel(baseline="ridge", input="e_norm").values
    assert page.score("Ridge on the codes", "raw |E|")[0] == f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}"
    size = int(results["n_parameters"].sel(depth=3, connection="both"))
    assert page.score("3-layer Both", "raw |E|")[4] == f"{size:,}"


def test_hostile_and_foreign_names(tmp_path):
    study = store(tmp_path / "Prüfung 脳", small(), name='<script>alert("1")</script> & Größe')
    html = write_report(study).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; Größe</h1>" in html


def test_a_study_file_that_cannot_be_read_costs_only_the_name(tmp_path):
    study = store(tmp_path / "folder-name", small(inputs=("e_norm",)))
    study.config.write_text("name = [", encoding="utf-8")
    assert "<h1>folder-name</h1>" in write_report(study).read_text(encoding="utf-8")


def test_no_results_names_the_command(tmp_path):
    with pytest.raises(StoreError, match=r"results\.zarr.*motorsweep collect"):
        write_report(Study(tmp_path))


def test_an_interrupted_report_leaves_the_old_page(tmp_path, monkeypatch):
    study = store(tmp_path, small(inputs=("e_norm",)))
    before = write_report(study).read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_page.jinja2.Environment, "get_template", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(study)
    assert (study.report / "index.html").read_bytes() == before
    assert not [path for path in study.report.iterdir() if path.name.startswith(".")]
