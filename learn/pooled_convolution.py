"""A 3³ convolution followed by 2³ max-pooling, as one operation that is cheap in both directions on the CPU.

Of the eight convolution results in a pooling cell only the largest lives on, so in the backward pass seven eighths of
the convolution's gradient are exact zeros. Dense convolution routines multiply them all the same; the kernels here
remember which of the eight won and touch nothing else. The first layer, with one input channel, is also convolved and
pooled in one sweep, so that its full-size output (32 MiB a volume at 64³) is never written.

Masked volumes are mostly empty. Where all that a cell sees is zero, the first layer gives its bias, and so the second
layer sees one and the same value over most of its volume; there its results are known from a volume of 6³ voxels that
holds this value alone (27 kinds of cells: at a face, edge or corner of the volume, or inside). Nothing else is
computed there, in either direction.

One volume is one unit of work (see `pooled_kernels`), and volumes are spread over as many Python threads as torch is
allowed. Sums over volumes are taken in volume order, so the kernels give the same bits for every number of threads.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .pooled_kernels import (
    SPAN,
    WIDTH,
    busy_cells,
    fill_background,
    narrow_backward,
    narrow_forward,
    pool,
    sum_background,
    wide_source_gradient,
    wide_weight_gradient,
)
from .volume_threads import for_each_volume

_VOLUMES_AT_ONCE = 4  # bounds the full-size output of the wide layer (8 MiB a volume at 64³)
_SLAB = 2  # cells along x for which one box bounds the busy ones


class Background(NamedTuple):
    """Voxels that are known to hold one value: ``where`` (b, n, n, n) of bool, ``value`` (c,) of the channels."""

    where: Tensor
    value: Tensor


def channels_last(x: Tensor) -> np.ndarray:
    """View (or copy, where the layout differs) of a tensor (b, c, x, y, z) as an array (b, x, y, z, c)."""
    return x.detach().permute(0, 2, 3, 4, 1).contiguous().numpy()


def channels_first(x: np.ndarray) -> Tensor:
    """View of an array (b, x, y, z, c) as a tensor (b, c, x, y, z)."""
    return torch.from_numpy(x).permute(0, 4, 1, 2, 3)


class _NarrowConvolutionPool(torch.autograd.Function):
    """One input channel; no gradient with respect to the input. Also tells which cells see zeros alone."""

    @staticmethod
    def forward(ctx, volumes: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        padded = functional.pad(volumes.detach()[:, 0], (1,) * 6).contiguous().numpy()
        channels, half = weight.shape[0], [n // 2 for n in volumes.shape[2:]]
        pooled = np.empty((len(padded), *half, channels), padded.dtype)
        winner, empty = np.empty(pooled.shape, np.uint8), np.empty(pooled.shape[:-1], np.bool_)
        kernel = weight.detach().reshape(channels, 27).T.contiguous().numpy()
        constant = bias.detach().numpy()
        for_each_volume(
            lambda b: narrow_forward(padded[b], kernel, constant, pooled[b], winner[b], empty[b]), len(padded)
        )
        ctx.padded, ctx.winner, ctx.empty = padded, winner, empty
        where = torch.from_numpy(empty)
        ctx.mark_non_differentiable(where)
        return channels_first(pooled), where

    @staticmethod
    def backward(ctx, gradient: Tensor, _) -> tuple[None, Tensor, Tensor]:
        values = channels_last(gradient)
        channels = values.shape[-1]

        def moments(b: int) -> np.ndarray:
            sums = np.zeros((8, channels, 64), values.dtype)
            narrow_backward(ctx.padded[b], values[b], ctx.winner[b], ctx.empty[b], sums)
            return sums

        total = sum(for_each_volume(moments, len(values))).reshape(2, 2, 2, channels, 4, 4, 4)
        kernel = np.zeros((channels, 1, 3, 3, 3), values.dtype)
        for i, j, k in np.ndindex(2, 2, 2):  # the winning corner says where in the 4³ patch its 3³ window lies
            kernel[:, 0] += total[i, j, k][:, i : i + 3, j : j + 3, k : k + 3]
        return None, torch.from_numpy(kernel), gradient.sum((0, 2, 3, 4))


def _boxes(busy: np.ndarray) -> list[tuple[slice, slice, slice]]:
    """Boxes of cells that cover the busy ones (x, y, z): all, or one for each slab of a few cells along x."""
    if busy.all():
        return [tuple(slice(0, n) for n in busy.shape)]
    found = []
    for start in range(0, len(busy), _SLAB):
        slab = busy[start : start + _SLAB]
        if slab.any():
            ends = [np.flatnonzero(slab.any(other))[[0, -1]] for other in ((0, 2), (0, 1))]
            found.append((slice(start, start + len(slab)), *(slice(first, last + 1) for first, last in ends)))
    return found


class _WideConvolutionPool(torch.autograd.Function):
    """WIDTH input channels: dense oneDNN convolution forward, only the winners backward; of busy cells, in both.

    base (1, d, 3, 3, 3) holds the results of the other cells, by kind; busy (b, n/2, n/2, n/2).
    """

    @staticmethod
    def forward(ctx, source: Tensor, weight: Tensor, bias: Tensor, base: Tensor, busy: np.ndarray) -> Tensor:
        pooled = np.empty((*busy.shape, len(weight)), source.detach().numpy().dtype)
        winner = np.empty(pooled.shape, np.uint8)
        layout = weight.contiguous(memory_format=torch.channels_last_3d)
        for start in range(0, len(source), _VOLUMES_AT_ONCE):
            some = slice(start, start + _VOLUMES_AT_ONCE)
            padded = functional.pad(source[some], (1,) * 6)
            for box in _boxes(busy[some].any(0)):
                window = padded[(..., *(slice(2 * cells.start, 2 * cells.stop + 2) for cells in box))]
                window = window.contiguous(memory_format=torch.channels_last_3d)
                full = channels_last(functional.conv3d(window, layout, bias))
                target, number = pooled[(some, *box)], winner[(some, *box)]
                for_each_volume(lambda b: pool(full[b], target[b], number[b]), len(full))  # noqa: B023 used at once
        elsewhere = channels_last(base)[0]
        for_each_volume(lambda b: fill_background(elsewhere, busy[b], pooled[b]), len(busy))
        ctx.save_for_backward(source, weight)
        ctx.winner, ctx.busy = winner, busy
        return channels_first(pooled)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        source, weight = ctx.saved_tensors
        channels, busy = weight.shape[0], ctx.busy
        values, sources = channels_last(gradient), channels_last(source)
        kernel = weight.detach().permute(2, 3, 0, 4, 1).reshape(9, channels, SPAN).contiguous().numpy()
        outcome = np.empty(sources.shape, values.dtype)

        def gradients(b: int) -> tuple[np.ndarray, np.ndarray]:
            sums, elsewhere = np.zeros_like(kernel), np.zeros((3, 3, 3, channels), values.dtype)
            padded = _pad(sources[b])
            edges, flat = padded.shape[:3], padded.reshape(-1)
            wide_weight_gradient(flat, edges, values[b], ctx.winner[b], busy[b], sums)
            flat[:] = 0
            wide_source_gradient(kernel, values[b], ctx.winner[b], busy[b], edges, flat)
            outcome[b] = padded[1:-1, 1:-1, 1:-1]
            sum_background(values[b], busy[b], elsewhere)
            return sums, elsewhere

        sums, elsewhere = (torch.from_numpy(sum(parts)) for parts in zip(*for_each_volume(gradients, len(values))))
        weight_gradient = sums.reshape(3, 3, channels, 3, WIDTH).permute(2, 4, 0, 1, 3)
        bias_gradient = gradient.sum((0, 2, 3, 4)) - elsewhere.sum((0, 1, 2))
        return channels_first(outcome), weight_gradient, bias_gradient, elsewhere.permute(3, 0, 1, 2)[None], None


def _pad(volume: np.ndarray) -> np.ndarray:
    """Array (x, y, z, c) with a border of zeros in space."""
    x, y, z, channels = volume.shape
    padded = np.zeros((x + 2, y + 2, z + 2, channels), volume.dtype)
    padded[1:-1, 1:-1, 1:-1] = volume
    return padded


def _convolve_wide(x: Tensor, weight: Tensor, bias: Tensor, background: Background | None) -> Tensor:
    half = [n // 2 for n in x.shape[2:]]
    busy = np.ones((len(x), *half), np.bool_)
    if background is None or min(half) < 3:
        base = x.new_zeros(1, len(weight), 3, 3, 3)
    else:
        uniform = background.value[None, :, None, None, None].expand(1, -1, 6, 6, 6)
        base = functional.max_pool3d(functional.conv3d(uniform, weight, bias, padding=1), 2)
        where = background.where.numpy()
        for_each_volume(lambda b: busy_cells(where[b], busy[b]), len(x))
    return _WideConvolutionPool.apply(x, weight, bias, base, busy)


def convolve_and_pool(
    x: Tensor, weight: Tensor, bias: Tensor, background: Background | None = None
) -> tuple[Tensor, Background | None]:
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
    background : Background, optional
        Where x holds one known value. A gradient with respect to it is passed on through its ``value``; that of x at
        these voxels is of their neighbours' results alone.

    Returns
    -------
    pooled : Tensor, shape (b, d, n/2, n/2, n/2)
    background : Background or None
        Where a single input channel is zero, and pooled therefore the bias.

    Examples
    --------
    >>> pooled, _ = convolve_and_pool(torch.zeros(1, 1, 4, 4, 4), torch.zeros(2, 1, 3, 3, 3), torch.ones(2))
    >>> pooled.shape
    torch.Size([1, 2, 2, 2, 2])
    """
    if x.device.type == "cpu" and x.shape[1] == 1 and not x.requires_grad:
        pooled, where = _NarrowConvolutionPool.apply(x, weight, bias)
        return pooled, Background(where, bias)
    if x.device.type == "cpu" and x.shape[1] == WIDTH:
        return _convolve_wide(x, weight, bias, background), None
    return functional.max_pool3d(functional.conv3d(x, weight, bias, padding=1), 2), None
