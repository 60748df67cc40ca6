"""Node and element blocks of Gmsh 2.2 mesh files, text or binary, read without trust in any count that they state."""

import io

import numba
import numpy as np

from ..errors import MeshError

TETRAHEDRON = 4
# Gmsh element type: number of nodes (https://gmsh.info/doc/texinfo/gmsh.html, MSH file format, version 2).
_NODES_OF_TYPE = {
    **{1: 2, 2: 3, 3: 4, 4: 4, 5: 8, 6: 6, 7: 5, 8: 3, 9: 6, 10: 9, 11: 10, 12: 27, 13: 18, 14: 14, 15: 1},
    **{16: 8, 17: 20, 18: 15, 19: 13, 20: 9, 21: 10, 22: 12, 23: 15, 24: 15, 25: 21, 26: 4, 27: 5, 28: 6},
    **{29: 20, 30: 35, 31: 56, 92: 64, 93: 125},
}
# Types that fill space and are not the tetrahedra that are read: passing over them would leave holes in the head.
_OTHER_VOLUMES = {
    **{5: "hexahedra", 6: "prisms", 7: "pyramids", 11: "second-order tetrahedra", 12: "second-order hexahedra"},
    **{13: "second-order prisms", 14: "second-order pyramids", 17: "second-order hexahedra"},
    **{18: "second-order prisms", 19: "second-order pyramids", 29: "third-order tetrahedra"},
    **{30: "fourth-order tetrahedra", 31: "fifth-order tetrahedra"},
    **{92: "third-order hexahedra", 93: "fourth-order hexahedra"},
}
_SIZES = np.zeros(max(_NODES_OF_TYPE) + 1, np.int64)
_SIZES[list(_NODES_OF_TYPE)] = list(_NODES_OF_TYPE.values())
_FILLS = np.zeros(len(_SIZES), np.bool_)
_FILLS[list(_OTHER_VOLUMES)] = True
# More tags than any partitioned mesh has; a larger number is damage.
_MOST_TAGS = 255
_FIELDS = 3 + _MOST_TAGS + int(_SIZES.max())
# What became of a walk over the elements.
_WELL, _NO_NUMBER, _CUT, _WRONG_LENGTH, _NO_TETRAHEDRON = range(5)


def line_number(data, position):
    """Line of a file's byte, from 1.

    Examples
    --------
    >>> line_number(b"one", 2)
    1
    """
    return data.count(b"\n", 0, position) + 1


def next_line(data, position):
    r"""Text up to the end of the line, and the position behind it.

    Examples
    --------
    >>> next_line(b"one \nother", 0)
    (b'one', 5)
    """
    end = data.find(b"\n", position)
    end = len(data) if end < 0 else end
    return data[position:end].strip(), min(end + 1, len(data))


def read_count(data, position, path, what):
    r"""Return the number that opens a block, and the position of what follows.

    Raises
    ------
    MeshError
        If there is no positive whole number.

    Examples
    --------
    >>> read_count(b"12\n", 0, "head.msh", "nodes")
    (12, 3)
    """
    line, after = next_line(data, position)
    try:
        count = int(line)
    except ValueError:
        count = -1
    if count < 0:
        where = line_number(data, position)
        raise MeshError(f"{path}: line {where}: the number of {what} reads {line[:40]!r}; {_damaged()}.")
    return count, after


