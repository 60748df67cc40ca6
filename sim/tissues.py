"""Tissue tags and conductivities: the one place that knows them.

Tags follow SimNIBS (surfaces of a tissue carry its tag + 1000). Conductivities in S/m are the standard values of the
TMS field (Wagner 2004; Opitz 2015), as SimNIBS uses them.
"""

import difflib
from collections.abc import Mapping
from numbers import Real

import numpy as np

from ..errors import MeshError

TISSUE_NAMES = {
    1: "white_matter",
    2: "grey_matter",
    3: "csf",
    4: "bone",
    5: "scalp",
    6: "eye",
    7: "compact_bone",
    8: "spongy_bone",
    9: "blood",
    10: "muscle",
}
TISSUE_TAGS = {name: tag for tag, name in TISSUE_NAMES.items()}
BRAIN_TAGS = (1, 2)

CONDUCTIVITIES = {
    "white_matter": 0.126,
    "grey_matter": 0.275,
    "csf": 1.654,
    "bone": 0.010,
    "scalp": 0.465,
    "eye": 0.5,
    "compact_bone": 0.008,
    "spongy_bone": 0.025,
    "blood": 0.6,
    "muscle": 0.16,
}


# Said of everything that is no number: a path to a tensor volume, a list of three, text.
ONE_NUMBER = (
    "anisotropic conductivities (from a diffusion-tensor volume, or one value per axis) are not built; give one number "
    "in S/m for the tissue, e.g. white_matter = 0.126"
)


def conductivity_of(tissue, overrides=None):
    """Isotropic conductivity of each element from its tissue tag.

    Parameters
    ----------
    tissue : ndarray of int, any shape
        Tissue tags.
    overrides : mapping, optional
        Tissue name (or tag) to S/m, in place of the standard values, or for tags that the table does not know.

    Returns
    -------
    ndarray of float, shape of `tissue`, S/m

    Raises
    ------
    MeshError
        If an override names no tissue or is not a positive number, or a tag has no conductivity.

    Examples
    --------
    >>> conductivity_of(np.array([1, 2]), {"grey_matter": 0.3}).tolist()
    [0.126, 0.3]
    """
    table = {tag: CONDUCTIVITIES[name] for tag, name in TISSUE_NAMES.items()}
    if overrides is not None and not isinstance(overrides, Mapping):
        raise MeshError(f"conductivities: {overrides!r} is no table; give tissue names or tags with numbers in S/m.")
    for key, value in (overrides or {}).items():
        table[_tag(key)] = _positive(key, value)
    tags = np.unique(tissue)
    unknown = [int(tag) for tag in tags if int(tag) not in table]
    if unknown:
        raise MeshError(
            f"conductivities: the mesh has elements of tag {', '.join(map(str, unknown))}, which no tissue of the "
            f"table carries ({', '.join(f'{t} {n}' for t, n in TISSUE_NAMES.items())}); without a conductivity they "
            "cannot be solved for. Remove these elements, or give the tag a value in [head.conductivities], e.g. "
            f'"{unknown[0]}" = 0.2.'
        )
    values = np.array([table[int(tag)] for tag in tags])
    return values[np.searchsorted(tags, tissue)]


def _tag(key):
    if isinstance(key, int) or (str(key).isdecimal() and len(str(key)) < 10):
        return int(key)
    if key in TISSUE_TAGS:
        return TISSUE_TAGS[key]
    close = difflib.get_close_matches(str(key), TISSUE_TAGS, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise MeshError(f"conductivities: {key!r} is no tissue; {hint}known are {', '.join(TISSUE_TAGS)}, or a tag number.")


def _positive(key, value):
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise MeshError(f"conductivities: {key} is {value!r}; {ONE_NUMBER}.")
    if not (np.isfinite(value) and value > 0):
        raise MeshError(f"conductivities: {key} is {value}; a conductivity is a positive number in S/m.")
    return float(value)
