"""Independent components: separation of known sources, rank, and each artefact rule on an artefact of its kind."""

from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.artefact_rules import ArtefactRules, artefact_components
from motorsweep.sim.components import independent_components, numerical_rank
from motorsweep.sim.electrodes import TEN_TWENTY, electrode, interpolation_matrix, position
from scipy.signal import butter, sosfiltfilt

RATE_HZ = 250.0
SAMPLES = 10_000
NAMES = TEN_TWENTY[:8]


def brain(seed=0, channels=8):
    """Mixed sources with a spectrum that falls, µV-sized."""
    rng = np.random.default_rng(seed)
    sources = np.cumsum(rng.normal(size=(channels, SAMPLES)), axis=1)
    sources = sosfiltfilt(butter(2, (1, 60), "bandpass", fs=RATE_HZ, output="sos"), sources, axis=1)
    mixing = np.eye(channels) + 0.3 * rng.normal(size=(channels, channels))
    return 1e-5 * mixing @ (sources / sources.std(axis=1, keepdims=True))


def with_artefact(weights, course):
    return brain() + np.outer(np.asarray(weights) * 1e-4, course)


def blink_course():
    course, at = np.zeros(SAMPLES), np.arange(75)
    for onset in range(400, SAMPLES - 100, 900):
        course[onset : onset + 75] = np.sin(np.pi * at / 75) ** 2
    return course


def judged(eeg, *, names=NAMES, rules=None, **keywords):
    components = independent_components(eeg - eeg.mean(axis=1, keepdims=True), RATE_HZ)
    return components, artefact_components(components, names, rules or ArtefactRules(), **keywords)


def test_known_sources_are_separated():
    rng = np.random.default_rng(1)
    sources = rng.laplace(size=(4, SAMPLES))
    mixing = rng.normal(size=(4, 4)) * 1e-6
    components = independent_components(mixing @ sources, RATE_HZ, seed=3)
    seen = np.abs(np.corrcoef(components.courses, sources)[:4, 4:])
    assert np.sort(seen.max(axis=1)) == pytest.approx(np.ones(4), abs=0.01)
    assert sorted(seen.argmax(axis=1)) == [0, 1, 2, 3]
    assert components.settled.all() and components.iterations < 100
    assert components.courses.std(axis=1) == pytest.approx(np.ones(4), rel=1e-9)


def test_components_make_up_the_eeg():
    eeg = brain()
    components = independent_components(eeg, RATE_HZ)
    assert components.mixing @ components.unmixing == pytest.approx(np.eye(8), abs=1e-9)
    assert np.abs(components.unmixing @ eeg - components.courses).max() < 1e-2  # but for the mean
    power = (components.mixing**2).sum(axis=0)
    assert (np.diff(power) <= 0).all()
    assert (components.mixing[np.abs(components.mixing).argmax(axis=0), np.arange(8)] > 0).all()
    assert components.without([])[0] == pytest.approx(np.eye(8))
    assert np.linalg.matrix_rank(components.without([1, 5])[0]) == 6


def test_decomposition_has_the_rank_of_the_eeg():
    eeg = brain()
    referenced = eeg - eeg.mean(axis=0)
    components = independent_components(referenced, RATE_HZ)
    assert numerical_rank(eeg) == 8 and numerical_rank(referenced) == 7
    assert components.unmixing.shape == (7, 8)
    projection = components.mixing @ components.unmixing
    assert np.abs(projection @ referenced - referenced).max() < 1e-9 * np.abs(referenced).max()


def test_rank_does_not_depend_on_units():
    eeg = brain()
    assert numerical_rank(eeg * np.logspace(-6, 6, 8)[:, None]) == 8
    assert numerical_rank(np.vstack([eeg, eeg[0] * 1e-9])) == 8
    assert numerical_rank(np.zeros((3, 100))) == 0


