import gzip
import itertools
import re
import tracemalloc

import nibabel
import numpy as np
import pytest
from motorsweep.errors import InputError, MeshError
from motorsweep.sim.head import Head, MeshSizes, load_head
from motorsweep.sim.label_mesh import mesh_labels
from motorsweep.sim.labels import read_labels, sphere_labels
from motorsweep.sim.mesh_checks import ApartError
from motorsweep.sim.mesh_quality import boundary_triangles, smallest_dihedral_angles, tet_volumes
from motorsweep.sim.msh_files import write_msh
from motorsweep.sim.scalp import Scalp
from motorsweep.sim.volume import locate

CUBE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1.0]]) * 1e-2
TWO = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])


# Voxels of 1.5 mm, turned; and layers of tissues in them.
TILTED = np.array([[0, 1.5, 0, -4], [-1.5, 0, 0, 6], [0, 0, 1.5, 2], [0, 0, 0, 1.0]])
LAYERS = np.zeros((14, 12, 10), np.uint8)
for _tag, _depth in ((5, 1), (4, 2), (3, 3), (2, 4)):
    LAYERS[_depth:-_depth, _depth:-_depth, _depth:-_depth] = _tag


def head(tets, nodes=CUBE, tags=(1, 2)):
    return Head(nodes, np.array(tets), np.array(tags[: len(tets)], np.int16), np.ones(len(tets)))


def test_inverted_flat_and_disconnected_meshes_are_refused_with_a_place():
    with pytest.raises(MeshError, match=r"1 of 2 elements are inverted, first element 1 at \("):
        head([TWO[0], TWO[1][[1, 0, 2, 3]]])
    flat = np.vstack([CUBE, [[0.02, 0.0, 0.0]]])
    with pytest.raises(MeshError, match=r"1 elements have no volume, first element 1"):
        head([[0, 1, 2, 3], [0, 1, 2, 5]], flat)
    far = np.vstack([CUBE[:4], CUBE[:4] + 1])
    with pytest.raises(MeshError, match=r"in 2 parts .* 1 of 2 elements .* around \(1002.5, .* shares no node"):
        head([[0, 1, 2, 3], [4, 5, 6, 7]], far)


def block(cells, spacing=0.01):
    """Cells of a grid as six tetrahedra (Kuhn's) each, which fit face to face: nodes in m, elements."""
    paths = [np.cumsum([(0, 0, 0), *np.eye(3, dtype=int)[list(p)]], axis=0) for p in itertools.permutations(range(3))]
    corners = np.array([path + cell for cell in cells for path in paths])
    places, tets = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    nodes, tets = places * spacing, tets.reshape(-1, 4)
    inverted = tet_volumes(nodes, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return nodes, tets


def made(nodes, tets):
    return Head(nodes, tets, np.ones(len(tets), np.int16), np.ones(len(tets)))


def box(*sides):
    return list(itertools.product(*map(range, sides)))


def test_the_outer_surface_is_that_of_sorting_all_faces():
    head = made(*block([cell for cell in box(3, 3, 3) if cell != (1, 1, 1)]))
    np.testing.assert_array_equal(head.scalp(), boundary_triangles(head.tets))
    corners = head.nodes[head.scalp()]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    assert np.linalg.norm(normals, axis=1).sum() == pytest.approx((6 * 9 + 6) * 1e-4)  # outside and the hole within
    assert np.einsum("ij,ij->", normals, corners.mean(1)) / 3 == pytest.approx(26e-6)  # divergence theorem: volume


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([(0, 0, 0), (1, 1, 0)], "meets the rest only at nodes or edges"),
        ([(0, 0, 0), (1, 1, 1)], "meets the rest only at nodes or edges"),
        ([(0, 0, 0), (3, 0, 0)], "shares no node with it"),
    ],
    ids=["edge", "node", "apart"],
)
def test_parts_that_share_no_face_are_refused_with_a_place(cells, words):
    wanted = rf"in 2 parts that share no face; 6 of 12 elements .* has 6 around \([\d., ]+\) mm and {words}"
    with pytest.raises(ApartError, match=wanted):
        made(*block(cells))


