"""One cell of the results table: a mapper fitted on training trials and scored on others.

All that is fitted (scalings, synergies, weights) sees the training trials alone; the others are only predicted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from . import scores
from .accelerator import Accelerator
from .mappers import Mapper, build_mapper, count_parameters
from .protocols import MapperTraining, protocol_of
from .scaling import Scaling, fit_scaling
from .synergy import Synergies, choose_rank, fit_nmf, vaf_curve
from .training import OnEpoch, fit_mapper

CONNECTIONS = ("direct", "synergy", "both")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Which mapper, and the hyper-parameters that a cross-validation chooses.

    Parameters
    ----------
    depth : int
        Convolution layers, 3 or 6.
    connection : str
        One of `CONNECTIONS`.
    dropout, l1 : float
        Share of dense units dropped in training, and weight of the L1 penalty.
    activation : str
        Inner activation, one of `mappers.ACTIVATIONS`.
    scaling : str
        Of the inputs and, once more, of the codes: one of `scaling.SCALINGS`.
    """

    depth: int
    connection: str
    dropout: float = 0.15
    l1: float = 1e-4
    activation: str = "relu"
    scaling: str = "minmax"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """Scores by name, arrays by name, and the loss of each epoch, as they go into a run's record."""

    scores: dict[str, float | int | bool]
    arrays: dict[str, np.ndarray]
    loss: list[float]


def fit_cell(
    codes: np.ndarray,
    responses: np.ndarray,
    train: np.ndarray,
    evaluate: np.ndarray,
    cell: Cell,
    config: MapperTraining,
    seed: int,
    synergy: dict[str, np.ndarray] | None = None,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    accelerator: Accelerator = Accelerator(),
) -> CellResult:
    """Fit one mapper and score it on the evaluation trials.

    Codes are scaled over the training trials once more before they enter (section 3 of the paper), responses per
    muscle to [0, 1]; all scores are of scaled responses. A "synergy" mapper is trained on the activation matrix of the
    training trials' factorisation (section 2.3), each synergy's activations in [0, 1], or on the muscles where the
    protocol says so. "both" takes a synergy cell's arrays and trains a residual mapper on what that leaves over,
    measured minus predicted.

    Parameters
    ----------
    codes : array, shape (t, n, n, n)
        Codes of all trials.
    responses : array, shape (t, k)
        Peak-to-peak responses in V.
    train, evaluate : int arrays
        Disjoint trials to fit on, and to score.
    cell : Cell
        The mapper; its dropout and l1 take the place of the configuration's.
    config : MapperTraining
        The training protocol.
    seed : int
        Settles initial weights, order of trials, dropout and the factorisation's start.
    synergy : dict of arrays, optional
        ``arrays`` of the synergy cell of the same trials and depth; needed for "both" only.
    checkpoint, on_epoch, accelerator
        As in `fit_mapper`.

    Returns
    -------
    CellResult
        Scores ``nrmse, r2`` (evaluation trials), ``nrmse_train, bic, aicc, criteria_valid, n_parameters,
        residual_variance`` (training trials; for "both" the parameters of both mappers); arrays ``prediction,
        measured (e, k)``, ``evaluate (e,)``, ``nrmse_muscle (k,)``, ``prediction_all (t, k)``, all scaled,
        ``response_minimum, response_range (k,)`` in V, and ``synergy_basis (k, r)`` for synergy and both.

    Raises
    ------
    InputError
        Values that are not finite, trials in both sets, an unknown connection, or "both" without a fitting synergy.
    ConvergenceError
        The training's loss is not finite.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> codes, responses = generator.random((12, 8, 8, 8)), generator.random((12, 3))
    >>> cell = Cell(depth=3, connection="direct")
    >>> result = fit_cell(codes, responses, np.arange(10), np.arange(10, 12), cell, MapperTraining(epochs=1), seed=1)
    >>> result.arrays["prediction"].shape
    (2, 3)
    """
    train, evaluate = check_trials(codes, responses, train, evaluate)
    if cell.connection not in CONNECTIONS:
        raise InputError(f"cell: connection {cell.connection!r} is not known; choose from {', '.join(CONNECTIONS)}.")
    response_scaling = fit_scaling(responses, per="column", rows=train)
    measured = response_scaling.apply(np.asarray(responses, np.float64))
    scaled_codes = fit_scaling(codes, cell.scaling, rows=train).apply(np.asarray(codes, np.float32))
    goal = _GOALS[cell.connection](measured, train, cell, config, seed, synergy, scaled_codes.shape[-1])
    config = replace(config, dropout=cell.dropout, l1=cell.l1)
    module, loss = fit_mapper(
        goal.build, scaled_codes, goal.targets, train, config, seed, checkpoint, on_epoch, accelerator
    )
    prediction = goal.known + _predict(module, scaled_codes)
    parameters = count_parameters(module) + goal.known_parameters
    return CellResult(
        scores=_score(measured, prediction, train, evaluate, parameters),
        arrays={
            "prediction": prediction[evaluate],
            "prediction_all": prediction,
            "nrmse_muscle": nrmse_by_muscle(measured[evaluate], prediction[evaluate]),
            **response_context(measured, evaluate, response_scaling),
            **({} if goal.basis is None else {"synergy_basis": goal.basis}),
        },
        loss=loss,
    )


@dataclass(frozen=True, kw_only=True)
class _Goal:
    """What the mapper is built like and trained on; known is added to its predictions."""

    build: Callable[[], Mapper]
    targets: np.ndarray
    known: np.ndarray | float = 0.0
    known_parameters: int = 0
    basis: np.ndarray | None = None


