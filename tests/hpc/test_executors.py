import errno
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass

import cloudpickle
import numpy as np
import psutil
import pytest
from distributed.system import MEMORY_LIMIT
from motorsweep.errors import ConfigError, ConvergenceError, InputError, MissingPackageError, StoreError
from motorsweep.hpc import local_cluster
from motorsweep.hpc.executors import GIB, ExecutorConfig, automatic_workers, limited_threads, open_executor
from motorsweep.hpc.local_cluster import IN_FLIGHT_PER_WORKER
from motorsweep.hpc.outcomes import DiskFullError, attempt, classify, task_name, task_size

# Workers cannot import a test file by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True, kw_only=True)
class Square:
    id: str
    x: int
    size: int = 1


def _squares(n):
    return [Square(id=f"square-{x}", x=x) for x in range(n)]


def _solve(task):
    time.sleep(0.02 * (task.x % 3))  # so that they end in another order
    noise = np.random.default_rng(task.x).standard_normal((64, 64))
    return float((noise @ noise).sum())


def _fail_by_number(task):
    if task.x == 1:
        raise ConvergenceError("residual 0.03 after 500 iterations")
    if task.x == 2:
        raise InputError("pose 2: not rigid")
    if task.x == 3:
        raise MemoryError
    if task.x == 4:
        raise ValueError("odd shape")
    return task.x


def _die_on_three(task):
    if task.x == 3:
        os._exit(7)
    time.sleep(0.03)
    return os.getpid()


