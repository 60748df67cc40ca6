from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial import ConvexHull


@pytest.fixture(scope="session")
def round_head():
    """A round head of 85 mm: points spread evenly over a sphere, and their convex hull."""
    k = np.arange(6000) + 0.5
    polar, turn = np.arccos(1 - 2 * k / 6000), np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    triangles = ConvexHull(unit).simplices.astype(np.int64)
    a, b, c = (unit[triangles[:, i]] for i in range(3))
    inwards = (np.cross(b - a, c - a) * a).sum(axis=1) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    return SimpleNamespace(nodes=0.085 * unit, scalp=lambda: triangles)
