import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn.connectivity import coherence, ddtf, dtf, full_frequency_dtf
from motorsweep.learn.connectivity_transfer import (
    dtf_of_transfer,
    inverse_transfer,
    partial_coherence,
    transfer_function,
)
from motorsweep.learn.var_models import select_order
from numpy.testing import assert_allclose
from statsmodels.tsa.api import VAR

FS = 200.0
GRID = np.arange(1.0, 46.0)


def _planted_var():
    """0 drives 1 drives 2, each with a rhythm of its own; 3 is alone."""
    a = np.zeros((2, 4, 4))
    for i, f in enumerate((10, 14, 20, 30)):
        a[0, i, i], a[1, i, i] = 1.6 * np.cos(2 * np.pi * f / FS), -0.64
    a[1, 1, 0] = a[0, 2, 1] = 0.6
    return a


def _planted(samples=3000, seed=0, lead=()):
    a, x = _planted_var(), np.random.default_rng(seed).normal(size=(*lead, 4, samples + 100))
    for t in range(2, samples + 100):
        x[..., t] += x[..., t - 1] @ a[0].T + x[..., t - 2] @ a[1].T
    return x[..., 100:]


def _definitions(a, noise):
    """DTF, F² and dDTF², straight from the paper's equations, loop by loop, for coefficients (p, c, c)."""
    c, h, inverse = a.shape[1], [], []
    for f in GRID:
        z = np.eye(c, dtype=complex)
        for k, each in enumerate(a):
            z -= each * np.exp(-2j * np.pi * f * (k + 1) / FS)
        h.append(np.linalg.inv(z))
        inverse.append(np.linalg.inv(h[-1] @ noise @ h[-1].conj().T))
    h, inverse = np.abs(np.array(h)) ** 2, np.array(inverse)
    plain, full, direct = np.zeros((3, len(GRID), c, c))
    for i in range(c):
        everything = h[:, i, :].sum()
        for j in range(c):
            plain[:, i, j] = h[:, i, j] / h[:, i, :].sum(axis=1)
            full[:, i, j] = h[:, i, j] / everything
            partial = np.abs(inverse[:, i, j]) ** 2 / (inverse[:, i, i] * inverse[:, j, j]).real
            direct[:, i, j] = full[:, i, j] * partial
    return plain.mean(axis=0), full.sum(axis=0), direct.sum(axis=0)


@pytest.mark.parametrize("order", [2, 7])
def test_measures_of_the_fit_of_statsmodels(order):
    x = _planted()
    z = x / x.std(axis=1, keepdims=True)
    reference = VAR(z.T).fit(order)
    for measure, expected in zip(
        (dtf, full_frequency_dtf, ddtf), _definitions(reference.coefs, reference.sigma_u_mle), strict=True
    ):
        assert_allclose(measure(x * 1e-6 + 1e-3, FS, order), expected, atol=1e-9)
    raw = VAR(x.T).fit(order)
    assert_allclose(dtf(x, FS, order, standardise=False), _definitions(raw.coefs, raw.sigma_u_mle)[0], atol=1e-9)


def test_much_data_gives_the_closed_form_and_the_direction():
    x, a = _planted(100_000), _planted_var()
    for measure, expected in zip((dtf, full_frequency_dtf, ddtf), _definitions(a, np.eye(4)), strict=True):
        assert_allclose(measure(x, FS, 2, standardise=False), expected, atol=0.01)
    found, direct = dtf(x, FS, 2), ddtf(x, FS, 2)
    assert found[1, 0] > 0.2 > 0.01 > found[0, 1]
    assert found[2, 0] > 0.1 and direct[2, 0] < 1e-3 < direct[2, 1]


def test_spectrum_of_the_transfer_function_is_the_one_measured():
    """H Σ Hᴴ gives the coherence that Fourier segments find, an independent route to H."""
    x, a = _planted(200_000), _planted_var()
    h = transfer_function(a, GRID, FS)
    spectrum = h @ np.swapaxes(h.conj(), -1, -2)
    power = np.einsum("fii->fi", spectrum).real
    expected = (np.abs(spectrum) ** 2 / (power[:, :, None] * power[:, None])).mean(axis=0)
    assert_allclose(coherence(x, FS, segment_s=2.0), expected, atol=0.02)


