"""Nothing of a test trial touches what is fitted: garbage in the test trials leaves every fitted number bit-equal.

Each trial has a coil pose of its own here, so that its field, its coil position, its dI/dt and its responses can all be
spoiled; its intensity cannot, as it settles the split itself. One spoiled trial of each set, the witness, keeps its
field: whatever is predicted for it must be bit-equal, too, which covers all that a model holds.
"""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from motorsweep.hpc.encode import EncodeTask, SplitConfig, encode_run, split_of
from motorsweep.hpc.identity import autoencoder_training, mapper_training
from motorsweep.hpc.sweep import Sweep, validation_score
from motorsweep.hpc.train import TrainTask, train_run
from motorsweep.jobs.config import load_study_config
from motorsweep.learn.cells import CONNECTIONS, Cell, fit_cell
from motorsweep.learn.protocols import MapperTraining
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.codes import read_codes
from motorsweep.zarr_store.mocks import mock_trials
from motorsweep.zarr_store.runs import read_arrays, read_record
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.trials import open_trials, write_trials
from motorsweep.zarr_store.volumes import create_volumes, write_shard

pytestmark = pytest.mark.slow

TRIALS, N, CURVE = 24, 32, 9
STUDY = f"""name = "no-leak"
seed = 3
[responses]
muscles = ["FDI", "APB", "ADM"]
[volume]
n = {N}
[autoencoder]
epochs = 1
batch = 8
[mappers]
depths = [3]
epochs = 2
batch = 8
synergies = 2
[validation]
repeats = 1
test_fraction = 0.2
folds = 2
l1_grid = [1e-4, 1e-1]
curve_trials = [{CURVE}]
"""
TRIALS_ID = "0123456789abcdef"
ON_EVALUATION = ("measured", "nrmse_muscle", "prediction_best_possible")  # what the evaluation trials themselves are


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "study.toml"
    path.write_text(STUDY)
    return load_study_config(path)


def make_study(folder, spoiled=(), witness=None):
    """A study of mock fields and trials; the spoiled trials hold garbage, of the witness only the responses do."""
    generator, garbage = np.random.default_rng(1), np.random.default_rng(2)
    grid = VolumeGrid((0.0, 0.0, 0.07), spacing_m=2e-3, n=N)
    matrices = np.tile(np.eye(4), (TRIALS, 1, 1))
    matrices[:, :3, 3] = generator.uniform(-0.02, 0.02, (TRIALS, 3)) + np.array([0, 0, 0.09])
    x, y, z = np.meshgrid(*grid.axes(), indexing="ij")
    distance = [(x - m[0, 3]) ** 2 + (y - m[1, 3]) ** 2 + (z - m[2, 3]) ** 2 for m in matrices]
    e_norm = np.array([np.exp(-d / (2 * 0.03**2)) for d in distance], np.float32)
    trials = mock_trials(trials=TRIALS, poses=TRIALS)
    trials["pose_index"].values[:] = np.arange(TRIALS)
    inputs = [trial for trial in spoiled if trial != witness]
    e_norm[inputs] = 1e3 * garbage.random(e_norm[inputs].shape, np.float32)
    matrices[inputs, :3, 3] = garbage.uniform(-5, 5, (len(inputs), 3))
    trials["didt"].values[inputs] *= 7.0
    for name, size in (("response", 50.0), ("expected_response", 3.0)):
        trials[name].values[list(spoiled)] = size * garbage.random((len(spoiled), 3))
    study = Study(folder)
    mask = np.linalg.norm(np.stack([x, y, z - 0.07]), axis=0) < 0.03
    attrs = {"head_id": "head", "coil_id": "coil", "config": {}, "frame": "head"}
    tissue = np.full((N,) * 3, 2, np.uint8)
    create_volumes(study, grid=grid, poses=matrices, shard=TRIALS, attrs=attrs, tissue=tissue, motor_mask=mask)
    write_shard(study, 0, e_norm, [Status.DONE] * TRIALS)
    write_trials(study, trials)
    return study


def split_config(config):
    validation = config.validation
    return SplitConfig(test_fraction=validation.test_fraction, folds=validation.folds, seed=config.seed)


