"""The study's page: what it counts, whom it answers, and what a real browser shows of a study that runs."""

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import psutil
import pytest
from motorsweep.errors import InputError
from motorsweep.hpc import event_tail, job_table, slurm_jobs, study_tally
from motorsweep.hpc.best_scores import best_scores
from motorsweep.hpc.dashboard import StudyServer, live_page
from motorsweep.hpc.dask_address import find_dashboard, ssh_line
from motorsweep.hpc.event_tail import EventTail
from motorsweep.hpc.events import EventLog, StageEvent, TaskEvent
from motorsweep.hpc.pace import curve_of, pace_of
from motorsweep.hpc.slurm_states import JobState
from motorsweep.hpc.study_page import StudyPage, study_snapshot
from motorsweep.hpc.study_tally import PoseTally, RunTally
from motorsweep.jobs.dashboard import dask_lines
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.results import open_results
from motorsweep.zarr_store.runs import list_records, write_failure, write_run
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.shards import read_status, reset_volumes
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import create_volumes, write_shard

from .conftest import TINY, changed

NOW = 1_800_000_000.0


def iso(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def stage_event(state, at, verb="simulate", **more):
    return StageEvent(verb=verb, state=state, total=16, unit="poses", executor="local", time=iso(at), **more)


def task_event(at, verb="simulate", size=4, failed=0, **more):
    status = "failed" if failed else "done"
    return TaskEvent(verb=verb, task="poses 0:4", status=status, size=size, failed=failed, time=iso(at), **more)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "study")


@pytest.fixture
def log(study):
    return EventLog(study.events)


def make_volumes(study, poses=16, shard=4):
    matrices = np.tile(np.eye(4), (poses, 1, 1))
    matrices[:, 0, 3] = np.arange(poses) * 1e-3
    create_volumes(
        study,
        grid=VolumeGrid((0, 0, 0), spacing_m=1e-3, n=2),
        poses=matrices,
        shard=shard,
        attrs={"head_id": "a"},
        tissue=np.full((2,) * 3, 2, np.uint8),
        motor_mask=np.ones((2,) * 3, bool),
    )


def solve(study, start, failed=(), shard=4):
    states = [Status.FAILED if start + k in failed else Status.DONE for k in range(shard)]
    reasons = ["diverged: it did" if state is Status.FAILED else "" for state in states]
    write_shard(study, start, np.ones((shard, 2, 2, 2), np.float32), states, reason=reasons)


def train(study, name, *, kind="mapper", nrmse=None, reason="", **labels):
    """Write the record of a training; its id."""
    run_id = content_id({"name": name})
    scores = {} if nrmse is None else {"nrmse": nrmse}
    record = {"kind": kind, "spec": {"name": name}, "labels": labels, "scores": scores, "loss": []}
    if reason:
        write_failure(study, run_id, {**record, "reason": reason})
    else:
        write_run(study, run_id, record)
    return run_id


def expect(study, verb, names):
    wanted = json.loads(study.expected.read_text()) if study.expected.exists() else {}
    study.folder.mkdir(exist_ok=True, parents=True)
    study.expected.write_text(json.dumps(wanted | {verb: {content_id({"name": name}): name for name in names}}))


# ---- the event log ---------------------------------------------------------------------------------------------------


def test_only_the_present_stage_counts_and_the_time_of_all_is_kept(study, log):
    log.write(stage_event("started", NOW))
    log.write(task_event(NOW + 1))
    log.write(stage_event("finished", NOW + 20, done=4, seconds=20.0))
    log.write(stage_event("started", NOW + 30, verb="train"))
    log.write(task_event(NOW + 40, verb="train", size=1, failed=1, reason="diverged"))
    log.write(task_event(NOW + 41, verb="train", size=3, failed=1, left=1))
    tail = EventTail(study.events)
    tail.update()
    assert (tail.stage["verb"], tail.stage["state"], tail.stage["began"]) == ("train", "started", NOW + 30)
    assert list(tail.ends) == [(NOW + 40, 0, 1), (NOW + 41, 1, 1)]
    assert tail.spent == {"simulate": {"seconds": 20.0, "done": 4}} and tail.stages_begun == 2
    log.write(stage_event("stopped", NOW + 50, verb="train", reason="KeyboardInterrupt: ", seconds=20.0, done=1))
    tail.update()
    assert (tail.stage["state"], tail.stage["reason"], tail.last_time) == ("stopped", "KeyboardInterrupt: ", NOW + 50)


