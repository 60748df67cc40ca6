"""Cleaning: filters against their closed-form gain, planted artefacts taken out, rank counted, bad input refused."""

from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.artefact_rules import ArtefactRules
from motorsweep.sim.cleaning import CleaningConfig, clean, emg_power_gain
from motorsweep.sim.components import numerical_rank
from motorsweep.sim.planted_recordings import PlantedConfig, planted_recording
from motorsweep.sim.recording import ChannelFault, Event
from motorsweep.sim.signal_filters import filter_sections, power_gain, settling, zero_phase
from scipy.signal import freqz, iirnotch

RATE_HZ = 500.0
CONFIG = PlantedConfig(seconds=30, rate_hz=RATE_HZ, blinks_per_min=20)
PLAIN = CleaningConfig(ica=False)


@pytest.fixture(scope="module")
def planted():
    return planted_recording(CONFIG, seed=2, index=1)


@pytest.fixture(scope="module")
def cleaned(planted):
    return clean(planted.recording)


@pytest.fixture
def recording(planted):
    """One that a test may spoil."""
    return replace(planted.recording, eeg=planted.recording.eeg.copy(), emg=planted.recording.emg.copy())


def gain_of_waves(sections, hertz, rate_hz=RATE_HZ):
    """Amplitude and phase that filtering gives to long waves, away from their ends."""
    seconds = np.arange(20_000) / rate_hz
    inside = slice(8000, 12_000)
    filtered = zero_phase(np.cos(2 * np.pi * np.outer(hertz, seconds)), sections, rate_hz)[:, inside]
    turn = np.exp(-2j * np.pi * np.outer(hertz, seconds[inside]))
    return 2 * (filtered * turn).mean(axis=1)


@pytest.mark.parametrize("band", [(1, 45), (20, 0), (0, 40), (8, 12)])
def test_gain_is_the_square_of_the_single_pass(band):
    hertz = np.array([2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 45.0, 80.0, 150.0])
    low, high, warped = (np.tan(np.pi * np.asarray(f) / RATE_HZ) for f in (*band, hertz))
    if low and high:
        ratio = (warped**2 - low * high) / (warped * (high - low))
    else:
        ratio = warped / high if high else low / warped
    wanted = 1 / (1 + ratio**8)
    sections = filter_sections(band, RATE_HZ)
    found = gain_of_waves(sections, hertz)
    assert np.abs(found - wanted).max() < 2e-4  # complex: no phase either
    assert power_gain(sections, RATE_HZ, hertz) == pytest.approx(wanted**2, abs=1e-6)


def test_edges_are_halved_and_notches_are_deep():
    sections = filter_sections((20, 0), RATE_HZ, notch_hz=50, notch_width_hz=2)
    hertz = np.array([20.0, 50.0, 100.0, 200.0, 75.0])
    found = np.abs(gain_of_waves(sections, hertz))
    assert found[0] == pytest.approx(0.5, abs=0.005)
    assert (found[1:4] < 1e-3).all() and found[4] == pytest.approx(1, abs=0.02)
    numerator, denominator = iirnotch(50, 25, fs=RATE_HZ)
    beside = np.abs(freqz(numerator, denominator, worN=[51.0], fs=RATE_HZ)[1]) ** 2
    assert np.abs(gain_of_waves(filter_sections((0, 0), RATE_HZ, notch_hz=50), [51.0])) == pytest.approx(
        beside, abs=1e-3
    )


def test_harmonics_are_notched_where_the_band_is():
    assert len(filter_sections((1, 45), 1000.0, notch_hz=50)) == 4 + 1
    assert len(filter_sections((20, 0), 1000.0, notch_hz=50)) == 2 + 9
    assert len(filter_sections((20, 200), 1000.0, notch_hz=60)) == 4 + 5
    assert len(filter_sections((0, 0), 1000.0)) == 0


def test_no_phase_shift_of_a_pulse():
    pulse = np.zeros(4001)
    pulse[2000] = 1
    answer = zero_phase(pulse, filter_sections((5, 60), RATE_HZ, notch_hz=50), RATE_HZ)
    assert np.abs(answer - answer[::-1]).max() < 1e-7 and answer.argmax() == 2000


