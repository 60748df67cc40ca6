"""The labels of every store in one place: dimensions, status codes, and what a variable says of itself."""

import enum
from dataclasses import dataclass

import numpy as np
import xarray as xr

SCHEMA_VERSION = 1
"""Attribute ``motorsweep_schema`` of every store; a store of another version is refused by name."""

CONVENTIONS = "CF-1.11"
VOLUME_DIMS = ("pose", "x", "y", "z")
FIELD_DIMS = ("pose", "component", "x", "y", "z")
GRID_DIMS = ("x", "y", "z")
CODE_DIMS = ("trial", "code_x", "code_y", "code_z")
CELL_DIMS = ("input", "depth", "connection", "repeat")
HYPER_DIMS = ("dropout", "l1", "activation", "scaling")
CV_DIMS = (*CELL_DIMS, "fold", *HYPER_DIMS)
CURVE_DIMS = (*CELL_DIMS, "trials")
BASELINES = ("mean", "ridge", "pls", "ridge_voxels", "gp_position", "response_model", "best_possible")
BOUNDS = ("low", "high")


class Status(enum.IntEnum):
    """State of a pose, a run or a cell of the results.

    Examples
    --------
    >>> Status.DONE.value
    1
    """

    PENDING = 0
    DONE = 1
    FAILED = 2


STATUS_ATTRS = {
    "flag_values": [int(status) for status in Status],
    "flag_meanings": " ".join(status.name.lower() for status in Status),
    "units": "1",
}


class Method(enum.IntEnum):
    """How the field of a pose was found: not at all, by an exact solve of one kind, or from modes within a tolerance.

    Examples
    --------
    >>> Method.MODES.value
    3
    """

    NONE = 0
    DIRECT = 1
    ITERATIVE = 2
    MODES = 3


METHOD_ATTRS = {
    "flag_values": [int(method) for method in Method],
    "flag_meanings": " ".join(method.name.lower() for method in Method),
    "units": "1",
}


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What a variable of a store is: dimensions, dtype, the value of a cell that is not there, and its attributes."""

    dims: tuple[str, ...]
    long_name: str
    dtype: str = "float64"
    missing: object = np.nan
    units: str = "1"
    comment: str = ""

    @property
    def attrs(self) -> dict:
        """CF attributes: ``units``, ``long_name``, ``comment`` where there is one, the flags of a status."""
        texts = {"long_name": self.long_name, "units": self.units, "comment": self.comment}
        flags = STATUS_ATTRS if self.dtype == "int8" else {}
        return {key: value for key, value in {**texts, **flags}.items() if value != ""}

    def empty(self, sizes: dict) -> xr.Variable:
        """Return the variable with every cell missing, shaped by the `sizes` of the dimensions."""
        values = np.full([sizes[dim] for dim in self.dims], self.missing, dtype=self.dtype)
        return xr.Variable(self.dims, values, self.attrs)


def global_attrs(title: str) -> dict:
    """Give the attributes that every store carries: what it is, by which convention, made by what.

    Examples
    --------
    >>> global_attrs("field volumes")["Conventions"]
    'CF-1.11'
    """
    from .. import __version__

    source = f"motorsweep {__version__}"
    return {"title": title, "Conventions": CONVENTIONS, "source": source, "motorsweep_schema": SCHEMA_VERSION}


def label_array(labels) -> np.ndarray:
    """Turn labels into an array; text becomes dtype object, which Zarr stores with variable length."""
    array = np.asarray(labels)
    if array.dtype.kind == "U":
        return array.astype(object)
    return array if array.size else array.astype(np.int64)
