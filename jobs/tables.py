"""The tables of a study file, as values: one frozen dataclass per table, with the defaults and what each key may be.

Ranges of single keys stand in the annotations, for pydantic in :mod:`.config` to check; what concerns several keys is
checked in ``__post_init__``, whose sentence is the message that the user sees. Lengths are mm here, as in the file.
"""

import difflib
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen, MultipleOf

from ..hpc.executors import ExecutorConfig
from ..sim.responses import MUSCLES
from ..sim.tissues import CONDUCTIVITIES
from .solver_table import SolverTable
from .table_ranges import (
    Count,
    CountOrNone,
    Decay,
    Dropout,
    Fraction,
    NotNegative,
    Point,
    Positive,
    Share,
    Table,
)

BUILTIN_HEADS = ("template", "sphere")
HEAD_SUFFIXES = (".msh", ".msh.gz", ".nii", ".nii.gz", ".npz")
BUILTIN_COILS = ("magstim-70mm", "dipole")


def _unique(key, values):
    if len(set(values)) != len(values):
        raise ValueError(f"{key} holds {_first_twice(values)!r} twice; name each once")


def _first_twice(values):
    return next(value for place, value in enumerate(values) if value in values[:place])


def _known(key, name, valid):
    if name not in valid:
        raise ValueError(
            f"{key} holds {name!r}, which is not known{did_you_mean(name, valid)}; valid: {', '.join(valid)}"
        )


def did_you_mean(word: str, valid) -> str:
    """Return ``; did you mean kind?`` for the nearest valid word, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


@dataclass(frozen=True, kw_only=True)
class MeshTable(Table):
    """[head.mesh]: edge lengths of a head that is meshed from labels; fine within a radius of the hand knob."""

    fine_mm: Positive = 2.0
    coarse_mm: Positive = 6.0
    fine_radius_mm: Positive = 40.0

    def __post_init__(self):
        if self.coarse_mm < self.fine_mm:
            raise ValueError(f"coarse_mm is {self.coarse_mm:g}, less than fine_mm {self.fine_mm:g}; it must not be")


@dataclass(frozen=True, kw_only=True)
class HeadTable(Table):
    """[head]: ``hand_knob_mm`` None stands for the template's own, or the top of the sphere."""

    source: Annotated[str, MinLen(1)] = "template"
    hand_knob_mm: Point | None = None
    mesh: MeshTable = MeshTable()
    conductivities: dict[str, Positive] = field(default_factory=dict)

    def __post_init__(self):
        for tissue in self.conductivities:
            if not tissue.isdecimal():  # a tag of the mesh that no tissue of the table carries
                _known("conductivities", tissue, tuple(CONDUCTIVITIES))
        if self.source in BUILTIN_HEADS:
            return
        if not self.source.lower().endswith(HEAD_SUFFIXES):
            raise ValueError(
                f"source is {self.source!r}{did_you_mean(self.source, BUILTIN_HEADS)}; it must be "
                f"{' or '.join(BUILTIN_HEADS)}, or a file that ends in {', '.join(HEAD_SUFFIXES)}"
            )
        if self.hand_knob_mm is None:
            raise ValueError(
                "hand_knob_mm is missing; a head from a file needs it (x, y, z of the hand's motor cortex in the "
                "head's coordinates), as coil poses, volumes and the mask are laid around it"
            )


@dataclass(frozen=True, kw_only=True)
class CoilTable(Table):
    """[coil]: a built-in name or a coil file."""

    source: Annotated[str, MinLen(1)] = "magstim-70mm"

    def __post_init__(self):
        if self.source not in BUILTIN_COILS and "." not in self.source:
            raise ValueError(
                f"source is {self.source!r}{did_you_mean(self.source, BUILTIN_COILS)}; it must be "
                f"{' or '.join(BUILTIN_COILS)}, or a coil file"
            )


@dataclass(frozen=True, kw_only=True)
class PosesTable(Table):
    """[poses]: a square grid of tangential poses, random ones around it, or a file in place of both."""

    grid: CountOrNone = 7
    spacing_mm: Positive = 4.4
    angle_deg: Annotated[float, Ge(-360), Le(360)] = 45.0
    distance_mm: NotNegative = 4.0
    random: CountOrNone = 0
    random_radius_mm: Positive = 15.0
    random_angle_deg: Annotated[float, Ge(0), Le(180)] = 30.0
    file: str = ""
    section: Literal["", "samples", "targets"] = ""

    def __post_init__(self):
        if self.section and not self.file:
            raise ValueError(f"section is {self.section!r}, part of a navigator's file, but there is no file; give one")
        if self.grid and self.grid % 2 == 0:
            raise ValueError(
                f"grid is {self.grid}; it must be odd (or 0), as the pose in its middle is the hotspot that the motor "
                "threshold refers to"
            )
        if not (self.grid or self.random or self.file):
            raise ValueError("grid and random are 0 and there is no file, so there is no pose; give one of them")


@dataclass(frozen=True, kw_only=True)
class VolumeTable(Table):
    """[volume]: the cube that the networks see; ``centre_mm`` None stands for the hand knob."""

    n: Annotated[int, Ge(32), MultipleOf(32)] = 64  # halved twice by the autoencoder, three times by the mapper
    spacing_mm: Positive = 1.0
    centre_mm: Point | None = None
    components: bool = False
    mask_radius_mm: Positive = 30.0
    mask_file: str = ""


