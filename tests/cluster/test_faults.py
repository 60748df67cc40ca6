"""Whatever dies under a study on SLURM, the same command brings it to its end, with the same numbers."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from motorsweep.hpc.prepare import prepare_volumes
from motorsweep.jobs.config import load_study_config
from motorsweep.zarr_store.study import Study

from .cluster_study import (
    MANY,
    SLURM_TABLES,
    TWO_RANKS,
    assert_same_files,
    assert_solved,
    copy_of,
    driver_pid,
    pids,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PREPARED = ("volumes.zarr", "cache")
SOLVED = (*PREPARED, "trials.zarr")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, undisturbed):
    """The study with its head and its poses, none of them solved; its driver then begins at once."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "study.toml").write_text(f'folder = "{folder}/study"\n{MANY}')
    study = copy_of(undisturbed, folder / "study", "cache")
    prepare_volumes(study, load_study_config(folder / "study.toml"))
    return study


@pytest.fixture
def solving(on_cluster, prepared):
    """A study whose driver runs, and has some shards behind it; with the driver's job."""

    def begin():
        study = on_cluster(MANY)
        copy_of(prepared, study.study.folder, *PREPARED)
        job = study.submit("simulate")["simulate"]
        study.wait_for_shards(5, job)
        return study, job

    return begin


@pytest.fixture
def training(on_cluster, undisturbed):
    """A study whose poses are solved and whose ranks train; with their job."""

    def begin(tables=TWO_RANKS):
        study = on_cluster(MANY, tables=tables)
        copy_of(undisturbed, study.study.folder, *SOLVED)
        job = study.submit("train")["train"]
        study.wait_until(lambda: any(study.study.runs.glob("*/checkpoint.pt")), job)
        assert not study.events("stage", "encode")[-1]["state"] == "finished"
        return study, job

    return begin


def assert_trained(study, undisturbed):
    study.assert_same_records(undisturbed)
    study.command("collect", study.file.name)
    assert_same_files(study.study.results, undisturbed.results)
    study.assert_clean()


# ---- solving --------------------------------------------------------------------------------------------------------


def test_a_workers_job_is_cancelled(slurm, solving, undisturbed):
    """The other may be done before a new one has come; that one comes is tested in test_dask_on_slurm.py."""
    study, job = solving()
    lost = study.workers()[0]
    slurm.wait(lost, "RUNNING")
    slurm.cancel(lost)
    ended = study.wait_over(job)
    assert ended["Restarts"] == "0" and slurm.state(lost) == "CANCELLED"
    assert_solved(study, undisturbed)


def test_the_node_of_a_worker_dies(slurm, solving, undisturbed):
    """Dask finds out at once. That SLURM does so by itself is tested in test_slurm_fixture.py."""
    study, job = solving()
    driver = slurm.job(job)["NodeList"]
    nodes = {worker: slurm.job(worker)["NodeList"] for worker in study.workers()}
    lost, node = next((worker, node) for worker, node in nodes.items() if node not in (driver, ""))
    slurm.kill_node(node, tell=True)
    try:
        study.wait_over(job)
        assert slurm.state(lost) == "NODE_FAIL"
    finally:
        slurm.start_node(node)
    assert_solved(study, undisturbed)


def test_the_node_of_the_driver_dies(slurm, solving, undisturbed):
    """SLURM queues the driver again; the next one cancels what the first has left."""
    study, job = solving()
    node = slurm.job(job)["NodeList"]
    slurm.kill_node(node, tell=True)
    try:
        ended = study.wait_over(job)
        assert ended["Restarts"] == "1" and ended["NodeList"] != node
    finally:
        slurm.start_node(node)
    assert_solved(study, undisturbed, killed_drivers=1)


def test_the_driver_is_killed(slurm, solving, undisturbed):
    study, job = solving()
    os.kill(driver_pid(slurm, job), signal.SIGKILL)
    study.wait_over(job, "FAILED")
    assert {each["state"] for each in study.status()["jobs"] if each["job"] == job} == {"failed"}
    again = study.submit("simulate")["simulate"]
    study.wait_over(again)
    assert_solved(study, undisturbed, killed_drivers=1)


def test_the_driver_is_queued_again_on_its_signal(slurm, solving, undisturbed):
    study, job = solving()
    slurm.cancel(job, options=["--signal=USR1", "--batch"])
    ended = study.wait_over(job)
    assert ended["Restarts"] == "1"
    assert [event["state"] for event in study.events("stage")] == ["started", "stopped", "started", "finished"]
    assert_solved(study, undisturbed)