def read_nodes(data, position, order, path):
    """Nodes block.

    Parameters
    ----------
    data : bytes
        The file.
    position : int
        Behind the line ``$Nodes``.
    order : str
        ``"<"`` or ``">"`` for a binary file's byte order, empty for text.
    path : path-like
        For messages.

    Returns
    -------
    numbers : ndarray (n,) int64
    places : ndarray (n, 3), mm
    position : int
        Behind the block.

    Raises
    ------
    MeshError
        If the block is cut short or a node is not a number and three coordinates.

    Examples
    --------
    >>> read_nodes(data, data.index(b"$Nodes") + 7, "", "head.msh")               # doctest: +SKIP
    """
    count, position = read_count(data, position, path, "nodes")
    if not order:
        return _text_nodes(data, position, count, path)
    layout = np.dtype([("number", order + "i4"), ("place", order + "f8", 3)])
    if count * layout.itemsize > len(data) - position:
        raise _cut_short(path, "nodes", (len(data) - position) // layout.itemsize, count)
    table = np.frombuffer(data, layout, count, position)
    return table["number"].astype(np.int64), table["place"].astype(float), position + count * layout.itemsize


def _text_nodes(data, position, count, path):
    end = data.find(b"$", position)
    block = data[position : len(data) if end < 0 else end]
    rows = block.count(b"\n") + (not block.endswith(b"\n"))
    if rows < count or end < 0:
        raise _cut_short(path, "nodes", rows, count)
    if not count:
        return np.empty(0, np.int64), np.empty((0, 3)), end
    try:
        table = np.loadtxt(
            io.StringIO(block.decode("latin-1")), [("number", "i8"), ("place", "f8", 3)], comments=None, ndmin=1
        )
    except (ValueError, OverflowError) as error:
        raise _bad_node(data, position, block, path) from error
    if len(table) != count:
        raise MeshError(f"{path}: holds {len(table)} nodes but states {count}; {_damaged()}.")
    return table["number"], table["place"], end


def _bad_node(data, position, block, path):
    """Name the line that the fast reader of the whole block stumbled over."""
    first = line_number(data, position)
    for row, line in enumerate(block.splitlines()):
        fields = line.split()
        try:
            int(fields[0]), [float(field) for field in fields]
            good = len(fields) == 4
        except (ValueError, IndexError):
            good = not fields
        if not good:
            return MeshError(f"{path}: line {first + row}: {line[:60]!r} is not a node 'number x y z'; {_damaged()}.")
    return MeshError(f"{path}: the nodes from line {first} on cannot be read; {_damaged()}.")


def read_elements(data, position, order, path):
    """Elements block; elements that are no volume (surfaces, lines, points) are passed over.

    Parameters
    ----------
    data, position, order, path
        As for `read_nodes`, behind the line ``$Elements``.

    Returns
    -------
    rows : ndarray (m, 5) int32
        First tag and four node numbers of each tetrahedron; the tag is 0 where an element has none.
    position : int
        Behind the block.

    Raises
    ------
    MeshError
        If the block is cut short, an element cannot be read, or there are volume elements that are no tetrahedra.

    Examples
    --------
    >>> read_elements(data, data.index(b"$Elements") + 10, "<", "head.msh")       # doctest: +SKIP
    """
    count, start = read_count(data, position, path, "elements")
    # No element takes fewer bytes: this bounds what a damaged count can ask for.
    if count * 8 > len(data) - start:
        raise _cut_short(path, "elements", None, count)
    if order:
        block = np.frombuffer(data, order + "i4", (len(data) - start) // 4, start).astype(np.int32)
        tally = _walk_binary(block, count, np.empty((0, 5), np.int32), _SIZES, _FILLS)
        rows = np.empty((tally[1], 5), np.int32)
        state, found, done, used, kind = _walk_binary(block, count, rows, _SIZES, _FILLS)
        used *= 4
    else:
        rows = np.empty((count, 5), np.int32)
        text = np.frombuffer(data, np.uint8, offset=start)
        state, found, done, used, kind = _walk_text(text, count, rows, _SIZES, _FILLS)
    if state != _WELL:
        raise _bad_element(data, start + used, state, done, count, kind, bool(order), path)
    return rows[:found], start + used


def _bad_element(data, position, state, done, count, kind, binary, path):
    if state == _CUT:
        return _cut_short(path, "elements", done, count)
    if state == _NO_TETRAHEDRON:
        return MeshError(
            f"{path}: element {done + 1} of {count} is of Gmsh's type {kind} ({_OTHER_VOLUMES[kind]}); only "
            "first-order tetrahedra are read, and without it the head would have a hole. Mesh the volumes "
            "with tetrahedra of order 1 (in Gmsh: Mesh.ElementOrder = 1, no recombination)."
        )
    if binary:
        words = np.frombuffer(data, "<i4", min(3, (len(data) - position) // 4), position).tolist()
        return MeshError(
            f"{path}: element block {words} (type, number, tags) after {done} of {count} elements is not valid; "
            f"{_damaged()}."
        )
    line, _ = next_line(data, position)
    what = "does not have the numbers of its type" if state == _WRONG_LENGTH else "is not whole numbers"
    where = line_number(data, position)
    return MeshError(f"{path}: line {where}: element {line[:60]!r} cannot be read, as it {what}; {_damaged()}.")


def _cut_short(path, what, there, count):
    there = "too few" if there is None else there
    return MeshError(
        f"{path}: cut short: {there} of {count} {what} are there, so part of the head is missing; copy the file again."
    )


def _damaged():
    return "the file is damaged; copy it again, or save the mesh again"


@numba.njit(cache=True)
def _walk_binary(block, count, rows, sizes, fills):
    """Follow the blocks; with no rows to fill, count the tetrahedra. State, tetrahedra, elements, words used, type."""
    place, done, found = 0, 0, 0
    while done < count:
        if place + 3 > len(block):
            return _CUT, found, done, place, 0
        kind, many, tags = block[place], np.int64(block[place + 1]), np.int64(block[place + 2])
        if kind <= 0 or kind >= len(sizes) or sizes[kind] == 0 or not 0 < many <= count - done:
            return _NO_NUMBER, found, done, place, kind
        if not 0 <= tags <= _MOST_TAGS:
            return _NO_NUMBER, found, done, place, kind
        if fills[kind]:
            return _NO_TETRAHEDRON, found, done, place, kind
        width = 1 + tags + sizes[kind]
        if many * width > len(block) - place - 3:
            return _CUT, found, done, place, kind
        if kind == TETRAHEDRON:
            if len(rows):
                for e in range(many):
                    first = place + 3 + e * width
                    rows[found + e, 0] = block[first + 1] if tags else 0
                    for k in range(4):
                        rows[found + e, 1 + k] = block[first + 1 + tags + k]
            found += many
        place += 3 + many * width
        done += many
    return _WELL, found, done, place, 0


@numba.njit(cache=True)
def _walk_text(text, count, rows, sizes, fills):
    """Follow the lines. State, tetrahedra, elements, bytes used (up to the bad line), type."""
    fields = np.empty(_FIELDS, np.int64)
    place, found = 0, 0
    for done in range(count):
        state, many, after = _line_of_integers(text, place, fields)
        if state != _WELL:
            return state, found, done, place, 0
        kind = fields[1] if many > 1 else 0
        if many < 3 or kind <= 0 or not 0 <= fields[2] <= _MOST_TAGS:
            return _WRONG_LENGTH, found, done, place, kind
        if kind < len(sizes) and sizes[kind]:
            if many != 3 + fields[2] + sizes[kind]:
                return _WRONG_LENGTH, found, done, place, kind
            if fills[kind]:
                return _NO_TETRAHEDRON, found, done, place, kind
        if kind == TETRAHEDRON:
            rows[found, 0] = fields[3] if fields[2] else 0
            for k in range(4):
                rows[found, 1 + k] = fields[3 + fields[2] + k]
            found += 1
        place = after
    return _WELL, found, count, place, 0


@numba.njit(cache=True)
def _line_of_integers(text, place, fields):
    """State, number of fields and the start of the next line; only 32-bit integers are numbers here."""
    many, digits, value, negative = 0, 0, np.int64(0), False
    token = False
    while True:
        letter = text[place] if place < len(text) else 10
        if 48 <= letter <= 57:
            digits, token = digits + 1, True
            value = value * 10 + (letter - 48)
            if value > 2147483647:
                return _NO_NUMBER, many, place
        elif letter == 45 and not token:
            negative, token = True, True
        elif letter == 32 or letter == 9 or letter == 13 or letter == 10:
            if token:
                if digits == 0 or many == len(fields):
                    return _NO_NUMBER, many, place
                fields[many] = -value if negative else value
                many += 1
                digits, value, negative, token = 0, np.int64(0), False, False
            if letter == 10:
                break
        elif letter == 36 and many == 0 and not token:
            return _CUT, many, place
        else:
            return _NO_NUMBER, many, place
        place += 1
    if place >= len(text):
        return _CUT, many, place
    return _WELL, many, place + 1
