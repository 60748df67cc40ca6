"""Where the electrodes of the 10-20 system sit, and what a missing one would have shown.

Positions are those of the ideal system on a unit sphere (x right, y front, z up): the outer ring lies 18° above the
plane through nasion and inion, the midline and the coronal arc are cut at 10, 20, 20, ... per cent of 180°, and F3, F4,
P3, P4 lie midway between their neighbours (Jasper, Electroencephalogr. Clin. Neurophysiol. 10 (1958) 371-375).
"""

import re

import numpy as np
from scipy.special import eval_legendre

from ..errors import InputError

TEN_TWENTY = (
    *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T3", "C3", "Cz"),
    *("C4", "T4", "T5", "P3", "Pz", "P4", "T6", "O1", "O2"),
)
"""The nineteen scalp electrodes of the 10-20 system, from front to back and left to right."""

FRONTAL = ("FP1", "FPZ", "FP2", "AF7", "AF3", "AFZ", "AF4", "AF8", "F7", "F8")
"""Electrodes that see the eyes most."""

SMOOTHING = 1e-5
"""Added to the splines' diagonal, so that noise of neighbours is not magnified (as MNE does)."""

EOG = re.compile(r"(EOG|[VH]EO)", re.IGNORECASE)
"""What names of channels beside the eyes hold."""

_NEWER = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
_NAME = re.compile(r"(?:EEG)?[\s_.:]*(FP|AF|FT|FC|TP|CP|PO|[FTCPO])(Z|\d{1,2})(?![0-9A-Z])", re.IGNORECASE)


def electrode(name: str) -> str:
    """Upper-case name of the 10-20 or 10-10 electrode that a channel's name means, "" where it means none.

    Examples
    --------
    >>> electrode("EEG Fp1-REF"), electrode("T7"), electrode("ch12")
    ('FP1', 'T7', '')
    """
    found = _NAME.match(name.strip())
    return (found[1] + found[2]).upper() if found else ""


def position(name: str) -> np.ndarray | None:
    """Unit vector (3,) of a channel of the 10-20 system, None where the name is not one of it.

    Examples
    --------
    >>> position("Cz").round(3).tolist()
    [0.0, 0.0, 1.0]
    """
    wanted = electrode(name)
    return _POSITIONS.get(_NEWER.get(wanted, wanted))


def _on_sphere(azimuth_deg, elevation_deg):
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    return np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])


def _midway(one, other):
    return (one + other) / np.linalg.norm(one + other)


def _positions():
    at = {name: _on_sphere(azimuth, 18) for name, azimuth in (("FPZ", 0), ("FP2", 18), ("F8", 54), ("T4", 90))}
    at |= {name: _on_sphere(azimuth, 18) for name, azimuth in (("T6", 126), ("O2", 162), ("OZ", 180))}
    at |= {
        "FZ": _on_sphere(0, 54),
        "CZ": np.array([0.0, 0.0, 1.0]),
        "PZ": _on_sphere(180, 54),
        "C4": _on_sphere(90, 54),
    }
    at |= {"F4": _midway(at["F8"], at["FZ"]), "P4": _midway(at["T6"], at["PZ"])}
    for right, left in zip(
        ("FP2", "F8", "T4", "T6", "O2", "C4", "F4", "P4"), ("FP1", "F7", "T3", "T5", "O1", "C3", "F3", "P3")
    ):
        at[left] = at[right] * (-1, 1, 1)
    return at


_POSITIONS = _positions()


def interpolation_matrix(known: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Weights that give electrodes from others, by spherical splines.

    Splines of order 4 with 50 Legendre terms (Perrin et al., Electroencephalogr. Clin. Neurophysiol. 72 (1989)
    184-187); they pass on a potential that is the same everywhere unchanged.

    Parameters
    ----------
    known, wanted : tuple of str
        Names of channels.

    Returns
    -------
    ndarray, shape (len(wanted), len(known))

    Raises
    ------
    InputError
        Where a name has no position, or fewer than four electrodes are known.

    Examples
    --------
    >>> weights = interpolation_matrix(("Fz", "Pz", "C3", "C4", "F3"), ("Cz",))
    >>> weights.shape, float(weights.sum().round(9))
    ((1, 5), 1.0)
    """
    nowhere = [name for name in (*known, *wanted) if position(name) is None]
    if nowhere or len(known) < 4:
        some = ", ".join(nowhere[:3]) + (f" and {len(nowhere) - 3} more" if len(nowhere) > 3 else "")
        raise InputError(
            f"interpolating {', '.join(wanted)} from {len(known)} channels: "
            + (f"{some} are not names of the 10-20 system" if nowhere else "at least four are needed")
            + ", so it is not known which neighbours would tell of them. Name the channels by the 10-20 system, or "
            "leave faulty ones out (`drop_channels`)."
        )
    here, there = (np.stack([position(name) for name in names]) for names in (known, wanted))
    n = len(known)
    system = np.ones((n + 1, n + 1))
    system[:n, :n], system[n, n] = _spline(here @ here.T) + SMOOTHING * np.eye(n), 0.0
    return np.linalg.solve(system, np.hstack([_spline(there @ here.T), np.ones((len(wanted), 1))]).T)[:n].T


def _spline(cosine, order=4, terms=50):
    n = np.arange(1, terms + 1)
    weights = (2 * n + 1) / (n * (n + 1.0)) ** order / (4 * np.pi)
    return eval_legendre(n, np.clip(cosine, -1, 1)[..., None]) @ weights
