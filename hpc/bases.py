"""The basis of modes of a study: found by what it was made for, or made and kept for every study like it."""

import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import ConvergenceError, MotorsweepError, PoseError, StoreError
from ..sim.basis import make_basis
from ..sim.modes import PLAIN_FIELDS, Basis
from ..sim.pose import Pose
from ..sim.pose_region import PoseRegion, region_of
from ..sim.scalp import Scalp
from ..sim.solve import FieldSolver
from ..sim.volume import VolumeGrid
from ..zarr_store.bases import (
    basis_path,
    basis_spec_of,
    check_bases_folder,
    damaged_basis,
    read_basis,
    write_basis,
)
from ..zarr_store.ids import NUMERICS_VERSION, content_id
from ..zarr_store.study import atomic_write_text
from ..zarr_store.volumes import open_volumes
from .prepare import study_grid, study_head
from .simulate import same_coil
from .study_solver import head_sizes, solver_config

BASIS_VERSION = 2
"""Raised when another basis is made of the same spec."""


@dataclass(frozen=True, kw_only=True)
class FoundBasis:
    """The basis of a study.

    Parameters
    ----------
    path : str
    made : bool
        Whether it was made just now.
    seconds : float
        That it took to make, now or then.
    """

    path: str
    made: bool
    seconds: float


def basis_spec(config, head, coil, grid, region, tolerance):
    """Spec of a basis: all that its modes depend on.

    Parameters
    ----------
    config : StudyConfig
        Its elements and the tolerance of its solves count.
    head : Head
    coil : Coil
    grid : VolumeGrid
    region : PoseRegion
    tolerance : float

    Returns
    -------
    dict
    """
    solver = config.solver
    conductivities = {
        str(int(tag)): sorted({float(value) for value in np.unique(head.conductivity[head.tissue == tag])})
        for tag in np.unique(head.tissue)
    }
    return {
        "kind": "basis",
        "numerics": NUMERICS_VERSION,
        "version": BASIS_VERSION,
        "head": head.id,
        "conductivities": conductivities,
        "coil": coil.id,
        "grid": {"centre_m": list(grid.centre_m), "spacing_m": float(grid.spacing_m), "n": int(grid.n)},
        "elements": {"order": 2, "margin_mm": solver.margin_mm} if solver.order == 2 else {"order": 1},
        "rtol": solver.rtol,
        "region": region.as_dict(),
        "tolerance": float(tolerance),
    }


def study_region(config, grid, poses, scalp):
    """Where a study's poses lie: as its file says, or the region of the poses.

    Parameters
    ----------
    config : StudyConfig
    grid : VolumeGrid
        Its centre is the region's.
    poses : sequence of Pose
    scalp : Scalp

    Returns
    -------
    PoseRegion

    Raises
    ------
    PoseError
        If no region of a head holds the poses, or the one in the study file holds none of them.
    """
    table = config.solver.region
    if not table.given:
        return region_of(poses, scalp, grid.centre_m)
    distance = tuple(value * 1e-3 for value in table.distance_mm)
    region = PoseRegion(
        grid.centre_m, table.radius_mm * 1e-3, table.angle_deg, distance, table.tilt_deg, grid.centre_m[0] <= 0
    )
    if not region.contains(poses, scalp).any():
        raise PoseError(
            f"region of coil poses: none of the study's {len(poses)} poses lies in [solver.region], so a basis for it "
            "would serve none. Leave [solver.region] out, and the region is that of the poses, or mend its figures."
        )
    return region


