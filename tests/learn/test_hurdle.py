import numpy as np
import pytest
from motorsweep.learn.hurdle import _logistic, fit_hurdle
from motorsweep.learn.kernel_bases import basis_of
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel


def _trials(n, e, seed):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1.5, 1.5, n + e)
    probability, size = expit(2 - 4 * x**2), np.exp(0.5 * x)
    y = (generator.random(n + e) < probability) * size * np.exp(0.5 * generator.normal(size=n + e) - 0.125)
    trend = np.column_stack([np.ones(n + e), x, x**2])
    basis = basis_of("rbf", rbf_kernel(x[:, None], gamma=1.0)[:, :n], n)
    return trend, basis, y, probability * size


def test_logistic_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 3))
    outcome = generator.random(200) < expit(x @ [1.0, -2.0, 0.5] + 0.3)
    b, left_out = _logistic(np.c_[np.ones(200), x], outcome, np.r_[0.0, np.full(3, 2.0)], None)
    other = LogisticRegression(C=0.5, tol=1e-10).fit(x, outcome)
    np.testing.assert_allclose(b, np.r_[other.intercept_, other.coef_[0]], atol=1e-5)
    refit = LogisticRegression(C=0.5, tol=1e-10).fit(x[1:], outcome[1:])
    assert left_out[0] == pytest.approx(refit.decision_function(x[:1])[0], abs=0.02)


def test_finds_the_mean_of_responses_that_are_often_zero():
    trend, basis, y, mean = _trials(600, 300, seed=1)
    unit = y[:600].mean()
    left_out, predicted = fit_hurdle((trend[:600], trend[600:]), [basis], y[:600] / unit)
    assert 1 - np.var(predicted * unit - mean[600:]) / np.var(mean[600:]) > 0.97
    assert left_out.mean() * unit == pytest.approx(y[:600].mean(), rel=0.05)


def test_separable_trials_stay_finite():
    trend, basis, _, _ = _trials(40, 10, seed=2)
    y = np.where(trend[:40, 1] > 0, 2.0, 0.0)
    for part in fit_hurdle((trend[:40], trend[40:]), [basis], y):
        assert np.isfinite(part).all() and (part >= 0).all()
