"""Inner products of many fields at once, in float64 though the fields are float32."""

import numpy as np

_VOXELS = 20_000  # at a time: float64 copies stay small


def gram(a, b, chosen, weight=None):
    """Inner products of two lists of fields.

    Parameters
    ----------
    a, b : ndarray (k, v, 3), (l, v, 3)
    chosen : ndarray (v,) bool or None
        Voxels that count; all for None.
    weight : ndarray (v,), optional
        Of each voxel's field, in both.

    Returns
    -------
    ndarray (k, l) float64

    Examples
    --------
    >>> gram(np.ones((1, 2, 3)), np.ones((2, 2, 3)), np.array([True, False]))
    array([[3., 3.]])
    """
    total = np.zeros((len(a), len(b)))
    voxels = np.arange(a.shape[1]) if chosen is None else np.flatnonzero(chosen)
    for start in range(0, len(voxels), _VOXELS):
        part = voxels[start : start + _VOXELS]
        factor = 1.0 if weight is None else weight[None, part, None].astype(np.float64)
        left = (a[:, part] * factor).astype(np.float64, copy=False).reshape(len(a), -1)
        right = left if b is a else (b[:, part] * factor).astype(np.float64, copy=False).reshape(len(b), -1)
        total += left @ right.T
    return total


def products(fields, modes, weight):
    """Coefficients of fields (k, v, 3): their weighted inner products with flat modes (r, 3 v); (k, r) float64."""
    return gram(fields, modes.reshape(len(modes), -1, 3), None, weight)


def squares(fields, chosen):
    """Squared norms (k,) of fields (k, v, 3), over chosen voxels, or all for None."""
    part = fields if chosen is None else fields[:, chosen]
    return np.einsum("kvc,kvc->k", part, part, dtype=np.float64)


def relative(difference, coefficients, inner):
    """Norm of what coefficients (k, r) differ by, as a share of theirs; `inner` holds the modes' inner products."""
    norm = lambda c: np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", c, inner, c), 0))  # noqa: E731
    return norm(difference) / norm(coefficients)
