"""Rates, starts and gaps out of time stamps; new times and rates without aliases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.sim.recording_clocks import fit_clock
from motorsweep.sim.recording_resampling import PASSED, resample
from motorsweep.sim.recording_stamps import is_time_title, parse_stamps, title_unit


def _slow_signal(times, seed=0):
    """Sums of sines below 12 Hz, three channels."""
    rng = np.random.default_rng(seed)
    freqs = rng.uniform(1, 12, size=(3, 8, 1))
    return np.sin(2 * np.pi * freqs * times + rng.uniform(0, 6, size=(3, 8, 1))).sum(axis=1)


@given(
    rate=st.floats(1.0, 5000.0), start=st.floats(-1e5, 1e5), count=st.integers(10, 400), seed=st.integers(0, 2**31 - 1)
)
@settings(max_examples=40, deadline=None)
def test_regular_stamps_give_their_rate_and_start(rate, start, count, seed):
    stamps = start + np.arange(count) / rate
    clock = fit_clock(stamps, np.random.default_rng(seed).normal(size=(2, count)), "x.csv")
    assert clock.rate_hz == pytest.approx(rate, rel=1e-6)
    assert clock.start_s == pytest.approx(start, abs=1e-8 + 1e-3 / rate)
    np.testing.assert_array_equal(clock.places, np.arange(count))


def test_scatter_of_stamps_averages_out():
    rng = np.random.default_rng(1)
    stamps = 5 + np.arange(5000) / 500 + rng.normal(0, 3e-4, 5000)
    clock = fit_clock(stamps, np.zeros((1, 5000)), "x.csv")
    # Standard errors of a line's slope and of its value at the first point.
    assert clock.rate_hz == pytest.approx(500, rel=4 * 3e-4 * np.sqrt(12 / 5000) / 10)
    assert clock.start_s == pytest.approx(5, abs=4 * 2 * 3e-4 / np.sqrt(5000))


def test_packets_read_late_are_no_gaps():
    # 12 samples each 48 ms, read one after the other within 1 ms each, as consumer devices are read.
    taken = np.arange(1200) / 250
    packet = np.arange(1200) // 12
    stamps = (packet + 1) * 12 / 250 + np.tile(np.arange(12) * 1e-3, 100)
    clock = fit_clock(stamps, _slow_signal(taken), "x.csv")
    assert clock.rate_hz == pytest.approx(250, rel=1e-9)
    np.testing.assert_array_equal(clock.places, np.arange(1200))
    # The earliest that a stamp can lie behind its sample: the packet's last one, read 11 ms after the packet came.
    assert clock.start_s == pytest.approx(12 / 250 - (11 / 250 - 11e-3), abs=1e-9)
    assert any("no samples lost" in note for note in clock.notes)


def test_stamps_of_a_packet_that_are_all_alike():
    stamps = np.repeat(np.arange(50) * 0.04 + 0.04, 10)
    clock = fit_clock(stamps, _slow_signal(np.arange(500) / 250), "x.csv")
    assert clock.rate_hz == pytest.approx(250, rel=1e-9)
    assert any("450 of 500 time stamps are those of the sample before" in note for note in clock.notes)


def test_a_backlog_that_is_read_at_once_lies_before_its_stamps():
    taken = np.arange(3000) / 250
    arrived = (np.arange(3000) // 12 + 1) * 12 / 250
    stamps = np.empty(3000)
    at = 2.0  # the reader begins two seconds late, and reads at most one sample each 2 ms
    for i, time in enumerate(arrived):
        at = stamps[i] = max(at + 2e-3, time)
    clock = fit_clock(stamps, _slow_signal(taken), "x.csv")
    assert clock.rate_hz == pytest.approx(250, rel=1e-3)
    assert clock.start_s == pytest.approx(24e-3, abs=0.02)
    assert any("s late (the first ones most)" in note for note in clock.notes)
    stated = fit_clock(stamps, _slow_signal(taken), "x.csv", rate_hz=250.0)
    assert stated.start_s == pytest.approx(26e-3, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_lost_samples_are_gaps(seed):
    rng = np.random.default_rng(seed)
    kept = np.ones(4000, bool)
    for first in rng.choice(np.arange(100, 3900, 60), 20, replace=False):
        kept[first : first + rng.integers(8, 30)] = False
    places = np.flatnonzero(kept)
    stamps = 100 + places / 500 + rng.normal(0, 1e-4, len(places))
    clock = fit_clock(stamps, _slow_signal(places / 500, seed), "x.csv")
    np.testing.assert_array_equal(clock.places, places)
    assert clock.rate_hz == pytest.approx(500, rel=1e-5)
    assert any(f"{4000 - len(places)} of 4000 samples are missing, in 20 gaps" in note for note in clock.notes)


def test_a_few_pauses_are_gaps_unless_the_stamps_catch_up():
    places = np.concatenate([np.arange(500), np.arange(700, 1200)])
    clock = fit_clock(places / 500, np.zeros((1, 1000)), "x.csv")
    np.testing.assert_array_equal(clock.places, places)
    stamps = np.arange(1000) / 500
    stamps[500:520] = stamps[520]  # 40 ms in which nobody read, then all at once
    caught_up = fit_clock(stamps, np.zeros((1, 1000)), "x.csv")
    np.testing.assert_array_equal(caught_up.places, np.arange(1000))


def test_what_pauses_are_can_be_stated():
    places = np.concatenate([np.arange(500), np.arange(700, 1200)])
    clock = fit_clock(places / 500, np.zeros((1, 1000)), "x.csv", kind="regular", rate_hz=500.0)
    np.testing.assert_array_equal(clock.places, np.arange(1000))


@pytest.mark.parametrize(
    ("stamps", "told"),
    [
        ([0.0, 1.0], r"x\.csv: 2 time stamps, of which 2 are finite, are too few"),
        (np.r_[0:5:0.01, 1:5:0.01], r"sample 501 is 3\.99 s before the one before it; the clock was set back"),
        (np.zeros(50), r"time stamps do not rise"),
        (np.r_[0:1:0.01, 1e6:1000001:0.01], r"times as many samples unrecorded"),
        (np.r_[0:1:0.01, np.nan], r"of which 100 are finite"),
    ],
)
def test_stamps_of_no_use(stamps, told):
    stamps = np.asarray(stamps, float)
    with pytest.raises(InputError, match=told):
        fit_clock(stamps, np.zeros((1, len(stamps))), "x.csv")


@given(st.lists(st.floats(-1e9, 1e9), min_size=0, max_size=60), st.sampled_from(["auto", "regular", "gapped"]))
@settings(max_examples=200, deadline=None)
def test_any_stamps_give_a_clock_or_an_error(stamps, kind):
    try:
        clock = fit_clock(np.array(stamps), np.random.default_rng(0).normal(size=(2, len(stamps))), "x", kind=kind)
    except InputError:
        return
    assert np.all(np.diff(clock.places) >= 1) and clock.rate_hz > 0 and np.isfinite(clock.start_s)


# ---- stamps as text


@pytest.mark.parametrize(
    ("texts", "seconds", "origin"),
    [
        (["19:21:14.494664", "19:21:14.495156"], [69674.494664, 69674.495156], "day"),
        (["23:59:59.998", "00:00:00.002", "00:00:01"], [86399.998, 86400.002, 86401.0], "day"),
        (["2024-01-02T00:00:00", "2024-01-02T00:00:00.5"], [1704153600.0, 1704153600.5], "date"),
        (["2024-01-02 01:00:00+01:00", "2024-01-02T00:00:00.5Z"], [1704153600.0, 1704153600.5], "date"),
        (["0.5", "0.75"], [0.5, 0.75], "own"),
        (["0", "2", "4"], [0.0, 0.002, 0.004], "own"),
        (["1704153600000", "1704153600500"], [1704153600.0, 1704153600.5], "date"),
        (["1704153600.25", "1704153600.5"], [1704153600.25, 1704153600.5], "date"),
    ],
)
def test_stamps_of_all_kinds(texts, seconds, origin):
    found, kind, _ = parse_stamps(texts, "reading x, column 't'")
    np.testing.assert_allclose(found, seconds, rtol=0, atol=1e-6)
    assert kind == origin


@pytest.mark.parametrize("text", ["", "25:99:00", "noon", "nan", "12"])
def test_a_stamp_that_is_none(text):
    with pytest.raises(InputError, match=r"reading x, column 't', row 2 of data: found .* no time"):
        parse_stamps(["19:21:14.5", text, "19:21:14.6"], "reading x, column 't'")


def test_stamps_that_step_back_over_midnight_stay_in_one_day():
    texts = ["23:59:59.990", "00:00:00.001", "23:59:59.999", "00:00:00.010", "00:00:00.020", "13:00:00"]
    stamps, origin, _ = parse_stamps(texts, "a table")
    expected = 86400 + np.array([-0.01, 0.001, -0.001, 0.01, 0.02, 46800])
    np.testing.assert_allclose(stamps, expected, rtol=0, atol=1e-9)
    assert origin == "day"


def test_jumps_are_gaps_where_the_file_says_so():
    """Six records that a slow signal steps across as between neighbours: only the file knows that samples are lost."""
    stamps = np.arange(600) / 100 + 0.03 * (np.arange(600) // 100)
    values = np.cumsum(np.random.default_rng(0).normal(size=(2, 600)), axis=1)
    for kind in ("auto", "regular"):
        clock = fit_clock(stamps, values, "a", kind=kind, gap_s=0.016)
        np.testing.assert_array_equal(clock.places, np.round(stamps * 100).astype(int))
        assert clock.rate_hz == pytest.approx(100)
    np.testing.assert_array_equal(fit_clock(stamps, values, "a").places, np.arange(600))


def test_titles_of_stamps():
    assert [is_time_title(t) for t in ("timestamp", "Time (s)", "time_ms", "T7", "TP9", "t", "LSL time")] == [
        True, True, True, False, False, True, True,
    ]  # fmt: skip
    assert [title_unit(t) for t in ("Time [ms]", "seconds", "timestamp", "t_us", "channels")] == [
        "ms",
        "s",
        "",
        "us",
        "",
    ]


# ---- resampling


@pytest.mark.parametrize(("old", "new"), [(1000, 250), (500, 1000), (99.8, 250), (2048, 1000), (250, 250)])
def test_sines_keep_amplitude_and_phase(old, new):
    offset, seconds = 0.12345, 10.0
    count = int((seconds - 0.5) * new)
    at = offset + np.arange(count) / new
    taken = np.arange(int(seconds * old) + 1) / old
    inner = slice(int(0.8 * new), -int(0.8 * new))
    for part in (0.05, 0.3, 0.6, PASSED):
        freq = part * min(old, new) / 2
        x = np.sin(2 * np.pi * freq * taken + 0.7)[None]
        error = resample(x, old, offset, new, count)[0] - np.sin(2 * np.pi * freq * at + 0.7)
        assert np.abs(error[inner]).max() < 2e-4, (part, np.abs(error[inner]).max())


def test_what_the_new_rate_cannot_hold_is_gone():
    old, new = 2000.0, 250.0
    taken = np.arange(20001) / old
    for freq in (125.0, 150.0, 240.0, 249.0, 375.0, 990.0):
        y = resample(np.sin(2 * np.pi * freq * taken + 1)[None], old, 0.01, new, 2400)[0]
        assert np.abs(y[250:-250]).max() < 2e-4, freq


def test_samples_that_lie_on_the_grid_are_not_touched():
    x = np.random.default_rng(0).normal(size=(3, 500))
    np.testing.assert_array_equal(resample(x, 250.0, 0.4, 250.0, 300), x[:, 100:400])


@given(st.floats(20, 3000), st.floats(20, 3000), st.floats(0, 0.5), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_constants_and_scale_pass(old, new, offset, seed):
    x = np.random.default_rng(seed).normal(size=(1, int(2 * old)))
    count = max(int((1.4 - offset) * new), 1)
    ones = resample(np.full((1, x.shape[1]), 3.5), old, offset, new, count)
    np.testing.assert_allclose(ones, 3.5, rtol=1e-12)
    np.testing.assert_allclose(
        resample(5 * x, old, offset, new, count), 5 * resample(x, old, offset, new, count), rtol=1e-9, atol=1e-12
    )


def test_gaps_stay_gaps():
    x = np.sin(np.arange(1000) / 20)[None].repeat(2, axis=0)
    x[0, 400:450] = np.nan
    y = resample(x, 500.0, 0.0003, 400.0, 790)
    at = 0.0003 + np.arange(790) / 400
    gone = (at > 399 / 500) & (at < 450 / 500)
    np.testing.assert_array_equal(np.isnan(y[0]), gone)
    assert not np.isnan(y[1]).any()
