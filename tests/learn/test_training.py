import logging

import numpy as np
import pytest
import torch
from motorsweep.errors import ConvergenceError, InputError
from motorsweep.learn.mappers import build_mapper
from motorsweep.learn.scaling import fit_scaling
from motorsweep.learn.training import (
    AutoencoderTraining,
    MapperTraining,
    encode_volumes,
    fit_autoencoder,
    fit_mapper,
    thread_limit,
)


def sparse_volumes(trials, n, seed=0):
    """Smooth bumps at changing places inside a spherical mask, zero outside, as |E| in the motor cortex."""
    generator = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, n)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    mask = (x**2 + y**2 + z**2 < 0.9).astype(np.float32)
    volumes = np.empty((trials, n, n, n), np.float32)
    for volume in volumes:
        a, b = generator.uniform(-0.5, 0.5, 2)
        fall = np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - 1) ** 2) / 0.5)
        volume[:] = generator.uniform(60, 150) * fall * mask
    return volumes, mask


class Interrupted(Exception):
    pass


def stop_after(epoch):
    def on_epoch(done, loss):
        if done == epoch:
            raise Interrupted

    return on_epoch


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def volumes():
    return sparse_volumes(10, 16)


AE = AutoencoderTraining(epochs=4, batch=4, decay_every=2)
ROWS = np.array([0, 1, 3, 4, 6, 7, 9])


@pytest.fixture(scope="module")
def undisturbed(volumes):
    scaling = fit_scaling(volumes[0], rows=ROWS)
    return scaling, *fit_autoencoder(*volumes, ROWS, AE, seed=7, scaling=scaling)


def test_autoencoder_resumes_to_the_same_bits(volumes, undisturbed, tmp_path):
    scaling, net, loss = undisturbed
    path = tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(Interrupted):
        fit_autoencoder(*volumes, ROWS, AE, 7, path, stop_after(1), scaling)
    seen = []
    resumed, resumed_loss = fit_autoencoder(*volumes, ROWS, AE, 7, path, lambda e, _: seen.append(e), scaling)
    assert seen == [2, 3]
    assert resumed_loss == loss
    assert same_bits(resumed, net)
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_autoencoder_never_reads_other_rows(volumes, undisturbed):
    scaling, net, loss = undisturbed
    poisoned = volumes[0].copy()
    poisoned[np.setdiff1d(np.arange(10), ROWS)] = 1e30
    assert fit_scaling(poisoned, rows=ROWS) == scaling
    other, other_loss = fit_autoencoder(poisoned, volumes[1], ROWS, AE, 7, scaling=scaling)
    assert same_bits(other, net)
    assert other_loss == loss


def test_a_callable_gives_the_same_bits_as_an_array(volumes, undisturbed):
    scaling, net, _ = undisturbed
    other, _ = fit_autoencoder(lambda rows: volumes[0][rows], volumes[1], ROWS, AE, 7, scaling=scaling)
    assert same_bits(other, net)


def test_global_generator_and_threads_are_left_alone(volumes):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    fit_autoencoder(*volumes, ROWS[:2], AutoencoderTraining(epochs=1), seed=1)
    with thread_limit(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "other training", "other net"])
def test_a_useless_checkpoint_is_ignored_with_a_warning(damage, volumes, undisturbed, tmp_path, caplog):
    scaling, net, _ = undisturbed
    path = tmp_path / "checkpoint.pt"
    config = AutoencoderTraining(epochs=1, batch=4)
    fit_autoencoder(*volumes, ROWS, config if damage == "other training" else AE, 7, path, scaling=scaling)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3000])
    elif damage == "garbage":
        path.write_bytes(b"not a checkpoint")
    elif damage == "other net":
        state = torch.load(path, weights_only=True)
        state["module"]["output.weight"] = torch.zeros(2, 2)  # the last layers, after the rest has been copied
        torch.save(state, path)
    with caplog.at_level(logging.WARNING):
        again, _ = fit_autoencoder(*volumes, ROWS, AE, 7, path, scaling=scaling)
    assert "starts at its first epoch" in caplog.text
    assert same_bits(again, net)


@pytest.mark.parametrize("batch", [4, 32])
def test_the_paper_s_rate_rebuilds_sparse_volumes_without_diverging(batch):
    volumes, mask = sparse_volumes(40, 16)
    scaling = fit_scaling(volumes)
    config = AutoencoderTraining(epochs=25, batch=batch)
    _, loss = fit_autoencoder(volumes, mask, None, config, seed=1, scaling=scaling)
    scaled = scaling.apply(volumes)
    assert np.isfinite(loss).all()
    assert max(loss) <= (scaled**2).mean()  # never worse than an empty volume
    assert loss[-1] < 0.5 * scaled.var(axis=0).mean()  # and in the end it knows more than the mean volume


