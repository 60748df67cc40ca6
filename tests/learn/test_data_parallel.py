"""One training on several ranks, each a real process, against the same training in this process alone."""

import shutil

import numpy as np
import pytest
import torch
from motorsweep.errors import ConvergenceError
from motorsweep.learn.communicator import Communicator
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.codes import read_codes
from motorsweep.zarr_store.mocks import mock_trials
from motorsweep.zarr_store.runs import read_record
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.trials import write_trials
from motorsweep.zarr_store.volumes import create_volumes, write_shard

pytestmark = pytest.mark.slow

# Everything that ranks and this process share. 9 trials in batches of 4: the last batch has 1, so that of 2 ranks one
# and of 3 ranks two have no part of it.
COMMON = """
import numpy as np
import torch
from torch.nn import functional
from motorsweep.learn import checkpoints
from motorsweep.learn.autoencoder import build_autoencoder
from motorsweep.learn.communicator import Communicator
from motorsweep.learn.epochs import seeded, train_epochs
from motorsweep.learn.protocols import AutoencoderTraining
from motorsweep.learn.scaling import fit_scaling
from motorsweep.learn.training import fit_autoencoder

N, TRIALS = 16, 12
ROWS = np.array([0, 1, 3, 4, 6, 7, 9, 10, 11])
CONFIG = AutoencoderTraining(epochs=4, batch=4, decay_every=2, l1=1e-3)

def make_volumes():
    generator, axis = np.random.default_rng(0), np.linspace(-1, 1, N)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    mask = (x**2 + y**2 + z**2 < 0.9).astype(np.float32)
    places = generator.uniform(-0.5, 0.5, (TRIALS, 2))
    heights = generator.uniform(60, 150, TRIALS)
    fall = [np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - 1) ** 2) / 0.5) for a, b in places]
    return (np.array([h * f for h, f in zip(heights, fall)]) * mask).astype(np.float32), mask

def train_double(communicator, hook=lambda rows: None, seed=7, checkpoint=None, rate=0.1, loss=functional.mse_loss):
    volumes, mask = make_volumes()
    scaled = torch.from_numpy(volumes).double()[:, None] / 150
    net = seeded(seed, lambda: build_autoencoder(N, torch.from_numpy(mask))).double()
    config = AutoencoderTraining(epochs=4, batch=4, decay_every=2, l1=1e-3, learning_rate=rate)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    kernels = [layer.weight for layer in net.convolutions()]
    def inputs(rows):
        hook(rows)
        return (scaled[rows],)
    error = lambda x: loss(net(x), x)
    found = train_epochs(net, optimizer, kernels, inputs, error, ROWS, config, seed, "key", checkpoint, None,
                         communicator=communicator)
    return {"loss": found, "weights": net.state_dict()}

def train_single(communicator, volumes=None, checkpoint=None):
    made, mask = make_volumes()
    scaling = fit_scaling(made, rows=ROWS)
    volumes = made if volumes is None else volumes
    net, found = fit_autoencoder(volumes, mask, ROWS, CONFIG, 7, checkpoint, None, scaling, communicator=communicator)
    return {"loss": found, "weights": net.state_dict()}
"""

BOTH = (
    COMMON
    + """
def main(communicator, folder):
    return {"double": train_double(communicator), "single": train_single(communicator)}
"""
)


@pytest.fixture(scope="module")
def common():
    names = {}
    exec(COMMON, names)
    return names


@pytest.fixture(scope="module")
def alone(common):
    communicator = Communicator()
    return {"double": common["train_double"](communicator), "single": common["train_single"](communicator)}


def deviation(one, other):
    """Largest difference of any weight, relative to the largest weight of its tensor."""
    parts = zip(one["weights"].values(), other["weights"].values(), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in parts)


def check(answers, alone):
    for told in answers:
        assert told["double"]["weights"]["code.weight"].dtype == torch.float64
        assert deviation(told["double"], alone["double"]) < 1e-12
        np.testing.assert_allclose(told["double"]["loss"], alone["double"]["loss"], rtol=1e-12)
        assert told["single"]["weights"]["code.weight"].dtype == torch.float32
        assert deviation(told["single"], alone["single"]) < 1e-5  # measured: 2e-6 after 12 steps
        np.testing.assert_allclose(told["single"]["loss"], alone["single"]["loss"], rtol=1e-5)
        for precision in ("double", "single"):
            assert deviation(told[precision], answers[0][precision]) == 0.0
            assert told[precision]["loss"] == answers[0][precision]["loss"]


