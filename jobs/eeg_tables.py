"""The tables of a study file of the kind "eeg", as values: one frozen dataclass per table, with defaults and ranges.

As :mod:`.tables`. Keys are those of the dataclasses that the numerics take (`PlantedConfig`, `RecordingSource`,
`CleaningConfig`, `ConnectivityConfig`, `EmgTraining`), whose defaults they repeat, so that a study file is checked
without loading them; tests hold both together.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from ..hpc.executors import ExecutorConfig
from ..hpc.slurm_config import SlurmConfig
from .table_ranges import Count, CountOrNone, Decay, Dropout, NotNegative, Positive, Range, Share, Table, unique
from .tables import check_name

PLANTED = "planted"
Microvolts = Annotated[float, Ge(0), Le(1e6)]
Scale = Annotated[float, Ge(1e-3), Le(1e6)]
Unit = Literal["auto", "V", "mV", "uV", "nV", "counts"]
Measure = Literal[
    "correlation", "coherence", "phase_lag_index", "granger", "dtf",
    "weighted_phase_lag_index", "full_frequency_dtf", "ddtf",
]  # fmt: skip
Criterion = Literal["aic", "bic", "hqic"]
Texts = tuple[Annotated[str, MinLen(1)], ...]


@dataclass(frozen=True, kw_only=True)
class PlantedTable(Table):
    """[records.planted]: records with a known causal structure, made from the study's seed."""

    subjects: Annotated[int, Ge(1), Le(10**6)] = 10
    records_per_subject: Annotated[int, Ge(1), Le(10**6)] = 20
    seconds: Annotated[float, Ge(1), Le(86400)] = 60.0
    rate_hz: Annotated[float, Ge(250), Le(1e5)] = 1000.0
    n_eeg: Annotated[int, Ge(2), Le(19)] = 19
    n_emg: Annotated[int, Ge(2), Le(6)] = 6
    coupling: Share = 0.8
    factors: Annotated[int, Ge(1), Le(100)] = 4
    factor_sd: NotNegative = 0.25
    subject_share: Share = 0.3
    subject_sd: NotNegative = 0.1
    condition_shift: Annotated[float, Ge(-10), Le(10)] = 1.0
    cortical: Annotated[float, Ge(0), Le(10)] = 0.6
    corticomuscular: Annotated[float, Ge(0), Le(10)] = 0.5
    muscular: Annotated[float, Ge(0), Le(10)] = 0.6
    eeg_uv: Scale = 15.0
    emg_uv: Scale = 300.0
    eeg_noise_uv: Microvolts = 0.2
    emg_noise_uv: Microvolts = 0.5
    line_hz: NotNegative = 50.0
    line_uv: Microvolts = 3.0
    blinks_per_min: NotNegative = 12.0
    blink_uv: Microvolts = 120.0
    heartbeat_uv: Microvolts = 0.0
    jaw_uv: Microvolts = 0.0
    pop_uv: Microvolts = 0.0


@dataclass(frozen=True, kw_only=True)
class RecordsTable(Table):
    """[records]: planted ones, or those of a folder, a BIDS data set or a file, and how they are read."""

    source: Annotated[str, MinLen(1)] = PLANTED
    eeg: str = ""
    emg: str = ""
    events: Texts = ()
    record_s: NotNegative = 0.0
    rate_hz: NotNegative = 0.0
    eeg_channels: Texts = ()
    emg_channels: Texts = ()
    drop_channels: Texts = ()
    eeg_unit: Unit = "auto"
    emg_unit: Unit = "auto"
    eeg_rate_hz: NotNegative = 0.0
    emg_rate_hz: NotNegative = 0.0
    clock: Literal["auto", "regular", "gapped"] = "auto"
    align: Literal["stamps", "start"] = "stamps"
    emg_delay_s: float = 0.0
    time_column: str = ""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    eeg_array: str = ""
    emg_array: str = ""
    layout: Literal["auto", "channels, samples", "samples, channels"] = "auto"
    records_per_task: Count = 4
    planted: PlantedTable = PlantedTable()

    def __post_init__(self):
        for key in ("events", "eeg_channels", "emg_channels", "drop_channels"):
            unique(key, getattr(self, key))
        own = {"records_per_task", "planted", "source"}
        given = [key for key, value in vars(self).items() if key not in own and value != getattr(RecordsTable, key)]
        if self.is_planted and given:
            raise ValueError(
                f"{given[0]} is of recordings in files, but source is {PLANTED!r}; give source the folder that they "
                "are in"
            )
        if not self.is_planted and self.planted != PlantedTable():
            raise ValueError(
                f"planted is given, but source is {self.source!r}; give one of them: planted records are made, not read"
            )

    @property
    def is_planted(self):
        """Whether records are made, not read."""
        return self.source == PLANTED


