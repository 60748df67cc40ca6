import doctest
import importlib

import numpy as np
import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn.connectivity import (
    MEASURES,
    ConnectivityConfig,
    coherence,
    connect,
    correlation,
    ddtf,
    dtf,
    full_frequency_dtf,
    granger,
    phase_lag_index,
)
from motorsweep.learn.var_models import granger_of_var, select_order
from numpy.testing import assert_allclose

FS = 200.0
BANDS = (("theta", 4.0, 8.0), ("alpha", 8.0, 13.0))


def _coefficients(c=5, seed=0, strength=0.08):
    a = np.random.default_rng(seed).normal(size=(2, c, c)) * strength
    a[0, range(c), range(c)], a[1, range(c), range(c)] = 0.9, -0.4
    return a


def _record(samples=6000, c=5, seed=1, strength=0.08):
    a, x = _coefficients(c, strength=strength), np.random.default_rng(seed).normal(size=(c, samples))
    for t in range(2, samples):
        x[:, t] += a[0] @ x[:, t - 1] + a[1] @ x[:, t - 2]
    return x * 1e-5


def _without_a_component(x):
    """A principal direction taken out, as cleaning takes out components."""
    direction = np.random.default_rng(9).normal(size=len(x))
    direction /= np.linalg.norm(direction)
    return x - np.outer(direction, direction @ x)


def test_each_matrix_is_that_of_the_function_of_its_name():
    x = _record()
    more = ("weighted_phase_lag_index", "full_frequency_dtf", "ddtf")
    found = connect(x, FS, ConnectivityConfig(measures=MEASURES + more, bands_hz=BANDS))
    assert found.matrices.shape == (8, 3, 5, 5)
    assert found.bands == ("whole", "theta", "alpha") and found.measures[:5] == MEASURES
    var = {"regularise": 1e-6}
    expected = {
        "correlation": (correlation(x, FS), correlation(x, FS, bands=BANDS)),
        "coherence": (coherence(x, FS), coherence(x, FS, bands=BANDS)),
        "phase_lag_index": (phase_lag_index(x, FS), phase_lag_index(x, FS, bands=BANDS)),
        "granger": (granger(x, FS, **var), granger(x, FS, bands=BANDS, **var)),
        "dtf": (dtf(x, FS, **var), dtf(x, FS, bands=BANDS, **var)),
        "weighted_phase_lag_index": (
            phase_lag_index(x, FS, weighted=True),
            phase_lag_index(x, FS, weighted=True, bands=BANDS),
        ),
        "full_frequency_dtf": (full_frequency_dtf(x, FS, **var), full_frequency_dtf(x, FS, bands=BANDS, **var)),
        "ddtf": (ddtf(x, FS, **var), ddtf(x, FS, bands=BANDS, **var)),
    }
    for k, name in enumerate(found.measures):
        assert_allclose(found.matrices[k, 0], expected[name][0], rtol=1e-8, atol=1e-10, err_msg=name)
        assert_allclose(found.matrices[k, 1:], expected[name][1], rtol=1e-8, atol=1e-9, err_msg=name)
    chosen = select_order(x, 20, fs=FS)
    assert (found.order, found.order_ms, found.rank) == (chosen.order, chosen.order_ms, 5)
    assert found.notes == ()


def test_the_default_is_the_networks_input():
    found = connect(_record(), FS)
    assert found.matrices.shape == (5, 1, 5, 5) and np.isfinite(found.matrices).all()
    diagonals = np.einsum("mbii->mi", found.matrices)
    assert_allclose(diagonals[:4], np.array([1.0, 1.0, 0.0, 0.0])[:, None] * np.ones(5), atol=1e-12)
    assert found.matrices[4].sum(axis=-1) == pytest.approx(1)


def test_muscles_need_granger_alone_at_any_rate():
    """100 Hz: no band up to 45 Hz is asked of them, and the order's limit may be a time."""
    x = _record()
    config = ConnectivityConfig(measures=("granger",), max_order_ms=60.0)
    found = connect(x, 50.0, config)
    assert_allclose(found.matrices[0, 0], granger(x, 50.0, max_order=3, regularise=1e-6), rtol=1e-9, atol=1e-14)
    assert found.order == 2 and found.order_ms == 40.0
    given = connect(x, 50.0, ConnectivityConfig(measures=("granger",), order=4, granger="conditional", regularise=0.0))
    assert_allclose(given.matrices[0, 0], granger(x, 50.0, 4, conditional=True), rtol=1e-9, atol=1e-14)


def test_without_autoregression_there_is_no_order():
    found = connect(_without_a_component(_record()), FS, ConnectivityConfig(measures=("coherence", "correlation")))
    assert found.order == 0 and np.isnan(found.order_ms) and found.rank == 4
    assert found.notes == ("The 5 channels have rank 4: some follow exactly from the others.",)


def test_torch_is_numpy():
    x = _record()
    config = ConnectivityConfig(bands_hz=BANDS)
    there = connect(x, FS, config, device=torch.device("cpu"))
    assert_allclose(there.matrices, connect(x, FS, config).matrices, atol=1e-9)


