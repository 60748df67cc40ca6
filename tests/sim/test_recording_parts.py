"""Recordings cut into parts: at events and into windows. No sample is in two parts, and what is left out is told."""

import itertools

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.recording_files import RecordingSource, read_recording
from motorsweep.sim.recording_parts import cut_recordings
from motorsweep.sim.recording_sources import find_recordings

RATE, TITLES = 100, ("C3", "C4", "EMG1", "EMG2")


def _values(seconds=12):
    return np.round(np.random.default_rng(0).normal(0, 20, (4, round(seconds * RATE))), 1)


def _source(folder, name="a", seconds=12, events=None, **more):
    """A recording as CSV in microvolts, and its events as rows of onset, duration and label."""
    values = _values(seconds).T
    rows = [",".join([f"{n / RATE:.2f}", *map(str, x)]) for n, x in enumerate(values)]
    path = folder / f"{name}.csv"
    path.write_text("\n".join([",".join(["time_s", *(f"{t} [uV]" for t in TITLES)]), *rows]) + "\n")
    if events is not None:
        table = folder / f"{name}_events.tsv"
        lines = ["\t".join(map(str, row)) for row in [("onset", "duration", "trial_type"), *events]]
        table.write_text("\n".join(lines) + "\n")
        more["event_table"] = str(table)
    return RecordingSource(eeg=str(path), name=name, **more)


def _told(parts):
    return [(part.name, part.condition, round(part.start_s, 9), round(part.stop_s, 9)) for part in parts]


def _shared(parts):
    """Pairs of parts that have a sample of one recording in common."""
    samples = [(p.eeg, set(range(round(p.start_s * RATE), round(p.stop_s * RATE)))) for p in parts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(samples, 2) if a == b and x & y]


# ---- events ----------------------------------------------------------------------------------------------------------


def test_cues_without_duration_end_where_the_next_begins(tmp_path):
    cues = [(1, "n/a", "rest"), (3, "n/a", "grip"), (6, "n/a", "other"), (8, "n/a", "rest")]
    source = _source(tmp_path, events=cues)
    parts, notes = cut_recordings([source], ("rest", "grip"))
    assert _told(parts) == [("a-rest-001", "rest", 1, 3), ("a-grip-002", "grip", 3, 8), ("a-rest-003", "rest", 8, 12)]
    assert notes == ()
    part = read_recording(parts[1])
    np.testing.assert_allclose(part.eeg, _values()[:2, 300:800] * 1e-6, atol=1e-12)


def test_an_event_of_one_sample_is_a_moment(tmp_path):
    cues = [(1, 0.01, "rest"), (5, 0.01, "grip"), (9, 0.02, "other")]
    source = _source(tmp_path, events=cues)
    assert [event.duration_s for event in read_recording(source).events] == [0, 0, 0.02]
    assert _told(cut_recordings([source], ("rest", "grip"), 3.0)[0]) == [
        ("a-rest-001", "rest", 1, 4),
        ("a-grip-002", "grip", 5, 8),
    ]
    assert [part.stop_s for part in cut_recordings([source], ("rest", "grip"))[0]] == [5, 12]


def test_records_never_share_samples_where_record_s_is_longer_than_the_cues_are_apart(tmp_path):
    cues = [(0, "n/a", "rest"), (2, "n/a", "grip"), (4, "n/a", "rest"), (9, "n/a", "grip")]
    parts, notes = cut_recordings([_source(tmp_path, events=cues)], ("rest", "grip"), 2.5)
    assert _told(parts) == [("a-rest-003", "rest", 4, 6.5), ("a-grip-004", "grip", 9, 11.5)]
    assert notes == ("events left out, since too little is left of them: 2, the first: 'rest' at 0 s of a, 2.000 s",)
    parts, notes = cut_recordings([_source(tmp_path, events=cues)], ("rest", "grip"), 1.5)
    assert _shared(parts) == [] and len(parts) == 4 and notes == ()


def test_events_that_last_into_the_next_end_where_it_begins(tmp_path):
    events = [(1, 4, "rest"), (3, 2, "grip"), (6, 1, "rest"), (11, 3, "grip")]
    parts, notes = cut_recordings([_source(tmp_path, events=events)], ("rest", "grip"))
    assert [(p.start_s, p.stop_s) for p in parts] == [(1, 3), (3, 5), (6, 7), (11, 12)]
    assert notes == (
        "parts that end before their event does, where the next of these begins or the recording ends: 2, the first: "
        "'rest' at 1 s of a, 2.000 s",
    )
    alone, notes = cut_recordings([_source(tmp_path, events=events)], ("rest",))
    assert [(p.start_s, p.stop_s) for p in alone] == [(1, 5), (6, 7)] and notes == ()


