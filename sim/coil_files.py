"""Readers of coil files."""

import re
from pathlib import Path

import numpy as np

from ..errors import CoilError
from .afield_files import read_afield
from .coil import Coil
from .tcd_files import read_tcd

_FARTHEST_M = 2.0


def read_ccd(path) -> Coil:
    """Read a SimNIBS ``.ccd`` dipole file.

    Comment lines begin with ``#``; the first other line is the number of dipoles; then one row per dipole, x y z in
    metres and mx my mz in A·m² per ampere, coil frame. The comments may hold ``dIdtmax=`` (A/µs), ``brand=``,
    ``coilname=`` and ``stimulator=``, each up to a semicolon.

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
        Naming file and line, where the count is missing or wrong, a row is not six finite numbers, a dipole lies
        metres away, all moments are zero, or ``dIdtmax`` is no rate.
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
    header = _read_header(path, [line for _, line in lines if line.startswith("#")])
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    count = _read_count(path, lines)
    rows = np.array([_read_row(path, number, line) for number, line in lines[1:]]).reshape(-1, 6)
    if len(rows) != count:
        raise CoilError(
            f"reading coil {path}: line {lines[0][0]} announces {count} dipoles, but {len(rows)} rows follow, so the "
            "file is truncated or was edited, and its field would be wrong. Get the whole file, or correct the count."
        )
    if not rows[:, 3:].any():
        raise CoilError(
            f"reading coil {path}: the moments of all {count} dipoles are zero, so the coil has no field. Export it "
            "again; a dipole's last three numbers are its moment, A·m² per ampere."
        )
    return Coil(path.stem, rows[:, :3], rows[:, 3:], **header)


def _read_header(path, comments):
    """Keyword arguments of `Coil` from the comments' fields."""
    fields = dict(re.findall(r"(\w+)=([^;=\n]*)(?=;|$)", "\n".join(comments), flags=re.MULTILINE))
    words = [fields.get(key, "").strip() for key in ("brand", "coilname")]
    stimulator = fields.get("stimulator", "").strip()
    description = " ".join(word for word in words if word) + (f", stimulator {stimulator}" if stimulator else "")
    if "dIdtmax" not in fields:
        return {"description": description.strip(", ")}
    try:
        rate = float(fields["dIdtmax"])
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e4:
        raise CoilError(
            f"reading coil {path}: the header's dIdtmax is {fields['dIdtmax'][:40]!r}, but the largest rate of change "
            "of the coil's current is a positive number of A/µs. Correct it, or take it out of the header."
        )
    return {"description": description.strip(", "), "didt_max": rate * 1e6}


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
    if max(abs(value) for value in row[:3]) > _FARTHEST_M:
        raise CoilError(
            f"reading coil {path}, line {number}: the dipole lies at {row[:3]} m, farther away than any coil is wide; "
            "positions in a .ccd file are in metres. Divide millimetres by 1000, or correct the line."
        )
    return row


READERS = {".ccd": read_ccd, ".tcd": read_tcd, ".nii.gz": read_afield, ".nii": read_afield}
"""Coil file readers by suffix."""
