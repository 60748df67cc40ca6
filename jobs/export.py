"""The command ``export``: fields of a study's poses as files of other programs."""

import math
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import ConfigError, InputError
from ..hpc.events import Progress, StageEvent, TaskEvent
from ..hpc.export import check_pose, element_fields, elements_in_cube, field_solver, stored_grid
from ..sim.field_files import e_fields, write_e_matrix, write_field_msh, write_nifti, write_vtu
from ..sim.tissues import BRAIN_TAGS
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes, read_volumes
from .config import load_study_config

SUFFIXES = {"msh": (".msh",), "vtu": (".vtu",), "nii.gz": (".nii.gz", ".nii"), "e_matrix": (".hdf5", ".h5")}
COLUMNS = ("motor_mask", "brain", "elements")
_BLOCK = 8  # poses that are read at once


class OpenedStudy:
    """A study by its TOML file or its folder; what a question needs of it is read when it is asked for.

    Parameters
    ----------
    given : path-like
        The study's TOML file, or its folder.

    Examples
    --------
    >>> OpenedStudy("studies/quick").volumes.sizes["pose"]                            # doctest: +SKIP
    96
    """

    def __init__(self, given):
        self.given = Path(given)
        self.study = Study(self.given if self.given.is_dir() else self.config.folder)
        if not self.study.folder.is_dir():
            raise InputError(
                f"there is no study in {self.study.folder} yet; `motorsweep simulate STUDY.toml` computes its fields."
            )

    @cached_property
    def config(self):
        """The study file: the one given, or the copy in the study's folder."""
        if not self.given.is_dir():
            return load_study_config(self.given)
        path = Study(self.given).config
        if not path.exists():
            raise ConfigError(f"{path}: there is no study file in the folder; give the study's TOML file instead.")
        return load_study_config(path)

    @cached_property
    def volumes(self):
        """The field volumes, as `open_volumes` gives them."""
        return open_volumes(self.study)

    @cached_property
    def solver(self):
        """Solver of the study's fields."""
        return field_solver(self.study, self.config, self.volumes)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and from what.

    Attributes
    ----------
    path : str
    format, content : str
        Kind of file, and what is in it.
    poses : list of int
    skipped : list of int
        Poses that were asked for and have no field.
    didt_a_per_us : float
    facts : dict
        More, such as the residual of the solve.
    seconds : float
    """

    path: str
    format: str
    content: str
    poses: list
    didt_a_per_us: float
    skipped: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    seconds: float = 0.0

    def lines(self):
        """Lines for people."""
        many = f"poses {self.poses[0]} to {self.poses[-1]} ({len(self.poses)})"
        which = f"pose {self.poses[0]}" if len(self.poses) == 1 else many
        size = Path(self.path).stat().st_size / 1e6
        lines = [f"exported  {which}: {self.content}, at {self.didt_a_per_us:g} A/us, in {self.seconds:.1f} s"]
        lines += [f"{name:<9} {value}" for name, value in self.facts.items()]
        if self.skipped:
            shown = ", ".join(map(str, self.skipped[:8])) + (" …" if len(self.skipped) > 8 else "")
            lines.append(f"left out  {len(self.skipped)} poses that have no field: {shown}")
        return [*lines, f"file      {self.path}  ({size:.3g} MB)"]

    def as_dict(self):
        """Plain values for scripts."""
        return vars(self)


def export_study(
    given, kind, *, pose=None, poses=None, of="motor_mask", components=False, didt_a_per_us=1.0, out=None, quiet=False
):
    """Write fields of a study to a file.

    Parameters
    ----------
    given : path-like
        The study's TOML file, or its folder.
    kind : {"msh", "vtu", "nii.gz", "e_matrix"}
        msh, vtu: head and E in its elements, solved again. nii.gz: the stored volume. e_matrix: |E| of many poses, in
        voxels from the store, or in elements, solved again.
    pose : int, optional
        For one pose.
    poses : str, optional
        ``"START:STOP"``, for e_matrix; all by default.
    of : {"motor_mask", "brain", "elements"}
        Columns of e_matrix: voxels of the motor mask or of the brain, or elements of the brain in the cube.
    components : bool
        E along x, y, z in place of |E| (nii.gz), or beside it (e_matrix); from the store only if it holds them.
    didt_a_per_us : float
        Rate of change of the coil current, A/µs; the fields are proportional to it.
    out : path-like, optional
        The file; by default in the study's folder, under exports.
    quiet : bool
        No progress.

    Returns
    -------
    Exported

    Raises
    ------
    InputError
        For what cannot be exported: no such pose, no field yet, another suffix; it says what to do.

    Examples
    --------
    >>> export_study("studies/quick", "msh", pose=3).path                             # doctest: +SKIP
    """
    began = time.monotonic()
    _check_request(kind, pose, poses, of, didt_a_per_us, out)
    opened = OpenedStudy(given)
    out = Path(out) if out else opened.study.exports / _default_name(kind, pose, poses, of, components, didt_a_per_us)
    common = {"path": str(out), "format": kind, "didt_a_per_us": didt_a_per_us}
    if kind == "e_matrix":
        told = _export_matrix(opened, out, pose, poses, of, components, didt_a_per_us, quiet)
    else:
        check_pose(opened.volumes, pose)
        writer = _export_image if kind == "nii.gz" else _export_mesh
        told = {"poses": [pose], **writer(opened, out, pose, components, didt_a_per_us)}
    return Exported(**common, **told, seconds=time.monotonic() - began)


def _check_request(kind, pose, poses, of, didt, out):
    if kind not in SUFFIXES:
        raise InputError(f"export: format {kind!r} is not known; choose {', '.join(SUFFIXES)}.")
    if of not in COLUMNS:
        raise InputError(f"export: columns of {of!r} are not known; choose {', '.join(COLUMNS)}.")
    if not (math.isfinite(didt) and didt != 0):
        raise InputError(f"export: dI/dt is {didt} A/us; give a number that is not 0, such as 1.")
    if kind != "e_matrix" and (pose is None or poses is not None):
        raise InputError(f"export: a file of format {kind} holds one pose; name it with --pose, e.g. --pose 0.")
    if pose is not None and poses is not None:
        raise InputError("export: give --pose for one pose, or --poses START:STOP for many, not both.")
    if out is not None and not str(out).endswith(SUFFIXES[kind]):
        raise InputError(
            f"export: {out} does not end in {' or '.join(SUFFIXES[kind])}, by which other programs know a file of "
            f"format {kind}; give --out such a name."
        )


def _default_name(kind, pose, poses, of, components, didt):
    """A name that tells what is in the file, so that two exports do not lie under one."""
    words = [f"pose-{pose:04d}"] if pose is not None else []
    if kind == "e_matrix":
        words = [f"e_matrix-{of}", *words] + ([f"poses-{poses.replace(':', '-')}"] if poses else [])
    words += ["components"] if components and kind in ("nii.gz", "e_matrix") else []
    words += [f"{didt:g}A-per-us"] if didt != 1 else []
    return "-".join(words) + SUFFIXES[kind][0]


def _export_mesh(opened, out, pose, components, didt):
    """E in the elements of the whole head; the components are always there."""
    matrix = opened.volumes["pose_matrix"].values[[pose]]
    (e,) = next(element_fields(opened.solver, matrix, didt=didt * 1e6))
    write = write_vtu if out.suffix == ".vtu" else write_field_msh
    write(out, opened.solver.head, e_fields(e))
    return {"content": f"E and magnE (V/m) in {len(e):,} elements", "facts": _solve_facts(opened.solver)}


def _solve_facts(solver):
    (report,) = solver.reports
    how = f"{report.iterations} iterations" if report.iterations else "direct"
    return {"solved": f"{how}, residual {report.residual:.1e}"}


def _export_image(opened, out, pose, components, didt):
    values = read_volumes(opened.study, [pose], _stored_variable(opened.volumes, components))[0]
    values = np.moveaxis(values, 0, -1) if components else values
    space = "mni" if opened.volumes.attrs.get("frame") == "MNI" else "scanner"
    name, scale = ("E", didt) if components else ("|E|", abs(didt))
    grid, units = stored_grid(opened.volumes), f"V/m at {didt:g} A/us"
    write_nifti(out, grid, values * np.float32(scale), units=units, name=name, space=space)
    return {"content": f"{name} (V/m) in {grid.n**3:,} voxels"}


def _stored_variable(volumes, components):
    if not components:
        return "e_norm"
    if "e_field" not in volumes:
        raise InputError(
            "export: the study keeps |E| only, so its components are not there; export to msh or vtu (or e_matrix of "
            "elements), which solves again, or simulate a study with components = true in [volume]."
        )
    return "e_field"


def _export_matrix(opened, out, pose, poses, of, components, didt, quiet):
    chosen, skipped = _chosen_poses(opened.volumes, pose, poses)
    matrices = opened.volumes["pose_matrix"].values[chosen]
    notes = opened.volumes.attrs["notes"]
    named = {"study": str(opened.study.folder), "head": notes["head_name"], "coil": notes["coil_name"]}
    common = {"poses": matrices, "numbers": chosen, "didt": didt * 1e6, "notes": named}
    with _progress(len(chosen), quiet) as advance:
        if of == "elements":
            what, facts = _matrix_of_elements(opened, out, matrices, components, didt, advance, common)
        else:
            what, facts = _matrix_of_voxels(opened, out, chosen, of, components, didt, advance, common)
    content = f"|E|{' and its components' if components else ''} (V/m), {len(chosen)} stimuli x {what}"
    return {"poses": chosen.tolist(), "skipped": skipped, "content": content, "facts": facts}


def _chosen_poses(volumes, pose, poses):
    """Poses asked for that are done, and those that are not; one pose alone must be."""
    if pose is not None:
        check_pose(volumes, pose)
        return np.array([pose]), []
    count = volumes.sizes["pose"]
    asked = np.arange(count)
    if poses is not None:
        found = re.fullmatch(r"(\d*):(\d*)", poses)
        start, stop = (int(text) if text else None for text in found.groups()) if found else (None, None)
        asked = asked[slice(start, stop)] if found else asked[:0]
        if not len(asked) or (stop or 0) > count:
            raise InputError(
                f"export: --poses {poses} names no range of this study's poses 0 to {count - 1}; give START:STOP with "
                f"STOP at most {count}, such as 0:{min(10, count)}."
            )
    done = volumes["status"].values[asked] == int(Status.DONE)
    if not done.any():
        raise InputError(
            f"export: none of the {len(asked)} poses asked for has a field; `motorsweep simulate STUDY.toml` solves "
            "them, `motorsweep status STUDY --failed` tells what failed."
        )
    return asked[done], asked[~done].tolist()


def _matrix_of_voxels(opened, out, chosen, of, components, didt, advance, common):
    volumes, grid = opened.volumes, stored_grid(opened.volumes)
    variable = _stored_variable(volumes, components)
    tissue = volumes["tissue"].values
    mask = volumes["motor_mask"].values.astype(bool) if of == "motor_mask" else np.isin(tissue, BRAIN_TAGS)

    def rows():
        for start in range(0, len(chosen), _BLOCK):
            block = read_volumes(opened.study, chosen[start : start + _BLOCK], variable)
            values = block[..., mask] * np.float32(didt if components else abs(didt))
            yield np.moveaxis(values, 1, 2) if components else values
            advance(len(block))

    points_m = grid.points().reshape(*grid.shape, 3)[mask]
    columns = {"columns": np.argwhere(mask), "points_m": points_m, "tissue": tissue[mask], "affine": grid.affine()}
    write_e_matrix(out, rows(), **columns, **common)
    return f"{int(mask.sum()):,} voxels of the {of.replace('_', ' ')}", {}


def _matrix_of_elements(opened, out, matrices, components, didt, advance, common):
    solver = opened.solver
    head, elements = solver.head, elements_in_cube(solver.head, stored_grid(opened.volumes))
    reports = []

    def rows():
        for e in element_fields(solver, matrices, elements, didt=didt * 1e6):
            reports.extend(solver.reports)
            yield e if components else np.linalg.norm(e, axis=2)
            advance(len(e))

    centres_m = head.nodes[head.tets[elements]].mean(1)
    columns = {"columns": elements, "points_m": centres_m, "tissue": head.tissue[elements]}
    write_e_matrix(out, rows(), **columns, **common)
    worst = max(report.residual for report in reports)
    facts = {"solved": f"{len(reports)} poses, largest residual {worst:.1e}"}
    return f"{len(elements):,} elements of the brain in the cube", facts


@contextmanager
def _progress(total, quiet):
    """Progress on stderr while rows are written; gives a function that counts poses."""
    progress = Progress(quiet=quiet)
    with progress.stage(StageEvent(verb="export", state="started", total=total, unit="poses")):
        yield lambda size: progress.update(TaskEvent(verb="export", task="rows", status="done", size=size))
