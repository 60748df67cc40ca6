"""Field volumes, one per coil pose: whole shards in, labelled Dataset out, and what is still to do.

Why whole shards: two tasks that write poses of the same shard rewrite the same file, and one of them loses its volumes
without a word (zarr-python#3682). Why an explicit status: an all-NaN chunk is not written, so no file means nothing.
"""

import numpy as np
import xarray as xr

from ..errors import GridMismatchError, StoreError
from .atomic import disk_errors
from .datasets import open_dataset, open_group
from .schema import Method, Status
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
from .volume_layout import COMPRESSIONS, DIDT_A_PER_S, FIELDS, PER_POSE, create_volumes

__all__ = [
    "COMPRESSIONS", "DIDT_A_PER_S", "Problem", "create_volumes", "open_volumes", "pending_shards", "read_rows",
    "read_status", "read_volumes", "reset_volumes", "verify_volumes", "write_shard",
]  # fmt: skip


def write_shard(
    study, start: int, e_norm, status, iterations=None, residual=None, seconds=None, reason=None, e_field=None,
    method=None, error_estimate=None,
) -> None:  # fmt: skip
    """Write the poses ``start : start + len(e_norm)``, which must be one whole shard; their status last.

    No two tasks may own the same shard, save for one task that is run twice: equal inputs give equal volumes, and
    each file is replaced whole.

    Parameters
    ----------
    study : Study or path-like
        The study, or its ``volumes.zarr``.
    start : int
        First pose, a multiple of the shard size.
    e_norm : array_like (p, n, n, n), V/m at 1 A/µs
        Rows of poses that are not done are not kept.
    status : sequence of Status (p,)
    iterations, residual, seconds : array_like (p,), optional
        Of each pose; unknown (-1, NaN, NaN) by default.
    reason : sequence of str (p,), optional
        Why a pose failed; each failed pose needs one.
    e_field : array_like (p, 3, n, n, n), V/m at 1 A/µs, optional
        Needed where the store holds components.
    method : sequence of Method (p,), optional
        How each field was found; `Method.NONE` by default.
    error_estimate : array_like (p,), optional
        Estimated relative L2 error in brain tissue of each pose; NaN, of an exact solve, by default. A store that was
        made before these two were kept goes on without them.

    Raises
    ------
    StoreError
        For part of a shard, a missing reason, or a disk without room; the shard then stays pending.
    GridMismatchError
        For volumes of another grid.
    InputError
        For a done volume that is not finite.

    Examples
    --------
    >>> for start, stop in pending_shards(study):        # doctest: +SKIP
    ...     write_shard(study, start, solve(start, stop), [Status.DONE] * (stop - start))
    """
    path = locate(study, "volumes")
    group = open_group(path, "simulate", mode="r+")
    status = np.array([Status(state) for state in status], dtype=np.int8)
    what = f"writing the poses {start}:{start + len(status)} to {path}"
    check_whole_shard(what, group["status"], start, len(status))
    reason = [""] * len(status) if reason is None else [str(text) for text in reason]
    rows = {"iterations": iterations, "residual": residual, "seconds": seconds, "error_estimate": error_estimate}
    rows["method"] = None if method is None else [int(Method(each)) for each in method]
    rows["reason"] = np.array(reason, dtype=object)
    rows = {name: values for name, values in rows.items() if values is not None and name in group}
    fields = {name: values for name, values in (("e_norm", e_norm), ("e_field", e_field)) if values is not None}
    _check_rows(what, group, rows, fields, status)
    place = slice(start, start + len(status))
    with disk_errors(what, path):
        for name, values in fields.items():
            replace_shard(group[name], place, done_only(what, name, values, status, start))
        for name, values in rows.items():
            replace_shard(group[name], place, np.asarray(values, dtype=group[name].dtype))
        replace_shard(group["status"], place, status)  # last: who reads DONE can trust the volume


def _check_rows(what, group, rows, fields, status):
    for name in FIELDS:
        if (name in group) != (name in fields):
            held = "holds" if name in group else "does not hold"
            raise StoreError(f"{what}: the store {held} {name}; give the same fields as it was made with")
    for name, values in {**fields, **rows}.items():
        shape = (len(status), *group[name].shape[1:])
        if np.shape(values) != shape:
            kind = GridMismatchError if name in fields else StoreError
            raise kind(
                f"{what}: {name} has the shape {np.shape(values)}, the store takes {shape} (grid "
                f"{group.attrs['grid_id']}, head {group.attrs.get('head_id')}); other volumes would not lie on its "
                "grid. Sample the field on the store's grid"
            )
    mute = [i for i in np.flatnonzero(status == Status.FAILED) if not rows["reason"][i]]
    if mute:
        raise StoreError(
            f"{what}: failed poses without a reason (row {mute[0]}); nobody could mend them. Give one each"
        )