def test_half_a_line_waits_for_its_end(study, log):
    log.write(stage_event("started", NOW))
    log.write(task_event(NOW + 1))
    whole = study.events.read_bytes()
    tail = EventTail(study.events)
    for cut in (len(whole) - 30, len(whole) - 1, len(whole)):
        study.events.write_bytes(whole)  # the same file, so that the tail goes on
        os.truncate(study.events, cut)
        tail.update()
        assert len(tail.ends) == (cut == len(whole))
    with study.events.open("ab") as file:
        file.write(b'{"event": "task", "verb": "simu')  # of a writer that was killed
    EventLog(study.events).write(task_event(NOW + 2))
    tail.update()
    assert [when for when, *_ in tail.ends] == [NOW + 1, NOW + 2]


def test_lines_that_are_no_events_are_passed_over(study, log):
    log.write(stage_event("started", NOW))
    with study.events.open("ab") as file:
        file.write(b'[1]\n"text"\n{}\n{"event": "task"}\n{"event": "other", "time": "%s"}\n\xff\n' % iso(NOW).encode())
    log.write(task_event(NOW + 1))
    tail = EventTail(study.events)
    tail.update()
    assert len(tail.ends) == 1 and len(tail.recent) == 2


def test_a_log_that_begins_anew_is_read_anew(study, log):
    log.write(stage_event("started", NOW))
    log.write(task_event(NOW + 1))
    tail = EventTail(study.events)
    tail.update()
    study.events.unlink()
    tail.update()
    assert tail.stage is None and tail.last_time is None
    EventLog(study.events).write(stage_event("started", NOW + 5, verb="encode"))
    tail.update()
    assert tail.stage["verb"] == "encode" and not tail.ends


def test_a_long_log_is_read_from_the_start_of_its_last_stage_or_later(study, log, monkeypatch):
    log.write(stage_event("started", NOW, verb="encode"))
    for k in range(100):
        log.write(task_event(NOW + k, verb="encode"))
    log.write(stage_event("finished", NOW + 100, verb="encode", seconds=100.0, done=400))
    log.write(stage_event("started", NOW + 200))
    for k in range(200):
        log.write(task_event(NOW + 200 + k))
    monkeypatch.setattr(event_tail, "_BLOCK", 1000)  # many blocks, and events across their borders
    tail = EventTail(study.events)
    tail.update()
    assert tail.stage["began"] == NOW + 200 and len(tail.ends) == 200
    assert tail.spent["encode"] == {"seconds": 100.0, "done": 400}
    monkeypatch.setattr(event_tail, "_MOST", 20_000)
    late = EventTail(study.events)
    late.update()
    assert late.stage["began"] == NOW + 200 and late.spent == tail.spent
    assert 40 < len(late.ends) < 100 and late.ends[-1] == tail.ends[-1]


# ---- pace ------------------------------------------------------------------------------------------------------------


def test_pace_is_that_of_the_last_while():
    ends = [(NOW + k, 2, 0) for k in range(1, 101)] + [(NOW + 100 + 0.5 * k, 2, 0) for k in range(1, 201)]
    assert pace_of(ends, NOW, NOW + 200) == {"done": 4.0, "ended": 4.0}
    assert pace_of(ends[:50], NOW, NOW + 50) == {"done": 2.0, "ended": 2.0}
    assert pace_of([], NOW, NOW + 50) == {"done": 0.0, "ended": 0.0}


def test_long_tasks_have_a_pace_between_their_ends():
    ends = [(NOW + 600.0 * k, 1, 0) for k in range(1, 11)]
    assert pace_of(ends, NOW, NOW + 6000)["done"] == pytest.approx(1 / 600, rel=0.02)