def test_filtering_is_linear_and_leaves_its_input_alone():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 3000))
    kept, sections = one.copy(), filter_sections((1, 45), RATE_HZ)
    both = zero_phase(2 * one - other, sections, RATE_HZ)
    apart = 2 * zero_phase(one, sections, RATE_HZ) - zero_phase(other, sections, RATE_HZ)
    assert np.abs(both - apart).max() < 1e-9 and np.array_equal(one, kept)
    open_band = zero_phase(one, filter_sections((0, 0), RATE_HZ), RATE_HZ)
    assert np.array_equal(open_band, one) and open_band is not one


@pytest.mark.parametrize(
    "band, notch, message",
    [
        ((1, 250), 0, r"upper edge of 250 Hz is not below the Nyquist frequency of 250 Hz.*0 for no upper edge"),
        ((300, 0), 0, r"lower edge of 300 Hz is not below the Nyquist"),
        ((1, 45), 250, r"notch of 250 Hz is not below the Nyquist.*0 for no notch"),
        ((45, 1), 0, r"45 to 1 Hz is not a band"),
        ((-1, 45), 0, r"-1 to 45 Hz is not a band"),
        ((np.nan, 45), 0, r"nan to 45 Hz is not a band"),
        ((1, 45), -50, r"notch of 2 Hz width at -50 Hz means nothing"),
        ((1, 45), np.nan, r"notch of 2 Hz width at nan Hz means nothing"),
    ],
)
def test_filters_that_cannot_be(band, notch, message):
    with pytest.raises(InputError, match=message):
        filter_sections(band, RATE_HZ, notch_hz=notch)


def test_notches_of_no_width():
    for width in (0.0, np.nan):
        with pytest.raises(InputError, match=f"notch of {width:g} Hz width at 50 Hz means nothing"):
            filter_sections((1, 45), RATE_HZ, notch_hz=50, notch_width_hz=width)


def test_signals_shorter_than_the_filter_rings():
    sections = filter_sections((1, 45), RATE_HZ)
    edge = settling(sections)
    assert 0.5 * RATE_HZ < edge < 3 * RATE_HZ
    with pytest.raises(InputError, match=rf"rehearsal: the signal has {edge} samples .* rings for {edge}"):
        zero_phase(np.zeros(edge), sections, RATE_HZ, doing="rehearsal")
    assert zero_phase(np.zeros(edge + 1), sections, RATE_HZ).shape == (edge + 1,)


def test_blinks_are_taken_out_and_the_rest_is_kept(planted, cleaned):
    """Against the same record without blinks, filtered alone."""
    unblinking = clean(planted_recording(replace(CONFIG, blink_uv=0), 2, 1).recording, PLAIN).recording.eeg
    blinking = clean(planted.recording, PLAIN).recording.eeg
    (blinks,) = (artefact for artefact in planted.artefacts if artefact.name == "blinks")
    assert [one.rule for one in cleaned.removed] == ["eye"]

    course = zero_phase(blinks.course, filter_sections((1, 45), RATE_HZ, notch_hz=50), RATE_HZ)

    def seen(eeg):
        return np.abs([np.corrcoef(row, course)[0, 1] for row in eeg])

    assert seen(blinking)[:2].min() > 0.5 and seen(cleaned.recording.eeg).max() < 0.1
    error = ((cleaned.recording.eeg - unblinking) ** 2).mean(axis=1)
    height = np.abs([eeg @ course / (course @ course) for eeg in (blinking, cleaned.recording.eeg)]).max(axis=1)
    assert height[0] > 80e-6 and height[1] < 0.15 * height[0]
    behind = [cleaned.recording.eeg_names.index(name) for name in ("P3", "Pz", "P4", "O1", "O2", "T5", "T6")]
    assert (error[behind] < 0.02 * (unblinking[behind] ** 2).mean(axis=1)).all()


def test_artefacts_of_every_kind_are_named():
    config = replace(CONFIG, jaw_uv=60, pop_uv=300)
    rules = [one.rule for one in clean(planted_recording(config, 3, 0).recording).removed]
    assert sorted(rules) == ["eye", "muscle", "single channel"]


def test_emg_is_not_touched_by_components(planted, cleaned):
    assert np.array_equal(cleaned.recording.emg, clean(planted.recording, PLAIN).recording.emg)


