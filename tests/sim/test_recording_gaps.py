"""Interrupted recordings: samples, gaps and events of EDF+D, BDF+D, BrainVision with segments and FIF with skips."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim import recording_edf_times
from motorsweep.sim.recording_files import RecordingSource, read_recording, read_signals
from motorsweep.sim.recording_parts import cut_recordings

RATES = {"C3": 200, "Cz": 200, "FDI": 400}


def _field(value, width):
    return str(value).ljust(width).encode()[:width]


def _write(path, onsets, events=(), kind="D", start="00.00.00", lists=None):
    """A file of 1 s records at `onsets`; C3's sample at time t is round(1000 t) digital, 0.1 uV each; others noise.

    `events` are onset, duration and label; `lists` replaces a record's annotation lists.
    """
    onsets, is_bdf = np.asarray(onsets, float), path.suffix == ".bdf"
    wide, bits = (3, 24) if is_bdf else (2, 16)
    name, most = ("BDF", 999_999) if is_bdf else ("EDF", 2**15 - 1)
    samples = [*RATES.values(), 120 // wide]
    labels = [*RATES, f"{name} Annotations"]
    head = (
        (b"\xffBIOSEMI" if is_bdf else _field(0, 8)) + _field("X X X X", 80) + _field("Startdate 01-JAN-2020 X X X", 80)
    )
    head += _field("01.01.20", 8) + _field(start, 8) + _field(256 * 5, 8) + _field(f"{name}+{kind}" if kind else "", 44)
    head += _field(len(onsets), 8) + _field(1, 8) + _field(4, 4)
    columns = [
        [_field(each, 16) for each in labels], [_field("", 80)] * 4, [_field("uV", 8)] * 3 + [_field("", 8)],
        [_field(-most / 10, 8)] * 3 + [_field(-1, 8)], [_field(most / 10, 8)] * 3 + [_field(1, 8)],
        [_field(-most, 8)] * 4, [_field(most, 8)] * 4, [_field("", 80)] * 4, [_field(n, 8) for n in samples],
        [_field("", 32)] * 4,
    ]  # fmt: skip
    body = b"".join(b"".join(column) for column in columns)
    rng = np.random.default_rng(bits)
    for number, onset in enumerate(onsets):
        for channel, rate in RATES.items():
            ramp = np.round(1000 * (onset + np.arange(rate) / rate))
            x = (ramp if channel == "C3" else rng.normal(0, 300, rate)).astype("<i4")
            body += x.view("u1").reshape(-1, 4)[:, :wide].tobytes()
        own = f"+{onset:g}\x14\x14\0" + "".join(
            f"+{a:g}" + (f"\x15{b:g}" if b else "") + f"\x14{c}\x14\0" for a, b, c in events if onset <= a < onset + 1
        )
        body += (lists or {}).get(number, own).encode().ljust(120, b"\0")
    path.write_bytes(head + body)
    return RecordingSource(eeg=str(path), name="s")


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
@pytest.mark.parametrize("first", [0.0, 0.25])
def test_samples_and_events_of_a_discontinuous_file_lie_at_their_times(tmp_path, suffix, first):
    pytest.importorskip("mne")
    onsets = first + np.r_[np.arange(6), 9 + np.arange(10), 23.5 + np.arange(4)]
    events = ((first + 4.5, 2.0, "grip"), (first + 12.0, 0.0, "rest"), (first + 25.0, 0.0, "grip"))
    source = _write(tmp_path / f"a.{suffix}", onsets, events)
    recording = read_recording(source)
    assert recording.rate_hz == 400.0 and recording.seconds == pytest.approx(27.5, abs=0.01)
    found = [(event.onset_s, event.duration_s, event.label) for event in recording.events]
    expected = [(4.5, 2.0, "grip"), (12.0, 0.0, "rest"), (25.0, 0.0, "grip")]
    assert [(pytest.approx(a), b, c) for a, b, c in expected] == found
    text = " ".join(recording.notes)
    assert "a discontinuous file" in text and "1500 of 5500 samples are missing, in 2 gaps" in text

    times = np.arange(recording.eeg.shape[1]) / 400
    gone = np.isnan(recording.emg[0])
    inside = ((times > 6) & (times < 9)) | ((times > 19) & (times < 23.5))
    np.testing.assert_array_equal(gone, (times >= 6) & (times < 9) | (times >= 19) & (times < 23.5))
    assert np.isnan(recording.eeg[:, inside]).all()
    apart = np.min(np.abs(times[:, None] - [0, 6, 9, 19, 23.5, 27.5]), axis=1) > 0.4
    slope = recording.eeg[0, ~inside & apart] * 1e4  # s, as C3 tells the time
    np.testing.assert_allclose(slope, first + times[~inside & apart], atol=3e-3)


@pytest.mark.parametrize("rate", [0.0, 200.0])
def test_parts_at_events_hold_what_was_recorded_then(tmp_path, rate):
    pytest.importorskip("mne")
    onsets = np.r_[np.arange(6), 9 + np.arange(10)]
    source = _write(tmp_path / "a.edf", onsets, ((12.0, 3.0, "grip"),))
    (event,) = read_recording(source).events
    recording = read_recording(replace(source, start_s=event.onset_s, stop_s=event.onset_s + event.duration_s), rate)
    assert recording.seconds == pytest.approx(3.0)
    middle = recording.eeg.shape[1] // 2
    assert recording.eeg[0, middle] * 1e4 == pytest.approx(13.5, abs=2e-3)
    with pytest.raises(InputError, match=r"the 1\.000 s that are wanted lie in a gap of the recording"):
        read_recording(replace(source, start_s=7.0, stop_s=8.0))


def test_a_discontinuous_file_without_gaps_is_as_a_continuous_one(tmp_path):
    pytest.importorskip("mne")
    events = ((2.0, 1.0, "grip"),)
    whole = read_recording(_write(tmp_path / "a.edf", np.arange(8), events, "C"))
    parts = read_recording(_write(tmp_path / "b.edf", np.arange(8), events, "D"))
    np.testing.assert_array_equal(parts.eeg, whole.eeg)
    np.testing.assert_array_equal(parts.emg, whole.emg)
    assert (parts.rate_hz, parts.events) == (whole.rate_hz, whole.events)


def test_a_device_that_runs_slower_than_it_says_keeps_its_events(tmp_path):
    """By the onsets of its records the device takes 1.001 s for the samples of one: 1 sample at 200 Hz in 5 records."""
    pytest.importorskip("mne")
    recording = read_recording(_write(tmp_path / "a.bdf", 1.001 * np.arange(100), ((90.09, 0.0, "grip"),)))
    assert recording.rate_hz == pytest.approx(400 / 1.001, rel=1e-5)
    assert recording.seconds == pytest.approx(100.1, abs=0.01) and np.isfinite(recording.emg).all()
    at = round(recording.events[0].onset_s * recording.rate_hz)
    assert recording.eeg[0, at] * 1e4 == pytest.approx(90.09, abs=0.01)


@pytest.mark.parametrize(
    "onsets, lists, told",
    [
        ([0, 1, 1.5, 2.5], None, r"data record 3 begins 0\.5 s before the one before it ends"),
        ([0, 1, 5, 6], {2: ""}, r"data record 3 does not tell its onset"),
        ([0, 1, 5, 6], {1: "+1\x14grip\x14\0"}, r"data record 2 does not tell its onset"),
        ([0, 1, 5000, 5001], None, r"times as many samples unrecorded as are recorded.*Split the file"),
    ],
)
def test_gaps_that_cannot_be_placed(tmp_path, onsets, lists, told):
    pytest.importorskip("mne")
    with pytest.raises(InputError, match=rf"reading .*a\.edf: .*{told}"):
        read_recording(_write(tmp_path / "a.edf", onsets, lists=lists))


def test_gaps_without_annotations_are_refused(tmp_path):
    pytest.importorskip("mne")
    source = _write(tmp_path / "a.edf", [0, 1, 5])
    data = (tmp_path / "a.edf").read_bytes()
    (tmp_path / "a.edf").write_bytes(data.replace(b"EDF Annotations ", b"Pz              "))
    with pytest.raises(
        InputError, match=r"says that it has gaps \(EDF\+D\), but no annotations.*Export it without gaps"
    ):
        read_recording(source)


def test_fractions_of_a_second_that_a_header_cannot_hold_count_in_alignment(tmp_path):
    """Both headers say 10:00:00; by their first records EEG begins at .25 and EMG at .75 s."""
    pytest.importorskip("mne")
    early = _write(tmp_path / "a.edf", 0.25 + np.arange(8), kind="C", start="10.00.00")
    late = _write(tmp_path / "b.edf", 0.75 + np.arange(8), kind="C", start="10.00.00")
    both = RecordingSource(eeg=early.eeg, emg=late.eeg, eeg_channels=("C3",), emg_channels=("FDI",))
    recording = read_recording(both, 200.0)
    assert recording.seconds == pytest.approx(7.5, abs=0.01)
    np.testing.assert_allclose(recording.eeg[0, ::200] * 1e4, 0.75 + np.arange(8), atol=2e-3)


def _times(rate, segments):
    """Times of samples of segments, each (begin, length) in s."""
    return np.concatenate([begin + np.arange(round(length * rate)) / rate for begin, length in segments])


def _ramp(times, channels=3):
    """C3 tells the time, 100 uV a second; the others are noise."""
    values = np.random.default_rng(3).normal(0, 30e-6, (channels, len(times)))
    values[0] = 1e-4 * times
    return values


def _vhdr(path, segments, events=(), first_date="20230405235950500000", dates=None, rate=500.0):
    """BrainVision file of `segments` (begin, length) in s; events (sample from 0 on, samples, number)."""
    pybv = pytest.importorskip("pybv")
    times = _times(rate, segments)
    pybv.write_brainvision(
        data=_ramp(times), sfreq=rate, ch_names=list(RATES), fname_base=path.stem, folder_out=path.parent,
        events=[{"onset": a, "duration": b, "description": c} for a, b, c in events], resolution=0.01,
    )  # fmt: skip
    marks = path.with_suffix(".vmrk")
    lines = [line for line in marks.read_text().splitlines() if "=New Segment" not in line]
    zero = datetime.strptime(first_date, "%Y%m%d%H%M%S%f")
    firsts = np.cumsum([0, *(round(length * rate) for _, length in segments)])
    for n, (begin, _) in enumerate(segments):
        date = (zero + timedelta(seconds=begin)).strftime("%Y%m%d%H%M%S%f")
        date = f",{date}" if dates is None else dates[n]
        lines.append(f"Mk{90 + n}=New Segment,,{firsts[n] + 1},1,0{date}")
    marks.write_text("\n".join(lines) + "\n")
    return RecordingSource(eeg=str(path), name="s")


def _tells_time(recording, times, gone):
    np.testing.assert_array_equal(np.isnan(recording.eeg[0]), gone)
    np.testing.assert_array_equal(np.isnan(recording.emg[0]), gone)
    np.testing.assert_allclose(recording.eeg[0, ~gone] * 1e4, times[~gone], atol=2e-3)


def test_segments_of_brainvision_lie_at_their_dates(tmp_path):
    """Pauses of 4.3 s and 2 min, the first over midnight; "S  2" is the second segment's first sample."""
    pytest.importorskip("mne")
    segments = ((0.0, 8.0), (12.3, 10.0), (142.3, 6.0))
    marks = ((1000, 500, 1), (4000, 1, 2), (8500, 1000, 3), (11000, 50, 4))
    recording = read_recording(_vhdr(tmp_path / "a.vhdr", segments, marks))
    assert recording.rate_hz == 500.0 and recording.seconds == pytest.approx(148.3, abs=0.01)
    times = np.arange(recording.eeg.shape[1]) / 500
    _tells_time(recording, times, (times > 7.999) & (times < 12.299) | (times > 22.299) & (times < 142.299))
    found = [(event.onset_s, event.duration_s, event.label[-1]) for event in recording.events]
    # The third goes on over the pause from 22.3 to 142.3 s: 1 s before it, 1 s after.
    expected = [(2.0, 1.0, "1"), (12.3, 0.0, "2"), (21.3, 122.0, "3"), (146.3, 0.1, "4")]
    assert [(pytest.approx(a, abs=1e-6), pytest.approx(b, abs=1e-6), c) for a, b, c in expected] == found
    text = " ".join(recording.notes)
    assert "segments at the dates of its New Segment markers" in text
    assert "62150 of 74150 samples are missing, in 2 gaps" in text


