"""What a linear solver takes: memory of a factor, which solver fits, and how many poses go together in a block."""

from pathlib import Path

import numpy as np
import psutil

# Bytes of a MUMPS factor over n^(4/3) for n unknowns of a tetrahedral mesh. Linear: 3.1 GB at 320 k nodes. Second order
# in a cube: 1.7 GB at 254 k and 4.1 GB at 569 k unknowns. Everywhere, with some eight unknowns for each node: 0.19 GB
# at 39 k and 0.59 GB at 77 k, and growing faster, so with a reserve.
_FACTOR_BYTES = ((1.01, 142.0), (4.0, 100.0), (np.inf, 250.0))

LARGEST_BLOCK = 64
"""Poses in a block at most. MUMPS reads its factor once for a block: measured on 617 k unknowns, a pose takes 0.12 s in
blocks of 16, 0.10 s of 32, 0.08 s of 64 and 0.075 s of 128."""

SMALL_BLOCK = 8
"""Poses that a factor must leave room for. A pose of 1.2 million unknowns took 27 s without a factor."""

_SHARE = 0.9  # of the memory that is counted on, as the estimates are within a tenth of what was measured

# Numbers that a pose of a block holds at its two peaks, times unknowns and times voxels. Solving: dA/dt (3), right-hand
# sides, solution, what MUMPS or the checks take (together 6.5 to 7.5 by resident memory, at 337 k and 39 k unknowns),
# and the float32 result. Sampling: dA/dt, potentials twice, and the field with its parts and its result; these are
# counted in the code, and their sum at 337 k unknowns and 64^3 voxels, 3.65 million, is what tracemalloc measures
# (resident memory: 3.55 million).
_SOLVING, _SAMPLING = (7.5, 2), (5, 7.5)

FEW_POSES = 2
"""Up to so many poses are solved sooner without a factor. Measured on 337 k unknowns and one thread: set-up 37 s and
0.1 to 0.6 s a pose with a factor, 9 s and 4 to 5 s a pose without."""


# For each pose, a basis in the making holds fields of all voxels while modes are found: training fields, modes twice
# (nine tenths as many), and those of the round before; and float64 copies of 20,000 voxels (see `.field_products`).
# By tracemalloc, 130 poses: 529 MB with 98 k voxels (counted: 631), 244 MB with 30 k (counted: 279).
_FIELDS, _COPIES = 3.3, 2 * 24 * 20_000


def machine_bytes(root="/"):
    """Memory of this machine, or what this process's control groups (containers, SLURM) leave it of that.

    Parameters
    ----------
    root : path-like, optional
        Where Linux's ``proc`` and ``sys`` are.

    Returns
    -------
    int

    Examples
    --------
    >>> machine_bytes() <= psutil.virtual_memory().total
    True
    """
    return min([psutil.virtual_memory().total, *_control_group_limits(Path(root))])


def free_bytes():
    """Memory that is available at the moment, of `machine_bytes`."""
    return min(machine_bytes(), psutil.virtual_memory().available)


