"""Volumes of one process's poses by modes, and exactly where the modes do not hold."""

import time

import numpy as np

from ..errors import InputError
from .basis import make_basis
from .linear import SolveReport
from .pose_region import region_of
from .scalp import Scalp

_AT_ONCE = 64  # poses that are summed together: beside the volumes themselves they take as much again


class ModesSolver:
    """Serves volumes from bases of modes, one for each grid.

    Parameters
    ----------
    exact : FieldSolver
        Makes the bases, and solves what they cannot serve.
    tolerance : float
        Largest relative L2 error in brain tissue, as estimated.

    Attributes
    ----------
    bases : dict of Basis
        By the grid's id. One that was made before (see `motorsweep.hpc.bases.load_basis`) may be put in; otherwise one
        is made, at a grid's first call, for the region of that call's poses.

    Examples
    --------
    >>> volumes, reports = ModesSolver(solver, 1e-3).volumes(grid, poses)         # doctest: +SKIP
    """

    def __init__(self, exact, tolerance=1e-3):
        self.exact, self.tolerance, self.bases = exact, tolerance, {}
        self._scalp = Scalp.of(exact.head)

    def volumes(self, grid, poses, didt=1e6):
        """E on a volume grid.

        Parameters
        ----------
        grid : VolumeGrid
        poses : sequence of Pose, length p
        didt : float, A/s

        Returns
        -------
        volumes : ndarray (p, n, n, n, 3) float32, V/m
        reports : list of SolveReport
            With an error estimate where a pose was served by modes.

        Raises
        ------
        InputError
            If there is no pose, or the basis of the grid was made for another grid, head or coil.
        PoseError, ConvergenceError
            See `region_of` and `make_basis`, at a grid's first call.
        """
        poses = list(poses)
        if not poses:
            raise InputError("E of coil poses: there is no pose; give one or more.")
        basis = self._basis(grid, poses)
        volumes = np.empty((len(poses), *grid.shape, 3), np.float32)
        reports = [None] * len(poses)
        for start in range(0, len(poses), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            reports[part] = self._serve(basis, poses[part], didt, volumes[part])
        rest = [k for k, report in enumerate(reports) if report is None]
        if rest:
            volumes[rest] = self.exact.exact_volumes(grid, [poses[k] for k in rest], didt)
            for place, report in zip(rest, self.exact.reports):
                reports[place] = report
        return volumes, reports

    def _serve(self, basis, poses, didt, volumes):
        """Fill in the volumes of the poses that the basis serves; returns their reports, None for the others."""
        began, reports = time.perf_counter(), [None] * len(poses)
        places, coefficients, estimates = basis.serve(self.exact.coil, poses, self._scalp, self.tolerance, didt)
        volumes[places] = basis.volumes(coefficients)
        share = (time.perf_counter() - began) / len(poses)
        for place, estimate in zip(places, estimates):
            reports[place] = SolveReport(iterations=0, residual=np.nan, seconds=share, error_estimate=float(estimate))
        return reports

    def _basis(self, grid, poses):
        if grid.id not in self.bases:
            region = region_of(poses, self._scalp, grid.centre_m)
            self.bases[grid.id] = make_basis(self.exact, grid, region, self.tolerance, self._scalp)
        basis = self.bases[grid.id]
        known = {
            "grid": (basis.grid.id, grid.id),
            "head": (basis.head_id, self.exact.head.id),
            "coil": (basis.coil_id, self.exact.coil.id),
        }
        for name, (made_for, given) in known.items():
            if made_for != given:
                raise InputError(
                    f"volumes by modes: the basis was made for {name} {made_for}, but {given} is asked for, so its "
                    f"fields would be wrong; put in one that was made for this {name}, or none, and one is made."
                )
        return basis
