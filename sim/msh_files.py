"""Gmsh 2.2 mesh files as SimNIBS writes them: ASCII or binary, plain or gzip.

Format: https://gmsh.info/doc/texinfo/gmsh.html (MSH file format, version 2). Coordinates in the file are millimetres.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from ..errors import MeshError
from .msh_blocks import TETRAHEDRON, line_number, next_line, read_elements, read_nodes

# A mesh shrinks some two to ten times in gzip; what would grow more than this is no mesh.
_MOST_GROWTH = 200
_CHUNK = 1 << 24


def read_msh(path):
    """Nodes, tetrahedra and tags of a Gmsh 2.2 file; elements of other types (surfaces) are passed over.

    Text and binary (either byte order), plain and gzip. Other sections (comments, physical names, node and element
    data) may stand anywhere; nodes and elements may be numbered and ordered in any way.

    Parameters
    ----------
    path : path-like
        ``.msh`` or ``.msh.gz``.

    Returns
    -------
    nodes : ndarray (n, 3), m
        Only those that a tetrahedron uses, in the file's order.
    tets : ndarray (m, 4) int32
    tag : ndarray (m,) int16
        First tag (the physical group) of each tetrahedron.

    Raises
    ------
    MeshError
        If the file is missing, damaged, cut short anywhere before the end of its nodes and elements, of another
        version, or holds no tetrahedra; the message names the line, node or element.

    Examples
    --------
    >>> nodes, tets, tag = read_msh("m2m_ernie/ernie.msh")                        # doctest: +SKIP
    """
    path = Path(path)
    try:
        return _compact(*_sections(_read_bytes(path), path), path)
    except MemoryError as error:
        raise MeshError(
            f"{path}: reading the mesh takes more memory than there is; is it a head mesh? Use a machine with more."
        ) from error


def _read_bytes(path):
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MeshError(f"{path}: the head mesh cannot be read ({reason}); check the path.") from error
    if data[:2] != b"\x1f\x8b":
        return data
    unpacked, most = bytearray(), _MOST_GROWTH * len(data) + _CHUNK
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                unpacked += chunk
                if len(unpacked) > most:
                    raise MeshError(
                        f"{path}: the gzip file grows more than {_MOST_GROWTH} times when unpacked, so it holds no "
                        "mesh; unpack it yourself and look."
                    )
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, MeshError):
            raise
        raise MeshError(f"{path}: the gzip file is damaged ({error}); copy or download it again.") from error
    return bytes(unpacked)


def _sections(data, path):
    """Node numbers, their places (mm), and rows of tetrahedra; what follows both is not looked at."""
    order = nodes = rows = None
    position = 0
    while position < len(data) and (nodes is None or rows is None):
        start = position
        name, position = next_line(data, position)
        if name == b"$MeshFormat":
            order, position = _read_format(data, position, path)
            position = _end(data, position, b"MeshFormat", path)
        elif name in (b"$Nodes", b"$Elements") and order is None:
            break
        elif name == b"$Nodes" and nodes is None:
            *nodes, position = read_nodes(data, position, order, path)
            position = _end(data, position, b"Nodes", path)
        elif name == b"$Elements" and rows is None:
            rows, position = read_elements(data, position, order, path)
            position = _end(data, position, b"Elements", path)
        elif name:
            position = _past_section(data, start, name, path, order is None)
    if order is None:
        raise _no_format(path)
    if nodes is None or rows is None:
        lacks = "$Nodes" if nodes is None else "$Elements"
        raise MeshError(f"{path}: cut short: the file ends without a section {lacks}; copy the file again.")
    if not len(rows):
        raise MeshError(f"{path}: holds no tetrahedra; a head model is a volume mesh, not surfaces alone.")
    return *nodes, rows


def _no_format(path):
    return MeshError(f"{path}: does not begin with $MeshFormat; expected a Gmsh 2.2 mesh as SimNIBS writes it.")


def _past_section(data, start, name, path, first):
    """Position behind a section that is not needed."""
    where = line_number(data, start)
    if not name.startswith(b"$") or name.startswith(b"$End") or name in (b"$Nodes", b"$Elements"):
        if first:
            raise _no_format(path)
        raise MeshError(
            f"{path}: line {where}: a section was expected, found {name[:40]!r}; the file is damaged; copy it again."
        )
    end = data.find(b"$End" + name[1:], start)
    if end < 0:
        if first:
            raise _no_format(path)
        raise MeshError(
            f"{path}: cut short: section {name[:40].decode(errors='replace')} of line {where} has no end, and nodes or "
            "elements are still missing; copy the file again."
        )
    return next_line(data, end)[1]


def _end(data, position, name, path):
    """Position behind the line that ends a section; some writers put no line feed before it, some do."""
    while data[position : position + 1] in (b"\n", b"\r", b" "):
        position += 1
    line, after = next_line(data, position)
    if line != b"$End" + name:
        word = name.decode()
        raise MeshError(
            f"{path}: ${word} is followed by {line[:40]!r} where $End{word} should stand, so its count is wrong or the "
            "file is cut short; copy it again, or save the mesh again."
        )
    return after


def _read_format(data, position, path):
    """Byte order of the numbers, empty for a text file."""
    line, position = next_line(data, position)
    fields = line.split()
    if len(fields) != 3 or fields[0].split(b".")[0] != b"2":
        found = fields[0][:40].decode(errors="replace") if fields else "nothing"
        raise MeshError(
            f"{path}: mesh format is {found}, not 2.2, which is the one that SimNIBS writes and motorsweep reads; "
            "save it again with `gmsh -format msh22 -save`."
        )
    if fields[1] == b"0":
        return "", position
    one = data[position : position + 4]
    order = {b"\1\0\0\0": "<", b"\0\0\0\1": ">"}.get(one)
    if fields[1] != b"1" or fields[2] != b"8" or order is None:
        raise MeshError(
            f"{path}: the header says {line[:40]!r} and {one!r}, which is neither text nor a binary mesh of 8-byte "
            "numbers in a known byte order; the file is damaged, or save it again as ASCII."
        )
    return order, position + 4


def _compact(numbers, places, rows, path):
    """Drop nodes that no tetrahedron uses, number the rest from 0, check what the solver relies on."""
    tag, corner = rows[:, 0], rows[:, 1:]
    wide = (tag < np.iinfo(np.int16).min) | (tag > np.iinfo(np.int16).max)
    if wide.any():
        first = int(np.argmax(wide))
        raise MeshError(
            f"{path}: tetrahedron {first + 1} has tag {tag[first]}, which is no tissue's; the file is damaged, or give "
            "the physical groups small numbers (SimNIBS: 1 white matter, 2 grey matter, ...)."
        )
    position = _positions(numbers, corner, path)
    used = np.zeros(len(numbers), bool)
    used[position] = True
    keep = np.flatnonzero(used)
    bad = ~np.isfinite(places[keep]).all(1)
    if bad.any():
        first = keep[np.argmax(bad)]
        raise MeshError(
            f"{path}: node {numbers[first]} lies at {places[first].tolist()} mm, which is not finite; the file is "
            "damaged; copy it again, or save the mesh again."
        )
    renumbered = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return places[keep] * 1e-3, renumbered[position], tag.astype(np.int16)


def _positions(numbers, corner, path):
    """Positions of node numbers among the nodes of the file, which may be in any order and with gaps."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        position = corner.astype(np.int64) - numbers[0]
        missing = (position < 0) | (position >= len(numbers))
    else:
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            raise MeshError(
                f"{path}: node number {ordered[twice[0]]} is there twice ({len(twice)} such), so elements have no "
                "certain place; the file is damaged, or two meshes were pasted together: merge them in Gmsh."
            )
        place = np.searchsorted(ordered, corner)
        missing = place == len(ordered)
        place[missing] = 0
        missing |= (ordered[place] != corner) if len(ordered) else True
        position = order[place] if len(ordered) else place
    if missing.any():
        first = int(np.argmax(missing.any(1)))
        lost = int(corner[first][missing[first]][0])
        raise MeshError(
            f"{path}: tetrahedron {first + 1} names a node that the file does not hold ({lost}); the file is damaged; "
            "copy it again, or save the mesh again."
        )
    return position


