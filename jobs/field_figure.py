"""Figure 1: the electric field and the firing rate in the head, in three planes through the strongest voxel."""

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from ..sim.firing import firing_rate
from ..sim.tissues import BRAIN_TAGS, TISSUE_TAGS
from ..zarr_store.schema import Status
from .drawing import (
    AIR,
    INK,
    PAPER,
    QUIET,
    SIZE,
    SKY,
    TISSUE,
    colour_bar,
    dress,
    legend_of,
    new_figure,
    picture_of,
)

# Plane, axis it is cut across, axes to the right and up, letters at left, right, bottom, top.
PLANES = (
    ("axial", 2, (0, 1), "LRPA"),
    ("coronal", 1, (0, 2), "LRIS"),
    ("sagittal", 0, (1, 2), "PAIS"),
)
_AXES = "xyz"
_MASK = SKY  # stands out from the colours of the field


@dataclass(frozen=True, kw_only=True)
class FieldView:
    """The field of the hotspot pose at one intensity, ready to be cut.

    Attributes
    ----------
    e_norm, rate : ndarray (n, n, n)
        V/m, and firing rate in [0, 1]; None where the sigmoid is not known.
    tissue, mask : ndarray (n, n, n)
    axes_mm : tuple of 3 ndarray
    peak : tuple of int
        Voxel of the largest |E| in grey matter within the mask.
    pose : int
    percent : float
        Intensity, % RMT.
    anatomical : bool
        Whether x, y, z point right, forward and up.
    """

    e_norm: np.ndarray
    rate: np.ndarray | None
    tissue: np.ndarray
    mask: np.ndarray
    axes_mm: tuple
    peak: tuple
    pose: int
    percent: float
    anatomical: bool

    def sentence(self) -> str:
        """Say what is shown, for the caption."""
        where = ", ".join(f"{axis[i]:.0f}" for axis, i in zip(self.axes_mm, self.peak))
        side = "; the left of the head is on the left" if self.anatomical else ""
        return (
            f"Pose {self.pose} (hotspot) at {self.percent:g} % RMT, the middle one of the intensities used. Planes "
            f"through the largest |E| in grey matter within the mask, {self.e_norm[self.peak]:.1f} V/m at ({where}) "
            f"mm. Colours in the brain only{side}."
        )


