"""Tables of docs/study.md: from any results, with the paper's values where they belong."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from motorsweep.zarr_store.datasets import publish_dataset
from motorsweep.zarr_store.mocks import mock_results, mock_trials
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.trials import write_trials

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/study_tables.py"


@pytest.fixture(scope="module")
def study_tables():
    spec = importlib.util.spec_from_file_location("study_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(folder, results, trials=True):
    study = Study(folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    publish_dataset(results, study.results, study.making, "writing results")
    if trials:
        write_trials(study, mock_trials(trials=20))
    return study.folder


def rows_of(text, title):
    lines = text.split(f"### {title}")[1].split("###")[0].strip().splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in table]


def test_the_papers_tables_stand_beside_ours(tmp_path, study_tables):
    results = mock_results(repeats=(0, 1, 2)).assign_attrs(study="mock", protocol="released", seed=4)
    text = study_tables.tables(stored(tmp_path, results))
    assert text.startswith(
        "Study `mock`, protocol `released`, 20 trials, 3 muscles, 3 repeats with 5 test trials; seed 4"
    )
    one = rows_of(text, "Table 1")
    assert one[0] == ["mapper", "raw E-field: paper", "raw E-field: here", "firing rate: paper", "firing rate: here"]
    scores = results["nrmse"].sel(input="firing_rate", depth=6, connection="synergy").values
    assert one[6] == ["6 layers, Synergy", "0.638 ± 0.053", one[6][2], "0.516 ± 0.049",
                      f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}"]  # fmt: skip
    two = rows_of(text, "Table 2")
    aicc = results["aicc"].sel(input="firing_rate", depth=3, connection="both").values.mean()
    assert two[4][0] == "3 layers, Both" and two[4][2] == "2.501" and two[4][4] == "−7.269"
    assert two[4][5] == f"{aicc / 1e4:.3f}"


def test_predictors_and_conclusions_have_the_same_width_in_every_row(tmp_path, study_tables):
    text = study_tables.tables(stored(tmp_path, mock_results()))
    for title in ("Table 1", "Table 2", "All predictors", "Conclusions"):
        rows = rows_of(text, title)
        assert len(rows) > 3 and {len(row) for row in rows} == {len(rows[0])}, title
    assert [row[0] for row in rows_of(text, "All predictors")[2:3]] == ["Best possible (floor)"]
    assert "Firing rate beats raw ¦E¦" in [row[0] for row in rows_of(text, "Conclusions")]


def test_a_study_that_is_not_done_has_tables_too(tmp_path, study_tables):
    results = mock_results()
    for name, variable in results.data_vars.items():
        if variable.dtype == np.float64:
            variable.values[...] = np.nan
        elif name.endswith("status"):
            variable.values[...] = Status.PENDING
    text = study_tables.tables(stored(tmp_path, results, trials=False))
    assert rows_of(text, "Table 1")[2][2] == "pending" and rows_of(text, "Table 2")[2][3] == "–"
    assert "### Conclusions" not in text and "nan" not in text


def test_the_command_prints_them(tmp_path):
    folder = stored(tmp_path, mock_results())
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Study `unknown`") and "### Table 2." in done.stdout
