"""What follows from a vector autoregression itself, without data: stability, covariances, Granger causality."""

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from ..errors import InputError

_FEWEST_FREQUENCIES, _MOST_FREQUENCIES = 256, 8192
# Prediction variances that have settled: the fall by one more order, over what is left.
_SETTLED, _MOST_LAGS = 1e-13, 1500


def spectral_radius(coefficients) -> np.ndarray:
    """Largest modulus of the roots of a VAR (…, order, c, c): below 1 where it is stable.

    It is that of the eigenvalues of the companion matrix (Lütkepohl 2005, section 2.1).

    Examples
    --------
    >>> float(spectral_radius(np.array([[[0.5, 0.0], [3.0, -0.9]]])).round(6))
    0.9
    """
    a = np.asarray(coefficients, np.float64)
    return np.abs(np.linalg.eigvals(_companion(a))).max(axis=-1)


def is_stable(coefficients) -> np.ndarray:
    """Whether a VAR (…, order, c, c) is stable: without its companion's eigenvalues, in a tenth of their time.

    det(I - Σ A_k z^k) must have no root within the unit circle. How many it has is how often its value winds round zero
    as z goes round the circle (the argument principle); the circle is sampled until that count is sure. Where it is not
    by some thousands of frequencies, roots lie on the circle or nearly so, and the eigenvalues decide.

    Examples
    --------
    >>> is_stable(np.array([[[0.5, 0.0], [3.0, -0.9]]])), is_stable(np.array([[[1.1]]]))
    (array(True), array(False))
    """
    a = np.asarray(coefficients, np.float64)
    flat = a.reshape(-1, *a.shape[-3:])
    return np.array([_stable(each) for each in flat]).reshape(a.shape[:-3])


def _stable(a: np.ndarray) -> bool:
    p, c, _ = a.shape
    polynomial = np.concatenate([np.eye(c)[None], -a]).reshape(p + 1, c * c)
    count, before = max(_FEWEST_FREQUENCIES, 1 << (8 * p).bit_length()), None
    while count <= _MOST_FREQUENCIES:
        values = np.fft.rfft(polynomial, count, axis=0).reshape(-1, c, c)
        sign, _size = np.linalg.slogdet(values)
        steps = np.angle(sign[1:] * sign[:-1].conj())
        roots = round(float(steps.sum()) / np.pi) if (sign != 0).all() else None
        # A count that two samplings share, the finer one without a leap, is not an accident of sampling.
        if roots is not None and roots == before and np.abs(steps).max() < 0.5 * np.pi:
            return roots == 0
        count, before = 2 * count, roots
    return bool(spectral_radius(a) < 1)


def _companion(a: np.ndarray) -> np.ndarray:
    *lead, p, c, _ = a.shape
    out = np.zeros((*lead, p * c, p * c))
    out[..., :c, :] = np.swapaxes(a, -3, -2).reshape(*lead, c, p * c)
    out[..., c:, :-c] = np.eye((p - 1) * c)
    return out


def autocovariance(coefficients, noise_covariance, lags: int) -> np.ndarray:
    """Γ_h = E x_t x_{t-h}ᵀ, (lags + 1, c, c), of a stable VAR (Lütkepohl 2005, section 2.1.4).

    Parameters
    ----------
    coefficients : array_like (order, c, c)
        Entry [k, i, j] of x_i on x_j lagged by k + 1.
    noise_covariance : array_like (c, c)
        Of the white noise, u² for channels in a unit u.
    lags : int
        Largest h.

    Raises
    ------
    InputError
        Shapes that do not fit, noise that is no covariance, or a VAR that is not stable.

    Examples
    --------
    >>> autocovariance([[[0.5]]], [[3.0]], 2).ravel().round(9)
    array([4., 2., 1.])
    """
    a, noise = _checked_var(coefficients, noise_covariance)
    p, c, _ = a.shape
    drive = np.zeros((p * c, p * c))
    drive[:c, :c] = noise
    state = solve_discrete_lyapunov(_companion(a), drive)
    gammas = [state[:c, h * c : (h + 1) * c] for h in range(p)]
    while len(gammas) <= lags:
        gammas.append(sum(a[k] @ gammas[-1 - k] for k in range(p)))
    return np.array(gammas[: lags + 1])


def _checked_var(coefficients, noise_covariance) -> tuple[np.ndarray, np.ndarray]:
    a, noise = np.asarray(coefficients, np.float64), np.asarray(noise_covariance, np.float64)
    if a.ndim != 3 or a.shape[1] != a.shape[2] or noise.shape != a.shape[1:] or not len(a):
        raise InputError(
            f"VAR: coefficients are {a.shape} and the noise covariance {noise.shape}; give (order, c, c) and (c, c)."
        )
    if not (np.isfinite(a).all() and np.isfinite(noise).all()):
        raise InputError("VAR: a coefficient or a noise covariance is NaN or infinite.")
    if not np.allclose(noise, noise.T, rtol=1e-8, atol=0) or np.linalg.eigvalsh(noise)[0] <= 0:
        raise InputError("VAR: the noise covariance is not symmetric and positive definite, so it is no covariance.")
    radius = float(spectral_radius(a))
    if radius >= 1:
        raise InputError(
            f"VAR: its largest root has modulus {radius:.6g}, so it is not stable and has no covariance or spectrum. "
            "Shrink the coefficients (A_k by s^k divides the roots' moduli by 1/s)."
        )
    return a, noise


