"""The training loops: autoencoder (SGD with momentum) and mapper (Adadelta), after section 2.4 of the paper.

Randomness: initial weights are drawn under ``torch.manual_seed(seed)``; the order of the trials and the dropout of an
epoch depend on (seed, epoch) alone. torch's global generator is put back afterwards. A training that was killed and
started again from its checkpoint therefore ends with the same bits as one that ran through, given the same number of
threads (torch sums in another order on another number). The number of threads is the caller's; `thread_limit` sets it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from .accelerator import Accelerator
from .autoencoder import Autoencoder, build_autoencoder
from .checkpoints import training_key
from .communicator import Communicator
from .epochs import seeded, train_epochs
from .mappers import Mapper
from .protocols import AutoencoderTraining, MapperTraining, protocol_of
from .scaling import Scaling

_ENCODE_BATCH = 8  # volumes at once; bounds memory to about 200 MiB at 64³


OnEpoch = Callable[[int, float], None]


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    """Let torch use count threads inside the block; the one place of this folder that sets them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_autoencoder(
    volumes,
    mask: np.ndarray,
    train: np.ndarray | None,
    config: AutoencoderTraining,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    scaling: Scaling | None = None,
    accelerator: Accelerator = Accelerator(),
    communicator: Communicator | None = None,
) -> tuple[Autoencoder, list[float]]:
    """Train the autoencoder to rebuild the training volumes inside the mask.

    Input and target is (scaled volume) × mask. A volume is read when its batch comes, so memory beyond the volumes
    themselves is that of one batch (about 40 MiB a volume of 64³).

    Parameters
    ----------
    volumes : array-like (t, n, n, n), or callable
        Anything whose ``volumes[i]`` is a volume, or a function from indices (b,) to volumes (b, n, n, n). V/m or a
        firing rate if `scaling` is given, else already scaled.
    mask : array (n, n, n)
        1 (or True) in the motor cortex.
    train : int array, optional
        Training trials; all rows when None (not for a callable).
    config : AutoencoderTraining
        The protocol.
    seed : int
        Settles initial weights and the order of trials.
    checkpoint : path, optional
        File that holds the state after each epoch, within long ones at intervals, and when a stop is asked for; from it
        an interrupted training goes on. Rank 0 writes and reads it.
    on_epoch : callable, optional
        Called as ``on_epoch(epoch, loss)`` after the checkpoint is written.
    scaling : Scaling, optional
        Fitted on the training volumes; applied to each volume as it is read.
    accelerator : Accelerator, optional
        Where it is trained; the CPU without one.
    communicator : Communicator, optional
        The ranks that train it together: all call this function with the same arguments, each reads and computes its
        share of every batch, and all end with the same weights, up to rounding those of one process.

    Returns
    -------
    module : Autoencoder
        In evaluation mode, mask inside, on the CPU.
    loss : list of float
        Mean squared error of each epoch, without the penalty.

    Raises
    ------
    InputError
        A training volume is not finite or has another shape than the mask.
    ConvergenceError
        The loss is not finite.
    StopRequested
        `checkpoints.request_stop` was called; the checkpoint holds the state after the last step.

    Examples
    --------
    >>> config = AutoencoderTraining(epochs=1)
    >>> net, loss = fit_autoencoder(np.zeros((4, 8, 8, 8), np.float32), np.ones((8, 8, 8)), None, config, seed=1)
    >>> loss
    [0.0]
    """
    communicator = communicator or Communicator()
    rows = np.arange(len(volumes)) if train is None else np.asarray(train, np.int64)
    mask = np.asarray(mask, np.float32)
    kernel = protocol_of(config.protocol).code_kernel
    module = accelerator.place(seeded(seed, lambda: build_autoencoder(len(mask), torch.from_numpy(mask), kernel)))
    optimizer = torch.optim.SGD(module.parameters(), lr=config.learning_rate, momentum=config.momentum)

    def inputs(batch: np.ndarray) -> tuple[Tensor, ...]:
        return (accelerator.tensor(_read_volumes(volumes, batch, mask, scaling)),)

    def error(x: Tensor) -> Tensor:
        return functional.mse_loss(module(x), x)

    with communicator.together():  # tells data sets apart without reading them whole
        first = _read_volumes(volumes, rows[:1], mask, scaling).numpy()
    key = training_key("autoencoder", accelerator.described(), config, seed, rows, mask, scaling, first)
    kernels = [layer.weight for layer in module.convolutions()]
    how = checkpoint, on_epoch, accelerator, communicator
    loss = train_epochs(module, optimizer, kernels, inputs, error, rows, config, seed, key, *how)
    return module.cpu().eval(), loss


