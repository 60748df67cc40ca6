"""E-field of coil poses in a head by finite elements on PETSc."""

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .forms import load_operator, stiffness
from .linear import SOLVERS, choose_solver
from .recovery import build_sampler, gradient_weights


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How the linear systems are solved.

    Parameters
    ----------
    kind : str
        ``"auto"``, ``"direct"`` or ``"iterative"``.
    rtol : float
        Largest true residual ||b - K x|| / ||b|| that is accepted.
    memory_bytes : float, optional
        What this process may take, for ``"auto"``; by default what is available.

    Raises
    ------
    ConfigError
        If `kind` is not known.

    Examples
    --------
    >>> SolverConfig(kind="direct").rtol
    1e-10
    """

    kind: str = "auto"
    rtol: float = 1e-10
    memory_bytes: float | None = None

    def __post_init__(self):
        if self.kind not in ("auto", *SOLVERS):
            raise ConfigError(f"solver kind {self.kind!r} is not known; choose auto, {', '.join(SOLVERS)}.")


class FieldSolver:
    """The E-field of one coil in one head, for many poses.

    The matrix is assembled and factored (or its preconditioner made) at the first solve, once; a pose costs only its
    right-hand side and back substitutions.

    Parameters
    ----------
    head : Head
    coil : Coil
    config : SolverConfig, optional

    Attributes
    ----------
    reports : list of SolveReport
        One for each pose of the last call.

    Examples
    --------
    >>> solver = FieldSolver(load_head("sphere"), load_coil("magstim-70mm"))      # doctest: +SKIP
    >>> e = solver.at(points_m, [pose], didt=1e6)                                 # doctest: +SKIP
    """

    def __init__(self, head, coil, config=None):
        self.head, self.coil, self.config = head, coil, config or SolverConfig()
        self.reports = []
        self.kind, self.reason = self.config.kind, "asked for"
        if self.kind == "auto":
            self.kind, self.reason = choose_solver(len(head.nodes), self.config.memory_bytes)
        # The node that is held at 0 V; any will do, since only gradients of the potential are used.
        self._free = np.arange(1, len(head.nodes))
        self._linear = self._load = None
        self._samplers = {}

    def _set_up(self):
        if self._linear is None:
            matrix = stiffness(self.head)[1:, 1:].tocsr()
            self._linear = SOLVERS[self.kind](matrix, self.config.rtol)
            self._load = load_operator(self.head)
        return self._linear

    def prepare(self, grid):
        """Make what all poses share now (factor or preconditioner, sampling operator), not at the first pose.

        Parameters
        ----------
        grid : VolumeGrid
        """
        self._set_up()
        self.sampler(grid)

    def dadt(self, poses, didt=1e6):
        """dA/dt at the nodes, (p, n, 3) V/m."""
        return np.stack([self.coil.dadt(self.head.nodes, pose, didt) for pose in poses])

    def solve(self, poses, didt=1e6, *, dadt=None):
        """Potentials of the poses.

        Parameters
        ----------
        poses : sequence of Pose, length p
        didt : float
            Rate of change of the coil current, A/s.
        dadt : ndarray (p, n, 3), optional
            dA/dt at the nodes where it is already known, V/m.

        Returns
        -------
        ndarray (p, n), V
            Zero at the grounded node.

        Raises
        ------
        ConvergenceError
            If a true residual stays over the tolerance.
        """
        linear = self._set_up()
        dadt = self.dadt(poses, didt) if dadt is None else dadt
        by_component = dadt.transpose(2, 1, 0).reshape(-1, len(dadt))
        loads = np.ascontiguousarray((self._load @ by_component)[1:].T)
        potentials = np.zeros((len(dadt), len(self.head.nodes)))
        potentials[:, self._free], self.reports = linear.solve(loads)
        return potentials

    def elements(self, poses, didt=1e6):
        """E in each element (constant there, without recovery).

        Returns
        -------
        ndarray (p, m, 3), V/m
        """
        dadt = self.dadt(poses, didt)
        potentials = self.solve(poses, didt, dadt=dadt)
        tets = self.head.tets
        weights = gradient_weights(self.head.nodes, tets)
        slopes = np.einsum("eik,pei->pek", weights, potentials[:, tets])
        return -(dadt[:, tets].mean(2) + slopes)

    def at(self, points_m, poses, didt=1e6):
        """E at points, recovered tissue by tissue.

        Parameters
        ----------
        points_m : ndarray (n, 3), m
        poses : sequence of Pose, length p
        didt : float, A/s

        Returns
        -------
        ndarray (p, n, 3), V/m; zero outside the head
        """
        points_m = np.ascontiguousarray(points_m, float)
        return self._field(build_sampler(self.head, points_m), poses, didt)

    def volumes(self, grid, poses, didt=1e6):
        """E on a volume grid; the sampling operator is made once for a grid.

        Parameters
        ----------
        grid : VolumeGrid
        poses : sequence of Pose, length p
        didt : float, A/s

        Returns
        -------
        ndarray (p, n, n, n, 3) float32, V/m; zero outside the head
        """
        field = self._field(self.sampler(grid), poses, didt)
        return field.astype(np.float32).reshape(len(poses), *grid.shape, 3)

    def sampler(self, grid):
        """Sampling operator of a grid, kept for later calls."""
        if grid.id not in self._samplers:
            self._samplers[grid.id] = build_sampler(self.head, grid.points())
        return self._samplers[grid.id]

    def _field(self, sampler, poses, didt):
        dadt = self.dadt(poses, didt)
        return sampler.field(self.solve(poses, didt, dadt=dadt), dadt)
