"""TMS coils, and the electric field -dA/dt that they induce.

The coil frame is that of SimNIBS: origin at the coil's centre on the casing's bottom plane, z into the head (so every
winding lies at negative z), y the prolongation of the handle, x = y × z.

Sign: `didt` is the rate of change of the current that the coil's moments or wires are given for, and E = -dA/dt. Which
way that current flows is the maker's choice, and it differs. In SimNIBS's D70 of Magstim (and the built-in
``magstim-70mm``) the moments sum to negative z in the wing at negative x and to positive z in the other: positive
`didt` drives E towards +y under the coil's centre, forwards for a handle that points back. In MagVenture's Cool-B65
both signs are turned: positive `didt` drives E towards -y, towards the handle.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import CoilError, PoseError
from .coil_clearance import check_coil_outside, coil_inside_head
from .coil_grid import FieldGrid
from .coil_sources import CLEARANCE_M, add_segments, segment_nodes, sum_dipoles
from .coil_table import FieldTable
from .figure_of_eight import figure_of_eight

__all__ = ["COILS", "MU0_OVER_4PI", "Coil", "check_coil_outside", "coil_inside_head", "load_coil"]

MU0_OVER_4PI = 1e-7
"""Magnetic constant over 4 pi, T·m/A."""

_WIRE_STEP_M = 5e-3
_FARTHEST_M = 10.0  # a wire beyond is a damaged file; its length is what memory is asked for
_FEW = 64  # below this many dipoles the direct sum is as fast as the table; a segment costs as much as ten dipoles


@dataclass(frozen=True, eq=False)
class Coil:
    """A stimulation coil made of magnetic dipoles, of straight pieces of wire, of a sampled field, or of several.

    Parameters
    ----------
    name : str
        What to call it in messages and attributes.
    positions : ndarray (d, 3)
        Dipole positions in the coil frame, m.
    moments : ndarray (d, 3)
        Dipole moments per ampere of coil current, A·m² / A.
    segments : ndarray (k, 2, 3)
        Start and end of straight pieces of wire that carry the coil's current, m, coil frame.
    grids : sequence of FieldGrid
        Sampled vector potentials that add to those of dipoles and wire.
    didt_max : float or None
        Largest rate of change of the current that coil and stimulator reach, A/s.
    description : str
        Maker, model and stimulator, as the file has them.
    casing : (points, triangles) or None
        Surface of the casing, (n, 3) m in the coil frame and (t, 3) indices, for drawing.

    Raises
    ------
    CoilError
        Where the arrays do not fit together, are empty, or hold NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from motorsweep.sim.pose import Pose
    >>> Coil("loop", np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]])).dadt([[0.1, 0.0, 0.0]], Pose(np.eye(4))).round(6)
    array([[ 0., 10.,  0.]])
    """

    name: str
    positions: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    moments: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    segments: np.ndarray = field(default_factory=lambda: np.zeros((0, 2, 3)), kw_only=True)
    grids: tuple[FieldGrid, ...] = field(default=(), kw_only=True)
    didt_max: float | None = field(default=None, kw_only=True)
    description: str = field(default="", kw_only=True)
    casing: tuple[np.ndarray, np.ndarray] | None = field(default=None, kw_only=True)

    def __post_init__(self):
        for name in ("positions", "moments", "segments"):
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "grids", tuple(self.grids))
        shapes = self.positions.shape, self.moments.shape
        some = len(self.positions) or len(self.segments) or self.grids
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1:] != (3,) or not some:
            raise CoilError(
                f"coil {self.name!r}: positions are {shapes[0]} and moments {shapes[1]}, but a coil needs at least one "
                "dipole (or piece of wire, or sampled field), and one moment per position, both (d, 3). Give two "
                "arrays of the same shape."
            )
        if not (np.isfinite(self.positions).all() and np.isfinite(self.moments).all()):
            raise CoilError(
                f"coil {self.name!r}: a dipole's position or moment is NaN or infinite, which would spoil the field "
                "everywhere. Repair or remove that dipole."
            )
        lengths = np.linalg.norm(np.diff(self.segments, axis=1), axis=-1) if self.segments.ndim == 3 else np.zeros(1)
        if len(self.segments) and np.abs(self.segments).max(initial=0) > _FARTHEST_M:
            raise CoilError(
                f"coil {self.name!r}: its wire reaches {np.abs(self.segments).max():.3g} m from the coil's centre, "
                f"farther than any coil is wide ({_FARTHEST_M:g} m). Check the units (.tcd: mm), or repair the file."
            )
        if self.segments.shape[1:] != (2, 3) or not (np.isfinite(lengths) & (lengths > 0)).all():
            raise CoilError(
                f"coil {self.name!r}: the wire is {self.segments.shape}, but must be (k, 2, 3), the start and the end "
                "of each piece, finite and apart. Repair or remove the pieces that are not."
            )

    @cached_property
    def id(self) -> str:
        """Content hash of all that makes the field, 16 hex digits."""
        digest = hashlib.sha256(str(self.positions.shape).encode())
        digest.update((self.positions + 0.0).tobytes())
        digest.update((self.moments + 0.0).tobytes())
        if len(self.segments):
            digest.update(b"segments" + (self.segments + 0.0).tobytes())
        for grid in self.grids:
            digest.update(f"grid{grid.values.shape}{grid.values.dtype}".encode())
            digest.update((grid.affine + 0.0).tobytes() + grid.values.tobytes())
        return digest.hexdigest()[:16]

    def placed(self, pose) -> tuple[np.ndarray, np.ndarray]:
        """Dipole positions (d, 3) m and moments (d, 3) A·m²/A in head coordinates at a pose."""
        rotation = pose.matrix[:3, :3]
        return self.positions @ rotation.T + pose.matrix[:3, 3], self.moments @ rotation.T

    def wire(self, pose) -> np.ndarray:
        """Start and end of the pieces of wire (k, 2, 3) m in head coordinates at a pose."""
        return self.segments @ pose.matrix[:3, :3].T + pose.matrix[:3, 3]

    def sources(self, pose) -> np.ndarray:
        """Points (k, 3) m in head coordinates that must lie outside the head.

        The dipoles, and the wire at least every 5 mm. A sampled field has none but the origin of the coil frame.
        """
        wire = self.wire(pose)
        steps = np.ceil(np.linalg.norm(wire[:, 1] - wire[:, 0], axis=1) / _WIRE_STEP_M).astype(np.int64)
        piece = np.repeat(np.arange(len(wire)), steps)
        along = (np.arange(len(piece)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[piece]
        between = wire[piece, 0] + along[:, None] * (wire[piece, 1] - wire[piece, 0])
        points = np.concatenate([self.placed(pose)[0], between, wire[:, 1]])
        return points if len(points) else pose.matrix[None, :3, 3].copy()

    def dadt(self, points_m, pose, didt: float = 1e6, *, tolerance: float = 1e-5) -> np.ndarray:
        """Time derivative of the vector potential, by a table around the coil or by direct summation.

        dA/dt(r) = dI/dt · 1e-7 · (Σ m × (r - p) / |r - p|³ + Σ ∫ dl / |r - s|), Coulomb gauge; the primary field is
        E = -dA/dt. With `tolerance=0` all sources are summed for each point. Otherwise the field is read off a table
        that is made around the coil, in its own frame, where points first ask for it (see `FieldTable`; at most 80 MB
        a coil), and which serves all poses; only points within some millimetres of a dipole or wire are summed, and
        coils of few sources always.

        Parameters
        ----------
        points_m : array_like (n, 3)
            Points in head coordinates, m.
        pose : Pose
            Where the coil is.
        didt : float
            Rate of change of the coil current, A/s. The default, 1e6, is 1 A/µs.
        tolerance : float
            0 for the exact sum, or from 1e-8 to 1e-2: the error at any point, as a share of the root mean square of
            dA/dt over the table's ball around it, which spans a fraction of the distance to the coil. It is estimated
            from the last terms of each expansion; sources of high symmetry (rings of alternating dipoles) can break
            it where they cancel, but not as a share of the largest dA/dt.
            Measured for the Magstim D70 over the nodes of a head, the default 1e-5 leaves 1e-8 in relative L2 and at
            most 4e-7 of the largest dA/dt anywhere. What grad(phi) adds to the field is a projection of dA/dt, so in
            the norm weighted with the conductivity E is off by no more than dA/dt is: nothing beside the elements'
            own error.

        Returns
        -------
        ndarray (n, 3)
            dA/dt in V/m. The bits of a point's value do not depend on the other points, nor on the threads.

        Raises
        ------
        PoseError
            Where a point lies on a dipole or wire, where the field is infinite, or outside a sampled field, where it is
            not known.
        """
        points = np.ascontiguousarray(points_m, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise CoilError(
                f"dA/dt of coil {self.name!r}: points are {points.shape}, but must be (n, 3) in metres. "
                "Reshape them; a single point is [[x, y, z]]."
            )
        if not np.isfinite(didt):
            raise CoilError(f"dA/dt of coil {self.name!r}: dI/dt is {didt}; give a finite number in A/s.")
        if not (tolerance == 0 or 1e-8 <= tolerance <= 1e-2):
            raise CoilError(
                f"dA/dt of coil {self.name!r}: the tolerance is {tolerance!r}, but no table of another bound than 1e-8 "
                "to 1e-2 can be made. Give one of those, or 0 for the exact sum."
            )
        result = self._potential(points, pose, tolerance, MU0_OVER_4PI * didt)
        for grid in self.grids:
            grid.add(points, pose, didt, result)
        self._check_finite(result, points, pose)
        return result

    def _potential(self, points, pose, tolerance, factor):
        """Vector potential of dipoles and wire per ampere, over 1e-7 T·m/A, times a factor."""
        if not (len(self.positions) or len(self.segments)):
            return np.zeros_like(points)
        if tolerance == 0 or len(self.positions) + 10 * len(self.segments) < _FEW:
            return self._direct(points, pose, factor)
        rotation, centre = np.ascontiguousarray(pose.matrix[:3, :3]), np.ascontiguousarray(pose.matrix[:3, 3])
        result, rest = self.table(tolerance).field(points, rotation, centre, factor)
        if rest.size:
            result[rest] = self._direct(points[rest], pose, factor)
        return result

    def _direct(self, points, pose, factor):
        result = np.empty_like(points)
        positions, moments = self.placed(pose)
        sum_dipoles(points, positions, factor * moments, result)
        if len(self.segments):
            add_segments(points, self.wire(pose), factor, result)
        return result

    def table(self, tolerance: float = 1e-5) -> FieldTable:
        """The table that `dadt` reads for a tolerance; of one tolerance at a time, so that memory stays bounded."""
        table = self.__dict__.get("_table")
        if table is None or table.tolerance != tolerance:
            currents = segment_nodes(self.segments, CLEARANCE_M)
            table = FieldTable((self.positions, self.moments), currents, tolerance)
            object.__setattr__(self, "_table", table)
        return table

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def _check_finite(self, result, points, pose):
        if not np.isfinite(result).all():
            bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
            raise PoseError(
                f"dA/dt of coil {self.name!r} at pose {pose.id}: {bad.size} of {len(points)} points, the first "
                f"number {bad[0]} at {np.round(points[bad[0]] * 1e3, 3)} mm, are not finite or lie on a dipole or "
                "wire, where the field is infinite. Move the coil out of the head, or mend the points."
            )


def _magstim_70mm():
    description = "Magstim 70 mm figure of eight, from its published geometry"
    return Coil("magstim-70mm", *figure_of_eight(), description=description)


def _dipole():
    return Coil("dipole", np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]))


COILS = {"magstim-70mm": _magstim_70mm, "dipole": _dipole}
"""Built-in coils: the figure of eight, and one dipole of 1 A·m²/A along z at the origin of the coil frame."""


def load_coil(name_or_path) -> Coil:
    """Load a built-in coil by name, or a coil file.

    Parameters
    ----------
    name_or_path : str or Path
        A key of `COILS`, or a path whose suffix is in `coil_files.READERS`: dipoles (``.ccd``), SimNIBS's own
        format (``.tcd``), or a sampled vector potential (``.nii``, ``.nii.gz``).

    Returns
    -------
    Coil

    Raises
    ------
    CoilError
        Where the name is unknown, or the file absent, damaged or of another format.

    Examples
    --------
    >>> load_coil("magstim-70mm").positions.shape
    (760, 3)
    """
    from .coil_files import READERS

    if str(name_or_path) in COILS:
        return COILS[str(name_or_path)]()
    path = Path(name_or_path).expanduser()
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
    if suffix and path.is_file():
        return READERS[suffix](path)
    found = "no such file" if not path.is_file() else f"a file of type {path.suffix or '(none)'!r}"
    raise CoilError(
        f"loading coil {str(name_or_path)!r}: found {found}, so there is nothing to compute a field from. "
        f"Give one of the built-in coils ({', '.join(COILS)}) or a file of type {', '.join(READERS)}."
    )
