"""Which of the paper's conclusions a study's own test trials bear out, and whether its networks were needed at all."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..hpc.predictor_names import CONNECTION_NAMES, INPUT_NAMES
from ..zarr_store.schema import Status
from .contrasts import against, contrast, scores_of
from .paper_tables import PAPER_BEST, PAPER_NRMSE
from .ranking import range_text, ranking

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told from chance"
EMPTY = "says nothing here"
_RAW, _RATE = "e_norm", "firing_rate"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """A claim, what this study's figures say of it, and the verdict.

    Attributes
    ----------
    claim : str
    figures : str
        A sentence with this study's figures.
    paper : str
        The paper's figure for the same; "–" where it has none.
    verdict : str
        `HOLDS`, `FAILS` or `OPEN`; `EMPTY` where what decides has no meaning.
    of_paper : bool
        Whether the paper draws it; the others are what it did not ask.
    """

    claim: str
    figures: str
    paper: str
    verdict: str
    of_paper: bool = True


def conclusions(results, pose_of_trial=None) -> list[Conclusion]:
    """Judge what the paper concludes by this study's scores; what the study did not try is left out.

    Parameters
    ----------
    results : xarray.Dataset
        As `completed` gives it.
    pose_of_trial : ndarray (t,) of int, optional
        Pose of each trial; trials of one pose are resampled together.

    Returns
    -------
    list of Conclusion
        A difference holds, or does not, where its 95 % interval leaves out 0. Those of the paper come first.

    Examples
    --------
    >>> [each.verdict for each in conclusions(results)]        # doctest: +SKIP
    ['holds', 'cannot be told from chance', ...]
    """
    found = [_compared(results, pose_of_trial, *claim) for claim in _claims(results)]
    found += [_recommended(results, pose_of_trial), _criteria(results)]
    found += [_needed(results, pose_of_trial, name, word) for name, word in _RIVALS.items()]
    return [each for each in found if each is not None]


def _claims(results):
    """Claim, names of the two sides, and their models in pairs: the second side is said to be better."""
    depths = [int(depth) for depth in results["depth"].values]
    connections = [str(each) for each in results["connection"].values]
    cells = [(depth, each) for depth in depths for each in connections]
    name = CONNECTION_NAMES
    yield (
        "Firing rate beats raw |E|", "raw |E|", "firing rate",
        [(_RAW, *cell) for cell in cells], [(_RATE, *cell) for cell in cells],
    )  # fmt: skip
    for worse, better in (("direct", "synergy"), ("synergy", "both")):
        if {worse, better} <= set(connections):
            sides = [[(_RATE, depth, each) for depth in depths] for each in (worse, better)]
            claim = f"With firing rate, {name[better]} beats {name[worse]}"
            yield claim, name[worse], name[better], *sides
    for kind, worse, better in ((_RATE, 6, 3), (_RAW, 3, 6)):
        if {worse, better} <= set(depths):
            sides = [[(kind, depth, each) for each in connections] for depth in (worse, better)]
            claim = f"With {INPUT_NAMES[kind]}, {better} layers beat {worse}"
            yield claim, f"{worse} layers", f"{better} layers", *sides


def _compared(results, pose_of_trial, claim, worse, better, first, second):
    kinds = {str(kind) for kind in results["input"].values}
    if not {key[0] for key in (*first, *second)} <= kinds:
        return None
    found = contrast(results, first, second, pose_of_trial)
    if found is None:
        return None
    repeats = len(found.by_repeat)
    text = f"NRMSE {found.first:.3f} with {worse}, {found.second:.3f} with {better}: difference "
    text += f"{_signed(found.difference)}, {_interval(found.interval)}; "
    text += f"above 0 in {int((found.by_repeat > 0).sum())} of {repeats} repeats." if repeats > 1 else "one repeat."
    verdict = {1: HOLDS, 0: OPEN, -1: FAILS}[found.sure]
    return Conclusion(claim=claim, figures=text, paper=_paper_difference(first, second), verdict=verdict)


def _signed(value):
    return f"{value:+.3f}".replace("-", "−")


def _interval(bounds):
    text = range_text(bounds, "+.3f")
    return "no interval (no predictions to resample)" if text == "–" else f"95 % interval {text}"


def _paper_difference(first, second):
    values = [[PAPER_NRMSE.get(key[0], {}).get(key[1:]) for key in side] for side in (first, second)]
    if None in values[0] + values[1]:
        return "–"
    return _signed(float(np.mean([a[0] - b[0] for a, b in zip(*values)])))


def _recommended(results, pose_of_trial):
    """The model that the paper recommends against the other networks, all at once."""
    networks = [each for each in ranking(results) if each.is_network and each.known.size]
    ours = next((each for each in networks if each.key == PAPER_BEST), None)
    if ours is None or len(networks) < 2:
        return None
    others = against(results, PAPER_BEST, [each.key for each in networks], pose_of_trial)
    place = 1 + networks.index(ours)
    text = f"It is number {place} of {len(networks)} networks by mean NRMSE ({ours.mean:.3f}; the best has "
    text += f"{networks[0].mean:.3f}). "
    better = sum(row[2] < 0 for row in others.values())
    worse = sum(row[1] > 0 for row in others.values())
    if others:
        text += f"By 95 % intervals, all at once, {worse} of the other {len(others)} are worse, {better} better, "
        text += f"{len(others) - worse - better} within chance of it."
    else:
        text += "No intervals (no predictions to resample)."
    verdict = FAILS if better else HOLDS if others and worse == len(others) else OPEN
    return Conclusion(
        claim="3-layer Both on firing rate is the best network", figures=text, paper="best of 12", verdict=verdict
    )


def _criteria(results):
    """Which depth BIC and AICc choose among the firing-rate mappers, repeat by repeat."""
    if _RATE not in results["input"].values or not {3, 6} <= {int(depth) for depth in results["depth"].values}:
        return None
    cells = results[["bic", "aicc", "status", "criteria_valid"]].sel(input=_RATE)
    cells = cells.transpose("repeat", "depth", "connection")
    complete = np.flatnonzero((cells["status"].values == int(Status.DONE)).all(axis=(1, 2)))
    parts, shares = [], []
    for name, label in (("bic", "BIC"), ("aicc", "AICc")):
        values = cells[name].values[complete]
        chosen = [_lowest(cells, row) for row in values if np.isfinite(row).all()]
        if not chosen:
            return None
        counts = Counter(f"{depth}-layer {connection}" for depth, connection in chosen)
        parts.append(f"{label} chooses {' and '.join(_counted(*each, len(chosen)) for each in counts.items())}")
        shares.append(np.mean([depth == 3 for depth, _ in chosen]))
    text = f"{'; '.join(parts)}."
    if not cells["criteria_valid"].values[complete].all():
        text += " AICc is outside its domain, where its choice means nothing, and BIC ranks by size."
        verdict = EMPTY
    else:
        verdict = HOLDS if min(shares) == 1 else FAILS if min(shares) == 0 else OPEN
    return Conclusion(
        claim="With firing rate, BIC and AICc choose 3 layers", figures=text, paper="both 3-layer Synergy",
        verdict=verdict,
    )  # fmt: skip


def _counted(name, count, of):
    return f"{name} in {count} of {of} repeats" if of > 1 else name


def _lowest(cells, values):
    depth, connection = np.unravel_index(int(np.argmin(values)), values.shape)
    name = str(cells["connection"].values[connection])
    return int(cells["depth"].values[depth]), CONNECTION_NAMES.get(name, name)


_RIVALS = {"ridge": "ridge on the codes", "response_model": "our response model"}


def _needed(results, pose_of_trial, name, word):
    """Whether any network beats a predictor without one, on whichever input suits that one best."""
    rivals = [each for each in ranking(results) if each.key[1] == name]
    networks = [each for each in ranking(results) if each.is_network and each.known.size]
    if not rivals or not networks:
        return None
    rival = rivals[0]
    rows = against(results, rival.key, [each.key for each in networks], pose_of_trial)
    best = min(networks, key=lambda each: rows[each.key][0] if each.key in rows else np.inf) if rows else networks[0]
    scores = np.array([scores_of(results, rival.key), scores_of(results, best.key)])
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    if not scores.size:
        return None
    theirs, network = scores.mean(axis=1)
    text = f"The best network ({best.name}, {network:.3f}) against {rival.name}, {theirs:.3f}: difference "
    text += _signed(theirs - network)
    if rows:
        bounds = -rows[best.key][[2, 1]]
        beaten = sum(row[2] < 0 for row in rows.values())
        text += f", 95 % interval, all networks at once, {range_text(bounds, '+.3f')}; {beaten} of {len(rows)} networks"
        text += " are better beyond chance."
        verdict = HOLDS if beaten else FAILS if bounds[1] < 0 else OPEN
    else:
        text, verdict = text + "; no interval (no predictions to resample).", OPEN
    return Conclusion(claim=f"A network beats {word}", figures=text, paper="–", verdict=verdict, of_paper=False)
