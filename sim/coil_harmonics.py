"""Solid harmonics: the field of many sources as a short polynomial around a point that is clear of them.

In empty space each Cartesian component of the vector potential is harmonic, so inside a ball that holds no source it is
a sum of regular solid harmonics, (p + 1)² of them up to degree p. For a source at s and a point x, both seen from the
ball's centre and |x| < |s| (Epton & Dembart, SIAM J. Sci. Comput. 16 (1995) 865-897)::

    1 / |s - x| = Σn Σm conj(R_nm(x)) I_nm(s)
    R_nm(r) = |r|^n P_nm(cos θ) e^{imφ} / (n + m)!,    I_nm(r) = (n - m)! P_nm(cos θ) e^{imφ} / |r|^(n + 1)

A dipole's potential is m × ∇s (1 / |s - x|), and a gradient of I_nm is made of I of degree n + 1::

    ∂z I_nm = -I_(n+1)m,    (∂x + i ∂y) I_nm = -I_(n+1)(m+1),    (∂x - i ∂y) I_nm = I_(n+1)(m-1)

Coefficients are kept for monic polynomials: R_nm = γ_nm (x + iy)^m U_nm, U_mm = 1,
U_nm = z U_(n-1)m - β_nm |r|² U_(n-2)m, which costs two products and a subtraction.
"""

from functools import cache
from math import factorial

import numpy as np
from numba import njit, prange

LANES = 16
"""Points that are evaluated together. All lanes are always computed, so no point's value depends on the others."""

_SOURCES, _TASK = 64, 32
_IX, _IY, _IZ, _I, _RE, _IM, _NEW, _OLD = (_SOURCES * i for i in range(8))
_X, _Y, _Z, _S, _U, _V, _COS, _SIN, _P, _P1, _P2, _P3, _P4, _P5, _AX, _AY, _AZ = (LANES * i for i in range(17))


def term_count(order: int) -> int:
    """Number of pairs (n, m), 0 <= m <= n <= order."""
    return (order + 1) * (order + 2) // 2


