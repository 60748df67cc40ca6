"""The table of all scores, for the page and for a terminal; and that of the paper's conclusions."""

import numpy as np

from ..hpc.predictor_names import CEILING, FLOOR, LIMITS
from .evidence import Evidence
from .paper_tables import paper_nrmse
from .ranking import Predictor, completed, mean_sd, range_text, ranking
from .training_tables import parameters_text
from .typesetting import ALERT_CELL, BEST_CELL, CLOSE_CELL, QUIET_CELL, number_text, table_of

_SIGNED = "+.3f"
_STANDING_CELLS = {"best": BEST_CELL, "within chance": CLOSE_CELL, "failed": ALERT_CELL, "pending": QUIET_CELL}
_LIMIT_WORDS = {FLOOR: "floor", CEILING: "ceiling"}


# ---- scores ---------------------------------------------------------------------------------------------------------


def score_rows(results) -> list[dict]:
    """Write all predictors as rows of text, best first.

    Parameters
    ----------
    results : xarray.Dataset
        As `completed` gives it.

    Returns
    -------
    list of dict of str to str
        Model, Input, NRMSE (mean ± sd over the repeats), its 95 % interval, the difference to the best with its
        simultaneous interval, Standing (best, within chance, worse, floor; else pending or failed), Parameters, and the
        paper's NRMSE.

    Examples
    --------
    >>> score_rows(completed(open_results("studies/quick")))[1]["NRMSE"]        # doctest: +SKIP
    '0.301'
    """
    return [_score_row(each) for each in ranking(results)]


def _score_row(each: Predictor) -> dict:
    best = each.standing == "best"
    above = "–" if best or not np.isfinite(each.above) else number_text(each.above, _SIGNED)
    around = range_text(each.above_interval, _SIGNED)
    limit = f" ({_LIMIT_WORDS[each.key[1]]})" if each.key[1] in LIMITS else ""
    return {
        "Model": each.label + limit,
        "Input": each.input_name,
        "NRMSE": _score_text(each),
        "95 % interval": range_text(each.interval),
        "Above the best": above if above == "–" or around == "–" else f"{above} ({around})",
        "Standing": each.standing if each.known.size else each.state,
        "Parameters": parameters_text(each.parameters) if each.is_network else "–",
        "Paper": paper_nrmse(*each.key) if each.is_network else "–",
    }


def _score_text(each):
    if not each.known.size:
        return each.state
    text = mean_sd(each.known)
    return text if each.known.size == each.scores.size else f"{text} ({each.known.size}/{each.scores.size})"


def score_table(evidence: Evidence):
    """Typeset `score_rows`, the best and what is within chance of it marked.

    Examples
    --------
    >>> score_table(evidence)        # doctest: +SKIP
    Markup('<div id="scores" ...')
    """
    rows = score_rows(evidence.results)
    marks = [
        (number, column, _STANDING_CELLS[row["Standing"]])
        for number, row in enumerate(rows)
        for column in ("NRMSE", "Standing")
        if row["Standing"] in _STANDING_CELLS
    ]
    return table_of(rows, name="scores", stub="Model", short=["Input", "Standing"], quiet=["Paper"], marks=marks)


def score_lines(results) -> list[str]:
    """All scores as plain text for a terminal, best first, at most 80 columns wide.

    Parameters
    ----------
    results : xarray.Dataset
        Of `open_results` or `collect`; only its scores and states are read.

    Returns
    -------
    list of str
        A header; a line for each predictor: test NRMSE, mean ± sd where several repeats are done, with how many
        (``2/3``) where some are not, the 95 % interval, and how far it is above the best, ``~`` where that is within
        chance; and what that means.

    Examples
    --------
    >>> score_lines(open_results("studies/quick"))[1]        # doctest: +SKIP
    '3-layer Both           firing rate  0.500 ± 0.041  0.461 to 0.540  best'
    """
    rows = [["Test NRMSE", "Input", "Mean ± sd", "95 %", "Above"]]
    found = ranking(completed(results))
    for each in found:
        mark = {"best": "best", "within chance": f"{number_text(each.above, _SIGNED)} ~"}.get(each.standing)
        above = mark or (number_text(each.above, _SIGNED) if np.isfinite(each.above) else "")
        interval = range_text(each.interval).replace(" to ", "–")
        rows.append([each.label, each.input_name, _score_text(each), interval if interval != "–" else "", above])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if any(each.standing == "within chance" for each in found):
        lines.append("~ within chance of the best (95 % intervals, all models at once)")
    return lines


# ---- the paper's conclusions ----------------------------------------------------------------------------------------


def conclusions_table(evidence: Evidence):
    """Each conclusion, this study's figures, the paper's, and the verdict; None where there is nothing to judge."""
    groups = {True: "What the paper concludes", False: "What the paper did not ask"}
    rows = [
        {"_group": groups[each.of_paper], "Claim": each.claim, "Here": each.figures, "Paper": each.paper,
         "Verdict": each.verdict}
        for each in evidence.conclusions
    ]  # fmt: skip
    marks = [(number, "Verdict", BEST_CELL) for number, row in enumerate(rows) if row["Verdict"] == "holds"]
    if not rows:
        return None
    short = ["Paper", "Verdict"]
    return table_of(rows, name="conclusions", stub="Claim", words=["Here"], short=short, quiet=["Paper"], marks=marks)
