"""What planted records show beside brain and muscles: mains hum, blinks, heartbeats, jaw muscles, electrode pops."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from .electrodes import TEN_TWENTY, position
from .planted_population import PlantedConfig
from .planted_system import muscle_power, resonator


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedArtefact:
    """One artefact: the record holds ``weight_v[:, None] * course``.

    Attributes
    ----------
    name : str
        "line", "blinks", "heartbeat", "jaw" or "pops".
    course : ndarray (samples,)
        Its course, of peak about 1.
    weight_v : ndarray (n_eeg + n_emg,)
        Volts on each channel.
    """

    name: str
    course: np.ndarray
    weight_v: np.ndarray


def artefacts(config: PlantedConfig, samples: int, rng: np.random.Generator) -> tuple[PlantedArtefact, ...]:
    """The artefacts of one record; those of height 0, and a hum at or above the Nyquist frequency, are left out."""
    seconds = np.arange(samples) / config.rate_hz
    eeg = np.stack([position(name) for name in TEN_TWENTY[: config.n_eeg]])
    side = position("T3") if rng.random() < 0.5 else position("T4")
    drawn = (
        ("line", config.line_uv * (config.line_hz > 0), _line(config, seconds, rng), None),
        ("blinks", config.blink_uv, _blinks(config, seconds, rng), _patch(eeg, position("Fpz"), 0.65)),
        ("heartbeat", config.heartbeat_uv, _heartbeat(seconds, rng), 0.6 + 0.4 * eeg[:, 0] - 0.3 * eeg[:, 2]),
        ("jaw", config.jaw_uv, _jaw(seconds, rng), _patch(eeg, side, 0.45)),
        ("pops", config.pop_uv, _pops(seconds, rng), np.eye(config.n_eeg)[rng.integers(config.n_eeg)]),
    )
    hum = np.exp(0.5 * rng.normal(size=config.n_eeg + config.n_emg))
    return tuple(
        PlantedArtefact(
            name=name,
            course=course,
            weight_v=1e-6 * height * (hum if weight is None else np.r_[weight, np.zeros(config.n_emg)]),
        )
        for name, height, course, weight in drawn
        if height > 0 and course.any()
    )


def _patch(places, centre, width):
    return np.exp(-((np.arccos(np.clip(places @ centre, -1, 1)) / width) ** 2))


def _line(config, seconds, rng):
    hertz, phase = config.line_hz * (1 + rng.normal(0, 2e-4)), rng.uniform(0, 2 * np.pi, 3)
    course = np.zeros(len(seconds))
    for k, share in ((1, 1), (2, 0.2), (3, 0.3)):
        if k * hertz < config.rate_hz / 2:
            course += share * np.sin(2 * np.pi * k * hertz * seconds + phase[k - 1])
    return course


def _shapes(seconds, onsets, heights, length_s, shape):
    """Sum of heights × shape(time since onset), each `length_s` long."""
    course = np.zeros(len(seconds))
    for onset, height in zip(onsets, heights):
        first, last = np.searchsorted(seconds, (onset, onset + length_s))
        course[first:last] += height * shape(seconds[first:last] - onset)
    return course


def _blinks(config, seconds, rng):
    """Blinks of 0.3 s at random times, at least 0.5 s apart: up within 0.1 s, down more slowly."""
    gap = 60 / max(config.blinks_per_min, 1e-9)
    onsets = np.cumsum(0.5 + rng.exponential(max(gap - 0.5, 0.01), int(2 * seconds[-1] / gap) + 10))
    onsets = onsets[onsets < seconds[-1]]
    return _shapes(
        seconds, onsets, 1 + 0.2 * rng.normal(size=len(onsets)), 0.6, lambda t: (t / 0.1) ** 2 * np.exp(2 - t / 0.05)
    )


def _heartbeat(seconds, rng):
    onsets = np.cumsum(rng.normal(0.85, 0.04, int(seconds[-1] / 0.7) + 2))
    return _shapes(
        seconds, onsets[onsets < seconds[-1]], np.ones(len(onsets)), 0.1, lambda t: np.exp(-(((t - 0.05) / 0.01) ** 2))
    )


def _jaw(seconds, rng):
    """Bursts of 1 to 3 s of noise with the spectrum of an EMG."""
    onsets = np.cumsum(rng.exponential(6.0, int(seconds[-1] / 3) + 5))
    length = rng.uniform(1, 3, len(onsets))
    active = sum((seconds >= on) & (seconds < on + for_s) for on, for_s in zip(onsets, length)) > 0
    rate_hz = 1 / (seconds[1] - seconds[0])
    noise = lfilter([1.0], resonator(muscle_power(35.0, 90.0), rate_hz, 0.01), rng.normal(size=len(seconds)))
    return active * noise / noise.std()


def _pops(seconds, rng):
    """Steps that decay within 0.3 s, four a minute."""
    count = max(1, round(seconds[-1] / 15))
    onsets = rng.uniform(0, seconds[-1], count)
    return _shapes(seconds, onsets, rng.choice([-1.0, 1.0], count), 1.5, lambda t: np.exp(-t / 0.3))
