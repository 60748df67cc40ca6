"""Figures of the muscle synergies: how many, what they are, and whether other splits find the same."""

import numpy as np

from .drawing import (
    BLUE,
    SIZE,
    VERMILLION,
    colour_bar,
    dress,
    legend_of,
    new_figure,
    picture_of,
)
from .evidence import Evidence


def synergy_words(evidence: Evidence) -> str:
    """Say how many synergies each repeat has, what they account for, and how alike they are; empty without any."""
    ranks = ranks_used(evidence.results)
    known = [rank for rank in ranks if rank]
    if not known:
        return ""
    used = f"{known[0]}" if len(set(known)) == 1 else f"{min(known)} to {max(known)}"
    noun = "synergy" if used == "1" else "synergies"
    text = f"{used} muscle {noun}, factorised from the scaled training responses of each repeat"
    vaf = [_vaf_at(evidence.results, repeat, rank) for repeat, rank in enumerate(ranks) if rank]
    vaf = [each for each in vaf if np.isfinite(each)]
    if vaf:
        text += f"; they account for {_percent(vaf)} of their variance (about zero)"
    alike = evidence.results["synergy_similarity"].values[1:]
    alike = alike[np.isfinite(alike)]
    if alike.size:
        text += f". The same synergy in another repeat has a cosine of {np.median(alike):.2f} (median; the least alike "
        text += f"{alike.min():.2f})"
    return text + "."


def _percent(shares):
    low, high = (f"{100 * each:.1f}" for each in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def ranks_used(results) -> list[int]:
    """Count the synergies of each repeat; 0 where it has none."""
    basis = results["synergy_basis"].values
    return [int(np.isfinite(each).all(axis=0).sum()) if each.size else 0 for each in basis]


def _vaf_at(results, repeat, rank):
    curve = results["synergy_vaf"].values[repeat]
    return float(curve[rank - 1]) if rank <= len(curve) else float("nan")


def vaf_picture(evidence: Evidence):
    """Draw the variance accounted for against the number of synergies, the number used marked; None without a curve."""
    results = evidence.results
    curves = results["synergy_vaf"].values
    if curves.shape[1] < 2 or not np.isfinite(curves).any():
        return None
    ranks, used = results["rank"].values, ranks_used(results)
    figure = new_figure(3.2)
    axes = dress(figure.add_subplot(), "", "number of synergies", "variance accounted for", grid="y")
    for repeat, curve in enumerate(curves):
        label = {"label": "one repeat"} if repeat == 0 else {}
        axes.plot(ranks, curve, color=BLUE, linewidth=1.2, marker=".", markersize=4, **label)
    marks = [(rank, curves[k][rank - 1]) for k, rank in enumerate(used) if 0 < rank <= len(ranks)]
    if marks:
        axes.plot(*zip(*marks), linestyle="none", marker="o", markersize=7.5, markerfacecolor="none",
                  color=VERMILLION, label="used", zorder=3)  # fmt: skip
    axes.set_xticks(ranks if len(ranks) <= 16 else ranks[:: -(-len(ranks) // 12)])
    axes.set_ylim(top=1.02)
    legend_of(figure, axes.get_legend_handles_labels()[0], 2)
    mean = [np.nanmean(column) for column in curves.T if np.isfinite(column).any()]
    alt = f"Variance accounted for by 1 to {len(mean)} synergies: " + ", ".join(f"{each:.2f}" for each in mean)
    alt += f"; used: {', '.join(map(str, used))} (one number a repeat)"
    return picture_of(figure, "synergy_vaf", alt, "How many")


def basis_picture(evidence: Evidence):
    """Draw the synergies of the first repeat, and below how alike those of the others are; None without synergies."""
    results = evidence.results
    ranks = ranks_used(results)
    if not any(ranks):
        return None
    first = int(np.flatnonzero(ranks)[0])
    basis = results["synergy_basis"].values[first][:, : max(ranks)]
    basis = basis / np.maximum(np.nanmax(np.abs(basis), axis=0, initial=0.0), 1e-300)
    others = [k for k, rank in enumerate(ranks) if rank and k != first]
    muscles = [str(muscle) for muscle in results["muscle"].values]
    figure = new_figure(1.0 + 0.16 * max(len(muscles), 6) + (0.35 + 0.2 * len(others) if others else 0))
    shares = {"height_ratios": [max(len(muscles), 6), 1.3 * len(others)]} if others else {}
    grid = figure.subplots(2 if others else 1, 1, squeeze=False, sharex=True, gridspec_kw=shares)[:, 0]
    axes = dress(grid[0], f"Repeat {results['repeat'].values[first]}", "" if others else "synergy")
    shown = np.ma.masked_invalid(basis)
    image = axes.imshow(shown, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(muscles)), muscles)
    axes.tick_params(axis="both", length=0, labelsize=SIZE - 2)
    axes.set_xticks(range(basis.shape[1]), [str(1 + k) for k in range(basis.shape[1])])
    colour_bar(figure, image, axes, "weight (largest = 1)")
    if others:
        _draw_similarity(grid[1], results, others, basis.shape[1])
    alt = f"Weights of {len(muscles)} muscles in {ranks[first]} synergies; strongest muscle of each: "
    alt += ", ".join(muscles[int(np.argmax(column))] for column in basis.T if np.isfinite(column).all())
    return picture_of(figure, "synergy_basis", alt, "Which muscles")


def _draw_similarity(axes, results, others, width):
    alike = results["synergy_similarity"].values[others][:, :width]
    dress(axes, "Cosine to other repeats", "synergy")
    axes.imshow(np.ma.masked_invalid(alike), aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(others)), [f"repeat {results['repeat'].values[k]}" for k in others])
    axes.tick_params(axis="both", length=0, labelsize=SIZE - 2)
    for (row, column), value in np.ndenumerate(alike):
        if np.isfinite(value) and width <= 12:
            colour = "#000000" if value > 0.6 else "#fdfdfd"  # white of the page would turn dark
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=SIZE - 2.5, color=colour)
