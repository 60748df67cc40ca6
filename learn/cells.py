"""One cell of the results table: a mapper (or the baselines) fitted on training trials and scored on others.

All that is fitted (scalings, synergies, weights, ridge) sees the training trials alone; the others are only predicted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from ..errors import InputError
from . import scores
from .mappers import Mapper, build_mapper, count_parameters
from .scaling import Scaling, fit_scaling
from .synergy import fit_nmf
from .training import MapperTraining, OnEpoch, fit_mapper

CONNECTIONS = ("direct", "synergy", "both")
RIDGE_ALPHAS = tuple(10.0**e for e in range(-4, 7))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Which mapper: depth 3 or 6, connection "direct", "synergy" or "both", dropout share, L1 weight."""

    depth: int
    connection: str
    dropout: float = 0.15
    l1: float = 1e-4


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
) -> CellResult:
    """Fit one mapper and score it on the evaluation trials.

    Codes are min-max scaled over the training trials once more before they enter (section 3 of the paper), responses
    per muscle to [0, 1]; all scores are of scaled responses. A "synergy" mapper is trained on the activation matrix of
    the training trials' factorisation (section 2.3), each synergy's activations in [0, 1]. "both" takes a synergy
    cell's arrays and trains a residual mapper on what that leaves over, measured minus predicted.

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
    checkpoint, on_epoch
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
    train, evaluate = _check_trials(codes, responses, train, evaluate)
    if cell.connection not in CONNECTIONS:
        raise InputError(f"cell: connection {cell.connection!r} is not known; choose from {', '.join(CONNECTIONS)}.")
    response_scaling = fit_scaling(responses, per="column", rows=train)
    measured = response_scaling.apply(np.asarray(responses, np.float64))
    scaled_codes = fit_scaling(codes, rows=train).apply(np.asarray(codes, np.float32))
    goal = _GOALS[cell.connection](measured, train, cell, config, seed, synergy, scaled_codes.shape[-1])
    config = replace(config, dropout=cell.dropout, l1=cell.l1)
    module, loss = fit_mapper(goal.build, scaled_codes, goal.targets, train, config, seed, checkpoint, on_epoch)
    prediction = goal.known + _predict(module, scaled_codes)
    parameters = count_parameters(module) + goal.known_parameters
    return CellResult(
        scores=_score(measured, prediction, train, evaluate, parameters),
        arrays={
            "prediction": prediction[evaluate],
            "prediction_all": prediction,
            "nrmse_muscle": _nrmse_by_muscle(measured[evaluate], prediction[evaluate]),
            **_context(measured, evaluate, response_scaling),
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
    return _Goal(build=lambda: build_mapper(cell.depth, "direct", muscles, None, cell.dropout, n), targets=measured)


def _synergy_goal(measured, train, cell, config, seed, synergy, n) -> _Goal:
    factors = fit_nmf(measured[train].T, config.synergies, seed)
    activations = np.zeros((len(measured), config.synergies))
    activations[train] = factors.activations.T
    basis = torch.from_numpy(factors.basis)
    return _Goal(
        build=lambda: build_mapper(cell.depth, "synergy", len(basis), basis, cell.dropout, n),
        targets=activations,
        basis=factors.basis,
    )


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
        build=lambda: build_mapper(cell.depth, "residual", muscles, None, cell.dropout, n),
        targets=measured - known,
        known=known,
        known_parameters=count_parameters(synergy_mapper),
        basis=basis,
    )


_GOALS = {"direct": _direct_goal, "synergy": _synergy_goal, "both": _residual_goal}


def fit_baselines(
    codes: np.ndarray,
    responses: np.ndarray,
    train: np.ndarray,
    evaluate: np.ndarray,
    expected: np.ndarray | None = None,
    seed: int = 0,
) -> CellResult:
    """Score what any mapper has to beat, and what none can, on the evaluation trials.

    "mean" predicts each muscle's training mean. "ridge" is a linear regression on the scaled codes, its penalty chosen
    by scikit-learn's RidgeCV (leave-one-out on the training trials, one penalty for all muscles). "best_possible"
    predicts the expected response, where it is known (simulated responses): its error is the noise alone.

    Parameters
    ----------
    codes, responses, train, evaluate
        As in `fit_cell`.
    expected : array, shape (t, k), optional
        Mean response in V given pose and intensity.
    seed : int
        Unused, as no baseline draws anything; cells and baselines are called alike.

    Returns
    -------
    CellResult
        Scores ``mean, ridge`` and, with `expected`, ``best_possible`` (NRMSE); arrays ``prediction_<name> (e, k)`` and
        ``nrmse_muscle_<name> (k,)`` for each, ``ridge_alpha ()``, and those that all cells have. No loss.

    Raises
    ------
    InputError
        Values that are not finite, or trials in both sets.

    Examples
    --------
    >>> codes, responses = np.zeros((3, 8, 8, 8)), np.array([[0.0], [1.0], [1.0]])
    >>> fit_baselines(codes, responses, [0, 1], [2]).scores["mean"]
    0.5
    """
    train, evaluate = _check_trials(codes, responses, train, evaluate)
    response_scaling = fit_scaling(responses, per="column", rows=train)
    measured = response_scaling.apply(np.asarray(responses, np.float64))
    scaled = fit_scaling(codes, rows=train).apply(np.asarray(codes, np.float64)).reshape(len(codes), -1)
    ridge = RidgeCV(alphas=RIDGE_ALPHAS).fit(scaled[train], measured[train])
    predictions = {
        "mean": np.tile(measured[train].mean(0), (len(evaluate), 1)),
        "ridge": ridge.predict(scaled[evaluate]).reshape(len(evaluate), -1),
    }
    if expected is not None:
        predictions["best_possible"] = response_scaling.apply(np.asarray(expected, np.float64)[evaluate])
    truth = measured[evaluate]
    return CellResult(
        scores={name: scores.nrmse(truth, prediction) for name, prediction in predictions.items()},
        arrays={
            **{f"prediction_{name}": prediction for name, prediction in predictions.items()},
            **{f"nrmse_muscle_{name}": _nrmse_by_muscle(truth, p) for name, p in predictions.items()},
            "ridge_alpha": np.array(ridge.alpha_),
            **_context(measured, evaluate, response_scaling),
        },
        loss=[],
    )


def _check_trials(codes, responses, train, evaluate) -> tuple[np.ndarray, np.ndarray]:
    train, evaluate = np.asarray(train, np.int64), np.asarray(evaluate, np.int64)
    both = np.intersect1d(train, evaluate)
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


def _nrmse_by_muscle(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.array([scores.nrmse(m, p) for m, p in zip(measured.T, predicted.T, strict=True)])


def _context(measured: np.ndarray, evaluate: np.ndarray, scaling: Scaling) -> dict[str, np.ndarray]:
    return {
        "measured": measured[evaluate],
        "evaluate": evaluate,
        "response_minimum": np.array(scaling.offset),
        "response_range": np.array(scaling.scale),
    }