def test_segments_lie_right_to_emg_in_another_file(tmp_path):
    """The EMG file was never stopped; both tell the time in their first channel."""
    pytest.importorskip("mne")
    paused = _vhdr(tmp_path / "a.vhdr", ((0.0, 8.0), (12.3, 10.0)))
    going_on = _vhdr(tmp_path / "b.vhdr", ((0.0, 30.0),))
    both = RecordingSource(eeg=paused.eeg, emg=going_on.eeg, eeg_channels=("C3",), emg_channels=("C3",))
    recording = read_recording(both)
    times = np.arange(recording.eeg.shape[1]) / 500
    gone = (times > 7.999) & (times < 12.299)
    np.testing.assert_allclose(recording.eeg[0, ~gone], recording.emg[0, ~gone], atol=1e-7)
    assert np.isnan(recording.eeg[0, gone]).all() and np.isfinite(recording.emg).all()


@pytest.mark.parametrize("pause", [0.0, 0.0004, -0.0008])
def test_segments_that_follow_on_each_other_have_no_gap(tmp_path, pause):
    pytest.importorskip("mne")
    mark = ((3900, 200, 1),)
    whole = read_recording(_vhdr(tmp_path / "a.vhdr", ((0.0, 18.0),), mark))
    parts = read_recording(_vhdr(tmp_path / "b.vhdr", ((0.0, 8.0), (8.0 + pause, 10.0)), mark))
    assert parts.rate_hz == 500.0 and np.isfinite(parts.eeg).all()
    np.testing.assert_allclose(parts.eeg[0], whole.eeg[0], atol=2e-7)
    (mine,), (expected,) = parts.events, whole.events
    assert (mine.onset_s, mine.duration_s) == pytest.approx((expected.onset_s, expected.duration_s), abs=1e-3)


