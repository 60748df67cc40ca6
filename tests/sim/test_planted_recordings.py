"""Planted records: closed forms against other closed forms, against measurement, and against what was planted."""

import doctest
from dataclasses import replace
from importlib import import_module
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn.connectivity import ConnectivityConfig, connect
from motorsweep.sim.cleaning import CleaningConfig, clean, emg_power_gain
from motorsweep.sim.planted_granger import (
    autocovariance_of_spectrum,
    granger_of_autocovariance,
    prediction_errors,
)
from motorsweep.sim.planted_population import factors_of, system_of
from motorsweep.sim.planted_recordings import (
    MUSCLE_NAMES,
    PlantedConfig,
    planted_names,
    planted_recording,
)
from motorsweep.sim.planted_system import LOOP_BOUND, bounded, cortical_power, muscle_power, resonator
from motorsweep.sim.signal_filters import decimated
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import welch

QUIET = PlantedConfig(line_uv=0, blink_uv=0, eeg_noise_uv=0, emg_noise_uv=0)
OFF_DIAGONAL = ~np.eye(6, dtype=bool)


@pytest.fixture(scope="module")
def planted():
    return planted_recording(PlantedConfig(), seed=7, index=21)


def companion(coefficients):
    order, n, _ = coefficients.shape
    matrix = np.eye(order * n, k=-n)
    matrix[:n] = coefficients.transpose(1, 0, 2).reshape(n, -1)
    return matrix


def measured_granger(signal, order):
    """Pairwise Granger causality by least squares on the samples."""
    signal = signal / signal.std(axis=1, keepdims=True)
    n, now = len(signal), signal[:, order:].T
    past = [np.stack([row[order - k : len(row) - k] for k in range(1, order + 1)], axis=1) for row in signal]

    def residuals(targets, sources):
        design, wanted = np.hstack([past[j] for j in sources]), now[:, targets]
        return ((wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]) ** 2).sum(axis=0)

    own = np.concatenate([residuals([i], [i]) for i in range(n)])
    causality = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        causality[[i, j], [j, i]] = np.log(own[[i, j]] / residuals([i, j], [i, j]))
    return causality


@pytest.mark.parametrize(
    "module", ["electrodes", "planted_granger", "planted_recordings", "signal_filters", "components", "cleaning"]
)
def test_examples_of_docstrings(module):
    found = doctest.testmod(import_module(f"motorsweep.sim.{module}"), extraglobs={"np": np})
    assert found.attempted > 0 and found.failed == 0


def test_prediction_of_one_autoregression():
    # x(t) = 0.6 x(t - 1) - 0.3 x(t - 2) + e with variance 2 by Yule-Walker: one step is wrong by e alone
    lag1 = 0.6 / 1.3
    gamma = np.array([1.0, lag1, 0.6 * lag1 - 0.3, 0.0])
    gamma[3] = 0.6 * gamma[2] - 0.3 * gamma[1]
    gamma *= 2 / (1 - 0.6 * gamma[1] + 0.3 * gamma[2])
    assert prediction_errors(gamma[:, None, None])[0, 0] == pytest.approx(2.0, rel=1e-12)
    assert prediction_errors(gamma[:2, None, None])[0, 0] == pytest.approx(gamma[0] * (1 - lag1**2), rel=1e-12)


def test_granger_of_a_pair_in_closed_form():
    # x(t) = e1(t); y(t) = g x(t - 1) + e2(t): F of x -> y is ln(1 + g^2), of y -> x is 0
    gamma = np.zeros((6, 2, 2))
    gamma[0], gamma[1, 1, 0] = np.diag([1.0, 1 + 0.5**2]), 0.5
    assert granger_of_autocovariance(gamma) == pytest.approx(np.array([[0, 0], [np.log(1.25), 0]]), abs=1e-14)


def test_recursion_equals_the_normal_equations():
    rng = np.random.default_rng(0)
    coefficients = 0.2 * rng.normal(size=(2, 3, 3))
    step = companion(coefficients)
    state = solve_discrete_lyapunov(step, np.diag([1.0] * 3 + [0.0] * 3))
    gamma = [(np.linalg.matrix_power(step, k) @ state)[:3, :3] for k in range(6)]
    big = np.block([[gamma[j - i] if j >= i else gamma[i - j].T for j in range(5)] for i in range(5)])
    row = np.hstack(gamma[1:])
    wanted = gamma[0] - row @ np.linalg.solve(big, row.T)
    assert prediction_errors(np.array(gamma)) == pytest.approx(wanted, rel=1e-9)
    assert prediction_errors(np.array(gamma)) == pytest.approx(np.eye(3), abs=1e-9)


