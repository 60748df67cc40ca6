"""Faults of channels, and recordings that do not have the same ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.sim.recording_checks import FAULTY_SHARE, check_channels, common_channels, unique_names

RATE = 250.0


def _noise(seed=0, count=5000, std_v=20e-6):
    return np.random.default_rng(seed).normal(0, std_v, count)


def _faults(x, kind="eeg", bad=None):
    return {f.channel: (f.fault, f.found) for f in check_channels(np.atleast_2d(x), ["a", "b"], RATE, kind, bad)[0]}


def _notes(x):
    return " ".join(check_channels(np.atleast_2d(x), ["a", "b"], RATE, "eeg")[1])


@given(st.integers(0, 10**6), st.floats(1e-6, 190e-6), st.sampled_from([None, 1e-7, 1e-6]))
@settings(max_examples=40, deadline=None)
def test_noise_has_no_fault(seed, std_v, step):
    x = _noise(seed, 3000, std_v)
    # Whole microvolts of a narrow noise repeat their extremes often; wide ones do so rarely.
    assert not _faults(x if step is None or std_v < 20 * step else np.round(x / step) * step)


def test_flat_channels():
    assert _faults(np.zeros(3000))["a"] == ("flat", "0 uV in all 3000 samples")
    assert _faults(np.full(3000, 3e-6))["a"] == ("flat", "3 uV in all 3000 samples")
    x = _noise()
    x[1000:2000] = x[1000]
    fault, found = _faults(x)["a"]
    assert fault == "flat" and found.endswith("for 4 s from 4 s on")
    x = _noise()
    x[1000 : 1000 + int(FAULTY_SHARE * 5000) + 1] = 0
    assert "a" in _faults(x)
    x = _noise(count=20000)
    x[1000:1400] = 1e-6
    assert not _faults(x)
    assert _notes(x) == "a is flat in part: 1 uV for 1.6 s from 4 s on"


@pytest.mark.parametrize("step", [0, 1e-6])
def test_saturated_channels(step):
    x = _noise(std_v=60e-6)
    x = np.clip(x, -100e-6, 100e-6)
    x = np.round(x / step) * step if step else x
    at = [int(np.isclose(x, rail).sum()) for rail in (100e-6, -100e-6)]
    assert sum(at) > 300  # 9.6 % of a normal distribution lie outside of 100/60 standard deviations
    assert _faults(x)["a"] == ("saturated", f"100 uV in {at[0]} and -100 uV in {at[1]} of 5000 samples")
    x = np.clip(_noise(std_v=60e-6), -np.inf, 150e-6)
    top = int((x == 150e-6).sum())
    assert 10 < top < FAULTY_SHARE * 5000 and not _faults(x)
    assert _notes(x) == f"a is saturated in part: 150 uV in {top} of 5000 samples"


def test_a_coarse_signal_is_not_cut_off_at_its_largest_value():
    """A hundred levels, each as often as its neighbours: 1 % of samples lie at either end."""
    x = 1e-6 * np.random.default_rng(0).integers(0, 100, 5000)
    assert _faults(x) == {} and _notes(x) == ""
    assert _faults(np.clip(x, 10e-6, 90e-6))["a"][0] == "saturated"


def test_out_of_range_and_units():
    assert _faults(_noise(std_v=250e-6))["a"][0] == "out of range"
    assert not _faults(_noise(std_v=250e-6), "emg")
    std_uv = np.median(_noise(std_v=20.0).reshape(-1, 250).std(axis=1)) * 1e6
    told = f"standard deviation {std_uv:.4g} uV within a second; EMG stays below 10000"
    assert _faults(_noise(std_v=20.0), "emg")["a"] == ("out of range", told)
    # A slow drift, as of a direct-coupled amplifier, and one movement are none.
    drift = _noise() + np.linspace(0, 0.05, 5000) * 0.1
    drift[300:320] += 0.1
    assert not _faults(drift)


def test_missing_samples():
    x = _noise()
    x[:100] = np.nan
    x[7] = np.inf
    assert not _faults(x) and _notes(x) == "a is not finite in part: 100 of 5000 samples are nan or infinite"
    x[:2500] = np.nan
    assert _faults(x)["a"] == ("not finite", "2500 of 5000 samples are nan or infinite")
    assert _faults(np.full(500, np.nan))["a"][0] == "not finite"


def test_duplicates_and_marks():
    x = _noise()
    assert _faults([x, x])["b"] == ("duplicate", "the same values as a")
    assert [f for f, _ in _faults([np.zeros(5000), np.zeros(5000)]).values()] == ["flat", "flat"]
    assert _faults(x, bad={"a": "x_channels.tsv: loose"}) == {"a": ("marked bad", "in x_channels.tsv: loose")}


@given(st.lists(st.sampled_from(["C3", "Cz", "C3 (2)", "C4"]), min_size=1, max_size=12))
def test_names_become_unique(names):
    unique, faults = unique_names(names, "x.edf")
    assert len(set(unique)) == len(names) and len(faults) == len(names) - len(set(names))
    assert all(new == old or new.startswith(old) for new, old in zip(unique, names))


def test_recordings_with_other_channels():
    channels = {"a": (["C3", "Cz", "C4"], ["FDI", "APB"]), "b": (["C3", "C4", "Pz"], ["FDI", "APB"])}
    with pytest.raises(InputError, match=r"EEG channels: 'a' and 'b' differ: only the first has 'Cz' and .* 'Pz'"):
        common_channels(channels)
    eeg, emg, note = common_channels(channels, differing="intersection")
    assert (eeg, emg) == (("C3", "C4"), ("FDI", "APB"))
    assert note == "left out, for not all recordings have them: Cz, Pz"
    same = {"a": channels["a"], "b": channels["a"]}
    assert common_channels(same) == (("C3", "Cz", "C4"), ("FDI", "APB"), "")


def test_other_orders_and_nothing_in_common():
    with pytest.raises(InputError, match="the same names in another order"):
        common_channels({"a": (["C3", "C4"], ["F"]), "b": (["C4", "C3"], ["F"])})
    with pytest.raises(InputError, match="comparing EMG channels: no channel is in all 2 recordings"):
        common_channels({"a": (["C3"], ["F"]), "b": (["C3"], ["G"])}, differing="intersection")
    with pytest.raises(InputError, match="there is no recording"):
        common_channels({})
