"""Label volumes: a tissue tag for each voxel, read from files or made."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, MeshError

_KNOWN = range(1, 11)


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
