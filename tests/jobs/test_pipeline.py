"""The whole line on a tiny study: real mesh, PETSc, Zarr, torch and Dask."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from motorsweep import open_results, open_trials, open_volumes
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import Head
from motorsweep.sim.pose import Pose, write_poses
from motorsweep.sim.solve import FieldSolver
from motorsweep.sim.volume import VolumeGrid

from .conftest import TINY, changed

pytestmark = pytest.mark.slow


def files_of(store):
    """Bytes of every file of a store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def same_results(one, other):
    left, right = (files_of(folder / "studies/tiny/results.zarr") for folder in (one, other))
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


def test_run_fills_every_cell_and_says_what_it_did(finished):
    folder, done = finished
    results = open_results(folder / "studies/tiny")
    assert dict(results.sizes) | {"test": 0} == {
        "input": 2, "depth": 1, "connection": 3, "repeat": 2, "muscle": 3, "test": 0, "baseline": 7, "synergy": 2,
            "rank": 3, "bound": 2,
    }  # fmt: skip
    assert (results["status"] == 1).all()
    for name in ("nrmse", "nrmse_train", "bic", "aicc", "residual_variance", "baseline_nrmse", "prediction"):
        assert np.isfinite(results[name].values).all(), name
        assert results[name].attrs["units"] and results[name].attrs["long_name"]
    page = (folder / "studies/tiny/report/index.html").read_text()
    head = open_volumes(folder / "studies/tiny").attrs["notes"]
    assert f"sphere, {head['head_nodes']:,} nodes" in page and "magstim-70mm" in page and "not a head" in page
    lines = done.stdout.splitlines()
    verbs = ("simulate", "encode", "train", "collect", "report")
    assert [line.split()[0] for line in lines if line.startswith(verbs)] == list(verbs)
    assert any(line.split()[:1] == ["Ridge"] for line in lines)
    assert lines[0].startswith("simulate  12 poses done in")
    assert lines[1].startswith("encode    4 autoencoders done in")
    assert lines[2].startswith("train     16 trainings done in")
    assert "index.html" in lines[-1]


def test_scores_are_those_of_the_stored_predictions(finished):
    """Equation 7 from the arrays in the results; best possible from the trials' own truth."""
    folder, _ = finished
    results, trials = open_results(folder / "studies/tiny").load(), open_trials(folder / "studies/tiny").load()
    error = results["prediction"] - results["measured"]
    nrmse = np.sqrt((error**2).sum(("test", "muscle")) / (results["measured"] ** 2).sum(("test", "muscle")))
    xr.testing.assert_allclose(nrmse.drop_attrs(), results["nrmse"].drop_attrs())
    for repeat in results["repeat"].values:
        test = results["test_trial"].sel(repeat=repeat).values.astype(int)
        train = np.setdiff1d(trials["trial"].values, test)
        measured, expected = trials["response"].values, trials["expected_response"].values
        low, span = measured[train].min(0), np.ptp(measured[train], axis=0)
        scaled, best = (measured[test] - low) / span, (expected[test] - low) / span
        mean = ((measured[train] - low) / span).mean(0)
        for name, prediction in (("best_possible", best), ("mean", mean)):
            truth = np.sqrt(((scaled - prediction) ** 2).sum() / (scaled**2).sum())
            kept = results["baseline_nrmse"].sel(baseline=name, repeat=repeat)
            np.testing.assert_allclose(kept.values, truth, rtol=1e-6)


def test_volumes_are_the_fields_of_their_poses(finished):
    folder, _ = finished
    study = folder / "studies/tiny"
    volumes = open_volumes(study)
    assert (volumes["status"] == 1).all() and (volumes["residual"] < 1e-10).all()
    head = Head.load(next((study / "cache").glob("head-*.npz")))
    grid = VolumeGrid((0, 0, 0.075), 2e-3, 32)
    solver = FieldSolver(head, load_coil("magstim-70mm"), region=grid)
    assert volumes.attrs["notes"]["unknowns"] == solver.space.size > len(head.nodes)
    for pose in (0, 7, 11):
        field = solver.volumes(grid, [Pose(volumes["pose_matrix"].values[pose])])[0]
        kept = volumes["e_norm"].isel(pose=pose).values
        np.testing.assert_allclose(kept, np.linalg.norm(field, axis=-1), rtol=1e-5, atol=1e-6)


