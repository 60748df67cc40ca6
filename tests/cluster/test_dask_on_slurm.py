"""Dask workers that are jobs of a real SLURM: lost, replaced, refused, queued, encrypted, and gone at the end."""

import importlib.util
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest

if importlib.util.find_spec("dask_jobqueue") is None:  # not by an import, which would take over Ctrl-C
    pytest.skip("worker jobs need dask-jobqueue (extra cluster)", allow_module_level=True)

from motorsweep.errors import MotorsweepError
from motorsweep.hpc import worker_jobs
from motorsweep.hpc.dask_executor import IN_FLIGHT_PER_WORKER
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.slurm_config import SimulateConfig, SlurmConfig
from motorsweep.hpc.slurm_jobs import read_jobs
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.zarr_store.results import open_results
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import open_volumes

pytestmark = pytest.mark.slow
KIND = ExecutorConfig(kind="slurm")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that takes a moment, notes that it ran, and may kill its worker."""

    id: str
    folder: str
    seconds: float = 0.05
    deadly: bool = False


def work(step):
    with open(os.path.join(step.folder, f"ran-{step.id}"), "a") as file:
        file.write("x")
    time.sleep(step.seconds)
    if step.deadly:
        os._exit(9)
    return {
        "job": os.environ["SLURM_JOB_ID"],
        "pid": os.getpid(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "listening": {c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN},
    }


@pytest.fixture
def study(slurm, tmp_path, monkeypatch):
    """A folder for a study, in a process that speaks with the tests' own SLURM."""
    for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
        monkeypatch.delenv(name)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm.environment[name])
    # where workers find the tasks' function
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[__name__.count(".")]))
    yield Study(tmp_path / "a study's")
    slurm.assert_nothing_left()


@pytest.fixture
def steps(tmp_path):
    def make(count, **changes):
        return [Step(id=str(k), folder=str(tmp_path), **changes) for k in range(count)]

    return make


def asked(jobs=2, processes=1, cpus=1, **keys):
    shape = {"jobs": jobs, "processes": processes, "cpus": cpus, "memory_gb": 2.0, "walltime": "0:20:00"}
    shape |= {key: keys.pop(key) for key in ("retries", "adapt") if key in keys}
    return SlurmConfig(interface="lo", simulate=SimulateConfig(**shape), **keys)


def opened(study, config, **more):
    return open_executor(KIND, slurm=config, study=study, verb="simulate", log=study.logs / "simulate.log", **more)


def ran(tmp_path):
    return {path.name.removeprefix("ran-"): len(path.read_text()) for path in tmp_path.glob("ran-*")}


def until(true, seconds=240):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_tasks_run_on_the_workers_of_jobs_and_few_wait(study, steps, tmp_path, capsys):
    taken, ended, ahead = 0, 0, []

    def lazily():
        nonlocal taken
        for step in steps(60):
            taken += 1
            ahead.append(taken - ended)
            yield step

    found = []
    with opened(study, asked(jobs=2, processes=2, cpus=2)) as executor:
        assert executor.describe() == "slurm: 2 worker jobs x 2 workers x 1 thread"
        for _, outcome in executor.run(work, lazily()):
            ended += 1
            found.append(outcome.value)
    assert ended == 60 and max(ahead) <= IN_FLIGHT_PER_WORKER * 4
    assert ran(tmp_path) == {str(k): 1 for k in range(60)}
    assert 2 <= len({each["pid"] for each in found}) <= 4
    assert all(each["threads"] == "1" and each["listening"] == {"127.0.0.1"} for each in found)
    jobs = read_jobs(study)
    assert {job["job"] for job in jobs} >= {each["job"] for each in found}
    assert [(job["verb"], job["role"]) for job in jobs] == [("simulate", "worker")] * 2
    assert all(Path(job["log"]) == study.logs / f"simulate-worker-{job['job']}.log" for job in jobs)
    assert "Starting established connection" in Path(jobs[0]["log"]).read_text()
    assert "exec " in (study.slurm / "simulate-worker.sh").read_text()
    assert not list(study.scratch.iterdir())
    told = capsys.readouterr().err
    assert re.fullmatch(r"dashboard  http://127.0.0.1:(\d+)/\w+  ssh -N -L \1:127.0.0.1:\1 \w+@[\w.-]+\n", told), told


