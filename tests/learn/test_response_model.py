import itertools

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.learn.response_model import fit_response_model
from motorsweep.learn.scores import nrmse
from motorsweep.sim.firing import firing_rate
from motorsweep.sim.responses import MUSCLES, ResponseModel, calibrate, plant, respond
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neighbors import KNeighborsRegressor

PARTS = ("mean", "sd", "left_out", "measured")


def _map(trials=120, seed=0, k=1, zeros=True):
    """Trials over a patch of 45 mm, muscles with hotspots of 10 mm, log-normal responses."""
    generator = np.random.default_rng(seed)
    place = generator.uniform(-0.0225, 0.0225, (trials, 3)) * [1, 1, 0.05]
    centre = generator.uniform(-0.008, 0.008, (k, 2))
    near = np.exp(-((place[:, None, :2] - centre) ** 2).sum(2) / (2 * 0.008**2))
    sizes = 1e-3 * near * np.exp(0.6 * generator.normal(size=near.shape) - 0.18)
    if zeros:
        sizes *= generator.random(near.shape) < np.minimum(2 * near, 0.95)
    expected = 1e-3 * near * (np.minimum(2 * near, 0.95) if zeros else 1)
    return place, sizes, expected


def _fit(place, responses, train, evaluate, seed=1):
    return fit_response_model(None, place, None, responses, train, evaluate, seed)


# ---- what it is for -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synthetic():
    """Trials of a figure-of-eight coil over a ball: |E|, firing rates, places and planted responses."""
    axis = np.arange(32) * 0.002 - 0.031
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    mask = np.linalg.norm(grid - [0, 0, 0.005], axis=-1) < 0.022
    generator = np.random.default_rng(0)
    turn = generator.uniform(0, np.pi, 700)
    place = np.c_[generator.uniform(-0.02, 0.02, (700, 2)), np.full(700, 0.045)]
    place[0], turn[0] = (0.0, 0.0, 0.045), 0.0
    didt = generator.choice([1.1, 1.2, 1.3, 1.4], 700)
    unit = np.stack([_e_norm(grid[mask], centre, angle) for centre, angle in zip(place, turn)])
    unit *= 60 / unit[0].max()
    fields = (unit * didt[:, None]).astype(np.float32)
    model = ResponseModel()
    tissue = np.where(mask, 2, 0)
    motor_map = plant((axis, axis, axis), tissue, mask, MUSCLES, (0, 0, 0.012), model)
    at_threshold = np.zeros(mask.shape)
    at_threshold[mask] = unit[0]
    motor_map = calibrate(motor_map, at_threshold, 69.0, 4.8, model)
    rates = firing_rate(fields, 69.0, 4.8)
    responses = respond(np.stack([motor_map.drive(rate) for rate in rates]), motor_map, model, seed=1)
    positions = np.c_[place, np.cos(2 * turn), np.sin(2 * turn)]
    return {"field": fields, "rate": rates, "positions": positions, "intensity": 100 * didt, "responses": responses}


def _e_norm(points, centre, angle):
    """|dA/dt| of two opposite vertical dipoles, one under each wing."""
    wing = 0.025 * np.array([np.cos(angle), np.sin(angle), 0])
    total = np.zeros_like(points)
    for sign in (1, -1):
        r = points - (centre + sign * wing)
        total += sign * np.cross([0, 0, 1], r) / np.linalg.norm(r, axis=1)[:, None] ** 3
    return np.linalg.norm(total, axis=1)


@pytest.mark.parametrize("kind", ["field", "rate"])
def test_near_the_best_possible_score_on_planted_responses(synthetic, kind):
    """Within a tenth of the expected response's own error, and its uncertainty is as large as its errors."""
    responses = synthetic["responses"]
    train, test = np.arange(400), np.arange(400, 700)
    found = fit_response_model(synthetic[kind], None, None, responses.measured, train, test, seed=1)
    unit = np.ptp(responses.measured[train], axis=0)
    truth = responses.measured[test]
    best = nrmse(truth / unit, responses.expected[test] / unit)
    average = nrmse(truth / unit, np.tile(responses.measured[train].mean(0) / unit, (300, 1)))
    assert nrmse(truth / unit, found.mean / unit) < 1.1 * best < 0.75 * average
    low, high = found.interval(0.9)
    assert 0.86 < ((truth >= low) & (truth <= high)).mean() < 0.94
    assert 0.9 < np.sqrt(np.mean(((truth - found.mean) / found.sd) ** 2)) < 1.15