@dataclass(frozen=True, kw_only=True)
class RulesTable(Table):
    """[cleaning.rules]: when an independent component of the EEG counts as an artefact."""

    eye_frontal: Share = 0.5
    eye_slow: Share = 0.5
    eye_kurtosis: float = 2.5
    eye_correlation: Share = 0.7
    muscle_slope: float = -0.5
    muscle_fast: Share = 0.5
    line_ratio: Positive = 20.0
    single_share: Share = 0.85
    single_kurtosis: float = 6.0


@dataclass(frozen=True, kw_only=True)
class CleaningTable(Table):
    """[cleaning]: filters, reference, faulty channels, gaps and artefacts; 0 leaves a side of a band open."""

    band_hz: Range = (1.0, 45.0)
    emg_band_hz: Range = (20.0, 0.0)
    notch_hz: NotNegative = 50.0
    notch_width_hz: Positive = 2.0
    emg: Literal["raw", "rectified", "envelope"] = "raw"
    envelope_hz: Positive = 10.0
    reference: Literal["as recorded", "average"] = "as recorded"
    faulty: Literal["interpolate", "drop"] = "interpolate"
    gaps: Literal["longest", "refuse"] = "longest"
    shortest_s: NotNegative = 2.0
    ica: bool = True
    ica_rate_hz: Annotated[float, Ge(100)] = 250.0
    ica_iterations: Count = 100
    most_removed: CountOrNone = 6
    rules: RulesTable = RulesTable()

    def __post_init__(self):
        for key in ("band_hz", "emg_band_hz"):
            low, high = getattr(self, key)
            if low < 0 or high < 0 or (high and high <= low):
                raise ValueError(
                    f"{key} is {low:g} to {high:g} Hz, which is no band; give a lower and a higher edge, 0 leaves a "
                    "side open"
                )


@dataclass(frozen=True, kw_only=True)
class EmgConnectivityTable(Table):
    """[connectivity.emg]: the Granger causality of the EMG, which is what networks are to predict."""

    rate_hz: NotNegative = 0.0
    order: CountOrNone = 0
    max_order: Count = 20
    max_order_ms: NotNegative = 0.0
    criterion: Criterion = "bic"
    granger: Literal["pairwise", "conditional"] = "pairwise"
    regularise: NotNegative = 1e-6


