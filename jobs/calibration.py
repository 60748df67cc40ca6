"""Whether predictors that tell their uncertainty tell it right: coverage of their intervals, error by predicted sd."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..hpc.predictor_names import ANY_INPUT, BASELINE_NAMES, INPUT_NAMES
from .drawing import BLUE, LINE, QUIET, VERMILLION, dress, legend_of, new_figure, picture_of
from .evidence import Evidence

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_BINS, _FEWEST = 8, 20  # bins, and responses that a bin needs for its error to mean something
_STYLES = {
    "response_model": {"marker": "s", "linestyle": "solid"},
    "gp_position": {"marker": "o", "linestyle": (0, (4, 2))},
}
_COLOURS = {"e_norm": BLUE, "firing_rate": VERMILLION}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How the predictive standard deviation of one predictor fares on all test responses of all repeats.

    Attributes
    ----------
    name, input : str
        Baseline and input.
    count : int
        Test responses, of all trials, muscles and repeats.
    coverage : ndarray (len(LEVELS),)
        Share of them within the central normal interval of each of `LEVELS`.
    sd, error : ndarray (bins,)
        Responses in bins of their predicted sd: its root mean square, and that of the errors.
    """

    name: str
    input: str
    count: int
    coverage: np.ndarray
    sd: np.ndarray
    error: np.ndarray

    @property
    def label(self) -> str:
        """What figures call it."""
        label = BASELINE_NAMES.get(self.name, self.name)
        return label if self.name in ANY_INPUT else f"{label}, {INPUT_NAMES.get(self.input, self.input)}"


def calibrations(results) -> list[Calibration]:
    """Compute the calibration of every predictor that has a standard deviation.

    Parameters
    ----------
    results : xarray.Dataset
        With ``measured``, ``baseline_prediction`` and ``baseline_sd``; a response whose sd is not above 0, such as
        that of a muscle that never responds, is left out.

    Examples
    --------
    >>> [each.label for each in calibrations(open_results("studies/quick"))]        # doctest: +SKIP
    ['Response model (ours), raw |E|', 'Response model (ours), firing rate', 'GP on coil position']
    """
    found, measured = [], results["measured"].values
    for name in map(str, results["baseline"].values):
        for kind in map(str, results["input"].values):
            cell = results[["baseline_prediction", "baseline_sd"]].sel(input=kind, baseline=name)
            sd, error = cell["baseline_sd"].values, measured - cell["baseline_prediction"].values
            there = np.isfinite(sd) & np.isfinite(error) & (np.nan_to_num(sd) > 0)
            if there.any() and not (name in ANY_INPUT and any(each.name == name for each in found)):
                found.append(_calibration(name, kind, sd[there], error[there]))
    order = {name: place for place, name in enumerate(_STYLES)}
    return sorted(found, key=lambda each: order.get(each.name, len(order)))


def _calibration(name, kind, sd, error):
    widths = np.array([NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS])
    parts = np.array_split(np.argsort(sd, kind="stable"), max(1, min(_BINS, len(sd) // _FEWEST)))
    root = lambda values: np.array([np.sqrt(np.mean(values[part] ** 2)) for part in parts])  # noqa: E731 - one line
    coverage = (np.abs(error / sd)[:, None] <= widths).mean(axis=0)
    return Calibration(name=name, input=kind, count=sd.size, coverage=coverage, sd=root(sd), error=root(error))


def calibration_words(evidence: Evidence) -> str:
    """Say what share of test responses lies within the 90 % intervals; empty where nothing tells its uncertainty."""
    found = calibrations(evidence.results)
    if not found:
        return ""
    at = LEVELS.index(0.9)
    shares = "; ".join(f"{100 * each.coverage[at]:.0f} % ({each.label})" for each in found)
    return (
        f"Share of {found[0].count:,} test responses within the 90 % interval of their prediction (mean ± 1.64 sd): "
        f"{shares}. 90 % would be right; less means too sure. Responses are skewed and never below 0, so a normal "
        "interval fits them roughly at best."
    )


def calibration_pictures(evidence: Evidence):
    """Draw coverage against the level of the interval, and error against predicted sd; none without any sd."""
    found = calibrations(evidence.results)
    return [_coverage_picture(found), _error_picture(found)] if found else []


def _style(each):
    colour = QUIET if each.name in ANY_INPUT else _COLOURS.get(each.input, QUIET)
    return {"color": colour, "linewidth": 1.2, "markersize": 4, **_STYLES.get(each.name, {"marker": "^"})}


def _coverage_picture(found):
    figure = new_figure(3.6)
    axes = dress(figure.add_subplot(), "", "level of the interval", "share of test responses within it", grid="both")
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, label="ideal")
    for each in found:
        axes.plot(LEVELS, each.coverage, label=each.label, **_style(each))
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    legend_of(figure, axes.get_legend_handles_labels()[0], 2)
    at = LEVELS.index(0.9)
    alt = "Coverage of prediction intervals; within the 90 % interval: " + "; ".join(
        f"{each.label} {100 * each.coverage[at]:.0f} %" for each in found
    )
    return picture_of(figure, "calibration_coverage", alt, "Coverage")


def _error_picture(found):
    figure = new_figure(3.6)
    axes = dress(figure.add_subplot(), "", "predicted sd (training range = 1)", "root mean square error", grid="both")
    top = 1.05 * max(max(each.sd.max(), each.error.max()) for each in found)
    axes.plot([0, top], [0, top], color=LINE, linewidth=1.5, label="ideal")
    for each in found:
        axes.plot(each.sd, each.error, label=each.label, **_style(each))
    axes.set(xlim=(0, top), ylim=(0, top))
    legend_of(figure, axes.get_legend_handles_labels()[0], 2)
    alt = "Error against predicted standard deviation, in bins from the surest to the least sure: " + "; ".join(
        f"{each.label} {each.error[0]:.3f} where it says {each.sd[0]:.3f}, {each.error[-1]:.3f} where it says "
        f"{each.sd[-1]:.3f}" for each in found
    )  # fmt: skip
    return picture_of(figure, "calibration_error", alt, "Error by predicted sd")