def test_motor_threshold_is_what_the_study_file_says(finished):
    folder, _ = finished
    study = folder / "studies/tiny"
    volumes, trials = open_volumes(study), open_trials(study)
    hotspot = volumes["e_norm"].isel(pose=trials.attrs["hotspot_pose"]).values[volumes["motor_mask"].values]
    assert np.percentile(hotspot, 99.9) * trials.attrs["rmt_a_per_us"] == pytest.approx(60.0)
    np.testing.assert_allclose(
        trials["didt"], trials["intensity_percent_rmt"] / 100 * trials.attrs["rmt_a_per_us"] * 1e6
    )
    assert trials.sizes == {"trial": 26, "muscle": 3}


def test_the_same_command_again_does_nothing_and_says_so(finished, command):
    folder, _ = finished
    before = files_of(folder / "studies/tiny/results.zarr")
    began = time.monotonic()
    done = command("run", "study.toml", folder=folder)
    assert time.monotonic() - began < 20
    assert done.stdout.splitlines()[0] == "simulate  nothing to do: all 12 poses are done already"
    assert done.stdout.count("nothing to do") == 5
    assert files_of(folder / "studies/tiny/results.zarr") == before
    assert "nothing is left to do" in command("plan", "study.toml", folder=folder).stdout
    assert "Best possible" in done.stdout and "Synergy" in done.stdout


def test_status_show_and_verify_answer(finished, command):
    folder, _ = finished
    status = json.loads(command("status", "study.toml", "--json", folder=folder).stdout)
    assert status["parts"]["simulate"] == {"done": 12, "pending": 0, "failed": 0}
    assert status["parts"]["train"] == {"done": 16, "pending": 0, "failed": 0}
    assert 0 < status["best"]["nrmse"] < 2
    run_id = str(open_results(folder / "studies/tiny")["run_id"].values.ravel()[0])
    shown = json.loads(command("show", "studies/tiny", run_id, "--json", folder=folder).stdout)
    assert shown["run_id"] == run_id and shown["kind"] == "mapper" and shown["provenance"]["version"]
    assert "all is well" in command("verify", "study.toml", folder=folder).stdout
    wrong = command("show", "study.toml", "ffff", folder=folder, code=2)
    assert "there is none" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("workers", [2, 4])
def test_dask_workers_give_the_same_results_as_this_process(finished, command, tmp_path, workers):
    (tmp_path / "study.toml").write_text(TINY)
    done = command("run", "study.toml", "--executor", "local", "--workers", workers, folder=tmp_path)
    assert "dashboard  http://127.0.0.1:" in done.stderr
    same_results(finished[0], tmp_path)


