"""The default head: MNI ICBM152 grey and white matter, with CSF, skull and scalp grown around them.

The maps come with the nilearn wheel (ICBM 152 nonlinear symmetric 2009a, 1 mm). They end at the brain, so the outer
layers are shells of constant thickness around the closed hull of the brain: an approximation, and the head says so.
"""

from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from .labels import LabelVolume

# Left hand knob in MNI coordinates (facts of the field: -37, -21, 58 to -38, -24, 57 mm).
HAND_KNOB_MM = (-37.0, -21.0, 58.0)
# Layers over the hull at the hand knob, mm: CSF 3 and bone 6 as in the New York head; the scalp thinner than its 10.5,
# so that scalp and cortex are 15 mm apart, as measured over the motor cortex (Stokes 2005: 13-20 mm).
CSF_MM, BONE_MM, SCALP_MM = 3.0, 6.0, 6.0
_CLOSING_MM = 10.0
# Names these labels in the mesh cache, so that a cached head needs no labels. Raise it when a change here alters them.
KEY = f"template-1-{CSF_MM}-{BONE_MM}-{SCALP_MM}-{_CLOSING_MM}"
_PADDING = 26
COMMENT = (
    "MNI ICBM152 grey and white matter; CSF, skull and scalp are shells of "
    f"{CSF_MM:g}, {BONE_MM:g} and {SCALP_MM:g} mm around the brain's hull, an approximation"
)


@cache
def template_labels():
    """Tissue labels of the template head.

    Returns
    -------
    LabelVolume
        1 mm voxels, MNI coordinates (mm in the affine).

    Examples
    --------
    >>> labels = template_labels().labels                                         # doctest: +SKIP
    """
    grey, white, affine = _maps()
    brain = _largest_part(grey + white > 0.5)
    hull = _closed(brain)
    outside = ndimage.gaussian_filter(ndimage.distance_transform_edt(~hull), 1.5)
    labels = np.zeros(brain.shape, np.uint8)
    labels[outside <= CSF_MM + BONE_MM + SCALP_MM] = 5
    labels[outside <= CSF_MM + BONE_MM] = 4
    labels[(outside <= CSF_MM) | hull] = 3
    labels[brain & (grey >= white)] = 2
    labels[brain & (white > grey)] = 1
    return LabelVolume(labels, affine, COMMENT)


def _maps():
    import nibabel
    import nilearn

    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    images = [nibabel.load(folder / f"mni_icbm152_{key}_tal_nlin_sym_09a_converted.nii.gz") for key in ("gm", "wm")]
    grey, white = (np.pad(np.asarray(image.dataobj, dtype=np.float32) / 255, _PADDING) for image in images)
    affine = np.array(images[0].affine, dtype=float)
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, _PADDING)
    return grey, white, affine


def _largest_part(mask):
    parts, _ = ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def _closed(brain):
    """Hull of the brain: closing by a ball, so that sulci belong to it, and no holes."""
    grown = ndimage.distance_transform_edt(~brain) <= _CLOSING_MM
    return ndimage.binary_fill_holes(ndimage.distance_transform_edt(grown) > _CLOSING_MM) | brain
