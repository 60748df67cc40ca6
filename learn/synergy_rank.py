"""How many muscle synergies: variance accounted for (VAF) by rank, and the same for muscles that share nothing."""

import logging
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import NMF
from threadpoolctl import threadpool_limits

from ..errors import InputError
from .factors import SWEEPS, Synergies, best_start, check_nonnegative, fit_once, fit_starts, variance_accounted_for

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Of the solver along the curve: VAF is within some 1e-4 of `fit_nmf`'s for the same start, in a third of the time."""

KNEE_ERROR = 1e-4
"""Largest mean square error of a straight line (VAF between 0 and 1) that is taken for the curve's end."""


@dataclass(frozen=True, kw_only=True)
class VafCurve:
    """VAF by rank.

    Parameters
    ----------
    rank : array of int, shape (R,)
        1, 2, … R.
    vaf : array, shape (R,)
        Of all muscles together; never falls.
    vaf_muscle : array, shape (R, k)
        Of each muscle; 1 for one that never responds.
    chance : array, shape (R,)
        Mean VAF of responses that are shuffled over the trials, each muscle on its own: what the muscles' amplitudes
        give without anything that they have in common.
    """

    rank: np.ndarray
    vaf: np.ndarray
    vaf_muscle: np.ndarray
    chance: np.ndarray


def vaf_curve(m: np.ndarray, max_rank: int | None, seed: int, starts: int = 2, shuffles: int = 2) -> VafCurve:
    """VAF of factorisations of rank 1 to `max_rank`, overall, per muscle, and of shuffled responses.

    Parameters
    ----------
    m : array, shape (k, N)
        Non-negative responses of the training trials.
    max_rank : int or None
        Largest rank; min(k, N) where it is None or larger than that.
    seed, starts
        As in `fit_nmf`. A rank that these leave below the one before goes on from that one's factors.
    shuffles : int
        Shuffled responses to average over, one start each; with 0 `chance` is NaN.

    Returns
    -------
    VafCurve

    Raises
    ------
    InputError
        Negative or non-finite responses, or numbers below 1.

    Examples
    --------
    >>> m = np.outer([1.0, 2.0, 1.0], [1.0, 0.0, 3.0, 1.0]) + np.outer([0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 0.0])
    >>> vaf_curve(m, None, seed=0).vaf.round(3).tolist()
    [0.953, 1.0, 1.0]
    """
    m = check_nonnegative(m)
    most = min(m.shape) if max_rank is None else min(max_rank, *m.shape)
    if most < 1 or shuffles < 0:
        raise InputError(
            f"synergies: a curve up to rank {max_rank} against {shuffles} shuffles was asked for; the rank must be 1 "
            "or more, and no number of shuffles is negative."
        )
    found = _by_rank(m, most, seed, starts)
    generator = np.random.default_rng([seed, most])
    shuffled = [_vaf(_by_rank(generator.permuted(m, axis=1), most, seed, 1)) for _ in range(shuffles)]
    return VafCurve(
        rank=np.arange(1, most + 1),
        vaf=_vaf(found),
        vaf_muscle=np.array([variance_accounted_for(m, each.basis @ each.activations, axis=1) for each in found]),
        chance=np.mean(shuffled, axis=0) if shuffles else np.full(most, np.nan),
    )


def _vaf(found):
    return np.maximum.accumulate([each.vaf for each in found])  # of rounding; _by_rank does the rest


def choose_rank(
    curve: VafCurve, threshold: float = 0.9, muscle_threshold: float = 0.0, criterion: str = "threshold"
) -> int:
    """Number of synergies by one of the two criteria of the literature.

    ``"threshold"``: the smallest rank whose VAF reaches `threshold`, and that of every muscle `muscle_threshold`; the
    largest of the curve where none does (with a warning in the log). ``"knee"``: the smallest rank from which on the
    curve is a straight line to 1e-4; what comes after is taken for noise (as in figure 2 of
    doi:10.1186/s12984-018-0469-5). The last two ranks are always a line, so a knee there says that the curve ends too
    soon.

    Parameters
    ----------
    curve : VafCurve
    threshold, muscle_threshold : float
        Above 0 and up to 1; 0 for no demand on single muscles.
    criterion : {"threshold", "knee"}

    Returns
    -------
    int
        At most min(k, N), where the curve ends.

    Raises
    ------
    InputError
        For another criterion, or thresholds that are no shares.

    Examples
    --------
    >>> muscles = np.array([[0.6, 0.8], [0.85, 0.95], [0.95, 0.97]])
    >>> curve = VafCurve(rank=np.arange(1, 4), vaf=np.array([0.7, 0.92, 0.96]), vaf_muscle=muscles, chance=np.zeros(3))
    >>> choose_rank(curve, 0.9), choose_rank(curve, 0.9, muscle_threshold=0.9)
    (2, 3)
    """
    if criterion == "knee":
        return _knee(curve)
    if criterion != "threshold" or not (0 < threshold <= 1 and 0 <= muscle_threshold <= 1):
        raise InputError(
            f"choosing the number of synergies: criterion {criterion!r} with thresholds {threshold:g} and "
            f"{muscle_threshold:g}; it must be 'threshold' with shares of variance up to 1, such as 0.9, or 'knee'."
        )
    enough = (curve.vaf >= threshold) & (curve.vaf_muscle >= muscle_threshold).all(axis=1)
    if enough.any():
        return int(curve.rank[enough.argmax()])
    log.warning(
        "synergies: no rank up to %d reaches %g of the variance (of single muscles %g); %d are taken",
        *(curve.rank[-1], threshold, muscle_threshold, curve.rank[-1]),
    )
    return int(curve.rank[-1])


def _knee(curve) -> int:
    for start in range(len(curve.rank)):
        rank, vaf = curve.rank[start:], curve.vaf[start:]
        if len(rank) <= 2 or np.mean((np.polyval(np.polyfit(rank, vaf, 1), rank) - vaf) ** 2) < KNEE_ERROR:
            break
    return int(curve.rank[start])


def _by_rank(m, most, seed, starts) -> list[Synergies]:
    found = []
    for rank in range(1, most + 1):
        best = best_start(fit_starts(m, rank, seed, starts, TOLERANCE))
        if found and best.vaf < found[-1].vaf:
            best = max(best, _one_more(m, found[-1], seed), key=lambda each: each.vaf)
        found.append(best)
    return found


def _one_more(m, before, seed) -> Synergies:
    """Factors that go on from those of a rank less; coordinate descent never makes them worse."""
    missing = np.maximum(m - before.basis @ before.activations, 0).sum(axis=1, keepdims=True)
    basis = np.hstack([before.basis, missing])
    activations = np.vstack([before.activations, np.zeros((1, m.shape[1]))])
    model = NMF(basis.shape[1], init="custom", random_state=seed, max_iter=SWEEPS, tol=TOLERANCE)
    with threadpool_limits(1):
        return fit_once(m, model, W=basis, H=activations)
