import base64
import io
import json
import math
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from motorsweep.errors import StoreError
from motorsweep.hpc.events import EventLog, StageEvent, TaskEvent
from motorsweep.jobs import report
from motorsweep.jobs.evidence import read_evidence
from motorsweep.jobs.field_figure import field_view
from motorsweep.jobs.findings import mean_sd, summary
from motorsweep.jobs.report import write_report
from motorsweep.jobs.report_tables import score_lines
from motorsweep.jobs.timeline import stage_rows, task_spans
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

CELLS = ("input", "depth", "connection", "repeat")
ATTRS = {"hotspot_pose": 1, "rmt_a_per_us": 50.0, "rmt_e_v_per_m": 60.0, "e50_v_per_m": 69.0, "slope_v_per_m": 4.8}


def small(**changes):
    """A results Dataset that is quick to draw."""
    return mock_results(**({"repeats": (0,), "connections": ("direct", "both"), "depths": (3,)} | changes))


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


class Page(HTMLParser):
    """What a page refers to, its text, and its tables by id as rows of cells."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.words, self.tables, self._table = [], [], [], {}, None
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.references += [attrs[key] for key in ("src", "srcset", "href", "data", "poster") if key in attrs]
        if tag == "div" and attrs.get("class") == "table":
            self._table = self.tables.setdefault(attrs["id"], [])
        if self._table is not None and tag == "tr":
            self._table.append([])
        if self._table is not None and tag in ("td", "th"):
            self._table[-1].append("")

    def handle_data(self, data):
        self.words.append(data)
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip().replace("\u200b", "").replace("\u2060", "")

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def row(self, table, label, number=0):
        """Cells of the row with this label; the n-th of that label."""
        return [row for row in self.tables[table] if row and row[0] == label][number][1:]


def page_of(study):
    return Page(write_report(study).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Three repeats, both inputs, both depths; one failed cell, one failed pose, events."""
    muscles = ("FDI", "Ärm <b>", "ADM")
    results = mock_results(repeats=(0, 1, 2), muscles=muscles, connections=("direct", "both"))
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


def test_table_1_holds_the_mean_and_sd_of_the_results(full):
    _, results, _, page = full
    scores = results["nrmse"].sel(input="e_norm", depth=3, connection="direct").values
    assert page.row("nrmse", "Direct")[0] == f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}"
    two = results["nrmse"].sel(input="firing_rate", depth=6, connection="both").values[:2]
    assert page.row("nrmse", "Both", 1)[1] == f"{two.mean():.3f} ± {two.std(ddof=1):.3f} (2/3)"
    ridge = results["baseline_nrmse"].sel(baseline="ridge", input="firing_rate").values
    assert page.row("nrmse", "Ridge on the codes")[1] == f"{ridge.mean():.3f} ± {ridge.std(ddof=1):.3f}"
    assert len(page.row("nrmse", "Best possible")) == 4


def test_table_1_quotes_the_paper_for_the_same_cells(full):
    page = full[-1]
    assert page.row("nrmse", "Direct")[2:] == ["0.658 ± 0.042", "0.519 ± 0.048"]
    assert page.row("nrmse", "Both", 1)[2:] == ["0.630 ± 0.056", "0.508 ± 0.049"]


def test_the_best_cell_of_each_input_is_marked(full):
    study, results, _, _ = full
    html = (study.report / "index.html").read_text(encoding="utf-8")
    marked = re.findall(r'style="background: var\(--best\)[^>]*>([^<]*)<', html)
    best = [
        results["nrmse"].sel(input=kind).mean("repeat", skipna=True).min().item() for kind in results["input"].values
    ]
    assert [text.split(" ±")[0] for text in marked] == [f"{value:.3f}" for value in best]


def test_table_2_holds_criteria_parameters_and_caution(full):
    _, results, _, page = full
    row = page.row("criteria", "Direct")
    assert row[0] == f"{int(results['n_parameters'].sel(depth=3, connection='direct')):,}"
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
    assert names >= {"fig3_best_possible", "fig3_muscles", "fig4_complexity", "timeline", "loss_mappers"}
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


