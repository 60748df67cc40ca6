"""The stage ``simulate`` of a study of EEG and EMG: records to connectivity matrices, a shard of records a task."""

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..learn.connectivity import ConnectivityConfig, connect
from ..sim.cleaning import CleaningConfig, clean, emg_power_gain
from ..sim.planted_recordings import PlantedConfig, planted_recording
from ..sim.recording_files import read_recording
from ..sim.signal_filters import decimated
from .channel_sets import check_still_whole, fault_line, in_study_order
from .mpi_executor import leads_group
from .outcomes import attempt
from .shard_of_records import ShardOfRecords


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """How all records of a study are read, cleaned and connected; plain values.

    Parameters
    ----------
    seed : int
        Of the study.
    planted : PlantedConfig or None
        None where records are read from files.
    rate_hz : float
        Samples per second of EEG and EMG after alignment, of records from files.
    cleaning : CleaningConfig
    eeg, emg : ConnectivityConfig
    eeg_rate_hz, emg_rate_hz : float
        At about which EEG and EMG are connected; 0: as they were cleaned.
    """

    seed: int
    planted: PlantedConfig | None
    rate_hz: float
    cleaning: CleaningConfig
    eeg: ConnectivityConfig
    emg: ConnectivityConfig
    eeg_rate_hz: float
    emg_rate_hz: float


@dataclass(frozen=True, kw_only=True)
class RecordsTask:
    """Read, clean, connect and store one shard of records; plain values, so that it goes to any worker.

    Parameters
    ----------
    study : str
        Study folder.
    start, stop : int
        Records ``start:stop``.
    names : tuple of str
        Of these records.
    features_id : str
        Of the store that the rows belong to.
    retry_failed : bool
        Do records again that failed before; otherwise they stay as they are.
    sources : tuple of RecordingSource
        Where they are read from; empty for planted ones.
    settings : RecordSettings
    eeg_names, emg_names : tuple of str
        Channels of the study, in its order.
    only : int or None
        Do this record of the shard alone and write nothing: to see whether its process survives.
    killers : tuple of (int, str)
        Records of the shard that kill their process, and how: not done, but written as failed.
    """

    study: str
    start: int
    stop: int
    names: tuple[str, ...]
    features_id: str
    sources: tuple
    settings: RecordSettings
    eeg_names: tuple[str, ...]
    emg_names: tuple[str, ...]
    only: int | None = None
    retry_failed: bool = False
    killers: tuple[tuple[int, str], ...] = ()

    @property
    def name(self):
        """What messages call it."""
        return f"records {self.start}:{self.stop}" if self.only is None else f"record {self.names[self.only]}"

    @property
    def size(self):
        """Records in the shard."""
        return self.stop - self.start

    def pieces(self):
        """Tasks that each do one record of the shard and write nothing, by the record's place in the shard."""
        return {int(k): replace(self, only=int(k)) for k in _to_do(self, ShardOfRecords(self))}

    def without(self, killers):
        """Return the task that writes some records as failed and does the others.

        Parameters
        ----------
        killers : dict of int to str
            How records kill their process, by place in the shard.

        Returns
        -------
        RecordsTask
        """
        return replace(self, killers=tuple(sorted(killers.items())))


@dataclass(frozen=True, kw_only=True)
class RecordsResult:
    """How a shard ended: records done now, and failed."""

    done: int
    failed: int


def connect_shard(task):
    """Read, clean and connect the records of a shard, and write it; a bad record fails alone, with its reason.

    Parameters
    ----------
    task : RecordsTask

    Returns
    -------
    RecordsResult
    """
    shard = ShardOfRecords(task)
    kept = int(shard.done.sum())
    for k, reason in task.killers:
        shard.fail(k, reason)
    for k in _to_do(task, shard):
        faults = []
        outcome = attempt(partial(connect_record, faults=faults), replace(task, only=int(k)))
        if outcome.ok:
            shard.put(k, outcome.value)
        else:
            shard.fail(k, f"{outcome.reason}: {outcome.message}", faults)
    if leads_group() and task.only is None:
        shard.write()
    done = int(shard.done.sum())
    return RecordsResult(done=done - kept, failed=task.size - done)