def test_an_edge_of_four_outer_triangles_is_a_head_whose_inside_is_known():
    """Two cells that meet at an edge, joined through others: the scalp's surface is no manifold, and harmless."""
    head = made(*block([(0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1)]))
    edges = np.sort(head.scalp()[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert np.unique(edges, axis=0, return_counts=True)[1].max() == 4
    points = np.random.default_rng(5).uniform(-0.002, 0.022, (4000, 3))
    inside = locate(head.nodes, head.tets, points)[0] >= 0
    assert 1000 < inside.sum() < 3000
    np.testing.assert_array_equal(Scalp.of(head).inside(points), inside)


def grown(strays, cells=(12, 12, 12)):
    """A block with single elements that touch it at a node, an edge or not at all; nodes in m, elements."""
    nodes, tets = block(box(*cells))
    corner, edge = len(nodes) - 1, np.array([np.argmax(nodes @ [1, 1, k]) for k in (0, 1e-6)])
    edge[0] = np.flatnonzero((nodes == nodes[edge[1]] - [0, 0, 0.01]).all(1))[0]
    far = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1.0]]) * 0.002 + nodes.max(0) + 0.001
    for kind in strays:
        n = len(nodes)
        if kind == "node":
            nodes, tets = np.vstack([nodes, far[:3]]), np.vstack([tets, [corner, n, n + 1, n + 2]])
        elif kind == "edge":
            nodes, tets = np.vstack([nodes, far[:2]]), np.vstack([tets, [*edge, n, n + 1]])
        else:
            nodes, tets = np.vstack([nodes, far + 0.05]), np.vstack([tets, [n, n + 1, n + 2, n + 3]])
    inverted = tet_volumes(nodes, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return nodes, tets


@pytest.mark.parametrize("kind", ["node", "edge", "apart"])
def test_a_stray_element_is_left_out_with_a_warning_and_a_word_in_the_comment(tmp_path, caplog, kind):
    write_msh(tmp_path / "clean.msh", *block(box(12, 12, 12)), np.ones(12**3 * 6))
    nodes, tets = grown([kind])
    write_msh(tmp_path / "stray.msh", nodes, tets, np.ones(len(tets)))
    head = load_head(tmp_path / "stray.msh")
    assert head.id == load_head(tmp_path / "clean.msh").id
    assert re.search(
        r"1 of 10369 elements, in a part that .* \(first at \([\d., ]+\) mm\), were left out", head.comment
    )
    assert [head.comment in record.getMessage() for record in caplog.records] == [True]


def test_more_strays_than_stated_are_refused_not_dropped(tmp_path):
    nodes, tets = grown(["node", "apart"])
    write_msh(tmp_path / "stray.msh", nodes, tets, np.ones(len(tets)))
    with pytest.raises(MeshError, match=r"stray\.msh: head 'stray': .* in 3 parts .* 2 of 10370 elements"):
        load_head(tmp_path / "stray.msh")
    with pytest.raises(MeshError, match="in 3 parts"):
        made(nodes, tets)


def test_borders_whose_nodes_are_not_merged_are_refused_with_the_remedy():
    """Two blocks with nodes of their own at the common border; and a crack that ends within one block."""
    nodes, tets = block(box(2, 2, 2))
    shifted = nodes + np.array([0.02, 0, 0])
    with pytest.raises(MeshError, match=r"8 triangles .* there twice, .* no current could cross.*Coherence Mesh"):
        made(np.vstack([nodes, shifted]), np.vstack([tets, tets + len(nodes)]))
    nodes, tets = block(box(4, 2, 2))
    on_border = np.isclose(nodes[:, 0], 0.02) & (nodes[:, 1] < 0.005)
    upper = nodes[tets].mean(1)[:, 0] > 0.02
    double = np.arange(len(nodes))
    double[on_border] = len(nodes) + np.arange(on_border.sum())
    with pytest.raises(MeshError, match=r"4 triangles .* there twice, .* first at \(20.0,"):
        made(np.vstack([nodes, nodes[on_border]]), np.where(upper[:, None], double[tets], tets))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, t: (n, np.vstack([t, t[:1]])), r"4 faces are shared by two equal elements.*First at element 48, \("),
        (lambda n, t: (n, np.vstack([t, t[20:21, [1, 2, 0, 3]]])), "shared by two equal elements"),
        (lambda n, t: (n, np.vstack([t, [3, 3, 5, 7]])), r"name a node twice, first element 48 .*nodes \[3, 3, 5, 7\]"),
        (lambda n, t: (np.vstack([n, [0.5, 0, 0]]), t), "1 nodes belong to no element, first node 27"),
        (lambda n, t: (n, np.vstack([t, [0, 1, 2, 27]])), r"element 48 names nodes \[0, 1, 2, 27\], but there are 27"),
        (lambda n, t: (n, np.vstack([t, [0, 1, 2, -1]])), "element 48 names nodes"),
        (lambda n, t: (n.astype(object), t), "numbers, whole ones"),
        (lambda n, t: (n, t.astype(float)), "numbers, whole ones"),
        (lambda n, t: (n[:, :2], t), r"\(n, 3\) and \(m, 4\) are needed"),
        (lambda n, t: (n, t[:0]), "at least one element"),
        (lambda n, t: (np.where(n == n[9], np.nan, n), t), "is not finite"),
    ],
)
def test_meshes_that_are_none_are_refused(change, words):
    nodes, tets = block(box(2, 2, 2))
    with pytest.raises(MeshError, match=words):
        made(*change(nodes, tets))


