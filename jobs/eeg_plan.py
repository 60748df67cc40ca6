"""The plan of a study of EEG and EMG: what is done, what is left, and what that will cost."""

import os
from collections import defaultdict
from dataclasses import asdict, dataclass

import numpy as np

from ..hpc.eeg_identity import check_same_features, planted_config, rows_before, study_records
from ..zarr_store.features import open_features
from ..zarr_store.ids import content_id
from ..zarr_store.runs import read_record, run_state
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from .plan import Stage, bytes_text, hours_text, workers_text

# One core, 60 s at 1 kHz of 25 channels (docs/eeg.md).
_RECORD_SECONDS = 1.0
_USUAL_VALUES = 60 * 1000 * 25
# Of a training record, on one core: an epoch of the network, and a predictor's fit.
_EPOCH_SECONDS, _FIT_SECONDS = 1e-3, 2e-3


@dataclass(frozen=True, kw_only=True)
class EegPlan:
    """The plan of a study of EEG and EMG.

    Parameters
    ----------
    name, path, folder, config_id : str
    source : str
        Where the records come from.
    notes : tuple of str
        What of the recordings is in no record, or shortened, and why.
    stages : tuple of Stage
    not_made : tuple of str
        Splits and networks that the records do not allow, and why.
    shards : int
        Shards that are still to be written.
    workers : str
    """

    name: str
    path: str
    folder: str
    config_id: str
    source: str
    notes: tuple
    stages: tuple
    not_made: tuple
    shards: int
    workers: str

    def lines(self):
        """Lines for people."""
        lines = [f"study     {self.name}   (features {self.config_id}, {self.folder})", f"records   {self.source}"]
        lines += [f"          {note}" for note in self.notes]
        for stage in self.stages:
            counts = f"{stage.done} done, {stage.pending} pending" + (
                f", {stage.failed} failed" if stage.failed else ""
            )
            total = stage.done + stage.pending + stage.failed
            if not total:
                lines.append(f"{stage.verb:<9} {stage.basis}")
                continue
            cost = f"about {hours_text(stage.core_hours)} ({stage.basis})" if stage.pending else "nothing to do"
            lines.append(f"{stage.verb:<9} {total} {stage.unit}: {counts}")
            shards = f", {self.shards} shards to write" if stage.verb == "simulate" and stage.pending else ""
            lines.append(f"          {cost}, {bytes_text(stage.gigabytes)} in all{shards}")
        lines += [f"          not made: {reason}" for reason in self.not_made]
        hours = sum(stage.core_hours for stage in self.stages)
        lines.append(f"cost      {hours_text(hours)} left; {self.workers}")
        return [*lines, f"next      {self._next()}"]

    def _next(self):
        simulate, _, train = self.stages
        if any(stage.pending or not stage.unit for stage in self.stages):
            return f"motorsweep run {self.path}"
        if train.done + train.failed:
            return "nothing is left to do"
        why = f"; `motorsweep status {self.path} --failed` says why records failed" if simulate.failed else ""
        return f"give more records that can be used, or other [validation] splits{why}"

    def as_dict(self):
        """Plain values for scripts."""
        return asdict(self)


def make_eeg_plan(config) -> EegPlan:
    r"""Plan of a study of EEG and EMG.

    Parameters
    ----------
    config : EegConfig

    Returns
    -------
    EegPlan

    Raises
    ------
    StoreError
        If the folder's features were made from other records or settings.
    InputError
        If there are no records.

    Examples
    --------
    >>> print("\n".join(make_eeg_plan(config).lines()))                           # doctest: +SKIP
    """
    study = Study(config.folder)
    records = study_records(study, config)
    same = check_same_features(study, records)
    simulate, shards = _simulate(study, config, records, same)
    encode = Stage(
        verb="encode", unit="matrices", done=0, pending=0, failed=0, core_hours=0.0, gigabytes=0.0,
        basis="nothing to do: the connectivity matrices are the codes",
    )  # fmt: skip
    train, not_made = _train(study, config, whole=same and not simulate.pending)
    return EegPlan(
        name=config.name,
        path=os.path.relpath(config.path),
        folder=config.folder,
        config_id=content_id(records.spec),
        source=_source(config, records),
        notes=records.notes,
        stages=(simulate, encode, train),
        not_made=not_made,
        shards=shards,
        workers=workers_text(config),
    )


