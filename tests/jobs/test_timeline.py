"""Stages as their events tell of them, and the threads of the one that runs in this process."""

import os

import pytest
from motorsweep.hpc.executors import ExecutorConfig
from motorsweep.jobs.simulation import threads_of
from motorsweep.jobs.timeline import stage_rows

START = {"event": "stage", "state": "started", "unit": "poses", "time": "2026-01-01T10:00:00+00:00"}


def task(verb, size, **more):
    return {"event": "task", "verb": verb, "task": "t", "size": size, "seconds": 1.0, "host": "n", "pid": 1, **more}


def test_poses_that_a_task_left_are_counted_where_they_are_done():
    """2 000 poses by modes, of which 5 in 5 shards are left to an exact solver."""
    events = [START | {"verb": "simulate"}]
    events += [task("simulate", 32, left=1) for _ in range(5)] + [task("simulate", 32) for _ in range(57)]
    events += [task("simulate", 16), START | {"verb": "simulate"}, *[task("simulate", 32, left=31) for _ in range(5)]]
    (row,) = stage_rows(events)
    assert row["Pieces"] == "2000 poses" and row["Tasks"] == "68" and row["Workers"] == "1"


def test_a_stage_without_tasks_tells_its_own_count():
    basis = START | {"verb": "basis", "total": 240}
    events = [basis, basis | {"state": "stopped", "done": 40, "seconds": 10.0}]
    events += [basis, basis | {"state": "finished", "done": 240, "seconds": 90.0}, task("simulate", 3)]
    rows = {row["Stage"]: row for row in stage_rows(events)}
    assert rows["basis"]["Pieces"] == "280 poses" and rows["basis"]["Wall time"] == "1:40"
    assert rows["basis"]["Tasks"] == rows["basis"]["Workers"] == "–"
    assert rows["simulate"]["Pieces"] == "3 tasks"


@pytest.mark.parametrize("affinity", [True, False])
def test_a_basis_takes_the_threads_of_all_workers_or_all_cores(monkeypatch, affinity):
    """Processes have no affinity on macOS."""
    assert threads_of(ExecutorConfig(workers=4, threads=2)) == 8
    if not affinity:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert 1 <= threads_of(ExecutorConfig()) <= os.cpu_count()