def test_rate_steps_down(volumes):
    """With a decay of zero nothing moves after the first step of the schedule."""
    config = AutoencoderTraining(epochs=1, batch=4, momentum=0.0)
    scaling = fit_scaling(volumes[0], rows=ROWS)
    one, _ = fit_autoencoder(*volumes, ROWS, config, seed=1, scaling=scaling)
    frozen = AutoencoderTraining(epochs=3, batch=4, momentum=0.0, decay=0.0, decay_every=1)
    three, _ = fit_autoencoder(*volumes, ROWS, frozen, seed=1, scaling=scaling)
    assert same_bits(one, three)


def test_exploding_loss_says_what_to_do(volumes):
    config = AutoencoderTraining(epochs=20, batch=2, learning_rate=1e6)
    with pytest.raises(ConvergenceError, match=r"epoch \d+ of 20: the loss became .* lower learning_rate"):
        fit_autoencoder(*volumes, ROWS, config, seed=1)


def test_volume_that_is_not_finite_or_not_on_the_grid_is_named(volumes):
    bad = volumes[0].copy()
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="trial 3 holds values that are not finite"):
        fit_autoencoder(bad, volumes[1], ROWS, AE, seed=1)
    with pytest.raises(InputError, match=r"trial 0 has shape \(16, 16, 16\).*\(8, 8, 8\)"):
        fit_autoencoder(volumes[0], np.ones((8, 8, 8)), ROWS, AE, seed=1)


def test_codes_of_some_rows_are_those_of_all(volumes, undisturbed):
    scaling, net, _ = undisturbed
    codes = encode_volumes(net, volumes[0], scaling=scaling)
    assert codes.shape == (10, 4, 4, 4) and codes.dtype == np.float32
    np.testing.assert_allclose(encode_volumes(net, volumes[0], [8, 2], scaling), codes[[8, 2]], rtol=1e-5, atol=1e-6)
    assert codes.std() > 0


MAP = MapperTraining(epochs=4, batch=8, decay_every=2)


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(0)
    codes = generator.random((24, 8, 8, 8)).astype(np.float32)
    return codes, np.stack([codes[:, :4].mean((1, 2, 3)), codes[:, 4:].mean((1, 2, 3))], axis=1)


def small_mapper():
    return build_mapper(3, "direct", 2, n=8, dropout=0.3)


def test_mapper_resumes_to_the_same_bits(pairs, tmp_path):
    train = np.arange(20)
    net, loss = fit_mapper(small_mapper, *pairs, train, MAP, seed=3)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        fit_mapper(small_mapper, *pairs, train, MAP, 3, path, stop_after(2))
    resumed, resumed_loss = fit_mapper(small_mapper, *pairs, train, MAP, 3, path)
    assert same_bits(resumed, net)
    assert resumed_loss == loss
    finished, _ = fit_mapper(small_mapper, *pairs, train, MAP, 3, path)  # nothing is left to do
    assert same_bits(finished, net)


def test_another_seed_is_another_mapper(pairs):
    one, two = (fit_mapper(small_mapper, *pairs, np.arange(20), MAP, seed=s)[0] for s in (3, 4))
    assert not same_bits(one, two)


def test_batch_norm_statistics_are_exact_over_the_training_trials(pairs):
    train = np.arange(20)
    net, _ = fit_mapper(lambda: build_mapper(6, "direct", 2, n=8), *pairs, train, MAP, seed=3)
    x = torch.from_numpy(pairs[0][train])[:, None]
    with torch.no_grad():
        for layer in net.layers:
            if isinstance(layer, torch.nn.BatchNorm3d):
                torch.testing.assert_close(layer.running_mean, x.mean((0, 2, 3, 4)), rtol=1e-4, atol=1e-6)
                torch.testing.assert_close(layer.running_var, x.var((0, 2, 3, 4), correction=0), rtol=1e-4, atol=1e-6)
            x = layer(x)


def test_mapper_learns_what_is_learnable():
    generator = np.random.default_rng(1)
    level = generator.random((60, 2))
    codes = np.empty((60, 8, 8, 8), np.float32)
    codes[:, :4], codes[:, 4:] = level[:, 0, None, None, None], level[:, 1, None, None, None]
    codes += 0.05 * generator.standard_normal(codes.shape)
    config = MapperTraining(epochs=60, batch=16, l1=1e-6, decay_every=100)
    net, loss = fit_mapper(lambda: build_mapper(3, "direct", 2, n=8, dropout=0.0), codes, level, range(50), config, 2)
    with torch.no_grad():
        error = (net(torch.from_numpy(codes[50:])[:, None]).numpy() - level[50:]).std()
    assert loss[-1] < 0.1 * loss[0]
    assert error < 0.4 * level.std()


def test_weights_lost_in_the_last_step_are_told_too():
    """The loss of the last batch is computed before the step that an infinite penalty spoils."""
    codes, targets = np.zeros((4, 8, 8, 8), np.float32), np.full((4, 2), 0.3, np.float32)
    config = MapperTraining(epochs=1, batch=4, l1=1e39)
    told = r"epoch 1 of 1: some weights are no longer finite .* lower learning_rate or l1"
    with pytest.raises(ConvergenceError, match=told):
        fit_mapper(lambda: build_mapper(3, "direct", 2, n=8), codes, targets, np.arange(4), config, seed=1)
