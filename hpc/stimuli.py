"""Where the study's coil poses come from: its file of stimuli, or a grid and random poses around the hand knob.

A navigator writes one pose for each stimulus, and the same one again where the coil did not move. A field is solved
once for each place; the stimuli keep their own order and count, since the responses refer to them.
"""

from dataclasses import dataclass

import numpy as np

from ..sim.pose import grid_poses, random_poses, read_markers, unique_poses
from .identity import hand_knob_mm


@dataclass(frozen=True, kw_only=True, eq=False)
class Stimuli:
    """Stimuli of a pose file, numbered as its markers are, those without a pose included.

    Parameters
    ----------
    poses : list of Pose
        Each place once, in the order of first appearance: what is simulated.
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
    """
    markers = read_markers(config.poses.file, config.poses.section or None)
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
    if config.poses.file:
        return read_stimuli(config).poses
    knob, table = np.array(hand_knob_mm(config)) * 1e-3, config.poses
    gap = table.distance_mm * 1e-3
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
