"""The same recording through every format, and what becomes of files that are none."""

import csv
import itertools
import json

import h5py
import numpy as np
import pytest
from motorsweep.errors import InputError, MissingPackageError, MotorsweepError
from motorsweep.sim.recording import Event
from motorsweep.sim.recording_files import RecordingSource, read_recording, read_signals
from scipy.io import savemat

RATE = 250.0
NAMES = ("Fp1", "C3", "Cz", "C4", "EMG_FDI", "EMG_APB")
EVENTS = ((1.0, 2.0, "rest"), (4.0, 0.0, "grip"))


@pytest.fixture(scope="module")
def signal_v():
    """Six channels of 8 s, V, on the 16-bit grid that all formats hold exactly: multiples of 0.1 uV."""
    rng = np.random.default_rng(3)
    return np.round(rng.normal(0, 40, size=(6, 2000)) * 10) / 10 * 1e-6


def _edf(path, values_v, rates=None, unit="uV", names=NAMES, annotate=True):
    import edfio

    scale = {"uV": 1e6, "mV": 1e3, "": 1e6}[unit]
    kind = edfio.BdfSignal if path.suffix == ".bdf" else edfio.EdfSignal
    signals = [
        kind(
            x * scale,
            rate,
            label=name,
            physical_dimension=unit,
            physical_range=(-3276.8e-6 * scale, 3276.7e-6 * scale),
            **({} if path.suffix == ".bdf" else {"digital_range": (-32768, 32767)}),
        )
        for name, x, rate in zip(names, values_v, rates or [RATE] * len(names))
    ]
    annotations = [edfio.EdfAnnotation(a, b or None, c) for a, b, c in EVENTS] if annotate else []
    whole = edfio.Bdf if path.suffix == ".bdf" else edfio.Edf
    whole(signals, annotations=annotations).write(path)


def _brainvision(path, values_v):
    import pybv

    pybv.write_brainvision(
        data=values_v,
        sfreq=RATE,
        ch_names=list(NAMES),
        fname_base=path.stem,
        folder_out=path.parent,
        resolution=0.1,
        unit="µV",
        events=[
            {"onset": int(a * RATE), "duration": max(int(b * RATE), 1), "description": c, "type": "Comment"}
            for a, b, c in EVENTS
            if (a + b) * RATE + 1 < values_v.shape[1]
        ],
    )


def _fif(path, values_v):
    import mne

    info = mne.create_info(list(NAMES), RATE, ["eeg"] * 4 + ["emg"] * 2)
    raw = mne.io.RawArray(values_v, info, verbose="error")
    events = [event for event in EVENTS if event[0] + event[1] < values_v.shape[1] / RATE]
    raw.set_annotations(mne.Annotations(*np.array(events, dtype=object).reshape(-1, 3).T))
    raw.save(path, fmt="double", overwrite=True, verbose="error")


def _csv(path, values_v):
    delimiter = {".csv": ",", ".tsv": "\t", ".txt": ";"}[path.suffix]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["time [s]", *(f"{name} [µV]" for name in NAMES)])
        for row, x in enumerate(values_v.T):
            fields = [repr(row / RATE), *(f"{each * 1e6:.1f}" for each in x)]
            writer.writerow([field.replace(".", ",") if delimiter == ";" else field for field in fields])


def _mat(path, values_v):
    labels = np.array(NAMES, dtype=object)
    savemat(path, {"data": values_v.T * 1e6, "fs": RATE, "labels": labels, "units": "uV"})


def _mat73(path, values_v):
    # As MATLAB writes level 7.3: a user block, arrays transposed, cells of text as references.
    with h5py.File(path, "w", userblock_size=512) as file:
        file["data"] = values_v * 1e6
        file["fs"] = np.array([[RATE]])
        refs = file.create_group("#refs#")
        cells = np.empty((len(NAMES), 1), dtype=h5py.ref_dtype)
        for n, name in enumerate(NAMES):
            refs[f"n{n}"] = np.array([[ord(c)] for c in name], dtype="u2")
            cells[n, 0] = refs[f"n{n}"].ref
        file.create_dataset("labels", data=cells, dtype=h5py.ref_dtype)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def _hdf(path, values_v):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("raw/signals", data=values_v * 1e3, compression="gzip")
        data.attrs.update({"sfreq": RATE, "unit": "mV", "channels": list(NAMES)})


WRITERS = {
    "a.edf": _edf, "a.bdf": _edf, "a.vhdr": _brainvision, "a.fif": _fif, "a.csv": _csv, "a.tsv": _csv, "a.txt": _csv,
    "a.mat": _mat, "b.mat": _mat73, "a.h5": _hdf,
}  # fmt: skip
NEEDS = {"a.edf": "edfio", "a.bdf": "edfio", "a.vhdr": "pybv", "a.fif": "mne"}


