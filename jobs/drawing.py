"""How every figure of the report looks: sizes, colours that colour-blind readers can tell apart, light and dark.

Figures are made as objects, so that nothing here touches the state of pyplot or another thread.
"""

import io
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

# Okabe and Ito's palette: safe for the common kinds of colour blindness.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#808080"
INK, QUIET, LINE, PAPER = "#1f2328", "#59636e", "#d4d9de", "#ffffff"
TISSUE, AIR = "#e4e7ea", "#f6f7f8"

_DARK = {INK: "#e6e8eb", QUIET: "#a2abb5", LINE: "#3a4048", PAPER: "#16191d", TISSUE: "#2b3036", AIR: "#1c2025"}
_DARK |= {BLUE: "#4aa3dd"}
_SWAP = {to_rgba(light): to_rgba(dark) for light, dark in _DARK.items()}

WIDTH = 4.8  # inch: one column of the page, or the width of a phone
DPI = 170
SIZE = 9.0  # points: legible on a phone


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished figure.

    Attributes
    ----------
    name : str
        File name without ending.
    alt : str
        What it shows, for those who cannot see it.
    light, dark : bytes
        PNG for light and dark pages.
    caption : str
        A short title above it in a group of pictures; may be empty.
    """

    name: str
    alt: str
    light: bytes
    dark: bytes
    caption: str = ""


def new_figure(height, width=WIDTH) -> Figure:
    """Make an empty figure, sizes in inches, that lays out its own axes."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return figure


def dress(axes, title="", xlabel="", ylabel="", grid=""):
    """Give axes the house style: two quiet spines, small quiet ticks, a grid along ``grid`` ("x", "y" or "")."""
    axes.set_facecolor("none")
    axes.set_title(title, fontsize=SIZE, color=INK, loc="left", fontweight="bold", pad=5)
    axes.set_xlabel(xlabel, fontsize=SIZE, color=QUIET)
    axes.set_ylabel(ylabel, fontsize=SIZE, color=QUIET)
    axes.tick_params(colors=QUIET, labelsize=SIZE - 1, width=0.6, length=2.5)
    for side, spine in axes.spines.items():
        spine.set(color=LINE, linewidth=0.8, visible=side in ("left", "bottom"))
    if grid:
        axes.grid(axis=grid, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
    return axes


def log_axis(axis):
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.axes.minorticks_off()


def legend_of(figure, handles, columns):
    """Put a quiet legend under the axes of a figure."""
    return figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=SIZE - 1, labelcolor=INK,
        handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip


def colour_bar(figure, image, axes, label, extend="neither"):
    """Add a thin colour bar with its unit."""
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, extend=extend)
    bar.set_label(label, fontsize=SIZE - 1, color=QUIET)
    bar.ax.tick_params(colors=QUIET, labelsize=SIZE - 1.5, width=0.6, length=2)
    bar.outline.set_visible(False)
    return bar


def picture_of(figure, name, alt, caption="") -> Picture:
    """Draw a figure for light and for dark pages."""
    light = _png(figure)
    # Laid out already; a second layout would only cost time.
    figure.set_layout_engine("none")
    _darken(figure)
    return Picture(name=name, alt=alt, light=light, dark=_png(figure), caption=caption)


def _png(figure):
    # Not by savefig, which draws twice and writes its version into the file.
    figure.canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).save(file, "png", compress_level=5)
    return file.getvalue()


def _darken(figure):
    """Swap the page's own colours, wherever an artist wears one of them, for those of a dark page."""
    figure.set_facecolor(_swapped(figure.get_facecolor()))
    for axes in figure.axes:
        axes.tick_params(colors=_swapped(to_rgba(QUIET)))
        axes.tick_params(grid_color=_swapped(to_rgba(LINE)))
        for image in axes.images:
            if isinstance(image.cmap, ListedColormap) and image.cmap.N == 2:
                image.set_cmap(ListedColormap([_swapped(to_rgba(colour)) for colour in image.cmap.colors]))
    for artist in figure.findobj():
        for part in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            _swap(artist, part)
        box = artist.get_bbox_patch() if isinstance(artist, Text) else None
        if box is not None:
            _swap(box, "facecolor")


def _swap(artist, part):
    getter, setter = getattr(artist, f"get_{part}", None), getattr(artist, f"set_{part}", None)
    if getter is None or setter is None:
        return
    try:
        found = getter()
        if hasattr(found, "ndim") and found.ndim == 2:
            setter([_swapped(tuple(row)) for row in found]) if len(found) else None
        elif (new := _swapped(to_rgba(found))) != to_rgba(found):
            setter(new)
    except (ValueError, TypeError):
        return  # no colour, such as "auto" or an image


def _swapped(colour):
    colour = tuple(float(part) for part in colour)
    opaque = _SWAP.get((*colour[:3], 1.0))
    return (*opaque[:3], colour[3]) if opaque is not None else colour
