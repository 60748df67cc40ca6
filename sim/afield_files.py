"""Reader of a coil's vector potential sampled in a NIfTI volume."""

from pathlib import Path

import nibabel
import numpy as np

from ..errors import CoilError
from .coil import Coil
from .coil_grid import FieldGrid

_DEFLATE = 1100  # more than gzip can ever shrink


def read_afield(path) -> Coil:
    """Read a SimNIBS A-field volume, ``.nii`` or ``.nii.gz``.

    One vector for each voxel, A in V·s/m per ampere of coil current (the same number as dA/dt in V/m per A/s), with
    components along the axes of the coil frame; shape (nx, ny, nz, 3) or (nx, ny, nz, 1, 3). The header's affine leads
    from voxels to the coil frame, in millimetres.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Coil
        Named after the file, with one `FieldGrid`.

    Raises
    ------
    CoilError
        Where the file is damaged, holds another kind of volume, or the fields of several stimulators.
    """
    path = Path(path)
    image = _open(path)
    _check_header(path, image)
    try:
        values = np.asarray(image.dataobj)
    except Exception as error:
        raise _damaged(path, error) from error
    affine = image.affine.copy()
    affine[:3] *= 1e-3
    try:
        grid = FieldGrid(values.reshape(*values.shape[:3], 3), affine)
    except CoilError as error:
        raise CoilError(f"reading coil {path}: {error}") from error
    name = path.name[: -len(".nii.gz" if path.name.lower().endswith(".nii.gz") else ".nii")]
    return Coil(name, grids=[grid])


def _open(path):
    try:
        return nibabel.Nifti1Image.from_filename(path)
    except Exception as error:  # a damaged header makes nibabel raise all sorts
        raise _damaged(path, error) from error


def _damaged(path, error):
    return CoilError(
        f"reading coil {path}: not a whole NIfTI file that nibabel can read ({' '.join(str(error).split())[:200]}), so "
        "there is no field to take from it. Get the file again."
    )


def _check_header(path, image):
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) == 5 and shape[3] > 1 and shape[4] == 3:
        raise CoilError(
            f"reading coil {path}: the volume is {shape}, the fields of {shape[3]} stimulators, whose currents are "
            "independent; one rate of change cannot drive them all. Save the volume of one stimulator, "
            "(nx, ny, nz, 3), or their weighted sum."
        )
    if len(shape) not in (4, 5) or shape[-1] != 3 or shape[3:-1] not in ((), (1,)):
        raise CoilError(
            f"reading coil {path}: the volume is {shape}, but a coil's field is one vector per voxel, (nx, ny, nz, 3). "
            "Give the A-field of the coil, not a picture."
        )
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise CoilError(
            f"reading coil {path}: the values are of type {dtype}, but a vector potential is real. Save it as float32."
        )
    announced = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if announced > path.stat().st_size * (_DEFLATE if path.name.lower().endswith(".gz") else 1):
        raise CoilError(
            f"reading coil {path}: the header announces {shape} values, more than the file can hold, so it is "
            "truncated or damaged. Get the file again."
        )
    header = image.header
    if not (header["sform_code"] > 0 or header["qform_code"] > 0):
        raise CoilError(
            f"reading coil {path}: neither sform nor qform is set, so nobody knows where in the coil frame the voxels "
            "lie. Save the volume with its affine."
        )
    if int(header["xyzt_units"]) & 7 not in (0, 2):
        raise CoilError(
            f"reading coil {path}: the header says that the affine is in metres or micrometres, but an A-field volume "
            "is in millimetres. Correct the units or the affine."
        )
