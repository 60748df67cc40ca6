"""The tables of a study file, as values: one frozen dataclass per table, with the defaults and what each key may be.

Ranges of single keys stand in the annotations, for pydantic in :mod:`.config` to check; what concerns several keys is
checked in ``__post_init__``, whose sentence is the message that the user sees. Lengths are mm here, as in the file.
"""

import difflib
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen, MultipleOf

from ..errors import InputError
from ..hpc.executors import ExecutorConfig
from ..hpc.slurm_config import SlurmConfig
from ..sim.position_columns import axes_matrix
from ..sim.responses import MUSCLES
from ..sim.tissues import CONDUCTIVITIES
from .learning_tables import AutoencoderTable, InputsTable, MappersTable, ValidationTable
from .solver_table import SolverTable
from .table_ranges import (
    Count,
    CountOrNone,
    NotNegative,
    Point,
    Positive,
    Share,
    Table,
    unique,
)

BUILTIN_HEADS = ("template", "sphere")
HEAD_SUFFIXES = (".msh", ".msh.gz", ".nii", ".nii.gz", ".npz")
BUILTIN_COILS = ("magstim-70mm", "dipole")


def _known(key, name, valid):
    if name not in valid:
        raise ValueError(
            f"{key} holds {name!r}, which is not known{did_you_mean(name, valid)}; valid: {', '.join(valid)}"
        )


def check_name(name):
    """Refuse a study's name that could not name a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name is {name!r}; it must be letters, digits, '.', '_' and '-', as it names a folder")


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
    align: Literal["none", "hand-knob", "scalp"] = "none"
    axes: str = "RAS"
    align_centre_mm: Point | None = None

    def __post_init__(self):
        try:
            axes_matrix(self.axes)
        except InputError as error:
            raise ValueError(f"axes is {self.axes!r}; {str(error).split('. ', 1)[1]}") from None
        if (self.align != "none" or self.axes != "RAS") and not self.file:
            raise ValueError("align and axes are of positions in a file, but there is no file; give one")
        if self.align_centre_mm is not None and self.align == "none":
            raise ValueError('align_centre_mm is given, but align is "none"; say what the centre is to be aligned to')
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
        unique("intensities_percent_rmt", self.intensities_percent_rmt)


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
        unique("muscles", self.muscles)


@dataclass(frozen=True, kw_only=True)
class StudyTables(Table):
    """A whole study file: the top keys and one field per table."""

    name: str
    seed: CountOrNone = 1
    folder: str = ""
    protocol: Literal["paper", "released"] = "paper"
    head: HeadTable = HeadTable()
    coil: CoilTable = CoilTable()
    poses: PosesTable = PosesTable()
    volume: VolumeTable = VolumeTable()
    solver: SolverTable = field(default_factory=SolverTable)
    stimulation: StimulationTable = StimulationTable()
    firing: FiringTable = FiringTable()
    responses: ResponsesTable = ResponsesTable()
    inputs: InputsTable = field(default_factory=InputsTable)
    autoencoder: AutoencoderTable = field(default_factory=AutoencoderTable)
    mappers: MappersTable = field(default_factory=MappersTable)
    validation: ValidationTable = field(default_factory=ValidationTable)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    kind: Literal["tms", "eeg"] = "tms"  # which tables there are; those of "eeg" stand in .eeg_tables

    def __post_init__(self):
        check_name(self.name)
        trials, intensities = self.stimulation.trials, self.stimulation.intensities_percent_rmt
        if not self.responses.file and len(trials) != len(intensities):
            raise ValueError(
                f"[stimulation] trials has {len(trials)} numbers and intensities_percent_rmt {len(intensities)}; "
                "give one number of trials for each intensity"
            )
        muscles = len(self.responses.muscles)
        uses_synergies = {"synergy", "both"} & set(self.mappers.connections)
        if uses_synergies and self.mappers.synergies > muscles and not self.responses.file:
            raise ValueError(
                f"[mappers] synergies is {self.mappers.synergies}, but there are {muscles} muscles; "
                "a synergy groups muscles, so there cannot be more of them; lower synergies, or leave out synergy "
                "and both"
            )
