"""Gmsh 2.2 mesh files as SimNIBS writes them: ASCII or binary, plain or gzip.

Format: https://gmsh.info/doc/texinfo/gmsh.html (MSH file format, version 2). Coordinates in the file are millimetres.
"""

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from ..errors import MeshError

# Gmsh element type: number of nodes.
_NODES_OF_TYPE = {1: 2, 2: 3, 3: 4, 4: 4, 5: 8, 6: 6, 7: 5, 8: 3, 9: 6, 10: 9, 11: 10, 15: 1}
_TETRAHEDRON = 4


def read_msh(path):
    """Nodes, tetrahedra and tags of a Gmsh 2.2 file; elements of other types (surfaces) are passed over.

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
        If the file is missing, truncated, of another version, or holds no tetrahedra.

    Examples
    --------
    >>> nodes, tets, tag = read_msh("m2m_ernie/ernie.msh")                        # doctest: +SKIP
    """
    path = Path(path)
    data = _read_bytes(path)
    stream = io.BytesIO(data)
    nodes = elements = None
    binary = _read_format(stream, path)
    while section := stream.readline():
        name = section.strip()
        if name == b"$Nodes":
            nodes = _read_nodes(stream, binary, path)
        elif name == b"$Elements":
            elements = _read_elements(stream, binary, path)
        elif name.startswith(b"$") and not name.startswith(b"$End") and nodes is not None and elements is not None:
            break
    if nodes is None or elements is None:
        raise MeshError(f"{path}: the file ends before its nodes and elements are complete; it seems to be cut short.")
    return _compact(*nodes, *elements, path)


def _read_bytes(path):
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MeshError(f"{path}: the head mesh cannot be read ({error.strerror}); check the path.") from error
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise MeshError(f"{path}: the gzip file is damaged ({error}); copy or download it again.") from error


def _read_format(stream, path):
    if stream.readline().strip() != b"$MeshFormat":
        raise MeshError(f"{path}: does not begin with $MeshFormat; expected a Gmsh 2.2 mesh as SimNIBS writes it.")
    fields = stream.readline().split()
    if len(fields) != 3 or not fields[0].startswith(b"2."):
        found = fields[0].decode(errors="replace") if fields else "nothing"
        raise MeshError(
            f"{path}: mesh format is {found}, not 2.2, which is the one that SimNIBS writes and motorsweep reads; "
            "save it again with `gmsh -format msh22 -save`."
        )
    binary = fields[1] == b"1"
    if binary:
        if stream.read(4) != np.int32(1).tobytes():
            raise MeshError(
                f"{path}: the binary mesh has another byte order than this machine; save it again as ASCII."
            )
        stream.readline()
    return binary


def _count(stream, path, what):
    line = stream.readline().strip()
    try:
        count = int(line)
    except ValueError:
        count = -1
    if count < 0:
        raise MeshError(f"{path}: the number of {what} reads {line[:40]!r}; the file is damaged.")
    return count


def _take(stream, size, path, what):
    data = stream.read(size)
    if len(data) != size:
        raise MeshError(f"{path}: cut short within its {what}: {len(data)} of {size} bytes are there; copy it again.")
    return data


def _read_nodes(stream, binary, path):
    count = _count(stream, path, "nodes")
    if binary:
        layout = np.dtype([("number", "<i4"), ("place", "<f8", 3)])
        table = np.frombuffer(_take(stream, count * layout.itemsize, path, "nodes"), layout)
        return table["number"].astype(np.int64), table["place"]
    text = _ascii_rows(stream, count, path, "nodes")
    try:
        table = np.array([row.split() for row in text], dtype=float).reshape(count, 4)
    except ValueError as error:
        raise MeshError(f"{path}: a node is not 'number x y z' ({error}); the file is damaged.") from error
    return table[:, 0].astype(np.int64), table[:, 1:]


def _ascii_rows(stream, count, path, what):
    rows = []
    for _ in range(count):
        row = stream.readline()
        if not row or row.startswith(b"$"):
            raise MeshError(f"{path}: cut short: {len(rows)} of {count} {what} are there; copy it again.")
        rows.append(row)
    return rows


def _read_elements(stream, binary, path):
    count = _count(stream, path, "elements")
    rows = _binary_elements(stream, count, path) if binary else _ascii_elements(stream, count, path)
    if not len(rows):
        raise MeshError(f"{path}: holds no tetrahedra; a head model is a volume mesh, not surfaces alone.")
    return rows[:, 0], rows[:, 1:]


def _binary_elements(stream, count, path):
    blocks, done = [], 0
    while done < count:
        kind, n, n_tags = np.frombuffer(_take(stream, 12, path, "elements"), "<i4")
        if kind not in _NODES_OF_TYPE or n <= 0 or not 0 <= n_tags <= 16:
            raise MeshError(
                f"{path}: element block {kind}/{n}/{n_tags} after {done} elements is not valid; damaged file."
            )
        width = 1 + int(n_tags) + _NODES_OF_TYPE[int(kind)]
        block = np.frombuffer(_take(stream, 4 * width * int(n), path, "elements"), "<i4").reshape(int(n), width)
        if kind == _TETRAHEDRON:
            tag = block[:, 1:2] if n_tags else np.zeros((len(block), 1), "<i4")
            blocks.append(np.hstack([tag, block[:, 1 + n_tags :]]))
        done += int(n)
    return np.concatenate(blocks).astype(np.int64) if blocks else np.empty((0, 5), np.int64)


def _ascii_elements(stream, count, path):
    found = []
    for row in _ascii_rows(stream, count, path, "elements"):
        fields = row.split()
        try:
            if int(fields[1]) != _TETRAHEDRON:
                continue
            n_tags = int(fields[2])
            tag = int(fields[3]) if n_tags else 0
            found.append([tag, *(int(f) for f in fields[3 + n_tags : 7 + n_tags])])
        except (IndexError, ValueError) as error:
            raise MeshError(f"{path}: element line {row[:60]!r} cannot be read; the file is damaged.") from error
    if any(len(row) != 5 for row in found):
        raise MeshError(f"{path}: a tetrahedron has not four nodes; the file is damaged.")
    return np.array(found, np.int64).reshape(-1, 5)


def _compact(numbers, places, tag, corner, path):
    used = np.unique(corner)
    order = np.argsort(numbers, kind="stable")
    position = np.searchsorted(numbers[order], used)
    inside = position < len(numbers)
    if not inside.all() or (numbers[order][position] != used).any():
        raise MeshError(f"{path}: a tetrahedron names a node that the file does not hold; the file is damaged.")
    keep = np.sort(order[position])
    lookup = positions_of(numbers[keep])
    nodes = np.ascontiguousarray(places[keep], dtype=float) * 1e-3
    return nodes, lookup(corner).astype(np.int32), tag.astype(np.int16)


def positions_of(numbers):
    """Function from node numbers to positions in `numbers`, which may be in any order.

    Parameters
    ----------
    numbers : ndarray (n,) of distinct int

    Returns
    -------
    callable

    Examples
    --------
    >>> positions_of(np.array([7, 3]))(np.array([3, 7, 7])).tolist()
    [1, 0, 0]
    """
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    return lambda wanted: order[np.searchsorted(ordered, wanted)]


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
        header = np.array([_TETRAHEDRON, len(tets), 2], "<i4").tobytes()
        file.write(b"$Elements\n%d\n" % len(tets) + header + rows.tobytes() + b"\n$EndElements\n")
