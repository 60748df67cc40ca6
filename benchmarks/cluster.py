"""What a study on SLURM costs beside its solves: overhead of a task, start of the workers, scaling over nodes.

Run as ``python benchmarks/cluster.py``, or with some of ``overhead startup scaling stream plan``; ``--quick`` is a
trial of two minutes. It starts a SLURM of three nodes on this machine (Debian: slurm-wlm, munge), as the tests do, and
runs tasks through the executor of kind "slurm": this process is the driver, each node has one job of one Dask worker.

The nodes share this machine's cores. Sleeping tasks scale over them as over real nodes, real solves only as far as
there are cores. ``overhead``: tasks that do nothing, and that sleep. ``startup``: from sbatch to the first task's end.
``scaling``: the same work on 1, 2 and 3 nodes. ``stream``: a hundred thousand tasks, and what the driver holds of them.
``plan``: a million poses on 200 nodes, from the figures above (and measures those that were not asked for).
"""

import argparse
import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from machine import describe, forget_peak, held_gb, peak_gb, row, table
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.outcomes import Outcome
from motorsweep.hpc.prepare import prepare_volumes
from motorsweep.hpc.simulate import shard_tasks, solve_shard
from motorsweep.hpc.slurm_config import SimulateConfig, SlurmConfig
from motorsweep.hpc.study_solver import head_sizes, study_solver
from motorsweep.jobs.config import load_study_config
from motorsweep.zarr_store.shards import pending_shards
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import open_volumes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cluster"))
from slurm_on_this_machine import NODES, SlurmOnThisMachine, missing_programs

PARTS = ("overhead", "startup", "scaling", "stream", "plan")
SLEEP_S = 0.25
STREAM_PROCESSES = 4  # on a node: what the driver can hand out shows only with many workers to take it
POSES, PLANNED_NODES, PROCESSES = 1_000_000, 200, 16
STUDY = """name = "scaling"
[head]
source = "sphere"
[head.mesh]
fine_mm = {fine}
coarse_mm = {coarse}
fine_radius_mm = 40.0
[poses]
grid = 1
random = {random}
[volume]
n = {n}
spacing_mm = 2.0
[solver]
kind = "direct"
poses_per_shard = 8
"""


