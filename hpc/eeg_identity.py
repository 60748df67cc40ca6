"""What the features of a study of EEG and EMG depend on: the one place that says what is hashed.

As :mod:`.identity`, whose habits hold: a spec holds all that can change the numbers, and nothing else. Files count by
content. Their hashes are kept in the study's cache, by size and time of change, as recordings are large.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, fields

import numpy as np

from ..errors import StoreError
from ..learn.connectivity_record import ConnectivityConfig
from ..sim.cleaning import ArtefactRules, CleaningConfig
from ..sim.planted_population import PlantedConfig
from ..sim.planted_recordings import planted_names
from ..sim.recording_companions import NAMED, files_of
from ..sim.recording_parts import cut_recordings
from ..sim.recording_sources import find_recordings
from ..zarr_store.atomic import atomic_write_text
from ..zarr_store.feature_layout import differing_keys
from ..zarr_store.features import open_features, read_feature_status
from ..zarr_store.ids import NUMERICS_VERSION, content_id, plain
from ..zarr_store.schema import Status
from .identity import file_hash

_CHANGES_SHOWN = 6
_NOT_READING = ("source", "eeg", "emg", "events", "record_s", "rate_hz", "records_per_task", "planted")


@dataclass(frozen=True, kw_only=True)
class StudyRecords:
    """The records of a study.

    Attributes
    ----------
    table : tuple of (name, subject, condition)
    sources : tuple of RecordingSource
        Empty for planted ones.
    spec : dict
        Of the features that are made of them; its content hash is their id.
    notes : tuple of str
        What of the recordings is in no record, or shortened, and why.
    """

    table: tuple
    sources: tuple
    spec: dict
    notes: tuple = ()


def study_records(study, config) -> StudyRecords:
    """Find the records of a study, and what their features depend on.

    Parameters
    ----------
    study : Study
        In whose cache hashes of files are kept.
    config : EegConfig

    Returns
    -------
    StudyRecords

    Raises
    ------
    InputError
        Where there are none.
    """
    spec = {
        "kind": "features",
        "numerics": NUMERICS_VERSION,
        "cleaning": plain(cleaning_config(config)),
        "eeg": plain(eeg_connectivity(config)) | {"rate_hz": config.connectivity.rate_hz},
        "emg": plain(emg_connectivity(config)) | {"rate_hz": config.connectivity.emg.rate_hz},
    }
    planted = planted_config(config)
    if planted is not None:
        spec |= {"planted": plain(planted), "seed": config.seed}
        return StudyRecords(table=tuple(planted_names(planted)), sources=(), spec=spec)
    sources, specs, notes = _sources(study, config)
    spec |= {"rate_hz": config.records.rate_hz, "records": specs}
    table = tuple((source.name, source.subject, source.condition) for source in sources)
    return StudyRecords(table=table, sources=tuple(sources), spec=spec, notes=notes)


def check_same_features(study, records) -> bool:
    """Refuse to go on in a folder whose features were made from other records or settings; says which.

    A store of other settings without a record that is done is not refused: nothing is lost when it is made anew. Nor is
    one to which records came: see `rows_before`.

    Parameters
    ----------
    study : Study
    records : StudyRecords

    Returns
    -------
    bool
        Whether a store of these records and settings is there.

    Raises
    ------
    StoreError
        Where records were done with other settings.
    """
    if not study.features.exists():
        return False
    held = open_features(study).attrs
    if held.get("features_id") == content_id(records.spec):
        return True
    done = (read_feature_status(study) == int(Status.DONE)).any()
    if not done or (rows_before(study, records) >= 0).any():
        return False
    told = differing_keys(held.get("config", {}), plain(records.spec))
    more = f"; and {len(told) - _CHANGES_SHOWN} more" if len(told) > _CHANGES_SHOWN else ""
    raise StoreError(
        f"simulating into {study.features}: it was made with other records or settings "
        f"({'; '.join(told[:_CHANGES_SHOWN])}{more}); matrices of two kinds in one store could not be told apart. Give "
        "the study another name or folder, or move the old folder away."
    )


def rows_before(study, records) -> np.ndarray:
    """Where the records of a study are in the features that it has, when only their number has changed.

    Parameters
    ----------
    study : Study
    records : StudyRecords

    Returns
    -------
    ndarray of int (record,)
        Row of each record in the store; -1 for one that is new. All are -1 without a store or a record that is done,
        where settings are others, or where a record that is done is no longer the same: nothing is carried over then.
    """
    none = np.full(len(records.table), -1)
    if not study.features.exists():
        return none
    features, now = open_features(study), plain(records.spec)
    was = features.attrs.get("config", {})
    sources, sources_now = was.get("records", {}), now.get("records", {})
    if {**was, "records": 0} != {**now, "records": 0} or not sources_now:
        return none
    names = [str(name) for name in features["record"].values]
    done = {name for name, state in zip(names, read_feature_status(study), strict=True) if state == int(Status.DONE)}
    same = {name: row for row, name in enumerate(names) if sources.get(name) == sources_now.get(name)}
    if not done or not done <= same.keys():
        return none
    return np.array([same.get(name, -1) for name, *_ in records.table])


# ---- from the tables to what the numerics take -----------------------------------------------------------------------


def planted_config(config):
    """Give the records that the study plants, None where it reads its own.

    Parameters
    ----------
    config : EegConfig

    Returns
    -------
    PlantedConfig or None
    """
    return PlantedConfig(**vars(config.records.planted)) if config.records.is_planted else None


def cleaning_config(config) -> CleaningConfig:
    """How the study's records are cleaned; the study's seed is that of the components' start."""
    rules = ArtefactRules(**vars(config.cleaning.rules))
    return CleaningConfig(**vars(config.cleaning) | {"rules": rules, "seed": config.seed})


