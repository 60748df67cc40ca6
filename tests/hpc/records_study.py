"""Small studies of EEG and EMG for tests, planted or from tables, begun and with no record done."""

from dataclasses import replace

import numpy as np
from motorsweep.hpc.eeg_identity import check_same_features, study_records
from motorsweep.hpc.prepare_records import prepare_features, record_tasks
from motorsweep.jobs.config import load_study_config
from motorsweep.zarr_store.features import pending_feature_shards
from motorsweep.zarr_store.study import Study

STUDY = """kind = "eeg"
name = "a"
seed = 5
[records]
records_per_task = 4
[records.planted]
subjects = 2
records_per_subject = 3
seconds = 4.0
rate_hz = 250.0
n_eeg = 5
n_emg = 3
[connectivity]
max_order = 6
[connectivity.bands_hz]
alpha = [8, 13]
[connectivity.emg]
max_order = 6
"""
OWN = """kind = "eeg"
name = "a"
[records]
source = "data"
eeg = "{subject}/{name}/eeg.csv"
emg = "{subject}/{name}/emg.csv"
rate_hz = 250.0
records_per_task = 2
[cleaning]
ica = false
[connectivity]
max_order = 6
[connectivity.emg]
max_order = 6
"""


def begun(folder, text=STUDY):
    """A study with its store and its tasks, no record done."""
    (folder / "study.toml").write_text(text)
    config = replace(load_study_config(folder / "study.toml"), folder=str(folder / "a study"))
    study = Study(config.folder)
    records = study_records(study, config)
    prepare_features(study, config, records, check_same_features(study, records))
    return study, config, record_tasks(study, config, records, pending_feature_shards(study))


def write_tables(folder, name, eeg, emg, rate_hz=250.0, eeg_names=None):
    """A trial as CSV with time stamps, in microvolts."""
    place = folder / name
    place.mkdir(parents=True)
    for kind, signals, names in (
        ("eeg", eeg, eeg_names or ("C3", "Cz", "C4", "Pz", "Oz")),
        ("emg", emg, ("FDI", "APB")),
    ):
        stamps = np.arange(signals.shape[1]) / rate_hz
        rows = np.column_stack([stamps, signals.T])
        header = "time_s," + ",".join(f"{each} [uV]" for each in names)
        np.savetxt(place / f"{kind}.csv", rows, delimiter=",", header=header, comments="", fmt="%.6f")


def noise(seed, channels, samples=1500):
    return 10 * np.random.default_rng(seed).normal(size=(channels, samples)).cumsum(0)
