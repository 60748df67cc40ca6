"""The command ``export``: fields of a study's poses as files of other programs."""

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import ConfigError, InputError
from ..hpc.export import check_pose, element_fields, field_solver, stored_grid
from ..sim.field_files import e_fields, write_field_msh, write_nifti, write_vtu
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes, read_volumes
from .config import load_study_config
from .destination import check_destination
from .export_matrix import chosen_poses, export_matrix, stored_variable

SUFFIXES = {"msh": (".msh",), "vtu": (".vtu",), "nii.gz": (".nii.gz", ".nii"), "e_matrix": (".hdf5", ".h5")}
COLUMNS = ("motor_mask", "brain", "elements")


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
    given, kind, *, pose=None, poses=None, of=None, components=False, didt_a_per_us=1.0, out=None, quiet=False
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
    of : {"motor_mask", "brain", "elements"}, optional
        Columns of e_matrix: voxels of the motor mask (default) or of the brain, or elements of the brain in the cube.
    components : bool
        E along x, y, z in place of |E| (nii.gz), or beside it (e_matrix); from the store only if it holds them. The
        meshes have them always.
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
        For what cannot be exported: no such pose, no field yet, another suffix, a place that cannot be written or holds
        a file of the study; it says what to do.

    Examples
    --------
    >>> export_study("studies/quick", "msh", pose=3).path                             # doctest: +SKIP
    """
    began = time.monotonic()
    _check_request(kind, pose, poses, of, components, didt_a_per_us, out)
    opened, of = OpenedStudy(given), of or COLUMNS[0]
    out = Path(out) if out else opened.study.exports / _default_name(kind, pose, poses, of, components, didt_a_per_us)
    common = {"path": str(out), "format": kind, "didt_a_per_us": didt_a_per_us}
    if kind == "e_matrix":
        chosen, skipped = chosen_poses(opened.volumes, pose, poses)
        check_destination(out, opened, "export")
        told = export_matrix(opened, out, chosen, of, components, didt_a_per_us, quiet)
        told |= {"poses": chosen.tolist(), "skipped": skipped}
    else:
        check_pose(opened.volumes, pose)
        check_destination(out, opened, "export")
        writer = _export_image if kind == "nii.gz" else _export_mesh
        told = {"poses": [pose], "facts": {}, **writer(opened, out, pose, components, didt_a_per_us)}
    told["facts"] |= _beyond_the_coil(opened.volumes, didt_a_per_us)
    return Exported(**common, **told, seconds=time.monotonic() - began)


def _beyond_the_coil(volumes, didt):
    notes = volumes.attrs["notes"]
    limit = notes.get("coil_didt_max")
    if not limit or abs(didt) * 1e6 <= limit * (1 + 1e-9):
        return {}
    return {"beware": f"{notes['coil_name']} reaches {limit * 1e-6:.4g} A/us by its file; {didt:g} A/us is beyond it"}


def _check_request(kind, pose, poses, of, components, didt, out):
    if kind not in SUFFIXES:
        raise InputError(f"export: format {kind!r} is not known; choose {', '.join(SUFFIXES)}.")
    if of is not None and of not in COLUMNS:
        raise InputError(f"export: columns of {of!r} are not known; choose {', '.join(COLUMNS)}.")
    if not (math.isfinite(didt) and didt != 0):
        raise InputError(f"export: dI/dt is {didt} A/us; give a number that is not 0, such as 1.")
    if kind != "e_matrix" and (pose is None or poses is not None):
        raise InputError(f"export: a file of format {kind} holds one pose; name it with --pose, e.g. --pose 0.")
    if kind != "e_matrix" and of is not None:
        raise InputError(
            f"export: --of chooses the columns of e_matrix; a file of format {kind} has none, so leave it out."
        )
    if kind in ("msh", "vtu") and components:
        raise InputError(f"export: a file of format {kind} holds E along x, y and z always; leave --components out.")
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
    words += [f"{'minus-' if didt < 0 else ''}{abs(didt):g}A-per-us"] if didt != 1 else []
    return "-".join(words) + SUFFIXES[kind][0]


def _export_mesh(opened, out, pose, components, didt):
    """E in the elements of the whole head; the components are always there."""
    matrix = opened.volumes["pose_matrix"].values[[pose]]
    solver = field_solver(opened.study, opened.config, opened.volumes, n_poses=1)
    (e,) = next(element_fields(solver, matrix, didt=didt * 1e6))
    write = write_vtu if out.suffix == ".vtu" else write_field_msh
    write(out, solver.head, e_fields(e))
    return {"content": f"E and magnE (V/m) in {len(e):,} elements", "facts": _solve_facts(solver)}


def _solve_facts(solver):
    (report,) = solver.reports
    how = f"{report.iterations} iterations" if report.iterations else "direct"
    return {"solved": f"{how}, residual {report.residual:.1e}"}


def _export_image(opened, out, pose, components, didt):
    values = read_volumes(opened.study, [pose], stored_variable(opened.volumes, components))[0]
    values = np.moveaxis(values, 0, -1) if components else values
    space = "mni" if opened.volumes.attrs.get("frame") == "MNI" else "scanner"
    name, scale = ("E", didt) if components else ("|E|", abs(didt))
    grid, units = stored_grid(opened.volumes), f"V/m at {didt:g} A/us"
    write_nifti(out, grid, values * np.float32(scale), units=units, name=name, space=space)
    return {"content": f"{name} (V/m) in {grid.n**3:,} voxels"}