def _written(folder, name, values_v):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
        pytest.importorskip("mne")
    WRITERS[name](folder / name, values_v)
    return str(folder / name)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_recording(tmp_path, signal_v, name):
    recording = read_recording(RecordingSource(eeg=_written(tmp_path, name, signal_v), subject="s", name="n"))
    np.testing.assert_allclose(np.vstack([recording.eeg, recording.emg]), signal_v, rtol=0, atol=1e-9)
    assert (recording.eeg_names, recording.emg_names) == (NAMES[:4], NAMES[4:])
    assert recording.rate_hz == pytest.approx(RATE, rel=1e-9)
    assert (recording.subject, recording.name, recording.faults) == ("s", "n", ())
    if name in NEEDS:
        found = [(e.onset_s, e.label.removeprefix("Comment/")) for e in recording.events]
        assert found == [(pytest.approx(a, abs=1e-6), c) for a, _, c in EVENTS]
        assert recording.events[0].duration_s == pytest.approx(2.0)


def test_rates_of_one_edf_are_not_mixed(tmp_path):
    pytest.importorskip("edfio")
    pytest.importorskip("mne")
    at = [np.arange(8 * rate) / rate for rate in (256, 256, 1024)]
    values = [np.round(1000 * np.sin(2 * np.pi * f * t)) * 1e-7 for f, t in zip((5, 9, 20), at)]
    path = tmp_path / "two.edf"
    _edf(path, values, rates=[256, 256, 1024], names=("C3", "C4", "EMG 1"), annotate=False)
    fine, coarse = read_signals(path)
    assert (fine.names, fine.rate_hz, coarse.names, coarse.rate_hz) == (("EMG 1",), 1024.0, ("C3", "C4"), 256.0)
    recording = read_recording(RecordingSource(eeg=str(path)))
    assert recording.rate_hz == 1024 and recording.eeg.shape[1] == recording.emg.shape[1] == 8 * 1024
    np.testing.assert_allclose(recording.emg[0], values[2][: recording.emg.shape[1]], atol=1e-9)
    inner = slice(400, -400)
    times = np.arange(recording.eeg.shape[1]) / 1024
    np.testing.assert_allclose(recording.eeg[1, inner], 1e-4 * np.sin(2 * np.pi * 9 * times)[inner], atol=3e-7)
    assert any(note.startswith("EEG resampled from 256 to 1024 Hz") for note in recording.notes)


@pytest.mark.parametrize("unit", ["mV", ""])
def test_units_of_an_edf(tmp_path, signal_v, unit):
    pytest.importorskip("edfio")
    pytest.importorskip("mne")
    path = tmp_path / "a.edf"
    _edf(path, signal_v, unit=unit)
    recording = read_recording(RecordingSource(eeg=str(path)))
    np.testing.assert_allclose(recording.eeg, signal_v[:4], atol=1e-9)
    assert any("names no unit; uV assumed" in note for note in recording.notes) == (unit == "")


def test_mne_is_an_extra(tmp_path, monkeypatch):
    import motorsweep.sim.recording_guards as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.edf").write_bytes(b"0")
    with pytest.raises(MissingPackageError, match=r"a\.edf: MNE.*not installed.*EXTRAS=eeg"):
        read_signals(tmp_path / "a.edf")


def test_channels_that_are_neither_are_left_out_and_told(tmp_path):
    rows = [[n / 100, n % 5, n % 7, n % 11, n % 13] for n in range(300)]
    path = _table(tmp_path / "a.csv", ["time_s", "C3", "X1", "EMG1", "trigger"], rows)
    recording = read_recording(RecordingSource(eeg=path))
    assert (recording.eeg_names, recording.emg_names) == (("C3",), ("EMG1",))
    assert "a.csv: left out, neither EEG nor EMG by type or name: X1, trigger" in recording.notes
    named = read_recording(RecordingSource(eeg=path, eeg_channels=("X1", "C3"), drop_channels=("trigger",)))
    assert named.eeg_names == ("X1", "C3") and not any("left out" in note for note in named.notes)
    with pytest.raises(InputError, match=r"no channel 'Q' among 'time_s|no channel 'Q' among"):
        read_recording(RecordingSource(eeg=path, eeg_channels=("Q",)))


