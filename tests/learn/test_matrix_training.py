import doctest
import logging

import numpy as np
import pytest
import torch
from motorsweep.errors import ConvergenceError, InputError
from motorsweep.learn import checkpoints, matrix_records, matrix_steps, matrix_training
from motorsweep.learn.checkpoints import StopRequested, forget_stop, request_stop
from motorsweep.learn.matrix_training import EmgTraining, fit_emgnet, predict_matrices
from motorsweep.learn.record_splits import RecordSplit, record_splits

SMALL = EmgTraining(epochs=3, batch=8)


def planted(records=40, measures=2, n_eeg=13, n_emg=3, seed=0, noise=0.1):
    """Connectivity that a few latent factors move, and targets that the same factors move."""
    generator = np.random.default_rng(seed)
    factors = generator.standard_normal((records, 2))
    wiring = generator.standard_normal((2, measures, n_eeg, n_eeg))
    features = np.einsum("rf,fmij->rmij", factors, wiring + wiring.swapaxes(2, 3))
    features += 2 + noise * generator.standard_normal(features.shape)
    targets = np.einsum("rf,fij->rij", factors, generator.standard_normal((2, n_emg, n_emg))) + 1
    targets[:, range(n_emg), range(n_emg)] = 0
    return features, targets


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return *planted(), record_splits("80-20", ["a"] * 40, 1)[0]


@pytest.fixture(scope="module")
def undisturbed(data):
    return fit_emgnet(*data, SMALL, seed=3)


def same(one, other):
    assert one.loss == other.loss and one.notes == other.notes and one.arrays.keys() == other.arrays.keys()
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    assert np.array_equal(one.prediction, other.prediction)


@pytest.mark.parametrize("module", [matrix_records, matrix_steps, matrix_training])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_rates_in_closed_form():
    rates = [EmgTraining().rate(epoch) for epoch in range(10)]
    np.testing.assert_allclose(rates, np.repeat(0.01 * 0.95 ** np.arange(5), 2), rtol=1e-12)


def test_table_2_is_the_default():
    found = EmgTraining()
    assert (found.optimizer, found.epochs, found.validation_every, found.patience) == ("adam", 10, 4, 20)


def test_validation_every_four_steps_and_after_the_last(data, undisturbed):
    # 28 or 29 training records in batches of 8: four steps an epoch
    split = data[2]
    assert (len(split.train), len(split.validation), len(split.test)) == (29, 3, 8)
    assert len(undisturbed.loss["training"]) == 12 == undisturbed.arrays["steps"]
    assert undisturbed.loss["validation_step"] == [4, 8, 12]
    odd = fit_emgnet(*data, EmgTraining(epochs=1, batch=5), seed=3)
    assert odd.loss["validation_step"] == [4, 6] and len(odd.loss["training"]) == 6


