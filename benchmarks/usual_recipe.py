"""The usual recipe of TMS simulations, rebuilt with petsc4py: the reference that the benchmarks run side by side.

Linear tetrahedra, one Dirichlet node; dA/dt as a direct sum over the coil's dipoles at the nodes, averaged to the
elements for the load; CG + hypre BoomerAMG (HMIS coarsening), rtol 1e-10, preconditioner kept, one right-hand side at a
time; E per element, patch recovery tissue by tissue, linear interpolation to a grid.

It shares no code with the package's solver but for two things, both in its favour: coil and head are in memory, where
the usual tools read the coil's file for every pose; and recovery and interpolation are one sparse operator, made once
from the package's patch recovery, where the usual tools crop, fit and search anew for every pose. The loops over points
and over elements are parallel; the solve is that of one PETSc process, which has one thread, as in the usual tools.
"""

import numpy as np
from dadt import plain
from motorsweep.sim.distributed import no_open_ports
from motorsweep.sim.recovery import patch_recovery
from motorsweep.sim.volume import locate
from numba import njit, prange
from scipy.sparse import coo_array, csr_array

_OPTIONS = {
    "ksp_type": "cg",
    "ksp_max_it": 1000,
    "pc_type": "hypre",
    "pc_hypre_type": "boomeramg",
    "pc_hypre_boomeramg_coarsen_type": "HMIS",
}


class UsualRecipe:
    """Fields of one coil, which must be made of dipoles, in one head; everything but the pose is made here.

    `points` (p, 3), m, are where E is wanted. The methods are the steps, in their order.
    """

    def __init__(self, head, coil, points, rtol=1e-10):
        self.head, self.coil = head, coil
        self.gradients = shape_gradients(head.nodes, head.tets)
        self._weight = (head.conductivity * volumes(head.nodes, head.tets))[:, None, None] * self.gradients
        self._to_load = self._scatter()
        self.recovery, self.interpolation, self.needed = recovery_operator(head, points)
        self._solver, self._petsc = self._factored(rtol)
        self.iterations = 0

    def dadt(self, pose, didt=1e6):
        """dA/dt at the nodes, (n, 3) V/m, by the direct sum."""
        return plain(self.coil, self.head.nodes, pose) * (didt / 1e6)

    def load(self, dadt):
        """Its mean in each element, (m, 3) V/m, and the right-hand side -∫ sigma dA/dt·grad(v), (n,) A."""
        means = np.empty((len(self.head.tets), 3))
        element_means(self.head.tets, dadt, means)
        return means, -(self._to_load @ means.ravel())

    def potential(self, load):
        """Potential at the nodes, (n,) V; 0 at the first one."""
        b = self._petsc.Vec().createWithArray(np.ascontiguousarray(load[1:]), comm=self._petsc.COMM_SELF)
        x = b.duplicate()
        self._solver.solve(b, x)
        self.iterations = self._solver.getIterationNumber()
        if self._solver.getConvergedReason() <= 0:
            raise SystemExit(f"the usual recipe did not converge in {self.iterations} iterations")
        return np.concatenate([[0.0], x.getArray()])

    def element_field(self, potential, means, elements=slice(None)):
        """E in elements, (m, 3) V/m."""
        field = np.empty((len(self.head.tets[elements]), 3))
        negative_sum(self.gradients[elements], self.head.tets[elements], potential, means[elements], field)
        return field

    def at_points(self, potential, means):
        """E at the points, (p, 3) V/m, recovered tissue by tissue; zero outside the head."""
        return self.recovery @ self.element_field(potential, means, self.needed)

    def recovered_beside_dadt(self, potential, dadt):
        """E at the points, (p, 3) V/m, by recovery of grad(phi) alone; dA/dt, which has no jumps, is interpolated."""
        nothing = np.zeros((len(self.head.tets), 3))
        return self.at_points(potential, nothing) - self.interpolation @ dadt

    def field(self, pose, didt=1e6):
        """E of a pose at the points, (p, 3) V/m."""
        means, load = self.load(self.dadt(pose, didt))
        return self.at_points(self.potential(load), means)

    def _scatter(self):
        rows = np.repeat(self.head.tets, 3, axis=1)
        columns = np.tile(np.arange(3 * len(rows), dtype=np.int32).reshape(-1, 3), 4)
        shape = (len(self.head.nodes), 3 * len(rows))
        return csr_array((self._weight.ravel(), (rows.ravel(), columns.ravel())), shape=shape)

    def _factored(self, rtol):
        import petsc4py

        with no_open_ports():
            petsc4py.init(["-malloc_debug", "0"])
            from petsc4py import PETSc

        tets, n = self.head.tets, len(self.head.nodes)
        entries = np.einsum("eik,ejk->eij", self._weight, self.gradients)
        rows, columns = np.repeat(tets, 4, axis=1), np.tile(tets, 4)
        a = csr_array(coo_array((entries.ravel(), (rows.ravel(), columns.ravel())), shape=(n, n)))[1:, 1:]
        csr = (a.indptr.astype(PETSc.IntType), a.indices.astype(PETSc.IntType), a.data)
        matrix = PETSc.Mat().createAIJ((n - 1, n - 1), csr=csr, comm=PETSc.COMM_SELF)
        for key, value in _OPTIONS.items():
            PETSc.Options()[f"usual_{key}"] = value
        solver = PETSc.KSP().create(PETSc.COMM_SELF)
        solver.setOptionsPrefix("usual_")
        solver.setTolerances(rtol=rtol)
        solver.setOperators(matrix)
        solver.setFromOptions()
        solver.setUp()
        return solver, PETSc


