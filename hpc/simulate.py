"""The stage ``simulate``: coil poses to volumes, a shard of poses a task."""

import time
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import psutil

from ..errors import ConvergenceError, InputError, StoreError
from ..sim.coil import check_coil_outside, load_coil
from ..sim.head import Head, load_head
from ..sim.label_mesh import MeshSizes
from ..sim.linear import choose_solver, factor_bytes
from ..sim.pose import Pose, grid_poses, random_poses, read_poses
from ..sim.solve import FieldSolver, SolverConfig
from ..sim.tissues import BRAIN_TAGS
from ..sim.volume import VolumeGrid, locate
from ..zarr_store.atomic import disk_errors
from ..zarr_store.ids import content_id, plain
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from ..zarr_store.volume_layout import create_volumes
from ..zarr_store.volumes import open_volumes, write_shard
from .identity import hand_knob_mm, head_spec, volume_centre_mm, volumes_spec


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
    solver = _solver(task.head, task.coil, task.solver)
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
    """Write a shard whose task came to no end (its worker died, or ran out of memory): every pose failed, with reason.

    Parameters
    ----------
    task : ShardTask
    reason : str
    """
    rows = _Rows(task.size, task.grid, task.components)
    rows.reason = [reason] * task.size
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
def _solver(head, coil, config):
    """One solver for a worker process: factored at its first shard, used for all others."""
    return FieldSolver(Head.load(head), load_coil(coil), config)


def head_path(study, config):
    """Where the study keeps its head model, ready to load."""
    return study.cache / f"head-{content_id(head_spec(config))}.npz"


def study_head(study, config):
    """The study's head model: from its cache, or loaded (meshed) and kept there.

    Parameters
    ----------
    study : Study
    config : StudyConfig

    Returns
    -------
    Head
    """
    path = head_path(study, config)
    if path.exists():
        return Head.load(path)
    mesh = config.head.mesh
    head = load_head(
        config.head.source,
        config.head.conductivities,
        sizes=MeshSizes(
            fine_m=mesh.fine_mm * 1e-3, coarse_m=mesh.coarse_mm * 1e-3, fine_radius_m=mesh.fine_radius_mm * 1e-3
        ),
        hand_knob_m=np.array(hand_knob_mm(config)) * 1e-3,
    )
    with disk_errors("keeping the head model", path):
        head.save(path)
    return head


def study_poses(config, head):
    """The study's coil poses: from its file, or grid first and random ones after.

    Parameters
    ----------
    config : StudyConfig
    head : Head

    Returns
    -------
    list of Pose
    """
    if config.poses.file:
        return read_poses(config.poses.file)
    knob, table = np.array(hand_knob_mm(config)) * 1e-3, config.poses
    gap = table.distance_mm * 1e-3
    poses = []
    if table.grid:
        poses += grid_poses(head, knob, table.grid, table.spacing_mm * 1e-3, table.angle_deg, gap)
    if table.random:
        poses += random_poses(
            head,
            knob,
            table.random,
            table.random_radius_mm * 1e-3,
            table.angle_deg,
            table.random_angle_deg,
            gap,
            seed=config.seed,
        )
    return poses


def study_grid(config):
    """The study's volume grid."""
    centre = tuple(v * 1e-3 for v in volume_centre_mm(config))
    return VolumeGrid(centre, config.volume.spacing_mm * 1e-3, config.volume.n)


def prepare_volumes(study, config):
    """Make the volume store if it is not there: head, poses (checked), tissue and mask.

    Parameters
    ----------
    study : Study
    config : StudyConfig

    Raises
    ------
    PoseError
        If a pose puts the coil into the head.
    StoreError, GridMismatchError
        If the store belongs to another study file.
    """
    spec, grid, coil = volumes_spec(config), study_grid(config), load_coil(config.coil.source)
    check_same_volumes(study, spec)
    head = study_head(study, config)
    if study.volumes.exists():
        held = open_volumes(study)
        matrices, tissue = held["pose_matrix"].values, held["tissue"].values
    else:
        poses = study_poses(config, head)
        check_coil_outside(coil, poses, head)
        matrices, tissue = np.stack([pose.matrix for pose in poses]), _tissue(head, grid)
    create_volumes(
        study,
        grid=grid,
        poses=matrices,
        shard=config.solver.poses_per_shard,
        attrs={
            "volumes_id": content_id(spec),
            "config": spec,
            "head_id": head.id,
            "coil_id": coil.id,
            "frame": "MNI" if config.head.source == "template" else "head",
        },
        tissue=tissue,
        motor_mask=_motor_mask(config, grid, tissue),
        components=config.volume.components,
        notes={
            "head_name": head.name,
            "head_comment": head.comment,
            "head_nodes": len(head.nodes),
            "head_tets": len(head.tets),
            "coil_name": coil.name,
        },
    )


