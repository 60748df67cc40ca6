"""The rules by which an independent component of an EEG is an artefact: single channel, eye, muscle, line."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import welch
from scipy.stats import kurtosis

from .components import Components
from .electrodes import FRONTAL, electrode


@dataclass(frozen=True, kw_only=True)
class ArtefactRules:
    """When an independent component counts as an artefact. All conditions of a rule must hold.

    Parameters
    ----------
    eye_frontal : float
        Eye: share of the topography's energy on frontal electrodes (Fp, AF, F7, F8), and ...
    eye_slow : float
        ... share of the power between 1 and 45 Hz that lies below 6 Hz, and ...
    eye_kurtosis : float
        ... excess kurtosis of the course.
    eye_correlation : float
        Where there is an EOG channel: |correlation| of course and EOG; enough by itself.
    muscle_slope : float
        Muscle: slope of log power over log frequency from 7 to 75 Hz is above this (brain: about -1.5), and ...
    muscle_fast : float
        ... share of the power between 1 and 75 Hz that lies above 20 Hz.
    line_ratio : float
        Line: power within 1 Hz of the mains frequency over the median power 3 to 8 Hz beside it.
    single_share : float
        Single channel: largest share of the topography's energy on one channel, and ...
    single_kurtosis : float
        ... excess kurtosis of the course.
    """

    eye_frontal: float = 0.5
    eye_slow: float = 0.5
    eye_kurtosis: float = 2.5
    eye_correlation: float = 0.7
    muscle_slope: float = -0.5
    muscle_fast: float = 0.5
    line_ratio: float = 20.0
    single_share: float = 0.85
    single_kurtosis: float = 6.0


@dataclass(frozen=True, kw_only=True)
class Removed:
    """One component that was taken out.

    Attributes
    ----------
    component : int
        Its number, 0 for the one that explains the most variance.
    rule : str
        "eye", "muscle", "line" or "single channel".
    value, threshold : float
        What was measured for the rule's first condition, and its threshold.
    found : str
        All that was measured for the rule, for people.
    """

    component: int
    rule: str
    value: float
    threshold: float
    found: str


def artefact_components(components: Components, names, rules: ArtefactRules, *, line_hz=(), eog=None) -> list[Removed]:
    """Components that a rule calls an artefact, each by the first rule that does, strongest components first.

    Parameters
    ----------
    components : Components
    names : sequence of str
        Channels of the EEG. Without names of frontal electrodes the eye rule needs `eog`.
    rules : ArtefactRules
    line_hz : sequence of float
        Mains frequencies to look for.
    eog : ndarray (k, samples), optional
        EOG channels at the rate of the courses.

    Returns
    -------
    list of Removed
    """
    frontal = np.array([electrode(name) in FRONTAL for name in names])
    hertz, power = welch(components.courses, components.rate_hz, nperseg=_segment(components), axis=-1)
    peaked = kurtosis(components.courses, axis=1)
    energy = components.mixing**2 / (components.mixing**2).sum(axis=0)
    found = []
    for number, course in enumerate(components.courses):
        spectrum, share = (hertz, power[number]), energy[:, number]
        verdict = (
            _eye_by_eog(course, eog, rules)
            or _single_channel(share, peaked[number], names, rules)
            or _eye(share[frontal].sum(), spectrum, peaked[number], rules)
            or _muscle(spectrum, line_hz, rules)
            or _line(spectrum, line_hz, rules)
        )
        if verdict:
            found.append(Removed(component=number, **verdict))
    return found


def _segment(components):
    return min(components.courses.shape[1], round(2 * components.rate_hz))


def _share(spectrum, low, middle, high):
    """Share of the power from `low` to `high` that lies above `middle`."""
    hertz, power = spectrum
    total = power[(hertz >= low) & (hertz <= high)].sum()
    return power[(hertz >= middle) & (hertz <= high)].sum() / total if total > 0 else 0.0


def _verdict(rule, value, threshold, found):
    return {"rule": rule, "value": float(value), "threshold": float(threshold), "found": found}


def _eye_by_eog(course, eog, rules):
    if eog is None or not len(eog):
        return None
    value = np.abs([np.corrcoef(course, channel)[0, 1] for channel in eog]).max()
    if value < rules.eye_correlation:
        return None
    return _verdict("eye", value, rules.eye_correlation, f"correlation with EOG {value:.2f}")


def _eye(frontal, spectrum, peaked, rules):
    slow = 1 - _share(spectrum, 1, 6, 45)
    if frontal < rules.eye_frontal or slow < rules.eye_slow or peaked < rules.eye_kurtosis:
        return None
    found = f"frontal {frontal:.2f}, below 6 Hz {slow:.2f}, kurtosis {peaked:.1f}"
    return _verdict("eye", frontal, rules.eye_frontal, found)


def _muscle(spectrum, line_hz, rules):
    hertz, power = spectrum
    used = (hertz >= 7) & (hertz <= 75) & (hertz <= 0.4 * 2 * hertz[-1]) & (power > 0)
    for mains in line_hz:
        used &= np.abs(hertz - mains) > 4
    if used.sum() < 10 or hertz[used][-1] < 30:
        return None
    slope = np.polyfit(np.log10(hertz[used]), np.log10(power[used]), 1)[0]
    fast = _share(spectrum, 1, 20, min(75, 0.8 * hertz[-1]))
    if slope < rules.muscle_slope or fast < rules.muscle_fast:
        return None
    return _verdict("muscle", slope, rules.muscle_slope, f"slope {slope:.2f}, above 20 Hz {fast:.2f}")


def _line(spectrum, line_hz, rules):
    hertz, power = spectrum
    for mains in line_hz:
        distance = np.abs(hertz - mains)
        beside = power[(distance >= 3) & (distance <= 8)]
        if len(beside) < 4 or mains > hertz[-1] - 1:
            continue
        ratio = power[distance <= 1].max() / max(np.median(beside), 1e-300)
        if ratio >= rules.line_ratio:
            return _verdict("line", ratio, rules.line_ratio, f"{mains:g} Hz {ratio:.0f} times its surroundings")
    return None


def _single_channel(share, peaked, names, rules):
    if share.max() < rules.single_share or peaked < rules.single_kurtosis:
        return None
    found = f"{names[int(share.argmax())]} {share.max():.2f}, kurtosis {peaked:.1f}"
    return _verdict("single channel", share.max(), rules.single_share, found)
