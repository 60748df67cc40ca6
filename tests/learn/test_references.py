import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn import scores
from motorsweep.learn.gaussian_process import SharedProcess, fit_process
from motorsweep.learn.partial_least_squares import PLS_COMPONENTS
from motorsweep.learn.references import VOXEL_ALPHAS, fit_references
from sklearn.cross_decomposition import PLSRegression
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, LeaveOneOut, cross_val_predict

TRIALS, MUSCLES = 60, 5
TRAIN, EVALUATE = np.arange(0, 48), np.arange(48, 60)
NAMES = {"mean", "ridge", "pls", "ridge_voxels", "gp_position", "best_possible"}


@pytest.fixture(scope="module")
def data():
    """Codes, voxels, positions, intensity and responses that all follow from one place of the coil."""
    generator = np.random.default_rng(0)
    positions = generator.uniform(-0.02, 0.02, (TRIALS, 3))
    positions[:, 2] = 0.08
    intensity = generator.choice([110.0, 120.0, 130.0, 140.0], TRIALS)
    waves = generator.standard_normal((3, 512)), generator.uniform(0, 6, 512)
    field = intensity[:, None] / 100 * np.sin(60 * positions @ waves[0] + waves[1])
    codes = field.reshape(TRIALS, 8, 8, 8).astype(np.float32)
    voxels = (80 + 30 * field @ generator.standard_normal((512, 900)) / 20).astype(np.float32)
    centre = generator.uniform(-0.01, 0.01, (MUSCLES, 2))
    distance = ((positions[:, None, :2] - centre) ** 2).sum(-1)
    expected = 1e-3 * intensity[:, None] / 100 * np.exp(-distance / (2 * 0.01**2))
    responses = expected + 5e-5 * generator.standard_normal(expected.shape)
    responses[:, 4] = 2e-5  # never responds
    expected[:, 4] = 2e-5
    return codes, voxels, positions, intensity, responses, expected


@pytest.fixture(scope="module")
def fitted(data):
    return fit_references(*data[:5], TRAIN, EVALUATE, data[5], seed=3)


def scaled_responses(responses):
    low, span = responses[TRAIN].min(0), np.ptp(responses[TRAIN], axis=0)
    return (responses - low) / np.where(span > 0, span, 1.0)


def test_scores_are_those_of_the_arrays(fitted, data):
    a = fitted.arrays
    assert set(fitted.scores) == NAMES
    assert fitted.loss == []
    np.testing.assert_allclose(a["measured"], scaled_responses(data[4])[EVALUATE])
    np.testing.assert_array_equal(a["evaluate"], EVALUATE)
    for name in NAMES:
        assert fitted.scores[name] == scores.nrmse(a["measured"], a[f"prediction_{name}"])
        assert a[f"prediction_{name}"].shape == (len(EVALUATE), MUSCLES)
        by_muscle = [scores.nrmse(m, p) for m, p in zip(a["measured"].T, a[f"prediction_{name}"].T)]
        np.testing.assert_array_equal(a[f"nrmse_muscle_{name}"], by_muscle)
    assert {name for name in a if name.startswith("sd_")} == {"sd_gp_position"}
    best = fitted.scores["best_possible"]
    assert best < min(fitted.scores[name] for name in NAMES - {"best_possible"})
    assert max(fitted.scores[name] for name in ("ridge", "pls", "gp_position")) < 0.7 * fitted.scores["mean"]


def test_mean_and_best_possible_by_definition(fitted, data):
    measured = scaled_responses(data[4])
    np.testing.assert_allclose(fitted.arrays["prediction_mean"], np.tile(measured[TRAIN].mean(0), (12, 1)))
    error = (data[4] - data[5])[EVALUATE] / fitted.arrays["response_range"]
    np.testing.assert_allclose(fitted.arrays["measured"] - fitted.arrays["prediction_best_possible"], error, atol=1e-12)


def best_ridge(x, y, alphas):
    """Penalty with the lowest leave-one-out error, each trial left out for real."""
    errors = [((cross_val_predict(Ridge(a), x, y, cv=LeaveOneOut()) - y) ** 2).mean() for a in alphas]
    return alphas[int(np.argmin(errors))]


def test_ridge_leaves_one_out(fitted, data):
    codes = data[0].astype(np.float64)
    low, high = codes[TRAIN].min(), codes[TRAIN].max()
    x, y = ((codes - low) / (high - low)).reshape(TRIALS, -1), scaled_responses(data[4])
    best = best_ridge(x[TRAIN], y[TRAIN], 10.0 ** np.arange(-4, 7))
    assert fitted.arrays["ridge_alpha"] == best
    np.testing.assert_allclose(
        fitted.arrays["prediction_ridge"], Ridge(best).fit(x[TRAIN], y[TRAIN]).predict(x[EVALUATE])
    )


