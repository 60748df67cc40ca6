"""The loop over epochs that autoencoder and mappers share: order, dropout, rate, penalty, checkpoint, in that order."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..errors import ConvergenceError
from . import checkpoints
from .accelerator import Accelerator
from .checkpoints import StopRequested, load_checkpoint, save_checkpoint, stop_requested
from .communicator import Communicator
from .data_parallel import OwnGradients, SummedGradients, check_same_start


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """What build makes when torch's generator starts from seed; the generator is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def train_epochs(
    module,
    optimizer,
    kernels,
    inputs,
    error,
    rows,
    config,
    seed,
    key,
    checkpoint,
    on_epoch,
    accelerator=Accelerator(),
    communicator=Communicator(),
) -> list[float]:
    """Train module in place; the mean error of each epoch.

    Parameters
    ----------
    module, optimizer : Module, Optimizer
        What is trained, and by what; both as they are before the first epoch.
    kernels : list of Parameter
        Weights under the L1 penalty.
    inputs : callable
        Tensors of the trials in an index array.
    error : callable
        Differentiable mean error, from those tensors.
    rows : int array
        Training trials.
    config : AutoencoderTraining or MapperTraining
        Gives epochs, batch, learning_rate, decay, decay_every and l1.
    seed : int
        Settles, with the epoch's number, order and dropout.
    key : str
        Identity of this training in its checkpoint.
    checkpoint : path or None
        Where the state is kept: after each epoch, within one every `checkpoints.CHECKPOINT_SECONDS`, and at once when
        a stop is asked for. Rank 0 writes and reads it.
    on_epoch : callable or None
        Called as ``on_epoch(epoch, loss)`` after the checkpoint is written, on every rank.
    accelerator : Accelerator
        Where the module is, and how a step runs there.
    communicator : Communicator
        The ranks that share each batch. With several the error must be a mean over trials that are independent of each
        other: no batch norm, and no dropout, whose draws would depend on the number of ranks.

    Raises
    ------
    ConvergenceError
        The error of a batch is not finite.
    StopRequested
        `checkpoints.request_stop` was called, on any rank.
    """
    with checkpoints.under_way():
        training = _Training(
            module, optimizer, kernels, inputs, error, rows, config, seed, key, checkpoint, accelerator, communicator
        )
        for epoch in range(len(training.progress.loss), config.epochs):
            training.run_epoch(epoch)
            if on_epoch is not None:
                on_epoch(epoch, training.progress.loss[-1])
    # Not before it is no longer under way: whoever asks later is told so.
    training.stop_if_asked()
    return training.progress.loss


def dropout_seed(seed: int, epoch: int) -> int:
    """What torch's generator starts an epoch from."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


class _Training:
    """A training between two of its steps."""

    def __init__(
        self, module, optimizer, kernels, inputs, error, rows, config, seed, key, checkpoint, accelerator, communicator
    ):
        self.module, self.optimizer, self.rows, self.config, self.seed = module.train(), optimizer, rows, config, seed
        self.accelerator, self.communicator = accelerator, communicator
        self.checkpoint, self.key = checkpoint, communicator.broadcast(key)
        penalty = lambda: config.l1 * sum(kernel.abs().sum() for kernel in kernels)  # noqa: E731
        if communicator.size > 1:
            check_same_start(communicator, module, config, seed, rows)
        step = SummedGradients if communicator.size > 1 else OwnGradients
        self._gradients = step(communicator, accelerator, module, error, penalty, inputs)
        self.progress = load_checkpoint(checkpoint, self.key, module, optimizer, communicator)
        self._saved = time.monotonic()

    def run_epoch(self, epoch: int) -> None:
        """Do an epoch, or what is left of it, and keep its state."""
        config, progress = self.config, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * config.decay ** (epoch // config.decay_every)
        with self.accelerator.scope(), torch.random.fork_rng(devices=self.accelerator.generators()):
            mean = self._run_steps(epoch)
        if not all(torch.isfinite(parameter).all() for parameter in self.module.parameters()):
            raise ConvergenceError(_lost(epoch, config, "some weights are no longer finite", self.optimizer))
        progress.loss.append(mean)
        progress.step, progress.total, progress.generators = 0, 0.0, []
        self._save_together()

    def _run_steps(self, epoch: int) -> float:
        progress, size = self.progress, self.config.batch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        torch.manual_seed(dropout_seed(self.seed, epoch))
        self._set_generators()
        for start in range(progress.step * size, len(order), size):
            batch = order[start : start + size]
            value, stop = self._gradients(batch, self._save_if_due)
            if not math.isfinite(value):
                raise ConvergenceError(_lost(epoch, self.config, f"the loss became {value}", self.optimizer))
            self.optimizer.step()
            progress.total += value * len(batch)
            progress.step += 1
            if stop:
                self._save_together()
                raise StopRequested
        return progress.total / len(order)

    def stop_if_asked(self) -> None:
        """Stop after the last step, too, if any rank was asked to since: what comes next may take long."""
        if self.communicator.allreduce(torch.tensor(float(stop_requested()))):
            raise StopRequested

    def _save_together(self) -> None:
        with self.communicator.together():
            self._save()

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved > checkpoints.CHECKPOINT_SECONDS:
            self._save()

    def _save(self) -> None:
        if self.checkpoint is not None and self.communicator.rank == 0:
            if self.progress.step:
                self.progress.generators = self._generators()
            save_checkpoint(self.checkpoint, self.key, self.module, self.optimizer, self.progress)
        self._saved = time.monotonic()

    def _generators(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(each) for each in self.accelerator.generators())]

    def _set_generators(self) -> None:
        """Go on with the random numbers of a checkpoint within this epoch."""
        if self.progress.generators:
            torch.set_rng_state(self.progress.generators[0])
        for device, state in zip(self.accelerator.generators(), self.progress.generators[1:]):
            torch.cuda.set_rng_state(state, device)


def _lost(epoch: int, config, found: str, optimizer) -> str:
    return (
        f"training, epoch {epoch + 1} of {config.epochs}: {found} at a learning rate of "
        f"{optimizer.param_groups[0]['lr']:g}, so the weights are lost. Check the inputs' scaling, or lower "
        "learning_rate or l1."
    )
