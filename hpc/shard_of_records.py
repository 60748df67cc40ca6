"""The rows of one shard of records: what is kept of them, what is left to do, and the writing of all at once."""

import numpy as np

from ..errors import StoreError
from ..zarr_store.features import (
    MATRICES,
    PER_RECORD,
    feature_store_id,
    missing_feature_rows,
    read_feature_rows,
    write_feature_shard,
)
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from .channel_sets import fault_line


class ShardOfRecords:
    """Rows of one shard, filled in any order and written whole; what is never put is failed, without a reason yet.

    Rows that are done in the store already are kept, and so are failed ones, unless the task does them again.

    Parameters
    ----------
    task : RecordsTask

    Attributes
    ----------
    done : ndarray (r,) of bool
        Which records are done.
    left : ndarray of int
        Places of the records that the task is to do.

    Raises
    ------
    StoreError
        Where the store is no longer the one that the task was planned for.
    """

    def __init__(self, task):
        self._study, self._task = Study(task.study), task
        self._check_store()
        place = self._study, task.start, task.stop
        try:
            status = read_feature_rows(*place, ("status",))["status"]
        except StoreError:  # torn, which counts as not done
            status = np.zeros(task.size, np.int8)
        self.done = status == int(Status.DONE)
        kept = self.done | ((status == int(Status.FAILED)) & (not task.retry_failed))
        self.rows = missing_feature_rows(self._study, task.size)
        # No more is read than is kept: a file of the others may be torn.
        names = (*MATRICES, *PER_RECORD) if self.done.any() else PER_RECORD
        try:
            held = read_feature_rows(*place, names) if kept.any() else {}
        except StoreError:
            if self.done.any():
                raise
            held, kept = {}, self.done  # failed ones whose reasons are torn: done again
        for name in held.keys() & self.rows.keys():
            self.rows[name][kept] = held[name][kept]
        self.left = np.flatnonzero(~kept)

    def _check_store(self):
        """Refuse a store that grew meanwhile: the task of a killed run would write over the rows of other records."""
        held = feature_store_id(self._study)
        if held != self._task.features_id:
            raise StoreError(
                f"connecting {self._task.name} of {self._study.folder}: the features are no longer those that this "
                f"task was planned for (id {held}, not {self._task.features_id}), so that its rows belong to other "
                "records. Nothing was written; the run that goes on does them"
            )

    def put(self, row, values):
        """Take the values of a record that is done."""
        for name, value in values.items():
            if name in self.rows:
                self.rows[name][row] = value
        self.rows["reason"][row] = ""
        self.done[row] = True

    def fail(self, row, reason, faults=()):
        """Take the reason of a record that failed, and what is known to be wrong with its channels."""
        self.rows["notes"][row] = "\n".join(map(fault_line, faults))
        self.rows["reason"][row] = reason

    def write(self):
        """Write the shard."""
        self._check_store()
        status = np.where(self.done, int(Status.DONE), int(Status.FAILED))
        write_feature_shard(self._study, self._task.start, status, **self.rows)
