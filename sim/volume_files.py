"""Voxel grids and arrays out of NIfTI and NumPy files, read without trust in any size that they state.

What a header asks for is held against what the file can hold before memory is taken, and nothing in a file is run.
"""

import gzip
import math
import zipfile
from pathlib import Path

import numpy as np

from ..errors import MeshError
from .solver_memory import free_bytes

# Deflate, the method of gzip and zip, packs at most about this many bytes into one.
_MOST_GROWTH = 1032
_MM = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}


def read_arrays(path, names):
    """Arrays of an ``.npz`` by name; Python objects in it are refused.

    Parameters
    ----------
    path : path-like
    names : sequence of str

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    MeshError
        If the file cannot be read, is damaged, lacks a name, or holds Python objects.

    Examples
    --------
    >>> read_arrays("labels.npz", ("labels", "affine"))["labels"].shape           # doctest: +SKIP
    """
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in names if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise MeshError(f"{path}: lacks {' and '.join(missing)}; it must hold {', '.join(names)}.")
            for name in names:
                _check_member(archive, name, path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except OSError as error:
        raise MeshError(f"{path}: cannot be read ({error.strerror or error}); check the path.") from error
    except MeshError:
        raise
    except MemoryError as error:
        raise _too_large(path) from error
    except Exception as error:
        # zipfile, numpy and the header's parser fail on damaged bytes in more ways than they state.
        raise MeshError(f"{path}: it is no .npz or is damaged ({_reason(error)}); copy it again.") from error


def _reason(error):
    return str(error)[:200] or type(error).__name__


def _too_large(path):
    return MeshError(f"{path}: takes more memory than there is; crop the volume to the head, or use a larger machine.")


def _check_member(archive, name, path):
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MeshError(f"{path}: {name} is packed in a way that numpy does not write; save it with numpy.savez.")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if kind.hasobject:
            raise MeshError(
                f"{path}: {name} holds Python objects (pickled), which may run code when they are read; save it as "
                "plain numbers."
            )
        size, there = math.prod(shape) * kind.itemsize, entry.file_size - file.tell()
    if size != there or entry.file_size > _MOST_GROWTH * entry.compress_size + 1024:
        raise MeshError(f"{path}: {name} should take {size} bytes, found {there}; the file is damaged; copy it again.")
    _check_memory(size, path)


def _check_memory(size, path):
    available = free_bytes()
    if size > available:
        raise MeshError(
            f"{path}: takes {size / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are there; crop the volume to "
            "the head or reduce its resolution, or use a larger machine."
        )


def read_nifti(path):
    """Voxels and affine of a NIfTI file (``.nii``, ``.nii.gz``, version 1 or 2).

    Parameters
    ----------
    path : path-like

    Returns
    -------
    voxels : ndarray, scaled as the header says
    affine : ndarray (4, 4), voxel index to mm, whatever the unit of the file

    Raises
    ------
    MeshError
        If the file cannot be read, is damaged or cut short, holds colours, or says not where its voxels lie.

    Examples
    --------
    >>> voxels, affine = read_nifti("segmentation.nii.gz")                        # doctest: +SKIP
    """
    path = Path(path)
    try:
        stored = path.stat().st_size
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            header = _nifti_header(file, path)
            voxels = _nifti_voxels(file, header, stored * (_MOST_GROWTH if packed else 1), path)
        return voxels, _nifti_affine(header, path)
    except MeshError:
        raise
    except gzip.BadGzipFile as error:
        raise MeshError(f"{path}: the gzip file is damaged ({error}); copy it again.") from error
    except OSError as error:
        raise MeshError(f"{path}: cannot be read ({error.strerror or error}); check the path.") from error
    except MemoryError as error:
        raise _too_large(path) from error
    except Exception as error:
        # The header's parser fails on damaged bytes in more ways than it states.
        raise MeshError(f"{path}: it is no NIfTI file or is damaged ({_reason(error)}); copy it again.") from error


def _nifti_header(file, path):
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    raw = file.read(540)
    for kind, size, magic in ((Nifti1Header, 348, raw[344:348]), (Nifti2Header, 540, raw[4:8])):
        if len(raw) >= size and size in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")):
            if magic[:3] not in (b"n+1", b"n+2"):
                break
            file.seek(0)
            return kind(file.read(size))
    raise MeshError(f"{path}: does not begin as a NIfTI file does; give a .nii or .nii.gz that holds header and data.")


def _nifti_voxels(file, header, most, path):
    shape, kind, start = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    if kind.names or kind.kind not in "iuf":
        what = "colours (RGB)" if kind.names else f"numbers of type {kind}"
        raise MeshError(f"{path}: holds {what}, not labels; save the segmentation as whole numbers.")
    size = math.prod(int(n) for n in shape) * kind.itemsize
    if not shape or min(shape) < 1 or start < 0 or start + size > most:
        raise MeshError(
            f"{path}: cut short: the header announces {'x'.join(map(str, shape))} voxels of {kind}, {size} bytes, "
            "which the file cannot hold; copy it again."
        )
    _check_memory(2 * size, path)
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise MeshError(f"{path}: cut short: {len(data)} of {size} bytes of voxels are there; copy it again.")
    voxels = np.frombuffer(data, kind).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope, intercept) == (1, 0):
        return voxels
    return voxels * slope + (intercept or 0)


def _nifti_affine(header, path):
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        raise MeshError(f"{path}: neither sform nor qform is set, so voxels have no place in the head; set the affine.")
    affine = np.array(header.get_best_affine(), dtype=float)
    affine[:3] *= _MM[header.get_xyzt_units()[0]]
    return affine
