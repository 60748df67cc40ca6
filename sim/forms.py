"""The weak form of the TMS problem on the space of `motorsweep.sim.space`.

Quasi-static: E = -dA/dt - grad(phi), div(sigma E) = 0 in the head, no current through the scalp. For every test
function v:

    ∫ sigma grad(phi)·grad(v) dx = -∫ sigma dA/dt·grad(v) dx

The matrix depends on the head alone; the coil pose enters only on the right. dA/dt is taken by its interpolant in the
same space, so that E = -dA/dt - grad(phi) is of one order. All integrals are exact: over an element of volume V,

    ∫ λi = V/4,    ∫ λi λj = V (1 + [i=j])/20,    ∫ λc λi λj = V (number of times that each stands there)!/120

and the gradient of a bubble is grad(4 λi λj) = 4 (λi gj + λj gi) with the constant gradients g of the λ.

The matrix and the three of the load have one pattern. It is made, and filled, row by row over the elements around
each unknown: no row is written by two threads, so the sums do not depend on how many there are.
"""

import numba
import numpy as np
from scipy.sparse import csr_array

from .mesh_quality import node_stars
from .recovery import gradient_weights
from .space import EDGES


def assemble(head, space):
    """Both sides of the weak form.

    Parameters
    ----------
    head : Head
    space : Space

    Returns
    -------
    stiffness : scipy.sparse.csr_array (size, size), S
        Matrix of ∫ sigma grad(u)·grad(v).
    load : list of 3 scipy.sparse.csr_array (size, size), S m
        Take dA/dt to -∫ sigma dA/dt·grad(v), which is the sum of their products with the three components of its
        coefficients in the space.

    Examples
    --------
    >>> stiffness, load = assemble(head, build_space(head, 1))                    # doctest: +SKIP
    >>> abs(stiffness @ np.ones(stiffness.shape[0])).max() < 1e-12                # doctest: +SKIP
    """
    unknowns = space.unknowns(head.tets)
    star = node_stars(unknowns, space.size)
    start = np.zeros(space.size + 1, np.int64)
    _count(*star, unknowns, start[1:])
    np.cumsum(start, out=start)
    kind = np.int32 if start[-1] < 2**31 else np.int64
    start, columns = start.astype(kind), np.empty(start[-1], np.int32)
    values = np.zeros((4, len(columns)))
    slopes = gradient_weights(head.nodes, head.tets)
    _fill(*star, unknowns, slopes, head.conductivity * head.volumes, EDGES, start, columns, values)
    shape = (space.size, space.size)
    stiffness, *load = (csr_array((one, columns, start), shape=shape) for one in values)
    return stiffness, load


def right_hand_sides(load, dadt):
    """-∫ sigma dA/dt·grad(v) for many poses: the sum of the products of `load` with the components of dA/dt.

    Parameters
    ----------
    load : list of 3 scipy.sparse.csr_array (size, size)
        As `assemble` gives it.
    dadt : ndarray (size, 3, p), V/m
        Coefficients of dA/dt in the space.

    Returns
    -------
    ndarray (size, p), A
    """
    total = np.zeros((dadt.shape[0], dadt.shape[2]))
    _add_products(load[0].indptr, load[0].indices, *(matrix.data for matrix in load), dadt, total)
    return total


@numba.njit(parallel=True, cache=True)
def _add_products(start, columns, x, y, z, dadt, total):
    # In one pass: the three matrices have one pattern, and the components of a pose lie side by side.
    for row in numba.prange(len(start) - 1):
        for place in range(start[row], start[row + 1]):
            column = columns[place]
            for pose in range(total.shape[1]):
                total[row, pose] += (
                    x[place] * dadt[column, 0, pose]
                    + y[place] * dadt[column, 1, pose]
                    + z[place] * dadt[column, 2, pose]
                )


@numba.njit(cache=True)
def _columns_of(row, start, elements, unknowns):
    """Sorted unknowns that share an element with this one."""
    found = np.empty((start[row + 1] - start[row]) * 10, np.int32)
    count = 0
    for place in range(start[row], start[row + 1]):
        for b in range(10):
            unknown = unknowns[elements[place], b]
            if unknown >= 0:
                found[count] = unknown
                count += 1
    return np.unique(found[:count])


@numba.njit(parallel=True, cache=True)
def _count(start, elements, unknowns, counts):
    for row in numba.prange(len(counts)):
        counts[row] = len(_columns_of(row, start, elements, unknowns))


@numba.njit(parallel=True, cache=True)
def _fill(star, elements, unknowns, slopes, scale, edges, start, columns, values):
    for row in numba.prange(len(start) - 1):
        own = _columns_of(row, star, elements, unknowns)
        columns[start[row] : start[row + 1]] = own
        for place in range(star[row], star[row + 1]):
            e = elements[place]
            a = 0
            while unknowns[e, a] != row:
                a += 1
            for b in range(10):
                if unknowns[e, b] >= 0:
                    at = start[row] + np.searchsorted(own, unknowns[e, b])
                    _add(a, b, slopes[e], scale[e], edges, values, at)


@numba.njit(cache=True)
def _add(a, b, g, scale, edges, values, at):
    """Add the integrals over one element, of test function `a` and trial function `b` (places 4 to 9 are bubbles)."""
    i, j = (a, a) if a < 4 else (edges[a - 4, 0], edges[a - 4, 1])
    k, l = (b, b) if b < 4 else (edges[b - 4, 0], edges[b - 4, 1])  # noqa: E741
    for c in range(3):
        if a < 4:
            stiff = g[a, c] * (g[b, c] if b < 4 else g[k, c] + g[l, c])
            mean = g[a, c] * (0.25 if b < 4 else 0.2)
        elif b < 4:
            stiff = g[b, c] * (g[i, c] + g[j, c])
            mean = 0.2 * ((1 + (b == i)) * g[j, c] + (1 + (b == j)) * g[i, c])
        else:
            stiff = 0.8 * (
                g[j, c] * ((1 + (i == k)) * g[l, c] + (1 + (i == l)) * g[k, c])
                + g[i, c] * ((1 + (j == k)) * g[l, c] + (1 + (j == l)) * g[k, c])
            )
            mean = 16 / 120 * ((1 + (i == k or i == l)) * g[j, c] + (1 + (j == k or j == l)) * g[i, c])
        values[0, at] += scale * stiff
        values[1 + c, at] -= scale * mean
