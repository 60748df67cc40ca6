"""The answer of ``show STUDY POSE``: where the coil is, how strong the field, how it was solved; and a picture."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, MotorsweepError
from ..hpc.export import check_pose, stored_coil, stored_grid, stored_head
from ..sim.pose import Pose
from ..sim.scalp import Scalp
from ..sim.tissues import TISSUE_TAGS
from ..zarr_store.schema import Method, Status
from ..zarr_store.volume_layout import PER_POSE
from ..zarr_store.volumes import read_volumes
from .destination import check_destination
from .export import OpenedStudy
from .scene import draw, field_on_surface, scene_of

_STRONG_PERCENTILE, _STRONGEST_PERCENT = 99.9, 1.0  # one voxel alone may be an artefact of the mesh


@dataclass(frozen=True, kw_only=True)
class PoseFacts:
    """What is known of a pose.

    Attributes
    ----------
    pose : int
    name : str
        In the navigator's file; empty where it has none.
    marker : int or None
        Number of the pose's first marker or row in the pose file.
    status, reason : str
    head, coil : str
        Their names.
    centre_mm : list of 3 floats
        The coil's centre, on the casing's underside.
    handle : list of 3 floats
        Where the handle points to, a unit vector.
    scalp_mm : float
        Distance of the centre from the scalp.
    peak_v_per_m : float or None
        99.9th percentile of |E| at 1 A/µs in grey matter within the motor mask.
    peak_mm : list of 3 floats or None
        Centroid of the voxels with the strongest 1 % of it, weighted by |E|.
    method : str
        ``direct``, ``iterative`` or ``modes``; ``none`` where it was not solved or not kept which.
    iterations : int or None
    residual, seconds : float or None
        Of the solve; None where it was not solved.
    error_estimate : float or None
        Estimated relative L2 error in brain tissue of a field by modes.
    picture : str
        Path; empty where none was drawn.
    not_drawn : str
        Why there is no picture although one was wanted; else empty.
    """

    pose: int
    name: str
    marker: int | None
    status: str
    reason: str
    head: str
    coil: str
    centre_mm: list
    handle: list
    scalp_mm: float
    peak_v_per_m: float | None
    peak_mm: list | None
    iterations: int | None
    residual: float | None
    seconds: float | None
    method: str = "none"
    error_estimate: float | None = None
    picture: str = ""
    not_drawn: str = ""

    def lines(self):
        """Lines for people."""
        name = f"{self.name!r}, " if self.name else ""
        marker = "" if self.marker is None else f"marker {self.marker} of the pose file, "
        lines = [f"pose      {self.pose}  ({name}{marker}{self.status})"]
        lines += [f"reason    {self.reason}"] if self.reason else []
        away = f"{self.scalp_mm:.1f} mm from the scalp of {self.head}"
        lines.append(f"coil      {self.coil} at {_place(self.centre_mm)} mm, {away}")
        lines.append(f"handle    towards {_place(self.handle, 2)} (right, forwards, up)")
        if self.peak_v_per_m is not None:
            lines.append(
                f"field     99.9th percentile of |E| in grey matter within the mask {self.peak_v_per_m:.3g} V/m at "
                f"1 A/us, strongest 1 % around {_place(self.peak_mm)} mm"
            )
            lines.append(f"solve     {self._how()}, {self.seconds:.2g} s")
        lines += [f"picture   {self.picture}"] if self.picture else []
        return lines + ([f"picture   not drawn: {self.not_drawn}"] if self.not_drawn else [])

    def _how(self):
        if self.error_estimate is not None:
            return f"by modes, off by {self.error_estimate:.2%} in the brain at most (estimate)"
        how = f"{self.iterations} iterations" if self.iterations else "direct"
        return f"{how}, residual {self.residual:.1e}"

    def as_dict(self):
        """Plain values for scripts."""
        return dict(vars(self))


def show_pose(given, pose, *, out=None, picture=True):
    r"""Facts of a pose of a study, and its picture.

    Parameters
    ----------
    given : path-like
        The study's TOML file, or its folder.
    pose : int
    out : path-like, optional
        The PNG; by default in the study's folder, under exports.
    picture : bool
        Draw it, where this machine can.

    Returns
    -------
    PoseFacts

    Raises
    ------
    InputError
        If there is no such pose, or `out` cannot be written or is a file of the study.
    MissingPackageError, MotorsweepError
        If a picture cannot be drawn here and `out` asks for it; else the facts say why there is none.

    Examples
    --------
    >>> print(*show_pose("studies/quick", 3).lines(), sep="\n")                      # doctest: +SKIP
    """
    opened = OpenedStudy(given)
    check_pose(opened.volumes, pose, done=False)
    if out is not None and picture:
        _check_picture(out, opened)
    head = stored_head(opened.study, opened.volumes)
    values = _values(opened, pose)
    facts = _facts(opened.volumes, pose, head, values)
    if not picture:
        return facts
    path = opened.study.exports / f"pose-{pose:04d}.png" if out is None else Path(out)
    try:
        check_destination(path, opened, "show")
        draw(_scene(opened, facts, head, values), path)
    except (MotorsweepError, OSError) as error:
        if out is not None:
            raise
        return replace(facts, not_drawn=str(error).removeprefix(f"drawing {path}: "))
    return replace(facts, picture=str(path))


def _check_picture(out, opened):
    if Path(out).suffix.lower() != ".png":
        raise InputError(f"show: {out} does not end in .png, and the picture is a PNG; give --out such a name.")
    check_destination(out, opened, "show")


def _values(opened, pose):
    """|E| of the pose at 1 A/µs; None where it has none."""
    done = int(opened.volumes["status"].values[pose]) == int(Status.DONE)
    return read_volumes(opened.study, [pose])[0] if done else None


def _facts(volumes, pose, head, values):
    row = volumes[[name for name in PER_POSE if name in volumes]].isel(pose=pose)
    matrix = volumes["pose_matrix"].values[pose]
    nearest = Scalp.of(head).closest(matrix[:3, 3])[0][0]
    peak, peak_m = _peak(volumes, values)
    names, markers = (volumes.attrs["notes"].get(key) for key in ("pose_names", "pose_markers"))
    return PoseFacts(
        pose=pose,
        name=names[pose] if names else "",
        marker=markers[pose] if markers else None,
        status=Status(int(row["status"])).name.lower(),
        reason=str(row["reason"].item()),
        head=head.name,
        coil=volumes.attrs["notes"]["coil_name"],
        centre_mm=_plain(matrix[:3, 3] * 1e3),
        handle=_plain(-matrix[:3, 1]),
        scalp_mm=round(float(np.linalg.norm(nearest - matrix[:3, 3])) * 1e3, 4),
        peak_v_per_m=peak,
        peak_mm=None if peak_m is None else _plain(peak_m * 1e3),
        iterations=_known(row["iterations"], int),
        residual=_known(row["residual"], float),
        seconds=_known(row["seconds"], float),
        method=Method(int(row["method"])).name.lower() if "method" in row else "none",
        error_estimate=_known(row["error_estimate"], float) if "error_estimate" in row else None,
    )


def _peak(volumes, values):
    """How strong |E| is in grey matter within the mask, V/m, and where, m; None where there is none."""
    inside = volumes["motor_mask"].values.astype(bool) & (volumes["tissue"].values == TISSUE_TAGS["grey_matter"])
    if values is None or not inside.any():
        return None, None
    e_norm, places = values[inside].astype(float), stored_grid(volumes).points()[inside.ravel()]
    strongest = e_norm >= np.percentile(e_norm, 100 - _STRONGEST_PERCENT)
    weight = e_norm[strongest] if e_norm.any() else np.ones(int(strongest.sum()))
    return float(np.percentile(e_norm, _STRONG_PERCENTILE)), np.average(places[strongest], axis=0, weights=weight)


def _scene(opened, facts, head, values):
    volumes, grid = opened.volumes, stored_grid(opened.volumes)
    coil, pose = stored_coil(opened.config, volumes), Pose(volumes["pose_matrix"].values[facts.pose])
    tissue = volumes["tissue"].values
    brain = np.full(1, 1.0) if values is None else values[np.isin(tissue, (1, 2))]

    def e_norm(points_m):
        return np.full(len(points_m), np.nan) if values is None else field_on_surface(points_m, grid, values, tissue)

    shown = "|E| on the cortex at 1 A/µs" if values is not None else f"{facts.status}, no field"
    return scene_of(
        head, coil, pose, e_norm=e_norm, top=np.percentile(brain, 99.9), colours="|E| (V/m)", notes=_notes(facts, coil),
        title=f"Pose {facts.pose}: {shown}\n{coil.name} on {head.name}, centre {_place(facts.centre_mm)} mm, "
        f"{facts.scalp_mm:.1f} mm from the scalp",
    )  # fmt: skip


def _notes(facts, coil):
    """What stands below the picture."""
    if facts.status != Status.DONE.name.lower():
        notes = f"No field: the pose {'failed' if facts.status == 'failed' else 'is not solved yet'}."
    else:
        notes = "Grey: outside of the stored volume."
    if facts.peak_v_per_m is not None:
        strong = f"{facts.peak_v_per_m:.2f} V/m (99.9th percentile), strongest 1 % around {_place(facts.peak_mm)} mm"
        notes = f"In grey matter within the mask: {strong}. {notes}"
    if not (len(coil.positions) or len(coil.segments)):
        notes += "\nThe coil is a sampled field: it has no windings to draw."
    return notes


def _known(value, kind):
    """None for what stands for a pose that was not solved: -1 iterations, NaN."""
    return kind(value) if float(value) >= 0 else None


def _plain(vector):
    return [round(float(v), 4) for v in vector]


def _place(vector, digits=1):
    return "(" + ", ".join(f"{v:.{digits}f}" for v in vector) + ")"
