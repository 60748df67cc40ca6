"""Every predictor of a study in one order: its scores, how sure they are, and how far it is from the best."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..hpc.predictor_names import (
    ANY_INPUT,
    BASELINE_NAMES,
    CONNECTION_NAMES,
    FLOOR,
    INPUT_NAMES,
)
from ..zarr_store.result_variables import LABELS, RESULT_VARIABLES
from ..zarr_store.schema import BASELINES, BOUNDS, Status, label_array

_IN_WORDS = {
    "mean": "the training mean",
    "ridge": "ridge on the codes",
    "pls": "PLS on the codes",
    "ridge_voxels": "ridge on the voxels",
    "gp_position": "the Gaussian process on coil position",
    "response_model": "our response model",
    "best_possible": "the best possible prediction",
}


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network or a predictor without one, with its test scores.

    Attributes
    ----------
    key : tuple
        (input, depth, connection) of a network, (input, baseline) of another.
    scores : ndarray (repeats,)
        Test NRMSE; NaN in a repeat that is not done.
    interval : ndarray (2,)
        95 % interval of the mean over the repeats; NaN where it is not known.
    above : float
        Mean NRMSE minus that of the best predictor, which has 0; NaN where they were not compared.
    above_interval : ndarray (2,)
        95 % interval of `above`, all predictors at once.
    parameters : tuple of int
        Fewest and most trainable parameters over the repeats; (0, 0) where they are not known, or are none.
    state : str
        "done", "pending" or "failed": what a cell without any score says.
    """

    key: tuple
    scores: np.ndarray
    interval: np.ndarray
    above: float
    above_interval: np.ndarray
    parameters: tuple[int, int] = (0, 0)
    state: str = "done"

    @property
    def is_network(self) -> bool:
        """Whether it is one of the paper's networks."""
        return len(self.key) == 3

    @property
    def input(self) -> str:
        """What it is fed with; of a predictor that ignores it, that of the first study input."""
        return self.key[0]

    @property
    def known(self) -> np.ndarray:
        """Scores of the repeats that are done."""
        return self.scores[np.isfinite(self.scores)]

    @property
    def mean(self) -> float:
        """Mean NRMSE of the repeats that are done; NaN without any."""
        return float(self.known.mean()) if self.known.size else float("nan")

    @property
    def label(self) -> str:
        """What tables and axes call it, without its input."""
        if self.is_network:
            return f"{self.key[1]}-layer {CONNECTION_NAMES.get(self.key[2], self.key[2])}"
        return BASELINE_NAMES.get(self.key[1], self.key[1])

    @property
    def input_name(self) -> str:
        """What tables call its input; "–" where it has none of these."""
        return "–" if self.key[1] in ANY_INPUT else INPUT_NAMES.get(self.input, self.input)

    @property
    def name(self) -> str:
        """What sentences call it."""
        kind = INPUT_NAMES.get(self.input, self.input)
        if self.is_network:
            return f"the {self.label} mapper on {kind}"
        word = _IN_WORDS.get(self.key[1], self.key[1])
        return word if self.key[1] in ANY_INPUT else f"{word} ({kind})"

    @property
    def standing(self) -> str:
        """Say where it stands: "best", "within chance" of the best, "worse"; "floor" or "–" where not compared."""
        if self.key[1] == FLOOR:
            return "floor"
        if not np.isfinite(self.above):
            return "–"
        if self.above <= 0:
            return "best"
        return "within chance" if self.above_interval[0] <= 0 else "worse"


def ranking(results) -> list[Predictor]:
    """Put all predictors in order: the best possible, then by mean NRMSE, then what lacks repeats, then the rest.

    A mean over fewer repeats is one over other test trials, and no place among the others can be read from it.

    Parameters
    ----------
    results : xarray.Dataset
        As `completed` gives it.

    Returns
    -------
    list of Predictor
        Predictors without a network only where they have a score.

    Examples
    --------
    >>> [each.label for each in ranking(open_results("studies/quick"))][:2]        # doctest: +SKIP
    ['Best possible', '3-layer Both']
    """
    networks = _networks(results)
    others = [each for each in _others(results) if each.known.size]
    scored = [each for each in [*networks, *others] if each.known.size]
    most = max((each.known.size for each in scored), default=0)
    scored.sort(key=lambda each: (each.key[1] != FLOOR, each.known.size < most, each.mean))
    return scored + [each for each in networks if not each.known.size]