def test_a_sample_that_is_missing_between_segments(tmp_path):
    pytest.importorskip("mne")
    recording = read_recording(_vhdr(tmp_path / "a.vhdr", ((0.0, 8.0), (8.002, 10.0)), ((4000, 1, 1),)))
    assert np.flatnonzero(np.isnan(recording.eeg[0])).tolist() == [4000] and recording.rate_hz == 500.0
    assert recording.events[0].onset_s == pytest.approx(8.002)


UNDATED = r"3 segments\), and the New Segment marker of segment {}, from sample {} on, has no date.*Export each segment"


@pytest.mark.parametrize(
    "dates, told",
    [
        ((",20230405101112000000", ",20230405101130000000", ""), UNDATED.format(3, 9001)),
        ((",20230405101112000000", ",0", ""), UNDATED.format(2, 4001)),
        (("", ",20230405101130000000", ",20230405101230000000"), UNDATED.format(1, 1)),
        ((",20230405101112000000", f",{'0' * 20}", ",20230405101230000000"), UNDATED.format(2, 4001)),
        (
            (",20230405101112000000", ",20230405101130000000", ",20230405101139000000"),
            r"segment 3, from sample 9001 on, begins 1 s before the one before it ends",
        ),
        (
            (",20230405101112000000", ",20230404101130000000", ",20230405101230000000"),
            r"segment 2, from sample 4001 on, begins 86390 s before the one before it ends",
        ),
    ],
)
def test_segments_that_cannot_be_placed(tmp_path, dates, told):
    pytest.importorskip("mne")
    source = _vhdr(tmp_path / "a.vhdr", ((0.0, 8.0), (12.0, 10.0), (30.0, 5.0)), dates=dates)
    with pytest.raises(InputError, match=rf"reading .*a\.vhdr: .*{told}"):
        read_recording(source)


