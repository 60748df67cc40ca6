"""Where an export or a picture may be written: never over what the study needs, and only where a file can be."""

import os
import tempfile
from pathlib import Path

from ..errors import ConfigError, InputError
from .config import parse_study
from .tables import BUILTIN_COILS, BUILTIN_HEADS

_SOURCES = {
    "head": ("source", BUILTIN_HEADS, "the head"),
    "coil": ("source", BUILTIN_COILS, "the coil"),
    "poses": ("file", (), "the poses"),
    "volume": ("mask_file", (), "the motor mask"),
    "responses": ("file", (), "the responses"),
}


def check_destination(out, opened, verb):
    """Refuse a place that cannot be written, or where a file of the study is, before anything is computed.

    Parameters
    ----------
    out : path-like
        The file to be written; a folder that is not there yet will do only within the study's ``exports``.
    opened : OpenedStudy
    verb : str
        The command, for messages.

    Raises
    ------
    InputError
        Saying what is in the way.

    Examples
    --------
    >>> check_destination("pose.msh", OpenedStudy("studies/quick"), "export")         # doctest: +SKIP
    """
    out = Path(out)
    try:
        _check_not_of_study(out, opened, verb)
        _check_writable(out, opened.study.exports, verb)
    except OSError as error:
        raise InputError(
            f"{verb}: {out} cannot be written ({error.strerror or error}); give --out a file in a folder where you may "
            "write."
        ) from error


def _check_not_of_study(out, opened, verb):
    advice = "a file of the study would be lost; give --out another name."
    place, folder = Path(os.path.realpath(out)), Path(os.path.realpath(opened.study.folder))
    exports = Path(os.path.realpath(opened.study.exports))
    for what, path in _inputs(opened):
        # A path that starts at a study file's folder is not known where only the study's folder was given: the name is.
        if _same(out, path) if path.is_absolute() else out.exists() and out.name == path.name:
            raise InputError(f"{verb}: {out} is {what} ({path}) that the study is computed from: {advice}")
    if place.is_relative_to(folder) and not (place.is_relative_to(exports) and place != exports):
        raise InputError(
            f"{verb}: {out} lies in the study's own folder {folder}, of which only {exports.name} is for such files; "
            "give --out a name there, or outside of the study's folder."
        )


def _inputs(opened):
    """What each file that the study is computed from is, and its path."""
    if opened.given.is_dir():
        try:
            tables = parse_study(opened.study.config.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, ConfigError):
            return  # an image needs no study file; the folder is kept from it below
    else:
        tables = opened.config
        yield "the study file", Path(opened.config.path)
    for table, (key, builtin, what) in _SOURCES.items():
        value = getattr(getattr(tables, table), key)
        if value and value not in builtin:
            yield f"the file of {what}", Path(os.path.expandvars(value)).expanduser()


def _same(one, other):
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def _check_writable(out, exports, verb):
    if out.is_dir():
        raise InputError(f"{verb}: {out} is a folder; give --out the name of a file in it.")
    folder = out.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{verb}: {folder} is a file, so nothing can be written in it as in a folder ({out}).")
    if folder != out.absolute().parent and out.absolute().parent != exports:
        raise InputError(
            f"{verb}: there is no folder {out.absolute().parent} for {out.name}; make it first, or mend --out."
        )
    # Asked of the disk: the rights of a file say little to root, on a read-only disk or under a quota. The name is as
    # long as that of the unfinished file.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{os.getpid()}-", suffix=f"-{out.name}"):
        pass
