"""Making a basis of modes: training poses, singular vectors of their fields, functionals, sample points, error.

1. Poses are drawn from a region with its slack and solved exactly. More are added until the modes of the training poses
   hold the others, which are held out, to a third of the tolerance: so few unseen poses are then estimated over it.
2. Modes are the singular vectors of the training fields, in which voxels outside the brain count less: the tolerance is
   for brain tissue, and the field close under the coil would need many modes for itself.
3. An adjoint solve for each mode makes its coefficient a functional of dA/dt.
4. dA/dt of poses in a region is determined by its values at a few hundred points. Weights that take those to the
   coefficients are fitted (ridge regression) on poses of which only dA/dt is computed, which is quick. Points are
   doubled until the coefficients of the held-out poses are right to a tenth of the tolerance, or there are no more.
5. The error is measured on the held-out poses, with all approximations in place; what it is over the tail of any of
   them is the floor of the estimate. A basis that would serve fewer than half of them is refused.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ConvergenceError, InputError, PoseError
from .adjoint import field_functionals
from .coil_clearance import check_grids_hold_head
from .field_products import gram, products, relative, squares
from .modes import Basis, estimate
from .tissues import BRAIN_TAGS

OTHER_WEIGHT = 0.3
"""What a voxel outside the brain counts, beside one in it. Measured (New York head, 160 training poses, rank 80, worst
of 60 unseen poses): 0.057 % in the brain and 0.22 % outside of it; with 0 it is 0.011 and 0.39 %, with 1 0.10 and
0.22 %."""

TRAINING, ADDED, MOST, HELD_OUT = 160, 80, 800, 40
FITTED = 440
"""Poses of which dA/dt is computed to fit the weights of the sample points."""

_BLOCK = 16  # poses of which dA/dt at all points is held
_FEWEST_POINTS, _MOST_POINTS = 25, 3200
_SHARE = 1 / 3  # of the tolerance, for the worst held-out pose
_RIDGE = 1e-7  # of the largest singular value: dA/dt from the coil's table is right to some 1e-8 in L2
_RESERVE = 1.5  # of the error estimate; beyond the modes of the tail there are others
_SEED = 20


@dataclass(frozen=True, kw_only=True)
class Told:
    """How far the making of a basis is: pieces done of those foreseen, and what is being done."""

    done: int
    total: int
    doing: str


def make_basis(solver, grid, region, tolerance, scalp, tell=None):
    """Make a basis of modes for the poses of a region.

    Parameters
    ----------
    solver : FieldSolver
        Exact, with the grid as its region.
    grid : VolumeGrid
    region : PoseRegion
    tolerance : float
        Largest relative L2 error in brain tissue.
    scalp : Head or Scalp
        Of the solver's head.
    tell : callable, optional
        Called with a `Told` now and then.

    Returns
    -------
    Basis

    Raises
    ------
    PoseError
        If the region reaches into the head, or the coil's field is not known in all of the head at some of its poses.
    InputError
        If no voxel of the grid is brain.
    ConvergenceError
        If as many as 800 training poses do not give the tolerance, or if with all approximations in place fewer than
        half of the held-out poses are estimated to be within it.

    Examples
    --------
    >>> basis = make_basis(solver, grid, region, 1e-3, head)                      # doctest: +SKIP
    >>> basis.rank                                                                # doctest: +SKIP
    68
    """
    return _Maker(solver, grid, region, tolerance, scalp, tell or (lambda told: None)).basis()


class _Maker:
    """One basis in the making."""

    def __init__(self, solver, grid, region, tolerance, scalp, tell):
        self.solver, self.grid, self.region, self.tolerance = solver, grid, region, tolerance
        self.coil, self._tell = solver.coil, tell
        self.poses = region.draw(scalp, HELD_OUT + MOST + FITTED, _SEED, coil=self.coil, slack=True)
        self._check_grids()
        self.done, self.total = 0, HELD_OUT + TRAINING + FITTED
        tissue = solver.sampler(grid).tissue
        self.voxels = np.flatnonzero(tissue > 0)
        self.is_brain = np.isin(tissue[self.voxels], BRAIN_TAGS)
        if not self.is_brain.any():
            raise InputError(
                "making a basis of modes: no voxel of the volume is brain tissue, for which its tolerance is meant; "
                "check the volume's centre against the head's coordinates."
            )
        self.weight = np.where(self.is_brain, 1.0, OTHER_WEIGHT).astype(np.float32)

    def _check_grids(self):
        try:
            check_grids_hold_head(self.coil, self.poses, self.solver.head)
        except PoseError as error:
            raise PoseError(
                "making a basis of modes: the poses drawn from its region, of which a basis is made, go beyond where "
                f"the coil's field is known. The first: {error} Or make the region of the poses smaller."
            ) from error

    def tell(self, doing, done=0):
        self.done += done
        self._tell(Told(done=self.done, total=max(self.total, self.done), doing=doing))

    def basis(self):
        held, fields, modes, rank = self._train()
        exact = [products(part, modes.reshape(len(modes), -1), self.weight) for part in (held, fields)]
        brain = gram(modes, modes, self.is_brain)
        trained = len(fields)
        del fields
        points, weights, missed = self._sample(modes, np.concatenate(exact), trained, brain)
        estimated = self._dadt_at(points, self._held_out) @ weights.T
        errors, others = self._errors(held, estimated[:, :rank], modes[:rank])
        tails = estimate(estimated, brain, rank)
        floor = np.sqrt(np.maximum(errors**2 - tails**2, 0).max())
        estimates = estimate(estimated, brain, rank, _RESERVE, floor)
        self._check_serves(estimates, len(points), missed)
        return Basis(
            grid=self.grid,
            region=self.region,
            tolerance=self.tolerance,
            head_id=self.solver.head.id,
            coil_id=self.coil.id,
            voxels=self.voxels,
            fields=modes[:rank].copy(),
            points=points,
            weights=weights,
            brain=brain,
            scale=np.array(_RESERVE),
            floor=np.array(floor),
            singular_values=self.singular_values,
            heldout_errors=errors,
            heldout_estimates=estimates,
            heldout_others=others,
        )

    def _check_serves(self, estimates, n_points, missed):
        good = int((estimates <= self.tolerance).sum())
        if 2 * good < len(estimates):
            raise ConvergenceError(
                f"making a basis of modes: {good} of {len(estimates)} held-out poses are estimated to be within the "
                f"tolerance of {self.tolerance:g}, so it would serve few or none. By dA/dt at {n_points} sample points "
                f"their coefficients are off by up to {missed:.2g}, where {0.1 * self.tolerance:.2g} is aimed at. "
                'Raise tolerance, narrow the region of the poses, or choose kind = "direct".'
            )

    # ---- training ----------------------------------------------------------------------------------------------

    @property
    def _held_out(self):
        return self.poses[:HELD_OUT]

    def _train(self):
        """Fields of held-out and training poses, modes (some more than are needed), and how many are."""
        self.tell("factor")
        self.solver.prepare(self.grid)
        held, count = self._solved(self._held_out), 0
        fields = np.empty((0, len(self.voxels), 3), np.float32)
        while count < MOST:
            more = ADDED if count else TRAINING
            self.total += ADDED if count else 0
            fields = np.concatenate([fields, self._solved(self.poses[HELD_OUT + count : HELD_OUT + count + more])])
            count += more
            modes, rank, worst = self._modes(held, fields)
            if rank:
                return held, fields, modes, rank
        raise ConvergenceError(
            f"making a basis of modes: with {count} training poses the worst held-out field is off by {worst:.2g}; "
            f"a tolerance of {self.tolerance:g} asks for a third of it. So few modes do not hold this region. "
            'Raise tolerance, narrow the region of the poses, or choose kind = "direct".'
        )

    def _solved(self, poses):
        fields = np.empty((len(poses), len(self.voxels), 3), np.float32)
        for start in range(0, len(poses), self.solver.block):
            block = poses[start : start + self.solver.block]
            volumes = self.solver.exact_volumes(self.grid, block).reshape(len(block), -1, 3)
            fields[start : start + len(block)] = volumes[:, self.voxels]
            self.tell("exact solves", len(block))
        return fields

    def _modes(self, held, fields):
        """Modes, how many are needed (0: more training poses are), and the worst held-out error of all of them."""
        norms = np.sqrt(squares(fields, self.is_brain))
        inner = gram(fields, fields, None, self.weight) / np.outer(norms, norms)
        values, vectors = np.linalg.eigh(inner)
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        # Below, float32 fields hold noise. A tenth of the training fields is left out of every basis.
        clean, most = int((values > (1e-6) ** 2 * values[0]).sum()), int(0.9 * len(fields))
        kept = min(clean, most)
        self.singular_values = np.sqrt(values / values[0])
        combinations = (vectors[:, :kept] / np.sqrt(values[:kept]) / norms[:, None]).astype(np.float32)
        modes = self._orthonormal((combinations.T @ fields.reshape(len(fields), -1)).reshape(kept, *fields.shape[1:]))
        worst = self._worst_by_rank(held, modes)
        enough = np.flatnonzero(worst <= _SHARE * self.tolerance)
        if not len(enough):
            return modes, 0, worst.min()
        rank = int(enough[0]) + 1
        tail = max(8, rank // 4)
        told = rank + tail <= kept or clean < most  # down to the noise there is no more to tell of
        return modes[: rank + tail].copy(), rank if told else 0, worst.min()

    def _orthonormal(self, modes):
        """Modes, orthonormal to float32 by a second pass; the first of them span what they did."""
        # Those of small singular values are differences of large fields: rounding left some of the first modes in them.
        inverse = np.linalg.inv(np.linalg.cholesky(gram(modes, modes, None, self.weight)))
        return (inverse.astype(np.float32) @ modes.reshape(len(modes), -1)).reshape(modes.shape)

    def _worst_by_rank(self, held, modes):
        """Largest relative error in the brain over the held-out fields, by number of modes."""
        coefficients = products(held, modes.reshape(len(modes), -1), self.weight)
        cross, brain = gram(held, modes, self.is_brain), gram(modes, modes, self.is_brain)
        whole = squares(held, self.is_brain)
        # |E - sum c u|² = |E|² - 2 c·(E·u) + c·B c, for each number of modes at once
        each = coefficients[:, :, None] * brain[None] * coefficients[:, None, :]
        summed = np.cumsum(np.cumsum(each, 1), 2)
        own = summed[:, np.arange(len(modes)), np.arange(len(modes))]
        left = whole[:, None] - 2 * np.cumsum(coefficients * cross, 1) + own
        return np.sqrt(np.maximum(left, 0) / whole[:, None]).max(0)

    # ---- sample points -----------------------------------------------------------------------------------------

    def _sample(self, modes, exact, n_training, brain):
        """Sample points, weights that take dA/dt at them to coefficients, and the largest error that this leaves."""
        self.tell("adjoint solves")
        patterns = modes * (self.weight**2)[None, :, None]
        functionals = field_functionals(self.solver, self.grid, self.voxels, patterns)
        points, candidates = self._candidates(functionals)
        drawn = self.poses[HELD_OUT + MOST :]
        solved = self.poses[: HELD_OUT + n_training]
        coefficients, dadt = self._functionals_of(drawn, functionals, points, candidates)
        coefficients = np.concatenate([exact, coefficients])
        dadt = np.concatenate([self._dadt_at(points[candidates], solved), dadt])
        held, fitted = slice(0, HELD_OUT), slice(HELD_OUT, None)
        count = _FEWEST_POINTS
        while True:
            count = min(count, len(candidates))
            weights = _ridge(dadt[fitted, : 3 * count], coefficients[fitted])
            error = relative(dadt[held, : 3 * count] @ weights.T - coefficients[held], coefficients[held], brain).max()
            if error <= 0.1 * self.tolerance or count == len(candidates):
                return points[candidates[:count]].copy(), weights, error
            count *= 2

    def _candidates(self, functionals):
        """Points of the space, those first that matter most to the functionals, on average."""
        points = self.solver.space.points()
        share = np.sqrt(np.einsum("ikj,ikj->i", functionals, functionals, dtype=np.float64))
        rng = np.random.default_rng(_SEED)
        count = min(_MOST_POINTS, int((share > 0).sum()))
        return points, rng.choice(len(points), count, replace=False, p=share / share.sum())

    def _functionals_of(self, poses, functionals, points, candidates):
        """Coefficients of poses by the functionals, from dA/dt at all points; and dA/dt at the candidates."""
        flat = functionals.reshape(-1, functionals.shape[2])
        coefficients, dadt = [], []
        for start in range(0, len(poses), _BLOCK):
            block = [self.coil.dadt(points, pose) for pose in poses[start : start + _BLOCK]]
            coefficients.append(np.stack(block).astype(np.float32).reshape(len(block), -1) @ flat)
            dadt += [values[candidates].ravel() for values in block]
            self.tell("sample points", len(block))
        return np.concatenate(coefficients), np.stack(dadt)

    def _dadt_at(self, points, poses):
        return np.stack([self.coil.dadt(points, pose).ravel() for pose in poses])

    def _errors(self, held, coefficients, modes):
        """Relative error of held-out fields in the brain, and outside of it; 0 where nothing is."""
        rest = held - (coefficients.astype(np.float32) @ modes.reshape(len(modes), -1)).reshape(held.shape)
        errors = [np.zeros(len(held)), np.zeros(len(held))]
        for error, where in zip(errors, (self.is_brain, ~self.is_brain)):
            if where.any():
                error[:] = np.sqrt(squares(rest, where) / squares(held, where))
        return errors


def _ridge(samples, coefficients):
    """Weights (r, 3 m) with samples @ weights.T near the coefficients; poses count alike, whatever their distance."""
    norms = np.linalg.norm(coefficients, axis=1)[:, None]
    left, values, right = np.linalg.svd(samples / norms, full_matrices=False)
    filtered = values / (values**2 + (_RIDGE * values[0]) ** 2)
    return ((coefficients / norms).T @ left * filtered) @ right