def _control_group_limits(root):
    """Limits of this process's control groups and of those that they are in."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    versions = {"": ("sys/fs/cgroup", "memory.max"), "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes")}
    for _, controllers, group in groups:
        if controllers not in versions:
            continue
        top, file = versions[controllers]
        # A container may see its own group as the top, under a path that is the machine's.
        within = Path(group.lstrip("/"))
        for folder in (within, *within.parents):
            try:
                yield int((root / top / folder / file).read_text())
            except (OSError, ValueError):  # none there, or "max"
                continue


def choose_solver(n_unknowns, n_nodes, memory_bytes=None, n_poses=None):
    """Name of the solver for a head, and why.

    Parameters
    ----------
    n_unknowns, n_nodes : int
    memory_bytes : float, optional
        Memory that this process may take; what is available by default.
    n_poses : int, optional
        How many poses there are; many by default.

    Returns
    -------
    str, str
        ``"direct"`` or ``"iterative"``, and one clause that says why.

    Examples
    --------
    >>> choose_solver(100_000, 100_000, 8e9)[0]
    'direct'
    >>> choose_solver(600_000, 320_000, 16e9, n_poses=1)
    ('iterative', 'a factor does not pay for 1 pose')
    """
    if n_poses is not None and n_poses <= FEW_POSES:
        return "iterative", f"a factor does not pay for {n_poses} pose{'s' if n_poses > 1 else ''}"
    memory = free_bytes() if memory_bytes is None else memory_bytes
    factor = factor_bytes(n_unknowns, n_nodes)
    needed = process_bytes(n_unknowns, n_nodes, "direct") + SMALL_BLOCK * pose_bytes(n_unknowns)
    if needed < _SHARE * memory or factor < 0.1 * memory:  # without a small factor, it would take hardly less
        return "direct", f"its factor takes about {factor / 1e9:.1f} GB of {memory / 1e9:.1f}"
    return "iterative", f"with a factor it would take about {needed / 1e9:.1f} GB of {memory / 1e9:.1f}"


def factor_bytes(n_unknowns, n_nodes):
    """Memory of the MUMPS factor, bytes (fitted to measurements, see the constant)."""
    constant = next(constant for share, constant in _FACTOR_BYTES if n_unknowns <= share * n_nodes)
    return constant * n_unknowns ** (4 / 3)


def block_size(n_unknowns, n_nodes, kind, memory_bytes=None, voxels=64**3):
    """Poses that are solved together: as many as memory holds beside the factor, from 1 to `LARGEST_BLOCK`.

    The machine's whole memory counts where none is given, not what is free at the moment, so that the numbers of a
    study do not depend on what else runs.

    Parameters
    ----------
    n_unknowns, n_nodes : int
    kind : str
        ``"direct"`` or ``"iterative"``.
    memory_bytes : float, optional
        What this process may take; by default all that the machine has.
    voxels : int
        Points that the field is sampled at.

    Returns
    -------
    int

    Examples
    --------
    >>> block_size(617_023, 319_704, "direct", 12e9), block_size(617_023, 319_704, "direct", 9e9)
    (64, 6)
    """
    memory = machine_bytes() if memory_bytes is None else memory_bytes
    room = _SHARE * memory - process_bytes(n_unknowns, n_nodes, kind)
    return int(np.clip(room // pose_bytes(n_unknowns, voxels), 1, LARGEST_BLOCK))


def process_bytes(n_unknowns, n_nodes, kind):
    """Memory of a process before its first pose, bytes: Python, operators, and the factor if the kind has one."""
    return 0.8e9 + 2000 * n_unknowns + (1.1 * factor_bytes(n_unknowns, n_nodes) if kind == "direct" else 0)


def pose_bytes(n_unknowns, voxels=64**3):
    """Memory that each pose of a block adds, its volume included, bytes.

    Examples
    --------
    >>> round(pose_bytes(617_023) / 1e6)
    41
    """
    return 8 * max(per_unknown * n_unknowns + per_voxel * voxels for per_unknown, per_voxel in (_SOLVING, _SAMPLING))


def basis_bytes(n_unknowns, voxels, n_poses, n_modes):
    """Memory that the making of a basis of modes takes beside its solver, bytes: fields, modes and functionals.

    Parameters
    ----------
    n_unknowns, voxels : int
    n_poses : int
        That are solved exactly.
    n_modes : int
        Those of the tail too.

    Examples
    --------
    >>> round(basis_bytes(617_023, 64**3, 300, 150) / 1e9, 1)
    3.4
    """
    field = 12 * voxels  # float32
    functionals = n_modes * (2 * field + 12 * n_unknowns)  # beside the modes, and their patterns
    return n_poses * _COPIES + max(_FIELDS * n_poses * field, functionals)
