"""Many mapper trainings of one architecture as one program: for a device that one small net leaves idle.

Each member has its own trials, order, dropout and penalty, those of `training.fit_mapper` with the same seed, and the
optimizer works number by number. So on a CPU each ends where it would have ended alone, up to rounding; on a GPU a
training alone draws its dropout there, and this one on the CPU, so that records tell fused ones. A member whose loss is
no longer finite is lost alone.

On a CPU a loop over the members is faster (benchmarks/training.py); `fused_pays` asks the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConvergenceError, InputError
from .accelerator import Accelerator, timed_choice
from .epochs import dropout_seed, seeded
from .fused_layers import FusedMappers
from .mappers import Mapper
from .protocols import MapperTraining, protocol_of
from .training import settle_batch_norm

_SHARED = ("protocol", "epochs", "batch", "learning_rate", "rho", "decay", "decay_every")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One training among many: the arguments of `training.fit_mapper`, of the same meaning."""

    build: Callable[[], Mapper]
    codes: np.ndarray
    targets: np.ndarray
    train: np.ndarray
    config: MapperTraining
    seed: int


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A member's mapper in evaluation mode on the CPU, its loss by epoch, and the error that ended it, if one did."""

    module: Mapper
    loss: list[float]
    error: ConvergenceError | None = None


def fit_fused_mappers(members: Sequence[Member], accelerator: Accelerator | None = None) -> list[Fitted]:
    """Train all members at once, each as `training.fit_mapper` would.

    Parameters
    ----------
    members : sequence of Member
        With equally many training trials, and protocols that differ in dropout and L1 at most.
    accelerator : Accelerator, optional
        Where; the CPU in float32 without one.

    Returns
    -------
    list of Fitted
        In the members' order. There are no checkpoints: what is fused is short.

    Raises
    ------
    InputError
        Architectures, numbers of trials or protocols differ.

    Examples
    --------
    >>> from .mappers import build_mapper
    >>> codes, targets = np.zeros((8, 8, 8, 8), np.float32), np.zeros((8, 2), np.float32)
    >>> common = {"codes": codes, "targets": targets, "train": np.arange(6), "config": MapperTraining(epochs=2)}
    >>> member = Member(build=lambda: build_mapper(3, "direct", 2, n=8), seed=1, **common)
    >>> [len(each.loss) for each in fit_fused_mappers([member, member])]
    [2, 2]
    """
    accelerator = accelerator or Accelerator()
    _check_members(members)
    modules = [seeded(member.seed, member.build) for member in members]
    fused = FusedMappers(modules).to(accelerator.device)
    config = members[0].config
    # as in `fit_mapper`
    optimizer = torch.optim.Adadelta(fused.parameters(), lr=config.learning_rate, rho=config.rho, eps=1e-7)
    x = accelerator.tensor(_stack(fused, [m.codes[m.train] for m in members]))
    y = accelerator.tensor(_stack(fused, [m.targets[m.train] for m in members]))
    gradients = accelerator.gradients(fused, fused_loss(fused, members))
    with accelerator.scope():
        losses = [_epoch(fused, optimizer, gradients, x, y, members, epoch) for epoch in range(config.epochs)]
    fused.cpu().copy_to(modules)
    return [_settled(*parts) for parts in zip(members, modules, np.transpose(losses), strict=True)]


def _stack(fused: FusedMappers, arrays: Sequence[np.ndarray]) -> Tensor:
    """Arrays of the members side by side, in the precision of their weights."""
    dtype = next(fused.parameters()).dtype
    return torch.stack([torch.from_numpy(np.ascontiguousarray(array)).to(dtype) for array in arrays])


