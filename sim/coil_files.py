"""Readers of coil files."""

from pathlib import Path

import numpy as np

from ..errors import CoilError
from .coil import Coil


def read_ccd(path) -> Coil:
    """Read a SimNIBS ``.ccd`` dipole file.

    Comment lines begin with ``#``; the first other line is the number of dipoles; then one row per dipole, x y z in
    metres and mx my mz in A·m² per ampere, coil frame.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Coil
        Named after the file.

    Raises
    ------
    CoilError
        Naming file and line, where the count is missing or wrong, or a row is not six finite numbers.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CoilError(
            f"reading coil {path}: byte {error.start} is not text, so this is no .ccd file or a damaged one. "
            "Export the coil again."
        ) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    count = _read_count(path, lines)
    rows = np.array([_read_row(path, number, line) for number, line in lines[1:]]).reshape(-1, 6)
    if len(rows) != count:
        raise CoilError(
            f"reading coil {path}: line {lines[0][0]} announces {count} dipoles, but {len(rows)} rows follow, so the "
            "file is truncated or was edited, and its field would be wrong. Get the whole file, or correct the count."
        )
    return Coil(path.stem, rows[:, :3], rows[:, 3:])


def _read_count(path, lines):
    if not lines:
        raise CoilError(f"reading coil {path}: the file holds no dipoles. Get the whole file.")
    number, line = lines[0]
    try:
        count = int(line)
    except ValueError:
        count = 0
    if count < 1:
        raise CoilError(
            f"reading coil {path}, line {number}: found {line[:60]!r} where the number of dipoles should be, a "
            "positive integer alone on its line, without which a truncated file cannot be told. Add it before the rows."
        )
    return count


def _read_row(path, number, line):
    fields = line.replace(",", " ").split()
    try:
        row = [float(field) for field in fields]
    except ValueError:
        row = []
    if len(row) != 6 or not np.isfinite(row).all():
        raise CoilError(
            f"reading coil {path}, line {number}: found {line[:80]!r}, but a dipole is six finite numbers, "
            "x y z (m) mx my mz (A·m² per ampere). Correct or remove the line (and the count above)."
        )
    return row


READERS = {".ccd": read_ccd}
"""Coil file readers by suffix."""
