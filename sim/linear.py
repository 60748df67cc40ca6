"""Linear solvers on PETSc: set up once for a head, used for every pose.

``direct`` factors the matrix by MUMPS (Cholesky) and solves blocks of right-hand sides; ``iterative`` is CG with
BoomerAMG, its preconditioner made once. Each solve reports its iterations, true residual and seconds.
"""

import re
import sys
from functools import cache

import numpy as np

from ..errors import MissingPackageError, MotorsweepError
from .distributed import no_open_ports
from .linear_system import LinearSystem, SolveReport

__all__ = [
    "KINDS",
    "DirectSolver",
    "FactorMemoryError",
    "IterativeSolver",
    "SolveReport",
    "make_solver",
]

# What MUMPS says in INFOG(1) where memory is missing; -13 is that of an allocation, -9 and -8 that of its workspace,
# -19 the limit that it was given. PETSc's own word for it is error 55.
_PETSC_OUT_OF_MEMORY = 55
_OUT_OF_MEMORY = (-5, -7, -8, -9, -11, -13, -14, -15, -18, -19)


@cache
def _petsc():
    try:
        import petsc4py
    except ImportError as error:
        raise MissingPackageError(
            "the field solver needs petsc4py, which is not installed here: `make run` installs it on Debian; elsewhere "
            "set PETSC_DIR and `pip install petsc4py` of the same version as that PETSc."
        ) from error
    # Under mpirun PETSc's own world is this process: it starts and ends in step with all ranks of its world, and some
    # of them may have nothing to solve. Each call leaves one more clean-up for the end, hence once.
    mpi = sys.modules.get("mpi4py.MPI")
    # Its signal handlers would end this process where a connection closes (SIGPIPE), which Python leaves to the caller.
    options = ["-malloc_debug", "0", "-no_signal_handler"]
    with no_open_ports():
        petsc4py.init(options, comm=None if mpi is None else mpi.COMM_SELF)
        from petsc4py import PETSc

    return PETSc


class FactorMemoryError(MotorsweepError, MemoryError):
    """MUMPS found no memory for the factor; `code` is its word for it."""

    code = ""


class DirectSolver(LinearSystem):
    """MUMPS factorisation of a symmetric positive definite matrix, for blocks of right-hand sides.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
        A block whose true residual is larger is refused.
    n_nodes : int, optional
        How many unknowns, the first ones, are those of nodes; matters only for sharing them out.
    comm : mpi4py communicator, optional
        Ranks that factor together; each has the whole matrix here, and its own poses' loads in `solve`.

    Raises
    ------
    FactorMemoryError
        If memory does not suffice for the factor.
    MotorsweepError
        If the matrix cannot be factored for another reason.

    Examples
    --------
    >>> solver = DirectSolver(matrix)                                             # doctest: +SKIP
    >>> x, reports = solver.solve(np.ones((2, matrix.shape[0])))                  # doctest: +SKIP
    """

    kind = "direct"

    def __init__(self, matrix, rtol=1e-10, n_nodes=None, comm=None):
        super().__init__(_petsc(), matrix, rtol, n_nodes, comm)
        self._a.setOption(self._petsc.Mat.Option.SPD, True)
        self._ksp.setType("preonly")
        pc = self._ksp.getPC()
        pc.setType("cholesky")
        pc.setFactorSolverType("mumps")
        self._factor = self._petsc.Mat()
        try:
            self._ksp.setUp()
            self._factor = pc.getFactorMatrix()
            code = self._factor.getMumpsInfog(1)
            found, no_memory = f"MUMPS INFOG(1) = {code}", code in _OUT_OF_MEMORY
        except self._petsc.Error as error:
            told = re.search(r"INFOG\(1\)=(-?\d+)", str(error))
            code = int(told[1]) if told else -1
            found, no_memory = str(error), code in _OUT_OF_MEMORY or error.ierr == _PETSC_OUT_OF_MEMORY
        if code < 0:
            for held in (self._factor, self._ksp, self._a):
                held.destroy()  # with what was factored so far: the next solver needs the memory
            raise _failed(self._n, found, no_memory)

    def _solve(self, right, solution):
        b, x = self._dense(right), self._dense(solution)
        # MUMPS takes the block in pieces of 32 by itself, which reads the factor as often.
        self._factor.setMumpsIcntl(27, len(right))
        self._factor.matSolve(b, x)
        b.destroy()
        x.destroy()
        return [0] * len(right)


