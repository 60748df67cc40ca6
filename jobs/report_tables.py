"""The tables of the report, typeset by great-tables, in the page's colours, light or dark; Table 1 as plain text."""

import re
from collections import Counter

import numpy as np

from ..zarr_store.schema import Status
from .evidence import BASELINE_NAMES, CONNECTION_NAMES, INPUT_NAMES, Evidence, baseline_of, models_of
from .findings import PAPER_CRITERIA, PAPER_NRMSE, mean_sd

PAPER = "Paper: another subject, measured"
_QUIET = "color: var(--quiet)"
_BEST = "background: var(--best); font-weight: 600"
_ALERT = "color: var(--alert)"
_FLOORS = "Without a network"


def table_of(rows, *, name, stub, words=(), quiet=(), spanners=(), marks=()):
    """Typeset rows as HTML without a style sheet of its own.

    Parameters
    ----------
    rows : list of dict of str to str
        The keys are column headings; ``"_group"`` holds the heading of a group of rows.
    name : str
        The id of the table in the page.
    stub : str
        The column of row labels.
    words : sequence of str
        Columns of text, which are aligned to the left and may wrap; the others hold numbers.
    quiet : sequence of str
        Columns in grey.
    spanners : sequence of (str, list of str)
        Heading over several columns.
    marks : sequence of (int, str, str)
        Row, column, CSS of single cells.

    Returns
    -------
    Markup
        Text of the cells is escaped.

    Examples
    --------
    >>> "&lt;b&gt;" in table_of([{"Stage": "<b>", "Pieces": "1"}], name="t", stub="Stage")
    True
    """
    import pandas as pd  # here, so that `score_lines` does not wait for the typesetter
    from great_tables import GT, loc, style
    from markupsafe import Markup

    frame = pd.DataFrame(rows, dtype=object)
    grouped = "_group" in frame.columns
    table = GT(frame, id=name, rowname_col=stub, groupname_col="_group" if grouped else None).tab_stubhead(stub)
    values = [column for column in frame.columns if column not in (stub, "_group")]
    table = table.cols_align("right", columns=values).cols_align("left", columns=list(words))
    for heading, columns in spanners:
        table = table.tab_spanner(heading, columns=columns)
    for column in quiet:
        table = table.tab_style(style.css(_QUIET), [loc.body(column), loc.column_labels(column)])
    for row, column, css in marks:
        table = table.tab_style(style.css(css), loc.body(column, [row]))
    html = re.sub(r"<style>.*?</style>", "", table.as_raw_html(), flags=re.DOTALL)
    html = re.sub(r'(<div id="[^"]*") style="[^"]*"', r'\1 class="table"', html, count=1)
    return Markup(html)


# ---- table 1 --------------------------------------------------------------------------------------------------------


def nrmse_table(evidence: Evidence):
    """Table 1: NRMSE by model and input, floors below, the paper's own values in grey.

    Examples
    --------
    >>> nrmse_table(evidence)        # doctest: +SKIP
    Markup('<div id="nrmse" ...')
    """
    kinds = [str(kind) for kind in evidence.results["input"].values]
    scores = _scores(evidence.results)
    rows, marks = [], []
    for depth, connection in _models(evidence.results):
        row = _row(depth, connection)
        for kind in kinds:
            row[_heading(kind)] = _cell(evidence.results, kind, depth, connection, scores)
            row[_paper(kind)] = PAPER_NRMSE.get(kind, {}).get((depth, connection), "–")
        rows.append(row)
    marks = _best_marks(rows, kinds, scores) + _alert_marks(rows)
    rows += _floor_rows(evidence.results, kinds)
    ours, paper = [_heading(kind) for kind in kinds], [_paper(kind) for kind in kinds]
    spanners = [("This study", ours), (PAPER, paper)]
    rows = [{key: row[key] for key in ("_group", "Model", *ours, *paper)} for row in rows]
    return table_of(rows, name="nrmse", stub="Model", quiet=paper, spanners=spanners, marks=marks)


