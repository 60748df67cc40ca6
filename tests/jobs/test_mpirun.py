"""The command under a real mpirun: groups of ranks, a rank that dies, bad numbers of ranks."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import xarray as xr
from motorsweep import open_volumes
from motorsweep.hpc.events import read_events
from motorsweep.zarr_store.schema import Method
from motorsweep.zarr_store.study import Study

from .conftest import TINY, changed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here (openmpi-bin)"),
]
pytest.importorskip("mpi4py", reason="needs mpi4py")
pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")

SMALL = changed(TINY, solver__poses_per_shard=3, solver__order=1)
STAGES = ["simulate", "encode", "train", "collect", "report"]


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
    assert (found["status"] == 1).all()
    x, y = (np.asarray(each["e_norm"], float) for each in (found, truth))
    assert np.linalg.norm(x - y) < atol * np.linalg.norm(y)  # stored as float32


def stages(folder):
    return [each for each in read_events(Study(folder / "studies/tiny").events) if each["event"] == "stage"]


def shards_done(folder):
    names = [e["task"] for e in read_events(Study(folder / "studies/tiny").events) if e["event"] == "task"]
    return sorted(names)


def test_groups_of_ranks_give_the_volumes_of_one_process_and_write_each_once(ranked, serial, tmp_path):
    (tmp_path / "study.toml").write_text(changed(SMALL, executor__ranks_per_head=2))
    done = ranked(4, "simulate", "study.toml", "--executor", "mpi", folder=tmp_path)
    assert done.stdout.count("simulate  12 poses done in") == 1
    assert "mpi: 4 ranks, 2 to a head, 1 thread each" in done.stderr
    same_fields(tmp_path, serial, 2e-7)
    assert shards_done(tmp_path) == sorted(f"poses {k}:{min(k + 3, 12)}" for k in range(0, 12, 3))


def test_a_whole_run_on_ranks_has_the_results_of_one_process(ranked, finished, tmp_path):
    (tmp_path / "study.toml").write_text(TINY)
    done = ranked(2, "run", "study.toml", folder=tmp_path)
    assert re.findall(r"^(\w+) +\d+ \w+ done in", done.stdout, re.M) == STAGES
    assert {stage["executor"] for stage in stages(tmp_path)} == {"mpi: 2 ranks, 1 thread each"}
    same_fields(tmp_path, finished[0], 2e-7)
    results, truth = (xr.open_zarr(each / "studies/tiny/results.zarr") for each in (tmp_path, finished[0]))
    assert (results["status"] == truth["status"]).all()


def test_a_question_is_answered_by_one_rank(ranked, serial):
    answer = json.loads(ranked(2, "plan", "study.toml", "--json", folder=serial).stdout)
    assert answer["name"] == "tiny"  # and that it is one document: else it could not be read


def test_ranks_serve_poses_from_a_basis_that_is_made_once(ranked, serial, tmp_path):
    (tmp_path / "study.toml").write_text(changed(SMALL, solver__kind='"modes"', solver__tolerance=0.02))
    done = ranked(2, "simulate", "study.toml", folder=tmp_path)
    assert done.stderr.count("basis made in") == 1 and "mpi: 2 ranks" in done.stderr
    assert len(list((tmp_path / "studies/bases").glob("*.zarr"))) == 1
    volumes = open_volumes(tmp_path / "studies/tiny")
    assert (volumes["status"] == 1).all() and (volumes["method"] == int(Method.MODES)).sum() > 6
    same_fields(tmp_path, serial, 0.02)


def test_a_killed_rank_ends_the_run_and_nothing_is_lost(command, ranked, tmp_path):
    text = changed(SMALL, poses__random=51, solver__poses_per_shard=2, executor__ranks_per_head=2)
    (tmp_path / "study.toml").write_text(text)
    run = subprocess.Popen(
        mpirun(2, "simulate", "study.toml"), cwd=tmp_path, env=command.environment, stderr=subprocess.PIPE, text=True
    )
    events = Study(tmp_path / "studies/tiny").events
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (events.exists() and shards_done(tmp_path)):
        time.sleep(0.05)
        assert run.poll() is None, run.stderr.read()
    rank = next(p for p in psutil.Process(run.pid).children() if p.environ().get("OMPI_COMM_WORLD_RANK") == "1")
    rank.suspend()  # so that its group cannot come to the end first
    rank.kill()
    _, error = run.communicate(timeout=60)
    assert run.returncode != 0 and "signal 9" in error
    before = open_volumes(tmp_path / "studies/tiny")["status"].values
    assert 0 < (before == 1).sum() < 60
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
