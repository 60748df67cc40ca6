"""A layered sphere whose nodes lie on the spheres: for verification, where a mesh of voxels would be too rough.

A head that is meshed from labels has borders as rough as its voxels and its mesher leave them, and that alone moves
the field near them by a per cent or more. To see what the finite elements themselves do, the borders must be smooth.
"""

import numpy as np
from scipy.spatial import ConvexHull

from .head import Head
from .refinement import oriented_tets, refine
from .tissues import TISSUE_TAGS, conductivity_of

RADII_M = (0.080, 0.083, 0.089, 0.095)
"""Outer radii of brain, CSF, bone and scalp, m."""

_INNER = np.array([0.25, 0.5, 0.7, 0.85])  # of the brain's radius: shells of nodes within it
_LAYERS = tuple(TISSUE_TAGS[name] for name in ("grey_matter", "csf", "bone", "scalp"))


def layered_sphere(subdivisions=3, radii_m=RADII_M, conductivities=None):
    """Mesh of a layered sphere.

    Concentric icospheres, of 10 · 4^subdivisions + 2 nodes each, joined by prisms that are cut into three tetrahedra.

    Parameters
    ----------
    subdivisions : int
        Of the icosahedron: 3 gives edges of 12 mm on the brain, and each more half of that.
    radii_m : sequence of 4 floats, m
        Outer radii of brain, CSF, bone and scalp, ascending.
    conductivities : mapping, optional
        As for `motorsweep.sim.tissues.conductivity_of`.

    Returns
    -------
    Head

    Examples
    --------
    >>> len(layered_sphere(2).nodes)
    1297
    """
    directions, triangles = _icosphere(subdivisions)
    radii = np.concatenate([_INNER * radii_m[0], radii_m])
    tissue = np.array([_LAYERS[0]] * len(_INNER) + list(_LAYERS), np.int16)
    nodes = np.concatenate([np.zeros((1, 3)), (radii[:, None, None] * directions).reshape(-1, 3)])
    # Cut along the diagonals from lower to higher node numbers, the cuts of neighbouring prisms fit.
    triangles = np.sort(triangles, axis=1)
    tets, tags = [np.insert(triangles + 1, 0, 0, axis=1)], [np.full(len(triangles), tissue[0])]
    for k in range(1, len(radii)):
        a, b, c = (triangles + 1 + (k - 1) * len(directions)).T
        d, e, f = (triangles + 1 + k * len(directions)).T
        tets += [np.stack(corner, axis=1) for corner in ((a, b, c, f), (a, b, e, f), (a, d, e, f))]
        tags += [np.full(len(triangles), tissue[k])] * 3
    tets, tags = oriented_tets(nodes, np.concatenate(tets)), np.concatenate(tags)
    return Head(nodes, tets, tags, conductivity_of(tags, conductivities), "sphere", "layered sphere for verification")


def refined_sphere(head):
    """`refine` of a layered sphere: a new node lies as far from the centre as the two that it is between, on average.

    Parameters
    ----------
    head : Head
        Of `layered_sphere` or of this function.

    Returns
    -------
    Head

    Examples
    --------
    >>> len(refined_sphere(layered_sphere(1)).nodes)
    2473
    """
    return refine(head, _between)


def _between(a, b):
    radius = 0.5 * (np.linalg.norm(a, axis=1) + np.linalg.norm(b, axis=1))
    return (a + b) * (radius / np.linalg.norm(a + b, axis=1))[:, None]


def _icosphere(subdivisions):
    """Directions (n, 3) and triangles (k, 3) of a subdivided icosahedron."""
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array([(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)])
    directions = np.concatenate([np.roll(corners, shift, axis=1) for shift in range(3)])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    triangles = ConvexHull(directions).simplices
    for _ in range(subdivisions):
        sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        ends, middle = np.unique(sides, axis=0, return_inverse=True)
        new = directions[ends].sum(1)
        ab, bc, ca = middle.reshape(-1, 3).T + len(directions)
        directions = np.concatenate([directions, new / np.linalg.norm(new, axis=1, keepdims=True)])
        a, b, c = triangles.T
        triangles = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))])
    return directions, triangles
