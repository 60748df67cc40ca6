"""Feature stores that grow: a store of more records takes the old one's place, with the rows that it had."""

import os
import tempfile

import numpy as np

from ..errors import StoreError
from .atomic import disk_errors, folder_in_the_making
from .datasets import open_group
from .feature_layout import MATRICES, PER_RECORD, FeatureAxes, create_features
from .features import missing_feature_rows, write_feature_shard
from .schema import Status
from .study import Study


def grow_features(study, axes: FeatureAxes, rows, *, shard: int, attrs: dict, notes: dict | None = None) -> str:
    """Replace ``features.zarr`` by one of other records; those that were in the old one keep what is known of them.

    Only while no worker writes. The new store takes the old one's place when it is whole.

    Parameters
    ----------
    study : Study
    axes : FeatureAxes
        Of the new store: the records may differ, all other labels are the old ones.
    rows : array_like of int (record,)
        For each record of the new store its row in the old one, -1 where it was not there.
    shard, attrs, notes
        As for `create_features`.

    Returns
    -------
    str
        The new store's id.

    Raises
    ------
    StoreError
        Where the old store cannot be read, or the disk has no room; the old store is then still there.

    Examples
    --------
    >>> grow_features(study, axes, [0, 1, -1, 2], shard=4, attrs=attrs)                   # doctest: +SKIP
    """
    rows = np.asarray(rows, np.int64)
    doing = f"growing {study.features} to {len(rows)} records"
    with disk_errors(doing, study.features), folder_in_the_making(study.making, study.features) as whole:
        with tempfile.TemporaryDirectory(dir=study.making) as room:
            new = Study(room)
            made = create_features(new, axes, shard=shard, attrs=attrs, notes=notes)
            for start in range(0, len(rows), shard):
                _carry_shard(doing, study, new, start, rows[start : start + shard])
            os.rename(new.features, whole)
    return made


def _carry_shard(doing, old, new, start, rows):
    there = np.flatnonzero(rows >= 0)
    if not len(there):
        return
    values, held = missing_feature_rows(new, len(rows)), _read_rows(doing, old, rows[there])
    for name in values:
        values[name][there] = held[name]
    status = np.full(len(rows), int(Status.PENDING), np.int8)
    status[there] = held["status"]
    write_feature_shard(new, start, status, **values)


def _read_rows(doing, study, rows):
    group = open_group(study.features, "simulate")
    try:
        return {name: group[name].oindex[rows] for name in (*MATRICES, *PER_RECORD) if name in group}
    except Exception as error:
        raise StoreError(
            f"{doing}: a file of the records that are done cannot be read ({type(error).__name__}: {error}), so they "
            "cannot be carried over. Take the new recordings out of the folder, run `motorsweep verify STUDY.toml "
            "--repair`, which sets damaged records to pending, then put them back and run the same command again"
        ) from error