def test_same_seed_gives_the_same_components():
    one, again, other = (independent_components(brain(), RATE_HZ, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.unmixing, again.unmixing)
    assert not np.array_equal(one.unmixing, other.unmixing)


def test_scaling_of_a_recording_changes_nothing():
    one, scaled = (independent_components(brain() * factor, RATE_HZ) for factor in (1.0, 1024.0))
    assert np.abs(one.courses - scaled.courses).max() < 1e-6
    assert scaled.mixing == pytest.approx(one.mixing * 1024, rel=1e-6)


def test_without_sources_of_their_own_components_do_not_settle():
    white = np.random.default_rng(0).normal(size=(8, SAMPLES))
    components = independent_components(white, RATE_HZ, iterations=5)
    assert components.iterations == 5 and not components.settled.all()


def test_what_is_taken_out_is_the_same_from_every_start():
    rng = np.random.default_rng(8)
    mixing, blink = rng.normal(size=(12, 12)), np.zeros(6000)
    blink[rng.choice(5900, 12, replace=False)[:, None] + np.arange(60)] += 8 * np.hanning(60)
    sources = np.vstack([rng.normal(size=(11, 6000)), blink + 0.1 * rng.normal(size=6000)])
    eeg, cleaned, plain = mixing @ sources, [], []
    for seed in (0, 1, 2):
        found = independent_components(eeg, RATE_HZ, seed=seed, iterations=20)
        assert not found.settled.all()
        (eye,) = np.flatnonzero(np.abs(found.courses @ sources[-1]) > 0.9 * 6000 * sources[-1].std())
        matrix, settled = found.without([eye])
        assert settled.tolist() == [True]
        cleaned.append(matrix @ eeg)
        plain.append(eeg - np.outer(found.mixing[:, eye], found.unmixing[eye]) @ eeg)
    size = np.abs(cleaned[0]).max()
    assert max(np.ptp(each) for each in np.moveaxis(cleaned, 0, -1).reshape(-1, 3)) < 1e-5 * size
    assert (
        max(np.ptp(each) for each in np.moveaxis(plain, 0, -1).reshape(-1, 3)) > 1e-3 * size
    )  # without settling alone
    left = np.linalg.lstsq(sources[-1:].T, cleaned[0].T, rcond=None)[0]
    assert np.abs(left).max() < 0.05 * np.abs(mixing[:, -1]).max()


def test_a_component_without_a_direction_of_its_own_is_taken_out_as_it_was():
    eeg = np.random.default_rng(9).normal(size=(6, 4000))
    found = independent_components(eeg, RATE_HZ, iterations=5)
    matrix, settled = found.without([2])
    assert settled.tolist() == [False]
    out = np.eye(6) - matrix
    assert np.linalg.matrix_rank(out, tol=1e-9) == 1 and np.allclose(out @ out, out)
    both = np.eye(6) - found.without([2, 4])[0]
    assert np.linalg.matrix_rank(both, tol=1e-9) == 2 and np.allclose(both @ both, both)


def test_clean_eeg_has_no_artefacts():
    assert judged(brain(), line_hz=(50.0,))[1] == []


def test_eye_by_frontal_topography():
    course = blink_course()
    components, found = judged(with_artefact([1, 1, 0.4, 0.3, 0.3, 0.3, 0.4, 0.05], course))
    assert [one.rule for one in found] == ["eye"]
    assert found[0].value > 0.6 and found[0].threshold == 0.5
    assert "frontal" in found[0].found and "kurtosis" in found[0].found
    assert np.abs(np.corrcoef(components.courses[found[0].component], course)[0, 1]) > 0.97
    assert components.settled[found[0].component]


def test_same_course_elsewhere_is_not_the_eye():
    assert judged(with_artefact([0, 0, 0, 1, 1, 1, 0, 1], blink_course()))[1] == []


def test_eye_by_correlation_where_names_say_nothing():
    course = blink_course()
    eeg = with_artefact([1, 1, 0.4, 0.3, 0.3, 0.3, 0.4, 0.05], course)
    names = tuple(f"ch{n}" for n in range(8))
    assert judged(eeg, names=names)[1] == []
    eog = course[None] * 2e-4 + 1e-6 * np.random.default_rng(0).normal(size=SAMPLES)
    found = judged(eeg, names=names, eog=eog)[1]
    assert [one.rule for one in found] == ["eye"] and found[0].value > 0.9 and "EOG" in found[0].found


def test_muscle_by_slope_and_fast_power():
    noise = np.random.default_rng(5).laplace(size=SAMPLES)
    noise = sosfiltfilt(butter(2, 20, "highpass", fs=RATE_HZ, output="sos"), noise)
    noise *= np.repeat(np.random.default_rng(6).random(SAMPLES // 500) < 0.3, 500)  # bursts
    found = judged(with_artefact([0.2, 0, 0, 0.5, 0, 0, 0.1, 0.8], noise))[1]
    assert [one.rule for one in found] == ["muscle"] and found[0].value > -0.3 and "slope" in found[0].found


def test_line_by_its_peak():
    wave = np.sin(2 * np.pi * 50 * np.arange(SAMPLES) / RATE_HZ)
    eeg = with_artefact(np.full(8, 0.3), wave)
    found = judged(eeg, line_hz=(50.0,))[1]
    assert [one.rule for one in found] == ["line"] and found[0].value > 20 and found[0].found.startswith("50 Hz")
    assert not [one for one in judged(eeg, line_hz=(60.0,))[1] if one.rule == "line"]


def test_single_channel_by_share_and_kurtosis():
    course = np.zeros(SAMPLES)
    for onset, sign in ((1200, 1), (4700, -1), (8100, 1)):
        course[onset : onset + 50] = sign * np.exp(-np.arange(50) / 15)
    found = judged(with_artefact(np.eye(8)[4] * 5, course))[1]
    assert [one.rule for one in found] == ["single channel"]
    assert found[0].found.startswith("Fz") and found[0].value > 0.9


@pytest.mark.parametrize("field, value", [("eye_frontal", 1.1), ("eye_slow", 1.1), ("eye_kurtosis", 1e6)])
def test_every_condition_of_a_rule_counts(field, value):
    eeg = with_artefact([1, 1, 0.4, 0.3, 0.3, 0.3, 0.4, 0.05], blink_course())
    assert judged(eeg, rules=replace(ArtefactRules(), **{field: value}))[1] == []


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda eeg: eeg[:, :100], "100 samples.*At least 160"),
        (lambda eeg: np.where(np.arange(SAMPLES) == 5, np.nan, eeg), "8 channels with NaN"),
        (lambda eeg: eeg * (np.arange(8) != 2)[:, None], "1 flat"),
    ],
)
def test_eeg_that_cannot_be_decomposed(spoil, message):
    with pytest.raises(InputError, match=message):
        independent_components(spoil(brain()), RATE_HZ)


