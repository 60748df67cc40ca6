"""What SLURM's commands say of jobs, read as text; ids noted in a study; sbatch's answers."""

import json
import multiprocessing
import os
import stat
from dataclasses import replace

import pytest
from motorsweep.errors import MissingPackageError, MotorsweepError
from motorsweep.hpc import slurm_jobs
from motorsweep.hpc.slurm_jobs import has_slurm, job_states, note_job, read_jobs, submit_script
from motorsweep.hpc.slurm_states import (
    JobState,
    parse_jobcomp,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
    with_log,
)
from motorsweep.zarr_store.study import Study

# As SLURM 22.05 wrote them.
SQUEUE = """\
30_4|PENDING|JobArrayTaskLimit||0:00|0|
36|PENDING|Dependency||0:00|0|
37|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions||0:00|0|
38|PENDING|BeginTime||0:00|2|
28|RUNNING|None|n2|1-02:00:11|1|
29|COMPLETING|None|n[1-3,5]|0:11|0|
39_[0-2,5%2]|PENDING|Resources||0:00|0|
40_[0-4:2]|PENDING|Resources||0:00|0|
41|REQUEUE_HOLD|job_requeued_in_held_state||0:00|1|
"""
SACCT = """\
12|COMPLETED|0:0|n1|00:10:00|None
12.batch|COMPLETED|0:0|n1|00:10:00|
12.0|COMPLETED|0:0|n1|00:09:58|
13|CANCELLED by 1000|0:0|None assigned|00:00:00|None
14|TIMEOUT|0:0|n1|01:00:12|TimeLimit
14.batch|CANCELLED|0:15|n1|01:00:13|
15|FAILED|1:0|n2|00:00:05|NonZeroExitCode
15.batch|FAILED|1:0|n2|00:00:05|
16|FAILED|0:9|n2|00:00:05|None
16.batch|OUT_OF_MEMORY|0:125|n2|00:00:05|
17|OUT_OF_MEMORY|0:125|n2|00:00:05|None
18|NODE_FAIL|0:0|n3|00:04:00|None
19|PREEMPTED|0:0|n3|00:04:00|None
20|REQUEUED|0:0|n3|00:04:00|None
21_0|COMPLETED|0:0|n1|00:00:03|None
21_[1-2]|PENDING|0:0|None assigned|00:00:00|Resources
22|BOOT_FAIL|0:0|n3|00:00:00|None
23|DEADLINE|0:0|n3|00:00:00|None
24|RUNNING|0:0|n3|00:00:01|None
24.extern|RUNNING|0:0|n3|00:00:01|
"""
SCONTROL = """\
JobId=29 ArrayJobId=29 ArrayTaskId=4 ArrayTaskThrottle=2 JobName=arr.sh UserId=root(0) GroupId=root(0) MCS_label=N/A \
Priority=4294901731 Nice=0 Account=(null) QOS=(null) JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 \
Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:02 TimeLimit=UNLIMITED TimeMin=N/A NodeList=n1 BatchHost=n1
JobId=26 JobName=a JobState=RUNNING b UserId=ada(7) GroupId=x(1) JobState=FAILED Reason=NonZeroExitCode Restarts=2 \
ExitCode=3:0 RunTime=00:00:01 ReqNodeList=(null) ExcNodeList=(null) NodeList=n2 WorkDir=/home/ada
l JobState=DONE
JobId=27 JobName=b UserId=ada(7) GroupId=x(1) JobState=FAILED Reason=JobLaunchFailure Restarts=0 ExitCode=0:9 \
RunTime=00:00:01 NodeList=n[1-3]
JobId=50 ArrayJobId=50 ArrayTaskId=0-2%1 JobName=c UserId=ada(7) JobState=PENDING Reason=Resources Restarts=0 \
ExitCode=0:0 RunTime=00:00:00 NodeList=
"""
JOBCOMP = """\
JobId=9 UserId=root(0) GroupId=root(0) Name=x y JobState=NODE_FAIL Partition=all TimeLimit=60 \
StartTime=2026-11-21T21:52:10 EndTime=2026-11-21T23:53:12 NodeList=n1 NodeCnt=1 ExitCode=0:0
JobId=9 UserId=root(0) GroupId=root(0) Name=x y JobState=COMPLETED Partition=all TimeLimit=60 \
StartTime=2026-11-21T22:52:10 EndTime=2026-11-21T22:53:12 NodeList=n2 NodeCnt=1 ExitCode=0:0
JobId=40 UserId=root(0) Name=a JobState=TIMEOUT StartTime=Unknown EndTime=2026-11-21T22:53:12 NodeList=n2 \
ArrayJobId=29 ArrayTaskId=3 DerivedExitCode=0:0 ExitCode=0:1
"""


def words(states):
    return {job: state.state for job, state in states.items()}