def test_a_record_of_deficient_rank_goes_on_and_says_so():
    """Its order stays; its pairwise causality needs no floor; its DTF hardly depends on how low the floor is."""
    whole, x = _record(), _without_a_component(_record())
    found = connect(x, FS)
    assert found.rank == 4 and found.order == select_order(x, 20).order
    (note,) = found.notes
    assert "rank 4" in note and "4 principal components" in note and "floor of 1e-06" in note
    assert_allclose(found.matrices[3, 0], granger(x, FS, found.order), atol=2e-3)
    lower = connect(x, FS, ConnectivityConfig(regularise=1e-8)).matrices[4]
    assert_allclose(found.matrices[4], lower, atol=1e-3)
    assert abs(connect(whole, FS).matrices[3, 0] - found.matrices[3, 0]).max() > 0.005  # another signal, after all


def test_the_default_floor_is_without_effect_on_a_full_record():
    x = _record()
    found, plain = connect(x, FS), connect(x, FS, ConnectivityConfig(regularise=0.0))
    assert_allclose(found.matrices, plain.matrices, atol=2e-5)


def test_pairwise_causality_of_a_long_record_is_the_closed_form():
    found = connect(_record(100_000), FS, ConnectivityConfig(order=10)).matrices[3, 0]
    assert_allclose(found, granger_of_var(_coefficients(), np.eye(5)), atol=4e-3)


def test_notes_say_what_the_numbers_rest_on():
    x = _record(300)
    few = connect(x, FS, ConnectivityConfig(order=8, segment_s=0.5))
    assert (
        len(few.notes) == 1
        and "Only 7.3 instants per coefficient of an autoregression (5 channels, order 8)" in few.notes[0]
    )
    longest = connect(_record(), FS, ConnectivityConfig(max_order=2))
    assert "chose the largest order offered, 2 samples (10 ms)" in longest.notes[0]
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=(5, 6000)))
    spectrum[:, 600:] = 0  # nothing above 20 Hz
    smooth = connect(np.fft.irfft(spectrum), FS)
    assert any("of what the past leaves unexplained is the noise floor" in note for note in smooth.notes)


REFUSED = [
    (lambda x: connect(x[None], FS), r"\(1, 5, 600\); give one record"),
    (lambda x: connect(x[:1], FS), "1 channel.s. found"),
    (lambda x: connect(x * [[1], [0], [1], [1], [1]], FS, names=["Fz", "Cz", "Pz", "C3", "C4"]), "channel Cz is flat"),
    (lambda x: connect(x[:, :100], FS), "100 samples are too few for order 20|fewer than two segments"),
    (lambda x: connect(x, 80.0), "the band 'whole' is 1 to 45 Hz"),
    (lambda x: connect(_without_a_component(x), FS, ConnectivityConfig(regularise=0.0)), "5 channels have rank 4"),
    (
        lambda x: connect(_without_a_component(x), FS, ConnectivityConfig(granger="conditional")),
        "5 channels have rank 4.*the one left out is still there",
    ),
    (lambda x: connect(x + 1e-5 * 1.05 ** np.arange(600.0) * np.eye(5)[:, :1], FS), "is not stable"),
    (lambda x: ConnectivityConfig(measures=("coherence", "pli")), "the measure 'pli' is not known; choose from corr"),
    (lambda x: ConnectivityConfig(measures=()), "no measure was asked for"),
    (lambda x: ConnectivityConfig(measures=("dtf", "granger", "dtf")), "the measure 'dtf' is there twice"),
    (
        lambda x: ConnectivityConfig(bands_hz=(("a", 8, 10), ("a", 10, 12))),
        "the band 'a' is there twice, so that its matrices could not be told apart by name\\. Take",
    ),
    (lambda x: ConnectivityConfig(bands_hz=(("whole", 8, 10),)), "'whole' is there twice.*the whole range has that"),
    (lambda x: ConnectivityConfig(granger="both"), "granger = 'both' is not known"),
    (lambda x: ConnectivityConfig(criterion="cv"), "'cv' is not known"),
    (lambda x: ConnectivityConfig(max_order=0), "the order is 0"),
    (lambda x: ConnectivityConfig(max_order_ms=float("nan")), "max_order_ms is nan; give milliseconds"),
    (lambda x: ConnectivityConfig(max_order_ms=-5.0), "max_order_ms is -5.0"),
    (
        lambda x: connect(x, FS, ConnectivityConfig(bands_hz=(("a", 8, 8.001), ("b", 30, 40)))),
        "every 0.0001 Hz from 8 to 40 Hz is more than 20000",
    ),
    (lambda x: ConnectivityConfig(granger="conditional", bands_hz=BANDS), "by frequency is offered pairwise"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(_record(600))


MODULES = (
    *("connectivity", "connectivity_arrays", "connectivity_record", "connectivity_transfer"),
    *("granger", "lagged_products", "spectra", "var_models", "var_models_theory"),
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(f"motorsweep.learn.{name}"))
    assert tried > 0 and failed == 0
