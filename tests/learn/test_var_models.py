import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn.connectivity_arrays import Arrays
from motorsweep.learn.var_models import (
    autocovariance,
    fit_var,
    granger_of_var,
    is_stable,
    select_order,
    spectral_radius,
)
from motorsweep.learn.var_models_gram import lag_gram
from numpy.testing import assert_allclose
from scipy.signal import butter, sosfiltfilt
from statsmodels.tsa.api import VAR
from statsmodels.tsa.vector_ar.var_model import VARProcess


def _simulated(coefficients, samples, seed=0, mixing=None):
    generator = np.random.default_rng(seed)
    p, c, _ = coefficients.shape
    x = generator.normal(size=(c, samples + 200))
    if mixing is not None:
        x = mixing @ x
    for t in range(p, x.shape[1]):
        x[:, t] += sum(coefficients[k] @ x[:, t - 1 - k] for k in range(p))
    return x[:, 200:]


def _random_var(c=4, p=3, seed=0, radius=0.8):
    a = np.random.default_rng(seed).normal(size=(p, c, c)) / np.sqrt(c)
    factor = radius / spectral_radius(a)
    return a * factor ** np.arange(1, p + 1)[:, None, None]


UNITS = np.array([1e-6, 2e-5, 1.0, 300.0])


def test_fit_is_that_of_statsmodels_in_channels_of_any_unit_and_offset():
    """The reference fits the bare numbers: of units a billion apart its own least squares loses digits."""
    x = _simulated(_random_var(), 700)
    for order in (1, 2, 7):
        reference = VAR(x.T).fit(order, trend="c")
        fitted = fit_var((x + 50) * UNITS[:, None], order)
        assert_allclose(fitted.coefficients / (UNITS[:, None] / UNITS), reference.coefs, atol=1e-10)
        assert_allclose(fitted.noise_covariance / np.outer(UNITS, UNITS), reference.sigma_u_mle, atol=1e-10)


def test_fit_of_very_correlated_samples_is_that_of_least_squares():
    """Smooth channels, whose lags are nearly dependent: the recursion and the products cost few digits."""
    x = np.cumsum(_simulated(_random_var(), 3000), axis=-1)
    x = x[:, 10:] - x[:, :-10]
    order, t = 6, x.shape[1]
    design = np.column_stack([np.ones(t - order), *(x[:, order - k : t - k].T for k in range(1, order + 1))])
    solved = np.linalg.lstsq(design, x[:, order:].T, rcond=None)[0][1:]
    assert_allclose(fit_var(x, order).coefficients, solved.reshape(order, 4, 4).swapaxes(1, 2), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(order=st.integers(1, 9), samples=st.integers(0, 30), c=st.integers(1, 3), batch=st.integers(1, 2))
def test_products_of_lags_are_those_of_the_design_matrix(order, samples, c, batch):
    samples += order * (c + 1) + c + 2  # the fewest
    z = np.random.default_rng(order).normal(size=(batch, c, samples)) + 3
    found = lag_gram(z, order, Arrays(np), "test")
    for record, products in zip(z, found.products):
        design = np.concatenate([record[:, order - k : samples - k] for k in range(order + 1)])
        expected = np.cov(design, bias=True).reshape(order + 1, c, order + 1, c)
        assert_allclose(products, expected, atol=1e-12)


def test_fit_finds_the_planted_coefficients():
    a = _random_var()
    fitted = fit_var(_simulated(a, 200_000), 3)
    assert_allclose(fitted.coefficients, a, atol=0.01)
    assert_allclose(fitted.noise_covariance, np.eye(4), atol=0.01)


@pytest.mark.parametrize("criterion", ["aic", "bic", "hqic"])
def test_criteria_and_order_are_those_of_statsmodels(criterion):
    x = _simulated(_random_var(seed=3), 400) * UNITS[:, None]
    reference = VAR(x.T / UNITS).select_order(8, trend="c")
    found = select_order(x, 8, criterion, fs=250.0)
    assert_allclose(found.values - 2 * np.log(UNITS).sum(), reference.ics[criterion], rtol=1e-10)
    assert found.order == max(1, reference.selected_orders[criterion])
    assert found.order_ms == 4.0 * found.order


def test_order_does_not_change_with_mixing_and_survives_a_lost_dimension():
    a = _random_var(seed=5)
    x = _simulated(a, 5000)
    mixing = np.random.default_rng(1).normal(size=(6, 4))
    clean, mixed = select_order(x, 10), select_order(mixing @ x, 10)
    assert clean.order == mixed.order == 3
    shift = mixed.values[0] - clean.values[0]
    assert_allclose(mixed.values - shift, clean.values, atol=1e-7)


def test_batches_are_loops_and_torch_is_numpy():
    x = np.stack([[_simulated(_random_var(seed=i), 300, seed=j) for i in range(3)] for j in range(2)])
    batch, selected = fit_var(x, 4), select_order(x, 6)
    assert batch.coefficients.shape == (2, 3, 4, 4, 4) and selected.order.shape == (2, 3)
    for at in np.ndindex(2, 3):
        assert_allclose(batch.coefficients[at], fit_var(x[at], 4).coefficients, atol=1e-12)
        assert selected.order[at] == select_order(x[at], 6).order
    there = fit_var(x, 4, device=torch.device("cpu"))
    assert_allclose(there.coefficients, batch.coefficients, atol=1e-10)
    assert_allclose(select_order(x, 6, device=torch.device("cpu")).values, selected.values, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), c=st.integers(1, 6), p=st.integers(1, 6), radius=st.floats(0.3, 1.3))