def test_same_as_a_plain_training_loop(data):
    """Adam by hand: order, rate, batches, error; then the weights of the best validation."""
    features, targets, split = data
    fitted = fit_emgnet(features, targets, split, EmgTraining(epochs=3, batch=8), seed=3)
    from motorsweep.learn.emgnet import build_emgnet

    torch.manual_seed(3)
    net = build_emgnet(2, 13, 3)
    x = torch.tensor(features - features[split.train].mean(0), dtype=torch.float32)
    y = torch.tensor(targets, dtype=torch.float32)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    step, best, errors = 0, (np.inf, None), []
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.95 ** (epoch // 2)
        order = split.train[np.random.default_rng([3, epoch]).permutation(len(split.train))]
        for start in range(0, len(order), 8):
            rows = order[start : start + 8]
            optimizer.zero_grad()
            loss = ((net(x[rows]) - y[rows]) ** 2).mean()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 4 == 0 or step == 12:
                with torch.no_grad():
                    errors.append(float(((net(x[split.validation]) - y[split.validation]) ** 2).mean()))
                    if errors[-1] < best[0]:
                        best = errors[-1], net(x).numpy()
    np.testing.assert_allclose(fitted.loss["validation"], errors, rtol=1e-4)
    np.testing.assert_allclose(fitted.prediction, best[1], rtol=1e-3, atol=1e-4)


def test_best_or_last_weights(data):
    kept = {
        keep: fit_emgnet(*data, EmgTraining(epochs=6, batch=8, keep=keep, learning_rate=0.03), 3)
        for keep in ("best", "last")
    }
    assert kept["best"].loss == kept["last"].loss
    curve = kept["best"].loss
    place = int(np.argmin(curve["validation"]))
    assert kept["best"].arrays["best_step"] == curve["validation_step"][place]
    assert kept["last"].arrays["best_step"] == 24
    _, targets, split = data
    for keep, error in {"best": min(curve["validation"]), "last": curve["validation"][-1]}.items():
        said = kept[keep].prediction[split.validation]
        assert np.mean((said - targets[split.validation]) ** 2) == pytest.approx(error, rel=1e-4)


def test_patience_ends_a_training(data):
    features, targets, split = data
    fitted = fit_emgnet(features, targets, split, EmgTraining(epochs=50, batch=8, patience=2, learning_rate=0.02), 3)
    errors = fitted.loss["validation"]
    assert len(errors) - 1 - int(np.argmin(errors)) == 2 and fitted.arrays["steps"] < 200
    assert "2 validations past the best" in fitted.notes[0]
    on = fit_emgnet(features, targets, split, EmgTraining(epochs=10, batch=8, patience=0, learning_rate=0.02), 3)
    assert on.arrays["steps"] == 40


def stop_after(epoch):
    return lambda done, _: request_stop() if done == epoch else None


@pytest.mark.parametrize("optimizer", ["adam", "sgdm", "rmsprop"])
def test_stopped_within_an_epoch_it_goes_on_to_the_same_bits(data, tmp_path, optimizer):
    config = EmgTraining(epochs=3, batch=8, optimizer=optimizer)
    whole, path = fit_emgnet(*data, config, seed=3), tmp_path / "run" / "checkpoint.pt"
    for epoch in (0, 1):  # asked after an epoch, heard after the first step of the next
        with pytest.raises(StopRequested):
            fit_emgnet(*data, config, 3, path, on_epoch=stop_after(epoch))
        forget_stop()
    seen = []
    same(fit_emgnet(*data, config, 3, path, on_epoch=lambda epoch, loss: seen.append((epoch, loss))), whole)
    assert [epoch for epoch, _ in seen] == [2]
    assert seen[0][1] == pytest.approx(np.mean(whole.loss["training"][8:]))
    again = []
    same(fit_emgnet(*data, config, 3, path, on_epoch=lambda *done: again.append(done)), whole)
    assert again == [] and [each.name for each in path.parent.iterdir()] == ["checkpoint.pt"]


def test_killed_it_goes_on_from_the_last_state_kept(data, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "checkpoint.pt"

    def die(epoch, loss):
        raise KeyError("killed")

    with pytest.raises(KeyError):
        fit_emgnet(*data, SMALL, 3, path, on_epoch=die)
    steps = torch.load(path, weights_only=True)["module"]["_extra_state"]["training"]
    assert steps == undisturbed.loss["training"][:4]
    same(fit_emgnet(*data, SMALL, 3, path), undisturbed)


@pytest.mark.parametrize("what", ["another training's", "damaged"])
def test_a_checkpoint_of_no_use_is_left_alone(data, undisturbed, tmp_path, caplog, what):
    path = tmp_path / "checkpoint.pt"
    if what == "damaged":
        path.write_bytes(b"not a checkpoint")
    else:
        fit_emgnet(*data, SMALL, 4, path)
    with caplog.at_level(logging.WARNING):
        same(fit_emgnet(*data, SMALL, 3, path), undisturbed)
    assert "starts" in caplog.text


def test_seed_decides_everything(data, undisturbed):
    torch.manual_seed(99)
    same(fit_emgnet(*data, SMALL, seed=3), undisturbed)
    state = torch.get_rng_state()
    other = fit_emgnet(*data, SMALL, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(other.prediction, undisturbed.prediction)


def test_test_records_change_nothing_but_their_own_prediction(data, undisturbed):
    features, targets, split = data
    features, targets = features.copy(), targets.copy()
    features[split.test] *= -50
    targets[split.test] = 1e6
    fitted = fit_emgnet(features, targets, split, SMALL, seed=3)
    assert fitted.loss == undisturbed.loss
    assert all(np.array_equal(fitted.arrays[name], undisturbed.arrays[name]) for name in fitted.arrays)
    rest = np.setdiff1d(np.arange(40), split.test)
    assert np.array_equal(fitted.prediction[rest], undisturbed.prediction[rest])
    assert not np.allclose(fitted.prediction[split.test], undisturbed.prediction[split.test])


def test_the_mean_image_is_that_of_training_records(data, undisturbed):
    features, _, split = data
    np.testing.assert_allclose(undisturbed.arrays["centre"], features[split.train].mean(0), rtol=1e-5, atol=1e-6)


def test_validation_targets_choose_the_step_alone(data, undisturbed):
    features, targets, split = data
    targets = targets.copy()
    targets[split.validation] += 100
    fitted = fit_emgnet(features, targets, split, SMALL, seed=3)
    assert fitted.loss["training"] == undisturbed.loss["training"]


def test_records_in_no_part_may_have_failed(data, undisturbed):
    features, targets, split = data
    more = np.concatenate([features, np.full((1, *features.shape[1:]), np.nan), features[:1]])
    wanted = np.concatenate([targets, np.full((2, *targets.shape[1:]), np.nan)])
    fitted = fit_emgnet(more, wanted, split, SMALL, seed=3)
    assert np.isnan(fitted.prediction[40]).all() and np.isfinite(fitted.prediction[41]).all()
    np.testing.assert_allclose(fitted.prediction[:40], undisturbed.prediction, rtol=1e-6)
    np.testing.assert_allclose(fitted.prediction[41], undisturbed.prediction[0], rtol=1e-6)


def test_without_validation_the_last_weights_are_kept(data):
    features, targets, split = data
    bare = RecordSplit(name="80-20", fold=0, train=split.train, validation=split.validation[:0], test=split.test)
    fitted = fit_emgnet(features, targets, bare, SMALL, seed=3)
    assert fitted.loss["validation"] == [] and fitted.arrays["best_step"] == 12
    assert fitted.notes == ("no validation records: the weights after the last of 12 steps are kept",)
    last = fit_emgnet(features, targets, split, EmgTraining(epochs=3, batch=8, keep="last"), seed=3)
    assert np.array_equal(fitted.prediction, last.prediction)


def test_it_learns_what_is_planted(data):
    features, targets, split = data
    fitted = fit_emgnet(features, targets, split, EmgTraining(epochs=20, batch=8, learning_rate=1e-3), seed=3)
    error = ((fitted.prediction - targets)[split.test] ** 2).sum()
    assert error < 0.3 * ((targets[split.train].mean(0) - targets[split.test]) ** 2).sum()


def test_half_sum_is_matlabs_error(data):
    """The first SGD step from the same weights is 9 / 2 times as long for 3 x 3 outputs; curves are of the mean."""
    features, targets, split = data
    fitted = {
        error: fit_emgnet(features, targets, split, EmgTraining(epochs=1, batch=64, error=error, optimizer="sgdm"), 3)
        for error in ("mean", "half sum")
    }
    before = fit_emgnet(
        features, targets, split, EmgTraining(epochs=1, batch=64, learning_rate=1e-30, optimizer="sgdm"), 3
    )
    assert fitted["mean"].loss["training"] == pytest.approx(fitted["half sum"].loss["training"], rel=1e-6)
    name = "weights.7.bias"
    steps = [fitted[error].arrays[name] - before.arrays[name] for error in ("mean", "half sum")]
    np.testing.assert_allclose(steps[1], 4.5 * steps[0], rtol=1e-4, atol=1e-8)


def test_l2_shrinks_kernels_as_matlab_does(data):
    features, targets, split = data
    config = {"epochs": 1, "batch": 64, "optimizer": "sgdm"}
    plain = fit_emgnet(features, targets, split, EmgTraining(**config), 3).arrays
    before = fit_emgnet(features, targets, split, EmgTraining(**config | {"learning_rate": 1e-30}), 3).arrays
    drawn = fit_emgnet(features, targets, split, EmgTraining(**config, l2=0.5), 3).arrays
    kernel, bias = "weights.7.weight", "weights.7.bias"
    np.testing.assert_allclose(drawn[kernel] - plain[kernel], -0.01 * 0.5 * before[kernel], atol=1e-7)
    assert np.array_equal(drawn[bias], plain[bias])


def test_scaled_it_does_not_depend_on_units(data):
    features, targets, split = data
    config = EmgTraining(epochs=3, batch=8, scale=True)
    units = np.array([2.0**-10, 64.0])[:, None, None]  # powers of two round nothing
    one = fit_emgnet(features, targets, split, config, 3)
    other = fit_emgnet(features * units, 2.0**-10 * targets, split, config, 3)
    np.testing.assert_allclose(other.prediction, 2.0**-10 * one.prediction, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(other.loss["validation"], 2.0**-20 * np.array(one.loss["validation"]), rtol=1e-3)


def test_a_rate_that_is_too_large_says_so(data):
    features, targets, split = data
    with pytest.raises(ConvergenceError, match=r"sgdm, step \d+: .* learning rate of 0.01.*scale = true"):
        fit_emgnet(1e4 * features, targets, split, EmgTraining(optimizer="sgdm", batch=8), 3)


def test_predictions_come_in_batches_of_one_size():
    from motorsweep.learn.emgnet import build_emgnet
    from motorsweep.learn.epochs import seeded

    net = seeded(0, lambda: build_emgnet(1, 13, 2))
    features = np.random.default_rng(0).random((300, 1, 13, 13))
    with torch.no_grad():
        wanted = net(torch.from_numpy(features).float()).numpy()
    np.testing.assert_allclose(predict_matrices(net, features), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="not finite"):
        predict_matrices(net, np.full((1, 1, 13, 13), np.nan))
    with pytest.raises(InputError, match=r"shape \(2, 1, 19, 19\).*\(records, 1, 13, 13\)"):
        predict_matrices(net, np.zeros((2, 1, 19, 19)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adamw"}, "optimizer 'adamw' is not known; choose from adam, sgdm, rmsprop"),
        ({"keep": "first"}, "keep 'first'.*best, last"),
        ({"error": "mae"}, "error 'mae'.*mean, half sum"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number, at least 1"),
        ({"epochs": float("nan")}, "epochs is nan; it must be a whole number"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": 2.5}, "batch is 2.5; it must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"l2": -1.0}, "l2 -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(InputError, match=message):
        EmgTraining(**values)


def broken(split, **parts):
    return RecordSplit(
        **{"name": split.name, "fold": 0, "train": split.train, "validation": split.validation}
        | {"test": split.test}
        | parts
    )


def test_bad_records(data):
    features, targets, split = data
    cases = [
        (features[:, :, :, :12], targets, split, r"EEG connectivity has shape \(40, 2, 13, 12\)"),
        (features[:39], targets, split, "of the same records"),
        (features[:30], targets[:30], split, "and there are 30, numbered from 0"),
        (features, targets, broken(split, train=split.train[:0]), "it has no training records"),
        (features, targets, broken(split, test=split.test[:0]), "it has no test records"),
        (features, targets, broken(split, validation=split.train[:2]), "some records are in it twice"),
        (features[:, :, :12, :12], targets, split, "12 EEG channels"),
    ]
    for x, y, parts, message in cases:
        with pytest.raises(InputError, match=message):
            fit_emgnet(x, y, parts, SMALL, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_values_that_are_not_finite(data, part, value):
    features, targets, split = data
    row = getattr(split, part)[1]
    for which, name in ((0, "EEG"), (1, "EMG")):
        arrays = [features.copy(), targets.copy()]
        arrays[which][row].flat[5] = value
        with pytest.raises(
            InputError, match=rf"the {name} connectivity of record {row} holds values that are not finite"
        ):
            fit_emgnet(*arrays, split, SMALL, 3)
