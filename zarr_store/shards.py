"""Shards of ``volumes.zarr`` and ``features.zarr``: replacing one whole, which are still to do, which are damaged."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError, StoreError
from .atomic import disk_errors
from .datasets import open_group
from .schema import Status
from .study import locate
from .volume_layout import FIELDS, PER_POSE


@dataclass(frozen=True, kw_only=True)
class ShardedStore:
    """A store whose rows are written a whole shard at a time; the chunks of its ``status`` are its shards.

    Attributes
    ----------
    part : str
        Name of the Study attribute.
    row : str
        What a row is.
    finite : tuple of str
        Arrays that hold numbers wherever a row is done.
    beside : tuple of str
        Arrays that need only be readable.
    """

    part: str
    row: str
    finite: tuple[str, ...]
    beside: tuple[str, ...]


VOLUMES = ShardedStore(part="volumes", row="pose", finite=FIELDS, beside=PER_POSE)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A row that says it is done and is not.

    Attributes
    ----------
    number : int
        Of the row.
    found : str
        What was found on reading it.
    row : str
        What the row is.
    """

    number: int
    found: str
    row: str = "pose"

    def __str__(self):
        return f"{self.row} {self.number}: {self.found}"


def check_whole_shard(what, array, start, count, row="pose", held="volumes"):
    """Refuse rows that are not one whole shard.

    Parameters
    ----------
    what : str
        What is being done; opens the message.
    array : zarr.Array
        The store's ``status``.
    start, count : int
        Rows ``start : start + count``.
    row, held : str
        What a row is, and what a shard holds.

    Raises
    ------
    StoreError
    """
    shard, total = array.chunks[0], array.shape[0]
    if start < 0 or start % shard or count != min(shard, total - start):
        raise StoreError(
            f"{what}: this is not one whole shard of {shard} {row}s out of {total}. A shard is one file and is "
            f"rewritten in full, so two tasks that write parts of it lose each other's {held}. Take the ranges from "
            f"pending_shards, or gather the {row}s of a shard in one task"
        )


