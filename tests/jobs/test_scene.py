"""The 3D picture of a pose: what is on the surfaces, and that a real picture comes out."""

import dataclasses
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from motorsweep.errors import MissingPackageError, MotorsweepError
from motorsweep.jobs import scene as scenes
from motorsweep.sim.coil import load_coil
from motorsweep.sim.pose import Pose
from motorsweep.sim.volume import VolumeGrid
from PIL import Image

GRID = VolumeGrid((0, 0, 0.075), 2e-3, 32)


@pytest.fixture
def above():
    """Coil 105 mm above the sphere's centre, handle backwards."""
    return Pose([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.105], [0, 0, 0, 1]])


@cache
def can_draw():
    """Whether PyVista draws a ball here; it may not be installed, or end by a signal for want of EGL and OSMesa."""
    program = (
        "import pyvista; plotter = pyvista.Plotter(off_screen=True, window_size=(99, 99)); "
        "plotter.add_mesh(pyvista.Sphere()); assert plotter.screenshot(None, return_img=True).std() > 0"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def need_drawing():
    if not can_draw():
        pytest.skip("this machine cannot draw in 3D: no PyVista (extra view), or neither Mesa's EGL nor OSMesa")


def scene_with(head, pose, coil="magstim-70mm", e_norm=lambda points: points[:, 2] * 10):
    coil = load_coil(coil) if isinstance(coil, str) else coil
    words = {"title": "Pose 3: |E| at 1 A/µs\ncoil on head", "colours": "|E| (V/m)", "notes": "Grey: unknown."}
    return scenes.scene_of(head, coil, pose, e_norm=e_norm, top=0.8, **words)


@pytest.mark.slow
def test_cortex_is_the_surface_of_the_brain_with_normals_outward(sphere_head):
    nodes, triangles = scenes.cortex_surface(sphere_head)
    a, b, c = (nodes[triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a) / 2
    assert np.linalg.norm(nodes, axis=1) == pytest.approx(0.080, abs=3e-3)
    assert np.linalg.norm(normals, axis=1).sum() == pytest.approx(4 * np.pi * 0.08**2, rel=0.05)
    # Gauss: the flux of r through a closed surface is three times the volume inside.
    assert ((a + b + c) / 3 * normals).sum() == pytest.approx(4 * np.pi * 0.08**3, rel=0.05)


def test_field_on_the_surface_is_that_of_the_brain_and_never_of_the_csf():
    distance = np.linalg.norm(GRID.points(), axis=1).reshape(GRID.shape)
    tissue = np.where(distance <= 0.08, 2, 3).astype(np.uint8)
    e_norm = np.where(tissue == 2, 0.7, 1e3)
    polar = np.linspace(0, 0.2, 50)
    points = 0.0805 * np.stack([np.sin(polar), np.zeros(50), np.cos(polar)], axis=1)
    np.testing.assert_allclose(scenes.field_on_surface(points, GRID, e_norm, tissue), 0.7, rtol=1e-6)


def test_field_on_the_surface_follows_the_field_and_is_unknown_outside_of_the_cube():
    tissue = np.ones(GRID.shape, np.uint8)
    e_norm = GRID.points()[:, 0].reshape(GRID.shape)
    points = np.random.default_rng(0).uniform(-0.02, 0.02, (100, 3)) + GRID.centre_m
    found = scenes.field_on_surface(points, GRID, e_norm, tissue)
    np.testing.assert_allclose(found, points[:, 0], atol=GRID.spacing_m / 2)
    assert np.isnan(scenes.field_on_surface(points + 0.1, GRID, e_norm, tissue)).all()
    assert np.isnan(scenes.field_on_surface(points, GRID, e_norm, 0 * tissue)).all()


def test_field_on_the_surface_of_a_single_brain_voxel():
    tissue = np.zeros(GRID.shape, np.uint8)
    tissue[16, 16, 16] = 2
    at = GRID.points().reshape(*GRID.shape, 3)[16, 16, 16]
    found = scenes.field_on_surface(np.stack([at, at + 0.01]), GRID, np.full(GRID.shape, 0.4), tissue)
    assert found[0] == pytest.approx(0.4) and np.isnan(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_real_picture_is_drawn(known, sphere_head, above, tmp_path):
    need_drawing()
    field = (lambda points: points[:, 2] * 10) if known else (lambda points: np.full(len(points), np.nan))
    scenes.draw(scene_with(sphere_head, above, e_norm=field), tmp_path / "made" / "pose.png")
    picture = np.asarray(Image.open(tmp_path / "made" / "pose.png").convert("RGB")).astype(int)
    assert picture.shape == (1000, 1400, 3)
    red, green, blue = np.moveaxis(picture, -1, 0)
    assert (red + green + blue >= 750).mean() > 0.4  # white background
    assert ((blue > red + 40) & (blue > 120)).sum() > 3000  # windings
    coloured = (red > 180) & (green < 170) & (blue < 100)
    assert (coloured.sum() > 3000) == known
    assert os.listdir(tmp_path / "made") == ["pose.png"]


@pytest.mark.slow
def test_a_coil_of_wires_in_a_casing_is_drawn(sphere_head, above, tmp_path):
    need_drawing()
    turn = np.linspace(0, 2 * np.pi, 61)
    ring = np.stack([0.04 * np.cos(turn), 0.04 * np.sin(turn), np.full(61, -0.008)], axis=1)
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.05
    made = dataclasses.replace(
        scene_with(sphere_head, above), windings=np.zeros((0, 3)), moments=np.zeros((0, 3)),
        segments=scenes._placed(np.stack([ring[:-1], ring[1:]], axis=1), above, (0, 2, 3)) * 1e3,
        casing=scenes._placed(square, above, (0, 3)) * 1e3, casing_triangles=np.array([[0, 2, 1], [0, 3, 2]]),
    )  # fmt: skip
    np.testing.assert_allclose(np.unique(made.segments[..., 2]), 113)
    scenes.draw(made, tmp_path / "pose.png")
    red, _, blue = np.moveaxis(np.asarray(Image.open(tmp_path / "pose.png").convert("RGB")).astype(int), -1, 0)
    assert 500 < (blue > red + 60).sum() < 30_000


def test_without_pyvista_it_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(scenes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"`make setup EXTRAS=view` installs it.*motorsweep\[view\].*--facts"):
        scenes.draw(None, tmp_path / "pose.png")


@pytest.mark.slow
def test_a_machine_that_cannot_draw_is_told_what_it_lacks(sphere_head, above, tmp_path, monkeypatch):
    """VTK ends its process by a signal there; ours goes on."""
    need_drawing()
    monkeypatch.setenv("VTK_DEFAULT_OPENGL_WINDOW", "vtkXOpenGLRenderWindow")
    monkeypatch.setenv("DISPLAY", ":987")
    (tmp_path / "pose.png").write_text("old")
    try:
        scenes.draw(scene_with(sphere_head, above), tmp_path / "pose.png")
    except MotorsweepError as error:
        assert "VTK could not draw on this machine" in str(error) and "libegl1" in str(error)
        assert (tmp_path / "pose.png").read_text() == "old" and os.listdir(tmp_path) == ["pose.png"]
    else:
        pytest.skip("VTK found another way to draw")
