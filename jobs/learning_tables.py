"""The tables of a study file that concern learning: inputs, autoencoder, mappers and their validation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from ..learn.protocols import AutoencoderTraining, MapperTraining
from .table_ranges import Count, CountOrNone, Decay, Dropout, Fraction, NotNegative, Positive, Table, unique


@dataclass(frozen=True, kw_only=True)
class InputsTable(Table):
    """[inputs]: what the networks are fed with."""

    kinds: Annotated[tuple[Literal["e_norm", "firing_rate"], ...], MinLen(1)] = ("e_norm", "firing_rate")
    scaling: Literal["minmax", "standard"] = "minmax"

    def __post_init__(self):
        unique("kinds", self.kinds)


@dataclass(frozen=True, kw_only=True)
class AutoencoderTable(Table):
    """[autoencoder]: its training; a batch of 0 stands for the protocol's."""

    epochs: Count = AutoencoderTraining.epochs
    batch: CountOrNone = AutoencoderTraining.batch
    learning_rate: Positive = AutoencoderTraining.learning_rate
    momentum: Dropout = AutoencoderTraining.momentum
    l1: NotNegative = AutoencoderTraining.l1
    decay: Decay = AutoencoderTraining.decay
    decay_every: Count = AutoencoderTraining.decay_every


@dataclass(frozen=True, kw_only=True)
class MappersTable(Table):
    """[mappers]: which are trained, and how; a batch of 0 stands for the protocol's, 0 synergies for `synergy_vaf`."""

    depths: Annotated[tuple[Literal[3, 6], ...], MinLen(1)] = (3, 6)
    connections: Annotated[tuple[Literal["direct", "synergy", "both"], ...], MinLen(1)] = ("direct", "synergy", "both")
    activation: Literal["relu", "elu"] = "relu"
    epochs: Count = MapperTraining.epochs
    batch: CountOrNone = MapperTraining.batch
    learning_rate: Positive = MapperTraining.learning_rate
    rho: Fraction = MapperTraining.rho
    decay: Decay = MapperTraining.decay
    decay_every: Count = MapperTraining.decay_every
    dropout: Dropout = MapperTraining.dropout
    l1: NotNegative = MapperTraining.l1
    synergies: CountOrNone = MapperTraining.synergies
    synergy_vaf: Fraction = MapperTraining.synergy_vaf

    def __post_init__(self):
        unique("depths", self.depths)
        unique("connections", self.connections)


@dataclass(frozen=True, kw_only=True)
class ValidationTable(Table):
    """[validation]: repeats of the test split, the cross-validation with its grid, and sizes of the learning curve.

    An empty grid stands for the one value in [mappers] or [inputs].
    """

    repeats: Count = 3
    test_fraction: Fraction = 0.1
    folds: CountOrNone = 0
    autoencoder_per_fold: bool = True
    search: Literal["grid", "axes"] = "grid"
    dropout_grid: tuple[Dropout, ...] = ()
    l1_grid: tuple[NotNegative, ...] = ()
    activation_grid: tuple[Literal["relu", "elu"], ...] = ()
    scaling_grid: tuple[Literal["minmax", "standard"], ...] = ()
    curve_trials: tuple[Count, ...] = ()

    def __post_init__(self):
        grids = [key for key in vars(self) if key.endswith("_grid")]
        for key in (*grids, "curve_trials"):
            unique(key, getattr(self, key))
        if self.folds == 1:
            raise ValueError("folds is 1; it must be 0 (no cross-validation) or 2 or more")
        if not self.folds and any(len(getattr(self, key)) > 1 for key in grids):
            raise ValueError("folds is 0, but a grid holds several values; choosing among them needs 2 folds or more")
