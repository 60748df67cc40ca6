"""Scores of predicted responses, as the paper defines them (equations 7, 9, 10 and 11; natural logarithms).

Two cautions belong beside every table of them. The criteria count the weights of a convolutional net as if each were
a free parameter of a regression: BIC is over 95 % p·ln(Nk) here and ranks by size. And the AICc of equation 11 is
outside its domain when p > Nk - 2, as all of the paper's models are: its penalty is then negative; `criteria_valid`
says which.
"""

import math

import numpy as np


def nrmse(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Normalised root mean squared error, √(Σ‖m - m̂‖² / Σ‖m‖²) (equation 7).

    Parameters
    ----------
    measured, predicted : arrays of one shape, (T, k) or (T,)
        Responses of T trials and k muscles.

    Returns
    -------
    float
        0 is perfect; predicting zero scores 1; NaN where all measured responses are zero.

    Examples
    --------
    >>> nrmse(np.array([[3.0, 4.0]]), np.array([[3.0, 3.0]]))
    0.2
    """
    measured = np.asarray(measured, np.float64)
    size = float(np.sum(measured**2))
    return math.sqrt(np.sum((measured - predicted) ** 2) / size) if size > 0 else math.nan


def r2(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Share of variance explained, over all muscles together: 1 - Σ‖m - m̂‖² / Σ‖m - m̄‖².

    Parameters
    ----------
    measured, predicted : arrays, shape (T, k)
        Responses; m̄ is each muscle's mean over the measured trials given.

    Returns
    -------
    float
        1 is perfect; predicting these trials' own means scores 0; NaN where nothing varies.

    Examples
    --------
    >>> r2(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
    0.5
    """
    measured = np.asarray(measured, np.float64)
    spread = float(np.sum((measured - measured.mean(0)) ** 2))
    return 1.0 - float(np.sum((measured - predicted) ** 2)) / spread if spread > 0 else math.nan


def residual_variance(residual: np.ndarray) -> float:
    """Maximum-likelihood variance, the mean of the squared residuals (N, k) (equation 9)."""
    return float(np.mean(np.asarray(residual, np.float64) ** 2))


def bic(residual: np.ndarray, n_parameters: int) -> float:
    """Bayesian information criterion, Nk·ln σ² + p·ln(Nk) (equation 10).

    Parameters
    ----------
    residual : array, shape (N, k)
        Measured minus predicted, on the training trials; σ² is its mean square.
    n_parameters : int
        p, trainable parameters of the mapper.

    Returns
    -------
    float
        Smaller is better; -inf for a residual of zero.

    Examples
    --------
    >>> bic(np.full((2, 1), np.e), n_parameters=0)
    4.0
    """
    count = np.size(residual)
    return count * _log_variance(residual) + n_parameters * math.log(count)


def aicc(residual: np.ndarray, n_parameters: int) -> float:
    """Corrected Akaike information criterion, Nk·ln σ² + Nk·(p + Nk) / (Nk - p - 2) (equation 11).

    Parameters
    ----------
    residual : array, shape (N, k)
        Measured minus predicted, on the training trials; σ² is its mean square.
    n_parameters : int
        p, trainable parameters of the mapper.

    Returns
    -------
    float
        Smaller is better, where `criteria_valid`; NaN at p = Nk - 2, where the penalty has its pole.

    Examples
    --------
    >>> aicc(np.full((4, 1), 1.0), n_parameters=0)
    8.0
    """
    count = np.size(residual)
    room = count - n_parameters - 2
    return count * _log_variance(residual) + count * (n_parameters + count) / room if room else math.nan


def criteria_valid(n_parameters: int, n: int) -> bool:
    """Whether AICc means what it says: p < n - 2, n = Nk being the number of responses.

    Examples
    --------
    >>> criteria_valid(140_175, 629 * 15)
    False
    """
    return n_parameters < n - 2


def _log_variance(residual: np.ndarray) -> float:
    variance = residual_variance(residual)
    return math.log(variance) if variance > 0 else -math.inf