def test_failed_pieces_bring_the_end_nearer_but_are_no_volumes():
    assert pace_of([(NOW + 5, 0, 10), (NOW + 10, 10, 0)], NOW, NOW + 10) == {"done": 1.0, "ended": 2.0}


def test_curve_follows_the_pace():
    ends = [(NOW + k, 1, 0) for k in range(1, 300)] + [(NOW + 300 + k, 3, 0) for k in range(301)]
    curve = curve_of(ends, NOW, NOW + 600)
    assert len(curve) == 60 and curve[10:25] == [1.0] * 15 and curve[40:] == [3.0] * 20
    assert curve_of(ends[:1], NOW, NOW + 600) == []


# ---- poses and trainings ---------------------------------------------------------------------------------------------


def test_poses_are_counted_as_the_store_has_them(study, monkeypatch):
    monkeypatch.setattr(study_tally, "_YOUNG_SECONDS", 0.0)
    tally = PoseTally(study)
    tally.update()
    assert tally.counts == {"done": 0, "failed": 0, "pending": 0, "total": 0}
    make_volumes(study)
    tally.update()
    assert tally.counts == {"done": 0, "failed": 0, "pending": 16, "total": 16}
    solve(study, 4, failed=(6,))
    tally.update()
    assert tally.counts == {"done": 3, "failed": 1, "pending": 12, "total": 16}
    assert tally.failures() == [{"what": "pose 6", "reason": "diverged: it did"}]
    solve(study, 12, failed=(12, 15))
    tally.update()
    assert [each["what"] for each in tally.failures()] == ["pose 12", "pose 15", "pose 6"]
    solve(study, 4)  # tried again
    tally.update()
    assert tally.counts == {"done": 6, "failed": 2, "pending": 8, "total": 16}
    assert [each["what"] for each in tally.failures()] == ["pose 12", "pose 15"]
    reset_volumes(study, range(4, 8))
    tally.update()
    assert tally.counts == {"done": 2, "failed": 2, "pending": 12, "total": 16}
    assert np.array_equal(tally._status, read_status(study))


def test_a_look_reads_only_the_shards_that_have_changed(study, monkeypatch):
    monkeypatch.setattr(study_tally, "_YOUNG_SECONDS", 0.0)
    make_volumes(study, poses=400)
    for start in range(0, 200, 4):
        solve(study, start)
    tally, read = PoseTally(study), []
    real = PoseTally._read_chunks
    monkeypatch.setattr(PoseTally, "_read_chunks", lambda self, *which: (read.append(which), real(self, *which)))
    tally.update()
    assert read == [(0, 50)] and tally.counts["done"] == 200
    del read[:]
    tally.update()
    assert read == []
    solve(study, 300)
    tally.update()
    assert read == [(75, 76)] and tally.counts["done"] == 204


def test_many_changed_shards_are_read_together(study, monkeypatch):
    monkeypatch.setattr(study_tally, "_READ_AT_ONCE", 2)
    make_volumes(study)
    for start in range(0, 16, 4):
        solve(study, start, failed=(9, 10))
    monkeypatch.setattr(PoseTally, "_read_chunks", lambda self, *which: pytest.fail("read range by range"))
    tally = PoseTally(study)
    tally.update()
    assert tally.counts == {"done": 14, "failed": 2, "pending": 0, "total": 16}
    assert [each["what"] for each in tally.failures()] == ["pose 9", "pose 10"]


def test_a_torn_file_of_states_counts_as_not_done(study):
    make_volumes(study)
    solve(study, 0)
    (study.volumes / "status/c/0").write_bytes(b"torn")
    tally = PoseTally(study)
    tally.update()
    assert tally.counts == {"done": 0, "failed": 0, "pending": 16, "total": 16}


