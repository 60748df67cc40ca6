"""What a mapper of each connection is built like and fitted to: muscles, activations of synergies, or residuals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from .mappers import Mapper, build_mapper, count_parameters
from .protocols import MapperTraining, protocol_of
from .synergy import Synergies, choose_rank, fit_nmf, vaf_curve


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the mapper is built like and trained on; known is added to its predictions."""

    build: Callable[[], Mapper]
    targets: np.ndarray
    known: np.ndarray | float = 0.0
    known_parameters: int = 0
    basis: np.ndarray | None = None


def _direct_goal(measured, train, cell, config, seed, synergy, n) -> Goal:
    muscles = measured.shape[1]
    return Goal(build=_builder(cell, config, "direct", muscles, None, n), targets=measured)


def _builder(cell, config, connection, muscles, basis, n) -> Callable[[], Mapper]:
    how = {"dropout": cell.dropout, "n": n, "activation": cell.activation, "protocol": config.protocol}
    return lambda: build_mapper(cell.depth, connection, muscles, basis, **how)


def _synergy_goal(measured, train, cell, config, seed, synergy, n) -> Goal:
    factors = fit_synergies(measured[train], config, seed)
    targets = measured
    if protocol_of(config.protocol).fit_activations:
        targets = np.zeros((len(measured), factors.basis.shape[1]))
        targets[train] = factors.activations.T
    basis = torch.from_numpy(factors.basis)
    build = _builder(cell, config, "synergy", len(basis), basis, n)
    return Goal(build=build, targets=targets, basis=factors.basis)


def fit_synergies(measured, config: MapperTraining, seed: int) -> Synergies:
    """Synergies of scaled training responses (N, k): as many as the protocol says, or as account for its variance."""
    rank = config.synergies
    if not rank:
        curve = vaf_curve(measured.T, None, seed, shuffles=0)
        rank = choose_rank(curve, config.synergy_vaf)
    return fit_nmf(measured.T, rank, seed)


def _residual_goal(measured, train, cell, config, seed, synergy, n) -> Goal:
    known = None if synergy is None else synergy.get("prediction_all")
    if known is None or known.shape != measured.shape or "synergy_basis" not in synergy:
        found = "nothing" if synergy is None else f"arrays {sorted(synergy)}"
        raise InputError(
            f"cell 'both': the residual mapper learns what a synergy cell leaves over, and was given {found}; it needs "
            f"prediction_all of shape {measured.shape} and synergy_basis. Fit the synergy cell of these trials first."
        )
    muscles, basis = measured.shape[1], synergy["synergy_basis"]
    synergy_mapper = build_mapper(cell.depth, "synergy", muscles, torch.from_numpy(basis), n=n)
    return Goal(
        build=_builder(cell, config, "residual", muscles, None, n),
        targets=measured - known,
        known=known,
        known_parameters=count_parameters(synergy_mapper),
        basis=basis,
    )


GOALS = {"direct": _direct_goal, "synergy": _synergy_goal, "both": _residual_goal}