def test_singular_process_is_refused():
    with pytest.raises(InputError, match=r"singular.*widen the band"):
        prediction_errors(np.cos(np.arange(8) * 0.3)[:, None, None])


def test_autocovariance_of_the_system_solves_its_own_equations():
    """The state covariance of the companion form, by scipy's Lyapunov solver, on a small system."""
    system = system_of(PlantedConfig(n_eeg=3, n_emg=2, rate_hz=300), 3, 1)
    coefficients = system.coefficients()
    drive = np.zeros((5 * len(coefficients),) * 2)
    drive[:5, :5] = np.diag(system.scale_v**2)
    step = companion(coefficients)
    state = solve_discrete_lyapunov(step, drive)
    scale = np.sqrt(np.diag(state)[:5])
    gamma = autocovariance_of_spectrum(system.spectrum(3000), 40)
    for lag in (0, 1, 7, 40):
        wanted = (np.linalg.matrix_power(step, lag) @ state)[:5, :5]
        assert gamma[lag] / np.outer(scale, scale) == pytest.approx(wanted / np.outer(scale, scale), abs=1e-8)


def test_granger_of_the_innovations_is_that_of_the_volts(planted):
    gamma = autocovariance_of_spectrum(planted.system.spectrum(2000)[:, 19:, 19:], 150)
    scale = np.sqrt(np.diag(gamma[0]))
    assert granger_of_autocovariance(gamma / np.outer(scale, scale)) == pytest.approx(planted.emg_granger, abs=1e-8)
    assert planted.expected_granger(order=150, noise=False) == pytest.approx(planted.emg_granger, abs=1e-8)


def test_causality_is_not_negative_and_the_diagonal_is_zero(planted):
    for matrix in (planted.emg_granger, planted.emg_granger_conditional, planted.eeg_granger):
        assert np.diag(matrix).tolist() == [0.0] * len(matrix)
        assert matrix.min() > -1e-12
    assert planted.emg_granger.shape == (6, 6) and planted.eeg_granger.shape == (19, 19)


def test_causality_follows_the_planted_direction():
    """Without common drive, conditional causality of muscles is ln(1 + gain²) or more, and 0 where nothing drives."""
    config = replace(QUIET, corticomuscular=0, n_emg=2, muscular=0.5)
    planted = planted_recording(config, 1, 0)
    system = planted.system
    gain = {(t, s): g for t, s, g in zip(system.target, system.source, system.gain) if t >= 19 <= s}
    for i, j in ((0, 1), (1, 0)):
        assert planted.emg_granger[i, j] == pytest.approx(np.log1p(gain[19 + i, 19 + j] ** 2), rel=0.35)
    alone = planted_recording(replace(config, muscular=0), 1, 0)
    assert alone.emg_granger == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_measured_granger_is_the_closed_form_within_its_sampling_error():
    """Least squares on 100 s: with N samples, F has bias order/N and variance of about 4 F/N + 2 order/N²."""
    order, samples = 20, 100_000
    planted = planted_recording(replace(QUIET, seconds=100), 5, 3)
    wanted = planted.expected_granger(order=order, noise=False)
    error = (measured_granger(planted.recording.emg, order) - wanted - order / samples)[OFF_DIAGONAL]
    spread = np.sqrt(4 * wanted[OFF_DIAGONAL] / samples + 2 * order / samples**2)
    assert np.abs(error / spread).max() < 4.5
    assert np.sqrt(np.mean((error / spread) ** 2)) < 1.6
    assert wanted == pytest.approx(planted.emg_granger, abs=5e-4)


def test_sensor_noise_filters_and_rate_are_in_the_expected_granger():
    planted = planted_recording(PlantedConfig(seconds=60, emg_noise_uv=20, blink_uv=0, line_uv=0), 5, 2)
    config = CleaningConfig(ica=False, notch_hz=0, emg_band_hz=(20, 300))
    order, every = 12, 2
    expected = planted.expected_granger(
        order=order, every=every, power_gain=emg_power_gain(config, planted.recording.rate_hz)
    )
    signal = decimated(clean(planted.recording, config).recording.emg, every)
    error = (measured_granger(signal, order) - expected)[OFF_DIAGONAL]
    assert np.sqrt(np.mean(error**2)) < 0.0025
    assert np.sqrt(np.mean((expected - planted.emg_granger)[OFF_DIAGONAL] ** 2)) > 0.005


