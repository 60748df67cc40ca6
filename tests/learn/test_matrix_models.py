import doctest

import numpy as np
import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn import matrix_kernel_ridge, matrix_models, matrix_stacking, matrix_views
from motorsweep.learn.connectivity import ConnectivityConfig, connect
from motorsweep.learn.matrix_kernel_ridge import dual_ridge, fit_entries
from motorsweep.learn.matrix_models import (
    MODELS,
    RIDGE_ALPHAS,
    fit_mean,
    fit_pls,
    fit_ridge,
    fit_stacked,
    shuffled_pairs,
)
from motorsweep.learn.matrix_scores import skill
from motorsweep.learn.matrix_stacking import inner_folds
from motorsweep.learn.matrix_training import OPTIMIZERS, EmgTraining, fit_emgnet
from motorsweep.learn.matrix_views import plain_rows, views_of
from motorsweep.learn.record_splits import RecordSplit, record_splits
from motorsweep.sim.planted_recordings import PlantedConfig, planted_recording
from scipy.linalg import logm
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge


def planted(subjects=6, records=12, channels=13, muscles=4, seed=0, signal=1.0, noise=0.3):
    """Correlations, and causalities that are never negative, which the same factors raise as raise the targets."""
    generator = np.random.default_rng(seed)
    n = subjects * records
    names = np.repeat([f"s{i}" for i in range(subjects)], records)
    factors = generator.standard_normal((n, 3))
    trait = np.repeat(generator.standard_normal((subjects, channels, channels)), records, axis=0)
    loads = generator.standard_normal((2, 3, channels, channels)) / np.sqrt(3)
    blur = noise * generator.standard_normal((2, n, channels, channels))
    mixing = generator.standard_normal((channels, channels))[None] + 0.3 * np.einsum("rf,fij->rij", factors, loads[0])
    mixing = mixing + blur[0]
    covariance = mixing @ mixing.swapaxes(1, 2) + 3 * np.eye(channels)
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = covariance / (spread[:, :, None] * spread[:, None, :])
    granger = np.exp(-4 + 0.4 * np.einsum("rf,fij->rij", factors, loads[1]) + 0.2 * trait + blur[1])
    granger[:, range(channels), range(channels)] = 0
    wiring = generator.standard_normal((3, muscles, muscles)) / np.sqrt(3)
    level = generator.standard_normal((muscles, muscles)) - 4
    own = 0.2 * np.repeat(generator.standard_normal((subjects, muscles, muscles)), records, axis=0)
    targets = np.exp(level + signal * 0.7 * np.einsum("rf,fij->rij", factors, wiring) + own)
    targets *= np.exp(0.2 * generator.standard_normal(targets.shape))
    targets[:, range(muscles), range(muscles)] = 0
    return np.stack([correlation, granger], axis=1), targets, names


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def by_record(data):
    return record_splits("80-20", data[2], 1)[0]


@pytest.fixture(scope="module")
def by_subject(data):
    return record_splits("leave-one-subject-out", data[2], 1)


def skill_of(fitted, data, split):
    mean = data[1][split.train].mean(0)
    return skill(data[1][split.test], fitted.prediction[split.test], mean)


@pytest.mark.parametrize("module", [matrix_models, matrix_stacking, matrix_views, matrix_kernel_ridge])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_the_mean_matrix(data, by_record):
    found = fit_mean(*data[:2], by_record)
    wanted = data[1][by_record.train].mean(0)
    assert np.array_equal(found.prediction, np.broadcast_to(wanted, data[1].shape))
    assert skill_of(found, data, by_record) == 0


def test_ridge_is_the_closed_form_and_its_penalty_the_best_left_out(data, by_record):
    features, targets, _ = data
    found, train = fit_ridge(features, targets, by_record), by_record.train
    x, y = plain_rows(features, train), targets.reshape(len(targets), -1)
    np.testing.assert_allclose((x[train] ** 2).sum(1).mean(), 1)
    alpha = float(found.arrays["alpha"])
    a = x[train]
    weights = np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T @ (y[train] - y[train].mean(0)))
    wanted = x @ weights + y[train].mean(0)
    np.testing.assert_allclose(found.prediction.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-9)
    errors = {}
    for tried in RIDGE_ALPHAS:
        hat = a @ np.linalg.solve(a.T @ a + tried * np.eye(a.shape[1]), a.T) + 1 / len(a)  # the intercept's part
        residual = (y[train] - hat @ y[train]) / (1 - np.diag(hat))[:, None]
        errors[tried] = np.sum(residual**2)
    assert min(errors, key=errors.get) == pytest.approx(alpha)


