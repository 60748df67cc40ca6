"""Draws a scene by PyVista (extra ``view``) without a window, words and colour bar by Matplotlib. Run as a program.

``python -m motorsweep.jobs.scene_picture SCENE.npz PICTURE.png`` is what :func:`.scene.draw` calls.
"""

import sys

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from .drawing import INK, QUIET
from .scene import Scene

SIZE = (1400, 1000)
_HANDLE_MM = 70.0
_BONE, _SKIN, _WINDING, _HANDLE, _COLOURS = "#cfcac4", "#e3b99b", "#2b6cb0", "#3a4048", "inferno"
_VIEW_DEG = 28.0
_FRAME = (0.03, 0.88, 0.08, 0.87)  # left, right, bottom, top: where in the picture the things themselves are
_FINER = 2  # drawn so many times as large, then made smaller: smooth edges, also with translucent surfaces


def _render(scene, path):
    import pyvista

    pyvista.vtk_verbosity("off")  # it grumbles where there is no X server, and draws by EGL
    plotter = pyvista.Plotter(off_screen=True, window_size=[_FINER * side for side in SIZE], lighting="light kit")
    plotter.set_background("white")
    # No depth peeling: Mesa without a GPU loses what is translucent. Farthest first, front faces only, does as well.
    _add_head(plotter, pyvista, scene)
    handle_end = _add_coil(plotter, pyvista, scene)
    plotter.add_axes(xlabel="R", ylabel="A", zlabel="S", line_width=3 * _FINER, viewport=(0, 0.05, 0.13, 0.23))
    _place_camera(plotter, scene, handle_end)
    image = plotter.screenshot(None, return_img=True)
    if image.std() == 0:
        raise SystemExit("the picture is blank")
    _add_words(scene, image, _pixel_of(plotter, handle_end)).savefig(path)


def _pixel_of(plotter, place):
    """Where a place lies in the picture, as shares of its width and height."""
    renderer = plotter.renderer
    renderer.SetWorldPoint(*place, 1.0)
    renderer.WorldToDisplay()
    x, y, _ = renderer.GetDisplayPoint()
    return x / plotter.window_size[0], y / plotter.window_size[1]


def _mesh(pyvista, nodes, triangles):
    return pyvista.PolyData.from_regular_faces(np.asarray(nodes, float), np.asarray(triangles))


def _add_head(plotter, pyvista, scene):
    skin = _mesh(pyvista, scene.scalp, scene.scalp_triangles)
    plotter.add_mesh(skin, color=_SKIN, opacity=0.14, smooth_shading=True, specular=0.2, culling="back")
    cortex = _mesh(pyvista, scene.cortex, scene.cortex_triangles)
    known = np.isfinite(scene.e_norm).any()
    cortex["field"] = scene.e_norm
    plotter.add_mesh(
        cortex, scalars="field" if known else None, color=None if known else _BONE, cmap=_COLOURS,
        clim=(0, scene.top) if known else None, nan_color=_BONE, smooth_shading=True, specular=0.15,
        show_scalar_bar=False,
    )  # fmt: skip


def _add_coil(plotter, pyvista, scene):
    """Windings, casing where there is one, and handle; gives the place just behind the handle, for its name."""
    y, z, centre = (scene.pose[:3, k] for k in (1, 2, 3))
    if len(scene.casing):
        casing = _mesh(pyvista, scene.casing, scene.casing_triangles)
        plotter.add_mesh(casing, color=QUIET, opacity=0.2, smooth_shading=True, culling="back")
    if len(scene.windings):
        lengths = np.linalg.norm(scene.moments, axis=1, keepdims=True)
        dipoles = pyvista.PolyData(scene.windings)
        dipoles["moment"] = scene.moments / np.where(lengths > 0, lengths, 1)
        disc = pyvista.Disc(inner=0, outer=2.4, normal=(1, 0, 0), c_res=16)
        discs = dipoles.glyph(orient="moment", scale=False, geom=disc)
        plotter.add_mesh(discs, color=_WINDING, opacity=0.5, ambient=0.3)
    if len(scene.segments):
        wires = pyvista.line_segments_from_points(scene.segments.reshape(-1, 3))
        plotter.add_mesh(wires, color=_WINDING, line_width=2 * _FINER)
    return _add_handle(plotter, pyvista, _coil_points(scene), y, z, centre)


