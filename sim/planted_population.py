"""What the planted records of a study have in common, and what sets each one apart.

A study has one wiring: which channel drives which, how strongly on average, after what delay. A few latent factors of
each record, some of them lasting traits of the subject, raise and lower couplings together, in cortex and in muscles;
the condition (rest or activity) shifts the first factor. So couplings among cortical channels tell of couplings among
muscles, as much as `PlantedConfig.coupling` says.
"""

from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral

import numpy as np

from ..errors import InputError
from .electrodes import TEN_TWENTY, position
from .planted_system import PlantedSystem, bounded, cortical_power, muscle_power, resonator

MUSCLE_NAMES = ("BSH", "TRIO", "PMJ", "DEL", "TRIL", "TRIA")
"""Short head of biceps, long head of triceps, pectoralis major, deltoid, triceps again, lateral head of triceps.

The paper lists the long head of the triceps (TRIO) twice; the second of them is TRIL here."""

CONDITIONS = ("rest", "activity")


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """What planted records are like.

    Parameters
    ----------
    subjects, records_per_subject : int
        A subject's records alternate between rest and activity.
    seconds, rate_hz : float
        Of each record. The rate must be at least 250 Hz, or muscles have no room for their spectrum.
    n_eeg, n_emg : int
        Channels: 2 to 19, named by the 10-20 system, and 2 to 6 muscles.
    coupling : float
        Share, 0 to 1, of the variance of the logarithm of all couplings onto muscles that comes from the factors that
        also set the cortical ones. At 0 the muscles have factors of their own, and EEG tells of them only what subject
        and condition tell.
    factors : int
        Number of latent factors (and of the muscles' own).
    factor_sd : float
        Standard deviation of the logarithm of a coupling from the factors.
    subject_share : float
        Share, 0 to 1, of the factors' variance that is a trait of the subject, the same in all of its records.
    subject_sd : float
        Standard deviation of the logarithm of a coupling that is the subject's own, in cortex and muscles alike: the
        map from EEG to EMG differs between subjects by so much.
    condition_shift : float
        Difference of the first factor between activity and rest, in its standard deviations.
    cortical, corticomuscular, muscular : float
        Sum of the moduli of the mean gains onto a channel, cortex → cortex, cortex → muscle and muscle → muscle.
    eeg_uv, emg_uv : float
        Typical standard deviation of EEG, and of EMG in activity, µV. At rest EMG has a quarter of it.
    eeg_noise_uv, emg_noise_uv : float
        White sensor noise, standard deviation, µV.
    line_hz, line_uv : float
        Mains frequency, and typical amplitude of its hum on every channel; two harmonics go with it.
    blinks_per_min, blink_uv : float
        Eye blinks, and their height at the frontal pole.
    heartbeat_uv, jaw_uv, pop_uv : float
        Heights of other artefacts in the EEG: heartbeats, bursts of the temporal muscles, pops of one electrode.

    Raises
    ------
    InputError
        Where a value is out of its range.
    """

    subjects: int = 10
    records_per_subject: int = 20
    seconds: float = 60.0
    rate_hz: float = 1000.0
    n_eeg: int = 19
    n_emg: int = 6
    coupling: float = 0.8
    factors: int = 4
    factor_sd: float = 0.25
    subject_share: float = 0.3
    subject_sd: float = 0.1
    condition_shift: float = 1.0
    cortical: float = 0.6
    corticomuscular: float = 0.5
    muscular: float = 0.6
    eeg_uv: float = 15.0
    emg_uv: float = 300.0
    eeg_noise_uv: float = 0.2
    emg_noise_uv: float = 0.5
    line_hz: float = 50.0
    line_uv: float = 3.0
    blinks_per_min: float = 12.0
    blink_uv: float = 120.0
    heartbeat_uv: float = 0.0
    jaw_uv: float = 0.0
    pop_uv: float = 0.0

    def __post_init__(self):
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"planted records: {name} = {getattr(self, name)} is outside {low:g} to {high:g}, so no such "
                    "records can be made. Choose a value in that range."
                )
        for name in ("subjects", "records_per_subject", "n_eeg", "n_emg", "factors"):
            if not isinstance(getattr(self, name), Integral):
                raise InputError(f"planted records: {name} = {getattr(self, name)} is no whole number. Give one.")
        samples = self.seconds * self.rate_hz * (self.n_eeg + self.n_emg)
        if samples > _MOST_SAMPLES:
            raise InputError(
                f"planted records: {self.seconds:g} s of {self.n_eeg + self.n_emg} channels at {self.rate_hz:g} Hz are "
                f"{samples:.1e} samples a record, and cleaning one takes a dozen copies in memory. Stay below "
                f"{_MOST_SAMPLES:.0e}: shorter records, and more of them."
            )


