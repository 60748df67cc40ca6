"""What makes a tetrahedral mesh unfit for the solve: found before it, and told with a place."""

import numba
import numpy as np

from ..errors import MeshError
from .mesh_faces import Faces, outer_triangles

# Parts that share no face with the rest are dropped up to this fraction of all elements, and refused beyond it.
LARGEST_STRAY_FRACTION = 1e-4
# Extents of what can be a head (or a phantom of one), m; outside them the unit of the coordinates is in doubt.
_SMALLEST_M, _LARGEST_M = 2e-3, 3.0


class ApartError(MeshError):
    """The mesh is in parts that share no face; small ones can be left out (`without_strays`)."""


def check_arrays(nodes, tets, tissue, conductivity, name):
    """Refuse arrays that do not describe a mesh; all that follows relies on it.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4) of int
    tissue, conductivity : ndarray (m,)
    name : str
        What messages call the head.

    Returns
    -------
    tuple of ndarray
        The four, nodes as float64 and elements as int32.

    Raises
    ------
    MeshError
        If a shape, an index or a value cannot be.

    Examples
    --------
    >>> arrays = check_arrays(np.eye(4)[:, :3], np.array([[0, 1, 2, 3]]), np.array([1]), np.array([0.1]), "one")
    """
    nodes, tets, tissue, conductivity = (np.asarray(array) for array in (nodes, tets, tissue, conductivity))
    if nodes.ndim != 2 or nodes.shape[1] != 3 or tets.ndim != 2 or tets.shape[1] != 4 or not len(tets):
        raise MeshError(
            f"head {name!r}: nodes are {nodes.shape} and elements {tets.shape}; (n, 3) and (m, 4) are needed, with at "
            "least one element."
        )
    kinds = zip((nodes, tets, tissue, conductivity), ("fiu", "iu", "iu", "fiu"))
    if any(array.dtype.kind not in kind for array, kind in kinds):
        raise MeshError(
            f"head {name!r}: nodes are {nodes.dtype}, elements {tets.dtype}, tissues {tissue.dtype}, conductivities "
            f"{conductivity.dtype}; numbers, whole ones for elements and tissues, are needed."
        )
    if tissue.shape != (len(tets),) or conductivity.shape != (len(tets),):
        raise MeshError(
            f"head {name!r}: {len(tets)} elements, but tissues are {tissue.shape} and conductivities "
            f"{conductivity.shape}; each element needs one of each."
        )
    if int(tets.min()) < 0 or int(tets.max()) >= len(nodes):
        first = int(np.argmax(((tets < 0) | (tets >= len(nodes))).any(1)))
        raise MeshError(
            f"head {name!r}: element {first} names nodes {tets[first].tolist()}, but there are {len(nodes)} nodes, "
            "counted from 0."
        )
    if not np.isfinite(nodes).all():
        raise MeshError(f"head {name!r}: node {int(np.argwhere(~np.isfinite(nodes))[0, 0])} is not finite.")
    bad = ~(np.isfinite(conductivity) & (conductivity > 0))
    if bad.any():
        first = int(np.argmax(bad))
        raise MeshError(
            f"head {name!r}: element {first} has conductivity {conductivity[first]}; a conductivity is a positive "
            "number in S/m."
        )
    return np.ascontiguousarray(nodes, float), np.ascontiguousarray(tets, np.int32), tissue, conductivity


def check_extent(nodes, path):
    """Refuse coordinates of a file that are most likely not the millimetres that they are taken for.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    path : path-like

    Raises
    ------
    MeshError
        If the whole is smaller than 2 mm or larger than 3 m.

    Examples
    --------
    >>> check_extent(np.array([[0, 0, 0], [0.2, 0.2, 0.25]]), "head.msh")
    """
    extent_mm = float(np.ptp(nodes, axis=0).max()) * 1e3
    if extent_mm < _SMALLEST_M * 1e3:
        raise MeshError(
            f"{path}: the head would be {extent_mm:.3g} mm large, so its coordinates seem to be in metres, where "
            "millimetres are expected; multiply them by 1000 and save it again."
        )
    if not extent_mm <= _LARGEST_M * 1e3:
        raise MeshError(
            f"{path}: the head would be {extent_mm * 1e-3:.3g} m large; its coordinates are no millimetres, which are "
            "expected, or the file is damaged. Convert them, or copy the file again."
        )


