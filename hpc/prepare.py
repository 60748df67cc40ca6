"""What a study's volumes are made of: head, poses, grid, tissue and motor mask; and the making of their store."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ..errors import InputError, StoreError
from ..sim.coil import check_coil_outside, load_coil
from ..sim.coil_clearance import check_grids_hold_head
from ..sim.head import Head, load_head
from ..sim.label_mesh import MeshSizes
from ..sim.space import build_space
from ..sim.tissues import BRAIN_TAGS
from ..sim.volume import VolumeGrid, locate
from ..zarr_store.atomic import disk_errors
from ..zarr_store.ids import content_id, plain
from ..zarr_store.schema import Status
from ..zarr_store.volume_layout import create_volumes, flattened
from ..zarr_store.volumes import open_volumes, read_status
from .identity import hand_knob_mm, head_spec, volume_centre_mm, volumes_spec
from .stimuli import study_poses


def head_path(study, config):
    """Where the study keeps its head model, ready to load."""
    return head_file(study, head_spec(config))


def head_file(study, spec):
    """Where a study keeps the head model of a spec."""
    return study.cache / f"head-{content_id(plain(spec))}.npz"


def study_head(study, config):
    """The study's head model: from its cache, or loaded (meshed) and kept there.

    Parameters
    ----------
    study : Study
    config : StudyConfig

    Returns
    -------
    Head
    """
    path = head_path(study, config)
    if path.exists():
        return Head.load(path)
    mesh = config.head.mesh
    head = load_head(
        config.head.source,
        config.head.conductivities,
        sizes=MeshSizes(
            fine_m=mesh.fine_mm * 1e-3, coarse_m=mesh.coarse_mm * 1e-3, fine_radius_m=mesh.fine_radius_mm * 1e-3
        ),
        hand_knob_m=np.array(hand_knob_mm(config)) * 1e-3,
    )
    with disk_errors("keeping the head model", path):
        head.save(path)
    return head


def study_grid(config):
    """The study's volume grid."""
    centre = tuple(v * 1e-3 for v in volume_centre_mm(config))
    return VolumeGrid(centre, config.volume.spacing_mm * 1e-3, config.volume.n)


def prepare_volumes(study, config):
    """Make the volume store if it is not there: head, poses (checked), tissue and mask.

    A store that was made with other settings and has no pose done yet is replaced, so only the study's coordinator
    may call it.

    Parameters
    ----------
    study : Study
    config : StudyConfig

    Raises
    ------
    PoseError
        If a pose puts the coil into the head or far from it, or the head reaches out of the coil's sampled field.
    StoreError, GridMismatchError
        If the store belongs to another study file, and has poses done.
    """
    spec, grid, coil, solver = volumes_spec(config), study_grid(config), load_coil(config.coil.source), config.solver
    same = check_same_volumes(study, spec)
    head = study_head(study, config)
    if same:
        held = open_volumes(study)
        matrices, tissue = held["pose_matrix"].values, held["tissue"].values
        notes = held.attrs.get("notes", {})
    else:
        poses = study_poses(config, head)
        check_coil_outside(coil, poses, head, from_grid=not config.poses.file or "positions" in spec["poses"])
        check_grids_hold_head(coil, poses, head)
        matrices, tissue = np.stack([pose.matrix for pose in poses]), _tissue(head, grid)
        notes = _notes(head, coil, poses, build_space(head, solver.order, grid, solver.margin_mm * 1e-3).size)
        _remove_volumes(study)
    create_volumes(
        study,
        grid=grid,
        poses=matrices,
        shard=config.solver.poses_per_shard,
        attrs={
            "volumes_id": content_id(spec),
            "config": spec,
            "head_id": head.id,
            "coil_id": coil.id,
            "frame": "MNI" if config.head.source == "template" else "head",
        },
        tissue=tissue,
        motor_mask=_motor_mask(config, grid, tissue),
        components=config.volume.components,
        notes=notes,
    )


def _notes(head, coil, poses, unknowns):
    """What the store tells of its making; poses of a file have name and number of their first marker."""
    notes = {
        "head_name": head.name,
        "head_comment": head.comment,
        "head_nodes": len(head.nodes),
        "head_tets": len(head.tets),
        "unknowns": unknowns,
        "coil_name": coil.name,
        "coil_description": coil.description,
        "coil_didt_max": coil.didt_max,
    }
    if all(pose.number is not None for pose in poses):
        notes |= {"pose_names": [pose.name for pose in poses], "pose_markers": [pose.number for pose in poses]}
    return notes


def check_same_volumes(study, spec):
    """Refuse to go on in a folder whose volumes were made from other settings; says which.

    A store of other settings without a pose that is done is not refused: nothing is lost when it is made anew.

    Parameters
    ----------
    study : Study
    spec : dict
        As `volumes_spec` gives it.

    Returns
    -------
    bool
        Whether a store of these settings is there.

    Raises
    ------
    StoreError
        Where poses were done with other settings.
    """
    if not study.volumes.exists():
        return False
    held = open_volumes(study).attrs
    if held.get("volumes_id") == content_id(spec):
        return True
    if not (read_status(study) == int(Status.DONE)).any():
        return False
    before, now = flattened(held.get("config", {})), flattened(plain(spec))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    told = "; ".join(f"{key}: {before.get(key)} there, {now.get(key)} now" for key in changed[:6])
    raise StoreError(
        f"simulating into {study.volumes}: it was made with other settings ({told}); volumes of two kinds in one store "
        "could not be told apart. Give the study another name or folder, or move the old folder away."
    )


def _remove_volumes(study):
    """Take away a store without a pose done; at once, so that a kill leaves no half of it."""
    if not study.volumes.exists():
        return
    with disk_errors("replacing volumes of other settings", study.volumes):
        study.making.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=study.making))
        os.rename(study.volumes, aside / study.volumes.name)
    shutil.rmtree(aside, ignore_errors=True)


def _tissue(head, grid):
    element, _ = locate(head.nodes, head.tets, grid.points())
    tissue = np.where(element >= 0, head.tissue[element], 0)
    return tissue.astype(np.uint8).reshape(grid.shape)


def _motor_mask(config, grid, tissue):
    brain = np.isin(tissue, BRAIN_TAGS)
    if config.volume.mask_file:
        mask = brain & _mask_from_file(config.volume.mask_file, grid)
    else:
        distance = np.linalg.norm(grid.points() - np.array(hand_knob_mm(config)) * 1e-3, axis=1).reshape(grid.shape)
        mask = brain & (distance <= config.volume.mask_radius_mm * 1e-3)
    if not mask.any():
        raise InputError(
            "making the motor mask: no voxel of the volume is brain and within the mask, so the networks would see "
            "nothing. Check hand_knob_mm, [volume] centre_mm and mask_radius_mm against the head's coordinates."
        )
    return mask


def _mask_from_file(path, grid):
    """Values above 0.5 of a NIfTI mask at the nearest voxel of each of the grid's."""
    import nibabel

    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj).reshape(*image.shape[:3], -1)[..., 0]
        if values.ndim != 3:
            raise ValueError(f"it has {values.ndim} axes, not three")
        index = np.linalg.solve(image.affine, np.c_[grid.points() * 1e3, np.ones(grid.n**3)].T)[:3].T
    except Exception as error:
        raise InputError(f"reading the motor mask {path}: {error}; give a NIfTI file in the head's mm.") from error
    index = np.round(index).astype(int)
    inside = ((index >= 0) & (index < values.shape)).all(1)
    mask = np.zeros(len(index), bool)
    mask[inside] = values[tuple(index[inside].T)] > 0.5
    return mask.reshape(grid.shape)
