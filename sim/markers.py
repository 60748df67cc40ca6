"""What pose files hold before it is a pose: markers, perhaps in sections, some of them without a position."""

import warnings
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from ..errors import PoseError
from .quotation import quoted

SECTIONS = ("samples", "targets")
"""Stimuli as they happened, and places where stimuli were planned."""

_NAMED_AT_MOST = 20


@dataclass(frozen=True)
class Target:
    """A place that was stimulated, of which the coil's orientation is not known.

    Targets are equal where place and angle are. `pose_targets.place_targets` lays the coil over them.

    Parameters
    ----------
    point_m : tuple of 3 floats
        The coil's centre, or a place in the cortex under it, m.
    angle_deg : float or None
        Angle between handle and midline, where the file has it.
    number : int
        Of the row in its file, from 0; rows without a position count too.
    """

    point_m: tuple
    angle_deg: float | None = None
    number: int | None = field(default=None, compare=False)
    name: ClassVar[str] = ""
    didt: ClassVar[float | None] = None


class Marker(NamedTuple):
    """One entry of a pose file.

    Attributes
    ----------
    place : str
        Where in the file, for messages.
    matrix_mm : ndarray (4, 4) or None
        In the axes of SimNIBS, RAS, mm; None where the marker has no pose, or a position alone.
    name : str
        What the navigator calls it.
    didt : float or None
        Rate of change of the coil current, A/s.
    problem : str
        Why it has no pose.
    point_mm : tuple of 3 floats or None
        Of a table of positions, in place of a matrix.
    angle_deg : float or None
        Beside a position: angle between handle and midline.
    """

    place: str
    matrix_mm: np.ndarray | None
    name: str = ""
    didt: float | None = None
    problem: str = ""
    point_mm: tuple | None = None
    angle_deg: float | None = None

    @property
    def tracked(self):
        """Whether it is known where the coil was."""
        return self.matrix_mm is not None or self.point_mm is not None


class SkippedMarkerWarning(UserWarning):
    """Markers of a navigator's file have no pose, so that there is no field for their trials."""


def chosen_section(path, found, section):
    """Entries of the section that was asked for; without a wish the samples, or else the targets.

    Parameters
    ----------
    path : Path
    found : dict of list
        Entries by section.
    section : {"samples", "targets"} or None

    Raises
    ------
    PoseError
        Where there is none of that section.
    """
    if section is None:
        section = next((name for name in SECTIONS if found[name]), "samples")
    if section not in SECTIONS or not found[section]:
        held = " and ".join(f"{len(found[name])} {name}" for name in SECTIONS)
        raise PoseError(
            f"reading coil poses from {path}: no {quoted(section)} in it (it holds {held}), so there is nothing to "
            f"simulate. Ask for {' or '.join(SECTIONS)} that are there, or export the session again."
        )
    return found[section]


def warn_of_untracked(path, markers):
    """Tell which markers have no pose, if there are any."""
    skipped = [i for i, marker in enumerate(markers) if not marker.tracked]
    if not skipped:
        return
    named = ", ".join(map(str, skipped[:_NAMED_AT_MOST]))
    more = f" and {len(skipped) - _NAMED_AT_MOST} more" if len(skipped) > _NAMED_AT_MOST else ""
    problems = "; ".join(sorted({markers[i].problem for i in skipped}))
    has = "have" if len(skipped) > 1 else "has"
    warnings.warn(
        f"reading coil poses from {path}: {len(skipped)} of {len(markers)} markers {has} no pose ({named}{more}): "
        f"trials that belong to them are left out. The reason: {problems}. Numbers count all markers, from 0.",
        SkippedMarkerWarning,
        stacklevel=3,
    )


def finite_number(field, where, why="a pose with a hole in it cannot be simulated. Repair or remove it"):
    """A finite number out of a file's text, or a PoseError that begins with `where`."""
    try:
        value = float(field)
    except (TypeError, ValueError):
        value = np.nan
    if not np.isfinite(value):
        raise PoseError(f"{where}: found {quoted(field)}, not a finite number, and {why}.")
    return value
