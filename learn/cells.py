"""One cell of the results table: a mapper fitted on training trials and scored on others.

All that is fitted (scalings, synergies, weights) sees the training trials alone; the others are only predicted.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from . import scores
from .accelerator import Accelerator
from .goals import GOALS, Goal
from .mappers import Mapper, count_parameters
from .protocols import MapperTraining
from .scaling import Scaling, fit_scaling
from .training import OnEpoch, fit_mapper

CONNECTIONS = tuple(GOALS)


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
    prepared = prepare_cell(codes, responses, train, evaluate, cell, config, seed, synergy)
    return prepared.finish(*fit_mapper(*prepared.mapper, seed, checkpoint, on_epoch, accelerator))


@dataclass(frozen=True, kw_only=True)
class PreparedCell:
    """A cell before its mapper is trained: scaled, and with the mapper's goal.

    Parameters
    ----------
    codes : array, shape (t, n, n, n)
        Scaled codes.
    measured : array, shape (t, k)
        Scaled responses.
    response_scaling : Scaling
    train, evaluate : int arrays
    goal : Goal
    config : MapperTraining
        With the cell's dropout and penalty.
    """

    codes: np.ndarray
    measured: np.ndarray
    response_scaling: Scaling
    train: np.ndarray
    evaluate: np.ndarray
    goal: Goal
    config: MapperTraining

    @property
    def mapper(self):
        """What `fit_mapper` is given: build, codes, targets, training trials, protocol."""
        return self.goal.build, self.codes, self.goal.targets, self.train, self.config

    def finish(self, module: Mapper, loss: list[float]) -> CellResult:
        """The result of `fit_cell`, once the mapper is trained."""
        prediction = self.goal.known + _predict(module, self.codes)
        parameters = count_parameters(module) + self.goal.known_parameters
        measured, evaluate = self.measured, self.evaluate
        return CellResult(
            scores=_score(measured, prediction, self.train, evaluate, parameters),
            arrays={
                "prediction": prediction[evaluate],
                "prediction_all": prediction,
                "nrmse_muscle": nrmse_by_muscle(measured[evaluate], prediction[evaluate]),
                **response_context(measured, evaluate, self.response_scaling),
                **({} if self.goal.basis is None else {"synergy_basis": self.goal.basis}),
            },
            loss=loss,
        )


def prepare_cell(codes, responses, train, evaluate, cell, config, seed, synergy=None) -> PreparedCell:
    """Scale and factorise for a cell; parameters and errors as of `fit_cell`."""
    train, evaluate = check_trials(codes, responses, train, evaluate)
    if cell.connection not in CONNECTIONS:
        raise InputError(f"cell: connection {cell.connection!r} is not known; choose from {', '.join(CONNECTIONS)}.")
    response_scaling = fit_scaling(responses, per="column", rows=train)
    measured = response_scaling.apply(np.asarray(responses, np.float64))
    scaled = fit_scaling(codes, cell.scaling, rows=train).apply(np.asarray(codes, np.float32))
    return PreparedCell(
        codes=scaled,
        measured=measured,
        response_scaling=response_scaling,
        train=train,
        evaluate=evaluate,
        goal=GOALS[cell.connection](measured, train, cell, config, seed, synergy, scaled.shape[-1]),
        config=replace(config, dropout=cell.dropout, l1=cell.l1),
    )


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
