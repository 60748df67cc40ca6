"""Closed form of the electric field that magnetic dipoles induce in a conductor with spherical symmetry."""

import numpy as np
from numba import njit, prange

from ..errors import InputError

MU0_OVER_4PI = 1e-7


def sphere_field(points_m, positions_m, moments, didt: float = 1e6, centre_m=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Electric field inside a sphere, whatever the conductivities of its concentric layers.

    Heller & van Hulsteyn, Biophys. J. 63 (1992) 129-138. With the field point r1, the dipole m at r2 outside the
    sphere, both from the sphere's centre, and a = r2 - r1::

        F  = |a| (|r2| |a| + r2·a)
        ∇F = (|a|²/|r2| + 2|a| + 2|r2| + r2·a/|a|) r2 - (|a| + 2|r2| + r2·a/|a|) r1
        E  = -dI/dt · 1e-7 / F² · (F r1 × m - (m·∇F) r1 × r2)

    Parameters
    ----------
    points_m : array_like (n, 3)
        Points inside the sphere, m.
    positions_m, moments : array_like (d, 3)
        Dipoles in the same coordinates, m and A·m² per ampere (see `Coil.placed`).
    didt : float
        A/s.
    centre_m : array_like (3,)
        Centre of the sphere, m.

    Returns
    -------
    ndarray (n, 3)
        V/m. The field has no radial component.

    Raises
    ------
    InputError
        Where a point is as far from the centre as the nearest dipole or farther: no sphere separates them.

    Examples
    --------
    >>> sphere_field([[0.05, 0.0, 0.0]], [[0.0, 0.0, 0.1]], [[0.0, 0.0, 1.0]]).round(3)
    array([[-0.   , -3.578, -0.   ]])
    """
    r1 = np.ascontiguousarray(np.asarray(points_m, dtype=np.float64) - centre_m)
    r2 = np.ascontiguousarray(np.asarray(positions_m, dtype=np.float64) - centre_m)
    m = np.ascontiguousarray(moments, dtype=np.float64)
    outermost, nearest = np.linalg.norm(r1, axis=1).max(initial=0), np.linalg.norm(r2, axis=1).min()
    if not outermost < nearest:
        raise InputError(
            f"closed form in a sphere: a field point lies {outermost * 1e3:.2f} mm from the centre, the nearest dipole "
            f"{nearest * 1e3:.2f} mm. The formula holds only with every dipole outside the sphere and every point "
            "inside. Move the coil outwards or leave those points out."
        )
    field = np.empty_like(r1)
    _heller(r1, r2, m, -MU0_OVER_4PI * didt, field)
    return field


@njit(parallel=True, cache=True)
def _heller(points, positions, moments, scale, out):
    for i in prange(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        ex, ey, ez = 0.0, 0.0, 0.0
        for d in range(positions.shape[0]):
            px, py, pz = positions[d, 0], positions[d, 1], positions[d, 2]
            mx, my, mz = moments[d, 0], moments[d, 1], moments[d, 2]
            ax, ay, az = px - x, py - y, pz - z
            a = np.sqrt(ax * ax + ay * ay + az * az)
            r = np.sqrt(px * px + py * py + pz * pz)
            ra = px * ax + py * ay + pz * az
            f = a * (r * a + ra)
            m_grad = (a * a / r + 2 * a + 2 * r + ra / a) * (mx * px + my * py + mz * pz)
            m_grad -= (a + 2 * r + ra / a) * (mx * x + my * y + mz * z)
            ex += ((y * mz - z * my) * f - m_grad * (y * pz - z * py)) / (f * f)
            ey += ((z * mx - x * mz) * f - m_grad * (z * px - x * pz)) / (f * f)
            ez += ((x * my - y * mx) * f - m_grad * (x * py - y * px)) / (f * f)
        out[i, 0], out[i, 1], out[i, 2] = scale * ex, scale * ey, scale * ez