def test_a_lost_job_is_replaced_and_a_deadly_task_blamed_alone(slurm, study, steps, tmp_path):
    tasks = [replace(step, deadly=step.id == "7") for step in steps(30, seconds=0.5)]
    outcomes, lost = {}, None
    with opened(study, asked(jobs=2, retries=1), announce=False) as executor:
        for step, outcome in executor.run(work, tasks):
            outcomes[step.id] = outcome
            if len(outcomes) == 6:
                lost = outcome.value["job"]
                slurm.cancel(lost)
    assert [name for name, outcome in outcomes.items() if not outcome.ok] == ["7"]
    assert "exited with status 9" in outcomes["7"].message and "simulate-worker-" in outcomes["7"].message
    assert len(outcomes) == 30 and ran(tmp_path)["7"] == 3  # twice among the others, once alone
    jobs = [job["job"] for job in read_jobs(study)]
    assert lost in jobs and len(jobs) == 3


def test_jobs_that_end_before_they_connect_stop_the_run(study, steps):
    config = asked(jobs=1, prologue=("echo no such module: gcc/12 >&2", "exit 3"))
    with (
        pytest.raises(MotorsweepError, match=r"(?s)3 worker jobs have ended before.*as failed.*no such module: gcc/12"),
        opened(study, config, announce=False) as executor,
    ):
        list(executor.run(work, steps(2)))
    assert len(read_jobs(study)) == 3


def test_jobs_that_slurm_refuses_stop_the_run_with_its_words(study, steps):
    with (
        pytest.raises(MotorsweepError, match=r"2 worker jobs: it refuses them \(.*[Ii]nvalid partition"),
        opened(study, asked(partition="nowhere"), announce=False) as executor,
    ):
        list(executor.run(work, steps(2)))
    assert read_jobs(study) == []


def test_a_full_queue_is_waited_for_and_told_once(slurm, study, steps, capfd, monkeypatch):
    monkeypatch.setattr(worker_jobs, "ASK_SECONDS", (0.5, 2.0))
    blocking = [slurm.submit("sleep 300", "--exclusive") for _ in slurm.nodes]
    for job in blocking:
        slurm.wait(job, "RUNNING")
    with opened(study, asked(jobs=2), announce=False) as executor:
        running = executor.run(work, steps(4))
        start = time.monotonic()
        original = executor._tend

        def free_after_a_while(left):
            if time.monotonic() - start > 8:
                slurm.cancel(*blocking)
            original(left)

        executor._tend = free_after_a_while
        assert all(outcome.ok for _, outcome in running)
    told = capfd.readouterr().err
    assert told.count("2 worker jobs queued") == 1 and "waiting for the cluster" in told


def test_jobs_without_work_are_let_go(slurm, study, steps, tmp_path):
    (tmp_path / "long").mkdir()
    tasks = [*steps(4), Step(id="long", folder=str(tmp_path), seconds=20.0)]
    with opened(study, asked(jobs=2, adapt=True), announce=False) as executor:
        for step, outcome in executor.run(work, tasks):
            assert outcome.ok
            if step.id != "long":
                continue
            assert len([job for job in slurm.active() if job["JobState"] == "RUNNING"]) == 1
    assert ran(tmp_path)["long"] == 1


def test_encrypted_and_no_key_is_told(study, steps):
    with opened(study, asked(jobs=1, tls="on"), announce=False) as executor:
        assert all(outcome.ok for _, outcome in executor.run(work, steps(3)))
        assert executor.scheduler.address.startswith("tls://")
        (key,) = study.scratch.rglob("key.pem")
        secret = [line for line in key.read_text().splitlines() if "-" not in line]
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not key.exists()
    texts = [path for folder in (study.slurm, study.logs) for path in folder.iterdir()]
    assert len(texts) >= 4
    for path in texts:
        assert not any(line in path.read_text() for line in secret), path


# ---- a study ---------------------------------------------------------------------------------------------------------