def test_trainings_are_counted_by_kind_and_state(study):
    expect(study, "encode", ["autoencoder, e_norm, repeat 0"])
    names = [f"mapper, e_norm, repeat 0, fold {k}, 3 layers, direct, dropout 0.1" for k in range(3)]
    expect(
        study, "train", [*names, "mapper, e_norm, repeat 0, 20 trials, 3 layers, both", "baseline, e_norm, repeat 0"]
    )
    train(study, "autoencoder, e_norm, repeat 0", kind="autoencoder")
    train(study, names[0])
    train(study, names[1], reason="diverged: it did")
    train(study, "of an older study file")
    began = time.time() - 1
    study.run(content_id({"name": names[2]})).mkdir()
    tally = RunTally(study)
    tally.update()
    counts = ("done", "failed", "running", "pending", "total")
    found = {each["kind"]: tuple(each[key] for key in counts) for each in tally.kinds(began)}
    assert found == {
        "autoencoder": (1, 0, 0, 0, 1),
        "baseline": (0, 0, 0, 1, 1),
        "mapper in cross-validation": (1, 1, 1, 0, 3),
        "mapper on the learning curve": (0, 0, 0, 1, 1),
    }
    assert {each["running"] for each in tally.kinds(time.time() + 60)} == {0}  # begun before this stage
    assert {each["running"] for each in tally.kinds()} == {0}  # nothing runs
    (failure,) = tally.failures()
    assert (failure["what"], failure["reason"]) == (names[1], "diverged: it did")


def test_records_are_read_once_and_again_when_they_change(study, monkeypatch):
    names = ["mapper, a", "mapper, b", "mapper, c"]
    expect(study, "train", names)
    train(study, names[0])
    failed = train(study, names[1], reason="crashed: it did")
    tally, read = RunTally(study), []
    real = json.loads
    monkeypatch.setattr(study_tally.json, "loads", lambda text: (read.append(text), real(text))[1])
    tally.update()
    assert len(read) == 3 and len(tally.records) == 2  # with the list of what is expected
    tally.update()
    assert len(read) == 3
    shutil.rmtree(study.run(failed))
    train(study, names[1])
    tally.update()
    assert len(read) == 4 and tally.kinds()[0]["done"] == 2
    study.record(failed).unlink()  # verify --repair
    tally.recheck()
    tally.update()
    assert len(read) == 4 and tally.kinds()[0]["pending"] == 2


def test_best_score_is_a_mean_over_as_many_as_any_model_has(study):
    def record(kind, scores, **labels):
        return {"kind": kind, "status": "done", "scores": scores, "labels": labels}

    folds = {"fold": 0, "dropout": 0.1, "l1": 0.0, "activation": "relu", "scaling": "minmax"}
    at = {"input": "e_norm", "depth": 3}
    records = {
        "a": record("mapper", {"nrmse": 0.30}, **at, connection="both", **folds),
        "b": record("mapper", {"nrmse": 0.40}, **at, connection="both", **(folds | {"fold": 1})),
        "c": record("mapper", {"nrmse": 0.10}, **at, connection="direct", **folds),  # of one fold only
        "d": record("mapper", {"nrmse": 0.01}, **at, connection="direct", trials=20),  # of the learning curve
        "e": record("baseline", {"ridge": 0.5, "gp_position": 0.2, "best_possible": 0.1, "pls": None}, input="e_norm"),
        "f": record("mapper", {"nrmse": 0.0}, **at, connection="direct"),  # of another study file
    }
    expected = {"train": dict.fromkeys("abcde", "")}
    gp = {"model": "GP on coil position", "input": "", "nrmse": 0.2, "of": "test", "count": 1, "network": False}
    both = {"model": "3-layer Both", "input": "raw |E|", "nrmse": 0.35, "of": "validation", "count": 2, "network": True}
    assert best_scores(records, expected) == [gp, {**both, "nrmse": pytest.approx(0.35)}]
    records["g"] = record("mapper", {"nrmse": 0.6}, input="firing_rate", depth=6, connection="synergy", fold=None)
    expected["train"]["g"] = ""
    tested = {"model": "6-layer Synergy", "input": "firing rate", "nrmse": 0.6, "of": "test", "count": 1}
    assert best_scores(records, expected) == [gp, {**tested, "network": True}]
    assert best_scores({}, {}) == []


# ---- the snapshot ----------------------------------------------------------------------------------------------------


