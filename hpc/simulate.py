"""The stage ``simulate``: coil poses to volumes, a shard of poses a task."""

import time
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..errors import ConvergenceError, InputError
from ..sim.coil import load_coil
from ..sim.head import Head
from ..sim.pose import Pose
from ..sim.solve import FieldSolver, SolverConfig
from ..sim.volume import VolumeGrid
from ..zarr_store.schema import Method, Status
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes, read_rows
from .mpi_executor import group_comm, leads_group
from .prepare import head_path, study_grid
from .shard_rows import ShardRows
from .study_solver import head_sizes, solver_config


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Solve and store one shard of poses; plain values, so that it goes to any worker.

    Parameters
    ----------
    study : str
        Study folder.
    start, stop : int
        Poses ``start:stop``.
    head : str
        File of `Head.save`.
    coil : str
        As for `load_coil`.
    coil_id : str
        Of the coil that the volumes were begun with.
    solver : SolverConfig
    grid : VolumeGrid
    components : bool
        Keep the three components too.
    keep_modes : bool
        Leave poses that a basis of modes has served as they are, and solve the others.
    only : int or None
        Solve this pose of the shard alone and write nothing: to see whether its process survives.
    killers : tuple of (int, str)
        Poses of the shard that kill their process, and how: not solved, but written as failed.
    one_by_one : bool
        Solve no two poses in a block.
    """

    study: str
    start: int
    stop: int
    head: str
    coil: str
    coil_id: str
    solver: SolverConfig
    grid: VolumeGrid
    components: bool = False
    keep_modes: bool = False
    only: int | None = None
    killers: tuple[tuple[int, str], ...] = ()
    one_by_one: bool = False

    @property
    def name(self):
        """What messages call it."""
        return f"poses {self.start}:{self.stop}" if self.only is None else f"pose {self.start + self.only}"

    @property
    def size(self):
        """Poses in the shard."""
        return self.stop - self.start

    def pieces(self):
        """Tasks that each solve one pose of the shard and write nothing, by the pose's place in the shard."""
        rows = ShardRows(self)
        return {int(k): replace(self, only=int(k)) for k in _to_solve(self, rows)}

    def without(self, killers):
        """Return the task that writes some poses as failed and solves the others.

        Parameters
        ----------
        killers : dict of int to str
            How poses kill their process, by place in the shard; where none does, it is their block that kills it.

        Returns
        -------
        ShardTask
        """
        return replace(self, killers=tuple(sorted(killers.items())), one_by_one=not killers)


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """How a shard ended: poses done, failed, and left to another solver; a note where it took another than planned."""

    done: int
    failed: int
    left: int = 0
    note: str = ""


def solve_shard(task):
    """Solve the poses of a shard in one block, and write the shard.

    If the block fails, its poses are solved one by one, so that a bad pose fails alone, with its reason in the store.

    Parameters
    ----------
    task : ShardTask

    Returns
    -------
    ShardResult
    """
    solver = _solver(task.head, task.coil, task.coil_id, task.solver, task.grid)
    solver.prepare(task.grid)  # here, so that the seconds of a pose are those of a pose
    rows, poses = ShardRows(task), shard_poses(task)
    todo = _to_solve(task, rows)
    kept = int((rows.status == int(Status.DONE)).sum())
    for k, reason in task.killers:
        rows.reason[k] = reason
    for block in [[k] for k in todo] if task.one_by_one else [todo]:
        _solve_block(rows, block, solver, task.grid, poses)
    if leads_group() and task.only is None:
        rows.write()
    done = int((rows.status == int(Status.DONE)).sum())
    note = "" if solver.kind == task.solver.kind else f"{solver.kind} in place of {task.solver.kind}: {solver.reason}"
    return ShardResult(done=done - kept, failed=len(poses) - done, note=note)


solve_shard.collective = True  # under mpirun the ranks that share a head call it together


def write_failed_shard(task, reason):
    """Write a shard whose task came to no end (its worker died, or ran out of memory): its poses failed, with reason.

    Poses that were done already (the task tried failed ones again, or died after it had written) stay done.

    Parameters
    ----------
    task : ShardTask
    reason : str
    """
    rows = ShardRows(task)
    rows.reason = [reason] * task.size
    rows.keep()
    rows.write()


def shard_poses(task):
    """Poses of a task's shard, from the store."""
    matrices = read_rows(Study(task.study), task.start, task.stop, ("pose_matrix",))["pose_matrix"]
    return [Pose(matrix) for matrix in matrices]


def _to_solve(task, rows):
    """Poses of a shard that a task solves; of those that it keeps, the rows are filled."""
    if task.keep_modes:
        rows.keep((Method.MODES,))
    left = np.flatnonzero(rows.status != int(Status.DONE))
    if task.only is not None:
        return left[left == task.only]
    return left[~np.isin(left, [k for k, _ in task.killers])]


def _solve_block(rows, block, solver, grid, poses):
    try:
        _solve_into(rows, block, solver, grid, [poses[k] for k in block])
    except (ConvergenceError, InputError):
        for k in block:
            try:
                _solve_into(rows, [k], solver, grid, [poses[k]])
            except (ConvergenceError, InputError) as error:
                rows.reason[k] = f"{'diverged' if isinstance(error, ConvergenceError) else 'bad_input'}: {error}"


def _solve_into(rows, where, solver, grid, poses):
    if not poses:
        return
    began = time.perf_counter()
    volumes = solver.volumes(grid, poses)
    if not np.isfinite(volumes).all():
        raise ConvergenceError("the field is not finite; check conductivities and the coil's moments.")
    seconds = (time.perf_counter() - began) / len(poses)
    rows.put(where, volumes, solver.reports, seconds, Method[solver.kind.upper()])


@lru_cache(maxsize=1)
def _solver(head, coil, coil_id, config, grid):
    """One solver for a worker process: factored at its first shard, used for all others."""
    return FieldSolver(Head.load(head), same_coil(coil, coil_id), config, region=grid, comm=group_comm())


def same_coil(coil, coil_id):
    """Load the coil of a study, if it is still the one that the study was begun with.

    Raises
    ------
    InputError
        If it is another.
    """
    loaded = load_coil(coil)
    if loaded.id != coil_id:
        raise InputError(
            f"solving with coil {coil}: its file is not the one that the study was begun with, so its poses would be "
            "of two coils. Put the old file back, or begin a study of its own."
        )
    return loaded


def shard_tasks(study, config, shards, solver, keep_modes=False):
    """Tasks for shards of poses.

    Parameters
    ----------
    study : Study
    config : StudyConfig
    shards : sequence of (start, stop)
    solver : str
        Kind, as `study_solver` chose it.
    keep_modes : bool
        Whether poses by modes stay.

    Returns
    -------
    list of ShardTask
    """
    volumes = open_volumes(study)
    common = {
        "study": str(study.folder),
        "head": str(head_path(study, config)),
        "coil": str(config.coil.source),
        "coil_id": volumes.attrs["coil_id"],
        "solver": solver_config(config, solver, *head_sizes(volumes)),
        "grid": study_grid(config),
        "components": config.volume.components,
        "keep_modes": keep_modes,
    }
    return [ShardTask(start=start, stop=stop, **common) for start, stop in shards]
