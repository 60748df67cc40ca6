"""What pose files hold before it is a pose: markers, perhaps in sections, some of them without a position."""

import warnings
from typing import NamedTuple

import numpy as np

from ..errors import PoseError
from .quotation import quoted

SECTIONS = ("samples", "targets")
"""Stimuli as they happened, and places where stimuli were planned."""

_NAMED_AT_MOST = 20


class Marker(NamedTuple):
    """One entry of a pose file.

    Attributes
    ----------
    place : str
        Where in the file, for messages.
    matrix_mm : ndarray (4, 4) or None
        In the axes of SimNIBS, RAS, mm; None where the marker has no pose.
    name : str
        What the navigator calls it.
    didt : float or None
        Rate of change of the coil current, A/s.
    problem : str
        Why it has no pose.
    """

    place: str
    matrix_mm: np.ndarray | None
    name: str = ""
    didt: float | None = None
    problem: str = ""


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
    skipped = [i for i, marker in enumerate(markers) if marker.matrix_mm is None]
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
