"""What can go wrong without a word in reading: names of both kinds alike, rates of others, short rows, memory."""

import tracemalloc

import h5py
import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.cleaning import CleaningConfig, clean
from motorsweep.sim.recording_arrays import read_arrays_of
from motorsweep.sim.recording_clocks import fit_clock
from motorsweep.sim.recording_files import RecordingSource, read_recording, read_signals
from motorsweep.sim.recording_resampling import resample
from motorsweep.sim.recording_stamps import parse_stamps

RATE = 250.0


def _table(path, values, quoted=False):
    rows = [["t", *(f"ch{n + 1}" for n in range(len(values)))]]
    rows += [[f"{n / RATE:.4f}", *(f"{v:.4f}" for v in x)] for n, x in enumerate(values.T)]
    rows[1:] = [[f'"{field}"' for field in row] for row in rows[1:]] if quoted else rows[1:]
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    return str(path)


@pytest.fixture
def alike(tmp_path):
    """EEG and EMG whose channels have the same names; ch1 of the EEG is flat."""
    noise = np.random.default_rng(0).normal(0, 20, size=(8, 2000))
    noise[0] = 3.0
    return RecordingSource(eeg=_table(tmp_path / "eeg.csv", noise[:4]), emg=_table(tmp_path / "emg.csv", noise[4:]))


def test_a_fault_of_an_eeg_channel_is_not_that_of_the_emg_channel_of_its_name(alike):
    recording = read_recording(alike)
    assert recording.emg_names == ("EMG ch1", "EMG ch2", "EMG ch3", "EMG ch4")
    assert [(fault.channel, fault.fault) for fault in recording.faults] == [("ch1", "flat")]
    assert any("have EEG channels' names" in note for note in recording.notes)
    cleaned = clean(recording, CleaningConfig(ica=False, faulty="drop")).recording
    assert cleaned.eeg_names == ("ch2", "ch3", "ch4") and cleaned.emg_names == recording.emg_names


def test_rows_with_quotes_are_counted_too(tmp_path):
    path = tmp_path / "a.csv"
    _table(path, np.ones((3, 50)) * np.arange(50), quoted=True)
    assert read_signals(path).pop().values.shape == (3, 50)
    lines = path.read_text().splitlines()
    lines[20] = lines[20].rpartition(",")[0]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 21: found 3 fields where the table has 4 columns"):
        read_signals(path)


def test_an_arrays_own_rate_and_names_go_before_shared_ones(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["eeg"], file["emg"] = np.ones((2, 100)), np.ones((2, 400))
        file["fs"], file["emg_srate"] = 250.0, 1000.0
        file["channels"], file["emg_labels"] = ["C3", "C4"], ["FDI", "APB"]
    eeg, emg = read_arrays_of(tmp_path / "a.h5")
    assert (eeg.rate_hz, eeg.names) == (250.0, ("C3", "C4"))
    assert (emg.rate_hz, emg.names) == (1000.0, ("FDI", "APB"))


def test_arrays_that_are_not_asked_for_are_not_read(tmp_path):
    path, wanted = tmp_path / "a.h5", np.random.default_rng(0).normal(size=(2, 100_000))
    with h5py.File(path, "w") as file:
        file["eeg"] = wanted
        file.create_dataset("video", data=np.ones((300, 100, 100)), compression="gzip")
    tracemalloc.start()
    (found,) = read_arrays_of(path, eeg_array="eeg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.values, wanted)
    assert peak < 8 * wanted.nbytes < 24e6


def test_a_much_lower_rate_takes_little_memory():
    values = np.random.default_rng(0).normal(size=(2, 400_000))
    tracemalloc.start()
    resample(values, 20_000.0, 0.0, 200.0, 4000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize("key", ["emg_delay_s", "start_s", "stop_s"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_times_are_finite(alike, key, value):
    with pytest.raises(InputError, match=f"{key} is {value}; give seconds"):
        read_recording(RecordingSource(eeg=alike.eeg, emg=alike.emg, **{key: value}))


def test_stamps_that_are_no_times():
    with pytest.raises(InputError, match="there are no time stamps"):
        parse_stamps([], "a table")
    with pytest.raises(InputError, match=r"row 2 of data: found '12:30:75'"):
        parse_stamps(["12:30:15", "12:30:75"], "a table")


@pytest.mark.filterwarnings("error")
def test_a_channel_without_samples_does_not_tell_of_pauses():
    stamps = np.arange(1000) / 100 + 0.2 * (np.arange(1000) // 100)
    walk = np.cumsum(np.random.default_rng(0).normal(size=(3, 1000)), axis=1)
    dead = np.concatenate([np.full((1, 1000), np.nan), walk])
    np.testing.assert_array_equal(fit_clock(stamps, dead, "a").places, fit_clock(stamps, walk, "a").places)
