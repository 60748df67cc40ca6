"""Writing so that a reader sees the old file or the new one, never half of one; and saying so when a disk is full."""

import errno
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreError

# EFBIG is what a file-size limit (ulimit -f) gives; for the user it is the same trouble.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_GIB = 2.0**30


@contextmanager
def disk_errors(what: str, path):
    """Turn an OSError of the block into a StoreError that names the disk; its ``errno`` is kept on the new error.

    Parameters
    ----------
    what : str
        What was being done, with its id; opens the message.
    path : path-like
        What was being written.

    Raises
    ------
    StoreError
        With ``.errno`` of the cause (one of `DISK_FULL` when there is no room), also after pickling.
    """
    try:
        yield
    except OSError as error:
        raise _store_error(what, Path(path), error) from error


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an exception means that a disk, quota or file-size limit is exhausted.

    Examples
    --------
    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    """
    return getattr(error, "errno", None) in DISK_FULL


def _store_error(what, path, error):
    if error.errno in DISK_FULL:
        text = (
            f"{what}: {_disk_of(path)} has no room for it ({error.strerror}). Nothing that was finished before is lost "
            "and this piece counts as not done. Make room, or raise the quota or file-size limit, then run the same "
            "command again"
        )
    else:
        text = f"{what}: {error}. The piece counts as not done; check {path}, then run the same command again"
    raised = StoreError(text)
    raised.errno = error.errno
    return raised


def _disk_of(path):
    place = path
    while not place.exists():
        place = place.parent
    mount = place.resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    usage = shutil.disk_usage(place)
    room = f"{usage.free / _GIB:.2f} of {usage.total / _GIB:.2f} GiB free"
    return f"the disk mounted at {mount} ({room}) that holds {path}"


def atomic_write_bytes(path, data: bytes) -> None:
    """Write a file whole: beside its place, to the disk, then renamed over what was there.

    Parameters
    ----------
    path : path-like
        The file; its folder is made if need be.
    data : bytes

    Raises
    ------
    StoreError
        Where the disk refuses; the old file is then untouched.

    Examples
    --------
    >>> atomic_write_bytes("studies/quick/notes.bin", b"data")        # doctest: +SKIP
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with disk_errors(f"writing {path.name}", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def atomic_write_text(path, text: str) -> None:
    """Write a UTF-8 text file whole; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def folder_in_the_making(making, target, replace: bool = True):
    """Give a fresh folder beside `target`; it takes the target's place when the block ends well, else it goes away.

    Parameters
    ----------
    making : path-like
        Folder for what is not finished, on the same file system as `target`.
    target : path-like
        What is replaced, or made. Between the two renames of a replacement there is an instant without `target`; a
        kill in it leaves the old one in `making`, from where `put_back` takes it.
    replace : bool
        If not, a `target` that is there already, or comes to be meanwhile, is left, and the new folder goes away.

    Yields
    ------
    Path
        An empty place to write to; not yet made.
    """
    making, target = Path(making), Path(target)
    making.mkdir(parents=True, exist_ok=True)
    mark = f"{target.name}-{os.getpid()}-{secrets.token_hex(4)}"
    beside, old = making / mark, making / f"old-{mark}"
    try:
        yield beside
        target.parent.mkdir(parents=True, exist_ok=True)
        if replace and target.exists():
            os.rename(target, old)
        _rename_folder(beside, target, replace)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def put_back(making, target) -> bool:
    """Undo a replacement by `folder_in_the_making` that was killed between its two renames: the old folder comes back.

    Only while nobody writes `target`.

    Returns
    -------
    bool
        Whether there was one.
    """
    making, target = Path(making), Path(target)
    left = sorted(making.glob(f"old-{target.name}-*"))
    if target.exists() or not left:
        return False
    os.rename(left[-1], target)
    return True


def _rename_folder(beside, target, replace):
    # The system refuses to rename a folder over one that is not empty, so of two writers exactly one comes first.
    try:
        os.rename(beside, target)
    except OSError as error:
        if replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
