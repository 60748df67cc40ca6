"""A study goes to SLURM by `motorsweep submit` and comes back with the numbers of one process."""

import json
import os
import signal
import sys

import numpy as np
import pytest
from motorsweep import open_features, open_results
from motorsweep.hpc.slurm_jobs import read_jobs
from motorsweep.zarr_store.codes import read_codes

from ..jobs.conftest import TINY, changed
from ..jobs.eeg_study import TINY_EEG
from .cluster_study import (
    MANY,
    ONE_NODE,
    SLURM_TABLES,
    TWO_RANKS,
    assert_same_files,
    assert_solved,
    copy_of,
    driver_pid,
    run_serially,
)

pytestmark = pytest.mark.slow


def states(study):
    return {job["verb"]: job["state"] for job in study.status()["jobs"] if job["role"] == "driver"}


def test_a_study_goes_through_three_jobs_to_its_report(on_cluster, serial, slurm, tmp_path):
    """In a folder whose name a shell could trip over."""
    study = on_cluster(folder=tmp_path / 'Ada\'s "first"; echo $HOME & `date` #1')
    dry = study.command("submit", study.file.name, "--dry-run").stdout
    assert not study.study.folder.exists() and "#SBATCH --signal=B:USR1@120" in dry
    jobs = study.submit()
    assert list(jobs) == ["simulate", "train", "collect"]
    again = study.command("submit", study.file.name, code=2).stderr
    assert f"scancel {' '.join(jobs.values())}" in again
    slurm.wait(jobs["simulate"], "RUNNING", "COMPLETED")
    assert states(study) == {"simulate": "running", "train": "queued", "collect": "queued"}
    for verb in jobs:
        study.wait_over(jobs[verb])
    assert states(study) == {"simulate": "done", "train": "done", "collect": "done"}
    check_finished(study, serial)
    noted = read_jobs(study.study)
    assert {(job["verb"], job["role"]) for job in noted} == {
        ("simulate", "driver"), ("simulate", "worker"), ("train", "driver"), ("collect", "driver"),
    }  # fmt: skip
    logs = {job["log"] for job in noted}
    assert logs <= {str(path) for path in study.study.logs.iterdir()}
    log = next(job["log"] for job in noted if job["verb"] == "simulate" and job["role"] == "driver")
    assert "ssh -N -L" in open(log).read()


def check_finished(study, serial):
    study.assert_each_pose_once()
    study.assert_same_volumes(serial)
    study.assert_same_records(serial)
    assert_same_files(study.study.results, serial.results)
    assert "not a head" in (study.study.report / "index.html").read_text()
    study.assert_clean()


@pytest.mark.parametrize("launcher, backend", [("horovodrun", "horovod"), ("mpirun", "torch")])
def test_each_launcher_trains_to_the_same_bits(on_cluster, serial, slurm, launcher, backend):
    study = on_cluster(tables=ONE_NODE + f'launcher = "{launcher}"\nbackend = "{backend}"\n')
    copy_of(serial, study.study.folder, "volumes.zarr", "trials.zarr", "cache")
    study.wait_over(study.submit("train")["train"])
    study.assert_same_records(serial)
    study.assert_clean()


def test_more_ranks_than_autoencoders_train_each_together(on_cluster, serial, slurm):
    """Data-parallel sums have another order than those of one process: the last bits of float32 differ.

    Codes differ by 1e-7 of their size (measured). Most mappers make the same of them, but first steps are large, and
    now and then one of these small ones ends elsewhere: of 12, two by 0.12 of NRMSE on one kind of processor.
    """
    study = on_cluster(tables=SLURM_TABLES.replace("ranks_per_node = 1", "ranks_per_node = 2"))
    copy_of(serial, study.study.folder, "volumes.zarr", "trials.zarr", "cache")
    study.wait_over(study.submit("train")["train"])
    assert {path.name for path in study.study.runs.iterdir()} == {path.name for path in serial.runs.iterdir()}
    assert "4 tasks, by all ranks together, on 6 ranks" in (study.study.logs / "encode.log").read_text()
    apart = []
    for run in study.study.runs.iterdir():
        found, truth = (json.loads(each.record(run.name).read_text()) for each in (study.study, serial))
        if found["kind"] == "autoencoder":
            assert np.allclose(found["loss"], truth["loss"], rtol=1e-6, atol=0)
            codes, other = (read_codes(each, run.name) for each in (study.study, serial))
            assert np.linalg.norm(codes - other) < 1e-6 * np.linalg.norm(other)
        elif found["kind"] == "mapper":
            apart.append(abs(found["scores"]["nrmse"] - truth["scores"]["nrmse"]))
    assert len(apart) == 12 and np.median(apart) < 5e-3 and max(apart) < 0.3  # measured: 2e-4 and 0.12
    study.assert_clean()