def fused_loss(fused: FusedMappers, members: Sequence[Member]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Loss of each member, (members,), and its penalty, for `Accelerator.gradients`."""
    dense = protocol_of(members[0].config.protocol).l1_dense
    weights = next(fused.parameters()).new_tensor([member.config.l1 for member in members])

    def loss(codes: Tensor, targets: Tensor, *noise: Tensor) -> tuple[Tensor, Tensor]:
        error = functional.mse_loss(fused.outputs(codes, noise), targets, reduction="none").mean((1, 2))
        return error, weights * fused.absolute_weights(dense)

    return loss


def _epoch(fused, optimizer, gradients, x, y, members, epoch: int) -> np.ndarray:
    """One epoch in place; mean error of each member, NaN for one that is lost."""
    config, trials = members[0].config, x.shape[1]
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * config.decay ** (epoch // config.decay_every)
    orders = [np.random.default_rng([m.seed, epoch]).permutation(trials) for m in members]
    orders = torch.as_tensor(np.stack(orders), device=x.device)
    generators = [torch.Generator().manual_seed(dropout_seed(m.seed, epoch)) for m in members]
    each, total = torch.arange(len(members), device=x.device)[:, None], 0.0
    for start in range(0, trials, config.batch):
        batch = orders[:, start : start + config.batch]
        noise = [n.to(x) for n in fused.draw_dropout(generators, batch.shape[1])]
        error = gradients(x[each, batch], y[each, batch], *noise)
        optimizer.step()
        total = total + error.double() * batch.shape[1]
    return (total / trials).cpu().numpy()


def _settled(member: Member, module: Mapper, loss: np.ndarray) -> Fitted:
    error, lost = None, np.flatnonzero(~np.isfinite(loss))
    finite = all(torch.isfinite(parameter).all() for parameter in module.parameters())
    if len(lost) or not finite:
        epoch = lost[0] + 1 if len(lost) else len(loss)
        error = ConvergenceError(
            f"training, epoch {epoch} of {len(loss)}: the loss or some weights are no longer finite, so the weights "
            "are lost; the other members of the fused training go on. Check the inputs' scaling, or lower "
            "learning_rate or l1."
        )
    elif protocol_of(member.config.protocol).settle_batch_norm:
        x = torch.from_numpy(np.ascontiguousarray(member.codes[member.train]))[:, None]
        settle_batch_norm(module.eval(), x.to(next(module.parameters()).dtype))
    return Fitted(module=module.eval(), loss=[float(value) for value in loss], error=error)


def _check_members(members: Sequence[Member]) -> None:
    trials = {len(member.train) for member in members}
    protocols = {tuple(getattr(member.config, name) for name in _SHARED) for member in members}
    if len(trials) != 1 or len(protocols) != 1:
        raise InputError(
            f"fused training of {len(members)} mappers: they have {_numbers(trials)} training trials and "
            f"{len(protocols)} protocols. One program does the same steps for all: group members with equally many "
            f"trials and the same {', '.join(_SHARED)}."
        )


def _numbers(counts: set[int]) -> str:
    return " and ".join(map(str, sorted(counts))) or "no"


def fused_pays(members: Sequence[Member], accelerator: Accelerator) -> bool:
    """Whether one fused step is faster here than a step of each member in turn; a timed probe on copies.

    False on the CPU, where it never was, and where the accelerator is deterministic: rounding would then depend on
    a clock.

    Parameters
    ----------
    members : sequence of Member
        As in `fit_fused_mappers`.
    accelerator : Accelerator
        Where.
    """
    if accelerator.device.type == "cpu" or accelerator.deterministic:
        return False
    steps = {}
    for name, groups in (("loop", [[member] for member in members]), ("fused", [members])):
        runs = [_probe(group, accelerator) for group in groups]
        steps[name] = lambda runs=runs: [run() for run in runs]
    return timed_choice(steps, accelerator) == "fused"


def _probe(members: Sequence[Member], accelerator: Accelerator) -> Callable[[], None]:
    """One step of freshly built members, as a function."""
    fused = FusedMappers([seeded(member.seed, member.build) for member in members]).to(accelerator.device)
    optimizer = torch.optim.Adadelta(fused.parameters())
    gradients = accelerator.gradients(fused, fused_loss(fused, members))
    rows = [member.train[: member.config.batch] for member in members]
    x = accelerator.tensor(_stack(fused, [m.codes[r] for m, r in zip(members, rows)]))
    y = accelerator.tensor(_stack(fused, [m.targets[r] for m, r in zip(members, rows)]))
    noise = [n.to(x) for n in fused.draw_dropout([torch.Generator() for _ in members], x.shape[1])]

    def step() -> None:
        gradients(x, y, *noise)
        optimizer.step()

    return step
