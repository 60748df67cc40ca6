"""`motorsweep submit` and the jobs in `motorsweep status`, with small programs in the place of SLURM's."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from motorsweep.errors import ConfigError, InputError, MissingPackageError, MotorsweepError
from motorsweep.hpc.slurm_jobs import note_job, read_jobs
from motorsweep.hpc.slurm_states import JobState
from motorsweep.jobs import cli
from motorsweep.jobs.answers import StudyStatus
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.job_report import NotedJob, job_lines, noted_jobs
from motorsweep.jobs.submit import submit_studies
from motorsweep.zarr_store.study import Study

from .conftest import TINY

# Counts ids from 101, refuses the script that $REFUSE names, and keeps what it was told.
SBATCH = """#!/bin/bash
printf '%s\\0' "$@" >> "$TOLD/sbatch"; printf '\\0' >> "$TOLD/sbatch"
if [ -n "$REFUSE" ] && [[ "${!#}" = *"$REFUSE"* ]]; then echo "sbatch: error: no such partition" >&2; exit 1; fi
id=$(($(cat "$TOLD/last" 2>/dev/null || echo 100) + 1)); echo $id > "$TOLD/last"; echo $id
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of programs that stand for SLURM's, in front of PATH, and what sbatch was told."""
    folder = tmp_path / "slurm-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(folder))
    monkeypatch.setenv("REFUSE", "")

    class Slurm:
        def answer(self, name, text):
            (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "$TOLD/asked"\n{text}\n')
            (folder / name).chmod(stat.S_IRWXU)

        def queue(self, lines):
            self.answer("squeue", f"cat <<'END'\n{lines}\nEND")

        @property
        def told(self):
            path = folder / "sbatch-told"
            return [call.split("\0") for call in path.read_text().split("\0\0")[:-1]] if path.exists() else []

        @property
        def asked(self):
            return (folder / "asked").read_text().splitlines() if (folder / "asked").exists() else []

    slurm = Slurm()
    (folder / "sbatch").write_text(SBATCH.replace("$TOLD/sbatch", "$TOLD/sbatch-told"))
    (folder / "sbatch").chmod(stat.S_IRWXU)
    slurm.queue("")
    slurm.answer("sacct", "exit 1")
    slurm.answer("scontrol", "exit 1")
    return slurm


def study_file(folder, name="tiny", table=""):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    own = json.dumps(str(folder / "studies" / name))
    path.write_text(TINY.replace('name = "tiny"', f'name = "{name}"\nfolder = {own}') + f"\n[slurm]\n{table}\n")
    return path


def config_of(*words, **named):
    return load_study_config(study_file(*words, **named))


def test_three_jobs_that_wait_for_each_other(tmp_path, slurm, monkeypatch):
    config = config_of(tmp_path / "my studies", table='python = "/opt/my python"')
    submission = submit_studies([config])
    study = Study(config.folder)
    scripts = [str(study.slurm / f"{verb}.sh") for verb in ("simulate", "train", "collect")]
    chdir, kill = f"--chdir={study.folder}", "--kill-on-invalid-dep=yes"
    assert slurm.told == [
        ["--parsable", chdir, scripts[0]],
        ["--parsable", "--dependency=afterok:101", kill, chdir, scripts[1]],
        ["--parsable", "--dependency=afterok:102", kill, chdir, scripts[2]],
    ]
    jobs = read_jobs(study)
    assert [(job["job"], job["verb"], job["role"], job["name"]) for job in jobs] == [
        ("101", "simulate", "driver", "tiny-simulate"),
        ("102", "train", "driver", "tiny-train"),
        ("103", "collect", "driver", "tiny-collect"),
    ]
    assert jobs[1]["log"] == str(study.logs / "train-102.log") and study.logs.is_dir()
    text = Path(scripts[0]).read_text()
    assert f"study='{config.path}'\n" in text and "python='/opt/my python'\n" in text
    assert os.access(scripts[0], os.X_OK)
    monkeypatch.chdir(tmp_path)
    lines = submission.lines()
    assert lines[1] == f"simulate  job 101, log {study.logs}/simulate-101.log"
    assert lines[4] == "watch     motorsweep status 'my studies/tiny.toml'; motorsweep dashboard 'my studies/tiny.toml'"
    assert "ready ssh line" in lines[5] and lines[6] == "stop      scancel 101 102 103"
    assert json.loads(json.dumps(submission.as_dict()))["jobs"][2] == {
        **{"study": "tiny", "verb": "collect", "job": "103", "log": str(study.logs / "collect-103.log")}
    }


def test_several_studies_are_arrays_and_find_their_own_logs(tmp_path, slurm):
    configs = [config_of(tmp_path, name=name, table="at_once = 1") for name in ("one", "two")]
    submission = submit_studies(configs)
    first, second = (Study(config.folder) for config in configs)
    assert [words[1] for words in slurm.told[1:]] == ["--dependency=aftercorr:101", "--dependency=aftercorr:102"]
    assert {words[-1] for words in slurm.told} == {
        str(first.slurm / f"{verb}-array.sh") for verb in ("simulate", "train", "collect")
    }
    assert [job["job"] for job in read_jobs(first)] == ["101_0", "102_0", "103_0"]
    assert [job["job"] for job in read_jobs(second)] == ["101_1", "102_1", "103_1"]
    log = read_jobs(second)[1]["log"]
    assert log == str(second.logs / "train-102_1.log")
    assert (first.folder / "slurm/array/1/train-102_1.log").resolve() == Path(log).resolve()
    text = (first.slurm / "train-array.sh").read_text()
    assert "#SBATCH --array=0-1%1\n#SBATCH --output=slurm/array/%a/train-%A_%a.log\n" in text
    assert submission.lines()[-1] == "stop      scancel 101 102 103"
    assert "simulate  job 101_1, log" in "\n".join(submission.lines())


def test_only_one_of_the_jobs(tmp_path, slurm):
    config = config_of(tmp_path)
    submit_studies([config], only="train")
    study = Study(config.folder)
    assert slurm.told == [["--parsable", f"--chdir={study.folder}", str(study.slurm / "train.sh")]]
    assert [path.name for path in study.slurm.glob("*.sh")] == ["train.sh"]


def test_elastic_ranks_get_their_host_script(tmp_path, slurm):
    config = config_of(tmp_path, table='[slurm.train]\nlauncher = "horovodrun"\nelastic = true\nranks_per_node = 3')
    submit_studies([config], only="train")
    hosts = Study(config.folder).slurm / "hosts.sh"
    assert os.access(hosts, os.X_OK) and hosts.read_text() == "#!/bin/bash\necho localhost:2\necho 127.0.0.1:1\n"


def test_dry_run_shows_plan_and_scripts_and_does_nothing(tmp_path, slurm, capsys):
    path = study_file(tmp_path, table='partition = "long"')
    assert cli.call(["submit", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "studies/tiny"
    assert "simulate  12 poses: 0 done, 12 pending" in out
    assert f"---- {folder}/slurm/train.sh\n#!/bin/bash\n#SBATCH --job-name=tiny-train\n" in out
    assert f"python={sys.executable}\n" in out
    last = out.splitlines()[-1]
    assert last == (
        "sbatch --parsable --dependency=afterok:JOB_OF_TRAIN --kill-on-invalid-dep=yes "
        f"--chdir={folder} {folder}/slurm/collect.sh"
    )
    assert not folder.exists() and slurm.told == []


def test_json_of_a_dry_run(tmp_path, slurm, capsys):
    path = study_file(tmp_path)
    assert cli.call(["submit", str(path), "--dry-run", "--json", "--only", "collect"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["jobs"] == [] and answer["plans"][0]["name"] == "tiny"
    (script,) = answer["scripts"]
    assert script.endswith("/slurm/collect.sh") and answer["commands"][0][-1] == script


def test_jobs_that_are_not_over_are_in_the_way(tmp_path, slurm):
    config = config_of(tmp_path)
    submit_studies([config])
    slurm.queue("101|RUNNING|None|n1|0:11|0|\n102|PENDING|Dependency||0:00|0|\n")
    with pytest.raises(InputError) as caught:
        submit_studies([config])
    assert str(caught.value) == (
        f"submit: jobs of {config.path} are not over: simulate 101 (running), train 102 (queued). Two submissions "
        "would do the same work twice. Wait for them (motorsweep status), or cancel them: scancel 101 102"
    )
    assert len(slurm.told) == 3
    slurm.queue("")
    assert [job["job"] for job in submit_studies([config]).jobs] == ["104", "105", "106"]


def test_a_refusal_says_what_was_submitted_before(tmp_path, slurm, monkeypatch):
    config = config_of(tmp_path)
    monkeypatch.setenv("REFUSE", "collect.sh")
    with pytest.raises(MotorsweepError) as caught:
        submit_studies([config])
    assert str(caught.value).startswith("submitting collect.sh: sbatch refused it (sbatch: error: no such partition).")
    assert str(caught.value).endswith(
        "Submitted before it: simulate 101, train 102. To take that back: scancel 101 102"
    )
    assert [job["verb"] for job in read_jobs(Study(config.folder))] == ["simulate", "train"]


def test_without_sbatch_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = config_of(tmp_path)
    with pytest.raises(MissingPackageError, match="there is no sbatch here"):
        submit_studies([config])
    assert not Path(config.folder).exists()
    assert submit_studies([config], dry_run=True).scripts


def test_studies_that_cannot_go_together(tmp_path, slurm):
    one = config_of(tmp_path, name="one")
    with pytest.raises(ConfigError, match=r"have the same name or folder \(one, .*studies/one\)"):
        submit_studies([one, one])
    other = config_of(tmp_path, name="two", table='partition = "long"\nat_once = 2')
    with pytest.raises(ConfigError, match=r"differs from that of .*one.toml \(partition, at_once\)"):
        submit_studies([one, other])


@pytest.mark.parametrize("sign", ["%", "\\"])
def test_folders_that_slurm_would_misread(tmp_path, slurm, sign):
    config = config_of(tmp_path / f"a{sign}j")
    with pytest.raises(ConfigError, match="as signs of its own in the path of a log"):
        submit_studies([config])


def test_scripts_follow_the_umask(tmp_path, slurm):
    config = config_of(tmp_path)
    before = os.umask(0o027)
    try:
        submit_studies([config])
    finally:
        os.umask(before)
    study = Study(config.folder)
    assert stat.S_IMODE((study.slurm / "train.sh").stat().st_mode) == 0o750
    assert stat.S_IMODE(study.jobs.stat().st_mode) == 0o640


# ---- status ---------------------------------------------------------------------------------------------------------


def job(number="7", verb="train", role="driver", log="/logs/train-7.log", **state):
    return NotedJob(number, verb, role, log, JobState(id=number, **state))


@pytest.mark.parametrize(
    ("noted", "lines"),
    [
        (
            job(state="running", nodes="n1", elapsed="0:05:12", restarts=1),
            ["jobs      train 7: running on n1, 0:05:12, queued again once"],
        ),
        (job(state="queued", reason="Dependency"), ["jobs      train 7: queued until the job before it has ended"]),
        (job(state="queued", reason="Priority"), ["jobs      train 7: queued (Priority)"]),
        (job(state="requeued", restarts=2), ["jobs      train 7: requeued, queued again 2 times"]),
        (job(state="done", nodes="n1", elapsed="00:00:09"), ["jobs      train 7: done on n1, 00:00:09"]),
        (
            job(state="timed out", nodes="n1", elapsed="12:00:09", reason="TimeLimit"),
            [
                "jobs      train 7: timed out on n1, 12:00:09",
                "            raise walltime in [slurm.train], then motorsweep submit goes on",
            ],
        ),
        (
            job(verb="simulate", state="out of memory", nodes="n1"),
            [
                "jobs      simulate 7: out of memory on n1",
                "            raise memory_gb in [slurm.driver], then motorsweep submit goes on",
            ],
        ),
        (
            job(state="node failed", nodes="n1"),
            ["jobs      train 7: node failed on n1", "            no fault of the study: motorsweep submit goes on"],
        ),
        (
            job(state="failed", exit_code="1:0", nodes="n1"),
            ["jobs      train 7: failed with exit code 1 on n1", "            why: /logs/train-7.log"],
        ),
        (
            job(state="failed", exit_code="0:9"),
            ["jobs      train 7: failed by signal 9", "            why: /logs/train-7.log"],
        ),
        (
            job(state="failed", exit_code="75:0"),
            [
                "jobs      train 7: failed with exit code 75",
                "            the walltime came more often than requeue in [slurm] allows: raise it, or walltime in "
                "[slurm.train], then motorsweep submit goes on",
            ],
        ),
        (
            job(state="cancelled", reason="DependencyNeverSatisfied"),
            ["jobs      train 7: cancelled", "            the job before it did not end well"],
        ),
        (job(state="cancelled"), ["jobs      train 7: cancelled", "            motorsweep submit goes on"]),
        (job(), ["jobs      train 7: not known to SLURM any more"]),
        (
            job(reason="squeue did not answer within 30 s"),
            ["jobs      train 7: unknown: squeue did not answer within 30 s"],
        ),
    ],
)
def test_states_in_words_and_what_to_do(noted, lines):
    assert job_lines([noted]) == lines


def test_workers_are_counted_by_state():
    workers = [job(str(k), "simulate", "worker", f"/logs/w{k}.log", state="running") for k in range(3)]
    workers.append(job("8", "simulate", "worker", state="out of memory"))
    workers.append(job("9", "simulate", "worker", state="timed out"))
    assert job_lines([job("1", "simulate", state="running"), job("2", state="queued"), *workers]) == [
        "jobs      simulate 1: running; worker jobs: 3 running, 1 out of memory, 1 timed out",
        "            raise memory_gb in [slurm.simulate], then motorsweep submit goes on",
        "          train 2: queued",
    ]


def test_workers_of_a_driver_that_is_over_are_told_only_if_something_is_odd():
    workers = [job(str(k), "simulate", "worker", state="cancelled") for k in range(3)]
    driver = job("1", "simulate", state="done")
    assert job_lines([driver, *workers]) == ["jobs      simulate 1: done"]
    orphan = job("9", "simulate", "worker", state="running")
    assert job_lines([driver, *workers, orphan]) == ["jobs      simulate 1: done; worker jobs: 1 running"]


def test_log_of_a_crashed_job_is_shown_with_failed(tmp_path):
    log = tmp_path / "train-7.log"
    log.write_text("".join(f"line {k}\n" for k in range(30)))
    crashed = job(state="failed", exit_code="1:0", log=str(log))
    assert job_lines([crashed])[1:] == [f"            why: {log}"]
    assert job_lines([crashed], failed=True)[2:] == [f"            | line {k}" for k in range(20, 30)]


def test_status_asks_for_the_last_submission(tmp_path, slurm):
    study = Study(tmp_path / "out")
    log = tmp_path / "train.log"
    log.write_text("slurmstepd: error: Exceeded job memory limit\n")
    for number, verb, role in [
        *(("1", "simulate", "driver"), ("2", "simulate", "worker"), ("3", "train", "driver")),
        *(("4", "simulate", "driver"), ("5", "simulate", "worker"), ("6", "train", "driver")),
    ]:
        note_job(study, job=number, verb=verb, role=role, log=log)
    slurm.queue("4|RUNNING|None|n1|1:00:11|0|\n5|PENDING|Resources||0:00|0|")
    slurm.answer("sacct", "echo '6|FAILED|0:9|n2|00:01:00|None'")
    states = [(found.job, found.state.state) for found in noted_jobs(study)]
    assert states == [("4", "running"), ("6", "out of memory"), ("5", "queued")]
    assert [line.split()[0] for line in slurm.asked] == ["squeue", "sacct"]
    status = StudyStatus.of(study.folder, failed=False)
    assert status.lines()[-3:] == [
        "jobs      simulate 4: running on n1, 1:00:11; worker jobs: 1 queued",
        "          train 6: out of memory on n2, 00:01:00",
        "            raise memory_gb in [slurm.train], then motorsweep submit goes on",
    ]
    assert status.as_dict()["jobs"][1] == {
        **{"job": "6", "verb": "train", "role": "driver", "state": "out of memory", "reason": "", "exit_code": "0:9"},
        **{"nodes": "n2", "elapsed": "00:01:00", "restarts": 0, "log": str(log)},
    }


def test_status_without_slurm_or_jobs_says_nothing(tmp_path, slurm, monkeypatch):
    study = Study(tmp_path / "out")
    study.folder.mkdir()
    assert noted_jobs(study) == [] and slurm.asked == []
    note_job(study, job="1", verb="train", role="driver")
    monkeypatch.setenv("PATH", str(tmp_path))
    status = StudyStatus.of(study.folder, failed=False)
    assert status.jobs == [] and status.as_dict()["jobs"] == []
    assert not any(line.startswith("jobs") for line in status.lines())
