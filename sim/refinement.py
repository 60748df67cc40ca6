"""Uniform refinement of a head: what a finer mesh of the same head would give, for convergence studies."""

import numpy as np

from .head import Head
from .mesh_quality import tet_volumes
from .space import edge_keys

_CORNERS = np.array([[0, 4, 5, 6], [1, 4, 7, 8], [2, 5, 7, 9], [3, 6, 8, 9]])
# The inner octahedron, cut along each of its three diagonals; places 4 to 9 are the middles of `EDGES`.
_OCTAHEDRON = {
    (4, 9): [[4, 9, 5, 7], [4, 9, 7, 8], [4, 9, 8, 6], [4, 9, 6, 5]],
    (5, 8): [[5, 8, 4, 6], [5, 8, 6, 9], [5, 8, 9, 7], [5, 8, 7, 4]],
    (6, 7): [[6, 7, 4, 5], [6, 7, 5, 9], [6, 7, 9, 8], [6, 7, 8, 4]],
}


def refine(head, middle=None):
    """Each tetrahedron cut into eight of the same volume, tissue and conductivity.

    The four corners are cut off at the edges' middles; what is left, an octahedron, is cut along its shortest
    diagonal, so that shapes do not degenerate however often this is done (Bey 1995).

    Parameters
    ----------
    head : Head
    middle : callable, optional
        Takes the two ends of all edges, (k, 3) m each, to the places of their new nodes; e.g. onto the curved
        surface that the mesh stands for. By default the middle.

    Returns
    -------
    Head
        Its first nodes are those of `head`.

    Examples
    --------
    >>> len(refine(head).tets) / len(head.tets)                                   # doctest: +SKIP
    8.0
    """
    n = len(head.nodes)
    keys, inverse = np.unique(edge_keys(head.tets, n), return_inverse=True)
    ends = head.nodes[keys // n], head.nodes[keys % n]
    nodes = np.concatenate([head.nodes, 0.5 * sum(ends) if middle is None else middle(*ends)])
    ten = np.hstack([head.tets, n + inverse.reshape(-1, 6)])
    tets = np.concatenate([ten[:, _CORNERS], _inner(nodes, ten)], axis=1).reshape(-1, 4)
    tets = oriented_tets(nodes if middle is None else _straight(head, ends), tets)
    tissue, conductivity = np.repeat(head.tissue, 8), np.repeat(head.conductivity, 8)
    return Head(nodes, tets, tissue, conductivity, head.name, head.comment)


def _inner(nodes, ten):
    """The four tetrahedra of each octahedron, (m, 4, 4)."""
    diagonals = list(_OCTAHEDRON)
    length = np.stack([np.linalg.norm(nodes[ten[:, a]] - nodes[ten[:, b]], axis=1) for a, b in diagonals])
    cuts = np.array([_OCTAHEDRON[diagonal] for diagonal in diagonals])[length.argmin(0)]
    return np.take_along_axis(ten, cuts.reshape(len(ten), 16), axis=1).reshape(-1, 4, 4)


def _straight(head, ends):
    """Nodes as they are without a curve: orientation is a matter of the cuts, and a curve that inverts is a fault."""
    return np.concatenate([head.nodes, 0.5 * sum(ends)])


def oriented_tets(nodes, tets):
    """Elements with two nodes swapped where their volume would be negative."""
    inverted = tet_volumes(nodes, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return tets
