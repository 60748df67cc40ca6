"""Figures of the scores: all predictors with their intervals, score against size, learning curves."""

import numpy as np
from matplotlib.lines import Line2D

from ..hpc.predictor_names import ANY_INPUT, BASELINE_NAMES, CEILING, CONNECTION_NAMES, FLOOR, INPUT_NAMES
from .drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    QUIET,
    VERMILLION,
    dress,
    legend_of,
    log_axis,
    new_figure,
    picture_of,
)  # fmt: skip
from .evidence import Evidence
from .findings import training_trials
from .ranking import scores_over

CURVE_TOP = 1.5
"""NRMSE that learning curves are shown up to; over it nothing was learned."""

INPUT_COLOURS = {"e_norm": BLUE, "firing_rate": VERMILLION}
CONNECTION_COLOURS = {"direct": GREEN, "synergy": ORANGE, "both": PURPLE}
CONNECTION_MARKS = {"direct": "o", "synergy": "s", "both": "^"}
_DASHES = {CEILING: (0, (5, 2)), "ridge": (0, (2, 2)), "response_model": "dashdot", FLOOR: "solid"}


# ---- all predictors -------------------------------------------------------------------------------------------------


def forest_picture(evidence: Evidence):
    """Draw the mean NRMSE of every predictor with its 95 % interval, in the order of the table; None without any."""
    scored = [each for each in evidence.ranking if each.known.size]
    if not scored:
        return None
    figure = new_figure(0.9 + 0.2 * len(scored), width=5.6)
    axes = dress(figure.add_subplot(), "", "test NRMSE, mean over repeats", grid="y")
    for row, each in enumerate(scored):
        colour = QUIET if each.key[1] in ANY_INPUT else INPUT_COLOURS.get(each.input, INK)
        low, high = each.interval
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [row, row], color=colour, linewidth=1.6, zorder=2, solid_capstyle="butt")
        axes.plot(each.known, np.full(each.known.size, row), linestyle="none", marker="|", markersize=4.5, color=colour,
                  alpha=0.6, zorder=2)  # fmt: skip
        face = PAPER if each.standing == "worse" else colour
        axes.plot(each.mean, row, marker="o" if each.is_network else "D", markersize=5.2, color=colour, zorder=3,
                  markerfacecolor=face)  # fmt: skip
    best = next((each.mean for each in scored if each.standing == "best"), None)
    if best is not None:
        axes.axvline(best, color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.set_yticks(range(len(scored)), [each.label for each in scored])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(scored) - 0.4, -0.6)
    axes.set_xlim(*_span(scored))
    legend_of(figure, _forest_key(scored), 2)
    alt = "Mean test NRMSE with 95 % interval, from the lowest: " + "; ".join(
        f"{each.label} on {each.input_name} {each.mean:.3f}" if each.input_name != "–" else
        f"{each.label} {each.mean:.3f}" for each in scored
    )  # fmt: skip
    return picture_of(figure, "scores", alt)


def _span(scored):
    """Ends of the axis: all scores, and of the intervals what does not squeeze them (few test trials say little)."""
    scores = np.concatenate([each.known for each in scored])
    ends = np.concatenate([scores, *(each.interval[np.isfinite(each.interval)] for each in scored)])
    low, high = max(ends.min(), 0.6 * scores.min()), min(ends.max(), 1.4 * scores.max())
    return low - 0.03 * (high - low) - 1e-9, high + 0.03 * (high - low) + 1e-9


def _forest_key(scored):
    used = {each.input for each in scored if each.key[1] not in ANY_INPUT}
    handles = [_input_patch(kind) for kind in [*INPUT_NAMES, *sorted(used - INPUT_NAMES.keys())] if kind in used]
    mark = {"color": QUIET, "linestyle": "none"}
    handles.append(Line2D([], [], marker="o", label="network", **mark))
    handles.append(Line2D([], [], marker="D", label="without a network", **mark))
    if any(each.standing == "worse" for each in scored):
        handles.append(
            Line2D([], [], marker="o", markerfacecolor=PAPER, label="worse than the best, beyond chance", **mark)
        )
    handles.append(Line2D([], [], marker="|", label="one repeat", **mark))
    return handles


def _input_patch(kind):
    colour, label = INPUT_COLOURS.get(kind, INK), INPUT_NAMES.get(kind, kind)
    return Line2D([], [], color=colour, linewidth=4, solid_capstyle="butt", label=label)


# ---- figure 4 of the paper ------------------------------------------------------------------------------------------


def complexity_picture(evidence: Evidence):
    """Draw the test NRMSE against the number of parameters for both inputs, others as lines; None without networks."""
    networks = evidence.networks
    if not networks:
        return None
    figure = new_figure(4.1, width=5.6)
    axes = dress(figure.add_subplot(), "", "parameters of the mapper (thousands)", "test NRMSE, mean ± sd", grid="y")
    spread = 0.006 * max(each.parameters[1] for each in networks) / 1e3
    kinds = [str(kind) for kind in evidence.results["input"].values]
    for each in networks:
        colour = INPUT_COLOURS.get(each.input, INK)
        x = np.mean(each.parameters) / 1e3 + spread * (kinds.index(each.input) - (len(kinds) - 1) / 2)
        sd = float(np.std(each.known, ddof=1)) if each.known.size > 1 else None
        axes.errorbar(
            x, each.mean, yerr=sd, color=colour, marker=CONNECTION_MARKS.get(each.key[2], "o"), markersize=6,
            markerfacecolor=colour if each.key[1] == 3 else PAPER, elinewidth=0.9, capsize=2, zorder=3,
        )  # fmt: skip
    lines = [each for each in evidence.ranking if not each.is_network and each.key[1] in _DASHES]
    for each in lines:
        colour = QUIET if each.key[1] in ANY_INPUT else INPUT_COLOURS.get(each.input, QUIET)
        axes.axhline(each.mean, color=colour, linewidth=1.0, linestyle=_DASHES[each.key[1]], zorder=1)
    axes.margins(x=0.08, y=0.06)
    axes.autoscale_view()
    legend_of(figure, _complexity_key(networks, lines), 3)
    alt = "Test NRMSE against the number of parameters, " + "; ".join(
        f"{each.label} on {each.input_name} {each.mean:.3f}" for each in networks[:4]
    )
    return picture_of(figure, "fig4_complexity", alt)


