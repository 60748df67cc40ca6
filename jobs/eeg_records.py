"""What an eeg study's records are like after cleaning: lengths, orders, ranks, components, faulty channels."""

import re
from collections import defaultdict

import numpy as np

from ..zarr_store.schema import Status

_NOTES, _NAMED = 20, 4
# Of 8.5 Hz, but not of names such as E1 or s02-rest.
_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w])")


def fact_rows(features) -> list[dict]:
    """Write channels, length, model orders in milliseconds, ranks and removed components as rows of text.

    Parameters
    ----------
    features : xarray.Dataset or None

    Returns
    -------
    list of dict
        What, Value; empty without features.

    Examples
    --------
    >>> fact_rows(open_features("studies/eeg"))[0]                                # doctest: +SKIP
    {'What': 'EEG channels', 'Value': '19: Fp1, Fp2, F7, …'}
    """
    if features is None:
        return []
    done = np.flatnonzero(features["status"].values == int(Status.DONE))
    rows = [(f"{name} channels", _channels(features[key].values)) for name, key in (("EEG", "eeg_i"), ("EMG", "emg_i"))]
    rows.append(("Connectivity", ", ".join(map(str, features["measure"].values))))
    rows.append(("Length", _range(features, "length_s", done, "s")))
    for name, key, size in (("EEG", "eeg", "eeg_i"), ("EMG", "emg", "emg_i")):
        order = _range(features, f"{key}_order", done, "samples")
        rows.append(
            (f"Order of the {name}'s autoregression", f"{order}; {_range(features, f'{key}_order_ms', done, 'ms')}")
        )
        rows.append(
            (f"Rank of the cleaned {name}", f"{_range(features, f'{key}_rank', done)} of {features.sizes[size]}")
        )
    rows.append(("Artefact components removed", _range(features, "removed_components", done, "a record")))
    return [{"What": what, "Value": value} for what, value in rows if value]


def _channels(names):
    return f"{len(names)}: {', '.join(map(str, names))}"


def _range(features, name, done, unit=""):
    """Lowest to highest of a value per record, and the median; empty where it is not known."""
    if name not in features:
        return "not known"
    values = np.asarray(features[name].values[done], float)
    values = values[np.isfinite(values) & (values >= 0)]
    if not values.size:
        return "not known"
    low, middle, high = np.percentile(values, [0, 50, 100])
    text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}, median {middle:.4g}"
    return f"{text} {unit}".strip()


def cutting_words(features) -> list[str]:
    """Tell what of the recordings is in no record, or shortened, where they were cut: a sentence each."""
    notes = () if features is None else features.attrs.get("notes", {}).get("recordings", ())
    return [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes]


def note_rows(features) -> list[dict]:
    """Gather what was noted of records, such as faulty channels: how many records, the note, and which.

    Notes that differ in their numbers alone count as one, and the first of them is shown.

    Returns
    -------
    list of dict
        Number, Note, Records; the commonest first, twenty at most.
    """
    if features is None:
        return []
    found = defaultdict(list)
    for name, notes in zip(features["record"].values, features["notes"].values):
        for line in str(notes).splitlines():
            found[_NUMBER.sub("0", line)].append((line, str(name)))
    ordered = sorted(found.values(), key=lambda each: (-len(each), each[0]))
    rows = [_note_row(each) for each in ordered[:_NOTES]]
    if len(ordered) > _NOTES:
        rows.append({"Number": "–", "Note": f"and {len(ordered) - _NOTES} other notes", "Records": "in features.zarr"})
    return rows


def _note_row(found):
    lines, names = dict.fromkeys(line for line, _ in found), list(dict.fromkeys(name for _, name in found))
    note = next(iter(lines)) + (" (other numbers in others)" if len(lines) > 1 else "")
    return {
        "Number": str(len(names)),
        "Note": note,
        "Records": ", ".join(names[:_NAMED]) + " …" * (len(names) > _NAMED),
    }
