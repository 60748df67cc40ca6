"""Recordings as every connectivity measure takes them: checked, standardised, in batches, on the CPU or a GPU."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
from scipy.linalg.lapack import dtrtri

from ..errors import InputError

# Numbers that one batch may hold: 0.25 GB of float64, beside which the working copies stay small.
_FLOATS_AT_ONCE = 2**25
# Beyond, squares of samples leave the range of float64.
_SMALLEST, _LARGEST = 1e-140, 1e140
# Frequencies with a matrix each: those of 19 channels take 0.1 GB, and a few copies.
_MOST_FREQUENCIES = 20_000
# A channel whose excursions are only the rounding of its size is flat.
_FLAT = 2e-13


@dataclass(frozen=True, eq=False)
class Arrays:
    """Where the numbers are crunched: NumPy, or torch on one device. Both are called by the same names."""

    xp: ModuleType
    device: Any = None

    def put(self, values: np.ndarray):
        """An array of this kind with these values."""
        if self.xp is np:
            return np.ascontiguousarray(values)
        return self.xp.as_tensor(np.ascontiguousarray(values), device=self.device)

    def zeros(self, shape: tuple[int, ...]):
        """Float64 zeros."""
        return np.zeros(shape) if self.xp is np else self.xp.zeros(shape, dtype=self.xp.float64, device=self.device)

    def rfft_parts(self, values):
        """Real and imaginary parts (…, f, 2) of the Fourier transform of real values (…, n) over their last axis."""
        if self.xp is np:
            transformed = scipy.fft.rfft(values)
            return transformed.view(np.float64).reshape(*transformed.shape, 2)
        return self.xp.view_as_real(self.xp.fft.rfft(values))

    def solve_transposed(self, lower, right):
        """Solutions (batch, n, k) of Lᵀ y = right, with L (batch, n, n) lower triangular."""
        if self.xp is np:
            return np.stack(
                [
                    scipy.linalg.solve_triangular(each, side, trans="T", lower=True, check_finite=False)
                    for each, side in zip(lower, right, strict=True)
                ]
            )
        return self.xp.linalg.solve_triangular(lower.swapaxes(-1, -2), right, upper=True)

    def inverse_squares(self, lower):
        """Sums (…) of the squares of all entries of the inverses of lower triangular matrices (…, n, n)."""
        n = lower.shape[-1]
        if self.xp is np:
            # A transpose is what Fortran reads without a copy. One by one is still a third of `np.linalg.inv`'s time.
            inverses = (dtrtri(each.T, lower=0)[0].T for each in lower.reshape(-1, n, n))
            return np.array([np.vdot(each, each) for each in inverses]).reshape(lower.shape[:-2])
        unit = self.xp.eye(n, dtype=lower.dtype, device=lower.device)
        return (self.xp.linalg.solve_triangular(lower, unit, upper=False) ** 2).sum((-2, -1))

    def get(self, values) -> np.ndarray:
        """The values as a NumPy array."""
        return values if self.xp is np else values.cpu().numpy()


def arrays_on(device) -> Arrays:
    """NumPy for ``"cpu"``; torch for ``"cuda"``, for ``"auto"`` where there is a GPU, and for a `torch.device`.

    Raises
    ------
    InputError
        Another word, or ``"cuda"`` where torch finds no GPU.
    """
    if isinstance(device, str) and device == "cpu":
        return Arrays(np)
    import torch

    from .accelerator import device_of

    if isinstance(device, torch.device):
        return Arrays(torch, device)
    chosen = device_of(device)
    return Arrays(np) if chosen.type == "cpu" else Arrays(torch, chosen)


def checked(x, fs, doing: str, *, least_channels: int = 2, names=None) -> np.ndarray:
    """Recordings (…, channels, samples) as float64, refused where a connectivity measure would mean nothing.

    Parameters
    ----------
    x : array_like (..., channels, samples)
        Any real type; integers become float64 before anything is multiplied.
    fs : float
        Sampling rate, Hz.
    doing : str
        What is computed, for the messages.
    least_channels : int
        Fewest channels that the measure needs.
    names : sequence of str, optional
        Names of the channels, for the messages; their positions otherwise.

    Raises
    ------
    InputError
        Not numbers, not at least two axes, too few channels, NaN or infinite samples, flat channels,
        numbers whose squares leave float64, or no usable rate.
    """
    values = np.asarray(x)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{doing}: the samples are of type {values.dtype}; give real numbers (…, channels, samples).")
    if values.ndim < 2 or 0 in values.shape:
        raise InputError(f"{doing}: the array is {values.shape}; give (…, channels, samples), none of them empty.")
    if values.shape[-2] < least_channels:
        raise InputError(
            f"{doing}: {values.shape[-2]} channel(s) found, and connectivity is between channels: at least "
            f"{least_channels} are needed. Axes are (…, channels, samples)."
        )
    if not (np.isscalar(fs) and np.isreal(fs) and np.isfinite(fs) and fs > 0):
        raise InputError(f"{doing}: the sampling rate is {fs!r}; give it in hertz, above zero.")
    values = values.astype(np.float64, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.argwhere(~finite)
        raise InputError(
            f"{doing}: {len(bad)} sample(s) are NaN or infinite, the first at sample {bad[0][-1]} of "
            f"{_channel(bad[0][:-1], names)}. No sum over time has a value then: cut or mend the segment, or leave "
            "the record out."
        )
    _refuse_flat(values, doing, names)
    return values


def _refuse_flat(values: np.ndarray, doing: str, names) -> None:
    high, low = values.max(axis=-1), values.min(axis=-1)
    size = np.maximum(np.abs(high), np.abs(low))
    if size.max() > _LARGEST:
        raise InputError(
            f"{doing}: samples reach {size.max():.0e}, and squares of such numbers do not fit float64. Give volts."
        )
    flat = np.argwhere(high - low <= np.maximum(_FLAT * size, _SMALLEST))
    if len(flat):
        raise InputError(
            f"{doing}: {_channel(flat[0], names)} is flat ({len(flat)} flat in all): it holds one value, so that its "
            "connectivity is 0/0. Leave the channel out (in every record alike) or mark the record as bad."
        )


def standardised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channels (…, c, t) centred and divided by their standard deviation, and these standard deviations (…, c)."""
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.einsum("...t,...t->...", centred, centred) / values.shape[-1])
    centred /= deviation[..., None]
    return centred, deviation


