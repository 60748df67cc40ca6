"""E-field of coil poses in a head by finite elements on PETSc."""

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, InputError
from .forms import assemble, right_hand_sides
from .linear import KINDS, choose_solver, make_solver
from .recovery import gradient_weights
from .sampling import build_sampler
from .space import EDGES, build_space


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How the linear systems are solved.

    Parameters
    ----------
    kind : str
        ``"auto"``, ``"direct"`` or ``"iterative"``.
    order : int
        2: elements of second order in the solver's region, linear ones elsewhere; 1: linear elements, with the
        gradient recovered tissue by tissue.
    margin_m : float
        How far second order reaches beyond the region, m: what happens beside the region counts in it.
    rtol : float
        Largest true residual ||b - K x|| / ||b|| that is accepted.
    memory_bytes : float, optional
        What this process may take, for ``"auto"``; by default what is available.
    ground : int
        Node that is held at 0 V; any will do, since only gradients of the potential are used.

    Raises
    ------
    ConfigError
        If `kind` or `order` is not known.

    Examples
    --------
    >>> SolverConfig(kind="direct").rtol
    1e-10
    """

    kind: str = "auto"
    order: int = 2
    margin_m: float = 8e-3
    rtol: float = 1e-10
    memory_bytes: float | None = None
    ground: int = 0

    def __post_init__(self):
        if self.kind not in ("auto", *KINDS):
            raise ConfigError(f"solver kind {self.kind!r} is not known; choose auto, {', '.join(KINDS)}.")
        if self.order not in (1, 2):
            raise ConfigError(f"finite elements of order {self.order!r} are not built; choose 1 or 2.")
        if not (0 <= self.margin_m < np.inf and 0 < self.rtol < 1):
            raise ConfigError(
                f"solver: a margin of {self.margin_m} m and a tolerance of {self.rtol} cannot be used; give a length "
                "from 0, and a number between 0 and 1."
            )


class FieldSolver:
    """The E-field of one coil in one head, for many poses.

    The matrix is assembled and factored (or its preconditioner made) at the first solve, once; a pose costs only its
    right-hand side and back substitutions.

    Parameters
    ----------
    head : Head
    coil : Coil
    config : SolverConfig, optional
    region : VolumeGrid, optional
        Where the field is wanted: elements in this cube are of second order, others linear. By default all are of
        second order, which is right everywhere and takes some eight unknowns for each node.

    Attributes
    ----------
    space : Space
        The unknowns.
    kind, reason : str
        Linear solver, and why it was chosen.
    reports : list of SolveReport
        One for each pose of the last call.

    Examples
    --------
    >>> grid = VolumeGrid((0, 0, 0.07))
    >>> solver = FieldSolver(load_head("sphere"), load_coil("magstim-70mm"), region=grid)  # doctest: +SKIP
    >>> e = solver.at(points_m, [pose], didt=1e6)                                 # doctest: +SKIP
    """

    def __init__(self, head, coil, config=None, *, region=None):
        self.head, self.coil, self.config = head, coil, config or SolverConfig()
        self.space = build_space(head, self.config.order, region, self.config.margin_m)
        self.reports = []
        self.kind, self.reason = self.config.kind, "asked for"
        if self.kind == "auto":
            self.kind, self.reason = choose_solver(self.space.size, len(head.nodes), self.config.memory_bytes)
        if not 0 <= self.config.ground < len(head.nodes):
            raise ConfigError(
                f"solver: ground is node {self.config.ground}, but the head has {len(head.nodes)}, counted from 0; "
                "any of them will do."
            )
        self._free = np.delete(np.arange(self.space.size), self.config.ground)
        self._linear = self._load = None
        self._samplers = {}

    def _set_up(self):
        if self._linear is None:
            stiffness, self._load = assemble(self.head, self.space)
            matrix = stiffness[self._free][:, self._free]
            self._linear = make_solver(self.kind, matrix, self.config.rtol, len(self.head.nodes) - 1)
        return self._linear

    def prepare(self, grid):
        """Make what all poses share now (factor or preconditioner, sampling operator), not at the first pose.

        Parameters
        ----------
        grid : VolumeGrid
        """
        self._set_up()
        self.sampler(grid)

    def solve(self, poses, didt=1e6):
        """Potentials of the poses.

        Parameters
        ----------
        poses : sequence of Pose, length p
        didt : float
            Rate of change of the coil current, A/s.

        Returns
        -------
        ndarray (p, space.size), V
            Those of the nodes first (zero at the grounded one), then the bubbles of the edges.

        Raises
        ------
        ConvergenceError
            If a true residual stays over the tolerance.
        """
        return self._potentials(self._dadt(poses, didt))

    def elements(self, poses, didt=1e6):
        """Mean E in each element.

        Returns
        -------
        ndarray (p, m, 3), V/m
        """
        dadt = self._dadt(poses, didt)
        potentials = self._potentials(dadt)
        tets, second = self.head.tets, self.space.second
        weights = gradient_weights(self.head.nodes, tets)
        field = np.einsum("eik,pei->pek", weights, potentials[:, tets])
        field += dadt[tets].mean(1).transpose(2, 0, 1)
        unknowns = self.space.edge_unknowns
        # At the centre a bubble's slope is the sum of its two ends' slopes, and its mean over the element is 1/5.
        bubbles = np.where(unknowns >= 0, potentials[:, unknowns], 0)
        i, j = EDGES.T
        field[:, second] += np.einsum("eik,pei->pek", weights[second][:, i] + weights[second][:, j], bubbles)
        field[:, second] += 0.2 * np.where(unknowns[..., None, None] >= 0, dadt[unknowns], 0).sum(1).transpose(2, 0, 1)
        return -field

    def at(self, points_m, poses, didt=1e6):
        """E at points: of the element that holds each, recovered tissue by tissue where elements are linear.

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
        if points_m.ndim != 2 or points_m.shape[1] != 3 or not len(points_m) or not np.isfinite(points_m).all():
            raise InputError(
                f"E at points: they are {points_m.shape}, but must be finite numbers (n, 3) in metres; a single point "
                "is [[x, y, z]]."
            )
        return self._field(build_sampler(self.head, self.space, points_m), poses, didt)

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
            self._samplers[grid.id] = build_sampler(self.head, self.space, grid.points())
        return self._samplers[grid.id]

    def _field(self, sampler, poses, didt):
        dadt = self._dadt(poses, didt)
        return sampler.field(self._potentials(dadt), dadt)

    def _dadt(self, poses, didt):
        """Coefficients of dA/dt in the space, (size, 3, p) V/m: poses last, as the sparse products take them."""
        points = self.space.points()
        if not len(poses):
            raise InputError("E of coil poses: there is no pose; give one or more.")
        of_pose = (self.space.coefficients(self.coil.dadt(points, pose, didt)) for pose in poses)
        dadt = np.empty((self.space.size, 3, len(poses)))
        for k, values in enumerate(of_pose):
            dadt[:, :, k] = values
        return dadt

    def _potentials(self, dadt):
        linear = self._set_up()
        loads = right_hand_sides(self._load, dadt)
        potentials = np.zeros((dadt.shape[2], self.space.size))
        potentials[:, self._free], self.reports = linear.solve(np.ascontiguousarray(loads[self._free].T))
        return potentials
