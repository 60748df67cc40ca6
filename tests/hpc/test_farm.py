import errno
from dataclasses import dataclass

import pytest
from motorsweep.errors import ConvergenceError
from motorsweep.hpc.events import EventLog, read_events
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.farm import run_stage
from motorsweep.hpc.outcomes import DiskFullError
from motorsweep.hpc.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Shard:
    start: int
    size: int = 4

    @property
    def name(self):
        return f"poses {self.start}:{self.start + self.size}"


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    failed: int


def _solve(shard):
    if shard.start == 4:
        raise ConvergenceError("diverged")
    return ShardReport(failed=1 if shard.start == 8 else 0)


SHARDS = [Shard(start=start) for start in (0, 4, 8, 12)]


def _run(tmp_path, function, tasks=SHARDS, **more):
    log = EventLog(tmp_path / "events.jsonl")
    with open_executor(ExecutorConfig(kind="serial")) as executor:
        return run_stage("simulate", function, tasks, executor, log, Progress(quiet=True), "poses", **more)


def test_counts_pieces_and_logs_every_task(tmp_path):
    seen = []
    summary = _run(tmp_path, _solve, on_outcome=lambda task, outcome: seen.append((task.start, outcome.reason)))
    assert (summary.done, summary.failed) == (11, 5)
    assert seen == [(0, ""), (4, "diverged"), (8, ""), (12, "")]
    events = list(read_events(tmp_path / "events.jsonl"))
    assert [event.get("state", event.get("status")) for event in events] == [
        *("started", "done", "failed", "failed", "done", "finished")
    ]
    assert (events[0]["total"], events[0]["unit"], events[0]["executor"]) == (
        *(16, "poses"),
        "serial: this process, 1 thread",
    )
    assert (events[2]["task"], events[2]["failed"], events[2]["reason"]) == ("poses 4:8", 4, "diverged")
    assert (events[3]["failed"], events[3]["reason"]) == (1, "")
    assert (events[-1]["done"], events[-1]["failed"]) == (11, 5)


@dataclass(frozen=True, kw_only=True)
class PartReport:
    done: int
    failed: int = 0


def _solve_what_is_left(shard):
    """Of the first shard one pose is left, of the second two, of which one fails."""
    return [PartReport(done=1), PartReport(done=1, failed=1), PartReport(done=0), PartReport(done=4)][shard.start // 4]


def test_poses_that_a_task_did_not_do_are_not_counted(tmp_path):
    summary = _run(tmp_path, _solve_what_is_left)
    assert (summary.done, summary.failed) == (6, 1)
    _, *tasks, finished = read_events(tmp_path / "events.jsonl")
    assert [(task["left"], task["failed"]) for task in tasks] == [(3, 0), (2, 1), (4, 0), (0, 0)]
    assert (finished["done"], finished["failed"]) == (6, 1)


def test_no_tasks_is_a_stage_of_nothing(tmp_path):
    summary = _run(tmp_path, _solve, [])
    assert (summary.done, summary.failed) == (0, 0)


def _bug(shard):
    return shard.start + "1"


def test_a_bug_stops_the_stage_and_is_logged(tmp_path):
    with pytest.raises(TypeError) as caught:
        _run(tmp_path, _bug)
    assert caught.value.__notes__ == ["in task poses 0:4"]
    stopped = list(read_events(tmp_path / "events.jsonl"))[-1]
    assert stopped["state"] == "stopped" and stopped["reason"].startswith("TypeError: unsupported operand")


def test_interrupt_is_logged_and_goes_on_up(tmp_path):
    def interrupt(task, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, _solve, on_outcome=interrupt)
    assert list(read_events(tmp_path / "events.jsonl"))[-1]["reason"].startswith("KeyboardInterrupt")


def test_disk_full_in_the_coordinator_is_the_same_error(tmp_path):
    def record(task, outcome):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"simulate: no space is left.*What was finished before is kept"):
        _run(tmp_path, _solve, on_outcome=record)
