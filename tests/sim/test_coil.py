import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import CoilError, PoseError
from motorsweep.sim import figure_of_eight as magstim
from motorsweep.sim.coil import COILS, Coil, check_coil_outside, coil_inside_head, load_coil
from motorsweep.sim.pose import Pose, grid_poses, random_poses
from motorsweep.sim.scalp import Scalp
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

SHARED = Path(os.environ.get("MOTORSWEEP_DATA", Path(__file__).parents[3] / "shared" / "data"))
HERE = Pose(np.eye(4))


def pose_of(rotation_vector, centre_m):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    matrix[:3, 3] = centre_m
    return Pose(matrix)


def sphere_head(radius_m=0.09, count=2000, centre_m=(0.0, 0.0, 0.0)):
    """Stand-in for a head: points spread evenly over a sphere, and their convex hull."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    triangles = ConvexHull(unit).simplices.astype(np.int64)
    a, b, c = (unit[triangles[:, i]] for i in range(3))
    inwards = (np.cross(b - a, c - a) * (a + b + c)).sum(axis=1) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    return SimpleNamespace(nodes=np.asarray(centre_m) + radius_m * unit, scalp=lambda: triangles)


def direct_sum(coil, points, pose, didt):
    positions, moments = coil.placed(pose)
    r = points[:, None] - positions[None]
    distance = np.linalg.norm(r, axis=2, keepdims=True)
    return didt * 1e-7 * (np.cross(moments[None], r) / distance**3).sum(axis=1)


def line_segments(points, segments=720, layers=12):
    """Vector potential of the Magstim's turns per ampere, drawn as short straight segments (Biot and Savart)."""
    potential = np.zeros_like(points)
    t = (np.arange(segments) + 0.5) * 2 * np.pi / segments
    heights = (np.arange(layers) + 0.5) / layers - 0.5
    z = magstim.MAGSTIM_WINDING_Z_M + magstim.MAGSTIM_WINDING_HEIGHT_M * heights
    for side in (-1, 1):
        for radius in magstim.MAGSTIM_RADII_M:
            x, y = side * magstim.MAGSTIM_WING_X_M + radius * np.cos(t), radius * np.sin(t)
            dl = radius * np.stack([-np.sin(t), np.cos(t), 0 * t], axis=1) * (2 * np.pi / segments)
            for height in z:
                distance = np.linalg.norm(points[:, None] - np.stack([x, y, np.full(segments, height)], axis=1), axis=2)
                potential += side * 1e-7 / layers * np.einsum("pi,ij->pj", 1 / distance, dl)
    return potential


def test_dadt_of_one_dipole_is_the_closed_form():
    # m along z at the origin, a point on x: m × r / |r|³ = y m / r²
    field = load_coil("dipole").dadt([[0.1, 0.0, 0.0], [0.0, 0.0, 0.1]], HERE, didt=1e6)
    np.testing.assert_allclose(field, [[0.0, 10.0, 0.0], [0.0, 0.0, 0.0]], atol=1e-12)


def test_dadt_is_the_direct_sum():
    rng = np.random.default_rng(0)
    coil, pose = load_coil("magstim-70mm"), pose_of([0.3, -0.2, 1.0], [0.01, 0.02, 0.09])
    points = rng.uniform(-0.07, 0.07, (517, 3)) - [0, 0, 0.05]
    np.testing.assert_allclose(
        coil.dadt(points, pose, 7e7, tolerance=0), direct_sum(coil, points, pose, 7e7), rtol=1e-11, atol=1e-12
    )


def test_dadt_of_no_points_is_empty():
    assert load_coil("dipole").dadt(np.zeros((0, 3)), HERE).shape == (0, 3)


def test_dadt_gives_the_same_bits_every_time():
    points = np.random.default_rng(1).uniform(0.01, 0.1, (1000, 3))
    coil = load_coil("magstim-70mm")
    assert np.array_equal(coil.dadt(points, HERE), coil.dadt(points, HERE))
    # nor does a point's field depend on its neighbours
    np.testing.assert_array_equal(coil.dadt(points[::-1].copy(), HERE)[::-1], coil.dadt(points, HERE))