def own(study, pid, host=None):
    study.folder.mkdir(parents=True, exist_ok=True)
    study.owner.write_text(json.dumps({"pid": pid, "host": host or os.uname().nodename}))
    os.utime(study.owner, (NOW - 1, NOW - 1))


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_study_that_has_not_begun_says_so(study):
    shown = study_snapshot(study, NOW)
    assert shown["state"] == "not begun" and "motorsweep run STUDY.toml" in shown["sentence"]
    assert (shown["stage"], shown["last_event"], shown["poses"]["total"]) == (None, None, 0)
    assert [step["state"] for step in shown["stages"]] == ["left"] * 5
    assert not study.folder.exists()


def test_a_running_stage_has_a_pace_and_the_time_left(study, log):
    make_volumes(study)
    study.config.write_text('name = "my study"')
    own(study, os.getpid())
    log.write(stage_event("started", NOW))
    for k in range(2):
        solve(study, 4 * k, failed=(5,))
        log.write(task_event(NOW + 5 * (k + 1), failed=k, seconds=4.5, host="c01"))
    shown = StudyPage(study).snapshot(NOW + 10)
    stage = shown["stage"]
    assert (shown["name"], shown["state"], shown["failed"]) == ("my study", "running", 1)
    assert shown["sentence"] == f"local (process {os.getpid()} on {os.uname().nodename})"
    assert shown["poses"] == {"done": 7, "failed": 1, "pending": 8, "total": 16}
    assert (stage["done"], stage["failed"], stage["total"], stage["seconds"]) == (7, 1, 16, 10.0)
    assert stage["per_second"] == 0.7 and stage["left_seconds"] == pytest.approx(8 / 0.8)
    assert shown["stages"][0] == {
        "verb": "simulate",
        "state": "running",
        "failed": 1,
        "seconds": None,
        "per_second": None,
    }
    assert shown["events"][0] == {"time": NOW + 10, "text": "simulate: poses 0:4 failed in 4.5 s on c01"}
    assert shown["failures"] == [{"what": "pose 5", "reason": "diverged: it did"}]
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_a_killed_coordinator_is_not_taken_for_one_at_work(study, log):
    make_volumes(study)
    log.write(stage_event("started", NOW))
    log.write(task_event(NOW + 5))
    own(study, dead_pid())
    page = StudyPage(study)
    shown = page.snapshot(NOW + 1000)
    assert (shown["state"], shown["stage"]["state"], shown["stage"]["left_seconds"]) == ("stopped", "stopped", None)
    assert shown["stage"]["seconds"] == 5.0 and "goes on from here" in shown["sentence"]
    own(study, dead_pid(), host="c07")  # of another machine only its own word is known
    assert page.snapshot(NOW + 1000)["state"] == "running"
    own(study, os.getpid())
    os.utime(study.owner, (NOW + 900, NOW + 900))  # the same command again, which has not begun a stage yet
    shown = page.snapshot(NOW + 1000)
    assert (shown["state"], shown["stage"]["state"]) == ("running", "stopped")
    assert shown["sentence"].startswith("Between two stages")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "host": "a"}', '{"pid": -1, "host": "%s"}'])
def test_a_damaged_lock_file_is_nobodys(study, text):
    own(study, 1)
    study.owner.write_text(text.replace("%s", os.uname().nodename))
    assert study_snapshot(study, NOW)["state"] == "not begun"


def test_a_stage_that_was_stopped_tells_why(study, log):
    make_volumes(study)
    log.write(stage_event("started", NOW))
    log.write(stage_event("stopped", NOW + 9, reason="KeyboardInterrupt: ", seconds=9.0))
    shown = study_snapshot(study, NOW + 60)
    assert shown["state"] == "stopped" and "KeyboardInterrupt" in shown["sentence"]
    log.write(stage_event("started", NOW + 70))
    log.write(stage_event("finished", NOW + 80, seconds=10.0, done=16))
    shown = study_snapshot(study, NOW + 90)
    assert shown["state"] == "idle" and shown["stages"][0]["seconds"] == 19.0