def volumes(nodes, tets):
    """Volume of each element, (m,) m³."""
    a, b, c, d = (nodes[tets[:, i]] for i in range(4))
    return np.abs(np.einsum("ek,ek->e", np.cross(b - a, c - a), d - a)) / 6


def shape_gradients(nodes, tets):
    """Gradients of the four shape functions, (m, 4, 3) 1/m: the normal of the face across, over the height on it."""
    gradients = np.empty((len(tets), 4, 3))
    for i in range(4):
        a, b, c = (nodes[tets[:, j]] for j in range(4) if j != i)
        normal = np.cross(b - a, c - a)
        gradients[:, i] = normal / np.einsum("ek,ek->e", normal, nodes[tets[:, i]] - a)[:, None]
    return gradients


def recovery_operator(head, points):
    """Operators from values in elements, those of the last result, and from values at nodes to values at points."""
    element, weights = locate(head.nodes, head.tets, points)
    tissue = np.where(element >= 0, head.tissue[element], 0)
    inside = np.flatnonzero(tissue)
    interpolation = _rows(inside, head.tets[element[inside]], weights[inside], (len(points), len(head.nodes)))
    total = csr_array((len(points), len(head.tets)))
    for tag in np.unique(tissue[inside]):
        own, where = np.flatnonzero(head.tissue == tag), np.flatnonzero(tissue == tag)
        corners = head.tets[element[where]]
        used, local = np.unique(corners, return_inverse=True)
        tets = head.tets[own]
        fit = coo_array(patch_recovery(head.nodes[tets].mean(1), head.nodes, tets, used))
        at_nodes = csr_array((fit.data, (fit.row, own[fit.col])), shape=(len(used), len(head.tets)))
        to_points = _rows(where, local.reshape(corners.shape), weights[where], (len(points), len(used)))
        total = total + to_points @ at_nodes
    needed = np.unique(total.indices)
    return csr_array(total[:, needed]), interpolation, needed


def _rows(rows, columns, values, shape):
    return csr_array((values.ravel(), (np.repeat(rows, columns.shape[1]), columns.ravel())), shape=shape)


@njit(parallel=True)
def element_means(tets, values, out):
    for e in prange(len(tets)):
        a, b, c, d = tets[e]
        for k in range(3):
            out[e, k] = 0.25 * (values[a, k] + values[b, k] + values[c, k] + values[d, k])


@njit(parallel=True)
def negative_sum(gradients, tets, potential, means, out):
    for e in prange(len(tets)):
        for k in range(3):
            slope = 0.0
            for i in range(4):
                slope += gradients[e, i, k] * potential[tets[e, i]]
            out[e, k] = -slope - means[e, k]
