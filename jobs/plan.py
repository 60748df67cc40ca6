"""The plan of a study: what is done, what is left, and what that will cost, from the study file and the stores."""

import os
from dataclasses import asdict, dataclass

import numpy as np

from ..hpc.identity import volumes_spec
from ..hpc.prepare import check_same_volumes
from ..hpc.solver_choice import pose_count
from ..hpc.sweep import Sweep, check_trials, validation_score
from ..hpc.trials import expected_trials_id, trial_intensities
from ..zarr_store.ids import content_id
from ..zarr_store.runs import run_state
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from ..zarr_store.volumes import open_volumes
from .plan_solver import SolverPlan, plan_solver
from .training_cost import measured_seconds, training_seconds


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage has done and has left.

    Parameters
    ----------
    verb, unit : str
    done, pending, failed : int
    core_hours : float
        Of what is pending, on one core.
    gigabytes : float
        Written by the whole stage, before compression.
    basis : str
        What the cost rests on.
    """

    verb: str
    unit: str
    done: int
    pending: int
    failed: int
    core_hours: float
    gigabytes: float
    basis: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a study.

    Parameters
    ----------
    name, path, folder, config_id : str
    stages : tuple of Stage
    shards : int
        Shards that are still to be written.
    trials : int
    workers : str
    solver : SolverPlan
    """

    name: str
    path: str
    folder: str
    config_id: str
    stages: tuple
    shards: int
    trials: int
    workers: str
    solver: SolverPlan

    def lines(self):
        """Lines for people."""
        lines = [f"study     {self.name}   (volumes {self.config_id}, {self.folder})", *self.solver.lines()]
        for stage in self.stages:
            counts = f"{stage.done} done, {stage.pending} pending" + (
                f", {stage.failed} failed" if stage.failed else ""
            )
            cost = f"about {hours_text(stage.core_hours)} ({stage.basis})" if stage.pending else "nothing to do"
            total = stage.done + stage.pending + stage.failed
            lines.append(f"{stage.verb:<9} {total} {stage.unit}: {counts}")
            lines.append(f"          {cost}, {bytes_text(stage.gigabytes)} in all" + self._shards(stage))
        hours = sum(stage.core_hours for stage in self.stages)
        lines.append(f"cost      {hours_text(hours)} left for {self.trials} trials; {self.workers}")
        pending = sum(stage.pending for stage in self.stages)
        lines.append("next      " + (f"motorsweep run {self.path}" if pending else "nothing is left to do"))
        return lines

    def _shards(self, stage):
        return f", {self.shards} shards to write" if stage.verb == "simulate" and stage.pending else ""

    def as_dict(self):
        """Plain values for scripts."""
        return asdict(self)


def hours_text(hours):
    """Write core-hours, as minutes where there is less than one."""
    return f"{hours * 60:.1f} core-minutes" if hours < 1 else f"{hours:.1f} core-hours"


def bytes_text(gigabytes):
    """Write a size, as MB where it is less than a GB."""
    return f"{gigabytes * 1e3:.0f} MB" if gigabytes < 1 else f"{gigabytes:.1f} GB"


def make_plan(config):
    r"""Plan of a study.

    Parameters
    ----------
    config : StudyConfig or EegConfig

    Returns
    -------
    Plan, or EegPlan of a study of EEG and EMG

    Raises
    ------
    StoreError
        If the folder's volumes were made from other settings.
    InputError
        If the file of poses or that of responses cannot be used.

    Examples
    --------
    >>> print("\n".join(make_plan(config).lines()))                               # doctest: +SKIP
    """
    if config.kind == "eeg":
        from .eeg_plan import make_eeg_plan

        return make_eeg_plan(config)
    study, spec = Study(config.folder), volumes_spec(config)
    begun = check_same_volumes(study, spec)
    solver = plan_solver(study, config)
    simulate, shards = _simulate(study, config, solver, begun)
    sweep = Sweep(config, expected_trials_id(study, config))
    measured, intensities = measured_seconds(study), _intensities(study, config)
    check_trials(config, intensities)
    trials = len(intensities)
    return Plan(
        name=config.name,
        path=os.path.relpath(config.path),
        folder=config.folder,
        config_id=content_id(spec),
        stages=(
            simulate,
            _encode(study, config, sweep, measured, trials),
            _train(study, config, sweep, measured, trials),
        ),
        shards=shards,
        trials=trials,
        workers=workers_text(config),
        solver=solver,
    )


