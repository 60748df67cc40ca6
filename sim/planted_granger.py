"""Granger causality in closed form, from the autocovariance of a process: what an analysis without error would find.

The variance that the past leaves unexplained comes from the Levinson-Whittle recursion on autocovariances (Whittle,
Biometrika 50 (1963) 129-134), for a channel alone and together with others. Entry [i, j] is the influence j → i::

    F[i, j] = ln(variance of i given its own past / variance of i given the pasts of i and j)

and, where it is conditional, with the pasts of all other channels in both.
"""

import numpy as np

from ..errors import InputError


def prediction_errors(autocovariance) -> np.ndarray:
    """Covariance of the errors of the best linear one-step prediction from p past samples, batched.

    Parameters
    ----------
    autocovariance : ndarray (..., p + 1, m, m)
        Entry [k, i, j] = E[x_i(t) x_j(t - k)].

    Returns
    -------
    ndarray (..., m, m)

    Raises
    ------
    InputError
        Where the process is singular at this order: a channel can be predicted without error.

    Examples
    --------
    >>> lags = 0.5 ** np.arange(4.0) / (1 - 0.25)          # x(t) = 0.5 x(t - 1) + e, unit variance
    >>> prediction_errors(lags[:, None, None]).round(12)
    array([[1.]])
    """
    gamma = np.asarray(autocovariance, dtype=np.float64)
    order, m = gamma.shape[-3] - 1, gamma.shape[-1]
    forward, backward = gamma[..., 0, :, :], gamma[..., 0, :, :]
    ahead = np.zeros((*gamma.shape[:-3], order, m, m))
    behind = np.zeros_like(ahead)
    for k in range(order):
        past = gamma[..., k:0:-1, :, :]
        miss = gamma[..., k + 1, :, :] - np.einsum("...kab,...kbc->...ac", ahead[..., :k, :, :], past)
        try:
            step = np.linalg.solve(backward.swapaxes(-1, -2), miss.swapaxes(-1, -2)).swapaxes(-1, -2)
            back = np.linalg.solve(forward.swapaxes(-1, -2), miss).swapaxes(-1, -2)
        except np.linalg.LinAlgError as error:
            raise _singular(k) from error
        old, turned = ahead[..., :k, :, :].copy(), behind[..., :k, :, :][..., ::-1, :, :].copy()
        ahead[..., :k, :, :] -= step[..., None, :, :] @ turned
        behind[..., :k, :, :] -= back[..., None, :, :] @ old[..., ::-1, :, :]
        ahead[..., k, :, :], behind[..., k, :, :] = step, back
        forward, backward = forward - step @ miss.swapaxes(-1, -2), backward - back @ miss
        if not (np.diagonal(forward, axis1=-2, axis2=-1) > 0).all():
            raise _singular(k)
    return forward


def _singular(order):
    return InputError(
        f"closed-form Granger causality: at order {order + 1} the process is singular, so a channel follows from the "
        "past without error and causality means nothing. Filters that empty a part of the spectrum do this: widen the "
        "band or lower the order."
    )


def granger_of_autocovariance(autocovariance) -> np.ndarray:
    """Pairwise Granger causality (n, n), diagonal 0, at the order of an autocovariance (order + 1, n, n).

    Raises
    ------
    InputError
        Where the process is singular, see `prediction_errors`.
    """
    gamma = np.asarray(autocovariance)
    n = gamma.shape[-1]
    own = prediction_errors(np.einsum("kii->ik", gamma)[..., None, None])[:, 0, 0]
    first, second = np.triu_indices(n, 1)
    pairs = np.stack([first, second], axis=1)
    joint = prediction_errors(gamma[:, pairs[:, :, None], pairs[:, None, :]].swapaxes(0, 1))
    causality = np.zeros((n, n))
    causality[first, second] = np.log(own[first] / joint[:, 0, 0])
    causality[second, first] = np.log(own[second] / joint[:, 1, 1])
    return causality


def conditional_granger_of_autocovariance(autocovariance) -> np.ndarray:
    """Granger causality given all other channels (n, n), diagonal 0; see `granger_of_autocovariance`."""
    gamma = np.asarray(autocovariance)
    n = gamma.shape[-1]
    whole = np.diag(prediction_errors(gamma))
    causality = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        causality[others, j] = np.log(np.diag(prediction_errors(gamma[:, others[:, None], others])) / whole[others])
    return causality


def autocovariance_of_spectrum(spectrum, order: int, every: int = 1) -> np.ndarray:
    """Autocovariance (order + 1, n, n) at multiples of `every` of a cross-spectrum (f, n, n) from 0 to rate/2.

    A process of which every q-th sample is kept has the autocovariance of the whole at multiples of q.
    """
    lags = np.fft.irfft(spectrum, axis=0)
    wanted = np.arange(order + 1) * every
    if wanted[-1] > len(lags) // 2:
        raise InputError(
            f"autocovariance of a planted system: {wanted[-1]} samples of lag were asked, {len(lags) // 2} are known. "
            "Ask for a lower order."
        )
    return lags[wanted]
