"""The fields of a study for other programs: from its store, or solved once more where the elements are asked for."""

from dataclasses import replace

import numpy as np

from ..errors import InputError, StoreError
from ..sim.coil import load_coil
from ..sim.head import Head
from ..sim.pose import Pose
from ..sim.solve import FieldSolver, SolverConfig
from ..sim.tissues import BRAIN_TAGS
from ..sim.volume import VolumeGrid
from ..zarr_store.schema import Status
from ..zarr_store.trials import open_trials
from .prepare import head_file
from .study_solver import study_solver

_ELEMENTS_AT_ONCE = 8_000_000  # about a gigabyte while they are computed


def stored_grid(volumes):
    """Volume grid of a store.

    Parameters
    ----------
    volumes : xarray.Dataset
        As `open_volumes` gives it.

    Returns
    -------
    VolumeGrid
    """
    attrs = volumes.attrs
    return VolumeGrid(tuple(attrs["grid_centre_m"]), attrs["grid_spacing_m"], int(attrs["grid_n"]))


def stored_head(study, volumes):
    """The head that the volumes were computed in, from the study's cache.

    Parameters
    ----------
    study : Study
    volumes : xarray.Dataset

    Returns
    -------
    Head

    Raises
    ------
    StoreError
        If the cache does not hold it any more.
    """
    # The spec as the store keeps it: a folder is enough, without the files that the study file names.
    path = head_file(study, volumes.attrs["config"]["head"])
    head = Head.load(path) if path.exists() else None
    if head is None or head.id != volumes.attrs["head_id"]:
        found = "is gone" if head is None else "is another"
        raise StoreError(
            f"looking for the head of {study.folder}: {path}, which simulate keeps, {found}; `motorsweep simulate "
            "STUDY.toml` makes it again (delete the file first if it is another)."
        )
    return head


def stored_coil(config, volumes):
    """The coil that the volumes were computed with.

    Parameters
    ----------
    config : StudyConfig
    volumes : xarray.Dataset

    Returns
    -------
    Coil

    Raises
    ------
    InputError
        If the study file names another coil now, or the coil's file is not where the study file says.
    """
    try:
        coil = load_coil(config.coil.source)
    except InputError as error:
        raise InputError(
            f"{error} The study was read from {config.path}; if its coil file is given relative to the study file, "
            "give the study's TOML file in place of its folder."
        ) from error
    if coil.id != volumes.attrs["coil_id"]:
        raise InputError(
            f"loading the coil {config.coil.source}: it is not the one ({volumes.attrs['notes'].get('coil_name')}) "
            "that the study's fields were computed with; set [coil] source of the study file back."
        )
    return coil


def field_solver(study, config, volumes, n_poses=None):
    """Solver of a study's fields: with its head, its coil, and the elements that the volumes were computed with.

    Parameters
    ----------
    study : Study
    config : StudyConfig
    volumes : xarray.Dataset
    n_poses : int, optional
        How many poses it is for; many by default.

    Returns
    -------
    FieldSolver
    """
    head, coil = stored_head(study, volumes), stored_coil(config, volumes)
    notes, spec = volumes.attrs["notes"], volumes.attrs["config"]
    config = replace(config, executor=replace(config.executor, workers=1))  # which this process is
    kind = study_solver(config, int(notes.get("unknowns", len(head.nodes))), len(head.nodes), n_poses=n_poses).kind
    elements = {"order": 1, "margin_mm": 0.0} | spec.get("elements", {})
    settings = SolverConfig(
        kind=kind,
        order=elements["order"],
        margin_m=elements["margin_mm"] * 1e-3,
        rtol=spec["rtol"],
        may_fall_back=config.solver.kind in ("auto", "modes"),
    )
    return FieldSolver(head, coil, settings, region=stored_grid(volumes))


def stored_trials(study):
    """The trials of a study, for `write_e_matrix`: which pose each has, its dI/dt and its responses.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict or None
        ``pose`` (t,) int; ``didt`` (t,), A/s; ``response`` (t, k), V; ``muscle`` (k,); None where there are no trials
        yet.
    """
    if not study.trials.exists():
        return None
    trials = open_trials(study)
    return {
        "pose": trials["pose_index"].values,
        "didt": trials["didt"].values,
        "response": trials["response"].transpose("trial", "muscle").values,
        "muscle": [str(name) for name in trials["muscle"].values],
    }


def check_pose(volumes, pose, *, done=True):
    """Refuse a pose that the store has not, or (if `done`) whose field it has not.

    Parameters
    ----------
    volumes : xarray.Dataset
    pose : int
    done : bool

    Raises
    ------
    InputError
        Saying which there are, why the pose failed, and what to do.
    """
    count = volumes.sizes["pose"]
    if not 0 <= pose < count:
        raise InputError(f"pose {pose}: the study has the poses 0 to {count - 1}; give one of them.")
    state = Status(int(volumes["status"].values[pose]))
    if not done or state is Status.DONE:
        return
    if state is Status.FAILED:
        reason = str(volumes["reason"].values[pose])
        raise InputError(
            f"pose {pose}: it failed ({reason}), so there is no field; mend what the reason says, then "
            "`motorsweep simulate STUDY.toml --retry-failed`."
        )
    raise InputError(f"pose {pose}: it is not solved yet; `motorsweep simulate STUDY.toml` solves it.")


def elements_in_cube(head, grid, tissues=BRAIN_TAGS):
    """Elements of some tissues whose centres lie in the cube of a grid.

    Parameters
    ----------
    head : Head
    grid : VolumeGrid
    tissues : sequence of int

    Returns
    -------
    ndarray (k,) of int, ascending

    Examples
    --------
    >>> cortex = elements_in_cube(head, grid, tissues=(2,))                           # doctest: +SKIP
    """
    candidates = np.flatnonzero(np.isin(head.tissue, tissues))
    offset = np.abs(head.nodes[head.tets[candidates]].mean(1) - np.array(grid.centre_m))
    return candidates[(offset <= grid.n * grid.spacing_m / 2).all(1)]


def element_fields(solver, matrices, elements=slice(None), *, didt=1e6, block=None):
    """E in elements, for block after block of poses.

    Parameters
    ----------
    solver : FieldSolver
    matrices : ndarray (p, 4, 4)
        Coil poses, m.
    elements : ndarray of int, optional
        Elements that are kept; all by default.
    didt : float, A/s
    block : int, optional
        Poses that are solved at once, and so held in memory for all elements of the head; by default at most 8, and
        fewer where the head is large.

    Yields
    ------
    ndarray (b, k, 3), V/m
    """
    block = block or int(np.clip(_ELEMENTS_AT_ONCE // len(solver.head.tets), 1, 8))
    for start in range(0, len(matrices), block):
        poses = [Pose(matrix) for matrix in matrices[start : start + block]]
        yield solver.elements(poses, didt)[:, elements]