# ---- sentences ------------------------------------------------------------------------------------------------------


def with_scores(raw, rate):
    """Results of one mapper with these scores over the repeats."""
    results = small(repeats=range(len(raw)), connections=("direct",))
    results["nrmse"].values[:, 0, 0, :] = [raw, rate]
    results["baseline_nrmse"].values[...] = np.array([0.8, 0.7, 0.3])[None, :, None]
    return results


def sentences(tmp_path, results, **options):
    return " ".join(summary(read_evidence(store(tmp_path, results, **options))))


def test_summary_names_the_best_model_and_its_floors(tmp_path):
    text = sentences(tmp_path, with_scores([0.60, 0.64], [0.50, 0.54]))
    assert "3-layer Direct mapper on firing rate: NRMSE 0.520 ± 0.028 over 2 repeats" in text
    assert "0.800 for the training mean, 0.700 for ridge on the same codes and 0.300 for the best possible" in text
    assert "56 % of the way" in text  # (0.8 - 0.52) / (0.8 - 0.3)
    assert "Firing rate beats raw |E| for this mapper by 0.100, 16 %" in text and "2 of 2 repeats" in text
    assert "overlap" not in text


@pytest.mark.parametrize(
    "raw, rate, said",
    [
        ([0.50, 0.60], [0.52, 0.62], "does not beat raw .* 0 of 2 repeats. The intervals mean ± sd overlap"),
        (
            [0.40, 0.41],
            [0.60, 0.61],
            r"does not beat raw .* do not overlap\. This can be .* sigmoid \(half at 69.0 V/m",
        ),
        (
            [0.50],
            [0.60],
            r"does not beat raw .* With one repeat .* either way\. A difference beyond chance can be .* sig",
        ),
        ([0.60, 0.70], [0.55, 0.66], "beats raw .* overlap, .* can be chance"),
    ],
)
def test_summary_says_when_firing_rate_does_not_win_and_why(tmp_path, raw, rate, said):
    text = sentences(tmp_path, with_scores(raw, rate), expected=False)
    assert re.search(said, text)
    assert "generated from" not in text, "measured responses"


@pytest.mark.parametrize("raw, rate", [([0.5], [0.9]), ([0.40, 0.41], [0.60, 0.61])])
def test_simulated_responses_give_another_reason_why_firing_rate_loses(tmp_path, raw, rate):
    text = sentences(tmp_path, with_scores(raw, rate))
    assert "generated from the same sigmoid, with the same E50 and slope (half at 69.0 V/m, slope 4.8 V/m)" in text
    assert "lacks nothing that they depend on" in text
    assert "flattens" not in text and "planted" not in text
    assert ("intervals do not overlap" in text) == (len(raw) > 1)


def test_an_advantage_that_was_planted_is_called_so(tmp_path):
    results = with_scores([0.60, 0.64], [0.50, 0.54])
    said = (
        "from the same sigmoid, with the same E50 and slope (half at 69.0 V/m, slope 4.8 V/m), as the firing-rate input"
    )
    assert f"{said}, so its advantage is planted, not found." in sentences(tmp_path / "simulated", results)
    assert "planted" not in sentences(tmp_path / "measured", results, expected=False)
    draw = with_scores([0.50, 0.60], [0.52, 0.62])
    assert f"{said}, so any advantage of it is planted, not found." in sentences(tmp_path / "draw", draw)


