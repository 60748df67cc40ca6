"""Tables of an eeg study's scores: skill over the mean matrix, and the paper's Table 3 with ours beside it."""

import numpy as np
from markupsafe import Markup

from ..hpc.emg_names import BY_SUBJECT, CONTROLS, MEAN, METRIC_NAMES, METRICS, NO_OPTIMIZER, PARTS, SPLIT_NAMES, TRUTH
from ..learn.matrix_comparison import LARGEST_P
from .eeg_evidence import EegEvidence, skill_range, skill_rows, skill_text
from .typesetting import ALERT_CELL, BEST_CELL, CLOSE_CELL, QUIET_CELL, number_text, table_of

_VERDICT_CELLS = {"beats": BEST_CELL, "loses": ALERT_CELL, "unclear": QUIET_CELL, "too few": QUIET_CELL}

_PAPER, _PAPER_SPLITS = "The paper's Table 3", ("80-20", "70-10-20")

PAPER_TABLE_3 = {
    "adam": (
        (0.9432, 0.0153, 0.0003, 0.9738),
        (0.9149, 0.0196, 0.0004, 0.9379),
        (0.9270, 0.0185, 0.0004, 0.9489),
        (0.9352, 0.0173, 0.0004, 0.9682),
    ),
    "sgdm": (
        (0.8985, 0.0254, 0.0006, 0.9392),
        (0.9125, 0.0255, 0.0007, 0.9287),
        (0.9182, 0.0252, 0.0006, 0.9301),
        (0.9284, 0.0253, 0.0006, 0.9292),
    ),
    "rmsprop": (
        (0.9385, 0.0201, 0.0004, 0.9673),
        (0.9083, 0.0222, 0.0005, 0.9569),
        (0.9271, 0.0226, 0.0005, 0.9490),
        (0.9224, 0.0204, 0.0004, 0.9578),
    ),
}
"""The paper's Table 3: R², MSE, MAE, r for training, validation, test and all; which optimizer is which by its text."""


def score_order(rows):
    """Sort models for people: the planted truth first, then by skill, those without one last."""
    key = lambda row: (row.model != TRUTH, not row.known, -row.skill if row.known else 0.0)  # noqa: E731
    return sorted(rows, key=key)


# ---- skill ----------------------------------------------------------------------------------------------------------


def skill_table_rows(evidence: EegEvidence, split) -> list[dict]:
    """Write a row of text for each model of a split, best first.

    Returns
    -------
    list of dict of str to str
        Model; Skill over the mean matrix on test records; its 95 % interval; Better in (units); Verdict; R² and r on
        the test records, which say little by themselves.
    """
    return [_skill_cells(evidence, row) for row in score_order(evidence.rows(split))]


def _skill_cells(evidence, row):
    unit = str(evidence.results["skill_unit"].sel(split=row.split).item())
    state = "failed" if row.failed else "pending"
    cells = {"Model": row.name + ("" if row.done == row.planned else f" ({row.done}/{row.planned})")}
    cells["Skill"] = skill_text(row.skill) if row.known else state if row.done < row.planned else "–"
    compared = row.known and row.model != MEAN
    cells["95 % interval"] = skill_range(row.interval) if compared else "–"
    cells["Better in"] = f"{row.wins} of {row.units} {unit}{'s' * (row.units != 1)}" if compared else "–"
    cells["Verdict"] = row.verdict or "–"
    for metric in ("r2", "r"):
        cells[METRIC_NAMES[metric]] = number_text(evidence.score(metric, row.split, row.model, row.optimizer))
    return cells


def skill_tables(evidence: EegEvidence):
    """Typeset `skill_table_rows` of all splits as one table, grouped by split."""
    rows, marks = [], []
    for split in evidence.splits:
        heading = split_heading(evidence, split)
        for row in score_order(evidence.rows(split)):
            leaks = row.model in CONTROLS and row.verdict == "beats"
            css = ALERT_CELL if leaks else _VERDICT_CELLS.get(row.verdict)
            marks += [(len(rows), column, css) for column in ("Skill", "Verdict") if css]
            rows.append({"_group": heading, **_skill_cells(evidence, row)})
    return table_of(
        rows, name="skill", stub="Model", short=["Better in", "Verdict"], quiet=["R²", "r"], marks=marks,
        spanners=[("Test records, mean of folds", ["R²", "r"])],
    )  # fmt: skip


def split_heading(evidence, split):
    """Name a split, and how many folds it has."""
    counts = evidence.results["n_records"].sel(split=split).values
    folds = int((counts[:, -1] > 0).sum())
    name = SPLIT_NAMES.get(split, split)
    name = name[0].upper() + name[1:]
    if split == BY_SUBJECT:
        return f"{name}: subjects that no training has seen ({folds} folds)"
    return f"{name} ({folds} fold{'s' if folds > 1 else ''})"


# ---- the paper's Table 3 --------------------------------------------------------------------------------------------


