import json
import os
import re
import signal
import subprocess
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from motorsweep.errors import ConvergenceError, InputError, StoreError
from motorsweep.jobs import cli, options, questions

COMMANDS = tuple("run plan simulate encode train collect report submit status show export verify".split())


def _motorsweep(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "motorsweep.jobs.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=120,
    )


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(f'name = "quick"\nfolder = "{tmp_path / "out"}"\n')
    return path


# ---- the real command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_is_a_command_line(command, capsys):
    assert cli.call([command, "--help"]) == 0
    (example,) = re.findall(r"Example: motorsweep (.*)", capsys.readouterr().out)
    words = example.split()
    assert words[:2] == [command, "study.toml"]
    bound = cli.app.parse_args(words, exit_on_error=False, print_error=False)[1]
    assert str(bound.arguments["study"]) == "study.toml"


def test_help_lists_the_commands_and_the_order_of_stages():
    answer = _motorsweep("--help")
    assert answer.returncode == 0 and "Example: motorsweep run study.toml" in answer.stdout
    places = [answer.stdout.index(f"│ {command} ") for command in ("simulate", "encode", "train", "collect", "report")]
    assert places == sorted(places)


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from motorsweep.jobs import cli; cli.call(['--help'])\n"
        "heavy = {'numpy', 'torch', 'petsc4py', 'dask', 'distributed', 'xarray', 'zarr', 'matplotlib', 'pydantic'}\n"
        "sys.exit(f'loaded {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "study.toml"], 'Did you mean "run"?'),
        (["run", "study.toml", "--wokers", "2"], "Did you mean --workers?"),
        (["run", "study.toml", "--executor", "cloud"], 'Choose from: "serial", "local", "slurm", "mpi"'),
        (["run", "study.toml", "--workers", "many"], "--workers: 'many' is not a whole number"),
        (["run", "study.toml", "--workers", "1.5"], "--workers: '1.5' is not a whole number"),
        (["export", "study.toml", "--format", "msh", "--pose", "1.5"], "--pose: '1.5' is not a whole number"),
        (["export", "study.toml", "--format", "msh", "--pose", "1e1"], "--pose: '1e1' is not a whole number"),
        (["run"], "requires an argument"),
        (["show", "study.toml"], "requires an argument"),
        (["export", "study.toml"], "requires an argument"),
        (["export", "study.toml", "--format", "stl"], 'Choose from: "msh", "nii.gz", "vtu", "e_matrix"'),
        (["export", "study.toml", "--format", "e_matrix", "--of", "skull"], '"motor_mask", "brain", "elements"'),
    ],
)
def test_bad_usage_is_2(arguments, message, capsys):
    assert cli.call(arguments) == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.replace("│", " ").split()) and not captured.out


@pytest.mark.parametrize("command", ["run", "plan", "train", "status"])
def test_fault_in_the_study_file_is_one_line_and_2(tmp_path, command):
    (tmp_path / "study.toml").write_text('name = "a"\n[solver]\nknd = "direct"\n')
    answer = _motorsweep(command, "study.toml", cwd=tmp_path)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr == (
        "motorsweep: study.toml: [solver] knd is not a key; did you mean kind? "
        "valid keys: kind, order, margin_mm, rtol, poses_per_shard, tolerance, bases, basis, region\n"
    )


