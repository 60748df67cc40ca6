"""ReLU, batch norm in training and 2³ max-pooling as one operation on the CPU, for the mappers' blocks.

Written one after another they read and write the full-size volumes (8 MB for a batch of 32 in the first block) a dozen
times; here it is twice forward and once backward. The gradient that comes through pooling belongs to one of eight
voxels, so the two sums that batch norm's gradient needs are over an eighth of the voxels. Sums are in float64 and are
added trial by trial, which makes the bits the same for every number of threads, and closer to the exact statistics
than torch's own in channels-last memory.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .pooled_convolution import channels_first, channels_last
from .volume_threads import compiled, for_each_volume


@compiled
def _moments(x, floor, sums):
    """Sum and sum of squares (2, c) of max(x, floor) over x (b, i, j, k, c), into sums (b, 2, c)."""
    batch, size_i, size_j, size_k, channels = x.shape
    for b in range(batch):
        total, squares = sums[b, 0], sums[b, 1]
        for i in range(size_i):
            for j in range(size_j):
                for k in range(size_k):
                    voxel = x[b, i, j, k]
                    for c in range(channels):
                        value = np.float64(max(voxel[c], floor))
                        total[c] += value
                        squares[c] += value * value


@compiled
def _pool(x, floor, mean, scale, bias, pooled, chosen, winner):
    """Largest scale·(max(x, floor) - mean) + bias of each 2³ cell, the max(x, floor) it is of, and its number."""
    batch, size_i, size_j, size_k, channels = pooled.shape
    for b in range(batch):
        for i in range(size_i):
            for j in range(size_j):
                for k in range(size_k):
                    best, from_value, number = pooled[b, i, j, k], chosen[b, i, j, k], winner[b, i, j, k]
                    for corner in range(8):
                        voxel = x[b, 2 * i + (corner >> 2), 2 * j + ((corner >> 1) & 1), 2 * k + (corner & 1)]
                        for c in range(channels):
                            value = max(voxel[c], floor)
                            result = scale[c] * (value - mean[c]) + bias[c]
                            if corner == 0 or result > best[c] or result != result:
                                best[c], from_value[c], number[c] = result, value, corner


@compiled
def _gradient_sums(gradient, chosen, sums):
    """Sums (2, c) of the gradient and of gradient times chosen value, into sums (b, 2, c)."""
    batch, size_i, size_j, size_k, channels = gradient.shape
    for b in range(batch):
        for i in range(size_i):
            for j in range(size_j):
                for k in range(size_k):
                    for c in range(channels):
                        value = np.float64(gradient[b, i, j, k, c])
                        sums[b, 0, c] += value
                        sums[b, 1, c] += value * chosen[b, i, j, k, c]


@compiled
def _spread_gradient(x, floor, gradient, winner, mean, scale, offset, slope, outcome):
    """Gradient of x, zero where it is not over floor: offset + slope·(x - mean), and scale·gradient at the winners."""
    batch, size_i, size_j, size_k, channels = gradient.shape
    for b in range(batch):
        for i in range(size_i):
            for j in range(size_j):
                for k in range(size_k):
                    cell, number = gradient[b, i, j, k], winner[b, i, j, k]
                    for corner in range(8):
                        u, v, w = 2 * i + (corner >> 2), 2 * j + ((corner >> 1) & 1), 2 * k + (corner & 1)
                        voxel, target = x[b, u, v, w], outcome[b, u, v, w]
                        for c in range(channels):
                            passed = scale[c] * cell[c] if number[c] == corner else cell.dtype.type(0)
                            value = offset[c] + slope[c] * (voxel[c] - mean[c]) + passed
                            target[c] = value if voxel[c] > floor else cell.dtype.type(0)


class _ReluNormPool(torch.autograd.Function):
    """x (b, c, i, j, k), weight and bias (c,) of batch norm, its epsilon, and whether ReLU comes before it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool):
        values = channels_last(x)
        batch, *shape, channels = values.shape
        floor = values.dtype.type(0 if relu else -np.inf)
        sums = np.zeros((batch, 2, channels))
        for_each_volume(lambda b: _moments(values[b], floor, sums[b]), _parts(batch))
        count = values.size // channels
        mean, square = sums.sum(0) / count
        variance = np.maximum(square - mean**2, 0)
        inverse = 1 / np.sqrt(variance + eps)
        scale = weight.detach().numpy() * inverse
        pooled = np.empty((batch, *(n // 2 for n in shape), channels), values.dtype)
        chosen, winner = np.empty_like(pooled), np.empty(pooled.shape, np.uint8)
        factors = [a.astype(values.dtype) for a in (mean, scale, bias.detach().numpy())]
        for_each_volume(lambda b: _pool(values[b], floor, *factors, pooled[b], chosen[b], winner[b]), _parts(batch))
        ctx.kept = values, floor, chosen, winner, scale, mean, inverse, count
        statistics = torch.from_numpy(mean), torch.from_numpy(variance * count / max(count - 1, 1))
        ctx.mark_non_differentiable(*statistics)
        return channels_first(pooled), *statistics

    @staticmethod
    def backward(ctx, gradient: Tensor, *_):
        values, floor, chosen, winner, scale, mean, inverse, count = ctx.kept
        gradients = channels_last(gradient)
        sums = np.zeros((len(values), 2, values.shape[-1]))
        for_each_volume(lambda b: _gradient_sums(gradients[b], chosen[b], sums[b]), _parts(len(values)))
        total, with_value = sums.sum(0)
        with_normalised = (with_value - mean * total) * inverse
        slope = -scale * inverse * with_normalised / count
        offset = -scale * total / count
        factors = [a.astype(values.dtype) for a in (mean, scale, offset, slope)]
        outcome = np.empty_like(values)
        for_each_volume(
            lambda b: _spread_gradient(values[b], floor, gradients[b], winner[b], *factors, outcome[b]),
            _parts(len(values)),
        )
        of_affine = [torch.from_numpy(a.astype(values.dtype)) for a in (with_normalised, total)]
        return channels_first(outcome), *of_affine, None, None


def _parts(batch: int) -> list[slice]:
    """The batch in as many parts as there are threads."""
    threads = min(torch.get_num_threads(), batch)
    return [slice(batch * k // threads, batch * (k + 1) // threads) for k in range(threads)]


def run_layers(layers: nn.Sequential, x: Tensor) -> Tensor:
    """layers(x), with activation, batch norm and pooling in one where that is possible: in training, on the CPU.

    Equal up to rounding, gradients and running statistics included.

    Parameters
    ----------
    layers : Sequential
        In which ReLU (or no activation: Identity), BatchNorm3d and MaxPool3d(2) may follow one another.
    x : Tensor, shape (b, c, n, n, n)

    Returns
    -------
    Tensor

    Examples
    --------
    >>> block = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(2), nn.MaxPool3d(2))
    >>> run_layers(block, torch.ones(3, 2, 4, 4, 4)).shape
    torch.Size([3, 2, 2, 2, 2])
    """
    fast = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    rest = list(layers)
    while rest:
        if fast and _is_block(rest[:3]):
            x = _block(*rest[:2], x)
            rest = rest[3:]
        else:
            x = rest.pop(0)(x)
    return x


def _is_block(layers: list[nn.Module]) -> bool:
    kinds = [type(layer) for layer in layers]
    if kinds[1:] != [nn.BatchNorm3d, nn.MaxPool3d] or kinds[0] not in (nn.ReLU, nn.Identity):
        return False
    norm, pool = layers[1:]
    return norm.training and norm.affine and norm.momentum is not None and pool.kernel_size == pool.stride == 2


def _block(activation: nn.Module, norm: nn.BatchNorm3d, x: Tensor) -> Tensor:
    relu = isinstance(activation, nn.ReLU)
    pooled, mean, variance = _ReluNormPool.apply(x, norm.weight, norm.bias, norm.eps, relu)
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
            norm.running_var.lerp_(variance.to(norm.running_var), norm.momentum)
    return pooled
