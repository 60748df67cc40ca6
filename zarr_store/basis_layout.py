"""The arrays of a basis of modes: what each is called and is, and whether they fit each other."""

from dataclasses import dataclass

import numpy as np

from .schema import GRID_DIMS


@dataclass(frozen=True, kw_only=True)
class BasisArray:
    """What an array of a basis is; without `dims` its dimensions are its own."""

    long_name: str
    dims: tuple[str, ...] = ()
    units: str = "1"
    comment: str = ""
    dtype: str = "float64"


BASIS_ARRAYS = {
    "fields": BasisArray(
        dims=("mode", "voxel", "component"), long_name="electric field of the modes", units="V m-1",
        comment="in the voxels of `voxels`", dtype="float32",
    ),
    "voxels": BasisArray(
        dims=("voxel",), long_name="flat index of the voxel in the grid, C order of x, y, z", dtype="int64"
    ),
    "points": BasisArray(dims=("point", "axis"), long_name="points at which dA/dt of the coil is sampled", units="m"),
    "weights": BasisArray(
        dims=("coefficient", "sample"), long_name="dA/dt at the points to coefficients of the modes", units="m V-1",
        comment="sample = 3 point + axis; the modes that are not summed, for the error estimate, come last",
    ),
    "brain": BasisArray(
        dims=("coefficient", "other"), long_name="inner products of the modes over brain tissue", units="V2 m-2"
    ),
    "scale": BasisArray(long_name="factor of the error estimate"),
    "floor": BasisArray(long_name="least error of the coefficients", comment="see motorsweep.sim.modes"),
    "singular_values": BasisArray(
        dims=("singular_value",), long_name="singular values of the training fields, over the largest"
    ),
    "heldout_errors": BasisArray(
        dims=("heldout",), long_name="relative L2 error in brain tissue on held-out exact solves"
    ),
    "heldout_estimates": BasisArray(dims=("heldout",), long_name="error estimate of the held-out poses"),
    "heldout_others": BasisArray(dims=("heldout",), long_name="relative L2 error in all other tissues together"),
}  # fmt: skip
"""The arrays that are known by name; others are kept with dimensions of their own."""

LABELS = {"component": GRID_DIMS, "axis": GRID_DIMS}
"""Dimensions whose positions have names."""


def dims_of(name, ndim):
    """Names of an array's dimensions.

    Examples
    --------
    >>> dims_of("points", 2), dims_of("other", 1)
    (('point', 'axis'), ('other_0',))
    """
    if name in LABELS:
        return (name,)
    known = BASIS_ARRAYS[name].dims if name in BASIS_ARRAYS else ()
    return known or tuple(f"{name}_{axis}" for axis in range(ndim))


def fault_of(arrays):
    """Say what is wrong with the arrays of a basis; nothing where all is well.

    Parameters
    ----------
    arrays : dict of ndarray

    Returns
    -------
    str
        Which array does not fit the others, is of the wrong kind, or is not finite.

    Examples
    --------
    >>> fault_of({"voxels": np.arange(3), "fields": np.ones((1, 2, 3), np.float32)})
    'fields has 2 along voxel, voxels has 3'
    """
    return _misfit({name: array.shape for name, array in arrays.items()}) or _not_numbers(arrays)


def _misfit(shapes):
    sizes = {}
    for name, shape in shapes.items():
        dims = dims_of(name, len(shape))
        if not str(name).isidentifier() or name in LABELS:
            return f"{name!r} is no name for an array of it"
        if len(dims) != len(shape):
            return f"{name} has the shape {shape}, not one of {', '.join(dims)}"
        for dim, size in zip(dims, shape):
            first, known = sizes.setdefault(dim, (name, len(LABELS[dim]) if dim in LABELS else size))
            if known != size:
                return f"{name} has {size} along {dim}, {first} has {known}"
    if {"coefficient", "other"} <= sizes.keys() and sizes["coefficient"][1] != sizes["other"][1]:
        return f"brain has the shape {shapes['brain']}, it must be square"
    if {"sample", "point"} <= sizes.keys() and sizes["sample"][1] != 3 * sizes["point"][1]:
        return f"weights has {sizes['sample'][1]} samples, not 3 for each of {sizes['point'][1]} points"
    return ""


def _not_numbers(arrays):
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            return f"{name} holds {array.dtype}, not numbers"
        if name in BASIS_ARRAYS and array.dtype != BASIS_ARRAYS[name].dtype:
            return f"{name} holds {array.dtype}, not {BASIS_ARRAYS[name].dtype}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} holds NaN or infinity"
    return ""