def test_positions_with_direction_and_intensity(synthetic):
    responses, train, test = synthetic["responses"], np.arange(400), np.arange(400, 700)
    unit = np.ptp(responses.measured[train], axis=0)
    truth = responses.measured[test] / unit
    scores = {}
    for name, columns, intensity in [("all", 5, True), ("no intensity", 5, False), ("place", 3, False)]:
        inputs = synthetic["positions"][:, :columns], synthetic["intensity"] if intensity else None
        found = fit_response_model(None, *inputs, responses.measured, train, test, seed=1)
        scores[name] = nrmse(truth, found.mean / unit)
    assert scores["all"] < scores["no intensity"] < scores["place"]


def test_simulated_maps_are_predicted_better_than_by_a_gaussian_process():
    errors = np.zeros(3)
    for seed in range(4):
        place, responses, expected = _map(400, seed)
        train, test = np.arange(300), np.arange(300, 400)
        found = _fit(place, responses, train, test).mean
        scaled, unit = place / 0.013, responses.mean()
        kernel = ConstantKernel() * RBF(1.0, (0.1, 10)) + WhiteKernel()
        process = GaussianProcessRegressor(kernel, normalize_y=True).fit(scaled[train], responses[train, 0] / unit)
        others = process.predict(scaled[test])[:, None] * unit
        near = KNeighborsRegressor(10).fit(place[train], responses[train]).predict(place[test])
        errors += [np.square(x - expected[test]).sum() for x in (found, others, near)]
    assert errors[0] < 0.75 * errors[1] < 0.75 * errors[2]


def test_intervals_hold_their_share_of_simulated_responses():
    inside = {0.5: [], 0.9: []}
    for seed, share in itertools.product(range(3), inside):
        place, responses, _ = _map(600, seed, zeros=False)
        found = _fit(place, responses, np.arange(400), np.arange(400, 600))
        low, high = found.interval(share)
        inside[share].append(((responses[400:] >= low) & (responses[400:] <= high)).mean())
    assert np.mean(inside[0.5]) == pytest.approx(0.5, abs=0.06)
    assert np.mean(inside[0.9]) == pytest.approx(0.9, abs=0.03)


@pytest.mark.slow
def test_real_maps_in_order(data_folder):
    """Five-fold within the first map of each subject: better than 10 neighbours, and than a Gaussian process."""
    rows = np.loadtxt(data_folder / "mep" / "grid_tms_maps" / "grid mappings.csv", delimiter=";")
    scores = []
    for subject in range(1, 9):
        chosen = rows[(rows[:, 0] == subject) & (rows[:, 1] == 1)]
        place, y = chosen[:, 2:5] * 1e-3, chosen[:, 5:] * 1e-6
        fold = np.random.default_rng([0, subject]).permutation(len(y)) % 5
        predicted = np.zeros((3, len(y)))
        for k in range(5):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            scaled = place / place[train].std(0).mean()
            kernel = ConstantKernel() * RBF(1.0, (0.1, 10)) + WhiteKernel()
            process = GaussianProcessRegressor(kernel, normalize_y=True).fit(scaled[train], y[train, 0] * 1e3)
            predicted[0, test] = _fit(place, y, train, test).mean[:, 0]
            predicted[1, test] = process.predict(scaled[test]) * 1e-3
            predicted[2, test] = KNeighborsRegressor(10).fit(place[train], y[train, 0]).predict(place[test])
        scores.append([nrmse(y[:, 0], p) for p in predicted])
    ours, process, near = np.mean(scores, axis=0)
    assert ours < process < near < 1


# ---- honesty --------------------------------------------------------------------------------------------------------


def test_responses_of_evaluation_trials_change_nothing():
    place, responses, _ = _map(80, k=3)
    train, evaluate = np.arange(60), np.arange(60, 80)
    clean = _fit(place, responses, train, evaluate)
    for poison in (np.nan, -1e9, np.inf):
        poisoned = responses.copy()
        poisoned[evaluate] = poison
        found = _fit(place, poisoned, train, evaluate)
        for part in PARTS:
            np.testing.assert_array_equal(getattr(found, part), getattr(clean, part))
        assert (found.weights, found.candidates, found.family) == (clean.weights, clean.candidates, clean.family)


def test_inputs_of_other_evaluation_trials_change_nothing_of_the_fit(synthetic):
    responses, train = synthetic["responses"].measured[:120, :4], np.arange(100)
    poisoned = synthetic["field"][:120].copy()
    poisoned[110:] *= 1000
    found = [
        fit_response_model(fields, synthetic["positions"][:120], None, responses, train, np.arange(100, 120), seed=1)
        for fields in (synthetic["field"][:120], poisoned)
    ]
    np.testing.assert_array_equal(found[0].left_out, found[1].left_out)
    np.testing.assert_array_equal(found[0].mean[:10], found[1].mean[:10])
    assert found[0].weights == found[1].weights