def test_electrodes_lie_where_the_system_puts_them():
    assert all(np.linalg.norm(position(name)) == pytest.approx(1) for name in TEN_TWENTY)
    assert len({tuple(position(name).round(6)) for name in TEN_TWENTY}) == 19
    assert position("Cz").tolist() == [0, 0, 1]
    assert position("T7").tolist() == position("EEG T3-A2").tolist() == position("t3").tolist()
    for left, right in (("Fp1", "Fp2"), ("F7", "F8"), ("C3", "C4"), ("O1", "O2")):
        assert position(left) == pytest.approx(position(right) * (-1, 1, 1))
        assert position(left)[0] < 0
    assert position("Fp1")[1] > 0 > position("O1")[1]
    assert electrode("ch5") == electrode("EMG1") == electrode("trigger") == "" and position("AF7") is None


def test_splines_give_back_smooth_potentials():
    rest = tuple(name for name in TEN_TWENTY if name not in ("C3", "Pz"))
    weights = interpolation_matrix(rest, ("C3", "Pz"))
    assert weights.sum(axis=1) == pytest.approx(np.ones(2))
    places = np.stack([position(name) for name in rest])
    for direction in np.eye(3):
        wanted = np.stack([position("C3"), position("Pz")]) @ direction
        assert weights @ (places @ direction) == pytest.approx(wanted, abs=0.06)
    assert np.linalg.norm(weights, axis=1).max() < 1.2  # noise of neighbours is hardly magnified


def test_splines_are_those_of_mne():
    mne = pytest.importorskip("mne", reason="mne is an extra")
    at_m = {name: 0.095 * position(name) for name in TEN_TWENTY}
    info = mne.create_info(list(TEN_TWENTY), 100.0, "eeg")
    data = np.random.default_rng(0).normal(size=(19, 50))
    raw = mne.io.RawArray(data.copy(), info, verbose="error")
    raw.set_montage(mne.channels.make_dig_montage(at_m, coord_frame="head"), verbose="error")
    raw.info["bads"] = ["C3"]
    raw.interpolate_bads(origin=(0, 0, 0), verbose="error")
    rest = tuple(name for name in TEN_TWENTY if name != "C3")
    mine = interpolation_matrix(rest, ("C3",)) @ np.delete(data, 8, axis=0)
    assert mine[0] == pytest.approx(raw.get_data()[8], abs=1e-9)


def test_interpolation_that_cannot_be_done():
    with pytest.raises(InputError, match=r"ch1 are not names.*drop_channels"):
        interpolation_matrix(("ch1", "Fz", "Cz", "Pz"), ("C3",))
    with pytest.raises(InputError, match="from 3 channels: at least four"):
        interpolation_matrix(("Fz", "Cz", "Pz"), ("C3",))