def write_failed_records(task, reason):
    """Write a shard whose task came to no end (its worker died, or ran out of memory): its records failed, with reason.

    Records that were done already (the task tried failed ones again, or died after it had written) stay done.

    Parameters
    ----------
    task : RecordsTask
    reason : str
    """
    shard = ShardOfRecords(task)
    for k in shard.left:
        shard.fail(k, reason)
    shard.write()


def _to_do(task, shard):
    """Records of a shard that a task does."""
    left = shard.left
    if task.only is not None:
        return left[left == task.only]
    return left[~np.isin(left, [k for k, _ in task.killers])]


def connect_record(task, faults=None):
    """Read, clean and connect one record.

    Parameters
    ----------
    task : RecordsTask
        With ``only``.
    faults : list, optional
        Takes the `ChannelFault` that were found on reading, also where the record then fails.

    Returns
    -------
    dict
        Row of the store, by name.

    Raises
    ------
    InputError
        For a record that cannot be used, with what was found.
    """
    began, settings = time.perf_counter(), task.settings
    recording, planted = _recording(task)
    (faults if faults is not None else []).extend(recording.faults)
    cleaned = clean(in_study_order(recording, task.eeg_names, task.emg_names), settings.cleaning)
    check_still_whole(cleaned.recording, task.eeg_names, task.emg_names)
    eeg = connect(*_slower(cleaned.recording, "eeg", settings.eeg_rate_hz), settings.eeg, names=task.eeg_names)
    emg = connect(*_slower(cleaned.recording, "emg", settings.emg_rate_hz), settings.emg, names=task.emg_names)
    values = {
        "eeg_connectivity": eeg.matrices[:, 0],
        "emg_granger": emg.matrices[0, 0],
        "length_s": cleaned.recording.seconds,
        "eeg_order": eeg.order,
        "emg_order": emg.order,
        "eeg_order_ms": eeg.order_ms,
        "emg_order_ms": emg.order_ms,
        "eeg_rank": cleaned.eeg_rank,
        "emg_rank": cleaned.emg_rank,
        "removed_components": len(cleaned.removed),
        "notes": "\n".join(_notes(cleaned, eeg, emg)),
    }
    if eeg.matrices.shape[1] > 1:
        values["eeg_connectivity_band"] = eeg.matrices[:, 1:]
    if planted is not None and truth_is_known(settings.cleaning):
        values["emg_granger_expected"] = _expected(planted, emg.order, settings)
    return values | {"seconds": time.perf_counter() - began}


def _recording(task):
    """The record as it comes, and what was planted in it, None where it was measured."""
    settings = task.settings
    if settings.planted is None:
        return read_recording(task.sources[task.only], settings.rate_hz), None
    planted = planted_recording(settings.planted, settings.seed, task.start + task.only)
    return planted.recording, planted


def _slower(recording, kind, rate_hz):
    """Signals of a kind at the lowest whole part of their rate that is not below `rate_hz`: (signals, Hz)."""
    signals, step = getattr(recording, kind), _step(recording.rate_hz, rate_hz)
    return decimated(signals, step), recording.rate_hz / step


def _step(have_hz, want_hz):
    return max(1, int(have_hz / want_hz + 1e-9)) if want_hz else 1


def truth_is_known(cleaning) -> bool:
    """Whether planted Granger causality has a closed form after this cleaning: it has of raw EMG alone."""
    return cleaning.emg == "raw"


def _expected(planted, order, settings):
    """The Granger causality that would be found in the planted record's raw EMG without error of estimation."""
    rate_hz = planted.recording.rate_hz
    return planted.expected_granger(
        "emg",
        order=order,
        every=_step(rate_hz, settings.emg_rate_hz),
        power_gain=emg_power_gain(settings.cleaning, rate_hz),
        floor=settings.emg.regularise,
        conditional=settings.emg.granger == "conditional",
    )


def _notes(cleaned, eeg, emg):
    recording = cleaned.recording
    yield from recording.notes
    yield from map(fault_line, recording.faults)
    for each in cleaned.removed:
        yield f"component {each.component} was removed ({each.rule}): {each.found}"
    for kind, found in (("EEG", eeg), ("EMG", emg)):
        yield from (f"{kind}: {note}" for note in found.notes)
