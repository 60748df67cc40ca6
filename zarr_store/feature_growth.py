"""Feature stores that grow: a store of more records takes the old one's place, with the rows that it had."""

import os
import tempfile

import numpy as np

from ..errors import StoreError
from .atomic import disk_errors, folder_in_the_making
from .datasets import open_group
from .feature_layout import MATRICES, PER_RECORD, FeatureAxes, create_features
from .features import missing_feature_rows, read_feature_status, write_feature_shard
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
        For each record of the new store its row in the old one, -1 where it was not there. Pending ones stay pending,
        failed ones keep their reason.
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
    """Take what is known of the records of one new shard: of done ones everything, of failed ones no matrix."""
    there, values = rows >= 0, missing_feature_rows(new, len(rows))
    status = np.full(len(rows), int(Status.PENDING), np.int8)
    status[there] = read_feature_status(old)[rows[there]]
    done, failed = np.flatnonzero(status == int(Status.DONE)), np.flatnonzero(status == int(Status.FAILED))
    for places, names in ((done, (*MATRICES, *PER_RECORD)), (failed, PER_RECORD)):
        held = _read_rows(doing, old, rows[places], names) if len(places) else {}
        for name in held.keys() & values.keys():
            values[name][places] = held[name]
    if len(done) or len(failed):
        write_feature_shard(new, start, status, **values)


def _read_rows(doing, study, rows, names):
    group = open_group(study.features, "simulate")
    try:
        held = {name: group[name].oindex[rows] for name in names if name in group}
        lost = [name for name in MATRICES if name in held and not np.isfinite(held[name]).all()]
        if lost:
            raise ValueError(f"a file of {lost[0]} is gone")
    except Exception as error:
        raise StoreError(
            f"{doing}: records that are done cannot be read ({type(error).__name__}: {error}), so they cannot be "
            "carried over. Run `motorsweep verify STUDY.toml --repair`, which sets damaged records to pending, then "
            "the same command again"
        ) from error
    return held