def check_same_volumes(study, spec):
    """Refuse to go on in a folder whose volumes were made from other settings; says which."""
    if not study.volumes.exists():
        return
    held = open_volumes(study).attrs
    if held.get("volumes_id") == content_id(spec):
        return
    before, now = _flat(held.get("config", {})), _flat(plain(spec))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    told = "; ".join(f"{key}: {before.get(key)} there, {now.get(key)} now" for key in changed[:6])
    raise StoreError(
        f"simulating into {study.volumes}: it was made with other settings ({told}); volumes of two kinds in one store "
        "could not be told apart. Give the study another name or folder, or move the old folder away."
    )


def _flat(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else key)
    return flat


def _tissue(head, grid):
    element, _ = locate(head.nodes, head.tets, grid.points())
    tissue = np.where(element >= 0, head.tissue[element], 0)
    return tissue.astype(np.uint8).reshape(grid.shape)


def _motor_mask(config, grid, tissue):
    brain = np.isin(tissue, BRAIN_TAGS)
    if config.volume.mask_file:
        mask = brain & _mask_from_file(config.volume.mask_file, grid)
    else:
        distance = np.linalg.norm(grid.points() - np.array(hand_knob_mm(config)) * 1e-3, axis=1).reshape(grid.shape)
        mask = brain & (distance <= config.volume.mask_radius_mm * 1e-3)
    if not mask.any():
        raise InputError(
            "making the motor mask: no voxel of the volume is brain and within the mask, so the networks would see "
            "nothing. Check hand_knob_mm, [volume] centre_mm and mask_radius_mm against the head's coordinates."
        )
    return mask


def _mask_from_file(path, grid):
    """Values above 0.5 of a NIfTI mask at the nearest voxel of each of the grid's."""
    import nibabel

    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj).reshape(*image.shape[:3], -1)[..., 0]
        if values.ndim != 3:
            raise ValueError(f"it has {values.ndim} axes, not three")
        index = np.linalg.solve(image.affine, np.c_[grid.points() * 1e3, np.ones(grid.n**3)].T)[:3].T
    except Exception as error:
        raise InputError(f"reading the motor mask {path}: {error}; give a NIfTI file in the head's mm.") from error
    index = np.round(index).astype(int)
    inside = ((index >= 0) & (index < values.shape)).all(1)
    mask = np.zeros(len(index), bool)
    mask[inside] = values[tuple(index[inside].T)] > 0.5
    return mask.reshape(grid.shape)


@dataclass(frozen=True, kw_only=True)
class SolverChoice:
    """Which solver a study takes, and why."""

    kind: str
    reason: str


def study_solver(config, n_nodes):
    """Solver of a study: as asked for, or chosen once by the memory of this machine, for all workers alike.

    The machine's whole memory counts, not what is free at the moment, so that a study that goes on later takes the
    same solver.

    Parameters
    ----------
    config : StudyConfig
    n_nodes : int

    Returns
    -------
    SolverChoice
    """
    if config.solver.kind != "auto":
        return SolverChoice(kind=config.solver.kind, reason="asked for")
    workers = config.executor.workers or 1
    kind, reason = choose_solver(n_nodes, psutil.virtual_memory().total / workers)
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
        "solver": SolverConfig(kind=solver, rtol=config.solver.rtol),
        "grid": study_grid(config),
        "components": config.volume.components,
    }
    return [ShardTask(start=start, stop=stop, **common) for start, stop in shards]


def memory_per_worker_gb(config, n_nodes):
    """Memory that a solving worker takes: factor, operators and a block of poses, GB."""
    block = config.solver.poses_per_shard * (n_nodes * 4 * 8 + config.volume.n**3 * 3 * 8 * 2)
    return 1.0 + (1.3 * factor_bytes(n_nodes) + block + 8000 * n_nodes) / 1e9