def test_the_seed_settles_everything():
    place, responses, _ = _map(80, k=2)
    first, again = (_fit(place, responses, np.arange(60), np.arange(60, 80), seed=3) for _ in range(2))
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    assert first.candidates == again.candidates


# ---- invariance -----------------------------------------------------------------------------------------------------


def test_order_of_evaluation_trials_and_of_training_trials():
    place, responses, _ = _map(90, k=2)
    train, evaluate = np.arange(70), np.arange(70, 90)
    generator = np.random.default_rng(0)
    found = _fit(place, responses, train, evaluate)
    turned = _fit(place, responses, train, evaluate[::-1])
    np.testing.assert_allclose(turned.mean[::-1], found.mean, rtol=1e-9)
    mixed = _fit(place, responses, generator.permutation(train), evaluate)
    np.testing.assert_allclose(mixed.mean, found.mean, rtol=1e-5)


def test_unit_and_frame_do_not_matter():
    place, responses, _ = _map(90, k=2)
    train, evaluate = np.arange(70), np.arange(70, 90)
    found = _fit(place, responses, train, evaluate)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    moved = _fit(1000 * (place @ turn.T + 0.05), responses * [1e6, 3.0], train, evaluate)
    np.testing.assert_allclose(moved.mean / [1e6, 3.0], found.mean, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(moved.sd / [1e6, 3.0], found.sd, rtol=1e-5, atol=1e-12)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_a_muscle_that_never_responds_is_expected_not_to():
    place, responses, _ = _map(80, k=2)
    silent = np.insert(responses, 1, 0.0, axis=1)
    train, evaluate = np.arange(60), np.arange(60, 80)
    found = _fit(place, silent, train, evaluate)
    assert not found.mean[:, 1].any() and not found.sd[:, 1].any()
    np.testing.assert_array_equal(np.delete(found.mean, 1, axis=1), _fit(place, responses, train, evaluate).mean)
    nothing = _fit(place, 0 * responses, train, evaluate)
    assert not nothing.mean.any() and nothing.family == "mean"


def test_constant_inputs_and_constant_responses():
    _, responses, _ = _map(40)
    train, evaluate = np.arange(30), np.arange(30, 40)
    fields, place = np.full((40, 50), 3.0, np.float32), np.full((40, 3), 0.02)
    found = fit_response_model(fields, place, np.full(40, 110.0), responses, train, evaluate, seed=1)
    np.testing.assert_allclose(found.mean, responses[train].mean(), rtol=0.02)
    place = _map(40)[0]
    level = _fit(place, np.full((40, 2), 2e-4), train, evaluate)
    np.testing.assert_allclose(level.mean, 2e-4, rtol=1e-3)
    np.testing.assert_allclose(level.sd, 0, atol=1e-6)


@pytest.mark.parametrize("trials", [2, 3, 5, 8])
@pytest.mark.parametrize("muscles", [1, 15])
def test_hardly_any_trials(trials, muscles):
    place, responses, _ = _map(12, k=muscles, seed=5)
    found = _fit(place, responses, np.arange(trials), np.arange(8, 12))
    assert found.mean.shape == found.sd.shape == (4, muscles)
    for part in (found.mean, found.sd, *found.interval()):
        assert np.isfinite(part).all() and (part >= 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": None}, r"neither fields nor positions"),
        ({"positions": np.zeros((5, 3))}, r"positions of shape \(5, 3\) do not belong to 20 trials"),
        ({"positions": np.zeros((20, 2))}, r"at least x, y and z"),
        ({"intensity": np.r_[np.nan, np.ones(19)]}, r"intensity of trial 0 hold values that are not finite"),
        ({"fields": np.full((20, 4), np.inf)}, r"fields of trial 0 .* as do 19 other"),
        ({"responses": np.full((20, 1), -1.0)}, r"trial 0, muscle 0 .* is -1, as 14 others.*0 or more"),
        ({"responses": np.full((20, 1), np.nan)}, r"is nan"),
        ({"responses": np.ones(20)}, r"responses of shape \(20,\)"),
        ({"train": [0]}, r"1 training .* at least 2"),
        ({"evaluate": [3]}, r"1 of them in both sets"),
        ({"evaluate": []}, r"0 evaluation trials"),
    ],
)
def test_what_cannot_be_fitted_is_said(change, message):
    place, responses, _ = _map(20)
    given = {"fields": None, "positions": place, "intensity": None, "responses": responses, "seed": 1}
    given |= {"train": np.arange(15), "evaluate": np.arange(15, 20)} | change
    with pytest.raises(InputError, match=message):
        fit_response_model(**given)


def test_a_quantile_beyond_0_to_1():
    place, responses, _ = _map(20)
    with pytest.raises(InputError, match=r"level 5 is not between 0 and 1"):
        _fit(place, responses, np.arange(15), np.arange(15, 20)).quantile(5)
