"""A guard before SciPy reads a MATLAB file that somebody else has sent.

SciPy takes the sizes in a MAT-file (level 5) at their word: a damaged count becomes an allocation of gigabytes, a deep
nesting or an unknown type of data the end of the process. `check_layout` goes through the file's elements in the order
in which SciPy does and asks of each that its type is known and its bytes are there. The layout is that of MathWorks'
description "MAT-File Format" (level 5).
"""

import struct
import zlib
from math import prod

_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_NUMERIC = range(6, 16)
_NAMES, _COUNTS = (1, 16), (5, 6)  # types of data elements; some programs write UTF-8 and unsigned counts
_NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)
_TEXTS = (*_NUMBERS, 16, 17, 18)
_DEEPEST = 30
_LARGEST = 1 << 28  # bytes, uncompressed: more than any list of poses has


class LayoutError(ValueError):
    """The bytes of a MAT-file are not what its counts say."""


def check_layout(data: bytes) -> None:
    """Refuse a level 5 MAT-file whose counts are not borne out by its bytes.

    Other levels pass: level 4 has one header per matrix, which SciPy checks itself, and it does not read level 7.3.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    LayoutError
        Where an element is of an unknown type or longer than the file, an array has more items than bytes, or elements
        are nested deeper than `_DEEPEST`.
    """
    if len(data) < 128 or 0 in data[:4] or 1 not in (data[124], data[125]):
        return
    order = "<" if data[126:128] == b"IM" else ">"
    spent, at = 0, 128
    while at < len(data):
        kind, size = _unpack(order + "II", data, at)
        at += 8
        body = data[at : at + size]
        if len(body) < size:
            raise LayoutError(f"an element at byte {at} is longer than the file")
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            body = unpacker.decompress(body, _LARGEST - spent + 1)
            spent += len(body)
            if spent > _LARGEST or not unpacker.eof:
                raise LayoutError(f"a variable at byte {at} is damaged, or larger than {_LARGEST >> 20} MiB")
            kind, _ = _unpack(order + "II", body, 0)
            body = body[8:]
        if kind != _MATRIX:
            raise LayoutError(f"an element of type {kind} at byte {at} is no variable")
        walk = _Walk(order, body)
        walk.matrix(0)
        at += size


def _unpack(form, data, at):
    try:
        return struct.unpack_from(form, data, at)
    except struct.error as error:
        raise LayoutError(f"the bytes end at {at}") from error


class _Walk:
    """Goes through one variable's elements, from `at` on."""

    def __init__(self, order, data):
        self.order, self.data, self.at = order, data, 0

    def element(self, types):
        """Bytes of the next data element, of one of these types; it may be a small one (within 8 bytes)."""
        (first,) = _unpack(self.order + "I", self.data, self.at)
        if first & 0xFFFF not in types:
            raise LayoutError(f"an element of type {first & 0xFFFF}")
        if first >> 16:
            start, size, self.at = self.at + 4, first >> 16, self.at + 8
            if size > 4:
                raise LayoutError(f"a small element of {size} bytes")
        else:
            (size,) = _unpack(self.order + "I", self.data, self.at + 4)
            start = self.at + 8
            self.at = start + size + -size % 8
        if start + size > len(self.data):
            raise LayoutError("an element is longer than its variable")
        return self.data[start : start + size]

    def nested(self, depth):
        kind, size = _unpack(self.order + "II", self.data, self.at)
        if kind != _MATRIX or depth >= _DEEPEST:
            raise LayoutError(f"an element of type {kind}, {depth} deep")
        self.at += 8
        if size:
            self.matrix(depth + 1)

    def matrix(self, depth):
        """Flags, dimensions, name and content of an array."""
        flag_bytes = self.element(_COUNTS)
        if len(flag_bytes) != 8:
            raise LayoutError(f"array flags of {len(flag_bytes)} bytes")
        (flags,) = _unpack(self.order + "I", flag_bytes, 0)
        kind, is_complex = flags & 0xFF, flags >> 11 & 1
        if kind == _OPAQUE:
            self.skip(3, _NAMES)
            self.nested(depth)
            return
        sizes = self.element(_COUNTS)
        dims = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
        self.skip(1, _NAMES)
        if min(dims, default=-1) < 0 or len(dims) > 32:
            raise LayoutError(f"an array of dimensions {dims[:8]}")
        if kind == _SPARSE:
            self.skip(3 + is_complex, _NUMBERS)
        elif kind in _NUMERIC or kind == _CHAR:
            content = self.element(_TEXTS if kind == _CHAR else _NUMBERS)
            self.enough(dims, 1, len(content))
            self.skip(is_complex and kind != _CHAR, _NUMBERS)
        else:
            self.children(kind, dims, depth)

    def children(self, kind, dims, depth):
        if kind == _FUNCTION:
            self.nested(depth)
            return
        if kind not in (_CELL, _STRUCT, _OBJECT):
            raise LayoutError(f"an array of class {kind}")
        fields = 1
        if kind != _CELL:
            self.skip(kind == _OBJECT, _NAMES)
            (length,) = _unpack(self.order + "i", self.element(_COUNTS).ljust(4, b"\0"), 0)
            names = self.element(_NAMES)
            if length <= 0 or len(names) % length:
                raise LayoutError(f"field names of length {length}")
            fields = len(names) // length
        self.enough(dims, 8 * max(fields, 1), len(self.data) - self.at)
        for _ in range(prod(dims) * fields):
            self.nested(depth)

    def skip(self, count, types):
        for _ in range(count):
            self.element(types)

    def enough(self, dims, each, there):
        if prod(dims) * each > max(there, 8):
            raise LayoutError(f"an array of dimensions {dims[:8]} with {there} bytes")
