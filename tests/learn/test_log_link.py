import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.learn.log_link import deviance, fit_log_link
from sklearn.linear_model import PoissonRegressor, TweedieRegressor
from sklearn.metrics import mean_tweedie_deviance


def _trials(n=120, columns=3, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, columns))
    mean = np.exp(0.5 * x[:, 0] - 0.3 * x[:, 1])
    y = mean * generator.gamma(0.7, 1 / 0.7, n) * (generator.random(n) < 0.7)
    return x, y / y.mean()


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_the_same_coefficients_as_scikit_learn(power):
    x, y = _trials()
    penalty = 3.0
    fit = fit_log_link(np.c_[np.ones(len(x)), x], y, np.r_[0.0, np.full(3, penalty)], power)
    settings = {"alpha": penalty / len(y), "tol": 1e-10, "max_iter": 10_000}
    other = PoissonRegressor(**settings) if power == 1 else TweedieRegressor(power=power, link="log", **settings)
    other.fit(x, y)
    np.testing.assert_allclose(fit.coefficients, np.r_[other.intercept_, other.coef_], atol=2e-5)
    np.testing.assert_allclose(fit.predict(np.c_[np.ones(len(x)), x]), other.predict(x), rtol=1e-4)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_left_out_predictions_are_nearly_those_of_refits(power):
    x, y = _trials(60)
    features, penalty = np.c_[np.ones(len(x)), x], np.r_[1e-3, np.ones(3)]
    fit = fit_log_link(features, y, penalty, power)
    exact = np.array([_without(i, features, y, penalty, power) for i in range(len(y))])
    fitted = fit.predict(features)
    # One Newton step has to cover nearly all of the way from the fitted to the left-out prediction.
    assert np.abs(np.log(fit.left_out / exact)).mean() < 0.15 * np.abs(np.log(fitted / exact)).mean()
    assert deviance(y, exact, power) == pytest.approx(fit.deviance, rel=0.03)


def _without(i, features, y, penalty, power):
    others = np.arange(len(y)) != i
    return fit_log_link(features[others], y[others], penalty, power).predict(features[i : i + 1])[0]


@given(st.sampled_from([1.0, 1.2, 1.5, 1.9]), st.integers(0, 100))
def test_deviance_is_that_of_scikit_learn(power, seed):
    generator = np.random.default_rng(seed)
    y, mean = generator.gamma(1.0, size=20) * (generator.random(20) < 0.8), generator.gamma(2.0, size=20) + 0.01
    assert deviance(y, mean, power) == pytest.approx(mean_tweedie_deviance(y, mean, power=power), rel=1e-9, abs=1e-9)


def test_without_penalty_the_fitted_mean_is_the_mean_response():
    x, y = _trials()
    fit = fit_log_link(np.c_[np.ones(len(x)), x], y, np.zeros(4))
    assert fit.predict(np.c_[np.ones(len(x)), x]).mean() == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([1.0, 1.5]))
def test_separable_and_heavy_tailed_trials_stay_finite(seed, power):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(30, 3)) * 10 ** generator.uniform(-2, 2)
    y = np.where(x[:, 0] > 0, np.exp(generator.normal(size=30) * 3), 0.0)
    y = y / y.mean() if y.any() else y + 1.0
    fit = fit_log_link(np.c_[np.ones(30), x], y, np.r_[1e-3, np.ones(3)], power)
    assert np.isfinite(fit.coefficients).all() and (fit.left_out > 0).all() and np.isfinite(fit.left_out).all()


def test_constant_and_repeated_columns_do_not_stop_it():
    x, y = _trials()
    features = np.c_[np.ones(len(x)), x, x, np.zeros(len(x))]
    fit = fit_log_link(features, y, np.zeros(8))
    once = fit_log_link(np.c_[np.ones(len(x)), x], y, np.zeros(4))
    np.testing.assert_allclose(fit.predict(features), once.predict(features[:, :4]), rtol=1e-4)