def _take_memory(task):
    if task.x == 1:
        full = np.ones(GIB // 8)
        time.sleep(20)
        return full[0]
    return task.x


def _bug(task):
    return task.x.no_such_name


def _disk_full(task):
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RuntimeError("cannot write the chunk") from error


def _facts(task):
    return {
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")},
        "interrupt": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "listening": [c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN],
        "pid": os.getpid(),
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    with open_executor(
        ExecutorConfig(workers=2), scratch=folder / "scratch", log=folder / "logs" / "workers.log"
    ) as executor:
        yield executor


@pytest.fixture(params=["serial", "local"])
def executor(request):
    if request.param == "local":
        yield request.getfixturevalue("local")
    else:
        with open_executor(ExecutorConfig(kind="serial")) as serial:
            yield serial


# ---- the contract that both keep ------------------------------------------------------------------------------------


def test_local_gives_the_bits_of_serial_in_any_order(local):
    tasks = _squares(12)
    with open_executor(ExecutorConfig(kind="serial")) as serial:
        expected = {task: outcome.value for task, outcome in serial.run(_solve, tasks)}
    for order in (tasks, tasks[::-1]):
        assert {task: outcome.value for task, outcome in local.run(_solve, order)} == expected


def test_failures_are_outcomes_and_the_others_go_on(executor):
    outcomes = {task.x: outcome for task, outcome in executor.run(_fail_by_number, _squares(6))}
    assert {x: outcome.reason for x, outcome in outcomes.items()} == {
        0: "",
        1: "diverged",
        2: "bad_input",
        3: "out_of_memory",
        4: "crashed",
        5: "",
    }
    assert outcomes[5].ok and outcomes[5].value == 5 and outcomes[5].peak_memory_bytes > 10 * 2**20
    assert outcomes[1].message == "residual 0.03 after 500 iterations"
    assert outcomes[4].message == "ValueError: odd shape"
    assert "_fail_by_number" in outcomes[4].traceback


def test_bugs_stop_at_once_and_name_the_task(executor):
    taken = []
    with pytest.raises(AttributeError, match="no_such_name") as caught:
        for _ in executor.run(_bug, (taken.append(task) or task for task in _squares(50))):
            pass
    assert caught.value.__notes__[0].startswith("in task square-")
    assert len(taken) <= IN_FLIGHT_PER_WORKER * executor.workers
    assert next(executor.run(_solve, _squares(1)))[1].ok  # and the executor is still of use


def test_disk_full_stops_at_once_with_advice(executor):
    with pytest.raises(DiskFullError, match=r"square-\d: no space is left.*Make room.*same command again"):
        list(executor.run(_disk_full, _squares(5)))


def test_tasks_are_taken_only_as_there_is_room(executor):
    taken, ended, ahead = 0, 0, []

    def tasks():
        nonlocal taken
        for task in _squares(40):
            taken += 1
            ahead.append(taken - ended)
            yield task

    for _ in executor.run(_solve, tasks()):
        ended += 1
    assert ended == 40
    assert max(ahead) <= IN_FLIGHT_PER_WORKER * executor.workers


def test_no_tasks(executor):
    assert list(executor.run(_solve, [])) == []


# ---- local workers --------------------------------------------------------------------------------------------------


def test_dead_worker_is_blamed_on_its_own_task(local):
    outcomes = {task.x: outcome for task, outcome in local.run(_die_on_three, _squares(10))}
    assert [x for x, outcome in outcomes.items() if not outcome.ok] == [3]
    assert outcomes[3].reason == "crashed"
    assert "square-3: the worker died 2 times while it ran this task" in outcomes[3].message
    assert "exited with status 7" in outcomes[3].message and str(local.log) in outcomes[3].message


def test_worker_that_takes_too_much_memory_is_told_apart(monkeypatch):
    settings = local_cluster._dask_settings

    def with_half_a_gib(threads, log):
        return settings(threads, log) | {"distributed.worker.memory.terminate": GIB / 2 / MEMORY_LIMIT}

    monkeypatch.setattr(local_cluster, "_dask_settings", with_half_a_gib)
    with open_executor(ExecutorConfig(workers=1), announce=False) as executor:
        outcomes = {task.x: outcome for task, outcome in executor.run(_take_memory, _squares(3))}
    assert {x: outcome.reason for x, outcome in outcomes.items()} == {0: "", 1: "out_of_memory", 2: ""}
    assert "square-1: " in outcomes[1].message and "it went over the memory of a worker" in outcomes[1].message


def test_workers_listen_on_loopback_only_with_their_threads(local):
    facts = [outcome.value for _, outcome in local.run(_facts, _squares(8))]
    assert all(each["threads"] == {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} for each in facts)
    assert all(each["interrupt"] for each in facts)
    here = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    listening = set(here).union(*(each["listening"] for each in facts))
    assert listening == {"127.0.0.1"}


def test_dashboard_answers(local):
    assert local.describe() == "local: 2 workers x 1 thread"
    assert local.dashboard.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(local.dashboard, timeout=20) as answer:
        assert answer.status == 200


def test_workers_end_with_the_block_and_leave_nothing(tmp_path, capfd):
    environment = dict(os.environ)
    with open_executor(ExecutorConfig(workers=1, dashboard=False), scratch=tmp_path / "cache") as executor:
        pids = {outcome.value["pid"] for _, outcome in executor.run(_facts, _squares(2))}
        assert executor.dashboard is None
        assert {c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN} == {
            "127.0.0.1"
        }
        assert list((tmp_path / "cache").iterdir())
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert list((tmp_path / "cache").iterdir()) == []
    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")


_PROGRAM = """
import os, sys, time
from motorsweep.hpc.executors import ExecutorConfig, open_executor

def work(task):
    open(os.path.join(sys.argv[1] if len(sys.argv) > 1 else task[1], f"pid-{os.getpid()}"), "w").close()
    time.sleep(task[0])

if __name__ == "__main__":
    folder = sys.argv[1]
    try:
        with open_executor(ExecutorConfig(workers=2), scratch=folder + "/scratch") as executor:
            for _ in executor.run(work, [(60, folder)] * 8):
                pass
    except KeyboardInterrupt:
        print("clean", flush=True)
        raise SystemExit(130)
"""


def _start(tmp_path):
    (tmp_path / "program.py").write_text(_PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "program.py", str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(found := list(tmp_path.glob("pid-*"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process, [int(each.name.removeprefix("pid-")) for each in found]


def _gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("whom", ["process", "group"])
def test_interrupt_closes_cleanly_and_soon(tmp_path, whom):
    process, workers = _start(tmp_path)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert set(workers) <= set(children)
    start = time.monotonic()
    (os.kill if whom == "process" else os.killpg)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 10
    assert (process.returncode, out) == (130, "clean\n")
    assert err.count("\n") == 1 and err.startswith("dashboard  http://127.0.0.1:"), err
    assert _gone(children, 5)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_workers_end_when_the_coordinator_is_killed(tmp_path):
    process, workers = _start(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert _gone(workers, 15)


# ---- pieces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConvergenceError("x"), "diverged"),
        (InputError("x"), "bad_input"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (type("Error", (RuntimeError,), {"ierr": 55})(), "out_of_memory"),
        (OSError(errno.ENOSPC, "full"), "disk_full"),
        (OSError(errno.EDQUOT, "quota"), "disk_full"),
        (OSError(errno.EIO, "io"), "crashed"),
        (FloatingPointError("overflow"), "crashed"),
        *[(kind("x"), "") for kind in (TypeError, KeyError, NameError, AssertionError, ImportError, IndexError)],
        *[(kind("x"), "") for kind in (StoreError, ConfigError, MissingPackageError)],
    ],
)
def test_classify(error, reason):
    assert classify(error) == reason


def test_attempt_lets_interrupts_through():
    def stop(task):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(stop, 1)


def test_names_and_sizes_of_tasks():
    assert task_name(Square(id="square-1", x=1)) == "square-1"
    assert task_name(3) == "3"
    assert (task_size(Square(id="a", x=1, size=16)), task_size(3)) == (16, 1)


@pytest.mark.parametrize(
    ("cores", "memory_gb", "threads", "need_gb", "workers"),
    [(16, 64, 1, 2, 16), (16, 32, 2, 6, 5), (2, 1, 1, 4, 1), (1, 64, 4, 1, 1), (4, 8, 1, 0, 4)],
)
def test_automatic_workers(cores, memory_gb, threads, need_gb, workers):
    found = automatic_workers(cores=cores, memory_bytes=memory_gb * GIB, threads=threads, memory_per_worker_gb=need_gb)
    assert found == workers


def test_limited_threads_come_back():
    import numba
    import torch

    before = torch.get_num_threads(), numba.get_num_threads(), dict(os.environ)
    with limited_threads(1):
        assert torch.get_num_threads() == numba.get_num_threads() == 1
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert (torch.get_num_threads(), numba.get_num_threads(), dict(os.environ)) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cloud"}, "kind is 'cloud'; it must be one of serial, local, slurm, mpi"),
        ({"workers": -1}, "workers is -1"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_config_is_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExecutorConfig(**settings)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_peak_memory_is_that_of_the_process_and_not_of_the_one_that_started_it():
    ballast = np.ones(10**8)
    line = "from motorsweep.hpc.outcomes import peak_memory_bytes; print(peak_memory_bytes())"
    told = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout
    assert ballast.all() and 10 * 2**20 < int(told) < 600 * 2**20