def test_the_inputs_are_compared_over_all_mappers_and_not_only_the_best(tmp_path):
    results = mock_results(repeats=(0, 1))
    results["nrmse"].loc[{"input": "e_norm"}] = 0.6
    results["nrmse"].loc[{"input": "firing_rate"}] = 0.7
    best, next_best = {"depth": 6, "connection": "both"}, {"depth": 3, "connection": "direct"}
    results["nrmse"].loc[{"input": "firing_rate"} | best] = 0.4
    results["nrmse"].loc[{"input": "firing_rate"} | next_best] = 0.5
    text = sentences(tmp_path / "a", results)
    assert "Firing rate beats raw |E| for this mapper by 0.200" in text
    assert "picked by these same test scores" in text and "is lower in 2 of 6 mappers." in text
    results["status"].loc[{"input": "e_norm"} | next_best] = Status.PENDING
    results["status"].loc[{"input": "firing_rate", "repeat": 0, **best}] = Status.FAILED  # one repeat has both
    assert "is lower in 1 of 5 mappers where both inputs are done, of 6 in all." in sentences(tmp_path / "b", results)


def test_one_mapper_alone_is_not_counted(tmp_path):
    assert "picked by" not in sentences(tmp_path, with_scores([0.6], [0.5]))


def test_summary_says_when_nothing_was_learned(tmp_path):
    assert "does not beat the training mean" in sentences(tmp_path / "a", with_scores([0.9], [0.85]))
    assert "does not beat the linear ridge" in sentences(tmp_path / "b", with_scores([0.9], [0.75]))


def test_one_repeat_has_no_sd():
    assert mean_sd(np.array([0.5])) == "0.500"
    assert mean_sd(np.array([0.5, 0.6])) == f"0.550 ± {0.1 / math.sqrt(2):.3f}"


# ---- table 1 in the terminal ----------------------------------------------------------------------------------------


def test_score_lines_are_table_1(full):
    _, results, _, page = full
    lines = score_lines(results)
    cells = [re.split(r" {2,}", line.replace(" *", "")) for line in lines]
    assert cells[0] == ["Test NRMSE", "raw |E|", "firing rate"]
    labels = [f"{depth} layers {name}" for depth in (3, 6) for name in ("Direct", "Both")]
    assert [" ".join(row[:-2]) for row in cells[1:5]] == labels
    for row, (name, number) in zip(cells[1:5], [("Direct", 0), ("Both", 0), ("Direct", 1), ("Both", 1)], strict=True):
        assert row[-2:] == page.row("nrmse", name, number)[:2]
    assert cells[4][-1].endswith("(2/3)")
    for row, name in zip(cells[5:], ("Training mean", "Ridge on the codes", "Best possible"), strict=True):
        assert row == [name, *page.row("nrmse", name)[:2]]


def test_score_lines_word_for_word():
    results = small(repeats=(0, 1))
    results["nrmse"].values[:, 0] = [[[0.60, 0.64], [0.7, 0.7]], [[0.9, 0.9], [0.50, 0.54]]]
    results["status"].values[1, 0, 0] = [Status.DONE, Status.FAILED]
    results["baseline_nrmse"].values[...] = np.array([0.8, 0.75, 0.3])[None, :, None]
    results["baseline_nrmse"].loc[{"input": "firing_rate", "baseline": "ridge"}] = np.nan
    results["baseline_nrmse"].loc[{"baseline": "best_possible"}] = np.nan
    assert score_lines(results) == [
        "Test NRMSE          raw |E|          firing rate",
        "3 layers  Direct    0.620 ± 0.028 *  0.900 (1/2)",
        "3 layers  Both      0.700 ± 0.000    0.520 ± 0.028 *",
        "Training mean       0.800 ± 0.000    0.800 ± 0.000",
        "Ridge on the codes  0.750 ± 0.000    pending",
    ]
    results["baseline_status"].loc[{"input": "firing_rate"}] = Status.FAILED
    results["status"].loc[{"connection": "both"}] = Status.PENDING
    results["status"].loc[{"input": "firing_rate", "connection": "direct"}] = Status.FAILED
    lines = score_lines(results)
    assert lines[1:3] == ["3 layers  Direct    0.620 ± 0.028 *  failed", "3 layers  Both      pending          pending"]
    assert lines[-1] == "Ridge on the codes  0.750 ± 0.000    failed"