@pytest.mark.parametrize("dates", [("",), (",0",), (",20230405101112000000",)])
def test_one_segment_needs_no_date(tmp_path, dates):
    pytest.importorskip("mne")
    recording = read_recording(_vhdr(tmp_path / "a.vhdr", ((0.0, 8.0),), dates=dates))
    assert recording.eeg.shape[1] == 4000 and np.isfinite(recording.eeg).all()
    assert "segment" not in " ".join(recording.notes)


def _fif(path, annotations, *, dated=True, first=600, **saving):
    """20 s at 200 Hz; annotations are onset in s, duration and label."""
    mne = pytest.importorskip("mne")
    times = np.arange(4000) / 200
    info = mne.create_info(list(RATES), 200.0, ["eeg", "eeg", "emg"], verbose="error")
    raw = mne.io.RawArray(_ramp(times), info, first_samp=first, verbose="error")
    raw.set_meas_date(1577836800 if dated else None)
    raw.set_annotations(mne.Annotations(*zip(*annotations)), verbose="error")
    raw.save(path, overwrite=True, verbose="error", **saving)
    return RecordingSource(eeg=str(path), name="s")


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("buffer_s", [1.0, 8.0])
def test_skips_of_fif_are_gaps(tmp_path, dated, buffer_s):
    """With short buffers MNE leaves the skip out of the file, with long ones it stores the samples."""
    marks = ((5.0, 4.0, "BAD_ACQ_SKIP"), (12.5, 0.25, "BAD_ACQ_SKIP"), (8.5, 2.0, "grip"), (15.0, 1.0, "BAD_muscle"))
    recording = read_recording(_fif(tmp_path / "a_raw.fif", marks, dated=dated, buffer_size_sec=buffer_s))
    assert recording.rate_hz == 200.0 and recording.eeg.shape[1] == 4000
    times = np.arange(4000) / 200
    _tells_time(recording, times, (times >= 5) & (times < 9) | (times >= 12.5) & (times < 12.75))
    found = [(event.onset_s, event.duration_s, event.label) for event in recording.events]
    assert found == [(pytest.approx(8.5), pytest.approx(2.0), "grip"), (pytest.approx(15.0), 1.0, "BAD_muscle")]
    assert not recording.faults
    text = " ".join(recording.notes)
    assert "annotated as BAD_ACQ_SKIP was not recorded" in text
    assert "850 of 4000 samples are missing, in 2 gaps; they are nan" in text


