"""The weak form of the TMS problem with linear tetrahedra.

Quasi-static: E = -dA/dt - grad(phi), div(sigma E) = 0 in the head, no current through the scalp. For every test
function v:

    ∫ sigma grad(phi)·grad(v) dx = -∫ sigma dA/dt·grad(v) dx

The matrix depends on the head alone; the coil pose enters only on the right.
"""

import numpy as np
from scipy.sparse import csr_array

from .recovery import gradient_weights


def stiffness(head):
    """Matrix of ∫ sigma grad(u)·grad(v).

    Parameters
    ----------
    head : Head

    Returns
    -------
    scipy.sparse.csr_array (n, n), S

    Examples
    --------
    >>> k = stiffness(head)                                                       # doctest: +SKIP
    >>> abs(k @ np.ones(k.shape[0])).max() < 1e-12                                # doctest: +SKIP
    """
    weights = gradient_weights(head.nodes, head.tets)
    local = np.einsum("e,eik,ejk->eij", head.conductivity * head.volumes, weights, weights)
    rows, columns = np.repeat(head.tets, 4, axis=1), np.tile(head.tets, (1, 4))
    n = len(head.nodes)
    matrix = csr_array((local.reshape(len(head.tets), 16).ravel(), (rows.ravel(), columns.ravel())), shape=(n, n))
    matrix.sum_duplicates()
    return matrix


def load_operator(head):
    """Matrix that takes dA/dt at the nodes to the right-hand side -∫ sigma dA/dt·grad(v).

    dA/dt is linear in each element, so the integral takes its mean over the four nodes: exact for the interpolant.

    Parameters
    ----------
    head : Head

    Returns
    -------
    scipy.sparse.csr_array (n, 3 n), S m
        Columns in the order of ``dadt.ravel()`` with dadt (n, 3).
    """
    weights = gradient_weights(head.nodes, head.tets) * (-head.conductivity * head.volumes / 4)[:, None, None]
    shape = (len(head.tets), 4, 4, 3)
    rows = np.broadcast_to(head.tets[:, :, None, None], shape)
    columns = np.broadcast_to(3 * head.tets[:, None, :, None].astype(np.int64) + np.arange(3), shape)
    values = np.broadcast_to(weights[:, :, None, :], shape)
    n = len(head.nodes)
    return csr_array((values.ravel(), (rows.ravel(), columns.ravel())), shape=(n, 3 * n))
