"""Figures of an eeg study's connectivity matrices: those of the EEG, and of the EMG measured, predicted and planted."""

import numpy as np
from matplotlib.colors import TwoSlopeNorm

from .drawing import INK, QUIET, SIZE, TISSUE, colour_bar, dress, new_figure, picture_of
from .eeg_evidence import EegEvidence
from .eeg_findings import usable

_SHOWN_RECORDS = 3
_MEASURE_NAMES = {
    "correlation": "Correlation",
    "coherence": "Coherence",
    "phase_lag_index": "Phase lag index",
    "granger": "Granger causality",
    "dtf": "DTF",
}


def _matrix(axes, values, names, title, *, cmap="viridis", norm=None, vmin=None, vmax=None, labels=True):
    image = axes.imshow(np.ma.masked_invalid(values), cmap=cmap, norm=norm, vmin=vmin, vmax=vmax)
    dress(axes, title)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(range(len(names)), names if labels else [""] * len(names), rotation=90)
    axes.set_yticks(range(len(names)), names if labels else [""] * len(names))
    axes.set_facecolor(TISSUE)  # what has no value
    axes.tick_params(length=0, labelsize=SIZE - (2 if len(names) < 10 else 2.8), pad=1.5)
    return image


# ---- EEG ------------------------------------------------------------------------------------------------------------


def eeg_pictures(evidence: EegEvidence):
    """Draw the mean connectivity matrix of the EEG of all records, one picture for each measure.

    Returns
    -------
    list of Picture
        Empty where the features are gone.
    """
    if evidence.features is None:
        return []
    features = evidence.features["eeg_connectivity"].isel(record=usable(evidence.results))
    mean = features.mean("record").values
    names = [str(each) for each in evidence.features["eeg_i"].values]
    pictures = []
    for number, measure in enumerate(map(str, evidence.features["measure"].values)):
        title = _MEASURE_NAMES.get(measure, measure)
        figure = new_figure(4.2)
        axes = figure.add_subplot()
        image = _matrix(axes, mean[number], names, title, **_scale(mean[number]))
        axes.set_xlabel("from" if measure in ("granger", "dtf") else "", fontsize=SIZE - 1, color=QUIET)
        axes.set_ylabel("to" if measure in ("granger", "dtf") else "", fontsize=SIZE - 1, color=QUIET)
        colour_bar(figure, image, axes, "mean over records", "both")
        alt = f"Mean {title.lower()} of {len(names)} EEG channels over {features.sizes['record']} records"
        pictures.append(picture_of(figure, f"eeg_{measure}", alt))
    return pictures


def _scale(matrix):
    """Colours of a matrix: about 0 where it takes both signs, and without the diagonal, which says nothing."""
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    off = off[np.isfinite(off)]
    if not off.size:
        return {}
    if off.min() < -0.02:
        top = max(float(np.abs(off).max()), 1e-9)
        return {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -top, top)}
    low, high = np.percentile(off, [1, 99])
    return {"vmin": float(low) if low > 0.5 * high else 0.0, "vmax": max(float(high), 1e-9)}


# ---- EMG ------------------------------------------------------------------------------------------------------------


def emg_pictures(evidence: EegEvidence):
    """Draw mean EMG matrices (measured, predicted, expected) and skill by entry, of the split that is shown.

    Returns
    -------
    list of Picture
    """
    shown = evidence.shown_models
    rows = evidence.tested
    if not len(rows) or not shown:
        return []
    return [
        _mean_matrices(evidence, shown, rows),
        _entry_skill(evidence, shown),
        _example_matrices(evidence, shown, rows),
    ]


def _prediction(evidence, row):
    at = {"model": row.model, "optimizer": row.optimizer, "split": evidence.shown_split}
    return evidence.results["prediction"].sel(at).values


