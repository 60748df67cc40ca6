"""``export --format e_matrix``: |E| of many poses in voxels or elements, with the trials that the study has."""

import re
from contextlib import contextmanager

import numpy as np

from ..errors import InputError
from ..hpc.events import StageEvent, TaskEvent
from ..hpc.export import check_pose, element_fields, elements_in_cube, stored_grid, stored_trials
from ..hpc.progress import Progress
from ..sim.field_matrix import write_e_matrix
from ..sim.tissues import BRAIN_TAGS
from ..zarr_store.schema import Status
from ..zarr_store.volumes import read_volumes

_BLOCK = 8  # poses that are read at once


def export_matrix(opened, out, chosen, of, components, didt, quiet):
    """Write |E| of poses, and the trials that refer to them, as one HDF5 file.

    Parameters
    ----------
    opened : OpenedStudy
    out : path-like
    chosen : ndarray (p,) of int
        Poses that are done.
    of : {"motor_mask", "brain", "elements"}
    components : bool
    didt : float, A/µs
    quiet : bool

    Returns
    -------
    dict
        ``content``, one line; ``facts``, name to text.
    """
    matrices = opened.volumes["pose_matrix"].values[chosen]
    notes, trials = opened.volumes.attrs["notes"], stored_trials(opened.study)
    named = {"study": str(opened.study.folder), "head": notes["head_name"], "coil": notes["coil_name"]}
    common = {"poses": matrices, "numbers": chosen, "didt": didt * 1e6, "notes": named, "trials": trials}
    with _progress(len(chosen), quiet) as advance:
        if of == "elements":
            what, facts = _matrix_of_elements(opened, out, matrices, components, didt, advance, common)
        else:
            what, facts = _matrix_of_voxels(opened, out, chosen, of, components, didt, advance, common)
    if trials is not None:
        here = int(np.isin(trials["pose"], chosen).sum())
        facts["trials"] = f"{here} of {len(trials['pose'])} have their pose in the file: trial_row tells its row"
    content = f"|E|{' and its components' if components else ''} (V/m), {len(chosen)} poses x {what}"
    return {"content": content, "facts": facts}


def stored_variable(volumes, components):
    """Name of |E|, or of its components, in the store.

    Parameters
    ----------
    volumes : xarray.Dataset
    components : bool

    Raises
    ------
    InputError
        If the store holds no components.
    """
    if not components:
        return "e_norm"
    if "e_field" not in volumes:
        raise InputError(
            "export: the study keeps |E| only, so its components are not there; export to msh or vtu (or e_matrix of "
            "elements), which solves again, or simulate a study with components = true in [volume]."
        )
    return "e_field"


def chosen_poses(volumes, pose, poses):
    """Poses asked for that are done, and those that are not; one pose alone must be.

    Parameters
    ----------
    volumes : xarray.Dataset
    pose : int or None
    poses : str or None
        ``"START:STOP"``.

    Returns
    -------
    done : ndarray (p,) of int
    left_out : list of int

    Raises
    ------
    InputError
        If there is none, or no such range.
    """
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
    variable = stored_variable(volumes, components)
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