def oriented(nodes, tets, name):
    """Elements with positive volumes; refuses flat ones, and meshes of which only some are inverted.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4)
    name : str

    Returns
    -------
    ndarray (m, 4) int32

    Raises
    ------
    MeshError
        With how many, and the place of the first in mm.

    Examples
    --------
    >>> oriented(np.eye(4)[:, :3], np.array([[0, 1, 2, 3]]), "one element").tolist()
    [[1, 0, 2, 3]]
    """
    (twice, flat, inverted), first = (values.tolist() for values in _shapes(nodes, tets))
    if twice:
        raise MeshError(
            f"head {name!r}: {twice} elements name a node twice, first element {first[0]} at "
            f"{_place(nodes, tets[first[0]])} mm (nodes {tets[first[0]].tolist()}), so they are flat. Remove them."
        )
    if flat:
        raise MeshError(
            f"head {name!r}: {flat} elements have no volume, first element {first[1]} at "
            f"{_place(nodes, tets[first[1]])} mm; the field in them is undefined. Repair the mesh (in Gmsh: optimize)."
        )
    if inverted == len(tets):
        return np.ascontiguousarray(tets[:, [1, 0, 2, 3]], dtype=np.int32)
    if inverted:
        raise MeshError(
            f"head {name!r}: {inverted} of {len(tets)} elements are inverted, first element {first[2]} at "
            f"{_place(nodes, tets[first[2]])} mm; their stiffness would have the wrong sign, so the field would be "
            "wrong without a warning. Repair the mesh, e.g. in Gmsh with Tools > Reorient mesh, or mesh the head again."
        )
    return np.ascontiguousarray(tets, dtype=np.int32)


@numba.njit(cache=True)
def _shapes(nodes, tets):
    """How many elements name a node twice, are flat, are inverted; and the first of each."""
    found, first = np.zeros(3, np.int64), np.full(3, -1, np.int64)
    edge = np.empty((3, 3))
    for e in range(len(tets)):
        longest, twice = 0.0, False
        for k in range(3):
            square = 0.0
            for axis in range(3):
                edge[k, axis] = nodes[tets[e, k + 1], axis] - nodes[tets[e, 0], axis]
                square += edge[k, axis] ** 2
            longest = max(longest, square)
            for i in range(k + 1):
                twice = twice or tets[e, k + 1] == tets[e, i]
        volume = (edge[0, 1] * edge[1, 2] - edge[0, 2] * edge[1, 1]) * edge[2, 0]
        volume += (edge[0, 2] * edge[1, 0] - edge[0, 0] * edge[1, 2]) * edge[2, 1]
        volume += (edge[0, 0] * edge[1, 1] - edge[0, 1] * edge[1, 0]) * edge[2, 2]
        if twice:
            fault = 0
        elif not abs(volume) > 6e-9 * longest**1.5:
            fault = 1
        elif volume < 0:
            fault = 2
        else:
            continue
        found[fault] += 1
        if first[fault] < 0:
            first[fault] = e
    return found, first


def check_topology(nodes, tets, name):
    """Refuse a mesh through which current cannot flow as it would in a head.

    That is one with elements that are there twice or overlap their neighbour, with a face that more than two share,
    with borders whose nodes are not merged, in parts that share no face, or with nodes of no element.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4), positively oriented
    name : str

    Returns
    -------
    ndarray (k, 3)
        The outer surface, as of `motorsweep.sim.mesh_quality.boundary_triangles`.

    Raises
    ------
    MeshError
        With how many, and the place of the first in mm; `ApartError` if the mesh is in parts.

    Examples
    --------
    >>> len(check_topology(np.eye(4)[:, :3], np.array([[1, 0, 2, 3]]), "one element"))
    4
    """
    faces = Faces.of(tets, len(nodes))
    for (found, first), words in (
        (faces.twin, "are shared by two equal elements; current would flow there twice. Remove the duplicates"),
        (faces.crowded, "are shared by more than two elements, so some of them overlap. Mesh the head again"),
        (faces.folded, "have both of their elements on the same side, so these overlap. Mesh the head again"),
    ):
        if found:
            raise MeshError(
                f"head {name!r}: {found} faces {words}. First at element {first}, {_place(nodes, tets[first])} mm."
            )
    outer = outer_triangles(tets, faces)
    _check_merged(nodes, outer, name)
    _check_one_part(nodes, tets, faces, name)
    lone = np.bincount(tets.ravel(), minlength=len(nodes)) == 0
    if lone.any():
        raise MeshError(
            f"head {name!r}: {int(lone.sum())} nodes belong to no element, first node {int(np.argmax(lone))}; their "
            "potential is undefined, which makes the system singular. Leave them out."
        )
    return outer


