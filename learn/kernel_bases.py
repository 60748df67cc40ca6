"""Similarity of trials: the kernels among fields, positions and intensities that the response model chooses from.

Each kernel is centred on the training trials and scaled to a mean variance of 1 over them. Nothing here sees a
response. A kernel of fields needs their inner products alone (n × n), so that 60 000 voxels cost no more than one
pass through them, in float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

# Patches of cortex that drive a muscle are several voxels wide, and so is all detail of a field: of so many voxels,
# evenly spread, the inner products are those of all.
_VOXELS = 20_000
_ROUNDING = 1e-7  # of float32: smaller eigenvalues mean nothing
_POWERS = (0.5, 1.0, 2.0, 4.0)
# Thresholds of a dose-response curve, in units of the median trial's peak, and its width in units of the threshold.
_THRESHOLDS, _WIDTH, _PEAK = (0.6, 0.8, 0.9, 1.0), 0.08, 0.999
_FIELD_LENGTHS = (1.0, 2.0, 4.0)
_PLACE_LENGTHS = (0.5, 0.75, 1.0, 1.5, 2.5)
_OTHER_LENGTHS = (1.5, 4.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelBasis:
    """A kernel among the training trials, as its eigenvectors, and the evaluation trials seen from them.

    Attributes
    ----------
    name : str
    vectors : ndarray (n, p)
        Orthonormal.
    values : ndarray (p,)
        Eigenvalues, all positive; they add up to about n.
    evaluate : ndarray (e, p)
        ``kernel(evaluate, train) @ vectors / values``, so that ``evaluate @ (values * c)`` predicts where
        ``vectors @ (values * c)`` fits.
    """

    name: str
    vectors: np.ndarray
    values: np.ndarray
    evaluate: np.ndarray


def kernel_bases(fields, positions, intensity, train, evaluate) -> Iterator[KernelBasis]:
    """Every kernel that the inputs allow; see `motorsweep.learn.response_model.fit_response_model` for them."""
    used = np.concatenate([train, evaluate])
    n = len(train)
    if fields is not None:
        for name, gram in _field_grams(fields, used, n):
            yield from _of_gram(name, gram, n)
    if positions is not None:
        yield from _of_places(positions, intensity, used, n)


def basis_of(name: str, kernel: np.ndarray, n: int) -> KernelBasis | None:
    """Centre a kernel (n + e, n + e or n) on the first n trials and decompose it; None where it is constant."""
    block = kernel[:, :n]
    row = block.mean(1, keepdims=True)
    block = block - row - block[:n].mean(0) + block[:n].mean()
    scale = np.trace(block[:n]) / n
    if not scale > 1e-12 * max(np.abs(kernel[:n, :n]).max(), np.finfo(float).tiny):
        return None
    values, vectors = np.linalg.eigh(block[:n] / scale)
    kept = values > _ROUNDING * values[-1]
    values, vectors = values[kept][::-1], vectors[:, kept][:, ::-1]
    return KernelBasis(name=name, vectors=vectors, values=values, evaluate=block[n:] / scale @ vectors / values)


def principal_axes(places: np.ndarray, n: int) -> np.ndarray:
    """Places (t, 3) along the principal axes of the first n, in units of their root mean square over axes 1 and 2."""
    centred = places - places[:n].mean(0)
    _, size, axes = np.linalg.svd(centred[:n], full_matrices=False)
    scale = np.sqrt((size[:2] ** 2).mean() / n)
    # An axis' sign is the decomposition's whim; nothing may hang on it, but results should repeat on any machine.
    axes = axes * np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(1)] < 0, -1.0, 1.0)[:, None]
    return centred @ axes.T / scale if scale > 0 else np.zeros_like(centred)


def standardised(columns: np.ndarray, n: int) -> np.ndarray:
    """Columns (t, c) with the mean of the first n rows 0 and one standard deviation, the largest column's, 1."""
    centred = columns - columns[:n].mean(0)
    scale = centred[:n].std(0).max(initial=0.0)
    return centred / scale if scale > 1e-12 * max(np.abs(columns[:n]).max(initial=0.0), 1e-300) else 0.0 * centred


def _field_grams(fields, used, n):
    step = max(1, -(-fields.shape[1] // _VOXELS))
    values = np.ascontiguousarray(fields[:, ::step][used], dtype=np.float32)
    peak = float(np.median(np.quantile(values[:n], _PEAK, axis=1)))
    peak = peak if peak > 0 else 1.0
    values /= np.float32(peak)
    for power in _POWERS:
        yield f"field^{power:g}", _gram(np.abs(values) ** np.float32(power), n)
    for threshold in _THRESHOLDS:
        yield (
            f"field over {threshold:g}",
            _gram(expit((values - np.float32(threshold)) / np.float32(_WIDTH * threshold)), n),
        )


def _gram(values, n):
    """Inner products in float32 of rows less the mean of the first n, summed in float64 over parts of the voxels."""
    values -= values[:n].mean(0)
    total = np.zeros((len(values), len(values)))
    for start in range(0, values.shape[1], 4096):
        part = values[:, start : start + 4096]
        total += part @ part.T
    return total / values.shape[1]


def _of_gram(name, gram, n):
    linear = basis_of(f"{name} linear", gram, n)
    if linear is None:
        return
    yield linear
    size = np.diag(gram)
    squared = np.maximum(size[:, None] + size[None] - 2 * gram, 0)
    unit = np.median(squared[:n, :n])
    unit = unit if unit > 0 else squared[:n, :n].mean()
    for length in _FIELD_LENGTHS:
        basis = basis_of(f"{name} smooth {length:g}", np.exp(-squared / (2 * unit * length**2)), n)
        if basis is not None:
            yield basis


def _of_places(positions, intensity, used, n):
    place = principal_axes(positions[used, :3], n)
    others = [standardised(positions[used, 3:], n)]
    if intensity is not None:
        others.append(standardised(intensity[used, None], n))
    near = _squared(place)
    rest = [_squared(other) for other in others]
    further = sum(rest)
    for other_length in _OTHER_LENGTHS if np.any(further) else (1.0,):
        for length in _PLACE_LENGTHS:
            kernel = np.exp(-near / (2 * length**2) - further / (2 * other_length**2))
            basis = basis_of(f"place {length:g}, {other_length:g}", kernel, n)
            if basis is not None:
                yield basis


def _squared(points):
    size = (points**2).sum(1)
    return np.maximum(size[:, None] + size[None] - 2 * points @ points.T, 0)
