"""EEG and EMG of two files on one clock: closed forms, clocks that do not meet, and the recordings of others."""

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.recording_files import RecordingSource, read_recording, read_signals
from motorsweep.sim.recording_sources import find_recordings


def _clock_text(seconds):
    micro = round(seconds * 1e6) % 86_400_000_000
    hours, minutes, secs = micro // 3_600_000_000, micro // 60_000_000 % 60, micro // 1_000_000 % 60
    return f"{hours:02d}:{minutes:02d}:{secs:02d}.{micro % 1_000_000:06d}"


def _write(path, times, values_uv, names, stamp=_clock_text):
    rows = [",".join([stamp(t), *(f"{v:.6f}" for v in x)]) for t, x in zip(times, values_uv.T)]
    path.write_text("\n".join([",".join(["timestamp", *names]), *rows]) + "\n")
    return str(path)


def _pair(folder, eeg_start=86395.0, emg_start=86396.5, seconds=8.0, stamp=_clock_text, **options):
    """EEG at 500 Hz, EMG at 100 Hz; both hold 7 Hz of one clock's phase, across midnight."""
    source = {}
    for kind, start, rate, names in (("eeg", eeg_start, 500, ["C3", "C4"]), ("emg", emg_start, 100, ["FDI"])):
        times = start + np.arange(int(seconds * rate)) / rate
        values = 50 * np.sin(2 * np.pi * 7 * times + 0.3) * np.arange(1, len(names) + 1)[:, None]
        source[kind] = _write(folder / f"{kind}.csv", times, values, names, stamp)
    return RecordingSource(**source, **options)


@pytest.mark.parametrize("rate", [100.0, 250.0, 500.0])
def test_two_clocks_and_rates_meet(tmp_path, rate):
    recording = read_recording(_pair(tmp_path), rate)
    assert recording.eeg.shape == (2, recording.emg.shape[1]) and recording.emg.shape[0] == 1
    # From where EMG begins to where EEG ends: 86396.5 to 86402.998 s.
    assert recording.seconds == pytest.approx(6.498 + 1 / rate, abs=1 / rate + 1e-9)
    times = 86396.5 + np.arange(recording.eeg.shape[1]) / rate
    expected = 50e-6 * np.sin(2 * np.pi * 7 * times + 0.3)
    inner = slice(int(0.9 * rate), -int(0.9 * rate))
    for x in (recording.eeg[0], recording.eeg[1] / 2, recording.emg[0]):
        np.testing.assert_allclose(x[inner], expected[inner], rtol=0, atol=50e-6 * 3e-4)
    text = " ".join(recording.notes)
    assert ("EMG resampled from 100 to" in text) == (rate != 100) and "names no unit; uV assumed" in text
    if rate == 500:
        assert "it holds nothing above 50 Hz and is kept up to 40 Hz, whatever band is asked for later" in text
    assert recording.faults == ()


def test_the_higher_rate_is_taken_where_none_is_asked_for(tmp_path):
    assert read_recording(_pair(tmp_path)).rate_hz == pytest.approx(500)


def test_a_known_delay_is_taken_off(tmp_path):
    late = read_recording(_pair(tmp_path, emg_start=86396.9), 500.0)
    told = read_recording(_pair(tmp_path, emg_start=86396.9, emg_delay_s=0.4), 500.0)
    assert told.seconds - late.seconds == pytest.approx(0.4, abs=5e-3)


def test_a_part_of_a_recording(tmp_path):
    whole = read_recording(_pair(tmp_path), 250.0)
    part = read_recording(_pair(tmp_path, start_s=2.0, stop_s=4.0), 250.0)
    np.testing.assert_allclose(part.eeg, whole.eeg[:, 500:1000], atol=1e-12)
    np.testing.assert_allclose(part.emg, whole.emg[:, 500:1000], atol=1e-12)
    for start, stop in ((5.0, 9.0), (7.0, 0.0), (3.0, 3.0), (-1.0, 2.0)):
        with pytest.raises(InputError, match=r"eeg\.csv: the part from .* is not in the 6\.500 s"):
            read_recording(_pair(tmp_path, start_s=start, stop_s=stop), 250.0)