def test_rank_is_counted(recording):
    assert clean(recording, PLAIN).eeg_rank == 19 and clean(recording).eeg_rank == 18
    assert clean(recording, replace(PLAIN, reference="average")).eeg_rank == 18
    assert clean(recording, CleaningConfig(reference="average")).eeg_rank == 17
    recording.eeg[4] = 0.0
    for config, channels, rank in (
        (PLAIN, 19, 18),
        (CleaningConfig(), 19, 17),
        (CleaningConfig(reference="average"), 19, 16),
        (CleaningConfig(faulty="drop"), 18, 17),
        (CleaningConfig(faulty="drop", reference="average"), 18, 16),
    ):
        answer = clean(recording, config)
        assert answer.recording.eeg.shape[0] == channels and answer.eeg_rank == rank
        assert answer.eeg_rank == np.linalg.matrix_rank(
            answer.recording.eeg, tol=1e-9 * np.abs(answer.recording.eeg).max()
        )
        assert answer.emg_rank == 6 and not any("has rank" in note for note in answer.recording.notes)


def test_rank_that_the_recording_lacks_is_told(recording):
    recording = replace(recording, eeg=recording.eeg - recording.eeg.mean(axis=0))
    answer = clean(recording, PLAIN)
    assert answer.eeg_rank == 18
    assert "the EEG has rank 18 where its channels, reference and components give 19" in answer.recording.notes


def test_average_reference_is_over_usable_channels(recording):
    recording.eeg[4] = 0.0
    answer = clean(recording, replace(PLAIN, reference="average")).recording
    usable = np.delete(answer.eeg, 4, axis=0)
    assert np.abs(usable.mean(axis=0)).max() < 1e-15


def test_interpolated_channel_is_made_of_its_neighbours(recording):
    smooth = np.linspace(-1, 1, recording.eeg.shape[1]) + np.sin(np.arange(recording.eeg.shape[1]) / 20)
    spoilt = replace(recording, eeg=np.tile(smooth * 1e-5, (19, 1)))
    spoilt.eeg[8] = np.nan
    answer = clean(spoilt, PLAIN)
    assert np.abs(answer.recording.eeg[8] - answer.recording.eeg[0]).max() < 1e-12
    assert answer.eeg_rank == 1
    assert (
        ChannelFault(channel="C3", fault="not finite", found="0 % of its samples are finite") in answer.recording.faults
    )
    assert "faulty channels interpolated: C3" in answer.recording.notes


def test_listed_faults_are_believed(recording):
    fault = ChannelFault(channel="O1", fault="saturated", found="12 % of samples at 187.5 mV")
    answer = clean(replace(recording, faults=(fault,)), replace(PLAIN, faulty="drop"))
    assert "O1" not in answer.recording.eeg_names and answer.recording.eeg.shape[0] == 18
    assert answer.recording.faults == (fault,) and "faulty channels left out: O1" in answer.recording.notes


def test_faulty_muscles_are_refused_or_left_out(recording):
    recording.emg[2] = 1e-3
    with pytest.raises(InputError, match=r"EMG channels PMJ \(flat: 0.001 V throughout\); a muscle cannot be interpol"):
        clean(recording, PLAIN)
    answer = clean(recording, replace(PLAIN, faulty="drop"))
    assert answer.recording.emg_names == ("BSH", "TRIO", "DEL", "TRIL", "TRIA") and answer.emg_rank == 5


def test_unnamed_faulty_channels_cannot_be_interpolated(recording):
    recording.eeg[3] = 0.0
    names = tuple(f"ch{n + 1}" for n in range(19))
    with pytest.raises(InputError, match=r"interpolating ch4 .*not names of the 10-20 system"):
        clean(replace(recording, eeg_names=names), PLAIN)
    answer = clean(replace(recording, eeg_names=names), CleaningConfig(faulty="drop"))
    assert answer.recording.eeg.shape[0] == 18
    assert any("no eye component was looked for" in note for note in answer.recording.notes)


def test_all_channels_bad(planted, recording):
    recording.eeg[1:] = 0.0
    with pytest.raises(InputError, match=r"1 of 19 EEG channels can be used \(Fp2 flat; .*connectivity needs two"):
        clean(recording, replace(PLAIN, faulty="drop"))
    recording.eeg[:] = np.nan
    with pytest.raises(InputError, match=r"0 of 19 EEG channels can be used \(Fp1 not finite"):
        clean(recording)
    with pytest.raises(InputError, match="0 of 6 EMG channels can be used"):
        clean(replace(planted.recording, emg=recording.emg * 0), replace(PLAIN, faulty="drop", ica=False))


