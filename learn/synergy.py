"""Muscle synergies: non-negative factors of the responses, M ≈ B A (equation 3 of the paper).

What a factorisation finds depends on where it starts, its rank on how much variance is to be accounted for, and the
order of its synergies means nothing: so there are several starts, the curve by rank (of `synergy_rank`, offered here),
and the matching of two bases.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import InputError
from .factors import Synergies, best_start, check_nonnegative, fit_starts, variance_accounted_for
from .synergy_rank import VafCurve, choose_rank, vaf_curve

__all__ = [
    "Synergies",
    "VafCurve",
    "choose_rank",
    "fit_nmf",
    "match_synergies",
    "vaf_curve",
    "variance_accounted_for",
]

TOLERANCE = 1e-6
"""Of the solver: its projected gradient against that of the start."""


def fit_nmf(m: np.ndarray, rank: int, seed: int, starts: int = 4) -> Synergies:
    """Factorise responses by non-negative matrix factorisation (scikit-learn, coordinate descent, several starts).

    The first start is NNDSVDa, the others are random; the best VAF is kept. A factorisation leaves the scale of each
    synergy open. It is settled here so that the largest activation of each synergy in the trials given is 1: then a
    sigmoid can produce every activation, and M ≈ B A holds without an offset. Synergies are in the order of falling
    contribution ‖b‖·‖a‖.

    Parameters
    ----------
    m : array, shape (k, N)
        Non-negative responses of the training trials.
    rank : int
        Number of synergies r, at most min(k, N).
    seed : int
        Seed of the solver's sweeps and of the random starts.
    starts : int
        Number of starts s, 1 or more.

    Returns
    -------
    Synergies
        The same to the bit for the same arguments, with any number of threads.

    Raises
    ------
    InputError
        Negative or non-finite responses, or a rank or number of starts that cannot be.

    Examples
    --------
    >>> found = fit_nmf(np.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]]), rank=1, seed=0)
    >>> round(found.vaf, 6), found.basis.round(6).ravel().tolist()
    (1.0, [2.0, 4.0, 0.0])
    """
    m = check_nonnegative(m)
    if not 1 <= rank <= min(m.shape):
        raise InputError(
            f"synergies: {rank} synergies were asked of responses of shape {m.shape} (muscles, trials); there can be "
            "1 to the smaller of the two. Change [mappers] synergies."
        )
    found = fit_starts(m, rank, seed, starts, TOLERANCE)
    best = best_start(found)
    cosines = [match_synergies(other.basis, best.basis)[1].min() for other in found if other is not best]
    return Synergies(
        basis=best.basis,
        activations=best.activations,
        vaf=best.vaf,
        vaf_starts=np.array([each.vaf for each in found]),
        agreement=float(min(cosines, default=1.0)),
    )


def match_synergies(basis: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair the synergies of two factorisations so that the sum of their cosine similarities is largest.

    Parameters
    ----------
    basis : array, shape (k, r)
        To be matched.
    reference : array, shape (k, q)
        Of the same muscles.

    Returns
    -------
    order : array of int, shape (q,)
        Column of `basis` that belongs to each column of `reference`; -1 where `basis` has none left (r < q).
        ``basis[:, order]`` is in the reference's order where r ≥ q.
    cosine : array, shape (q,)
        Similarity of each pair, in [0, 1] for non-negative bases; 0 where a column is zero, NaN where there is no pair.

    Raises
    ------
    InputError
        Where the bases are of different muscles, or hold values that are not finite.

    Examples
    --------
    >>> order, cosine = match_synergies(np.array([[0.0, 2.0], [3.0, 0.0]]), np.eye(2))
    >>> order.tolist(), cosine.tolist()
    ([1, 0], [1.0, 1.0])
    """
    basis, reference = np.asarray(basis, np.float64), np.asarray(reference, np.float64)
    if basis.ndim != 2 or reference.ndim != 2 or len(basis) != len(reference):
        raise InputError(
            f"matching synergies: bases of shapes {basis.shape} and {reference.shape} (muscles, synergies) are not of "
            "the same muscles, so their synergies cannot be compared. Give two bases of the same muscles."
        )
    if not (np.isfinite(basis).all() and np.isfinite(reference).all()):
        raise InputError(
            "matching synergies: a basis holds values that are not finite, which have no similarity to anything. Fit "
            "it again."
        )
    similarity = _unit_columns(reference).T @ _unit_columns(basis)
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    order, cosine = np.full(reference.shape[1], -1), np.full(reference.shape[1], np.nan)
    order[rows], cosine[rows] = columns, similarity[rows, columns]
    return order, cosine


def _unit_columns(basis):
    largest = np.abs(basis).max(axis=0, initial=0.0)
    scaled = basis / np.where(largest > 0, largest, 1.0)  # squares of tiny or huge numbers would be lost
    norms = np.linalg.norm(scaled, axis=0)
    return scaled / np.where(norms > 0, norms, 1.0)