def test_jobs_have_the_states_that_slurm_tells(study, monkeypatch):
    asked = []

    def states(ids):
        asked.append(list(ids))
        return {"7": JobState(id="7", state="queued", reason="Resources", nodes="", elapsed="0:00")}

    slurm_jobs.note_job(study, job="7", verb="simulate", role="driver", name="s")
    slurm_jobs.note_job(study, job="8", verb="train", role="driver", name="t")
    monkeypatch.setattr(slurm_jobs, "job_states", states)
    page = StudyPage(study)
    assert [job["job"] for job in page.snapshot(NOW)["jobs"]] == ["8", "7"]
    page._jobs._thread.join(10)
    shown = page.snapshot(NOW)
    assert [(job["job"], job["state"], job["reason"]) for job in shown["jobs"]] == [
        ("8", "", ""),
        ("7", "queued", "Resources"),
    ]
    assert shown["sentence"] == "Job 7 (simulate) is queued."
    assert asked == [["7", "8"]]
    monkeypatch.setattr(job_table, "JOBS_SECONDS", 0.0)
    page.snapshot(NOW)
    page._jobs._thread.join(10)
    assert len(asked) == 2


# ---- where Dask's dashboard is ---------------------------------------------------------------------------------------


def note(study, **changes):
    found = {"address": "http://10.1.2.3:8787", "host": "c07", "pid": 17, "time": iso(NOW)}
    study.dashboard.parent.mkdir(parents=True, exist_ok=True)
    study.dashboard.write_text(json.dumps(found | changes))


def test_dashboard_of_a_node_is_told_with_a_tunnel(study):
    note(study)
    first, second = dask_lines(study)
    assert first.startswith("dask       http://10.1.2.3:8787/status  (on c07, process 17")
    assert "ssh -N -L 8787:10.1.2.3:8787 " in second and "@" in second
    note(study, address="http://127.0.0.1:8787")
    assert dask_lines(study)[1].endswith("@c07") and " -J " in dask_lines(study)[1]
    assert ssh_line("::1", 80).startswith("ssh -N -L 80:[::1]:80 ")


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "http://10.1.2.3:8787; rm -rf ~"},
        {"address": "http://-oProxyCommand=x:22"},
        {"address": "javascript:alert(1)"},
        {"host": "c07 `id`"},
        {"host": "-oProxyCommand=x"},
        {"pid": "x"},
        {"more": 1},
    ],
)
def test_an_address_that_is_none_is_not_taken_into_a_command_line(study, changes):
    note(study, **changes)
    assert find_dashboard(study) is None
    assert dask_lines(study) == ["dask       no Dask dashboard now: the study runs no stage on Dask workers"]


def test_an_address_that_a_killed_process_left_is_not_told(study):
    note(study, host=os.uname().nodename, pid=dead_pid())
    assert find_dashboard(study) is None
    note(study, host=os.uname().nodename, pid=os.getpid())
    assert find_dashboard(study).is_here


# ---- the server ------------------------------------------------------------------------------------------------------