def workers_text(config):
    """Write on what a study runs."""
    executor, simulate = config.executor, config.slurm.simulate
    if executor.kind == "slurm":
        return f"executor slurm, worker jobs {simulate.jobs}, workers in each {simulate.processes}"
    return f"executor {executor.kind}, workers {executor.workers or 'as many as fit'}"


def _intensities(study, config):
    """Of the trials that are there, else of those that the study will have."""
    if study.trials.exists():
        from ..zarr_store.trials import open_trials

        return open_trials(study)["intensity_percent_rmt"].values
    return trial_intensities(config, pose_count(config))


def _simulate(study, config, solver, begun):
    seconds, basis = solver.pose_seconds, f"at {solver.pose_seconds:.2g} s a pose, not yet measured"
    size = config.volume.n**3 * 4 * (4 if config.volume.components else 1) / 1e9
    if begun:
        volumes = open_volumes(study)
        status = volumes["status"].values
        done = status == int(Status.DONE)
        if done.any():
            seconds = float(np.nanmedian(volumes["seconds"].values[done]))
            basis = f"at {seconds:.2g} s a pose, median of {done.sum()}"
    else:
        status = np.zeros(pose_count(config), np.int8)
    pending = status == int(Status.PENDING)
    shards = len(np.unique(np.flatnonzero(pending) // config.solver.poses_per_shard))
    counts = {"done": int((status == int(Status.DONE)).sum()), "pending": int(pending.sum())}
    stage = Stage(
        verb="simulate",
        unit="poses",
        **counts,
        failed=len(status) - sum(counts.values()),
        core_hours=(counts["pending"] * seconds + (0 if counts["done"] else solver.basis_seconds)) / 3600,
        gigabytes=len(status) * size,
        basis=basis,
    )
    return stage, shards


def _encode(study, config, sweep, measured, trials):
    cost = lambda run: training_seconds(run, config, trials, measured)  # noqa: E731 - one line of wiring
    code = (config.volume.n // 4) ** 3 * 4 / 1e9
    return _stage(study, "encode", "autoencoders", sweep.autoencoders, cost, trials * code, measured)


def _train(study, config, sweep, measured, trials):
    first = sweep.configurations()[0]
    chosen = sweep.choose(lambda run_id: validation_score(study, run_id))
    # As long as nothing is chosen, the first values of the grid stand for the choice: they cost the same.
    chosen = {cell: values or first for cell, values in chosen.items()}
    runs = sweep.validation + list(sweep.final(chosen).values()) + list(sweep.curve().values())
    runs += sweep.below(runs) + sweep.baselines + sweep.curve_baselines
    runs = list({run.id: run for run in runs}.values())
    cost = lambda run: training_seconds(run, config, trials, measured)  # noqa: E731 - one line of wiring
    return _stage(study, "train", "trainings", runs, cost, 2e-3, measured)


def _stage(study, verb, unit, runs, cost, gigabytes_each, measured):
    states = [run_state(study, run.id) for run in runs]
    pending = [run for run, state in zip(runs, states) if state is Status.PENDING]
    known = "from this study's own trainings" if measured else "from docs/performance.md, not yet measured here"
    return Stage(
        verb=verb,
        unit=unit,
        done=states.count(Status.DONE),
        pending=len(pending),
        failed=states.count(Status.FAILED),
        core_hours=sum(cost(run) for run in pending) / 3600,
        gigabytes=len(runs) * gigabytes_each,
        basis=known,
    )
