"""The rows of one shard of poses, filled in any order and written whole."""

import numpy as np

from ..zarr_store.schema import Method, Status
from ..zarr_store.study import Study
from ..zarr_store.volumes import read_rows, read_volumes, write_shard

_PER_POSE = ("status", "iterations", "residual", "seconds", "method", "error_estimate")


class ShardRows:
    """Rows of one shard; what is never put is failed, without a reason yet.

    Parameters
    ----------
    task
        With ``study``, ``start``, ``stop``, ``size``, ``grid`` and ``components``.

    Examples
    --------
    >>> rows = ShardRows(task)                                                    # doctest: +SKIP
    >>> rows.put(slice(0, 4), volumes, reports, 0.2, Method.DIRECT)               # doctest: +SKIP
    >>> rows.write()                                                              # doctest: +SKIP
    """

    def __init__(self, task):
        self.study, self.start, self.grid = Study(task.study), task.start, task.grid
        poses = task.size
        self.e_norm = np.full((poses, *task.grid.shape), np.nan, np.float32)
        self.e_field = np.full((poses, 3, *task.grid.shape), np.nan, np.float32) if task.components else None
        self.status = np.full(poses, int(Status.FAILED), np.int8)
        self.iterations = np.full(poses, -1, np.int32)
        self.residual, self.seconds, self.error_estimate = (np.full(poses, np.nan) for _ in range(3))
        self.method = np.full(poses, int(Method.NONE), np.int8)
        self.reason = [""] * poses

    def put(self, rows, volumes, reports, seconds, method):
        """Take exact fields (k, n, n, n, 3), V/m, their solves' reports and the seconds of each."""
        self.e_norm[rows] = np.linalg.norm(volumes, axis=-1)
        if self.e_field is not None:
            self.e_field[rows] = np.moveaxis(volumes, -1, 1)
        self.iterations[rows] = [report.iterations for report in reports]
        self.residual[rows] = [report.residual for report in reports]
        self._done(rows, seconds, method)

    def put_modes(self, rows, basis, coefficients, estimates, seconds):
        """Take fields by modes, their error estimates and the seconds of each."""
        if self.e_field is None:
            self.e_norm[rows] = basis.norms(coefficients)
        else:
            volumes = basis.volumes(coefficients)
            self.e_norm[rows] = np.linalg.norm(volumes, axis=-1)
            self.e_field[rows] = np.moveaxis(volumes, -1, 1)
        self.error_estimate[rows] = estimates
        self._done(rows, seconds, Method.MODES)

    def _done(self, rows, seconds, method):
        self.status[rows], self.method[rows], self.seconds[rows] = int(Status.DONE), int(method), seconds

    def keep(self, methods=None):
        """Take the rows of poses that are done from the store; only those found by some methods, if they are named."""
        place = self.start, self.start + len(self.status)
        done = read_rows(self.study, *place, ("status",))["status"] == int(Status.DONE)
        held = read_rows(self.study, *place, _PER_POSE) if done.any() else {}
        if methods is not None:
            done &= np.isin(held["method"], methods) if "method" in held else False
        done = np.flatnonzero(done)
        if not len(done):
            return
        self.e_norm[done] = read_volumes(self.study, self.start + done)
        if self.e_field is not None:
            self.e_field[done] = read_volumes(self.study, self.start + done, "e_field")
        for name, values in held.items():
            getattr(self, name)[done] = values[done]
        for k in done:
            self.reason[k] = ""

    def write(self):
        """Write the shard."""
        write_shard(
            self.study,
            self.start,
            e_norm=self.e_norm,
            status=self.status,
            reason=self.reason,
            e_field=self.e_field,
            **{name: getattr(self, name) for name in _PER_POSE if name != "status"},
        )
