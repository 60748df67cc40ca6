"""A small features.zarr with numbers that are quick to make, written by the real writers: for tests and drawings."""

import numpy as np

from .features import FeatureAxes, create_features, write_feature_shard
from .ids import content_id
from .schema import Status

MEASURES = ("correlation", "coherence", "phase_lag_index", "granger", "dtf")


def write_mock_features(
    study, *, subjects=6, per_subject=8, n_eeg=13, n_emg=3, strength=1.0, noise=0.1, failed=(), planted=True, seed=0
):
    """Write connectivity features in which hidden factors move EEG and EMG together.

    Parameters
    ----------
    study : Study or path-like
    subjects, per_subject : int
        Half of a subject's records are of rest, half of activity.
    n_eeg, n_emg : int
    strength : float
        How far the factors move the EMG; at 0 the EEG tells nothing of it.
    noise : float
        Of the measured EMG matrices, about the expected ones.
    failed : sequence of int
        Records that failed.
    planted : bool
        Whether the expected matrices are stored.
    seed : int

    Returns
    -------
    str
        Id of the store.
    """
    generator = np.random.default_rng(seed)
    n = subjects * per_subject
    names = [f"s{s:02d}-r{r:02d}" for s in range(subjects) for r in range(per_subject)]
    who = [f"s{s:02d}" for s in range(subjects) for _ in range(per_subject)]
    doing = ["rest" if k % 2 else "activity" for k in range(n)]
    eeg, expected = _planted(generator, n, n_eeg, n_emg, strength)
    off = ~np.eye(n_emg, dtype=bool)
    measured = expected + noise * expected.std() * generator.standard_normal(expected.shape) * off
    axes = FeatureAxes(
        records=tuple(zip(names, who, doing)),
        measures=MEASURES,
        bands={},
        eeg_names=tuple(f"E{k}" for k in range(n_eeg)),
        emg_names=tuple(f"M{k}" for k in range(n_emg)),
        expected=planted,
    )
    made = {"strength": strength, "noise": noise, "seed": seed}
    store_id = create_features(study, axes, shard=n, attrs={"features_id": content_id(made)})
    status = np.full(n, int(Status.DONE))
    status[list(failed)] = int(Status.FAILED)
    rows = {"eeg_connectivity": eeg, "emg_granger": np.maximum(measured, 0) * off}
    rows |= {"emg_granger_expected": expected} if planted else {}
    rows |= {"eeg_order": np.full(n, 8), "emg_order": np.full(n, 12), "eeg_order_ms": np.full(n, 80.0)}
    rows |= {"emg_order_ms": np.full(n, 12.0), "eeg_rank": np.full(n, n_eeg - 1), "emg_rank": np.full(n, n_emg)}
    rows |= {"removed_components": np.arange(n) % 3, "length_s": np.full(n, 60.0), "seconds": np.full(n, 1.0)}
    reason = ["bad_input: E0 is flat" if k in failed else "" for k in range(n)]
    notes = ["E1 is saturated: 12 % of its samples at 5 V" if k == 1 else "" for k in range(n)]
    write_feature_shard(study, 0, status, reason=reason, notes=notes, **rows)
    return store_id


def _planted(generator, n, n_eeg, n_emg, strength):
    """EEG matrices (n, measures, eeg, eeg) and expected EMG matrices (n, emg, emg) that three factors move."""
    factors = generator.standard_normal((n, 3))
    moved = generator.standard_normal((3, len(MEASURES), n_eeg, n_eeg))
    eeg = 0.4 + 0.05 * np.tensordot(factors, moved, 1)
    eeg += 0.02 * generator.standard_normal(eeg.shape)
    base = generator.gamma(2.0, 0.05, (n_emg, n_emg))
    expected = base * np.exp(0.3 * strength * np.tensordot(factors, generator.standard_normal((3, n_emg, n_emg)), 1))
    return eeg.clip(0.01, 1), expected * ~np.eye(n_emg, dtype=bool)
