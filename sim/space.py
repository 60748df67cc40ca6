"""The finite-element space: linear everywhere, second order where the field is wanted.

The basis is hierarchical: the four linear functions λ of an element, and on its edges (i, j) the bubbles 4 λi λj. An
edge carries a bubble only if every element around it is of second order. Leaving the bubble out *is* the condition
that the potential is linear along that edge, so the space is conforming without any constraint: the elements next to
the region take part in it by the edges that they keep.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..errors import ConfigError

EDGES = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
"""Corners of the six edges of a tetrahedron."""


@dataclass(frozen=True, eq=False)
class Space:
    """Unknowns of a mesh: its nodes first, then the edges that carry a bubble.

    Attributes
    ----------
    nodes : ndarray (n, 3), m
    edges : ndarray (k, 2) int32
        End nodes of the edges with a bubble; unknown ``n + e`` is the bubble of edge ``e``.
    second : ndarray (s,) int64
        Elements of second order, ascending.
    edge_unknowns : ndarray (s, 6) int32
        Unknowns of the edges (in the order of `EDGES`) of the elements of second order; -1 where there is no bubble.

    Examples
    --------
    >>> space = build_space(head, 2, region=grid)                                 # doctest: +SKIP
    >>> space.size                                                                # doctest: +SKIP
    569239
    """

    nodes: np.ndarray
    edges: np.ndarray
    second: np.ndarray
    edge_unknowns: np.ndarray

    @property
    def size(self):
        """Number of unknowns."""
        return len(self.nodes) + len(self.edges)

    def unknowns(self, tets):
        """Unknowns of every element, (m, 10) int32: corners, then edges in the order of `EDGES`; -1 for none."""
        table = np.full((len(tets), 10), -1, np.int32)
        table[:, :4] = tets
        table[self.second, 4:] = self.edge_unknowns
        return table

    def points(self):
        """Where a function is asked for so that the space can interpolate it: nodes and edge middles, (size, 3) m."""
        return np.concatenate([self.nodes, self.nodes[self.edges].mean(1)]) if len(self.edges) else self.nodes

    def coefficients(self, values):
        """Coefficients of the function that has these values at `points`.

        Parameters
        ----------
        values : ndarray (..., size, c)

        Returns
        -------
        ndarray (..., size, c)
            Values at the nodes; at the edges, what is over the mean of the two ends.
        """
        if not len(self.edges):
            return values
        n = len(self.nodes)
        at_nodes, at_edges = values[..., :n, :], values[..., n:, :]
        bubbles = at_edges - 0.5 * (at_nodes[..., self.edges[:, 0], :] + at_nodes[..., self.edges[:, 1], :])
        return np.concatenate([at_nodes, bubbles], axis=-2)

    def coefficients_adjoint(self, functionals):
        """Transpose of `coefficients`: functionals of a function's coefficients, as functionals of its values.

        Parameters
        ----------
        functionals : ndarray (size, ...)

        Returns
        -------
        ndarray (size, ...)
            The sum of its products with the values at `points` is that of the functionals with the coefficients.
        """
        result, n, k = np.array(functionals), len(self.nodes), len(self.edges)
        if k:
            ends = csr_array((np.full(2 * k, 0.5), (self.edges.ravel(), np.repeat(np.arange(k), 2))), shape=(n, k))
            result[:n] -= (ends @ result[n:].reshape(k, -1)).reshape(result[:n].shape)
        return result


def build_space(head, order, region=None, margin_m=0.0):
    """Unknowns of a head.

    Parameters
    ----------
    head : Head
    order : int
        1: linear elements. 2: second order in the region.
    region : VolumeGrid, optional
        Cube of the elements of second order: those with their centre in it or in the margin; by default all.
    margin_m : float
        Second order reaches this much farther than the cube, m.

    Returns
    -------
    Space

    Raises
    ------
    ConfigError
        If the order is neither 1 nor 2.
    """
    if order not in (1, 2):
        raise ConfigError(f"finite elements of order {order} are not built; choose 1 or 2.")
    if order == 1:
        second = np.zeros(0, np.int64)
    elif region is None:
        second = np.arange(len(head.tets))
    else:
        axes = np.array(region.axes())
        half = region.spacing_m / 2 + margin_m
        centres = head.nodes[head.tets].mean(1)
        second = np.flatnonzero(((centres >= axes[:, 0] - half) & (centres <= axes[:, -1] + half)).all(1))
    return Space(head.nodes, *_bubbles(head.tets, second, len(head.nodes)))


def _bubbles(tets, second, n_nodes):
    """Edges of which every element is of second order; and, for each such element, its edges' unknowns."""
    own = edge_keys(tets[second], n_nodes)
    is_second = np.zeros(len(tets), bool)
    is_second[second] = True
    # Only elements that touch the region can share an edge with it.
    touched = np.zeros(n_nodes, bool)
    touched[tets[second]] = True
    around = tets[~is_second & (touched[tets].sum(1) >= 2)]
    keys = np.setdiff1d(own, edge_keys(around, n_nodes))
    place = np.minimum(np.searchsorted(keys, own), max(len(keys) - 1, 0))
    found = keys[place] == own if len(keys) else np.zeros(own.shape, bool)
    edges = np.stack([keys // n_nodes, keys % n_nodes], axis=1).astype(np.int32)
    return edges, second, np.where(found, n_nodes + place, -1).astype(np.int32)


def edge_keys(tets, n_nodes):
    """One number for each edge, the same in every element that has it: (m, 6) int64."""
    ends = np.sort(tets[:, EDGES].astype(np.int64), axis=2)
    return ends[..., 0] * n_nodes + ends[..., 1]