def test_stability_without_eigenvalues(seed, c, p, radius):
    a = _random_var(c, p, seed, radius)
    assert bool(is_stable(a)) == bool(spectral_radius(a) < 1)


@pytest.mark.parametrize(("pole", "stable"), [(0.9999, True), (1.0, False), (1.0001, False), (-0.99999, True)])
def test_stability_of_roots_near_the_circle(pole, stable):
    assert bool(is_stable(np.array([[[pole, 1.0], [0.0, 0.5]]]))) is stable


def test_autocovariance_is_that_of_statsmodels_and_solves_yule_walker():
    a, noise = _random_var(), np.diag([1.0, 2.0, 3.0, 0.5]) + 0.2
    gamma = autocovariance(a, noise, 6)
    assert_allclose(gamma, VARProcess(a, None, noise).acf(6), atol=1e-10)
    assert_allclose(gamma[0], sum(a[k] @ gamma[k + 1].T for k in range(3)) + noise, atol=1e-12)
    assert_allclose(gamma[5], sum(a[k] @ gamma[4 - k] for k in range(3)), atol=1e-12)


def _by_toeplitz(a, noise, order, target, others):
    """Variance of predicting a channel from the pasts of some, by the normal equations themselves."""
    gamma = autocovariance(a, noise, order)
    block = np.block(
        [
            [
                gamma[m - k][np.ix_(others, others)] if m >= k else gamma[k - m].T[np.ix_(others, others)]
                for m in range(order)
            ]
            for k in range(order)
        ]
    )
    right = np.concatenate([gamma[k + 1][target, others] for k in range(order)])
    return gamma[0][target, target] - right @ np.linalg.solve(block, right)


@pytest.mark.parametrize("order", [2, 60])
def test_granger_of_var_solves_the_normal_equations(order):
    """60 lags are as good as endless here; noise is correlated between channels."""
    a, noise = _random_var(c=4, p=3, seed=2, radius=0.7), np.diag([1.0, 2.0, 3.0, 0.5]) + 0.2
    given = {"order": order} if order < 60 else {}
    pairwise, conditional = (granger_of_var(a, noise, conditional=flag, **given) for flag in (False, True))
    for i, j in [(0, 1), (1, 0), (2, 3), (3, 0)]:
        alone, pair = _by_toeplitz(a, noise, order, i, [i]), _by_toeplitz(a, noise, order, i, [i, j])
        assert pairwise[i, j] == pytest.approx(np.log(alone / pair), abs=1e-9)
        rest, every = [k for k in range(4) if k != j], list(range(4))
        full = _by_toeplitz(a, noise, order, i, every)
        assert conditional[i, j] == pytest.approx(np.log(_by_toeplitz(a, noise, order, i, rest) / full), abs=1e-9)