def main():
    arguments = parse()
    if missing := missing_programs():
        sys.exit(f"this benchmark needs {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    print(describe(threads=1))
    found = {}
    with tempfile.TemporaryDirectory() as folder, a_cluster(Path(folder)) as cluster:
        for name in arguments.parts or PARTS:
            print(f"\n### {name}\n", flush=True)
            found[name] = globals()[name](arguments, cluster, found)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--tasks", type=int, help="of the stream (default 100000, quick 5000)")
    parser.add_argument("--seconds-a-pose", type=float, help="for the plan, of one process (default: as measured here)")
    parser.add_argument("--megabytes-a-pose", type=float, help="for the plan, as stored (default: as measured here)")
    parser.add_argument("--quick", action="store_true", help="two minutes")
    arguments = parser.parse_args()
    arguments.tasks = arguments.tasks or (5000 if arguments.quick else 100_000)
    return arguments


# ---- parts ----------------------------------------------------------------------------------------------------------


def overhead(arguments, cluster, found):
    """Seconds that a task costs beside its work; tasks per second by number of nodes."""
    count, asleep = (300, 30) if arguments.quick else (3000, 120)
    table("nodes", "no-op: tasks a second", "no-op: ms a task", f"sleep {SLEEP_S} s: ms beside it", "of the ideal")
    rates = {}
    for nodes in range(1, len(NODES) + 1):
        with cluster.executor(nodes) as executor:
            idle = timed(executor, abs, range(count))
            seconds = timed(executor, time.sleep, [SLEEP_S] * (asleep * nodes))
        rates[nodes] = count / idle
        beside, ideal = seconds / asleep - SLEEP_S, SLEEP_S * asleep / seconds
        row(nodes, f"{rates[nodes]:.0f}", f"{1e3 * idle / count:.2f}", f"{1e3 * beside:.1f}", f"{ideal:.1%}")
    return rates


def startup(arguments, cluster, found):
    """Seconds from the request for workers to their connection and first task."""
    table("", *(f"run {k + 1}" for k in range(2 if arguments.quick else 5)))
    runs = []
    for _ in range(2 if arguments.quick else 5):
        began = time.monotonic()
        with cluster.executor(len(NODES), wait=False) as executor:
            asked = time.monotonic() - began
            next(each for each in executor.run(abs, [1]))
            first = time.monotonic() - began
            executor.client.wait_for_workers(len(NODES), timeout=120)
            runs.append((asked, first, time.monotonic() - began))
            began = time.monotonic()
        runs[-1] += (time.monotonic() - began,)
    words = ("scheduler up, jobs sent, s", "first task done, s", "all three workers there, s", "closed, s")
    for name, seconds in zip(words, zip(*runs, strict=True), strict=True):
        row(name, *(f"{each:.2f}" for each in seconds))
    return float(np.median([run[2] for run in runs]))


def scaling(arguments, cluster, found):
    """The same work on 1, 2 and 3 nodes: tasks that sleep, and solves."""
    asleep = 60 if arguments.quick else 480
    config = a_study(arguments, cluster.folder)
    template = Study(config.folder)
    prepare_volumes(template, config)
    poses = open_volumes(template).sizes["pose"]
    cores = len(os.sched_getaffinity(0))
    print(f"{asleep} tasks that sleep {SLEEP_S} s; {poses} poses in shards of 8, on a head of {facts(template)}.")
    print(f"This machine has {cores} cores, so that solves cannot go faster than on {cores} nodes.")
    table("nodes", "sleeping, s", "speed-up", "solves, s", "speed-up", "first shard, s", "s a pose, median", "shards/s")
    base, result = None, {}
    for nodes in range(1, len(NODES) + 1):
        with cluster.executor(nodes) as executor:
            sleeping = timed(executor, time.sleep, [SLEEP_S] * asleep)
            seconds, shards = solves(executor, config, template, cluster.folder / f"solves-{nodes}")
        base = base or (sleeping, seconds)
        later = shards[nodes:] or shards
        result = {
            "seconds_a_pose": float(np.median(later)) / 8,
            "first": float(np.max(shards[:nodes])),
            **(result if nodes > 1 else {}),
        }
        row(
            nodes, f"{sleeping:.1f}", f"{base[0] / sleeping:.2f}", f"{seconds:.1f}", f"{base[1] / seconds:.2f}",
            f"{np.max(shards[:nodes]):.1f}", f"{np.median(later) / 8:.3f}", f"{len(shards) / seconds:.2f}",
        )  # fmt: skip
    return result | {"megabytes": stored_mb(cluster.folder / "solves-1") / poses}


def stream(arguments, cluster, found):
    """Many tasks through the scheduler, and what this process, the driver, holds meanwhile."""
    count = SimpleNamespace(taken=0, most=0)

    def tasks():
        for count.taken in range(1, arguments.tasks + 1):
            yield count.taken

    with cluster.executor(len(NODES), processes=STREAM_PROCESSES) as executor:
        timed(executor, abs, range(200))
        forget_peak()
        before, began = held_gb(), time.monotonic()
        for ended, _ in enumerate(executor.run(abs, tasks()), 1):
            count.most = max(count.most, count.taken - ended + 1)
        seconds = time.monotonic() - began
        after, peak = held_gb(), peak_gb()
    table("workers", "tasks", "seconds", "tasks a second", "in flight at most", "driver before, GB", "after", "peak")
    row(
        STREAM_PROCESSES * len(NODES), arguments.tasks, f"{seconds:.0f}", f"{arguments.tasks / seconds:.0f}",
        count.most, f"{before:.2f}", f"{after:.2f}", f"{peak:.2f}",
    )  # fmt: skip
    return {"rate": arguments.tasks / seconds, "kilobytes": 1e6 * (after - before) / arguments.tasks}


def plan(arguments, cluster, found):
    """A million poses on 200 nodes of 16 processes each, by poses in a shard."""
    for name in ("startup", "scaling", "stream"):
        if name not in found:
            print(f"(measuring {name} first)")
            found[name] = globals()[name](arguments, cluster, found)
    seconds = arguments.seconds_a_pose or found["scaling"]["seconds_a_pose"]
    megabytes = arguments.megabytes_a_pose or found["scaling"]["megabytes"]
    first, rate, workers = found["scaling"]["first"], found["stream"]["rate"], PLANNED_NODES * PROCESSES
    compute = POSES * seconds / workers
    print(
        f"{POSES:,} poses at {seconds:.3g} s each on {PLANNED_NODES} nodes x {PROCESSES} processes: "
        f"{compute / 3600:.2f} h of solves, {POSES * seconds / 3600:,.0f} core-hours; start {found['startup']:.0f} s, "
        f"first shard {first:.0f} s; {POSES * megabytes / 1e6:.2f} TB in the store. The driver hands out "
        f"{rate:.0f} tasks a second on this machine, where {STREAM_PROCESSES * len(NODES)} workers share its cores."
    )
    table("poses in a shard", "tasks", "s a task", "tasks/s asked for", "of the driver's", "all, h", "MB a shard")
    for size in (16, 64, 256, 1024):
        tasks = POSES / size
        hours = (found["startup"] + first + max(compute, tasks / rate)) / 3600
        row(
            size, f"{tasks:,.0f}", f"{size * seconds:.1f}", f"{tasks / compute:.0f}", f"{tasks / compute / rate:.0%}",
            f"{hours:.2f}", f"{size * megabytes:.0f}",
        )  # fmt: skip


# ---- cluster and studies --------------------------------------------------------------------------------------------


class Cluster:
    """A SLURM on this machine, and executors on it."""

    def __init__(self, folder):
        self.folder = folder

    @contextlib.contextmanager
    def executor(self, nodes, wait=True, processes=1):
        """Executor of kind "slurm" with so many workers on each of so many nodes, all of them there."""
        # More than half of a node's memory, so that no node has two.
        simulate = SimulateConfig(jobs=nodes, processes=processes, cpus=processes, memory_gb=2.5, walltime="4:00:00")
        slurm = SlurmConfig(interface="lo", simulate=simulate)
        study = Study(self.folder / "driver")
        study.folder.mkdir(exist_ok=True)
        study.logs.mkdir(exist_ok=True)
        with open_executor(
            ExecutorConfig(kind="slurm"),
            scratch=study.scratch,
            log=study.logs / "driver.log",
            announce=False,
            slurm=slurm,
            study=study,
            verb="simulate",
        ) as executor:
            if wait:
                executor.client.wait_for_workers(nodes * processes, timeout=180)
            yield executor


@contextlib.contextmanager
def a_cluster(folder):
    (folder / "slurm").mkdir()
    with SlurmOnThisMachine(folder / "slurm", cpus=STREAM_PROCESSES) as slurm:
        os.environ.update(
            SLURM_CONF=slurm.environment["SLURM_CONF"], PATH=slurm.environment["PATH"], OMP_NUM_THREADS="1"
        )
        yield Cluster(folder)


def timed(executor, function, tasks):
    """Seconds for all tasks; each must have succeeded."""
    began = time.monotonic()
    for _, outcome in executor.run(function, tasks):
        check(outcome)
    return time.monotonic() - began


def check(outcome: Outcome):
    if not outcome.ok:
        sys.exit(f"a task failed: {outcome.reason}: {outcome.message}\n{outcome.traceback}")


def solves(executor, config, template, folder):
    """Wall seconds for all shards of a fresh copy of the study, and the seconds of each shard as they ended."""
    shutil.copytree(template.folder, folder)
    config = replace(config, folder=str(folder))
    study = Study(folder)
    kind = study_solver(config, *head_sizes(open_volumes(study))).kind
    tasks = shard_tasks(study, config, pending_shards(study, False), kind)
    began, shards = time.monotonic(), []
    for _, outcome in executor.run(solve_shard, tasks):
        check(outcome)
        shards.append(outcome.seconds)
    return time.monotonic() - began, shards


def a_study(arguments, folder):
    sizes = {"fine": 6.0, "coarse": 10.0, "n": 32, "random": 47} if arguments.quick else {
        "fine": 3.0, "coarse": 8.0, "n": 64, "random": 479,
    }  # fmt: skip
    path = folder / "scaling.toml"
    path.write_text(f'folder = "{folder / "template"}"\n' + STUDY.format(**sizes))
    return load_study_config(path)


def facts(study):
    nodes = open_volumes(study).attrs["notes"]["head_nodes"]
    return re.sub(r"\B(?=(\d{3})+$)", ",", str(nodes)) + " nodes"


def stored_mb(folder):
    return sum(path.stat().st_size for path in (folder / "volumes.zarr").rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
