"""How ``volumes.zarr`` is laid out, and its making: once, by one process, with no volume written yet."""

import json

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ..errors import GridMismatchError, InputError, StoreError
from .atomic import disk_errors, folder_in_the_making
from .datasets import consolidate, open_group
from .ids import NUMERICS_VERSION, array_id, content_id, plain
from .schema import FIELD_DIMS, GRID_DIMS, METHOD_ATTRS, STATUS_ATTRS, VOLUME_DIMS, Method, Status, global_attrs
from .study import Study

DIDT_A_PER_S = 1e6
"""Rate of change of the coil current at which fields are stored: 1 A/us. Fields are linear in it."""

# Measured on 64^3 fields (benchmarks/store.py): several times faster to write than Zarr's default zstd at about the
# same size. The checksum finds flipped bits, which Blosc itself does not.
COMPRESSIONS = {
    "lz4": (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4), Crc32cCodec()),
    "zstd": (BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=4), Crc32cCodec()),
    "none": (Crc32cCodec(),),
}
_POSES_PER_CHUNK = 16384  # of the pose matrices: 2 MiB
_ERROR = "estimated relative L2 error in brain tissue; NaN: solved exactly"
_AT_DIDT = "at 1 A/us in the coil; for another rate of change multiply by didt / (1e6 A/s)"
FIELDS = ("e_norm", "e_field")
_PER_POSE = {
    "status": ("int8", int(Status.PENDING), {"long_name": "state of the pose, written last", **STATUS_ATTRS}),
    "iterations": ("int32", -1, {"long_name": "solver iterations", "units": "1", "comment": "-1: not solved"}),
    "residual": ("float64", np.nan, {"long_name": "relative residual of the solve", "units": "1"}),
    "seconds": ("float64", np.nan, {"long_name": "time of the solve and the sampling", "units": "s"}),
    "method": ("int8", int(Method.NONE), {"long_name": "how the field was found; none: not solved", **METHOD_ATTRS}),
    "error_estimate": ("float64", np.nan, {"long_name": "estimated error", "units": "1", "comment": _ERROR}),
    "reason": ("string", "", {"long_name": "why the pose failed", "units": "1"}),
}
PER_POSE = tuple(_PER_POSE)


