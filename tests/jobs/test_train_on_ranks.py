"""Trainings on ranks that real launchers start: the same records as one process, also after signals and deaths."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from motorsweep.hpc.events import read_events
from motorsweep.zarr_store.codes import read_codes
from motorsweep.zarr_store.runs import list_records, read_arrays
from motorsweep.zarr_store.study import Study

from .conftest import TINY, changed

pytestmark = pytest.mark.slow
pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")

LONG = changed(TINY, autoencoder__epochs=6, mappers__epochs=30)
ROOT = ["--allow-run-as-root"] if os.geteuid() == 0 else []
HOROVODRUN = str(Path(sys.executable).with_name("horovodrun"))
LAUNCHERS = {
    "mpirun": ["mpirun", "--oversubscribe", *ROOT, "-n"],
    "horovodrun": [HOROVODRUN, "--gloo", "--network-interfaces", "lo", "-H", "localhost:{0}", "-np"],
}


def launch(launcher, ranks, verb):
    words = LAUNCHERS[launcher]
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {launcher} here")
    words = [word.format(ranks) for word in words]  # horovodrun takes all slots of its hosts, whatever -np says
    return [*words, str(ranks), sys.executable, "-m", "motorsweep.jobs.cli", verb, "study.toml"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory, command):
    """Folders with a study whose poses are done, whose autoencoders are done, and that is done, by one process."""
    stages = {}
    for verb in ("simulate", "encode", "train"):
        folder = tmp_path_factory.mktemp(verb)
        if stages:
            shutil.copytree(folder_of(stages), folder, dirs_exist_ok=True)
        (folder / "study.toml").write_text(LONG)
        command(verb, "study.toml", folder=folder)
        stages[verb] = folder
    return stages


def folder_of(stages):
    return list(stages.values())[-1]


def study_in(folder):
    return Study(folder / "studies/tiny")


@pytest.fixture
def begun(studies, tmp_path):
    """Give a copy of a study after a stage."""

    def copy(verb):
        shutil.copytree(studies[verb], tmp_path, dirs_exist_ok=True)
        return tmp_path

    return copy


def finish(line, folder, environment, code=0):
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def check_same(folder, reference, kinds=("autoencoder", "mapper", "baseline")):
    """The same runs with the same scores, losses, arrays and codes, to the bit."""
    found, truth = (
        {run: record for run, record in list_records(study_in(each)) if record["kind"] in kinds}
        for each in (folder, reference)
    )
    assert found.keys() == truth.keys() and truth
    for run, record in truth.items():
        assert [found[run][key] for key in ("status", "scores", "loss")] == ["done", record["scores"], record["loss"]]
        own, other = (read_arrays(study_in(each), run) for each in (folder, reference))
        assert own.keys() == other.keys() and all(np.array_equal(own[k], other[k], equal_nan=True) for k in own)
        if record["kind"] == "autoencoder":
            assert np.array_equal(*(read_codes(study_in(each), run) for each in (folder, reference)))


def check_left_nothing(folder):
    assert not study_in(folder).ranks.exists() and not study_in(folder).scratch.exists()
    inside = [p for p in psutil.process_iter(["cmdline"]) if "motorsweep.jobs.cli" in (p.info["cmdline"] or [])]
    assert [p.pid for p in inside if Path(p.cwd()) == folder] == []


def test_ranks_write_the_records_of_one_process(begun, studies, command):
    folder = begun("simulate")
    encoded = finish(launch("mpirun", 2, "encode"), folder, command.environment)
    trained = finish(launch("mpirun", 2, "train"), folder, command.environment)
    assert encoded.stdout.count("4 autoencoders done in") == 1 and trained.stdout.count("16 trainings done in") == 1
    check_same(folder, studies["train"])
    pids = {e["pid"] for e in read_events(study_in(folder).events) if e["event"] == "task" and e["verb"] == "train"}
    assert len(pids) == 2
    log = (study_in(folder).logs / "train.log").read_text()
    assert re.search(r"12 tasks, by one rank each, on 2 ranks in [\d.]+ s; the ranks were idle [\d.]+% of it", log)
    check_left_nothing(folder)


@pytest.mark.parametrize(("launcher", "backend"), [("mpirun", "torch"), ("horovodrun", "horovod")])
def test_whatever_launches_them_and_whatever_they_talk_through(launcher, backend, begun, studies, command):
    if backend == "horovod":
        pytest.importorskip("horovod", reason="needs Horovod")
    folder, environment = begun("encode"), {**command.environment, "MOTORSWEEP_BACKEND": backend}
    done = finish(launch(launcher, 2, "train"), folder, environment)
    assert f"ranks: 2 ranks ({launcher}, {backend}), 1 thread each" in done.stderr
    check_same(folder, studies["train"])
    check_left_nothing(folder)


def test_fewer_autoencoders_than_ranks_are_trained_by_all_together(begun, studies, command):
    folder = begun("simulate")
    (folder / "study.toml").write_text(changed(LONG, validation__repeats=1))
    finish(launch("mpirun", 3, "encode"), folder, command.environment)
    assert "2 tasks, by all ranks together, on 3 ranks" in (study_in(folder).logs / "encode.log").read_text()
    truth = dict(list_records(study_in(studies["train"])))
    found = dict(list_records(study_in(folder)))
    assert len(found) == 2
    for run, record in found.items():
        assert record["provenance"]["ranks"] == 3
        np.testing.assert_allclose(record["loss"], truth[run]["loss"], rtol=1e-5)  # float32, summed in another order
        codes, other = (read_codes(study_in(each), run) for each in (folder, studies["train"]))
        np.testing.assert_allclose(codes, other, atol=1e-4 * np.abs(other).max())
    check_left_nothing(folder)


def test_only_rank_0_speaks_of_a_bad_study_and_nothing_waits(begun, command):
    folder = begun("simulate")
    (folder / "study.toml").write_text(changed(LONG, mappers__depths="[4]"))
    done = finish(launch("mpirun", 2, "train"), folder, command.environment, code=2)
    assert done.stderr.count("motorsweep: ") == 1 and "depths" in done.stderr
    (folder / "study.toml").write_text(LONG)
    environment = {**command.environment, "MOTORSWEEP_INTERFACE": "ib9"}
    done = finish(launch("mpirun", 2, "train"), folder, environment, code=2)
    assert "none of that name" in done.stderr


def test_a_stage_that_cannot_begin_ends_all_ranks_with_one_sentence(begun, command):
    folder = begun("simulate")
    with study_in(folder).lock():
        done = finish(launch("mpirun", 2, "encode"), folder, command.environment, code=1)
    assert done.stderr.count("motorsweep: locking the study") == 1
    check_left_nothing(folder)


def test_simulate_under_horovodrun_is_refused(begun, command):
    done = finish(launch("horovodrun", 2, "simulate"), begun("simulate"), command.environment, code=1)
    assert done.stderr.count("horovodrun started 2 ranks of `motorsweep simulate`") == 1


class Training:
    """A launched `train` of which some runs are under way."""

    def __init__(self, line, folder, environment):
        self.folder, self.output = folder, folder / "output.txt"
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(line, cwd=folder, env=environment, stdout=file, stderr=file)
        runs = study_in(folder).runs
        wanted = len(list(runs.iterdir())) + 3
        self._wait_for(lambda: len(list(runs.iterdir())) >= wanted, 200)
        self.ranks = {int(_rank_of(p)): p for p in self._ranks()}
        assert self.ranks.keys() == {0, 1}

    def _ranks(self):
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in found if p.cmdline()[1:3] == ["-m", "motorsweep.jobs.cli"]]

    def _wait_for(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.output.read_text()
            time.sleep(0.02)

    def end(self, seconds=60):
        code = self.process.wait(seconds)
        time.sleep(0.2)
        left = [p.pid for p in self.ranks.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert left == [], self.output.read_text()
        return code, self.output.read_text()


def _rank_of(process):
    environment = process.environ()
    return environment.get("HOROVOD_RANK") or environment["OMPI_COMM_WORLD_RANK"]


@pytest.mark.parametrize(("signalled", "number", "code"), [(1, signal.SIGUSR1, 75), (0, signal.SIGTERM, 143)])
def test_a_signal_to_any_rank_stops_all_and_the_same_command_goes_on(signalled, number, code, begun, studies, command):
    folder = begun("encode")
    training = Training(launch("mpirun", 2, "train"), folder, command.environment)
    training.ranks[signalled].send_signal(number)
    found, output = training.end()
    assert found == code and output.count("stopped; nothing that was computed is lost") == 1
    check_left_nothing(folder)
    before = len([r for _, r in list_records(study_in(folder)) if r["kind"] != "autoencoder"])
    assert before < 16
    done = finish(launch("mpirun", 2, "train"), folder, command.environment)
    assert f"train     {16 - before} trainings done in" in done.stdout
    check_same(folder, studies["train"])


def test_a_killed_rank_ends_all_and_the_same_command_goes_on(begun, studies, command):
    folder = begun("encode")
    training = Training(launch("mpirun", 2, "train"), folder, command.environment)
    training.ranks[1].kill()
    code, _ = training.end()
    assert code != 0
    command("train", "study.toml", folder=folder)  # without a launcher, on what ranks began
    check_same(folder, studies["train"])


def test_elastic_ranks_that_are_left_meet_again_and_finish(begun, studies, command):
    if shutil.which(HOROVODRUN) is None:
        pytest.skip("no horovodrun here")
    folder = begun("encode")
    hosts = folder / "hosts.sh"  # two names, as Horovod never again takes a host on which a rank died
    hosts.write_text("#!/bin/sh\necho localhost:1\necho 127.0.0.1:1\n")
    hosts.chmod(0o755)
    elastic = ["-np", "2", "--min-np", "1", "--max-np", "2", "--host-discovery-script", str(hosts)]
    line = [HOROVODRUN, *elastic, "--network-interfaces", "lo", *launch("horovodrun", 2, "train")[-5:]]
    assert line[-5] == sys.executable
    training = Training(line, folder, command.environment)
    training.ranks[0].kill()  # the one that coordinates
    code, output = training.end(seconds=300)
    assert code == 0, output
    assert "the ranks have met again; 1 go on" in output
    check_same(folder, studies["train"])
    stages = [e["executor"] for e in read_events(study_in(folder).events) if e["event"] == "stage"]
    assert "ranks: 1 rank (horovodrun, horovod), 1 thread each" in stages
    check_left_nothing(folder)


def test_an_elastic_rank_that_comes_later_takes_part(begun, studies, command):
    if shutil.which(HOROVODRUN) is None:
        pytest.skip("no horovodrun here")
    folder = begun("encode")
    (folder / "hosts.txt").write_text("localhost:1\n")
    hosts = folder / "hosts.sh"
    hosts.write_text(f"#!/bin/sh\ncat {folder / 'hosts.txt'}\n")
    hosts.chmod(0o755)
    elastic = ["-np", "1", "--min-np", "1", "--max-np", "2", "--host-discovery-script", str(hosts)]
    line = [HOROVODRUN, *elastic, "--network-interfaces", "lo", *launch("horovodrun", 2, "train")[-5:]]
    with open(folder / "output.txt", "w") as file:
        process = subprocess.Popen(line, cwd=folder, env=command.environment, stdout=file, stderr=file)
    deadline = time.monotonic() + 120
    while not any(e["event"] == "stage" and "horovodrun" in e["executor"] for e in _events(folder)):
        assert time.monotonic() < deadline and process.poll() is None, (folder / "output.txt").read_text()
        time.sleep(0.05)
    (folder / "hosts.txt").write_text("localhost:1\n127.0.0.1:1\n")
    assert process.wait(300) == 0, (folder / "output.txt").read_text()
    check_same(folder, studies["train"])
    ranked = [e["executor"] for e in _events(folder) if e["event"] == "stage" and "horovodrun" in e["executor"]]
    assert "1 rank (" in ranked[0] and "2 ranks (" in ranked[-1]
    check_left_nothing(folder)


def _events(folder):
    return list(read_events(study_in(folder).events))
