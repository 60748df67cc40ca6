import io
import json
import multiprocessing
import re
import time

import pytest
from motorsweep.hpc.events import EventLog, StageEvent, TaskEvent, format_clock, read_events
from motorsweep.hpc.progress import Progress


def _task(name="poses 0:16", **more):
    return TaskEvent(verb="simulate", task=name, status="done", size=16, seconds=1.5, **more)


def test_log_keeps_every_field_in_order(tmp_path):
    log = EventLog(tmp_path / "logs" / "events.jsonl")
    log.write(StageEvent(verb="simulate", state="started", total=32, unit="poses"))
    log.write(_task(reason="", host="n1", pid=7, job="88", peak_memory_bytes=2**30))
    stage, task = read_events(log.path)
    assert (stage["event"], stage["state"], stage["total"], stage["unit"]) == ("stage", "started", 32, "poses")
    assert task["event"] == "task"
    assert {k: task[k] for k in ("task", "size", "seconds", "host", "pid", "job", "peak_memory_bytes")} == {
        "task": "poses 0:16",
        "size": 16,
        "seconds": 1.5,
        "host": "n1",
        "pid": 7,
        "job": "88",
        "peak_memory_bytes": 2**30,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", task["time"])


def test_missing_log_has_no_events(tmp_path):
    assert list(read_events(tmp_path / "none.jsonl")) == []


def test_half_written_line_spoils_no_other(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path).write(_task("first"))
    with open(path, "a") as file:
        file.write('{"event": "task", "task": "tor')
    EventLog(path).write(_task("second"))
    assert [event["task"] for event in read_events(path)] == ["first", "second"]


def _write_many(path, who):
    log = EventLog(path)
    for number in range(200):
        log.write(_task(f"{who}-{number}", message="x" * 300))


def test_processes_share_the_log(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(path, who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 600
    assert len({json.loads(line)["task"] for line in lines}) == 600


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (112, "1:52"), (3600, "1:00:00")])
def test_clock(seconds, text):
    assert format_clock(seconds) == text


def _shown(events, wait=0.0, **options):
    stream = io.StringIO()
    started = StageEvent(
        verb="simulate", state="started", total=32, unit="poses", executor="local: 2 workers x 1 thread"
    )
    with Progress(stream=stream, **options).stage(started) as progress:
        for event in events:
            progress.update(event)
        time.sleep(wait)
    return stream.getvalue()


def test_lines_without_a_terminal():
    lines = _shown([_task(), _task(failed=3)]).splitlines()
    assert len(lines) == 1  # less than a minute: only the last line
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d simulate 32/32 poses  100\.0%  3 failed  local: 2 workers x 1 thread  took 0:00", lines[0]
    )


def test_a_line_each_interval_even_if_no_task_ends():
    lines = _shown([_task()], wait=0.35, interval=0.1).splitlines()
    assert len(lines) >= 3
    assert all("16/32 poses   50.0%" in line and "eta 0:00" in line for line in lines)
    assert "eta unknown" in _shown([])


def test_bar_on_a_terminal():
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", _shown([_task(), _task(failed=3)], terminal=True))
    assert "simulate" in text and "32/32" in text and "poses (3 failed)" in text


def test_quiet_shows_nothing():
    assert _shown([_task()], quiet=True) == _shown([_task()], quiet=True, terminal=True) == ""


def test_bar_leaves_stdout_alone(capsys):
    with Progress(stream=io.StringIO(), terminal=True).stage(StageEvent(verb="train", state="started", total=1)):
        print('{"answer": 1}')
    assert capsys.readouterr().out == '{"answer": 1}\n'