def create_volumes(
    study, *, grid, poses, shard: int, attrs: dict, tissue, motor_mask, components: bool = False,
    notes: dict | None = None, compression: str = "lz4",
) -> str:  # fmt: skip
    """Make ``volumes.zarr`` of a study: labels, shapes and units, every pose pending. Takes no space for volumes.

    To be called by the coordinator before any worker writes. Where the same store is there already it is left as it
    is, its shard size included (so take shards from `pending_shards`); only a changed motor mask is written, since
    the fields do not depend on it.

    Parameters
    ----------
    study : Study or path-like
    grid : sim.volume.VolumeGrid
        Anything with ``centre_m``, ``spacing_m``, ``n``, ``axes()`` and ``id``.
    poses : array_like (p, 4, 4)
        Coil → head, metres.
    shard : int
        Poses per file; what one task writes whole.
    attrs : dict
        What the fields depend on, as plain values: ``head_id``, ``coil_id``, ``config``, ``frame``, ... All of it is
        part of the identity.
    tissue : array_like (n, n, n) uint8
        Tissue tags.
    motor_mask : array_like (n, n, n) bool
        What the networks see.
    components : bool
        Store ``e_field (pose, component, x, y, z)`` too.
    notes : dict, optional
        Plain values to keep with the store that are no part of its identity.
    compression : {"lz4", "zstd", "none"}
        See `COMPRESSIONS`.

    Returns
    -------
    str
        The store's id, also its attribute ``id``: 16 hex digits.

    Raises
    ------
    GridMismatchError, StoreError
        Where a store of another grid, head, coil, ... is there; the message names what differs.
    InputError
        For shapes that do not fit.

    Examples
    --------
    >>> create_volumes("studies/quick", grid=grid, poses=matrices, shard=16, tissue=tissue, motor_mask=mask,
    ...                attrs={"head_id": head.id, "coil_id": coil.id})        # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    poses = np.ascontiguousarray(poses, dtype=np.float64)
    tissue, motor_mask = np.asarray(tissue, np.uint8), np.asarray(motor_mask, bool)
    _check_shapes(study.volumes, grid, poses, shard, tissue, motor_mask)
    identity = plain(dict(attrs), "attrs") | {
        "grid_id": grid.id,
        "poses_id": array_id(poses),
        "components": bool(components),
        "didt_a_per_s": DIDT_A_PER_S,
        "numerics_version": NUMERICS_VERSION,
    }
    if study.volumes.exists():
        return _take_existing(study.volumes, identity, tissue, motor_mask)
    layout = {"grid_centre_m": list(grid.centre_m), "grid_spacing_m": grid.spacing_m, "grid_n": grid.n, "shard": shard}
    root = global_attrs("motorsweep field volumes") | {"id": content_id(identity), "identity": sorted(identity)}
    root |= identity | plain(layout) | {"notes": plain(dict(notes or {}), "notes")}
    with disk_errors(f"making {study.volumes}", study.volumes), _beside(study) as beside:
        group = zarr.create_group(str(beside), zarr_format=3, attributes=root)
        _make_coordinates(group, grid, poses, components, root.get("frame", "head"))
        _make_volumes(group, len(poses), grid.n, shard, components, COMPRESSIONS[compression])
        _add(group, "tissue", tissue, GRID_DIMS, {"long_name": "tissue tag", "units": "1"})
        _add(group, "motor_mask", motor_mask, GRID_DIMS, {"long_name": "what the networks see", "units": "1"})
        consolidate(
            beside,
            ["pose", *GRID_DIMS, "component", "pose_matrix", "e_norm", "e_field", *_PER_POSE, "tissue", "motor_mask"],
        )
    return root["id"]


def _beside(study):
    return folder_in_the_making(study.making, study.volumes, replace=False)


def _check_shapes(path, grid, poses, shard, tissue, motor_mask):
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not len(poses) or not np.isfinite(poses).all():
        raise InputError(
            f"making {path}: poses have the shape {poses.shape} or hold NaN; give at least one finite (4, 4) matrix "
            "as (p, 4, 4)"
        )
    if shard < 1:
        raise InputError(f"making {path}: {shard} poses per shard; a file must hold at least one pose")
    for name, array in (("tissue", tissue), ("motor_mask", motor_mask)):
        if array.shape != (grid.n,) * 3:
            raise GridMismatchError(
                f"making {path}: {name} has the shape {array.shape}, the grid {grid.id} has {grid.n} voxels a side; "
                "they would not lie on each other. Sample both on the same grid"
            )


def _make_coordinates(group, grid, poses, components, frame):
    _add(group, "pose", np.arange(len(poses)), ("pose",), {"long_name": "coil pose", "units": "1"}, len(poses))
    for dim, values in zip(GRID_DIMS, grid.axes()):
        text = {"long_name": f"voxel centre along {dim}", "units": "m", "axis": dim.upper(), "frame": frame}
        _add(group, dim, np.asarray(values, np.float64), (dim,), text)
    if components:
        _add(group, "component", np.array(GRID_DIMS, dtype=object), ("component",), {"long_name": "axis", "units": "1"})
    text = {"long_name": "coil to head transform", "units": "m", "frame": frame}
    text["comment"] = "columns x, y, z (no unit) and centre (m); z into the head, y along the handle"
    _add(group, "pose_matrix", poses, ("pose", "row", "column"), text, _POSES_PER_CHUNK)


def _make_volumes(group, n_poses, n, shard, components, compressors):
    cube = (n, n, n)
    text = {"units": "V m-1", "comment": _AT_DIDT, "coordinates": "pose_matrix"}
    fields = {"e_norm": (VOLUME_DIMS, cube, "electric field magnitude")}
    if components:
        fields["e_field"] = (FIELD_DIMS, (3, *cube), "electric field")
    for name, (dims, shape, long_name) in fields.items():
        # NaN where nothing was written: a lost file then shows as such, and is never taken for a zero field.
        group.create_array(name, shape=(n_poses, *shape), chunks=(1, *shape), shards=(shard, *shape), dtype="float32",
                           fill_value=np.nan, compressors=compressors, dimension_names=dims,
                           attributes={"long_name": long_name, **text})  # fmt: skip
    for name, (dtype, missing, text) in _PER_POSE.items():  # chunk = shard: the same owner, no race
        group.create_array(name, shape=(n_poses,), chunks=(shard,), dtype=dtype, fill_value=missing,
                           dimension_names=("pose",), attributes=text)  # fmt: skip


def _add(group, name, values, dims, attrs, rows=None):
    dtype = "string" if values.dtype == object else values.dtype
    chunks = (min(rows or len(values), len(values)), *values.shape[1:])
    layout = {"shape": values.shape, "dtype": dtype, "chunks": chunks, "dimension_names": dims, "attributes": attrs}
    group.create_array(name, **layout)[...] = values


def _take_existing(path, identity, tissue, motor_mask):
    group = open_group(path, "simulate", mode="r+")
    found = {key: group.attrs.get(key) for key in group.attrs.get("identity", [])}
    differing = _differences(found, identity)
    if not differing and not np.array_equal(group["tissue"][...], tissue):
        differing = {"tissue": "the tags of the voxels differ"}
    if differing:
        kind = GridMismatchError if {"grid_id", "tissue"} & differing.keys() else StoreError
        raise kind(
            f"opening {path} (id {group.attrs.get('id')}) to go on: it was made for something else. These keys differ: "
            f"{'; '.join(f'{key}: {text}' for key, text in differing.items())}. Fields of both would stand side by "
            "side as if they were one. Set the study file back, or give the study another name or folder, or remove "
            "volumes.zarr to simulate anew"
        )
    if not np.array_equal(group["motor_mask"][...], motor_mask):
        with disk_errors(f"writing the motor mask of {path}", path):
            group["motor_mask"][...] = motor_mask
    return group.attrs["id"]


def _differences(found, asked):
    found, asked = flattened(found), flattened(asked)
    keys = [key for key in sorted(found.keys() | asked.keys()) if found.get(key) != asked.get(key)]
    return {key: f"the store has {_short(found, key)}, asked for is {_short(asked, key)}" for key in keys}


def flattened(value, prefix="") -> dict:
    """Turn a nested mapping into one of dotted keys, to tell which of them differ.

    Examples
    --------
    >>> flattened({"grid": {"n": 64}})
    {'grid.n': 64}
    """
    if isinstance(value, str) and value.startswith("{"):  # a config kept as JSON text: name the key inside of it
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: leaf
        for key, item in value.items()
        for name, leaf in flattened(item, f"{prefix}.{key}".lstrip(".")).items()
    }


def _short(values, key):
    text = repr(values[key]) if key in values else "nothing"
    return text if len(text) <= 60 else text[:57] + "..."
