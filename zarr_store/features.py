"""Connectivity features, one set per record: whole shards in, labelled Dataset out, and what is still to do.

The contract is that of the volumes: one task owns a whole shard, and its status is written last.
"""

import numpy as np
import xarray as xr

from ..errors import StoreError
from .atomic import disk_errors
from .datasets import open_dataset, open_group
from .feature_layout import FEATURES, MATRICES, PER_RECORD, FeatureAxes, create_features
from .schema import Status
from .shards import (
    Problem,
    check_whole_shard,
    done_only,
    pending_shards,
    read_status,
    replace_shard,
    reset_volumes,
    verify_volumes,
)
from .study import locate

__all__ = [
    "FEATURES", "MATRICES", "PER_RECORD", "FeatureAxes", "create_features", "feature_store_id",
    "missing_feature_rows", "open_features", "pending_feature_shards", "read_feature_rows", "read_feature_status",
    "reset_features", "verify_features", "write_feature_shard",
]  # fmt: skip


def write_feature_shard(study, start: int, status, **rows) -> None:
    """Write the records ``start : start + len(status)``, which must be one whole shard; their status last.

    No two tasks may own the same shard, save for one task that is run twice: equal inputs give equal features, and
    each file is replaced whole.

    Parameters
    ----------
    study : Study or path-like
        The study, or its ``features.zarr``.
    start : int
        First record, a multiple of the shard size.
    status : sequence of Status (r,)
    **rows : array_like (r, ...)
        The store's other arrays by name: all matrices that it holds; those of `PER_RECORD` that are left out stay
        unknown. Each failed record needs a ``reason``.

    Raises
    ------
    StoreError
        For part of a shard, a missing reason, arrays of other shapes, or a disk without room; the shard then stays
        pending.
    InputError
        For a done record whose matrices are not finite.

    Examples
    --------
    >>> for start, stop in pending_feature_shards(study):        # doctest: +SKIP
    ...     write_feature_shard(study, start, [Status.DONE] * (stop - start), **connected(start, stop))
    """
    path = locate(study, "features")
    group = open_group(path, "simulate", mode="r+")
    status = np.array([Status(state) for state in status], dtype=np.int8)
    what = f"writing the records {start}:{start + len(status)} to {path}"
    check_whole_shard(what, group["status"], start, len(status), row="record", held="features")
    rows = {"reason": [""] * len(status), "notes": [""] * len(status)} | rows
    for name in ("reason", "notes"):
        rows[name] = np.array([str(text) for text in rows[name]], dtype=object)
    _check_rows(what, group, rows, status)
    matrices = [name for name in MATRICES if name in rows]
    for name in matrices:
        rows[name] = done_only(what, name, rows[name], status, start, row="record")
    place = slice(start, start + len(status))
    with disk_errors(what, path):
        for name in (*matrices, *(name for name in PER_RECORD if name in rows)):
            replace_shard(group[name], place, np.asarray(rows[name], dtype=group[name].dtype))
        replace_shard(group["status"], place, status)  # last: who reads DONE can trust the matrices


def _check_rows(what, group, rows, status):
    unknown = [name for name in rows if name not in group]
    missing = [name for name in MATRICES if name in group and name not in rows]
    if unknown or missing:
        held = f"the store does not hold {unknown[0]}" if unknown else f"the store holds {missing[0]}"
        raise StoreError(f"{what}: {held}; give the arrays that it was made with")
    for name, values in rows.items():
        shape = (len(status), *group[name].shape[1:])
        if np.shape(values) != shape:
            raise StoreError(
                f"{what}: {name} has the shape {np.shape(values)}, the store takes {shape}; records of other channels, "
                "measures or bands need a study of their own"
            )
    mute = [row for row in np.flatnonzero(status == Status.FAILED) if not rows["reason"][row]]
    if mute:
        raise StoreError(f"{what}: a failed record (row {mute[0]}) has no reason; nobody could mend it. Give one each")


