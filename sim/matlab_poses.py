"""Coil poses out of MATLAB files: SimNIBS matrices (``matsimnibs``)."""

import io

import numpy as np
from scipy.io import loadmat

from ..errors import PoseError
from .markers import Marker
from .matlab_layout import check_layout


def read_matlab(path) -> list[Marker]:
    """Read matrices of a MATLAB file: every ``matsimnibs`` in it, however deep; else every numeric 4x4 variable.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Marker

    Raises
    ------
    PoseError
        Naming the file, where it is damaged, is none that SciPy reads, or holds no such matrix.
    """
    data = path.read_bytes()
    try:
        check_layout(data)
        content = loadmat(io.BytesIO(data), simplify_cells=True)
    except Exception as error:  # SciPy meets damaged bytes with almost any exception
        reason = "".join(mark for mark in str(error) if mark.isprintable())[:200]  # it may quote the damaged bytes
        raise PoseError(
            f"reading coil poses from {path}: not a MATLAB file that SciPy can read "
            f"({type(error).__name__}: {reason}). Save it with -v7, or as CSV."
        ) from error
    content = {name: value for name, value in content.items() if not name.startswith("__")}
    found = list(_matsimnibs(content, "")) or [
        item for name, value in content.items() if not isinstance(value, dict) for item in _stack(value, name)
    ]
    if not found:
        raise PoseError(
            f"reading coil poses from {path}: no variable `matsimnibs` and no 4x4 matrix among "
            f"{', '.join(content)[:200] or 'no variables'}. Save the 4x4 poses (mm) as `matsimnibs`, (4, 4) or "
            "(n, 4, 4)."
        )
    return found


def _matsimnibs(value, name):
    if isinstance(value, dict):
        for key, item in value.items():
            place = f"{name}.{key}" if name else key
            yield from _stack(item, place) if key == "matsimnibs" else _matsimnibs(item, place)
    for i, item in enumerate(_cells(value)):
        yield from _matsimnibs(item, f"{name}[{i}]")


def _cells(value):
    """Items of what SciPy makes of a cell or struct array; none of anything else."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return list(value.ravel())
    return value if isinstance(value, list) else []


def _stack(value, name):
    """Matrices of an array (4, 4), (n, 4, 4) or (4, 4, n), or of a cell array of such; nothing out of other shapes."""
    if cells := _cells(value):
        return [marker for i, item in enumerate(cells) for marker in _stack(item, f"{name}[{i}]")]
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        return []
    if array.shape == (4, 4):
        return [Marker(f"variable {name}", array)]
    if array.ndim != 3:
        return []
    if array.shape[1:] != (4, 4) or (array.shape == (4, 4, 4) and not np.allclose(array[:, 3], (0, 0, 0, 1))):
        array = np.moveaxis(array, -1, 0)
    if array.shape[1:] != (4, 4):
        return []
    return [Marker(f"variable {name}[{i}]", matrix) for i, matrix in enumerate(array)]