def rows_of(study, config, run):
    return split_of(run, split_config(config), open_trials(study)["intensity_percent_rmt"].values)


def encode(study, config, runs):
    for run in runs:
        encode_run(EncodeTask(
            study=str(study.folder), run=run, training=autoencoder_training(config), split=split_config(config)
        ))  # fmt: skip


def train(study, config, runs):
    for run in sorted(runs, key=lambda run: len(run.needs)):  # "both" after the synergy run that it needs
        train_run(TrainTask(
            study=str(study.folder), run=run, training=mapper_training(config), split=split_config(config)
        ))  # fmt: skip


def run_all(study, config):
    """Every run of the study, as the stages make them; also the hyper-parameters that the validation chose."""
    sweep = Sweep(config, TRIALS_ID)
    encode(study, config, sweep.autoencoders)
    train(study, config, sweep.validation)
    chosen = sweep.choose(lambda run_id: validation_score(study, run_id))
    final = list(sweep.final(chosen).values())
    curve = list(sweep.curve().values())
    mappers = {run.id: run for run in (*final, *curve, *sweep.below(final), *sweep.below(curve))}
    done = {run.id for run in sweep.validation}
    train(study, config, [*sweep.baselines, *sweep.curve_baselines, *(r for r in mappers.values() if r.id not in done)])
    runs = {run.id: run for run in (*sweep.autoencoders, *sweep.validation, *sweep.baselines, *sweep.curve_baselines)}
    return runs | mappers, chosen


def fitted_numbers(study, config, run, witness):
    """All that the run's training trials settle, by name: bytes, or plain values of its record."""
    training, evaluate = rows_of(study, config, run)
    seen, at = np.append(training, witness), np.flatnonzero(evaluate == witness)
    record, arrays = read_record(study, run.id), read_arrays(study, run.id)
    numbers = {"loss": record["loss"] if run.kind != "baseline" else None}
    for name, values in arrays.items():
        if name == "prediction_all":
            values = values[seen]
        elif name.startswith(("prediction", "sd_")) and len(values) == len(evaluate):
            values = values[at]
        if not name.startswith(ON_EVALUATION):
            numbers[name] = values.tobytes()
    if run.kind == "autoencoder":
        numbers["codes"] = read_codes(study, run.id)[seen].tobytes()
    if run.kind == "mapper":
        numbers |= {name: value for name, value in record["scores"].items() if name not in ("nrmse", "r2")}
    if run.kind != "baseline":
        state = torch.load(study.checkpoint(run.id), weights_only=True)
        numbers |= {f"weights {name}": tensor.numpy().tobytes() for name, tensor in state["module"].items()}
    return numbers


def assert_same(one, other, config, runs, witness):
    for run in runs:
        left, right = (fitted_numbers(study, config, run, witness) for study in (one, other))
        assert left.keys() == right.keys()
        assert [name for name in left if left[name] != right[name]] == [], run.name


@pytest.fixture(scope="module")
def clean(tmp_path_factory, config):
    study = make_study(tmp_path_factory.mktemp("clean"))
    runs, chosen = run_all(study, config)
    return SimpleNamespace(study=study, runs=runs, chosen=chosen, sweep=Sweep(config, TRIALS_ID))


def test_test_trials_touch_no_fitted_number(clean, config, tmp_path):
    final = [run for run in clean.runs.values() if run.fold is None]
    _, test = rows_of(clean.study, config, final[0])
    witness = test[0]
    spoiled = make_study(tmp_path, test, witness)
    runs, chosen = run_all(spoiled, config)
    assert runs.keys() == clean.runs.keys()
    assert chosen == clean.chosen
    assert_same(clean.study, spoiled, config, final, witness)
    for run in runs.values():
        if run.fold is not None and run.kind == "mapper":  # the whole cross-validation, its scores included
            assert read_record(spoiled, run.id)["scores"] == read_record(clean.study, run.id)["scores"], run.name
            assert read_record(spoiled, run.id)["loss"] == read_record(clean.study, run.id)["loss"], run.name
    # the garbage did arrive where it belongs
    for run in final:
        if run.kind == "mapper":
            scores = [read_record(study, run.id)["scores"]["nrmse"] for study in (clean.study, spoiled)]
            assert scores[0] != scores[1]