def test_two_studies_run_one_at_a_time_as_job_arrays(on_cluster, serial, slurm, tmp_path):
    """Their poses are solved already, so that each array has its turn soon."""
    tables = SLURM_TABLES.replace("[slurm]\n", "[slurm]\nat_once = 1\n")
    one, two = (on_cluster(TINY.replace('"tiny"', f'"{name}"'), tmp_path, tables) for name in ("one", "two"))
    for study in (one, two):
        copy_of(serial, study.study.folder, "volumes.zarr", "trials.zarr", "cache")
    told = json.loads(one.command("submit", one.file.name, two.file.name, "--json").stdout)
    arrays = {job["verb"]: job["job"].partition("_")[0] for job in told["jobs"]}
    assert [job["job"] for job in read_jobs(two.study)] == [f"{array}_1" for array in arrays.values()]
    for verb, array in arrays.items():
        one.wait_over(array)
        first, second = (slurm.job(f"{array}_{k}") for k in (0, 1))
        assert first["EndTime"] <= second["StartTime"], verb  # ISO times
    for study in (one, two):
        assert states(study) == dict.fromkeys(arrays, "done")
        study.assert_same_records(serial)
        for job in read_jobs(study.study):
            assert job["log"].startswith(str(study.study.logs)) and open(job["log"]).read()
        assert (study.study.report / "index.html").exists()
        study.assert_clean()


def test_the_whole_chain_is_sent_again_after_its_driver_was_killed(slurm, on_cluster, undisturbed):
    """What waited for the driver is cancelled by SLURM; the same command takes all of it to the end."""
    study = on_cluster(MANY, tables=TWO_RANKS)
    jobs = study.submit()
    study.wait_for_shards(5, jobs["simulate"])
    os.kill(driver_pid(slurm, jobs["simulate"]), signal.SIGKILL)
    study.wait_over(jobs["simulate"], "FAILED")
    for verb in ("train", "collect"):
        study.wait_over(jobs[verb], "CANCELLED")
    again = study.submit()
    for job in again.values():
        study.wait_over(job)
    told = json.loads(study.command("status", study.file.name, "--json").stdout)
    assert {job["job"]: job["state"] for job in told["jobs"] if job["role"] == "driver"} == dict.fromkeys(
        again.values(), "done"
    )
    assert_solved(study, undisturbed, killed_drivers=1)
    study.assert_same_records(undisturbed)
    assert_same_files(study.study.results, undisturbed.results)


def test_a_study_of_eeg_goes_the_same_way(on_cluster, environment, tmp_path):
    text = changed(TINY_EEG, **{"records.planted__n_eeg": 13})  # fewer are too few for the network
    (tmp_path / "serial").mkdir()
    serial = run_serially(tmp_path / "serial", text, {**os.environ, **environment}, sys.executable, "run")
    study = on_cluster(text, tmp_path / "cluster")
    jobs = study.submit()
    for job in jobs.values():
        study.wait_over(job)
    assert states(study) == {"simulate": "done", "train": "done", "collect": "done"}
    for read in (open_features, open_results):
        one, two = (read(each).drop_vars("seconds") for each in (study.study, serial))
        assert one.identical(two)
    study.assert_same_records(serial)
    assert "mean matrix" in (study.study.report / "index.html").read_text()
    study.assert_clean()
