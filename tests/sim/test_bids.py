"""Recordings found by patterns and in BIDS data sets."""

import itertools

import numpy as np
import pytest
from motorsweep.errors import ConfigError, InputError, MotorsweepError
from motorsweep.sim.bids import bids_files, channel_table, event_table, is_bids
from motorsweep.sim.recording import Event
from motorsweep.sim.recording_files import read_recording
from motorsweep.sim.recording_parts import cut_recordings
from motorsweep.sim.recording_sources import find_recordings

RATE = 100


def _values(seconds=12, seed=0):
    return np.round(np.random.default_rng(seed).normal(0, 20, (4, seconds * RATE)), 1)


def _table(path, titles=("C3", "C4", "EMG1", "EMG2"), seconds=12, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join([f"{n / RATE:.2f}", *map(str, x)]) for n, x in enumerate(_values(seconds, seed).T)]
    path.write_text("\n".join([",".join(["time_s", *(f"{t} [uV]" for t in titles)]), *rows]) + "\n")
    return path


def _bids(root):
    """Two people; EMG in the file of one, in ``emg/`` of the other; channels and events at different levels."""
    mne = pytest.importorskip("mne")
    for subject, own in (("01", False), ("02", True)):
        folder = root / f"sub-{subject}" / "ses-1"
        (folder / "eeg").mkdir(parents=True)
        stem = f"sub-{subject}_ses-1_task-grip"
        for kind, rows in (("eeg", [0, 1] if own else [0, 1, 2, 3]), ("emg", [2, 3] if own else [])):
            if rows:
                (folder / kind).mkdir(exist_ok=True)
                info = mne.create_info([f"x{n}" for n in rows], RATE, "eeg")
                raw = mne.io.RawArray(_values(seed=int(subject))[rows] * 1e-6, info, verbose="error")
                raw.save(folder / kind / f"{stem}_{kind}.fif", fmt="double", verbose="error")
        (folder / "eeg" / f"{stem}_channels.tsv").write_text(
            "name\ttype\tunits\tstatus\tstatus_description\nx0\tEEG\tuV\tgood\tn/a\nx1\tEEG\tuV\tbad\tloose\n"
            "x2\tEMG\tuV\tgood\tn/a\nx3\tEMG\tuV\tn/a\tn/a\n"
        )
        if own:
            (folder / "emg" / f"{stem}_channels.tsv").write_text("name\ttype\nx2\tEMG\nx3\tEMG\n")
    (root / "task-grip_events.tsv").write_text(
        "onset\tduration\ttrial_type\tvalue\n5.0\t3\tgrip\t2\n1.0\t3.0\trest\t1\n9.5\tn/a\tgrip\t2\n"
    )
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-02\t31\nsub-03\t32\n")
    return root


def test_a_bids_data_set(tmp_path):
    root = _bids(tmp_path)
    assert is_bids(root)
    first, second = find_recordings(root)
    assert (first.subject, first.condition, first.name) == ("01", "grip", "sub-01_ses-1_task-grip")
    assert first.emg == "" and second.emg.endswith("sub-02_ses-1_task-grip_emg.fif")
    for source in (first, second):
        recording = read_recording(source)
        expected = _values(seed=int(source.subject)) * 1e-6
        np.testing.assert_allclose(np.vstack([recording.eeg, recording.emg]), expected, atol=1e-12)
        assert (recording.eeg_names, recording.emg_names) == (("x0", "x1"), ("x2", "x3"))
        assert [(f.channel, f.fault) for f in recording.faults] == [("x1", "marked bad")]
        assert recording.faults[0].found == f"in {source.name}_channels.tsv: loose"
        assert [(e.onset_s, e.duration_s, e.label) for e in recording.events] == [
            (1.0, 3.0, "rest"), (5.0, 3.0, "grip"), (9.5, 0.0, "grip"),
        ]  # fmt: skip


def test_tables_of_other_runs_are_not_taken_and_the_closest_is(tmp_path):
    folder = tmp_path / "sub-01" / "eeg"
    folder.mkdir(parents=True)
    for run in (1, 2, 3):
        (folder / f"sub-01_task-grip_run-{run}_eeg.edf").touch()
    for table in ("sub-01_task-grip_run-1_events", "sub-01_task-grip_events", "sub-01_task-rest_run-2_events"):
        (folder / f"{table}.tsv").touch()
    (tmp_path / "task-grip_run-3_channels.tsv").touch()
    found = bids_files(tmp_path)
    names = "sub-01_task-grip_run-1_events.tsv", "sub-01_task-grip_events.tsv", "sub-01_task-grip_events.tsv"
    assert [each.event_table for each in found] == [str(folder / name) for name in names]
    assert [each.eeg_table for each in found] == ["", "", str(tmp_path / "task-grip_run-3_channels.tsv")]