def done_only(what, name, values, status, start, row="pose"):
    """Give values with NaN in the rows that are not done, and refuse done rows that are not finite.

    Parameters
    ----------
    what : str
        What is being done; opens the message.
    name : str
        Of the array.
    values : array_like (r, ...)
    status : ndarray (r,) int8
        `Status` values.
    start : int
        Number of the first row.
    row : str
        What a row is.

    Returns
    -------
    ndarray (r, ...) float32
        A copy.

    Raises
    ------
    InputError

    Examples
    --------
    >>> status = np.array([Status.DONE, Status.FAILED])
    >>> done_only("writing", "e_norm", [[1.0, 2.0], [3.0, 4.0]], status, 0)
    array([[ 1.,  2.],
           [nan, nan]], dtype=float32)
    """
    values = np.array(values, dtype=np.float32)
    values[status != Status.DONE] = np.nan
    wrong = np.flatnonzero((status == Status.DONE) & ~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(wrong):
        raise InputError(
            f"{what}: {name} of {row} {start + wrong[0]} is marked done and is not finite; a network would learn NaN "
            f"from it. Mark the {row} failed, with a reason"
        )
    return values


def replace_shard(array, place: slice, values) -> None:
    """Write one whole shard or chunk of an array, even over a torn one.

    Parameters
    ----------
    array : zarr.Array
    place : slice
        Along the first axis; one whole shard (chunk, where there are no shards).
    values : ndarray
    """
    try:
        array[place] = values
    except OSError:
        raise
    except Exception:
        # Zarr reads the old shard before it replaces it, and so trips over a torn one; what it held is rewritten here.
        _chunk_file(array, place.start).unlink(missing_ok=True)
        array[place] = values


def _chunk_file(array, row):
    step = (array.shards or array.chunks)[0]
    key = array.metadata.encode_chunk_key((row // step, *[0] * (array.ndim - 1)))
    return array.store.root / array.path / key


def pending_shards(study, retry_failed: bool = False, of: ShardedStore = VOLUMES) -> list[tuple[int, int]]:
    """List the shards with work left, as (start, stop) ranges of rows in order.

    Parameters
    ----------
    study : Study or path-like
    retry_failed : bool
        Count failed rows as work.
    of : ShardedStore

    Raises
    ------
    StoreError
        Where there is no store.

    Examples
    --------
    >>> pending_shards("studies/quick")        # doctest: +SKIP
    [(0, 16), (16, 32), (32, 49)]
    """
    group = open_group(locate(study, of.part), "simulate")
    status, shard = read_status(study, of), group["status"].chunks[0]
    todo = status != Status.DONE if retry_failed else status == Status.PENDING
    starts = np.unique(np.flatnonzero(todo) // shard) * shard
    return [(int(start), int(min(start + shard, len(status)))) for start in starts]


def read_status(study, of: ShardedStore = VOLUMES) -> np.ndarray:
    """Read the status of every row: ndarray (p,) int8 of `Status` values. A torn status file counts as pending."""
    array = open_group(locate(study, of.part), "simulate")["status"]
    return _read_chunks(array)[0]


def _read_chunks(array):
    """Return the status of every row, and whether it could be read."""
    readable = np.ones(array.shape[0], dtype=bool)
    try:
        return array[...], readable
    except Exception:
        status = np.full(array.shape[0], Status.PENDING, np.int8)
        for start in range(0, array.shape[0], array.chunks[0]):
            place = slice(start, start + array.chunks[0])
            read = _read_or_none(array, place)
            readable[place] = read is not None
            status[place] = status[place] if read is None else read
        return status, readable


def _read_or_none(array, place):
    try:
        return array[place]
    except Exception:
        return None


def verify_volumes(study, repair: bool = False, of: ShardedStore = VOLUMES) -> list[Problem]:
    """Read every row that says it is done, and list those that cannot be read or are not finite.

    Parameters
    ----------
    study : Study or path-like
    repair : bool
        Set those rows to pending, and remove what killed writers left. Only while no worker writes.
    of : ShardedStore

    Returns
    -------
    list of Problem
        In the order of rows; empty where all is well.

    Examples
    --------
    >>> [str(problem) for problem in verify_volumes("studies/quick", repair=True)]        # doctest: +SKIP
    ['pose 4: ValueError: ...']
    """
    path = locate(study, of.part)
    group = open_group(path, "simulate")
    (status, readable), shard = _read_chunks(group["status"]), group["status"].chunks[0]
    arrays = [group[name] for name in (*of.finite, *of.beside) if name in group]
    found = {int(row): "its status cannot be read" for row in np.flatnonzero(~readable)}
    for start in np.unique(np.flatnonzero(status == Status.DONE) // shard) * shard:
        done = start + np.flatnonzero(status[start : start + shard] == Status.DONE)
        found |= _check_shard(arrays, start, shard, done, of.finite)
    if repair:
        reset_volumes(study, list(found), of)
        for left in path.rglob("*.partial"):
            left.unlink(missing_ok=True)
    return [Problem(number=row, found=found[row], row=of.row) for row in sorted(found)]


def _check_shard(arrays, start, shard, done, finite):
    found = {}
    for array in arrays:
        whole = _read_or_none(array, slice(start, min(start + shard, array.shape[0])))
        for row in done:
            text = _fault(array, int(row), None if whole is None else whole[row - start], finite)
            if text:
                found.setdefault(int(row), text)
    return found


def _fault(array, row, values, finite):
    name = array.name.lstrip("/")
    try:
        values = array[row] if values is None else values
    except Exception as error:
        return f"{name} cannot be read ({type(error).__name__}: {error})"
    lost = name in finite and not np.isfinite(values).all()
    return f"{name} is marked done and is not finite, or its file is gone" if lost else ""


def reset_volumes(study, rows, of: ShardedStore = VOLUMES) -> None:
    """Set rows back to pending, so that the next `simulate` makes them again. Only while no worker writes.

    Parameters
    ----------
    study : Study or path-like
    rows : sequence of int
    of : ShardedStore
    """
    path, rows = locate(study, of.part), np.asarray(rows, dtype=np.int64)
    array = open_group(path, "simulate", mode="r+")["status"]
    status, shard = read_status(study, of), array.chunks[0]
    status[rows] = Status.PENDING
    with disk_errors(f"resetting {of.row}s of {path}", path):
        for start in np.unique(rows // shard) * shard:
            place = slice(int(start), int(min(start + shard, len(status))))
            replace_shard(array, place, status[place])