def test_ridge_on_voxels_is_the_primal_one(fitted, data):
    x, y = data[1].astype(np.float64), scaled_responses(data[4])
    centred = x[TRAIN] - x[TRAIN].mean(0)
    size = (centred**2).sum(1).mean()
    errors = []
    for alpha in VOXEL_ALPHAS:  # leave-one-out in closed form: residual / (1 - leverage)
        hat = centred @ np.linalg.solve(centred.T @ centred + alpha * size * np.eye(x.shape[1]), centred.T)
        hat += 1 / len(TRAIN)
        errors.append((((y[TRAIN] - hat @ y[TRAIN]) / (1 - np.diag(hat))[:, None]) ** 2).mean())
    best = VOXEL_ALPHAS[int(np.argmin(errors))]
    assert fitted.arrays["ridge_voxels_alpha"] == best
    primal = Ridge(best * size, solver="svd").fit(x[TRAIN], y[TRAIN]).predict(x[EVALUATE])
    np.testing.assert_allclose(fitted.arrays["prediction_ridge_voxels"], primal, atol=1e-6)


def test_pls_takes_the_components_that_the_inner_folds_ask_for(fitted, data):
    codes, y = data[0].reshape(TRIALS, -1).astype(np.float64), scaled_responses(data[4])[:, :4]
    folds = KFold(5, shuffle=True, random_state=3)
    errors = [
        ((cross_val_predict(PLSRegression(c, scale=False), codes[TRAIN], y[TRAIN], cv=folds) - y[TRAIN]) ** 2).sum()
        for c in range(1, PLS_COMPONENTS + 1)
    ]
    best = int(np.argmin(errors)) + 1
    assert fitted.arrays["pls_components"] == best
    alone = PLSRegression(best, scale=False).fit(codes[TRAIN], y[TRAIN]).predict(codes[EVALUATE])
    np.testing.assert_allclose(fitted.arrays["prediction_pls"][:, :4], alone, atol=2e-4)
    np.testing.assert_allclose(fitted.arrays["prediction_pls"][:, 4], 0.0, atol=1e-12)


def test_shared_process_has_the_parent_likelihood_and_gradient():
    generator = np.random.default_rng(1)
    x, y = generator.standard_normal((40, 3)), generator.standard_normal((40, 4))
    process = fit_process([x[:, :2], x[:, 2:]], y)
    plain = GaussianProcessRegressor(process.kernel_, optimizer=None, normalize_y=True).fit(x, y)
    theta = process.kernel_.theta + generator.uniform(-0.5, 0.5, len(process.kernel_.theta))
    ours = process.log_marginal_likelihood(theta, eval_gradient=True)
    theirs = plain.log_marginal_likelihood(theta, eval_gradient=True)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-10)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-7, atol=1e-7)
    for mean, other in zip(process.predict(x, return_std=True), plain.predict(x, return_std=True)):
        np.testing.assert_allclose(mean, other)
    assert process.log_marginal_likelihood() == pytest.approx(process.log_marginal_likelihood(process.kernel_.theta))
    assert isinstance(process, SharedProcess)


def test_kernel_has_a_length_for_each_space():
    generator = np.random.default_rng(4)
    x, y = generator.standard_normal((30, 3)), generator.standard_normal((30, 1))
    process = fit_process([x[:, :2], x[:, 2:]], y)
    signal, wide, narrow, _ = np.exp(process.kernel_.theta)
    squared = ((x[:5, None] - x[5:9]) ** 2) @ np.array([wide**-2, wide**-2, narrow**-2])
    np.testing.assert_allclose(process.kernel_(x[:5], x[5:9]), signal * np.exp(-squared / 2))


def test_process_recovers_length_and_noise_and_knows_how_sure_it_is(fitted, data):
    a = fitted.arrays
    assert 0.005 < a["gp_position_length"] < 0.03  # bumps of sd 10 mm
    assert np.isfinite(a["gp_position_intensity_length"])
    alone = fit_references(None, None, data[2], None, data[4], TRAIN, EVALUATE)
    assert alone.arrays["gp_position_intensity_length"] == np.inf
    assert alone.scores["gp_position"] > fitted.scores["gp_position"]
    z = (a["measured"] - a["prediction_gp_position"])[:, :4] / a["sd_gp_position"][:, :4]
    assert 0.6 < np.sqrt((z**2).mean()) < 1.7
    span = a["response_range"][:4]
    assert np.median(a["sd_gp_position"][:, :4] * span) == pytest.approx(5e-5, rel=0.6)  # the noise that was added
    np.testing.assert_array_equal(a["sd_gp_position"][:, 4], 0.0)


def test_evaluation_trials_leave_no_trace(fitted, data):
    """Garbage in the evaluation trials: every fitted number is bit-equal, and so is what is said of a clean trial."""
    generator = np.random.default_rng(5)
    poisoned = [np.array(x) for x in data]
    bad = EVALUATE[1:]
    for x in poisoned:
        x[bad] = 1e4 * generator.standard_normal(x[bad].shape)
    again = fit_references(*poisoned[:5], TRAIN, EVALUATE, poisoned[5], seed=3)
    names = [name for name in fitted.arrays if name.endswith(("_alpha", "_components", "_length", "_noise"))]
    assert len(names) == 6
    for name in [*names, "response_minimum", "response_range", "prediction_mean"]:
        assert again.arrays[name].tobytes() == fitted.arrays[name].tobytes(), name
    for name in NAMES:
        ours, clean = again.arrays[f"prediction_{name}"], fitted.arrays[f"prediction_{name}"]
        assert ours[0].tobytes() == clean[0].tobytes(), name
        assert name == "mean" or np.abs(ours[1:, :4] - clean[1:, :4]).max() > 0.01, name


