"""How well each muscle is predicted: by the best network, by our response model, by what needs no model."""

import numpy as np

from ..hpc.predictor_names import CEILING, FLOOR, INPUT_NAMES, LIMITS
from ..zarr_store.schema import Status
from .drawing import GREEN, INK, PURPLE, QUIET, dress, legend_of, new_figure, picture_of
from .evidence import Evidence
from .ranking import Predictor, scores_over
from .typesetting import BEST_CELL, number_text, table_of

NETWORK, OWN, OTHER = "Best network", "Response model (ours)", "Best other"
_STYLES = {
    NETWORK: {"marker": "o", "color": GREEN, "zorder": 4},
    OWN: {"marker": "s", "color": PURPLE, "zorder": 3},
    OTHER: {"marker": "x", "color": QUIET, "zorder": 2},
    "Training mean": {"marker": "|", "color": QUIET, "zorder": 2},
    "Best possible": {"marker": "D", "color": QUIET, "markerfacecolor": "none", "markeredgecolor": INK, "zorder": 2},
}


def muscle_series(evidence: Evidence) -> list[tuple[str, Predictor, np.ndarray]]:
    """Choose the predictors whose scores by muscle are shown: (role, predictor, NRMSE (muscles,) mean over repeats).

    The best network, our response model, the best of the other predictors without a network, training mean and best
    possible; each as far as it is there. NaN for a muscle that does not respond in any test set.
    """
    known = [each for each in evidence.ranking if each.known.size]
    others = [each for each in known if not each.is_network and each.key[1] not in (*LIMITS, "response_model")]
    roles = {
        NETWORK: [each for each in known if each.is_network],
        OWN: [each for each in known if each.key[1] == "response_model"],
        OTHER: others,
        "Training mean": [each for each in known if each.key[1] == CEILING],
        "Best possible": [each for each in known if each.key[1] == FLOOR],
    }
    series = [(role, found[0], _by_muscle(evidence.results, found[0])) for role, found in roles.items() if found]
    return [each for each in series if np.isfinite(each[2]).any()]


def _by_muscle(results, each):
    if each.is_network:
        cell = results[["nrmse_muscle", "status"]].sel(dict(zip(("input", "depth", "connection"), each.key)))
        values = cell["nrmse_muscle"].where(cell["status"] == int(Status.DONE))
    else:
        values = results["baseline_nrmse_muscle"].sel(input=each.key[0], baseline=each.key[1])
    return scores_over(values)


def muscle_table(evidence: Evidence):
    """NRMSE of each muscle, mean over the repeats; None where no predictor has them."""
    series = muscle_series(evidence)
    if not series:
        return None
    headings = [_short_heading(role, each) for role, each, _ in series]
    spanners = [(role, [text]) for text, (role, *_) in zip(headings, series) if text != role]
    rows, marks = [], []
    for number, muscle in enumerate(map(str, evidence.results["muscle"].values)):
        values = [scores[number] for *_, scores in series]
        rows.append({"Muscle": muscle} | dict(zip(headings, map(number_text, values))))
        ranked = [value if role != "Best possible" and np.isfinite(value) else np.inf for value, (role, *_) in
                  zip(values, series)]  # fmt: skip
        if np.isfinite(ranked).any():
            marks.append((number, headings[int(np.argmin(ranked))], BEST_CELL))
    return table_of(rows, name="muscles", stub="Muscle", spanners=spanners, marks=marks)


def silent_muscles(evidence: Evidence) -> list[str]:
    """Name the muscles that respond in no test trial, so that their NRMSE is not defined."""
    measured = evidence.results["measured"].values
    if not np.isfinite(measured).any():
        return []
    silent = ~(np.nan_to_num(np.abs(measured)).max(axis=(0, 1)) > 0)
    return [str(name) for name, none in zip(evidence.results["muscle"].values, silent) if none]


def _short_heading(role, each):
    kind = INPUT_NAMES.get(each.input, each.input)
    if role not in (NETWORK, OTHER):
        return role if each.input_name == "–" else f"on {kind}"
    return each.label if each.input_name == "–" else f"{each.label}, {kind}"


def _heading(role, each):
    text = f"{role}: {each.label}" if role in (NETWORK, OTHER) else role
    return text if each.input_name == "–" else f"{text}, {INPUT_NAMES.get(each.input, each.input)}"


def muscle_picture(evidence: Evidence):
    """Draw the NRMSE of every muscle, mean over the repeats, for the predictors of the table; None without any."""
    series = muscle_series(evidence)
    if not series:
        return None
    muscles = [str(muscle) for muscle in evidence.results["muscle"].values]
    order = np.argsort(np.nan_to_num(series[0][2], nan=np.inf))
    figure = new_figure(0.7 + 0.21 * max(len(muscles), 3) + 0.19 * len(series))
    axes = dress(figure.add_subplot(), "", "NRMSE, mean over repeats", grid="y")
    rows = np.arange(len(muscles))
    for role, each, scores in series:
        label = _heading(role, each)
        axes.plot(scores[order], rows, linestyle="none", markersize=5.5, label=label, **_STYLES[role])
    axes.set_yticks(rows, [muscles[i] for i in order])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(muscles) - 0.4, -0.6)
    axes.set_xlim(left=0)
    legend_of(figure, axes.get_legend_handles_labels()[0], 1)
    words = ", ".join(_heading(role, each) for role, each, _ in series)
    return picture_of(figure, "muscles", f"NRMSE of each of {len(muscles)} muscles for {words}")
