"""How ``features.zarr`` is laid out, and its making: once, by one process, with no record connected yet."""

from dataclasses import dataclass

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ..errors import InputError, StoreError
from .atomic import disk_errors, folder_in_the_making
from .datasets import consolidate, open_group
from .ids import NUMERICS_VERSION, content_id, plain
from .schema import STATUS_ATTRS, Status, global_attrs
from .shards import ShardedStore
from .study import Study
from .volume_layout import flattened

EEG_DIMS = ("record", "measure", "eeg_i", "eeg_j")
EEG_BAND_DIMS = ("record", "measure", "band", "eeg_i", "eeg_j")
EMG_DIMS = ("record", "emg_i", "emg_j")
# The checksum finds flipped bits, which Blosc itself does not.
_COMPRESSION = (BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=4), Crc32cCodec())
_TO_FROM = "entry [i, j]: from channel j to channel i where the measure has a direction"
_MATRICES = {
    "eeg_connectivity": (EEG_DIMS, "connectivity of EEG channels, whole band", _TO_FROM),
    "eeg_connectivity_band": (EEG_BAND_DIMS, "connectivity of EEG channels in each band", _TO_FROM),
    "emg_granger": (EMG_DIMS, "Granger causality between EMG channels", _TO_FROM + "; the diagonal is 0"),
    "emg_granger_expected": (EMG_DIMS, "Granger causality that was planted, without error of estimation", _TO_FROM),
}
_UNKNOWN = "-1: not known"
_PER_RECORD = {
    "status": ("int8", int(Status.PENDING), {"long_name": "state of the record, written last", **STATUS_ATTRS}),
    "reason": ("string", "", {"long_name": "why the record failed", "units": "1"}),
    "seconds": ("float64", np.nan, {"long_name": "time of reading, cleaning and connecting", "units": "s"}),
    "length_s": ("float64", np.nan, {"long_name": "length of the record", "units": "s"}),
    "eeg_order": ("int32", -1, {"long_name": "order of the EEG's autoregression", "units": "1", "comment": _UNKNOWN}),
    "emg_order": ("int32", -1, {"long_name": "order of the EMG's autoregression", "units": "1", "comment": _UNKNOWN}),
    "eeg_order_ms": ("float64", np.nan, {"long_name": "order of the EEG's autoregression", "units": "ms"}),
    "emg_order_ms": ("float64", np.nan, {"long_name": "order of the EMG's autoregression", "units": "ms"}),
    "eeg_rank": ("int32", -1, {"long_name": "rank of the cleaned EEG", "units": "1", "comment": _UNKNOWN}),
    "emg_rank": ("int32", -1, {"long_name": "rank of the cleaned EMG", "units": "1", "comment": _UNKNOWN}),
    "removed_components": ("int32", -1, {"long_name": "artefact components taken out", "units": "1"}),
    "notes": ("string", "", {"long_name": "what a reader must know of the record, a line each", "units": "1"}),
}
MATRICES = tuple(_MATRICES)
PER_RECORD = tuple(_PER_RECORD)
FEATURES = ShardedStore(part="features", row="record", finite=MATRICES, beside=PER_RECORD)
"""What :mod:`.shards` needs to know of the store."""


@dataclass(frozen=True, kw_only=True)
class FeatureAxes:
    """Labels of a feature store.

    Attributes
    ----------
    records : tuple of (name, subject, condition)
        Names are unique.
    measures : tuple of str
        Of the EEG's connectivity.
    bands : dict of str to (low, high)
        Hz; empty where only the whole band is kept.
    eeg_names, emg_names : tuple of str
    expected : bool
        Whether there is a planted truth.
    """

    records: tuple
    measures: tuple[str, ...]
    bands: dict
    eeg_names: tuple[str, ...]
    emg_names: tuple[str, ...]
    expected: bool = False


