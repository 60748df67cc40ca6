"""Who is who: content hashes of everything that can change the numbers, and the provenance that is not hashed."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..errors import StoreError

NUMERICS_VERSION = 4
"""Raised by hand when a change of code changes numbers; part of the specs, so that old results do not pass for new.

Another rounding of the same sums does not count where it stays far below that of the float32 that is stored, 6e-8.
"""

ID_LENGTH = 16
_REPOSITORY = Path(__file__).resolve().parent.parent
_VERSIONED = ("numpy", "scipy", "torch", "petsc4py", "zarr", "xarray")


def content_id(value) -> str:
    """Hash a nested plain value: the first 16 hex digits of the SHA-256 of its canonical JSON.

    Parameters
    ----------
    value : None, bool, int, float, str, mapping with str keys, list, tuple or dataclass, nested at will
        Numpy scalars count as their Python value, tuples as lists, a dataclass as the mapping of its fields, so
        that a value has the same id before it is stored as JSON and after it is read back.

    Returns
    -------
    str
        16 hexadecimal digits; the order of keys does not matter, the type of a number does (``1`` is not ``1.0``).

    Raises
    ------
    StoreError
        For NaN, infinity and types that have no canonical text (paths, arrays, sets, objects); the message names
        where in the value it sits.

    Examples
    --------
    >>> content_id({"depth": 3, "connection": "direct"}) == content_id({"connection": "direct", "depth": 3})
    True
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:ID_LENGTH]


def plain(value, where: str = "value"):
    """Turn `value` into what JSON can hold exactly: None, bool, int, float, str, lists and str-keyed dicts.

    Parameters
    ----------
    value : nested plain value
        See `content_id`.
    where : str
        Name of the value in error messages.

    Raises
    ------
    StoreError
        For non-finite numbers and types without a canonical text.

    Examples
    --------
    >>> plain({"shape": (2, np.int64(3))})
    {'shape': [2, 3]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise StoreError(
                    f"hashing {where}: the key {key!r} is a {type(key).__name__}; JSON has text keys only, so the id "
                    "would change once the value is stored and read back. Use a str key"
                )
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return _plain_scalar(value, where)


def _plain_scalar(value, where):
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise StoreError(
                f"hashing {where}: {value} is not a finite number; it does not equal itself or has no JSON text, so "
                "nothing could be found again under such an id. Leave the key out, or use None"
            )
        return float(value)
    hint = "hash arrays with array_id and put that id here" if isinstance(value, np.ndarray) else "use plain values"
    raise StoreError(
        f"hashing {where}: a {type(value).__name__} has no canonical text, so its id could differ between "
        f"processes and machines; {hint}"
    )


def array_id(*arrays) -> str:
    """Hash arrays by dtype, shape and bytes (C order, little-endian): 16 hex digits.

    Parameters
    ----------
    *arrays : array_like
        Numeric or bool arrays of any shape; NaN is allowed (its bytes are hashed).

    Raises
    ------
    StoreError
        For object arrays, whose bytes are addresses.

    Examples
    --------
    >>> array_id(np.zeros(2)) == array_id(np.zeros((2, 1)))
    False
    """
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        if array.dtype.hasobject:
            raise StoreError(
                f"hashing an array of dtype {array.dtype}: its bytes are addresses, so its id would differ on every "
                "run. Give a numeric array, or hash the values with content_id"
            )
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
        digest.update(f"{array.dtype.str}{array.shape};".encode("ascii"))
        digest.update(array.reshape(-1).view(np.uint8) if array.size else b"")
    return digest.hexdigest()[:ID_LENGTH]


def folder_id(path) -> str:
    """Hash a folder by the names and bytes of its files: 16 hex digits, or ``""`` where there is none.

    Examples
    --------
    >>> folder_id("no/such/folder")
    ''
    """
    path = Path(path)
    if not path.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()};{file.stat().st_size};".encode() + file.read_bytes())
    return digest.hexdigest()[:ID_LENGTH]


def provenance() -> dict:
    """Tell which code, packages and machine are at work: plain values for records, never part of an id.

    Returns
    -------
    dict
        ``version`` and ``numerics`` of motorsweep, ``commit`` and ``dirty`` (None where the package does not lie in
        its own git checkout), ``python``, ``packages`` (versions of the numeric packages that are already loaded;
        none is imported for this), ``host``, ``pid``, ``slurm_job_id`` (None outside SLURM).

    Examples
    --------
    >>> provenance()["numerics"] == NUMERICS_VERSION
    True
    """
    from .. import __version__

    commit, dirty = _git_state()
    loaded = {name: sys.modules[name] for name in _VERSIONED if name in sys.modules}
    return {
        "version": __version__,
        "numerics": NUMERICS_VERSION,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items()},
        "host": platform.node(),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


@functools.lru_cache(maxsize=1)
def _git_state():
    # Only a checkout of motorsweep itself: an installed copy may lie inside a repository of something else.
    if not (_REPOSITORY / ".git").exists():
        return None, None
    try:
        commit = _git("rev-parse", "HEAD").strip()
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(*words):
    command = ["git", "-C", str(_REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
