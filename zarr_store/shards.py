"""Shards of ``volumes.zarr``: replacing one whole, which are still to do, which are damaged."""

from dataclasses import dataclass

import numpy as np

from .atomic import disk_errors
from .datasets import open_group
from .schema import Status
from .study import locate
from .volume_layout import FIELDS, PER_POSE


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A pose that says it is done and is not.

    Attributes
    ----------
    pose : int
    found : str
        What was found on reading it.
    """

    pose: int
    found: str

    def __str__(self):
        return f"pose {self.pose}: {self.found}"


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


def _chunk_file(array, pose):
    step = (array.shards or array.chunks)[0]
    key = array.metadata.encode_chunk_key((pose // step, *[0] * (array.ndim - 1)))
    return array.store.root / array.path / key


def pending_shards(study, retry_failed: bool = False) -> list[tuple[int, int]]:
    """List the shards with work left, as (start, stop) ranges of poses in order.

    Parameters
    ----------
    study : Study or path-like
    retry_failed : bool
        Count failed poses as work.

    Raises
    ------
    StoreError
        Where there is no store.

    Examples
    --------
    >>> pending_shards("studies/quick")        # doctest: +SKIP
    [(0, 16), (16, 32), (32, 49)]
    """
    group = open_group(locate(study, "volumes"), "simulate")
    status, shard = read_status(study), group["status"].chunks[0]
    todo = status != Status.DONE if retry_failed else status == Status.PENDING
    starts = np.unique(np.flatnonzero(todo) // shard) * shard
    return [(int(start), int(min(start + shard, len(status)))) for start in starts]


def read_status(study) -> np.ndarray:
    """Read the status of every pose: ndarray (p,) int8 of `Status` values. A torn status file counts as pending."""
    array = open_group(locate(study, "volumes"), "simulate")["status"]
    return _read_chunks(array)[0]


def _read_chunks(array):
    """Return the status of every pose, and whether it could be read."""
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


def verify_volumes(study, repair: bool = False) -> list[Problem]:
    """Read every pose that says it is done, and list those that cannot be read or are not finite.

    Parameters
    ----------
    study : Study or path-like
    repair : bool
        Set those poses to pending, and remove what killed writers left. Only while no worker writes.

    Returns
    -------
    list of Problem
        In the order of poses; empty where all is well.

    Examples
    --------
    >>> [str(problem) for problem in verify_volumes("studies/quick", repair=True)]        # doctest: +SKIP
    ['pose 4: ValueError: ...']
    """
    path = locate(study, "volumes")
    group = open_group(path, "simulate")
    (status, readable), shard = _read_chunks(group["status"]), group["status"].chunks[0]
    arrays = [group[name] for name in (*FIELDS, *PER_POSE) if name in group]
    problems = [Problem(pose=int(pose), found="its status cannot be read") for pose in np.flatnonzero(~readable)]
    for start in np.unique(np.flatnonzero(status == Status.DONE) // shard) * shard:
        done = start + np.flatnonzero(status[start : start + shard] == Status.DONE)
        problems += _check_shard(arrays, start, shard, done)
    if repair:
        reset_volumes(study, [problem.pose for problem in problems])
        for left in path.rglob("*.partial"):
            left.unlink(missing_ok=True)
    return sorted(problems, key=lambda problem: problem.pose)


def _check_shard(arrays, start, shard, done):
    found = {}
    for array in arrays:
        whole = _read_or_none(array, slice(start, min(start + shard, array.shape[0])))
        for pose in done:
            text = _fault(array, int(pose), None if whole is None else whole[pose - start])
            if text:
                found.setdefault(int(pose), text)
    return [Problem(pose=pose, found=found[pose]) for pose in sorted(found)]


def _fault(array, pose, values):
    try:
        values = array[pose] if values is None else values
    except Exception as error:
        return f"{array.name.lstrip('/')} cannot be read ({type(error).__name__}: {error})"
    finite = array.name.lstrip("/") not in FIELDS or np.isfinite(values).all()
    return "" if finite else f"{array.name.lstrip('/')} is marked done and is not finite, or its file is gone"


def reset_volumes(study, poses) -> None:
    """Set poses back to pending, so that the next simulation solves them again. Only while no worker writes.

    Parameters
    ----------
    study : Study or path-like
    poses : sequence of int
    """
    path = locate(study, "volumes")
    array = open_group(path, "simulate", mode="r+")["status"]
    status, shard = read_status(study), array.chunks[0]
    status[np.asarray(poses, dtype=np.int64)] = Status.PENDING
    with disk_errors(f"resetting poses of {path}", path):
        for start in np.unique(np.asarray(poses, dtype=np.int64) // shard) * shard:
            place = slice(int(start), int(min(start + shard, len(status))))
            replace_shard(array, place, status[place])
