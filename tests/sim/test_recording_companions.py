"""Which files a recording consists of: parts of split FIF files, data and marks of BrainVision headers."""

from pathlib import Path

import numpy as np
import pytest
from motorsweep.errors import MissingPackageError
from motorsweep.sim import recording_guards
from motorsweep.sim.recording_companions import companions, files_of, without_later_parts
from motorsweep.sim.recording_files import RecordingSource, read_recording
from motorsweep.sim.recording_sources import find_recordings

RATE = 100


def _split_fif(path, naming="neuromag"):
    """A recording of 500 s in two FIF files, as MNE splits it."""
    mne = pytest.importorskip("mne")
    path.parent.mkdir(parents=True, exist_ok=True)
    info = mne.create_info(["C3", "Cz", "EMG1", "EMG2"], RATE, ["eeg"] * 2 + ["emg"] * 2)
    values = 1e-5 * np.random.default_rng(1).normal(size=(4, 500 * RATE))
    raw = mne.io.RawArray(values, info, verbose="error")
    raw.save(path, split_size="2MB", fmt="double", split_naming=naming, buffer_size_sec=1, verbose="error")
    return values


def _names(paths):
    return [Path(path).name for path in paths]


def test_a_split_fif_is_one_recording_of_all_its_files(tmp_path):
    values = _split_fif(tmp_path / "s1_raw.fif")
    parts = ["s1_raw.fif", "s1_raw-1.fif"]
    assert sorted(_names(tmp_path.iterdir())) == sorted(parts)
    (source,) = find_recordings(tmp_path, eeg="{subject}.fif")
    assert (source.subject, source.name) == ("s1_raw", "s1_raw")
    np.testing.assert_array_equal(read_recording(source).eeg, values[:2])
    assert _names(files_of(source)) == parts


@pytest.mark.parametrize("damaged", [False, True])
def test_a_split_recording_of_a_bids_data_set_is_one(tmp_path, damaged):
    folder = tmp_path / "sub-01/eeg"
    _split_fif(folder / "sub-01_task-x_eeg.fif", "bids")
    _split_fif(folder / "sub-01_task-y_eeg.fif", "bids")
    if damaged:
        first = folder / "sub-01_task-x_split-01_eeg.fif"
        first.write_bytes(first.read_bytes()[:5000])
    assert [source.name for source in find_recordings(tmp_path)] == [
        "sub-01_task-x_split-01", "sub-01_task-y_split-01",
    ]  # fmt: skip


def test_files_of_other_recordings_are_no_later_parts(tmp_path):
    mne = pytest.importorskip("mne")
    info = mne.create_info(["C3", "Cz", "EMG1", "EMG2"], RATE, ["eeg"] * 2 + ["emg"] * 2)
    for name in ("trial", "trial-1", "trial-2", "x_split-02_eeg", "y_split-01_eeg"):
        raw = mne.io.RawArray(np.random.default_rng(1).normal(size=(4, 200)), info, verbose="error")
        raw.save(tmp_path / f"{name}.fif", verbose="error")
    (tmp_path / "z_split-01_eeg.edf").touch()
    (tmp_path / "z_split-02_eeg.edf").touch()
    paths = sorted(tmp_path.iterdir())
    assert without_later_parts(paths) == paths and len(paths) == 7


def test_a_fif_that_is_damaged_or_whose_next_is_gone_has_itself_alone(tmp_path):
    _split_fif(tmp_path / "a.fif")
    (tmp_path / "a-1.fif").unlink()
    (tmp_path / "b.fif").write_bytes(b"nothing")
    assert companions(tmp_path / "a.fif") == companions(tmp_path / "b.fif") == companions(tmp_path / "no.fif") == []


def test_fif_without_mne_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(recording_guards.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"the files that .*a\.fif goes on in: MNE.*make setup EXTRAS=eeg"):
        files_of(RecordingSource(eeg=str(tmp_path / "a.fif")))


def _header(path, text, code="utf-8"):
    start = b"Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\n"
    path.write_bytes(start + text.encode(code) + b"\n[Comment]\nDataFile=comment.eeg\n")
    return path


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ("DataFile=a.eeg\nMarkerFile=a.vmrk", ["a.eeg", "a.vmrk"], ["a.eeg", "a.vmrk"]),
        (
            "DataFile=other.eeg\nMarkerFile=marks.vmrk",
            ["a.eeg", "other.eeg", "marks.vmrk"],
            ["other.eeg", "marks.vmrk"],
        ),
        ("datafile = my data.dat \r\nNumberOfChannels=2", ["my data.dat", "a.vmrk"], ["my data.dat"]),
        ("MarkerFile=old name.vmrk\nDataFile=a.eeg", ["a.eeg", "a.vmrk"], ["a.eeg", "a.vmrk"]),
        ("DataFile=\nMarkerFile=a.vmrk", ["a.vmrk", "comment.eeg"], ["a.vmrk"]),
        ("DataFile=gone.eeg", [], []),
        ("DataFile=Müller.eeg", ["Müller.eeg"], ["Müller.eeg"]),
    ],
)
@pytest.mark.parametrize("code", ["utf-8", "cp1252"])
def test_files_that_a_brainvision_header_names(tmp_path, text, there, expected, code):
    for name in there:
        (tmp_path / name).touch()
    source = RecordingSource(eeg=str(_header(tmp_path / "a.vhdr", text, code)), event_table="events.tsv")
    assert files_of(source) == [source.eeg, "events.tsv", *(str(tmp_path / name) for name in expected)]


def test_other_files_have_none(tmp_path):
    source = RecordingSource(eeg=str(tmp_path / "a.edf"), emg=str(tmp_path / "b.vhdr"), eeg_table="c.tsv")
    assert files_of(source) == [source.eeg, source.emg, "c.tsv"]