def _mean_matrices(evidence, shown, rows):
    measured = evidence.results["measured"].values[rows]
    panels = [("Measured", measured)] + [(row.name, _prediction(evidence, row)[rows]) for row in shown]
    if evidence.planted:
        panels.append(("Planted", evidence.results["expected"].values[rows]))
    means = [(title, _without_diagonal(np.nanmean(values, axis=0))) for title, values in panels]
    top = max(np.nanmax(mean) for _, mean in means)
    columns = 2
    figure = new_figure(0.5 + 2.35 * -(-len(means) // columns))
    grid = figure.subplots(-(-len(means) // columns), columns, squeeze=False)
    for axes, (title, mean) in zip(grid.ravel(), means):
        image = _matrix(axes, mean, evidence.muscles, title, vmin=0, vmax=top)
    for axes in grid.ravel()[len(means) :]:
        axes.set_visible(False)
    colour_bar(figure, image, grid.ravel().tolist(), "Granger causality, mean over test records")
    titles = ", ".join(title.lower() for title, _ in means)
    alt = f"Mean Granger causality between muscles over {len(rows)} test records: {titles}"
    return picture_of(figure, "emg_means", alt, "Mean matrices: columns drive rows")


def _without_diagonal(matrix):
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)


def _entry_skill(evidence, shown):
    """Skill of each entry over the mean matrix; below -1 the colour says no more."""
    figure = new_figure(2.75)
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, row in zip(grid, shown):
        at = {"model": row.model, "optimizer": row.optimizer, "split": evidence.shown_split}
        values = evidence.results["skill_entry"].sel(at).values
        image = _matrix(axes, values, evidence.muscles, row.name, cmap="RdBu", norm=TwoSlopeNorm(0, -1, 1))
    low = min(float(np.nanmin(_entry_values(evidence, row))) for row in shown)
    colour_bar(figure, image, grid.tolist(), "skill over the mean matrix", "min" if low < -1 else "neither")
    names = " and ".join(row.name for row in shown)
    alt = f"Skill of each entry over the mean matrix: {names}"
    return picture_of(figure, "emg_skill", alt, "Skill of each entry: blue is better than the mean matrix, red worse")


def _entry_values(evidence, row):
    at = {"model": row.model, "optimizer": row.optimizer, "split": evidence.shown_split}
    return _without_diagonal(evidence.results["skill_entry"].sel(at).values)


def _example_matrices(evidence, shown, rows):
    """Three test records, by rule: those whose mean Granger causality is lowest, median and highest."""
    measured = evidence.results["measured"].values
    size = np.nanmean(np.array([_without_diagonal(measured[row]) for row in rows]), axis=(1, 2))
    order = rows[np.argsort(size, kind="stable")]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _SHOWN_RECORDS).round().astype(int))]
    panels = [("Measured", measured)] + [(row.name, _prediction(evidence, row)) for row in shown]
    top = float(np.nanpercentile([_without_diagonal(values[k]) for _, values in panels for k in chosen], 98))
    figure = new_figure(0.4 + 1.3 * len(panels))
    grid = figure.subplots(len(panels), len(chosen), squeeze=False)
    for number, (line, (title, values)) in enumerate(zip(grid, panels)):
        for axes, k in zip(line, chosen):
            name = str(evidence.results["record"].values[k])
            head = name if number == 0 else ""
            image = _matrix(axes, _without_diagonal(values[k]), evidence.muscles, head, vmin=0, vmax=top, labels=False)
            axes.set_title(head, fontsize=SIZE - 2, color=QUIET, loc="left")
        line[0].set_ylabel(title.replace(", ", "\n").replace(" (", "\n("), fontsize=SIZE - 1, color=INK)
    colour_bar(figure, image, grid.ravel().tolist(), "Granger causality", "both")
    alt = f"Measured and predicted matrices of {len(chosen)} test records"
    caption = "Single test records: of the lowest, the median and the highest mean Granger causality"
    return picture_of(figure, "emg_records", alt, caption)