@pytest.fixture(scope="module")
def long_emg():
    """A planted record of 200 s, and its EMG after cleaning with a band."""
    planted = planted_recording(PlantedConfig(seconds=200, blink_uv=0, line_uv=0), 1, 0)

    def cleaned(band_hz):
        config = CleaningConfig(ica=False, notch_hz=0, emg_band_hz=band_hz)
        return clean(planted.recording, config).recording.emg, emg_power_gain(config, planted.recording.rate_hz)

    return planted, cleaned


def distance(planted, emg, options, **asked):
    """How far the expected causality is from what `connect` finds, root mean square, and the size of the latter."""
    config = ConnectivityConfig(measures=("granger",), order=asked["order"], **options)
    found = connect(decimated(emg, asked.get("every", 1)), 1000.0 / asked.get("every", 1), config).matrices[0, 0]
    expected = planted.expected_granger(floor=config.regularise, **asked)
    return [np.sqrt(np.mean(each[OFF_DIAGONAL] ** 2)) for each in (found - expected, found)]


@pytest.mark.parametrize("every, order", [(1, 20), (2, 10), (4, 5), (5, 5)])
@pytest.mark.parametrize("granger", ["pairwise", "conditional"])
def test_what_is_expected_at_a_lower_rate_is_found(long_emg, every, order, granger):
    planted, cleaned = long_emg
    emg, gain = cleaned((20, 0))
    asked = {"order": order, "every": every, "power_gain": gain, "conditional": granger == "conditional"}
    error, size = distance(planted, emg, {"granger": granger}, **asked)
    assert error < 0.002 and size > 0.018


@pytest.mark.parametrize("upper_hz", [300, 200, 150, 100])
def test_what_is_expected_of_a_band_that_ends_early_is_found_with_the_floor_of_the_analysis(long_emg, upper_hz):
    planted, cleaned = long_emg
    emg, gain = cleaned((20, upper_hz))
    assert distance(planted, emg, {}, order=20, power_gain=gain)[0] < 0.001
    with pytest.raises(InputError, match="singular"):
        planted.expected_granger(order=20, power_gain=lambda hertz: hertz < 100)


def test_cleaned_emg_keeps_the_planted_truth():
    """With the cleaning that comes by default; a band that ends at 200 Hz would be three times further off."""
    planted = planted_recording(PlantedConfig(), 1, 1)
    rate_hz = planted.recording.rate_hz

    def moved(config):
        found = planted.expected_granger(order=20, power_gain=emg_power_gain(config, rate_hz))
        return np.sqrt(np.mean((found - planted.emg_granger)[OFF_DIAGONAL] ** 2))

    assert moved(CleaningConfig()) < 0.002
    assert moved(CleaningConfig(emg_band_hz=(20, 200))) > 3 * moved(CleaningConfig())
    found = measured_granger(clean(planted.recording, CleaningConfig(ica=False)).recording.emg, 20)
    assert np.corrcoef(found[OFF_DIAGONAL], planted.emg_granger[OFF_DIAGONAL])[0, 1] > 0.98


def test_record_depends_on_seed_subject_and_number_alone():
    few = PlantedConfig(subjects=2, records_per_subject=3, seconds=2)
    many = replace(few, subjects=9)
    one, again = planted_recording(few, 4, 4), planted_recording(many, 4, 4)
    assert np.array_equal(one.recording.eeg, again.recording.eeg)
    assert np.array_equal(one.emg_granger, again.emg_granger)
    longer = planted_recording(replace(few, records_per_subject=5), 4, 6)
    assert np.array_equal(one.recording.emg, longer.recording.emg)
    assert not np.array_equal(one.recording.eeg, planted_recording(few, 5, 4).recording.eeg)
    assert not np.array_equal(one.recording.eeg, planted_recording(few, 4, 3).recording.eeg)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    index=st.integers(0, 5),
    strength=st.floats(0, 10),
    factor_sd=st.floats(0, 3),
    rate_hz=st.sampled_from([250.0, 300.0, 512.0]),
)
def test_every_system_is_stable(seed, index, strength, factor_sd, rate_hz):
    config = PlantedConfig(
        subjects=2, records_per_subject=3, n_eeg=4, n_emg=3, rate_hz=rate_hz, cortical=strength, muscular=strength
    )
    system = system_of(replace(config, factor_sd=factor_sd), seed, index)
    assert np.abs(np.linalg.eigvals(companion(system.coefficients()))).max() < 1
    moduli = np.zeros((7, 7))
    np.add.at(moduli, (system.target, system.source), np.abs(system.gain))
    assert np.abs(np.linalg.eigvals(moduli)).max() <= LOOP_BOUND * (1 + 1e-9)


