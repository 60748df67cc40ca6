"""Linear solvers on PETSc: set up once for a head, used for every pose.

``direct`` factors the matrix by MUMPS (Cholesky) and solves blocks of right-hand sides; ``iterative`` is CG with
BoomerAMG, its preconditioner made once. Each solve reports its iterations, true residual and seconds.
"""

import time
from dataclasses import dataclass

import numpy as np
import psutil

from ..errors import ConvergenceError, MissingPackageError, MotorsweepError

# Bytes of a MUMPS factor over n^(4/3) for n unknowns of a tetrahedral mesh. Linear: 3.1 GB at 320 k nodes. Second order
# in a cube: 1.7 GB at 254 k and 4.1 GB at 569 k unknowns. Everywhere, with some eight unknowns for each node: 0.19 GB
# at 39 k and 0.59 GB at 77 k, and growing faster, so with a reserve.
_FACTOR_BYTES = ((1.01, 142.0), (4.0, 100.0), (np.inf, 250.0))


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

    Examples
    --------
    >>> SolveReport(iterations=0, residual=1e-14, seconds=0.06).iterations
    0
    """

    iterations: int
    residual: float
    seconds: float


def _petsc():
    try:
        import petsc4py
    except ImportError as error:
        raise MissingPackageError(
            "the field solver needs petsc4py, which is not installed here: `make run` installs it on Debian; elsewhere "
            "set PETSC_DIR and `pip install petsc4py` of the same version as that PETSc."
        ) from error
    petsc4py.init(["-malloc_debug", "0"])
    from petsc4py import PETSc

    return PETSc


class DirectSolver:
    """MUMPS factorisation of a symmetric positive definite matrix, for blocks of right-hand sides.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
        A block whose true residual is larger is refused.

    Raises
    ------
    MotorsweepError
        If the matrix cannot be factored, e.g. for want of memory.

    Examples
    --------
    >>> solver = DirectSolver(matrix)                                             # doctest: +SKIP
    >>> x, reports = solver.solve(np.ones((2, matrix.shape[0])))                  # doctest: +SKIP
    """

    kind = "direct"

    def __init__(self, matrix, rtol=1e-10):
        self._petsc, self._matrix, self._rtol = _petsc(), matrix, rtol
        a = _aij(self._petsc, matrix)
        a.setOption(self._petsc.Mat.Option.SPD, True)
        self._ksp = self._petsc.KSP().create(self._petsc.COMM_SELF)
        self._ksp.setType("preonly")
        pc = self._ksp.getPC()
        pc.setType("cholesky")
        pc.setFactorSolverType("mumps")
        self._ksp.setOperators(a)
        try:
            self._ksp.setUp()
        except self._petsc.Error as error:
            raise MotorsweepError(
                f"factoring the stiffness matrix of {matrix.shape[0]} unknowns failed in MUMPS ({error}); most often "
                'memory ran out. Choose solver kind = "iterative", or fewer workers.'
            ) from error
        self._factor = pc.getFactorMatrix()

    def solve(self, loads):
        """Solve for a block of right-hand sides.

        Parameters
        ----------
        loads : ndarray (k, n)

        Returns
        -------
        ndarray (k, n), list of SolveReport

        Raises
        ------
        ConvergenceError
            If a true residual is over the tolerance.
        """
        began = time.perf_counter()
        k, n = loads.shape
        # PETSc works in these two arrays, so they must outlive its matrices.
        right, left = np.asfortranarray(loads.T), np.zeros((n, k), order="F")
        b = self._petsc.Mat().createDense((n, k), array=right, comm=self._petsc.COMM_SELF)
        x = self._petsc.Mat().createDense((n, k), array=left, comm=self._petsc.COMM_SELF)
        for matrix in (b, x):
            matrix.assemble()
        self._factor.matSolve(b, x)
        # A copy: its transpose is contiguous already, and would else be a view of memory that PETSc gives back.
        solution = x.getDenseArray().T.copy()
        b.destroy()
        x.destroy()
        residuals = _residuals(self._matrix, solution, loads)
        share = (time.perf_counter() - began) / k
        return solution, [_checked(0, r, share, self._rtol) for r in residuals]


class IterativeSolver:
    """Conjugate gradients, preconditioned once by BoomerAMG.

    In the hierarchical basis the bubbles of edges are nearly orthogonal to the linear functions and to each other, so
    algebraic multigrid is made for the nodes alone, and one symmetric Gauss-Seidel sweep does for the bubbles.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
        Relative residual to reach.
    n_nodes : int, optional
        How many unknowns, the first ones, are those of nodes; the others are bubbles. By default all.

    Examples
    --------
    >>> x, reports = IterativeSolver(matrix, 1e-10).solve(loads)                  # doctest: +SKIP
    """

    kind = "iterative"

    def __init__(self, matrix, rtol=1e-10, n_nodes=None, max_iterations=500):
        self._petsc, self._matrix, self._rtol = _petsc(), matrix, rtol
        self._ksp = self._petsc.KSP().create(self._petsc.COMM_SELF)
        self._ksp.setType("cg")
        self._ksp.setNormType(self._petsc.KSP.NormType.UNPRECONDITIONED)
        # Ask for a little more than is checked, since the recurrence's residual drifts from the true one.
        self._ksp.setTolerances(rtol=0.5 * rtol, max_it=max_iterations)
        self._ksp.setOperators(_aij(self._petsc, matrix))
        split = n_nodes is not None and n_nodes < matrix.shape[0]
        options, prefix = self._petsc.Options(), f"motorsweep_{'split' if split else 'nodes'}_"
        for key, value in (_SPLIT if split else _AMG).items():
            options[prefix + key] = value
        self._ksp.setOptionsPrefix(prefix)
        if split:
            pc = self._ksp.getPC()
            pc.setType("fieldsplit")
            pc.setFieldSplitIS(*self._fields(n_nodes, matrix.shape[0]))
        self._ksp.setFromOptions()
        self._ksp.setUp()

    def _fields(self, n_nodes, size):
        for name, start, stop in (("nodes", 0, n_nodes), ("edges", n_nodes, size)):
            yield name, self._petsc.IS().createStride(stop - start, start, 1, comm=self._petsc.COMM_SELF)

    def solve(self, loads):
        """Solve for right-hand sides one after another; as `DirectSolver.solve`."""
        solution, reports = np.empty_like(loads), []
        for row, load in zip(solution, loads):
            began = time.perf_counter()
            b = self._petsc.Vec().createWithArray(np.ascontiguousarray(load), comm=self._petsc.COMM_SELF)
            x = b.duplicate()
            self._ksp.solve(b, x)
            row[:] = x.getArray()
            residual = float(_residuals(self._matrix, row[None], load[None])[0])
            iterations = self._ksp.getIterationNumber()
            reports.append(_checked(iterations, residual, time.perf_counter() - began, self._rtol))
        return solution, reports


_AMG = {
    "pc_type": "hypre",
    "pc_hypre_type": "boomeramg",
    "pc_hypre_boomeramg_coarsen_type": "HMIS",
    "pc_hypre_boomeramg_interp_type": "ext+i",
    "pc_hypre_boomeramg_P_max": 4,
    "pc_hypre_boomeramg_strong_threshold": 0.5,
}

_SPLIT = {
    "pc_fieldsplit_type": "symmetric_multiplicative",
    "fieldsplit_nodes_ksp_type": "preonly",
    "fieldsplit_edges_ksp_type": "preonly",
    "fieldsplit_edges_pc_type": "sor",
    "fieldsplit_edges_pc_sor_symmetric": True,
    **{f"fieldsplit_nodes_{key}": value for key, value in _AMG.items()},
}

KINDS = ("direct", "iterative")


def make_solver(kind, matrix, rtol, n_nodes):
    """Solver of a kind for a matrix whose first `n_nodes` unknowns are those of nodes.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
    n_nodes : int

    Returns
    -------
    DirectSolver or IterativeSolver
    """
    return DirectSolver(matrix, rtol) if kind == "direct" else IterativeSolver(matrix, rtol, n_nodes)


def choose_solver(n_unknowns, n_nodes, memory_bytes=None):
    """Name of the solver for a head, and why.

    Parameters
    ----------
    n_unknowns, n_nodes : int
    memory_bytes : float, optional
        Memory that this process may take; what is available by default.

    Returns
    -------
    str, str
        ``"direct"`` or ``"iterative"``, and one clause that says why.

    Examples
    --------
    >>> choose_solver(100_000, 100_000, 8e9)[0]
    'direct'
    """
    memory = psutil.virtual_memory().available if memory_bytes is None else memory_bytes
    needed = factor_bytes(n_unknowns, n_nodes)
    if needed < 0.6 * memory:
        return "direct", f"its factor takes about {needed / 1e9:.1f} GB of {memory / 1e9:.1f}"
    return "iterative", f"a factor would take about {needed / 1e9:.1f} GB of {memory / 1e9:.1f}"


def factor_bytes(n_unknowns, n_nodes):
    """Memory of the MUMPS factor, bytes (fitted to measurements, see the constant)."""
    constant = next(constant for share, constant in _FACTOR_BYTES if n_unknowns <= share * n_nodes)
    return constant * n_unknowns ** (4 / 3)


def _aij(petsc, matrix):
    n = matrix.shape[0]
    if matrix.nnz > np.iinfo(petsc.IntType).max:
        raise MotorsweepError(
            f"handing a matrix of {n} unknowns to PETSc: its {matrix.nnz} entries are more than this PETSc can count; "
            "use a coarser mesh, a smaller volume, or a PETSc with 64-bit indices."
        )
    csr = (matrix.indptr.astype(petsc.IntType), matrix.indices.astype(petsc.IntType), matrix.data)
    a = petsc.Mat().createAIJ((n, n), csr=csr, comm=petsc.COMM_SELF)
    a.assemble()
    return a


def _residuals(matrix, solution, loads):
    norms = np.linalg.norm(loads, axis=1)
    return np.linalg.norm(loads - (matrix @ solution.T).T, axis=1) / np.where(norms > 0, norms, 1)


def _checked(iterations, residual, seconds, rtol):
    if not residual <= rtol:
        raise ConvergenceError(
            f"the linear solve stopped at a true residual of {residual:.1e} after {iterations} iterations, where "
            f"{rtol:.0e} was asked for; the field would be wrong by about as much. Check the mesh for slivers and "
            'the conductivities, or choose solver kind = "direct".'
        )
    return SolveReport(iterations=iterations, residual=float(residual), seconds=float(seconds))
