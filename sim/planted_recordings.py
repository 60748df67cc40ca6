"""Planted records: EEG and EMG whose causal structure is known, made on the spot from a seed.

What is planted is told in `motorsweep.sim.planted_system` (the autoregression) and `planted_population` (what differs
between records). The Granger causality of each record is known in closed form.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from .electrodes import TEN_TWENTY
from .planted_artefacts import PlantedArtefact, artefacts
from .planted_granger import (
    autocovariance_of_spectrum,
    conditional_granger_of_autocovariance,
    granger_of_autocovariance,
)
from .planted_population import CONDITIONS, MUSCLE_NAMES, Factors, PlantedConfig, factors_of, system_of
from .planted_system import PlantedSystem
from .recording import Recording
from .signal_filters import decimation_gain

__all__ = ["CONDITIONS", "MUSCLE_NAMES", "PlantedConfig", "PlantedRecording", "planted_names", "planted_recording"]

PAST_S = 0.12
"""Past that the closed forms take into account: more changes no value by 1e-6."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedRecording:
    """One planted record and what is true of it.

    The closed forms are of the process without sensor noise and artefacts, at the record's own rate, over so long a
    past that more would change nothing. They are computed on first use.

    Attributes
    ----------
    recording : Recording
    system : PlantedSystem
        The autoregression that made it.
    factors : Factors
        The latent factors that set its couplings.
    artefacts : tuple of PlantedArtefact
        What was added on top.
    """

    recording: Recording
    system: PlantedSystem
    factors: Factors
    artefacts: tuple[PlantedArtefact, ...]

    @cached_property
    def emg_granger(self) -> np.ndarray:
        """Pairwise Granger causality of the muscles (n_emg, n_emg), [i, j] = j → i, diagonal 0."""
        return granger_of_autocovariance(self._past(self._rows("emg")))

    @cached_property
    def eeg_granger(self) -> np.ndarray:
        """Pairwise Granger causality of the cortical channels (n_eeg, n_eeg), [i, j] = j → i, diagonal 0."""
        return granger_of_autocovariance(self._past(self._rows("eeg")))

    @cached_property
    def emg_granger_conditional(self) -> np.ndarray:
        """Granger causality of the muscles given the other muscles (n_emg, n_emg), [i, j] = j → i, diagonal 0."""
        return conditional_granger_of_autocovariance(self._past(self._rows("emg")))

    def expected_granger(
        self, signal="emg", *, order: int, every: int = 1, power_gain=None, noise=True, floor=0.0, conditional=False
    ) -> np.ndarray:
        """Granger causality that an analysis of the record would find without estimation error.

        Parameters
        ----------
        signal : "emg" or "eeg"
        order : int
            Of the analysis, in samples of its rate.
        every : int
            The analysis sees the record after `motorsweep.sim.signal_filters.decimated` with this step.
        power_gain : callable, optional
            What filters do to power at frequencies in Hz; see `motorsweep.sim.signal_filters.power_gain`.
        noise : bool
            With the sensor noise.
        floor : float
            White noise that the analysis takes each channel to carry besides, as a share of its variance: where filters
            emptied a part of the spectrum it decides what is found.
        conditional : bool
            Given all other channels, instead of pairwise.

        Returns
        -------
        ndarray (n, n)
            [i, j] = j → i, diagonal 0.

        Raises
        ------
        InputError
            Where the filtered process is singular at this order, or the order is longer than what is known.
        """
        rows, points, rate_hz = self._rows(signal), round(2 * self.system.rate_hz), self.system.rate_hz
        spectrum = self.system.spectrum(points)[:, rows, rows]
        if noise:
            spectrum = spectrum + np.diag(self.system.noise_v[rows] ** 2)
        hertz = np.arange(points + 1) * rate_hz / 2 / points
        gain = decimation_gain(every, rate_hz, hertz) * (1.0 if power_gain is None else power_gain(hertz))
        scale = np.sqrt(np.einsum("fii->i", spectrum).real)
        gamma = autocovariance_of_spectrum(spectrum * gain[:, None, None] / np.outer(scale, scale), order, every)
        gamma[0] += floor * np.diag(np.diag(gamma[0]))
        return (conditional_granger_of_autocovariance if conditional else granger_of_autocovariance)(gamma)

    def _rows(self, signal):
        if signal not in ("eeg", "emg"):
            raise InputError(f"planted record: there is no signal {signal!r}. Choose eeg or emg.")
        return slice(0, self.system.n_eeg) if signal == "eeg" else slice(self.system.n_eeg, self.system.n)

    def _past(self, rows):
        return self.system.innovation_autocovariance[: round(PAST_S * self.system.rate_hz) + 1, rows, rows]


def planted_names(config: PlantedConfig) -> list[tuple[str, str, str]]:
    """Name, subject and condition of every record, in order of their indices.

    Examples
    --------
    >>> planted_names(PlantedConfig(subjects=1, records_per_subject=2))
    [('s01-000-rest', 's01', 'rest'), ('s01-001-activity', 's01', 'activity')]
    """
    return [_name(config, index) for index in range(config.subjects * config.records_per_subject)]


def _name(config, index):
    subject, trial = divmod(index, config.records_per_subject)
    condition = CONDITIONS[trial % 2]
    return f"s{subject + 1:02d}-{trial:03d}-{condition}", f"s{subject + 1:02d}", condition


def planted_recording(config: PlantedConfig, seed: int, index: int) -> PlantedRecording:
    """Make one planted record.

    It depends on seed, subject and number within the subject alone, not on how many records are made or in what order.

    Parameters
    ----------
    config : PlantedConfig
    seed : int
        Of everything; not negative.
    index : int
        Which record: subject times `records_per_subject`, plus the number within the subject.

    Returns
    -------
    PlantedRecording

    Raises
    ------
    InputError
        Where there is no such record, or the seed is negative.

    Examples
    --------
    >>> planted = planted_recording(PlantedConfig(seconds=2), seed=1, index=3)
    >>> planted.recording.eeg.shape, planted.recording.condition, planted.emg_granger.shape
    ((19, 2000), 'activity', (6, 6))
    """
    count = config.subjects * config.records_per_subject
    if not 0 <= index < count or seed < 0:
        raise InputError(
            f"planted record {index} with seed {seed}: the study has records 0 to {count - 1}, and seeds are not "
            "negative. Ask for one of these, or raise subjects or records_per_subject."
        )
    system, samples = system_of(config, seed, index), round(config.seconds * config.rate_hz)
    subject, trial = divmod(index, config.records_per_subject)
    rng = np.random.default_rng([seed, 5, subject, trial])
    volts = system.simulate(samples, rng)
    added = artefacts(config, samples, np.random.default_rng([seed, 6, subject, trial]))
    for artefact in added:
        volts += np.outer(artefact.weight_v, artefact.course)
    for row, noise_v in zip(volts, system.noise_v):
        row += noise_v * rng.standard_normal(samples)
    name, subject_name, condition = _name(config, index)
    recording = Recording(
        eeg=volts[: config.n_eeg],
        emg=volts[config.n_eeg :],
        rate_hz=float(config.rate_hz),
        eeg_names=TEN_TWENTY[: config.n_eeg],
        emg_names=MUSCLE_NAMES[: config.n_emg],
        subject=subject_name,
        condition=condition,
        name=name,
        notes=("planted: made by motorsweep, not recorded from anyone",),
    )
    return PlantedRecording(
        recording=recording, system=system, factors=factors_of(config, seed, index), artefacts=added
    )
