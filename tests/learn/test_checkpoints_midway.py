"""A training that is stopped within an epoch, or dies there, goes on to the bits of one that ran through."""

import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from motorsweep.hpc.outcomes import attempt
from motorsweep.learn import checkpoints
from motorsweep.learn.checkpoints import StopRequested, forget_stop, request_stop, stop_requested
from motorsweep.learn.mappers import build_mapper
from motorsweep.learn.protocols import AutoencoderTraining, MapperTraining
from motorsweep.learn.training import fit_autoencoder, fit_mapper

EPOCHS, TRIALS, N = 3, 10, 8
STEPS = 3  # an epoch: batches of 4, 4 and 2
AUTOENCODER = AutoencoderTraining(epochs=EPOCHS, batch=4, decay_every=2)
MAPPER = MapperTraining(epochs=EPOCHS, batch=4, decay_every=2, dropout=0.3, protocol="released")


class Killed(Exception):
    pass


def train_autoencoder(checkpoint=None, at_step=lambda step: None, on_epoch=None):
    volumes, steps = np.random.default_rng(0).random((TRIALS, N, N, N), np.float32), []

    def read(rows):
        if steps or len(rows) > 1:  # not the first volume, which is read for the checkpoint's key
            at_step(len(steps))
        steps.append(rows)
        return volumes[rows]

    net, loss = fit_autoencoder(read, np.ones((N,) * 3), np.arange(TRIALS), AUTOENCODER, 5, checkpoint, on_epoch)
    return net, loss, len(steps) - 1


def train_mapper(checkpoint=None, at_step=lambda step: None, on_epoch=None):
    """With dropout, and batch-norm statistics that are running ones."""
    generator, steps = np.random.default_rng(0), []
    codes, targets = generator.random((TRIALS, N, N, N), np.float32), generator.random((TRIALS, 2), np.float32)

    def build():
        net = build_mapper(6, "direct", 2, n=N, dropout=0.3)
        net.layers[0].register_forward_pre_hook(lambda *_: (steps.append(1), at_step(len(steps))) and None)
        return net

    net, loss = fit_mapper(build, codes, targets, np.arange(TRIALS), MAPPER, 5, checkpoint, on_epoch)
    return net, loss, len(steps)


TRAININGS = {"autoencoder": train_autoencoder, "mapper": train_mapper}


@pytest.fixture(autouse=True)
def no_stop():
    yield
    forget_stop()


@pytest.fixture(scope="module", params=TRAININGS)
def training(request):
    train = TRAININGS[request.param]
    return train, *train()


def at(step, action):
    return lambda now: action() if now == step else None


def kill():
    raise Killed


def same(found, whole):
    pairs = zip(found[0].state_dict().values(), whole[0].state_dict().values(), strict=True)
    return found[1] == whole[1] and all(torch.equal(a, b) for a, b in pairs)


