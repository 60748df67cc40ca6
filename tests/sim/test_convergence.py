"""Convergence of the field in a layered sphere to its closed form, with a real coil."""

import numpy as np
import pytest
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import Head
from motorsweep.sim.pose import Pose
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.sphere_field import sphere_field
from motorsweep.sim.sphere_mesh import RADII_M, layered_sphere, refined_sphere

COIL = load_coil("magstim-70mm")


def tangential(direction, distance_m, angle_deg):
    """Coil over the scalp in a direction, z inward, turned about z."""
    z = -np.asarray(direction, float) / np.linalg.norm(direction)
    y = np.cross(z, [1.0, 0.2, 0])
    y /= np.linalg.norm(y)
    frame = np.stack([np.cross(y, z), y, z], axis=1)
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = np.eye(4)
    matrix[:3, :3] = frame @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    matrix[:3, 3] = -z * (RADII_M[-1] + distance_m)
    return Pose(matrix)


POSES = [
    tangential((0, 0, 1), 0.004, 0),
    tangential((0.5, -0.3, 0.8), 0.007, 45),
    tangential((-0.9, 0.2, 0.3), 0.010, 110),
]


def brain_points(count=4000):
    """Points of the brain, evenly in its volume from 30 mm to next to its border."""
    x = np.random.default_rng(0).normal(size=(count, 3))
    radius = np.random.default_rng(1).uniform(0.03**3, 0.0795**3, (count, 1)) ** (1 / 3)
    return x * radius / np.linalg.norm(x, axis=1)[:, None]


def errors(head, **config):
    """Relative L2 error of E in the brain for each pose."""
    x = brain_points()
    e = FieldSolver(head, COIL, SolverConfig(**config)).at(x, POSES)
    truth = [sphere_field(x, *COIL.placed(pose)) for pose in POSES]
    return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(e, truth)])


@pytest.fixture(scope="module")
def heads():
    """The same sphere with edges h, h/2 and h/4."""
    coarse = layered_sphere(2)
    finer = refined_sphere(coarse)
    return coarse, finer, refined_sphere(finer)


def test_second_order_elements_converge_with_order_two_and_are_below_one_per_cent(heads):
    by_mesh = np.array([errors(head, kind="iterative") for head in heads[:2]])
    rates = np.log2(by_mesh[0] / by_mesh[1])
    assert (rates > 1.8).all() and (rates < 2.8).all(), f"observed rates {rates}, errors {by_mesh}"
    assert by_mesh[1].max() < 0.01, f"errors {by_mesh[1]}"


def test_linear_elements_converge_with_order_one_and_recovery_does_better(heads):
    x = brain_points()
    from motorsweep.sim.volume import locate

    plain, recovered = [], []
    for head in heads:
        solver = FieldSolver(head, COIL, SolverConfig(order=1))
        element, _ = locate(head.nodes, head.tets, x)
        truth = np.stack([sphere_field(x, *COIL.placed(pose)) for pose in POSES])
        scale = np.linalg.norm(truth)
        plain.append(np.linalg.norm(solver.elements(POSES)[:, element] - truth) / scale)
        recovered.append(np.linalg.norm(solver.at(x, POSES) - truth) / scale)
    rate, better = np.log2(plain[1] / plain[2]), np.log2(recovered[1] / recovered[2])
    assert 0.9 < rate < 1.15, f"observed rate {rate:.2f}, errors {plain}"
    assert better > 1.4, f"observed rate {better:.2f}, errors {recovered}"


def test_layers_do_not_matter_in_a_sphere_but_do_in_an_ellipsoid():
    """Heller & van Hulsteyn 1992: the field depends on no conductivity, up to the error of the mesh."""
    heads = layered_sphere(3), layered_sphere(3, conductivities=dict.fromkeys((2, 3, 4, 5), 0.33))
    x = brain_points()

    def difference(squeeze):
        fields = []
        for head in heads:
            head = Head(head.nodes * squeeze, head.tets, head.tissue, head.conductivity)
            fields.append(FieldSolver(head, COIL, SolverConfig(kind="iterative")).at(x * squeeze, POSES[:1])[0])
        return np.linalg.norm(fields[0] - fields[1]) / np.linalg.norm(fields[1])

    round_one, long_one = difference(np.ones(3)), difference(np.array([1, 0.7, 1]))
    assert round_one < 0.005, f"{round_one:.4f} in the sphere"
    assert long_one > 5 * round_one, f"{round_one:.4f} in the sphere, {long_one:.4f} in the ellipsoid"


def test_volumes_of_tissues_are_those_of_the_shells(heads):
    exact = 4 / 3 * np.pi * np.diff(np.array([0, *RADII_M]) ** 3)
    off = [[head.volumes[head.tissue == tag].sum() for tag in (2, 3, 4, 5)] / exact - 1 for head in heads]
    rates = np.log2(np.abs(off[1]) / np.abs(off[2]))
    assert (rates > 1.8).all() and (rates < 2.2).all(), f"observed rates {rates}, off {off}"
