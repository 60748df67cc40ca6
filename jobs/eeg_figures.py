"""Figures of an eeg study: training curves, predicted against measured, skill by subject."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from ..hpc.emg_comparison import usable_subjects
from ..hpc.emg_names import MEAN, MODEL_NAMES, NO_OPTIMIZER, OPTIMIZER_NAMES, TRUTH, TUNED, model_name
from .drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    ORANGE,
    PURPLE,
    QUIET,
    SIZE,
    SKY,
    VERMILLION,
    dress,
    legend_of,
    log_axis,
    new_figure,
    picture_of,
)
from .eeg_evidence import EegEvidence
from .eeg_findings import row_key
from .typesetting import number_text

_MUSCLE_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
_MODEL_COLOURS = {"network": BLUE, TUNED: SKY, "ridge": ORANGE, "pls": PURPLE, "stacked": GREEN, TRUTH: GREY}
_MARKS = {"network": "o", TUNED: "v", "ridge": "s", "pls": "D", "stacked": "^", TRUTH: "|"}
_LOSS_SPAN = 100.0  # an error that many times the median is cut off: first steps can explode
_POINTS = 4000  # drawn in a scatter; more would hide each other


# ---- training -------------------------------------------------------------------------------------------------------


def curve_pictures(evidence: EegEvidence):
    """Draw training and validation loss along the steps, a panel for each optimizer, a line for each fold."""
    split = evidence.shown_split
    curves = {
        optimizer: evidence.results[["loss_training", "loss_validation"]].sel(optimizer=optimizer, split=split)
        for optimizer in evidence.optimizers
    }
    curves = {key: each for key, each in curves.items() if np.isfinite(each["loss_training"].values).any()}
    if not curves:
        return []
    figure = new_figure(0.6 + 1.5 * len(curves))
    grid = figure.subplots(len(curves), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    every = np.concatenate([each[name].values.ravel() for each in curves.values() for name in each])
    every = every[np.isfinite(every) & (every > 0)]
    for axes, (optimizer, each) in zip(grid, curves.items()):
        dress(axes, grid="y", ylabel="mean squared error")
        axes.set_title(OPTIMIZER_NAMES.get(optimizer, optimizer), fontsize=SIZE, color=INK, loc="left")
        if every.size and every.max() > 3 * every.min():
            log_axis(axes.yaxis)
        for training, validation in zip(each["loss_training"].values, each["loss_validation"].values):
            axes.plot(np.arange(1, len(training) + 1), training, color=SKY, linewidth=0.7)
            at = np.flatnonzero(np.isfinite(validation))
            axes.plot(at + 1, validation[at], color=VERMILLION, linewidth=0.9, marker=".", markersize=2)
    low, high = every.min(), min(every.max(), _LOSS_SPAN * np.median(every))
    grid[0].set_ylim(low * 0.8, high * 1.25)
    if high > 30 * low:
        grid[0].yaxis.set_major_locator(LogLocator(numticks=6))
    grid[-1].set_xlabel("step (mini-batch)", fontsize=SIZE, color=QUIET)
    handles = [Line2D([], [], color=SKY, label="training batch"), Line2D([], [], color=VERMILLION, label="validation")]
    legend_of(figure, handles, 2)
    names = ", ".join(OPTIMIZER_NAMES.get(key, key) for key in curves)
    return [picture_of(figure, "curves", f"Training and validation error by step, with {names}; a line for each fold")]


# ---- predicted against measured -------------------------------------------------------------------------------------


def scatter_pictures(evidence: EegEvidence):
    """Draw predicted against measured entries of the test records, the mean matrix beside the models.

    Returns
    -------
    list of Picture
    """
    split, rows = evidence.shown_split, evidence.tested
    shown = [row_key(row) for row in evidence.shown_models]
    if not shown or not len(rows):
        return []
    shown.insert(1, (MEAN, NO_OPTIMIZER))
    if evidence.planted:
        shown.append((TRUTH, NO_OPTIMIZER))
    figure = new_figure(0.6 + 2.35 * -(-len(shown) // 2))
    grid = figure.subplots(-(-len(shown) // 2), 2, sharex=True, sharey=True, squeeze=False)
    measured, off = evidence.results["measured"].values[rows], ~np.eye(len(evidence.muscles), dtype=bool)
    colours = np.array([_colour(i) for i in range(len(off))], dtype=object)[np.nonzero(off)[0]]
    step = max(1, -(-measured[:, off].size // _POINTS))
    top = float(np.nanpercentile(measured[:, off], 99.5)) * 1.05
    for axes, (model, optimizer) in zip(grid.ravel(), shown):
        at = {"model": model, "optimizer": optimizer, "split": split}
        predicted = evidence.results["prediction"].sel(at).values[rows][:, off]
        x, y = measured[:, off].ravel()[::step], predicted.ravel()[::step]
        axes.plot([0, top], [0, top], color=LINE, linewidth=1, zorder=0)
        axes.scatter(x, y, c=np.tile(colours, len(rows))[::step].tolist(), s=4, alpha=0.6, linewidths=0)
        scores = [evidence.score(name, split, model, optimizer) for name in ("r2", "r")]
        dress(axes, model_name(model, optimizer))
        told = f"R² {number_text(scores[0], '.2f')}, r {number_text(scores[1], '.2f')}"
        axes.text(0.03, 0.95, told, transform=axes.transAxes, fontsize=SIZE - 1.5, color=QUIET, va="top")
        axes.set(xlim=(0, top), ylim=(min(0.0, _low(y)), top))
    _finish_scatter(evidence, figure, grid, len(shown))
    alt = f"Predicted against measured Granger causality of each entry of {len(rows)} test records"
    return [picture_of(figure, "scatter", alt)]


def _low(values):
    values = values[np.isfinite(values)]
    return float(np.percentile(values, 0.5)) if values.size else 0.0


def _colour(number):
    return _MUSCLE_COLOURS[number] if number < len(_MUSCLE_COLOURS) else GREY


def _finish_scatter(evidence, figure, grid, used):
    for axes in grid.ravel()[used:]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("measured", fontsize=SIZE, color=QUIET)
    for axes in grid[:, 0]:
        axes.set_ylabel("predicted", fontsize=SIZE, color=QUIET)
    muscles = evidence.muscles
    handles = [
        Line2D([], [], marker="o", markersize=4, linestyle="", color=_colour(i), label=f"to {muscle}")
        for i, muscle in enumerate(muscles[: len(_MUSCLE_COLOURS)])
    ]
    if len(muscles) > len(_MUSCLE_COLOURS):
        handles.append(Line2D([], [], marker="o", markersize=4, linestyle="", color=GREY, label="to others"))
    legend_of(figure, handles, 3)


# ---- subjects -------------------------------------------------------------------------------------------------------


def subject_pictures(evidence: EegEvidence):
    """Draw the skill of each model on each subject's test records; one row a subject."""
    split, subjects = evidence.shown_split, usable_subjects(evidence.results)
    shown = [row_key(row) for row in evidence.shown_models]
    shown += [(TRUTH, NO_OPTIMIZER)] if evidence.planted else []
    values = {key: _subject_skill(evidence, key) for key in shown}
    values = {key: each for key, each in values.items() if np.isfinite(each).any()}
    if not values or len(subjects) < 2:
        return []
    figure = new_figure(0.9 + 0.2 * len(subjects))
    axes = dress(figure.add_subplot(), xlabel="skill over the mean matrix", grid="x")
    axes.axvline(0, color=INK, linewidth=0.8)
    every = np.concatenate(list(values.values()))
    low = float(np.nanmin(every))
    floor = max(low, -1.5)
    for (model, _), each in values.items():
        colour, mark = _MODEL_COLOURS.get(model, INK), _MARKS.get(model, "o")
        axes.plot(np.maximum(each, floor), range(len(subjects)), mark, color=colour, markersize=5, linestyle="")
    axes.set_yticks(range(len(subjects)), subjects)
    axes.set(xlim=(floor - 0.08, 1.05), ylim=(len(subjects) - 0.5, -0.5))
    handles = [
        Line2D(
            [], [], marker=_MARKS.get(m, "o"), linestyle="", color=_MODEL_COLOURS.get(m, INK), label=model_name(m, o)
        )
        for m, o in values
    ]
    legend_of(figure, handles, min(3, len(handles)))
    limit = number_text(floor, ".1f")
    caption = f"Skill below {limit} is drawn at {limit}" if low < floor else ""
    alt = f"Skill over the mean matrix by subject, {split}: {', '.join(MODEL_NAMES.get(m, m) for m, _ in values)}"
    return [picture_of(figure, "subjects", alt, caption)]


def _subject_skill(evidence, key):
    at = {"model": key[0], "optimizer": key[1], "split": evidence.shown_split}
    return evidence.results["skill_subject"].sel(at | {"subject": usable_subjects(evidence.results)}).values
