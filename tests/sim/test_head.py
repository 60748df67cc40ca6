import numpy as np
import pytest
from motorsweep.errors import InputError, MeshError
from motorsweep.sim.head import Head, MeshSizes, load_head
from motorsweep.sim.label_mesh import mesh_labels
from motorsweep.sim.labels import read_labels, sphere_labels
from motorsweep.sim.mesh_quality import smallest_dihedral_angles
from motorsweep.sim.msh_files import write_msh

CUBE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1.0]]) * 1e-2
TWO = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])


def head(tets, nodes=CUBE, tags=(1, 2)):
    return Head(nodes, np.array(tets), np.array(tags[: len(tets)], np.int16), np.ones(len(tets)))


def test_inverted_flat_and_disconnected_meshes_are_refused_with_a_place():
    with pytest.raises(MeshError, match=r"1 of 2 elements are inverted, first element 1 at \("):
        head([TWO[0], TWO[1][[1, 0, 2, 3]]])
    flat = np.vstack([CUBE, [[0.02, 0.0, 0.0]]])
    with pytest.raises(MeshError, match=r"1 elements have no volume, first element 1"):
        head([[0, 1, 2, 3], [0, 1, 2, 5]], flat)
    far = np.vstack([CUBE[:4], CUBE[:4] + 1])
    with pytest.raises(MeshError, match=r"in 2 parts .* has 4 nodes around \("):
        head([[0, 1, 2, 3], [4, 5, 6, 7]], far)


def test_a_mesh_of_the_other_orientation_is_turned():
    turned = head([t[[1, 0, 2, 3]] for t in TWO])
    assert (turned.volumes > 0).all()


def test_id_follows_the_content_and_survives_files(tmp_path):
    one = head(TWO)
    write_msh(tmp_path / "h.msh", one.nodes, one.tets, one.tissue)
    read = load_head(tmp_path / "h.msh", {"white_matter": 1.0, "grey_matter": 1.0})
    assert read.id == one.id
    assert load_head(tmp_path / "h.msh").id != one.id
    one.save(tmp_path / "h.npz")
    assert Head.load(tmp_path / "h.npz").id == one.id
    assert [p.name for p in tmp_path.glob("*.npz")] == ["h.npz"]


def test_untagged_elements_and_unknown_sources_are_told(tmp_path):
    write_msh(tmp_path / "h.msh", CUBE, TWO, np.array([1, 99]))
    with pytest.raises(MeshError, match="tag 99"):
        load_head(tmp_path / "h.msh")
    with pytest.raises(InputError, match="not a head that can be loaded"):
        load_head("head.stl")


def test_sphere_is_meshed_without_slivers_and_keeps_its_volumes(sphere_head):
    assert smallest_dihedral_angles(sphere_head.nodes, sphere_head.tets).min() > 2
    radii = (0.080, 0.083, 0.089, 0.095)
    for tag, inner, outer in zip((2, 3, 4, 5), (0, *radii), radii):
        volume = sphere_head.volumes[sphere_head.tissue == tag].sum()
        assert volume == pytest.approx(4 / 3 * np.pi * (outer**3 - inner**3), rel=0.03)
    surface = np.unique(sphere_head.scalp())
    assert np.linalg.norm(sphere_head.nodes[surface], axis=1).mean() == pytest.approx(0.095, rel=5e-3)


def test_radii_of_the_sphere_can_be_chosen(mesh_cache):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    sizes = MeshSizes(fine_m=5e-3, coarse_m=5e-3, fine_radius_m=5e-3)
    radii = (0.030, 0.035, 0.040, 0.045)
    made = load_head("sphere", {"bone": 0.02}, sizes=sizes, cache=mesh_cache, radii_m=radii)
    surface = np.unique(made.scalp())
    assert np.linalg.norm(made.nodes[surface], axis=1).mean() == pytest.approx(0.045, rel=0.01)
    assert np.unique(made.conductivity[made.tissue == 4]).tolist() == [0.02]


def test_radii_that_make_no_sphere_are_told():
    for radii in ((0.08, 0.083, 0.089), (0.08, 0.07, 0.089, 0.095), (0.0, 0.083, 0.089, 0.095)):
        with pytest.raises(InputError, match=r"not those of four layers.*ascending"):
            load_head("sphere", radii_m=radii)
    with pytest.raises(InputError, match=r"'template': radii_m are those of the layered sphere"):
        load_head("template", radii_m=(0.08, 0.083, 0.089, 0.095))