def _networks(results):
    done = (results["status"] == int(Status.DONE)).transpose("input", "depth", "connection", "repeat").values
    at = [(i, d, c) for i in range(done.shape[0]) for d in range(done.shape[1]) for c in range(done.shape[2])]
    found = []
    for i, d, c in at:
        cell = results.isel(input=i, depth=d, connection=c)
        key = (str(cell["input"].item()), int(cell["depth"].item()), str(cell["connection"].item()))
        failed = (cell["status"].values == int(Status.FAILED)).any()
        scores = np.where(done[i, d, c], cell["nrmse"].values, np.nan)
        state = "done" if np.isfinite(scores).any() else "failed" if failed else "pending"
        found.append(
            Predictor(key=key, scores=scores, parameters=_parameters(cell), state=state, **_sureness(cell, ""))
        )
    return found


def _others(results):
    for name in map(str, results["baseline"].values):
        found = [_other(results, kind, name) for kind in map(str, results["input"].values)]
        # The same predictions whatever the networks see: once, with the input of which most repeats are done.
        yield from [max(found, key=lambda each: each.known.size)] if name in ANY_INPUT else found


def _other(results, kind, name):
    cell = results[[each for each in results.data_vars if each.startswith("baseline_")]].sel(input=kind, baseline=name)
    return Predictor(key=(kind, name), scores=cell["baseline_nrmse"].values, **_sureness(cell, "baseline_"))


def _sureness(cell, prefix):
    above = "nrmse_above_best" if not prefix else "baseline_above_best"
    return {
        "interval": cell[f"{prefix}nrmse_interval"].values,
        "above": float(cell[above]),
        "above_interval": cell[f"{above}_interval"].values,
    }


def _parameters(cell):
    known = np.atleast_1d(cell["n_parameters"].values)
    known = known[known > 0]
    return (int(known.min()), int(known.max())) if known.size else (0, 0)


def completed(results) -> xr.Dataset:
    """Add what results of an older version, or of a study that is not done, do not hold: missing, not wrong.

    Examples
    --------
    >>> "nrmse_interval" in completed(open_results("studies/quick"))        # doctest: +SKIP
    True
    """
    lacking = [name for name in BASELINES if name not in results["baseline"].values]
    if lacking:  # a new label moves nothing that is there
        order = [*BASELINES, *(str(n) for n in results["baseline"].values if n not in BASELINES)]
        results = results.reindex(baseline=label_array(order))
    sizes = {**results.sizes, "bound": len(BOUNDS)}
    sizes |= {dim: 0 for dim in ("rank", "synergy") if dim not in sizes}
    new = {dim: np.arange(1, sizes[dim] + 1) for dim in ("rank",) if dim not in results.coords}
    new |= {"bound": label_array(BOUNDS)} if "bound" not in results.coords else {}
    results = results.assign_coords({dim: (dim, values, {"long_name": LABELS[dim]}) for dim, values in new.items()})
    return results.assign(
        {name: variable.empty(sizes) for name, variable in RESULT_VARIABLES.items() if name not in results}
    )


def mean_sd(scores, digits=3) -> str:
    """Mean ± sample standard deviation over the repeats; with one repeat, no sd.

    Examples
    --------
    >>> mean_sd(np.array([0.5, 0.52])), mean_sd(np.array([0.5])), mean_sd(np.array([]))
    ('0.510 ± 0.014', '0.500', '–')
    """
    scores = np.asarray(scores, float)
    if not scores.size:
        return "–"
    text = f"{scores.mean():.{digits}f}"
    return f"{text} ± {scores.std(ddof=1):.{digits}f}" if len(scores) > 1 else text


def range_text(bounds, form=".3f") -> str:
    """Write an interval as "low to high"; "–" where it is not known.

    Examples
    --------
    >>> range_text([0.1, 0.25]), range_text([-0.1, 0.25], "+.3f"), range_text([np.nan, 1.0])
    ('0.100 to 0.250', '−0.100 to +0.250', '–')
    """
    low, high = (float(each) for each in bounds)
    return f"{low:{form}} to {high:{form}}".replace("-", "−") if np.isfinite([low, high]).all() else "–"


def scores_over(scores) -> np.ndarray:
    """Mean over the repeats of a score; NaN, without a warning, where no repeat has it.

    Examples
    --------
    >>> scores_over(xr.DataArray([[0.5, np.nan], [0.7, np.nan]], dims=("repeat", "trials"))).tolist()
    [0.6, nan]
    """
    counts = scores.count("repeat")
    return (scores.sum("repeat") / counts.where(counts > 0)).values