def test_bad_channels_of_a_fif_are_marked(tmp_path, signal_v):
    mne = pytest.importorskip("mne")
    _fif(tmp_path / "a.fif", signal_v)
    raw = mne.io.read_raw_fif(tmp_path / "a.fif", preload=True, verbose="error")
    raw.info["bads"] = ["C4"]
    raw.crop(2.0).save(tmp_path / "b.fif", fmt="double", verbose="error")
    recording = read_recording(RecordingSource(eeg=str(tmp_path / "b.fif")))
    (fault,) = recording.faults
    assert (fault.channel, fault.fault, fault.found) == ("C4", "marked bad", "in b.fif")
    # A recording whose first sample is not its clock's zero: events still count from what was read.
    rest, grip = recording.events
    assert (rest.label, rest.onset_s, rest.duration_s) == ("rest", 0.0, pytest.approx(1.0))
    assert grip == Event(onset_s=pytest.approx(2.0), duration_s=0.0, label="grip")
    np.testing.assert_allclose(recording.eeg, signal_v[:4, 500:], atol=1e-12)


# ---- tables and arrays


def _table(path, titles, rows, delimiter=","):
    path.write_text("\n".join(delimiter.join(map(str, row)) for row in [titles, *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_a_table_without_stamps_needs_a_rate(tmp_path):
    rows = np.random.default_rng(0).integers(-50, 50, (400, 2)).tolist()
    path = _table(tmp_path / "a.csv", ["C3", "EMG1"], rows)
    with pytest.raises(InputError, match=r"a\.csv: it has neither time stamps nor a rate.*eeg_rate_hz"):
        read_recording(RecordingSource(eeg=path))
    recording = read_recording(RecordingSource(eeg=path, eeg_rate_hz=200.0, emg_rate_hz=200.0, eeg_unit="mV"))
    np.testing.assert_allclose(recording.eeg[0], np.array(rows)[:, 0] * 1e-3)
    np.testing.assert_allclose(recording.emg[0], np.array(rows)[:, 1] * 1e-6)
    assert recording.rate_hz == 200.0


def test_a_table_without_header_and_with_a_preamble(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("%OpenBCI\n%rate 250\n" + "".join(f"{n % 7}, {n % 5}.5, nan\n" for n in range(300)))
    (signals,) = read_signals(path)
    assert signals.names == ("ch1", "ch2", "ch3") and signals.values.shape == (3, 300)
    assert np.isnan(signals.values[2]).all()
    recording = read_recording(
        RecordingSource(
            eeg=str(path), eeg_channels=("ch2", "ch3"), emg_channels=("ch1",), eeg_rate_hz=100, emg_rate_hz=100
        )
    )
    assert [(f.channel, f.fault) for f in recording.faults if f.fault == "not finite"] == [("ch3", "not finite")]
    np.testing.assert_array_equal(recording.eeg[0], (np.arange(300) % 5 + 0.5) * 1e-6)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("t,C3,EMG1\n0,1,2\n0.01,1,abc\n0.02,1,2\n", r"line 3, column 'EMG1': found 'abc', which is no number"),
        ("t,C3,EMG1\n0,1,2\n0.01,1\n0.02,1,2\n", r"line 3: found 2 fields where the table has 3 columns"),
        ("t,C3,EMG1\n0,1,2\n0.01,1,2,3\n", r"line 3: found 4 fields"),
        ("t,C3,EMG1\n", r"found no rows of samples"),
        ("t,C3,EMG1\n0,1,2\nx,1,2\n", r"column 't', row 2 of data: found 'x'"),
        ("\0\0\0\0", r"bytes that no text has"),
        ("", r"the file is empty"),
        ("t,x1,x2\n0,1,2\n0.01,1,2\n0.02,1,1\n", r"found no EEG channel among 'x1', 'x2'"),
        ("t,C3,C4\n0,1,2\n0.01,1,2\n0.02,1,1\n", r"found no EMG channel among 'C3', 'C4'"),
    ],
)
def test_damaged_tables(tmp_path, text, told):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.csv.*" + told):
        read_recording(RecordingSource(eeg=str(path)))


def test_two_arrays_of_one_mat(tmp_path):
    rng = np.random.default_rng(0)
    eeg, emg = rng.normal(size=(4, 1000)), rng.normal(size=(2, 4000))
    savemat(tmp_path / "a.mat", {"EEG": {"data": eeg, "srate": 250.0}, "emg": emg.T, "emg_fs": 1000, "note": "x"})
    source = RecordingSource(eeg=str(tmp_path / "a.mat"), eeg_array="EEG.data", eeg_unit="uV", emg_unit="mV")
    recording = read_recording(source, 250.0)
    np.testing.assert_allclose(recording.eeg, eeg[:, : recording.eeg.shape[1]] * 1e-6)
    assert recording.eeg_names == ("ch1", "ch2", "ch3", "ch4") or recording.eeg_names[0].startswith("EEG")
    assert recording.emg.shape == (2, recording.eeg.shape[1]) and recording.rate_hz == 250


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ({"a": np.zeros((4, 100)), "b": np.zeros((2, 100))}, {}, r"which array.*'a', 'b'.*`eeg_array`"),
        ({"eeg": np.zeros((50, 60))}, {}, r"shape \(50, 60\) channels cannot be told from samples"),
        ({"eeg": np.zeros((4, 5, 100))}, {"eeg_array": "eeg"}, r"found shape \(4, 5, 100\)"),
        ({"x": 1}, {"eeg_array": "eeg"}, r"there is no array 'eeg'; found 'x'"),
        ({"eeg": np.zeros((4, 100), complex)}, {"eeg_array": "eeg"}, r"found complex128 where numbers are needed"),
        (
            {"eeg": np.array([np.zeros(3), "x"], dtype=object)},
            {"eeg_array": "eeg"},
            r"objects are not read|found object",
        ),
    ],
)
def test_arrays_that_cannot_be_told(tmp_path, content, options, told):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(InputError, match=r"a\.mat.*" + told):
        read_signals(tmp_path / "a.mat", RecordingSource(eeg="", **options))


