"""Label volumes, and their tetrahedral meshes by CGAL's Mesh_3 (through pygalmesh).

The mesher of the field's own tools, with smaller cells in a ball around the motor cortex, then a pass that removes
slivers. Meshes are kept by content, so that a head is meshed once.
"""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import InputError, MeshError, MissingPackageError
from .mesh_quality import remove_slivers, tet_volumes

# Raise it when a change here makes another mesh of the same labels.
MESH_VERSION = 1
# Cell sizes relative to grey matter, after facts of the field: thin layers fine, scalp coarse.
_RELATIVE_SIZE = {1: 1.25, 2: 1.0, 3: 1.0, 4: 1.2, 5: 1.6}
_KNOWN = range(1, 11)


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


@dataclass(frozen=True)
class LabelVolume:
    """Tissue labels on a voxel grid.

    Parameters
    ----------
    labels : ndarray (i, j, k) uint8, 0 outside
    affine : ndarray (4, 4), voxel index to mm
    comment : str

    Examples
    --------
    >>> LabelVolume(np.zeros((2, 2, 2), np.uint8), np.eye(4)).spacing_m.tolist()
    [0.001, 0.001, 0.001]
    """

    labels: np.ndarray = field(repr=False)
    affine: np.ndarray
    comment: str = ""

    @property
    def spacing_m(self):
        """Voxel edge along each axis, (3,) m."""
        return np.linalg.norm(self.affine[:3, :3], axis=0) * 1e-3

    def places_m(self, index):
        """Places of voxel indices (..., 3), in m."""
        return (np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]) * 1e-3

    def top_m(self):
        """Highest point of the head along the third axis, (3,) m."""
        index = np.argwhere(self.labels > 0)
        return self.places_m(index[np.argmax(index @ self.affine[2, :3])])


def read_labels(path):
    """Read a label volume from ``.nii``, ``.nii.gz`` or ``.npz`` (``labels``, ``affine`` in mm).

    Labels that no tissue carries are taken as outside only where they cannot be inside: label 6 of an ``.npz`` and any
    tag above 10 are refused with a word on what to do.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    LabelVolume

    Raises
    ------
    MeshError
        If the file cannot be read, has no usable affine, or holds labels without a tissue.

    Examples
    --------
    >>> volume = read_labels("segmentation.nii.gz")                               # doctest: +SKIP
    """
    path = Path(path)
    try:
        labels, affine = _read_npz(path) if path.suffix == ".npz" else _read_nifti(path)
    except MeshError:
        raise
    except Exception as error:
        raise MeshError(f"{path}: the label volume cannot be read ({error}); give a NIfTI or .npz file.") from error
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3 or affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise MeshError(
            f"{path}: a label volume has three axes and a 4x4 affine; found {labels.shape}, {affine.shape}."
        )
    if abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise MeshError(
            f"{path}: its affine is singular, so voxels have no place in the head; write the file with one."
        )
    if not np.array_equal(labels, np.round(labels)):
        raise MeshError(
            f"{path}: holds fractions, not labels; a probability map cannot be meshed. Give a segmentation."
        )
    unknown = sorted(set(np.unique(labels).astype(int).tolist()) - {0, *_KNOWN})
    if unknown:
        raise MeshError(
            f"{path}: labels {unknown} belong to no tissue; known are 0 outside, 1 white matter, 2 grey matter, 3 CSF, "
            "4 bone, 5 scalp, 6 eye, 7-8 bone, 9 blood, 10 muscle. Relabel the volume."
        )
    return LabelVolume(labels.astype(np.uint8), affine)


def _read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        missing = {"labels", "affine"} - set(file)
        if missing:
            raise MeshError(
                f"{path}: lacks {' and '.join(sorted(missing))}; a label .npz holds labels and affine (mm)."
            )
        return file["labels"], np.asarray(file["affine"], dtype=float)


def _read_nifti(path):
    import nibabel

    image = nibabel.load(path)
    if image.header["sform_code"] == 0 and image.header["qform_code"] == 0:
        raise MeshError(f"{path}: neither sform nor qform is set, so voxels have no place in the head; set the affine.")
    return np.asarray(image.dataobj), np.asarray(image.affine, dtype=float)


def sphere_labels(radii_m=(0.080, 0.083, 0.089, 0.095), spacing_m=1e-3):
    """Layered sphere: brain (grey matter) and three shells of CSF, bone and scalp.

    Parameters
    ----------
    radii_m : sequence of 4 floats, m
        Outer radii of brain, CSF, bone and scalp, ascending.
    spacing_m : float

    Returns
    -------
    LabelVolume

    Raises
    ------
    InputError
        If the radii are not four ascending positive numbers.

    Examples
    --------
    >>> int(sphere_labels().labels.max())
    5
    """
    radii_m = tuple(float(radius) for radius in radii_m)
    steps = np.diff([0.0, *radii_m])
    if len(radii_m) != 4 or not (np.isfinite(steps) & (steps > 0)).all():
        raise InputError(
            f"layered sphere: radii {radii_m} m are not those of four layers; give the outer radii of brain, CSF, bone "
            "and scalp in m, ascending."
        )
    half = int(np.ceil(radii_m[-1] / spacing_m)) + 2
    axis = np.arange(-half, half + 1) * spacing_m
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    labels = np.zeros(distance.shape, np.uint8)
    for tag, radius in zip((5, 4, 3, 2), radii_m[::-1]):
        labels[distance <= radius] = tag
    affine = np.diag([spacing_m * 1e3] * 3 + [1.0])
    affine[:3, 3] = axis[0] * 1e3
    return LabelVolume(labels, affine, "layered sphere for verification, not a head")


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
        with np.load(target, allow_pickle=False) as file:
            return file["nodes"], file["tets"], file["tissue"]
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