def test_gains_below_the_bound_are_left_alone():
    target, source = np.array([0, 1]), np.array([1, 0])
    assert bounded(np.array([0.5, -0.5]), target, source, 2).tolist() == [0.5, -0.5]
    assert bounded(np.array([4.0, -1.0]), target, source, 2) == pytest.approx([1.6, -0.4])
    assert bounded(np.array([0.0, 0.0]), target, source, 2).tolist() == [0.0, 0.0]


def test_simulation_has_the_spectrum_and_power_of_the_system():
    planted = planted_recording(replace(QUIET, seconds=120), 2, 0)
    volts = np.vstack([planted.recording.eeg, planted.recording.emg])
    gamma = autocovariance_of_spectrum(planted.system.spectrum(2000), 0)[0]
    assert np.cov(volts) / np.sqrt(np.outer(np.diag(gamma), np.diag(gamma))) == pytest.approx(
        gamma / np.sqrt(np.outer(np.diag(gamma), np.diag(gamma))), abs=0.05
    )
    hertz, power = welch(volts, 1000.0, nperseg=2000)
    wanted = np.einsum("fii->if", planted.system.spectrum(1000)).real / 500
    used = (hertz > 2) & (hertz < 490)
    assert np.log(power[:, used] / wanted[:, used]).std() < 0.15


def test_spectra_look_like_eeg_and_emg(planted):
    hertz, power = welch(planted.recording.eeg, 1000.0, nperseg=2000)
    back = power[planted.recording.eeg_names.index("O1")]
    rhythm, others = (hertz >= 8) & (hertz <= 12), (hertz >= 25) & (hertz <= 40)
    assert 8.5 < hertz[rhythm][back[rhythm].argmax()] < 11.6 and back[rhythm].max() > 5 * back[others].max()
    quiet = np.abs((hertz + 25) % 50 - 25) > 3
    hum = power[:, hertz == 50][:, 0] / np.median(power[:, (hertz > 44) & (hertz < 56) & quiet], axis=1)
    assert (hum > 5).mean() > 0.8
    hertz, power = welch(planted.recording.emg, 1000.0, nperseg=1000)
    assert ((hertz[power.argmax(axis=1)] > 25) & (hertz[power.argmax(axis=1)] < 130)).all()
    eeg, emg = planted.recording.eeg.std(axis=1), planted.recording.emg.std(axis=1)
    assert (eeg > 5e-6).all() and (eeg < 1e-4).all() and (emg > 3e-5).all() and (emg < 2e-3).all()


def test_resonator_has_the_spectrum_it_was_made_for():
    for power, memory_s in ((cortical_power(10.0, 1.0, 0.1), 0.1), (muscle_power(40.0, 100.0), 0.02)):
        below = resonator(power, 1000.0, memory_s)
        assert np.abs(np.roots(below)).max() < 1
        hertz = np.linspace(1, 400, 400)
        ring = 1 / np.abs(np.polyval(below, np.exp(2j * np.pi * hertz / 1000))) ** 2
        assert np.log(ring / power(hertz)).std() < 0.25


def test_coupling_says_how_much_muscles_share_with_cortex():
    def gains(coupling):
        config = PlantedConfig(coupling=coupling, subjects=40, records_per_subject=2, condition_shift=0, subject_sd=0)
        systems = [system_of(config, 1, index) for index in range(80)]
        factors = np.array([factors_of(config, 1, index).shared for index in range(80)])
        to_muscle = systems[0].target >= 19
        logs = np.log(np.abs([system.gain[to_muscle] for system in systems]))
        logs -= logs.mean(axis=0)
        design = np.c_[np.ones(80), factors]
        left = logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0]
        return 1 - (left**2).sum() / (logs**2).sum()

    assert gains(1.0) == pytest.approx(1.0, abs=1e-6)
    assert gains(0.0) == pytest.approx(4 / 79, abs=0.06)
    assert gains(0.5) == pytest.approx(0.5, abs=0.12)


