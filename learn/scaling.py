"""Scaling of volumes, codes and responses: fitted on the training trials, applied to all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

SCALINGS = ("minmax", "standard")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """An affine map ``(x - offset) / scale``, with one pair of numbers for all of x or one for each last-axis column.

    Parameters
    ----------
    kind : str
        "minmax" (training range becomes [0, 1]) or "standard" (training mean 0, standard deviation 1).
    offset, scale : tuple of float
        One number, or one for each column; in the unit of x. The scale of a constant input is 1.

    Examples
    --------
    >>> Scaling(kind="minmax", offset=(2.0,), scale=(4.0,)).apply(np.array([2.0, 4.0, 10.0]))
    array([0. , 0.5, 2. ])
    """

    kind: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Scaled copy of x, in x's own floating type; values outside the training range are not clipped."""
        x = np.asarray(x)
        return (x - np.array(self.offset, x.dtype)) / np.array(self.scale, x.dtype)

    def invert(self, x: np.ndarray) -> np.ndarray:
        """Original values of scaled x."""
        x = np.asarray(x)
        return x * np.array(self.scale, x.dtype) + np.array(self.offset, x.dtype)


def fit_scaling(x, kind: str = "minmax", per: str = "all", rows: Sequence[int] | np.ndarray | None = None) -> Scaling:
    """Scaling of x from its training rows alone.

    Reads one row after another and sums in float64, so that x may be large, float32, or lie on disk.

    Parameters
    ----------
    x : array-like, shape (t, ...)
        One row a trial; anything that gives ``x[i]`` as an array.
    kind : str
        "minmax" or "standard" (mean and population standard deviation).
    per : str
        "all": one range over all of x (volumes, codes); "column": one for each column of a row (muscles).
    rows : integers, optional
        The training rows; all rows without it.

    Returns
    -------
    Scaling
        A constant input (or column) gets scale 1, so that it is moved to 0 and stays finite.

    Raises
    ------
    InputError
        Unknown kind or per, no rows, or a value that is not finite.

    Examples
    --------
    >>> fit_scaling(np.array([[1.0, 5.0], [3.0, 5.0]]), per="column")
    Scaling(kind='minmax', offset=(1.0, 5.0), scale=(2.0, 1.0))
    """
    if kind not in SCALINGS or per not in ("all", "column"):
        raise InputError(
            f"scaling: kind {kind!r} per {per!r} is not known; choose kind from {', '.join(SCALINGS)} "
            "and per from all, column."
        )
    rows = range(len(x)) if rows is None else [int(i) for i in rows]
    if len(rows) == 0:
        raise InputError("scaling: there are no training rows to take the range from; give at least one trial.")
    offset, scale = (_extremes if kind == "minmax" else _moments)(x, rows, per)
    # A spread below rounding error is a constant, too: dividing by it would blow noise up to full range.
    floor = 1e-12 * np.maximum(np.abs(offset), np.finfo(np.float64).tiny)
    scale = np.where(scale > floor, scale, 1.0)
    return Scaling(kind=kind, offset=tuple(np.ravel(offset).tolist()), scale=tuple(np.ravel(scale).tolist()))


def _row(x, i: int, per: str) -> np.ndarray:
    row = np.asarray(x[i])
    if not np.isfinite(row).all():
        raise InputError(
            f"scaling: row {i} holds values that are not finite; they would spoil every row's scale. "
            "Solve or record this trial again, or leave it out."
        )
    return row.reshape(-1, row.shape[-1] if per == "column" else 1)


def _extremes(x, rows: Sequence[int], per: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.inf, -np.inf
    for i in rows:
        row = _row(x, i, per)
        low, high = np.minimum(low, row.min(0)), np.maximum(high, row.max(0))
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return low, high - low


def _moments(x, rows: Sequence[int], per: str) -> tuple[np.ndarray, np.ndarray]:
    count, mean, squares = 0, 0.0, 0.0
    for i in rows:  # Chan, Golub & LeVeque's update: no cancellation of large squares
        row = _row(x, i, per)
        here, shift = row.mean(0, dtype=np.float64), row.mean(0, dtype=np.float64) - mean
        total = count + len(row)
        squares = squares + ((row - here) ** 2).sum(0) + shift**2 * count * len(row) / total
        mean, count = mean + shift * len(row) / total, total
    return np.asarray(mean), np.sqrt(squares / count)