def _direct_goal(measured, train, cell, config, seed, synergy, n) -> _Goal:
    muscles = measured.shape[1]
    return _Goal(build=_builder(cell, config, "direct", muscles, None, n), targets=measured)


def _builder(cell, config, connection, muscles, basis, n) -> Callable[[], Mapper]:
    how = {"dropout": cell.dropout, "n": n, "activation": cell.activation, "protocol": config.protocol}
    return lambda: build_mapper(cell.depth, connection, muscles, basis, **how)


def _synergy_goal(measured, train, cell, config, seed, synergy, n) -> _Goal:
    factors = fit_synergies(measured[train], config, seed)
    targets = measured
    if protocol_of(config.protocol).fit_activations:
        targets = np.zeros((len(measured), factors.basis.shape[1]))
        targets[train] = factors.activations.T
    basis = torch.from_numpy(factors.basis)
    build = _builder(cell, config, "synergy", len(basis), basis, n)
    return _Goal(build=build, targets=targets, basis=factors.basis)


def fit_synergies(measured, config: MapperTraining, seed: int) -> Synergies:
    """Synergies of scaled training responses (N, k): as many as the protocol says, or as account for its variance."""
    rank = config.synergies
    if not rank:
        curve = vaf_curve(measured.T, None, seed, shuffles=0)
        rank = choose_rank(curve, config.synergy_vaf)
    return fit_nmf(measured.T, rank, seed)


def _residual_goal(measured, train, cell, config, seed, synergy, n) -> _Goal:
    known = None if synergy is None else synergy.get("prediction_all")
    if known is None or known.shape != measured.shape or "synergy_basis" not in synergy:
        found = "nothing" if synergy is None else f"arrays {sorted(synergy)}"
        raise InputError(
            f"cell 'both': the residual mapper learns what a synergy cell leaves over, and was given {found}; it needs "
            f"prediction_all of shape {measured.shape} and synergy_basis. Fit the synergy cell of these trials first."
        )
    muscles, basis = measured.shape[1], synergy["synergy_basis"]
    synergy_mapper = build_mapper(cell.depth, "synergy", muscles, torch.from_numpy(basis), n=n)
    return _Goal(
        build=_builder(cell, config, "residual", muscles, None, n),
        targets=measured - known,
        known=known,
        known_parameters=count_parameters(synergy_mapper),
        basis=basis,
    )


_GOALS = {"direct": _direct_goal, "synergy": _synergy_goal, "both": _residual_goal}


def check_trials(codes, responses, train, evaluate) -> tuple[np.ndarray, np.ndarray]:
    """Trials as int64, after checks: two disjoint sets, finite responses, and finite codes where there are any."""
    train, evaluate = np.asarray(train, np.int64), np.asarray(evaluate, np.int64)
    both = np.intersect1d(train, evaluate)
    codes = np.zeros(len(responses)) if codes is None else codes
    if len(codes) != len(responses) or len(train) == 0 or len(evaluate) == 0 or len(both):
        raise InputError(
            f"cell: {len(codes)} codes, {len(responses)} responses, {len(train)} training and {len(evaluate)} "
            f"evaluation trials, {len(both)} of them in both sets. Codes and responses must be of the same trials, and "
            "a score means something only on trials that were not fitted; give two disjoint sets."
        )
    used = np.concatenate([train, evaluate])
    bad = np.argwhere(~np.isfinite(np.asarray(responses)[used]))
    if len(bad):
        trial, muscle = used[bad[0][0]], bad[0][1]
        raise InputError(
            f"cell: the response of trial {trial}, muscle {muscle} (counted from 0) is not a finite number, as are "
            f"{len(bad) - 1} others; no loss can be computed from it. Leave these trials out or give their responses."
        )
    bad = [i for i in used if not np.isfinite(codes[i]).all()]
    if bad:
        raise InputError(
            f"cell: the code of trial {bad[0]} holds values that are not finite; the mapper would learn nothing from "
            "it. Encode this trial again."
        )
    return train, evaluate


def _predict(module: Mapper, codes: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        parts = [module(part[:, None]) for part in torch.from_numpy(codes).split(64)]
    return torch.cat(parts).double().numpy()


def _score(measured, prediction, train, evaluate, parameters: int) -> dict[str, float | int | bool]:
    residual = (measured - prediction)[train]
    return {
        "nrmse": scores.nrmse(measured[evaluate], prediction[evaluate]),
        "nrmse_train": scores.nrmse(measured[train], prediction[train]),
        "r2": scores.r2(measured[evaluate], prediction[evaluate]),
        "bic": scores.bic(residual, parameters),
        "aicc": scores.aicc(residual, parameters),
        "criteria_valid": scores.criteria_valid(parameters, residual.size),
        "n_parameters": parameters,
        "residual_variance": scores.residual_variance(residual),
    }


def nrmse_by_muscle(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Equation 7 for each muscle: (k,), NaN for one that never responds in these trials."""
    return np.array([scores.nrmse(m, p) for m, p in zip(measured.T, predicted.T, strict=True)])


def response_context(measured: np.ndarray, evaluate: np.ndarray, scaling: Scaling) -> dict[str, np.ndarray]:
    """Arrays that every result holds: what was measured, in which trials, and how to go back to volts."""
    return {
        "measured": measured[evaluate],
        "evaluate": evaluate,
        "response_minimum": np.array(scaling.offset),
        "response_range": np.array(scaling.scale),
    }
