"""Exact vector potential of magnetic dipoles and of straight wire segments, by direct summation."""

import numpy as np
from numba import njit, prange

CLEARANCE_M = 2e-3
"""Field points at least this far from a wire see it as the point currents of `segment_nodes`."""

_BLOCK = 128


@njit(parallel=True, cache=True, fastmath={"contract"})
def sum_dipoles(points, positions, moments, out):
    """Sum of m × (r - p) / |r - p|³, in blocks of points: the inner loop runs over points, so it vectorises as is."""
    count = points.shape[0]
    for block in prange((count + _BLOCK - 1) // _BLOCK):
        start = block * _BLOCK
        size = min(_BLOCK, count - start)
        r = np.empty((3, _BLOCK))
        a = np.zeros((3, _BLOCK))
        for i in range(size):
            for c in range(3):
                r[c, i] = points[start + i, c]
        for d in range(positions.shape[0]):
            px, py, pz = positions[d, 0], positions[d, 1], positions[d, 2]
            mx, my, mz = moments[d, 0], moments[d, 1], moments[d, 2]
            for i in range(size):
                x, y, z = r[0, i] - px, r[1, i] - py, r[2, i] - pz
                square = x * x + y * y + z * z
                # x / 0 is an exception in numba; infinity is told from 0 by the caller
                weight = 1.0 / (square * np.sqrt(square)) if square > 0.0 else np.inf
                a[0, i] += (my * z - mz * y) * weight
                a[1, i] += (mz * x - mx * z) * weight
                a[2, i] += (mx * y - my * x) * weight
        for i in range(size):
            for c in range(3):
                out[start + i, c] = a[c, i]


@njit(parallel=True, cache=True)
def add_segments(points, segments, factor, out):
    """Add to out (n, 3) the line integral of 1 / |r - s| along segments (k, 2, 3), times `factor`.

    With r1 and r2 the distances to the ends of a segment of length l and direction e, the integral of Biot and Savart
    is e ln((r1 + r2 + l) / (r1 + r2 - l)) (Coulomb gauge, for segments that together make a closed circuit). On the
    segment itself it is infinite.
    """
    for i in prange(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        ax, ay, az = 0.0, 0.0, 0.0
        for k in range(segments.shape[0]):
            ux = segments[k, 1, 0] - segments[k, 0, 0]
            uy = segments[k, 1, 1] - segments[k, 0, 1]
            uz = segments[k, 1, 2] - segments[k, 0, 2]
            length = np.sqrt(ux * ux + uy * uy + uz * uz)
            dx, dy, dz = x - segments[k, 0, 0], y - segments[k, 0, 1], z - segments[k, 0, 2]
            first = np.sqrt(dx * dx + dy * dy + dz * dz)
            dx, dy, dz = x - segments[k, 1, 0], y - segments[k, 1, 1], z - segments[k, 1, 2]
            rest = first + np.sqrt(dx * dx + dy * dy + dz * dz) - length
            # on the segment r1 + r2 is l up to rounding
            weight = np.log1p(2.0 * length / rest) / length if rest > 1e-13 * length else np.inf
            ax += ux * weight
            ay += uy * weight
            az += uz * weight
        out[i, 0] += factor * ax
        out[i, 1] += factor * ay
        out[i, 2] += factor * az


def segment_nodes(segments, clearance_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Point currents that stand for wire segments at all places `clearance_m` and more away from them.

    Each piece of at most the clearance's length gets as many Gauss points as make its field exact to 1e-7: the
    integrand 1 / |r - s| is analytic in an ellipse around the piece that reaches to the field point.

    Parameters
    ----------
    segments : ndarray (k, 2, 3)
        Start and end, m.
    clearance_m : float

    Returns
    -------
    nodes, weights : ndarray (j, 3)
        m; the weights are directed lengths.
    """
    nodes, weights = [np.zeros((0, 3))], [np.zeros((0, 3))]
    vectors = segments[:, 1] - segments[:, 0]
    lengths = np.linalg.norm(vectors, axis=1)
    pieces = np.maximum(1, np.ceil(lengths / clearance_m)).astype(np.int64)
    reach = 2 * clearance_m * pieces / lengths
    counts = np.ceil(np.log(1e7) / (2 * np.log(reach + np.sqrt(1 + reach**2)))).astype(np.int64)
    for split, count in sorted(set(zip(pieces.tolist(), counts.tolist()))):
        chosen = (pieces == split) & (counts == count)
        gauss, share = np.polynomial.legendre.leggauss(count)
        along = (np.arange(split)[:, None] + (gauss + 1) / 2).ravel() / split
        nodes.append((segments[chosen, :1] + vectors[chosen, None] * along[:, None]).reshape(-1, 3))
        share = np.tile(share / (2 * split), split)
        weights.append((vectors[chosen, None] * share[:, None]).reshape(-1, 3))
    return np.concatenate(nodes), np.concatenate(weights)
