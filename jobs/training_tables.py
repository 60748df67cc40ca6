"""Tables of the trainings: information criteria, the cross-validation, and what it chose."""

from collections import Counter

import numpy as np

from ..hpc.predictor_names import CONNECTION_NAMES, INPUT_NAMES
from ..zarr_store.schema import HYPER_DIMS, Status
from .evidence import Evidence
from .paper_tables import PAPER_CRITERIA
from .typesetting import ALERT_CELL, BEST_CELL, number_text, table_of

PAPER = "Paper: another subject, measured"


def models_of(results) -> list[tuple[int, str]]:
    """Give (depth, connection) of the study's mappers, in the paper's order."""
    return [(int(d), str(c)) for d in results["depth"].values for c in results["connection"].values]


def row_of(depth, connection) -> dict:
    """Begin the row of a mapper in the paper's order: its group and its label."""
    return {"_group": f"{depth} layers", "Model": CONNECTION_NAMES.get(connection, connection)}


def heading_of(kind) -> str:
    """Head the column of an input."""
    return INPUT_NAMES.get(kind, kind).capitalize() if kind != "e_norm" else "Raw |E|"


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
    for depth, connection in models_of(results):
        at = {"depth": depth, "connection": connection}
        row = row_of(depth, connection) | {"Parameters p": parameters_text(results["n_parameters"].sel(at).values)}
        for kind in kinds:
            for name in means:
                value = float(means[name].sel(input=kind, **at))
                row[_column(labels[name], kind)] = number_text(value / scales[name])
        valid = results["criteria_valid"].sel(at).values[done.sel(at).values]
        row["AICc valid"] = "–" if not valid.size else "yes" if valid.all() else "no"
        rows.append(row | _paper_criteria(depth, connection, scales))
    spanners = [(heading_of(kind), [_column(label, kind) for label in labels.values()]) for kind in kinds]
    paper = [column for column in rows[0] if column.endswith("\u2060")]
    spanners.append((PAPER + ", firing rate", paper))
    columns = ["Parameters p", *(c for _, group in spanners[:-1] for c in group), "AICc valid", *paper]
    rows = [{key: row[key] for key in ("_group", "Model", *columns)} for row in rows]
    marks = [(number, "AICc valid", ALERT_CELL) for number, row in enumerate(rows) if row["AICc valid"] == "no"]
    return table_of(rows, name="criteria", stub="Model", quiet=paper, spanners=spanners, marks=marks)


def parameters_text(counts) -> str:
    """Write a number of parameters, or its range where the repeats differ (synergies chosen by their variance).

    Examples
    --------
    >>> parameters_text([139977, 139977]), parameters_text([139944, 0, 139977]), parameters_text([0])
    ('139,977', '139,944 to 139,977', 'not known yet')
    """
    known = sorted({int(count) for count in np.ravel(counts) if count > 0})
    if not known:
        return "not known yet"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _scale(values):
    largest = np.nanmax(np.abs(values), where=np.isfinite(values), initial=0.0)
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
        texts[f"{label}{_power(scale)}\u2060"] = number_text(value / scale)
    return texts


# ---- cross-validation -----------------------------------------------------------------------------------------------

_NAMES = {"dropout": "dropout", "l1": "L1", "activation": "activation", "scaling": "scaling"}


def validation_table(evidence: Evidence):
    """Mean validation NRMSE of each configuration, and how often it was chosen; None without cross-validation."""
    results = evidence.results
    if "cv_nrmse" not in results:
        return None
    kinds, names = [str(kind) for kind in results["input"].values], grid_names(results)
    over = [dim for dim in results["cv_nrmse"].dims if dim not in ("input", *names)]
    means = results["cv_nrmse"].where(results["cv_status"] == int(Status.DONE)).mean(over)
    means = means.stack(configuration=names).transpose("input", "configuration")
    tried = (results["cv_run_id"] != "").any(["input", *over]).stack(configuration=names).values
    tried = np.flatnonzero(tried if tried.any() else ~tried)
    final = results["status"] == int(Status.DONE)
    rows = []
    for at in tried:
        values = dict(zip(names, means["configuration"].values[at]))
        row = {"Configuration": configuration_text(values)}
        same = [_same(results[f"{name}_selected"], each) for name, each in values.items()]
        picked = final & np.logical_and.reduce(same)
        for number, kind in enumerate(kinds):
            value = float(means.values[number, at])
            row[heading_of(kind)] = number_text(value) if np.isfinite(value) else "pending"
            count, of = (int(each.sel(input=kind).sum()) for each in (picked, final))
            row[f"Chosen, {INPUT_NAMES.get(kind, kind)}"] = f"{count} of {of}"
        rows.append(row)
    marks = [
        (int(column.argmin()), heading_of(kind), BEST_CELL)
        for kind, column in zip(kinds, means.values[:, tried])
        if np.isfinite(column).all()
    ]
    return table_of(rows, name="validation", stub="Configuration", marks=marks)


def grid_names(results) -> list[str]:
    """Name the hyper-parameters that the tables of a cross-validation show: dropout, L1, and what else was varied."""
    found = [name for name in HYPER_DIMS if name in results["cv_nrmse"].dims]
    return [name for name in found if name in ("dropout", "l1") or results.sizes[name] > 1]


def configuration_text(values) -> str:
    """Write a configuration in one line.

    Examples
    --------
    >>> configuration_text({"dropout": 0.15, "l1": 1e-4, "activation": "relu"})
    'dropout 0.15, L1 0.0001, relu'
    """
    return ", ".join(
        f"{_NAMES[name]} {value:g}" if name in ("dropout", "l1") else str(value) for name, value in values.items()
    )


def _same(selected, value):
    return np.isclose(selected, value) if selected.dtype.kind == "f" else selected == value


def chosen_table(evidence: Evidence):
    """Configuration of every final model, repeat by repeat; None without cross-validation."""
    results = evidence.results
    if "cv_nrmse" not in results:
        return None
    names, rows = grid_names(results), []
    for depth, connection in models_of(results):
        row = row_of(depth, connection)
        for kind in results["input"].values:
            cell = results.sel(input=kind, depth=depth, connection=connection)
            chosen = zip(*(cell[f"{name}_selected"].values for name in names), strict=True)
            texts = Counter(
                configuration_text(dict(zip(names, each))) if np.isfinite(each[0]) else "pending" for each in chosen
            )
            row[heading_of(str(kind))] = "; ".join(t if len(texts) == 1 else f"{t} ({n}×)" for t, n in texts.items())
        rows.append(row)
    words = [heading_of(str(kind)) for kind in results["input"].values]
    return table_of(rows, name="chosen", stub="Model", words=words)
