"""Ways to make volumes of coil poses, and a clock that tells the seconds of their parts."""

import functools
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import motorsweep.sim.solve as field_solver
import numpy as np
import zarr
from dadt import KNOB_M
from motorsweep.sim import linear, sampling
from motorsweep.sim.coil import Coil, load_coil
from motorsweep.sim.head import load_head
from motorsweep.sim.solve import FieldSolver
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.sim.volume import VolumeGrid
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.volumes import create_volumes, write_shard
from usual_recipe import UsualRecipe

SHARD = 32  # poses of a file, as the package's default
CLOCK = {}


def head_of(source):
    """A head, and what it is."""
    if str(source) == "sphere":
        return layered_sphere(4), "layered sphere"
    note = str(Path(source).name)
    if str(source) != "template" and not Path(source).is_file():
        source, note = "template", f"{source} is not here: the template head instead"
    return load_head(str(source)), note


def over_cortex(head):
    """Point of the cortex that the coil is over, m, and the cube of the volumes."""
    if head.name == "sphere":
        return np.array([0, 0, 0.08]), VolumeGrid((0, 0, 0.063))
    return KNOB_M, VolumeGrid(tuple(KNOB_M))


def coil_of(source):
    """A coil without a table yet."""
    return load_coil(coil_source(source))


def coil_source(source):
    """A coil's file or name; a built-in one where others' data are not here."""
    return source if Path(source).is_file() or not Path(source).suffix else "magstim-70mm"


# ---- clock ----------------------------------------------------------------------------------------------------------


@contextmanager
def part(name):
    began = time.perf_counter()
    yield
    CLOCK[name] = CLOCK.get(name, 0.0) + time.perf_counter() - began


def watch(owner, name, as_part):
    """Count the seconds of a function as those of a part; a function that is no more counts as "other"."""
    function = getattr(owner, name, None)
    if function is None:
        return

    @functools.wraps(function)
    def counted(*arguments, **keywords):
        with part(as_part):
            return function(*arguments, **keywords)

    setattr(owner, name, counted)


def watch_all():
    watch(Coil, "dadt", "dA/dt")
    watch(field_solver, "right_hand_sides", "load")
    watch(linear.DirectSolver, "solve", "solve")
    watch(linear.IterativeSolver, "solve", "solve")
    watch(sampling.Sampler, "field", "recovery, sampling")


@dataclass
class Way:
    """One way to make volumes, and what it took."""

    title: str
    solver: object
    volumes: object
    study: Study
    poses: int
    unknowns: int
    setup_s: float
    memory_gb: float
    first_s: float = 0.0
    runs: list = field(default_factory=list)

    def run(self, poses, repeat):
        """Volumes of poses into the store; seconds a pose of each part are kept."""
        CLOCK.clear()
        began = time.perf_counter()
        e_norm = np.linalg.norm(self.volumes(poses), axis=-1)
        with part("Zarr"):
            write(self.study, e_norm, repeat * self.poses)
        taken = time.perf_counter() - began
        parts = dict(CLOCK) | {"other": taken - sum(CLOCK.values()), "all": taken}
        self.runs.append({name: seconds / len(poses) for name, seconds in parts.items()})

    def seconds(self, name="all"):
        return np.array([run.get(name, np.nan) for run in self.runs])


def exact(head, coil, grid, config):
    solver = FieldSolver(head, coil(), config, region=grid)
    solver.prepare(grid)
    return solver, functools.partial(solver.volumes, grid), solver.space.size


def usual(head, coil, grid):
    recipe = UsualRecipe(head, coil, grid.points())

    def volumes(poses):
        fields = np.empty((len(poses), *grid.shape, 3), np.float32)
        for out, pose in zip(fields, poses):
            with part("dA/dt"):
                dadt = recipe.dadt(pose)
            with part("load"):
                means, load = recipe.load(dadt)
            with part("solve"):
                potential = recipe.potential(load)
            with part("recovery, sampling"):
                out[:] = recipe.at_points(potential, means).reshape(out.shape)
        return fields

    return recipe, volumes, len(head.nodes)


def store(folder, head, grid, poses, shard=SHARD):
    """A store of volumes of so many poses."""
    study, cube = Study(folder), np.ones(grid.shape)
    if not study.volumes.exists():
        matrices = np.array([pose.matrix for pose in poses])
        create_volumes(
            study, grid=grid, poses=matrices, shard=min(shard, len(poses)), attrs={"head_id": head.id}, tissue=cube,
            motor_mask=cube,
        )  # fmt: skip
    return study


def write(study, e_norm, first=0, **rows):
    """Write volumes shard by shard, the first one being a shard's first; `rows` are of each pose."""
    shard = zarr.open_array(study.volumes / "status", mode="r").chunks[0]
    for start in range(0, len(e_norm), shard):
        part = slice(start, start + shard)
        each = {name: values[part] for name, values in rows.items()}
        write_shard(study, first + start, e_norm[part], [Status.DONE] * len(e_norm[part]), **each)