def test_missing_inputs_leave_their_predictors_out(data):
    codes, voxels, positions, intensity, responses, _ = data
    some = {
        frozenset({"mean"}): (None, None, None, intensity),
        frozenset({"mean", "ridge", "pls"}): (codes, None, None, None),
        frozenset({"mean", "ridge_voxels"}): (None, voxels, None, None),
        frozenset({"mean", "gp_position"}): (None, None, positions, None),
    }
    for names, inputs in some.items():
        assert set(fit_references(*inputs, responses, TRAIN, EVALUATE).scores) == names


def test_what_does_not_vary_is_predicted_by_its_mean(data):
    codes, voxels, positions, intensity, responses, _ = data
    constant = [np.full_like(x, 0.3) for x in (codes, voxels, positions, intensity)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for inputs, y in (
            (constant, responses),
            ((codes, voxels, positions, intensity), np.full_like(responses, 1e-4)),
        ):
            result = fit_references(*inputs, y, TRAIN, EVALUATE)
            for name in NAMES - {"best_possible"}:
                np.testing.assert_array_equal(result.arrays[f"prediction_{name}"], result.arrays["prediction_mean"])
            spread = scaled_responses(y)[TRAIN].std(0)
            np.testing.assert_allclose(result.arrays["sd_gp_position"], np.tile(spread, (12, 1)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 3))
def test_few_trials_and_odd_inputs_stay_finite_and_silent(seed, trials, muscles):
    generator = np.random.default_rng(seed)
    total = trials + 2
    codes = generator.integers(0, 2, (total, 2, 2, 2)).astype(np.float32)
    positions = 0.05 + 1e-3 * generator.integers(0, 2, (total, 3))
    responses = 1e-4 * generator.integers(0, 3, (total, muscles))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit_references(
            codes, codes.reshape(total, -1), positions, np.full(total, 110.0), responses, np.arange(trials), [trials]
        )
    for name, values in result.arrays.items():
        if name.startswith(("prediction", "sd")):
            assert np.isfinite(values).all(), name


def test_order_of_training_trials_does_not_matter(fitted, data):
    shuffled = np.random.default_rng(2).permutation(TRAIN)
    again = fit_references(*data[:5], shuffled, EVALUATE, seed=3)
    for name in ("mean", "ridge", "ridge_voxels"):
        np.testing.assert_allclose(
            again.arrays[f"prediction_{name}"], fitted.arrays[f"prediction_{name}"], atol=1e-7, err_msg=name
        )
    np.testing.assert_allclose(
        again.arrays["prediction_gp_position"], fitted.arrays["prediction_gp_position"], atol=1e-3
    )


def test_a_study_of_full_size_is_fitted_in_bounded_time():
    """630 trials, 15 muscles, 3 coordinates and intensity: some 10 s on one core, most of it the process."""
    generator = np.random.default_rng(3)
    positions = generator.uniform(-0.02, 0.02, (700, 3))
    intensity = generator.choice([110.0, 120.0, 130.0, 140.0], 700)
    centre = generator.uniform(-0.02, 0.02, (15, 3))
    responses = np.exp(-((positions[:, None] - centre) ** 2).sum(-1) / (2 * 0.01**2)) * intensity[:, None]
    responses *= np.exp(0.3 * generator.standard_normal(responses.shape))
    began = time.process_time()
    result = fit_references(None, None, positions, intensity, responses, np.arange(630), np.arange(630, 700))
    assert time.process_time() - began < 60
    assert result.scores["gp_position"] < 0.7 * result.scores["mean"]


def test_refuses_what_cannot_be_fitted(data):
    codes, voxels, positions, intensity, responses, _ = data
    bad = responses.copy()
    bad[7, 2] = np.nan
    with pytest.raises(InputError, match="trial 7, muscle 2"):
        fit_references(codes, None, None, None, bad, TRAIN, EVALUATE)
    bad_voxels = voxels.copy()
    bad_voxels[[50, 51], 3] = np.inf
    with pytest.raises(InputError, match="voxels of trial 50 holds values that are not finite, as do"):
        fit_references(None, bad_voxels, None, None, responses, TRAIN, EVALUATE)
    with pytest.raises(InputError, match=r"positions has shape \(59, 3\)"):
        fit_references(None, None, positions[1:], None, responses, TRAIN, EVALUATE)
    with pytest.raises(InputError, match=r"intensity has shape \(59, 1\)"):
        fit_references(None, None, positions, intensity[1:], responses, TRAIN, EVALUATE)
    with pytest.raises(InputError, match="1 of them in both sets"):
        fit_references(codes, None, None, None, responses, TRAIN, np.array([3, 50]))
