"""Predicted responses and how far single trials scatter around them."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

# Training trials whose scatter stands for that of a new one: enough for the tails of a 90 % interval.
_NEIGHBOURS = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class ResponsePrediction:
    """Predicted responses of e evaluation trials and k muscles, in the unit of the responses.

    Attributes
    ----------
    mean : ndarray (e, k)
        Expected response.
    sd : ndarray (e, k)
        Standard deviation of the response around it, trial-to-trial variability included.
    family : str
        "stack", or the one kind of member that predicts left-out training trials clearly better.
    candidates : dict of str to float
        NRMSE of the left-out training trials by member, and of the stack with weights from other trials.
    weights : dict of str to float
        Of the members, as used.
    left_out : ndarray (n, k)
        Predictions of the training trials, each left out.
    measured : ndarray (n, k)
        Responses of the training trials.
    """

    mean: np.ndarray
    sd: np.ndarray
    family: str
    candidates: dict[str, float]
    weights: dict[str, float]
    left_out: np.ndarray
    measured: np.ndarray

    def quantile(self, level: float) -> np.ndarray:
        """Quantile of the response (e, k), 0 < level < 1.

        The distribution is that of the training trials with the nearest left-out predictions, each scaled to the
        predicted mean, so that it has their zeros and their tails.

        Raises
        ------
        InputError
            A level outside 0 to 1.
        """
        if not 0 < level < 1:
            raise InputError(f"quantile of the responses: level {level!r} is not between 0 and 1; give a probability.")
        result = np.empty_like(self.mean)
        for k in range(result.shape[1]):
            near = _nearest(self.left_out[:, k], self.mean[:, k])
            scale = _ratio(self.mean[:, k][:, None], self.left_out[:, k][near])
            result[:, k] = np.quantile(self.measured[:, k][near] * scale, level, axis=1, method="weibull")
        return result

    def interval(self, share: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Central interval (e, k), (e, k) that holds this share of responses."""
        return self.quantile((1 - share) / 2), self.quantile((1 + share) / 2)


def scatter(left_out, measured, mean):
    """Root mean squared left-out error of the trials with the nearest predictions (e, k)."""
    sd = np.empty_like(mean)
    for k in range(mean.shape[1]):
        near = _nearest(left_out[:, k], mean[:, k])
        sd[:, k] = np.sqrt(((measured[:, k] - left_out[:, k])[near] ** 2).mean(1))
    return sd


def _nearest(left_out, mean):
    """Training trials (e, m) whose left-out predictions are nearest in rank to each mean."""
    order = np.argsort(left_out, kind="stable")
    count = min(_NEIGHBOURS, len(order))
    first = np.clip(np.searchsorted(left_out[order], mean) - count // 2, 0, len(order) - count)
    return order[first[:, None] + np.arange(count)]


def _ratio(mean, left_out):
    floor = 1e-3 * np.maximum(left_out.max(1, keepdims=True), np.finfo(float).tiny)
    return np.clip((mean + floor) / (left_out + floor), 0.2, 5.0)
