"""Opening and publishing whole Zarr stores as labelled Datasets."""

import json
import warnings
from pathlib import Path

import xarray as xr
import zarr
from zarr.errors import ZarrUserWarning

from ..errors import StoreError
from .atomic import atomic_write_text, disk_errors, folder_in_the_making
from .schema import SCHEMA_VERSION

_TEXTS_READ_AT_ONCE = 10_000


def open_group(path, made_by: str, mode: str = "r") -> zarr.Group:
    """Open a store of ours: Zarr format 3, consolidated metadata, our schema.

    Format 2 is refused on purpose: it may name codecs that unpickle, so that a study from a stranger could run code.

    Parameters
    ----------
    path : path-like
    made_by : str
        Command that makes the store, for the message where there is none.
    mode : str
        ``"r"`` or ``"r+"``; neither makes anything.

    Raises
    ------
    StoreError
        Where nothing is there, it is no such store, or it has another schema.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        found = "a folder without zarr.json" if path.exists() else "nothing"
        raise StoreError(
            f"opening {path}: found {found} there, so there is nothing to read; `motorsweep {made_by} STUDY.toml` "
            "makes it"
        )
    try:
        group = zarr.open_group(path, mode=mode, zarr_format=3, use_consolidated=True)
    except Exception as error:
        raise StoreError(
            f"opening {path}: its metadata cannot be read ({type(error).__name__}: {error}); move the folder away and "
            f"run `motorsweep {made_by} STUDY.toml`"
        ) from error
    found = group.attrs.get("motorsweep_schema")
    if found != SCHEMA_VERSION:
        raise StoreError(
            f"opening {path}: its motorsweep_schema is {found!r}, this version reads {SCHEMA_VERSION}; its variables "
            "may mean something else. Read it with the version named in its `source` attribute, or make it anew in "
            "another study folder"
        )
    return group


def open_dataset(path, made_by: str) -> xr.Dataset:
    """Open a store as a Dataset; values are read when asked for. See `open_group` for the errors."""
    open_group(path, made_by)
    dataset = xr.open_zarr(str(path), chunks=None, consolidated=True, zarr_format=3, decode_times=False)
    texts = [name for name, variable in dataset.variables.items() if variable.dtype.kind == "T"]
    return dataset.assign({name: _as_objects(dataset[name]) for name in texts})


def _as_objects(array):
    # Zarr gives numpy's StringDType, which has no missing value: dataset.where(...) would raise on it.
    if array.size > _TEXTS_READ_AT_ONCE:
        return array.chunk().astype(object)
    return xr.Variable(array.dims, array.values.astype(object), array.attrs)


def consolidate(path, order) -> None:
    """Gather the metadata of all arrays of a store into its root, in the given order.

    Zarr lists members as the file system does, so without this two equal stores would differ in bytes, and the
    variables would show in random order.

    Parameters
    ----------
    path : path-like
    order : sequence of str
        Names of the arrays; those not named follow by name.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=ZarrUserWarning)
        zarr.consolidate_metadata(str(path), zarr_format=3)
    root = Path(path) / "zarr.json"
    metadata = json.loads(root.read_text())
    arrays = metadata["consolidated_metadata"]["metadata"]
    names = [name for name in order if name in arrays]
    metadata["consolidated_metadata"]["metadata"] = {
        name: arrays[name] for name in [*names, *sorted(arrays.keys() - set(names))]
    }
    atomic_write_text(root, json.dumps(metadata, indent=2))


def publish_dataset(dataset: xr.Dataset, path, making, what: str) -> None:
    """Write a Dataset beside its place, then swap it in, so that a reader never sees half of it.

    Equal Datasets give equal bytes.

    Parameters
    ----------
    dataset : xarray.Dataset
    path : path-like
        Where the store is to be.
    making : path-like
        Folder for what is unfinished.
    what : str
        What is being done, for messages.

    Raises
    ------
    StoreError
        Where the disk refuses; what was there before is kept.
    """
    order = [*dataset.coords, *dataset.data_vars]
    with disk_errors(what, path), folder_in_the_making(making, path) as beside:
        dataset.to_zarr(beside, mode="w-", zarr_format=3, consolidated=False)
        consolidate(beside, order)
