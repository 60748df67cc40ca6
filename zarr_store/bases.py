"""Bases of field modes: one Zarr store each, named by what it was made for, shared by studies and workers.

A basis appears whole or not at all, and is never changed: who finds one of the right id takes it.
"""

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from ..errors import InputError, StoreError
from .atomic import disk_errors, folder_in_the_making
from .basis_layout import BASIS_ARRAYS, LABELS, BasisArray, dims_of, fault_of
from .datasets import consolidate, open_dataset, open_group
from .ids import content_id, plain
from .schema import global_attrs
from .volume_layout import flattened

# Not compressed: of modes of a coil's field lz4 saved a twentieth, and took half as long again to read. 107 MB are read
# in 0.11 s so.
_CODECS = (Crc32cCodec(),)
_BYTES_PER_CHUNK = 2**23  # a basis is read whole: few files, and several to read at once
_MOST_TOLD = 6
_MOST_CHUNKS = 10**6  # of one array: listing more files than that takes minutes
_LEFT_AFTER_S = 24 * 3600  # a basis is written in seconds; what is older was left by a killed process


def basis_path(folder, spec: dict) -> Path:
    """Tell where in a folder of bases the one of a spec lies, or would lie.

    Examples
    --------
    >>> basis_path("bases", {"head": "a"}).name
    '40764401a76928bd.zarr'
    """
    return Path(folder) / f"{content_id(spec)}.zarr"


