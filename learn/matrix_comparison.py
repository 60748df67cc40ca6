"""Whether a model beats the mean matrix on people it has not seen, in words.

Two questions decide, as one alone can be fooled. Skills are bounded above by 1 and not below: a few units in which a
model fails badly can be missing from a small sample, and a mean of those that are there looks too good. The sign test
asks nothing of the skills' distribution, but a majority of small gains says nothing of large losses. So a model beats
the mean matrix where it makes the smaller error in more units than chance gives, and its mean skill is above 0 too.
``benchmarks/verdicts.py`` measures this rule beside others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import InputError
from .matrix_scores import skill

FEWEST_UNITS = 5
"""With 4 and 4 wins an exact sign test gives 1/16: no result of so few is below 0.05."""
_LEAST_SPREAD = 0.2
LARGEST_P = 0.05
"""Of the sign test, one-sided: more is called chance."""
LEAST_SKILL = 0.01
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
        Of the mean skill over units, at `confidence`; NaN for fewer than 5 units. See `mean_interval`.
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

    The subject is the unit, as records of one are not independent: its skill is one number. Training sets of the folds
    overlap, which neither the interval nor the sign test sees: verdicts are a little too sure.

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
        The verdict is that of `verdict_of`.

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
    interval = tuple(mean_interval(skills, confidence, seed).tolist())
    p, p_loses = (float(each) for each in sign_test(skills))
    mean, wins = float(skills.mean()), int((skills > 0).sum())
    verdict = str(verdict_of(len(names), mean, interval, p, p_loses))
    comparison = {
        "units": names, "skill": skills, "mean_skill": mean, "interval": interval, "confidence": confidence,
        "wins": wins, "p": p, "verdict": verdict,
    }  # fmt: skip
    return MeanComparison(**comparison, words=_words(model, unit, comparison))


def mean_interval(skills: np.ndarray, confidence: float = 0.95, seed: int = 0, resamples: int = 10_000) -> np.ndarray:
    """Interval of the mean of skills: bootstrap-t, which follows their skew (Efron & Tibshirani 1993, chapter 12).

    Each resample's mean is measured in its own standard error. Where low skills are further out than high ones, the
    interval reaches further down than up. Resamples of nearly one value have next to no spread, which with 5 units
    makes ends of -4000: it is taken as a fifth of the sample's at least, which false verdicts hardly notice.

    Parameters
    ----------
    skills : array (..., u)
        Of u units.
    confidence : float
    seed : int
        Settles the resamples.
    resamples : int
        The same ones for all.

    Returns
    -------
    array (..., 2)
        The upper end is 1 at most, as skills are. NaN below 5 units, which give too few different resamples.

    Examples
    --------
    >>> mean_interval(np.array([0.1, 0.5, 0.6, 0.6, 0.7, 0.7])).round(2)
    array([-0.05,  0.68])
    """
    skills = np.asarray(skills, np.float64)
    units = skills.shape[-1]
    if units < FEWEST_UNITS:
        return np.full((*skills.shape[:-1], 2), np.nan)
    mean, spread = skills.mean(axis=-1, keepdims=True), skills.std(axis=-1, keepdims=True, ddof=1)
    z = np.divide(skills - mean, spread, out=np.zeros_like(skills), where=spread > 0)
    times = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples).T / units
    drawn, square = z @ times, z**2 @ times
    wide = np.sqrt(np.maximum(square - drawn**2, 0) * units / (units - 1))
    t = drawn / np.maximum(wide, _LEAST_SPREAD)
    low, high = np.quantile(t, [(1 - confidence) / 2, (1 + confidence) / 2], axis=-1)
    return np.minimum(mean - spread * np.stack([high, low], axis=-1), 1.0)


def sign_test(skills: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values (...) of an exact sign test over units (..., u), one-sided: so many wins or more, and so many losses.

    Units with a skill of 0 are left out.

    Examples
    --------
    >>> [float(p) for p in sign_test(np.array([0.2, 0.1, 0.3, 0.1, -0.4]))]
    [0.1875, 0.96875]
    """
    wins, losses = (np.asarray(skills) > 0).sum(axis=-1), (np.asarray(skills) < 0).sum(axis=-1)
    return tuple(stats.binom.sf(count - 1, wins + losses, 0.5) for count in (wins, losses))


def verdict_of(units: int, mean, interval, p_wins, p_loses) -> np.ndarray:
    """Whether skills (..., u) show that the mean matrix is beaten.

    Parameters
    ----------
    units : int
    mean : array (...)
        Mean skill.
    interval : array (..., 2)
        Of `mean_interval`.
    p_wins, p_loses : arrays (...)
        Of `sign_test`.

    Returns
    -------
    array of str (...)
        "beats" where the interval lies above 0 and the sign test's p is 0.05 at most; "loses" where the same holds the
        other way round; both only where the mean skill is a hundredth at least. Else "unclear"; "too few" below 5
        units.

    Examples
    --------
    >>> str(verdict_of(6, 0.3, (0.1, 0.5), 0.109, 0.984))
    'unclear'
    """
    if units < FEWEST_UNITS:
        return np.full(np.shape(mean), "too few")
    interval, counts = np.asarray(interval), np.abs(mean) >= LEAST_SKILL
    beats = counts & (interval[..., 0] > 0) & (np.asarray(p_wins) <= LARGEST_P)
    loses = counts & (interval[..., 1] < 0) & (np.asarray(p_loses) <= LARGEST_P)
    return np.where(beats, "beats", np.where(loses, "loses", "unclear"))


def _words(model: str, unit: str, found: dict) -> str:
    count, mean, (low, high) = len(found["units"]), found["mean_skill"], found["interval"]
    share = f"{abs(mean):.1%} {'less' if mean >= 0 else 'more'} squared error than the mean matrix"
    bounds = f", {found['confidence']:.0%} interval {low:.3f} to {high:.3f}" if np.isfinite(low) else ""
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