def test_pls_is_scikit_learns(data, by_record):
    features, targets, _ = data
    found, train = fit_pls(features, targets, by_record, seed=2), by_record.train
    x, y = plain_rows(features, train), targets.reshape(len(targets), -1)
    active = np.ptp(y[train], axis=0) > 0
    count = int(found.arrays["components"])
    wanted = PLSRegression(count, scale=False).fit(x[train], y[train][:, active]).predict(x)
    np.testing.assert_allclose(found.prediction.reshape(y.shape)[:, active], wanted, rtol=1e-4, atol=1e-6)


def test_dual_ridge_is_scikit_learns():
    generator = np.random.default_rng(0)
    x, new, y = generator.random((20, 7)), generator.random((5, 7)), generator.random((20, 3))
    for penalty, found in zip([0.01, 1.0], dual_ridge(x @ x.T, new @ x.T, y, np.array([0.01, 1.0]))):
        np.testing.assert_allclose(found, Ridge(alpha=penalty).fit(x, y).predict(new), rtol=1e-8)


def test_the_way_back_from_logarithms_keeps_the_mean():
    """A prediction of the mean logarithm is too low: exp of a mean is below the mean of exp."""
    generator = np.random.default_rng(6)
    x, y = generator.normal(size=(40, 3)), np.exp(generator.normal(size=(40, 2)))
    folds = [(np.delete(np.arange(40), part), part) for part in np.split(np.arange(40), 5)]
    left_out, everywhere = fit_entries(x @ x.T, np.arange(40), y, folds)
    np.testing.assert_allclose(left_out.mean(0), y.mean(0), rtol=1e-12)
    np.testing.assert_allclose(everywhere.mean(0), y.mean(0), rtol=0.1)


def test_each_record_twice_changes_no_penalty():
    x, y, new = (np.random.default_rng(4).normal(size=shape) for shape in ((9, 5), (9, 2), (3, 5)))
    twice, both = np.concatenate([x, x]), np.concatenate([y, y])
    once = dual_ridge(x @ x.T, new @ x.T, y)
    np.testing.assert_allclose(dual_ridge(twice @ twice.T, new @ twice.T, both), once, rtol=1e-8, atol=1e-12)


def test_a_log_link_fits_what_is_exponential():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((80, 3))
    y = np.exp(x @ generator.standard_normal((3, 4)) * 0.7)
    folds = inner_folds(
        RecordSplit(name="", fold=0, train=np.arange(60), validation=np.arange(0), test=np.arange(60, 80)), 0
    )
    _, linked = fit_entries(x @ x[:60].T, np.arange(60), y[:60], folds)
    _, straight = fit_entries(x @ x[:60].T, np.arange(60), y[:60] - 100, folds)  # negative: no link
    errors = [((part[60:] - y[60:]) ** 2).sum() for part in (linked, straight + 100)]
    assert errors[0] < 0.6 * errors[1] and (linked > -np.median(y)).all()


def test_matrix_logarithm_is_scipys(data):
    features = data[0]
    (view,) = [each for each in views_of(features, np.arange(40)) if each.name == "0 matrix logarithm"]
    shrunk = 0.95 * features[:, 0] + 0.05 * np.eye(13)
    rows = np.stack([logm(matrix)[np.triu_indices(13)] for matrix in shrunk])
    wanted = (rows - rows[:40].mean(0)) / rows[:40].std(0) / np.sqrt(rows.shape[1])
    np.testing.assert_allclose(view.rows, wanted, atol=1e-8)


def test_views_of_measures_by_their_range(data):
    features, _, _ = data
    more = np.stack([features[:, 1] - 3, np.ones_like(features[:, 0])], axis=1)
    found = views_of(np.concatenate([features, more], axis=1), np.arange(30))
    sizes = {view.name: view.rows.shape[1] for view in found}
    assert sizes == {"0 Fisher z": 78, "0 matrix logarithm": 91, "1 log": 156, "2 as it is": 156}
    for view in found:
        np.testing.assert_allclose((view.rows[:30] ** 2).sum(1).mean(), 1)
    np.testing.assert_allclose((plain_rows(features, np.arange(30))[:30] ** 2).sum(1).mean(), 1)


