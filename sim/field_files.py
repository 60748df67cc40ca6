"""Writers of fields for other programs: Gmsh and SimNIBS, NIfTI viewers, ParaView, regression on HDF5.

Lengths in all these files are millimetres, as their readers expect; values keep SI units. A file is written beside its
place and renamed when it is whole, so that no reader sees half of one.
"""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path

import h5py
import meshio
import nibabel
import numpy as np

from ..errors import InputError
from .msh_files import write_msh

_COMPONENTS = (1, 3, 9)
_ROWS_PER_CHUNK = 16
_COLUMNS_PER_CHUNK = 16384  # a chunk is 1 MiB
_LARGEST_CACHE = 256 * 2**20


@contextmanager
def _beside(path, what):
    """A place beside `path` to write to; it becomes `path` when the block ends well, else it goes away."""
    path = Path(path)
    beside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        # HDF5 tells of a full disk in many words, and not always with the system's number.
        told = f"writing {what} {path}: {error.strerror or error}"
        raise (OSError(error.errno, told) if error.errno else OSError(told)) from error
    finally:
        beside.unlink(missing_ok=True)


def e_fields(e):
    """Name the field in elements (or points) as SimNIBS does, so that its viewers understand it.

    Parameters
    ----------
    e : array_like (m, 3), V/m

    Returns
    -------
    dict
        ``"E"`` (m, 3) and ``"magnE"`` (m,), V/m.

    Examples
    --------
    >>> e_fields([[3.0, 4.0, 0.0]])["magnE"].tolist()
    [5.0]
    """
    e = np.asarray(e, dtype=float)
    return {"E": e, "magnE": np.linalg.norm(e, axis=-1)}


def write_field_msh(path, head, fields, node_fields=None):
    """Write the head with fields in its elements as a binary Gmsh 2.2 mesh (mm), which Gmsh and SimNIBS open.

    Each field is a section ``$ElementData`` (``$NodeData``) after the elements: one string tag (the name), one real tag
    (time 0), four integer tags (time step 0, components, rows, partition 0), then rows of an int32 number, from 1 in
    the order of the head, and float64 values. Format: https://gmsh.info/doc/texinfo/gmsh.html, MSH file format 2.

    Parameters
    ----------
    path : path-like
    head : Head
    fields : mapping of str to array_like (m,), (m, 3) or (m, 9)
        Values of each element; see `e_fields` for the names.
    node_fields : mapping of str to array_like (n,), (n, 3) or (n, 9), optional
        Values at each node, such as the potential ``"v"``.

    Raises
    ------
    InputError
        If a field has not one row for each element or node, or a name that the format cannot hold.

    Examples
    --------
    >>> write_field_msh("pose.msh", head, e_fields(solver.elements([pose])[0]))       # doctest: +SKIP
    """
    parts = [(b"ElementData", name, values, len(head.tets), "element") for name, values in fields.items()]
    parts += [(b"NodeData", name, values, len(head.nodes), "node") for name, values in (node_fields or {}).items()]
    sections = [(kind, _msh_name(path, name), _rows(path, name, *rest)) for kind, name, *rest in parts]
    with _beside(path, "the mesh") as beside:
        write_msh(beside, head.nodes, head.tets, head.tissue)
        with open(beside, "ab") as file:
            for kind, name, values in sections:
                _append_data(file, kind, name, values)


def _msh_name(path, name):
    if not name or not name.isprintable() or '"' in name:
        raise InputError(
            f"writing the mesh {path}: a field is called {name!r}, but a name in a Gmsh file is one line without "
            "quotation marks; give it another name."
        )
    return name


def _rows(path, name, values, count, unit):
    """Values as (count, components) float64."""
    values = np.asarray(values, dtype=np.float64)
    components = values.shape[1] if values.ndim == 2 else 1
    if values.ndim not in (1, 2) or len(values) != count or components not in _COMPONENTS:
        raise InputError(
            f"writing {path}: the field {name!r} is {values.shape}, but the head has {count} {unit}s, and each needs "
            f"its 1, 3 or 9 values; give an array ({count},) or ({count}, 3)."
        )
    return values.reshape(count, components)


def _append_data(file, kind, name, values):
    rows = np.empty(len(values), np.dtype([("number", "<i4"), ("values", "<f8", (values.shape[1],))]))
    rows["number"] = np.arange(1, len(values) + 1)
    rows["values"] = values
    file.write(b'$%s\n1\n"%s"\n1\n0.0\n4\n0\n' % (kind, name.encode()))
    file.write(b"%d\n%d\n0\n" % (values.shape[1], len(values)))
    rows.tofile(file)
    file.write(b"\n$End%s\n" % kind)


