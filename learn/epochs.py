"""The loop over epochs that autoencoder and mappers share: order, dropout, rate, penalty, checkpoint, in that order."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..errors import ConvergenceError
from .accelerator import Accelerator
from .checkpoints import load_checkpoint, save_checkpoint


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """What build makes when torch's generator starts from seed; the generator is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def train_epochs(
    module, optimizer, kernels, inputs, error, rows, config, seed, key, checkpoint, on_epoch, accelerator=Accelerator()
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
        Where the state after each epoch is kept.
    on_epoch : callable or None
        Called as ``on_epoch(epoch, loss)`` after the checkpoint is written.
    accelerator : Accelerator
        Where the module is, and how a step runs there.

    Raises
    ------
    ConvergenceError
        The error of a batch is not finite.
    """
    loss = load_checkpoint(checkpoint, key, module, optimizer) if checkpoint is not None else []
    penalised = lambda *batch: (error(*batch), config.l1 * sum(kernel.abs().sum() for kernel in kernels))  # noqa: E731
    step = accelerator.gradients(module.train(), penalised)
    for epoch in range(len(loss), config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * config.decay ** (epoch // config.decay_every)
        with accelerator.scope(), torch.random.fork_rng(devices=accelerator.generators()):
            loss.append(_train_epoch(optimizer, lambda batch: step(*inputs(batch)), rows, config, seed, epoch))
        if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
            raise ConvergenceError(_lost(epoch, config, "some weights are no longer finite", optimizer))
        if checkpoint is not None:
            save_checkpoint(checkpoint, key, module, optimizer, loss)
        if on_epoch is not None:
            on_epoch(epoch, loss[-1])
    return loss


def dropout_seed(seed: int, epoch: int) -> int:
    """What torch's generator starts an epoch from."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def _train_epoch(optimizer, step, rows, config, seed: int, epoch: int) -> float:
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    total = 0.0
    torch.manual_seed(dropout_seed(seed, epoch))
    for start in range(0, len(order), config.batch):
        batch = order[start : start + config.batch]
        value = step(batch).item()
        if not math.isfinite(value):
            raise ConvergenceError(_lost(epoch, config, f"the loss became {value}", optimizer))
        optimizer.step()
        total += value * len(batch)
    return total / len(order)


def _lost(epoch: int, config, found: str, optimizer) -> str:
    return (
        f"training, epoch {epoch + 1} of {config.epochs}: {found} at a learning rate of "
        f"{optimizer.param_groups[0]['lr']:g}, so the weights are lost. Check the inputs' scaling, or lower "
        "learning_rate or l1."
    )
