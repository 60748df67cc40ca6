"""Bases of field modes: one Zarr store each, named by what it was made for, shared by studies and workers.

A basis appears whole or not at all, and is never changed: who finds one of the right id takes it.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from ..errors import InputError, StoreError
from .atomic import disk_errors, folder_in_the_making
from .datasets import consolidate, open_dataset, open_group
from .ids import content_id, plain
from .schema import GRID_DIMS, global_attrs
from .volume_layout import flattened

# Not compressed: of modes of a coil's field lz4 saved a twentieth, and took half as long again to read. 107 MB are read
# in 0.11 s so.
_CODECS = (Crc32cCodec(),)
_BYTES_PER_CHUNK = 2**23  # a basis is read whole: few files, and several to read at once
_MOST_TOLD = 6


@dataclass(frozen=True, kw_only=True)
class BasisArray:
    """What an array of a basis is; without `dims` its dimensions are its own."""

    long_name: str
    dims: tuple[str, ...] = ()
    units: str = "1"
    comment: str = ""


BASIS_ARRAYS = {
    "fields": BasisArray(
        dims=("mode", "voxel", "component"), long_name="electric field of the modes", units="V m-1",
        comment="in the voxels of `voxels`",
    ),
    "voxels": BasisArray(dims=("voxel",), long_name="flat index of the voxel in the grid, C order of x, y, z"),
    "points": BasisArray(dims=("point", "axis"), long_name="points at which dA/dt of the coil is sampled", units="m"),
    "weights": BasisArray(
        dims=("coefficient", "sample"), long_name="dA/dt at the points to coefficients of the modes", units="m V-1",
        comment="sample = 3 point + axis; the modes that are not summed, for the error estimate, come last",
    ),
    "brain": BasisArray(
        dims=("coefficient", "other"), long_name="inner products of the modes over brain tissue", units="V2 m-2"
    ),
    "scale": BasisArray(long_name="factor of the error estimate"),
    "floor": BasisArray(long_name="least error of the coefficients", comment="see motorsweep.sim.modes"),
    "singular_values": BasisArray(
        dims=("singular_value",), long_name="singular values of the training fields, over the largest"
    ),
    "heldout_errors": BasisArray(
        dims=("heldout",), long_name="relative L2 error in brain tissue on held-out exact solves"
    ),
    "heldout_estimates": BasisArray(dims=("heldout",), long_name="error estimate of the held-out poses"),
    "heldout_others": BasisArray(dims=("heldout",), long_name="relative L2 error in all other tissues together"),
}  # fmt: skip
"""The arrays that are known by name; others are kept with dimensions of their own."""

_LABELS = {"component": GRID_DIMS, "axis": GRID_DIMS}


def basis_path(folder, spec: dict) -> Path:
    """Tell where in a folder of bases the one of a spec lies, or would lie.

    Examples
    --------
    >>> basis_path("bases", {"head": "a"}).name
    '0bc1ea65bc5e1d16.zarr'
    """
    return Path(folder) / f"{content_id(spec)}.zarr"


def write_basis(folder, arrays: dict, spec: dict, notes: dict | None = None) -> str:
    """Write a basis into a folder of bases; one of the same id that is there, or comes to be meanwhile, is left.

    Parameters
    ----------
    folder : path-like
        Made if need be.
    arrays : dict of ndarray
        Finite numbers; see `BASIS_ARRAYS` for the dimensions of the known ones.
    spec : dict
        All that the basis depends on, as plain values: head, coil, conductivities, region, tolerance, grid, ...
    notes : dict, optional
        Plain values to keep with it that are no part of its identity.

    Returns
    -------
    str
        Its id: the content hash of the spec.

    Raises
    ------
    InputError
        For arrays that are not finite or do not fit each other.
    StoreError
        Where the disk refuses.

    Examples
    --------
    >>> write_basis("studies/bases", {"fields": fields, "voxels": voxels}, {"head": head.id})   # doctest: +SKIP
    """
    spec, path = plain(dict(spec), "spec"), basis_path(folder, spec)
    what = f"writing the basis {path.stem} to {folder}"
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    fault = _misfit({name: array.shape for name, array in arrays.items()}) or _not_finite(arrays)
    if fault:
        raise InputError(f"{what}: {fault}; fields from it would be wrong. Make it anew")
    if path.exists():
        return path.stem
    root = global_attrs("motorsweep basis of field modes") | {"id": path.stem, "spec": spec}
    root |= {"notes": plain(dict(notes or {}), "notes"), "arrays": {name: list(a.shape) for name, a in arrays.items()}}
    making = Path(folder) / ".making"
    with disk_errors(what, path):
        with folder_in_the_making(making, path, replace=False) as beside:
            group = zarr.create_group(str(beside), zarr_format=3, attributes=root)
            for name, array in {**arrays, **_labels(arrays)}.items():
                _add(group, name, array)
            consolidate(beside, [*_LABELS, *BASIS_ARRAYS])
        with suppress(OSError):  # another process is making one
            making.rmdir()
    return path.stem


def read_basis(path, *, expected_spec: dict | None = None) -> tuple[dict, dict, dict]:
    """Read a basis whole, checked.

    Parameters
    ----------
    path : path-like
        See `basis_path`.
    expected_spec : dict, optional
        What it must have been made for.

    Returns
    -------
    arrays : dict of ndarray
    spec : dict
    notes : dict

    Raises
    ------
    StoreError
        Where there is none, it was made for something else (naming what differs), or it is damaged.

    Examples
    --------
    >>> arrays, spec, notes = read_basis(path, expected_spec=spec)               # doctest: +SKIP
    """
    path = Path(path)
    group = open_group(path, "simulate")
    spec, kept = _checked_spec(path, group, expected_spec), group.attrs.get("arrays")
    if not isinstance(kept, dict) or not all(name in group for name in kept):
        missing = [name for name in kept if name not in group] if isinstance(kept, dict) else ["its list of arrays"]
        raise StoreError(_damaged(path, f"{', '.join(missing)} is missing"))
    arrays = {name: _read(path, group[name], kept[name]) for name in kept}
    fault = _misfit({name: array.shape for name, array in arrays.items()}) or _not_finite(arrays)
    if fault:
        raise StoreError(_damaged(path, fault))
    return arrays, spec, group.attrs.get("notes", {})


def basis_id(path) -> str:
    """Id of a basis, from its metadata alone.

    Raises
    ------
    StoreError
        Where there is no basis, or its metadata is damaged.
    """
    group = open_group(path, "simulate")
    _checked_spec(path, group, None)
    return group.attrs["id"]


def open_basis(path) -> xr.Dataset:
    """Open a basis as a labelled Dataset; values are read when asked for.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    xarray.Dataset
        ``fields (mode, voxel, component)`` V/m, ``voxels (voxel)``, ``points (point, axis)`` m, ``weights``, errors
        and estimates on held-out poses; ``attrs["spec"]`` is what it was made for.

    Raises
    ------
    StoreError
        Where there is none.

    Examples
    --------
    >>> open_basis("studies/bases/0bc1ea65bc5e1d16.zarr").heldout_errors.max()    # doctest: +SKIP
    """
    dataset = open_dataset(path, "simulate")
    return dataset.set_coords([name for name in ("voxels",) if name in dataset])


def _labels(arrays):
    dims = {dim for name in arrays if name in BASIS_ARRAYS for dim in BASIS_ARRAYS[name].dims}
    return {dim: np.array(words, dtype=object) for dim, words in _LABELS.items() if dim in dims}


def _add(group, name, array):
    known = BASIS_ARRAYS.get(name) or BasisArray(long_name=name.replace("_", " "))
    texts = {"long_name": known.long_name, "units": known.units, "comment": known.comment}
    rows = max(1, _BYTES_PER_CHUNK // max(1, array[:1].nbytes)) if array.ndim else 1
    chunks = (max(1, min(rows, len(array))), *(max(1, n) for n in array.shape[1:])) if array.ndim else ()
    labels = array.dtype == object
    made = group.create_array(
        name, shape=array.shape, chunks=chunks, dtype="string" if labels else array.dtype,
        compressors=None if labels else _CODECS, dimension_names=_dims(name, array.ndim),
        attributes={key: text for key, text in texts.items() if text},
        config={"write_empty_chunks": True},  # a chunk without a file is then a lost one
    )  # fmt: skip
    made[...] = array


def _dims(name, ndim):
    if name in _LABELS:
        return (name,)
    known = BASIS_ARRAYS[name].dims if name in BASIS_ARRAYS else ()
    return known or tuple(f"{name}_{axis}" for axis in range(ndim))


def _checked_spec(path, group, expected):
    spec = group.attrs.get("spec")
    try:
        whole = isinstance(spec, dict) and content_id(spec) == group.attrs.get("id")
    except (StoreError, RecursionError):
        whole = False
    if not whole:
        raise StoreError(_damaged(path, "what it was made for does not fit its id"))
    if expected is None or content_id(expected) == group.attrs["id"]:
        return spec
    held, asked = flattened(spec), flattened(plain(dict(expected), "spec"))
    differing = [key for key in sorted(held.keys() | asked.keys()) if held.get(key) != asked.get(key)]
    told = "; ".join(f"{key}: {held.get(key)} there, {asked.get(key)} asked for" for key in differing[:_MOST_TOLD])
    more = f"; and {len(differing) - _MOST_TOLD} more" if len(differing) > _MOST_TOLD else ""
    raise StoreError(
        f"reading the basis {group.attrs['id']} at {path} for {content_id(expected)}: it was made for something else "
        f"({told}{more}), so its fields would be wrong here. Leave [solver] basis out, and one that fits is found or "
        "made, or set the study file back"
    )


def _read(path, array, shape):
    name = array.name.lstrip("/")
    try:
        if list(array.shape) != list(shape):
            raise StoreError(_damaged(path, f"{name} has the shape {array.shape}, it was written as {tuple(shape)}"))
        if array.nchunks_initialized < array.nchunks:
            raise StoreError(_damaged(path, f"a file of {name} is missing"))
        if array.nbytes > array.nbytes_stored():  # before memory is taken for what a damaged shape says
            raise StoreError(_damaged(path, f"{name} is shorter than it was written"))
        return np.asarray(array[...])
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(_damaged(path, f"{name} cannot be read ({type(error).__name__}: {error})")) from error


def _misfit(shapes):
    """Say which array does not fit; nothing where all do."""
    sizes = {}
    for name, shape in shapes.items():
        dims = _dims(name, len(shape))
        if not str(name).isidentifier() or name in _LABELS:
            return f"{name!r} is no name for an array of it"
        if len(dims) != len(shape):
            return f"{name} has the shape {shape}, not one of {', '.join(dims)}"
        for dim, size in zip(dims, shape):
            first, known = sizes.setdefault(dim, (name, len(_LABELS[dim]) if dim in _LABELS else size))
            if known != size:
                return f"{name} has {size} along {dim}, {first} has {known}"
    if {"coefficient", "other"} <= sizes.keys() and sizes["coefficient"][1] != sizes["other"][1]:
        return f"brain has the shape {shapes['brain']}, it must be square"
    if {"sample", "point"} <= sizes.keys() and sizes["sample"][1] != 3 * sizes["point"][1]:
        return f"weights has {sizes['sample'][1]} samples, not 3 for each of {sizes['point'][1]} points"
    return ""


def _not_finite(arrays):
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            return f"{name} holds {array.dtype}, not numbers"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} holds NaN or infinity"
    return ""


def _damaged(path, found):
    return (
        f"reading the basis at {path}: it is damaged ({found}), so its fields would be wrong. Delete that folder; "
        "`motorsweep simulate STUDY.toml` makes it again"
    )
