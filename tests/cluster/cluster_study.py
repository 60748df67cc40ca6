"""A small study that the tests send to their SLURM, and what must be true of it whatever happens on the way."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from motorsweep import open_volumes
from motorsweep.hpc.events import read_events
from motorsweep.hpc.slurm_jobs import read_jobs
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study

from ..jobs.conftest import TINY, changed

SLURM_TABLES = """[slurm]
interface = "lo"
[slurm.driver]
memory_gb = 3.0
walltime = "0:20:00"
[slurm.simulate]
jobs = 2
memory_gb = 1.5
walltime = "0:20:00"
[slurm.train]
nodes = 3
ranks_per_node = 1
memory_gb = 1.5
walltime = "0:20:00"
"""
ONE_NODE = (
    SLURM_TABLES[: SLURM_TABLES.index("[slurm.train]")]
    + """[slurm.train]
nodes = 1
ranks_per_node = 2
memory_gb = 3.0
walltime = "0:20:00"
"""
)  # for launchers that reach other nodes by names and ssh: these nodes have neither
# Many small shards make a stage long enough to be disturbed; long trainings of few networks, likewise.
MANY = changed(
    TINY.replace('"tiny"', '"many"'),
    poses__grid=1,
    poses__random=99,
    solver__poses_per_shard=1,
    solver__order=1,
    stimulation__intensities_percent_rmt=[120],
    stimulation__trials=[24],
    autoencoder__epochs=12,
    mappers__epochs=20,
    validation__repeats=1,
)
# As many as autoencoders, so that each has its own: what all ranks train together has other last bits.
TWO_RANKS = SLURM_TABLES.replace("nodes = 3", "nodes = 2")
VOLATILE = ("seconds", "started", "provenance")  # of a record: when and where, not what


class ClusterStudy:
    """A study file in a folder of its own, and the commands that a user gives for it.

    Parameters
    ----------
    slurm : SlurmOnThisMachine
    folder : path-like
        Made if it is not there.
    text : str
        The study file.
    environment : dict
        Variables beside those of SLURM.
    """

    def __init__(self, slurm, folder, text, environment):
        self.slurm, self.folder = slurm, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = slurm.environment | environment
        self.name = re.search(r'^name = "(.*)"', text, re.M)[1]
        self.file = self.folder / f"{self.name}.toml"
        self.file.write_text(text)
        place = re.search(r'^folder = "(.*)"', text, re.M)
        self.study = Study(place[1] if place else self.folder / "studies" / self.name)

    def command(self, *words, code=0):
        """Run ``motorsweep WORDS`` in the folder."""
        line = [sys.executable, "-m", "motorsweep.jobs.cli", *map(str, words)]
        done = self.slurm.run(*line, check=False, cwd=self.folder, env=self.environment, timeout=600)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def submit(self, only=None):
        """``motorsweep submit``; ids of the new jobs by verb."""
        before = len(read_jobs(self.study))
        self.command("submit", self.file.name, *(["--only", only] if only else []))
        return {job["verb"]: job["job"] for job in read_jobs(self.study)[before:] if job["role"] == "driver"}

    def status(self):
        """``motorsweep status --json``."""
        return json.loads(self.command("status", self.file.name, "--json").stdout)

    def workers(self):
        """Ids of the jobs of Dask workers, oldest first."""
        return [job["job"] for job in read_jobs(self.study) if job["role"] == "worker"]

    def events(self, kind="task", verb="simulate"):
        return [event for event in read_events(self.study.events) if (event["event"], event["verb"]) == (kind, verb)]

    def wait_until(self, true, job, seconds=240):
        """Wait for something to come true while the job is not over."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{job} {self.slurm.state(job)}: {self.told()}"
            self.slurm.wait(job, "PENDING", "RUNNING", "COMPLETING", timeout=30)
            time.sleep(0.1)

    def wait_for_shards(self, count, job, seconds=240):
        """Wait until so many shards more have ended, and check that the stage is in its middle."""
        before = len(self.events())
        self.wait_until(lambda: len(self.events()) >= before + count, job, seconds)
        assert not self.events("stage")[-1]["state"] == "finished", "the study is too small: the stage is over already"

    def wait_over(self, job, *states, timeout=600):
        """Wait until a job is over and in one of the states; told with the study's logs if it is not."""
        try:
            return self.slurm.wait(job, *states, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None

    def told(self, lines=25):
        """Return the end of every log of the study."""
        text = []
        for path in sorted(self.study.logs.glob("*")):
            text += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(text)

    # ---- what must be true ------------------------------------------------------------------------------------

    def assert_each_pose_once(self, killed_drivers=0):
        """All poses are done, and no event says that one was done twice.

        What a shard did is told once it is written, so that a driver killed in between has some that nobody told of:
        those in flight, at most two a worker.
        """
        volumes = open_volumes(self.study)
        total = volumes.sizes["pose"]
        assert (volumes["status"].values == int(Status.DONE)).all()
        told = Counter()
        for event in self.events():
            told[event["task"]] += event["size"] - event["failed"] - event["left"]
        sizes = {task: self._size(task) for task in told}
        assert {task: count for task, count in told.items() if count > sizes[task]} == {}
        # A shard that was written by a worker that died before it could say so is found done by the next.
        untold = total - sum(told.values())
        assert 0 <= untold <= 4 * (1 + killed_drivers), untold
        counts = self.status()["parts"]["simulate"]
        assert counts == {"done": total, "pending": 0, "failed": 0}
        last = self.events("stage")[-1]
        assert last["state"] == "finished" and last["failed"] == 0

    @staticmethod
    def _size(task):
        start, stop = map(int, task.removeprefix("poses ").split(":"))
        return stop - start

    def assert_same_volumes(self, other):
        """The volumes of another study, bit for bit."""
        one, two = open_volumes(self.study), open_volumes(other)
        for name in ("pose_matrix", "e_norm", "status", "method", "reason", "tissue", "motor_mask"):
            assert (np.asarray(one[name]) == np.asarray(two[name])).all(), name

    def assert_same_records(self, other):
        """The records, arrays and codes of another study's runs, bit for bit."""
        mine, theirs = ({path.name for path in study.runs.iterdir()} for study in (self.study, other))
        assert mine == theirs
        for run in sorted(mine):
            one, two = (json.loads(study.record(run).read_text()) for study in (self.study, other))
            one, two = ({k: v for k, v in each.items() if k not in VOLATILE} for each in (one, two))
            assert one == two
            one, two = (dict(np.load(study.arrays(run))) for study in (self.study, other))
            assert one.keys() == two.keys()
            for name in one:
                assert one[name].tobytes() == two[name].tobytes(), (run, name)

    def assert_clean(self):
        """``verify`` finds nothing, and nothing of the study waits or runs on the cluster."""
        assert "all is well" in self.command("verify", self.file.name).stdout
        self.slurm.assert_nothing_left()
        assert not self.study.scratch.exists() or not any(self.study.scratch.iterdir())


def files_of(store):
    """Bytes of every file of a store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(Path(store).rglob("*")) if p.is_file()}


def assert_same_files(one, other):
    left, right = files_of(one), files_of(other)
    assert left and left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


def run_serially(folder, text, environment, python, *verbs):
    """Run verbs of a study in one process, without SLURM; the Study."""
    (folder / "study.toml").write_text(text)
    for verb in verbs:
        line = [python, "-m", "motorsweep.jobs.cli", verb, "study.toml"]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return Study(folder / "studies" / re.search(r'^name = "(.*)"', text, re.M)[1])


def copy_of(study, folder, *parts):
    """Copy parts of a study (all by default) to another folder, as a study that has come so far."""
    shutil.copytree(study.folder, folder, ignore=lambda place, names: _others(study, place, names, parts))
    return Study(folder)


def _others(study, place, names, parts):
    top = os.path.samefile(place, study.folder)
    return [name for name in names if top and parts and name not in parts]


def assert_solved(study, undisturbed, killed_drivers=0):
    study.assert_each_pose_once(killed_drivers)
    study.assert_same_volumes(undisturbed)
    study.assert_clean()


def pids(slurm, *words, **variables):
    """Processes of jobs whose command line has the words, and whose environment the variables."""
    found = []
    for pid, line in slurm.processes().items():
        held = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if all(word in line for word in words) and all(f"{k}={v}".encode() in held for k, v in variables.items()):
            found.append(pid)
    return found


def driver_pid(slurm, job):
    (pid,) = pids(slurm, "motorsweep.jobs.cli", "simulate", SLURM_JOB_ID=job)
    return pid