def study_basis(study, config, kind, tell=None):
    """Find the basis of a study, or make it.

    Parameters
    ----------
    study : Study
        With its volume store.
    config : StudyConfig
    kind : str
        Exact solver to make it with, as `study_solver` chose it.
    tell : callable, optional
        Called with a `motorsweep.sim.basis.Told` now and then.

    Returns
    -------
    FoundBasis

    Raises
    ------
    StoreError
        If the basis that the study names was made for something else, or is damaged.
    PoseError, ConvergenceError
        See `motorsweep.sim.basis.make_basis`. The second is kept in the study, and raised again without a solve.
    """
    volumes, head, grid = open_volumes(study), study_head(study, config), study_grid(config)
    coil, scalp = same_coil(config.coil.source, volumes.attrs["coil_id"]), Scalp.of(head)
    if config.solver.basis:
        return _given(study, config, head, coil, grid)
    region = study_region(config, grid, [Pose(matrix) for matrix in volumes["pose_matrix"].values], scalp)
    spec = basis_spec(config, head, coil, grid, region, config.solver.tolerance)
    folder = Path(config.solver.bases) if config.solver.bases else study.bases
    path = basis_path(folder, spec)
    if path.exists():
        return _noted(study, path, spec, made=False)
    _raise_noted(study, spec, kind)
    check_bases_folder(folder)
    began = time.perf_counter()
    settings = solver_config(config, kind, *head_sizes(volumes), alone=True)
    solver = FieldSolver(head, coil, settings, region=grid)
    try:
        basis = make_basis(solver, grid, region, config.solver.tolerance, scalp, tell)
    except ConvergenceError as error:
        note = {"id": content_id(spec), "solver": kind, "impossible": str(error)}
        atomic_write_text(study.basis, json.dumps(note))
        raise
    notes = {
        "seconds": time.perf_counter() - began,
        "head_name": head.name,
        "coil_name": coil.name,
        "training_poses": len(basis.singular_values),
        "unknowns": solver.space.size,
        "source": f"motorsweep {__version__}",
    }
    write_basis(folder, basis.arrays(), spec, notes)
    return _noted(study, path, spec, made=True)


def _raise_noted(study, spec, kind):
    """Say again that no basis could be made of a spec, as hundreds of solves have found out before."""
    try:
        note = json.loads(study.basis.read_text())
        same = note["id"] == content_id(spec) and note["solver"] == kind
        told = str(note["impossible"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or no longer whole
        return
    if same:
        raise ConvergenceError(f"{told} An earlier run found this; delete {study.basis} to have it tried again.")


def _given(study, config, head, coil, grid):
    """The basis that a study names: for the same fields, of any region, and as exact as is asked for or more."""
    path = Path(config.solver.basis)
    held, tolerance = basis_spec_of(path), config.solver.tolerance
    try:
        region, made_for = PoseRegion(**held["region"]), float(held["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"reading the basis {path}: it does not say for which poses it was made ({error}); leave [solver] basis "
            "out, and one that fits is found or made."
        ) from error
    return _noted(study, path, basis_spec(config, head, coil, grid, region, min(tolerance, made_for)), made=False)


def _noted(study, path, spec, made):
    arrays, spec, notes = read_basis(path, expected_spec=spec)
    _basis_of(path, arrays, spec)  # here, so that a basis that is none is told before any worker starts
    seconds = notes.get("seconds")
    seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
    atomic_write_text(study.basis, json.dumps({"id": path.stem, "path": str(path), "seconds": seconds}))
    return FoundBasis(path=str(path), made=made, seconds=seconds)


def load_basis(path):
    """Read a basis from its store.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Basis

    Raises
    ------
    StoreError
        Where there is none, or it is damaged.

    Examples
    --------
    >>> load_basis("studies/bases/40764401a76928bd.zarr").rank                    # doctest: +SKIP
    69
    """
    arrays, spec, _ = read_basis(path)
    return _basis_of(path, arrays, spec)


def _basis_of(path, arrays, spec):
    names = {field.name for field in fields(Basis)} - PLAIN_FIELDS
    missing = sorted(names - arrays.keys())
    if missing:
        raise damaged_basis(path, f"{', '.join(missing)} is missing")
    try:
        return Basis(
            grid=VolumeGrid(**spec["grid"]),
            region=PoseRegion(**spec["region"]),
            tolerance=float(spec["tolerance"]),
            head_id=str(spec["head"]),
            coil_id=str(spec["coil"]),
            **{name: arrays[name] for name in names},
        )
    except (MotorsweepError, KeyError, TypeError, ValueError) as error:
        raise damaged_basis(path, f"{type(error).__name__}: {error}") from error