@settings(max_examples=20, deadline=None)
@given(turn=st.tuples(*[st.floats(-3, 3)] * 3), shift=st.tuples(*[st.floats(-0.1, 0.1)] * 3), didt=st.floats(-1e8, 1e8))
def test_moving_coil_and_points_together_moves_the_field(turn, shift, didt):
    rng = np.random.default_rng(2)
    coil = Coil("few", rng.normal(0, 0.02, (5, 3)), rng.normal(0, 1e-3, (5, 3)))
    points, pose = rng.uniform(0.1, 0.2, (9, 3)), pose_of(turn, shift)
    rotation = pose.matrix[:3, :3]
    moved = coil.dadt(points @ rotation.T + pose.centre_m, pose, didt)
    still = coil.dadt(points, HERE, didt)
    np.testing.assert_allclose(moved, still @ rotation.T, atol=1e-9 * (np.abs(still).max() + 1e-300))


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(-10, 10))
def test_dadt_is_linear_in_didt(factor):
    coil, points = load_coil("dipole"), np.array([[0.03, 0.04, 0.05]])
    scaled = coil.dadt(points, HERE, factor * 1e6)
    np.testing.assert_allclose(scaled, factor * coil.dadt(points, HERE), rtol=1e-12, atol=1e-300)


def test_dadt_at_a_dipole_is_an_error():
    with pytest.raises(PoseError, match=r"1 of 2 points, the first number 1 .* field is infinite"):
        load_coil("dipole").dadt([[0.1, 0, 0], [0, 0, 0]], HERE)


def test_dadt_refuses_points_of_another_shape():
    with pytest.raises(CoilError, match=r"points are \(3,\), but must be \(n, 3\)"):
        load_coil("dipole").dadt([0.1, 0.0, 0.0], HERE)


def test_magstim_is_its_turns_within_the_stated_error():
    coil = load_coil("magstim-70mm")
    points = np.random.default_rng(0).uniform([-0.1, -0.06, 0.0], [0.1, 0.06, 0.03], (120, 3))
    turns = line_segments(points)
    error = np.linalg.norm(coil.dadt(points, HERE, 1.0) - turns, axis=1) / np.linalg.norm(turns, axis=1).max()
    deep = points[:, 2] >= 0.010
    assert error[deep].max() < 2e-5, f"error at 10 mm and more is {error[deep].max():.2e}"
    assert error.max() < 2e-3, f"error right at the casing is {error.max():.2e}"


def test_magstim_moment_is_the_area_of_its_turns():
    coil = load_coil("magstim-70mm")
    right = coil.positions[:, 0] > 0
    assert coil.moments[right, 2].sum() == pytest.approx(np.pi * (np.linspace(0.028, 0.044, 9) ** 2).sum(), rel=1e-12)
    assert coil.moments[:, 2].sum() == pytest.approx(0, abs=1e-15)
    assert (coil.positions[:, 2] < 0).all()
    assert len(coil.positions) == 760


def test_magstim_agrees_with_the_measured_coil_in_sign_and_size():
    path = SHARED / "coils" / "MagStim_D70.ccd"
    if not path.is_file():
        pytest.skip(f"no {path}; set MOTORSWEEP_DATA to the folder with coils/")
    ours, measured = load_coil("magstim-70mm"), load_coil(path)
    depths = np.array([[0, 0, z] for z in (0.01, 0.02, 0.03, 0.05)])
    a, b = ours.dadt(depths, HERE)[:, 1], measured.dadt(depths, HERE)[:, 1]
    np.testing.assert_allclose(a, b, rtol=0.03)
    assert (a < 0).all()
    for coil in (ours, measured):
        assert coil.moments[coil.positions[:, 0] < 0, 2].sum() < 0 < coil.moments[coil.positions[:, 0] > 0, 2].sum()