def in_batches(compute: Callable, records: np.ndarray, floats_each: int) -> tuple[np.ndarray, ...]:
    """`compute` over the leading axes of recordings (…, c, t), as many at once as memory likes.

    `compute` takes (b, c, t) and returns a tuple of arrays whose first axis is b; what is returned has the leading axes
    of `records` in its place.

    Raises
    ------
    InputError
        What `compute` raises, with the record that it is about where there are several.
    """
    lead, flat = records.shape[:-2], records.reshape(-1, *records.shape[-2:])
    step = max(1, _FLOATS_AT_ONCE // max(1, floats_each))
    try:
        parts = [compute(flat[start : start + step]) for start in range(0, len(flat), step)]
    except InputError:
        for at in np.ndindex(lead):
            try:
                compute(records[at][None])
            except InputError as error:
                where = f"record {at[0] if len(at) == 1 else at}: " if at else ""
                raise type(error)(where + str(error)) from error
        raise
    return tuple(np.concatenate(each).reshape(*lead, *each[0].shape[1:]) for each in zip(*parts, strict=True))


@dataclass(frozen=True)
class Bands:
    """Bands of frequency, Hz, over a common grid."""

    names: tuple[str, ...]
    edges: tuple[tuple[float, float], ...]

    def weights(self, frequencies: np.ndarray, doing: str, *, total: bool = False) -> np.ndarray:
        """Weights (band, f) whose products with a spectrum are its means over the bands, or its sums.

        Raises
        ------
        InputError
            A band without a single frequency of the grid.
        """
        f = frequencies[None]
        slack = 1e-9 * max(1.0, float(np.abs(frequencies).max(initial=1.0)))
        low, high = np.array(self.edges).T[:, :, None]
        inside = ((f >= low - slack) & (f <= high + slack)).astype(np.float64)
        empty = np.flatnonzero(inside.sum(axis=1) == 0)
        if len(empty):
            low, high = self.edges[empty[0]]
            raise InputError(
                f"{doing}: no frequency of the grid lies in the band {low:g} to {high:g} Hz. Widen the band, or make "
                "the grid finer (longer segments, a smaller step)."
            )
        return inside if total else inside / inside.sum(axis=1, keepdims=True)

    @property
    def lowest(self) -> float:
        """Lowest edge of all, Hz."""
        return min(low for low, _ in self.edges)

    @property
    def highest(self) -> float:
        """Highest edge of all, Hz."""
        return max(high for _, high in self.edges)

    def grid(self, step: float) -> np.ndarray:
        """Multiples of `step`, Hz, that the bands span.

        Raises
        ------
        InputError
            So many that matrices of all of them would not fit into memory.
        """
        if (self.highest - self.lowest) / step > _MOST_FREQUENCIES:
            raise InputError(
                f"connectivity by frequency: every {step:.3g} Hz from {self.lowest:g} to {self.highest:g} Hz is more "
                f"than {_MOST_FREQUENCIES} frequencies, for whose matrices there is no memory. Give a larger step, or "
                "a wider narrowest band."
            )
        first, last = int(np.ceil(self.lowest / step - 1e-9)), int(np.floor(self.highest / step + 1e-9))
        return step * np.arange(first, last + 1)


def bands_of(bands, fs: float, doing: str) -> Bands:
    """Bands given as pairs (low, high), triples (name, low, high) or a mapping from name to pair; Hz.

    Raises
    ------
    InputError
        Not such bands, edges that do not increase, or a band beyond half of the sampling rate.

    Examples
    --------
    >>> bands_of({"alpha": (8, 13)}, 250.0, "coherence")
    Bands(names=('alpha',), edges=((8.0, 13.0),))
    """
    given: Iterable = [(name, *edges) for name, edges in bands.items()] if isinstance(bands, Mapping) else bands
    try:
        triples = [band if len(band) == 3 else (f"{band[0]:g}-{band[1]:g} Hz", *band) for band in given]
        named = [(str(name), (float(low), float(high))) for name, low, high in triples]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{doing}: the bands {bands!r} are not understood; give pairs (low, high) in hertz, triples "
            "(name, low, high), or a mapping from names to pairs."
        ) from error
    if not named:
        raise InputError(f"{doing}: no band was given; give at least one pair (low, high) in hertz.")
    for name, (low, high) in named:
        if not 0 <= low < high <= fs / 2:
            raise InputError(
                f"{doing}: the band {name!r} is {low:g} to {high:g} Hz; edges must increase and lie between 0 and half "
                f"of the sampling rate, {fs / 2:g} Hz, where the signals hold anything."
            )
    names, edges = zip(*named, strict=True)
    return Bands(names, edges)


def averaged(spectrum: np.ndarray, weights: np.ndarray, single: bool) -> np.ndarray:
    """Spectrum (…, f, c, c) times weights (band, f): (…, band, c, c), or (…, c, c) of the only band."""
    mean = np.einsum("bf,...fij->...bij", weights, spectrum, optimize=True)
    return mean[..., 0, :, :] if single else mean


def _channel(index, names) -> str:
    *record, channel = (int(i) for i in index)
    where = f" of record {record[0] if len(record) == 1 else tuple(record)}" if record else ""
    return (f"channel {names[channel]}" if names is not None else f"channel {channel}") + where
