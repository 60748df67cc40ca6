"""The command under a real mpirun: groups of ranks, a rank that dies, bad numbers of ranks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from motorsweep import open_volumes
from motorsweep.hpc.events import read_events
from motorsweep.zarr_store.study import Study

from .conftest import TINY, changed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here (openmpi-bin)"),
]
pytest.importorskip("mpi4py", reason="needs mpi4py")
pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")

SMALL = changed(TINY, solver__poses_per_shard=3)


def mpirun(ranks, *words):
    flags = ["--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    return ["mpirun", *flags, "-n", str(ranks), sys.executable, "-m", "motorsweep.jobs.cli", *map(str, words)]


@pytest.fixture(scope="module")
def ranked(command):
    def run(ranks, *words, folder, code=0):
        line = mpirun(ranks, *words)
        done = subprocess.run(line, cwd=folder, env=command.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="module")
def serial(tmp_path_factory, command):
    folder = tmp_path_factory.mktemp("serial")
    (folder / "study.toml").write_text(SMALL)
    command("simulate", "study.toml", folder=folder)
    return folder


def same_fields(folder, reference, atol):
    found, truth = (open_volumes(each / "studies/tiny") for each in (folder, reference))
    assert (found["status"] == 1).all() and (found["residual"] < 1e-10).all()
    x, y = (np.asarray(each["e_norm"], float) for each in (found, truth))
    assert np.linalg.norm(x - y) < atol * np.linalg.norm(y)  # stored as float32


def shards_done(folder):
    names = [e["task"] for e in read_events(Study(folder / "studies/tiny").events) if e["event"] == "task"]
    return sorted(names)


@pytest.mark.parametrize(("ranks", "per_head", "kind"), [(2, 1, "direct"), (4, 2, "iterative")])
def test_ranks_give_the_volumes_of_one_process_and_write_each_once(ranks, per_head, kind, ranked, serial, tmp_path):
    text = changed(SMALL, executor__ranks_per_head=per_head, solver__kind=json.dumps(kind))
    (tmp_path / "study.toml").write_text(text)
    done = ranked(ranks, "simulate", "study.toml", folder=tmp_path)
    assert done.stdout.count("simulate  12 poses done in") == 1
    assert f"mpi: {ranks} ranks" in done.stderr
    same_fields(tmp_path, serial, 2e-7)
    assert shards_done(tmp_path) == sorted(f"poses {k}:{min(k + 3, 12)}" for k in range(0, 12, 3))
    again = ranked(ranks, "simulate", "study.toml", folder=tmp_path)
    assert again.stdout.splitlines() == ["simulate  nothing to do: all 12 poses are done already"]
    assert ranked(2, "status", "study.toml", folder=tmp_path).stdout.count("12 done") == 1


def test_a_killed_rank_ends_the_run_and_nothing_is_lost(command, ranked, tmp_path):
    text = changed(SMALL, poses__random=111, solver__poses_per_shard=2, executor__ranks_per_head=2)
    (tmp_path / "study.toml").write_text(text)
    run = subprocess.Popen(
        mpirun(2, "simulate", "study.toml"), cwd=tmp_path, env=command.environment, stderr=subprocess.PIPE, text=True
    )
    events = Study(tmp_path / "studies/tiny").events
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (events.exists() and shards_done(tmp_path)):
        time.sleep(0.05)
        assert run.poll() is None, run.stderr.read()
    ranks = [p for p in psutil.Process(run.pid).children() if p.environ().get("OMPI_COMM_WORLD_RANK") == "1"]
    ranks[0].send_signal(signal.SIGKILL)
    _, error = run.communicate(timeout=60)
    assert run.returncode != 0 and "signal 9" in error
    before = open_volumes(tmp_path / "studies/tiny")["status"].values
    assert 0 < (before == 1).sum() < 120
    done = command("simulate", "study.toml", folder=tmp_path)  # goes on without mpirun
    assert f"{(before == 0).sum()} poses done in" in done.stdout and f"{(before == 1).sum()} done before" in done.stdout
    assert "which has an effect only under mpirun" in done.stderr
    assert (open_volumes(tmp_path / "studies/tiny")["status"] == 1).all()


def test_a_serial_run_is_gone_on_with_by_ranks(command, ranked, serial, tmp_path):
    shutil.copytree(serial / "studies", tmp_path / "studies")
    (tmp_path / "study.toml").write_text(SMALL)
    events = len(shards_done(tmp_path))
    place = next((tmp_path / "studies/tiny/volumes.zarr/e_norm").rglob("c/1/0/0/0"))
    place.write_bytes(place.read_bytes()[:100])
    command("verify", "study.toml", "--repair", folder=tmp_path)
    done = ranked(2, "simulate", "study.toml", folder=tmp_path)
    assert "3 poses done in" in done.stdout and "9 done before" in done.stdout
    same_fields(tmp_path, serial, 2e-7)
    assert len(shards_done(tmp_path)) == events + 1


def test_ranks_that_make_no_whole_groups_are_refused_once(ranked, tmp_path):
    (tmp_path / "study.toml").write_text(changed(TINY, executor__ranks_per_head=2))
    done = ranked(3, "simulate", "study.toml", folder=tmp_path, code=2)
    assert done.stderr.count("ranks_per_head is 2, but mpirun started 3 ranks") == 1
    assert not (tmp_path / "studies/tiny/volumes.zarr").exists()


def test_kind_mpi_without_mpirun_is_told(command, tmp_path):
    (tmp_path / "study.toml").write_text(changed(TINY, executor__kind='"mpi"'))
    done = command("simulate", "study.toml", folder=tmp_path, code=2)
    assert "was not started by mpirun" in done.stderr
