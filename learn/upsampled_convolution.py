"""Nearest upsampling by 2 and then a 3³ convolution; on the CPU, at the voxels that matter alone.

Upsampling and then a 3³ convolution equals eight 2³ convolutions of the small volume, one for each place of a fine
voxel in its coarse voxel, with kernels that are sums of the 3³ kernel: 8 products a voxel instead of 27. Seen from the
coarse voxel, it gives something to 4³ fine voxels; with one output channel these are 64 products a coarse voxel, and
then a sum of shifted volumes.

A masked output needs its last layers only in and next to the mask. `masked_voxels` lists where; the layers then hold
rows, one a listed voxel, in place of volumes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .pooled_convolution import channels_first, channels_last
from .volume_threads import compiled, for_each_volume

# Which taps of a 3-kernel on the doubled line fall on the same coarse voxel: _FOLD[place, coarse tap, fine tap].
# At place 0 (left half of a voxel) the taps fall on the left neighbour, itself, itself; at place 1 on itself, itself
# and the right neighbour.
_FOLD = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
# The same seen from the coarse voxel p: the fine voxels 2p - 1, 2p, 2p + 1 and 2p + 2 see it through these taps.
_SPREAD = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
_ROWS_AT_ONCE = 128  # their patches (256 KiB for 64 channels in float32) stay in the cache


class Voxels(NamedTuple):
    """Listed voxels (i, j, k) of a volume, sorted by place; those of place p are ``starts[p]`` to ``starts[p + 1]``."""

    index: np.ndarray
    starts: np.ndarray


def masked_voxels(mask: Tensor, reach: int) -> Voxels:
    """Voxels of a grid half as fine as the mask's that touch it, or that have a neighbour within reach that does.

    Parameters
    ----------
    mask : Tensor, shape (n, n, n)
        Not zero where a result is needed; n a multiple of 4.
    reach : int
        How far the layers behind look, in voxels of the half grid.

    Examples
    --------
    >>> mask = torch.zeros(8, 8, 8)
    >>> mask[5, 2, 3] = 1
    >>> masked_voxels(mask, 0).index.tolist(), masked_voxels(mask, 1).index.shape
    ([[2, 1, 1]], (27, 3))
    """
    needed = functional.max_pool3d((mask != 0).to(torch.float32)[None, None], 2)
    if reach:
        needed = functional.max_pool3d(needed, 2 * reach + 1, stride=1, padding=reach)
    needed = needed[0, 0].cpu().numpy() > 0
    of_place = [2 * np.argwhere(needed[i::2, j::2, k::2]) + (i, j, k) for i, j, k in np.ndindex(2, 2, 2)]
    return Voxels(np.concatenate(of_place), np.cumsum([0, *map(len, of_place)]))


@compiled
def _gather(padded, voxels, patches):
    """Copy the 2³ patch of the padded coarse volume (x, y, z, c) that each fine voxel sees into a row of patches."""
    channels = padded.shape[3]
    for n in range(len(voxels)):
        i, j, k = (voxels[n, 0] + 1) // 2, (voxels[n, 1] + 1) // 2, (voxels[n, 2] + 1) // 2
        for tap in range(8):
            source = padded[i + (tap >> 2), j + ((tap >> 1) & 1), k + (tap & 1)]
            target = patches[n, tap * channels : (tap + 1) * channels]
            for c in range(channels):
                target[c] = source[c]


@compiled
def _scatter(patches, voxels, padded):
    """Add each row of patches to where `_gather` took it from."""
    channels = padded.shape[3]
    for n in range(len(voxels)):
        i, j, k = (voxels[n, 0] + 1) // 2, (voxels[n, 1] + 1) // 2, (voxels[n, 2] + 1) // 2
        for tap in range(8):
            target = padded[i + (tap >> 2), j + ((tap >> 1) & 1), k + (tap & 1)]
            source = patches[n, tap * channels : (tap + 1) * channels]
            for c in range(channels):
                target[c] += source[c]


@compiled
def _spread(values, voxels, edge, fine):
    """Add the edge³ values of each voxel to the fine voxels around it; fine has a border of one voxel."""
    for n in range(len(voxels)):
        i, j, k = 2 * voxels[n] + 2 - edge // 2
        for a in range(edge):
            for b in range(edge):
                for c in range(edge):
                    fine[i + a, j + b, k + c] += values[n, (a * edge + b) * edge + c]


@compiled
def _collect(fine, voxels, edge, values):
    """Copy the edge³ fine voxels around each voxel to values: the transpose of `_spread`."""
    for n in range(len(voxels)):
        i, j, k = 2 * voxels[n] + 2 - edge // 2
        for a in range(edge):
            for b in range(edge):
                for c in range(edge):
                    values[n, (a * edge + b) * edge + c] = fine[i + a, j + b, k + c]


class _ConvolveRows(torch.autograd.Function):
    """Rows (b, voxels, d) of the convolved, upsampled x (b, c, m, m, m); kernels (8, 8c, d), one for each place."""

    @staticmethod
    def forward(ctx, x: Tensor, kernels: Tensor, bias: Tensor, voxels: Voxels) -> Tensor:
        sources, kernels, bias = channels_last(x), kernels.detach(), bias.detach()
        rows = kernels.new_empty(len(sources), len(voxels.index), kernels.shape[2])

        def convolve(b: int) -> None:
            padded, patches = _padded(sources[b]), kernels.new_empty(_ROWS_AT_ONCE, kernels.shape[1])
            for place, start, stop in _parts(voxels):
                some = patches[: stop - start]
                _gather(padded, voxels.index[start:stop], some.numpy())
                torch.addmm(bias, some, kernels[place], out=rows[b, start:stop])

        for_each_volume(convolve, len(sources))
        ctx.save_for_backward(x, kernels)
        ctx.voxels = voxels
        return rows

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, kernels = ctx.saved_tensors
        sources, voxels, gradient = channels_last(x), ctx.voxels, gradient.contiguous()
        outcome = np.empty(sources.shape, sources.dtype)

        def gradients(b: int) -> Tensor:
            padded, patches = _padded(sources[b]), kernels.new_empty(_ROWS_AT_ONCE, kernels.shape[1])
            below, sums = np.zeros_like(padded), torch.zeros_like(kernels.transpose(1, 2))
            for place, start, stop in _parts(voxels):
                some, index, known = patches[: stop - start], voxels.index[start:stop], gradient[b, start:stop]
                _gather(padded, index, some.numpy())
                sums[place].addmm_(known.T, some)
                torch.mm(known, kernels[place].T, out=some)
                _scatter(some.numpy(), index, below)
            outcome[b] = below[1:-1, 1:-1, 1:-1]
            return sums

        sums = sum(for_each_volume(gradients, len(sources)))
        return channels_first(outcome), sums.transpose(1, 2), gradient.sum((0, 1)), None


def _padded(volume: np.ndarray) -> np.ndarray:
    return np.pad(volume, ((1, 1), (1, 1), (1, 1), (0, 0)))


def _parts(voxels: Voxels):
    """(place, start, stop) of parts of the list that hold one place and few enough rows for the cache."""
    for place, (first, last) in enumerate(zip(voxels.starts, voxels.starts[1:])):
        for start in range(first, last, _ROWS_AT_ONCE):
            yield place, start, min(start + _ROWS_AT_ONCE, last)


class _SpreadRows(torch.autograd.Function):
    """Volumes (b, 1, n, n, n): the sum of what each listed voxel gives to the edge³ fine voxels around it."""

    @staticmethod
    def forward(ctx, values: Tensor, voxels: Voxels, edge: int, n: int) -> Tensor:
        rows = values.detach().contiguous().numpy()
        fine = np.zeros((len(rows), n + 2, n + 2, n + 2), rows.dtype)
        for_each_volume(lambda b: _spread(rows[b], voxels.index, edge, fine[b]), len(rows))
        ctx.voxels, ctx.edge = voxels, edge
        return torch.from_numpy(fine[:, None, 1:-1, 1:-1, 1:-1])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        fine = functional.pad(gradient[:, 0], (1,) * 6).contiguous().numpy()
        values = np.empty((len(fine), len(ctx.voxels.index), ctx.edge**3), fine.dtype)
        for_each_volume(lambda b: _collect(fine[b], ctx.voxels.index, ctx.edge, values[b]), len(fine))
        return torch.from_numpy(values), None, None, None


def convolve_upsampled_rows(x: Tensor, weight: Tensor, bias: Tensor, voxels: Voxels) -> Tensor:
    """Upsampling by 2 and a 3³ convolution with zero padding 1, at some voxels.

    Parameters
    ----------
    x : Tensor, shape (b, c, m, m, m)
    weight : Tensor, shape (d, c, 3, 3, 3)
    bias : Tensor, shape (d,)
    voxels : Voxels
        Of the grid (2m)³.

    Returns
    -------
    Tensor, shape (b, voxels, d)

    Examples
    --------
    >>> voxels = masked_voxels(torch.ones(8, 8, 8), 0)
    >>> convolve_upsampled_rows(torch.zeros(1, 5, 2, 2, 2), torch.zeros(3, 5, 3, 3, 3), torch.ones(3), voxels).shape
    torch.Size([1, 64, 3])
    """
    fold = _FOLD.to(x)
    kernels = torch.einsum("aik,bjl,cmn,odkln->abcijmdo", fold, fold, fold, weight)
    return _ConvolveRows.apply(x, kernels.reshape(8, -1, len(weight)), bias, voxels)


def upsample_and_convolve_rows(rows: Tensor, weight: Tensor, bias: Tensor, voxels: Voxels, n: int) -> Tensor:
    """Upsampling by 2 and a 1³ or 3³ convolution with zero padding to one channel, of listed voxels.

    Right in the fine voxels whose inputs are all listed; the others take what is not listed for zero.

    Parameters
    ----------
    rows : Tensor, shape (b, voxels, c)
    weight : Tensor, shape (1, c, k, k, k)
        k is 1 or 3.
    bias : Tensor, shape (1,)
    voxels : Voxels
        Of the grid (n/2)³.
    n : int
        Voxels along each axis of the result.

    Returns
    -------
    Tensor, shape (b, 1, n, n, n)

    Examples
    --------
    >>> voxels = masked_voxels(torch.ones(4, 4, 4), 0)
    >>> upsample_and_convolve_rows(torch.ones(1, 8, 2), torch.ones(1, 2, 1, 1, 1), torch.zeros(1), voxels, 4).unique()
    tensor([2.])
    """
    if weight.shape[-1] == 1:
        values = functional.linear(rows, weight.flatten(1)).expand(-1, -1, 8)
        return _SpreadRows.apply(values, voxels, 2, n) + bias
    spread = _SPREAD.to(rows)
    kernel = torch.einsum("ai,bj,ck,odijk->oabcd", spread, spread, spread, weight).flatten(0, 3)
    return _SpreadRows.apply(functional.linear(rows, kernel), voxels, 4, n) + bias


def convolve_transposed(x: Tensor, layer: nn.Conv3d) -> Tensor:
    """Upsampling by 2 and a 1³ or 3³ convolution of whole volumes, by torch's own operations.

    Parameters
    ----------
    x : Tensor, shape (b, c, m, m, m)
    layer : Conv3d
        With a kernel of 1³, or of 3³ and zero padding 1.

    Returns
    -------
    Tensor, shape (b, d, 2m, 2m, 2m)

    Examples
    --------
    >>> convolve_transposed(torch.zeros(1, 5, 2, 2, 2), nn.Conv3d(5, 3, 3, padding=1)).shape
    torch.Size([1, 3, 4, 4, 4])
    """
    if layer.kernel_size == (1, 1, 1):
        return functional.interpolate(layer(x), scale_factor=2)
    spread = _SPREAD.to(layer.weight)
    kernel = torch.einsum("ai,bj,ck,odijk->doabc", spread, spread, spread, layer.weight)
    return functional.conv_transpose3d(x, kernel, layer.bias, stride=2, padding=1)
