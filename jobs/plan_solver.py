"""The solver's part of a plan: which one a study takes, why, and what setting it up costs."""

import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..hpc.prepare import head_path
from ..hpc.solver_choice import EXACT_SECONDS, MODES_SECONDS, basis_seconds, resolved_method
from ..hpc.study_solver import memory_per_worker_gb, memory_to_make_basis_gb, study_solver
from ..zarr_store.schema import Method, Status
from ..zarr_store.volumes import open_volumes

# MUMPS on one or two threads: 25 s at 289 k unknowns, 71 s at 617 k (docs/performance.md).
_FACTOR_SECONDS = 1.35e-6
# Second-order unknowns: 192 k and 297 k in the volume and its margin, a cube of 80 mm.
_EDGES_PER_MM3 = 0.5


@dataclass(frozen=True, kw_only=True)
class SolverPlan:
    """Which solver a study takes, and what it costs before the first pose.

    Parameters
    ----------
    method : {"exact", "modes"}
    kind : {"direct", "iterative", ""}
        How linear systems are solved; ``""`` where that is chosen when the head is known.
    method_reason, kind_reason : str
    break_even_poses : int
        Poses from which a basis of modes has paid for itself.
    pose_seconds, basis_seconds : float
        Core-seconds, estimated or measured; a basis that is given, or none, costs nothing.
    factor_seconds : float or None
        Of each worker; None where it is not known yet.
    memory_gb : float or None
        Of each worker.
    basis_memory_gb : float or None
        Of the process that makes the basis; None where none is made, or it is not known yet.
    sizes : str
        What factor and memory rest on.
    """

    method: str
    kind: str
    method_reason: str
    kind_reason: str
    break_even_poses: int
    pose_seconds: float
    basis_seconds: float
    factor_seconds: float | None
    memory_gb: float | None
    basis_memory_gb: float | None
    sizes: str

    def lines(self):
        """Lines for people."""
        lines = [f"solver    {self.method}: {self.method_reason}; a basis pays off at {self.break_even_poses}"]
        parts = []
        if self.factor_seconds is not None:
            lines.append(f"          {self.kind} where solved: {self.kind_reason} ({self.sizes})")
            parts.append(f"factor {self.factor_seconds:.0f} s a worker")
        if self.basis_seconds:
            memory = "" if self.basis_memory_gb is None else f" and {self.basis_memory_gb:.1f} GB"
            minutes = f"{self.basis_seconds / 60:.1f} core-minutes"
            parts.append(f"basis {minutes}{memory}, unless one is found; kept for every study like it")
        if self.memory_gb is not None:
            parts.append(f"{self.memory_gb:.1f} GB a worker")
        return lines + ([f"          set-up: {', '.join(parts)}"] if parts else [])


def plan_solver(study, config):
    r"""Plan the solver of a study.

    Parameters
    ----------
    study : Study
    config : StudyConfig

    Returns
    -------
    SolverPlan

    Examples
    --------
    >>> print("\n".join(plan_solver(study, config).lines()))                      # doctest: +SKIP
    solver    exact: 96 poses are fewer than the 1234 from which a basis saves half of the time; a basis pays ...
    """
    choice, exact_seconds = resolved_method(config), _seconds_of_exact_poses(study)
    modes = choice.method == "modes"
    sizes, known = _sizes(study, config)
    makes_basis = modes and not _has_basis(study, config)
    kind, reason, factor, memory, basis_memory = _linear_kind(config, modes), "asked for", None, None, None
    if sizes:
        if not kind:
            # the head's own solver, which modes need too: for the basis, and for poses that it cannot serve
            solver = replace(config.solver, kind="auto", basis="")
            chosen = study_solver(replace(config, solver=solver), *sizes)
            kind, reason = chosen.kind, chosen.reason + (_solved_iteratively(study) if chosen.kind == "direct" else "")
        factor = _FACTOR_SECONDS * sizes[0] ** (4 / 3) if kind == "direct" else 0.0
        memory = memory_per_worker_gb(config, kind, *sizes)
        if makes_basis:
            basis_memory = memory_to_make_basis_gb(config, study_solver(config, *sizes, alone=True).kind, *sizes)
    return SolverPlan(
        method=choice.method,
        kind=kind,
        method_reason=choice.reason,
        kind_reason=reason if kind else "",
        break_even_poses=choice.break_even,
        pose_seconds=MODES_SECONDS if modes else exact_seconds,
        basis_seconds=basis_seconds(exact_seconds) if makes_basis else 0.0,
        factor_seconds=factor,
        memory_gb=memory,
        basis_memory_gb=basis_memory,
        sizes=known,
    )


def _has_basis(study, config):
    """Whether a basis is given, or was found or made before."""
    if config.solver.basis:
        return True
    try:
        return Path(json.loads(study.basis.read_text())["path"]).exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _linear_kind(config, modes):
    return "" if modes or config.solver.kind == "auto" else config.solver.kind


def _sizes(study, config):
    """Unknowns and nodes of the head, from the volume store or estimated from the head's file; and words for them."""
    if study.volumes.exists():
        notes = open_volumes(study).attrs.get("notes", {})
        if {"unknowns", "head_nodes"} <= notes.keys():
            return (int(notes["unknowns"]), int(notes["head_nodes"])), f"{notes['unknowns']:,} unknowns"
    nodes = _nodes_in(head_path(study, config))
    if not nodes:
        return None, ""
    unknowns = nodes
    if config.solver.order == 2:
        side = config.volume.n * config.volume.spacing_mm + 2 * config.solver.margin_mm
        unknowns += int(_EDGES_PER_MM3 * side**3)
    return (unknowns, nodes), f"some {round(unknowns, -3):,} unknowns, estimated"


def _nodes_in(path):
    """Number of nodes in a file of `Head.save`, from its header alone; 0 where that cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("nodes.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return int(read(file)[0][0])
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
        return 0


def _solved_iteratively(study):
    """Words for the poses of the study that took no factor: it found no memory, or did not pay for a few."""
    volumes = open_volumes(study) if study.volumes.exists() else {}
    count = int((volumes["method"].values == int(Method.ITERATIVE)).sum()) if "method" in volumes else 0
    return f"; {count} pose{'s were' if count > 1 else ' was'} solved iteratively" if count else ""


def _seconds_of_exact_poses(study):
    """Median seconds of the study's exact poses, or the estimate where there are none."""
    if not study.volumes.exists():
        return EXACT_SECONDS
    volumes = open_volumes(study)
    exact = volumes["status"].values == int(Status.DONE)
    if "method" in volumes:
        exact &= volumes["method"].values != int(Method.MODES)
    seconds = volumes["seconds"].values[exact]
    return float(np.median(seconds)) if np.isfinite(seconds).any() else EXACT_SECONDS
