"""Tetrahedron quality, and the smoothing pass that rids a mesh of slivers.

A sliver is a tetrahedron with six good edge lengths and hardly any volume. Delaunay meshers leave about one per cent
of them; each one spoils the condition of the stiffness matrix and the gradient recovered near it.
"""

import numba
import numpy as np

from ..errors import MeshError


def tet_volumes(nodes, tets):
    """Signed volumes of tetrahedra, positive where the nodes are ordered by the right-hand rule.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4) of node indices

    Returns
    -------
    ndarray (m,), m³

    Examples
    --------
    >>> float(tet_volumes(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), np.array([[0, 1, 2, 3]]))[0] * 6)
    1.0
    """
    a, b, c, d = (nodes[tets[:, k]] for k in range(4))
    return np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a) / 6


def volume_length_quality(nodes, tets):
    """Volume over cubed root-mean-square edge length, scaled to 1 for the regular tetrahedron (Parthasarathy 1994).

    Zero for a degenerate element and negative for an inverted one.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)

    Returns
    -------
    ndarray (m,), 1

    Examples
    --------
    >>> regular = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1.0]])
    >>> round(float(abs(volume_length_quality(regular, np.array([[0, 1, 2, 3]]))[0])), 12)
    1.0
    """
    x = nodes[tets]
    pairs = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    mean_square = sum(np.square(x[:, i] - x[:, j]).sum(1) for i, j in pairs) / 6
    return 6 * np.sqrt(2) * tet_volumes(nodes, tets) / np.maximum(mean_square, np.finfo(float).tiny) ** 1.5


def smallest_dihedral_angles(nodes, tets):
    """Smallest dihedral angle of each tetrahedron, in degrees.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)

    Returns
    -------
    ndarray (m,), degrees

    Examples
    --------
    >>> regular = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1.0]])
    >>> round(float(smallest_dihedral_angles(regular, np.array([[0, 1, 2, 3]]))[0]), 3)
    70.529
    """
    x = nodes[tets]
    normals = []
    for i, j, k in ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1)):
        normal = np.cross(x[:, j] - x[:, i], x[:, k] - x[:, i])
        normals.append(normal / np.maximum(np.linalg.norm(normal, axis=1), np.finfo(float).tiny)[:, None])
    cosines = [(normals[i] * normals[j]).sum(1) for i in range(4) for j in range(i)]
    return 180 - np.degrees(np.arccos(np.clip(np.min(cosines, axis=0), -1, 1)))


def node_stars(tets, n_nodes):
    """Tetrahedra around each node, in compressed rows.

    Parameters
    ----------
    tets : ndarray (m, c)
        Nodes of each element, or its unknowns of any kind; -1 where there is none.
    n_nodes : int

    Returns
    -------
    start : ndarray (n_nodes + 1,)
    elements : ndarray; those of node ``i`` are ``elements[start[i]:start[i + 1]]``, in ascending order

    Examples
    --------
    >>> start, elements = node_stars(np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), 5)
    >>> elements[start[4]:start[5]].tolist()
    [1]
    """
    flat = tets.ravel()
    kept = np.flatnonzero(flat >= 0)
    order = kept[np.argsort(flat[kept], kind="stable")]
    start = np.zeros(n_nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(flat[kept], minlength=n_nodes), out=start[1:])
    return start, order // tets.shape[1]


@numba.njit(cache=True)
def _quality(x, y, z, u):
    a0, a1, a2 = y[0] - x[0], y[1] - x[1], y[2] - x[2]
    b0, b1, b2 = z[0] - x[0], z[1] - x[1], z[2] - x[2]
    c0, c1, c2 = u[0] - x[0], u[1] - x[1], u[2] - x[2]
    six_volume = (a1 * b2 - a2 * b1) * c0 + (a2 * b0 - a0 * b2) * c1 + (a0 * b1 - a1 * b0) * c2
    d0, d1, d2 = b0 - a0, b1 - a1, b2 - a2
    e0, e1, e2 = c0 - a0, c1 - a1, c2 - a2
    f0, f1, f2 = c0 - b0, c1 - b1, c2 - b2
    square = a0 * a0 + a1 * a1 + a2 * a2 + b0 * b0 + b1 * b1 + b2 * b2 + c0 * c0 + c1 * c1 + c2 * c2
    square += d0 * d0 + d1 * d1 + d2 * d2 + e0 * e0 + e1 * e1 + e2 * e2 + f0 * f0 + f1 * f1 + f2 * f2
    return 1.4142135623730951 * six_volume / (square / 6) ** 1.5


@numba.njit(cache=True)
def _worst(node, nodes, tets, start, elements):
    worst = 2.0
    for k in range(start[node], start[node + 1]):
        t = tets[elements[k]]
        worst = min(worst, _quality(nodes[t[0]], nodes[t[1]], nodes[t[2]], nodes[t[3]]))
    return worst


