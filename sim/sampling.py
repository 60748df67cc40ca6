"""From unknowns to the field at points: gradients in elements of second order, recovered ones in linear elements.

Nothing is averaged across tissues, so the jumps of the normal field at their borders stay.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack, vstack

from .recovery import gradient_operator, gradient_weights, patch_recovery
from .space import EDGES
from .volume import locate


@dataclass(frozen=True, eq=False)
class Sampler:
    """Sparse operators that take a potential and dA/dt in a space to the field at fixed points.

    Built once for a space and a set of points.

    Parameters
    ----------
    slopes : csr_array (3 p, size)
        Potential to its gradient at points in elements of second order, 1/m; row 3 i + k is component k at point i.
    gradient : csr_array (3 r, n)
        Potential at nodes to gradient in the ``r`` elements around points in linear elements, 1/m.
    recovery : csr_array (t, r)
        Gradient in those elements to gradient at nodes, recovered tissue by tissue; a node at a border has a row for
        each of its tissues.
    spread : csr_array (p, t)
        Gradient at nodes to gradient at points. The product of both, as one matrix, would have ten times the entries.
    interpolation : csr_array (p, size)
        Coefficients to values at points.
    tissue : ndarray (p,) int16
        Tissue at each point, 0 outside the head.

    Examples
    --------
    >>> sampler = build_sampler(head, space, grid.points())                       # doctest: +SKIP
    >>> e = sampler.field(potentials, dadt)                                       # doctest: +SKIP
    """

    slopes: csr_array
    gradient: csr_array
    recovery: csr_array
    spread: csr_array
    interpolation: csr_array
    tissue: np.ndarray

    def field(self, potentials, dadt):
        """E = -dA/dt - grad(phi) at the points.

        Parameters
        ----------
        potentials : ndarray (k, size), V
            Coefficients in the space.
        dadt : ndarray (size, 3, k), V/m
            Coefficients in the space.

        Returns
        -------
        ndarray (k, p, 3) float64, V/m; zero outside the head
        """
        poses, size = potentials.shape
        columns = np.ascontiguousarray(potentials.T)
        field = (self.interpolation @ dadt.reshape(size, 3 * poses)).reshape(-1, 3, poses)
        if self.slopes.nnz:
            field += (self.slopes @ columns).reshape(-1, 3, poses)
        if self.recovery.nnz:
            in_elements = (self.gradient @ columns[: self.gradient.shape[1]]).reshape(-1, 3 * poses)
            field += (self.spread @ (self.recovery @ in_elements)).reshape(-1, 3, poses)
        return -field.transpose(2, 0, 1)

    def adjoint(self, values):
        """Transpose of `field`: functionals of the field at the points, as functionals of potential and dA/dt.

        Parameters
        ----------
        values : ndarray (p, 3, k)

        Returns
        -------
        of_potential : ndarray (size, k)
        of_dadt : ndarray (size, 3, k)
            With them, the sum of values times field is that of potential and dA/dt times these.
        """
        points, _, k = values.shape
        flat = np.ascontiguousarray(values).reshape(points, 3 * k)
        of_dadt = -(self.interpolation.T @ flat).reshape(-1, 3, k)
        of_potential = -(self.slopes.T @ flat.reshape(3 * points, k))
        if self.recovery.nnz:
            in_elements = (self.recovery.T @ (self.spread.T @ flat)).reshape(-1, k)
            of_potential[: self.gradient.shape[1]] -= self.gradient.T @ in_elements
        return of_potential, of_dadt


def build_sampler(head, space, points):
    """Sampling operators of a head at points.

    Parameters
    ----------
    head : Head
    space : Space
    points : ndarray (p, 3), m

    Returns
    -------
    Sampler
    """
    element, weights = locate(head.nodes, head.tets, points)
    inside = element >= 0
    tissue = np.zeros(len(points), np.int16)
    tissue[inside] = head.tissue[element[inside]]
    position = np.searchsorted(space.second, element)
    second = inside & (np.append(space.second, -1)[position] == element)
    linear = np.flatnonzero(inside & ~second)
    second = np.flatnonzero(second)
    unknowns = np.hstack([head.tets[element[second]], space.edge_unknowns[position[second]]])
    interpolation = _rows(linear, head.tets[element[linear]], weights[linear], (len(points), space.size))
    interpolation = interpolation + _rows(second, unknowns, _values(weights[second]), (len(points), space.size))
    slopes = _slopes(head, element[second], weights[second])
    rows = 3 * second[:, None] + np.arange(3)
    columns = np.repeat(unknowns, 3, axis=0)
    at_second = _rows(rows.ravel(), columns, slopes.reshape(-1, 10), (3 * len(points), space.size))
    needed = _neighbourhood(head, np.unique(element[linear]))
    recovery, spread = _recovery(head, needed, element, weights, linear)
    gradient = gradient_operator(head.nodes, head.tets[needed])
    return Sampler(at_second, gradient, recovery, spread, csr_array(interpolation), tissue)


def _values(weights):
    """The ten basis functions of an element of second order at barycentric coordinates (p, 4)."""
    i, j = EDGES.T
    return np.hstack([weights, 4 * weights[:, i] * weights[:, j]])


def _slopes(head, element, weights):
    """Their gradients, (p, 3, 10) 1/m."""
    linear = gradient_weights(head.nodes, head.tets[element])
    i, j = EDGES.T
    bubbles = 4 * (weights[:, i, None] * linear[:, j] + weights[:, j, None] * linear[:, i])
    return np.concatenate([linear, bubbles], axis=1).transpose(0, 2, 1)


def _rows(rows, columns, values, shape):
    """Sparse matrix of given rows; columns of -1 are left out."""
    row, kept = np.repeat(rows, columns.shape[1]), columns.ravel() >= 0
    return csr_array((values.ravel()[kept], (row[kept], columns.ravel()[kept])), shape=shape)


def _neighbourhood(head, elements):
    """Elements that share a node with the given ones."""
    touched = np.zeros(len(head.nodes), bool)
    touched[head.tets[elements]] = True
    return np.flatnonzero(touched[head.tets].any(1))


def _recovery(head, needed, element, weights, chosen):
    """Recovery of the gradient at nodes, tissue by tissue, and its way to the chosen points in linear elements."""
    recoveries, spreads = [csr_array((0, len(needed)))], [csr_array((len(element), 0))]
    tissue = head.tissue[element[chosen]]
    for tag in np.unique(tissue):
        own = np.flatnonzero(head.tissue[needed] == tag)
        tets = head.tets[needed[own]]
        points = chosen[tissue == tag]
        corners = head.tets[element[points]]
        used, local = np.unique(corners, return_inverse=True)
        at_nodes = patch_recovery(head.nodes[tets].mean(1), head.nodes, tets, used)
        among = csr_array((np.ones(len(own)), (np.arange(len(own)), own)), shape=(len(own), len(needed)))
        recoveries.append(at_nodes @ among)
        spreads.append(_rows(points, local.reshape(corners.shape), weights[points], (len(element), len(used))))
    return csr_array(vstack(recoveries)), csr_array(hstack(spreads))
