"""The state of a training at a step, in one file that is either whole or not there; and the wish that it should stop.

`request_stop` may be called in a signal handler. The training loop looks for it after each step, keeps its state, and
raises `StopRequested`.
"""

import hashlib
import io
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from .communicator import Communicator

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Time after which a training within an epoch keeps its state again."""

# What torch.load and load_state_dict raise on files that are truncated, overwritten or of another net.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError)
_DAMAGE += (pickle.UnpicklingError, BadZipFile)


class StopRequested(KeyboardInterrupt):
    """A training was asked to stop; it has kept its state, and the same command goes on from there.

    Not an `Exception`: no other training of this process may be begun, and none counts as failed.
    """


class _Stop:
    """Plain values, as a signal handler may not wait for a lock that the code it interrupts holds."""

    requested = False
    under_way = 0


def request_stop() -> bool:
    """Ask the trainings of this process to keep their state after the step that they are in, and to stop.

    Returns
    -------
    bool
        Whether a training is under way that will raise `StopRequested`. If not, nothing is going to happen before the
        next training's first step: whoever asks must stop the process by other means.

    Examples
    --------
    >>> request_stop(), stop_requested()
    (False, True)
    >>> forget_stop()
    """
    _Stop.requested = True
    return _Stop.under_way > 0


def stop_requested() -> bool:
    """Whether `request_stop` was called."""
    return _Stop.requested


def forget_stop() -> None:
    """Let trainings run again, in a process that goes on after a `StopRequested`."""
    _Stop.requested = False


@contextmanager
def under_way() -> Iterator[None]:
    """Let `request_stop` know that it will be heard; the block's owner looks at `stop_requested` after the block."""
    _Stop.under_way += 1
    try:
        yield
    finally:
        _Stop.under_way -= 1


@dataclass
class Progress:
    """How far a training has come.

    Parameters
    ----------
    loss : list of float
        Mean error of each epoch done.
    step : int
        Steps done in the epoch after those.
    total : float
        Sum of the errors of these steps, each times its trials.
    generators : list of Tensor
        States of torch's random generators after the last step: of the CPU, then of other devices; empty between
        epochs, which set them.

    Examples
    --------
    >>> Progress([0.5, 0.25]).step
    0
    """

    loss: list = field(default_factory=list)
    step: int = 0
    total: float = 0.0
    generators: list[Tensor] = field(default_factory=list)


def training_key(*parts: object) -> str:
    """Hash of what makes two trainings the same: configuration, seed, rows, arrays.

    Examples
    --------
    >>> training_key("spec", 1, np.arange(3)) == training_key("spec", 1, np.arange(3))
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(f"{part!r};".encode())
    return digest.hexdigest()


def save_checkpoint(
    path: Path, key: str, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Replace the checkpoint at path: weights, optimizer state and progress."""
    state = {"key": key, "module": module.state_dict(), "optimizer": optimizer.state_dict(), **vars(progress)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(
    path: Path | None,
    key: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    communicator: Communicator = Communicator(),
) -> Progress:
    """Put the checkpoint's state into module and optimizer; how far the training has come.

    Without a checkpoint nothing is done yet. One that is damaged, or that another configuration, seed or data set made,
    is ignored with a warning in the log: the training then starts over, which costs time but never mixes two trainings.
    With several ranks all have the state that rank 0 reads.
    """
    fresh, content, warn = deepcopy((module.state_dict(), optimizer.state_dict())), None, log.warning
    if communicator.rank:
        warn = log.debug
    try:
        if path is not None and communicator.rank == 0 and Path(path).exists():
            content = Path(path).read_bytes()
    except OSError as error:
        warn("checkpoint %s: it cannot be read (%s); training starts at its first epoch", path, error)
    content = communicator.broadcast(content)
    if content is None:
        return Progress()
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if state["key"] != key:
            warn("checkpoint %s: it belongs to another training; this one starts at its first epoch", path)
            return Progress()
        progress = _progress_in(state)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    except _DAMAGE as error:
        # torch may have copied some of the tensors before it met a bad one
        module.load_state_dict(fresh[0])
        optimizer.load_state_dict(fresh[1])
        warn("checkpoint %s: it cannot be read (%s); training starts at its first epoch", path, error)
        return Progress()
    return progress


def _progress_in(state: dict) -> Progress:
    """Progress of a checkpoint's state; an older one, which knows epochs alone, is between two of them."""
    loss = [float(value) for value in state["loss"]]
    generators = [torch.as_tensor(each, dtype=torch.uint8) for each in state.get("generators", ())]
    step = int(state.get("step", 0))
    if step and not generators:
        raise ValueError("it lies within an epoch and holds no state of the random generators")
    return Progress(loss, step, float(state.get("total", 0.0)), generators)