def table_3_rows(evidence: EegEvidence, split, suffix="_with_diagonal") -> list[dict]:
    """Write the scores of all models on a split as the paper's Table 3 has them.

    Parameters
    ----------
    evidence : EegEvidence
    split : str
    suffix : str
        ``"_with_diagonal"``, as the paper; ``""`` without the zeros of the diagonal.

    Returns
    -------
    list of dict of str to str
        Model, and a column ``<part> <metric>`` for each part and metric: means over the folds that are done.
    """
    rows = []
    for row in score_order(evidence.rows(split)):
        cells = {"_group": split_heading(evidence, split), "Model": row.name}
        for part in PARTS:
            for metric in METRICS:
                value = evidence.score(f"{metric}{suffix}", split, row.model, row.optimizer, part)
                cells[f"{part} {metric}"] = score_text(metric, value)
        rows.append(cells)
    return rows


def paper_rows() -> list[dict]:
    """Write the paper's own Table 3 in the same form."""
    names = {"adam": "Adam", "sgdm": "SGD", "rmsprop": "RMSprop"}
    return [
        {"_group": _PAPER, "Model": names[optimizer]}
        | {
            f"{part} {metric}": score_text(metric, value)
            for part, values in zip(PARTS, parts)
            for metric, value in zip(METRICS, values)
        }
        for optimizer, parts in PAPER_TABLE_3.items()
    ]


def score_text(metric, value):
    """Write a score with three digits; MSE and MAE in thousandths.

    Examples
    --------
    >>> score_text("r2", 0.91234), score_text("mse", 0.000123456), score_text("mae", 0.0123)
    ('0.912', '0.123', '12.3')
    """
    if metric in ("r2", "r") or not np.isfinite(value):
        return number_text(value)
    value = 1e3 * value
    return (
        f"{value:.2g}"
        if value < 0.1
        else f"{value:.3f}"
        if value < 1
        else f"{value:#.3g}".rstrip(".")
        if value < 1e3
        else f"{value:.2e}"
    )


def table_3(evidence: EegEvidence, split):
    """Typeset `table_3_rows`; with the paper's below them where the split is one of the paper's, or the first."""
    beside = split in _PAPER_SPLITS or split == evidence.splits[0]
    rows = table_3_rows(evidence, split) + (paper_rows() if beside else [])
    best = _best_numbers(evidence, split, rows)
    marks = [(number, "test r2", CLOSE_CELL) for number in best]
    papers = [number for number, row in enumerate(rows) if row["_group"] == _PAPER]
    marks += [(number, column, QUIET_CELL) for number in papers for column in rows[number] if " " in column]
    spanners = [(part.capitalize(), [f"{part} {metric}" for metric in METRICS]) for part in PARTS]
    html = str(table_of(rows, name=f"table-3-{split}", stub="Model", spanners=spanners, marks=marks))
    for column in [column for _, columns in spanners for column in columns]:
        # The same name stands under each part, which the typesetter cannot do.
        html = html.replace(f">{column}<", f">{METRIC_NAMES[column.split()[1]]}<")
    return Markup(html)


def _best_numbers(evidence, split, rows):
    """Row of the best test R² among what can be used on new records."""
    scores = {
        number: evidence.score("r2_with_diagonal", split, row.model, row.optimizer)
        for number, row in enumerate(score_order(evidence.rows(split)))
        if row.model != TRUTH
    }
    scores = {number: score for number, score in scores.items() if np.isfinite(score)}
    return [max(scores, key=scores.get)] if scores else []


# ---- terminal -------------------------------------------------------------------------------------------------------


def score_lines(results) -> list[str]:
    """Skill of all models over the mean matrix as plain text for a terminal, at most 80 columns wide.

    Parameters
    ----------
    results : xarray.Dataset
        Of `open_results`, an eeg study's.

    Returns
    -------
    list of str
        For each split, that by subject first: a header, and a line for each model, best first: skill, its 95 %
        interval, in how many subjects or folds it is better than the mean matrix, and the verdict.

    Examples
    --------
    >>> score_lines(open_results("studies/eeg"))[1]                              # doctest: +SKIP
    'Network, Adam             +0.412  +0.301–+0.523  10 of 10  beats'
    """
    splits = sorted(map(str, results["split"].values), key=lambda split: split != BY_SUBJECT)
    blocks = [_block(results, split) for split in splits]
    widths = [max(len(row[k]) for block in blocks for row in block) for k in range(5)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for block in blocks for row in block]
    units = {str(each) for each in results["skill_unit"].values} - {""}
    lines.append("skill: share of the mean matrix's squared error that is taken away")
    lines += [f"better: {unit}s in which the error is the smaller one" for unit in sorted(units)]
    return [*lines, f"beats: 95 % interval above 0, and sign test of “better” with p <= {LARGEST_P:g}"]


def _block(results, split):
    rows = [[SPLIT_NAMES.get(split, split), "Skill", "95 %", "Better", "Verdict"]]
    for row in score_order(skill_rows(results, split)):
        state = "failed" if row.failed else "pending"
        done = "" if row.done == row.planned else f" ({row.done}/{row.planned})"
        known = skill_text(row.skill) if row.known else state
        compared = row.known and (row.model, row.optimizer) != (MEAN, NO_OPTIMIZER)
        interval = skill_range(row.interval).replace(" to ", "–") if compared else ""
        wins = f"{row.wins} of {row.units}" if compared else ""
        rows.append([row.name + done, known, interval if interval != "–" else "", wins, row.verdict])
    return rows
