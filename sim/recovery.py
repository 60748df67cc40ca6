"""Gradients of linear elements, and their recovery at nodes tissue by tissue.

The gradient of a linear element is constant, so it jumps between elements. Superconvergent patch recovery
(Zienkiewicz & Zhu 1992) fits a linear field to the gradients of the elements around each node. It is done for each
tissue alone: the normal field really jumps where the conductivity does, and must not be smoothed there.
"""

import numpy as np
from scipy.sparse import csr_array

from .mesh_quality import node_stars

# Ridge on the slopes of a patch, relative to the spread of its elements. It keeps thin patches (two elements at a
# tip of grey matter) from extrapolating; on a full patch it changes the value by less than the discretisation error.
_RIDGE = 1e-2


def gradient_weights(nodes, tets):
    """Gradients of the four linear shape functions of each element.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)

    Returns
    -------
    ndarray (m, 4, 3), 1/m

    Examples
    --------
    >>> nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    >>> gradient_weights(nodes, np.array([[0, 1, 2, 3]]))[0, 1].tolist()
    [1.0, 0.0, 0.0]
    """
    x = nodes[tets]
    edges = x[:, 1:] - x[:, :1]
    inverse = np.linalg.inv(edges)
    others = np.swapaxes(inverse, 1, 2)
    return np.concatenate([-others.sum(1, keepdims=True), others], axis=1)


def gradient_operator(nodes, tets):
    """Operator from nodal values to the gradient in each element.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)

    Returns
    -------
    scipy.sparse.csr_array (3 m, n), 1/m
        Row 3 e + k is component k in element e.

    Examples
    --------
    >>> nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    >>> (gradient_operator(nodes, np.array([[0, 1, 2, 3]])) @ nodes[:, 0]).tolist()
    [1.0, 0.0, 0.0]
    """
    values = gradient_weights(nodes, tets).transpose(0, 2, 1)
    columns = np.repeat(np.asarray(tets, np.int32), 3, axis=0)
    start = np.arange(0, 12 * len(tets) + 1, 4, dtype=np.int32)
    return csr_array((values.ravel(), columns.ravel(), start), shape=(3 * len(tets), len(nodes)))


def patch_recovery(barycentres, nodes, tets, used):
    """Operator from element values to values at nodes, by a linear fit over each node's patch.

    Exact for values that are linear in space on full patches, up to the stated ridge.

    Parameters
    ----------
    barycentres : ndarray (m, 3), m
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)
        Elements of one tissue.
    used : ndarray (u,) of int
        Nodes at which values are wanted.

    Returns
    -------
    scipy.sparse.csr_array (u, m)

    Examples
    --------
    >>> operator = patch_recovery(centres, nodes, tets, np.unique(tets))          # doctest: +SKIP
    """
    start, elements = node_stars(tets, len(nodes))
    lengths = start[used + 1] - start[used]
    first = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(used)), lengths)
    column = elements[np.repeat(start[used], lengths) + np.arange(first[-1]) - np.repeat(first[:-1], lengths)]
    offset = barycentres[column] - nodes[used][row]
    scale = np.sqrt(np.bincount(row, np.square(offset).sum(1), len(used)) / lengths)
    basis = np.hstack([np.ones((len(row), 1)), offset / scale[row, None]])
    normal = np.zeros((len(used), 4, 4))
    for i in range(4):
        for j in range(4):
            normal[:, i, j] = np.bincount(row, basis[:, i] * basis[:, j], len(used))
    normal[:, [1, 2, 3], [1, 2, 3]] += _RIDGE * lengths[:, None] / 3
    # The fit's value at the node itself is its constant term.
    constant = np.linalg.solve(normal, np.broadcast_to(np.eye(4)[0], (len(used), 4))[..., None])[..., 0]
    weights = np.einsum("ri,ri->r", basis, constant[row])
    return csr_array((weights, (row, column)), shape=(len(used), len(tets)))
