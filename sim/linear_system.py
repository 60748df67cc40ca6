"""A matrix on PETSc whose rows may be shared by ranks, and the check of every solution against it."""

import time
from dataclasses import dataclass

import numpy as np

from ..errors import ConvergenceError, MotorsweepError
from .distributed import share_rows

_CHECKED_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class SolveReport:
    """What one solve took and how well it did.

    Parameters
    ----------
    iterations : int
        Zero for a direct solve.
    residual : float
        True residual ||b - K x|| / ||b||.
    seconds : float
        Share of the block's wall time.
    error_estimate : float
        Of a field by modes: estimated relative L2 error in brain tissue. NaN where the system was solved.

    Examples
    --------
    >>> SolveReport(iterations=0, residual=1e-14, seconds=0.06).iterations
    0
    """

    iterations: int
    residual: float
    seconds: float
    error_estimate: float = np.nan


class LinearSystem:
    """A symmetric positive definite matrix on PETSc, and blocks of right-hand sides solved and checked.

    The kinds of solver differ in `_solve` alone, which fills solutions in place and gives their iterations.

    Parameters
    ----------
    petsc : module
        `petsc4py.PETSc`, started.
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
        A block whose true residual is larger is refused.
    n_nodes : int or None
        How many unknowns, the first ones, are those of nodes; all for None.
    comm : mpi4py communicator or None
        Ranks that share the matrix; each has all of it here.
    """

    def __init__(self, petsc, matrix, rtol, n_nodes, comm):
        self._petsc, self._rtol, self._n = petsc, rtol, matrix.shape[0]
        self._rows = share_rows(comm, self._n, n_nodes)
        self._comm = self._petsc.COMM_SELF if comm is None else comm
        self._a = _aij(self._petsc, self._rows.matrix(matrix), self._comm)
        self._ksp = self._petsc.KSP().create(self._comm)
        self._ksp.setOperators(self._a)

    def solve(self, loads):
        """Solve for a block of right-hand sides; with a communicator, those of all its ranks together.

        Parameters
        ----------
        loads : ndarray (k, n)
            Of this rank's poses.

        Returns
        -------
        ndarray (k, n), list of SolveReport
            Solutions of this rank's poses, and reports of all ranks' poses.

        Raises
        ------
        ConvergenceError
            If a true residual is over the tolerance, on all ranks alike.
        """
        began = time.perf_counter()
        right, counts = self._rows.to_rows(loads)
        solution = np.zeros_like(right)
        iterations = self._solve(right, solution)
        residuals = self._residuals(right, solution)
        share = (time.perf_counter() - began) / len(right)
        reports = [_checked(k, r, share, self._rtol) for k, r in zip(iterations, residuals)]
        return self._rows.to_poses(solution, counts), reports

    def _dense(self, rows):
        """PETSc's matrix of the columns that are the rows of an array (k, n); it works in the array's memory."""
        k, own = rows.shape
        dense = self._petsc.Mat().createDense(((own, self._n), (None, k)), array=rows.T, comm=self._comm)
        dense.assemble()
        return dense

    def _residuals(self, right, solution):
        """True residuals, a few poses at a time, as the products take memory too."""
        squares = np.empty((2, len(right)))
        for first in range(0, len(right), _CHECKED_AT_ONCE):
            part = slice(first, first + _CHECKED_AT_ONCE)
            x = self._dense(solution[part])
            product = self._a.matMult(x)
            rest = right[part] - product.getDenseArray().T
            squares[:, part] = np.einsum("kn,kn->k", rest, rest), np.einsum("kn,kn->k", right[part], right[part])
            x.destroy()
            product.destroy()
        rest, norms = np.sqrt(self._rows.total(squares))
        return rest / np.where(norms > 0, norms, 1)


def _aij(petsc, matrix, comm):
    own, n = matrix.shape
    if matrix.nnz > np.iinfo(petsc.IntType).max:
        raise MotorsweepError(
            f"handing a matrix of {n} unknowns to PETSc: its {matrix.nnz} entries are more than this PETSc can count; "
            "use a coarser mesh, a smaller volume, or a PETSc with 64-bit indices."
        )
    csr = (matrix.indptr.astype(petsc.IntType), matrix.indices.astype(petsc.IntType), matrix.data)
    a = petsc.Mat().createAIJ(((own, n), (own, n)), csr=csr, comm=comm)
    a.assemble()
    return a


def _checked(iterations, residual, seconds, rtol):
    if not residual <= rtol:
        raise ConvergenceError(
            f"the linear solve stopped at a true residual of {residual:.1e} after {iterations} iterations, where "
            f"{rtol:.0e} was asked for; the field would be wrong by about as much. Check the mesh for slivers and "
            'the conductivities, or choose solver kind = "direct".'
        )
    return SolveReport(iterations=iterations, residual=float(residual), seconds=float(seconds))
