"""Cleaning of recordings: faulty channels, gaps, filters, reference, artefact components, and the rank that is left.

The order is: channels that cannot be used are set aside; the longest stretch without gaps is kept; EEG and EMG are
filtered without phase shift; EEG is referenced (if asked), artefact components are taken out of it, and channels that
were set aside are interpolated (if asked). Each of the last three lowers the rank of the EEG, which is counted and
compared with the numerical rank of what comes out, because an autoregression over all channels is singular without it.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from .artefact_rules import ArtefactRules, Removed, artefact_components
from .cleaning_config import CleaningConfig
from .components import independent_components, numerical_rank
from .electrodes import EOG, FRONTAL, electrode, interpolation_matrix
from .recording import Recording
from .signal_filters import decimated, filter_sections, power_gain, zero_phase
from .usable_samples import longest_stretch, sample_faults

__all__ = ["ArtefactRules", "Cleaned", "CleaningConfig", "Removed", "clean", "emg_power_gain"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cleaned:
    """A cleaned recording.

    Attributes
    ----------
    recording : Recording
        What was done stands in its notes, channels that were found faulty in its faults.
    eeg_rank, emg_rank : int
        Dimensions that the EEG and the EMG really have.
    removed : tuple of Removed
        Components that were taken out of the EEG.
    """

    recording: Recording
    eeg_rank: int
    emg_rank: int
    removed: tuple[Removed, ...]


def clean(recording: Recording, config: CleaningConfig | None = None) -> Cleaned:
    """Clean one recording.

    Parameters
    ----------
    recording : Recording
        Faulty channels may be listed in it; flat, constant-valued and mostly missing ones are found here as well.
    config : CleaningConfig, optional

    Returns
    -------
    Cleaned

    Raises
    ------
    InputError
        Where too little is left: fewer than two usable channels, no stretch without gaps that is long enough, fewer
        samples than a filter rings; where a filter's edge is not below the Nyquist frequency, or a faulty channel
        cannot be interpolated.

    Examples
    --------
    >>> from motorsweep.sim.planted_recordings import PlantedConfig, planted_recording
    >>> cleaned = clean(planted_recording(PlantedConfig(seconds=20), seed=1, index=0).recording)
    >>> cleaned.recording.eeg.shape, cleaned.eeg_rank, [component.rule for component in cleaned.removed]
    ((19, 20000), 18, ['eye'])
    """
    config, doing = config or CleaningConfig(), f"cleaning {recording.name!r}"
    _check_shape(recording, doing)
    faults = recording.faults + sample_faults(recording)
    usable = {kind: _usable(recording, kind, faults, config, doing) for kind in ("eeg", "emg")}
    kept, notes = longest_stretch(recording, usable, config.gaps, config.shortest_s, doing)
    emg = _clean_emg(recording.emg[usable["emg"], kept], recording.rate_hz, config, doing)
    eeg, removed, rank, more = _clean_eeg(recording, usable["eeg"], kept, config, doing)
    names, eeg, interpolated = _with_faulty_channels(recording, usable["eeg"], eeg, config)
    dropped = [n for kind in ("eeg", "emg") for n, ok in zip(_names(recording, kind), usable[kind]) if not ok]
    dropped = [name for name in dropped if name not in interpolated and not EOG.search(name)]
    notes += more + _told(interpolated, "interpolated") + _told(dropped, "left out")
    answer = replace(
        recording,
        eeg=eeg,
        emg=emg,
        eeg_names=names,
        emg_names=tuple(name for name, ok in zip(recording.emg_names, usable["emg"]) if ok),
        events=_shifted(recording, kept),
        faults=faults,
        notes=(*recording.notes, *notes),
    )
    return Cleaned(recording=answer, eeg_rank=rank, emg_rank=numerical_rank(emg), removed=tuple(removed))


def emg_power_gain(config: CleaningConfig, rate_hz: float):
    """What `clean` does to the power of raw EMG: a function of frequencies in Hz.

    With it `PlantedRecording.expected_granger` tells what is to be found in cleaned EMG.
    """
    sections = _sections(config.emg_band_hz, rate_hz, config, "EMG")
    return lambda frequencies_hz: power_gain(sections, rate_hz, frequencies_hz)


def _shifted(recording, kept):
    """Events of the stretch that was kept, counted from its start."""
    first_s, last_s = kept.start / recording.rate_hz, kept.stop / recording.rate_hz
    inside = (event for event in recording.events if first_s <= event.onset_s < last_s)
    return tuple(replace(event, onset_s=event.onset_s - first_s) for event in inside)


def _names(recording, kind):
    return recording.eeg_names if kind == "eeg" else recording.emg_names


def _told(channels, what):
    return (f"faulty channels {what}: {', '.join(channels)}",) if channels else ()


def _check_shape(recording, doing):
    for kind in ("eeg", "emg"):
        signal, names = getattr(recording, kind), _names(recording, kind)
        if np.ndim(signal) != 2 or len(signal) != len(names) or signal.shape[1] != recording.eeg.shape[1]:
            raise InputError(
                f"{doing}: {kind.upper()} of shape {np.shape(signal)} with {len(names)} names beside EEG of shape "
                f"{np.shape(recording.eeg)}; rows are channels, and both have the same samples. Align and "
                "name them first."
            )
    names = (*recording.eeg_names, *recording.emg_names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"{doing}: two channels are called {twice!r}, and faults are told by name, so which of them is faulty "
            "would not be known. Name channels apart."
        )
    if not recording.rate_hz > 0 or not recording.eeg.shape[1]:
        raise InputError(
            f"{doing}: {recording.eeg.shape[1]} samples at {recording.rate_hz} a second; filters need samples and a "
            "positive rate. Look at how the recording was read."
        )


def _usable(recording, kind, faults, config, doing) -> np.ndarray:
    """Which channels of a kind are free of faults (n,) bool; EOG channels are not EEG."""
    names, faulty = _names(recording, kind), {fault.channel: fault for fault in faults}
    usable = np.array([name not in faulty and not (kind == "eeg" and EOG.search(name)) for name in names], dtype=bool)
    if kind == "emg" and config.faulty == "interpolate" and not usable.all():
        told = ", ".join(f"{name} ({faulty[name].fault}: {faulty[name].found})" for name in names if name in faulty)
        raise InputError(
            f"{doing}: EMG channels {told}; a muscle cannot be interpolated from others. Leave such channels out "
            "(`drop_channels`), or leave the recording out."
        )
    if usable.sum() < 2:
        told = "; ".join(f"{name} {faulty[name].fault}" for name in names if name in faulty)
        raise InputError(
            f"{doing}: {usable.sum()} of {len(names)} {kind.upper()} channels can be used "
            f"({told or 'no more are there'}), and connectivity needs two. Leave the recording out, or look at "
            "how it was read."
        )
    return usable


def _sections(band_hz, rate_hz, config, doing):
    return filter_sections(
        band_hz, rate_hz, notch_hz=config.notch_hz, notch_width_hz=config.notch_width_hz, doing=f"{doing}: filtering"
    )


def _clean_emg(emg, rate_hz, config, doing):
    doing = f"{doing}, EMG"
    emg = zero_phase(emg, _sections(config.emg_band_hz, rate_hz, config, doing), rate_hz, doing=doing)
    if config.emg == "raw":
        return emg
    emg = np.abs(emg)
    if config.emg == "envelope":
        low_pass = filter_sections((0, config.envelope_hz), rate_hz, doing=f"{doing}: envelope")
        emg = zero_phase(emg, low_pass, rate_hz, doing=doing)
    return emg - emg.mean(axis=1, keepdims=True)


def _clean_eeg(recording, usable, kept, config, doing):
    """Filtered EEG of the usable channels without artefacts, the removed components, its rank, and notes."""
    doing, rate_hz = f"{doing}, EEG", recording.rate_hz
    recorded = recording.eeg[usable, kept]
    eeg = zero_phase(recorded, _sections(config.band_hz, rate_hz, config, doing), rate_hz, doing=doing)
    expected, spread, removed, notes = len(eeg), eeg.std(axis=1), [], ()
    if config.reference == "average":
        recorded, eeg, expected = recorded - recorded.mean(axis=0), eeg - eeg.mean(axis=0), expected - 1
    if config.ica:
        names = tuple(name for name, ok in zip(recording.eeg_names, usable) if ok)
        eog = [row[kept] for name, row in zip(recording.eeg_names, recording.eeg) if EOG.search(name)]
        eog = [row for row in eog if np.isfinite(row).all() and np.ptp(row) > 0]
        components, named = _artefacts(recorded, eog, names, rate_hz, config, doing)
        removed = named[: config.most_removed]
        out, settled = components.without([component.component for component in removed])
        eeg = out @ eeg
        unsure = [component for component, calm in zip(removed, settled, strict=True) if not calm]
        notes = _component_notes(components, named, removed, unsure, names, eog)
    rank = numerical_rank(eeg, spread)
    return eeg, removed, rank, notes + _rank_notes(rank, expected - len(removed), doing)


def _artefacts(recorded, eog, names, rate_hz, config, doing):
    """Components of the EEG at a lower rate (its whole band above 1 Hz, so that muscles show), and the artefacts."""
    step = max(1, int(rate_hz / config.ica_rate_hz))
    slower = rate_hz / step
    low = max(config.band_hz[0], 1.0)
    notch = config.notch_hz if config.notch_hz < slower / 2 else 0.0
    sections = filter_sections((low, 0), slower, notch_hz=notch, notch_width_hz=config.notch_width_hz, doing=doing)

    def prepared(signal):
        return zero_phase(decimated(signal, step), sections, slower, doing=doing)

    components = independent_components(prepared(recorded), slower, seed=config.seed, iterations=config.ica_iterations)
    mains = (config.notch_hz,) if config.notch_hz else (50.0, 60.0)
    seen = prepared(np.stack(eog)) if eog else None
    return components, artefact_components(components, names, config.rules, line_hz=mains, eog=seen)


def _component_notes(components, named, removed, unsure, names, eog):
    notes = []
    loose = len(components.settled) - int(components.settled.sum())
    if loose:
        told = f"; removed component {', '.join(str(one.component) for one in unsure)} has no direction of its own"
        calm = "; those removed settled alone" if removed else ""
        notes.append(
            f"ICA did not converge: {loose} of {len(components.settled)} components still turned after "
            f"{components.iterations} iterations" + (told if unsure else calm)
        )
    if len(named) > len(removed):
        notes.append(f"{len(named)} components look like artefacts, {len(removed)} were removed (most_removed)")
    if not eog and not any(electrode(name) in FRONTAL for name in names):
        notes.append(
            "no eye component was looked for: no channel has a frontal name of the 10-20 system, and no EOG is there"
        )
    return tuple(notes)


def _with_faulty_channels(recording, usable, eeg, config):
    """Names, EEG and the names of the interpolated channels, with faulty ones in their places where that is asked."""
    names = tuple(name for name, ok in zip(recording.eeg_names, usable) if ok)
    wanted = tuple(name for name in recording.eeg_names if not EOG.search(name))
    missing = tuple(name for name in wanted if name not in names)
    if not missing or config.faulty == "drop":
        return names, eeg, ()
    rows = dict(zip((*names, *missing), (*eeg, *(interpolation_matrix(names, missing) @ eeg))))
    return wanted, np.stack([rows[name] for name in wanted]), missing


def _rank_notes(rank, expected, doing):
    """A note where the EEG's rank is not the one that the steps lead to."""
    if rank < 1:
        raise InputError(
            f"{doing}: nothing is left of it, all was filtered out or taken for artefacts. Widen the band or remove "
            "fewer components."
        )
    if rank == expected:
        return ()
    return (f"the EEG has rank {rank} where its channels, reference and components give {expected}",)
