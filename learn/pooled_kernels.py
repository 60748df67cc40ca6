"""The compiled loops of `pooled_convolution`; they release the interpreter lock.

Arrays are channels-last, ``(x, y, z, channel)``, of one volume; "padded" ones have a border of one zero on every side.
"""

import numba
import numpy as np

from .volume_threads import compiled

WIDTH = 32  # input channels of the wide layer; a compile-time constant, so that its loops unroll
SPAN = 3 * WIDTH  # one row of a 3³ patch: three voxels along z, all channels, contiguous in memory


@compiled
def narrow_forward(volume, kernel, bias, pooled, winner, empty):
    """Convolve a padded volume (2p+2,)*3 with kernel (27, c) and keep the largest of each 2³ cell and its number."""
    size_x, size_y, size_z, channels = pooled.shape
    value = np.empty((8, channels), volume.dtype)
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                empty[x, y, z] = _is_zero(volume, 2 * x, 2 * y, 2 * z)
                if empty[x, y, z]:
                    pooled[x, y, z] = bias
                    continue
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


@compiled
def _is_zero(volume, x, y, z):
    """Whether the 4³ patch of the volume that begins there holds zeros alone."""
    for row in range(16):
        line = volume[x + row // 4, y + row % 4]
        for k in range(z, z + 4):
            if line[k] != 0:
                return False
    return True


@compiled
def narrow_backward(volume, gradient, winner, empty, moments):
    """Add gradient times the 4³ patch under each cell to moments (8, c, 64), sorted by the corner that won."""
    size_x, size_y, size_z, channels = gradient.shape
    patch = np.empty(64, volume.dtype)
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                if empty[x, y, z]:
                    continue
                for i in range(4):
                    for j in range(4):
                        for k in range(4):
                            patch[16 * i + 4 * j + k] = volume[2 * x + i, 2 * y + j, 2 * z + k]
                for c in range(channels):
                    value = gradient[x, y, z, c]
                    sums = moments[winner[x, y, z, c], c]
                    for m in range(64):
                        sums[m] += value * patch[m]


@compiled
def busy_cells(where, busy):
    """Mark the cells whose 4³ patch (two voxels of the cell, one on each side) holds more than background."""
    size_x, size_y, size_z = busy.shape
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                found = False
                for i in range(max(2 * x - 1, 0), min(2 * x + 3, 2 * size_x)):
                    for j in range(max(2 * y - 1, 0), min(2 * y + 3, 2 * size_y)):
                        for k in range(max(2 * z - 1, 0), min(2 * z + 3, 2 * size_z)):
                            found |= not where[i, j, k]
                busy[x, y, z] = found


@compiled
def _patch_start(winner, x, y, z, edges):
    """Where the winning corner's 3³ patch begins in a flat padded volume of edges (x, y, z) voxels."""
    corner = np.int64(winner)
    line = (2 * x + (corner >> 2)) * edges[1] + 2 * y + ((corner >> 1) & 1)
    return (line * edges[2] + 2 * z + (corner & 1)) * WIDTH


@compiled
def pool(full, pooled, winner):
    """Largest of each 2³ cell of full (2x, 2y, 2z, c), first one at ties as torch does, and its number."""
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


@compiled
def _kind(index, size):
    """0 for the first cell of an axis, 2 for the last, 1 between."""
    return 0 if index == 0 else (2 if index == size - 1 else 1)


@compiled
def fill_background(base, busy, pooled):
    """Copy base (3, 3, 3, c) into the cells that are not busy."""
    size_x, size_y, size_z = busy.shape
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                if not busy[x, y, z]:
                    pooled[x, y, z] = base[_kind(x, size_x), _kind(y, size_y), _kind(z, size_z)]


@compiled
def sum_background(gradient, busy, sums):
    """Add the gradient of the cells that are not busy to sums (3, 3, 3, c)."""
    size_x, size_y, size_z = busy.shape
    for x in range(size_x):
        for y in range(size_y):
            for z in range(size_z):
                if not busy[x, y, z]:
                    target = sums[_kind(x, size_x), _kind(y, size_y), _kind(z, size_z)]
                    for c in range(len(target)):
                        target[c] += gradient[x, y, z, c]


@compiled
def wide_weight_gradient(source, edges, gradient, winner, busy, kernel_gradient):
    """Add to kernel_gradient (9, c, SPAN) from the flat padded source; gradient, winner (x, y, z, c)."""
    size_x, size_y, size_z, channels = gradient.shape
    value, begin = np.empty((channels, size_z), source.dtype), np.empty((channels, size_z), np.int64)
    for x in range(size_x):
        for y in range(size_y):
            places = np.flatnonzero(busy[x, y])
            for n in range(len(places)):
                z = places[n]
                for c in range(channels):
                    value[c, n] = gradient[x, y, z, c]
                    begin[c, n] = _patch_start(winner[x, y, z, c], x, y, z, edges)
            for row in range(9):
                shift = (row // 3 * edges[1] + row % 3) * edges[2] * WIDTH
                for c in range(channels):
                    sums, v, b = kernel_gradient[row, c], value[c], begin[c]
                    for n in range(0, len(places) - 3, 4):  # four cells in one sweep: a quarter of the traffic on sums
                        v0, v1, v2, v3 = v[n], v[n + 1], v[n + 2], v[n + 3]
                        s0, s1 = source[b[n] + shift :][:SPAN], source[b[n + 1] + shift :][:SPAN]
                        s2, s3 = source[b[n + 2] + shift :][:SPAN], source[b[n + 3] + shift :][:SPAN]
                        for m in range(SPAN):
                            sums[m] += v0 * s0[m] + v1 * s1[m] + v2 * s2[m] + v3 * s3[m]
                    for n in range(len(places) // 4 * 4, len(places)):
                        v0, s0 = v[n], source[b[n] + shift :][:SPAN]
                        for m in range(SPAN):
                            sums[m] += v0 * s0[m]


@compiled
def _sort_by_corner(winner, order, first, filled):
    """List the channels of a cell by the corner that won: those of corner k are order[first[k] : first[k + 1]]."""
    first[:] = 0
    for c in range(len(winner)):
        first[winner[c] + 1] += 1
    for corner in range(8):
        first[corner + 1] += first[corner]
        filled[corner] = first[corner]
    for c in range(len(winner)):
        order[filled[winner[c]]] = c
        filled[winner[c]] += 1


@compiled
def wide_source_gradient(kernel, gradient, winner, busy, edges, source_gradient):
    """Add to the flat padded source_gradient from kernel (9, c, SPAN); gradient, winner (x, y, z, c)."""
    size_x, size_y, size_z, channels = gradient.shape
    order, first = np.empty((size_z, channels), np.int64), np.empty((size_z, 9), np.int64)
    filled = np.empty(8, np.int64)
    for x in range(size_x):
        for y in range(size_y):
            places = np.flatnonzero(busy[x, y])
            for z in places:
                _sort_by_corner(winner[x, y, z], order[z], first[z], filled)
            for row in range(9):
                weights, shift = kernel[row], (row // 3 * edges[1] + row % 3) * edges[2] * WIDTH
                for z in places:
                    value = gradient[x, y, z]
                    for corner in range(8):
                        listed = order[z, first[z, corner] : first[z, corner + 1]]
                        target = source_gradient[_patch_start(corner, x, y, z, edges) + shift :][:SPAN]
                        for n in range(0, len(listed) - 3, 4):
                            c0, c1, c2, c3 = listed[n], listed[n + 1], listed[n + 2], listed[n + 3]
                            v0, v1, v2, v3 = value[c0], value[c1], value[c2], value[c3]
                            w0, w1, w2, w3 = weights[c0], weights[c1], weights[c2], weights[c3]
                            for m in range(SPAN):
                                target[m] += v0 * w0[m] + v1 * w1[m] + v2 * w2[m] + v3 * w3[m]
                        for n in range(len(listed) // 4 * 4, len(listed)):
                            v0, w0 = value[listed[n]], weights[listed[n]]
                            for m in range(SPAN):
                                target[m] += v0 * w0[m]