def read_feature_rows(study, start: int, stop: int, names=(*MATRICES, *PER_RECORD)) -> dict[str, np.ndarray]:
    """Read arrays of consecutive records; those that the store does not hold are left out.

    Parameters
    ----------
    study : Study or path-like
    start, stop : int
        Records ``start:stop``.
    names : sequence of str

    Returns
    -------
    dict of ndarray (stop - start, ...)

    Raises
    ------
    StoreError
        Where there is no store, or a file is damaged.
    """
    path = locate(study, "features")
    group = open_group(path, "simulate")
    try:
        return {name: group[name][start:stop] for name in names if name in group}
    except Exception as error:
        raise StoreError(
            f"reading the records {start}:{stop} of {path}: {type(error).__name__}: {error}. Run `motorsweep verify "
            "STUDY.toml --repair`, which sets damaged records to pending, then `motorsweep run STUDY.toml`"
        ) from error


def missing_feature_rows(study, count: int) -> dict[str, np.ndarray]:
    """Give all arrays of some records but their status, as those of records that are not done are.

    Parameters
    ----------
    study : Study or path-like
    count : int

    Returns
    -------
    dict of ndarray (count, ...)
    """
    group = open_group(locate(study, "features"), "simulate")
    names = [name for name in (*MATRICES, *PER_RECORD) if name in group and name != "status"]
    rows = {name: group[name] for name in names}
    return {
        name: np.full((count, *each.shape[1:]), each.fill_value, object if name in ("reason", "notes") else each.dtype)
        for name, each in rows.items()
    }


def feature_store_id(study) -> str:
    """Give the id of a study's features, which changes with their records."""
    return str(open_group(locate(study, "features"), "simulate").attrs["id"])


def pending_feature_shards(study, retry_failed: bool = False) -> list[tuple[int, int]]:
    """List the shards with work left, as (start, stop) ranges of records; see `shards.pending_shards`."""
    return pending_shards(study, retry_failed, of=FEATURES)


def read_feature_status(study) -> np.ndarray:
    """Read the status of every record: ndarray (r,) int8 of `Status` values. A torn file counts as pending."""
    return read_status(study, of=FEATURES)


def verify_features(study, repair: bool = False) -> list[Problem]:
    """Read every record that says it is done, and list those that are damaged; see `shards.verify_volumes`."""
    return verify_volumes(study, repair, of=FEATURES)


def reset_features(study, records) -> None:
    """Set records back to pending, so that the next `simulate` makes them again. Only while no worker writes."""
    reset_volumes(study, records, of=FEATURES)


def open_features(study) -> xr.Dataset:
    """Open the connectivity features of a study as a labelled Dataset; matrices are read when computed.

    Parameters
    ----------
    study : Study or path-like
        The study, its folder, or its ``features.zarr``.

    Returns
    -------
    xarray.Dataset
        ``eeg_connectivity (record, measure, eeg_i, eeg_j)``, ``emg_granger (record, emg_i, emg_j)``, where asked for
        ``eeg_connectivity_band (record, measure, band, eeg_i, eeg_j)``, of a planted study ``emg_granger_expected``
        (all dask); per record ``status``, ``reason``, ``seconds``, ``length_s``, orders, ranks,
        ``removed_components``, ``notes``; coordinates are the names of records, measures, bands and channels
        (``eeg_channel``, ``emg_channel``), ``subject`` and ``condition``. Entry [i, j] is from j to i where a measure
        has a direction. Records that are not done read as NaN.

    Raises
    ------
    StoreError
        Where there is no store, naming the command that makes it.

    Examples
    --------
    >>> features = open_features("studies/eeg")                                          # doctest: +SKIP
    >>> features.emg_granger.groupby("condition").mean()                                 # doctest: +SKIP
    """
    dataset = open_dataset(locate(study, "features"), "simulate")
    coordinates = [name for name in ("subject", "condition", "band_low_hz", "band_high_hz") if name in dataset]
    dataset = dataset.set_coords(coordinates)
    dataset = dataset.assign_coords(
        eeg_channel=("eeg_i", dataset["eeg_i"].values), emg_channel=("emg_i", dataset["emg_i"].values)
    )
    matrices = [name for name in MATRICES if name in dataset]
    return dataset.assign({name: dataset[name].chunk(record=dataset.attrs["shard"]) for name in matrices})
