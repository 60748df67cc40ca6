"""Label volumes: a tissue tag for each voxel, read from files or made."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, MeshError
from .tissues import TISSUE_NAMES
from .volume_files import read_arrays, read_nifti

log = logging.getLogger(__name__)

_KNOWN = range(1, 11)
# Widths of a volume that can hold a head (or a phantom of one).
_SMALLEST_MM, _LARGEST_MM = 2.0, 3000.0


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

    Labels are the tissue tags of `motorsweep.sim.tissues` (those of SimNIBS), 0 outside.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    LabelVolume

    Raises
    ------
    MeshError
        If the file cannot be read, has no usable affine, or holds anything but labels of tissues.

    Examples
    --------
    >>> volume = read_labels("segmentation.nii.gz")                               # doctest: +SKIP
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npz":
            arrays = read_arrays(path, ("labels", "affine"))
            labels, affine = arrays["labels"], arrays["affine"]
        else:
            labels, affine = read_nifti(path)
        return LabelVolume(_checked_labels(labels, path), _checked_affine(labels, affine, path))
    except MemoryError as error:
        raise MeshError(f"{path}: takes more memory than there is; crop the volume to the head.") from error


def _checked_labels(labels, path):
    while labels.ndim > 3 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3:
        raise MeshError(
            f"{path}: a label volume has three axes, found {labels.ndim} ({'x'.join(map(str, labels.shape))}); where "
            "it is a series or a set of maps, save the one segmentation by itself."
        )
    if labels.dtype.kind not in "biuf":
        raise MeshError(f"{path}: labels are of type {labels.dtype}; save the segmentation as whole numbers.")
    low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MeshError(f"{path}: holds voxels that are not finite; a label volume holds whole numbers. Mend them.")
    if not high > 0 and not low < 0:
        raise MeshError(f"{path}: every voxel is 0 (outside); there is no head in this volume.")
    # Labels fit in a byte; what changes by being put there is a fraction or no tissue.
    small = np.clip(labels, 0, 255).astype(np.uint8)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        raise MeshError(
            f"{path}: holds fractions, not labels; a probability map cannot be meshed. Give a segmentation."
        )
    present = np.flatnonzero(np.bincount(small.ravel(), minlength=256))
    if low < 0 or high > _KNOWN[-1]:
        _refuse_unknown(labels, path)
    tissues = [int(tag) for tag in present if tag]
    if len(tissues) == 1:
        log.warning("%s: holds one tissue only, %s; is it a mask?", path, TISSUE_NAMES[tissues[0]])
    return small


def _refuse_unknown(labels, path):
    unknown = np.unique(labels[(labels < 0) | (labels > _KNOWN[-1])]).astype(float)
    shown = ", ".join(f"{value:.0f}" for value in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
    raise MeshError(
        f"{path}: labels [{shown}] belong to no tissue; known are 0 outside, 1 white matter, 2 grey matter, 3 CSF, "
        "4 bone, 5 scalp, 6 eye, 7-8 bone, 9 blood, 10 muscle. Relabel the volume."
    )


def _checked_affine(labels, affine, path):
    if affine.shape != (4, 4) or affine.dtype.kind not in "fiu" or not np.isfinite(affine).all():
        raise MeshError(
            f"{path}: its affine is not a 4x4 matrix of finite numbers, so voxels have no place in the head; write the "
            "file with one (voxel index to mm)."
        )
    affine = affine.astype(float)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        span_mm = float((edges * labels.shape[:3]).max())
        determinant = np.linalg.det(affine[:3, :3] / np.maximum(edges, np.finfo(float).tiny))
    if not abs(determinant) > 1e-6:
        raise MeshError(
            f"{path}: its affine is singular, so voxels have no place in the head; write the file with one."
        )
    if not np.allclose(affine[3], [0, 0, 0, 1]):
        raise MeshError(
            f"{path}: the last row of its affine is {affine[3].tolist()}, not 0 0 0 1; is it transposed? Write the "
            "file with a matrix from voxel index to mm."
        )
    if not _SMALLEST_MM <= span_mm <= _LARGEST_MM:
        raise MeshError(
            f"{path}: the volume would be {span_mm:.3g} mm wide, so its affine seems to be in another unit than "
            f"millimetres ({'metres' if span_mm < _SMALLEST_MM else 'micrometres'}?); write the file in mm."
        )
    return affine


def sphere_labels(radii_m=(0.080, 0.083, 0.089, 0.095), spacing_m=0.5e-3):
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
    square = np.square(axis.astype(np.float32))
    square = square[:, None, None] + square[:, None] + square
    labels = np.zeros(square.shape, np.uint8)
    for tag, radius in zip((5, 4, 3, 2), radii_m[::-1]):
        labels[square <= radius**2] = tag
    affine = np.diag([spacing_m * 1e3] * 3 + [1.0])
    affine[:3, 3] = axis[0] * 1e3
    return LabelVolume(labels, affine, "layered sphere for verification, not a head")
