"""The loop over steps of the EMG network: validation every few of them, patience, the best weights, checkpoints."""

import math
import time
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConvergenceError
from . import checkpoints
from .accelerator import Accelerator
from .checkpoints import Progress, StopRequested, load_checkpoint, save_checkpoint, stop_requested


class Watched(nn.Module):
    """A network, the weights of its lowest validation error, and its curves: what a checkpoint has to hold.

    Parameters
    ----------
    net : Module
        Before its first step.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.best = net, deepcopy(net).requires_grad_(False)
        self.training_errors: list[float] = []
        self.validation_steps: list[int] = []
        self.validation_errors: list[float] = []

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.training_errors)

    @property
    def best_step(self) -> int:
        """Steps done at the lowest validation error; at the first of them, where they are equal. 0 before any."""
        return self.validation_steps[int(np.argmin(self.validation_errors))] if self.validation_errors else 0

    @property
    def waited(self) -> int:
        """Validations since the lowest error."""
        return len(self.validation_errors) - 1 - int(np.argmin(self.validation_errors)) if self.validation_errors else 0

    def note_validation(self, error: float) -> None:
        """Take down a validation error, and the weights if it is the lowest."""
        if not self.validation_errors or error < min(self.validation_errors):
            self.best.load_state_dict(self.net.state_dict())
        self.validation_steps.append(self.steps)
        self.validation_errors.append(error)

    def kept(self, keep: str) -> nn.Module:
        """The network with its best or its last weights."""
        return self.best if keep == "best" else self.net

    def curves(self) -> dict[str, list[float]]:
        """Errors of steps and validations."""
        return {
            "training": list(self.training_errors),
            "validation_step": list(self.validation_steps),
            "validation": list(self.validation_errors),
        }

    def get_extra_state(self) -> dict[str, list[float]]:
        """What torch keeps beside weights."""
        return self.curves()

    def set_extra_state(self, state: dict[str, list[float]]) -> None:
        """Take back what `get_extra_state` gave."""
        self.training_errors = [float(error) for error in state["training"]]
        self.validation_steps = [int(step) for step in state["validation_step"]]
        self.validation_errors = [float(error) for error in state["validation"]]


def train_steps(watched: Watched, optimizer, data, config, seed, key, checkpoint, accelerator, on_epoch) -> None:
    """Train the watched network in place.

    Parameters
    ----------
    watched : Watched
        On the accelerator's device.
    optimizer : Optimizer
        Of its network's weights.
    data : dict
        ``train`` (inputs, targets), and ``validation``: the same or None.
    config : EmgTraining
    seed : int
        Settles, with the epoch's number, the order of records.
    key : str
        Identity of this training in its checkpoint.
    checkpoint : path or None
    accelerator : Accelerator
    on_epoch : callable or None

    Raises
    ------
    ConvergenceError
        An error is not finite.
    StopRequested
        `checkpoints.request_stop` was called; the state is kept.
    """
    with checkpoints.under_way():
        loop = _Loop(watched, optimizer, data, config, seed, key, checkpoint, accelerator)
        while loop.goes_on():
            loop.step()
            if on_epoch is not None and watched.steps % loop.per_epoch == 0:
                on_epoch(watched.steps // loop.per_epoch - 1, loop.epoch_error())
    # Not before it is no longer under way: whoever asks later is told so.
    if stop_requested():
        raise StopRequested


class _Loop:
    """A training between two of its steps."""

    def __init__(self, watched, optimizer, data, config, seed, key, checkpoint, accelerator: Accelerator):
        self.watched, self.optimizer, self.config, self.seed = watched, optimizer, config, seed
        self.accelerator, self.key, self.checkpoint = accelerator, key, checkpoint
        self.inputs, self.targets = (accelerator.tensor(part) for part in data["train"])
        given = data["validation"]
        self.validation = None if given is None else tuple(accelerator.tensor(part) for part in given)
        net = watched.net.train()
        # What is minimised for each unit of the mean squared error. In units of scaled outputs, where they are scaled.
        self._per_mean = (self.targets[0].numel() / 2 if config.error == "half sum" else 1.0) / net.unit.item() ** 2
        self._gradients = accelerator.gradients(net, lambda x, y: (self._per_mean * _squared(net(x), y), 0.0))
        self.per_epoch = math.ceil(len(self.inputs) / config.batch)
        load_checkpoint(checkpoint, key, watched, optimizer)
        self._saved = time.monotonic()

    def goes_on(self) -> bool:
        """Whether another step is due; keeps the state when none is."""
        config, watched = self.config, self.watched
        patient = not config.patience or watched.waited < config.patience
        due = patient and watched.steps < self.per_epoch * config.epochs
        if not due:
            self._save()
        return due

    def step(self) -> None:
        """Do a step, validate if it is due, and keep the state if that is due."""
        epoch, place = divmod(self.watched.steps, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.inputs))
        batch = torch.from_numpy(order[place * self.config.batch : (place + 1) * self.config.batch])
        batch = batch.to(self.inputs.device)
        with self.accelerator.scope():
            error = self._gradients(self.inputs[batch], self.targets[batch]).item() / self._per_mean
            self._check("the error of a batch", error)
            self.optimizer.step()
            self.watched.training_errors.append(error)
            self._validate_if_due()
        if stop_requested():
            self._save()
            raise StopRequested
        if time.monotonic() - self._saved > checkpoints.CHECKPOINT_SECONDS:
            self._save()

    def epoch_error(self) -> float:
        """Mean error over the steps of the last epoch."""
        return float(np.mean(self.watched.training_errors[-self.per_epoch :]))

    def _validate_if_due(self) -> None:
        steps, last = self.watched.steps, self.per_epoch * self.config.epochs
        if self.validation is None:
            if steps == last and not all(torch.isfinite(weight).all() for weight in self.watched.net.parameters()):
                self._check("a weight after the last step", math.nan)
            return
        if steps % self.config.validation_every and steps != last:
            return
        with torch.no_grad(), self.accelerator.autocast():
            error = _squared(self.watched.net(self.validation[0]), self.validation[1]).item()
        self._check("the validation error", error)
        self.watched.note_validation(error)

    def _check(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        config = self.config
        rate = self.optimizer.param_groups[0]["lr"]
        raise ConvergenceError(
            f"training the EMG network with {config.optimizer}, step {self.watched.steps + 1}: {what} became {value} "
            f"at a learning rate of {rate:g}, so the weights are lost. The rate is too large for these features: lower "
            'learning_rate, give scale = true, or (with sgdm) error = "mean".'
        )

    def _save(self) -> None:
        if self.checkpoint is not None:
            # How far it has come lies in the watched network; to the checkpoint it is always between two epochs.
            save_checkpoint(self.checkpoint, self.key, self.watched, self.optimizer, Progress())
        self._saved = time.monotonic()


def _squared(predicted: Tensor, wanted: Tensor) -> Tensor:
    # In float32 whatever the precision of the products: squares of small errors vanish in bfloat16.
    return ((predicted.float() - wanted) ** 2).mean()
