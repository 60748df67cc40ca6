"""Figures of what the networks learned: predictions, scores by muscle, score against size, losses."""

import numpy as np
from matplotlib.lines import Line2D

from ..zarr_store.schema import Status
from .drawing import (
    BLUE,
    GREEN,
    INK,
    LINE,
    ORANGE,
    PAPER,
    PURPLE,
    QUIET,
    SIZE,
    VERMILLION,
    colour_bar,
    dress,
    legend_of,
    log_axis,
    new_figure,
    picture_of,
)  # fmt: skip
from .evidence import BASELINE_NAMES, CONNECTION_NAMES, INPUT_NAMES, Evidence

INPUT_COLOURS = {"e_norm": BLUE, "firing_rate": VERMILLION}
CONNECTION_COLOURS = {"direct": GREEN, "synergy": ORANGE, "both": PURPLE}
CONNECTION_MARKS = {"direct": "o", "synergy": "s", "both": "^"}
_FLOOR_DASHES = {"mean": (0, (5, 2)), "ridge": (0, (2, 2)), "best_possible": "solid"}
_LOG_SPAN = 3.0  # a loss that falls by more than this factor is drawn on a log axis


# ---- figure 3 -------------------------------------------------------------------------------------------------------


def prediction_pictures(evidence: Evidence):
    """Draw truth and predictions on the test set of the first repeat, muscle by trial, one picture each.

    Trials are sorted by intensity, and by their summed response within one. A model that is not done has no picture;
    its name comes back instead.

    Returns
    -------
    list of Picture
    list of str
        Sentences about what is missing.
    """
    results = evidence.results.isel(repeat=0)
    measured = results["measured"].values
    there = np.isfinite(measured).all(axis=1)
    if not there.any():
        return [], ["No test set is there yet."]
    order, edges = _trial_order(evidence, results, measured, there)
    panels, missing = _panels(evidence, results)
    top = max(float(np.nanpercentile(measured[there], 99)), 1e-9)
    muscles = [str(muscle) for muscle in results["muscle"].values]
    panels = [("Measured", measured, "truth"), *panels]
    return [_heat_map(panel, order, edges, muscles, top) for panel in panels], missing


def _panels(evidence, results):
    kind, depth = evidence.shown_input, evidence.shown_depth
    panels, missing = [], []
    for connection in map(str, results["connection"].values):
        cell = results.sel(input=kind, depth=depth, connection=connection)
        name = CONNECTION_NAMES.get(connection, connection)
        status = int(cell["status"])
        if status == int(Status.DONE):
            title = f"{name}, NRMSE {float(cell['nrmse']):.3f}"
            panels.append((title, cell["prediction"].values, f"prediction_{connection}"))
        else:
            missing.append(f"{name}: {Status(status).name.lower()}.")
    if "best_possible" in results["baseline"].values:
        best = results.sel(input=kind, baseline="best_possible")
        prediction = best["baseline_prediction"].values
        if np.isfinite(prediction).any():
            panels.append((f"Best possible, NRMSE {float(best['baseline_nrmse']):.3f}", prediction, "best_possible"))
    return panels, missing


def _trial_order(evidence, results, measured, there):
    """Positions of the test set in the order of the drawing, and where each intensity begins."""
    rows = np.flatnonzero(there)
    trials = results["test_trial"].values[rows]
    percent = np.zeros(len(rows))
    if evidence.trials is not None and (trials >= 0).all() and trials.max() < evidence.trials.sizes["trial"]:
        percent = evidence.trials["intensity_percent_rmt"].values[trials]
    order = np.lexsort((measured[rows].sum(axis=1), percent))
    levels, starts = np.unique(percent[order], return_index=True)
    edges = [] if len(levels) == 1 and levels[0] == 0 else list(zip(starts.tolist(), levels.tolist()))
    return rows[order], edges


def _heat_map(panel, order, edges, muscles, top):
    title, values, name = panel
    figure = new_figure(0.95 + 0.135 * max(len(muscles), 9))
    axes = dress(
        figure.add_subplot(), title, "test trial, by intensity (% RMT) and size" if edges else "test trial, by size"
    )
    image = axes.imshow(
        np.ma.masked_invalid(values[order].T), aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest",
    )  # fmt: skip
    axes.set_yticks(range(len(muscles)), muscles)
    axes.tick_params(axis="y", length=0, labelsize=SIZE - 2)
    for start, _ in edges[1:]:
        axes.axvline(start - 0.5, color=PAPER, linewidth=1.2)
    if edges and len(edges) <= 8:
        ends = [*(start for start, _ in edges[1:]), len(order)]
        axes.set_xticks([(start + end - 1) / 2 for (start, _), end in zip(edges, ends)], [f"{p:g}" for _, p in edges])
        axes.tick_params(axis="x", length=0)
    colour_bar(figure, image, axes, "response (training range = 1)", "max")
    return picture_of(
        figure, f"fig3_{name}", f"{title}: responses of {len(muscles)} muscles in {len(order)} test trials"
    )