def test_partial_coherence_is_that_of_the_inverse_spectrum_and_sees_through_chains():
    a, noise = _planted_var(), np.diag([1.0, 2.0, 0.3, 1.0])
    h = np.linalg.inv(inverse_transfer(a, GRID, FS))
    inverse = np.linalg.inv(h @ noise @ np.swapaxes(h.conj(), -1, -2))
    power = np.einsum("fii->fi", inverse).real
    found = partial_coherence(a, noise, GRID, FS)
    assert_allclose(found, np.abs(inverse) ** 2 / (power[:, :, None] * power[:, None]), atol=1e-10)
    assert_allclose(found[:, 2, 0], 0, atol=1e-15)
    assert dtf_of_transfer(h)[:, 2, 0].max() > 0.05


def test_shares_add_up():
    x, bands = _planted(), {"low": (1, 12), "high": (13, 45)}
    assert_allclose(dtf(x, FS, 3).sum(axis=-1), 1, atol=1e-12)
    assert_allclose(full_frequency_dtf(x, FS, 3).sum(axis=-1), 1, atol=1e-12)
    for measure in (full_frequency_dtf, ddtf):
        assert_allclose(measure(x, FS, 3, bands=bands).sum(axis=0), measure(x, FS, 3), atol=1e-12)
        # What is a share does not change with the grid.
        assert_allclose(measure(x, FS, 3, step_hz=0.25), measure(x, FS, 3), atol=0.01)


@pytest.mark.parametrize("measure", [dtf, full_frequency_dtf, ddtf])
@pytest.mark.parametrize("order", [3, None])
def test_batches_are_loops_and_torch_is_numpy(measure, order):
    x = np.concatenate([_planted(700, lead=(2,)), np.random.default_rng(1).normal(size=(1, 4, 700))])
    bands = [(4, 8), (8, 30)]
    found = measure(x, FS, order, bands=bands)
    assert found.shape == (3, 2, 4, 4)
    for k in range(3):
        assert_allclose(found[k], measure(x[k], FS, order, bands=bands), atol=1e-11)
    assert_allclose(measure(x, FS, order, bands=bands, device=torch.device("cpu")), found, atol=1e-10)


def test_order_is_chosen_where_none_is_given():
    x = _planted(2000)
    assert select_order(x, 20).order == 2
    assert_allclose(dtf(x, FS), dtf(x[:, 18:], FS, 2), atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), measure=st.sampled_from([dtf, full_frequency_dtf, ddtf]))
def test_order_and_units_of_channels(seed, measure):
    """Units drop out of standardised channels only: |H_ij|² goes with the square of i's unit over j's."""
    generator = np.random.default_rng(seed)
    x, permutation = _planted(600, seed=seed), generator.permutation(4)
    units = 10 ** generator.uniform(-3, 3, size=(4, 1))
    found = measure(x, FS, 3)
    assert_allclose(measure(x[permutation], FS, 3), found[np.ix_(permutation, permutation)], atol=1e-9)
    assert_allclose(measure(units * (x + 1), FS, 3), found, atol=1e-7)


def test_units_change_the_measure_of_channels_as_they_are():
    x, units = _planted(), np.array([1.0, 10.0, 1.0, 1.0])
    plain, moved = (dtf(each, FS, 2, standardise=False) for each in (x, units[:, None] * x))
    assert abs(moved - plain).max() > 0.1
    assert_allclose(dtf(units[:, None] * x, FS, 2), dtf(x, FS, 2), atol=1e-10)


REFUSED = [
    (lambda x: dtf(x[:, :20], FS, 4), "20 samples are too few for order 4"),
    (lambda x: dtf(x - x.mean(axis=0), FS, 2), "DTF: the 4 channels have rank 3.*give `regularise`"),
    (lambda x: ddtf(x + 1.02 ** np.arange(400.0) * [[1], [0], [0], [0]], FS, 1), "order 1 is not stable.*high-pass"),
    (lambda x: dtf(x, FS, 2, fmax=101), "lie between 0 and half of the sampling rate, 100 Hz"),
    (lambda x: dtf(x, FS, 2, step_hz=0), "step between frequencies is 0"),
    (lambda x: dtf(x, FS, 2, step_hz=1e-9), "every 1e-09 Hz from 1 to 45 Hz is more than 20000 frequencies"),
    (lambda x: dtf(x, FS, 2, step_hz=100), "no multiple of 100 Hz lies in the bands"),
    (lambda x: full_frequency_dtf(x, FS, 2, bands=[(30, 60)]), "outside 1 to 45 Hz, of whose inflow"),
    (lambda x: dtf(x, FS, 2, bands=[(8.2, 8.4), (1, 45)]), "no frequency of the grid lies in the band 8.2 to 8.4"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(_planted(400))
