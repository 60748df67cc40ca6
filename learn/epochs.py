"""The loop over epochs that autoencoder and mappers share: order, dropout, rate, penalty, checkpoint, in that order."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..errors import ConvergenceError
from .checkpoints import load_checkpoint, save_checkpoint


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """What build makes when torch's generator starts from seed; the generator is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def train_epochs(module, optimizer, kernels, error, rows, config, seed, key, checkpoint, on_epoch) -> list[float]:
    """Train module in place; the mean error of each epoch.

    Parameters
    ----------
    module, optimizer : Module, Optimizer
        What is trained, and by what; both as they are before the first epoch.
    kernels : list of Parameter
        Weights under the L1 penalty.
    error : callable
        Differentiable mean error of the trials in an index array.
    rows : int array
        Training trials.
    config : AutoencoderTraining or MapperTraining
        Gives epochs, batch, learning_rate, decay, decay_every and l1.
    seed : int
        Settles, with the epoch's number, order and dropout.
    key : str
        Identity of this training in its checkpoint.
    checkpoint : path or None
        Where the state after each epoch is kept.
    on_epoch : callable or None
        Called as ``on_epoch(epoch, loss)`` after the checkpoint is written.

    Raises
    ------
    ConvergenceError
        The error of a batch is not finite.
    """
    loss = load_checkpoint(checkpoint, key, module, optimizer) if checkpoint is not None else []
    for epoch in range(len(loss), config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * config.decay ** (epoch // config.decay_every)
        loss.append(_train_epoch(module.train(), optimizer, kernels, error, rows, config, seed, epoch))
        if checkpoint is not None:
            save_checkpoint(checkpoint, key, module, optimizer, loss)
        if on_epoch is not None:
            on_epoch(epoch, loss[-1])
    return loss


def _train_epoch(module, optimizer, kernels, error, rows, config, seed: int, epoch: int) -> float:
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))
        for start in range(0, len(order), config.batch):
            batch = order[start : start + config.batch]
            optimizer.zero_grad()
            value = error(batch)
            if not torch.isfinite(value):
                raise ConvergenceError(
                    f"training, epoch {epoch + 1} of {config.epochs}: the loss became {value.item()} at a learning "
                    f"rate of {optimizer.param_groups[0]['lr']:g}, so the weights are lost. Check the inputs' scaling, "
                    "or lower learning_rate."
                )
            (value + config.l1 * sum(kernel.abs().sum() for kernel in kernels)).backward()
            optimizer.step()
            total += value.item() * len(batch)
    return total / len(order)