def test_score_lines_of_one_repeat_and_of_a_study_where_nothing_is_done():
    results = small(inputs=("firing_rate",))
    results["nrmse"].values[...] = np.reshape([0.6, 0.5], (1, 1, 2, 1))
    results["baseline_nrmse"].values[...] = np.nan
    assert score_lines(results)[1:] == ["3 layers  Direct  0.600", "3 layers  Both    0.500 *"]
    results["status"].values[...] = Status.PENDING
    assert score_lines(results) == [
        "Test NRMSE        firing rate",
        "3 layers  Direct  pending",
        "3 layers  Both    pending",
    ]


def test_score_lines_fit_a_terminal_and_leave_the_typesetter_alone():
    results = mock_results(repeats=range(12))
    results["status"].values[:, :, :, 0] = Status.FAILED
    lines = score_lines(results)
    assert "(11/12)" in lines[1] and max(map(len, lines)) <= 80
    code = "import sys, motorsweep.jobs.report_tables as t; from motorsweep.zarr_store.mocks import mock_results as m; "
    code += "t.score_lines(m()); sys.exit(bool({'great_tables', 'matplotlib', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- studies that lack something ------------------------------------------------------------------------------------


def test_one_input_one_depth_one_repeat(tmp_path):
    page = page_of(store(tmp_path, small(inputs=("firing_rate",))))
    assert re.fullmatch(r"0\.\d{3}", page.row("nrmse", "Direct")[0])
    assert len(page.row("nrmse", "Direct")) == 2  # ours and the paper's
    assert "Not drawn. There are no volumes" in page.text
    assert "There are no events" in page.text
    assert "beat raw" not in page.text


def test_measured_responses_have_no_best_possible_row(tmp_path):
    results = small()
    results["baseline_nrmse"].loc[{"baseline": "best_possible"}] = np.nan
    results["baseline_nrmse_muscle"].loc[{"baseline": "best_possible"}] = np.nan
    results["baseline_prediction"].loc[{"baseline": "best_possible"}] = np.nan
    study = store(tmp_path, results, expected=False)
    page = page_of(study)
    assert not [row for row in page.tables["nrmse"] if row[:1] == ["Best possible"]]
    assert "Responses: as measured" in page.text and "best possible prediction." not in page.text.split("Table 1.")[0]
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
    assert "No model of this study is finished yet. 0 of 4 trainings are done (4 pending)." in page.text
    assert page.row("nrmse", "Direct")[:2] == ["pending", "pending"]
    assert page.row("criteria", "Direct")[0] == "not known yet"


def test_a_cell_without_any_score_is_named_by_its_state_and_not_as_0(tmp_path):
    results = small()
    results["status"].loc[{"input": "e_norm", "connection": "both"}] = Status.FAILED
    results["nrmse"].loc[{"input": "e_norm", "connection": "both"}] = np.nan
    results["status"].loc[{"input": "firing_rate", "connection": "direct"}] = Status.PENDING
    results["nrmse"].loc[{"input": "firing_rate", "connection": "direct"}] = np.nan
    page = page_of(store(tmp_path, results))
    assert page.row("nrmse", "Both")[0] == "failed"
    assert page.row("nrmse", "Direct")[1] == "pending"
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
    page = page_of(store(tmp_path, results))
    mean = results["cv_nrmse"].sel(input="e_norm", dropout=0.1).mean().item()
    assert page.row("validation", "0.1, 0.0001") == [
        f"{mean:.3f}",
        "2 of 2",
        page.row("validation", "0.1, 0.0001")[2],
        "0 of 2",
    ]
    assert page.row("chosen", "Direct") == ["0.1, 0.0001", "0.2, 0.0001"]


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

    monkeypatch.setattr(report, "_render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(study)
    assert (study.report / "index.html").read_bytes() == before
    assert not [path for path in study.report.iterdir() if path.name.startswith(".")]