def encode_volumes(
    module: Autoencoder, volumes, rows: np.ndarray | None = None, scaling: Scaling | None = None
) -> np.ndarray:
    """Codes of volumes, a few at a time.

    Parameters
    ----------
    module : Autoencoder
        A trained net; its mask is applied to the volumes as in training.
    volumes : array-like (t, n, n, n), or callable
        As in `fit_autoencoder`.
    rows : int array, optional
        Trials to encode; all when None (not for a callable).
    scaling : Scaling, optional
        The one the net was trained with.

    Returns
    -------
    float32 array, shape (len(rows), n/4, n/4, n/4)

    Raises
    ------
    InputError
        A volume is not finite or has another shape than the mask.

    Examples
    --------
    >>> encode_volumes(build_autoencoder(8), np.zeros((3, 8, 8, 8), np.float32)).shape
    (3, 2, 2, 2)
    """
    rows = np.arange(len(volumes)) if rows is None else np.asarray(rows, np.int64)
    mask = module.mask.numpy()
    codes = np.empty((len(rows), *(n // 4 for n in mask.shape)), np.float32)
    with torch.no_grad():
        for start in range(0, len(rows), _ENCODE_BATCH):
            some = slice(start, start + _ENCODE_BATCH)
            codes[some] = module.encode(_read_volumes(volumes, rows[some], mask, scaling))[:, 0].numpy()
    return codes


def fit_mapper(
    build: Callable[[], Mapper],
    codes: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    config: MapperTraining,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    accelerator: Accelerator = Accelerator(),
) -> tuple[Mapper, list[float]]:
    """Train a mapper's outputs on targets, then settle its batch-norm statistics.

    Keras's momentum of 0.99 makes running statistics trail the weights by hundreds of steps: after a short training
    they still hold a good share of the initial 0 and 1 (64 % after 5 epochs of 9 steps). Unless the protocol wants them
    so, they are computed anew after the last epoch, over the training trials and with the final weights.

    Parameters
    ----------
    build : callable
        Makes the untrained mapper; called under ``torch.manual_seed(seed)``.
    codes : array, shape (t, n, n, n)
        Scaled codes.
    targets : array, shape (t, q)
        What ``mapper.outputs`` shall give: scaled muscles, activations or residuals. Only training rows are read.
    train : int array
        Training trials.
    config : MapperTraining
        The protocol; its `dropout` and `synergies` are the caller's to build with.
    seed, checkpoint, on_epoch, accelerator
        As in `fit_autoencoder`.

    Returns
    -------
    module : Mapper
        In evaluation mode, on the CPU.
    loss : list of float
        Mean squared error of each epoch, with dropout, without the penalty.

    Raises
    ------
    ConvergenceError
        The loss is not finite.
    StopRequested
        As in `fit_autoencoder`.

    Examples
    --------
    >>> from motorsweep.learn.mappers import build_mapper
    >>> codes, targets = np.zeros((8, 8, 8, 8), np.float32), np.zeros((8, 2), np.float32)
    >>> config = MapperTraining(epochs=2, batch=4)
    >>> net, loss = fit_mapper(lambda: build_mapper(3, "direct", 2, n=8), codes, targets, np.arange(6), config, seed=1)
    >>> len(loss)
    2
    """
    train = np.asarray(train, np.int64)
    x = torch.from_numpy(np.ascontiguousarray(codes[train], np.float32))[:, None]
    y = torch.from_numpy(np.ascontiguousarray(targets[train], np.float32))
    module = accelerator.place(seeded(seed, build))
    placed = accelerator.tensor(x), accelerator.tensor(y)
    # Keras's epsilon; torch's own is ten times larger and lets the first steps be larger, too.
    optimizer = torch.optim.Adadelta(module.parameters(), lr=config.learning_rate, rho=config.rho, eps=1e-7)

    def inputs(batch: np.ndarray) -> tuple[Tensor, ...]:
        return tuple(each[batch] for each in placed)

    def error(codes: Tensor, wanted: Tensor) -> Tensor:
        return functional.mse_loss(module.outputs(codes), wanted)

    key = training_key(str(module), accelerator.described(), config, seed, train, x.numpy(), y.numpy())
    protocol = protocol_of(config.protocol)
    kernels = [layer.weight for layer in module.weighted() if protocol.l1_dense or isinstance(layer, nn.Conv3d)]
    rows = np.arange(len(train))
    loss = train_epochs(
        module, optimizer, kernels, inputs, error, rows, config, seed, key, checkpoint, on_epoch, accelerator
    )
    module.cpu().eval()
    if protocol.settle_batch_norm:
        settle_batch_norm(module, x)
    return module, loss


def settle_batch_norm(module: Mapper, x: Tensor) -> None:
    """Set each batch norm's mean and variance to those of its input over all of x, one layer after another."""
    with torch.no_grad():
        batches = list(x.split(64))
        for layer in module.layers:
            if isinstance(layer, nn.BatchNorm3d):
                count = sum(b.numel() // b.shape[1] for b in batches)
                mean = sum(b.double().sum((0, 2, 3, 4)) for b in batches) / count
                offset = mean[:, None, None, None]
                variance = sum(((b.double() - offset) ** 2).sum((0, 2, 3, 4)) for b in batches) / count
                layer.running_mean.copy_(mean)
                layer.running_var.copy_(variance)
            batches = [layer(b) for b in batches]


def _read_volumes(volumes, rows: np.ndarray, mask: np.ndarray, scaling: Scaling | None) -> Tensor:
    """Volumes of rows as (b, 1, n, n, n) float32, scaled and masked."""
    some = volumes(rows) if callable(volumes) else [volumes[int(i)] for i in rows]
    x = np.empty((len(rows), 1, *mask.shape), np.float32)
    for target, row, volume in zip(x, rows, some, strict=True):
        volume = np.asarray(volume, np.float32)
        if volume.shape != mask.shape or not np.isfinite(volume).all():
            found = f"has shape {volume.shape}" if volume.shape != mask.shape else "holds values that are not finite"
            raise InputError(
                f"autoencoder: the volume of trial {row} {found}; a finite one of shape {mask.shape}, the mask's, is "
                "needed. Solve this pose again or leave the trial out."
            )
        target[0] = (volume if scaling is None else scaling.apply(volume)) * mask
    return torch.from_numpy(x)