def read_volumes(study, poses, variable: str = "e_norm") -> np.ndarray:
    """Read the volumes of some poses, in the order given; quicker than the Dataset for batches.

    Parameters
    ----------
    study : Study or path-like
    poses : sequence of int (b,)
        Repetitions are allowed.
    variable : {"e_norm", "e_field"}

    Returns
    -------
    ndarray (b, n, n, n) or (b, 3, n, n, n) float32, V/m at 1 A/µs

    Raises
    ------
    StoreError
        For a pose that is not done, or whose file is damaged.
    """
    path = locate(study, "volumes")
    array = open_group(path, "simulate")[variable]
    wanted, back = np.unique(np.asarray(poses, dtype=np.int64), return_inverse=True)
    volumes = np.empty((len(wanted), *array.shape[1:]), np.float32)
    try:
        for first, stop in _ranges(wanted):
            volumes[first:stop] = array[int(wanted[first]) : int(wanted[stop - 1]) + 1]
    except Exception as error:
        raise StoreError(_unreadable(path, f"poses {poses}", f"{type(error).__name__}: {error}")) from error
    lost = np.flatnonzero(~np.isfinite(volumes).reshape(len(wanted), -1).all(axis=1))
    if len(lost):
        raise StoreError(_unreadable(path, f"pose {wanted[lost[0]]}", "it is not done, or its file is gone"))
    return volumes[back]


def read_rows(study, start: int, stop: int, names=PER_POSE) -> dict[str, np.ndarray]:
    """Read what is kept beside the volumes of consecutive poses; much quicker than the Dataset for a few of them.

    Parameters
    ----------
    study : Study or path-like
    start, stop : int
        Poses ``start:stop``.
    names : sequence of str
        Of the variables along ``pose``; those that the store does not hold are left out.

    Returns
    -------
    dict of ndarray (stop - start, ...)

    Raises
    ------
    StoreError
        Where there is no store, or a file is damaged.

    Examples
    --------
    >>> read_rows("studies/quick", 0, 16, ("pose_matrix",))["pose_matrix"].shape        # doctest: +SKIP
    (16, 4, 4)
    """
    path = locate(study, "volumes")
    group = open_group(path, "simulate")
    try:
        return {name: group[name][start:stop] for name in names if name in group}
    except Exception as error:
        raise StoreError(_unreadable(path, f"poses {start}:{stop}", f"{type(error).__name__}: {error}")) from error


def _ranges(poses):
    # Ranges of consecutive poses: Zarr reads a slice of a shard ten times as fast as the same poses by index.
    ends = [*(np.flatnonzero(np.diff(poses) != 1) + 1), len(poses)] if len(poses) else []
    return zip([0, *ends[:-1]], ends)


def _unreadable(path, poses, found):
    return (
        f"reading {poses} of {path}: {found}; training on it would mean nothing. Run "
        "`motorsweep verify STUDY.toml --repair`, which sets damaged poses to pending, then `motorsweep run STUDY.toml`"
    )


def open_volumes(study) -> xr.Dataset:
    """Open the field volumes of a study as a labelled Dataset; volumes are read when computed, shard by shard.

    Parameters
    ----------
    study : Study or path-like
        The study, its folder, or its ``volumes.zarr``.

    Returns
    -------
    xarray.Dataset
        ``e_norm (pose, x, y, z)`` V/m at 1 A/µs (dask), ``e_field`` where it was asked for, per pose ``status``,
        ``iterations``, ``residual``, ``seconds``, ``method``, ``error_estimate``, ``reason``; ``tissue`` and
        ``motor_mask (x, y, z)``; coordinates ``x, y, z`` m and ``pose_matrix (pose, row, column)``. Poses that are not
        done read as NaN. Stores of earlier versions have no ``method`` and ``error_estimate``.

    Raises
    ------
    StoreError
        Where there is no store, naming the command that makes it.

    Examples
    --------
    >>> volumes = open_volumes("studies/quick")                              # doctest: +SKIP
    >>> volumes.e_norm.where(volumes.motor_mask).max(("x", "y", "z"))        # doctest: +SKIP
    """
    dataset = open_dataset(locate(study, "volumes"), "simulate")
    fields = [name for name in FIELDS if name in dataset]
    return dataset.assign({name: dataset[name].chunk(pose=dataset.attrs["shard"]) for name in fields})