def test_granger_of_a_chain_in_closed_form():
    """0 drives 1 drives 2, white otherwise: 0 is seen in 2 by a pair, and no more once 1 is given."""
    a = np.zeros((2, 3, 3))
    a[0, 1, 0], a[0, 2, 1] = 2.0, 1.0
    pairwise, conditional = granger_of_var(a, np.eye(3)), granger_of_var(a, np.eye(3), conditional=True)
    assert_allclose(pairwise, [[0, 0, 0], [np.log(5), 0, 0], [np.log(6 / 2), np.log(6), 0]], atol=1e-12)
    # Given 0's past, what 1 adds to 2 is its own noise alone.
    assert_allclose(conditional, [[0, 0, 0], [np.log(5), 0, 0], [0, np.log(2), 0]], atol=1e-12)


def test_granger_of_a_late_coupling_is_not_missed():
    a = np.zeros((40, 2, 2))
    a[39, 0, 1] = 0.5
    assert_allclose(granger_of_var(a, np.eye(2)), [[0, np.log(1.25)], [0, 0]], atol=1e-12)


def _one_flat(x):
    x = x.copy()
    x[2] = 7.0
    return x


def _one_nan(x):
    x = x.copy()
    x[1, 17] = np.nan
    return x


REFUSED = [
    (lambda x: fit_var(x[:, :20], 5), "20 samples are too few for order 5: each equation has 21 coefficients"),
    (lambda x: fit_var(_one_flat(x), 2), "channel 2 is flat"),
    (lambda x: fit_var(_one_nan(x), 2), "first at sample 17 of channel 1"),
    (lambda x: fit_var(np.stack([x, _one_nan(x)]), 2), "sample 17 of channel 1 of record 1"),
    (lambda x: fit_var(np.stack([x, np.vstack([x[:3], x[:1]])]), 2), "record 1: .* 4 channels have rank 3"),
    (lambda x: fit_var(np.vstack([x, x[:1] + x[1:2]]), 2), "5 channels have rank 4"),
    (lambda x: fit_var(x, 0), "order is 0; give a whole number"),
    (lambda x: fit_var(x, 2.5), "order is 2.5"),
    (lambda x: fit_var(x, 2, regularise=-1), "regularise is -1"),
    (lambda x: fit_var(x[0], 2), r"\(…, channels, samples\)"),
    (lambda x: fit_var(x + 1j, 2), "complex128; give real numbers"),
    (lambda x: fit_var(x * 1e200, 2), "do not fit float64. Give volts"),
    (lambda x: fit_var(x, 2, device="tpu"), "device 'tpu' is not known"),
    (lambda x: select_order(x, 5, "bix"), "'bix' is not known; choose from aic, bic, hqic"),
    (lambda x: select_order(x, 5, fs=-1.0), "sampling rate is -1.0"),
    (lambda x: granger_of_var([[[1.1]]], [[1.0]]), "modulus 1.1, so it is not stable"),
    (lambda x: granger_of_var([[[0.1]]], [[-1.0]]), "not symmetric and positive definite"),
    (lambda x: granger_of_var([[0.1]], [[1.0]]), r"give \(order, c, c\) and \(c, c\)"),
    (lambda x: granger_of_var([[[np.nan]]], [[1.0]]), "NaN or infinite"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(_simulated(_random_var(), 300))


def test_dependent_lags_are_refused_and_regularised():
    t = np.arange(3000) / 1000
    x = np.stack([np.sin(2 * np.pi * f * t + f) for f in (3, 5, 7)]) + 1e-9 * _simulated(_random_var(3), 3000)
    with pytest.raises(InputError, match=r"the lagged channels follow from one another .* resample"):
        fit_var(x, 10)
    fitted = fit_var(x, 10, regularise=1e-4)
    assert np.all(fitted.noise_covariance.diagonal() >= 1e-4 * x.var(axis=1))


@pytest.mark.parametrize(("cutoff", "order"), [(45, 8), (80, 15), (100, 20)])
def test_fits_of_which_rounding_is_left_are_refused_and_regularised(cutoff, order):
    """Each lag leaves far more than rounding to the next, yet 5 to 58 % of the residual variances would be rounding."""
    x = _low_passed(cutoff)
    with pytest.raises(InputError, match=r"error of the fit by rounding: up to about .* resample"):
        fit_var(x, order)
    with pytest.raises(InputError, match="the lagged channels follow from one another"):
        fit_var(x, order, device=torch.device("cpu"))
    with pytest.raises(InputError, match="the lagged channels follow from one another"):
        fit_var(x, order, regularise=1e-14)
    fitted = fit_var(x, order, regularise=1e-6)
    design = _centred_lags(x / x.std(axis=1, keepdims=True), order)
    gram = design @ design.T / design.shape[1] + 1e-6 * np.eye(len(design))
    left = np.linalg.inv(np.linalg.inv(gram)[:3, :3])  # the residual covariance of lag 0
    assert_allclose(
        fitted.noise_covariance / np.outer(x.std(axis=1), x.std(axis=1)), left, rtol=0, atol=1e-7 * left.max()
    )


@pytest.mark.parametrize(("cutoff", "order", "noise"), [(45, 5, 1e-5), (100, 20, 1e-4), (200, 5, 0.0)])
def test_fits_that_pass_have_about_five_digits(cutoff, order, noise):
    x = _low_passed(cutoff)
    x += noise * np.random.default_rng(2).normal(size=x.shape)
    design = _centred_lags(x, order)
    residual = design[:3] - np.linalg.lstsq(design[3:].T, design[:3].T, rcond=None)[0].T @ design[3:]
    expected = (residual**2).mean(axis=1)
    assert_allclose(fit_var(x, order).noise_covariance.diagonal(), expected, rtol=1e-5)


def _low_passed(cutoff):
    """White noise through a Butterworth filter of order 4, forwards and backwards; 3 channels of 6 s at 1 kHz."""
    sections = butter(4, cutoff, fs=1000, output="sos")
    return sosfiltfilt(sections, np.random.default_rng(1).normal(size=(3, 8000)))[:, 1000:-1000]


def _centred_lags(x, order):
    lagged = np.concatenate([x[:, order - k : x.shape[1] - k] for k in range(order + 1)])
    return lagged - lagged.mean(axis=1, keepdims=True)


def test_many_short_records_take_the_memory_of_a_batch():
    """Of these, products of Fourier transforms are most of what is held, and samples few."""
    for shape, order in (((280, 64, 300), 1), ((1500, 19, 200), 2)):
        x = np.random.default_rng(0).normal(size=shape)
        tracemalloc.start()
        fit_var(x, order)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.2 * 2**28  # bytes: the 0.25 GB of a batch, and what is given back


def test_integers_are_not_multiplied_as_integers():
    x = np.round(_simulated(_random_var(), 500) * 5000).astype(np.int16)
    assert_allclose(fit_var(x, 2).coefficients, fit_var(x.astype(float), 2).coefficients, rtol=0, atol=0)


def test_noise_floor_is_that_much_white_noise_and_its_limit_of_smallest_norm():
    """Of a deficient rank: the VAR of the principal components, put back."""
    x = np.random.default_rng(4).normal(size=(5, 4)) @ _simulated(_random_var(), 20_000)
    x /= x.std(axis=1, keepdims=True)
    z = x - x.mean(axis=1, keepdims=True)
    vectors = np.linalg.svd(z, full_matrices=False)[0][:, :4]
    parts = fit_var(vectors.T @ z, 2).coefficients
    assert_allclose(fit_var(x, 2, regularise=1e-9).coefficients, vectors @ parts @ vectors.T, atol=1e-6)
    noisy = x + np.sqrt(0.1) * np.random.default_rng(5).normal(size=x.shape)
    assert_allclose(fit_var(x, 2, regularise=0.1).coefficients, fit_var(noisy, 2).coefficients, atol=0.05)
