"""A file that is whole or not there: written beside its place, then renamed."""

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path, what):
    """Give a place beside `path` to write to; it becomes `path` when the block ends well, else it goes away.

    Parameters
    ----------
    path : path-like
        Its folder is made if it is not there.
    what : str
        What is written, for messages: ``"the mesh"``.

    Yields
    ------
    Path

    Raises
    ------
    OSError
        Where the system refuses, naming `what` and `path`, with the system's number.

    Examples
    --------
    >>> with whole_file("notes.txt", "the notes") as beside:                          # doctest: +SKIP
    ...     beside.write_text("all of it")
    """
    path = Path(path)
    beside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        # HDF5 tells of a full disk in many words, and not always with the system's number.
        told = f"writing {what} {path}: {error.strerror or error}"
        raise (OSError(error.errno, told) if error.errno else OSError(told)) from error
    finally:
        with suppress(OSError):  # the error above says what is wrong; this one would hide it
            beside.unlink(missing_ok=True)
