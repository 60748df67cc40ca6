"""A tiny study of EEG and EMG for tests: planted records of a few seconds."""

TINY_EEG = """kind = "eeg"
name = "tiny"
seed = 3
[records]
records_per_task = 3
[records.planted]
subjects = 3
records_per_subject = 4
seconds = 6.0
rate_hz = 250.0
n_eeg = 6
n_emg = 3
[cleaning]
emg_band_hz = [20.0, 0.0]
[connectivity]
max_order = 8
[connectivity.bands_hz]
alpha = [8.0, 13.0]
[connectivity.emg]
max_order = 8
[network]
optimizers = ["adam"]
tuned = false
epochs = 2
batch = 4
[validation]
splits = ["80-20", "leave-one-subject-out"]
[executor]
kind = "serial"
"""