def test_condition_and_subject_move_the_factors_as_said():
    def shared(index, **change):
        return factors_of(PlantedConfig(subjects=2, records_per_subject=4, **change), 1, index).shared

    for index, sign in enumerate((-1, 1, -1, 1)):
        moved = shared(index, condition_shift=3.0) - shared(index, condition_shift=0.0)
        np.testing.assert_allclose(moved, [1.5 * sign, 0, 0, 0], atol=1e-12)
    same = {"condition_shift": 0.0, "subject_share": 1.0}
    np.testing.assert_array_equal(shared(0, **same), shared(3, **same))
    assert np.abs(shared(0, **same) - shared(4, **same)).max() > 0.1
    assert np.abs(shared(0, subject_share=0.0) - shared(2, subject_share=0.0)).max() > 0.1


def test_muscles_do_not_drive_cortex(planted):
    system = planted.system
    assert not ((system.target < 19) & (system.source >= 19)).any()
    assert (system.delay >= 1).all() and not (system.target == system.source).any()


def test_names_and_conditions():
    config = PlantedConfig(subjects=2, records_per_subject=2, seconds=2, n_emg=3, n_eeg=5)
    names = planted_names(config)
    assert len(names) == 4 and len({name for name, _, _ in names}) == 4
    record = planted_recording(config, 0, 3).recording
    assert (record.name, record.subject, record.condition) == names[3] == ("s02-001-activity", "s02", "activity")
    assert record.emg_names == MUSCLE_NAMES[:3] and record.eeg.shape == (5, 2000) and record.emg.shape == (3, 2000)
    assert len(set(MUSCLE_NAMES)) == 6


def test_artefacts_are_what_was_added():
    config = PlantedConfig(seconds=30, heartbeat_uv=10, jaw_uv=20, pop_uv=100)
    dirty = planted_recording(config, 1, 0)
    clean_one = planted_recording(replace(config, heartbeat_uv=0, jaw_uv=0, pop_uv=0, line_uv=0, blink_uv=0), 1, 0)
    assert [artefact.name for artefact in dirty.artefacts] == ["line", "blinks", "heartbeat", "jaw", "pops"]
    assert clean_one.artefacts == ()
    added = sum(np.outer(artefact.weight_v, artefact.course) for artefact in dirty.artefacts)
    difference = np.vstack(
        [dirty.recording.eeg - clean_one.recording.eeg, dirty.recording.emg - clean_one.recording.emg]
    )
    assert np.abs(difference - added).max() < 1e-15
    blinks = dirty.artefacts[1]
    assert blinks.weight_v[0] > 5 * np.abs(blinks.weight_v[17]) and not blinks.weight_v[19:].any()


def test_a_hum_that_the_rate_cannot_hold_is_not_there():
    config = PlantedConfig(seconds=2, rate_hz=250.0, blink_uv=0)
    assert planted_recording(replace(config, line_hz=200.0), 1, 0).artefacts == ()
    (hum,) = planted_recording(replace(config, line_hz=100.0), 1, 0).artefacts
    hertz = np.fft.rfftfreq(500, 1 / 250.0)
    assert hertz[np.abs(np.fft.rfft(hum.course)).argmax()] == 100


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_eeg": 20}, "n_eeg = 20 is outside 2 to 19"),
        ({"n_emg": 7}, "n_emg = 7 is outside 2 to 6"),
        ({"coupling": 1.2}, "coupling = 1.2 is outside 0 to 1"),
        ({"rate_hz": 100.0}, "rate_hz = 100.0 is outside 250"),
        ({"seconds": float("nan")}, "seconds = nan is outside"),
        ({"subjects": 0}, "subjects = 0 is outside"),
        ({"subjects": 1.5}, "subjects = 1.5 is no whole number"),
        ({"seconds": 86400}, "86400 s of 25 channels at 1000 Hz are 2.2e\\+09 samples a record"),
    ],
)
def test_configurations_that_cannot_be_made(change, message):
    with pytest.raises(InputError, match=message):
        PlantedConfig(**change)


def test_records_that_are_not_there(planted):
    config = PlantedConfig(subjects=1, records_per_subject=2, seconds=2)
    with pytest.raises(InputError, match=r"planted record 2 with seed 1.*records 0 to 1"):
        planted_recording(config, 1, 2)
    with pytest.raises(InputError, match="seeds are not negative"):
        planted_recording(config, -1, 0)
    with pytest.raises(InputError, match="no signal 'ecg'"):
        planted.expected_granger("ecg", order=5)
    with pytest.raises(InputError, match="5000 samples of lag"):
        planted.expected_granger(order=5000)