@cache
def recurrence(order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Constants of an order, for the pairs (n, m) sorted by m, then n.

    Returns
    -------
    beta : ndarray (term_count,)
        Of the recurrence of U.
    gamma : ndarray (term_count,)
        R_nm = gamma (x + iy)^m U_nm, twice for m > 0: the terms of -m are the conjugates of those of m.
    mean_square : ndarray (term_count,)
        Mean over the unit sphere of the square of one real term, gamma included.
    """
    beta, gamma, mean_square = [], [], []
    for m in range(order + 1):
        scale = (1 + (m > 0)) / (2.0**m * factorial(m))
        for n in range(m, order + 1):
            if n > m:
                scale *= (2 * n - 1) / ((n - m) * (n + m))
            beta.append(((n - 1) ** 2 - m * m) / ((2 * n - 1) * (2 * n - 3)) if n > m + 1 else 0.0)
            gamma.append(scale)
            mean_square.append((1 + (m > 0)) / ((2 * n + 1) * factorial(n - m) * factorial(n + m)))
    return tuple(np.array(values) for values in (beta, gamma, mean_square))


@njit(cache=True, fastmath={"contract", "reassoc"})
def irregular_sums(centre, scale, points, weights, order, sums):
    """sums[(n, m), component, (cos, sin)] = Σ weights × I_nm((points - centre) / scale), pairs sorted by m, then n.

    Points and weights are (3, n); none of the points may be the centre.
    """
    w, weighted = np.zeros(8 * _SOURCES), np.zeros((3, 2, _SOURCES))
    used = [c for c in range(3) if weights[c].any()]
    sums[:] = 0.0
    for start in range(0, points.shape[1], _SOURCES):
        size = min(_SOURCES, points.shape[1] - start)
        weighted[:] = 0.0
        for i in range(_SOURCES):
            inverse, x, y, z = 0.0, 0.0, 0.0, 0.0  # lanes that are left over add nothing
            if i < size:
                x = (points[0, start + i] - centre[0]) / scale
                y = (points[1, start + i] - centre[1]) / scale
                z = (points[2, start + i] - centre[2]) / scale
                inverse = 1.0 / (x * x + y * y + z * z)
            w[_IX + i], w[_IY + i], w[_IZ + i], w[_I + i] = x * inverse, y * inverse, z * inverse, inverse
            w[_RE + i], w[_IM + i] = np.sqrt(inverse), 0.0
        k = 0
        for m in range(order + 1):
            if m:
                for i in range(_SOURCES):
                    real = (2 * m - 1) * (w[_IX + i] * w[_RE + i] - w[_IY + i] * w[_IM + i])
                    w[_IM + i] = (2 * m - 1) * (w[_IX + i] * w[_IM + i] + w[_IY + i] * w[_RE + i])
                    w[_RE + i] = real
            for c in used:
                weight = weights[c, start : start + size]
                for i in range(size):
                    weighted[c, 0, i], weighted[c, 1, i] = weight[i] * w[_RE + i], weight[i] * w[_IM + i]
            for i in range(_SOURCES):
                w[_NEW + i], w[_OLD + i] = 1.0, 0.0
            for n in range(m, order + 1):
                # the polynomial in z is common to cos and sin
                if n > m:
                    a, b = 2.0 * n - 1.0, (n - 1.0) ** 2 - m * m
                    for i in range(_SOURCES):
                        new = a * w[_IZ + i] * w[_NEW + i] - b * w[_I + i] * w[_OLD + i]
                        w[_OLD + i] = w[_NEW + i]
                        w[_NEW + i] = new
                for c in used:
                    cos, sin, real, imaginary = weighted[c, 0], weighted[c, 1], 0.0, 0.0
                    for i in range(_SOURCES):
                        real += cos[i] * w[_NEW + i]
                        imaginary += sin[i] * w[_NEW + i]
                    sums[k, c, 0] += real
                    sums[k, c, 1] += imaginary
                k += 1


@njit(cache=True)
def term_index(order, n, m):
    """Place of (n, m) among the pairs sorted by m, then n."""
    return m * (order + 1) - m * (m - 1) // 2 + n - m


@njit(cache=True)
def curl_of_sums(sums, order, out):
    """out[(n, m), component, (cos, sin)] = Σ moment × ∇ I_nm, from the sums of moment × I of one order more."""
    gradient = np.empty((3, 3, 2))  # derivative, component of the moment, (real, imaginary)
    k = 0
    for m in range(order + 1):
        for n in range(m, order + 1):
            here = term_index(order + 1, n + 1, m)
            up = term_index(order + 1, n + 1, m + 1)
            for c in range(3):
                ur, ui = sums[up, c, 0], sums[up, c, 1]
                if m:
                    down = term_index(order + 1, n + 1, m - 1)
                    dr, di = sums[down, c, 0], sums[down, c, 1]
                else:  # I of order -1 is minus the conjugate of that of order 1
                    dr, di = -ur, ui
                gradient[0, c, 0], gradient[0, c, 1] = (dr - ur) / 2, (di - ui) / 2
                gradient[1, c, 0], gradient[1, c, 1] = -(ui + di) / 2, (ur + dr) / 2
                gradient[2, c, 0], gradient[2, c, 1] = -sums[here, c, 0], -sums[here, c, 1]
            for part in range(2):
                out[k, 0, part] = gradient[2, 1, part] - gradient[1, 2, part]
                out[k, 1, part] = gradient[0, 2, part] - gradient[2, 0, part]
                out[k, 2, part] = gradient[1, 0, part] - gradient[0, 1, part]
            k += 1


@njit(cache=True, fastmath={"contract"})
def _lane_polynomials(w, row, order, beta):
    """Sum the harmonics of one cell for all lanes of the workspace `w`, whose rows are named by the offsets above."""
    for i in range(LANES):
        w[_S + i] = w[_X + i] * w[_X + i] + w[_Y + i] * w[_Y + i] + w[_Z + i] * w[_Z + i]
    k = 0
    for m in range(order + 1):
        # the terms n = m and n = m + 1, whose U are 1 and z
        a, b, c, d, e, f = row[k, 0], row[k, 1], row[k, 2], row[k, 3], row[k, 4], row[k, 5]
        more = 1 if m < order else 0
        k += more
        g, h, p, q, r, s = row[k, 0], row[k, 1], row[k, 2], row[k, 3], row[k, 4], row[k, 5]
        for i in range(LANES):
            u = more * w[_Z + i]
            w[_P + i] = a + g * u
            w[_P1 + i] = b + h * u
            w[_P2 + i] = c + p * u
            w[_P3 + i] = d + q * u
            w[_P4 + i] = e + r * u
            w[_P5 + i] = f + s * u
            w[_U + i] = w[_Z + i]
        for i in range(LANES):
            w[_V + i] = 1.0
        k += 1
        for _ in range(m + 2, order + 1):
            a, b, c, d, e, f = row[k, 0], row[k, 1], row[k, 2], row[k, 3], row[k, 4], row[k, 5]
            factor = beta[k]
            for i in range(LANES):
                u = w[_Z + i] * w[_U + i] - factor * w[_S + i] * w[_V + i]
                w[_V + i] = w[_U + i]
                w[_U + i] = u
                w[_P + i] += a * u
                w[_P1 + i] += b * u
                w[_P2 + i] += c * u
                w[_P3 + i] += d * u
                w[_P4 + i] += e * u
                w[_P5 + i] += f * u
            k += 1
        if m:
            for i in range(LANES):
                w[_AX + i] += w[_P + i] * w[_COS + i] + w[_P1 + i] * w[_SIN + i]
                w[_AY + i] += w[_P2 + i] * w[_COS + i] + w[_P3 + i] * w[_SIN + i]
                w[_AZ + i] += w[_P4 + i] * w[_COS + i] + w[_P5 + i] * w[_SIN + i]
                cos = w[_X + i] * w[_COS + i] - w[_Y + i] * w[_SIN + i]
                w[_SIN + i] = w[_X + i] * w[_SIN + i] + w[_Y + i] * w[_COS + i]
                w[_COS + i] = cos
        else:
            for i in range(LANES):
                w[_AX + i] = w[_P + i]
                w[_AY + i] = w[_P2 + i]
                w[_AZ + i] = w[_P4 + i]
                w[_COS + i] = w[_X + i]
                w[_SIN + i] = w[_Y + i]


@njit(cache=True, fastmath={"contract"}, inline="always")
def in_coil_frame(points, i, rotation, centre):
    """Point i of points (n, 3) in head coordinates, in the frame of a coil."""
    x, y, z = points[i, 0] - centre[0], points[i, 1] - centre[1], points[i, 2] - centre[2]
    return (
        rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0] * z,
        rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1] * z,
        rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2] * z,
    )


@njit(parallel=True, cache=True, fastmath={"contract"})
def evaluate(
    points, rotation, centre, factor, permutation, starts, cells, centres, scales, coefficients, order, beta, out
):
    """Field (n, 3), times `factor`, of a coil placed by `rotation` and `centre` at points (n, 3) in head coordinates.

    Points permutation[starts[b]:starts[b + 1]], at most `LANES` of them, lie in cells[b].
    """
    for task in prange((len(cells) + _TASK - 1) // _TASK):
        w = np.empty(17 * LANES)
        for block in range(task * _TASK, min((task + 1) * _TASK, len(cells))):
            cell, first, size = cells[block], starts[block], starts[block + 1] - starts[block]
            inverse = 1.0 / scales[cell]
            for i in range(LANES):
                point = permutation[first + min(i, size - 1)]
                x, y, z = in_coil_frame(points, point, rotation, centre)
                w[_X + i] = (x - centres[cell, 0]) * inverse
                w[_Y + i] = (y - centres[cell, 1]) * inverse
                w[_Z + i] = (z - centres[cell, 2]) * inverse
            _lane_polynomials(w, coefficients[cell], order, beta)
            for i in range(size):
                x, y, z = factor * w[_AX + i], factor * w[_AY + i], factor * w[_AZ + i]
                for c in range(3):
                    out[permutation[first + i], c] = rotation[c, 0] * x + rotation[c, 1] * y + rotation[c, 2] * z
