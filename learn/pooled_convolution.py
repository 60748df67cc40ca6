"""A 3³ convolution followed by 2³ max-pooling, as one operation that is cheap in both directions on the CPU.

Of the eight convolution results in a pooling cell only the largest lives on, so in the backward pass seven eighths of
the convolution's gradient are exact zeros. Dense convolution routines multiply them all the same; the kernels here
remember which of the eight won and touch nothing else. The first layer, with one input channel, is also convolved and
pooled in one sweep, so that its full-size output (32 MiB a volume at 64³) is never written.

Arrays inside are channels-last, ``(x, y, z, channel)``; one volume is one unit of work, and volumes are spread over
as many Python threads as torch is allowed (the kernels release the interpreter lock). Sums over volumes are taken in
volume order, so these kernels give the same bits for every number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WIDTH = 32  # input channels of the wide layer; a compile-time constant, so that its loops unroll
_SPAN = 3 * WIDTH  # one row of a 3³ patch: three voxels along z, all channels, contiguous in memory
_VOLUMES_AT_ONCE = 4  # bounds the full-size output of the wide layer (8 MiB a volume at 64³)

# "contract" lets a*b + c be one fused instruction; sums keep their written order.
_compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_compiled
def _narrow_forward(volume, kernel, bias, pooled, winner):
    """Convolve a padded volume (2p+2,)*3 with kernel (27, c) and keep the largest of each 2³ cell and its number."""
    size_x, size_y, size_z, channels = pooled.shape
    value = np.empty((8, channels), volume.dtype)
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                for corner in range(8):
                    i, j, k = 2 * x + (corner >> 2), 2 * y + ((corner >> 1) & 1), 2 * z + (corner & 1)
                    for c in range(channels):
                        value[corner, c] = bias[c]
                    for row in range(9):
                        line = volume[i + row // 3, j + row % 3]
                        v0, v1, v2 = line[k], line[k + 1], line[k + 2]
                        for c in range(channels):
                            value[corner, c] += (
                                v0 * kernel[3 * row, c] + v1 * kernel[3 * row + 1, c] + v2 * kernel[3 * row + 2, c]
                            )
                for c in range(channels):
                    best, number = value[0, c], numba.int32(0)
                    for corner in range(1, 8):
                        if value[corner, c] > best or value[corner, c] != value[corner, c]:
                            best, number = value[corner, c], numba.int32(corner)
                    pooled[x, y, z, c], winner[x, y, z, c] = best, number


@_compiled
def _narrow_backward(volume, gradient, winner, moments):
    """Add gradient times the 4³ patch under each cell to moments (8, c, 64), sorted by the corner that won."""
    size_x, size_y, size_z, channels = gradient.shape
    patch = np.empty(64, volume.dtype)
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                for i in range(4):
                    for j in range(4):
                        for k in range(4):
                            patch[16 * i + 4 * j + k] = volume[2 * x + i, 2 * y + j, 2 * z + k]
                for c in range(channels):
                    value = gradient[x, y, z, c]
                    sums = moments[winner[x, y, z, c], c]
                    for m in range(64):
                        sums[m] += value * patch[m]


@_compiled
def _pool(full, pooled, winner):
    """Largest of each 2³ cell of full (2p, 2p, 2p, c), first one at ties as torch does, and its number."""
    size_x, size_y, size_z, channels = pooled.shape
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                best, number = pooled[x, y, z], winner[x, y, z]
                best[:] = full[2 * x, 2 * y, 2 * z]
                number[:] = 0
                for corner in range(1, 8):
                    candidate = full[2 * x + (corner >> 2), 2 * y + ((corner >> 1) & 1), 2 * z + (corner & 1)]
                    for c in range(channels):
                        if candidate[c] > best[c] or candidate[c] != candidate[c]:
                            best[c] = candidate[c]
                            number[c] = corner


@_compiled
def _row_start(winner, x, y, z, row):
    """Where one of the nine rows of the winning corner's 3³ patch begins: indices along x and y, offset along z."""
    corner = np.int64(winner)
    return 2 * x + (corner >> 2) + row // 3, 2 * y + ((corner >> 1) & 1) + row % 3, (2 * z + (corner & 1)) * WIDTH


