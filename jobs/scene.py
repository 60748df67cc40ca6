"""The 3D picture of a pose: head, cortex coloured by |E|, coil, as arrays; and a PNG of it.

VTK ends the whole process where it finds no way to draw, so it runs in a process of its own: :mod:`.scene_picture`.
"""

import importlib.util
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ..errors import MissingPackageError, MotorsweepError
from ..sim.mesh_quality import boundary_triangles
from ..sim.tissues import BRAIN_TAGS

_LONGEST_S = 300


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is drawn, as arrays; lengths in mm, head coordinates.

    Attributes
    ----------
    scalp, cortex : ndarray (n, 3)
        Places of the surfaces' nodes.
    scalp_triangles, cortex_triangles : ndarray (k, 3)
    e_norm : ndarray (n,)
        |E| at the nodes of the cortex, V/m; NaN where it is not known.
    windings, moments : ndarray (d, 3)
        Dipoles of the coil, and their directions.
    segments : ndarray (k, 2, 3)
        Ends of the coil's straight wires.
    casing, casing_triangles : ndarray (n, 3), (k, 3)
        Empty where the coil has none.
    pose : ndarray (4, 4)
    title, colours : str
        Above the picture, and beside the colour bar.
    notes : str
        Below the picture.
    top : float
        Value of the last colour, V/m.
    """

    scalp: np.ndarray
    scalp_triangles: np.ndarray
    cortex: np.ndarray
    cortex_triangles: np.ndarray
    e_norm: np.ndarray
    windings: np.ndarray
    moments: np.ndarray
    segments: np.ndarray
    casing: np.ndarray
    casing_triangles: np.ndarray
    pose: np.ndarray
    title: str
    colours: str
    notes: str
    top: float


def cortex_surface(head):
    """Outer surface of the brain (grey and white matter).

    Parameters
    ----------
    head : Head

    Returns
    -------
    nodes : ndarray (n, 3), m
    triangles : ndarray (k, 3)
        Normals outward.
    """
    return _surface(head.nodes, boundary_triangles(head.tets[np.isin(head.tissue, BRAIN_TAGS)]))


def _surface(nodes, triangles):
    used, corner = np.unique(triangles, return_inverse=True)
    return nodes[used], corner.reshape(-1, 3)


def field_on_surface(points_m, grid, e_norm, tissue):
    """|E| at points of the brain's surface from the voxels of the brain near them; no voxel of the CSF counts.

    Parameters
    ----------
    points_m : ndarray (n, 3), m
    grid : VolumeGrid
    e_norm : ndarray (n, n, n), V/m
    tissue : ndarray (n, n, n)
        Tissue tags.

    Returns
    -------
    ndarray (n,), V/m
        Mean of up to 8 voxels within two spacings, weighted by their closeness; NaN where there is none.
    """
    brain = np.isin(tissue, BRAIN_TAGS).ravel()
    values = np.full(len(points_m), np.nan)
    if not brain.any():
        return values
    reach = 2 * grid.spacing_m
    count = int(min(8, brain.sum()))
    distance, near = cKDTree(grid.points()[brain]).query(points_m, count, distance_upper_bound=reach)
    distance, near = distance.reshape(len(points_m), count), near.reshape(len(points_m), count)
    weight = np.where(np.isfinite(distance), 1 - distance / reach, 0.0)
    weight[~np.isfinite(distance)] = 0
    total = weight.sum(1)
    field = np.append(e_norm.ravel()[brain], 0.0)[near]
    known = total > 0
    values[known] = (weight * field).sum(1)[known] / total[known]
    return values


def scene_of(head, coil, pose, *, e_norm, top, title, colours, notes):
    """Put a scene together.

    Parameters
    ----------
    head : Head
    coil : Coil
    pose : Pose
    e_norm : callable
        From places (n, 3) m to |E| (n,) V/m.
    top : float
        Value of the last colour, V/m.
    title, colours, notes : str
        See `Scene`.

    Returns
    -------
    Scene
    """
    cortex, cortex_triangles = cortex_surface(head)
    scalp, scalp_triangles = _surface(head.nodes, head.scalp())
    windings, moments = coil.placed(pose)
    segments = _placed(getattr(coil, "segments", None), pose, (0, 2, 3))
    casing, casing_triangles = getattr(coil, "casing", None) or (None, np.zeros((0, 3), int))
    return Scene(
        scalp=scalp * 1e3, scalp_triangles=scalp_triangles, cortex=cortex * 1e3, cortex_triangles=cortex_triangles,
        e_norm=e_norm(cortex), windings=windings * 1e3, moments=moments, segments=segments * 1e3,
        casing=_placed(casing, pose, (0, 3)) * 1e3, casing_triangles=np.asarray(casing_triangles),
        pose=pose.matrix * np.array([1, 1, 1, 1e3]), title=title, colours=colours, notes=notes, top=float(top),
    )  # fmt: skip


def _placed(points_m, pose, empty):
    """Points of the coil frame in head coordinates; an array of the shape `empty` where the coil has none."""
    if points_m is None:
        return np.zeros(empty)
    return np.asarray(points_m, float) @ pose.matrix[:3, :3].T + pose.matrix[:3, 3]


def draw(scene, path):
    """Draw a scene to a PNG.

    Parameters
    ----------
    scene : Scene
    path : path-like

    Raises
    ------
    MissingPackageError
        If PyVista is not installed.
    MotorsweepError
        If this machine has no way to draw in 3D.

    Examples
    --------
    >>> draw(scene, "pose.png")                                                       # doctest: +SKIP
    """
    if importlib.util.find_spec("pyvista") is None:
        raise MissingPackageError(
            f"drawing {path}: PyVista, which draws in 3D, is not installed; `make setup EXTRAS=view` installs it (or "
            "`pip install 'motorsweep[view]'`), and --facts gives the numbers without a picture."
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".scene-") as folder:
        kept, picture = Path(folder) / "scene.npz", Path(folder) / path.name
        np.savez(kept, **{each.name: getattr(scene, each.name) for each in fields(scene)})
        _draw_apart(kept, picture, path)
        picture.replace(path)


def _draw_apart(kept, picture, path):
    line = [sys.executable, "-m", f"{__package__}.scene_picture", str(kept), str(picture)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_LONGEST_S)
        code, told = done.returncode, done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        code, told = None, [f"it came to no end in {_LONGEST_S} s"]
    if code == 0 and picture.exists():
        return
    ended = f"ended by {signal.Signals(-code).name}" if code and code < 0 else (told or ["without a word"])[-1]
    raise MotorsweepError(
        f"drawing {path}: VTK could not draw on this machine ({ended}). Without a display it needs Mesa's EGL or "
        "OSMesa (Debian: `apt-get install libegl1 libgl1-mesa-dri` or `libosmesa6`); install one, or draw on another "
        "machine. --facts gives the numbers without a picture."
    )
