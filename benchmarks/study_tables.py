"""The tables of docs/study.md from a study's results: the paper's beside ours, all predictors, the conclusions.

    python benchmarks/study_tables.py studies/NAME

Prints Markdown that goes between the two comments `figures` of docs/study.md. Nothing is computed that the results do
not hold, but for the intervals of the conclusions.
"""

import argparse

import numpy as np
from motorsweep import __version__
from motorsweep.errors import StoreError
from motorsweep.hpc.predictor_names import CONNECTION_NAMES
from motorsweep.jobs.conclusions import conclusions
from motorsweep.jobs.paper_tables import PAPER_CRITERIA, paper_nrmse
from motorsweep.jobs.ranking import completed, mean_sd, ranking
from motorsweep.jobs.report_tables import score_rows
from motorsweep.jobs.training_tables import parameters_text
from motorsweep.jobs.typesetting import number_text
from motorsweep.zarr_store.results import open_results
from motorsweep.zarr_store.trials import open_trials

INPUTS = {"e_norm": "raw E-field", "firing_rate": "firing rate"}


def markdown(rows: list[dict]) -> str:
    """Rows of text as a Markdown table; a bar within a cell is escaped."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row[head] for head in heads] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def cells(results) -> list[tuple[int, str]]:
    """(depth, connection) of the mappers, in the paper's order."""
    return [(int(depth), str(each)) for depth in results["depth"].values for each in results["connection"].values]


def name_of(depth, connection) -> str:
    return f"{depth} layers, {CONNECTION_NAMES.get(connection, connection)}"


def table_1(results) -> list[dict]:
    """NRMSE of the twelve networks, the paper's and ours."""
    found, rows = {each.key: each for each in ranking(results) if each.is_network}, []
    for depth, connection in cells(results):
        row = {"mapper": name_of(depth, connection)}
        for kind in map(str, results["input"].values):
            each = found[kind, depth, connection]
            row[f"{INPUTS.get(kind, kind)}: paper"] = paper_nrmse(kind, depth, connection)
            row[f"{INPUTS.get(kind, kind)}: here"] = mean_sd(each.known) if each.known.size else each.state
        rows.append(row)
    return rows


def table_2(results) -> list[dict]:
    """BIC, AICc and parameters of the firing-rate mappers (or of the first input's), the paper's and ours."""
    kinds = [str(kind) for kind in results["input"].values]
    cell = results.sel(input="firing_rate" if "firing_rate" in kinds else kinds[0])
    done, rows = cell["status"] == 1, []
    for depth, connection in cells(results):
        at = {"depth": depth, "connection": connection}
        row = {"mapper": name_of(depth, connection), "parameters": parameters_text(cell["n_parameters"].sel(at).values)}
        paper = PAPER_CRITERIA.get((depth, connection), (np.nan, np.nan))
        for place, (name, label, scale) in enumerate((("bic", "BIC, 10⁶", 1e6), ("aicc", "AICc, 10⁴", 1e4))):
            values = cell[name].sel(at).values[done.sel(at).values]
            row[f"{label}: paper"] = number_text(paper[place] / scale)
            row[f"{label}: here"] = number_text(values.mean() / scale) if values.size else "–"
        rows.append(row)
    return rows


def predictors(results) -> list[dict]:
    """All predictors, best first."""
    heads = ("Model", "Input", "NRMSE", "95 % interval", "Above the best", "Standing")
    return [{head.lower(): row[head] for head in heads} for row in score_rows(results)]


def verdicts(results, pose_of_trial) -> list[dict]:
    """What the paper concludes, and what it did not ask, with this study's figures."""
    return [
        {"claim": each.claim, "here": each.figures, "paper": each.paper, "verdict": each.verdict}
        for each in conclusions(results, pose_of_trial)
    ]


def about(results, trials) -> str:
    """One line about the study that the tables are from."""
    test = (results["test_trial"].values >= 0).sum(axis=1)
    words = [
        f"Study `{results.attrs.get('study', 'unknown')}`",
        f"protocol `{results.attrs.get('protocol', 'unknown')}`",
    ]
    words += [f"{trials.sizes['trial']} trials"] if trials is not None else []
    words += [f"{results.sizes['muscle']} muscles", f"{results.sizes['repeat']} repeats with {test.max()} test trials"]
    return ", ".join(words) + f"; seed {results.attrs.get('seed', 'unknown')}, motorsweep {__version__}."


def tables(folder) -> str:
    """All tables of the page."""
    results = completed(open_results(folder).load())
    try:
        trials = open_trials(folder)
    except StoreError:
        trials = None
    poses = None if trials is None else trials["pose_index"].values
    parts = {
        "Table 1. NRMSE on the test trials, mean ± sd over the repeats": table_1(results),
        "Table 2. Criteria, mean over the repeats": table_2(results),
        "All predictors, best first": predictors(results),
        "Conclusions": verdicts(results, poses),
    }
    texts = [f"### {title}\n\n{markdown(rows)}" for title, rows in parts.items() if rows]
    return "\n\n".join([about(results, trials), *texts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="folder of a study that has results.zarr")
    print(tables(parser.parse_args().study))


if __name__ == "__main__":
    main()