def _coil_points(scene):
    return np.vstack([scene.windings, scene.segments.reshape(-1, 3), scene.pose[None, :3, 3]])


def _add_handle(plotter, pyvista, coil_points, y, z, centre):
    middle = centre + (coil_points - centre).mean(0) @ z * z
    reach = max(20.0, ((middle - coil_points) @ y).max())
    start, end = (middle - 8 * z - length * y for length in (0.3 * reach, reach + _HANDLE_MM))
    handle = pyvista.Tube(pointa=start, pointb=end, radius=7, n_sides=32)
    for part in (handle, *(pyvista.Sphere(radius=7, center=place) for place in (start, end))):
        plotter.add_mesh(part, color=_HANDLE, smooth_shading=True, specular=0.4)
    return end - 30 * y


def _add_words(scene, image, handle_at):
    """The picture with title, colour bar and notes, as a figure."""
    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, extent=(0, 1, 0, 1), aspect="auto", interpolation="antialiased")
    axes.set_axis_off()
    title, _, rest = scene.title.partition("\n")
    axes.text(0.025, 0.967, title, fontsize=20, color=INK, va="top", fontweight="bold", parse_math=False)
    axes.text(0.025, 0.922, rest, fontsize=13, color=QUIET, va="top", parse_math=False)
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 3}
    axes.text(0.025, 0.022, scene.notes, fontsize=13, color=QUIET, va="bottom", bbox=paper, parse_math=False)
    axes.text(*np.clip(handle_at, 0.03, 0.88), "handle", fontsize=13, color=INK, ha="center", va="center")
    if np.isfinite(scene.e_norm).any():
        colours = ScalarMappable(cmap=_COLOURS)
        colours.set_clim(0, scene.top)
        bar = figure.colorbar(colours, cax=figure.add_axes((0.915, 0.25, 0.018, 0.5)), extend="max")
        bar.ax.set_title(scene.colours, fontsize=14, color=INK, pad=12, loc="left")
        bar.ax.tick_params(labelsize=13, colors=INK, length=3)
        bar.outline.set_visible(False)
    return figure


def _place_camera(plotter, scene, handle_end):
    """Above the coil, tilted towards the side that the handle does not hide; brain, coil and handle fill the frame."""
    y, z = scene.pose[:3, 1], scene.pose[:3, 2]
    back = 0.75 * y - z
    back /= np.linalg.norm(back)
    up = np.array([0.0, 0.0, 1.0]) if abs(back[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    right = np.cross(up, back)
    axes = np.stack([right / np.linalg.norm(right), np.cross(back, right) / np.linalg.norm(right), back])
    seen = np.vstack([scene.cortex, _coil_points(scene), handle_end[None]]) @ axes.T
    low, high = seen.min(0), seen.max(0)
    slope = np.tan(np.deg2rad(_VIEW_DEG / 2))
    wide, tall = _FRAME[1] - _FRAME[0], _FRAME[3] - _FRAME[2]
    aspect = SIZE[0] / SIZE[1]
    needed = max((high[0] - low[0]) / (2 * slope * aspect * wide), (high[1] - low[1]) / (2 * slope * tall))
    # The frame is not the middle of the picture: title above, colour bar on the right.
    aside = np.array([1 - _FRAME[0] - _FRAME[1], 1 - _FRAME[2] - _FRAME[3]]) * needed * slope * np.array([aspect, 1])
    focus = axes.T @ ((low + high) / 2 + np.array([*aside, 0.0]))
    plotter.camera.focal_point, plotter.camera.up, plotter.camera.view_angle = focus, up, _VIEW_DEG
    plotter.camera.position = focus + (needed + 0.25 * (high[2] - low[2])) * back
    plotter.reset_camera_clipping_range()


def _main(arguments):
    kept, path = arguments
    with np.load(kept, allow_pickle=False) as file:
        values = {name: file[name] for name in file.files}
    values = {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
    _render(Scene(**values), path)


if __name__ == "__main__":
    _main(sys.argv[1:])