def write_vtu(path, head, fields, node_fields=None):
    """Write the head with fields in its elements as a VTK unstructured grid, for ParaView.

    Points are millimetres, as in the meshes of SimNIBS and the images that one lays beside it; values keep SI units.
    The tissue tags are the cell array ``tissue``.

    Parameters
    ----------
    path : path-like
        Ends in ``.vtu``.
    head : Head
    fields : mapping of str to array_like (m,) or (m, 3)
    node_fields : mapping of str to array_like (n,) or (n, 3), optional

    Raises
    ------
    InputError
        If a field has not one row for each element or node.

    Examples
    --------
    >>> write_vtu("pose.vtu", head, e_fields(solver.elements([pose])[0]))             # doctest: +SKIP
    """
    cells = {name: [_flat(_rows(path, name, v, len(head.tets), "element"))] for name, v in fields.items()}
    points = {name: _flat(_rows(path, name, v, len(head.nodes), "node")) for name, v in (node_fields or {}).items()}
    mesh = meshio.Mesh(
        head.nodes * 1e3, [("tetra", head.tets)], point_data=points, cell_data={"tissue": [head.tissue], **cells}
    )
    with _beside(path, "the VTK grid") as beside:
        meshio.write(beside, mesh, file_format="vtu", binary=True, compression="zlib")


def _flat(rows):
    return rows[:, 0] if rows.shape[1] == 1 else rows


def write_nifti(path, grid, values, *, units, name="", space="scanner"):
    """Write values on a volume grid as a NIfTI-1 image, float32.

    Voxel indices become millimetres (RAS) by sform and qform alike. A vector field has a fourth axis of length 3, which
    SimNIBS and FSLeyes take for x, y, z.

    Parameters
    ----------
    path : path-like
        Ends in ``.nii`` or ``.nii.gz``.
    grid : VolumeGrid
    values : array_like (n, n, n) or (n, n, n, 3)
        Axis order x, y, z.
    units : str
        Of the values, with what they hold for: ``"V/m at 1 A/us"``. Kept, after the name, in the 80 bytes of the
        header's description.
    name : str
        What the values are: ``"|E|"``.
    space : {"scanner", "aligned", "mni", "talairach"}
        What the millimetres are coordinates of, as NIfTI's codes name it: the subject's scan, another image that it is
        aligned with, or a template.

    Raises
    ------
    InputError
        If the values do not fit the grid, or the file's suffix or the space is another.

    Examples
    --------
    >>> write_nifti("e.nii.gz", grid, e_norm, units="V/m at 1 A/us", name="|E|")      # doctest: +SKIP
    """
    values, path = np.asarray(values, dtype=np.float32), Path(path)
    if values.shape not in (grid.shape, (*grid.shape, 3)):
        raise InputError(
            f"writing the image {path}: values are {values.shape}, but the grid is {grid.shape}; give one value, or "
            "the three components along a last axis, for each voxel."
        )
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"writing the image {path}: a NIfTI image ends in .nii or .nii.gz; give it such a name.")
    if space not in ("scanner", "aligned", "mni", "talairach"):
        raise InputError(f"writing the image {path}: space {space!r} is not scanner, aligned, mni or talairach.")
    affine = grid.affine()
    affine[:3] *= 1e3
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, space)
    image.set_qform(affine, space)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{name} {units}".strip().encode()[:79]
    with _beside(path, "the image") as beside:
        nibabel.save(image, beside)