def test_events_become_recordings_with_conditions(tmp_path):
    root = _bids(tmp_path)
    found, _ = cut_recordings(find_recordings(root), ["rest", "grip"])
    assert [(s.subject, s.condition, s.start_s, s.stop_s) for s in found[:3]] == [
        ("01", "rest", 1.0, 4.0), ("01", "grip", 5.0, 8.0), ("01", "grip", 9.5, 12.0),
    ]  # fmt: skip
    assert [s.name for s in found[:2]] == ["sub-01_ses-1_task-grip-rest-001", "sub-01_ses-1_task-grip-grip-002"]
    part = read_recording(found[1])
    np.testing.assert_allclose(part.eeg, _values(seed=1)[:2, 500:800] * 1e-6, atol=1e-12)
    assert part.condition == "grip" and part.events == (Event(onset_s=0.0, duration_s=3.0, label="grip"),)
    seconds, _ = cut_recordings(find_recordings(root), ("grip",), 1.0)
    assert [(s.start_s, s.stop_s) for s in seconds[:4]] == [(5, 6), (6, 7), (7, 8), (9.5, 10.5)]
    assert len({s.name for s in seconds}) == len(seconds) == 8
    with pytest.raises(InputError, match=r"none of 'lift' is among its labels 'grip, rest'"):
        cut_recordings(find_recordings(root), ["lift"])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("task-grip_events.tsv", "onset\tduration\nnow\t1\n", r"row 2: onset is 'now', but must be seconds"),
        ("task-grip_events.tsv", "onset\tduration\n1\t-1\n", r"row 2: duration is '-1'"),
        ("task-grip_events.tsv", "when\n1\n", r"there is no column onset, duration"),
        ("task-grip_events.tsv", "", r"there is no column onset"),
        ("participants.tsv", "participant_id\nsub-01\n", r"does not list 02, whose EEG is there"),
        ("sub-01/ses-1/eeg/sub-01_ses-1_task-grip_channels.tsv", "name\ttype\nx0\n", r"row 2: found 1 fields"),
    ],
)
def test_damaged_tables_of_a_data_set(tmp_path, name, text, told):
    root = _bids(tmp_path)
    (root / name).write_text(text)
    with pytest.raises(InputError, match=name.split("/")[-1].replace(".", r"\.") + ".*" + told):
        for source in find_recordings(root):
            read_recording(source)


@pytest.mark.parametrize("seed", range(30))
def test_tables_with_bytes_changed(tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(b"onset\tduration\ttrial_type\n1.0\t2.0\trest\n3.0\t2.0\tgrip\n")
    for at in rng.integers(0, len(data), 3):
        data[at] = rng.integers(0, 256)
    (tmp_path / "x_events.tsv").write_bytes(data[: rng.integers(1, len(data) + 1)])
    for read in (event_table, channel_table):
        try:
            read(tmp_path / "x_events.tsv")
        except MotorsweepError as error:
            assert "x_events.tsv" in str(error)


def test_a_data_set_without_eeg(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(InputError, match=r"found no sub-\*/\[ses-\*/\]eeg/\*_eeg"):
        find_recordings(tmp_path)
    with pytest.raises(InputError, match=r"found no sub-"):
        bids_files(tmp_path)


# ---- patterns


@pytest.fixture
def folder(tmp_path):
    for subject, trial in itertools.product(("s1", "s2"), ("t1", "t2")):
        _table(tmp_path / subject / f"trial_{trial}" / "eeg.csv", seconds=2)
        _table(tmp_path / subject / f"trial_{trial}" / "emg.csv", seconds=2)
    return tmp_path


@pytest.mark.parametrize(
    ("eeg", "names", "subjects"),
    [
        ("{subject}/trial_{name}/eeg.csv", ["s1-t1", "s1-t2", "s2-t1", "s2-t2"], ["s1", "s1", "s2", "s2"]),
        ("s1/trial_*/eeg.csv", ["t1", "t2"], ["", ""]),
        ("{subject}/trial_*/eeg.csv", ["s1-t1", "s1-t2", "s2-t1", "s2-t2"], ["s1", "s1", "s2", "s2"]),
        ("s2/{condition}_t1/eeg.csv", ["trial"], [""]),
    ],
)
def test_patterns(folder, eeg, names, subjects):
    found = find_recordings(folder, eeg=eeg, emg=eeg.replace("eeg", "emg"), eeg_unit="mV", eeg_channels=["C3"])
    assert [s.name for s in found] == names and [s.subject for s in found] == subjects
    assert all(s.emg == s.eeg.replace("eeg.csv", "emg.csv") and s.eeg_unit == "mV" for s in found)
    assert found[0].eeg_channels == ("C3",) and hash(found[0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"eeg": "*.edf"}, r"no file fits '\*\.edf'"),
        ({"eeg": "{who}/x.csv"}, r"\{who\} is none of \{subject\}"),
        ({"eeg": "../*.csv"}, r"it leaves the folder"),
        ({"eeg": "{subject}/trial_*/eeg.csv", "emg": "{subject}/*/*/emg.csv"}, r"stands for nothing|cannot"),
        ({"eeg": "{subject}/trial_{name}/eeg.csv", "emg": "{name}/emg.csv"}, r"4 EEG files have no EMG file"),
        ({"eeg": "*/trial_{name}/e*.csv", "speed": 3}, r"speed is no option"),
        ({"eeg": "{subject}/*_t1/eeg.csv", "name": "x"}, r"name is no option"),
        ({}, r"it is no BIDS data set, and without a pattern"),
        ({"eeg": "s1/trial_t1/e?g.csv"}, r"'\?' is not known"),
    ],
)
def test_patterns_that_fit_nothing(folder, options, told):
    with pytest.raises((InputError, ConfigError), match=told):
        find_recordings(folder, **options)


def test_two_recordings_of_one_name(folder):
    # "a" and "a" in one component, "a-a" in two: names that are joined may fall together.
    _table(folder / "x" / "y-z" / "eeg.csv", seconds=2)
    _table(folder / "x-y" / "z" / "eeg.csv", seconds=2)
    with pytest.raises(InputError, match=r"eeg\.csv and .*eeg\.csv would both be called 'x-y-z'"):
        find_recordings(folder, eeg="{subject}/{name}/eeg.csv")


def test_there_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="it is not there"):
        find_recordings(tmp_path / "no", eeg="*.csv")
