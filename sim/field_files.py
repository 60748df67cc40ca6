"""Writers of fields for other programs: Gmsh and SimNIBS, NIfTI viewers, ParaView, regression on HDF5.

Lengths in all these files are millimetres, as their readers expect; values keep SI units. A file is written beside its
place and renamed when it is whole, so that no reader sees half of one.
"""

from pathlib import Path

import meshio
import nibabel
import numpy as np

from ..errors import InputError
from .field_matrix import write_e_matrix
from .msh_files import write_msh
from .whole_file import whole_file

__all__ = ["e_fields", "write_e_matrix", "write_field_msh", "write_nifti", "write_vtu"]

_COMPONENTS = (1, 3, 9)


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
    with whole_file(path, "the mesh") as beside:
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
    with whole_file(path, "the VTK grid") as beside:
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
    with whole_file(path, "the image") as beside:
        nibabel.save(image, beside)