@_compiled
def _wide_weight_gradient(source, gradient, winner, kernel_gradient):
    """Add to kernel_gradient (9, c, _SPAN) from padded source (q, q, q·WIDTH); gradient, winner are (x, y, c, z)."""
    size_x, size_y, channels, size_z = gradient.shape
    for x in range(size_x):
        for y in range(size_y):
            for row in range(9):
                for c in range(channels):
                    sums = kernel_gradient[row, c]
                    value, won = gradient[x, y, c], winner[x, y, c]
                    for z in range(0, size_z - 1, 2):  # two cells in one sweep: half the traffic on the sums
                        i, j, k = _row_start(won[z], x, y, z, row)
                        first = source[i, j, k : k + _SPAN]
                        i, j, k = _row_start(won[z + 1], x, y, z + 1, row)
                        second = source[i, j, k : k + _SPAN]
                        v0, v1 = value[z], value[z + 1]
                        for m in range(_SPAN):
                            sums[m] += v0 * first[m] + v1 * second[m]
                    if size_z % 2:
                        i, j, k = _row_start(won[size_z - 1], x, y, size_z - 1, row)
                        first = source[i, j, k : k + _SPAN]
                        for m in range(_SPAN):
                            sums[m] += value[size_z - 1] * first[m]


@_compiled
def _wide_source_gradient(kernel, gradient, winner, source_gradient):
    """Add to the padded source_gradient (q, q, q·WIDTH) from kernel (9, c, _SPAN); gradient, winner (x, y, c, z)."""
    size_x, size_y, channels, size_z = gradient.shape
    for x in range(size_x):
        for y in range(size_y):
            for row in range(9):
                for c in range(channels):
                    weights = kernel[row, c]
                    value, won = gradient[x, y, c], winner[x, y, c]
                    for z in range(size_z):
                        i, j, k = _row_start(won[z], x, y, z, row)
                        target = source_gradient[i, j, k : k + _SPAN]
                        v = value[z]
                        for m in range(_SPAN):
                            target[m] += v * weights[m]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="pooled-convolution")


def _for_each_volume(work: Callable[[int], object], batch: int) -> list:
    """Results of work(0), ..., work(batch - 1), on as many threads as torch may use."""
    threads = min(torch.get_num_threads(), batch)
    return [work(b) for b in range(batch)] if threads == 1 else list(_threads(threads).map(work, range(batch)))


def _channels_last(x: Tensor) -> np.ndarray:
    """View (or copy, where the layout differs) of a tensor (b, c, x, y, z) as an array (b, x, y, z, c)."""
    return x.detach().permute(0, 2, 3, 4, 1).contiguous().numpy()


def _channels_first(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).permute(0, 4, 1, 2, 3)


