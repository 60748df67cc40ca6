"""A coil's field tabulated around it, in the coil's frame, so that one table serves every pose.

Space is divided into cubes whose size goes with their distance from the nearest source (an octree). A cube holds its
local expansion in solid harmonics (see `coil_harmonics`); cubes are made when a point first falls into them.
"""

import threading

import numpy as np
from numba import njit, prange

from .coil_harmonics import LANES, curl_of_sums, evaluate, in_coil_frame, irregular_sums, recurrence, term_count
from .coil_sources import CLEARANCE_M

REACH_M = 0.64
"""Half width of the tabulated region. Farther points, and those too near a source, are summed directly."""

_TOP, _LEVELS = 16, 7  # cubes of 80, 40, ... 1.25 mm
_PER_M = (_TOP << (_LEVELS - 1)) / (2 * REACH_M)  # smallest cubes in a metre
_UNKNOWN, _DIRECT = -1, -2  # other negative values v of a slot: its eight parts are at slots -3 - v and on
_BYTES = 80_000_000
_BATCH = 2048
_FEW = 128  # to wake the other threads takes longer than to expand so few cubes


class FieldTable:
    """Local expansions of the vector potential of dipoles and point currents.

    Parameters
    ----------
    dipoles, currents : pair of ndarray (d, 3)
        Positions, m, and moments, A·m²/A; positions and directed lengths, m. Coil frame.
    tolerance : float
        A cube is used if what its expansion leaves out is at most this share of the root mean square of the field over
        the ball around the cube, by a bound on the terms left out that rests on those of the highest degrees.

    Notes
    -----
    A cube's content depends on the coil, the tolerance and the cube alone, and each point is evaluated by itself: the
    bits of a value depend neither on the other points nor on the number of threads. When the table would grow over
    80 MB it is emptied, and the points are worked through in portions.
    """

    def __init__(self, dipoles, currents, tolerance: float):
        self.tolerance, self.order = tolerance, int(np.clip(np.ceil(-1.6 * np.log10(tolerance)), 4, 12))
        self._dipoles = tuple(np.array(array.T, order="C") for array in dipoles)
        self._currents = tuple(np.array(array.T, order="C") for array in currents)
        self._lock = threading.Lock()
        # a cube takes its expansion, and at most eight slots of 11 bytes on each level
        self._room = _BYTES // (48 * term_count(self.order) + 32 + 88 * _LEVELS)
        self._clear()

    def _clear(self):
        # memory that is not written to is not taken
        self._coefficients = np.empty((self._room, term_count(self.order), 6))
        self._centres, self._scales = np.empty((self._room, 3)), np.empty(self._room)
        self._slots = np.full(_TOP**3, _UNKNOWN, dtype=np.int32)
        self._levels = np.zeros(_TOP**3, dtype=np.int8)
        corners = np.stack(np.meshgrid(*[np.arange(_TOP)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        self._corners = (corners << (_LEVELS - 1)).astype(np.int16)  # in smallest cubes
        self.cells = 0

    @property
    def nbytes(self) -> int:
        """Memory in use, bytes."""
        return self.cells * (48 * term_count(self.order) + 32) + 11 * len(self._slots)

    def field(self, points, rotation, centre, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Vector potential per ampere, over 1e-7 T·m/A, at points in head coordinates.

        Parameters
        ----------
        points : ndarray (n, 3)
            m.
        rotation : ndarray (3, 3)
            Of the coil's pose.
        centre : ndarray (3,)
            Of the coil's pose, m.
        factor : float
            What to multiply the values with.

        Returns
        -------
        values : ndarray (n, 3)
            Of the sum of m × (r - p) / |r - p|³ and dl / |r - p|, in head coordinates.
        rest : ndarray (k,)
            Indices of points whose values are not set: they lie outside the table.
        """
        values, rest = np.empty_like(points), []
        first, portion = 0, max(1, len(points))
        with self._lock:
            while first < len(points):
                part = slice(first, first + portion)
                leaves = self._leaves(points[part], rotation, centre)
                if leaves is None:  # no room: begin anew, with portions that fit for certain
                    self._clear()
                    portion = self._room
                    continue
                rest.append(first + self._evaluate(points[part], (rotation, centre, factor), leaves, values[part]))
                first += portion
        return values, np.concatenate(rest) if rest else np.zeros(0, np.int64)

    def _evaluate(self, points, placed, leaves, out):
        permutation, starts, cells, rest = _sorted_blocks(leaves, self.cells)
        evaluate(
            points, *placed, permutation, starts, cells, self._centres, self._scales, self._coefficients, self.order,
            recurrence(self.order)[0], out,
        )  # fmt: skip
        return rest

    def _leaves(self, points, rotation, centre):
        """The cube of each point, -2 for none, after making those that are missing; None where there is no room."""
        leaves, slots = _find(points, rotation, centre, self._slots)
        while True:
            missing = np.flatnonzero(leaves == _UNKNOWN)
            if not missing.size:
                return leaves
            slot = np.unique(slots[missing])
            for k in range(0, len(slot), _BATCH):
                if self.cells + len(slot[k : k + _BATCH]) > self._room:
                    return None
                self._make(slot[k : k + _BATCH])
            leaves[missing], slots[missing] = _find_few(points[missing], rotation, centre, self._slots)

    def _make(self, slot):
        level = self._levels[slot]
        halves = REACH_M / _TOP * 0.5 ** level.astype(float)
        centres = self._corners[slot] / _PER_M - REACH_M + halves[:, None]
        coefficients = np.empty((len(slot), term_count(self.order), 6))
        good = np.empty(len(slot), dtype=np.bool_)
        _, gamma, mean_square = recurrence(self.order)
        expand = _expand if len(slot) > _FEW else _expand_few
        expand(
            centres, halves, *self._dipoles, *self._currents, self.order, gamma, mean_square, self.tolerance,
            coefficients, good,
        )  # fmt: skip
        leaves = slice(self.cells, self.cells + int(good.sum()))
        self._coefficients[leaves], self._centres[leaves] = coefficients[good], centres[good]
        self._scales[leaves], self.cells = halves[good], leaves.stop
        self._slots[slot[good]] = np.arange(leaves.start, leaves.stop)
        self._slots[slot[~good & (level == _LEVELS - 1)]] = _DIRECT
        self._divide(slot[~good & (level < _LEVELS - 1)])

    def _divide(self, slot):
        self._slots[slot] = -3 - (len(self._slots) + 8 * np.arange(len(slot)))
        octants = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(8, 3)
        levels = np.repeat(self._levels[slot] + 1, 8)
        corners = np.repeat(self._corners[slot], 8, axis=0)
        corners += (np.tile(octants, (len(slot), 1)) << (_LEVELS - 1 - levels)[:, None]).astype(np.int16)
        self._slots = np.concatenate([self._slots, np.full(len(levels), _UNKNOWN, dtype=np.int32)])
        self._levels, self._corners = np.concatenate([self._levels, levels]), np.concatenate([self._corners, corners])


@njit(cache=True, inline="always")
def _walk(points, i, rotation, centre, slots):
    """Walk down the octree to point i: what the last slot holds, and the slot."""
    fine = _TOP << (_LEVELS - 1)
    x, y, z = in_coil_frame(points, i, rotation, centre)
    x, y, z = (x + REACH_M) * _PER_M, (y + REACH_M) * _PER_M, (z + REACH_M) * _PER_M
    leaf, slot = _DIRECT, 0
    if 0 <= x < fine and 0 <= y < fine and 0 <= z < fine:
        ix, iy, iz, shift = int(x), int(y), int(z), _LEVELS - 1
        slot = ((ix >> shift) * _TOP + (iy >> shift)) * _TOP + (iz >> shift)
        leaf = slots[slot]
        while leaf <= -3:
            shift -= 1
            slot = -3 - leaf + ((ix >> shift) & 1) * 4 + ((iy >> shift) & 1) * 2 + ((iz >> shift) & 1)
            leaf = slots[slot]
    return leaf, slot


@njit(parallel=True, cache=True)
def _find(points, rotation, centre, slots):
    """For each point what the last slot on its way holds, and that slot."""
    leaves, where = np.empty(len(points), np.int32), np.empty(len(points), np.int32)
    for i in prange(len(points)):
        leaves[i], where[i] = _walk(points, i, rotation, centre, slots)
    return leaves, where


@njit(cache=True)
def _find_few(points, rotation, centre, slots):
    leaves, where = np.empty(len(points), np.int32), np.empty(len(points), np.int32)
    for i in range(len(points)):
        leaves[i], where[i] = _walk(points, i, rotation, centre, slots)
    return leaves, where


@njit(cache=True)
def _sorted_blocks(leaves, cells):
    """Points sorted by cube, as blocks of at most `LANES` points of one cube, and the points that have none."""
    counts = np.zeros(cells + 1, dtype=np.int64)
    for leaf in leaves:
        counts[leaf if leaf >= 0 else cells] += 1
    place = np.empty(cells + 1, dtype=np.int64)
    total, blocks = 0, 0
    for cell in range(cells + 1):
        place[cell] = total
        total += counts[cell]
        if cell < cells:
            blocks += (counts[cell] + LANES - 1) // LANES
    starts, owner = np.empty(blocks + 1, dtype=np.int64), np.empty(blocks, dtype=np.int64)
    block = 0
    for cell in range(cells):
        for first in range(0, counts[cell], LANES):
            starts[block], owner[block] = place[cell] + first, cell
            block += 1
    starts[blocks] = place[cells]
    permutation = np.empty(len(leaves), dtype=np.int32)
    for i in range(len(leaves)):
        cell = leaves[i] if leaves[i] >= 0 else cells
        permutation[place[cell]] = i
        place[cell] += 1
    return permutation, starts, owner, permutation[starts[blocks] :]


@njit(cache=True, fastmath={"contract", "nnan", "ninf", "nsz"})
def _nearest(points, centre):
    """Square of the distance to the nearest of points (3, n)."""
    least = 1e300
    for i in range(points.shape[1]):
        x, y, z = points[0, i] - centre[0], points[1, i] - centre[1], points[2, i] - centre[2]
        square = x * x + y * y + z * z
        least = square if square < least else least
    return least


@njit(cache=True)
def _expand_one(centre, half, positions, moments, nodes, lengths, order, gamma, mean_square, tolerance, out):
    """Expansion (terms, 6) of a cube; returns whether what it leaves out is within the tolerance."""
    radius, pairs = np.sqrt(3.0), len(gamma)
    distance = np.sqrt(min(_nearest(positions, centre), _nearest(nodes, centre))) / half
    if radius > 0.6 * distance or (nodes.shape[1] and (distance - radius) * half < CLEARANCE_M):
        return False
    local, sums = np.zeros((pairs, 3, 2)), np.empty((pairs, 3, 2))
    if nodes.shape[1]:
        irregular_sums(centre, half, nodes, lengths, order, sums)
        local += sums / half
    if positions.shape[1]:
        higher = np.empty((pairs + order + 2, 3, 2))
        irregular_sums(centre, half, positions, moments, order + 1, higher)
        curl_of_sums(higher, order, sums)
        local += sums / half**2
    power = np.zeros(order + 1)  # mean square over the ball's surface, by degree
    k = 0
    for m in range(order + 1):
        size = radius ** (2 * m)
        for n in range(m, order + 1):
            for c in range(3):
                power[n] += size * mean_square[k] * (local[k, c, 0] ** 2 + local[k, c, 1] ** 2)
                out[k, 2 * c], out[k, 2 * c + 1] = gamma[k] * local[k, c, 0], gamma[k] * local[k, c, 1]
            size *= radius**2
            k += 1
    # degrees fall off as ratio^n in the end, and a degree's maximum is at most sqrt(2n + 1) times its mean square root
    ratio = radius / distance
    last = max(np.sqrt(power[order]), ratio * np.sqrt(power[order - 1]), ratio**2 * np.sqrt(power[order - 2]))
    return last * np.sqrt(2.0 * order + 3.0) * ratio / (1.0 - ratio) <= tolerance * np.sqrt(power.sum())


@njit(parallel=True, cache=True)
def _expand(centres, halves, positions, moments, nodes, lengths, order, gamma, mean_square, tolerance, out, good):
    """Expansions (k, terms, 6) of cubes, and whether what they leave out is within the tolerance."""
    for k in prange(len(centres)):
        good[k] = _expand_one(
            centres[k], halves[k], positions, moments, nodes, lengths, order, gamma, mean_square, tolerance, out[k]
        )


@njit(cache=True)
def _expand_few(centres, halves, positions, moments, nodes, lengths, order, gamma, mean_square, tolerance, out, good):
    for k in range(len(centres)):
        good[k] = _expand_one(
            centres[k], halves[k], positions, moments, nodes, lengths, order, gamma, mean_square, tolerance, out[k]
        )
