"""The weak form of the TMS problem with linear tetrahedra.

Quasi-static: E = -dA/dt - grad(phi), div(sigma E) = 0 in the head, no current through the scalp. For every test
function v:

    ∫ sigma grad(phi)·grad(v) dx = -∫ sigma dA/dt·grad(v) dx

The matrix depends on the head alone; the coil pose enters only on the right.
"""

import numpy as np
from scipy.sparse import csr_array, hstack

from .recovery import gradient_operator, gradient_weights


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
    gradient = gradient_operator(head.nodes, head.tets)
    weighted = gradient.copy()
    weighted.data *= np.repeat(head.conductivity * head.volumes, 12)
    return csr_array(weighted.T.tocsr() @ gradient)


def load_operator(head):
    """Matrix that takes dA/dt at the nodes to the right-hand side -∫ sigma dA/dt·grad(v).

    dA/dt is linear in each element, so the integral takes its mean over the four nodes: exact for the interpolant.

    Parameters
    ----------
    head : Head

    Returns
    -------
    scipy.sparse.csr_array (n, 3 n), S m
        Columns by component: those of x first, in the order of ``dadt.T.ravel()`` with dadt (n, 3).
    """
    n, m = len(head.nodes), len(head.tets)
    start = np.arange(0, 4 * m + 1, 4, dtype=np.int32)
    mean = csr_array((np.full(4 * m, 0.25), head.tets.ravel(), start), shape=(m, n))
    weights = gradient_weights(head.nodes, head.tets) * (-head.conductivity * head.volumes)[:, None, None]
    blocks = []
    for k in range(3):
        slopes = csr_array((weights[:, :, k].ravel(), head.tets.ravel(), start), shape=(m, n))
        blocks.append(slopes.T.tocsr() @ mean)
    return csr_array(hstack(blocks, format="csr"))