def field_view(volumes, trials):
    """Take the field of the hotspot pose at the study's middle intensity.

    Parameters
    ----------
    volumes, trials : xarray.Dataset or None

    Returns
    -------
    FieldView or None
        None where there is no such field, or the trials do not say what the threshold is.
    str
        Why there is none; empty otherwise.
    """
    if volumes is None or trials is None:
        return None, "There are no volumes or no trials in the study's folder."
    attrs = trials.attrs
    if "rmt_a_per_us" not in attrs:
        return None, "The trials do not say which coil current the motor threshold takes."
    pose = int(attrs.get("hotspot_pose", 0))
    if int(volumes["status"].values[pose]) != int(Status.DONE):
        return None, f"Pose {pose}, the hotspot, has no field."
    levels = np.unique(trials["intensity_percent_rmt"].values)
    percent = float(levels[(len(levels) - 1) // 2])
    e_norm = volumes["e_norm"].isel(pose=pose).values * (attrs["rmt_a_per_us"] * percent / 100)
    known = {"e50_v_per_m", "slope_v_per_m"} <= attrs.keys()
    rate = firing_rate(e_norm, attrs["e50_v_per_m"], attrs["slope_v_per_m"]) if known else None
    tissue, mask = volumes["tissue"].values, volumes["motor_mask"].values.astype(bool)
    view = FieldView(
        e_norm=e_norm, rate=rate, tissue=tissue, mask=mask, peak=_peak(e_norm, tissue, mask), pose=pose,
        axes_mm=tuple(volumes[name].values * 1e3 for name in _AXES), percent=percent,
        anatomical=volumes.attrs.get("notes", {}).get("head_name") != "sphere",
    )  # fmt: skip
    return view, ""


def _peak(e_norm, tissue, mask):
    """Voxel of the largest field in grey matter within the mask, or the mask, or anywhere."""
    for inside in (mask & (tissue == TISSUE_TAGS["grey_matter"]), mask, np.isfinite(e_norm)):
        if inside.any():
            return tuple(int(i) for i in np.unravel_index(np.argmax(np.where(inside, e_norm, -np.inf)), e_norm.shape))
    return tuple(size // 2 for size in e_norm.shape)


def field_pictures(view: FieldView):
    """Draw one picture a plane: |E| above, firing rate below.

    Parameters
    ----------
    view : FieldView

    Returns
    -------
    list of Picture
    """
    brain = np.isin(view.tissue, BRAIN_TAGS)
    seen = brain & view.mask
    top = float(np.percentile(view.e_norm[seen if seen.any() else brain if brain.any() else slice(None)], 99.9))
    layers = [(view.e_norm, top, "|E| (V/m)", "max")]
    layers += [] if view.rate is None else [(view.rate, 1.0, "firing rate (of maximum)", "neither")]
    return [_plane_picture(view, brain, layers, *plane) for plane in PLANES]


def _plane_picture(view, brain, layers, plane, across, along, letters):
    at = view.axes_mm[across][view.peak[across]]
    figure = new_figure(2.75 * len(layers) + 0.3, width=3.6)
    for number, (values, top, label, extend) in enumerate(layers):
        last = number == len(layers) - 1
        axes = figure.add_subplot(len(layers), 1, number + 1)
        title = f"{plane}, {_AXES[across]} = {at:.0f} mm" if number == 0 else ""
        dress(axes, title, f"{_AXES[along[0]]} (mm)" if last else "", f"{_AXES[along[1]]} (mm)")
        image = _draw_slice(axes, view, values, brain, top, across, along)
        colour_bar(figure, image, axes, label, extend)
        if view.anatomical:
            _letter(axes, letters)
    legend_of(
        figure,
        [
            Line2D([], [], color=INK, linewidth=0.8, label="tissue borders"),
            Line2D([], [], color=_MASK, label="motor mask"),
        ],
        2,
    )
    shown = "|E| and firing rate" if len(layers) > 1 else "|E|"
    return picture_of(figure, f"fig1_{plane}", f"{shown} in the brain, {plane} plane at {_AXES[across]} = {at:.0f} mm")


def _draw_slice(axes, view, values, brain, top, across, along):
    x, y = (view.axes_mm[axis] for axis in along)
    step = abs(x[1] - x[0]) / 2 if len(x) > 1 else 0.5
    extent = (x[0] - step, x[-1] + step, y[0] - step, y[-1] + step)
    tissue = _cut(view.tissue, view.peak, across)
    axes.imshow(
        (tissue > 0).astype(float), origin="lower", extent=extent, cmap=ListedColormap([AIR, TISSUE]), vmin=0, vmax=1,
        interpolation="nearest",
    )  # fmt: skip
    shown = np.ma.masked_where(~_cut(brain, view.peak, across), _cut(values, view.peak, across))
    image = axes.imshow(
        shown, origin="lower", extent=extent, cmap="inferno", vmin=0, vmax=top, interpolation="nearest"
    )  # fmt: skip
    for tag in np.unique(tissue):
        border = np.isin(tissue, BRAIN_TAGS) if tag in BRAIN_TAGS and tag != 1 else tissue == tag
        if tag > 0 and border.any() and not border.all():
            axes.contour(x, y, border.astype(float), levels=[0.5], colors=[QUIET], linewidths=0.6)
    mask = _cut(view.mask, view.peak, across)
    if mask.any() and not mask.all():
        axes.contour(x, y, mask.astype(float), levels=[0.5], colors=[_MASK], linewidths=1.2)
    for value, line in zip((view.axes_mm[axis][view.peak[axis]] for axis in along), (axes.axvline, axes.axhline)):
        line(value, color=QUIET, linewidth=0.5, linestyle=(0, (1, 3)))
    return image


def _cut(volume, peak, across):
    """Slice of a volume through the peak, rows up and columns to the right."""
    return np.take(volume, peak[across], axis=across).T


def _letter(axes, letters):
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    sides = (("left", "center"), ("right", "center"), ("center", "bottom"), ("center", "top"))
    for letter, (x, y), (ha, va) in zip(letters, places, sides):
        axes.text(x, y, letter, transform=axes.transAxes, ha=ha, va=va, fontsize=SIZE - 1, fontweight="bold", color=INK,
                  bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 1.2})  # fmt: skip
