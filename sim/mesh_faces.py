"""How the elements of a tetrahedral mesh meet at their faces: in about a second for 2 M elements.

Current crosses from one element to the next through the face that they share. So elements are followed through their
faces: parts that touch at a node or an edge alone are as good as apart.
"""

from dataclasses import dataclass

import numba
import numpy as np

# Corners of the face opposite to each corner, normals outward in a positively oriented tetrahedron.
# A face that many elements name is a fault whatever they are; only so many are compared for equality.
_TWINS = 64
_FACES = np.array([[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]])


@dataclass(frozen=True)
class Faces:
    """How the elements of a mesh meet at their faces.

    Parameters
    ----------
    part : ndarray (m,) int32
        Number of the part that an element belongs to; elements of a part are joined through faces.
    outer : ndarray (m, 4) bool
        Faces (opposite to each corner) that no other element has.
    crowded, twin, folded : tuple of int
        How many faces more than two elements share, two equal elements share, or two elements on the same side share;
        and one element of the first such, -1 if none.

    Examples
    --------
    >>> Faces.of(np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), 5).outer.sum()
    np.int64(6)
    """

    part: np.ndarray
    outer: np.ndarray
    crowded: tuple[int, int]
    twin: tuple[int, int]
    folded: tuple[int, int]

    @classmethod
    def of(cls, tets, n_nodes):
        """Follow the faces of elements whose node indices are all in 0 ... n_nodes - 1."""
        tets = np.ascontiguousarray(tets, dtype=np.int32)
        root, outer, found, example = _meet(tets, n_nodes, _FACES)
        is_root = root == np.arange(len(root))
        part = (np.cumsum(is_root, dtype=np.int32) - np.int32(1))[root]
        crowded, twin, folded = zip(found.tolist(), example.tolist())
        return cls(part, outer, crowded, twin, folded)


@numba.njit(cache=True)
def _meet(tets, n_nodes, faces):
    """Sort the faces by their lowest node, then by the other two; equal ones stand side by side."""
    m = len(tets)
    start = np.zeros(n_nodes + 2, np.int64)
    for e in range(m):
        for k in range(4):
            start[min(tets[e, faces[k, 0]], tets[e, faces[k, 1]], tets[e, faces[k, 2]]) + 2] += 1
    start = np.cumsum(start)
    key, face = np.empty(4 * m, np.int64), np.empty(4 * m, np.int64)
    for e in range(m):
        for k in range(4):
            a, b, c = np.int64(tets[e, faces[k, 0]]), np.int64(tets[e, faces[k, 1]]), np.int64(tets[e, faces[k, 2]])
            odd = 0
            if a > b:
                a, b, odd = b, a, 1 - odd
            if b > c:
                b, c, odd = c, b, 1 - odd
            if a > b:
                a, b, odd = b, a, 1 - odd
            place = start[a + 1]
            key[place], face[place] = b * n_nodes + c, (4 * e + k) * 2 + odd
            start[a + 1] += 1
    parent, outer = np.arange(m), np.zeros((m, 4), np.bool_)
    found, example = np.zeros(3, np.int64), np.full(3, -1, np.int64)
    for n in range(n_nodes):
        first, last = start[n], start[n + 1]
        _sort(key, face, first, last)
        while first < last:
            end = first + 1
            while end < last and key[end] == key[first]:
                end += 1
            if end == first + 1:
                outer[face[first] // 8, (face[first] // 2) % 4] = True
            else:
                _join(tets, face, first, end, parent, found, example)
            first = end
    for e in range(m):
        parent[e] = _root(parent, e)
    return parent, outer, found, example


@numba.njit(cache=True)
def _sort(key, face, first, last):
    """Shell's sort: by insertion for the some twenty faces of a node, and not quadratic for a hub of a damaged mesh."""
    gap = 1
    while 300 * gap < last - first:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(first + gap, last):
            one, other, j = key[i], face[i], i
            while j - gap >= first and key[j - gap] > one:
                key[j] = key[j - gap]
                face[j] = face[j - gap]
                j -= gap
            key[j] = one
            face[j] = other
        gap //= 3


@numba.njit(cache=True)
def _join(tets, face, first, end, parent, found, example):
    """Join the elements that have one face, and note what must not be: once for the face, at its last element."""
    element = face[first] // 8
    last, twins = element, False
    for i in range(first + 1, end):
        other, across = face[i] // 8, (face[i] // 2) % 4
        parent[_root(parent, other)] = _root(parent, element)
        last = max(last, other)
        for j in range(max(first, i - _TWINS), i):
            if twins:
                break
            twins = tets[face[j] // 8, (face[j] // 2) % 4] == tets[other, across]
    fault = -1
    if twins:
        fault = 1
    elif end - first > 2:
        fault = 0
    elif face[first] % 2 == face[first + 1] % 2:
        fault = 2
    if fault >= 0:
        found[fault] += 1
        if example[fault] < 0:
            example[fault] = last


@numba.njit(cache=True)
def _root(parent, element):
    while parent[element] != element:
        parent[element] = parent[parent[element]]
        element = parent[element]
    return element


def outer_triangles(tets, faces):
    """Triangles (k, 3) that no other element has, normals outward, in the order of `boundary_triangles`.

    Examples
    --------
    >>> tets = np.array([[0, 1, 2, 3]])
    >>> len(outer_triangles(tets, Faces.of(tets, 4)))
    4
    """
    corner, element = np.nonzero(faces.outer.T)
    return tets[element[:, None], _FACES[corner]]