@contextmanager
def served(study):
    """A server of the study's page in a thread; its port."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found = {}

    async def serve():
        server = StudyServer(study)
        found["port"] = server.port
        ready.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield found["port"]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def ask(port, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def test_server_answers_what_it_should_and_nothing_else(study, log):
    make_volumes(study)
    solve(study, 0)
    with served(study) as port:
        for path in ("/", "/study"):
            status, headers, text = ask(port, path)
            assert status == 200 and text.startswith("<!doctype html>") and "http-equiv" not in text
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
        status, headers, text = ask(port, "/study.json")
        assert status == 200 and headers["Content-Type"].startswith("application/json")
        assert json.loads(text)["poses"]["done"] == 4 and headers["Cache-Control"] == "no-store"
        for path in ("/study.toml", "/../../etc/passwd", "/study/..%2f..%2fetc/passwd", "/studyxjson", "/events.jsonl"):
            assert ask(port, path)[0] == 404, path
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert ask(port, "/study.json", method=method)[0] == 405, method
        listening = {
            each.laddr.ip
            for each in psutil.Process().net_connections()
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port
        }
        assert listening == {"127.0.0.1"}


def test_server_answers_to_its_own_names_only(study):
    with served(study) as port:
        for host in ("localhost", f"localhost:{port}", "127.0.0.1:9", "LOCALHOST", f"[::1]:{port}"):
            assert ask(port, "/study.json", host=host)[0] == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example"):
            status, _, text = ask(port, "/study.json", host=host)
            assert status == 403 and "poses" not in text, host


def test_browsers_share_a_look(study, monkeypatch):
    looks = []
    monkeypatch.setattr(StudyPage, "snapshot", lambda self, now: looks.append(now) or {"state": "x"})
    live_page.cache_clear()
    with served(study) as port:
        assert {ask(port, "/study.json")[2] for _ in range(5)} == {'{"state": "x"}'}
    assert len(looks) == 1


def test_a_port_that_is_taken_is_told(study):
    with served(study) as port, pytest.raises(InputError, match=f"port {port} .*another --port"):
        StudyServer(study, port)
    with pytest.raises(InputError, match="no such port"):
        StudyServer(study, 70000)


# ---- the command, and a real browser ---------------------------------------------------------------------------------


def start(command, *words, folder):
    line = [sys.executable, "-m", "motorsweep.jobs.cli", *map(str, words)]
    return subprocess.Popen(
        line, cwd=folder, env=command.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process):
    if process.poll() is None:
        process.terminate()
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_command_serves_a_study_that_has_not_begun_and_ends_with_ctrl_c(command, tmp_path):
    import signal

    (tmp_path / "study.toml").write_text(TINY)
    process = start(command, "dashboard", "study.toml", "--no-open", folder=tmp_path)
    try:
        address = process.stdout.readline().split()[1]
        assert address.startswith("http://127.0.0.1:") and address.endswith("/study")
        port = int(address.rsplit(":")[-1].removesuffix("/study"))
        assert "no Dask dashboard now" in process.stdout.readline()
        assert json.loads(ask(port, "/study.json")[2])["state"] == "not begun"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "\n")
    finally:
        end(process)
    assert not (tmp_path / "studies").exists()
    told = command("dashboard", "study.toml", "--print", folder=tmp_path).stdout
    assert told == "dask       no Dask dashboard now: the study runs no stage on Dask workers\n"
    assert "no such port" in command("dashboard", "study.toml", "--port", "70000", folder=tmp_path, code=2).stderr


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="a real browser is driven by selenium")
    programs = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not all(programs):
        pytest.skip("there is no chromium with chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1100,1200",
    ):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path / 'browser'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService(programs[1]), options=options)
    yield driver
    driver.quit()


_TEXTS = """
const text = (id) => document.getElementById(id).textContent;
const told = (each) => each.dataset.kind + ' ' + each.querySelector('.title').lastChild.textContent;
const kinds = [...document.querySelectorAll('.kind')].map(told);
return {name: text('name'), state: text('state'), kinds: kinds, pace: text('pace'), best: text('best'),
  steps: text('steps'), mark: window.mark || '', lost: !document.getElementById('lost').hidden, title: document.title,
  curve: document.querySelectorAll('#curve path').length, left: text('now-left'), sentence: text('sentence')};
"""


def wait_for(look, seconds, every=0.2):
    """Look again and again until it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)
    return found


@pytest.mark.slow
def test_browser_shows_a_study_while_it_runs(browser, command, tmp_path):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    text = changed(TINY, poses__random=21, mappers__epochs=20)
    (tmp_path / "study.toml").write_text(text)
    study = Study(tmp_path / "studies/tiny")
    page = start(command, "dashboard", "study.toml", "--no-open", folder=tmp_path)
    run = None
    try:
        address = page.stdout.readline().split()[1]
        browser.get(address)
        wait_for(lambda: browser.execute_script(_TEXTS)["state"] == "not begun", 20)
        browser.execute_script("window.mark = 'the same page'")
        run = start(command, "run", "study.toml", "--executor", "local", "--workers", "2", folder=tmp_path)
        seen = []
        own_tab, beside = browser.current_window_handle, None
        while run.poll() is None:
            seen.append(browser.execute_script(_TEXTS))
            if beside is None and study.dashboard.exists() and seen[-1]["kinds"][0] == "pose 30 of 30":
                beside = see_beside_dask(browser, json.loads(study.dashboard.read_text())["address"])
                browser.switch_to.window(own_tab)
            time.sleep(0.3)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
        last = wait_for(lambda: (t := browser.execute_script(_TEXTS))["state"] == "finished" and t, 30)
        check_live(seen, last)
        check_against_the_stores(study, last, address)
        assert "dashboard  http://127.0.0.1:" in err and "/study" in err
        assert beside is not None, "no stage that trains was met while it ran"
        assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
        assert not study.dashboard.exists()
        end(page)
        wait_for(lambda: browser.execute_script(_TEXTS)["lost"], 20)
        assert "last heard" in browser.find_element("id", "heard").text
    finally:
        end(page)
        if run is not None:
            end(run)


