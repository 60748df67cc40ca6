"""A small volume store and a small set of run records, made with the real writers."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.results import ResultPlan
from motorsweep.zarr_store.runs import write_failure, write_run
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import create_volumes

N, SHARD, POSES = 6, 4, 18  # the last shard is short: 16:18


def field_of(pose):
    """|E| of a pose in the tests: every voxel of every pose has a value of its own."""
    return (pose * 1000 + np.arange(N**3)).reshape(N, N, N).astype(np.float32)


def make_volumes(folder, *, grid=None, poses=POSES, shard=SHARD, attrs=None, mask=True, **more):
    grid = grid or VolumeGrid((0.01, -0.02, 0.05), spacing_m=2e-3, n=N)
    matrices = np.tile(np.eye(4), (poses, 1, 1))
    matrices[:, 0, 3] = np.arange(poses) * 1e-3
    attrs = attrs or {"head_id": "head-a", "coil_id": "coil-a", "config": {"solver": {"rtol": 1e-10}}, "frame": "head"}
    tissue = np.full((grid.n,) * 3, 2, np.uint8)
    return create_volumes(
        folder, grid=grid, poses=matrices, shard=shard, attrs=attrs, tissue=tissue,
        motor_mask=np.full((grid.n,) * 3, mask), **more,
    )  # fmt: skip


def run_python(code, *arguments):
    """Start another Python process on `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


MUSCLES, TESTS, SYNERGIES = ("FDI", "APB", "ADM"), 4, 2
CELLS = [("e_norm", d, c, r) for d in (3, 6) for c in ("direct", "synergy") for r in (0, 1)]


def cell_record(key, fold=None, dropout=0.15, l1=1e-4):
    labels = dict(zip(("input", "depth", "connection", "repeat"), key))
    labels |= {"fold": fold, "dropout": dropout, "l1": l1, "activation": "relu", "scaling": "minmax"}
    rng = np.random.default_rng([key[1], len(key[2]), key[3]])
    scores = {"nrmse": rng.uniform(), "nrmse_train": 0.1, "r2": 0.5, "bic": 1e6, "aicc": float("nan"),
              "criteria_valid": False, "n_parameters": 140175, "residual_variance": 1e-3}  # fmt: skip
    return {"kind": "mapper", "spec": {"labels": labels}, "labels": labels, "scores": scores, "loss": [1.0, 0.5],
            "seconds": rng.uniform(), "started": "2026-01-01", "provenance": {"host": "anywhere"}}  # fmt: skip


def cell_arrays(key):
    rng = np.random.default_rng([7, key[1], key[3]])
    shared = np.random.default_rng([11, key[3]])
    arrays = {
        "evaluate": np.sort(shared.permutation(40)[:TESTS]),
        "measured": shared.uniform(size=(TESTS, len(MUSCLES))),
        "response_minimum": shared.uniform(size=len(MUSCLES)),
        "response_range": shared.uniform(size=len(MUSCLES)),
        "prediction": rng.uniform(size=(TESTS, len(MUSCLES))),
        "nrmse_muscle": rng.uniform(size=len(MUSCLES)),
    }
    return arrays | ({"synergy_basis": shared.uniform(size=(len(MUSCLES), SYNERGIES))} if key[2] == "synergy" else {})


def baseline_record(repeat):
    labels = {"input": "e_norm", "repeat": repeat, "fold": None}
    return {"kind": "baseline", "spec": {"baseline": labels}, "labels": labels, "scores": {"mean": 0.9, "ridge": 0.8}}


def baseline_arrays(repeat):
    rng = np.random.default_rng([13, repeat])
    names = ("mean", "ridge")
    return {f"prediction_{name}": rng.uniform(size=(TESTS, len(MUSCLES))) for name in names} | {
        f"nrmse_muscle_{name}": rng.uniform(size=len(MUSCLES)) for name in names
    }


def make_plan(**more):
    runs = {key: content_id(cell_record(key)["spec"]) for key in CELLS}
    runs |= {("e_norm", repeat): content_id(baseline_record(repeat)["spec"]) for repeat in (0, 1)}
    axes = {"inputs": ("e_norm",), "depths": (3, 6), "connections": ("direct", "synergy"), "repeats": (0, 1)}
    return ResultPlan(**{**axes, "muscles": MUSCLES, "runs": runs, **more})


def write_records(study, keys, failed=()):
    for key in keys:
        if len(key) == 2:
            record = baseline_record(key[1])
            write_run(study, content_id(record["spec"]), record, baseline_arrays(key[1]))
            continue
        record = cell_record(key)
        run_id = content_id(record["spec"])
        if key in failed:
            write_failure(study, run_id, {**record, "reason": "diverged: the loss is not finite"})
        else:
            write_run(study, run_id, record, cell_arrays(key))


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "a study")


@pytest.fixture
def small():
    """What the tests of this folder share."""
    return SimpleNamespace(
        field_of=field_of, make_volumes=make_volumes, run_python=run_python, N=N, SHARD=SHARD, POSES=POSES, CELLS=CELLS,
        cell_record=cell_record, cell_arrays=cell_arrays, make_plan=make_plan, write_records=write_records,
        BASELINES=[("e_norm", 0), ("e_norm", 1)],
    )  # fmt: skip