def check_bases_folder(folder) -> None:
    """Find out whether bases can be written to a folder, before minutes are spent on one; it is made if need be.

    Parameters
    ----------
    folder : path-like

    Raises
    ------
    StoreError
        Where the disk refuses.

    Examples
    --------
    >>> check_bases_folder("studies/bases")                                       # doctest: +SKIP
    """
    with disk_errors(f"making a basis for {folder}", Path(folder)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def write_basis(folder, arrays: dict, spec: dict, notes: dict | None = None) -> str:
    """Write a basis into a folder of bases; one of the same id that is there, or comes to be meanwhile, is left.

    Parameters
    ----------
    folder : path-like
        Made if need be.
    arrays : dict of ndarray
        Finite numbers; see `motorsweep.zarr_store.basis_layout` for dimensions and types of the known ones.
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
    fault = fault_of(arrays)
    if fault:
        raise InputError(f"{what}: {fault}; fields from it would be wrong. Make it anew")
    if path.exists():
        return path.stem
    root = global_attrs("motorsweep basis of field modes") | {"id": path.stem, "spec": spec}
    root |= {"notes": plain(dict(notes or {}), "notes"), "arrays": {name: list(a.shape) for name, a in arrays.items()}}
    making = Path(folder) / ".making"
    with disk_errors(what, path):
        _clear_leftovers(making)
        with folder_in_the_making(making, path, replace=False) as beside:
            group = zarr.create_group(str(beside), zarr_format=3, attributes=root)
            for name, array in {**arrays, **_labels(arrays)}.items():
                _add(group, name, array)
            consolidate(beside, [*LABELS, *BASIS_ARRAYS])
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
    group = _open_group(path)
    spec, kept = _checked_spec(path, group, expected_spec), group.attrs.get("arrays")
    missing = [name for name in kept if name not in group] if isinstance(kept, dict) else ["its list of arrays"]
    if missing:
        raise damaged_basis(path, f"{', '.join(missing)} is missing")
    arrays = {name: _read(path, group[name], kept[name]) for name in kept}
    fault = fault_of(arrays)
    if fault:
        raise damaged_basis(path, fault)
    notes = group.attrs.get("notes")
    return arrays, spec, notes if isinstance(notes, dict) else {}


def damaged_basis(path, found: str) -> StoreError:
    """Make the error of a basis that is not what it was written as; it names the way out."""
    return StoreError(
        f"reading the basis at {path}: it is damaged ({found}), so its fields would be wrong. Delete that folder; "
        "`motorsweep simulate STUDY.toml` makes it again (where [solver] basis names it, leave that out)"
    )


def basis_id(path) -> str:
    """Id of a basis, from its metadata alone.

    Raises
    ------
    StoreError
        Where there is no basis, or its metadata is damaged.
    """
    return content_id(basis_spec_of(path))


def basis_spec_of(path) -> dict:
    """Read what a basis was made for, from its metadata alone.

    Raises
    ------
    StoreError
        Where there is no basis, or its metadata is damaged.
    """
    return _checked_spec(path, _open_group(path), None)


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
        Where there is none, or its metadata is damaged.

    Examples
    --------
    >>> open_basis("studies/bases/40764401a76928bd.zarr").heldout_errors.max()    # doctest: +SKIP
    """
    _open_group(path)
    try:
        dataset = open_dataset(path, "simulate")
    except StoreError:
        raise
    except Exception as error:  # xarray has many, as for arrays of two sizes along one dimension
        raise damaged_basis(path, f"{type(error).__name__}: {error}") from error
    return dataset.set_coords([name for name in ("voxels",) if name in dataset])


def _open_group(path):
    # Half deleted, it must not pass for one that `simulate` would make: it is there, and stays.
    if Path(path).exists() and not (Path(path) / "zarr.json").is_file():
        raise damaged_basis(path, "its zarr.json is missing")
    return open_group(path, "simulate")


def _clear_leftovers(making):
    for left in making.glob("*"):
        with suppress(OSError):  # another process clears it too
            if time.time() - left.stat().st_mtime > _LEFT_AFTER_S:
                shutil.rmtree(left)


def _labels(arrays):
    dims = {dim for name in arrays if name in BASIS_ARRAYS for dim in BASIS_ARRAYS[name].dims}
    return {dim: np.array(words, dtype=object) for dim, words in LABELS.items() if dim in dims}


def _add(group, name, array):
    known = BASIS_ARRAYS.get(name) or BasisArray(long_name=name.replace("_", " "))
    texts = {"long_name": known.long_name, "units": known.units, "comment": known.comment}
    rows = max(1, _BYTES_PER_CHUNK // max(1, array[:1].nbytes)) if array.ndim else 1
    chunks = (max(1, min(rows, len(array))), *(max(1, n) for n in array.shape[1:])) if array.ndim else ()
    labels = array.dtype == object
    made = group.create_array(
        name, shape=array.shape, chunks=chunks, dtype="string" if labels else array.dtype,
        compressors=None if labels else _CODECS, dimension_names=dims_of(name, array.ndim),
        attributes={key: text for key, text in texts.items() if text},
        config={"write_empty_chunks": True},  # a chunk without a file is then a lost one
    )  # fmt: skip
    made[...] = array


def _checked_spec(path, group, expected):
    spec = group.attrs.get("spec")
    try:
        whole = isinstance(spec, dict) and content_id(spec) == group.attrs.get("id")
    except (StoreError, RecursionError):
        whole = False
    if not whole:
        raise damaged_basis(path, "what it was made for does not fit its id")
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
            raise damaged_basis(path, f"{name} has the shape {array.shape}, it was written as {tuple(shape)}")
        if (array.metadata.dimension_names or ()) != dims_of(name, array.ndim):
            raise damaged_basis(path, f"{name} has the dimensions {array.metadata.dimension_names}")
        if array.nchunks > _MOST_CHUNKS:
            raise damaged_basis(path, f"{name} is in {array.nchunks} pieces")
        if array.nchunks_initialized < array.nchunks:
            raise damaged_basis(path, f"a file of {name} is missing")
        if array.nbytes > array.nbytes_stored():  # before memory is taken for what a damaged shape says
            raise damaged_basis(path, f"{name} is shorter than it was written")
        return np.asarray(array[...])
    except StoreError:
        raise
    except Exception as error:
        raise damaged_basis(path, f"{name} cannot be read ({type(error).__name__}: {error})") from error
