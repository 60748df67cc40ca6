"""Shards of poses from a basis of modes: no solve, and what the basis cannot serve is left to an exact solver."""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..sim.head import Head
from ..sim.scalp import Scalp
from ..sim.volume import VolumeGrid
from ..zarr_store.bases import open_basis
from ..zarr_store.schema import Status
from ..zarr_store.volumes import open_volumes
from .bases import load_basis
from .prepare import head_path, study_grid
from .shard_rows import ShardRows
from .simulate import ShardResult, same_coil, shard_poses


@dataclass(frozen=True, kw_only=True)
class ModesTask:
    """Serve and store one shard of poses by modes; plain values, so that it goes to any worker.

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
    basis : str
        Its store.
    tolerance : float
        Poses with an error estimate beyond are left.
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
    basis: str
    tolerance: float
    grid: VolumeGrid
    components: bool = False

    @property
    def name(self):
        """What messages call it."""
        return f"poses {self.start}:{self.stop} by modes"

    @property
    def size(self):
        """Poses in the shard."""
        return self.stop - self.start


def serve_shard(task):
    """Take the fields of a shard's poses from the basis, and write the shard.

    Poses outside the basis's region, or with an error estimate over the tolerance, are left pending.

    Parameters
    ----------
    task : ModesTask

    Returns
    -------
    ShardResult
    """
    basis, coil, scalp = _loaded(task.basis, task.coil, task.coil_id, task.head)
    rows, poses = ShardRows(task), shard_poses(task)
    rows.keep()
    todo = np.flatnonzero(rows.status != int(Status.DONE))
    began = time.perf_counter()
    served, coefficients, estimates = basis.serve(coil, [poses[k] for k in todo], scalp, task.tolerance)
    served = todo[served]
    if len(served):
        rows.put_modes(served, basis, coefficients, estimates, 0.0)
        rows.seconds[served] = (time.perf_counter() - began) / len(todo)
    left = rows.status != int(Status.DONE)
    rows.status[left] = int(Status.PENDING)
    rows.write()
    return ShardResult(done=len(served), failed=0, left=int(left.sum()))


@lru_cache(maxsize=1)
def _loaded(basis, coil, coil_id, head):
    """What a worker process reads once: basis, coil and scalp."""
    return load_basis(basis), same_coil(coil, coil_id), Scalp.of(Head.load(head))


def modes_tasks(study, config, shards, basis):
    """Tasks for shards of poses.

    Parameters
    ----------
    study : Study
    config : StudyConfig
    shards : sequence of (start, stop)
    basis : str
        Its store.

    Returns
    -------
    list of ModesTask
    """
    common = {
        "study": str(study.folder),
        "head": str(head_path(study, config)),
        "coil": str(config.coil.source),
        "coil_id": open_volumes(study).attrs["coil_id"],
        "basis": basis,
        "tolerance": config.solver.tolerance,
        "grid": study_grid(config),
        "components": config.volume.components,
    }
    return [ModesTask(start=start, stop=stop, **common) for start, stop in shards]


def memory_of_basis_gb(config, basis):
    """Memory that a worker takes that serves poses from a basis, GB."""
    shard = config.solver.poses_per_shard * config.volume.n**3 * 4 * (8 if config.volume.components else 2)
    return 0.8 + (2 * open_basis(basis)["fields"].nbytes + 2 * shard) / 1e9