def test_squeue():
    states = parse_squeue(SQUEUE)
    assert words(states) == {
        **{"30_4": "queued", "36": "queued", "37": "queued", "38": "requeued", "28": "running", "29": "running"},
        **{"39_0": "queued", "39_1": "queued", "39_2": "queued", "39_5": "queued"},
        **{"40_0": "queued", "40_2": "queued", "40_4": "queued", "41": "requeued"},
    }
    assert states["28"] == JobState(id="28", state="running", nodes="n2", elapsed="1-02:00:11", restarts=1)
    assert states["37"].reason.startswith("Nodes required for job are DOWN, DRAINED")
    assert states["39_5"].id == "39_5" and not states["39_5"].is_over


def test_sacct():
    states = parse_sacct(SACCT)
    assert words(states) == {
        **{"12": "done", "13": "cancelled", "14": "timed out", "15": "failed", "16": "out of memory"},
        **{"17": "out of memory", "18": "node failed", "19": "cancelled", "20": "requeued", "21_0": "done"},
        **{"21_1": "queued", "21_2": "queued", "22": "node failed", "23": "timed out", "24": "running"},
    }
    assert states["15"] == JobState(
        id="15", state="failed", reason="NonZeroExitCode", exit_code="1:0", nodes="n2", elapsed="00:00:05"
    )
    assert states["13"].nodes == "" and states["19"].reason == "preempted" and states["24"].exit_code == ""


def test_scontrol():
    states = parse_scontrol(SCONTROL)
    assert words(states) == {
        **{"29_4": "done", "26": "failed", "27": "failed", "50_0": "queued", "50_1": "queued", "50_2": "queued"}
    }
    assert states["26"] == JobState(
        id="26", state="failed", reason="NonZeroExitCode", exit_code="3:0", nodes="n2", elapsed="00:00:01", restarts=2
    )


def test_jobcomp_knows_the_last_end_of_a_job():
    states = parse_jobcomp(JOBCOMP)
    assert states == {
        "9": JobState(id="9", state="done", exit_code="0:0", nodes="n2", elapsed="00:01:02"),
        "29_3": JobState(id="29_3", state="timed out", exit_code="0:1", nodes="n2"),
    }


@pytest.mark.parametrize("parse", [parse_squeue, parse_sacct, parse_scontrol, parse_jobcomp])
@pytest.mark.parametrize(
    "text", ["", "\n\n", "No jobs in the system\n", "slurm_load_jobs error: Invalid job id specified\n"]
)
def test_nothing_is_read_out_of_nothing(parse, text):
    assert parse(text) == {}


@pytest.mark.parametrize(
    ("word", "state"),
    [("OUT_OF_ME+", "out of memory"), ("CANCELLED+", "cancelled"), ("NEW_IN_SLURM_30", "unknown"), ("", "unknown")],
)
def test_abbreviated_and_unknown_words(word, state):
    assert parse_sacct(f"1|{word}|0:0|n1|00:00:01|None\n")["1"].state == state


def test_reason_of_a_cancelled_job_is_not_why_it_had_waited():
    states = parse_scontrol(
        "JobId=1 JobName=a UserId=b JobState=CANCELLED Reason=Priority\n"
        "JobId=2 JobName=a UserId=b JobState=CANCELLED Reason=DependencyNeverSatisfied\n"
    )
    assert [state.reason for state in states.values()] == ["", "DependencyNeverSatisfied"]


@pytest.mark.parametrize(
    ("log", "state"),
    [
        ("slurmstepd-n1: error: Exceeded job memory limit\n", "out of memory"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=4.batch", "out of memory"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks", "out of memory"),
        ("slurmstepd-n1: error: StepId=41.batch exceeded memory limit (9 > 1), being killed", "out of memory"),
        ("Traceback\nValueError: no room\n", "failed"),
        ("", "failed"),
    ],
)
def test_log_tells_of_memory(log, state):
    failed = JobState(id="1", state="failed", exit_code="0:9")
    assert with_log(failed, log).state == state
    done = replace(failed, state="done")
    assert with_log(done, log) == done


# ---- SLURM's commands, answered by small programs -------------------------------------------------------------------


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    for name in ("squeue", "sacct", "scontrol"):
        answers(folder, name, code=1)
    return folder


