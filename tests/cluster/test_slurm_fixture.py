"""The SLURM that the tests start is a real one: jobs run, wait for each other, are requeued, and outlive a node."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BESIDE = Path(__file__).parent


def wait_for(path, text, seconds=20):
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{path}: {path.read_text() if path.exists() else 'missing'}"
        time.sleep(0.1)


def test_a_job_runs_on_a_node_of_it_and_its_dependency_after_it(slurm, tmp_path):
    assert slurm.node_states() == {"n1": "IDLE", "n2": "IDLE", "n3": "IDLE"}
    first = slurm.submit('echo "$SLURMD_NODENAME" > first', "--nodelist=n2", cwd=tmp_path)
    then = slurm.submit("cat first > then", f"--dependency=afterok:{first}", cwd=tmp_path)
    job = slurm.wait(then)
    assert (tmp_path / "then").read_text() == "n2\n"
    assert job["ExitCode"] == "0:0" and job["WorkDir"] == str(tmp_path)
    slurm.assert_nothing_left()


def test_an_array_runs_one_at_a_time_and_a_failure_is_told(slurm, tmp_path):
    job = slurm.submit(
        'echo $SLURM_ARRAY_TASK_ID >> order; [ "$SLURM_ARRAY_TASK_ID" = 0 ]', "--array=0-1%1", cwd=tmp_path
    )
    with pytest.raises(AssertionError, match="FAILED"):
        slurm.wait(job)
    slurm.wait(job, "COMPLETED", "FAILED")
    assert slurm.state(f"{job}_0") == "COMPLETED" and slurm.state(f"{job}_1") == "FAILED"
    assert (tmp_path / "order").read_text().split() == ["0", "1"]


def test_three_nodes_run_the_steps_of_one_job(slurm, tmp_path):
    job = slurm.submit("srun sh -c 'echo $SLURMD_NODENAME' | sort > nodes", "--nodes=3", cwd=tmp_path)
    slurm.wait(job)
    assert (tmp_path / "nodes").read_text().split() == ["n1", "n2", "n3"]


def test_a_job_requeues_itself_on_a_signal(slurm, tmp_path):
    script = (
        "echo begin $SLURM_RESTART_COUNT >> told\n"
        "trap 'echo signal >> told; kill $!; scontrol requeue $SLURM_JOB_ID; exit' USR1\n"
        "if [ -z $SLURM_RESTART_COUNT ]; then sleep 60 & wait; fi\n"
    )
    job = slurm.submit(script, "--requeue", cwd=tmp_path)
    slurm.wait(job, "RUNNING")
    wait_for(tmp_path / "told", "begin")
    slurm.cancel(job, options=["--signal=USR1", "--batch"])
    slurm.wait(job)
    assert (tmp_path / "told").read_text().split("\n")[:-1] == ["begin", "signal", "begin 1"]
    assert slurm.job(job)["Restarts"] == "1"
    slurm.assert_nothing_left()


def test_too_much_memory_ends_a_job(slurm):
    eat = f"{sys.executable} -c 'held = bytearray(300_000_000); import time; time.sleep(30)'"
    job = slurm.submit(eat, "--mem=100")
    ended = slurm.wait(job, "FAILED")  # without cgroups SLURM has no word of its own for it but in the job's log
    assert ended["ExitCode"] == "0:9" and "Exceeded job memory limit" in Path(ended["StdOut"]).read_text()


def test_a_killed_node_loses_its_job_which_runs_again_on_another(slurm, tmp_path):
    job = slurm.submit("echo $SLURMD_NODENAME >> ran; sleep 60", "--requeue", cwd=tmp_path)
    slurm.wait(job, "RUNNING")
    wait_for(tmp_path / "ran", "n")
    node = slurm.job(job)["NodeList"]
    assert "sleep 60" in " ".join(slurm.processes(node).values())
    slurm.kill_node(node)  # SLURM finds out by itself, half a minute later
    try:
        assert slurm.processes(node) == {}
        slurm.wait(job, "RUNNING")
        assert slurm.job(job)["NodeList"] != node
    finally:
        slurm.start_node(node)
    slurm.cancel(job)
    slurm.wait(job, "CANCELLED")
    slurm.assert_nothing_left()
    assert set(slurm.node_states().values()) == {"IDLE"}


def test_jobs_run_on_through_a_restart_of_slurmctld(slurm, tmp_path):
    job = slurm.submit("sleep 4; echo done > done", cwd=tmp_path)
    slurm.wait(job, "RUNNING")
    slurm.restart_controller(down_s=1)
    slurm.wait(job)
    assert (tmp_path / "done").exists() and slurm.job(job)["Restarts"] == "0"


def test_two_of_them_live_side_by_side_and_leave_nothing(slurm, tmp_path_factory):
    other = type(slurm)(tmp_path_factory.mktemp("other"))
    with other:
        job = other.submit("sleep 60")
        other.wait(job, "RUNNING")
        assert slurm.run("squeue", "--noheader").stdout == ""
        assert other.processes() and not slurm.processes()
    assert other.processes(daemons=True) == {}


def test_it_ends_with_the_process_that_started_it(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    code = (
        f"import sys; sys.path.insert(0, {str(BESIDE)!r}); from slurm_on_this_machine import SlurmOnThisMachine\n"
        f"slurm = SlurmOnThisMachine({str(folder)!r}).start(); print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "up\n"
        child.kill()
    end = time.monotonic() + 10
    while left := daemons_in(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def daemons_in(folder):
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (place / "environ").read_bytes() and int(place.name) != os.getpid():
                found.append((place / "cmdline").read_bytes())
        except OSError:
            pass
    return found


def test_a_failed_start_leaves_nothing_and_says_why(slurm, tmp_path, monkeypatch):
    broken = type(slurm)(tmp_path)
    monkeypatch.setattr(broken, "_configuration", lambda ports: "ClusterName=tests\nNonsense=1\n")
    with pytest.raises(RuntimeError, match="Nonsense"):
        broken.start(attempts=1)
    assert daemons_in(tmp_path) == []