def test_both_simnibs_files_are_read():
    folder = SHARED / "coils"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set MOTORSWEEP_DATA to the folder with coils/")
    d70, b65 = load_coil(folder / "MagStim_D70.ccd"), load_coil(folder / "MagVenture_Cool-B65.ccd")
    assert d70.positions.shape == (964, 3)
    assert b65.moments.shape == (1000, 3)
    assert (d70.name, d70.didt_max) == ("MagStim_D70", 114.73e6)
    assert d70.description == "Magstim D70, stimulator Magstim Rapid"
    assert (b65.didt_max, b65.description) == (149.77e6, "MagVenture Cool-B65, stimulator MagPro X100")
    # ids from before there was wire and sampled fields: stores are known by them
    assert (d70.id, b65.id) == ("92e37dfabcc2aafa", "d117d2be07ec2064")


@pytest.mark.parametrize("kernels", ["Haswell", "SkylakeX", "Prescott"])
def test_the_built_in_coil_has_one_id_on_every_kind_of_processor(kernels):
    """The nodes of a cluster may differ, and a study may move: NumPy's linear algebra then has other last bits."""
    code = "from motorsweep.sim.coil import load_coil; print(load_coil('magstim-70mm').id)"
    environment = os.environ | {"OPENBLAS_CORETYPE": kernels}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [load_coil("magstim-70mm").id] == ["fdcbbfb0875a2bb1"]


def test_polarity_differs_between_makers():
    """Sign of the wings, and the direction of E = -dA/dt under the centre for a current that rises."""
    folder = SHARED / "coils"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set MOTORSWEEP_DATA to the folder with coils/")
    depths = np.array([[0, 0, z] for z in (0.01, 0.02, 0.04)])
    for source, left, forwards in (
        ("magstim-70mm", -1, 1),
        ("MagStim_D70.ccd", -1, 1),
        ("MagVenture_Cool-B65.ccd", 1, -1),
    ):
        coil = load_coil(folder / source if source.endswith("ccd") else source)
        wings = [coil.moments[sign * coil.positions[:, 0] > 0, 2].sum() for sign in (-1, 1)]
        assert np.sign(wings).tolist() == [left, -left], source
        e = -coil.dadt(depths, HERE, didt=1e6)
        assert (np.sign(e[:, 1]) == forwards).all(), source
        assert (np.abs(e[:, [0, 2]]) < 0.05 * np.abs(e[:, 1:2])).all(), source
        # at 1 A/µs, 2 cm below the casing, both makers' coils give about 1 V/m
        assert 0.5 < np.abs(e[1, 1]) < 2.5, source


