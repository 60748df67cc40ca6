"""One step of a training whose global batch is shared by ranks: the same update everywhere, after one sum over ranks.

Each rank takes a contiguous share of the batch. The mean error of a share is weighted by the share's part of the batch,
and rank 0 alone counts the penalty, so that the sum of the gradients is that of the global batch's mean error plus the
penalty. What else ranks must agree on at each step travels in the same buffer: the error's value, whether a rank met an
error of its own, and whether one was asked to stop.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import InputError
from .accelerator import Accelerator
from .checkpoints import stop_requested, training_key
from .communicator import Communicator


class OwnGradients:
    """Sets the gradients of a module's parameters to those of a batch, in a process alone.

    Parameters
    ----------
    communicator : Communicator
    accelerator : Accelerator
        Where the module is.
    module : Module
        In training mode, with the same weights on every rank.
    error, penalty : callable
        Mean error of tensors; what is added to it, of no arguments.
    inputs : callable
        Tensors of the trials in an index array.
    """

    def __init__(self, communicator, accelerator: Accelerator, module: nn.Module, error, penalty, inputs):
        self.inputs = inputs
        self.gradients = accelerator.gradients(module, lambda *batch: (error(*batch), penalty()))

    def __call__(self, batch, before: Callable[[], None]) -> tuple[float, bool]:
        """As `SummedGradients` does."""
        before()
        return self.gradients(*self.inputs(batch)).item(), stop_requested()


class SummedGradients:
    """Sets the gradients of a module's parameters to those of a batch that ranks share; made as `OwnGradients` is."""

    def __init__(self, communicator, accelerator: Accelerator, module: nn.Module, error, penalty, inputs):
        self.communicator, self.inputs = communicator, inputs
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        counted = penalty if communicator.rank == 0 else lambda: 0.0
        # Not captured as a CUDA graph: while one rank captures, its communicator's threads may use the GPU, which CUDA
        # forbids.
        self.gradients = replace(accelerator, capture=False).gradients(
            module, lambda weight, *batch: (weight * error(*batch), counted())
        )

    def __call__(self, batch, before: Callable[[], None]) -> tuple[float, bool]:
        """Mean error of the global batch, and whether a rank was asked to stop; the same on every rank.

        Parameters
        ----------
        batch : int array
            Trials of the global batch.
        before : callable
            What this rank may have to do first and may fail at, such as to write a file.

        Raises
        ------
        Exception
            What any rank met, on all ranks.
        """
        value, failure = 0.0, None
        try:
            before()
            value = self._own(batch)
        except Exception as error:
            failure = error
        total = self.communicator.allreduce(self._buffer(value, failure))
        value, failed, stop = total[-3:].tolist()
        if failed:
            self.communicator.raise_first(failure)
        parts = total[:-3].split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view(parameter.shape)
        return value, bool(stop)

    def _own(self, batch) -> float | Tensor:
        """Set the gradients of this rank's share; its part of the error."""
        own = self.communicator.share(batch)
        if len(own):
            return self.gradients(len(own) / len(batch), *self.inputs(own))
        for parameter in self.parameters:
            parameter.grad = None
        return 0.0

    def _buffer(self, value, failure) -> Tensor:
        first = self.parameters[0]
        buffer = torch.zeros(sum(p.numel() for p in self.parameters) + 3, dtype=first.dtype, device=first.device)
        if failure is None:
            parts = buffer[:-3].split([parameter.numel() for parameter in self.parameters])
            for parameter, part in zip(self.parameters, parts, strict=True):
                if parameter.grad is not None:
                    part.view(parameter.shape).copy_(parameter.grad)
            buffer[-3] = value
        buffer[-2], buffer[-1] = failure is not None, stop_requested()
        return buffer


def check_same_start(communicator: Communicator, module: nn.Module, *parts: object) -> None:
    """Refuse ranks that are about to train something else than rank 0.

    Parameters
    ----------
    communicator : Communicator
    module : Module
        Before its first step.
    parts : objects
        What else settles the training, as in `training_key`.

    Raises
    ------
    InputError
        On every rank.
    """
    weights = [parameter.detach().cpu().numpy() for parameter in module.parameters()]
    own, error = training_key(*parts, *weights), None
    if communicator.broadcast(own) != own:
        error = InputError(
            f"training over {communicator.size} ranks: the settings, trials or initial weights of rank "
            f"{communicator.rank} are not those of rank 0, so that their gradients are of different nets. Start all "
            "ranks with the same command, study and version of torch."
        )
    communicator.raise_first(error)