def test_events_that_begin_at_once_are_one_part_or_none(tmp_path):
    events = [(1, 1, "rest"), (1, 2, "rest"), (4, 2, "rest"), (4.002, 2, "grip"), (8, 1, "grip")]
    parts, notes = cut_recordings([_source(tmp_path, events=events)], ("rest", "grip"))
    assert _told(parts) == [("a-rest-002", "rest", 1, 3), ("a-grip-005", "grip", 8, 9)]
    assert notes == (
        "events left out, since another of these events begins with them: 3, the first: 'rest' at 1 s of a",
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_events_give_parts_that_share_nothing(tmp_path, seed):
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.choice([rng.uniform(0, 12, 15), rng.integers(0, 2400, 15) / 200]))
    rows = [(f"{t:.4f}", rng.choice(["n/a", "0.3", "1.7"]), rng.choice(["rest", "grip"])) for t in onsets]
    source = _source(tmp_path, events=rows)
    for record_s in (0.0, 0.25, 0.7):
        parts, _ = cut_recordings([source], ("rest", "grip"), record_s)
        assert parts and _shared(parts) == []
        assert not record_s or {round(p.stop_s - p.start_s, 5) for p in parts} == {record_s}


def test_a_late_cue_and_short_events_leave_the_others(tmp_path):
    cues = [(1, "n/a", "grip"), (5, 1.0, "grip"), (7, 3.5, "grip"), (11, "n/a", "grip")]
    parts, notes = cut_recordings([_source(tmp_path, events=cues)], ("grip",), 1.5)
    assert _told(parts) == [
        ("a-grip-001", "grip", 1, 2.5), ("a-grip-003-001", "grip", 7, 8.5), ("a-grip-003-002", "grip", 8.5, 10),
    ]  # fmt: skip
    assert notes == (
        "events left out, since too little is left of them: 2, the first: 'grip' at 5 s of a, 1.000 s",
        "parts whose last seconds are in no record, as they are shorter than `record_s`: 1, the first: 0.500 s of "
        "a-grip-003",
    )


def test_recordings_without_the_events_are_told_and_only_if_all_lack_them_refused(tmp_path):
    some, none = _source(tmp_path, "a", events=[(1, 2, "grip")]), _source(tmp_path, "b", events=[(1, 2, "Grip")])
    parts, notes = cut_recordings([none, some], ("grip",))
    assert [p.name for p in parts] == ["a-grip-001"]
    assert notes[0].startswith("recordings of which no event gives a record: 1, the first: cutting b at events: none")
    with pytest.raises(InputError, match=r"none of 1 gives one.*none of 'grip' is among its labels 'Grip'. Correct"):
        cut_recordings([none], ("grip",))
    with pytest.raises(InputError, match=r"cutting a at events: of its 1 none lasts 5 s.*Give a shorter `record_s`"):
        cut_recordings([some], ("grip",), 5.0)


def test_events_of_a_part_are_counted_from_the_files_start(tmp_path):
    source = _source(tmp_path, events=[(1, 1, "grip"), (5, 2, "grip")], start_s=3.0)
    ((part,), _) = cut_recordings([source], ("grip",))
    assert (part.start_s, part.stop_s) == (pytest.approx(5.0), pytest.approx(7.0))


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_one_file_in_windows(tmp_path):
    source = _source(tmp_path, "long")
    found, _ = cut_recordings(find_recordings(source.eeg), record_s=5.0)
    assert _told(found) == [("long-001", "", 0, 5), ("long-002", "", 5, 10)]
    parts = np.hstack([read_recording(s).eeg for s in found])
    np.testing.assert_allclose(parts, _values()[:2, :1000] * 1e-6, atol=1e-12)
    # A window is the same whether it is read alone or cut out of the whole.
    whole = read_recording(source, 80.0)
    part = read_recording(found[1], 80.0)
    np.testing.assert_allclose(part.eeg, whole.eeg[:, 400:800], atol=1e-15)
    assert cut_recordings([source], (), 5.0)[1] == (
        "parts whose last seconds are in no record, as they are shorter than `record_s`: 1, the first: 2.000 s of long",
    )


def test_windows_longer_than_every_recording(tmp_path):
    source = _source(tmp_path, seconds=2)
    for seconds in (3.0, -1.0):
        with pytest.raises(InputError, match=r"none of 1 gives.*cutting a into records of -?\d s: it has 2\.000 s"):
            cut_recordings([source], (), seconds)