def granger_of_var(coefficients, noise_covariance, *, conditional: bool = False, order: int | None = None):
    """Granger causality of a known VAR: what `granger` would find in endless data.

    ln(variance of the best prediction of i without j's past / with it), from the VAR's autocovariances by the recursion
    of Whittle (1963) and Wiggins and Robinson (1965): a part of a VAR's channels is in general a VAR of infinite order,
    so orders are added until the variances have settled.

    Parameters
    ----------
    coefficients : array_like (p, c, c)
        Entry [k, i, j] of x_i on x_j lagged by k + 1.
    noise_covariance : array_like (c, c)
        Positive definite.
    conditional : bool
        Given the past of all other channels; otherwise of each pair alone.
    order : int, optional
        As many lags only, as a fit of that order has; all that matter unless given.

    Returns
    -------
    ndarray (c, c)
        [i, j] from j to i, the diagonal zero.

    Raises
    ------
    InputError
        As `autocovariance`; or variances that do not settle within 1 500 lags.

    Examples
    --------
    >>> a = np.array([[[0.0, 0.5], [0.0, 0.0]]])
    >>> granger_of_var(a, np.eye(2)).round(6)  # ln 1.25
    array([[0.      , 0.223144],
           [0.      , 0.      ]])
    """
    a, noise = _checked_var(coefficients, noise_covariance)
    c = len(noise)
    gamma = autocovariance(a, noise, _MOST_LAGS if order is None else order)
    settle = None if order is not None else 4 * len(a) + 8
    found = np.maximum(_causality(gamma, conditional, settle), 0.0)
    found[range(c), range(c)] = 0.0
    return found


def _causality(gamma: np.ndarray, conditional: bool, settle: int | None) -> np.ndarray:
    """ln(restricted / full) from autocovariances (lags + 1, c, c)."""
    c = gamma.shape[1]
    found = np.zeros((c, c))
    if conditional:
        parts = np.array([[i for i in range(c) if i != j] for j in range(c)])  # by the channel left out
        full = _prediction(gamma, np.arange(c)[None], settle)[0].diagonal()
        without = np.einsum("mii->mi", _prediction(gamma, parts, settle))
        for j, part in enumerate(parts):
            found[part, j] = np.log(without[j] / full[part])
        return found
    row, column = np.triu_indices(c, 1)
    alone = _prediction(gamma, np.arange(c)[:, None], settle)[:, 0, 0]
    pairs = _prediction(gamma, np.stack([row, column], axis=1), settle)
    found[row, column] = np.log(alone[row] / pairs[:, 0, 0])
    found[column, row] = np.log(alone[column] / pairs[:, 1, 1])
    return found


def _prediction(gamma: np.ndarray, parts: np.ndarray, settle: int | None) -> np.ndarray:
    """Covariances (m, k, k) of the errors of predicting parts (m, k) of the channels from their own pasts.

    Orders are added up to the lags of `gamma`, or until `settle` of them in a row have added nothing: more than a VAR
    has lags, so that a delay within it does not pass for the end.
    """
    (m, k), lags = parts.shape, len(gamma) - 1
    part = gamma[:, parts[:, :, None], parts[:, None, :]].swapaxes(0, 1)  # (m, lags + 1, k, k)
    # Coefficients stand side by side, the forward predictor's by growing lag from the left of their buffer, the
    # backward one's by falling lag up to the right end of theirs: each step is a few products of wide matrices.
    past = np.ascontiguousarray(part[:, :0:-1]).reshape(m, lags * k, k)
    forward, backward = np.zeros((m, k, lags * k)), np.zeros((m, k, lags * k))
    ahead, back, quiet = part[:, 0], part[:, 0], 0
    for s in range(lags):
        done, left = slice(0, s * k), slice((lags - s) * k, lags * k)
        missed = part[:, s + 1] - forward[..., done] @ past[:, left]
        gain = np.swapaxes(np.linalg.solve(back, np.swapaxes(missed, 1, 2)), 1, 2)
        back_gain = np.swapaxes(np.linalg.solve(ahead, missed), 1, 2)
        before = forward[..., done].copy()
        forward[..., done] -= gain @ backward[..., left]
        backward[..., left] -= back_gain @ before
        forward[..., s * k : (s + 1) * k] = gain
        backward[..., (lags - s - 1) * k : (lags - s) * k] = back_gain
        fall = gain @ np.swapaxes(missed, 1, 2)
        ahead, back = ahead - fall, back - back_gain @ missed
        quiet = quiet + 1 if (np.einsum("mii->mi", fall) < _SETTLED * np.einsum("mii->mi", ahead)).all() else 0
        if settle is not None and quiet >= settle:
            return ahead
    if settle is not None:
        raise InputError(
            f"Granger causality of a VAR: predictions from parts of its channels still improve after {lags} lags: a "
            "root lies too near the unit circle. Shrink the coefficients, or give `order`."
        )
    return ahead