class IterativeSolver(LinearSystem):
    """Conjugate gradients, preconditioned once by BoomerAMG.

    In the hierarchical basis the bubbles of edges are nearly orthogonal to the linear functions and to each other, so
    algebraic multigrid is made for the nodes alone, and one symmetric Gauss-Seidel sweep does for the bubbles.

    A pose starts from the combination of the block's earlier solutions that is nearest in energy. Measured on a
    sphere: of 32 iterations, 13 to 21 are left for the fourth and later of poses 1 to 2 mm apart, 27 at 10 mm; on a
    head of 337 k unknowns, of 41, 35 to 39 for poses drawn at random.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
        Relative residual to reach.
    n_nodes : int, optional
        How many unknowns, the first ones, are those of nodes; the others are bubbles. By default all.
    comm : mpi4py communicator, optional
        As for `DirectSolver`.

    Examples
    --------
    >>> x, reports = IterativeSolver(matrix, 1e-10).solve(loads)                  # doctest: +SKIP
    """

    kind = "iterative"

    def __init__(self, matrix, rtol=1e-10, n_nodes=None, max_iterations=500, comm=None):
        super().__init__(_petsc(), matrix, rtol, n_nodes, comm)
        self._ksp.setType("cg")
        self._ksp.setNormType(self._petsc.KSP.NormType.UNPRECONDITIONED)
        # Ask for a little more than is checked, since the recurrence's residual drifts from the true one.
        self._ksp.setTolerances(rtol=0.5 * rtol, max_it=max_iterations)
        self._ksp.setInitialGuessNonzero(True)
        split = n_nodes is not None and n_nodes < self._n
        options, prefix = self._petsc.Options(), f"motorsweep_{'split' if split else 'nodes'}_"
        for key, value in (_SPLIT if split else _AMG).items():
            options[prefix + key] = value
        self._ksp.setOptionsPrefix(prefix)
        if split:
            pc = self._ksp.getPC()
            pc.setType("fieldsplit")
            pc.setFieldSplitIS(*self._fields(n_nodes))
        self._ksp.setFromOptions()
        self._ksp.setUp()

    def _fields(self, n_nodes):
        for name, (first, count) in zip(("nodes", "edges"), self._rows.fields(n_nodes)):
            yield name, self._petsc.IS().createStride(count, first, 1, comm=self._comm)

    def _solve(self, right, solution):
        iterations = []
        for k, (load, row) in enumerate(zip(right, solution)):
            row[:] = self._guess(right[:k], solution[:k], load)
            b, x = (
                self._petsc.Vec().createWithArray(array, size=(len(array), self._n), comm=self._comm)
                for array in (load, row)
            )
            self._ksp.solve(b, x)
            iterations.append(self._ksp.getIterationNumber())
            b.destroy()  # what several ranks share, and its array, is not freed otherwise
            x.destroy()
        return iterations

    def _guess(self, loads, solutions, load):
        """Galerkin projection on earlier solutions S of the block: (S' A S) c = S' b, where A S is their loads."""
        if not len(loads):
            return 0
        energy, work = self._rows.total(solutions @ loads.T), self._rows.total(solutions @ load)
        return np.linalg.lstsq(0.5 * (energy + energy.T), work, rcond=1e-12)[0] @ solutions


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
    "fieldsplit_edges_pc_sor_local_symmetric": True,
    **{f"fieldsplit_nodes_{key}": value for key, value in _AMG.items()},
}

KINDS = ("direct", "iterative")


def _failed(n, found, no_memory):
    """Error of a factorisation that failed."""
    doing = f"factoring the stiffness matrix of {n} unknowns"
    if not no_memory:
        return MotorsweepError(
            f"{doing} failed ({found}). Check the conductivities and the mesh, or choose "
            'solver kind = "iterative", which needs no factor.'
        )
    error = FactorMemoryError(
        f'{doing}: memory did not suffice for the factor ({found}). Choose solver kind = "iterative", which needs '
        "none, or fewer workers, or a machine with more memory."
    )
    error.code = found
    return error


def make_solver(kind, matrix, rtol, n_nodes, comm=None):
    """Solver of a kind for a matrix whose first `n_nodes` unknowns are those of nodes.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    matrix : scipy.sparse.csr_array (n, n)
    rtol : float
    n_nodes : int
    comm : mpi4py communicator, optional
        Ranks that share the matrix.

    Returns
    -------
    DirectSolver or IterativeSolver
    """
    return (DirectSolver if kind == "direct" else IterativeSolver)(matrix, rtol, n_nodes, comm=comm)