def see_beside_dask(browser, address):
    """The same page under Dask's dashboard, in a tab of its own."""
    browser.switch_to.new_window("tab")
    try:
        browser.get(f"{address}/study")
        shown = wait_for(lambda: (t := browser.execute_script(_TEXTS))["name"] == "tiny" and t, 20)
        assert shown["state"] == "running" and shown["kinds"][0] == "pose 30 of 30"
        link = browser.find_element("id", "dask-link")
        assert link.is_displayed() and link.get_attribute("href") == f"{address}/status"
        return shown
    finally:
        browser.close()


def check_live(seen, last):
    """The page changed by itself, without being loaded anew."""
    assert {each["mark"] for each in [*seen, last]} == {"the same page"}
    states = [each["state"] for each in seen]
    assert states[0] == "not begun" and "running" in states
    poses = list(dict.fromkeys(each["kinds"][0] for each in seen))
    assert poses[0] == "pose not counted yet" and poses[-1] == "pose 30 of 30", poses
    counts = {kind for each in seen for kind in each["kinds"]}
    assert len(counts) > 8, counts  # of four kinds
    assert any(each["curve"] == 2 and each["pace"] not in ("", "–") for each in seen)
    assert any(each["state"] == "running" and "%" in each["title"] for each in seen)


def check_against_the_stores(study, last, address):
    """What the page shows at the end is what the stores hold."""
    records = [record for _, record in list_records(study)]
    count = {kind: sum(record["kind"] == kind for record in records) for kind in ("autoencoder", "baseline", "mapper")}
    assert last["kinds"] == ["pose 30 of 30", *(f"{kind} {n} of {n}" for kind, n in count.items())]
    assert count["mapper"] == open_results(study)["nrmse"].size
    shown = json.loads(ask(int(address.rsplit(":")[-1].removesuffix("/study")), "/study.json")[2])
    network = next(each for each in shown["best"] if each["network"])
    assert network["nrmse"] == pytest.approx(float(open_results(study)["nrmse"].mean("repeat").min()))
    assert f"{network['nrmse']:.3f} NRMSE" in last["best"] and network["model"] in last["best"]
    assert shown["poses"] == {"done": 30, "failed": 0, "pending": 0, "total": 30} and shown["failed"] == 0
    assert [step["state"] for step in shown["stages"]] == ["done"] * 5


def test_text_of_a_study_cannot_become_markup(browser, study, log):
    nasty = "<img src=x onerror=\"document.title='had'\"><b>bold</b>"
    make_volumes(study)
    study.config.write_text(f"name = '''{nasty}'''")
    solve(study, 0, failed=(1,))
    write_shard(study, 4, np.ones((4, 2, 2, 2), np.float32), [Status.FAILED] * 4, reason=[nasty] * 4)
    log.write(stage_event("started", NOW))
    log.write(task_event(NOW + 1, reason=nasty, failed=4, host=nasty))
    with served(study) as port:
        browser.get(f"http://127.0.0.1:{port}/study")
        wait_for(lambda: browser.find_elements("css selector", "#failures li"), 20)
        assert browser.find_element("id", "name").text == nasty
        assert nasty in browser.find_element("id", "failures").text
        assert nasty in browser.find_element("id", "events").text
        assert browser.find_elements("css selector", "img, #failures b b, #name b") == []
        assert browser.title.startswith("<img") and browser.title != "had"
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
