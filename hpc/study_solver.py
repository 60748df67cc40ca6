"""The exact solver of a study: which kind, with which settings, and the memory that it and a basis take."""

from dataclasses import dataclass

from ..sim.solver_config import SolverConfig
from ..sim.solver_memory import basis_bytes, block_size, choose_solver, machine_bytes, pose_bytes, process_bytes
from .mpi_executor import memory_share, on_ranks
from .solver_choice import BASIS_ADJOINTS, BASIS_POSES


@dataclass(frozen=True, kw_only=True)
class SolverChoice:
    """Which solver a study takes, and why."""

    kind: str
    reason: str


def study_solver(config, n_unknowns, n_nodes, alone=False, n_poses=None):
    """Exact solver of a study: as asked for, or chosen once by the memory of this machine, for all workers alike.

    A study by modes needs one too: for its basis, and for the poses that the basis cannot serve.

    Parameters
    ----------
    config : StudyConfig
        With the executor that the study runs on.
    n_unknowns, n_nodes : int
    alone : bool
        To make a basis with, while workers and ranks wait.
    n_poses : int, optional
        How many poses there are; many by default.

    Returns
    -------
    SolverChoice
    """
    if config.solver.kind not in ("auto", "modes"):
        return SolverChoice(kind=config.solver.kind, reason="asked for")
    memory = solver_bytes(config, n_unknowns, n_nodes, alone)
    kind, reason = choose_solver(n_unknowns, n_nodes, memory, n_poses)
    return SolverChoice(kind=kind, reason=reason)


def solver_bytes(config, n_unknowns, n_nodes, alone=False):
    """Memory that the solver of one process may take; under mpirun, that of one group of ranks. Bytes.

    The machine's whole memory is shared out, not what is free at the moment, so that a study that goes on later has
    the same solver and blocks. With ``workers = 0`` one worker may take it all: how many start follows from what each
    takes, and does not change the numbers. On SLURM it is the memory that the study asks for: a worker's share of its
    job, or the driver's.

    Parameters
    ----------
    config : StudyConfig
        With the executor that the study runs on.
    n_unknowns, n_nodes : int
    alone : bool
        While a basis is made, with all of the machine's memory (the driver's) but what the basis takes.

    Returns
    -------
    float
    """
    executor = config.executor
    on_slurm = executor.kind == "slurm" and not on_ranks()
    memory = config.slurm.driver.memory_gb * 1e9 if on_slurm else machine_bytes()
    if alone:
        left = memory - basis_bytes(n_unknowns, config.volume.n**3, BASIS_POSES, BASIS_ADJOINTS)
    elif on_ranks():
        # Head, load operator and sampler are in every rank of a group, and counted once.
        ranks = executor.ranks_per_head
        left = memory * memory_share(ranks) - (ranks - 1) * process_bytes(n_unknowns, n_nodes, "iterative")
    elif on_slurm:
        left = config.slurm.simulate.memory_gb * 1e9 / config.slurm.simulate.processes
    else:
        left = memory / (1 if executor.kind == "serial" else executor.workers or 1)
    return max(left, 0.0)


def head_sizes(volumes):
    """Unknowns and nodes of the head that a volume store was begun with."""
    notes = volumes.attrs["notes"]
    return int(notes["unknowns"]), int(notes["head_nodes"])


def solver_config(config, kind, n_unknowns, n_nodes, alone=False):
    """Solver settings of a study, with the kind that `study_solver` chose and the memory that it counted with."""
    solver, memory = config.solver, solver_bytes(config, n_unknowns, n_nodes, alone)
    return SolverConfig(
        kind=kind,
        order=solver.order,
        margin_m=solver.margin_mm * 1e-3,
        rtol=solver.rtol,
        memory_bytes=memory if alone else max(memory - _shard_bytes(config), 0.0),
        may_fall_back=solver.kind in ("auto", "modes"),
    )


def memory_per_worker_gb(config, kind, n_unknowns, n_nodes):
    """Memory that a solving worker takes: factor (if the solver's kind has one), operators, a block of poses; GB."""
    poses, voxels = config.solver.poses_per_shard, config.volume.n**3
    memory = solver_config(config, kind, n_unknowns, n_nodes).memory_bytes
    block = min(poses, block_size(n_unknowns, n_nodes, kind, memory, voxels))
    solver = process_bytes(n_unknowns, n_nodes, kind) + block * pose_bytes(n_unknowns, voxels)
    return (solver + _shard_bytes(config)) / 1e9


def _shard_bytes(config):
    """Volumes of a shard, and its rows to be written, float32."""
    return config.solver.poses_per_shard * config.volume.n**3 * 4 * (7 if config.volume.components else 4)


def memory_to_make_basis_gb(config, kind, n_unknowns, n_nodes):
    """Memory that the making of a basis takes: solver, a block of poses, fields and functionals; GB."""
    voxels = config.volume.n**3
    block = block_size(n_unknowns, n_nodes, kind, solver_bytes(config, n_unknowns, n_nodes, alone=True), voxels)
    solver = process_bytes(n_unknowns, n_nodes, kind) + block * pose_bytes(n_unknowns, voxels)
    return (solver + basis_bytes(n_unknowns, voxels, BASIS_POSES, BASIS_ADJOINTS)) / 1e9
