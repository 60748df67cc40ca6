import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn.connectivity import granger
from motorsweep.learn.var_models import fit_var, granger_of_var, select_order
from numpy.testing import assert_allclose
from scipy.signal import butter, sosfiltfilt
from statsmodels.tsa.api import VAR
from statsmodels.tsa.stattools import grangercausalitytests

FS = 250.0


def _planted(samples=3000, seed=0, c=4, strength=0.4, lead=()):
    """Channel 0 drives 1 after two samples, 1 drives 2 after one; the others are alone."""
    x = np.random.default_rng(seed).normal(size=(*lead, c, samples))
    for t in range(2, samples):
        x[..., t] += 0.5 * x[..., t - 1] - 0.3 * x[..., t - 2]
        x[..., 1, t] += strength * x[..., 0, t - 2]
        x[..., 2, t] += strength * x[..., 1, t - 1]
    return x


def _planted_var(c=4, strength=0.4):
    a = np.stack([0.5 * np.eye(c), -0.3 * np.eye(c)])
    a[1, 1, 0] = a[0, 2, 1] = strength
    return a


def _residuals(x, order, channels, target):
    t = x.shape[1]
    design = np.column_stack([np.ones(t - order), *(x[channels, order - k : t - k].T for k in range(1, order + 1))])
    solved = np.linalg.lstsq(design, x[target, order:], rcond=None)[0]
    return ((x[target, order:] - design @ solved) ** 2).sum()


