"""Non-negative factors of responses by scikit-learn: from several starts, scaled and put into order."""

import logging
import warnings
from dataclasses import dataclass, field

import numpy as np
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ..errors import InputError

log = logging.getLogger(__name__)

SWEEPS = 5000
_TIE = 1e-9  # of VAF; a later start must be better by more than rounding, which differs between machines


@dataclass(frozen=True, kw_only=True)
class Synergies:
    """Factors of a response matrix M (k muscles, N trials).

    Parameters
    ----------
    basis : array, shape (k, r)
        B: how much each muscle takes part in each synergy, for an activation of 1; in the unit of M.
    activations : array, shape (r, N)
        A: activation of each synergy in each trial, in [0, 1]; the largest of each synergy is 1.
    vaf : float
        Variance accounted for, 1 - ‖M - BA‖² / ‖M‖² (Frobenius norms, about zero).
    vaf_starts : array, shape (s,)
        VAF that each start ended with; the first is NNDSVDa's.
    agreement : float
        Smallest cosine between a synergy and its match in another start: near 1 where the factorisation is settled by
        the responses, lower where the start decides. 1 for a single start.
    """

    basis: np.ndarray
    activations: np.ndarray
    vaf: float
    vaf_starts: np.ndarray = field(default_factory=lambda: np.ones(1))
    agreement: float = 1.0

    @property
    def spread(self) -> float:
        """Largest less smallest VAF of the starts."""
        return float(np.ptp(self.vaf_starts))


def check_nonnegative(m) -> np.ndarray:
    """Responses (k, N) as float64, or an InputError where they have no non-negative factors."""
    m = np.asarray(m, np.float64)
    if m.ndim != 2 or not m.size:
        raise InputError(
            f"synergies: the responses have shape {m.shape}; they must be a table of muscles by trials, with one of "
            "each at least."
        )
    if not np.isfinite(m).all() or m.min() < 0:
        raise InputError(
            "synergies: the responses hold negative or non-finite values, of which no non-negative factors exist; "
            "scale them to [0, 1] first (fit_scaling with per='column')."
        )
    return m


def fit_starts(m, rank, seed, starts, tolerance) -> list[Synergies]:
    """Factors from each start; one thread, since sums of several threads differ in their last bits."""
    if starts < 1:
        raise InputError(f"synergies: {starts} starts were asked for; a factorisation needs 1 at least.")
    if not m.any():
        zero = Synergies(basis=np.zeros((len(m), rank)), activations=np.zeros((rank, m.shape[1])), vaf=1.0)
        return [zero] * starts
    seeds = [seed, *np.random.default_rng([seed, rank]).integers(2**31, size=starts - 1).tolist()]
    with threadpool_limits(1):
        return [
            fit_once(m, NMF(rank, init=init, random_state=each, max_iter=SWEEPS, tol=tolerance))
            for each, init in zip(seeds, ["nndsvda"] + ["random"] * (starts - 1), strict=True)
        ]


def fit_once(m, model, **start) -> Synergies:
    """Factors that a scikit-learn model finds from its start, or from a given one (W and H)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        basis = model.fit_transform(m, **start)
    if any(issubclass(each.category, ConvergenceWarning) for each in caught):
        log.debug("synergies: rank %d still improves after %d sweeps; it is used as it is", model.n_components, SWEEPS)
    return _normalised(m, basis, model.components_)


def best_start(found) -> Synergies:
    """The first of those whose VAF is the largest but for rounding."""
    top = max(each.vaf for each in found)
    return next(each for each in found if each.vaf >= top - _TIE)


def _normalised(m: np.ndarray, basis: np.ndarray, activations: np.ndarray) -> Synergies:
    largest = activations.max(axis=1)
    largest = np.where(largest > 0, largest, 1.0)  # a synergy that is never active stays zero
    basis, activations = basis * largest, activations / largest[:, None]
    order = np.argsort(-np.linalg.norm(basis, axis=0) * np.linalg.norm(activations, axis=1), kind="stable")
    basis, activations = basis[:, order], activations[order]
    return Synergies(basis=basis, activations=activations, vaf=float(variance_accounted_for(m, basis @ activations)))


def variance_accounted_for(m: np.ndarray, modelled: np.ndarray, axis=None) -> np.ndarray:
    """1 - ‖M - M'‖² / ‖M‖², over all or along an axis; 1 where there is nothing to account for.

    Examples
    --------
    >>> variance_accounted_for(np.array([[3.0, 4.0], [0.0, 0.0]]), np.zeros((2, 2)), axis=1).tolist()
    [0.0, 1.0]
    """
    total, missed = np.sum(m**2, axis=axis), np.sum((m - modelled) ** 2, axis=axis)
    return 1.0 - np.divide(missed, total, out=np.zeros_like(missed), where=total > 0)
