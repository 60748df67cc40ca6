"""Whether a model beats the mean matrix on people it has not seen, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import InputError
from .matrix_scores import skill
from .resampling import intervals

_RESAMPLES = 10_000
_FEWEST_UNITS = 5
"""With 4 and 4 wins an exact sign test gives 1/16: no result of so few is below 0.05."""
_LEAST_SKILL = 0.01
"""Less of the error is of no use to anybody; a shrunken control can take a millionth of it in every unit."""


@dataclass(frozen=True, kw_only=True)
class MeanComparison:
    """A model against the mean matrix, over u units that it was not trained on.

    Parameters
    ----------
    units : tuple of str
        Subjects, or folds.
    skill : array (u,)
        Of each unit: share of the mean matrix's squared error that the model takes away.
    mean_skill : float
    interval : tuple of float
        Of the mean skill over units, at `confidence`; NaN for one unit.
    wins : int
        Units in which the model's error is the smaller one.
    p : float
        Of an exact sign test, one-sided: so many wins or more if either were as likely to win. Ties are left
        out.
    verdict : str
        "beats", "loses", "unclear" or "too few".
    words : str
        One or two sentences for a report.
    """

    units: tuple[str, ...]
    skill: np.ndarray
    mean_skill: float
    interval: tuple[float, float]
    confidence: float
    wins: int
    p: float
    verdict: str
    words: str


def unit_skills(
    measured: np.ndarray, predicted: np.ndarray, baseline: np.ndarray, units: Sequence[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Skill of each unit: its name, and the skill over its records, diagonals left out.

    Parameters
    ----------
    measured, predicted, baseline : arrays (n, m, m)
        Test records of all folds one after another: the baseline is the mean matrix of the fold's training records.
    units : sequence of str, length n
        Subject (or fold) of each record.

    Raises
    ------
    InputError
        As `matrix_scores.skill`, or units of another number than records.

    Examples
    --------
    >>> measured = np.array([[[0.0, 2.0], [2.0, 0.0]]] * 2)
    >>> unit_skills(measured, measured - [[[1]], [[2]]], 0 * measured, ["a", "b"])
    (('a', 'b'), array([0.75, 0.  ]))
    """
    units = np.asarray(units, dtype=str)
    if units.shape != np.shape(measured)[:1]:
        raise InputError(
            f"comparing with the mean matrix: {np.shape(measured)[:1]} records and {units.shape} subjects; each record "
            "needs its subject."
        )
    baseline = np.broadcast_to(baseline, np.shape(measured))
    parts = [np.asarray(part, np.float64) for part in (measured, predicted, baseline)]
    names = np.unique(units)
    return tuple(names.tolist()), np.array([skill(*(part[units == name] for part in parts)) for name in names])


def beats_mean(
    measured: np.ndarray,
    predicted: np.ndarray,
    baseline: np.ndarray,
    units: Sequence[str],
    *,
    model: str = "the network",
    unit: str = "unseen subject",
    confidence: float = 0.95,
    seed: int = 0,
) -> MeanComparison:
    """Compare a model with the mean matrix, paired over subjects (or folds) that it was not trained on.

    The subject is the unit, as records of one are not independent: its skill is one number, and subjects are resampled
    (bootstrap of the mean, 10 000 resamples, percentiles widened for few units after Hesterberg 2015). Training sets of
    the folds overlap, which no resampling of this kind sees: intervals are a little too narrow.

    Parameters
    ----------
    measured, predicted, baseline, units
        As in `unit_skills`.
    model, unit : str
        What the words call them.
    confidence : float
        Of the interval.
    seed : int
        Settles the resamples.

    Returns
    -------
    MeanComparison
        The verdict is "beats" or "loses" where the interval lies above or below 0 and the mean skill is a hundredth at
        least, else "unclear"; "too few" below 5 units, where no sign test can be below 0.05.

    Raises
    ------
    InputError
        As `unit_skills`, a confidence outside 0 to 1, or a unit in which the mean matrix makes no error.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> measured = generator.random((40, 3, 3))
    >>> found = beats_mean(measured, 0.9 * measured, np.full((3, 3), 0.5), np.repeat(list("abcdefgh"), 5))
    >>> found.verdict, found.wins, found.p
    ('beats', 8, 0.00390625)
    """
    if not 0 < confidence < 1:
        raise InputError(f"comparing with the mean matrix: confidence {confidence} does not lie between 0 and 1.")
    names, skills = unit_skills(measured, predicted, baseline, units)
    if not len(names) or not np.isfinite(skills).all():
        perfect = [name for name, value in zip(names, skills) if not np.isfinite(value)]
        found = f"it makes no error in {perfect[0]}" if perfect else "there are no records"
        raise InputError(
            f"comparing with the mean matrix: {found}, so that no share of it can be taken away. Leave that out."
        )
    mean, interval = float(skills.mean()), _interval(skills, confidence, seed)
    wins, losses = int((skills > 0).sum()), int((skills < 0).sum())
    p = float(stats.binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue) if wins + losses else 1.0
    if len(names) < _FEWEST_UNITS:
        verdict = "too few"
    else:
        verdict = "beats" if interval[0] > 0 else "loses" if interval[1] < 0 else "unclear"
        verdict = verdict if abs(mean) >= _LEAST_SKILL else "unclear"
    comparison = {
        "units": names, "skill": skills, "mean_skill": mean, "interval": interval, "confidence": confidence,
        "wins": wins, "p": p, "verdict": verdict,
    }  # fmt: skip
    return MeanComparison(**comparison, words=_words(model, unit, comparison))


def _interval(skills: np.ndarray, confidence: float, seed: int) -> tuple[float, float]:
    if len(skills) < 2:
        return np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(skills), size=(_RESAMPLES, len(skills)))
    drawn = skills[draws].mean(axis=1, keepdims=True)
    low, high = intervals(None, drawn, None, confidence, "expanded", len(skills))[0]
    return float(low), float(high)


def _words(model: str, unit: str, found: dict) -> str:
    count, mean, (low, high) = len(found["units"]), found["mean_skill"], found["interval"]
    share = f"{abs(mean):.1%} {'less' if mean >= 0 else 'more'} squared error than the mean matrix"
    bounds = f", {found['confidence']:.0%} interval {low:.1%} to {high:.1%}" if count > 1 else ""
    plural = unit if count == 1 else unit + "s"
    figures = (
        f"Over {count} {plural}, {model} makes {share} of the training records (mean skill {mean:.3f}{bounds}); its "
        f"error is the smaller one in {found['wins']} of {count} (exact sign test, one-sided: p = {found['p']:.2g})."
    )
    be = "is" if count == 1 else "are"
    verdicts = {
        "beats": f"It beats the mean matrix on {unit}s.",
        "loses": f"It does not beat the mean matrix on {unit}s: it is worse.",
        "unclear": f"That is no proof that it beats the mean matrix on {unit}s.",
        "too few": f"{count} {plural} {be} too few to tell whether it beats the mean matrix.",
    }
    return f"{figures} {verdicts[found['verdict']]}"
