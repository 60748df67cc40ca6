"""Functionals of the field by adjoint solves: what a pose's field has of given patterns, without solving for the pose.

The field at sampled points is E = -(I a + G phi) with dA/dt's coefficients a, the interpolation I, the gradient G and
K phi = L a. The share that a field has of a pattern u is therefore a linear functional of dA/dt alone:

    u·E = -(Iᵀ u + Lᵀ w)·a,    K w = Gᵀ u

so one solve for each pattern serves every pose of every coil.
"""

import numpy as np


def field_functionals(solver, grid, voxels, patterns):
    """Take patterns of the field on a grid to functionals of dA/dt.

    Parameters
    ----------
    solver : FieldSolver
    grid : VolumeGrid
    voxels : ndarray (v,) int
        Flat indices in the grid; elsewhere the patterns are zero.
    patterns : ndarray (k, v, 3)

    Returns
    -------
    ndarray (size, 3, k) float32
        The sum of its products with dA/dt (V/m) at ``solver.space.points()`` is that of pattern and field.

    Raises
    ------
    ConvergenceError
        If a true residual stays over the solver's tolerance.

    Examples
    --------
    >>> functionals = field_functionals(solver, grid, voxels, patterns)           # doctest: +SKIP
    >>> dadt = coil.dadt(solver.space.points(), pose)                             # doctest: +SKIP
    >>> np.tensordot(dadt, functionals, ((0, 1), (0, 1)))                         # doctest: +SKIP
    """
    space, sampler = solver.space, solver.sampler(grid)
    result = np.empty((space.size, 3, len(patterns)), np.float32)
    # a pattern holds functionals of potential and dA/dt at once, about twice what a pose of a block does
    at_once = max(1, solver.block // 2)
    for start in range(0, len(patterns), at_once):
        part = slice(start, start + at_once)
        values = np.zeros((grid.n**3, 3, len(patterns[part])))
        values[voxels] = np.moveaxis(patterns[part], 0, -1)
        to_potential, to_dadt = sampler.adjoint(values)
        del values
        to_dadt += solver.adjoint(to_potential)
        del to_potential
        result[:, :, part] = space.coefficients_adjoint(to_dadt)
        del to_dadt
    return result