def score_lines(results) -> list[str]:
    """Table 1 as plain text for a terminal, at most 80 columns wide for the two inputs of a study.

    Parameters
    ----------
    results : xarray.Dataset
        Of `open_results` or `collect`; only its scores and states are read.

    Returns
    -------
    list of str
        A header, a line for each model, and one for each floor that is known: test NRMSE, mean ± sd where several
        repeats are done, with how many (``2/3``) where some are not; the best model of each input has a ``*``.

    Examples
    --------
    >>> score_lines(open_results("studies/quick"))[1]        # doctest: +SKIP
    '3 layers  Direct   0.658 ± 0.042    0.519 ± 0.048 *'
    """
    kinds, scores = [str(kind) for kind in results["input"].values], _scores(results)
    best = {model.input: (model.depth, model.connection) for model in reversed(models_of(results))}
    rows = [["Test NRMSE", *(INPUT_NAMES.get(kind, kind) for kind in kinds)]]
    for model in _models(results):
        stars = [" *" * (best.get(kind) == model) for kind in kinds]
        cells = [_cell(results, kind, *model, scores) + star for kind, star in zip(kinds, stars, strict=True)]
        rows.append(["  ".join(_row(*model).values()), *cells])
    floors = [[row["Model"], *(row[_heading(kind)] for kind in kinds)] for row in _floor_rows(results, kinds)]
    rows += [row for row in floors if not set(row[1:]) <= {"pending", "failed"}]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _scores(results):
    return {(model.input, model.depth, model.connection): model.scores for model in models_of(results)}


def _models(results):
    return [(int(d), str(c)) for d in results["depth"].values for c in results["connection"].values]


def _row(depth, connection):
    return {"_group": f"{depth} layers", "Model": CONNECTION_NAMES.get(connection, connection)}


def _heading(kind):
    return INPUT_NAMES.get(kind, kind).capitalize() if kind != "e_norm" else "Raw |E|"


def _paper(kind):
    return _heading(kind) + "\u200b"  # columns of a table need names of their own; this one shows the same


def _cell(results, kind, depth, connection, scores):
    found = scores.get((kind, depth, connection))
    status = results["status"].sel(input=kind, depth=depth, connection=connection).values
    if found is None:
        return "failed" if (status == int(Status.FAILED)).any() else "pending"
    text = mean_sd(found)
    return text if len(found) == len(status) else f"{text} ({len(found)}/{len(status)})"


def _best_marks(rows, kinds, scores):
    marks = []
    for kind in kinds:
        means = {key[1:]: float(np.mean(found)) for key, found in scores.items() if key[0] == kind}
        if means:
            depth, connection = min(means, key=means.get)
            marks.append((rows.index(next(r for r in rows if r | _row(depth, connection) == r)), _heading(kind), _BEST))
    return marks


def _alert_marks(rows):
    return [
        (number, column, _ALERT if text == "failed" else _QUIET)
        for number, row in enumerate(rows)
        for column, text in row.items()
        if text in ("failed", "pending")
    ]


def _floor_rows(results, kinds):
    rows = []
    for name, label in BASELINE_NAMES.items():
        found = {kind: baseline_of(results, name, kind) for kind in kinds}
        if name == "best_possible" and not any(len(scores) for scores in found.values()):
            continue  # measured responses: nobody knows
        row = {"_group": _FLOORS, "Model": label}
        for kind, scores in found.items():
            failed = (results["baseline_status"].sel(input=kind).values == int(Status.FAILED)).any()
            row[_heading(kind)] = mean_sd(scores) if len(scores) else "failed" if failed else "pending"
        rows.append(row | {_paper(kind): "–" for kind in kinds})
    return rows


# ---- table 2 --------------------------------------------------------------------------------------------------------