class _NarrowConvolutionPool(torch.autograd.Function):
    """One input channel; no gradient with respect to the input."""

    @staticmethod
    def forward(ctx, volumes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padded = functional.pad(volumes.detach()[:, 0], (1,) * 6).contiguous().numpy()
        channels, half = weight.shape[0], [n // 2 for n in volumes.shape[2:]]
        kernel = weight.detach().reshape(channels, 27).T.contiguous().numpy()
        pooled = np.empty((len(padded), *half, channels), padded.dtype)
        winner = np.empty(pooled.shape, np.uint8)
        constant = bias.detach().numpy()
        _for_each_volume(lambda b: _narrow_forward(padded[b], kernel, constant, pooled[b], winner[b]), len(padded))
        ctx.padded, ctx.winner = padded, winner
        return _channels_first(pooled)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        values = _channels_last(gradient)
        channels = values.shape[-1]

        def moments(b: int) -> np.ndarray:
            sums = np.zeros((8, channels, 64), values.dtype)
            _narrow_backward(ctx.padded[b], values[b], ctx.winner[b], sums)
            return sums

        total = sum(_for_each_volume(moments, len(values))).reshape(2, 2, 2, channels, 4, 4, 4)
        kernel = np.zeros((channels, 1, 3, 3, 3), values.dtype)
        for i, j, k in np.ndindex(2, 2, 2):  # the winning corner says where in the 4³ patch its 3³ window lies
            kernel[:, 0] += total[i, j, k][:, i : i + 3, j : j + 3, k : k + 3]
        return None, torch.from_numpy(kernel), gradient.sum((0, 2, 3, 4))


class _WideConvolutionPool(torch.autograd.Function):
    """WIDTH input channels: dense oneDNN convolution forward, only the winners backward."""

    @staticmethod
    def forward(ctx, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        batch, channels = source.shape[0], weight.shape[0]
        pooled = np.empty((batch, *(n // 2 for n in source.shape[2:]), channels), source.detach().numpy().dtype)
        winner = np.empty(pooled.shape, np.uint8)
        layout = weight.contiguous(memory_format=torch.channels_last_3d)
        for start in range(0, batch, _VOLUMES_AT_ONCE):
            some = source[start : start + _VOLUMES_AT_ONCE].contiguous(memory_format=torch.channels_last_3d)
            full = _channels_last(functional.conv3d(some, layout, bias, padding=1))
            target, number = pooled[start:], winner[start:]
            _for_each_volume(lambda b: _pool(full[b], target[b], number[b]), len(full))  # noqa: B023 used at once
        ctx.save_for_backward(source, weight)
        ctx.winner = winner
        return _channels_first(pooled)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        source, weight = ctx.saved_tensors
        batch, channels, shape = source.shape[0], weight.shape[0], source.shape[2:]
        values, sources = _channels_last(gradient), _channels_last(source)
        kernel = weight.detach().permute(2, 3, 0, 4, 1).reshape(9, channels, _SPAN).contiguous().numpy()
        outcome = np.empty(sources.shape, values.dtype)

        def gradients(b: int) -> np.ndarray:
            value, won = (np.ascontiguousarray(a.transpose(0, 1, 3, 2)) for a in (values[b], ctx.winner[b]))
            flat = (shape[0] + 2, shape[1] + 2, (shape[2] + 2) * WIDTH)
            sums = np.zeros_like(kernel)
            padded = np.pad(sources[b], ((1, 1), (1, 1), (1, 1), (0, 0))).reshape(flat)
            _wide_weight_gradient(padded, value, won, sums)
            padded[:] = 0
            _wide_source_gradient(kernel, value, won, padded)
            outcome[b] = padded.reshape(*flat[:2], -1, WIDTH)[1:-1, 1:-1, 1:-1]
            return sums

        sums = torch.from_numpy(sum(_for_each_volume(gradients, batch)))
        weight_gradient = sums.reshape(3, 3, channels, 3, WIDTH).permute(2, 4, 0, 1, 3)
        return _channels_first(outcome), weight_gradient, gradient.sum((0, 2, 3, 4))


def convolve_and_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3³ convolution with zero padding 1, then 2³ max-pooling with stride 2.

    Equal to ``max_pool3d(conv3d(x, weight, bias, padding=1), 2)`` up to rounding, gradients included; the fast
    kernels serve one input channel (without a gradient for it) and 32 input channels, on the CPU; torch's own
    operations serve the rest.

    Parameters
    ----------
    x : Tensor, shape (b, c, n, n, n)
        Input; n even.
    weight : Tensor, shape (d, c, 3, 3, 3)
        Convolution kernels.
    bias : Tensor, shape (d,)
        Added to every voxel of a channel.

    Returns
    -------
    Tensor, shape (b, d, n/2, n/2, n/2)

    Examples
    --------
    >>> convolve_and_pool(torch.zeros(1, 1, 4, 4, 4), torch.zeros(2, 1, 3, 3, 3), torch.ones(2)).shape
    torch.Size([1, 2, 2, 2, 2])
    """
    if x.device.type == "cpu" and x.shape[1] == 1 and not x.requires_grad:
        return _NarrowConvolutionPool.apply(x, weight, bias)
    if x.device.type == "cpu" and x.shape[1] == WIDTH:
        return _WideConvolutionPool.apply(x, weight, bias)
    return functional.max_pool3d(functional.conv3d(x, weight, bias, padding=1), 2)
