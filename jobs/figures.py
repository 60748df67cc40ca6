"""Figures of what was learned: predictions trial by trial, and the losses of the networks."""

import numpy as np
from matplotlib.lines import Line2D

from ..hpc.predictor_names import BASELINE_NAMES, CONNECTION_NAMES, FLOOR, INPUT_NAMES
from ..zarr_store.schema import Status
from .drawing import INK, LINE, PAPER, QUIET, SIZE, colour_bar, dress, legend_of, log_axis, new_figure, picture_of
from .evidence import Evidence
from .score_figures import INPUT_COLOURS
from .typesetting import number_text

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
            title = f"{name}, NRMSE {number_text(float(cell['nrmse']))}"
            panels.append((title, cell["prediction"].values, f"prediction_{connection}"))
        else:
            missing.append(f"{name}: {Status(status).name.lower()}.")
    for name, file in (("response_model", "prediction_response_model"), (FLOOR, FLOOR)):
        other = results.sel(input=kind, baseline=name)
        prediction = other["baseline_prediction"].values
        if np.isfinite(prediction).any():
            score = number_text(float(other["baseline_nrmse"]))
            panels.append((f"{BASELINE_NAMES[name]}, NRMSE {score}", prediction, file))
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


# ---- losses ---------------------------------------------------------------------------------------------------------


def loss_pictures(evidence: Evidence):
    """Draw the loss of each epoch, small multiples: autoencoders by input, final mappers by depth and connection."""
    curves = [
        (record["kind"], record["labels"], np.array(record["loss"], float))
        for record in evidence.records.values()
        if all(record["labels"].get(key) is None for key in ("fold", "trials")) and len(record.get("loss") or []) > 1
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