def test_elements_that_overlap_their_neighbour_are_refused():
    nodes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0], [0.1, 0.1, 2.0], [0, 0, -1.0]]) * 0.01
    above, higher, below = [0, 1, 2, 3], [0, 1, 2, 4], [1, 0, 2, 5]
    assert len(made(nodes[[0, 1, 2, 3, 5]], np.array([above, [1, 0, 2, 4]])).scalp()) == 6
    with pytest.raises(MeshError, match=r"1 faces have both of their elements on the same side.*at element 1, \("):
        made(nodes[:5], np.array([above, higher]))
    with pytest.raises(MeshError, match=r"1 faces are shared by more than two elements.*First at element 2, \("):
        made(nodes, np.array([above, higher, below]))


def test_values_of_elements_are_checked():
    nodes, tets = block(box(1, 1, 1))
    with pytest.raises(MeshError, match=r"6 elements, but tissues are \(5,\)"):
        Head(nodes, tets, np.ones(5, np.int16), np.ones(6))
    for value in (np.nan, 0.0, -1.0, np.inf):
        with pytest.raises(MeshError, match="element 2 has conductivity"):
            Head(nodes, tets, np.ones(6, np.int16), np.where(np.arange(6) == 2, value, 1.0))


@pytest.mark.parametrize(
    ("factor", "words"), [(1e-3, "0.02 mm large, .* in metres"), (1e3, "20 m large"), (1e290, "no millimetres")]
)
def test_coordinates_in_another_unit_are_told(tmp_path, factor, words):
    nodes, tets = block(box(2, 2, 2))
    write_msh(tmp_path / "head.msh", nodes * factor, tets, np.ones(len(tets)))
    with pytest.raises(MeshError, match=rf"head\.msh: the head would be .*{words}"):
        load_head(tmp_path / "head.msh")


def test_errors_of_a_mesh_name_its_file(tmp_path):
    nodes, tets = block(box(2, 2, 2))
    write_msh(tmp_path / "turned.msh", nodes, np.vstack([tets[:-1], tets[-1:, [1, 0, 2, 3]]]), np.ones(len(tets)))
    with pytest.raises(MeshError, match=r"turned\.msh: .*1 of 48 elements are inverted, first element 47"):
        load_head(tmp_path / "turned.msh")
    write_msh(tmp_path / "tags.msh", nodes, tets, np.full(len(tets), 1005))
    with pytest.raises(MeshError, match=r"tags\.msh: conductivities: .* tag 1005"):
        load_head(tmp_path / "tags.msh")