def test_a_full_disk_leaves_no_part_of_a_mesh(tmp_path):
    """The kernel refuses what exceeds the largest size of a file, as it does on a full disk."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    resource = pytest.importorskip("resource", reason="limits of a process are a thing of Unix")
    volume = sphere_labels((0.02, 0.025, 0.03, 0.035))
    sizes = MeshSizes(fine_m=4e-3, coarse_m=4e-3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            mesh_labels(volume, sizes, np.zeros(3), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_label_volume_is_placed_by_its_affine(tmp_path, mesh_cache):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    labels = np.zeros((40, 30, 20), np.uint8)
    labels[5:35, 5:25, 5:15] = 5
    labels[10:30, 10:20, 8:12] = 1
    # Voxel axes turned against those of the head: i runs along -y, j along +x.
    affine = np.array([[0, 2, 0, 10], [-2, 0, 0, 5], [0, 0, 2, -7], [0, 0, 0, 1.0]])
    np.savez(tmp_path / "labels.npz", labels=labels, affine=affine)
    sizes = MeshSizes(fine_m=3e-3, coarse_m=5e-3, fine_radius_m=5e-3)
    made = load_head(tmp_path / "labels.npz", sizes=sizes, cache=mesh_cache)
    low, high = (affine @ np.array([*corner, 1]) for corner in ((4.5, 4.5, 4.5), (34.5, 24.5, 14.5)))
    expected = np.sort([low[:3], high[:3]], axis=0) * 1e-3
    np.testing.assert_allclose([made.nodes.min(0), made.nodes.max(0)], expected, atol=1.2e-3)
    inside = made.tissue == 1
    inner = np.average(made.nodes[made.tets[inside]].mean(1), axis=0, weights=made.volumes[inside]) * 1e3
    np.testing.assert_allclose(inner, (affine @ [19.5, 14.5, 9.5, 1])[:3], atol=0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"labels": np.ones((3, 3, 3), np.uint8)}, "lacks affine"),
        ({"labels": np.full((3, 3, 3), 44, np.uint8), "affine": np.eye(4)}, r"labels \[44\] belong to no tissue"),
        ({"labels": np.full((3, 3, 3), 0.5), "affine": np.eye(4)}, "fractions, not labels"),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": np.zeros((4, 4))}, "singular"),
        ({"labels": np.ones((3, 3), np.uint8), "affine": np.eye(4)}, "three axes"),
    ],
)
def test_an_unusable_label_volume_is_told(tmp_path, content, words):
    np.savez(tmp_path / "l.npz", **content)
    with pytest.raises(MeshError, match=words):
        read_labels(tmp_path / "l.npz")


@pytest.mark.slow
def test_template_has_the_stated_layers_over_the_hand_knob(mesh_cache):
    """Along the line from the hand knob outwards: brain, then 3 mm CSF, 6 mm bone and 6 mm scalp."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    from motorsweep.sim.template import HAND_KNOB_MM, template_labels
    from motorsweep.sim.volume import locate

    made = load_head("template", sizes=MeshSizes(fine_m=3e-3, coarse_m=8e-3), cache=mesh_cache)
    assert "approximation" in made.comment
    brain = made.volumes[made.tissue <= 2].sum()
    voxels = np.isin(template_labels().labels, (1, 2)).sum()
    assert brain == pytest.approx(voxels * 1e-9, rel=0.02)
    knob = np.array(HAND_KNOB_MM) * 1e-3
    nearest = made.nodes[made.scalp()].mean(1)
    out = nearest[np.argmin(np.linalg.norm(nearest - knob, axis=1))] - knob
    steps = np.arange(0, 0.06, 2e-4)
    element, _ = locate(made.nodes, made.tets, knob + steps[:, None] * out / np.linalg.norm(out))
    tags = made.tissue[element[element >= 0]]
    assert tags[0] <= 2
    for tag, thickness in ((4, 6), (5, 6)):
        assert (tags == tag).sum() * 0.2 == pytest.approx(thickness, abs=1.5)