def test_ccd_is_read(tmp_path):
    path = tmp_path / "two.ccd"
    path.write_text("# coil version 1.0; dIdtmax=100\n2\n# centers\n0 0 -0.01 0 0 1e-3\n\n0.01 0 -0.01 0 0 -1e-3\n")
    coil = load_coil(path)
    assert coil.name == "two"
    np.testing.assert_array_equal(coil.positions, [[0, 0, -0.01], [0.01, 0, -0.01]])
    np.testing.assert_array_equal(coil.moments, [[0, 0, 1e-3], [0, 0, -1e-3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# h\n3\n# c\n0 0 0 0 0 1\n0 0 0 0 0 1\n", r"line 2 announces 3 dipoles, but 2 rows follow"),
        ("# h\n# c\n0 0 0 0 0 1\n", r"line 3: found '0 0 0 0 0 1' where the number of dipoles should be"),
        ("# h\n-1\n", r"line 2: found '-1' where the number"),
        ("# h\n1\n# c\n0 0 nan 0 0 1\n", r"line 4: found '0 0 nan 0 0 1', but a dipole is six finite numbers"),
        ("# h\n1\n# c\n0 0 x 0 0 1\n", r"line 4: .*six finite numbers"),
        ("# h\n1\n# c\n0 0 0 0 0\n", r"line 4: .*six finite numbers"),
        ("# h\n", r"holds no dipoles"),
        ("2\n0 0 0 0 0 0\n0 0 1 0 0 0\n", r"the moments of all 2 dipoles are zero, so the coil has no field"),
    ],
)
def test_damaged_ccd_is_refused_by_line(tmp_path, text, message):
    path = tmp_path / "bad.ccd"
    path.write_text(text)
    with pytest.raises(CoilError, match=r"bad\.ccd.*" + message):
        load_coil(path)


def test_binary_ccd_is_refused(tmp_path):
    path = tmp_path / "bad.ccd"
    path.write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(CoilError, match="is not text"):
        load_coil(path)


@pytest.mark.parametrize("name", ["magstim", "nowhere.ccd", "coil.xyz"])
def test_unknown_coil_names_the_known_ones(name):
    with pytest.raises(CoilError, match=rf"{name}.*{', '.join(COILS)}.*\.ccd"):
        load_coil(name)


@pytest.mark.parametrize(
    ("positions", "moments", "message"),
    [
        (np.zeros((2, 3)), np.zeros((1, 3)), "one moment per position"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "at least one dipole"),
        (np.zeros((1, 3)), np.full((1, 3), np.nan), "NaN or infinite"),
    ],
)
def test_coil_refuses_arrays_that_mean_nothing(positions, moments, message):
    with pytest.raises(CoilError, match=message):
        Coil("c", positions, moments)


def test_coil_id_is_that_of_its_content():
    coil = load_coil("magstim-70mm")
    assert coil.id == Coil("other name", coil.positions, coil.moments).id
    assert coil.id != Coil(coil.name, coil.positions, 2 * coil.moments).id
    assert len(coil.id) == 16


def test_inside_agrees_with_the_radius():
    head = sphere_head(count=4000)
    points = np.random.default_rng(3).uniform(-0.1, 0.1, (5000, 3))
    radius = np.linalg.norm(points, axis=1)
    clear = np.abs(radius - 0.09) > 0.0005
    np.testing.assert_array_equal(Scalp.of(head).inside(points)[clear], (radius < 0.09)[clear])


def test_inside_counts_rays_through_edges_and_nodes_once():
    # an octahedron and points straight below its nodes and edges
    nodes = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
    triangles = ConvexHull(nodes).simplices
    points = np.array([[0, 0, 0], [0, 0, -2], [0, 0, 2], [0.5, 0, 0], [0.5, 0, -3], [0.25, 0.25, 0], [0, -0.5, 0.1]])
    assert Scalp(nodes, triangles).inside(points).tolist() == [True, False, False, True, False, True, True]


def test_closest_point_is_that_of_all_triangles():
    scalp = Scalp.of(sphere_head(count=500))
    points = np.random.default_rng(4).uniform(-0.12, 0.12, (50, 3))
    closest, triangle = scalp.closest(points)
    corners = scalp.nodes[scalp.triangles]
    # brute force over a fine sampling of every triangle can only be farther
    grid = np.array([(i, j, 10 - i - j) for i in range(11) for j in range(11 - i)]) / 10
    samples = np.einsum("sk,tkc->tsc", grid, corners).reshape(-1, 3)
    sampled = np.array([np.linalg.norm(samples - p, axis=1).min() for p in points])
    distance = np.linalg.norm(closest - points, axis=1)
    assert (distance <= sampled + 1e-12).all()
    assert (sampled - distance).max() < 5e-4
    offset = ((closest - corners[triangle, 0]) * scalp.area_normals[triangle]).sum(axis=1)
    np.testing.assert_allclose(offset / np.linalg.norm(scalp.area_normals[triangle], axis=1), 0, atol=1e-12)


def test_coil_inside_head_counts_dipoles():
    head, coil = sphere_head(count=4000), load_coil("magstim-70mm")
    outside = pose_of([np.pi, 0, 0], [0, 0, 0.094])
    assert coil_inside_head(coil, outside, head) == 0
    sunk = pose_of([np.pi, 0, 0], [0, 0, 0.070])
    radius = np.linalg.norm(coil.placed(sunk)[0], axis=1)
    assert (radius < 0.0895).sum() <= coil_inside_head(coil, sunk, head) <= (radius < 0.09).sum()
    assert coil_inside_head(coil, sunk, Scalp.of(head)) > 0


def test_check_coil_outside_names_pose_depth_and_remedy():
    head, coil = sphere_head(count=4000), load_coil("dipole")
    poses = [pose_of([np.pi, 0, 0], [0, 0, z]) for z in (0.095, 0.087)]
    check_coil_outside(coil, poses[:1], head)
    with pytest.raises(
        PoseError, match=r"pose 1 .*1 of 1 dipoles lie inside the head, the deepest (2\.9|3\.0) mm .*-z"
    ):
        check_coil_outside(coil, poses, head)


def test_check_coil_outside_refuses_a_casing_in_the_head():
    """The windings of the Magstim lie above its casing's underside: some mm deep, no dipole is in the head yet."""
    head, coil = sphere_head(count=4000), load_coil("magstim-70mm")
    lifted, sunk = (pose_of([np.pi, 0, 0], [0, 0, 0.09 + height]) for height in (1e-3, -2e-3))
    assert coil_inside_head(coil, sunk, head) == 0
    check_coil_outside(coil, [lifted], head)
    with pytest.raises(PoseError) as caught:
        check_coil_outside(coil, [lifted, sunk], head)
    assert re.search(
        r"pose 1 .*underside lies inside the head, (1\.9|2\.0) mm below its surface.*-z", str(caught.value)
    )


def test_check_coil_outside_refuses_a_coil_far_away_and_counts_the_poses():
    head, coil = sphere_head(count=4000), load_coil("dipole")
    near, sunk = (pose_of([np.pi, 0, 0], [0, 0, z]) for z in (0.189, 0.087))
    far = Pose(pose_of([np.pi, 0, 0], [0, 0, 0.292]).matrix, name="Sample 4", number=3)
    check_coil_outside(coil, [near], head)
    with pytest.raises(PoseError, match=r"^pose 1 \('Sample 4', marker 3\) of coil .* is 202 mm from the scalp"):
        check_coil_outside(coil, [near, far], head)
    with pytest.raises(PoseError, match=r"pose 1 \('Sample 4', marker 3\) and 2 more of 4 poses of coil 'dipole': the"):
        check_coil_outside(coil, [near, far, sunk, far], head)
    check_coil_outside(coil, [], head)


def test_check_coil_outside_speaks_of_distance_only_where_it_can_be_raised():
    head, coil, sunk = sphere_head(count=4000), load_coil("dipole"), pose_of([np.pi, 0, 0], [0, 0, 0.087])
    with pytest.raises(PoseError, match=r"Move the coil outwards along -z, or check"):
        check_coil_outside(coil, [sunk], head)
    with pytest.raises(PoseError, match=r"Move the coil outwards along -z, raise distance_mm, or check"):
        check_coil_outside(coil, [sunk], head, from_grid=True)


@pytest.mark.parametrize("distance_m", [0.0, 1e-3, 4e-3])
def test_tangential_poses_are_outside(distance_m):
    scalp, knob = Scalp.of(sphere_head(count=6000)), (-0.037, -0.021, 0.058)
    poses = grid_poses(scalp, knob, distance_m=distance_m)
    poses += random_poses(scalp, knob, 20, distance_m=distance_m, seed=1)
    for name in ("magstim-70mm", "dipole"):
        # the one dipole of "dipole" lies on the casing's underside, so at no distance it would touch the scalp
        if name != "dipole" or distance_m:
            check_coil_outside(load_coil(name), poses, scalp)