def _check_merged(nodes, outer, name):
    """Refuse borders at which each side has nodes of its own in the same places: no current could cross."""
    used = np.unique(outer)
    places = np.round(nodes[used] * 1e9).astype(np.int64)
    order = np.lexsort(places.T)
    fresh = np.r_[True, (np.diff(places[order], axis=0) != 0).any(1)]
    if fresh.all():
        return
    stands_for = np.arange(len(nodes))
    stands_for[used[order]] = np.cumsum(fresh) - 1
    merged = np.sort(stands_for[outer], axis=1)
    order = np.lexsort(merged.T)
    same = np.flatnonzero((np.diff(merged[order], axis=0) == 0).all(1))
    if len(same):
        where = _place(nodes, outer[order[same[0]]])
        raise MeshError(
            f"head {name!r}: {len(same)} triangles of its borders are there twice, with nodes of their own on each "
            f"side in the same places, first at {where} mm; no current could cross them. Merge the nodes (in Gmsh: "
            "'Coherence Mesh;', or Mesh > Remove duplicate nodes)."
        )


def _check_one_part(nodes, tets, faces, name):
    sizes = np.bincount(faces.part)
    if len(sizes) == 1:
        return
    main, second = np.argsort(-sizes, kind="stable")[:2]
    apart, next_part = faces.part != main, faces.part == second
    touches = np.isin(tets[next_part], tets[~apart]).any()
    how = "meets the rest only at nodes or edges, which no current can cross" if touches else "shares no node with it"
    raise ApartError(
        f"head {name!r}: the mesh is in {len(sizes)} parts that share no face; {int(apart.sum())} of {len(tets)} "
        f"elements lie outside the largest part. The next largest has {sizes[second]} around "
        f"{_place(nodes, np.unique(tets[next_part]))} mm and {how}: the field in it would mean nothing. Remove these "
        f"parts, or join them to the head. (Up to {LARGEST_STRAY_FRACTION:g} of the elements of a file are left out "
        "with a warning.)"
    )


def without_strays(nodes, tets, tissue):
    """Drop small parts that share no face with the largest, as meshers leave them.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4) int32
    tissue : ndarray (m,)

    Returns
    -------
    nodes, tets, tissue
        As given where all is one part, or where the others hold more than `LARGEST_STRAY_FRACTION` of the elements.
    words : str
        What was dropped and where; empty if nothing was.

    Examples
    --------
    >>> nodes, tets, tissue, words = without_strays(nodes, tets, tissue)          # doctest: +SKIP
    """
    part = Faces.of(tets, len(nodes)).part
    sizes = np.bincount(part)
    apart = part != np.argmax(sizes)
    if not 0 < apart.sum() <= LARGEST_STRAY_FRACTION * len(tets):
        return nodes, tets, tissue, ""
    place = _place(nodes, tets[np.argmax(apart)])
    parts = "a part that shares" if len(sizes) == 2 else f"{len(sizes) - 1} parts that share"
    words = (
        f"{int(apart.sum())} of {len(tets)} elements, in {parts} no face with the rest "
        f"(first at {place} mm), were left out, as no current can reach them"
    )
    used = np.zeros(len(nodes), bool)
    used[tets[~apart]] = True
    renumbered = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return nodes[used], renumbered[tets[~apart]], tissue[~apart], words


def _place(nodes, corners):
    return "(" + ", ".join(f"{v:.1f}" for v in nodes[corners].mean(0) * 1e3) + ")"
