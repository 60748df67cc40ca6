import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.coil import Coil, load_coil
from motorsweep.sim.pose import Pose
from motorsweep.sim.sphere_field import sphere_field
from scipy.spatial.transform import Rotation

DIPOLE = np.array([[0.02, -0.03, 0.1]]), np.array([[0.3, -0.5, 0.8]])


def test_field_has_no_radial_component():
    points = np.random.default_rng(0).uniform(-0.04, 0.04, (50, 3))
    field = sphere_field(points, *DIPOLE)
    radial = (field * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    assert np.abs(radial).max() < 1e-12 * np.abs(field).max()


def test_curl_is_minus_the_change_of_the_magnetic_field():
    position, moment = DIPOLE
    point, h = np.array([0.01, 0.02, -0.03]), 1e-5
    steps = np.concatenate([point + h * np.eye(3), point - h * np.eye(3)])
    gradient = np.diff(sphere_field(steps, *DIPOLE).reshape(2, 3, 3)[::-1], axis=0)[0] / (2 * h)  # [i, j] = dE_j/dx_i
    curl = np.array([gradient[1, 2] - gradient[2, 1], gradient[2, 0] - gradient[0, 2], gradient[0, 1] - gradient[1, 0]])
    r = point - position[0]
    distance = np.linalg.norm(r)
    change = 1e6 * 1e-7 * (3 * r * (moment[0] @ r) / distance**5 - moment[0] / distance**3)
    np.testing.assert_allclose(curl, -change, rtol=1e-6)


def test_differs_from_the_primary_field_by_a_gradient():
    """E + dA/dt = -grad(phi) has no circulation, whatever the loop."""
    coil, pose = Coil("d", *DIPOLE), Pose(np.eye(4))
    t = (np.arange(200) + 0.5) * 2 * np.pi / 200
    u, v = np.array([0.02, 0.01, 0.0]), np.array([0.0, -0.01, 0.03])
    loop = np.cos(t)[:, None] * u + np.sin(t)[:, None] * v + [0.0, 0.01, 0.0]
    tangent = -np.sin(t)[:, None] * u + np.cos(t)[:, None] * v
    primary = coil.dadt(loop, pose)
    total = sphere_field(loop, *DIPOLE) + primary
    assert abs((total * tangent).sum()) < 1e-10 * np.abs(primary * tangent).sum()


def test_radial_dipole_induces_its_primary_field():
    """A radial dipole's dA/dt has no radial component, so it charges no surface."""
    position = np.array([[0.0, 0.0, 0.1]])
    moment = np.array([[0.0, 0.0, 2.0]])
    points = np.random.default_rng(1).uniform(-0.04, 0.04, (20, 3))
    primary = Coil("radial", position, moment).dadt(points, Pose(np.eye(4)), 5e6)
    np.testing.assert_allclose(sphere_field(points, position, moment, 5e6), -primary, rtol=1e-10)


def test_rotating_everything_about_the_centre_rotates_the_field():
    coil = load_coil("magstim-70mm")
    matrix = np.diag([1.0, -1.0, -1.0, 1.0])
    matrix[2, 3] = 0.1
    positions, moments = coil.placed(Pose(matrix))
    points, centre = np.random.default_rng(2).uniform(-0.04, 0.04, (20, 3)), np.array([0.01, -0.02, 0.03])
    turn = Rotation.from_rotvec([0.4, 1.0, -0.7]).as_matrix()
    still = sphere_field(points, positions, moments)
    turned = sphere_field(points @ turn.T + centre, positions @ turn.T + centre, moments @ turn.T, centre_m=centre)
    np.testing.assert_allclose(turned, still @ turn.T, atol=1e-12 * np.abs(still).max())


def test_points_beyond_the_dipoles_are_refused():
    with pytest.raises(InputError, match=r"120\.00 mm from the centre, the nearest dipole 106\.30 mm"):
        sphere_field([[0.12, 0.0, 0.0]], *DIPOLE)
