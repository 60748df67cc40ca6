"""Which way of solving a study takes, every pose exactly or all by modes: from the study file alone.

A basis of modes costs some hundred exact solves before its first pose, and then next to nothing for each.
"""

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..sim.pose import read_markers, unique_poses

EXACT_SECONDS, MODES_SECONDS = 0.3, 0.008
"""Core-seconds of one pose, its volume included, at 617 k unknowns (docs/performance.md)."""

BASIS_SHARE = 600
"""A basis over an exact pose: 93 s of two cores at 617 k unknowns."""

BASIS_POSES, BASIS_ADJOINTS = 300, 150
"""Fields and functionals that the making of a basis holds at once, with a reserve."""

EARNED_FROM = 2
"""An approximation must earn its place: modes are taken from so many times the break-even, where half the time goes."""


@dataclass(frozen=True, kw_only=True)
class MethodChoice:
    """How a study is solved, and why.

    Parameters
    ----------
    method : {"exact", "modes"}
    reason : str
        One clause.
    break_even : int
        Poses from which a basis has paid for itself.
    """

    method: str
    reason: str
    break_even: int


def basis_seconds(exact_seconds: float = EXACT_SECONDS) -> float:
    """Estimate the core-seconds that a basis takes, from those of an exact pose.

    Examples
    --------
    >>> basis_seconds(0.3)
    180.0
    """
    return BASIS_SHARE * exact_seconds


def break_even_poses() -> int:
    """Number of poses from which a basis has paid for itself.

    Examples
    --------
    >>> break_even_poses()
    617
    """
    return math.ceil(basis_seconds() / (EXACT_SECONDS - MODES_SECONDS))


def resolved_method(config) -> MethodChoice:
    """Choose how a study is solved: as asked for, or by its number of poses.

    The study file alone decides, never a machine or what lies in a folder, since fields by modes are fields of another
    kind.

    Parameters
    ----------
    config : StudyConfig

    Returns
    -------
    MethodChoice

    Raises
    ------
    InputError
        If the file of poses cannot be read.

    Examples
    --------
    >>> resolved_method(load_study_config("examples/quick.toml")).method          # doctest: +SKIP
    'exact'
    """
    kind, even = config.solver.kind, break_even_poses()
    if kind != "auto":
        return MethodChoice(method="modes" if kind == "modes" else "exact", reason="asked for", break_even=even)
    if config.solver.basis:
        return MethodChoice(method="modes", reason="a basis is given", break_even=even)
    count, enough = pose_count(config), EARNED_FROM * even
    method, word = ("modes", "reach") if count >= enough else ("exact", "are fewer than")
    return MethodChoice(
        method=method,
        reason=f"{count} poses {word} the {enough} from which a basis saves half of the time",
        break_even=even,
    )


def pose_count(config) -> int:
    """Number of different poses of a study.

    Raises
    ------
    InputError
        If the file of poses cannot be read.
    """
    poses = config.poses
    if not poses.file:
        return poses.grid**2 + poses.random
    try:
        state = Path(poses.file).stat()
    except OSError as error:
        raise InputError(f"reading {poses.file}: {error.strerror}; check the path in the study file.") from error
    return _poses_in(poses.file, poses.section, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _poses_in(path, section, size, changed):
    with warnings.catch_warnings():  # who simulates them is told of untracked ones; not who counts
        warnings.simplefilter("ignore")
        markers = read_markers(path, section or None)
    return len(unique_poses(marker for marker in markers if marker is not None)[0])
