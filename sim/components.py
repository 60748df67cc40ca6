"""Independent components of an EEG.

The components are made by scikit-learn's FastICA (symmetric, log cosh) on whitened data. Channels are whitened here, to
the rank that they have, so that data that were referenced or interpolated are decomposed without false dimensions.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

RANK_TOLERANCE = 1e-9
"""Eigenvalues of a correlation matrix below this share of the largest count as zero."""

_ALONE_STEPS, _ALONE_TOLERANCE = 200, 1e-13
_SAME = 0.9  # cosine of the angle by which a component may turn and still be the one that was judged
SETTLED = 0.01
"""A component has settled when one more iteration turns it by less than this (1 - |cosine|)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """Independent components: ``courses = unmixing @ eeg``, ``eeg = mixing @ courses`` within the EEG's rank.

    Attributes
    ----------
    unmixing : ndarray (c, n)
        Per volt; courses have unit variance.
    mixing : ndarray (n, c)
        Topographies in volts, sorted by the variance that they explain; the largest entry of each is positive.
    courses : ndarray (c, samples)
    rate_hz : float
        Of the courses.
    iterations : int
        That were done.
    settled : ndarray (c,) bool
        Which components one more iteration turns by less than `SETTLED`. Nearly Gaussian ones have no direction of
        their own and need not settle; an artefact's must.
    """

    unmixing: np.ndarray
    mixing: np.ndarray
    courses: np.ndarray
    rate_hz: float
    iterations: int
    settled: np.ndarray

    def without(self, components) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (n, n) that takes components out of an EEG and leaves all else as it is.

        Before, each is turned on alone until it settles (see `_alone`). All together they stop where the iterations
        end as long as Gaussian ones still turn, and what that leaves of an artefact in the EEG is other from one start,
        or kind of processor, to the next.

        Parameters
        ----------
        components : sequence of int

        Returns
        -------
        matrix : ndarray (n, n)
            To be multiplied with the EEG from the left.
        settled : ndarray (components,) bool
            Which of them settled alone; one that did not is taken out as the decomposition left it.

        Examples
        --------
        >>> matrix, settled = components.without([0])                             # doctest: +SKIP
        """
        picked, settled = np.zeros((0, len(self.courses))), []
        for component in components:
            direction, calm = _alone(self.courses, component, picked)
            picked, settled = np.vstack([picked, direction]), [*settled, calm]
        matrix = np.eye(len(self.mixing)) - self.mixing @ picked.T @ picked @ self.unmixing
        return matrix, np.array(settled, dtype=bool)


def numerical_rank(signal, spread=None) -> int:
    """Rank of signals (n, samples), whatever the units of each row: see `RANK_TOLERANCE`.

    Parameters
    ----------
    signal : ndarray (n, samples)
    spread : ndarray (n,), optional
        What counts as one on each row; its standard deviation unless given. Where something was subtracted, the
        standard deviation before, so that rounding errors that are left do not count as dimensions.

    Examples
    --------
    >>> waves = np.random.default_rng(0).normal(size=(3, 100))
    >>> numerical_rank(waves), numerical_rank(waves - waves.mean(axis=0))
    (3, 2)
    """
    values = np.linalg.eigvalsh(_correlation(signal, spread)[0])
    return int((values > RANK_TOLERANCE * max(values[-1], 1.0)).sum())


def _correlation(signal, spread=None):
    centred = signal - signal.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1)) if spread is None else spread
    scaled = centred / np.where(spread > 0, spread, 1.0)[:, None]
    return scaled @ scaled.T / signal.shape[1], spread


def independent_components(eeg, rate_hz: float, *, seed=0, iterations=100, tolerance=1e-4) -> Components:
    """Decompose an EEG into as many independent components as it has dimensions.

    Parameters
    ----------
    eeg : ndarray (n, samples)
        Volts, high-passed.
    rate_hz : float
    seed : int
        Of the start.
    iterations, tolerance : int, float
        FastICA ends when no component turns by more than the tolerance (1 - |cos|), or after so many iterations.

    Returns
    -------
    Components

    Raises
    ------
    InputError
        Where there are fewer samples than twenty times the channels, samples that are not finite, or a flat channel.
    """
    eeg = np.asarray(eeg, dtype=np.float64)
    n, samples = eeg.shape
    if samples < 20 * n or not np.isfinite(eeg).all() or not np.ptp(eeg, axis=1).all():
        raise InputError(
            f"independent components of {n} channels: {samples} samples, "
            f"{np.count_nonzero(~np.isfinite(eeg).all(axis=1))} channels with NaN, "
            f"{np.count_nonzero(np.ptp(eeg, axis=1) == 0)} flat. "
            f"At least {20 * n} finite samples and no flat channel are needed: leave channels out, or switch ICA off "
            "(ica = false)."
        )
    whitening, colouring = _whitening(eeg)
    white = whitening @ (eeg - eeg.mean(axis=1, keepdims=True))
    rotation, done = _rotation(white, seed, iterations, tolerance)
    mixing = colouring @ rotation.T
    order = np.argsort(-(mixing**2).sum(axis=0), kind="stable")
    sign = np.sign(mixing[np.abs(mixing).argmax(axis=0), np.arange(mixing.shape[1])])
    turned = (rotation * sign[:, None])[order]
    return Components(
        unmixing=turned @ whitening,
        mixing=(mixing * sign)[:, order],
        courses=turned @ white,
        rate_hz=rate_hz,
        iterations=done,
        settled=1 - np.abs((_next(turned, white) * turned).sum(axis=1)) < SETTLED,
    )


def _whitening(eeg):
    """(r, n) to unit covariance and (n, r) back, within the rank."""
    correlation, spread = _correlation(eeg)
    values, vectors = np.linalg.eigh(correlation)
    kept = values > RANK_TOLERANCE * values[-1]
    root, vectors = np.sqrt(values[kept]), vectors[:, kept]
    return (vectors / root).T / spread, vectors * root * spread[:, None]


def _rotation(white, seed, iterations, tolerance):
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    start = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(white), len(white))))[0].astype(np.float32)
    model = FastICA(algorithm="parallel", whiten=False, fun="logcosh", w_init=start, max_iter=iterations, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Single precision is twice as fast; what it leaves of non-orthogonality is taken out below.
        model.fit(white.T.astype(np.float32))
    return _orthonormal(model.components_.astype(np.float64)), int(model.n_iter_)


def _orthonormal(rows):
    left, _, right = np.linalg.svd(rows)
    return left @ right


def _next(rotation, white):
    """One more step of the fixed-point iteration."""
    bent = np.tanh(rotation @ white)
    slope = (1 - bent**2).mean(axis=1)
    return _orthonormal(bent @ white.T / white.shape[1] - slope[:, None] * rotation)


def _alone(courses, component, others):
    """Where one component settles by itself: direction (c,) among white courses at right angles to `others` (k, c).

    And whether it did. The fixed-point iteration for a single component (Hyvärinen 1999), from where the
    decomposition left it. One that has no direction of its own, or finds that of another component, stays as it was.
    """
    start = np.eye(len(courses))[component]
    start = start - others.T @ (others @ start)
    start /= np.linalg.norm(start)
    direction = start
    for _ in range(_ALONE_STEPS):
        bent = np.tanh(direction @ courses)
        after = courses @ bent / len(bent) - (1 - bent**2).mean() * direction
        after -= others.T @ (others @ after)
        after /= np.linalg.norm(after)
        turned = 1 - abs(after @ direction)
        direction = after
        if turned < _ALONE_TOLERANCE:
            found = bool(abs(direction @ start) > _SAME)
            return (direction if found else start), found
    return start, False