def _source(config, records):
    count = len({subject for _, subject, _ in records.table})
    subjects = f"{count} subject{'' if count == 1 else 's'}"
    planted = planted_config(config)
    if planted is None:
        return f"{len(records.table)} of {subjects} in {config.records.source}"
    length = f"{planted.seconds:g} s at {planted.rate_hz:g} Hz, {planted.n_eeg} EEG and {planted.n_emg} EMG channels"
    return f"{len(records.table)} planted ones of {subjects}, {length}"


def _simulate(study, config, records, same):
    seconds, shard = _seconds_of_record(config), config.records.records_per_task
    basis = f"at {seconds:.2g} s a record, not yet measured"
    rows = np.arange(len(records.table)) if same else rows_before(study, records)
    status = np.full(len(rows), int(Status.PENDING))
    if (rows >= 0).any():
        features = open_features(study)
        status[rows >= 0] = features["status"].values[rows[rows >= 0]]
        shard = features.attrs["shard"] if same else shard
        done = features["status"].values == int(Status.DONE)
        if done.any():
            seconds = float(np.nanmedian(features["seconds"].values[done]))
            basis = f"at {seconds:.2g} s a record, median of {done.sum()}"
    counts = {state: int((status == int(state)).sum()) for state in Status}
    bands = 1 + len(config.connectivity.bands_hz)
    channels = planted_config(config).n_eeg if config.records.is_planted else 32
    stage = Stage(
        verb="simulate",
        unit="records",
        done=counts[Status.DONE],
        pending=counts[Status.PENDING],
        failed=counts[Status.FAILED],
        core_hours=counts[Status.PENDING] * seconds / 3600,
        gigabytes=len(status) * bands * len(config.connectivity.measures) * channels**2 * 4 / 1e9,
        basis=basis,
    )
    return stage, len(np.unique(np.flatnonzero(status == int(Status.PENDING)) // shard))


def _seconds_of_record(config):
    planted = planted_config(config)
    if planted is None:
        return _RECORD_SECONDS
    return _RECORD_SECONDS * planted.seconds * planted.rate_hz * (planted.n_eeg + planted.n_emg) / _USUAL_VALUES


def _train(study, config, whole):
    """Trainings of the records that are done, and why some are not made; before all are done they are not known."""
    if not whole:
        return Stage(
            verb="train", unit="", done=0, pending=0, failed=0, core_hours=0.0, gigabytes=0.0,
            basis="to be planned when all records are done: splits are of those that did not fail",
        ), ()  # fmt: skip
    from ..hpc.emg_sweep import EmgRecords, EmgSweep, splits_of  # with torch

    records = EmgRecords.of(open_features(study))
    splits, impossible = splits_of(config, records)
    if not splits:
        return Stage(
            verb="train", unit="trainings", done=0, pending=0, failed=0, core_hours=0.0, gigabytes=0.0,
            basis="impossible: the records allow none of the splits in [validation]",
        ), tuple(impossible.values())  # fmt: skip
    sweep = EmgSweep(config, records)
    runs = sweep.runs
    states = [run_state(study, run.id) for run in runs]
    pending = [run for run, state in zip(runs, states) if state is Status.PENDING]
    measured = _measured_seconds(study, [run for run, state in zip(runs, states) if state is Status.DONE])
    seconds = sum(measured.get(run.kind) or _training_seconds(run) for run in pending)
    stage = Stage(
        verb="train",
        unit="trainings",
        done=states.count(Status.DONE),
        pending=len(pending),
        failed=states.count(Status.FAILED),
        core_hours=seconds / 3600,
        gigabytes=len(runs) * 1e-3,
        basis="from this study's own trainings" if measured else "from docs/eeg.md, not yet measured here",
    )
    return stage, tuple(sweep.impossible.values())


def _measured_seconds(study, runs):
    """Median seconds of the trainings of each kind that are done."""
    seconds = defaultdict(list)
    for run in runs:
        seconds[run.kind].append(read_record(study, run.id)["seconds"])
    return {kind: float(np.median(found)) for kind, found in seconds.items()}


def _training_seconds(run):
    records = len(run.split.train)
    if run.kind == "network":
        return _EPOCH_SECONDS * records * run.spec["training"]["epochs"]
    return _FIT_SECONDS * records