def muscle_picture(evidence: Evidence):
    """Draw the NRMSE of every muscle, mean over the repeats, for the drawn models and the floors; None without any."""
    kind, depth = evidence.shown_input, evidence.shown_depth
    results = evidence.results.sel(input=kind)
    cells = results.sel(depth=depth)
    done = cells["status"] == int(Status.DONE)
    series = []
    for connection in map(str, cells["connection"].values):
        scores = cells["nrmse_muscle"].where(done).sel(connection=connection).mean("repeat").values
        style = {"marker": CONNECTION_MARKS.get(connection, "o"), "color": CONNECTION_COLOURS.get(connection, INK)}
        series.append((CONNECTION_NAMES.get(connection, connection), scores, style | {"zorder": 3}))
    for name, mark in (("mean", "|"), ("ridge", "x"), ("best_possible", "D")):
        scores = results["baseline_nrmse_muscle"].sel(baseline=name).mean("repeat").values
        hollow = {"markerfacecolor": "none", "markeredgecolor": INK} if mark == "D" else {}
        series.append((BASELINE_NAMES[name], scores, {"marker": mark, "color": QUIET, "zorder": 2, **hollow}))
    series = [each for each in series if np.isfinite(each[1]).any()]
    if not series:
        return None
    return _dot_plot(series, [str(muscle) for muscle in results["muscle"].values], kind, depth)


def _dot_plot(series, muscles, kind, depth):
    order = np.argsort(np.nan_to_num(series[0][1], nan=np.inf))
    figure = new_figure(1.0 + 0.21 * len(muscles))
    axes = dress(figure.add_subplot(), "NRMSE by muscle", "NRMSE, mean over repeats", grid="y")
    rows = np.arange(len(muscles))
    for label, scores, style in series:
        axes.plot(scores[order], rows, linestyle="none", markersize=5.5, label=label, **style)
    axes.set_yticks(rows, [muscles[i] for i in order])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(muscles) - 0.4, -0.6)
    axes.set_xlim(left=0)
    legend_of(figure, axes.get_legend_handles_labels()[0], 3)
    words = f"{INPUT_NAMES.get(kind, kind)}, {depth} layers"
    return picture_of(
        figure, "fig3_muscles", f"NRMSE of each muscle for {', '.join(label for label, *_ in series)}; {words}"
    )


# ---- figure 4 -------------------------------------------------------------------------------------------------------


def complexity_picture(evidence: Evidence):
    """Draw the test NRMSE against the number of parameters for both inputs, floors as lines; None without models."""
    models = evidence.models
    if not models:
        return None
    figure = new_figure(4.1, width=5.6)
    axes = dress(figure.add_subplot(), "", "parameters of the mapper (thousands)", "test NRMSE, mean ± sd", grid="y")
    parameters = evidence.results["n_parameters"]
    spread = 0.006 * float(parameters.max()) / 1e3
    kinds = [str(kind) for kind in evidence.results["input"].values]
    for model in models:
        size = float(parameters.sel(depth=model.depth, connection=model.connection)) / 1e3
        colour = INPUT_COLOURS.get(model.input, INK)
        sd = float(np.std(model.scores, ddof=1)) if len(model.scores) > 1 else None
        x = size + spread * (kinds.index(model.input) - (len(kinds) - 1) / 2)
        axes.errorbar(
            x, model.mean, yerr=sd, color=colour, marker=CONNECTION_MARKS.get(model.connection, "o"), markersize=6,
            markerfacecolor=colour if model.depth == 3 else PAPER, elinewidth=0.9, capsize=2, zorder=3,
        )  # fmt: skip
    _floor_lines(axes, evidence, kinds)
    axes.margins(x=0.08, y=0.06)
    axes.autoscale_view()
    legend_of(figure, _complexity_key(evidence, models), 3)
    alt = "Test NRMSE against the number of parameters, " + "; ".join(
        f"{m.name} on {INPUT_NAMES.get(m.input, m.input)} {m.mean:.3f}" for m in models[:4]
    )
    return picture_of(figure, "fig4_complexity", alt)