def test_clocks_that_do_not_overlap(tmp_path):
    with pytest.raises(
        InputError, match=r"aligning .*eeg\.csv and .*emg\.csv: .* overlap by -\d+.*nothing was recorded"
    ):
        read_recording(_pair(tmp_path, eeg_start=1000.0, emg_start=5000.0), 250.0)
    begun = read_recording(_pair(tmp_path, eeg_start=1000.0, emg_start=5000.0, align="start"), 250.0)
    assert begun.seconds == pytest.approx(8, abs=0.02)
    assert "EEG and EMG are taken to begin at once" in begun.notes


def test_clocks_that_cannot_be_compared(tmp_path):
    source = _pair(tmp_path)
    times = np.arange(800) / 100
    _write(tmp_path / "emg.csv", times, np.sin(times)[None], ["FDI"], stamp=lambda t: f"{t:.3f}")
    with pytest.raises(InputError, match=r"one has times of day and the other a zero of its own.*align = \"start\""):
        read_recording(source, 250.0)


def test_dates_and_times_of_day_are_compared_by_the_day(tmp_path):
    source = _pair(tmp_path, eeg_start=1000.0, emg_start=1001.0)
    times = 1001.0 + np.arange(800) / 100
    _write(
        tmp_path / "emg.csv", times, 50 * np.sin(2 * np.pi * 7 * times + 0.3)[None], ["FDI"],
        stamp=lambda t: f"2024-05-06T{_clock_text(t)}",
    )  # fmt: skip
    recording = read_recording(source, 100.0)
    assert recording.seconds == pytest.approx(7.0, abs=0.02)
    np.testing.assert_allclose(recording.emg[0, 90:-90], recording.eeg[0, 90:-90], atol=2e-8)
    assert "one file has dates and the other times of day: compared by time of day" in recording.notes


@pytest.mark.parametrize("eeg_start, emg_start", [(86399.8, 86400.1), (86400.1, 86399.8)])
def test_midnight_between_both_beginnings(tmp_path, eeg_start, emg_start):
    recording = read_recording(_pair(tmp_path, eeg_start=eeg_start, emg_start=emg_start), 500.0)
    assert recording.seconds == pytest.approx(7.7, abs=0.02)
    inner = slice(450, -450)
    np.testing.assert_allclose(recording.emg[0, inner], recording.eeg[0, inner], atol=2e-8)
    when = "a day later" if emg_start > eeg_start else "a day earlier"
    told = f"midnight lies between both beginnings: EMG's times of day are taken {when}, where they overlap"
    assert told in recording.notes


def test_midnight_between_a_date_and_a_time_of_day(tmp_path):
    source = _pair(tmp_path, eeg_start=86399.8, emg_start=86400.1)
    times = 0.1 + np.arange(800) / 100
    values = 50 * np.sin(2 * np.pi * 7 * (86400 + times) + 0.3)[None]
    _write(tmp_path / "emg.csv", times, values, ["FDI"], stamp=lambda t: f"2024-05-07T{_clock_text(t)}")
    recording = read_recording(source, 100.0)
    assert recording.seconds == pytest.approx(7.7, abs=0.02)
    np.testing.assert_allclose(recording.emg[0, 90:-90], recording.eeg[0, 90:-90], atol=2e-8)


def test_no_midnight_is_looked_for_where_files_have_dates_or_do_not_overlap_either_way(tmp_path):
    def dated(t):
        return f"2024-05-06T{_clock_text(t)}"

    for options in (
        {"eeg_start": 86390.0, "emg_start": 10.0, "stamp": dated},
        {"eeg_start": 80000.0, "emg_start": 10.0},
    ):
        with pytest.raises(InputError, match="nothing was recorded at the same time"):
            read_recording(_pair(tmp_path, **options), 100.0)


def test_a_recording_of_a_whole_day_is_taken_as_it_stands(tmp_path):
    """At 0.1 Hz: from 12:00 for 24 h and from 12:01 for 24 h; a day later they would have 1 minute in common."""
    source = {}
    for kind, start, names in (("eeg", 43200.0, ["C3", "C4"]), ("emg", 43260.0, ["FDI"])):
        times = start + 10 * np.arange(8640)
        values = np.random.default_rng(0).normal(size=(len(names), len(times)))
        source[kind] = _write(tmp_path / f"{kind}.csv", times, values, names)
    recording = read_recording(RecordingSource(**source), 0.1)
    assert recording.seconds == pytest.approx(86340, abs=20)
    assert "EMG would overlap the EEG on the day before or after, too" in " ".join(recording.notes)