def test_a_damaged_kept_head_is_told_and_a_damaged_kept_mesh_is_made_again(tmp_path, caplog):
    made(*block(box(2, 2, 2))).save(tmp_path / "head.npz")
    content = (tmp_path / "head.npz").read_bytes()
    (tmp_path / "head.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        MeshError, match=r"head\.npz: the kept head model cannot be used; delete it.*no .npz or is damaged"
    ):
        Head.load(tmp_path / "head.npz")
    np.savez(tmp_path / "labels.npz", labels=np.ones((3, 3, 3)), affine=np.eye(4))
    with pytest.raises(MeshError, match=r"labels\.npz: .*lacks nodes and tets and"):
        Head.load(tmp_path / "labels.npz")
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    volume, sizes = sphere_labels((0.02, 0.025, 0.03, 0.035)), MeshSizes(fine_m=6e-3, coarse_m=6e-3)
    first = mesh_labels(volume, sizes, np.zeros(3), tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    again = mesh_labels(volume, sizes, np.zeros(3), tmp_path / "cache")
    np.testing.assert_array_equal(first[0], again[0])
    assert "meshed again" in caplog.text
    with np.load(kept) as file:
        np.testing.assert_array_equal(file["tets"], first[1])


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
    write_msh(tmp_path / "H.MSH", CUBE, TWO, np.array([1, 2]))
    assert load_head(tmp_path / "H.MSH").name == "H"
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
        (
            {"labels": np.ones((3, 3, 3, 2), np.uint8), "affine": np.eye(4)},
            "three axes, found 4 .3x3x3x2.; .* a series",
        ),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": np.eye(3)}, "not a 4x4 matrix"),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": np.full((4, 4), np.nan)}, "not a 4x4 matrix of finite"),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": np.eye(4, dtype=complex)}, "not a 4x4 matrix of finite"),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": TILTED.T}, "last row .* transposed"),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": np.diag([1e-3, 1e-3, 1e-3, 1])}, "0.003 mm wide.*metres"),
        ({"labels": np.ones((3, 3, 3), np.uint8), "affine": np.diag([1e4, 1e4, 1e4, 1])}, "micrometres"),
        ({"labels": np.zeros((3, 3, 3), np.uint8), "affine": np.eye(4)}, "every voxel is 0"),
        ({"labels": np.ones((0, 3, 3), np.uint8), "affine": np.eye(4)}, "every voxel is 0"),
        ({"labels": np.full((3, 3, 3), -1), "affine": np.eye(4)}, r"labels \[-1\] belong to no tissue"),
        ({"labels": np.full((3, 3, 3), 1e300), "affine": np.eye(4)}, "belong to no tissue"),
        ({"labels": np.arange(27.0).reshape(3, 3, 3), "affine": np.eye(4)}, r"\[11, 12, .*18, \.\.\.\]"),
        ({"labels": np.full((3, 3, 3), np.nan), "affine": np.eye(4)}, "not finite"),
        ({"labels": np.full((3, 3, 3), "a"), "affine": np.eye(4)}, "of type <U1"),
        ({"labels": np.full((3, 3, 3), None), "affine": np.eye(4)}, "labels holds Python objects .*may run code"),
    ],
)
def test_an_unusable_label_volume_is_told(tmp_path, content, words):
    np.savez(tmp_path / "l.npz", **content)
    with pytest.raises(MeshError, match=rf"l\.npz: .*{words}"):
        read_labels(tmp_path / "l.npz")


def image(labels=LAYERS, affine=TILTED, kind=nibabel.Nifti1Image):
    return kind(labels, affine)


def stored(image, **header):
    """Bytes of a NIfTI file whose header says what nibabel would not write."""
    content = image.to_bytes()
    raw = nibabel.Nifti1Header(content[:348], check=False)
    for key, value in header.items():
        raw[key] = value
    return raw.binaryblock + content[348:]


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_volume_is_what_nibabel_reads(tmp_path, suffix, kind):
    for k, labels in enumerate((LAYERS, LAYERS.astype(np.int16), LAYERS.astype(np.float32), LAYERS[..., None])):
        image(labels, kind=kind).to_filename(tmp_path / f"{k}{suffix}")
        volume = read_labels(tmp_path / f"{k}{suffix}")
        np.testing.assert_array_equal(volume.labels, LAYERS)
        np.testing.assert_allclose(volume.affine, nibabel.load(tmp_path / f"{k}{suffix}").affine)
        assert volume.labels.dtype == np.uint8