@pytest.mark.parametrize("size", [2, 3])
def test_weights_are_those_of_one_process(on_ranks, alone, size):
    check(on_ranks("torch", size, BOTH), alone)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_weights_are_those_of_one_process_on_horovod(on_ranks, alone, size):
    check(on_ranks("horovod", size, BOTH), alone)


def test_training_does_train(alone):
    for told in alone.values():
        assert told["loss"][-1] < 0.9 * told["loss"][0]


FAULTS = (
    COMMON
    + """
from motorsweep.errors import InputError

def raised(action):
    try:
        action()
    except (Exception, KeyboardInterrupt) as error:
        return [type(error).__name__, str(error)]

def main(communicator, folder):
    rank, told = communicator.rank, {}
    volumes, _ = make_volumes()
    for name, value in (("input", np.nan), ("huge", 3e38)):
        bad = volumes.copy()
        bad[9, 8, 8, 8] = value
        told[name] = raised(lambda: train_single(communicator, bad))
    told["exploding"] = raised(lambda: train_double(communicator, rate=1e9))
    only_here = lambda x, y: functional.mse_loss(x, y) * (float("nan") if rank == 1 else 1.0)
    told["nan on rank 1"] = raised(lambda: train_double(communicator, loss=only_here))
    told["other start"] = raised(lambda: train_double(communicator, seed=7 + rank))
    def out_of_memory(rows):
        if rank == 1:
            raise MemoryError("no room for a batch")
    told["memory"] = raised(lambda: train_double(communicator, out_of_memory))
    (folder / "file").write_text("")
    told["disk"] = raised(lambda: train_double(communicator, checkpoint=folder / "file" / "checkpoint.pt"))
    checkpoints.CHECKPOINT_SECONDS = 0.0
    told["disk in an epoch"] = raised(lambda: train_double(communicator, checkpoint=folder / "file" / "checkpoint.pt"))
    communicator.barrier()
    return told
"""
)


def test_what_one_rank_meets_all_raise(on_ranks):
    answers = on_ranks("torch", 2, FAULTS)
    assert answers[0] == answers[1]
    told = answers[0]
    assert told["input"][0] == "InputError" and "trial 9 holds values that are not finite" in told["input"][1]
    for name in ("huge", "exploding", "nan on rank 1"):
        assert told[name][0] == ConvergenceError.__name__
        assert "the loss became" in told[name][1]
    assert told["other start"][0] == "InputError" and "rank 1 are not those of rank 0" in told["other start"][1]
    assert told["memory"] == ["MemoryError", "no room for a batch"]
    assert told["disk"][0] == told["disk in an epoch"][0] == "FileExistsError"


STOPS = (
    COMMON
    + """
def stopped_at(step, communicator, checkpoint):
    steps = []
    def hook(rows):
        steps.append(rows)
        if len(steps) == step and communicator.rank == communicator.size - 1:
            assert checkpoints.request_stop()
    try:
        train_double(communicator, hook, checkpoint=checkpoint)
    except checkpoints.StopRequested:
        checkpoints.forget_stop()
        return len(steps)

def main(communicator, folder):
    told = {"whole": train_double(communicator)}
    for step in (1, 2, 5):
        path = folder / "kept" / f"{step}.pt"
        told[f"stopped {step}"] = stopped_at(step, communicator, path)
        told[f"resumed {step}"] = train_double(communicator, checkpoint=path)
    path = folder / "kept" / "for-one.pt"
    stopped_at(4, communicator, path)
    told["files"] = sorted(each.name for each in (folder / "kept").iterdir())
    return told
"""
)