@pytest.mark.parametrize("moment", ["simulate", "encode", "train"])
def test_killed_and_run_again_gives_the_same_results(finished, command, tmp_path, moment):
    """SIGKILL in the middle of a stage, then the same command."""
    (tmp_path / "study.toml").write_text(TINY)
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "run", "study.toml"]
    study = tmp_path / "studies/tiny"
    begun = {
        "simulate": lambda: (study / "volumes.zarr/e_norm/c/0").exists(),
        "encode": lambda: any(study.glob("runs/*/checkpoint.pt")),
        "train": lambda: len(list(study.glob("runs/*/record.json"))) >= 7,
    }[moment]
    process = subprocess.Popen(
        line, cwd=tmp_path, env=command.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 300
    while not begun() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (study / "results.zarr").exists()
    command("run", "study.toml", folder=tmp_path)
    same_results(finished[0], tmp_path)
    assert "all is well" in command("verify", "study.toml", folder=tmp_path).stdout


def test_ctrl_c_ends_in_one_friendly_line(command, tmp_path):
    (tmp_path / "study.toml").write_text(changed(TINY, executor__kind='"local"'))
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "run", "study.toml"]
    process = subprocess.Popen(
        line, cwd=tmp_path, env=command.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 300
    while not any(tmp_path.glob("studies/tiny/runs/*/checkpoint.pt")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "stopped; nothing that was computed is lost: the same command goes on"
    assert "Traceback" not in errors


def test_damage_is_found_and_mended(finished, command, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    study = tmp_path / "studies/tiny"
    shard = max((study / "volumes.zarr/e_norm/c").rglob("0"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    run_id = str(open_results(study)["run_id"].values.ravel()[0])
    record = study / "runs" / run_id / "record.json"
    record.write_text(record.read_text()[:100])
    found = command("verify", "study.toml", folder=tmp_path, code=1).stdout
    assert "pose" in found and run_id in found and "--repair" in found
    command("verify", "study.toml", "--repair", folder=tmp_path)
    command("run", "study.toml", folder=tmp_path)
    same_results(finished[0], tmp_path)


def test_another_head_or_grid_in_the_same_folder_is_refused(finished, command, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "study.toml").write_text(changed(TINY, volume__spacing_mm="2.5"))
    told = command("run", "study.toml", folder=tmp_path, code=1).stderr
    assert "grid.spacing_mm: 2.0 there, 2.5 now" in told and "another name or folder" in told
    assert "Traceback" not in told


def test_a_new_option_of_training_leaves_the_rest_alone(finished, command, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "study.toml").write_text(changed(TINY, mappers__epochs="5"))
    lines = command("run", "study.toml", folder=tmp_path).stdout.splitlines()
    assert "nothing to do" in lines[0] and "nothing to do" in lines[1]
    assert lines[2].startswith("train     12 trainings done in") and "4 done before" in lines[2]


def test_a_coil_in_the_head_is_refused_before_anything_is_solved(command, tmp_path):
    pose = np.diag([1.0, -1, -1, 1])
    pose[:3, 3] = 0, 0, 0.080
    write_poses(tmp_path / "poses.csv", [Pose(pose)])
    (tmp_path / "study.toml").write_text(changed(TINY, poses__file='"poses.csv"'))
    told = command("simulate", "study.toml", folder=tmp_path, code=2).stderr
    assert "pose 0" in told and "inside" in told and "Traceback" not in told
    assert not (tmp_path / "studies/tiny/volumes.zarr").exists()


def test_measured_responses_take_the_place_of_the_planted_ones(finished, command, tmp_path):
    """The user's own poses and responses: one row for each pose, intensities in the file, no best possible score."""
    matrices = open_volumes(finished[0] / "studies/tiny")["pose_matrix"].values
    write_poses(tmp_path / "poses.csv", [Pose(m) for m in np.concatenate([matrices] * 2)])
    rng = np.random.default_rng(5)
    rows = ["intensity_percent_rmt,FDI [uV],ADM [mV]"]
    rows += [f"{110 + 10 * (k % 2)},{rng.uniform(5, 900):.2f},{rng.uniform(0.005, 0.4):.5f}" for k in range(24)]
    (tmp_path / "mep.csv").write_text("\n".join(rows) + "\n")
    text = changed(TINY, poses__file='"poses.csv"', responses__file='"mep.csv"', validation__repeats="1")
    text = changed(text, inputs__kinds='["e_norm"]', mappers__connections='["direct"]')
    (tmp_path / "study.toml").write_text(text)
    command("run", "study.toml", folder=tmp_path)
    trials, results = open_trials(tmp_path / "studies/tiny"), open_results(tmp_path / "studies/tiny")
    assert trials["response"].values[0, 0] == pytest.approx(float(rows[1].split(",")[1]) * 1e-6)
    assert trials["muscle"].values.tolist() == ["FDI", "ADM"]
    assert "expected_response" not in trials
    assert np.isnan(results["baseline_nrmse"].sel(baseline="best_possible").values).all()
    assert np.isfinite(results["nrmse"].values).all()
    (tmp_path / "mep.csv").write_text("\n".join(rows[:-3]) + "\n")
    (tmp_path / "study.toml").write_text(text.replace('"tiny"', '"other"'))
    told = command("run", "study.toml", folder=tmp_path, code=2).stderr
    assert "21" in told and "24" in told and "mep.csv" in told


def test_cross_validation_chooses_the_hyperparameters(command, tmp_path):
    grids = {"dropout": [0.0, 0.4], "l1": [1e-4], "activation": ["relu", "elu"], "scaling": ["minmax", "standard"]}
    text = changed(TINY, validation__folds="2", validation__repeats="1", validation__search='"axes"')
    text = changed(text, **{f"validation__{name}_grid": json.dumps(values) for name, values in grids.items()})
    text = changed(text, inputs__kinds='["firing_rate"]', mappers__epochs="2", autoencoder__epochs="1")
    text = changed(text, validation__curve_trials="[8, 14]")
    (tmp_path / "study.toml").write_text(text)
    command("run", "study.toml", folder=tmp_path)
    results = open_results(tmp_path / "studies/tiny").load()
    assert results["cv_nrmse"].dims == ("input", "depth", "connection", "repeat", "fold", *grids)
    tried = np.isfinite(results["cv_nrmse"].isel(input=0, depth=0, connection=0, repeat=0, fold=0, l1=0).values)
    wanted = [[[1, 1], [1, 0]], [[1, 0], [0, 0]]]  # one change at a time: dropout, activation, scaling
    np.testing.assert_array_equal(tried, wanted)
    mean = results["cv_nrmse"].mean("fold", skipna=False).stack(choice=list(grids))
    for place in mean.drop_vars("choice").stack(cell=["input", "depth", "connection", "repeat"]).transpose("cell", ...):
        best = mean.indexes["choice"][int(np.nanargmin(place.values))]
        cell = {name: place[name].item() for name in ("input", "depth", "connection", "repeat")}
        assert best == tuple(results[f"{name}_selected"].sel(cell).item() for name in grids)
    # the learning curve: the chosen models on fewer trials, each subset's mean a predictor of its own
    assert np.isfinite(results["curve_nrmse"].values).all()
    curve = results["curve_baseline_nrmse"].isel(input=0, repeat=0)
    assert np.isfinite(curve.values).all() and (curve.sel(baseline="mean").diff("trials") != 0).all()
    np.testing.assert_allclose(
        curve.sel(baseline="best_possible") / curve.sel(baseline="best_possible").values[0], 1, atol=0.2
    )
    assert "nothing is left to do" in command("plan", "study.toml", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("validation__folds", "30", r"\[validation\] folds is 30, and 26 trials leave 21 to train on"),
        ("validation__curve_trials", "[50]", r"\[validation\] curve_trials asks for 50, and 26 trials leave 21"),
    ],
)
def test_too_few_trials_are_told_before_anything_is_solved(command, tmp_path, key, value, told):
    (tmp_path / "study.toml").write_text(changed(TINY, **{key: value}))
    assert re.search(told, command("plan", "study.toml", folder=tmp_path, code=2).stderr)


def test_a_failed_training_is_a_row_with_a_reason_and_can_be_tried_again(finished, command, tmp_path):
    """A rate at which every mapper's loss overflows: the baselines are still there, and the report names the runs."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "study.toml").write_text(changed(TINY, mappers__learning_rate="1e30"))
    done = command("run", "study.toml", folder=tmp_path, code=1)
    assert "12 failed" in done.stdout
    results = open_results(tmp_path / "studies/tiny")
    assert (results["status"] == 2).all() and np.isnan(results["nrmse"].values).all()
    assert all("loss became" in str(r) or "which failed" in str(r) for r in results["reason"].values.ravel())
    assert np.isfinite(results["baseline_nrmse"].values).all()
    told = command("status", "study.toml", "--failed", folder=tmp_path).stdout
    assert "diverged" in told and "--retry-failed" in told
    again = command("run", "study.toml", folder=tmp_path, code=1).stdout
    assert "train     0 trainings done" in again


def test_two_coordinators_of_one_study_are_not_possible(finished, command, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    from motorsweep.zarr_store.study import Study

    with Study(tmp_path / "studies/tiny").lock():
        told = command("run", "study.toml", folder=tmp_path, code=1).stderr
    assert f"process {os.getpid()}" in told


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(finished, command, tmp_path):
    """A real file system of 6 MB, where root can mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        (tmp_path / "study.toml").write_text(changed(TINY, top__folder=f'"{disk}/study"'))
        told = command("run", "study.toml", folder=tmp_path, code=1).stderr
        assert "disk" in told.lower() or "space" in told.lower()
        assert "Traceback" not in told
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        command("run", "study.toml", folder=tmp_path)
        left = files_of(Path(disk) / "study/results.zarr")
        assert left == files_of(finished[0] / "studies/tiny/results.zarr")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_real_head_and_coil_go_through_the_same_line(data_folder, command, tmp_path):
    """examples/real_head.toml at small size: the segmented head and the measured coil."""
    example = Path(__file__).resolve().parents[2] / "examples/real_head.toml"
    text = changed(example.read_text(), poses__grid="1", poses__random="5", stimulation__trials="[10, 10]")
    text = changed(text, stimulation__intensities_percent_rmt="[110, 130]", volume__n="32", volume__spacing_mm="2.0")
    text = changed(text, autoencoder__epochs="1", mappers__epochs="2", mappers__depths="[3]")
    text = changed(text, mappers__synergies="3", executor__kind='"serial"')
    (tmp_path / "study.toml").write_text(text)
    command.environment["MOTORSWEEP_DATA"] = str(data_folder)
    command("run", "study.toml", folder=tmp_path)
    volumes = open_volumes(tmp_path / "studies/real-head")
    assert volumes.attrs["notes"]["head_nodes"] == 319_704
    grey = volumes["e_norm"].isel(pose=0).values[volumes["tissue"].values == 2]
    # A published log of another solver: 99.9th percentile 1.35 V/m at 1 A/us in grey matter of another head.
    assert 0.7 < np.percentile(grey, 99.9) < 2.2
    assert (open_results(tmp_path / "studies/real-head")["status"] == 1).all()


def test_training_on_trials_of_other_settings_is_refused(finished, command, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "studies/tiny/results.zarr").stat().st_mtime_ns
    (tmp_path / "study.toml").write_text(changed(TINY, firing__e50_of_rmt="1.3"))
    for verb in ("encode", "train", "collect"):
        told = command(verb, "study.toml", folder=tmp_path, code=1).stderr
        assert "made with other settings" in told and "motorsweep simulate" in told
    assert (tmp_path / "studies/tiny/results.zarr").stat().st_mtime_ns == before


def test_failed_trainings_and_what_builds_on_them_are_tried_again(finished, command, tmp_path):
    """Synergy runs that failed once (written here, as a passing fault would) and the `both` runs above them."""
    from motorsweep.zarr_store.runs import list_records, write_failure

    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    study = tmp_path / "studies/tiny"
    for run_id, record in list_records(study):
        if record["labels"].get("connection") in ("synergy", "both"):
            (study / "runs" / run_id / "record.json").unlink()
            write_failure(study, run_id, {**record, "reason": "crashed: the worker died"})
    assert "8 failed" in command("run", "study.toml", folder=tmp_path, code=1).stdout
    assert "train     8 trainings done" in command("run", "study.toml", "--retry-failed", folder=tmp_path).stdout
    same_results(finished[0], tmp_path)


def test_lost_codes_are_made_again(finished, command, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    study = tmp_path / "studies/tiny"
    lost = next(p for p in (study / "codes.zarr").iterdir() if p.is_dir())
    shutil.rmtree(lost)
    assert "encode    1 autoencoders done" in command("run", "study.toml", folder=tmp_path).stdout
    assert lost.exists()
    same_results(finished[0], tmp_path)


def test_a_task_that_kills_its_worker_is_a_failed_row_and_the_rest_goes_on(finished, tmp_path):
    """The solve of one shard ends its process; the reason is in the store, and a retry mends it."""
    import dataclasses

    from motorsweep.hpc.simulate import shard_tasks, solve_shard, write_failed_shard
    from motorsweep.jobs.config import load_study_config
    from motorsweep.zarr_store.shards import pending_shards, reset_volumes
    from motorsweep.zarr_store.study import Study

    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    config = dataclasses.replace(load_study_config(tmp_path / "study.toml"), folder=str(tmp_path / "studies/tiny"))
    study = Study(config.folder)
    truth = open_volumes(study)["e_norm"].values
    reset_volumes(study, range(5, 10))
    (task,) = shard_tasks(study, config, pending_shards(study), "direct")
    write_failed_shard(task, "out_of_memory: poses 5:10: the worker died 2 times")
    volumes = open_volumes(study)
    assert (volumes["status"].values[5:10] == 2).all() and (volumes["status"].values[:5] == 1).all()
    assert "out_of_memory" in str(volumes["reason"].values[7])
    assert pending_shards(study) == [] and pending_shards(study, retry_failed=True) == [(5, 10)]
    assert solve_shard(task).failed == 0
    np.testing.assert_array_equal(open_volumes(study)["e_norm"].values, truth)


def test_a_lost_retry_keeps_the_poses_of_its_shard_that_were_done(finished, tmp_path):
    """One pose of a shard is to be tried again, and the worker dies over it: the other four stay as they are."""
    import dataclasses

    from motorsweep.hpc.simulate import shard_tasks, write_failed_shard
    from motorsweep.jobs.config import load_study_config
    from motorsweep.zarr_store.shards import pending_shards, reset_volumes
    from motorsweep.zarr_store.study import Study

    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    config = dataclasses.replace(load_study_config(tmp_path / "study.toml"), folder=str(tmp_path / "studies/tiny"))
    study = Study(config.folder)
    before = open_volumes(study).load()
    reset_volumes(study, [7])
    (task,) = shard_tasks(study, config, pending_shards(study), "direct")
    write_failed_shard(task, "crashed: poses 5:10: the worker died 2 times")
    after = open_volumes(study).load()
    others = np.arange(12) != 7
    assert after["status"].values.tolist() == [1] * 7 + [2] + [1] * 4
    for name in ("e_norm", "iterations", "residual", "seconds"):
        np.testing.assert_array_equal(after[name].values[others], before[name].values[others])
    assert [str(reason) for reason in after["reason"].values[others]] == [""] * 11
