"""Training of the network of Table 1 as Table 2 says; and what that table leaves open.

================================  =====================================================================================
rate                              0.01 × 0.95 every two epochs, at most 10 epochs (Table 2)
validation error                  after every 4th step, that is mini-batch, and after the last (Table 2: "step 4")
patience                          20 validations in a row without a new lowest error (Table 2: "maximum chance")
mini-batch                        not in the paper. 32 here: with the 128 that MATLAB takes unless told otherwise, ten
                                  epochs of the paper's 720 training records are 60 steps, so that a patience of
                                  20 × 4 could never act
weights that are kept             not in the paper. Those with the lowest validation error ("best") here: where patience
                                  ends a training, the last ones are 80 steps past it. "last" keeps the last, as MATLAB
                                  did unless told otherwise until it changed to "best"
error                             mean squared error over all entries (Table 1). MATLAB's own regression layer takes
                                  half the sum over the 36 entries (``error="half sum"``): an SGD step of 18 times this
                                  one's. Adam and RMSprop hardly see the difference
optimizers                        momentum 0.9; Adam 0.9, 0.999; RMSprop 0.9; epsilon 1e-8 (MATLAB's)
order                             drawn anew for each epoch from (seed, epoch); the last, smaller batch counts too
================================  =====================================================================================

Nothing is scaled, as in the paper; `scale` is there for data whose Granger causalities are small beside 1.

A training that was killed and started again from its checkpoint ends with the same bits as one that ran through, given
the same number of threads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from .accelerator import Accelerator
from .checkpoints import training_key
from .emgnet import EmgNet, build_emgnet
from .epochs import seeded
from .matrix_records import FittedMatrices, MatrixRecords, check_records
from .matrix_steps import Watched, train_steps
from .record_splits import RecordSplit

_PREDICTED_AT_ONCE = 256

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda weights, rate: torch.optim.Adam(weights, lr=rate, betas=(0.9, 0.999), eps=1e-8),
    "sgdm": lambda weights, rate: torch.optim.SGD(weights, lr=rate, momentum=0.9),
    "rmsprop": lambda weights, rate: torch.optim.RMSprop(weights, lr=rate, alpha=0.9, eps=1e-8),
}
ERRORS = ("mean", "half sum")
KEEP = ("best", "last")


@dataclass(frozen=True, kw_only=True)
class EmgTraining:
    """How the network is trained; defaults as the module says.

    Parameters
    ----------
    optimizer : str
        One of `OPTIMIZERS`.
    epochs : int
        At most.
    learning_rate, decay, decay_every : float, float, int
        In epoch e (from 0) the rate is ``learning_rate * decay ** (e // decay_every)``.
    batch : int
        Records of a step.
    validation_every : int
        Steps between two validations.
    patience : int
        Validations in a row without a new lowest error, after which training ends; 0 for no end.
    keep : str
        Weights that are kept: of the lowest validation error ("best") or of the last step ("last").
    error : str
        "mean" or "half sum" (of a record's squared errors); curves are of the mean squared error either way.
    scale : bool
        Whether each measure is divided by its standard deviation, and outputs are in units of the targets' standard
        deviation about their mean matrix, both over the training records. The paper does neither.
    l2 : float
        Factor of half the squared kernels that is added to the error; MATLAB's own is 1e-4, the paper names none.

    Raises
    ------
    InputError
        A value out of range.

    Examples
    --------
    >>> [round(EmgTraining().rate(epoch), 6) for epoch in range(5)]
    [0.01, 0.01, 0.0095, 0.0095, 0.009025]
    """

    optimizer: str = "adam"
    epochs: int = 10
    learning_rate: float = 0.01
    decay: float = 0.95
    decay_every: int = 2
    batch: int = 32
    validation_every: int = 4
    patience: int = 20
    keep: str = "best"
    error: str = "mean"
    scale: bool = False
    l2: float = 0.0

    def __post_init__(self):
        for name, known in {"optimizer": OPTIMIZERS, "keep": KEEP, "error": ERRORS}.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"training the EMG network: {name} {getattr(self, name)!r} is not known; choose from "
                    f"{', '.join(known)}."
                )
        for name in ("epochs", "decay_every", "batch", "validation_every"):
            if not isinstance(getattr(self, name), Integral) or getattr(self, name) < 1:
                raise InputError(
                    f"training the EMG network: {name} is {getattr(self, name)}; it must be a whole number, at least 1."
                )
        if not (self.learning_rate > 0 and self.decay > 0 and self.patience >= 0 and 0 <= self.l2 < math.inf):
            raise InputError(
                f"training the EMG network: learning_rate {self.learning_rate}, decay {self.decay}, patience "
                f"{self.patience}, l2 {self.l2}; the first two must be above 0, the others not below it."
            )

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0."""
        return self.learning_rate * self.decay ** (epoch // self.decay_every)


def fit_emgnet(
    features: np.ndarray,
    targets: np.ndarray,
    split: RecordSplit,
    training: EmgTraining,
    seed: int,
    checkpoint: Path | None = None,
    accelerator: Accelerator = Accelerator(),
    on_epoch: Callable[[int, float], None] | None = None,
) -> FittedMatrices:
    """Train the network on the training records, watch the validation records, predict all.

    Test records change neither the weights nor any other record's prediction: they are predicted, and that is all.

    Parameters
    ----------
    features : array (n, measures, eeg, eeg)
        Connectivity of the EEG; at least 13 channels.
    targets : array (n, emg, emg)
        Connectivity of the EMG. Those of the test records are not read.
    split : RecordSplit
        With no validation records, training goes on to its last epoch and the last weights are kept.
    training : EmgTraining
    seed : int
        Settles initial weights and the order of records.
    checkpoint : path, optional
        File that holds the state at intervals, after the last step, and when a stop is asked for.
    accelerator : Accelerator, optional
        Where it is trained; the CPU without one. Predictions are computed on the CPU in float32.
    on_epoch : callable, optional
        Called as ``on_epoch(epoch, loss)`` after each epoch.

    Returns
    -------
    FittedMatrices
        ``loss``: ``training`` (mean squared error of each step's batch, before the step), ``validation_step`` (steps
        done at each validation) and ``validation`` (mean squared error over validation records). ``arrays``:
        ``best_step``, ``steps``, ``centre (measures, eeg, eeg)`` and the weights as ``weights.<name>``.

    Raises
    ------
    InputError
        As `check_records`, or too few EEG channels.
    ConvergenceError
        The error is not finite: the rate is too large for these data.
    StopRequested
        `checkpoints.request_stop` was called; the checkpoint holds the state after the last step.

    Examples
    --------
    >>> from .record_splits import record_splits
    >>> generator = np.random.default_rng(0)
    >>> features, targets = generator.random((10, 1, 13, 13)), generator.random((10, 2, 2))
    >>> split, = record_splits("80-20", ["a"] * 10, seed=1)
    >>> fitted = fit_emgnet(features, targets, split, EmgTraining(epochs=2), seed=1)
    >>> fitted.prediction.shape, fitted.loss["validation_step"]
    ((10, 2, 2), [2])
    """
    records = check_records(features, targets, split)
    x, y = _tensors(records, split.train)
    net = seeded(seed, lambda: build_emgnet(x.shape[1], x.shape[2], y.shape[1]))
    train = records.features[split.train], records.targets[split.train]
    net.normalise(train[0], train[1] if training.scale else None, spread=training.scale)
    validation = _tensors(records, split.validation) if len(split.validation) else None
    if validation is None:
        training = replace(training, keep="last")
    watched = Watched(net).to(accelerator.device)
    optimizer = OPTIMIZERS[training.optimizer](_groups(net, training.l2), training.learning_rate)
    data = {"train": (x, y), "validation": validation}
    key = training_key(
        "emgnet", str(net), accelerator.described(), training, seed, *(part.numpy() for part in (x, y)),
        *(part.numpy() for part in validation or ()),
    )  # fmt: skip
    train_steps(watched, optimizer, data, training, seed, key, checkpoint, accelerator, on_epoch)
    best = watched.kept(training.keep).cpu().eval()
    prediction = predict_matrices(best, records.features[records.predictable])
    return FittedMatrices(
        prediction=records.spread_over_all(prediction),
        loss=watched.curves(),
        arrays=_arrays(best, watched, training.keep),
        notes=_notes(watched, training, validation is None),
    )


def predict_matrices(net: EmgNet, features: np.ndarray) -> np.ndarray:
    """Matrices (n, emg, emg) for connectivity (n, measures, eeg, eeg), some records at a time.

    A record's prediction does not depend on which others are predicted with it: batches are filled up to one size.

    Raises
    ------
    InputError
        Features that are not finite, or of another shape than the network's input.

    Examples
    --------
    >>> predict_matrices(build_emgnet(1, 13, 2), np.zeros((3, 1, 13, 13))).shape
    (3, 2, 2)
    """
    features = np.asarray(features, np.float32)
    wanted = tuple(net.centre.shape)
    if features.shape[1:] != wanted or not np.isfinite(features).all():
        found = "hold values that are not finite" if features.shape[1:] == wanted else f"have shape {features.shape}"
        raise InputError(
            f"EMG network: the features {found}; finite ones of shape (records, {', '.join(map(str, wanted))}) are "
            "needed, as it was trained on. Leave out records that failed."
        )
    predicted = np.empty((len(features), net.n_emg, net.n_emg), np.float32)
    batch = np.zeros((_PREDICTED_AT_ONCE, *wanted), np.float32)
    with torch.no_grad():
        for start in range(0, len(features), len(batch)):
            some = features[start : start + len(batch)]
            batch[: len(some)] = some
            predicted[start : start + len(some)] = net(torch.from_numpy(batch))[: len(some)].numpy()
    return predicted


def _tensors(records: MatrixRecords, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    parts = records.features[rows], records.targets[rows]
    return tuple(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts)


def _groups(net: nn.Module, l2: float) -> list[dict]:
    """Kernels under the penalty and biases without, as MATLAB has it."""
    kernels = [weight for weight in net.parameters() if weight.ndim > 1]
    biases = [weight for weight in net.parameters() if weight.ndim == 1]
    return [{"params": kernels, "weight_decay": l2}, {"params": biases, "weight_decay": 0.0}]


def _arrays(net: EmgNet, watched: Watched, keep: str) -> dict[str, np.ndarray]:
    weights = {f"weights.{name}": value.numpy() for name, value in net.layers.state_dict().items()}
    step = watched.best_step if keep == "best" else watched.steps
    found = {"steps": np.array(watched.steps), "best_step": np.array(step), "centre": net.centre.numpy()}
    scaling = {name: getattr(net, name).numpy() for name in ("spread", "offset", "unit")}
    return {**found, **scaling, **weights}


def _notes(watched: Watched, training: EmgTraining, unwatched: bool) -> tuple[str, ...]:
    if unwatched:
        return (f"no validation records: the weights after the last of {watched.steps} steps are kept",)
    kept = f"the weights after step {watched.best_step}" if training.keep == "best" else "the last weights"
    if training.patience and watched.waited >= training.patience:
        return (f"stopped after {watched.steps} steps, {training.patience} validations past the best; {kept} are kept",)
    return (f"all {watched.steps} steps were done; {kept} are kept",)