def test_the_driver_is_queued_again_by_an_operator(slurm, solving, undisturbed):
    study, job = solving()
    slurm.run("scontrol", "requeue", job)
    ended = study.wait_over(job)
    assert ended["Restarts"] == "1"
    assert_solved(study, undisturbed, killed_drivers=1)


def test_the_driver_meets_its_walltime(slurm, on_cluster, prepared, undisturbed):
    """A real one: the workers are frozen, so that it cannot end before. SLURM tells up to a minute early."""
    tables = SLURM_TABLES.replace('memory_gb = 3.0\nwalltime = "0:20:00"', 'memory_gb = 3.0\nwalltime = "0:02:00"')
    study = on_cluster(MANY, tables=tables)
    copy_of(prepared, study.study.folder, *PREPARED)
    job = study.submit("simulate")["simulate"]
    study.wait_until(lambda: slurm.job(job)["Restarts"] != "0" or study.events(), job)
    frozen = [worker for worker in study.workers() if slurm.state(worker) == "RUNNING"]
    for worker in frozen:
        slurm.run("scontrol", "suspend", worker, check=False)
    study.wait_until(lambda: slurm.job(job)["Restarts"] != "0", job)
    ended = study.wait_over(job)
    assert int(ended["Restarts"]) >= 1 and ended["TimeLimit"] == "00:02:00"
    assert_solved(study, undisturbed)


def test_slurmctld_is_restarted(slurm, solving, undisturbed):
    """While it is away a worker dies, too."""
    study, job = solving()
    worker = study.workers()[0]
    slurm.restart_controller(down_s=5)
    slurm.cancel(worker, options=["--signal=KILL", "--full"])
    ended = study.wait_over(job)
    assert ended["Restarts"] == "0"
    assert_solved(study, undisturbed)


def test_the_disk_is_full(slurm, on_cluster, undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        study = on_cluster(f'folder = "{disk}/study"\n' + MANY)
        study.study = Study(disk / "study")
        job = study.submit("simulate")["simulate"]
        study.wait_over(job, "FAILED")
        assert "no space is left" in study.told() and "Traceback" not in Path(slurm.job(job)["StdOut"]).read_text()
        slurm.assert_nothing_left(timeout=120)
        subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
        study.wait_over(study.submit("simulate")["simulate"])
        assert_solved(study, undisturbed, killed_drivers=1)
    finally:
        slurm.cancel_all()
        subprocess.run(["umount", "--lazy", disk], check=True)


# ---- training -------------------------------------------------------------------------------------------------------


def kill_a_rank(slurm, job):
    ranks = pids(slurm, "motorsweep.jobs.cli encode", SLURM_JOB_ID=job)
    (pid,) = [pid for pid in ranks if rank_of(pid) == "1"]
    os.kill(pid, signal.SIGKILL)


def rank_of(pid):
    held = dict(line.partition(b"=")[::2] for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    return next(held[name].decode() for name in (b"HOROVOD_RANK", b"SLURM_PROCID") if name in held)


def test_a_rank_is_killed_and_the_same_command_goes_on(slurm, training, undisturbed):
    study, job = training()
    kill_a_rank(slurm, job)
    study.wait_over(job, "FAILED")
    study.wait_over(study.submit("train")["train"])
    assert_trained(study, undisturbed)


def test_a_horovod_rank_is_killed_and_the_others_go_on(slurm, ssh_to_nodes, training, undisturbed):
    """Elastic Horovod: the same job, without the dead."""
    pytest.importorskip("horovod", reason="needs Horovod")
    study, job = training(TWO_RANKS + 'launcher = "horovodrun"\nbackend = "horovod"\nelastic = true\n')
    kill_a_rank(slurm, job)
    ended = study.wait_over(job)
    assert ended["Restarts"] == "0"
    assert_trained(study, undisturbed)


def test_training_goes_on_from_its_checkpoints_after_the_signal(slurm, training, undisturbed):
    study, job = training()
    slurm.cancel(job, options=["--signal=USR1", "--batch"])
    ended = study.wait_over(job)
    assert ended["Restarts"] == "1"
    begun = [event["state"] for event in study.events("stage", "encode")]
    assert begun[:2] == ["started", "stopped"] and begun[-1] == "finished"
    assert_trained(study, undisturbed)
