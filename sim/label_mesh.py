"""Tetrahedral meshes of label volumes by CGAL's Mesh_3 (through pygalmesh).

The mesher of the field's own tools, with smaller cells in a ball around the motor cortex, then a pass that removes
slivers. Meshes are kept by content, so that a head is meshed once.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import MeshError, MissingPackageError
from .mesh_quality import remove_slivers, tet_volumes
from .volume_files import read_arrays

log = logging.getLogger(__name__)

# Raise it when a change here makes another mesh of the same labels.
MESH_VERSION = 2
# Cell sizes relative to grey matter, after facts of the field: thin layers fine, scalp coarse.
_RELATIVE_SIZE = {1: 1.25, 2: 1.0, 3: 1.0, 4: 1.2, 5: 1.6}


@dataclass(frozen=True, kw_only=True)
class MeshSizes:
    """Sizes of the mesh, in m.

    Parameters
    ----------
    fine_m, coarse_m : float
        Circumradius of grey-matter cells inside and outside the ball around the hand knob.
    fine_radius_m : float
        Radius of that ball.
    facet_distance_m : float
        Largest distance of a surface facet from the border of the labels.

    Examples
    --------
    >>> MeshSizes(fine_m=1e-3).coarse_m
    0.006
    """

    fine_m: float = 2.0e-3
    coarse_m: float = 6.0e-3
    fine_radius_m: float = 40.0e-3
    facet_distance_m: float = 0.5e-3


def mesh_labels(volume, sizes, centre_m, cache, key=None):
    """Tetrahedral mesh of a label volume, finer in a ball; kept in `cache` by content.

    Parameters
    ----------
    volume : LabelVolume, or callable that makes one
        A callable is only called when the mesh is not there yet; it needs a `key`.
    sizes : MeshSizes
    centre_m : ndarray (3,), m
        Centre of the fine ball.
    cache : pathlib.Path
        Folder for finished meshes.
    key : str, optional
        What stands for the labels in the mesh's name; by default a hash of them.

    Returns
    -------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4) int32
    tissue : ndarray (m,) int16

    Raises
    ------
    MissingPackageError
        If pygalmesh is not installed and the mesh is not in the cache.
    MeshError
        If there is nothing to mesh, or the voxels are not isotropic boxes.

    Examples
    --------
    >>> nodes, tets, tissue = mesh_labels(sphere_labels(), MeshSizes(), np.zeros(3), Path("cache"))  # doctest: +SKIP
    """
    target = Path(cache) / f"mesh-{_mesh_id(key or _labels_id(volume), sizes, centre_m)}.npz"
    if target.exists():
        try:
            return tuple(read_arrays(target, ("nodes", "tets", "tissue")).values())
        except MeshError as error:
            log.warning("%s The head is meshed again.", error)
    nodes, tets, tissue = _mesh(volume() if callable(volume) else volume, sizes, np.asarray(centre_m, float))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, nodes=nodes, tets=tets, tissue=tissue)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return nodes, tets, tissue


def _labels_id(volume):
    digest = hashlib.sha256(np.ascontiguousarray(volume.labels).tobytes())
    digest.update(repr((volume.labels.shape, volume.affine.tolist())).encode())
    return digest.hexdigest()


def _mesh_id(key, sizes, centre_m):
    words = (MESH_VERSION, key, sorted(asdict(sizes).items()), np.asarray(centre_m, float).tolist())
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _mesh(volume, sizes, centre_m):
    labels, origin = _trimmed(volume)
    axes = volume.affine[:3, :3] / (volume.spacing_m * 1e3)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise MeshError("meshing the labels: the affine shears the voxels; resample the volume to a plain grid first.")
    centre_in_grid = axes.T @ (centre_m - origin)
    split, tag_of_label = _split_by_ball(labels, volume.spacing_m, centre_in_grid, sizes.fine_radius_m)
    cells = {k + 1: _cell_size(tag, fine, sizes) * 1e3 for k, (tag, fine) in enumerate(tag_of_label)}
    points, tets, label = _cgal(split, volume.spacing_m * 1e3, cells, sizes)
    tissue = np.array([tag for tag, _ in tag_of_label], np.int16)[label - 1]
    # CGAL places voxel (0, 0, 0)'s centre at the origin of its coordinates.
    nodes = points * 1e-3 @ axes.T + origin
    if (tet_volumes(nodes, tets) < 0).all():
        tets = tets[:, [1, 0, 2, 3]]
    return remove_slivers(nodes, tets, tissue), tets.astype(np.int32), tissue


def _trimmed(volume):
    found = ndimage.find_objects((volume.labels > 0).astype(np.uint8))
    if not found:
        raise MeshError("meshing the labels: every voxel is 0 (outside); there is no head in this volume.")
    low = [max(s.start - 2, 0) for s in found[0]]
    box = tuple(slice(start, s.stop + 2) for start, s in zip(low, found[0]))
    return np.ascontiguousarray(volume.labels[box]), volume.places_m(low)


def _split_by_ball(labels, spacing_m, centre_m, radius_m):
    """Give the voxels of each tissue in the ball a label of their own, so that CGAL can mesh them finer."""
    grids = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    square = sum((g * h - c) ** 2 for g, h, c in zip(grids, spacing_m, centre_m))
    code = labels.astype(np.int16) + np.where((square < radius_m**2) & (labels > 0), 16, 0).astype(np.int16)
    used = np.unique(code)
    used = used[used > 0]
    lookup = np.zeros(32, np.uint8)
    lookup[used] = np.arange(1, len(used) + 1)
    return lookup[code], [(int(u) % 16, u >= 16) for u in used]


def _cell_size(tag, fine, sizes):
    return (sizes.fine_m if fine else sizes.coarse_m) * _RELATIVE_SIZE.get(tag, 1.2)


def _cgal(labels, spacing_mm, cells, sizes):
    try:
        import pygalmesh
    except ImportError as error:
        raise MissingPackageError(
            "meshing a label volume needs pygalmesh (CGAL), which is not installed here: on Debian 12 "
            "`apt-get install python3-pygalmesh` and `make setup`; elsewhere give a ready .msh head."
        ) from error
    with _silenced():
        mesh = pygalmesh.generate_from_array(
            labels,
            tuple(float(h) for h in spacing_mm),
            max_cell_circumradius={**cells, "default": sizes.coarse_m * 1e3},
            max_facet_distance=sizes.facet_distance_m * 1e3,
            perturb=False,
            exude=False,
            verbose=False,
            seed=1,
        )
    block = next((k for k, part in enumerate(mesh.cells) if part.type == "tetra"), None)
    if block is None:
        raise MeshError("meshing the labels: CGAL made no elements; are the cells larger than the head?")
    return np.asarray(mesh.points, float), mesh.cells[block].data, mesh.cell_data["medit:ref"][block].astype(int)


@contextlib.contextmanager
def _silenced():
    """CGAL prints some 95 MB of progress from C++; keep it off the terminal."""
    saved = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        for place, old in zip((1, 2), saved):
            os.dup2(old, place)
            os.close(old)
        os.close(null)