def create_features(study, axes: FeatureAxes, *, shard: int, attrs: dict, notes: dict | None = None) -> str:
    """Make ``features.zarr`` of a study: labels, shapes and units, every record pending.

    To be called by the coordinator before any worker writes. Where the same store is there already it is left as it
    is, its shard size included (so take shards from `pending_feature_shards`).

    Parameters
    ----------
    study : Study or path-like
    axes : FeatureAxes
    shard : int
        Records per file; what one task writes whole.
    attrs : dict
        What the features depend on, as plain values; all of it is part of the identity.
    notes : dict, optional
        Plain values to keep with the store that are no part of its identity.

    Returns
    -------
    str
        The store's id, also its attribute ``id``: 16 hex digits.

    Raises
    ------
    StoreError
        Where a store of other records or settings is there; the message names what differs.
    InputError
        For no records, two of one name, or no measure.

    Examples
    --------
    >>> axes = FeatureAxes(records=(("s01-rest-1", "s01", "rest"),), measures=("granger",), bands={},
    ...                    eeg_names=("C3", "C4"), emg_names=("FDI", "APB"))
    >>> create_features("studies/eeg", axes, shard=4, attrs={"features_id": "…"})        # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    _check_axes(study.features, axes, shard)
    labels = {"records": [list(record) for record in axes.records], "measures": list(axes.measures)}
    labels |= {"bands": {name: list(edges) for name, edges in axes.bands.items()}, "expected": axes.expected}
    labels |= {"eeg_names": list(axes.eeg_names), "emg_names": list(axes.emg_names)}
    identity = plain(dict(attrs), "attrs") | {"labels_id": content_id(labels), "numerics_version": NUMERICS_VERSION}
    if study.features.exists():
        return _take_existing(study.features, identity)
    root = global_attrs("motorsweep connectivity of EEG and EMG") | {"id": content_id(identity)}
    root |= {"identity": sorted(identity), "shard": shard} | identity | {"notes": plain(dict(notes or {}), "notes")}
    beside = folder_in_the_making(study.making, study.features, replace=False)
    with disk_errors(f"making {study.features}", study.features), beside as path:
        group = zarr.create_group(str(path), zarr_format=3, attributes=root)
        coordinates = _make_coordinates(group, axes)
        _make_rows(group, axes, shard)
        consolidate(path, [*coordinates, *MATRICES, *PER_RECORD])
    return root["id"]


def _check_axes(path, axes, shard):
    names = [name for name, *_ in axes.records]
    if not names or not axes.measures or shard < 1:
        raise InputError(
            f"making {path}: {len(names)} records, {len(axes.measures)} measures and {shard} records per shard; a "
            "feature store needs at least one of each"
        )
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"making {path}: two records are called {twice!r}; a record is found by its name. Rename one")


def _make_coordinates(group, axes):
    name, subject, condition = zip(*axes.records, strict=True)
    texts = {
        "record": (name, "record", "record"),
        "subject": (subject, "record", "who was recorded"),
        "condition": (condition, "record", "what the subject did"),
        "measure": (axes.measures, "measure", "measure of connectivity"),
        "eeg_i": (axes.eeg_names, "eeg_i", "EEG channel, driven"),
        "eeg_j": (axes.eeg_names, "eeg_j", "EEG channel, driving"),
        "emg_i": (axes.emg_names, "emg_i", "EMG channel, driven"),
        "emg_j": (axes.emg_names, "emg_j", "EMG channel, driving"),
    }
    if axes.bands:
        texts["band"] = (tuple(axes.bands), "band", "frequency band")
    for key, (values, dim, text) in texts.items():
        _add(group, key, np.array(values, dtype=object), dim, {"long_name": text, "units": "1"})
    for at, key in enumerate(("band_low_hz", "band_high_hz") if axes.bands else ()):
        edges = np.array([edges[at] for edges in axes.bands.values()], dtype=np.float64)
        _add(group, key, edges, "band", {"long_name": f"{('lower', 'upper')[at]} edge of the band", "units": "Hz"})
    return [*texts, "band_low_hz", "band_high_hz"]


def _add(group, name, values, dim, attrs):
    dtype = "string" if values.dtype == object else values.dtype
    layout = {"shape": values.shape, "dtype": dtype, "chunks": values.shape, "dimension_names": (dim,)}
    group.create_array(name, **layout, attributes=attrs)[...] = values


def _make_rows(group, axes, shard):
    eeg, emg = len(axes.eeg_names), len(axes.emg_names)
    sizes = {"measure": len(axes.measures), "band": len(axes.bands)}
    sizes |= {"eeg_i": eeg, "eeg_j": eeg, "emg_i": emg, "emg_j": emg}
    left_out = {"eeg_connectivity_band": not axes.bands, "emg_granger_expected": not axes.expected}
    for name, (dims, long_name, comment) in _MATRICES.items():
        if left_out.get(name):
            continue
        shape = tuple(sizes[dim] for dim in dims[1:])
        text = {"long_name": long_name, "units": "1", "comment": comment, "coordinates": "subject condition"}
        # NaN where nothing was written: a lost file then shows as such. Chunk = shard: small matrices, one owner.
        group.create_array(
            name, shape=(len(axes.records), *shape), chunks=(shard, *shape), dtype="float32", fill_value=np.nan,
            compressors=_COMPRESSION, dimension_names=dims, attributes=text,
        )  # fmt: skip
    for name, (dtype, missing, text) in _PER_RECORD.items():
        group.create_array(name, shape=(len(axes.records),), chunks=(shard,), dtype=dtype, fill_value=missing,
                           dimension_names=("record",), attributes=text)  # fmt: skip


def _take_existing(path, identity):
    group = open_group(path, "simulate", mode="r+")
    found = {key: group.attrs.get(key) for key in group.attrs.get("identity", [])}
    differing = differing_keys(found, identity)
    if differing:
        raise StoreError(
            f"opening {path} (id {group.attrs.get('id')}) to go on: it was made for something else. These differ: "
            f"{'; '.join(differing)}. Records of both would stand side by side as if they were one. Set the study "
            "file back, or give the study another name or folder"
        )
    return group.attrs["id"]


def differing_keys(found, asked) -> list[str]:
    """Tell in which keys two nested specs differ, and how.

    Examples
    --------
    >>> differing_keys({"cleaning": {"ica": True}}, {"cleaning": {"ica": False}})
    ['cleaning.ica: True there, False now']
    """
    found, asked = flattened(found), flattened(asked)
    keys = [key for key in sorted(found.keys() | asked.keys()) if found.get(key) != asked.get(key)]
    return [f"{key}: {_short(found, key)} there, {_short(asked, key)} now" for key in keys]


def _short(values, key):
    text = repr(values[key]) if key in values else "nothing"
    return text if len(text) <= 60 else text[:57] + "..."
