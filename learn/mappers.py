"""The mappers of M2M-Net: codes (16³) to the responses of the muscles (sections 2.3 to 2.5 of the paper).

    trunk: 3 blocks of conv 3³ (16, 32, 64 filters), ReLU, batch norm, max-pool 2; flatten; dense 128, dense 32
    heads: "direct"   dense k, sigmoid
           "synergy"  dense r, sigmoid: the activations; times the fixed basis B (k, r): the muscles
                      (the released code: dense r, times B, sigmoid)
           "residual" a trunk with linear activations, dense k, tanh: what a synergy mapper leaves over

The connection "both" is a synergy and a residual mapper, trained one after the other; their predictions are added.

Where the paper leaves a choice: the order within a block and the pooling stride of 2 follow the authors' released
code. "Two identical convolution layers before each activation layer" (6-layer mapper) is read as conv, batch norm,
conv, ReLU, batch norm, pool: a batch norm after every convolution is what the parameter counts of Table 2 imply.
Batch norm has Keras's settings (momentum 0.99, epsilon 1e-3). Dropout follows both hidden dense layers; it does not
follow the output. Kernels start glorot-uniform, biases at zero; the last kernel of a residual mapper starts at zero,
unless the protocol is the released code's.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError
from .normalized_pooling import run_layers
from .protocols import Protocol, protocol_of

FILTERS = (16, 32, 64)
HIDDEN = (128, 32)


class Mapper(nn.Module):
    """A trunk and a head; `outputs` is what training fits, calling the module gives the muscles.

    Parameters
    ----------
    depth : int
        Convolution layers: 3 or 6.
    n_outputs : int
        Width of the last dense layer.
    final : Module
        Activation of the output.
    activation : str
        Inner activation: one of `ACTIVATIONS`, or "linear".
    dropout : float
        Share of hidden dense units that is dropped in training.
    n : int
        Voxels of a code along each axis; a multiple of 8.
    """

    def __init__(self, depth: int, n_outputs: int, final: nn.Module, activation: str, dropout: float, n: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for filters in FILTERS:
            layers += _block(channels, filters, depth // len(FILTERS), activation)
            channels = filters
        layers.append(nn.Flatten())
        width = channels * (n // 8) ** 3
        for hidden in HIDDEN:
            layers += [nn.Linear(width, hidden), _INNER[activation](), nn.Dropout(dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_outputs), final)
        for layer in self.weighted():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def weighted(self) -> list[nn.Module]:
        """The convolution and dense layers, from input to output."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv3d | nn.Linear)]

    def outputs(self, codes: Tensor) -> Tensor:
        """Output of the last activation (b, outputs) for codes (b, 1, n, n, n)."""
        return run_layers(self.layers, codes)

    def forward(self, codes: Tensor) -> Tensor:
        """Scaled responses (b, k) for codes (b, 1, n, n, n)."""
        return self.outputs(codes)


class SynergyMapper(Mapper):
    """A mapper whose outputs are activations of synergies; the fixed basis (k, r) turns them into muscles."""

    def __init__(self, basis: Tensor, **trunk):
        super().__init__(n_outputs=basis.shape[1], final=nn.Sigmoid(), **trunk)
        self.register_buffer("basis", basis.to(torch.float32))

    def forward(self, codes: Tensor) -> Tensor:
        """Scaled responses (b, k) for codes (b, 1, n, n, n): basis times activations (equation 4)."""
        return self.outputs(codes) @ self.basis.T


class MuscleSynergyMapper(Mapper):
    """The released code's synergy mapper: what the fixed basis (k, r) makes of r linear outputs, through a sigmoid.

    Its `outputs` are muscles, so that it is fitted to them; the activations can have either sign.
    """

    def __init__(self, basis: Tensor, **trunk):
        super().__init__(n_outputs=basis.shape[1], final=nn.Identity(), **trunk)
        self.register_buffer("basis", basis.to(torch.float32))

    def outputs(self, codes: Tensor) -> Tensor:
        """Scaled responses (b, k) for codes (b, 1, n, n, n)."""
        return torch.sigmoid(super().outputs(codes) @ self.basis.T)


_INNER = {"relu": nn.ReLU, "elu": nn.ELU, "linear": nn.Identity}
ACTIVATIONS = ("relu", "elu")


