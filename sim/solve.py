"""E-field of coil poses in a head by finite elements on PETSc."""

import warnings

import numpy as np

from ..errors import ConfigError, InputError
from .distributed import joined, own_share, together
from .forms import assemble, right_hand_sides
from .linear import FactorMemoryError, make_solver
from .recovery import gradient_weights
from .sampling import build_sampler
from .solver_config import SolverConfig
from .solver_memory import block_size, choose_solver
from .space import EDGES, build_space


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
    comm : mpi4py communicator, optional
        Ranks that share this head: each makes the same calls with the same poses, works out its share of them, holds
        its share of the matrix and the factor, and gets the fields of all. None, or one rank: this process alone.

    Raises
    ------
    ConfigError
        If the grounded node is none of the head's, or several ranks are to make modes.

    Attributes
    ----------
    space : Space
        The unknowns.
    kind, reason : str
        Linear solver, and why it was chosen; after the first solve, what was really used.
    block : int
        Poses that are solved together.
    reports : list of SolveReport
        One for each pose of the last call.

    Examples
    --------
    >>> grid = VolumeGrid((0, 0, 0.07))
    >>> solver = FieldSolver(load_head("sphere"), load_coil("magstim-70mm"), region=grid)  # doctest: +SKIP
    >>> e = solver.at(points_m, [pose], didt=1e6)                                 # doctest: +SKIP
    """

    def __init__(self, head, coil, config=None, *, region=None, comm=None):
        self.head, self.coil, self.config = head, coil, config or SolverConfig()
        self.space = build_space(head, self.config.order, region, self.config.margin_m)
        self.comm = comm if comm is not None and comm.Get_size() > 1 else None
        if self.comm is not None and self.config.kind == "modes":
            raise ConfigError(
                f"solver: kind modes is of one process, but {self.comm.Get_size()} ranks share this head; choose auto, "
                "direct or iterative for it, or one rank."
            )
        self.reports = []
        self.kind, self.reason = self.config.kind, "asked for"
        sizes, memory = (self.space.size, len(head.nodes)), self.config.memory_bytes
        voxels = region.n**3 if region else 64**3
        if self.kind in ("auto", "modes"):
            self.kind, self.reason = self._agreed(choose_solver(*sizes, memory))
        self.block = self.config.block or self._agreed(block_size(*sizes, self.kind, memory, voxels))
        if not 0 <= self.config.ground < len(head.nodes):
            raise ConfigError(
                f"solver: ground is node {self.config.ground}, but the head has {len(head.nodes)}, counted from 0; "
                "any of them will do."
            )
        self._free = np.delete(np.arange(self.space.size), self.config.ground)
        self._linear = self._load = self._modes = None
        self._samplers = {}

    def _agreed(self, value):
        """The first rank's value: what the others found may differ by what else runs beside them."""
        return value if self.comm is None else self.comm.bcast(value)

    def _set_up(self):
        if self._linear is None:
            stiffness, self._load = together(self.comm, lambda: assemble(self.head, self.space))
            matrix = stiffness[self._free][:, self._free]
            del stiffness
            try:
                self._linear = self._make_solver(matrix)
            except FactorMemoryError as error:
                if not (self.config.kind in ("auto", "modes") or self.config.may_fall_back):
                    raise
                self.kind, self.reason = "iterative", f"memory did not suffice for a factor ({error.code})"
                warnings.warn(
                    f"solving exactly: {self.reason}, so poses are solved by conjugate gradients, the same to the "
                    "solver's tolerance but many times slower; more memory, or fewer workers, would mend it.",
                    stacklevel=2,
                )
            if self._linear is None:
                self._linear = self._make_solver(matrix)
        return self._linear

    def _make_solver(self, matrix):
        return make_solver(self.kind, matrix, self.config.rtol, len(self.head.nodes) - 1, self.comm)

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
        return self._of_all(poses, didt, (self.space.size,), lambda potentials, dadt: potentials)

    def elements(self, poses, didt=1e6):
        """Mean E in each element.

        Returns
        -------
        ndarray (p, m, 3), V/m
        """
        return self._of_all(poses, didt, (len(self.head.tets), 3), self._mean_field)

    def _mean_field(self, potentials, dadt):
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
        sampler = together(self.comm, lambda: build_sampler(self.head, self.space, points_m))
        return self._of_all(poses, didt, points_m.shape, sampler.field)

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
        if self.config.kind != "modes":
            return self.exact_volumes(grid, poses, didt)
        from .modes_solver import ModesSolver  # here, since it needs this module's solver

        if self._modes is None:
            self._modes = ModesSolver(self, self.config.tolerance)
        volumes, self.reports = self._modes.volumes(grid, poses, didt)
        return volumes

    def exact_volumes(self, grid, poses, didt=1e6):
        """`volumes`, but always solved exactly."""
        field = self._of_all(poses, didt, (grid.n**3, 3), self.sampler(grid).field, np.float32)
        return field.reshape(len(poses), *grid.shape, 3)

    def sampler(self, grid):
        """Sampling operator of a grid, kept for later calls."""
        if grid.id not in self._samplers:
            self._samplers[grid.id] = together(self.comm, lambda: build_sampler(self.head, self.space, grid.points()))
        return self._samplers[grid.id]

    def adjoint(self, functionals):
        """Transpose of `solve`: functionals of the potential, as functionals of dA/dt's coefficients.

        Parameters
        ----------
        functionals : ndarray (space.size, k)

        Returns
        -------
        ndarray (space.size, 3, k)
            The sum of its products with the coefficients of dA/dt is that of the functionals with the potential.
        """
        linear = self._set_up()
        duals = np.zeros(functionals.shape)
        duals[self._free] = linear.solve(np.ascontiguousarray(functionals[self._free].T))[0].T
        result = np.empty((self.space.size, 3, functionals.shape[1]))
        for axis, component in enumerate(self._load):
            result[:, axis] = component.T @ duals
        return result

    def _of_all(self, poses, didt, shape, finish, dtype=float):
        """What `finish` makes of potentials and dA/dt, (p, *shape), block by block; reports of all poses."""
        poses = list(poses)
        if not poses:
            raise InputError("E of coil poses: there is no pose; give one or more.")
        self._set_up()
        result, reports = together(self.comm, lambda: np.empty((len(poses), *shape), dtype)), []
        for first in range(0, len(poses), self.block):
            block = poses[first : first + self.block]
            result[first : first + len(block)] = self._of_block(block, didt, shape, finish, dtype)
            reports += self.reports
        self.reports = reports
        return result

    def _of_block(self, poses, didt, shape, finish, dtype):
        own = poses[own_share(self.comm, len(poses))]
        dadt = together(self.comm, lambda: self._dadt(own, didt))
        potentials = self._potentials(dadt)
        found = together(self.comm, lambda: finish(potentials, dadt) if own else np.empty((0, *shape)))
        return joined(self.comm, found.astype(dtype, copy=False))

    def _dadt(self, poses, didt):
        """Coefficients of dA/dt in the space, (size, 3, p) V/m: poses last, as the sparse products take them."""
        points = self.space.points()
        dadt = np.empty((self.space.size, 3, len(poses)))
        for k, pose in enumerate(poses):
            dadt[:, :, k] = self.space.coefficients(self.coil.dadt(points, pose, didt))
        return dadt

    def _potentials(self, dadt):
        loads = right_hand_sides(self._load, dadt)
        own = np.empty((dadt.shape[2], len(self._free)))
        ground = self.config.ground
        own[:, :ground], own[:, ground:] = loads[:ground].T, loads[ground + 1 :].T
        del loads
        solution, self.reports = self._linear.solve(own)
        del own
        potentials = np.zeros((dadt.shape[2], self.space.size))
        potentials[:, :ground], potentials[:, ground + 1 :] = solution[:, :ground], solution[:, ground:]
        return potentials
