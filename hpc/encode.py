"""The stage ``encode``: volumes to codes, one autoencoder training a task."""

import time
from dataclasses import dataclass

import numpy as np

from ..learn.accelerator import accelerator_of
from ..learn.communicator import Communicator
from ..learn.protocols import AutoencoderTraining
from ..learn.scaling import fit_scaling
from ..learn.splits import fold_split, labelled_subset, test_split
from ..learn.training import encode_volumes, fit_autoencoder
from ..sim.firing import firing_rate
from ..zarr_store.codes import has_codes, write_codes
from ..zarr_store.runs import write_run
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes, read_volumes
from .records import record_of
from .run_task import RunTask


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """What decides which trials a training sees."""

    test_fraction: float
    folds: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class EncodeTask(RunTask):
    """Train one autoencoder and keep the codes of all trials.

    Parameters
    ----------
    study, run, device, deterministic
        As in `RunTask`.
    training : AutoencoderTraining
    split : SplitConfig
    """

    training: AutoencoderTraining
    split: SplitConfig


def split_of(run, split, intensity):
    """Trials that a run trains on, and those that it is evaluated on.

    Parameters
    ----------
    run : Run
    split : SplitConfig
    intensity : ndarray (t,)
        Strata.

    Returns
    -------
    train, evaluate : ndarray of int
        Calibration and test set; with a fold, training and validation part of the calibration set; on a learning
        curve, as many of the calibration set as the run may see.
    """
    calibration, test = test_split(intensity, run.repeat, split.test_fraction, split.seed)
    if run.trials is not None:
        return labelled_subset(calibration, intensity, run.trials, split.seed, run.repeat), test
    if run.fold is None:
        return calibration, test
    return fold_split(calibration, intensity, run.fold, split.folds, split.seed, run.repeat)


def trial_inputs(study, kind):
    """Input volumes of all trials, before scaling.

    Parameters
    ----------
    study : Study
    kind : str
        ``"e_norm"``: |E| at the trial's dI/dt, V/m; ``"firing_rate"``: its neural response, 0 to 1.

    Returns
    -------
    inputs : ndarray (t, n, n, n) float32
        Zero outside the mask.
    mask : ndarray (n, n, n) bool
    """
    volumes, trials = open_volumes(study), open_trials(study)
    mask = volumes["motor_mask"].values
    poses, which = np.unique(trials["pose_index"].values, return_inverse=True)
    didt = trials["didt"].values
    inputs = np.empty((len(which), *mask.shape), np.float32)
    for k, pose in enumerate(poses):
        field = np.where(mask, read_volumes(study, [pose])[0], np.float32(0))
        for trial in np.flatnonzero(which == k):
            inputs[trial] = field * np.float32(didt[trial] * 1e-6)
    if kind == "firing_rate":
        for row in inputs:
            row[:] = firing_rate(row, trials.attrs["e50_v_per_m"], trials.attrs["slope_v_per_m"])
    return inputs, mask


def encode_run(task, communicator=None):
    """Train an autoencoder, encode all trials, write codes and record.

    Parameters
    ----------
    task : EncodeTask
    communicator : Communicator, optional
        The ranks that do it together: all call this function with the same task, each computes its share of every
        batch and of the codes, and rank 0 writes.

    Returns
    -------
    float
        Loss of the last epoch.
    """
    began, study, run = time.time(), Study(task.study), task.run
    communicator = communicator or Communicator()
    with communicator.together():
        trials = open_trials(study)
        train, _ = split_of(run, task.split, trials["intensity_percent_rmt"].values)
        inputs, mask = trial_inputs(study, run.input)
        scaling = fit_scaling(inputs[train][:, mask], kind=run.spec["scaling"])
        checkpoint = study.checkpoint(run.id)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        accelerator = accelerator_of(task.device, deterministic=task.deterministic)
    scaling = communicator.broadcast(scaling)  # ranks on unlike processors may differ in its last bit
    seed = run.spec["training_seed"]
    module, loss = fit_autoencoder(
        inputs, mask, train, task.training, seed, checkpoint, None, scaling, accelerator, communicator
    )
    codes = _encode_together(study, run, module, inputs, scaling, communicator)
    with communicator.together():
        if communicator.rank == 0:
            _write(study, run, codes, scaling, loss, began, accelerator, communicator)
    return float(loss[-1])


encode_run.data_parallel = True  # several ranks may call it with the same task and a communicator


def _encode_together(study, run, module, inputs, scaling, communicator):
    """Codes of all trials, on rank 0; None on the others, and where they are written already."""
    codes = None
    with communicator.together():
        wanted = not has_codes(study, run.id)
    if communicator.broadcast(wanted):
        with communicator.together():
            codes = encode_volumes(module, inputs, communicator.share(np.arange(len(inputs))), scaling)
        codes = communicator.gather(codes)
    return None if codes is None else np.concatenate(codes)


def _write(study, run, codes, scaling, loss, began, accelerator, communicator):
    if codes is not None:
        attrs = {"input": run.input, "repeat": run.repeat, "fold": -1 if run.fold is None else run.fold}
        write_codes(study, run.id, codes, attrs)
    how = accelerator.described() | ({"ranks": communicator.size} if communicator.size > 1 else {})
    arrays = {"scaling_offset": np.asarray(scaling.offset), "scaling_scale": np.asarray(scaling.scale)}
    record = record_of(run, began, scores={"loss": float(loss[-1])}, loss=loss, how=how)
    write_run(study, run.id, record, arrays)