def test_a_stop_on_one_rank_stops_all_and_they_go_on_to_the_same_bits(on_ranks, alone, common, tmp_path):
    answers = on_ranks("torch", 2, STOPS)
    for told in answers:
        for step in (1, 2, 5):
            assert deviation(told[f"resumed {step}"], answers[0]["whole"]) == 0.0
            assert told[f"resumed {step}"]["loss"] == answers[0]["whole"]["loss"]
    # the last rank has no part of the third batch of an epoch
    assert [answers[1][f"stopped {step}"] for step in (1, 2, 5)] == [1, 2, 5]
    assert [answers[0][f"stopped {step}"] for step in (1, 2, 5)] == [1, 2, 7]
    assert answers[0]["files"] == ["1.pt", "2.pt", "5.pt", "for-one.pt"]
    # what two ranks began one process may end
    ended = common["train_double"](Communicator(), checkpoint=tmp_path / "ranks" / "kept" / "for-one.pt")
    assert deviation(ended, alone["double"]) < 1e-12


ENCODE = """
from motorsweep.hpc.encode import EncodeTask, SplitConfig, encode_run
from motorsweep.hpc.identity import autoencoder_training
from motorsweep.hpc.sweep import Sweep
from motorsweep.jobs.config import load_study_config

def main(communicator, folder):
    config = load_study_config(folder.parent / "study.toml")
    run = Sweep(config, "0123456789abcdef").autoencoders[0]
    split = SplitConfig(test_fraction=0.2, folds=2, seed=3)
    study = folder.parent / ("together" if communicator.size > 1 else "alone")
    task = EncodeTask(study=str(study), run=run, training=autoencoder_training(config), split=split)
    assert encode_run.data_parallel
    loss = encode_run(task, communicator)
    assert encode_run(task, communicator) == loss  # nothing is left to do, and nobody waits for ever
    return {"loss": loss, "run": run.id}
"""

STUDY = """name = "ranks"
seed = 3
[responses]
muscles = ["FDI", "APB", "ADM"]
[volume]
n = 32
[autoencoder]
epochs = 2
batch = 8
[mappers]
synergies = 2
[validation]
repeats = 1
test_fraction = 0.2
folds = 2
"""


def make_study(folder, trials=23, n=32):
    generator, study = np.random.default_rng(1), Study(folder)
    matrices = np.tile(np.eye(4), (trials, 1, 1))
    matrices[:, :3, 3] = generator.uniform(-0.02, 0.02, (trials, 3)) + np.array([0, 0, 0.09])
    grid = VolumeGrid((0.0, 0.0, 0.07), spacing_m=2e-3, n=n)
    x, y, z = np.meshgrid(*grid.axes(), indexing="ij")
    at = [(x - m[0, 3]) ** 2 + (y - m[1, 3]) ** 2 + (z - m[2, 3]) ** 2 for m in matrices]
    mask = np.linalg.norm(np.stack([x, y, z - 0.07]), axis=0) < 0.03
    attrs = {"head_id": "head", "coil_id": "coil", "config": {}, "frame": "head"}
    tissue = np.full((n,) * 3, 2, np.uint8)
    create_volumes(study, grid=grid, poses=matrices, shard=trials, attrs=attrs, tissue=tissue, motor_mask=mask)
    write_shard(study, 0, np.array([np.exp(-d / (2 * 0.03**2)) for d in at], np.float32), [Status.DONE] * trials)
    write_trials(study, mock_trials(trials=trials, poses=trials))


def test_an_autoencoder_of_a_study_is_trained_by_ranks(on_ranks, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    make_study(tmp_path / "alone")
    shutil.copytree(tmp_path / "alone", tmp_path / "together")
    (alone,) = on_ranks("torch", 1, ENCODE, "one")
    answers = on_ranks("torch", 2, ENCODE, "two")
    run = alone["run"]
    assert answers[0] == answers[1]
    np.testing.assert_allclose(answers[0]["loss"], alone["loss"], rtol=1e-5)
    one, two = (Study(tmp_path / name) for name in ("alone", "together"))
    np.testing.assert_allclose(read_codes(two, run), read_codes(one, run), rtol=1e-4, atol=1e-5)
    records = [read_record(study, run) for study in (one, two)]
    assert "ranks" not in records[0]["provenance"]
    assert records[1]["provenance"]["ranks"] == 2
    assert records[1]["status"] == "done"
    np.testing.assert_allclose(records[1]["loss"], records[0]["loss"], rtol=1e-5)
    names = [sorted(each.name for each in study.run(run).rglob("*")) for study in (one, two)]
    assert names[0] == names[1]