def write_e_matrix(
    path, e, *, poses, columns, numbers=None, didt=1e6, points_m=None, tissue=None, affine=None, notes=None
):  # fmt: skip
    """Write |E| of many poses as one matrix (stimuli, elements or voxels) in HDF5, for regression on responses.

    The datasets: ``e_matrix`` (p, c) float32, V/m; ``e_vector`` (p, c, 3) where components were given; ``pose`` (p,);
    ``pose_matrix`` (p, 4, 4), coil to head, mm, axes of SimNIBS; ``column`` (c,) or (c, 3); ``point`` (c, 3), mm;
    ``tissue`` (c,); ``affine`` (4, 4), voxel to mm. The attributes say units and dI/dt, in which fields are linear. The
    rows are written block by block, so that a matrix larger than the memory can be written.

    Parameters
    ----------
    path : path-like
    e : ndarray (p, c) or (p, c, 3), or iterable of such blocks of rows
        |E| or its components, V/m.
    poses : sequence of Pose or of array_like (4, 4), length p
        Metres.
    columns : array_like of int (c,) or (c, 3)
        What each column is: the index of an element of the head (from 0), or of a voxel (x, y, z).
    numbers : array_like of int (p,), optional
        Number of each pose in its study; by default they are counted from 0.
    didt : float
        Rate of change of the coil current that the field is for, A/s.
    points_m : array_like (c, 3), optional
        Where the columns are, m.
    tissue : array_like (c,), optional
        Tissue tags.
    affine : array_like (4, 4), optional
        Voxel index to m, as `VolumeGrid.affine` gives it.
    notes : mapping of str to str or number, optional
        More attributes, such as the names of head and coil.

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite, or there are fewer or more rows than poses.

    Examples
    --------
    >>> rows = (solver.elements([pose])[:, cortex] for pose in poses)                 # doctest: +SKIP
    >>> write_e_matrix("e.hdf5", rows, poses=poses, columns=cortex)                   # doctest: +SKIP
    """
    columns = np.asarray(columns, dtype=np.int64)
    matrices = np.array([getattr(pose, "matrix", pose) for pose in poses], dtype=float)
    numbers = np.arange(len(matrices)) if numbers is None else np.asarray(numbers, dtype=np.int64)
    _check_e_matrix(path, matrices, numbers, columns, {"point": points_m, "tissue": tissue})
    matrices[:, :3, 3] *= 1e3
    cache = min(_LARGEST_CACHE, int(1.5 * 12 * _ROWS_PER_CHUNK * len(columns)) + 2**20)
    blocks = [e] if isinstance(e, np.ndarray) else e
    with _beside(path, "the matrix") as beside, h5py.File(beside, "w", rdcc_nbytes=cache) as file:
        file.attrs.update({"didt_a_per_s": float(didt), **(notes or {})})
        _put(file, "pose_matrix", matrices, "coil to head; z into the head, handle towards -y, as in SimNIBS", "mm")
        _put(file, "pose", numbers, "number of the pose in its study")
        kind = "voxel (x, y, z)" if columns.ndim == 2 else "element of the head"
        _put(file, "column", columns, f"{kind}, counted from 0, of each column of e_matrix")
        if points_m is not None:
            _put(file, "point", np.asarray(points_m, float) * 1e3, "where each column of e_matrix is", "mm")
        if tissue is not None:
            _put(file, "tissue", np.asarray(tissue, np.int16), "tissue tag of each column, as in SimNIBS")
        if affine is not None:
            _put(file, "affine", np.diag([1e3, 1e3, 1e3, 1.0]) @ np.asarray(affine), "voxel index to head", "mm")
        _put_rows(path, file, blocks, (len(matrices), len(columns)))


def _check_e_matrix(path, matrices, numbers, columns, of_columns):
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or not np.isfinite(matrices).all():
        raise InputError(
            f"writing the matrix {path}: the poses make an array {matrices.shape}, or hold NaN; give at least one 4x4 "
            "matrix of finite numbers."
        )
    if numbers.shape != (len(matrices),):
        raise InputError(f"writing the matrix {path}: there are {numbers.shape} numbers for {len(matrices)} poses.")
    if not len(columns) or columns.shape[1:] not in ((), (3,)):
        raise InputError(
            f"writing the matrix {path}: columns are {columns.shape}; give at least one element's index (c,), or voxel "
            "indices (c, 3)."
        )
    for name, values in of_columns.items():
        shape = (len(columns), 3) if name == "point" else (len(columns),)
        if values is not None and np.shape(values) != shape:
            raise InputError(f"writing the matrix {path}: {name} is {np.shape(values)}; the columns need {shape}.")


def _put(file, name, values, meaning, units="1"):
    file[name] = values
    file[name].attrs.update({"long_name": meaning, "units": units})


def _put_rows(path, file, blocks, shape):
    """Append the blocks to ``e_matrix`` (and ``e_vector``) as they come."""
    at, vector = 0, None
    matrix = _dataset(file, "e_matrix", shape, "|E|")
    for block in blocks:
        block = np.asarray(block, dtype=np.float32)
        has_components = block.ndim == 3
        if at == 0 and has_components:
            vector = _dataset(file, "e_vector", (*shape, 3), "E along x, y and z of the head")
        expected = shape[1:] if vector is None else (shape[1], 3)
        if block.shape[1:] != expected or at + len(block) > shape[0]:
            raise InputError(
                f"writing the matrix {path}: rows {at} and on are {block.shape}, but {shape[0] - at} rows of {expected}"
                " values are left; give one row for each pose, and one value (or three) for each column."
            )
        bad = np.flatnonzero(~np.isfinite(block.reshape(len(block), -1)).all(1))
        if len(bad):
            raise InputError(
                f"writing the matrix {path}: row {at + bad[0]} holds NaN or infinity; leave that pose out."
            )
        matrix[at : at + len(block)] = np.linalg.norm(block, axis=2) if has_components else block
        if vector is not None:
            vector[at : at + len(block)] = block
        at += len(block)
    if at != shape[0]:
        raise InputError(f"writing the matrix {path}: {at} rows came for {shape[0]} poses; give one row for each pose.")


def _dataset(file, name, shape, meaning):
    across = _COLUMNS_PER_CHUNK if len(shape) == 2 else _COLUMNS_PER_CHUNK // 3
    chunks = (min(shape[0], _ROWS_PER_CHUNK), min(shape[1], across), *shape[2:])
    dataset = file.create_dataset(
        name, shape, "f4", chunks=chunks, compression="gzip", compression_opts=3, shuffle=True
    )
    dataset.attrs.update({"long_name": meaning, "units": "V/m", "rows": "stimuli", "columns": "see column"})
    return dataset