@pytest.mark.parametrize("order", [1, 5, 12])
def test_pairwise_is_that_of_statsmodels(order):
    x = _planted(600)
    found = granger(x * [[1e-6], [1.0], [300.0], [1.0]], FS, order)
    for i, j in [(1, 0), (0, 1), (2, 0), (3, 2)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            restricted, full = grangercausalitytests(x[[i, j]].T, [order])[order][1][:2]
        assert found[i, j] == pytest.approx(np.log(restricted.ssr / full.ssr), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("order", [1, 6])
def test_conditional_is_that_of_least_squares_without_the_channel(order):
    x = _planted(600)
    found, every = granger(x * [[1e-6], [1.0], [300.0], [1.0]], FS, order, conditional=True), [0, 1, 2, 3]
    noise = VAR(x.T).fit(order).sigma_u_mle.diagonal() * (x.shape[1] - order)
    for i, j in np.argwhere(~np.eye(4, dtype=bool)):
        restricted = _residuals(x, order, [k for k in every if k != j], i)
        assert found[i, j] == pytest.approx(np.log(restricted / noise[i]), rel=1e-8, abs=1e-12)
    assert_allclose(found.diagonal(), 0, atol=0)


@pytest.mark.parametrize("conditional", [False, True])
def test_much_data_gives_the_closed_form_and_the_direction(conditional):
    """[i, j] is from j to i, and what is printed as equation 2 would be negative."""
    found = granger(_planted(200_000), FS, 10, conditional=conditional)
    assert_allclose(found, granger_of_var(_planted_var(), np.eye(4), conditional=conditional), atol=2e-3)
    assert found[1, 0] > 0.1 > 1e-3 > found[0, 1] >= 0
    assert (found[2, 0] < 1e-3) == conditional


@pytest.mark.parametrize("conditional", [False, True])
def test_where_nothing_flows_samples_times_causality_is_chi_squared(conditional):
    x, order = _planted(1000, strength=0.0, lead=(300,)), 5
    scaled = 1000 * granger(x, FS, order, conditional=conditional)[:, ~np.eye(4, dtype=bool)]
    assert scaled.mean() == pytest.approx(order, rel=0.04)
    assert scaled.var() == pytest.approx(2 * order, rel=0.12)


def test_causality_by_frequency_averages_to_that_in_time():
    """Geweke's theorem, for the pair's autoregression of an order that is long enough."""
    x = _planted(20_000)
    found = granger(x, FS, 20, bands=[(0, 125)])[0]
    assert_allclose(found, granger(x, FS, 20), atol=3e-3)


def test_causality_by_frequency_in_closed_form():
    """x = e + b·y lagged, y white: the spectrum is flat, and so is the causality."""
    e = np.random.default_rng(0).normal(size=(2, 100_000))
    x = e.copy()
    x[0, 1:] += 0.5 * e[1, :-1]
    found = granger(x, FS, 1, bands=[("low", 0, 10), ("high", 60, 120)])
    a, noise = fit_var(x, 1)
    f = np.array([5.0, 90.0])
    transfer = np.linalg.inv(np.eye(2) - np.exp(-2j * np.pi * f / FS)[:, None, None] * a[0])
    spectrum = np.einsum("fij,jk,flk->fil", transfer, noise, transfer.conj()).real
    left = noise[1, 1] - noise[0, 1] ** 2 / noise[0, 0]
    geweke = np.log(spectrum[:, 0, 0] / (spectrum[:, 0, 0] - left * np.abs(transfer[:, 0, 1]) ** 2))
    assert_allclose(found[:, 0, 1], geweke, rtol=2e-3)
    assert_allclose(found[:, 0, 1], np.log(1.25), atol=0.01)
    assert_allclose(found[:, 1, 0], 0, atol=1e-3)


def test_noise_that_both_share_is_no_causality_by_frequency():
    """Geweke's formula with the spectra themselves, for innovations correlated by 0.8."""
    x = np.random.default_rng(1).normal(size=(2, 3000))
    x[1] = 0.8 * x[0] + 0.6 * x[1]
    for t in range(2, 3000):
        x[:, t] += 0.5 * x[:, t - 1] - 0.3 * x[:, t - 2]
        x[1, t] += 0.4 * x[0, t - 2]
    a, noise = fit_var(x, 2)
    f = np.arange(10.0, 40.5, 2.5)  # every hundredth of the rate
    turn = np.exp(-2j * np.pi * np.outer([1, 2], f) / FS)
    transfer = np.linalg.inv(np.eye(2) - np.einsum("kf,kij->fij", turn, a))
    spectrum = np.einsum("fij,jk,flk->fil", transfer, noise, transfer.conj()).real
    found = granger(x, FS, 2, bands=[(10, 40)])[0]
    for i, j in ((0, 1), (1, 0)):
        left = noise[j, j] - noise[0, 1] ** 2 / noise[i, i]
        flow = left * np.abs(transfer[:, i, j]) ** 2
        expected = np.log(spectrum[:, i, i] / (spectrum[:, i, i] - flow)).mean()
        assert found[i, j] == pytest.approx(expected, rel=1e-6, abs=1e-10)
    assert found[1, 0] > 0.05 > 0.01 > found[0, 1]


@pytest.mark.parametrize("options", [{}, {"conditional": True}, {"bands": [(0, 20), (20, 60)]}])
@pytest.mark.parametrize("order", [3, None])
def test_batches_are_loops_and_torch_is_numpy(options, order):
    x = np.concatenate([_planted(800, lead=(2,)), np.random.default_rng(3).normal(size=(1, 4, 800))])
    found = granger(x, FS, order, **options)
    for k in range(3):
        assert_allclose(found[k], granger(x[k], FS, order, **options), rtol=1e-9, atol=1e-13)
    assert_allclose(granger(x, FS, order, **options, device=torch.device("cpu")), found, atol=1e-10)


def test_order_is_chosen_where_none_is_given():
    x = _planted(2000)
    chosen = select_order(x, 20).order
    assert chosen == 2
    # Of the same samples: those with 20 before them.
    assert_allclose(granger(x, FS), granger(x[:, 18:], FS, 2), rtol=1e-9, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), conditional=st.booleans(), order=st.integers(1, 6))
def test_order_and_units_of_channels(seed, conditional, order):
    generator = np.random.default_rng(seed)
    x, permutation = _planted(400, seed=seed), generator.permutation(4)
    units, offsets = 10 ** generator.uniform(-6, 6, size=(4, 1)), generator.normal(size=(4, 1))
    found = granger(x, FS, order, conditional=conditional)
    assert found.min() >= 0
    again = granger(x[permutation], FS, order, conditional=conditional)
    assert_allclose(again, found[np.ix_(permutation, permutation)], rtol=1e-8, atol=1e-12)
    moved = granger(units * (x + offsets), FS, order, conditional=conditional)
    assert_allclose(moved, found, rtol=1e-6, atol=1e-10)


def test_conditional_is_not_changed_by_a_mixing_of_the_others():
    """Of what is neither target nor source only the span counts."""
    x, mixing = _planted(600), np.eye(4)
    mixing[2:, 2:] = np.random.default_rng(0).normal(size=(2, 2))
    found, mixed = granger(x, FS, 4, conditional=True), granger(mixing @ x, FS, 4, conditional=True)
    assert_allclose(mixed[:2, :2], found[:2, :2], rtol=1e-8, atol=1e-12)


def test_pairs_of_channels_of_deficient_rank_are_well_posed():
    x = _planted(2000)
    referenced = x - x.mean(axis=0)
    found = granger(referenced, FS, 3)
    assert found[1, 0] == pytest.approx(np.log(_ratio(referenced, 3, 1, 0)), rel=1e-8)
    assert np.isfinite(granger(referenced, FS)).all()
    with pytest.raises(InputError, match=r"4 channels have rank 3.*the one left out is still there"):
        granger(referenced, FS, 3, conditional=True, regularise=1e-3)


def test_pairs_of_which_rounding_is_left_are_refused_and_regularised():
    """Rank and pivots do not tell: 6 % of the residual variances of such a fit were rounding."""
    sections = butter(4, 45, fs=1000, output="sos")
    x = sosfiltfilt(sections, np.random.default_rng(1).normal(size=(3, 8000)))[:, 1000:-1000]
    for options in ({}, {"bands": [(1, 40)]}, {"conditional": True}):
        with pytest.raises(InputError, match="the lagged channels follow from one another"):
            granger(x, 1000.0, 8, **options)
        assert np.isfinite(granger(x, 1000.0, 8, regularise=1e-6, **options)).all()


def _ratio(x, order, i, j):
    return _residuals(x, order, [i], i) / _residuals(x, order, [i, j], i)


def test_the_noise_floor_of_the_farm_changes_nothing_that_counts_and_a_large_one_does():
    x = _planted(20_000)
    plain = granger(x, FS, 4)
    assert_allclose(granger(x, FS, 4, regularise=1e-6), plain, rtol=1e-4, atol=1e-8)
    assert granger(x, FS, 4, regularise=0.5)[1, 0] < 0.6 * plain[1, 0]


REFUSED = [
    (lambda x: granger(x[:, :12], FS, 5), "12 samples are too few for order 5: each equation has 11 coefficients"),
    (lambda x: granger(x[:, :60], FS), "60 samples are too few for order 20: each equation has 81"),
    (lambda x: granger(x[[0, 1, 0]], FS, 2), "the lagged channels follow from one another"),
    (lambda x: granger(x[:1], FS, 2), "1 channel.s. found"),
    (lambda x: granger(x, FS, 2, bands=[(1, 5)], conditional=True), "offered pairwise"),
    (lambda x: granger(x, FS, -1), "the order is -1"),
    (lambda x: granger(x, FS, criterion="BIC"), "'BIC' is not known"),
    (lambda x: granger(x, FS, 2, bands=[(1, 500)]), "half of the sampling rate, 125 Hz"),
    (
        lambda x: granger(x[:2, :300] + [1.03 ** np.arange(300.0), np.zeros(300)], FS, 1, conditional=True),
        "VAR of order 1 is not stable",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(_planted(500))
