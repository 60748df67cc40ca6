"""A queue in a folder under real processes that fight for its tasks, die in the middle, and tell how tasks ended."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from motorsweep.errors import StoreError
from motorsweep.hpc.outcomes import DiskFullError, Outcome, attempt
from motorsweep.hpc.task_queue import LOST_SECONDS, LifeSign, TaskQueue

WORK = """
import os, sys, time
from motorsweep.hpc.outcomes import Outcome
from motorsweep.hpc.task_queue import TaskQueue

queue = TaskQueue(sys.argv[1], 500)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.001)
while (number := queue.claim()) is not None:
    queue.finish(number, Outcome(value=number * 0.1, seconds=1.0))
    print(number)
"""


def test_each_of_500_tasks_is_taken_by_exactly_one_of_five_processes(tmp_path):
    (tmp_path / "queue").mkdir()
    line = [sys.executable, "-c", WORK, str(tmp_path / "queue"), str(tmp_path / "go")]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    time.sleep(1)
    (tmp_path / "go").touch()
    queue, ended = TaskQueue(tmp_path / "queue", 500), {}
    deadline = time.monotonic() + 60
    while len(ended) < 500 and time.monotonic() < deadline:
        new = queue.ended()
        assert not {number for number, _ in new} & ended.keys()
        ended |= {number: outcome for number, outcome in new}
    taken = [list(map(int, process.communicate(timeout=30)[0].split())) for process in processes]
    assert sorted(number for numbers in taken for number in numbers) == list(range(500))
    assert sum(map(bool, taken)) > 1  # more than one had a share
    assert all(numbers == sorted(numbers) for numbers in taken)  # dearest first
    assert {number: outcome.value for number, outcome in ended.items()} == {k: k * 0.1 for k in range(500)}
    by_process = {process.pid: len(numbers) for process, numbers in zip(processes, taken)}
    assert {pid: sum(each.pid == pid for each in ended.values()) for pid in by_process} == by_process
    assert queue.claim() is None and not queue.has_news()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.25, 0.25),
        (None, None),
        (float("nan"), None),
        (SimpleNamespace(done=2, failed=1), SimpleNamespace(done=2, failed=1)),
        (SimpleNamespace(failed=1), SimpleNamespace(failed=1)),
        ("text that nobody reads", None),
    ],
)
def test_values_that_count_come_through(value, kept, tmp_path):
    TaskQueue(tmp_path, 1).finish(0, Outcome(value=value, seconds=2.5, peak_memory_bytes=7))
    ((_, outcome),) = TaskQueue(tmp_path, 1).ended()
    assert outcome.ok and (outcome.seconds, outcome.peak_memory_bytes, outcome.pid) == (2.5, 7, os.getpid())
    assert outcome.value == kept or outcome.value != outcome.value


def test_a_failed_task_keeps_its_reason(tmp_path):
    queue = TaskQueue(tmp_path, 2)
    queue.finish(1, attempt(lambda task: 1 / 0, "e"))
    ((number, outcome),) = queue.ended()
    assert (number, outcome.reason, outcome.message) == (1, "crashed", "ZeroDivisionError: division by zero")
    assert "lambda" in outcome.traceback and queue.error() is None


def test_an_error_that_stops_all_comes_through_as_what_it_was(tmp_path):
    queue = TaskQueue(tmp_path, 4)
    full = DiskFullError("no room")
    full.errno = errno.ENOSPC
    try:
        {}["missing"]
    except KeyError as error:
        bug = error
    queue.finish(0, Outcome(value=1))
    queue.finish(1, StoreError("damaged"))
    queue.finish(2, full)
    queue.finish(3, bug)
    found = dict(queue.ended())
    assert type(found[1]) is StoreError and str(found[1]) == "damaged"
    assert type(found[2]) is DiskFullError and found[2].errno == errno.ENOSPC
    assert isinstance(found[3], LookupError) and str(found[3]) == "KeyError: 'missing'"
    assert "test_task_queue.py" in found[3].__notes__[-1]
    assert str(queue.error()) == "damaged"


def test_nothing_that_is_read_can_run(tmp_path):
    (tmp_path / "ended-0.json").write_text(json.dumps({"error": "eval", "message": "1", "errno": None, "notes": []}))
    with pytest.raises(KeyError, match="eval"):
        TaskQueue(tmp_path, 1).ended()


def test_a_queue_that_is_gone_is_over(tmp_path):
    queue = TaskQueue(tmp_path / "gone", 3)
    assert queue.claim() is None and queue.ended() == [] and not queue.has_news()


ALIVE = """
import sys, time
from motorsweep.hpc.task_queue import LifeSign
sign = LifeSign(sys.argv[1], 1, 2)
while True:
    sign.give()
    print("alive", flush=True)
    time.sleep(0.1)
"""


def test_a_killed_process_of_this_machine_is_dead_at_once_and_a_stopped_one_is_not(tmp_path):
    own = LifeSign(tmp_path, 0, 2)
    own.give()
    assert own.lost([0, 1]) == []  # the other may still begin
    other = subprocess.Popen([sys.executable, "-c", ALIVE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        other.stdout.readline()
        assert own.lost([0, 1]) == []
        other.send_signal(signal.SIGSTOP)
        assert own.lost([0, 1], now=time.monotonic() + 2 * LOST_SECONDS) == []
    finally:
        other.kill()
    deadline = time.monotonic() + 10
    while not own.lost([1]):
        assert time.monotonic() < deadline
    other.wait()
    assert own.lost([0, 1]) == [1]


def test_a_process_of_another_machine_is_dead_when_its_signs_stay_away(tmp_path):
    own, far = LifeSign(tmp_path, 0, 2), LifeSign(tmp_path, 1, 2)
    far._own["machine"] = "another"
    far.give()
    assert own.lost([1], now=0.0) == []
    assert own.lost([1], now=LOST_SECONDS) == []
    far.give()
    assert own.lost([1], now=LOST_SECONDS + 1) == []  # a new sign: the clock starts anew
    assert own.lost([1], now=2 * LOST_SECONDS) == []
    assert own.lost([1], now=2 * LOST_SECONDS + 2) == [1]
    assert own.lost([0], now=0.0) == [] and own.lost([0], now=LOST_SECONDS + 1) == [0]  # never seen