def _complexity_key(networks, lines):
    kinds = sorted({each.input for each in networks})
    handles = [_input_patch(kind) for kind in kinds]
    for connection in sorted({each.key[2] for each in networks}):
        mark = CONNECTION_MARKS.get(connection, "o")
        name = CONNECTION_NAMES.get(connection, connection)
        handles.append(Line2D([], [], color=QUIET, marker=mark, linestyle="none", label=name))
    for depth in sorted({each.key[1] for each in networks}):
        # A shape that no connection has: filled or hollow is what tells the depth.
        face = QUIET if depth == 3 else PAPER
        handles.append(
            Line2D([], [], color=QUIET, marker="D", markerfacecolor=face, linestyle="none", label=f"{depth} layers")
        )
    for name in dict.fromkeys(each.key[1] for each in lines):
        label = BASELINE_NAMES.get(name, name)
        handles.append(Line2D([], [], color=QUIET, linestyle=_DASHES[name], linewidth=1.0, label=label))
    return handles


# ---- learning curves ------------------------------------------------------------------------------------------------

_CURVE_LINES = {
    CEILING: {"color": QUIET, "linestyle": _DASHES[CEILING]},
    "ridge": {"color": BLUE, "linestyle": _DASHES["ridge"]},
    "response_model": {"color": VERMILLION, "linestyle": "solid", "linewidth": 2.0},
    FLOOR: {"color": QUIET, "linestyle": "solid"},
}


def curve_pictures(evidence: Evidence):
    """Draw the test NRMSE against the number of labelled training trials, one picture an input; none without curves.

    The last point of each line is the model of the table, which was trained on the whole calibration set.
    """
    if "curve_nrmse" not in evidence.results:
        return []
    kinds = [str(kind) for kind in evidence.results["input"].values]
    found = {kind: _curves(evidence, kind) for kind in kinds}
    values = np.concatenate([y for lines in found.values() for *_, y, _ in lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if not values.size:
        return []
    limits = max(0.0, values.min() - 0.04), min(values.max() + 0.04, CURVE_TOP)
    return [_curve_picture(kind, lines, limits) for kind, lines in found.items() if lines]


def _curves(evidence, kind):
    """Lines (label, trials, NRMSE, style) of an input."""
    results, lines = evidence.results, []
    steps, last = results["trials"].values, training_trials(evidence)
    x = np.append(steps, last) if last > max(steps, default=0) else steps

    def add(label, curve, final, style):
        y = np.append(scores_over(curve), scores_over(final)) if len(x) > len(steps) else scores_over(curve)
        if np.isfinite(y).any():
            lines.append((label, x, y, style))

    for depth in map(int, results["depth"].values):
        for connection in map(str, results["connection"].values):
            at = {"input": kind, "depth": depth, "connection": connection}
            style = {"color": CONNECTION_COLOURS.get(connection, INK), "marker": CONNECTION_MARKS.get(connection, "o")}
            style |= {"markersize": 4, "markerfacecolor": style["color"] if depth == 3 else PAPER}
            name = f"{depth}-layer {CONNECTION_NAMES.get(connection, connection)}"
            add(name, results["curve_nrmse"].sel(at), results["nrmse"].sel(at), style)
    for name, style in _CURVE_LINES.items():
        at = {"input": kind, "baseline": name}
        curve, final = results["curve_baseline_nrmse"].sel(at), results["baseline_nrmse"].sel(at)
        add(BASELINE_NAMES[name], curve, final, style)
    return lines


def _curve_picture(kind, lines, limits):
    name = INPUT_NAMES.get(kind, kind)
    figure = new_figure(3.9)
    axes = dress(figure.add_subplot(), "", "labelled training trials", "test NRMSE, mean over repeats", grid="y")
    for label, x, y, style in lines:
        axes.plot(x, y, label=label, **{"linewidth": 1.2, **style})
    log_axis(axes.xaxis)
    ticks = lines[0][1]
    axes.set_xticks(ticks, [str(int(each)) for each in ticks])
    axes.set_ylim(limits)
    legend_of(figure, axes.get_legend_handles_labels()[0], 3)
    ends = [(label, y[np.isfinite(y)][[0, -1]]) for label, _, y, _ in lines]
    told = "; ".join(f"{label} from {first:.3f} to {last:.3f}" for label, (first, last) in ends)
    alt = f"Learning curves on {name}, test NRMSE with {int(ticks[0])} to {int(ticks[-1])} training trials: {told}"
    return picture_of(figure, f"curve_{kind}", alt, name[0].upper() + name[1:])