def test_gaps_are_cut_out_or_refused(planted, recording):
    recording.eeg[3, 2000:2100], recording.emg[1, 12_000] = np.nan, np.inf
    answer = clean(replace(recording, events=(Event(onset_s=5.0, duration_s=1.0, label="go"),)), PLAIN).recording
    assert answer.eeg.shape == (19, 12_000 - 2100) and answer.emg.shape[1] == 12_000 - 2100
    assert np.isfinite(answer.eeg).all() and [event.label for event in answer.events] == ["go"]
    assert answer.events[0].onset_s == pytest.approx(0.8) and answer.events[0].duration_s == 1.0
    assert any(note == "0.202 of 30 s have gaps; 19.8 s from 4.2 s on were kept" for note in answer.notes)
    same = clean(
        replace(recording, eeg=planted.recording.eeg[:, 2100:12_000], emg=planted.recording.emg[:, 2100:12_000]), PLAIN
    )
    assert np.array_equal(same.recording.eeg, answer.eeg)
    with pytest.raises(InputError, match=r"0.202 of 30 s have missing samples \(NaN\).*gaps = \"longest\""):
        clean(recording, replace(PLAIN, gaps="refuse"))
    with pytest.raises(InputError, match=r"longest stretch without missing samples is 19.8 of 30 s.*shortest_s = 25"):
        clean(recording, replace(PLAIN, shortest_s=25.0))


def test_too_short_a_recording(recording):
    short = replace(recording, eeg=recording.eeg[:, :400], emg=recording.emg[:, :400])
    with pytest.raises(InputError, match=r"longest stretch .* is 0.8 of 0.8 s"):
        clean(short, PLAIN)
    with pytest.raises(InputError, match=r"EEG: the signal has 400 samples .* the filter rings"):
        clean(short, replace(PLAIN, shortest_s=0.0))


def test_bands_beyond_what_was_sampled(recording):
    with pytest.raises(InputError, match=r"'s01-001-activity', EMG: filtering: the upper edge of 400 Hz is not below"):
        clean(recording, replace(PLAIN, emg_band_hz=(20, 400)))
    with pytest.raises(InputError, match=r"notch of 60 Hz is not below the Nyquist frequency of 50 Hz"):
        clean(replace(recording, rate_hz=100.0), replace(PLAIN, notch_hz=60.0))


def test_arrays_that_do_not_fit(recording):
    with pytest.raises(InputError, match=r"EEG of shape \(18, 15000\) with 19 names"):
        clean(replace(recording, eeg=recording.eeg[:18]))
    with pytest.raises(InputError, match=r"EMG of shape \(6, 14999\)"):
        clean(replace(recording, emg=recording.emg[:, 1:]))
    with pytest.raises(InputError, match=r"EMG of shape \(15000,\)"):
        clean(replace(recording, emg=recording.emg[0]))
    with pytest.raises(InputError, match="two channels are called 'Cz', and faults are told by name"):
        clean(replace(recording, emg_names=("Cz", *recording.emg_names[1:])))
    with pytest.raises(InputError, match="0 samples at 500"):
        clean(replace(recording, eeg=recording.eeg[:, :0], emg=recording.emg[:, :0]))
    with pytest.raises(InputError, match="samples at nan a second"):
        clean(replace(recording, rate_hz=float("nan")))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"emg": "squared"}, r"emg = 'squared' is not known.*raw, rectified, envelope"),
        ({"faulty": "keep"}, r"faulty = 'keep' is not known.*interpolate, drop"),
        ({"reference": "Cz"}, r"reference = 'Cz' is not known"),
        ({"gaps": "fill"}, r"gaps = 'fill' is not known"),
        ({"ica_rate_hz": 10.0}, r"ica_rate_hz = 10.0 means nothing"),
        ({"most_removed": -1}, r"most_removed = -1 means nothing"),
        ({"envelope_hz": 0.0}, r"envelope_hz = 0.0 leaves no low-pass"),
    ],
)
def test_configurations_that_mean_nothing(change, message):
    with pytest.raises(InputError, match=message):
        CleaningConfig(**change)


