"""Products of channels with their own pasts, without a copy of the record for every lag.

The regressors of a vector autoregression are the same channels again, later by a sample at each lag. So the matrix of
their products G(a, b) = Σ_t x_{t-a} x_{t-b}ᵀ needs not be made from a design matrix of all lags: G(a+1, b+1) differs
from G(a, b) by two samples at the ends, and its first block row, the channels with their pasts, is a correlation over a
few lags, which blocks of Fourier transforms give for a fraction of its multiplications. Nothing of this is an
approximation: it is the "covariance method" (ordinary least squares, with a constant), not that of autocorrelations.
"""

import math

import numpy as np

from .connectivity_arrays import Arrays


def floats_of_products(channels: int, samples: int, order: int) -> int:
    """Numbers that `first_row` holds at most for one record, the record itself included.

    Examples
    --------
    >>> floats_of_products(19, 200, 2)  # 13 blocks of 16 samples, and a matrix for each of 9 frequencies
    31350
    """
    size, count = _blocks(samples, order)
    # The record, its blocks and their transforms; then products of these, and their even and odd parts.
    return 3 * channels * count * size + 6 * (size // 2 + 1) * channels**2


def centred_products(z, order: int, space: Arrays):
    """Sums (batch, order + 1, c, order + 1, c) of z[i, t - a] z[j, t - b] over t from `order` on.

    Each lagged channel is centred over these instants; z is (batch, c, samples).
    """
    products = _shifted_products(z, order, space)
    means = _window_means(z, order, space) * math.sqrt(z.shape[-1] - order)
    for a in range(order + 1):
        products[:, a] -= _outer(means, a)
    return products


def _shifted_products(z, order: int, space: Arrays):
    b, c, _ = z.shape
    first = first_row(z, order, space)
    products = space.zeros((b, order + 1, c, order + 1, c))
    products[:, 0] = first
    products[:, :, :, 0] = first.swapaxes(1, 2).swapaxes(2, 3)
    head, tail = _ends(z, order)
    for a in range(order):
        products[:, a + 1, :, 1:] = products[:, a, :, :-1] + _outer(head, a) - _outer(tail, a)
    return products


def first_row(z, order: int, space: Arrays):
    """Sums (batch, i, k, j) of z[i, t] z[j, t - k] over t from `order` on.

    Blocks begin at `order`: the squares of a transient before are in no sum, where they would leave their rounding when
    subtracted again. Within a block, the transforms' products are sums over a circle: where an instant's past lies
    before the block, the block's own end stands in for it, and `_mended` puts that right.

    Examples
    --------
    >>> first_row(np.arange(4.0)[None, None], 2, Arrays(np))[0, 0, :, 0]  # 2·2 + 3·3, 2·1 + 3·2, 2·0 + 3·1
    array([13.,  8.,  3.])
    """
    b, c, t = z.shape
    size, count = _blocks(t, order)
    padded = space.zeros((b, c, count * size))
    padded[..., : t - order] = z[..., order:]
    blocks = padded.reshape(b, c, count, size)
    return _mended(_circular(blocks, order, space), blocks, z[..., :order], order)


def _blocks(samples: int, order: int) -> tuple[int, int]:
    """Length of a block, a power of two, and how many hold the instants from `order` on.

    Longer blocks have fewer ends to mend, and more frequencies, each with a matrix. Of 200 to 60 000 samples, 5 to 40
    lags and 4 to 64 channels, the quickest are near as long as there are of them, and at least two pasts.
    """
    size = 1 << math.ceil(math.log2(max(2 * order, math.sqrt(samples))))
    return size, -(-(samples - order) // size)


def _circular(blocks, order: int, space: Arrays):
    """Sums (batch, i, k, j) over blocks (batch, c, block, n), each taken as a circle, by Fourier transforms."""
    b, c, count, size = blocks.shape
    frequencies = size // 2 + 1
    parts = space.zeros((b, frequencies, 2, c, count))
    for i in range(c):  # one channel's fit the processor's cache
        parts[:, :, :, i] = space.xp.moveaxis(space.rfft_parts(blocks[:, i]), (2, 3, 1), (1, 2, 3))
    flat = parts.reshape(b, frequencies, 2 * c, count)
    # A matrix with its own transpose: half of the work, which the libraries under NumPy and torch know.
    products = (flat @ flat.swapaxes(-1, -2)).reshape(b, frequencies, 2, c, 2, c)
    even = products[:, :, 0, :, 0] + products[:, :, 1, :, 1]
    odd = products[:, :, 0, :, 1] - products[:, :, 1, :, 0]
    turn = np.outer(np.arange(order + 1), np.arange(frequencies)) * (2 * np.pi / size)
    weights = np.full(frequencies, 2.0 / size)
    weights[[0, -1]] /= 2  # each other frequency stands for its negative too
    cosine, sine = space.put(np.cos(turn) * weights), space.put(np.sin(turn) * weights)
    sums = cosine @ even.reshape(b, frequencies, c * c) + sine @ odd.reshape(b, frequencies, c * c)
    return sums.reshape(b, order + 1, c, c).swapaxes(1, 2)


def _mended(sums, blocks, before, order: int):
    """The same sums with the end of the block before in the past of each block's first instants.

    `before` (batch, c, order) is what comes before the first block.
    """
    b, c, count, size = blocks.shape
    head = blocks[..., :order].swapaxes(1, 2).swapaxes(2, 3).reshape(b, count, order * c)
    tail = blocks[..., list(range(size - 1, size - 1 - order, -1))].swapaxes(1, 2).swapaxes(2, 3)
    tail = tail.reshape(b, count, order * c)
    missing = -tail
    missing[:, 1:] += tail[:, :-1]
    missing[:, 0] += before[..., list(range(order - 1, -1, -1))].swapaxes(1, 2).reshape(b, order * c)
    crossed = (head.swapaxes(-1, -2) @ missing).reshape(b, order, c, order, c)
    for instant in range(order):  # its past at lag k is k - instant samples before the block
        sums[:, :, instant + 1 :] += crossed[:, instant, :, : order - instant]
    return sums


def _window_means(z, order: int, space: Arrays):
    """Mean (batch, order + 1, c) of the channels at each lag over the instants from `order` on."""
    b, c, t = z.shape
    head, tail = _ends(z, order)
    shift = space.zeros((b, order + 1, c))
    shift[:, 1:] = space.xp.cumsum(head - tail, 1)
    return (z[..., order:].sum(-1)[:, None] + shift) / (t - order)


def _ends(z, order: int):
    """What shifting the instants by one takes in at the start and leaves out at the end, each (batch, order, c)."""
    t = z.shape[-1]
    head = z[..., list(range(order - 1, -1, -1))]
    tail = z[..., list(range(t - 1, t - 1 - order, -1))]
    return head.swapaxes(-1, -2), tail.swapaxes(-1, -2)


def _outer(v, a: int):
    """Products (batch, i, b, j) of the row `a` of v (batch, row, c) with all its rows."""
    return v[:, a, :, None, None] * v[:, None]