def _floor_lines(axes, evidence, kinds):
    drawn = set()
    for name in BASELINE_NAMES:
        for kind in kinds:
            scores = evidence.baseline(name, kind)
            if not len(scores) or (name, round(float(scores.mean()), 9)) in drawn:
                continue  # floors that do not depend on the input are drawn once
            drawn.add((name, round(float(scores.mean()), 9)))
            colour = INPUT_COLOURS.get(kind, QUIET) if name == "ridge" else QUIET
            axes.axhline(scores.mean(), color=colour, linewidth=1.0, linestyle=_FLOOR_DASHES[name], zorder=1)


def _complexity_key(evidence, models):
    used = {model.input for model in models}
    handles = [
        Line2D([], [], color=INPUT_COLOURS.get(kind, INK), linewidth=4, label=INPUT_NAMES.get(kind, kind))
        for kind in map(str, evidence.results["input"].values)
        if kind in used
    ]
    for connection in dict.fromkeys(model.connection for model in sorted(models, key=lambda each: each.connection)):
        mark = CONNECTION_MARKS.get(connection, "o")
        name = CONNECTION_NAMES.get(connection, connection)
        handles.append(Line2D([], [], color=QUIET, marker=mark, linestyle="none", label=name))
    for depth in sorted({model.depth for model in models}):
        face = QUIET if depth == 3 else PAPER
        handles.append(
            Line2D([], [], color=QUIET, marker="o", markerfacecolor=face, linestyle="none", label=f"{depth} layers")
        )
    for name, label in BASELINE_NAMES.items():
        if any(len(evidence.baseline(name, str(kind))) for kind in evidence.results["input"].values):
            handles.append(Line2D([], [], color=QUIET, linestyle=_FLOOR_DASHES[name], linewidth=1.0, label=label))
    return handles


# ---- losses ---------------------------------------------------------------------------------------------------------


def loss_pictures(evidence: Evidence):
    """Draw the loss of each epoch, small multiples: autoencoders by input, final mappers by depth and connection."""
    curves = [
        (record["kind"], record["labels"], np.array(record["loss"], float))
        for record in evidence.records.values()
        if record["labels"].get("fold") is None and len(record.get("loss") or []) > 1
    ]
    inputs = [str(kind) for kind in evidence.results["input"].values]
    coders = {
        (INPUT_NAMES.get(k, k),): [c for c in curves if c[0] == "autoencoder" and c[1]["input"] == k] for k in inputs
    }
    mappers = {
        (f"{depth} layers", CONNECTION_NAMES.get(connection, connection)): [
            c for c in curves if c[0] == "mapper" and (c[1].get("depth"), c[1].get("connection")) == (depth, connection)
        ]
        for depth in map(int, evidence.results["depth"].values)
        for connection in map(str, evidence.results["connection"].values)
    }
    pictures = [
        _small_multiples(coders, "loss_autoencoders", "Autoencoders", 1),
        _small_multiples(mappers, "loss_mappers", "Mappers", evidence.results.sizes["depth"]),
    ]
    return [picture for picture in pictures if picture is not None]


def _small_multiples(panels, name, caption, columns):
    if not any(panels.values()):
        return None
    columns = columns if columns > 1 else min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(0.55 + 1.45 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    cells = grid.T.ravel() if name == "loss_mappers" else grid.ravel()
    losses = np.concatenate([curve for panel in panels.values() for *_, curve in panel])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    log = len(positive) > 0 and positive.max() > _LOG_SPAN * positive.min()
    for axes, (title, curves) in zip(cells, panels.items()):
        dress(axes, ", ".join(title), grid="y")
        axes.set_title(", ".join(title), fontsize=SIZE - 1, color=INK, loc="left")
        if log:
            log_axis(axes.yaxis)
        for _, labels, curve in curves:
            axes.plot(np.arange(1, len(curve) + 1), curve, color=INPUT_COLOURS.get(labels["input"], INK), linewidth=0.9)
        if not curves:
            axes.text(0.5, 0.5, "none is done", transform=axes.transAxes, ha="center", fontsize=SIZE - 1, color=QUIET)
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=SIZE, color=QUIET)
    for axes in grid[:, 0]:
        axes.set_ylabel("training loss", fontsize=SIZE, color=QUIET)
    if name == "loss_mappers":
        used = dict.fromkeys(labels["input"] for curves in panels.values() for _, labels, _ in curves)
        handles = [Line2D([], [], color=INPUT_COLOURS.get(k, LINE), label=INPUT_NAMES.get(k, k)) for k in used]
        legend_of(figure, handles, len(handles))
    count = sum(map(len, panels.values()))
    return picture_of(figure, name, f"Training loss by epoch of {count} {caption.lower()}, one line a repeat", caption)
