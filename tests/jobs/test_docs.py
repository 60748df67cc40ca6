"""README and docs say what is true: their keys, commands, files and code."""

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from motorsweep.jobs.cli import app
from motorsweep.jobs.config import load_study_config, parse_study
from motorsweep.jobs.eeg_tables import EegTables
from motorsweep.jobs.tables import StudyTables

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def keys_of(table, prefix=""):
    """Every key of the study file, as table.key."""
    for each in fields(table):
        if is_dataclass(each.type):
            yield from keys_of(each.type, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}"


def documented(page):
    table = ""
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if header := re.match(r"## (?:\[(.*)\]|Top)", line):
            table = header[1] + "." if header[1] else ""
        if row := re.match(r"\| `([\w<>]+)` \| `?(.*?)`? \|", line):
            yield table + row[1], row[2]


def test_study_file_page_lists_every_key_and_no_other():
    real = {key for key in keys_of(StudyTables) if key != "head.conductivities"} | {"head.conductivities.<tissue>"}
    assert {key for key, _ in documented("study-file.md")} == real


def test_eeg_file_page_lists_every_key_and_no_other_but_those_that_both_kinds_have():
    real = {key for key in keys_of(EegTables) if key.partition(".")[0] not in ("executor", "slurm")}
    assert {key for key, _ in documented("eeg-file.md")} == real


@pytest.mark.parametrize("page, text", [("study-file.md", 'name = "x"'), ("eeg-file.md", 'kind = "eeg"\nname = "x"')])
def test_documented_defaults_are_the_defaults(page, text):
    tables = parse_study(text)
    checked = 0
    for place, text in documented(page):
        try:
            told = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            continue
        value = tables
        for name in place.split("."):
            value = getattr(value, name)
        assert (list(value) if isinstance(value, tuple) else value) == told, place
        checked += 1
    assert checked > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
    for target in re.findall(
        r"`((?:sim|learn|hpc|jobs|zarr_store|tests|examples|benchmarks)/[\w./-]+)`", page.read_text()
    ):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    known = (
        set(app.resolved_commands()) if hasattr(app, "resolved_commands") else {n for n in app if not n.startswith("-")}
    )
    for verb in re.findall(r"\bmotorsweep ([a-z]+)\b", re.sub(r"```python.*?```", "", page.read_text(), flags=re.S)):
        if verb not in {"simulates", "is", "reads"}:
            assert verb in known, verb


def test_study_in_the_readme_is_valid():
    for text in blocks(ROOT / "README.md", "toml"):
        assert parse_study(text).head.conductivities == {"bone": 0.008}


@pytest.mark.parametrize("name", ["quick", "evening", "paper", "real_head", "map2000"])
def test_examples_are_valid(name, monkeypatch):
    monkeypatch.setenv("MOTORSWEEP_DATA", "/data")
    config = load_study_config(ROOT / f"examples/{name}.toml")
    assert config.volume.n == 64 and config.volume.spacing_mm == 1.0
    if name == "paper":
        assert config.stimulation.trials == (300, 149, 150, 100) and config.validation.folds == 10
        assert (config.autoencoder.epochs, config.mappers.epochs, config.mappers.synergies) == (100, 150, 9)
        assert len(config.validation.dropout_grid) > 1 and len(config.validation.l1_grid) > 1
        assert config.poses.grid**2 + config.poses.random == 49 + sum(n - 49 for n in (300, 149, 150, 100))
    if name == "map2000":
        assert config.poses.grid**2 + config.poses.random == 2000 == sum(config.stimulation.trials)
        assert config.solver.kind == "modes" and config.solver.tolerance == 0.001
    if name == "quick":
        assert config.poses.grid**2 + config.poses.random >= 96 and sum(config.stimulation.trials) >= 160


@pytest.mark.slow
def test_python_of_the_readme_runs(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    (code,) = blocks(ROOT / "README.md", "python")
    space = {}
    exec(compile(code.replace("studies/quick", "studies/tiny"), "README.md", "exec"), space)
    assert space["results"].sizes["input"] == 2 and space["volumes"].sizes["pose"] == 12