def test_lost_samples_are_nan_and_told(tmp_path):
    source = _pair(tmp_path)
    lines = (tmp_path / "eeg.csv").read_text().splitlines()
    (tmp_path / "eeg.csv").write_text("\n".join(lines[:1751] + lines[2001:]) + "\n")  # 3.5 to 4 s
    recording = read_recording(source, 500.0)
    gone = np.isnan(recording.eeg).all(axis=0)
    assert gone.sum() == pytest.approx(250, abs=2) and np.flatnonzero(gone)[0] == pytest.approx(1000, abs=1)
    assert np.isfinite(recording.emg).all() and np.isfinite(recording.eeg[:, ~gone]).all()
    assert any("250 of 4000 samples are missing, in 1 gaps" in note for note in recording.notes)
    assert "EEG: 7.7% of the recording are gaps (nan in all channels)" in recording.notes


# ---- recordings of others: one person, grasp and lift, a 20-channel EEG and an armband


@pytest.fixture(scope="module")
def trials(data_folder):
    folder = data_folder / "eeg_emg"
    if not (folder / "subject_01" / "trial_01").is_dir():
        pytest.skip("recordings of others are not here")
    patterns = {kind: f"{{subject}}/{{name}}/{kind}_data.csv" for kind in ("eeg", "emg")}
    sources = find_recordings(folder, **patterns, emg_unit="counts")
    assert [source.name for source in sources] == [f"subject_01-trial_{n:02d}" for n in range(1, 13)]
    return [read_recording(source, 250.0) for source in sources]


def test_what_the_first_trial_is_like(trials):
    first = trials[0]
    assert (first.eeg.shape[0], first.emg.shape[0]) == (20, 8)
    assert (first.eeg_names[0], first.emg_names[-1]) == ("ch1", "emg8")
    assert first.seconds == pytest.approx(6.088, abs=0.01)
    assert np.isfinite(first.eeg).all() and np.isfinite(first.emg).all()
    found = {fault.channel: fault.fault for fault in first.faults}
    loose = {f"ch{n}": "out of range" for n in (4, 5, 6, 9, 10, 11, 13, 14, 15, 16, 18, 19)}
    assert found == loose | {"ch20": "flat"}
    text = "\n".join(first.notes)
    assert "eeg_data.csv: 2628 samples, 255.118 Hz measured" in text
    assert "stamps themselves run at 438.5 a second: they are times of reading, not of sampling" in text
    assert "emg_data.csv: 614 samples, 99.695 Hz measured" in text
    assert "it holds nothing above 49.85 Hz" in text
    assert "counts of the device, with no scale" in text


def test_what_all_trials_are_like(trials, data_folder):
    for trial in trials:
        found = {fault.channel: fault.fault for fault in trial.faults}
        assert found.pop("ch20") == "flat"
        assert set(found.values()) == {"out of range"}
        assert {"ch5", "ch6", "ch9", "ch10", "ch13", "ch14", "ch15", "ch18", "ch19"} <= set(found)
        assert not {"ch1", "ch2", "ch3", "ch7", "ch8"} & set(found)
        assert np.isfinite(trial.eeg).all() and 5.7 < trial.seconds < 6.2
    clipped = [name for trial in trials for name in ("emg4",) if f"{name} is saturated in part" in str(trial.notes)]
    assert len(clipped) >= 7
    # The armband's 8 bits end at -128 and 127.
    (raw,) = read_signals(data_folder / "eeg_emg" / "subject_01" / "trial_11" / "emg_data.csv")
    assert (raw.values.min(), raw.values.max()) == (-128, 127) and not np.any(raw.values % 1)


def test_the_device_sampled_at_250_hz_whatever_the_stamps_say(trials, data_folder):
    """At 250 Hz the mains' second harmonic is at 100 Hz in all trials; by the stamps it would move with each."""
    from scipy.signal import welch

    folder = data_folder / "eeg_emg" / "subject_01"
    spectra = 0
    for number in range(1, 13):
        path = folder / f"trial_{number:02d}" / "eeg_data.csv"
        values = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=range(1, 20)).T
        freqs, power = welch(values, 250.0, nperseg=1024, axis=-1)
        spectra = spectra + np.log(power).mean(axis=0)
    band = (freqs > 60) & (freqs < 124)
    assert freqs[band][np.argmax(spectra[band])] == pytest.approx(100.0, abs=0.25)