@numba.njit(cache=True)
def _sweep(nodes, tets, start, elements, candidates, reach, moved, limit, directions):
    """Move each candidate to the best of the trial places; a node on a border stays within ``limit`` of its home."""
    gained = 0
    for node in candidates:
        home = nodes[node].copy()
        best = _worst(node, nodes, tets, start, elements)
        best_place = home.copy()
        for step in (0.3, 0.1, 0.03):
            for direction in directions:
                place = best_place + step * reach[node] * direction
                if np.sqrt(((place - moved[node]) ** 2).sum()) > limit[node]:
                    continue
                nodes[node] = place
                quality = _worst(node, nodes, tets, start, elements)
                if quality > best:
                    best = quality
                    best_place = place
        nodes[node] = best_place
        if (best_place != home).any():
            gained += 1
    return gained


def remove_slivers(nodes, tets, tissue, target=0.15, border_limit=0.1, sweeps=12):
    """Move nodes around poor tetrahedra until none is poorer than ``target``, or nothing more helps.

    A node inside a tissue moves freely; one on a border between tissues, or on the scalp, moves at most
    ``border_limit`` of the mean edge length around it, so that tissue volumes and shapes are kept. A move is taken only
    if the worst element around the node gets better: quality never falls and no element is inverted.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4), positively oriented
    tissue : ndarray (m,)
    target : float
        Volume-length quality (1) below which an element is worked on.
    border_limit : float
        Largest shift of a border node, as a fraction of the mean edge length around it.
    sweeps : int

    Returns
    -------
    ndarray (n, 3), m
        New places of the nodes.

    Raises
    ------
    MeshError
        If an element is inverted or flat to begin with.

    Examples
    --------
    >>> nodes, tets = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), np.array([[0, 1, 2, 3]])
    >>> bool((remove_slivers(nodes, tets, np.array([1])) == nodes).all())
    True
    """
    quality = volume_length_quality(nodes, tets)
    if (quality <= 0).any():
        worst = int(np.argmin(quality))
        raise MeshError(
            f"smoothing the mesh: element {worst} is inverted or flat (quality {quality[worst]:.2g}); no place of its "
            "nodes can be improved from there. Orient the elements first, or mesh again with other sizes."
        )
    nodes = np.array(nodes, dtype=float)
    tets = np.ascontiguousarray(tets, dtype=np.int64)
    start, elements = node_stars(tets, len(nodes))
    border = _border_nodes(tets, tissue, len(nodes))
    reach = _mean_edges(nodes, tets)
    limit = np.where(border, border_limit * reach, np.inf)
    home = nodes.copy()
    directions = _directions()
    for _ in range(sweeps):
        poor = volume_length_quality(nodes, tets) < target
        candidates = np.unique(tets[poor])
        if not len(candidates):
            break
        if not _sweep(nodes, tets, start, elements, candidates, reach, home, limit, directions):
            break
    return nodes


def _border_nodes(tets, tissue, n_nodes):
    """Nodes that touch two tissues or the outside."""
    lowest, highest = np.full(n_nodes, np.iinfo(np.int64).max), np.full(n_nodes, -1)
    np.minimum.at(lowest, tets, np.asarray(tissue, dtype=np.int64)[:, None])
    np.maximum.at(highest, tets, np.asarray(tissue, dtype=np.int64)[:, None])
    border = lowest != highest
    border[np.unique(boundary_triangles(tets))] = True
    return border


def _mean_edges(nodes, tets):
    total, count = np.zeros(len(nodes)), np.zeros(len(nodes))
    for i in range(4):
        for j in range(i):
            length = np.linalg.norm(nodes[tets[:, i]] - nodes[tets[:, j]], axis=1)
            for k in (i, j):
                total += np.bincount(tets[:, k], length, len(nodes))
                count += np.bincount(tets[:, k], minlength=len(nodes))
    return total / np.maximum(count, 1)


def _directions():
    """Fourteen directions: along the axes and the diagonals of a cube."""
    axes = np.vstack([np.eye(3), -np.eye(3)])
    diagonals = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / np.sqrt(3)
    return np.vstack([axes, diagonals])


def boundary_triangles(tets):
    """Triangles that belong to one tetrahedron only: the outer surface of the mesh.

    Parameters
    ----------
    tets : ndarray (m, 4), positively oriented

    Returns
    -------
    ndarray (k, 3)
        Node indices, ordered so that the normal points outward.

    Examples
    --------
    >>> len(boundary_triangles(np.array([[0, 1, 2, 3]])))
    4
    """
    faces = np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 3, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 1]]])
    keys = np.sort(faces, axis=1).astype(np.int64)
    n = int(keys.max()) + 1
    flat = (keys[:, 0] * n + keys[:, 1]) * n + keys[:, 2]
    _, first, counts = np.unique(flat, return_index=True, return_counts=True)
    return faces[np.sort(first[counts == 1])]
