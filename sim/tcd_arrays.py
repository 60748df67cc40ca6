"""Arrays in ``.tcd`` files: nested lists of numbers, or text that encodes their bytes."""

import base64
import binascii
import zlib

import numpy as np

from ..errors import CoilError

_LARGEST = 256_000_000  # bytes of one array; twenty thousand times a usual coil's


def vectors(array, where: str, name: str) -> np.ndarray:
    """Vectors (n, 3), finite, at least one."""
    values = _decoded(array, np.float64, where, name) if isinstance(array, str) else numbers(array, where, name)
    if values.ndim != 2 or values.shape[1] != 3 or not len(values):
        raise CoilError(f"{where}: {name!r} is {values.shape}, but must be (n, 3), one vector each. Export it again.")
    return values


def triangles(array, count: int, where: str) -> np.ndarray:
    """Corners of triangles (t, 3), indices of `count` points."""
    if isinstance(array, str):
        corners = _decoded(array, np.int64, where, "faces")
    else:
        corners = numbers(array, where, "faces")
    if corners.ndim != 2 or corners.shape[1] != 3 or (corners != np.floor(corners)).any():
        raise CoilError(f"{where}: 'faces' is {corners.shape}, but must be (t, 3) whole numbers. Export it again.")
    if corners.size and not (corners.min() >= 0 and corners.max() < count):
        raise CoilError(
            f"{where}: a triangle has corner {corners.max():g} of {count} points (the first is 0), so the surface "
            "cannot be drawn. Correct the faces, or remove the casing."
        )
    return corners.astype(np.int64)


def numbers(array, where: str, name: str) -> np.ndarray:
    """Nested lists as an array of finite numbers."""
    try:
        values = np.array(array)
        if values.dtype.kind not in "fiu":
            raise ValueError("not all of it is numbers")
        values = values.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise CoilError(
            f"{where}: {name!r} cannot be read as an array ({str(error)[:120]}). Correct the entry that is longer, "
            "shorter or no number."
        ) from error
    return _finite(values, where, name)


def _finite(values, where, name):
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise CoilError(f"{where}: {name!r} holds NaN or infinity, which would spoil the field everywhere. Correct it.")
    return values


def _decoded(text, dtype, where, name):
    """Rows of three from Base64 of the bytes, as older files have it, or of the bytes deflated."""
    try:
        raw = base64.b64decode(text, validate=True)
        # zlib's first two bytes: method 8 with a window of 32 KiB, and a check modulo 31
        if len(raw) > 2 and raw[0] == 0x78 and (256 * raw[0] + raw[1]) % 31 == 0:
            inflate = zlib.decompressobj()
            raw = inflate.decompress(raw, _LARGEST)
            if not inflate.eof:
                raise ValueError(f"{len(raw)} bytes and no end")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise CoilError(
            f"{where}: {name!r} is not the Base64 text of an array ({error}), so the file is damaged. Get it again."
        ) from error
    if len(raw) % 24:
        raise CoilError(
            f"{where}: {name!r} decodes to {len(raw)} bytes, which are no whole number of vectors of three; the file "
            "is truncated. Get it again."
        )
    values = np.frombuffer(raw, dtype=np.dtype(dtype).newbyteorder("<")).reshape(-1, 3).astype(dtype)
    return _finite(values, where, name)


def transform(points, matrix) -> np.ndarray:
    """Points (..., 3) moved by a matrix (4, 4)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]