STUDY = """name = "small"
folder = "{folder}"
[head]
source = "head.msh"
hand_knob_mm = [0.0, 0.0, 75.0]
[poses]
grid = 3
[volume]
n = 32
spacing_mm = 2.0
[solver]
poses_per_shard = 2
[stimulation]
intensities_percent_rmt = [110, 140]
trials = [14, 12]
[responses]
muscles = ["FDI", "APB"]
[responses.synthetic]
synergies = 2
[autoencoder]
epochs = 1
batch = 8
[mappers]
depths = [3]
epochs = 1
batch = 8
synergies = 2
[slurm]
interface = "lo"
[slurm.simulate]
jobs = 2
memory_gb = 3.0
walltime = "0:30:00"
"""


def _run(executor, folder):
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "run", f"{executor}.toml", "--executor", executor, "--quiet"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_every_stage_gives_what_it_gives_in_one_process(study, tmp_path):
    layered_sphere(1).save_msh(tmp_path / "head.msh")
    for executor in ("slurm", "serial"):
        (tmp_path / f"{executor}.toml").write_text(STUDY.format(folder=executor))
        _run(executor, tmp_path)
    volumes = [open_volumes(tmp_path / executor) for executor in ("slurm", "serial")]
    np.testing.assert_array_equal(volumes[0]["e_norm"].values, volumes[1]["e_norm"].values)
    results = [open_results(tmp_path / executor) for executor in ("slurm", "serial")]
    for name in results[0].data_vars:
        if results[0][name].dtype.kind == "f" and "seconds" not in name:
            np.testing.assert_array_equal(results[0][name].values, results[1][name].values, err_msg=name)
    verbs = {job["verb"] for job in read_jobs(Study(tmp_path / "slurm"))}
    assert verbs == {"simulate", "encode", "train"}


# ---- the driver's own end --------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from pathlib import Path
from motorsweep.hpc import slurm_cluster
from motorsweep.hpc.executors import open_executor
from MODULE import KIND, Step, asked, opened, work
from motorsweep.zarr_store.study import Study

if __name__ == "__main__":
    slurm_cluster.DEATH_TIMEOUT_SECONDS = int(sys.argv[3])
    study, folder, seconds = Study(sys.argv[1]), sys.argv[2], float(sys.argv[4])
    try:
        with opened(study, asked(), announce=False) as executor:
            steps = [Step(id=str(k), folder=folder, seconds=seconds) for k in range(6)]
            print([outcome.ok for _, outcome in executor.run(work, steps)], flush=True)
    except KeyboardInterrupt:
        print("clean", flush=True)
"""


@pytest.fixture
def driver(study, tmp_path):
    (tmp_path / "driver.py").write_text(PROGRAM.replace("MODULE", __name__))

    def start(patience, seconds):
        words = [tmp_path / "driver.py", study.folder, tmp_path, patience, seconds]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, *map(str, words)], **pipes, start_new_session=True)

    return start


def _at_work(process, tmp_path):
    until(lambda: ran(tmp_path) or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def test_ctrl_c_cancels_the_jobs(slurm, study, driver, tmp_path):
    process = driver(60, 100)
    _at_work(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "clean\n", "")
    slurm.assert_nothing_left()


def test_the_jobs_of_a_killed_driver_end_and_the_next_cancels_what_is_left(slurm, study, driver, tmp_path):
    process = driver(8, 100)
    _at_work(process, tmp_path)
    process.kill()
    process.communicate(timeout=30)
    slurm.assert_nothing_left(timeout=60)  # they find no scheduler

    process = driver(3600, 100)
    until(lambda: len(slurm.active()) == 2 or process.poll() is not None)
    process.kill()
    process.communicate(timeout=30)
    assert len(slurm.active()) == 2
    process = driver(60, 0.1)
    out, err = process.communicate(timeout=240)
    assert (out, err) == (f"{[True] * 6}\n", "")
    jobs = [job["job"] for job in read_jobs(study)]
    assert len(jobs) == 6 and [slurm.state(job) for job in jobs[2:4]] == ["CANCELLED"] * 2
    assert json.loads(study.jobs.read_text().splitlines()[0])["role"] == "worker"
