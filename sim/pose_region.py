"""A region of coil poses on the scalp: where the training poses of a basis are drawn, and which poses it can serve."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from ..errors import PoseError
from .coil_clearance import check_coil_outside
from .coil_place import PlaceOnScalp, feet, measure, places, rested, tilted
from .pose import Pose, tangential_pose
from .scalp import Scalp

__all__ = ["LARGEST_RADIUS_M", "PlaceOnScalp", "PoseRegion", "measure", "region_of"]

LARGEST_RADIUS_M = 0.080
"""Of a region: about the radius of a head. Poses all around it have no few modes in common."""

SLACK_M, SLACK_DEG = 1e-4, 0.1
"""How far outside its region a pose may lie: a file's rounding."""

_FARTHEST_M, _LARGEST_TILT_DEG = 0.1, 45.0
_FULL_CIRCLE_FROM_DEG = 300.0


@dataclass(frozen=True)
class PoseRegion:
    """A region of coil poses: a disc of scalp, a range of handle angles, of distances, and a largest tilt.

    Parameters
    ----------
    centre_m : 3 floats
        A point; its closest scalp point is the region's middle, m.
    radius_m : float
        Largest straight distance of the scalp point under the coil from the middle, m.
    angle_deg : (low, high)
        Angle between handle and midline as in `tangential_pose`; a range of 360 is the full circle.
    distance_m : (low, high)
        Smallest gap between casing plane and scalp under the footprint, as in `tangential_pose`, m.
    tilt_deg : float
        Largest angle between the coil's axis and the scalp's smoothed normal.
    left : bool
        Whether angles count as in the left hemisphere.

    Raises
    ------
    PoseError
        For figures that no coil can take, naming the one to change.

    Examples
    --------
    >>> region = PoseRegion((-0.037, -0.021, 0.058), 0.03, (-180, 180), (0.004, 0.010), 10, True)
    >>> region.as_dict()["distance_m"]
    [0.004, 0.01]
    >>> poses = region.draw(head, 200, seed=1)                                    # doctest: +SKIP
    """

    centre_m: tuple
    radius_m: float
    angle_deg: tuple
    distance_m: tuple
    tilt_deg: float
    left: bool

    def __post_init__(self):
        for key in ("centre_m", "angle_deg", "distance_m"):
            object.__setattr__(self, key, tuple(float(value) + 0.0 for value in getattr(self, key)))
        for key in ("radius_m", "tilt_deg"):
            object.__setattr__(self, key, float(getattr(self, key)))
        object.__setattr__(self, "left", bool(self.left))
        fault = _fault(self)
        if fault:
            raise PoseError(f"region of coil poses: {fault}")

    def as_dict(self) -> dict:
        """Plain values, ready to be hashed; ``PoseRegion(**region.as_dict())`` is the region again."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def with_slack(self) -> "PoseRegion":
        """The region of all that `contains` admits, but for what no region can have.

        A basis is trained there. In a region of one angle, one distance and no tilt nothing else would tell of fields
        that only a file's rounding brings in, and the error estimate of such poses would be too small.

        Examples
        --------
        >>> PoseRegion((0, 0, 0.095), 0.02, (45, 45), (0.004, 0.004), 0, True).with_slack().angle_deg
        (44.9, 45.1)
        """
        (first, last), (low, high) = self.angle_deg, self.distance_m
        turn = min(SLACK_DEG, (360 - (last - first)) / 2)
        return replace(
            self,
            radius_m=min(LARGEST_RADIUS_M + SLACK_M, self.radius_m + SLACK_M),
            angle_deg=(first - turn, last + turn),
            distance_m=(max(0.0, low - SLACK_M), min(_FARTHEST_M, high + SLACK_M)),
            tilt_deg=min(_LARGEST_TILT_DEG, self.tilt_deg + SLACK_DEG),
        )

    def draw(self, scalp, count: int, seed: int, *, coil=None, slack: bool = False) -> list[Pose]:
        """Draw poses: uniform over the disc of scalp, the angles, the distances, and the disc of tilts.

        Drawing more of them at the rim was tried (closed form in a sphere, 100 to 300 training poses): it left the
        worst error of a basis where it was, within the spread between seeds.

        A tilted coil is raised along its axis until the gap under its footprint is the distance that was drawn.

        Parameters
        ----------
        scalp : Head or Scalp
        count : int
            Number of poses. The first k of a longer draw are those of a draw of k.
        seed : int
            Of numpy's default generator.
        coil : Coil, optional
            Checked to stay outside the head at every pose.
        slack : bool
            Draw from the region `with_slack`.

        Returns
        -------
        list of Pose

        Raises
        ------
        PoseError
            Where the region reaches the face or the back of the head, or puts the coil into the head.
        """
        scalp = Scalp.of(scalp)
        draws, of = np.random.default_rng(seed).random((count, 6)), self.with_slack() if slack else self
        under = feet(scalp, self._middle(scalp), of.radius_m * np.sqrt(draws[:, 0]), 2 * np.pi * draws[:, 1])
        angles, distances = (
            low + (high - low) * draw for (low, high), draw in zip((of.angle_deg, of.distance_m), draws.T[2:4])
        )
        tilts, ways = np.deg2rad(of.tilt_deg) * np.sqrt(draws[:, 4]), 2 * np.pi * draws[:, 5]
        poses = []
        for foot, angle, distance, tilt, way in zip(under, angles, distances, tilts, ways):
            axes = self._tangential(scalp, foot, angle).matrix[:3, :3]
            poses.append(rested(scalp, foot, tilted(axes, tilt, way), distance))
        if coil is not None:
            self._check_outside(coil, poses, scalp)
        return poses

    def contains(self, poses, scalp) -> np.ndarray:
        """Tell which poses lie in the region, within `SLACK_M` and `SLACK_DEG`.

        Parameters
        ----------
        poses : sequence of Pose
        scalp : Head or Scalp
            Give a `Scalp` when asking often: it is built from the head only once.

        Returns
        -------
        ndarray (p,) bool
        """
        scalp = Scalp.of(scalp)
        offset, angle, distance, tilt = places(poses, scalp, self._middle(scalp), self.left).T
        (first, last), (low, high) = self.angle_deg, self.distance_m
        turned = np.mod(angle - first + SLACK_DEG, 360.0) <= last - first + 2 * SLACK_DEG
        apart = (distance >= low - SLACK_M) & (distance <= high + SLACK_M)
        return turned & apart & (offset <= self.radius_m + SLACK_M) & (tilt <= self.tilt_deg + SLACK_DEG)

    def _middle(self, scalp):
        return scalp.closest(self.centre_m)[0][0]

    def _tangential(self, scalp, foot, angle):
        try:
            return tangential_pose(scalp, foot, angle, 0.0, self.left)
        except PoseError as error:
            raise PoseError(
                f"region of coil poses: with radius_mm {self.radius_m * 1e3:g} it reaches a place where the handle's "
                f"angle means nothing ({error}) Make radius_mm smaller."
            ) from error

    def _check_outside(self, coil, poses, scalp):
        try:
            check_coil_outside(coil, poses, scalp)
        except PoseError as error:
            raise PoseError(
                f"region of coil poses: it reaches into the head. Raise the lower distance_mm, now "
                f"{self.distance_m[0] * 1e3:g}, or make tilt_deg, now {self.tilt_deg:g}, smaller. The first: {error}"
            ) from error


def region_of(poses, scalp, centre_m) -> PoseRegion:
    """Find the smallest region that holds the poses, rounded outwards so that studies with similar poses share a basis.

    Radius to 5 mm, angles to 15 degrees (the full circle from a spread of 300), distances to 1 mm, tilt to 5 degrees
    (none stays none), the centre to 1 mm.

    Poses that no region can hold are left out of it: those whose casing cuts the scalp, tilted by over 45 degrees, or
    over 80 mm away.

    Parameters
    ----------
    poses : sequence of Pose
    scalp : Head or Scalp
    centre_m : array_like (3,)
        What the poses are laid around, the hand knob, say, m.

    Returns
    -------
    PoseRegion

    Raises
    ------
    PoseError
        Where that leaves fewer than half of the poses.
    """
    scalp = Scalp.of(scalp)
    if not len(poses):
        raise PoseError("region of coil poses: there is no pose, so there is no region. Give at least one.")
    centre, left = np.round(np.asarray(centre_m, float), 3), bool(centre_m[0] <= 0)
    offset, angle, distance, tilt = _most_fitting(places(poses, scalp, scalp.closest(centre)[0][0], left)).T
    return PoseRegion(
        centre_m=tuple(centre),
        radius_m=max(0.005, 1e-3 * _up(1e3 * offset.max(), 5)),
        angle_deg=_arc(angle),
        distance_m=(max(0.0, 1e-3 * _down(1e3 * distance.min(), 1)), 1e-3 * _up(1e3 * distance.max(), 1)),
        tilt_deg=_up(tilt.max(), 5, SLACK_DEG),
        left=left,
    )


def _most_fitting(found):
    """Those of places (p, 4) that a region can hold; refuses where they are fewer than half."""
    offset, _, distance, tilt = found.T
    farthest, largest, widest = (_up(value, 5) for value in (1e3 * distance.max(), tilt.max(), 1e3 * offset.max()))
    exact = 'take solver kind "direct", which solves each of them exactly.'
    faults = {
        f"the casing of {{}} poses cuts the scalp, by up to {-1e3 * distance.min():.1f} mm, so training poses around "
        "them would lie in the head. Move them outwards, take solver kind direct, or give [solver.region] with "
        "distance_mm from 0 up; what lies outside of it is solved exactly.": distance < -SLACK_M,
        f"distance_mm is up to {farthest:g}, and beyond 100, the most that it may be, for {{}} poses; {exact}": (
            distance > _FARTHEST_M + SLACK_M
        ),
        f"tilt_deg is {largest:g}, and over 45 for {{}} poses; it must be 0 to 45, as a coil that stands on its edge "
        f"rests nowhere. Check their axes, or {exact}": tilt > _LARGEST_TILT_DEG + SLACK_DEG,
        f"radius_mm is {widest:g}, but must be over 0 and at most {LARGEST_RADIUS_M * 1e3:g}, and {{}} poses lie "
        f"farther away. Poses that far apart share no few modes; {exact}": offset > LARGEST_RADIUS_M + SLACK_M,
    }
    fits = ~np.any(list(faults.values()), axis=0)
    if 2 * fits.sum() >= len(found):
        return found[fits]
    sentence, affected = max(faults.items(), key=lambda fault: fault[1].sum())
    rest = len(found) - int(fits.sum() + affected.sum())
    others = f" {rest} more fit in no region either." if rest else ""
    raise PoseError(f"region of coil poses: {sentence.format(f'{affected.sum()} of {len(found)}')}{others}")


# A coordinate printed with three decimals and the rounding of a sum must not open the next step.
def _up(value, step, slack=SLACK_M * 1e3):
    return float(round(step * np.ceil((value - slack) / step), 6)) + 0.0


def _down(value, step, slack=SLACK_M * 1e3):
    return -_up(-value, step, slack) + 0.0


def _arc(angles):
    """The shortest range that holds all angles, in steps of 15 degrees; the full circle where it is nearly that."""
    angles = np.sort(np.mod(angles, 360.0))
    gaps = np.diff(angles, append=angles[0] + 360.0)
    widest = int(np.argmax(gaps))
    first, spread = angles[(widest + 1) % len(angles)], 360.0 - gaps[widest]
    low, high = _down(first, 15, SLACK_DEG), _up(first + spread, 15, SLACK_DEG)
    if high - low > _FULL_CIRCLE_FROM_DEG:
        return -180.0, 180.0
    turn = 360.0 * np.floor((low + 180.0) / 360.0)
    return low - turn, high - turn


def _fault(region):
    """What is wrong with the figures of a region; nothing where all is well."""
    if len(region.centre_m) != 3 or len(region.angle_deg) != 2 or len(region.distance_m) != 2:
        return "centre_m must be x, y, z, and angle_deg and distance_m a lower and an upper figure."
    figures = (*region.centre_m, region.radius_m, *region.angle_deg, *region.distance_m, region.tilt_deg)
    if not np.isfinite(figures).all():
        return "one of its figures is not finite; give plain numbers."
    if not 0 < region.radius_m <= LARGEST_RADIUS_M + SLACK_M:
        return (
            f"radius_mm is {region.radius_m * 1e3:g}, but must be over 0 and at most {LARGEST_RADIUS_M * 1e3:g}. Poses "
            'that far apart share no few modes; take solver kind "direct", which solves each of them exactly.'
        )
    (first, last), (low, high) = region.angle_deg, region.distance_m
    if not 0 <= last - first <= 360 + 1e-9:  # but for rounding
        return f"angle_deg is {first:g} to {last:g}; it must ascend, by 360 at most."
    if low < 0:
        return f"distance_mm begins at {low * 1e3:g}, so the coil would reach into the head; begin at 0 or more."
    if not low <= high <= _FARTHEST_M:
        return f"distance_mm is {low * 1e3:g} to {high * 1e3:g}; it must ascend, to 100 at most."
    if not 0 <= region.tilt_deg <= _LARGEST_TILT_DEG:
        return f"tilt_deg is {region.tilt_deg:g}; it must be 0 to 45, as a coil that stands on its edge rests nowhere."
    return ""