def test_hdf5_that_keeps_values_elsewhere_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("eeg", shape=(4, 1000), dtype="f8", external=[(str(tmp_path / "secret"), 0, 32000)])
    with pytest.raises(InputError, match=r"a\.h5: '/eeg' keeps its values in other files"):
        read_signals(tmp_path / "a.h5")


def test_hdf5_that_promises_more_than_it_holds_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("eeg", shape=(64, 10**10), dtype="f8", chunks=(1, 1000))
    with pytest.raises(InputError, match=r"a\.h5: '/eeg' should take 5120\.0 GB"):
        read_signals(tmp_path / "a.h5")


# ---- damaged files


def _spoilt(data, seed, text):
    rng = np.random.default_rng(seed)
    kind = seed % 3
    if kind == 0:
        return data[: rng.integers(0, len(data))]
    changed = bytearray(data)
    # Headers are at the front, and there damage does most.
    reach = len(data) if seed % 2 else min(len(data), 3000)
    for at in rng.integers(0, reach, 1 + seed % 5):
        changed[at] = rng.integers(32, 127) if text else rng.integers(0, 256)
    return bytes(changed) if kind == 1 else bytes(changed[:reach]) + data[rng.integers(0, len(data)) :]


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_are_told_of(tmp_path, signal_v, name):
    path = _written(tmp_path, name, signal_v[:, :500])
    whole = open(path, "rb").read()
    told = 0
    for seed in range(40):
        with open(path, "wb") as file:
            file.write(_spoilt(whole, seed, name.endswith(("csv", "tsv", "txt", "vhdr"))))
        try:
            recording = read_recording(RecordingSource(eeg=path))
        except MotorsweepError as error:
            told += 1
            assert name in str(error)
            assert len(str(error)) < 1500
        else:
            assert recording.eeg.shape[1] == recording.emg.shape[1]
    assert told >= 5


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.csv"])
@pytest.mark.parametrize("content", [b"", b"\0", b"t,C3,EMG1\n0,1,2\n", bytes(range(256)) * 40])
def test_files_of_something_else(tmp_path, name, content):
    if name in NEEDS:
        pytest.importorskip("mne")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_recording(RecordingSource(eeg=str(tmp_path / name)))


def test_paths_that_are_none(tmp_path):
    for path, told in (
        (tmp_path / "no.edf", "there is no such file"),
        (tmp_path, "recordings are read from"),
        (tmp_path / "a.pkl", r"a\.pkl: recordings are read from .*\.edf"),
        (tmp_path / "a\0.csv", "the system does not open it|no such file"),
    ):
        with pytest.raises(InputError, match=told):
            read_signals(path)


def test_options_that_are_none():
    for key, value in (("eeg_unit", "kV"), ("clock", "x"), ("align", "x"), ("eeg_rate_hz", -1.0), ("layout", "T")):
        with pytest.raises(InputError, match=rf"{key} is"):
            read_recording(RecordingSource(eeg="a.csv", **{key: value}))


def test_sources_are_plain():
    source = RecordingSource(eeg="a.csv", eeg_channels=("C3",))
    assert json.loads(json.dumps(source.__dict__))["eeg"] == "a.csv"
    assert len(set(itertools.repeat(source, 2))) == 1