def test_a_skip_at_the_beginning_moves_the_start(tmp_path):
    marks = ((0.0, 3.0, "BAD_ACQ_SKIP"), (8.5, 2.0, "grip"))
    recording = read_recording(_fif(tmp_path / "a_raw.fif", marks, buffer_size_sec=8.0))
    assert recording.seconds == pytest.approx(17.0, abs=0.01) and recording.events[0].onset_s == pytest.approx(5.5)
    np.testing.assert_allclose(recording.eeg[0] * 1e4, 3 + np.arange(3400) / 200, atol=1e-4)


def test_skips_of_a_split_fif_are_gaps_in_all_its_parts(tmp_path):
    mne = pytest.importorskip("mne")
    rng, info = np.random.default_rng(0), mne.create_info(40, 1000.0, ["eeg"] * 39 + ["emg"], verbose="error")
    raw = mne.io.RawArray(rng.normal(0, 1e-5, (40, 30000)), info, verbose="error")
    raw.set_annotations(mne.Annotations([5.0, 24.0], [2.0, 3.0], ["BAD_ACQ_SKIP"] * 2), verbose="error")
    raw.save(tmp_path / "a_raw.fif", split_size="3MB", buffer_size_sec=1.0, verbose="error")
    assert (tmp_path / "a_raw-1.fif").is_file()
    (signals,) = read_signals(tmp_path / "a_raw.fif")
    times = np.arange(30000) / 1000
    kept = ~((times >= 5) & (times < 7) | (times >= 24) & (times < 27))
    np.testing.assert_allclose(signals.stamps_s, times[kept], atol=1e-9)
    np.testing.assert_allclose(signals.values, raw.get_data()[:, kept], rtol=1e-6, atol=1e-12)


