"""The state of a training after each epoch, in one file that is either whole or not there."""

import hashlib
import logging
import os
import pickle
from copy import deepcopy
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

log = logging.getLogger(__name__)

# What torch.load and load_state_dict raise on files that are truncated, overwritten or of another net.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError)
_DAMAGE += (pickle.UnpicklingError, BadZipFile)


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


def save_checkpoint(path: Path, key: str, module: nn.Module, optimizer: torch.optim.Optimizer, loss: list) -> None:
    """Replace the checkpoint at path: weights, optimizer state and the loss of each epoch done so far."""
    state = {"key": key, "module": module.state_dict(), "optimizer": optimizer.state_dict(), "loss": list(loss)}
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


def load_checkpoint(path: Path, key: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Put the checkpoint's state into module and optimizer; the loss of each epoch done.

    A missing checkpoint is no epochs. One that is damaged, or that another configuration, seed or data set made, is
    ignored with a warning in the log: the training then starts over, which costs time but never mixes two trainings.
    """
    path = Path(path)
    if not path.exists():
        return []
    fresh = deepcopy((module.state_dict(), optimizer.state_dict()))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["key"] != key:
            log.warning("checkpoint %s: it belongs to another training; this one starts at its first epoch", path)
            return []
        loss = [float(value) for value in state["loss"]]
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    except _DAMAGE as error:
        # torch may have copied some of the tensors before it met a bad one
        module.load_state_dict(fresh[0])
        optimizer.load_state_dict(fresh[1])
        log.warning("checkpoint %s: it cannot be read (%s); training starts at its first epoch", path, error)
        return []
    return loss