def test_a_singular_correlation_matrix_has_a_view():
    x = np.random.default_rng(0).standard_normal((10, 6, 50))
    x[:, 5] = x[:, :5].sum(1)  # as after ICA took a component out
    matrices = np.stack([np.corrcoef(each) for each in x])[:, None]
    assert "0 matrix logarithm" in [view.name for view in views_of(matrices, np.arange(8))]


def test_inner_folds_leave_subjects_out_where_the_test_does(data, by_record, by_subject):
    names = data[2]
    for fitted, some in inner_folds(by_subject[0], 1, names):
        train = by_subject[0].train
        assert not set(names[train[fitted]]) & set(names[train[some]])
    mixed = [set(names[by_record.train[some]]) for _, some in inner_folds(by_record, 1, names)]
    assert all(len(each) > 1 for each in mixed)
    for split in (by_record, by_subject[0]):
        folds = inner_folds(split, 1, names)
        assert np.array_equal(np.sort(np.concatenate([some for _, some in folds])), np.arange(len(split.train)))
    with pytest.raises(InputError, match="subjects of 3 records, and 72 records"):
        inner_folds(by_record, 1, ["a", "b", "c"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parts", ["test", "validation"])
def test_records_that_do_not_train_change_nothing_but_their_own_prediction(data, by_record, by_subject, name, parts):
    features, targets, names = data
    for split in (by_record, by_subject[2]):
        held = getattr(split, parts)
        one = MODELS[name](features, targets, split, 1, names)
        poisoned, wrong = features.copy(), targets.copy()
        poisoned[held] = 7 * poisoned[held][:, :, ::-1] - 3
        wrong[held] = 1e6
        other = MODELS[name](poisoned, wrong, split, 1, names)
        rest = np.setdiff1d(np.arange(len(targets)), held)
        np.testing.assert_array_equal(one.prediction[rest], other.prediction[rest])
        assert one.notes == other.notes
        assert all(np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays)
        assert np.isfinite(other.prediction).all()


@pytest.mark.parametrize("name", MODELS)
def test_seed_decides_and_failed_records_stay_out(data, by_record, name):
    features, targets, names = data
    one = MODELS[name](features, targets, by_record, 1, names)
    more = np.concatenate([features, np.full((1, *features.shape[1:]), np.nan)])
    wanted = np.concatenate([targets, np.full((1, *targets.shape[1:]), np.nan)])
    other = MODELS[name](more, wanted, by_record, 1, [*names, "s9"])
    np.testing.assert_allclose(other.prediction[:-1], one.prediction, rtol=1e-9, atol=1e-12)
    assert np.isnan(other.prediction[-1]).all()
    assert (one.prediction[:, range(4), range(4)] == 0).all()  # the diagonal does not vary: its mean


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_training_records_does_not_matter(data, by_record, name):
    features, targets, names = data
    parts = {"validation": by_record.validation, "test": by_record.test}
    turned = RecordSplit(name="80-20", fold=0, train=by_record.train[::-1], **parts)
    if name in ("mean", "ridge"):  # the others' inner folds are drawn by place
        one, other = (MODELS[name](features, targets, split, 1, names) for split in (by_record, turned))
        np.testing.assert_allclose(other.prediction, one.prediction, rtol=1e-8, atol=1e-10)
    else:
        found = MODELS[name](features, targets, turned, 1, names)
        assert skill_of(found, data, by_record) > 0.3


@pytest.mark.parametrize("name", MODELS)
def test_nothing_varies_or_too_few_records(data, name):
    features, targets, names = data
    split = RecordSplit(name="80-20", fold=0, train=np.arange(20), validation=np.arange(20, 22), test=np.arange(22, 30))
    few = RecordSplit(name="80-20", fold=0, train=np.arange(2), validation=np.arange(20, 22), test=np.arange(22, 30))
    constant = np.ones_like(features)
    for x, y, parts in ((constant, targets, split), (features, np.ones_like(targets), split), (features, targets, few)):
        found = MODELS[name](x, y, parts, 1, names)
        np.testing.assert_allclose(found.prediction, np.broadcast_to(y[parts.train].mean(0), y.shape), rtol=1e-12)
        assert name == "mean" or "the mean matrix is predicted" in found.notes[0]


def test_the_stacked_ridge_beats_the_others_by_record_and_with_subjects_held_out():
    """Few noisy records, as there are; the network as the paper trains it, with each optimizer."""
    torch.set_num_threads(1)
    data = planted(noise=1.0)
    features, targets, names = data
    for splits in (record_splits("80-20", names, 1, repeats=2), record_splits("leave-one-subject-out", names, 1)[:3]):
        found = {}
        for split in splits:
            fitted = {name: fit(features, targets, split, 1, names) for name, fit in MODELS.items()}
            for optimizer in OPTIMIZERS:
                fitted[optimizer] = fit_emgnet(features, targets, split, EmgTraining(optimizer=optimizer), 1)
            for name, each in fitted.items():
                found.setdefault(name, []).append(skill_of(each, data, split))
        mean = {name: float(np.mean(skills)) for name, skills in found.items()}
        best = mean.pop("stacked")
        assert mean["mean"] == 0 and best > 0.3 and best > max(mean.values()), (best, mean)


@pytest.mark.slow
def test_the_stacked_ridge_beats_the_papers_network_on_planted_records():
    """From signals to scores, by record and with subjects held out; the truth is the ceiling."""
    torch.set_num_threads(1)
    config = PlantedConfig(subjects=6, records_per_subject=16, seconds=20, rate_hz=250, line_uv=0, blinks_per_min=0)
    eeg, emg = ConnectivityConfig(order=7), ConnectivityConfig(measures=("granger",), order=5)
    records = [planted_recording(config, 1, index) for index in range(96)]
    features = np.stack([connect(each.recording.eeg, 250.0, eeg).matrices[:, 0] for each in records])
    targets = np.stack([connect(each.recording.emg, 250.0, emg).matrices[0, 0] for each in records])
    expected = np.stack([each.emg_granger for each in records])
    names = [each.recording.subject for each in records]
    for kind, count in (("80-20", 1), ("leave-one-subject-out", 2)):
        for split in record_splits(kind, names, 1)[:count]:
            mean, test = targets[split.train].mean(0), split.test
            said = {optimizer: EmgTraining(optimizer=optimizer) for optimizer in OPTIMIZERS}
            said = {name: fit_emgnet(features, targets, split, each, 1) for name, each in said.items()}
            said["stacked"] = fit_stacked(features, targets, split, 1, names)
            found = {name: skill(targets[test], each.prediction[test], mean) for name, each in said.items()}
            best, ceiling = found.pop("stacked"), skill(targets[test], expected[test], mean)
            assert ceiling > best > max(*found.values(), 0.3), (kind, split.fold, ceiling, best, found)


def test_where_nothing_is_to_be_predicted_the_stacked_ridge_stays_near_the_mean_matrix():
    without = planted(signal=0.0, seed=3)
    splits = record_splits("leave-one-subject-out", without[2], 1)
    skills = [skill_of(fit_stacked(*without[:2], split, 1, without[2]), without, split) for split in splits]
    assert -0.1 < np.mean(skills) < 0.1


def test_shuffled_pairs_are_a_permutation_within_parts_and_subjects(data, by_record):
    names = data[2]
    for subjects in (None, names):
        rows = shuffled_pairs(by_record, len(names), 1, subjects)
        for part in (by_record.train, by_record.validation):
            assert np.array_equal(np.sort(rows[part]), part)
            if subjects is not None:
                assert np.array_equal(names[rows[part]], names[part])
        assert np.array_equal(rows[by_record.test], by_record.test)
        assert (rows[by_record.train] != by_record.train).mean() > 0.7
    assert np.array_equal(shuffled_pairs(by_record, len(names), 1), shuffled_pairs(by_record, len(names), 1))
    assert not np.array_equal(shuffled_pairs(by_record, len(names), 1), shuffled_pairs(by_record, len(names), 2))


def test_controls_on_shuffled_pairs_know_nothing(data, by_record):
    features, targets, _ = data
    true = skill_of(fit_ridge(features, targets, by_record), data, by_record)
    shuffled, mean = [], targets[by_record.train].mean(0)
    for seed in range(5):
        wrong = targets[shuffled_pairs(by_record, len(targets), seed)]
        np.testing.assert_allclose(wrong[by_record.train].mean(0), mean)
        for fitted in (
            fit_ridge(features, wrong, by_record),
            fit_emgnet(features, wrong, by_record, EmgTraining(optimizer="rmsprop", epochs=20, scale=True), 1),
        ):
            shuffled.append(skill_of(fitted, data, by_record))
    assert true > 0.3 and np.mean(shuffled) <= 0.02 and max(shuffled) < 0.5 * true