@dataclass(frozen=True, kw_only=True)
class ConnectivityTable(Table):
    """[connectivity]: measures of the EEG, and the autoregressions under some of them; an order of 0 is chosen.

    At ``rate_hz``, or a little above, the EEG is connected: a band that was emptied by a filter tells nothing, and
    makes autoregressions singular. 0 stands for the records' own rate.
    """

    rate_hz: NotNegative = 150.0
    measures: Annotated[tuple[Measure, ...], MinLen(1)] = (
        "correlation", "coherence", "phase_lag_index", "granger", "dtf",
    )  # fmt: skip
    fmin_hz: NotNegative = 1.0
    fmax_hz: Positive = 45.0
    bands_hz: dict[str, Range] = field(default_factory=dict)
    order: CountOrNone = 0
    max_order: Count = 20
    max_order_ms: NotNegative = 0.0
    criterion: Criterion = "bic"
    granger: Literal["pairwise", "conditional"] = "pairwise"
    regularise: NotNegative = 1e-6
    segment_s: Positive = 1.0
    overlap: Dropout = 0.5
    step_hz: Positive = 1.0
    emg: EmgConnectivityTable = EmgConnectivityTable()

    def __post_init__(self):
        unique("measures", self.measures)
        for name, (low, high) in {"fmin_hz to fmax_hz": (self.fmin_hz, self.fmax_hz), **self.bands_hz}.items():
            if not 0 <= low < high:
                raise ValueError(f"{name} is {low:g} to {high:g} Hz; a band's edges must increase from 0 on")
        if "whole" in self.bands_hz:
            raise ValueError("bands_hz names a band whole, as fmin_hz to fmax_hz is called; give it another name")
        if self.granger == "conditional" and self.bands_hz and "granger" in self.measures:
            raise ValueError(
                "granger is conditional, which is offered for the whole band alone; leave out bands_hz, or take "
                "pairwise"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkTable(Table):
    """[network]: the network from EEG connectivity to EMG connectivity, and how it is trained."""

    optimizers: Annotated[tuple[Literal["adam", "sgdm", "rmsprop"], ...], MinLen(1)] = ("adam", "sgdm", "rmsprop")
    epochs: Count = 10
    learning_rate: Positive = 0.01
    decay: Decay = 0.95
    decay_every: Count = 2
    batch: Count = 32
    validation_every: Count = 4
    patience: CountOrNone = 20
    keep: Literal["best", "last"] = "best"
    error: Literal["mean", "half sum"] = "mean"
    scale: bool = False
    l2: NotNegative = 0.0
    tuned: bool = True

    def __post_init__(self):
        unique("optimizers", self.optimizers)


@dataclass(frozen=True, kw_only=True)
class RecordValidationTable(Table):
    """[validation]: which records test; the paper's two splits, and by subject and by fold beside them."""

    splits: Annotated[
        tuple[Literal["80-20", "70-10-20", "leave-one-subject-out", "k-fold"], ...], MinLen(1)
    ] = ("80-20", "70-10-20", "leave-one-subject-out", "k-fold")  # fmt: skip
    folds: Annotated[int, Ge(2)] = 5
    repeats: Count = 1

    def __post_init__(self):
        unique("splits", self.splits)


@dataclass(frozen=True, kw_only=True)
class EegTables(Table):
    """A whole study file of the kind "eeg": the top keys and one field per table."""

    kind: Literal["eeg"] = "eeg"
    name: str
    seed: CountOrNone = 1
    folder: str = ""
    records: RecordsTable = field(default_factory=RecordsTable)
    cleaning: CleaningTable = field(default_factory=CleaningTable)
    connectivity: ConnectivityTable = field(default_factory=ConnectivityTable)
    network: NetworkTable = field(default_factory=NetworkTable)
    validation: RecordValidationTable = field(default_factory=RecordValidationTable)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)

    def __post_init__(self):
        check_name(self.name)
        connected = [("EEG", "band_hz", "[connectivity]", self.connectivity.rate_hz)]
        if self.cleaning.emg == "raw":  # the others have their power at low frequencies
            connected.append(("EMG", "emg_band_hz", "[connectivity.emg]", self.connectivity.emg.rate_hz))
        for kind, key, table, rate_hz in connected:
            low_hz = getattr(self.cleaning, key)[0]
            if 0 < rate_hz <= 2 * low_hz:
                raise ValueError(
                    f"{table} rate_hz is {rate_hz:g}, which holds nothing above {rate_hz / 2:g} Hz, but the {kind} "
                    f"that is cleaned begins at {low_hz:g} Hz ([cleaning] {key}), so that only what leaks through "
                    "filters would be connected; raise rate_hz (0: the records' own) or lower the band"
                )