def test_scaled_and_big_endian_volumes_are_what_nibabel_reads(tmp_path):
    write(tmp_path / "scaled.nii", stored(image(LAYERS * np.int16(2)), scl_slope=0.5, scl_inter=0))
    write(tmp_path / "shifted.nii", stored(image(LAYERS + np.int16(3)), scl_slope=1, scl_inter=-3))
    swapped = nibabel.Nifti1Image(LAYERS.astype(">i2"), TILTED, nibabel.Nifti1Header(endianness=">"))
    swapped.to_filename(tmp_path / "swapped.nii.gz")
    for name in ("scaled.nii", "shifted.nii", "swapped.nii.gz"):
        np.testing.assert_array_equal(nibabel.load(tmp_path / name).dataobj, LAYERS)
        np.testing.assert_array_equal(read_labels(tmp_path / name).labels, LAYERS)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
def test_units_of_a_nifti_volume_are_heeded(tmp_path, unit, factor):
    made = image(affine=np.diag([factor, factor, factor, 1]) @ TILTED)
    made.header.set_xyzt_units(unit)
    made.to_filename(tmp_path / "l.nii")
    np.testing.assert_allclose(read_labels(tmp_path / "l.nii").affine, TILTED, rtol=1e-6)


def test_a_volume_with_qform_alone_has_a_place(tmp_path):
    made = image()
    made.set_sform(None, 0)
    made.set_qform(TILTED, 1)
    made.to_filename(tmp_path / "l.nii")
    np.testing.assert_allclose(read_labels(tmp_path / "l.nii").affine, TILTED, atol=1e-5)


def test_one_tissue_alone_is_read_with_a_question(tmp_path, caplog):
    image((LAYERS > 0).astype(np.uint8)).to_filename(tmp_path / "l.nii")
    assert read_labels(tmp_path / "l.nii").labels.max() == 1
    assert "one tissue only, white_matter; is it a mask?" in caplog.text


COLOURS = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (stored(image(), sform_code=0, qform_code=0), "neither sform nor qform"),
        (stored(image(), srow_x=np.zeros(4, "f4")), "affine is singular"),
        (stored(image(), srow_y=np.full(4, np.nan, "f4")), "finite numbers"),
        (stored(image(), srow_y=np.full(4, np.inf, "f4")), "finite numbers"),
        (image(affine=np.diag([1e-3, 1e-3, 1e-3, 1])), "0.014 mm wide.*metres"),
        (image(np.repeat(LAYERS[..., None], 3, axis=3)), "three axes, found 4"),
        (image(COLOURS), "colours .RGB., not labels"),
        (image(LAYERS.astype(np.complex64)), "numbers of type complex64"),
        (image(np.zeros((4, 4, 4), np.uint8)), "every voxel is 0"),
        (image(LAYERS / np.float32(3)), "fractions, not labels"),
        (image(np.where(LAYERS > 2, np.float32(np.nan), LAYERS)), "not finite"),
        (stored(image(), xyzt_units=7), "no NIfTI file or is damaged"),
    ],
)
def test_an_unusable_nifti_volume_is_told(tmp_path, made, words):
    for name in ("l.nii", "l.nii.gz"):
        write(tmp_path / name, made if isinstance(made, bytes) else stored(made))
        with pytest.raises(MeshError, match=rf"{re.escape(name)}: .*{words}"):
            read_labels(tmp_path / name)


@pytest.mark.parametrize("name", ["l.nii", "l.nii.gz"])
def test_a_volume_that_announces_more_than_the_file_holds_takes_no_memory(tmp_path, name):
    write(tmp_path / name, stored(image(), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]))
    tracemalloc.start()
    try:
        with pytest.raises(MeshError, match=r"announces 30000x30000x30000 voxels of uint8, 27000000000000 bytes"):
            read_labels(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_missing_or_foreign_volume_is_told(tmp_path):
    for name in ("no.nii", "no.npz"):
        with pytest.raises(MeshError, match=rf"{name}: cannot be read .No such file"):
            read_labels(tmp_path / name)
    for name, words in (("text.nii", "does not begin as a NIfTI"), ("text.npz", "no .npz or is damaged")):
        (tmp_path / name).write_text("hello " * 200)
        with pytest.raises(MeshError, match=rf"{name}: .*{words}"):
            read_labels(tmp_path / name)


@pytest.mark.slow
def test_template_has_the_stated_layers_over_the_hand_knob(mesh_cache):
    """Along the line from the hand knob outwards: brain, then 3 mm CSF, 6 mm bone and 6 mm scalp."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    from motorsweep.sim.template import HAND_KNOB_MM, template_labels

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