def criteria_table(evidence: Evidence):
    """Table 2: BIC and AICc (mean over the repeats), the number of parameters, and whether AICc is in its domain."""
    results = evidence.results
    kinds = [str(kind) for kind in results["input"].values]
    done = results["status"] == int(Status.DONE)
    means = {name: results[name].where(done).mean("repeat") for name in ("bic", "aicc")}
    scales = {name: _scale(values.values) for name, values in means.items()}
    labels = {name: f"{text}{_power(scales[name])}" for name, text in (("bic", "BIC"), ("aicc", "AICc"))}
    rows = []
    for depth, connection in _models(results):
        at = {"depth": depth, "connection": connection}
        parameters = int(results["n_parameters"].sel(at))
        row = _row(depth, connection) | {"Parameters p": f"{parameters:,}" if parameters else "not known yet"}
        for kind in kinds:
            for name in means:
                value = float(means[name].sel(input=kind, **at))
                row[_column(labels[name], kind)] = _number(value / scales[name])
        row |= {"AICc valid": _valid(results.sel(at), done.sel(at))} | _paper_criteria(depth, connection, scales)
        rows.append(row)
    spanners = [(_heading(kind), [_column(label, kind) for label in labels.values()]) for kind in kinds]
    paper = [column for column in rows[0] if column.endswith("\u2060")]
    spanners.append((PAPER + ", firing rate", paper))
    columns = ["Parameters p", *(c for _, group in spanners[:-1] for c in group), "AICc valid", *paper]
    rows = [{key: row[key] for key in ("_group", "Model", *columns)} for row in rows]
    marks = [(number, "AICc valid", _ALERT) for number, row in enumerate(rows) if row["AICc valid"] == "no"]
    return table_of(rows, name="criteria", stub="Model", quiet=paper, spanners=spanners, marks=marks)


def _number(value):
    return f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "–"


def _scale(values):
    largest = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    return 10.0 ** (3 * (int(np.floor(np.log10(largest))) // 3)) if largest >= 1e4 else 1.0


def _power(scale):
    power = str(round(np.log10(scale))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f" (10{power})" if scale > 1 else ""


def _column(label, kind):
    return label + "\u200b" * (1 + list(INPUT_NAMES).index(kind) if kind in INPUT_NAMES else 3)


def _paper_criteria(depth, connection, scales):
    values = PAPER_CRITERIA.get((depth, connection), (np.nan, np.nan))
    texts = {}
    for (name, label), value in zip((("bic", "BIC"), ("aicc", "AICc")), values):
        scale = scales[name] if scales[name] > 1 else 1e3
        texts[f"{label}{_power(scale)}\u2060"] = _number(value / scale)
    return texts


def _valid(results, done):
    valid = results["criteria_valid"].values[done.values]
    return "–" if not valid.size else "yes" if valid.all() else "no"


# ---- cross-validation, failures, versions ---------------------------------------------------------------------------


def validation_table(evidence: Evidence):
    """Mean validation NRMSE over dropout and L1, and how often each pair was chosen; None without cross-validation."""
    results = evidence.results
    if "cv_nrmse" not in results:
        return None
    kinds = [str(kind) for kind in results["input"].values]
    done = results["cv_status"] == int(Status.DONE)
    means = results["cv_nrmse"].where(done).mean(("depth", "connection", "repeat", "fold"))
    final = results["status"] == int(Status.DONE)
    rows, marks = [], []
    for dropout in results["dropout"].values:
        for l1 in results["l1"].values:
            row = {"Dropout, L1": f"{dropout:g}, {l1:g}"}
            for kind in kinds:
                value = float(means.sel(input=kind, dropout=dropout, l1=l1))
                row[_heading(kind)] = f"{value:.3f}" if np.isfinite(value) else "pending"
                picked = np.isclose(results["dropout_selected"], dropout) & np.isclose(results["l1_selected"], l1)
                count = int((picked & final).sel(input=kind).sum())
                row[f"Chosen, {INPUT_NAMES.get(kind, kind)}"] = f"{count} of {int(final.sel(input=kind).sum())}"
            rows.append(row)
    for kind in kinds:
        column = means.sel(input=kind)
        if np.isfinite(column.values).all():
            marks.append((int(column.values.ravel().argmin()), _heading(kind), _BEST))
    return table_of(rows, name="validation", stub="Dropout, L1", marks=marks)


def chosen_table(evidence: Evidence):
    """Dropout and L1 of every final model, repeat by repeat; None without cross-validation."""
    results = evidence.results
    if "cv_nrmse" not in results:
        return None
    rows = []
    for depth, connection in _models(results):
        row = _row(depth, connection)
        for kind in results["input"].values:
            cell = results.sel(input=kind, depth=depth, connection=connection)
            pairs = zip(cell["dropout_selected"].values, cell["l1_selected"].values, strict=True)
            texts = Counter(f"{dropout:g}, {l1:g}" if np.isfinite(dropout) else "pending" for dropout, l1 in pairs)
            row[_heading(str(kind))] = "; ".join(t if len(texts) == 1 else f"{t} ({n}×)" for t, n in texts.items())
        rows.append(row)
    return table_of(rows, name="chosen", stub="Model")