def eeg_connectivity(config) -> ConnectivityConfig:
    """What is computed of the EEG."""
    table = {key: value for key, value in vars(config.connectivity).items() if key not in ("emg", "rate_hz")}
    return ConnectivityConfig(
        **table | {"bands_hz": tuple((name, *edges) for name, edges in table["bands_hz"].items())}
    )


def emg_connectivity(config) -> ConnectivityConfig:
    """What is computed of the EMG: Granger causality."""
    table = {key: value for key, value in vars(config.connectivity.emg).items() if key != "rate_hz"}
    return ConnectivityConfig(measures=("granger",), **table)


# ---- records from files ----------------------------------------------------------------------------------------------


def _sources(study, config):
    """Sources of the records, what of each can change the numbers (by name), and notes on how recordings were cut."""
    records = config.records
    reading = {key: value for key, value in vars(records).items() if key not in _NOT_READING}
    sources, notes = find_recordings(records.source, eeg=records.eeg, emg=records.emg, **reading), ()
    files = {_named(source): files_of(source) for source in sources}
    hashes = _file_hashes(study, sorted({path for each in files.values() for path in each}))
    contents = {named: [hashes[path] for path in each] for named, each in files.items()}
    if records.events or records.record_s:
        sources, notes = _cut(study, records, sources, contents)
    return sources, {source.name: _source_spec(source, contents) for source in sources}, notes


def _cut(study, records, whole, contents):
    """Parts of recordings, and notes.

    To be cut a recording must be read, so where its parts lie is kept in the cache: by content, and without paths.
    """
    rules = [list(records.events), records.record_s, NUMERICS_VERSION]
    keys = {each.name: content_id([_source_spec(each, contents) | {"name": each.name}, *rules]) for each in whole}
    kept, held = study.cache / "record-parts.json", {}
    with suppress(OSError, ValueError):
        held = json.loads(kept.read_text(encoding="utf-8"))
    known = {name: held[key] for name, key in keys.items() if key in held}
    before = len(known)
    try:
        return cut_recordings(whole, records.events, records.record_s, known)
    finally:  # also where it is stopped: reading took its time
        if len(known) > before:
            atomic_write_text(kept, json.dumps(held | {keys[name]: cut for name, cut in known.items()}, indent=1))


def _named(source):
    return tuple(getattr(source, key) for key in NAMED)


def _source_spec(source, contents):
    """What of a source can change the numbers: its files by content, and each option that is not the default."""
    options = {}
    for each in fields(source):
        value = getattr(source, each.name)
        if each.name not in (*NAMED, "name") and value != each.default:
            options[each.name] = plain(value)
    return options | {"files": contents[_named(source)]}


def _file_hashes(study, paths):
    """Content hash of each file; kept in the cache, and taken anew only where size or time of change is another."""
    kept = study.cache / "file-hashes.json"
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads(kept.read_text(encoding="utf-8"))
    hashes = {}
    for path in paths:
        state = _state_of(path)
        held = known.get(path)
        hashes[path] = [*state, held[2]] if held and held[:2] == state and all(state) else [*state, file_hash(path)]
    if any(known.get(path) != each for path, each in hashes.items()):
        atomic_write_text(kept, json.dumps(known | hashes, indent=1, sort_keys=True))
    return {path: each[2] for path, each in hashes.items()}


def _state_of(path):
    try:
        found = os.stat(path)
    except OSError:
        return [0, 0]  # `file_hash` says what is wrong with it
    return [found.st_size, found.st_mtime_ns]