@pytest.mark.parametrize("events", [(), ("grip",)])
def test_a_recording_that_cannot_be_read_is_one_record_that_fails(tmp_path, events):
    grips = [(0, 2, "grip")]
    good, torn = _source(tmp_path, "good", 2, grips), _source(tmp_path, "torn", 2, grips)
    text = (tmp_path / "torn.csv").read_text()
    (tmp_path / "torn.csv").write_text(text[: len(text) // 2 + 3])
    known = {}
    parts, notes = cut_recordings([torn, good], events, 1.0, known)
    suffix = "-grip-001" if events else ""
    assert [p.name for p in parts] == ["torn", f"good{suffix}-001", f"good{suffix}-002"]
    assert notes[0].startswith("recordings that cannot be cut, each one record that fails with its reason: 1, the")
    with pytest.raises(InputError, match=r"reading .*torn\.csv"):
        read_recording(parts[0])
    assert list(known) == ["good"]  # the torn one is tried again
    (tmp_path / "torn.csv").write_text(text)
    with pytest.raises(InputError, match="is not in the"):  # never whole among parts
        read_recording(parts[0])
    assert len(cut_recordings([torn, good], events, 1.0, known)[0]) == 4


def test_a_short_recording_is_one_record_that_fails_and_the_others_are_cut(tmp_path):
    short, good = _source(tmp_path, "short", 1.6), _source(tmp_path, "good", 4)
    known = {}
    parts, notes = cut_recordings([short, good], (), 2.0, known)
    assert _told(parts) == [("short", "", 0, 2), ("good-001", "", 0, 2), ("good-002", "", 2, 4)]
    assert "cutting short into records of 2 s: it has 1.600 s" in notes[0]
    with pytest.raises(InputError, match=r"the part from 0 to 2\.0 s is not in the 1\.\d+ s"):
        read_recording(parts[0])
    assert cut_recordings([short, good], (), 2.0, known) == (parts, notes)


def test_what_was_cut_before_is_not_read_and_has_no_paths(tmp_path, monkeypatch):
    source, known = _source(tmp_path, events=[(1, 2, "grip"), (2, 5, "rest")]), {}
    parts, notes = cut_recordings([source], ("rest", "grip"), 0.5, known)
    assert str(tmp_path) not in str(known) and notes
    monkeypatch.setattr("motorsweep.sim.recording_parts.read_recording", lambda *_: pytest.fail("read again"))
    (tmp_path / "b").mkdir()
    moved = _source(tmp_path / "b")
    found, told = cut_recordings([moved], ("rest", "grip"), 0.5, known)
    assert told == notes and _told(found) == _told(parts) and {p.eeg for p in found} == {moved.eeg}


def test_parts_of_two_recordings_that_would_have_one_name(tmp_path):
    (tmp_path / "b").mkdir()
    long, other = _source(tmp_path, "a", 4), _source(tmp_path / "b", "a-001", 2)
    with pytest.raises(InputError, match=r"a\.csv and .*a-001\.csv would both be called 'a-001'"):
        cut_recordings([long, other], (), 2.0)


@pytest.mark.parametrize("emg_hz", [50, 100, 250])
def test_the_last_window_is_whole_at_whatever_rate_it_is_read(tmp_path, emg_hz):
    for kind, rate in (("eeg", RATE), ("emg", emg_hz)):
        values = np.random.default_rng(1).normal(0, 20, (12 * rate, 2))
        titles = ("C3", "C4") if kind == "eeg" else ("EMG1", "EMG2")
        header = ",".join(["time_s", *(f"{title} [uV]" for title in titles)])
        table = np.column_stack([np.arange(12 * rate) / rate, values])
        np.savetxt(tmp_path / f"{kind}.csv", table, delimiter=",", header=header, comments="", fmt="%.6f")
    source = RecordingSource(eeg=str(tmp_path / "eeg.csv"), emg=str(tmp_path / "emg.csv"), name="a")
    parts, notes = cut_recordings([source], (), 4.0)
    assert [part.start_s for part in parts] == [0, 4, 8] and notes == ()
    for rate in (0.0, 80.0, 1000.0):
        read = [read_recording(part, rate) for part in parts]
        assert [recording.seconds for recording in read] == [4.0] * 3
        assert all(np.isfinite(each).all() for recording in read for each in (recording.eeg, recording.emg))
    assert len(cut_recordings([source], (), 12.0)[0]) == 1