@dataclass(frozen=True, kw_only=True)
class StimulationTable(Table):
    """[stimulation]: intensities in % of the resting motor threshold, and trials of each."""

    intensities_percent_rmt: Annotated[tuple[Positive, ...], MinLen(1)] = (110.0, 120.0, 130.0, 140.0)
    trials: Annotated[tuple[Count, ...], MinLen(1)] = (300, 149, 150, 100)
    rmt_e_v_per_m: Positive = 60.0
    rmt_a_per_us: NotNegative = 0.0

    def __post_init__(self):
        _unique("intensities_percent_rmt", self.intensities_percent_rmt)
        if len(self.trials) != len(self.intensities_percent_rmt):
            raise ValueError(
                f"trials has {len(self.trials)} numbers and intensities_percent_rmt "
                f"{len(self.intensities_percent_rmt)}; give one number of trials for each intensity"
            )


@dataclass(frozen=True, kw_only=True)
class FiringTable(Table):
    """[firing]: half-activation field and slope, in multiples of ``rmt_e_v_per_m``."""

    e50_of_rmt: Positive = 1.15
    slope_of_rmt: Positive = 0.08


@dataclass(frozen=True, kw_only=True)
class SyntheticTable(Table):
    """[responses.synthetic]: the motor system that is planted where there is no file of responses."""

    synergies: Count = 9
    direct_share: Share = 0.3
    gain_sd: NotNegative = 0.3
    muscle_sd: NotNegative = 0.3
    noise_uv: NotNegative = 10.0


@dataclass(frozen=True, kw_only=True)
class ResponsesTable(Table):
    """[responses]: measured ones from a file, or synthetic ones."""

    file: str = ""
    muscles: Annotated[tuple[Annotated[str, MinLen(1)], ...], MinLen(1)] = MUSCLES
    synthetic: SyntheticTable = SyntheticTable()

    def __post_init__(self):
        _unique("muscles", self.muscles)


@dataclass(frozen=True, kw_only=True)
class InputsTable(Table):
    """[inputs]: what the networks are fed with."""

    kinds: Annotated[tuple[Literal["e_norm", "firing_rate"], ...], MinLen(1)] = ("e_norm", "firing_rate")
    scaling: Literal["minmax", "standard"] = "minmax"

    def __post_init__(self):
        _unique("kinds", self.kinds)


@dataclass(frozen=True, kw_only=True)
class AutoencoderTable(Table):
    """[autoencoder]: its training."""

    epochs: Count = 100
    batch: Count = 32
    learning_rate: Positive = 0.1
    momentum: Dropout = 0.9
    l1: NotNegative = 1e-4
    decay: Decay = 0.7
    decay_every: Count = 20


@dataclass(frozen=True, kw_only=True)
class MappersTable(Table):
    """[mappers]: which are trained, and how."""

    depths: Annotated[tuple[Literal[3, 6], ...], MinLen(1)] = (3, 6)
    connections: Annotated[tuple[Literal["direct", "synergy", "both"], ...], MinLen(1)] = ("direct", "synergy", "both")
    epochs: Count = 150
    batch: Count = 32
    learning_rate: Positive = 1.0
    rho: Fraction = 0.95
    decay: Decay = 0.7
    decay_every: Count = 20
    dropout: Dropout = 0.15
    l1: NotNegative = 1e-4
    synergies: Count = 9

    def __post_init__(self):
        _unique("depths", self.depths)
        _unique("connections", self.connections)


@dataclass(frozen=True, kw_only=True)
class ValidationTable(Table):
    """[validation]: repeats of the test split and, where folds are asked for, the grid of the cross-validation."""

    repeats: Count = 3
    test_fraction: Fraction = 0.1
    folds: CountOrNone = 0
    dropout_grid: tuple[Dropout, ...] = ()
    l1_grid: tuple[NotNegative, ...] = ()

    def __post_init__(self):
        _unique("dropout_grid", self.dropout_grid)
        _unique("l1_grid", self.l1_grid)
        if self.folds == 1:
            raise ValueError("folds is 1; it must be 0 (no cross-validation) or 2 or more")
        if not self.folds and max(len(self.dropout_grid), len(self.l1_grid)) > 1:
            raise ValueError("folds is 0, but a grid holds several values; choosing among them needs 2 folds or more")


@dataclass(frozen=True, kw_only=True)
class StudyTables(Table):
    """A whole study file: the top keys and one field per table."""

    name: str
    seed: CountOrNone = 1
    folder: str = ""
    head: HeadTable = HeadTable()
    coil: CoilTable = CoilTable()
    poses: PosesTable = PosesTable()
    volume: VolumeTable = VolumeTable()
    solver: SolverTable = field(default_factory=SolverTable)
    stimulation: StimulationTable = StimulationTable()
    firing: FiringTable = FiringTable()
    responses: ResponsesTable = ResponsesTable()
    inputs: InputsTable = InputsTable()
    autoencoder: AutoencoderTable = AutoencoderTable()
    mappers: MappersTable = MappersTable()
    validation: ValidationTable = ValidationTable()
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(
                f"name is {self.name!r}; it must be letters, digits, '.', '_' and '-', as it names a folder"
            )
        muscles = len(self.responses.muscles)
        if self.mappers.synergies > muscles and not self.responses.file:
            raise ValueError(
                f"[mappers] synergies is {self.mappers.synergies}, but there are {muscles} muscles; "
                "a synergy groups muscles, so there cannot be more of them"
            )
