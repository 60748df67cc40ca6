"""Where the study's coil poses come from: its file of poses or positions, or a grid and random poses.

A navigator writes one pose for each stimulus, and the same one again where the coil did not move. A field is solved
once for each place; the stimuli keep their own order and count, since the responses refer to them.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..sim.markers import Target
from ..sim.pose import grid_poses, random_poses, read_markers, unique_poses
from ..sim.pose_targets import place_targets
from .identity import hand_knob_mm


@dataclass(frozen=True, kw_only=True, eq=False)
class Stimuli:
    """Stimuli of a pose file, numbered as its markers are, those without a pose included.

    Parameters
    ----------
    poses : list of Pose or Target
        Each place once, in the order of first appearance: what is simulated. Targets, of a file of positions, become
        poses on a head.
    pose_of : ndarray (s,) of int
        Place of each stimulus; -1 where the coil was not tracked.
    didt : ndarray (s,)
        Rate of change of the coil current of each stimulus, A/s; NaN where the file does not have it.
    """

    poses: list
    pose_of: np.ndarray
    didt: np.ndarray


def read_stimuli(config):
    """Stimuli of the study's pose file.

    Parameters
    ----------
    config : StudyConfig
        With ``[poses] file``.

    Returns
    -------
    Stimuli

    Raises
    ------
    InputError
        Where the file cannot be read, or is to be aligned and holds whole poses.
    """
    markers = read_markers(config.poses.file, config.poses.section or None)
    whole = not any(isinstance(marker, Target) for marker in markers)
    if whole and (config.poses.align, config.poses.axes) != ("none", "RAS"):
        raise InputError(
            f"reading {config.poses.file}: it holds whole poses, which are taken as they are, in the head's "
            "coordinates; [poses] align and axes are for positions without orientation. Remove the two keys."
        )
    tracked = np.array([marker is not None for marker in markers])
    poses, index = unique_poses(marker for marker in markers if marker is not None)
    pose_of = np.full(len(markers), -1)
    pose_of[tracked] = index
    didt = np.array([np.nan if marker is None or marker.didt is None else marker.didt for marker in markers])
    return Stimuli(poses=poses, pose_of=pose_of, didt=didt)


def study_poses(config, head):
    """The study's coil poses: from its file, or grid first and random ones after.

    Parameters
    ----------
    config : StudyConfig
    head : Head

    Returns
    -------
    list of Pose
        No two alike.
    """
    knob, table = np.array(hand_knob_mm(config)) * 1e-3, config.poses
    gap = table.distance_mm * 1e-3
    if table.file:
        places = read_stimuli(config).poses
        if not isinstance(places[0], Target):
            return places
        centre = None if table.align_centre_mm is None else np.array(table.align_centre_mm) * 1e-3
        how = {"align": table.align, "axes": table.axes, "centre_m": centre}
        return place_targets(head, places, knob, table.angle_deg, gap, **how)
    poses = []
    if table.grid:
        poses += grid_poses(head, knob, table.grid, table.spacing_mm * 1e-3, table.angle_deg, gap)
    if table.random:
        poses += random_poses(
            head,
            knob,
            table.random,
            table.random_radius_mm * 1e-3,
            table.angle_deg,
            table.random_angle_deg,
            gap,
            seed=config.seed,
        )
    return poses
