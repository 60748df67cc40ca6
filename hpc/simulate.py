"""The stage ``simulate``: coil poses to volumes, a shard of poses a task."""

import time
from dataclasses import dataclass, field
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
from ..zarr_store.schema import Status
from ..zarr_store.shards import read_status
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes, read_volumes, write_shard
from .prepare import head_path, study_grid


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
    """How a shard ended: poses done and failed."""

    done: int
    failed: int


@dataclass
class _Rows:
    """Rows of one shard, filled pose by pose."""

    poses: int
    grid: VolumeGrid
    components: bool
    e_norm: np.ndarray = field(init=False)
    e_field: np.ndarray | None = field(init=False)

    def __post_init__(self):
        self.e_norm = np.full((self.poses, *self.grid.shape), np.nan, np.float32)
        shape = (self.poses, 3, *self.grid.shape)
        self.e_field = np.full(shape, np.nan, np.float32) if self.components else None
        self.status = np.full(self.poses, int(Status.FAILED), np.int8)
        self.iterations = np.full(self.poses, -1, np.int32)
        self.residual = np.full(self.poses, np.nan)
        self.seconds = np.full(self.poses, np.nan)
        self.reason = [""] * self.poses

    def put(self, rows, volumes, reports, seconds):
        self.e_norm[rows] = np.linalg.norm(volumes, axis=-1)
        if self.components:
            self.e_field[rows] = np.moveaxis(volumes, -1, 1)
        self.status[rows] = int(Status.DONE)
        self.iterations[rows] = [report.iterations for report in reports]
        self.residual[rows] = [report.residual for report in reports]
        self.seconds[rows] = seconds

    def keep_done(self, task):
        """Take the rows of poses that are done from the store."""
        study = Study(task.study)
        done = np.flatnonzero(read_status(study)[task.start : task.stop] == int(Status.DONE))
        if not len(done):
            return
        held = open_volumes(study).isel(pose=task.start + done)
        self.e_norm[done] = read_volumes(study, task.start + done)
        if self.components:
            self.e_field[done] = read_volumes(study, task.start + done, "e_field")
        for name in ("status", "iterations", "residual", "seconds"):
            getattr(self, name)[done] = held[name].values
        for k in done:
            self.reason[k] = ""


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
    study = Study(task.study)
    matrices = open_volumes(study)["pose_matrix"].isel(pose=slice(task.start, task.stop)).values
    poses = [Pose(matrix) for matrix in matrices]
    rows = _Rows(len(poses), task.grid, task.components)
    try:
        _solve_into(rows, slice(0, len(poses)), solver, task.grid, poses)
    except (ConvergenceError, InputError):
        for k, pose in enumerate(poses):
            try:
                _solve_into(rows, slice(k, k + 1), solver, task.grid, [pose])
            except (ConvergenceError, InputError) as error:
                rows.reason[k] = f"{'diverged' if isinstance(error, ConvergenceError) else 'bad_input'}: {error}"
    _write(task, rows)
    done = int((rows.status == int(Status.DONE)).sum())
    return ShardResult(done=done, failed=len(poses) - done)


def write_failed_shard(task, reason):
    """Write a shard whose task came to no end (its worker died, or ran out of memory): its poses failed, with reason.

    Poses that were done already (the task tried failed ones again, or died after it had written) stay done.

    Parameters
    ----------
    task : ShardTask
    reason : str
    """
    rows = _Rows(task.size, task.grid, task.components)
    rows.reason = [reason] * task.size
    rows.keep_done(task)
    _write(task, rows)


def _write(task, rows):
    write_shard(
        Study(task.study),
        task.start,
        e_norm=rows.e_norm,
        status=rows.status,
        iterations=rows.iterations,
        residual=rows.residual,
        seconds=rows.seconds,
        reason=rows.reason,
        e_field=rows.e_field,
    )


def _solve_into(rows, where, solver, grid, poses):
    began = time.perf_counter()
    volumes = solver.volumes(grid, poses)
    if not np.isfinite(volumes).all():
        raise ConvergenceError("the field is not finite; check conductivities and the coil's moments.")
    rows.put(where, volumes, solver.reports, (time.perf_counter() - began) / len(poses))


@lru_cache(maxsize=1)
def _solver(head, coil, coil_id, config, grid):
    """One solver for a worker process: factored at its first shard, used for all others."""
    loaded = load_coil(coil)
    if loaded.id != coil_id:
        raise InputError(
            f"solving with coil {coil}: its file is not the one that the study was begun with, so its poses would be "
            "of two coils. Put the old file back, or begin a study of its own."
        )
    return FieldSolver(Head.load(head), loaded, config, region=grid)


@dataclass(frozen=True, kw_only=True)
class SolverChoice:
    """Which solver a study takes, and why."""

    kind: str
    reason: str


def study_solver(config, n_unknowns, n_nodes):
    """Solver of a study: as asked for, or chosen once by the memory of this machine, for all workers alike.

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
    if config.solver.kind != "auto":
        return SolverChoice(kind=config.solver.kind, reason="asked for")
    workers = config.executor.workers or 1
    kind, reason = choose_solver(n_unknowns, n_nodes, psutil.virtual_memory().total / workers)
    return SolverChoice(kind=kind, reason=reason)


def shard_tasks(study, config, shards, solver):
    """Tasks for shards of poses.

    Parameters
    ----------
    study : Study
    config : StudyConfig
    shards : sequence of (start, stop)
    solver : str
        Kind, as `study_solver` chose it.

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
