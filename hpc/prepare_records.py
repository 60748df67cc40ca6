"""What a study's features are made of: its records, its channels, and the making of their store."""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from ..errors import InputError
from ..sim.planted_recordings import planted_recording
from ..sim.recording_companions import files_of
from ..sim.recording_files import read_recording
from ..zarr_store.atomic import disk_errors
from ..zarr_store.feature_growth import grow_features
from ..zarr_store.features import FeatureAxes, create_features, open_features
from ..zarr_store.ids import content_id
from .channel_sets import study_channels
from .connect_records import RecordSettings, RecordsTask, truth_is_known
from .eeg_identity import (
    cleaning_config,
    eeg_connectivity,
    emg_connectivity,
    planted_config,
    rows_before,
)
from .executors import GIB

_LEAST_GB, _COPIES = 0.6, 16  # Python with scipy and MNE; copies of a record that cleaning and measures hold at once
_READ_COPIES = 4  # of a whole recording of which a part is a record: what reading holds


def prepare_features(study, config, records, same):
    """Make the feature store if it is not there: its records, channels, measures and bands.

    Where only records came, those that are done stay so, and rate and channels of the study remain. A store that was
    made with other settings and has no record done yet is replaced. So only the study's coordinator may call it.

    Parameters
    ----------
    study : Study
    config : EegConfig
    records : StudyRecords
        Found once for the check, the store and its tasks: a recording may come to the folder at any time.
    same : bool
        Whether a store of these settings is there, as `check_same_features` tells.

    Raises
    ------
    InputError
        If no record can be found or read.
    """
    if same:
        return
    rows = rows_before(study, records)
    grown = bool((rows >= 0).any())
    rate_hz, eeg_names, emg_names = _held_channels(study) if grown else _first_channels(config, records)
    axes = FeatureAxes(
        records=records.table,
        measures=config.connectivity.measures,
        bands={name: tuple(edges) for name, edges in config.connectivity.bands_hz.items()},
        eeg_names=eeg_names,
        emg_names=emg_names,
        expected=config.records.is_planted and truth_is_known(config.cleaning),
    )
    described = {
        "shard": config.records.records_per_task,
        "attrs": {"features_id": content_id(records.spec), "config": records.spec, "rate_hz": rate_hz},
        "notes": {"source": config.records.source, "recordings": list(records.notes)},
    }
    if grown:
        grow_features(study, axes, rows, **described)
        return
    _remove_features(study)
    create_features(study, axes, **described)


def _held_channels(study):
    """Rate and channels of the features that are there: (Hz, EEG names, EMG names)."""
    features = open_features(study)
    return float(features.attrs["rate_hz"]), *(tuple(map(str, features[axis].values)) for axis in ("eeg_i", "emg_i"))


def _first_channels(config, records):
    """Rate and channels of the first record that can be read: (Hz, EEG names, EMG names)."""
    planted = planted_config(config)
    if planted is not None:
        first = planted_recording(planted, config.seed, 0).recording
        return first.rate_hz, *study_channels(first)
    failures = []
    for source in records.sources:
        try:
            first = read_recording(source, config.records.rate_hz)
            return first.rate_hz, *study_channels(first)
        except InputError as error:
            failures.append(error)
    raise InputError(
        f"planning the study's channels: none of the {len(failures)} records of {config.records.source} can be used. "
        f"The first says: {failures[0]}"
    )


def _remove_features(study):
    """Take away a store without a record done; at once, so that a kill leaves no half of it."""
    if not study.features.exists():
        return
    with disk_errors("replacing features of other settings", study.features):
        study.making.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=study.making))
        os.rename(study.features, aside / study.features.name)
    shutil.rmtree(aside, ignore_errors=True)


def record_tasks(study, config, records, shards, retry_failed=False):
    """Tasks for shards of records.

    Parameters
    ----------
    study : Study
    config : EegConfig
    records : StudyRecords
        Those that the store was made for.
    shards : sequence of (start, stop)
    retry_failed : bool
        Do failed records again; otherwise they stay as they are.

    Returns
    -------
    list of RecordsTask
    """
    features = open_features(study)
    names = [str(name) for name in features["record"].values]
    sources = {source.name: source for source in records.sources}
    settings = RecordSettings(
        seed=config.seed,
        planted=planted_config(config),
        rate_hz=float(features.attrs["rate_hz"]),
        cleaning=cleaning_config(config),
        eeg=eeg_connectivity(config),
        emg=emg_connectivity(config),
        eeg_rate_hz=config.connectivity.rate_hz,
        emg_rate_hz=config.connectivity.emg.rate_hz,
    )
    common = {
        "study": str(study.folder),
        "features_id": str(features.attrs["id"]),
        "retry_failed": retry_failed,
        "settings": settings,
        "eeg_names": tuple(map(str, features["eeg_i"].values)),
        "emg_names": tuple(map(str, features["emg_i"].values)),
    }
    return [
        RecordsTask(
            start=start,
            stop=stop,
            names=tuple(names[start:stop]),
            sources=tuple(sources[name] for name in names[start:stop]) if sources else (),
            **common,
        )
        for start, stop in shards
    ]


def memory_per_worker_gb(config, records):
    """Memory that one worker needs, GB: several copies of the largest record, in float64.

    Parameters
    ----------
    config : EegConfig
    records : StudyRecords

    Returns
    -------
    float
    """
    if config.records.is_planted:
        planted = planted_config(config)
        values = planted.seconds * planted.rate_hz * (planted.n_eeg + planted.n_emg)
    else:
        # A text holds a value in eight bytes or more, a binary file in two or more.
        named = {(each.eeg, each.emg): each for each in records.sources}
        parts = Counter((each.eeg, each.emg) for each in records.sources)
        shares = {key: 1 / count if config.records.record_s else 1 for key, count in parts.items()}
        sizes = {key: sum(os.path.getsize(path) for path in files_of(each)) for key, each in named.items()}
        values = max(size / 2 * max(shares[key], _READ_COPIES / _COPIES) for key, size in sizes.items())
    return _LEAST_GB + _COPIES * 8 * values / GIB
