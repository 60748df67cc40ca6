"""Rates that a file shares between its arrays, rates that are stated, and counts whose scale nobody knows."""

import h5py
import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.recording_arrays import read_arrays_of
from motorsweep.sim.recording_checks import check_channels
from motorsweep.sim.recording_files import RecordingSource, read_recording
from scipy.io import savemat


def _arrays(path, seconds=20, emg_seconds=20, **rates):
    """EEG at 250 and EMG at 1000 Hz, each with a peak at 10 s."""
    rng = np.random.default_rng(0)
    found = {}
    for name, rows, rate, length in (("eeg", 5, 250, seconds), ("emg", 3, 1000, emg_seconds)):
        times = np.arange(length * rate) / rate
        found[name] = rng.normal(0, 10, size=(rows, len(times)))
        found[name][0] += 1000 * np.exp(-(((times - 10) / 0.02) ** 2))
    if path.suffix == ".mat":
        savemat(path, found | rates)
    else:
        with h5py.File(path, "w") as file:
            file.update(found)
            file.attrs.update(rates)
    return str(path)


def _peaks(recording):
    return [np.argmax(np.abs(x[0])) / recording.rate_hz for x in (recording.eeg, recording.emg)]


@pytest.mark.parametrize("name", ["a.mat", "a.h5"])
@pytest.mark.parametrize("stated", [{}, {"eeg_rate_hz": 250.0}])
def test_a_rate_that_cannot_be_true_of_both_arrays_is_refused(tmp_path, name, stated):
    path = _arrays(tmp_path / name, fs=250.0)
    told = (
        r"EEG of 20 s at 250 Hz and EMG of 80 s at 250 Hz, with one rate of 250 Hz.*State `eeg_rate_hz` and `emg_rate_"
    )
    with pytest.raises(InputError, match=told):
        read_recording(RecordingSource(eeg=path, **stated))


@pytest.mark.parametrize("name", ["a.mat", "a.h5"])
def test_a_stated_rate_goes_before_a_shared_one(tmp_path, name):
    path = _arrays(tmp_path / name, fs=250.0)
    recording = read_recording(RecordingSource(eeg=path, emg_rate_hz=1000.0))
    assert recording.rate_hz == 1000.0 and recording.seconds == pytest.approx(20, abs=0.01)
    np.testing.assert_allclose(_peaks(recording), 10, atol=0.02)
    assert f"{name}: EMG is taken at 1000 Hz as stated; the file says 250 Hz" in recording.notes


def test_which_rates_are_shared(tmp_path):
    marks = [each.shared_rate for each in read_arrays_of(_arrays(tmp_path / "a.mat", fs=250.0))]
    own = read_arrays_of(_arrays(tmp_path / "b.mat", fs=250.0, emg_fs=1000.0))
    (alone,) = read_arrays_of(_arrays(tmp_path / "c.mat", fs=250.0), eeg_array="eeg", emg_array="eeg")
    assert (marks, [each.shared_rate for each in own], alone.shared_rate) == ([True, True], [False, False], False)


def test_a_stated_rate_goes_before_an_arrays_own(tmp_path):
    path = _arrays(tmp_path / "a.mat", eeg_fs=250.0, emg_fs=500.0)
    recording = read_recording(RecordingSource(eeg=path, emg_rate_hz=1000.0))
    np.testing.assert_allclose(_peaks(recording), 10, atol=0.02)
    assert "a.mat: EMG is taken at 1000 Hz as stated; the file says 500 Hz" in recording.notes


def test_lengths_that_differ_are_noted_where_rates_are_known(tmp_path):
    path = _arrays(tmp_path / "a.mat", emg_seconds=30, eeg_fs=250.0, emg_fs=1000.0)
    recording = read_recording(RecordingSource(eeg=path))
    assert recording.seconds == pytest.approx(20, abs=0.01)
    assert "a.mat: it holds EEG of 20 s at 250 Hz and EMG of 30 s at 1000 Hz" in recording.notes
    with h5py.File(tmp_path / "b.h5", "w") as file:  # a second and 1 % are allowed for one shared rate
        file["eeg"], file["emg"] = np.random.default_rng(0).normal(size=(2, 5, 25_000))
        file["fs"] = 250.0
    assert "it holds" not in " ".join(read_recording(RecordingSource(eeg=str(tmp_path / "b.h5"))).notes)


def test_events_stay_at_their_samples_at_a_stated_rate(tmp_path):
    mne = pytest.importorskip("mne")
    info = mne.create_info(["C3", "FDI"], 250.0, ["eeg", "emg"])
    values = np.random.default_rng(0).normal(0, 1e-5, size=(2, 2500))
    values[:, 1000] = 1e-3
    raw = mne.io.RawArray(values, info, verbose="error")
    raw.set_annotations(mne.Annotations([4.0], [2.0], ["grip"]))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    source = {"eeg": str(tmp_path / "a_raw.fif"), "eeg_rate_hz": 500.0, "emg_rate_hz": 500.0}
    recording = read_recording(RecordingSource(**source))
    assert recording.rate_hz == 500 and np.argmax(recording.eeg[0]) == 1000
    assert [(event.onset_s, event.duration_s) for event in recording.events] == [(2.0, 1.0)]


@pytest.mark.parametrize("gain_v", [0.02235e-6, 1e-9])
def test_counts_are_not_held_against_a_range(tmp_path, gain_v):
    """EEG of 15 uV and EMG of 300 uV as an amplifier counts them; one channel is dead, one is cut off."""
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(5, 5000)) * np.array([15, 15, 15, 300, 300])[:, None] * 1e-6 / gain_v)
    values[1] = 7.0
    values[4] = np.clip(values[4], None, np.quantile(values[4], 0.9))
    rows = [f"{n / 250:.3f}," + ",".join(f"{v:.0f}" for v in x) for n, x in enumerate(values.T)]
    (tmp_path / "a.csv").write_text("\n".join(["time_s,C3,Cz,C4,FDI,APB", *rows]) + "\n")
    source = {"eeg": str(tmp_path / "a.csv")}
    counted = read_recording(RecordingSource(**source, eeg_unit="counts", emg_unit="counts"))
    assert [(fault.channel, fault.fault) for fault in counted.faults] == [("Cz", "flat"), ("APB", "saturated")]
    assert counted.faults[0].found == "7 counts in all 5000 samples"
    for kind in ("EEG", "EMG"):
        assert any(f"{kind} in counts of the device" in n and "not checked for being out" in n for n in counted.notes)
    taken = read_recording(RecordingSource(**source))  # the same numbers, taken as uV
    assert {fault.channel for fault in taken.faults if fault.fault == "out of range"} == {"C3", "C4", "FDI", "APB"}


def test_small_numbers_without_a_scale_are_not_flat():
    x = np.random.default_rng(0).normal(0, 1e-5, size=(2, 5000)) * 1e-6
    assert [fault.fault for fault in check_channels(x, ["a", "b"], 250.0, "eeg")[0]] == ["flat", "flat"]
    found = check_channels(x, ["a", "b"], 250.0, "eeg", scaled=[True, False])[0]
    assert [(fault.channel, fault.fault) for fault in found] == [("a", "flat")]