def test_validation_trials_touch_no_fitted_number_of_their_fold(clean, config, tmp_path):
    folds = [run for run in clean.runs.values() if run.fold == 0]
    training, validation = rows_of(clean.study, config, folds[0])
    witness = validation[0]
    spoiled = make_study(tmp_path, np.setdiff1d(np.arange(TRIALS), training), witness)
    encode(spoiled, config, [run for run in folds if run.kind == "autoencoder"])
    train(spoiled, config, [run for run in folds if run.kind == "mapper"])
    assert {run.kind for run in folds} == {"autoencoder", "mapper"}
    assert_same(clean.study, spoiled, config, folds, witness)


def test_responses_beyond_a_learning_curves_trials_touch_no_fitted_number(clean, config, tmp_path):
    """The curve's models know the fields of all calibration trials, yet the responses of the labelled ones alone."""
    curve = [run for run in clean.runs.values() if run.trials is not None]
    labelled, test = rows_of(clean.study, config, curve[0])
    assert len(labelled) == CURVE
    spoiled = Study(tmp_path / "spoiled")
    shutil.copytree(clean.study.folder, spoiled.folder)
    shutil.rmtree(spoiled.runs)
    trials = open_trials(spoiled).load()
    others = np.setdiff1d(np.arange(TRIALS), labelled)
    for name in ("response", "expected_response"):
        trials[name].values[others] = 9.0 * np.random.default_rng(4).random((len(others), 3))
    write_trials(spoiled, trials)
    train(spoiled, config, curve)
    assert {run.kind for run in curve} == {"baseline", "mapper"}
    assert_same(clean.study, spoiled, config, curve, test[0])


def test_a_training_trial_does_touch_them(clean, config, tmp_path):
    """The guard itself: one spoiled training trial shows in the scaling, the weights, the loss and the codes."""
    run = clean.sweep.autoencoders[-1]
    training, test = rows_of(clean.study, config, run)
    spoiled = make_study(tmp_path, training[:1])
    encode(spoiled, config, [run])
    left, right = (fitted_numbers(study, config, run, test[0]) for study in (clean.study, spoiled))
    # the lowest firing rate is 0 with garbage and without
    assert {name for name in left if left[name] == right[name]} <= {"weights mask", "scaling_offset"}


def fit_other(codes, responses, train, evaluate, connection, folder):
    """A cell of the released protocol with all that the study above leaves at its default; its numbers by name."""
    config = MapperTraining(protocol="released", epochs=2, batch=8, synergies=0, synergy_vaf=0.9)
    cell = Cell(depth=6, connection=connection, activation="elu", scaling="standard")
    synergy = None
    if connection == "both":
        below = Cell(depth=6, connection="synergy", activation="elu", scaling="standard")
        synergy = fit_cell(codes, responses, train, evaluate, below, config, 1).arrays
    result = fit_cell(codes, responses, train, evaluate, cell, config, 1, synergy, checkpoint=folder / "checkpoint.pt")
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["module"]
    numbers = {name: tensor.numpy().tobytes() for name, tensor in weights.items()} | {"loss": result.loss}
    numbers |= {name: value for name, value in result.scores.items() if name not in ("nrmse", "r2")}
    fitted = ("response_minimum", "response_range", "synergy_basis")
    numbers |= {name: result.arrays[name].tobytes() for name in fitted if name in result.arrays}
    return numbers | {"predictions": result.arrays["prediction_all"][train].tobytes()}


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_the_other_protocol_sees_no_evaluation_trial_either(connection, tmp_path):
    """Nor a trial of neither set, as a test trial is in the cross-validation."""
    generator = np.random.default_rng(6)
    codes, responses = generator.standard_normal((30, 8, 8, 8)).astype(np.float32), generator.gamma(2.0, 1e-4, (30, 4))
    train, evaluate = np.arange(20), np.arange(20, 26)
    folders = [tmp_path / name for name in ("clean", "spoiled")]
    for folder in folders:
        folder.mkdir()
    clean = fit_other(codes, responses, train, evaluate, connection, folders[0])
    codes[20:], responses[20:] = 1e6 * codes[20:], generator.random((10, 4))
    assert fit_other(codes, responses, train, evaluate, connection, folders[1]) == clean