def test_nothing_but_skips(tmp_path):
    source = _fif(tmp_path / "a_raw.fif", ((0.0, 19.995, "BAD_ACQ_SKIP"),), buffer_size_sec=8.0)
    with pytest.raises(InputError, match=r"found 1 samples, so nothing was recorded"):
        read_recording(source)


def test_recordings_that_were_put_together_are_told(tmp_path):
    mne = pytest.importorskip("mne")
    info = mne.create_info(["C3", "C4", "FDI"], 200.0, ["eeg", "eeg", "emg"])
    waves = 1e-5 * np.random.default_rng(0).normal(size=(3, 3, 2000))
    whole = mne.concatenate_raws([mne.io.RawArray(each, info, verbose="error") for each in waves], verbose="error")
    whole.save(tmp_path / "a_raw.fif", verbose="error")
    (signals,) = read_signals(tmp_path / "a_raw.fif")
    assert signals.values.shape == (3, 6000) and signals.stamps_s is None
    (note,) = signals.notes
    assert note.startswith("a_raw.fif: 2 joins of recordings that were put together (EDGE boundary)")
    assert note in read_recording(RecordingSource(eeg=str(tmp_path / "a_raw.fif"))).notes


def test_windows_in_which_nothing_was_recorded_are_left_out(tmp_path):
    source = _fif(tmp_path / "a_raw.fif", ((4.0, 9.5, "BAD_ACQ_SKIP"),), buffer_size_sec=8.0)
    parts, notes = cut_recordings([source], (), 2.0)
    assert [part.start_s for part in parts] == [0, 2, 12, 14, 16, 18]
    assert notes == ("parts left out, since nothing was recorded in them: 4, the first: 4 to 6 s of s",)
    assert not any(read_recording(part).faults for part in parts)
    with pytest.raises(InputError, match=r"the 2\.000 s that are wanted lie in a gap"):
        read_recording(replace(source, start_s=10.0, stop_s=12.0))


def test_another_rate_than_that_of_an_interrupted_file_is_refused(tmp_path):
    source = _fif(tmp_path / "a_raw.fif", ((5.0, 4.0, "BAD_ACQ_SKIP"),), buffer_size_sec=8.0)
    assert read_recording(replace(source, eeg_rate_hz=200.0)).rate_hz == 200.0
    with pytest.raises(InputError, match=r"was interrupted.*has 200 Hz; 190 Hz would part them. Leave out `eeg_rate"):
        read_recording(replace(source, eeg_rate_hz=190.0))


def test_stimuli_of_brainvision_are_moments_at_which_recordings_are_cut(tmp_path):
    source = _vhdr(tmp_path / "a.vhdr", [(0.0, 12.0)], [(500, 1, 1), (3500, 1, 1)])
    events = read_recording(source).events
    assert {event.duration_s for event in events} == {0.0} and len(events) == 2
    parts, notes = cut_recordings([source], (events[0].label,), 4.0)
    assert [(part.start_s, part.stop_s) for part in parts] == [(1, 5), (7, 11)] and notes == ()


@pytest.mark.parametrize(
    ("one", "found"),
    [
        (b"+3\x151.5\x14grip\x14", [(2.0, 1.5, "grip")]),
        (b"+3\x15-1\x14grip\x14", [(2.0, 0.0, "grip")]),
        (b"+3\x15nan\x14grip\x14", [(2.0, 0.0, "grip")]),
        (b"inf\x14grip\x14", []),
    ],
)
def test_annotations_of_edf_that_are_no_times(one, found):
    events = recording_edf_times._events(one, 1.0)
    assert [(event.onset_s, event.duration_s, event.label) for event in events] == found