_POSITIVE = (
    "factor_sd",
    "subject_sd",
    "eeg_noise_uv",
    "emg_noise_uv",
    "line_hz",
    "line_uv",
    "blinks_per_min",
    "blink_uv",
)
_MOST_SAMPLES = 2e8  # 1.6 GB as float64: over two hours of the default channels and rate
_RANGES = {
    **{"subjects": (1, 1e6), "records_per_subject": (1, 1e6), "seconds": (1, 86400), "rate_hz": (250, 1e5)},
    **{"n_eeg": (2, len(TEN_TWENTY)), "n_emg": (2, len(MUSCLE_NAMES)), "factors": (1, 100)},
    **{
        "coupling": (0, 1),
        "subject_share": (0, 1),
        "condition_shift": (-10, 10),
        "eeg_uv": (1e-3, 1e6),
        "emg_uv": (1e-3, 1e6),
    },
    **{
        "cortical": (0, 10),
        "corticomuscular": (0, 10),
        "muscular": (0, 10),
        "heartbeat_uv": (0, 1e6),
        "jaw_uv": (0, 1e6),
    },
    **{name: (0, 1e6) for name in ("pop_uv", *_POSITIVE)},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Wiring:
    """Couplings that all records share, (e,) each, sorted by target; loadings (e, factors) of unit rows."""

    target: np.ndarray
    source: np.ndarray
    delay_s: np.ndarray
    gain: np.ndarray
    loading: np.ndarray
    own_loading: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """Latent factors of a record: (k,) those that cortex and muscles share, and (k,) the muscles' own."""

    shared: np.ndarray
    own: np.ndarray


@lru_cache(maxsize=8)
def wiring(config: PlantedConfig, seed: int) -> Wiring:
    """Wiring of a study's records."""
    rng = np.random.default_rng([seed, 1])
    places = np.stack([position(name) for name in TEN_TWENTY[: config.n_eeg]])
    near = np.exp(-np.arccos(np.clip(places @ places.T, -1, 1)) / 0.8)
    np.fill_diagonal(near, 0)
    motor = np.exp(-((np.arccos(np.clip(places @ position("C3"), -1, 1)) / 0.7) ** 2)) + 0.02
    edges = []
    for i in range(config.n_eeg):
        edges += _inputs(rng, i, near[i], 4, config.cortical, (6e-3, 24e-3))
    for i in range(config.n_eeg, config.n_eeg + config.n_emg):
        edges += _inputs(rng, i, motor, 4, config.corticomuscular, (12e-3, 22e-3))
        others = np.arange(config.n_eeg, config.n_eeg + config.n_emg) != i
        edges += _inputs(rng, i, np.r_[np.zeros(config.n_eeg), others], 5, config.muscular, (2e-3, 8e-3))
    target, source, delay_s, gain = (np.array(column) for column in zip(*edges))
    loading, own = rng.normal(size=(2, len(target), config.factors))
    return Wiring(
        target=target, source=source, delay_s=delay_s, gain=gain, loading=_rows(loading), own_loading=_rows(own)
    )


def _inputs(rng, target, weights, count, total, delays_s):
    """At most `count` couplings onto a channel, drawn by weight: moduli add up to `total`, 3 of 4 are positive."""
    count = min(count, np.count_nonzero(weights))
    chosen = rng.choice(len(weights), count, replace=False, p=weights / weights.sum())
    gains = total * rng.dirichlet(np.full(count, 3.0)) * np.where(rng.random(count) < 0.75, 1, -1)
    return list(zip([target] * count, chosen, rng.uniform(*delays_s, count), gains))


def _rows(loading):
    return loading / np.linalg.norm(loading, axis=1, keepdims=True)


def factors_of(config: PlantedConfig, seed: int, index: int) -> Factors:
    """Latent factors of a record."""
    subject, trial = divmod(index, config.records_per_subject)
    trait = _rng(seed, 2, subject).normal(size=(2, config.factors))
    state = _rng(seed, 3, subject, trial).normal(size=(2, config.factors))
    values = np.sqrt(config.subject_share) * trait + np.sqrt(1 - config.subject_share) * state
    values[:, 0] += config.condition_shift * (trial % 2 - 0.5)
    return Factors(shared=values[0], own=values[1])


def system_of(config: PlantedConfig, seed: int, index: int) -> PlantedSystem:
    """The autoregression behind a record."""
    subject, trial = divmod(index, config.records_per_subject)
    plan, factors = wiring(config, seed), factors_of(config, seed, index)
    rng, active = _rng(seed, 4, subject), trial % 2 == 1
    onto_muscle = plan.target >= config.n_eeg
    shared, own = plan.loading @ factors.shared, plan.own_loading @ factors.own
    mixed = np.sqrt(config.coupling) * shared + np.sqrt(1 - config.coupling) * own
    rise = config.factor_sd * np.where(onto_muscle, mixed, shared) + config.subject_sd * rng.normal(size=len(shared))
    n = config.n_eeg + config.n_emg
    amplitude = 1e-6 * np.repeat([config.eeg_uv, config.emg_uv * (1 if active else 0.25)], [config.n_eeg, config.n_emg])
    denominators = _denominators(config, rng, active)
    ringing = np.sqrt((1 / np.abs(np.fft.rfft(denominators, 2048, axis=1)) ** 2).mean(axis=1))
    return PlantedSystem(
        n_eeg=config.n_eeg,
        rate_hz=config.rate_hz,
        target=plan.target,
        source=plan.source,
        delay=np.maximum(1, np.round(plan.delay_s * config.rate_hz)).astype(np.int64),
        gain=bounded(plan.gain * np.exp(rise), plan.target, plan.source, n),
        denominators=denominators,
        scale_v=amplitude * np.exp(0.2 * rng.normal(size=n)) / ringing,
        noise_v=1e-6 * np.repeat([config.eeg_noise_uv, config.emg_noise_uv], [config.n_eeg, config.n_emg]),
    )


def _denominators(config, rng, active):
    """Filters of a subject's channels: alpha strongest at the back, beta over the middle, both weaker in activity."""
    alpha_hz, calm = rng.normal(10.0, 0.7), 0.6 if active else 1.0
    filters = []
    for name in TEN_TWENTY[: config.n_eeg]:
        x, y, _ = position(name)
        alpha, beta = np.exp(0.2 * rng.normal(size=2)) * calm * (np.exp(-(y + 0.5)), 0.15 * np.exp(-2 * (x**2 + y**2)))
        filters.append(resonator(cortical_power(alpha_hz, alpha, beta), config.rate_hz, 0.024))
    for low, high in zip(rng.uniform(35, 50, config.n_emg), rng.uniform(90, 115, config.n_emg)):
        filters.append(resonator(muscle_power(low, high), config.rate_hz, 0.010))
    longest = max(map(len, filters))
    return np.stack([np.pad(below, (0, longest - len(below))) for below in filters])


def _rng(seed, *place):
    return np.random.default_rng([seed, *place])