def answers(folder, name, text="", code=0, error=""):
    path = folder / name
    (folder / f"{name}.txt").write_text(text)
    path.write_text(
        f'#!/bin/bash\necho "{name} $*" >> "$TOLD"\ncat "{folder}/{name}.txt"\necho "{error}" >&2\nexit {code}\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_all_ids_are_asked_for_at_once_and_the_gone_ones_of_sacct(bin_folder, tmp_path):
    answers(bin_folder, "squeue", SQUEUE)
    answers(bin_folder, "sacct", SACCT)
    states = job_states(["28", "14", "36", "15", "28"])
    assert words(states) == {"28": "running", "14": "timed out", "36": "queued", "15": "failed"}
    told = (tmp_path / "told").read_text().splitlines()
    assert [line.split()[0] for line in told] == ["squeue", "sacct"]
    assert "--jobs=28,14,36,15" in told[0] and "--jobs=14,15 " in told[1]


def test_without_accounts_scontrol_is_asked(bin_folder, tmp_path):
    answers(bin_folder, "squeue", code=1, error="slurm_load_jobs error: Invalid job id specified")
    answers(bin_folder, "sacct", code=1, error="Slurm accounting storage is disabled")
    answers(bin_folder, "scontrol", SCONTROL)
    assert words(job_states(["26", "99"])) == {"26": "failed", "99": "unknown"}
    assert job_states(["99"])["99"] == JobState(id="99")


def test_the_file_of_completed_jobs_is_the_last_to_ask(bin_folder, tmp_path):
    (tmp_path / "jobcomp.txt").write_text(JOBCOMP)
    answers(
        bin_folder, "scontrol", f"JobCompLoc              = {tmp_path}/jobcomp.txt\nJobCompType = jobcomp/filetxt\n"
    )
    assert words(job_states(["9", "29_3", "5"])) == {"9": "done", "29_3": "timed out", "5": "unknown"}


def test_a_controller_that_is_away_is_asked_once(bin_folder, tmp_path):
    answers(
        bin_folder,
        "squeue",
        code=1,
        error="slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    )
    state = job_states(["9"])["9"]
    assert (state.state, state.reason) == (
        "unknown",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    )
    assert len((tmp_path / "told").read_text().splitlines()) == 1


def test_a_command_that_hangs_is_given_up(bin_folder, monkeypatch):
    (bin_folder / "squeue").write_text("#!/bin/bash\nexec sleep 20\n")
    monkeypatch.setattr(slurm_jobs, "ANSWER_SECONDS", 0.3)
    assert job_states(["9"])["9"].reason == "squeue did not answer within 0.3 s"


def test_without_slurm_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_slurm()
    assert job_states(["9"]) == {"9": JobState(id="9")}


def test_sbatch_gives_the_id(bin_folder, tmp_path):
    answers(bin_folder, "sbatch", "1234;cluster\n")
    assert submit_script(["sbatch", "--parsable", "/a b/train.sh"]) == "1234"
    assert (tmp_path / "told").read_text() == "sbatch --parsable /a b/train.sh\n"


def test_what_sbatch_says_is_told(bin_folder):
    answers(bin_folder, "sbatch", code=1, error="sbatch: error: invalid partition specified: lnog")
    with pytest.raises(MotorsweepError) as caught:
        submit_script(["sbatch", "--parsable", "/a/train.sh"])
    assert str(caught.value) == (
        "submitting train.sh: sbatch refused it (sbatch: error: invalid partition specified: lnog). See [slurm] of the "
        "study file, and `sinfo` for the cluster's partitions."
    )


def test_sbatch_that_says_no_id_has_refused(bin_folder):
    answers(bin_folder, "sbatch")
    with pytest.raises(MotorsweepError, match=r"sbatch refused it \(exit code 0, no word\)"):
        submit_script(["sbatch", "train.sh"])


def test_missing_sbatch(bin_folder):
    with pytest.raises(MissingPackageError, match="there is no sbatch here"):
        submit_script(["sbatch-of-nowhere", "train.sh"])


# ---- jobs noted in a study ------------------------------------------------------------------------------------------


def test_jobs_are_noted_and_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path / "study")
    assert read_jobs(study) == []
    note_job(study, job="12", verb="simulate", role="driver", name='a "b"', log="logs/ü.log")
    note_job(study, job="13_2", verb="train", role="driver")
    first, second = read_jobs(study)
    assert {key: first[key] for key in ("job", "verb", "role", "name", "log")} == {
        **{"job": "12", "verb": "simulate", "role": "driver", "name": 'a "b"', "log": str(tmp_path / "logs/ü.log")}
    }
    assert second["job"] == "13_2" and second["log"] == "" and second["time"] >= first["time"]
    assert first["time"].endswith("+00:00")


def test_half_a_line_of_a_killed_writer_costs_that_line_only(tmp_path):
    study = Study(tmp_path)
    note_job(study, job="1", verb="simulate", role="driver")
    with study.jobs.open("a") as file:
        file.write('{"job": "2", "ver\n[]\n3\n{"verb": "x"}\n')
    note_job(study, job="4", verb="train", role="driver")
    assert [job["job"] for job in read_jobs(study)] == ["1", "4"]


def _note_many(folder, start):
    for job in range(start, start + 100):
        note_job(Study(folder), job=str(job), verb="simulate", role="worker", log="x" * 300)


def test_several_processes_may_note_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_note_many, args=(tmp_path, 100 * k)) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    lines = Study(tmp_path).jobs.read_text().splitlines()
    assert sorted(int(json.loads(line)["job"]) for line in lines) == list(range(300))


def test_a_full_disk_is_told(tmp_path):
    os.makedirs(tmp_path / "slurm" / "jobs.jsonl")
    with pytest.raises(MotorsweepError, match="noting job 7"):
        note_job(Study(tmp_path), job="7", verb="train", role="driver")
