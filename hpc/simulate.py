"""The stage ``simulate``: coil poses to volumes, a shard of poses a task."""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import psutil

from ..errors import ConvergenceError, InputError
from ..sim.coil import load_coil
from ..sim.head import Head
from ..sim.linear import choose_solver, factor_bytes
from ..sim.pose import Pose
from ..sim.solve import FieldSolver, SolverConfig
from ..sim.volume import VolumeGrid
from ..zarr_store.schema import Method, Status
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes, read_rows
from .mpi_executor import group_comm, leads_group
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
    """How a shard ended: poses done, failed, and left to another solver."""

    done: int
    failed: int
    left: int = 0


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
    return ShardResult(done=done - kept, failed=len(poses) - done)


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


def study_solver(config, n_unknowns, n_nodes):
    """Exact solver of a study: as asked for, or chosen once by the memory of this machine, for all workers alike.

    A study by modes needs one too: for its basis, and for the poses that the basis cannot serve.

    The machine's whole memory counts, not what is free at the moment, so that a study that goes on later takes the
    same solver.

    Parameters
    ----------
    config : StudyConfig
    n_unknowns, n_nodes : int

    Returns
    -------
    SolverChoice
    """
    if config.solver.kind not in ("auto", "modes"):
        return SolverChoice(kind=config.solver.kind, reason="asked for")
    workers = config.executor.workers or 1
    kind, reason = choose_solver(n_unknowns, n_nodes, psutil.virtual_memory().total / workers)
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
    solver = config.solver
    return SolverConfig(kind=kind, order=solver.order, margin_m=solver.margin_mm * 1e-3, rtol=solver.rtol)


def memory_per_worker_gb(config, kind, n_unknowns, n_nodes):
    """Memory that a solving worker takes: factor (if the solver's kind has one), operators, a block of poses; GB."""
    block = config.solver.poses_per_shard * (n_unknowns * 6 * 8 + config.volume.n**3 * 3 * 8 * 2)
    factor = 1.1 * factor_bytes(n_unknowns, n_nodes) if kind == "direct" else 0
    return 0.8 + (factor + block + 2000 * n_unknowns) / 1e9