def test_rectified_and_envelope(recording):
    raw = clean(recording, PLAIN).recording.emg
    rectified = clean(recording, replace(PLAIN, emg="rectified")).recording.emg
    assert np.abs(rectified - np.abs(raw) + np.abs(raw).mean(axis=1, keepdims=True)).max() < 1e-15
    loud = recording.emg * (1 + 0.9 * np.sin(2 * np.pi * 1.5 * np.arange(recording.emg.shape[1]) / RATE_HZ))
    envelope = clean(replace(recording, emg=loud), replace(PLAIN, emg="envelope", envelope_hz=4.0)).recording.emg
    wave = np.sin(2 * np.pi * 1.5 * np.arange(envelope.shape[1]) / RATE_HZ)
    assert np.corrcoef(np.vstack([envelope, wave]))[-1, :-1].min() > 0.9
    assert np.abs(envelope.mean(axis=1)).max() < 1e-9


def test_power_gain_of_emg_is_that_of_cleaning(recording):
    hertz = np.array([30.0, 60.0, 120.0])
    seconds = np.arange(recording.emg.shape[1]) / RATE_HZ
    waves = np.repeat(np.sin(2 * np.pi * np.outer(hertz, seconds)), 2, axis=0)
    config = replace(PLAIN, emg_band_hz=(35, 0), notch_hz=60.0)
    answer = clean(replace(recording, emg=waves), config).recording.emg[::2, 3000:-3000]
    wanted = emg_power_gain(config, RATE_HZ)(hertz)
    assert (answer**2).mean(axis=1) * 2 == pytest.approx(wanted, abs=2e-3)


def test_cleaning_repeats_itself(planted, cleaned):
    again = clean(planted.recording)
    assert np.array_equal(again.recording.eeg, cleaned.recording.eeg) and again.removed == cleaned.removed


def test_offsets_and_units_change_no_verdict(planted, cleaned):
    shifted = replace(planted.recording, eeg=planted.recording.eeg + 0.1 * np.linspace(-1, 1, 19)[:, None])
    answer = clean(shifted)
    assert [one.rule for one in answer.removed] == [one.rule for one in cleaned.removed]
    scale = np.abs(cleaned.recording.eeg).max()
    assert np.abs(answer.recording.eeg - cleaned.recording.eeg)[:, 3000:-3000].max() < 0.05 * scale


def test_no_more_components_than_asked_for(planted, cleaned):
    answer = clean(planted.recording, CleaningConfig(most_removed=0))
    assert answer.removed == () and answer.eeg_rank == 19
    assert "1 components look like artefacts, 0 were removed (most_removed)" in answer.recording.notes
    greedy = CleaningConfig(rules=ArtefactRules(muscle_slope=-9, muscle_fast=0), most_removed=19)
    with pytest.raises(InputError, match="EEG: nothing is left of it"):
        clean(planted.recording, greedy)


def test_ica_that_does_not_converge_is_told(planted):
    notes = clean(planted.recording, CleaningConfig(ica_iterations=2)).recording.notes
    assert [note for note in notes if "after 2 iterations; those removed settled alone" in note]


def test_a_removed_component_without_a_direction_of_its_own_is_told(planted):
    rules = ArtefactRules(muscle_slope=-9, muscle_fast=0)  # Gaussian ones count as muscles
    answer = clean(planted.recording, CleaningConfig(ica_iterations=2, rules=rules, most_removed=4))
    assert len(answer.removed) == 4
    (told,) = [note for note in answer.recording.notes if "ICA did not converge" in note]
    assert "removed component" in told and told.endswith("has no direction of its own")


def test_eog_channel_serves_the_eye_rule_and_is_not_eeg(planted):
    (blinks,) = (artefact for artefact in planted.artefacts if artefact.name == "blinks")
    eog = 3e-4 * blinks.course + 1e-5 * np.random.default_rng(0).normal(size=len(blinks.course))
    names = (*(f"ch{n}" for n in range(19)), "VEOG")
    answer = clean(replace(planted.recording, eeg=np.vstack([planted.recording.eeg, eog]), eeg_names=names))
    assert answer.recording.eeg_names == names[:19] and answer.eeg_rank == 18
    assert [one.rule for one in answer.removed] == ["eye"] and "EOG" in answer.removed[0].found


def test_rank_of_filtered_signals_is_not_lost_to_the_filter(planted):
    narrow = clean(planted.recording, replace(PLAIN, band_hz=(8, 12))).recording.eeg
    assert numerical_rank(narrow) == 19
