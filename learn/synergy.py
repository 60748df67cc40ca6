"""Muscle synergies: non-negative factors of the responses, M ≈ B A (equation 3 of the paper)."""

import logging
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from ..errors import InputError

log = logging.getLogger(__name__)


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
    """

    basis: np.ndarray
    activations: np.ndarray
    vaf: float


def fit_nmf(m: np.ndarray, rank: int, seed: int) -> Synergies:
    """Factorise responses by non-negative matrix factorisation (scikit-learn, coordinate descent, NNDSVDa start).

    A factorisation leaves the scale of each synergy open. It is settled here so that the largest activation of each
    synergy in the trials given is 1: then a sigmoid can produce every activation, and M ≈ B A holds without an offset.
    Synergies are in the order of falling contribution ‖b‖·‖a‖.

    Parameters
    ----------
    m : array, shape (k, N)
        Non-negative responses of the training trials.
    rank : int
        Number of synergies r, at most min(k, N).
    seed : int
        Seed of the solver's sweep and of the start's small random part.

    Returns
    -------
    Synergies

    Raises
    ------
    InputError
        Negative or non-finite responses, or a rank that cannot be.

    Examples
    --------
    >>> round(fit_nmf(np.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]]), rank=1, seed=0).vaf, 6)
    1.0
    """
    m = np.asarray(m, np.float64)
    if m.ndim != 2 or not 1 <= rank <= min(m.shape):
        raise InputError(
            f"synergies: {rank} synergies were asked of responses of shape {m.shape} (muscles, trials); there can be "
            "1 to the smaller of the two. Change [mappers] synergies."
        )
    if not np.isfinite(m).all() or m.min() < 0:
        raise InputError(
            "synergies: the responses hold negative or non-finite values, of which no non-negative factors exist; "
            "scale them to [0, 1] first (fit_scaling with per='column')."
        )
    model = NMF(rank, init="nndsvda", random_state=seed, max_iter=5000, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            basis = model.fit_transform(m)
        except ConvergenceWarning:
            warnings.simplefilter("ignore", ConvergenceWarning)
            basis = model.fit_transform(m)
            log.warning("synergies: the factorisation still improves after %d sweeps; it is used as it is", 5000)
    return _normalised(m, basis, model.components_)


def _normalised(m: np.ndarray, basis: np.ndarray, activations: np.ndarray) -> Synergies:
    largest = activations.max(axis=1)
    largest = np.where(largest > 0, largest, 1.0)  # a synergy that is never active stays zero
    basis, activations = basis * largest, activations / largest[:, None]
    order = np.argsort(-np.linalg.norm(basis, axis=0) * np.linalg.norm(activations, axis=1), kind="stable")
    basis, activations = basis[:, order], activations[order]
    total = np.sum(m**2)
    vaf = 1.0 - float(np.sum((m - basis @ activations) ** 2) / total) if total > 0 else 1.0
    return Synergies(basis=basis, activations=activations, vaf=vaf)
