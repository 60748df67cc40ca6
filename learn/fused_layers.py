"""Mappers of one architecture, side by side in one net: every layer of all of them is one operation.

Convolutions become the groups of one convolution, dense layers a batched product, channels those of one batch norm;
nothing of one member reaches another.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from .mappers import Mapper, MuscleSynergyMapper


class FusedMappers(nn.Module):
    """Mappers of one architecture, side by side; `outputs` are those of each, in training.

    Parameters
    ----------
    members : sequence of Mapper
        Alike in layers and shapes; dropout may differ. Their weights are copied.

    Raises
    ------
    InputError
        The members differ in more than weights and dropout.

    Examples
    --------
    >>> from .mappers import build_mapper
    >>> fused = FusedMappers([build_mapper(3, "direct", 2, n=8) for _ in range(4)])
    >>> fused.outputs(torch.zeros(4, 5, 8, 8, 8), fused.draw_dropout([torch.Generator() for _ in range(4)], 5)).shape
    torch.Size([4, 5, 2])
    """

    def __init__(self, members: Sequence[Mapper]):
        super().__init__()
        kinds = {(type(m), tuple(type(layer) for layer in m.layers), _shapes(m)) for m in members}
        if len(kinds) != 1:
            raise InputError(
                f"fused training of {len(members)} mappers: they are of {len(kinds)} architectures, and can only be "
                "trained as one program if layers and shapes agree. Group them by depth, connection and outputs."
            )
        self.members = len(members)
        columns = list(zip(*(m.layers for m in members), strict=True))
        self.layers = nn.ModuleList(_fuse(layers) for layers in columns)
        bases = torch.stack([m.basis for m in members]) if isinstance(members[0], MuscleSynergyMapper) else None
        self.register_buffer("basis", bases)

    def outputs(self, codes: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Outputs (members, b, q) for each member's own codes (members, b, n, n, n) and its factors of dropout."""
        x, noise = codes.transpose(0, 1), iter(noise)
        for layer in self.layers:
            if isinstance(layer, nn.Flatten):
                x = x.reshape(len(x), self.members, -1).transpose(0, 1)
            elif isinstance(layer, _FusedDropout):
                x = x * next(noise)
            else:
                x = layer(x)
        if self.basis is None:
            return x
        return torch.sigmoid(torch.bmm(x, self.basis.to(x).transpose(1, 2)))

    def draw_dropout(self, generators: Sequence[torch.Generator], batch: int) -> list[Tensor]:
        """Factors (members, batch, units) of each dropout layer: 0 or 1/(1 - share), drawn as torch's own layer does.

        The generators are the CPU's, one a member, and so is the result.
        """
        dtype = next(self.parameters()).dtype
        draws = [[d.draw(member, g, batch, dtype) for d in self._dropouts()] for member, g in enumerate(generators)]
        return [torch.stack(of_layer) for of_layer in zip(*draws, strict=True)]

    def _dropouts(self) -> list["_FusedDropout"]:
        units, found = 0, []
        for layer in self.layers:
            units = layer.weight.shape[2] if isinstance(layer, _FusedLinear) else units
            if isinstance(layer, _FusedDropout):
                layer.units = units
                found.append(layer)
        return found

    def absolute_weights(self, dense: bool) -> Tensor:
        """Sum of absolute values of each member's convolution kernels, and of its dense ones if asked: (members,)."""
        counted = _FusedConvolution | _FusedLinear if dense else _FusedConvolution
        kernels = [layer.weight for layer in self.layers if isinstance(layer, counted)]
        return sum(kernel.reshape(self.members, -1).abs().sum(1) for kernel in kernels)

    def copy_to(self, modules: Sequence[Mapper]) -> None:
        """Write each member's weights and running statistics into its own mapper."""
        with torch.no_grad():
            for column, fused in enumerate(self.layers):
                for member, module in enumerate(modules):
                    own = module.layers[column]
                    for name, values in fused.state_dict().items():
                        value = values.unflatten(0, (self.members, -1))[member]
                        getattr(own, name).copy_(value[0].t() if isinstance(own, nn.Linear) else value)


class _FusedConvolution(nn.Module):
    """One convolution each: weight (members·out, in, 3, 3, 3), the members as groups."""

    def __init__(self, layers: Sequence[nn.Conv3d]):
        super().__init__()
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
        self.groups, self.padding = len(layers), layers[0].padding

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv3d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)


class _FusedBatchNorm(nn.Module):
    """One batch norm each, over its own channels, by the statistics of the batch."""

    def __init__(self, layers: Sequence[nn.BatchNorm3d]):
        super().__init__()
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
        self.register_buffer("running_mean", torch.cat([layer.running_mean for layer in layers]))
        self.register_buffer("running_var", torch.cat([layer.running_var for layer in layers]))
        self.momentum, self.eps = layers[0].momentum, layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        running = self.running_mean, self.running_var
        return functional.batch_norm(x, *running, self.weight, self.bias, True, self.momentum, self.eps)


class _FusedLinear(nn.Module):
    """One dense layer each: weight (members, in, out)."""

    def __init__(self, layers: Sequence[nn.Linear]):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class _FusedDropout(nn.Module):
    """The share that each member drops; what is dropped comes in from outside, so that a graph can be captured."""

    def __init__(self, layers: Sequence[nn.Dropout]):
        super().__init__()
        self.shares, self.units = [layer.p for layer in layers], 0

    def draw(self, member: int, generator: torch.Generator, batch: int, dtype: torch.dtype) -> Tensor:
        kept, like = 1 - self.shares[member], torch.empty(batch, self.units, dtype=dtype)
        return torch.ones_like(like) if kept == 1 else like.bernoulli_(kept, generator=generator).div_(kept)


_FUSED = {
    nn.Conv3d: _FusedConvolution,
    nn.BatchNorm3d: _FusedBatchNorm,
    nn.Linear: _FusedLinear,
    nn.Dropout: _FusedDropout,
}


def _fuse(layers: Sequence[nn.Module]) -> nn.Module:
    return _FUSED[type(layers[0])](layers) if type(layers[0]) in _FUSED else deepcopy(layers[0])


def _shapes(module: nn.Module) -> tuple:
    return tuple(tuple(tensor.shape) for tensor in (*module.parameters(), *module.buffers()))