def state_of(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("step", [1, 2, STEPS, STEPS + 1, 3 * STEPS - 1])
def test_a_stop_is_heard_after_the_step_and_nothing_is_lost(training, step, tmp_path):
    train, *whole = training
    path, heard = tmp_path / "checkpoint.pt", []
    with pytest.raises(StopRequested):
        train(path, at(step, lambda: heard.append(request_stop())))
    assert heard == [True]
    state = state_of(path)
    assert (len(state["loss"]), state["step"]) == ((step - 1) // STEPS, (step - 1) % STEPS + 1)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]
    forget_stop()
    found = train(path)
    assert found[2] == whole[2] - step  # and no step is done twice
    assert same(found, whole)
    assert state_of(path)["generators"] == []


def test_stops_one_after_the_other(training, tmp_path):
    train, *whole = training
    path = tmp_path / "checkpoint.pt"
    for _ in range(4):
        with pytest.raises(StopRequested):
            train(path, at(2, request_stop))
        forget_stop()
    assert state_of(path)["step"] == 8 % STEPS
    assert same(train(path), whole)


def test_a_stop_is_heard_after_the_last_step_too(training, tmp_path):
    train, *whole = training
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StopRequested):
        train(path, on_epoch=lambda epoch, _: request_stop() if epoch == EPOCHS - 1 else None)
    forget_stop()
    found = train(path)
    assert found[2] == 0
    assert same(found, whole)


def test_a_stop_without_a_checkpoint_stops(training):
    with pytest.raises(StopRequested):
        training[0](None, at(1, request_stop))
    with pytest.raises(StopRequested):  # and so does the next training, until the process has ended
        training[0]()


def test_a_training_that_dies_goes_on_from_the_last_interval(training, tmp_path, monkeypatch):
    train, *whole = training
    path = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(path, at(2 * STEPS, kill))
    assert (len(state_of(path)["loss"]), state_of(path)["step"]) == (1, 2)
    found = train(path)
    assert found[2] == whole[2] - 2 * STEPS + 1
    assert same(found, whole)


def test_a_short_epoch_is_kept_at_its_end_alone(training, tmp_path):
    train, *whole = training
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train(path, at(2 * STEPS, kill))
    assert (len(state_of(path)["loss"]), state_of(path)["step"]) == (1, 0)
    found = train(path)
    assert found[2] == whole[2] - STEPS
    assert same(found, whole)


def test_a_checkpoint_of_the_older_form_holds_whole_epochs(training, tmp_path):
    train, *whole = training
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train(path, at(2 * STEPS, kill))
    state = state_of(path)
    torch.save({name: state[name] for name in ("key", "module", "optimizer", "loss")}, path)
    found = train(path)
    assert found[2] == whole[2] - STEPS
    assert same(found, whole)


@pytest.mark.parametrize("damage", ["truncated", "no generators", "bad generators", "other key"])
def test_a_damaged_checkpoint_within_an_epoch_starts_over(training, damage, tmp_path, caplog):
    train, *whole = training
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StopRequested):
        train(path, at(2, request_stop))
    forget_stop()
    state = state_of(path)
    spoiled = {"no generators": {"generators": []}, "bad generators": {"generators": ["?"]}, "other key": {"key": "x"}}
    torch.save(state | spoiled.get(damage, {}), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    with caplog.at_level(logging.WARNING):
        found = train(path)
    assert "starts at its first epoch" in caplog.text
    assert found[2] == whole[2]
    assert same(found, whole)


def test_who_asks_for_a_stop_is_told_whether_it_is_heard():
    assert not stop_requested()
    assert request_stop() is False
    assert stop_requested()
    forget_stop()
    assert not stop_requested()
    with pytest.raises(Killed):
        train_autoencoder(None, at(1, kill))
    assert request_stop() is False  # one that failed is not under way any more


def test_a_stop_is_no_failure_of_a_task():
    def task(_):
        raise StopRequested

    with pytest.raises(KeyboardInterrupt):
        attempt(task, "training")


SIGNALLED = """
import signal, sys
from motorsweep.learn.checkpoints import StopRequested, request_stop
signal.signal(signal.SIGUSR1, lambda *_: request_stop())
exec(open(sys.argv[1]).read())
slowly = lambda step: (print(step, flush=True), time.sleep(0.1))
try:
    train_mapper(sys.argv[2], slowly)
except StopRequested:
    sys.exit(75)
"""


def test_a_real_signal(tmp_path):
    path = tmp_path / "checkpoint.pt"
    program = [sys.executable, "-c", SIGNALLED, __file__, str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            while process.stdout.readline().strip() != "2":
                assert process.poll() is None
            time.sleep(0.02)
            process.send_signal(signal.SIGUSR1)
            assert process.wait(timeout=60) == 75
        finally:
            process.kill()
    assert 1 <= len(state_of(path)["loss"]) * STEPS + state_of(path)["step"] < EPOCHS * STEPS
    assert same(train_mapper(path), train_mapper())