def test_missing_study_file(tmp_path):
    answer = _motorsweep("run", "none.toml", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == f"motorsweep: none.toml: there is no such file (looked in {tmp_path})\n"


@pytest.mark.parametrize("how", [{"arguments": ["--debug"]}, {"environment": {"MOTORSWEEP_DEBUG": "1"}}])
def test_debug_shows_where(tmp_path, how):
    answer = _motorsweep("run", "none.toml", *how.get("arguments", []), cwd=tmp_path, **how.get("environment", {}))
    assert "Traceback" in answer.stderr and "ConfigError: none.toml" in answer.stderr


# ---- the commands, with a pipeline that only answers ----------------------------------------------------------------


@dataclass
class Answer:
    ok: bool = True

    def lines(self):
        return ["study  quick", "next   motorsweep run study.toml"]

    def as_dict(self):
        return {"study": "quick", "ok": self.ok}


class Pipeline(types.SimpleNamespace):
    """Remembers its calls; gives what the test put in."""

    def __init__(self, **answers):
        super().__init__(calls=[], answers=answers)

    def __getattr__(self, verb):
        def called(*arguments, **named):
            self.calls.append((verb, arguments, named))
            answer = self.answers.get(verb)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return called


@pytest.fixture
def pipeline(monkeypatch):
    pipeline = Pipeline(plan=Answer(), status=Answer(), show=Answer(), verify=Answer())
    for module in (cli, questions):
        monkeypatch.setattr(module, "load_pipeline", lambda: pipeline)
    return pipeline


def _result(**counts):
    return options.StageResult(verb="simulate", unit="poses", **counts)


@pytest.mark.parametrize("command", ["simulate", "encode", "train"])
def test_options_reach_the_stage(command, study, pipeline, capsys):
    pipeline.answers[command] = _result(done=49, seconds=12.34)
    line = [command, str(study), "--executor", "serial", "--workers", "3", "--retry-failed", "--quiet"]
    assert cli.call(line) == 0
    ((verb, (config, chosen), _),) = pipeline.calls
    assert (verb, config.name) == (command, "quick")
    assert chosen == options.RunOptions(executor="serial", workers=3, retry_failed=True, quiet=True)
    assert capsys.readouterr().out == "simulate  49 poses done in 12.3 s\n"


def test_stages_are_told_as_they_end_and_failures_give_1(study, pipeline, capsys):
    pipeline.answers["run"] = iter([_result(skipped=49), _result(done=3, skipped=1, failed=2, seconds=1.0)])
    assert cli.call(["run", str(study)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "simulate  nothing to do: all 49 poses are done already",
        "simulate  3 poses done in 1.0 s, 1 done before, 2 failed",
        f"          why, and what to do: motorsweep status {study} --failed",
    ]


@pytest.mark.parametrize("arguments", [["plan"], ["status"], ["status", "--failed"], ["show"], ["verify"]])
def test_json_and_lines(arguments, study, pipeline, capsys):
    command, *rest = arguments
    line = [command, str(study), *(["0123456789abcdef"] if command == "show" else []), *rest]
    assert cli.call(line) == 0
    assert capsys.readouterr().out == "study  quick\nnext   motorsweep run study.toml\n"
    assert cli.call([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": "quick", "ok": True}


def test_questions_take_the_folder_or_the_file(study, pipeline):
    folder = study.parent / "out"
    folder.mkdir()
    for given in (study, folder):
        assert cli.call(["status", str(given), "--failed"]) == 0
        assert cli.call(["show", str(given), "abc"]) == 0
        assert cli.call(["verify", str(given), "--repair"]) == 0
    assert pipeline.calls[:3] == pipeline.calls[3:]
    assert pipeline.calls[:3] == [
        ("status", (Path(folder),), {"failed": True}),
        ("show", (Path(folder), "abc"), {}),
        ("verify", (Path(folder), True), {}),
    ]


@pytest.mark.parametrize("number", ["0", "3", "-1", "1234567"])
def test_a_short_decimal_number_is_a_pose(number, study, pipeline, capsys):
    pipeline.answers["show_pose"] = Answer()
    assert cli.call(["show", str(study), number, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": "quick", "ok": True}
    assert cli.call(["show", str(study), number, "--facts", "--out", "a.png"]) == 0
    assert pipeline.calls == [
        ("show_pose", (study, int(number), None), {"picture": True}),
        ("show_pose", (study, int(number), Path("a.png")), {"picture": False}),
    ]


@pytest.mark.parametrize("run_id", ["12345678", "0123456789012345", "12e4", "1.5"])
def test_what_is_longer_or_no_number_is_a_run(run_id, study, pipeline):
    assert cli.call(["show", str(study), "--", run_id]) == 0
    assert pipeline.calls == [("show", (study.parent / "out", run_id), {})]


def test_choices_of_export_reach_it(study, pipeline, capsys):
    pipeline.answers["export"] = Answer()
    line = ["export", str(study), "--format", "e_matrix", "--poses", "0:10", "--of", "elements", "--components"]
    assert cli.call([*line, "--didt", "1.5", "--out", "e.hdf5", "--quiet"]) == 0
    assert capsys.readouterr().out == "study  quick\nnext   motorsweep run study.toml\n"
    assert cli.call(["export", str(study), "--format", "msh", "--pose", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": "quick", "ok": True}
    defaults = {
        "pose": None, "poses": None, "of": None, "components": False, "didt_a_per_us": 1.0, "out": None,
        "quiet": False,
    }  # fmt: skip
    chosen = {"poses": "0:10", "of": "elements", "components": True, "didt_a_per_us": 1.5, "quiet": True}
    assert pipeline.calls == [
        ("export", (study, "e_matrix"), defaults | chosen | {"out": Path("e.hdf5")}),
        ("export", (study, "msh"), defaults | {"pose": 3}),
    ]


def test_damage_gives_1(study, pipeline):
    pipeline.answers["verify"] = Answer(ok=False)
    assert cli.call(["verify", str(study)]) == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("pose file: no column x"), 2, "motorsweep: pose file: no column x\n"),
        (StoreError("volumes.zarr: another head"), 1, "motorsweep: volumes.zarr: another head\n"),
        (ConvergenceError("loss is NaN"), 1, "motorsweep: loss is NaN\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "motorsweep: [Errno 13] Permission denied: '/x'\n"),
        (OSError(28, "No space left on device"), 1, "make room, then give the same command again\n"),
        (KeyboardInterrupt(), 130, f"\n{cli.STOPPED}\n"),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, message, study, pipeline, capsys):
    pipeline.answers["run"] = error
    assert cli.call(["run", str(study)]) == code
    captured = capsys.readouterr()
    assert captured.err.endswith(message) and captured.out == ""
    assert captured.err.strip().count("\n") == 0


def test_warnings_are_lines_once_and_those_of_python_stay_as_they_are(study, monkeypatch, capsys):
    class SkippedWarning(UserWarning):
        pass

    def plan(config):
        for k in (1, 2, 1):
            warnings.warn_explicit(f"marker {k} is left out", SkippedWarning, "poses.xml", k)
        warnings.warn_explicit("old way", FutureWarning, "other.py", 7)
        return Answer()

    monkeypatch.setattr(cli, "load_pipeline", lambda: types.SimpleNamespace(plan=plan))
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        before = warnings.showwarning
        assert cli.call(["plan", str(study)]) == 0
        assert warnings.showwarning is before
    assert capsys.readouterr().err == "motorsweep: marker 1 is left out\nmotorsweep: marker 2 is left out\n"
    assert [str(each.message) for each in recorded] == ["old way"]


def test_a_bug_is_not_hidden(study, pipeline):
    pipeline.answers["run"] = TypeError("bug")
    with pytest.raises(TypeError, match="bug"):
        cli.call(["run", str(study)])


_WAITING = """
import sys, time, types
from motorsweep.jobs import cli

def run(config, options):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)

cli.load_pipeline = lambda: types.SimpleNamespace(run=run)
cli.main(["run", sys.argv[1]])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_with_one_friendly_line(study, number, code):
    process = subprocess.Popen([sys.executable, "-c", _WAITING, str(study)], stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == f"\n{cli.STOPPED}\n"
    assert process.returncode == code


def test_reader_that_closes_early_is_no_fault(study):
    program = _WAITING.replace('print("ready", file=sys.stderr, flush=True)', "").replace(
        "time.sleep(60)",
        "yield from (__import__('motorsweep.jobs.options').jobs.options.StageResult() for _ in range(10**5))",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(study)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 0