def _block(channels: int, filters: int, convolutions: int, activation: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv3d(channels, filters, 3, padding=1), nn.BatchNorm3d(filters, eps=1e-3, momentum=0.01)]
        channels = filters
    layers.insert(-1, _INNER[activation]())
    return [*layers, nn.MaxPool3d(2)]


def _direct(n_muscles: int, basis: Tensor | None, protocol: Protocol, **trunk) -> Mapper:
    return Mapper(n_outputs=n_muscles, final=nn.Sigmoid(), **trunk)


def _synergy(n_muscles: int, basis: Tensor | None, protocol: Protocol, **trunk) -> Mapper:
    if basis is None or basis.ndim != 2 or basis.shape[0] != n_muscles:
        found = "none" if basis is None else f"one of shape {tuple(basis.shape)}"
        raise InputError(
            f"synergy mapper for {n_muscles} muscles: it needs a basis of shape ({n_muscles}, synergies) and got "
            f"{found}. Give the basis of fit_nmf on the training trials."
        )
    return (SynergyMapper if protocol.fit_activations else MuscleSynergyMapper)(basis, **trunk)


def _residual(n_muscles: int, basis: Tensor | None, protocol: Protocol, **trunk) -> Mapper:
    mapper = Mapper(n_outputs=n_muscles, final=nn.Tanh(), **{**trunk, "activation": "linear"})
    # Starts as "the synergy mapper alone". A glorot-uniform output of ten linear layers saturates the tanh, from which
    # Adadelta at rate 1 comes back only after hundreds of steps: on 144 trials it was worse than no residual at all.
    if protocol.zero_residual:
        nn.init.zeros_(mapper.weighted()[-1].weight)
    return mapper


MAPPERS = {"direct": _direct, "synergy": _synergy, "residual": _residual}
DEPTHS = (3, 6)


def build_mapper(
    depth: int,
    connection: str,
    n_muscles: int = 15,
    basis: Tensor | None = None,
    dropout: float = 0.15,
    n: int = 16,
    activation: str = "relu",
    protocol: str = "paper",
) -> Mapper:
    """A fresh mapper, its weights drawn from torch's global generator.

    Parameters
    ----------
    depth : int
        Convolution layers: 3 or 6.
    connection : str
        One of `MAPPERS`: "direct", "synergy" or "residual".
    n_muscles : int
        k, muscles.
    basis : Tensor, shape (k, r), optional
        Synergy basis; needed by "synergy" only, and not trained.
    dropout : float
        Share of hidden dense units dropped in training, 0 ≤ dropout < 1.
    n : int
        Voxels of a code along each axis; a multiple of 8.
    activation : str
        Inner activation, one of `ACTIVATIONS`; a residual mapper is linear inside whatever stands here.
    protocol : str
        "paper" or "released" (see `learn.protocols`).

    Returns
    -------
    Mapper

    Raises
    ------
    InputError
        An unknown depth, connection, activation or protocol, a basis that does not fit, a dropout or n out of range.

    Examples
    --------
    >>> count_parameters(build_mapper(3, "direct"))
    140175
    """
    if connection not in MAPPERS or depth not in DEPTHS:
        raise InputError(
            f"mapper of depth {depth!r} and connection {connection!r} is not known; depths are "
            f"{', '.join(map(str, DEPTHS))}, connections {', '.join(MAPPERS)}. Change [mappers] in the study file."
        )
    if activation not in ACTIVATIONS:
        raise InputError(f"mapper: activation {activation!r} is not known; choose from {', '.join(ACTIVATIONS)}.")
    if n < 8 or n % 8 or not 0 <= dropout < 1:
        raise InputError(
            f"mapper for codes of {n}³ with dropout {dropout}: three poolings need n to be a multiple of 8 (volumes of "
            "a multiple of 32), and dropout must be at least 0 and below 1. Change [volume] n or [mappers] dropout."
        )
    trunk = {"depth": depth, "activation": activation, "dropout": dropout, "n": n}
    return MAPPERS[connection](n_muscles, basis, protocol_of(protocol), **trunk)


def count_parameters(*modules: nn.Module) -> int:
    """Trainable parameters of the modules together: the p of BIC and AICc. A synergy basis is not among them."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