def write_msh(path, nodes, tets, tag):
    """Write a binary Gmsh 2.2 mesh that SimNIBS and Gmsh open.

    Parameters
    ----------
    path : path-like
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)
    tag : ndarray (m,)

    Examples
    --------
    >>> write_msh("head.msh", head.nodes, head.tets, head.tissue)                 # doctest: +SKIP
    """
    node_rows = np.empty(len(nodes), np.dtype([("number", "<i4"), ("place", "<f8", 3)]))
    node_rows["number"] = np.arange(1, len(nodes) + 1)
    node_rows["place"] = np.asarray(nodes) * 1e3
    rows = np.empty((len(tets), 7), "<i4")
    rows[:, 0] = np.arange(1, len(tets) + 1)
    rows[:, 1] = rows[:, 2] = tag
    rows[:, 3:] = np.asarray(tets) + 1
    with open(path, "wb") as file:
        file.write(b"$MeshFormat\n2.2 1 8\n" + np.int32(1).tobytes() + b"\n$EndMeshFormat\n")
        file.write(b"$Nodes\n%d\n" % len(nodes) + node_rows.tobytes() + b"\n$EndNodes\n")
        header = np.array([TETRAHEDRON, len(tets), 2], "<i4").tobytes()
        file.write(b"$Elements\n%d\n" % len(tets) + header + rows.tobytes() + b"\n$EndElements\n")
