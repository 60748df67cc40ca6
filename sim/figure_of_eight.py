"""The Magstim 70 mm figure of eight from its published geometry, as magnetic dipoles."""

import numpy as np

MAGSTIM_TURNS = 9
MAGSTIM_RADII_M = np.linspace(0.028, 0.044, MAGSTIM_TURNS)
MAGSTIM_WING_X_M = 0.045
MAGSTIM_WINDING_Z_M = -0.009
MAGSTIM_WINDING_HEIGHT_M = 0.006
_POSITION_DIGITS, _MOMENT_DIGITS = 10, 16  # of metres and of A·m²/A: a tenth of a nanometre, some 1e-10 of a moment


def figure_of_eight(rings: int = 8, angles: int = 36, layers: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Dipoles that stand for the two wings of the Magstim 70 mm figure of eight.

    Each wing has 9 turns of radii 28 to 44 mm (inner diameter 56, outer 88 mm). The wings' centres lie 45 mm to either
    side (the outermost turns nearly touch), the middle of the 6 mm high conductor 9 mm above the casing's bottom. A
    planar loop is the same as a disc of dipoles, one ampere per unit area inside it, so the density at radius r is the
    number of turns around r. The disc is integrated by Gauss quadrature in r² and equal angles, the height by Gauss
    quadrature. The default makes 760 dipoles, within 2e-5 (largest difference over largest field) of the turns drawn
    as fine line segments, at 10 mm and more below the casing, and within 2e-3 right at it.

    Parameters
    ----------
    rings, angles, layers : int
        Rings per wing, dipoles on the outermost ring, and layers over the conductor's height.

    Returns
    -------
    positions : ndarray (d, 3)
        m, coil frame.
    moments : ndarray (d, 3)
        A·m² / A, along z: negative in the wing at negative x, positive in the other, as in SimNIBS's Magstim files.
    """
    radii, areas = _turns_quadrature(rings)
    disc, moment = [], []
    for k, (radius, area) in enumerate(zip(radii, areas)):
        n = max(6, int(np.ceil(angles * radius / radii[-1])))
        phi = (np.arange(n) + 0.5 * (k % 2)) * 2 * np.pi / n
        disc.append(np.stack([radius * np.cos(phi), radius * np.sin(phi)], axis=1))
        moment.append(np.full(n, area / n))
    disc, moment = np.concatenate(disc), np.concatenate(moment)
    heights, shares = np.polynomial.legendre.leggauss(layers)
    positions, moments = [], []
    for side in (-1, 1):
        for height, share in zip(heights, shares / 2):
            z = MAGSTIM_WINDING_Z_M + height * MAGSTIM_WINDING_HEIGHT_M / 2
            # mirrored, so that the coil is symmetric about x = 0 to the last bit
            x = side * (MAGSTIM_WING_X_M + disc[:, 0])
            positions.append(np.column_stack([x, disc[:, 1], np.full(len(disc), z)]))
            moments.append(np.column_stack([np.zeros((len(disc), 2)), side * share * moment]))
    # Cosines and quadratures differ in their last bits from one kind of processor to the next; the coil's id must not.
    return np.concatenate(positions).round(_POSITION_DIGITS), np.concatenate(moments).round(_MOMENT_DIGITS)


def _turns_quadrature(rings):
    """Gauss nodes (radii, m) and weights (area times turns, m²) of a wing's dipole density, by Golub and Welsch."""
    edges = np.concatenate([[0.0], MAGSTIM_RADII_M]) ** 2
    turns = MAGSTIM_TURNS - np.arange(MAGSTIM_TURNS)
    x, w = np.polynomial.legendre.leggauss(rings)
    span = np.diff(edges)
    s = (edges[:-1, None] + span[:, None] * (x + 1) / 2).ravel()
    weight = (turns[:, None] * span[:, None] * np.pi * w / 2).ravel()
    scale, total = edges[-1], weight.sum()
    q, previous, beta = np.sqrt(weight / total), np.zeros_like(s), 0.0
    diagonal, off = [], []
    for _ in range(rings):
        diagonal.append(q @ (s / scale * q))
        rest = (s / scale - diagonal[-1]) * q - beta * previous
        beta = np.linalg.norm(rest)
        off.append(beta)
        previous, q = q, rest / beta
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1))
    return np.sqrt(nodes * scale), total * vectors[0] ** 2
