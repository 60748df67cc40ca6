"""The stage ``simulate``: coil poses to volumes, a shard of poses a task."""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import psutil

from ..errors import ConvergenceError, InputError
from ..sim.coil import load_coil
from ..sim.head import Head
from ..sim.pose import Pose
from ..sim.solve import FieldSolver, SolverConfig
from ..sim.solver_memory import block_size, choose_solver, pose_bytes, process_bytes
from ..sim.volume import VolumeGrid
from ..zarr_store.schema import Method, Status
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes, read_rows
from .mpi_executor import group_comm, leads_group, memory_share, on_ranks
from .prepare import head_path, study_grid
from .shard_rows import ShardRows


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

    @property
    def name(self):
        """What messages call it."""
        return f"poses {self.start}:{self.stop}"

    @property
    def size(self):
        """Poses in the shard."""
        return self.stop - self.start


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
    if task.keep_modes:
        rows.keep((Method.MODES,))
    todo = np.flatnonzero(rows.status != int(Status.DONE))
    kept = len(poses) - len(todo)
    try:
        _solve_into(rows, todo, solver, task.grid, [poses[k] for k in todo])
    except (ConvergenceError, InputError):
        for k in todo:
            try:
                _solve_into(rows, [k], solver, task.grid, [poses[k]])
            except (ConvergenceError, InputError) as error:
                rows.reason[k] = f"{'diverged' if isinstance(error, ConvergenceError) else 'bad_input'}: {error}"
    if leads_group():
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


@dataclass(frozen=True, kw_only=True)
class SolverChoice:
    """Which solver a study takes, and why."""

    kind: str
    reason: str


def study_solver(config, n_unknowns, n_nodes, alone=False, n_poses=None):
    """Exact solver of a study: as asked for, or chosen once by the memory of this machine, for all workers alike.

    A study by modes needs one too: for its basis, and for the poses that the basis cannot serve.

    The machine's whole memory counts, not what is free at the moment, so that a study that goes on later takes the
    same solver.

    Parameters
    ----------
    config : StudyConfig
    n_unknowns, n_nodes : int
    alone : bool
        Under mpirun: for rank 0 while the others wait, and so with all of its machine's memory.
    n_poses : int, optional
        How many poses there are; many by default.

    Returns
    -------
    SolverChoice
    """
    if config.solver.kind not in ("auto", "modes"):
        return SolverChoice(kind=config.solver.kind, reason="asked for")
    share = 1 / (config.executor.workers or 1)
    if on_ranks():
        share = 1.0 if alone else memory_share(config.executor.ranks_per_head)
    kind, reason = choose_solver(n_unknowns, n_nodes, psutil.virtual_memory().total * share, n_poses)
    return SolverChoice(kind=kind, reason=reason)


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
    common = {
        "study": str(study.folder),
        "head": str(head_path(study, config)),
        "coil": str(config.coil.source),
        "coil_id": open_volumes(study).attrs["coil_id"],
        "solver": solver_config(config, solver),
        "grid": study_grid(config),
        "components": config.volume.components,
        "keep_modes": keep_modes,
    }
    return [ShardTask(start=start, stop=stop, **common) for start, stop in shards]


def solver_config(config, kind):
    """Solver settings of a study, with the kind that `study_solver` chose."""
    solver, memory = config.solver, None
    if on_ranks():  # the ranks of a machine share it, and the blocks of all of them must fit
        memory = psutil.virtual_memory().total * memory_share(config.executor.ranks_per_head)
    return SolverConfig(
        kind=kind,
        order=solver.order,
        margin_m=solver.margin_mm * 1e-3,
        rtol=solver.rtol,
        memory_bytes=memory,
        may_fall_back=solver.kind in ("auto", "modes"),
    )


def memory_per_worker_gb(config, kind, n_unknowns, n_nodes):
    """Memory that a solving worker takes: factor (if the solver's kind has one), operators, a block of poses; GB."""
    poses, voxels = config.solver.poses_per_shard, config.volume.n**3
    memory = solver_config(config, kind).memory_bytes
    block = min(poses, block_size(n_unknowns, n_nodes, kind, memory, voxels))
    shard = poses * voxels * 4 * (7 if config.volume.components else 4)  # float32: volumes, and the rows to be written
    return (process_bytes(n_unknowns, n_nodes, kind) + block * pose_bytes(n_unknowns, voxels) + shard) / 1e9
