"""The device that a training runs on, and how one step is computed there.

On the CPU a step is what it says: forward, backward, in float32 and in the order written, so that nothing here changes
a bit. On a GPU forward and backward run under autocast to bfloat16 (weights, loss and optimizer stay in float32) and
are captured once as a CUDA graph, which then runs as one launch; the optimizer's step stays outside of it, so that
rates and checkpoints are as everywhere.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from .protocols import DEVICES

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")
_BYTES_EACH, _MOST_AT_ONCE = 6e9, 4
_WARM_UP = 3  # steps before a capture: libraries choose and load their kernels


def device_of(kind: str) -> torch.device:
    """The device that a study file's word means.

    Parameters
    ----------
    kind : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: the GPU where torch finds one.

    Raises
    ------
    InputError
        Another word, or ``"cuda"`` where torch finds no GPU.

    Examples
    --------
    >>> device_of("cpu")
    device(type='cpu')
    """
    if kind not in DEVICES:
        raise InputError(f"device {kind!r} is not known; choose from {', '.join(DEVICES)}.")
    found = torch.cuda.is_available()
    if kind == "cuda" and not found:
        raise InputError(
            'device "cuda" was asked for, and torch finds no GPU here: there is none, its driver is missing, or torch '
            'was installed without CUDA. Give "auto" or "cpu", or install a torch with CUDA on a machine with a GPU.'
        )
    return torch.device("cuda" if kind != "cpu" and found else "cpu")


def trainings_at_once(device: torch.device) -> int | None:
    """Training processes that share a GPU without crowding it; None on the CPU, whose memory others count.

    A captured autoencoder step of 32 volumes of 64³ holds some 5 GB (an estimate from its tensors, not measured).
    """
    if device.type == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(np.clip(free // _BYTES_EACH, 1, _MOST_AT_ONCE))


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """How trainings are computed.

    Parameters
    ----------
    device : torch.device
        Where weights and batches live.
    precision : str
        ``"float32"``, or ``"bfloat16"`` for autocast of convolutions and products.
    capture : bool
        Whether a step on a GPU is captured as a CUDA graph; no effect on the CPU.
    deterministic : bool
        Whether `timed_choice` takes the first candidate without a probe, and `scope` asks torch for deterministic
        kernels.

    Raises
    ------
    InputError
        An unknown precision.

    Examples
    --------
    >>> accelerator_of("cpu")
    Accelerator(device=device(type='cpu'), precision='float32', capture=False, deterministic=True)
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    capture: bool = False
    deterministic: bool = True

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r} is not known; choose from {', '.join(PRECISIONS)}.")

    def described(self) -> dict[str, str]:
        """Device and precision, for a record."""
        return {"device": str(self.device), "precision": self.precision}

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, its convolution kernels in channels-last memory."""
        return module.to(self.device, memory_format=torch.channels_last_3d)

    def tensor(self, values: np.ndarray | Tensor) -> Tensor:
        """The values on the device."""
        return torch.as_tensor(values).to(self.device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """Context in which a forward pass takes the precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def generators(self) -> list[torch.device]:
        """Devices beside the CPU whose random generator a training must put back (``fork_rng(devices=…)``)."""
        return [] if self.device.type == "cpu" else [self.device]

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Ask torch for deterministic kernels inside the block, if this accelerator is deterministic and on a GPU.

        cuBLAS reads CUBLAS_WORKSPACE_CONFIG when it is first used: it is set here where it is not, which is too late
        for a process that has used the GPU before. Operations without a deterministic kernel warn: of those used here
        that is 3-D max-pooling alone, whose gradient is not deterministic only where windows overlap. Here none do.
        """
        if self.device.type == "cpu" or not self.deterministic:
            yield
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        benchmark = torch.backends.cudnn.benchmark
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark = benchmark

    def gradients(self, module: nn.Module, loss: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
        """A function that sets the gradients of module's parameters.

        Parameters
        ----------
        module : Module
            What is trained; in training mode and on the device.
        loss : callable
            From tensors on the device to (error, penalty), computed under autocast. The gradient is of the sum of all
            entries of both; the error is given back.

        Returns
        -------
        callable
            From the same tensors to the error, detached. The parameters' ``grad`` is new, not added to.
        """
        eager = _Eager(self, module, loss)
        return _Captured(eager) if self.capture and self.device.type == "cuda" else eager


def accelerator_of(
    kind: str = "auto", precision: str | None = None, capture: bool = True, deterministic: bool = True
) -> Accelerator:
    """The accelerator for a study file's words; without a precision, bfloat16 on a GPU and float32 on the CPU.

    Raises
    ------
    InputError
        An unknown word, a GPU that is not there, or bfloat16 on the CPU.
    """
    device = device_of(kind)
    on_gpu = device.type == "cuda"
    if precision == "bfloat16" and not on_gpu:
        # torch 2.13's oneDNN gives infinite weight gradients for bfloat16 convolutions of 2³ voxels
        raise InputError(
            'precision "bfloat16" was asked for on the CPU, where some gradients of torch\'s bfloat16 convolutions are '
            'infinite. Give "float32", or a GPU.'
        )
    return Accelerator(
        device=device,
        precision=precision or ("bfloat16" if on_gpu else "float32"),
        capture=capture and on_gpu,
        deterministic=deterministic,
    )


class _Eager:
    """A step as it is written."""

    def __init__(self, accelerator: Accelerator, module: nn.Module, loss: Callable):
        self.accelerator, self.module, self.loss = accelerator, module, loss

    def __call__(self, *batch: Tensor) -> Tensor:
        self.module.zero_grad()
        with self.accelerator.autocast():
            error, penalty = self.loss(*batch)
        (error.sum() + (penalty.sum() if isinstance(penalty, Tensor) else penalty)).backward()
        return error.detach()


class _Captured:
    """Steps captured as CUDA graphs, one for each shape of the batch; eager from the first capture that fails."""

    def __init__(self, eager: _Eager):
        self.eager, self.graphs, self.failed = eager, {}, False

    def __call__(self, *batch: Tensor) -> Tensor:
        if self.failed:
            return self.eager(*batch)
        key = tuple((tensor.shape, tensor.dtype) for tensor in batch)
        if key not in self.graphs:
            try:
                self.graphs[key] = self._capture(batch)
            except RuntimeError as error:
                log.warning("the training step cannot be captured (%s); it runs without", str(error).splitlines()[0])
                self.failed = True
                return self.eager(*batch)
        graph, inputs, gradients, value = self.graphs[key]
        for target, source in zip(inputs, batch, strict=True):
            target.copy_(source)
        graph.replay()
        for parameter, gradient in zip(self.eager.module.parameters(), gradients, strict=True):
            parameter.grad = gradient
        return value.clone()

    def _capture(self, batch: tuple[Tensor, ...]):
        module, device = self.eager.module, self.eager.accelerator.device
        inputs = [tensor.clone() for tensor in batch]
        kept, generator = [(b, b.clone()) for b in module.buffers()], torch.cuda.get_rng_state(device)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UP):
                    self.eager(*inputs)
            torch.cuda.current_stream(device).wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            module.zero_grad()  # so that the gradients are made inside the graph
            with torch.cuda.graph(graph):
                value = self.eager(*inputs)
        finally:  # warming up is no training: neither batch norm nor dropout may see it
            for buffer, before in kept:
                buffer.copy_(before)
            torch.cuda.set_rng_state(generator, device)
        return graph, inputs, [parameter.grad for parameter in module.parameters()], value


def timed_choice(candidates: dict[str, Callable[[], object]], accelerator: Accelerator, steps: int = 3) -> str:
    """Name of the candidate whose step is the fastest here; of the first, where the accelerator is deterministic.

    Parameters
    ----------
    candidates : dict
        Name to a function that does one step; on copies, since these steps are done.
    accelerator : Accelerator
        Where the steps run.
    steps : int
        Steps that are timed, after one that is not; the median counts.

    Examples
    --------
    >>> timed_choice({"short": lambda: None, "long": lambda: time.sleep(0.01)}, Accelerator(deterministic=False))
    'short'
    """
    if accelerator.deterministic or len(candidates) == 1:
        return next(iter(candidates))
    seconds = {name: float(np.median(_seconds(step, accelerator, steps))) for name, step in candidates.items()}
    log.info("timed on %s: %s", accelerator.device, ", ".join(f"{n} {s * 1e3:.2f} ms" for n, s in seconds.items()))
    return min(seconds, key=seconds.get)


def _seconds(step: Callable[[], object], accelerator: Accelerator, steps: int) -> list[float]:
    taken = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        step()
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize(accelerator.device)
        taken.append(time.perf_counter() - began)
    return taken[1:]
