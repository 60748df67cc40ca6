import gzip
import itertools
import tracemalloc

import meshio
import numpy as np
import pytest
from motorsweep.errors import MeshError
from motorsweep.sim.head import load_head
from motorsweep.sim.mesh_quality import boundary_triangles, tet_volumes
from motorsweep.sim.msh_files import read_msh, write_msh

NODES = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10], [10, 10, 10.0]]) * 1e-3
TETS = np.array([[0, 1, 2, 3], [1, 2, 3, 4]], np.int32)
TAGS = np.array([1, 5], np.int16)

# A surface triangle (type 2), a gap in the node numbers, an unused node and two tags.
ASCII = """$MeshFormat
2.2 0 8
$EndMeshFormat
$Nodes
6
1 0 0 0
2 10 0 0
3 0 10 0
40 0 0 10
41 99 99 99
50 10 10 10
$EndNodes
$Elements
3
1 2 2 1005 1005 1 2 3
2 4 2 1 1 1 2 3 40
3 4 2 5 5 2 3 40 50
$EndElements
"""


def same(path):
    nodes, tets, tags = read_msh(path)
    np.testing.assert_allclose(nodes, NODES, atol=1e-15)
    assert tets.tolist() == TETS.tolist()
    assert tags.tolist() == [1, 5]


def test_ascii_with_surfaces_gaps_and_unused_nodes(tmp_path):
    path = tmp_path / "head.msh"
    path.write_text(ASCII)
    same(path)


def test_binary_and_gzip_round_trip(tmp_path):
    write_msh(tmp_path / "head.msh", NODES, TETS, TAGS)
    same(tmp_path / "head.msh")
    (tmp_path / "head.msh.gz").write_bytes(gzip.compress((tmp_path / "head.msh").read_bytes()))
    same(tmp_path / "head.msh.gz")


def cube():
    """27 nodes in 10 mm steps, six tetrahedra (Kuhn's) a cell, five tissues; and the triangles of the surface."""
    places = np.array(list(itertools.product(range(3), repeat=3))) * 10.0 + np.array([-3.0, 5.5, 0.25])
    paths = [np.cumsum([(0, 0, 0), *np.eye(3, dtype=int)[list(p)]], axis=0) for p in itertools.permutations(range(3))]
    cells = itertools.product(range(2), repeat=3)
    tets = np.array([(path + cell) @ [9, 3, 1] for cell in cells for path in paths])
    inverted = tet_volumes(places, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return places, tets, 1 + np.arange(len(tets)) % 5, boundary_triangles(tets)


def numbered(rng, count, gaps):
    """Numbers from 1, or some with gaps in no order."""
    return rng.choice(np.arange(1, 40 * count), count, replace=False) if gaps else np.arange(1, count + 1)


def written(*, binary, order="<", one_by_one=False, gaps=False, triangles_first=True, sections=False, feed=b"\n"):
    """The cube as a file, by the words of the format and with nothing of what reads it."""
    places, tets, tags, triangles = cube()
    rng = np.random.default_rng(4)
    numbers = numbered(rng, len(places), gaps)
    shuffled = rng.permutation(len(places)) if gaps else np.arange(len(places))
    tet_rows = [(4, tag, numbers[tet]) for tag, tet in zip(tags, tets)]
    triangle_rows = [(2, 1001 + k % 5, numbers[t]) for k, t in enumerate(triangles)]
    elements = triangle_rows + tet_rows if triangles_first else tet_rows + triangle_rows
    first = 1 if triangles_first else 77
    file = b"$Comments\nmade by hand: $Nodes are below\n$EndComments\n" if sections else b""
    file += b"$MeshFormat\n2.2 %d 8\n" % binary
    file += np.array(1, order + "i4").tobytes() + b"\n" if binary else b""
    file += b"$EndMeshFormat\n"
    data = b'$ElementData\n1\n"E"\n1\n0.0\n3\n0\n1\n1\n'
    data += np.array(1, order + "i4").tobytes() + np.array(5.0, order + "f8").tobytes() if binary else b"1 5.0"
    data += feed + b"$EndElementData\n"
    if sections:
        file += b'$PhysicalNames\n1\n3 1 "white $Elements matter"\n$EndPhysicalNames\n' + data
    rows = zip(numbers[shuffled], places[shuffled])
    if binary:
        table = np.array([(n, p) for n, p in rows], [("n", order + "i4"), ("p", order + "f8", 3)])
        file += b"$Nodes\n%d\n" % len(places) + table.tobytes() + feed
    else:
        file += b"$Nodes\n%d\n" % len(places)
        file += "".join(f"{n} {p[0]!r} {p[1]!r} {p[2]!r}\n" for n, p in rows).replace("np.float64", "").encode()
        file = file.replace(b"(", b"").replace(b")", b"")
    file += b"$EndNodes\n" + (data if sections else b"") + b"$Elements\n%d\n" % len(elements)
    previous = None
    for number, (kind, tag, corners) in enumerate(elements, first):
        if binary:
            many = 1 if one_by_one else sum(e[0] == kind for e in elements)
            if one_by_one or kind != previous:
                file += np.array([kind, many, 2], order + "i4").tobytes()
            file += np.array([number, tag, tag, *corners], order + "i4").tobytes()
        else:
            file += " ".join(map(str, (number, kind, 2, tag, tag, *corners))).encode() + b"\n"
        previous = kind
    return file + (feed if binary else b"") + b"$EndElements\n" + (data if sections else b"")


def test_files_that_number_alike_give_one_head(tmp_path):
    ids = set()
    for k, variant in enumerate(v for v in VARIANTS.values() if "gaps" not in v):
        (tmp_path / f"{k}.msh").write_bytes(written(**variant))
        ids.add(load_head(tmp_path / f"{k}.msh").id)
    assert k >= 5 and len(ids) == 1


def assert_is_the_cube(path):
    """Equal up to the order of the nodes: corners are compared by place."""
    nodes, tets, tags = read_msh(path)
    places, expected, expected_tags, _ = cube()
    np.testing.assert_allclose(nodes[tets], places[expected] * 1e-3, rtol=0, atol=1e-16)
    assert tags.tolist() == expected_tags.tolist()
    assert len(nodes) == 27 and tets.dtype == np.int32 and tags.dtype == np.int16


VARIANTS = {
    "text": {"binary": False},
    "text, other sections": {"binary": False, "sections": True},
    "text, gaps": {"binary": False, "gaps": True, "triangles_first": False},
    "binary": {"binary": True},
    "binary, as SimNIBS": {"binary": True, "feed": b"", "sections": True},
    "binary, one element a header": {"binary": True, "one_by_one": True, "feed": b""},
    "binary, gaps": {"binary": True, "gaps": True, "triangles_first": False, "sections": True},
    "binary, big-endian": {"binary": True, "order": ">"},
    "binary, big-endian, one by one": {"binary": True, "order": ">", "one_by_one": True, "gaps": True},
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_of_the_file_gives_the_same_mesh(tmp_path, variant, packed):
    content = written(**variant)
    path = tmp_path / ("head.msh.gz" if packed else "head.msh")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert_is_the_cube(path)


def test_text_with_the_line_ends_of_windows(tmp_path):
    (tmp_path / "head.msh").write_bytes(written(binary=False, sections=True).replace(b"\n", b"\r\n"))
    assert_is_the_cube(tmp_path / "head.msh")


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("triangles_first", [False, True])
def test_what_meshio_writes_gives_the_same_mesh(tmp_path, binary, triangles_first):
    places, tets, tags, triangles = cube()
    cells = [("triangle", triangles), ("tetra", tets)]
    marks = [np.full(len(triangles), 1005, np.int32), tags.astype(np.int32)]
    order = slice(None) if triangles_first else slice(None, None, -1)
    mesh = meshio.Mesh(
        places,
        cells[order],
        point_data={"v": np.arange(27.0)},
        cell_data={
            "gmsh:physical": marks[order],
            "gmsh:geometrical": marks[order],
            "E": [m * 1.5 for m in marks[order]],
        },
        field_data={"white": np.array([1, 3])},
    )
    mesh.write(tmp_path / "head.msh", file_format="gmsh22", binary=binary)
    assert_is_the_cube(tmp_path / "head.msh")


@pytest.mark.parametrize("binary", [False, True])
def test_meshio_reads_what_is_written_by_hand_here(tmp_path, binary):
    """The hand-made files of these tests are files of the format to another reader too."""
    (tmp_path / "head.msh").write_bytes(written(binary=binary))
    mesh = meshio.read(tmp_path / "head.msh", file_format="gmsh")
    places, tets, tags, triangles = cube()
    np.testing.assert_array_equal(mesh.points, places)
    np.testing.assert_array_equal(mesh.cells_dict["tetra"], tets)
    np.testing.assert_array_equal(mesh.cells_dict["triangle"], triangles)
    assert mesh.cell_data_dict["gmsh:physical"]["tetra"].tolist() == tags.tolist()


def test_the_sphere_of_simnibs_agrees_with_meshio(data_folder):
    path = data_folder / "meshes" / "sphere3.msh"
    if not path.exists():
        pytest.skip("the test sphere of SimNIBS is not here")
    nodes, tets, tags = read_msh(path)
    mesh = meshio.read(path, file_format="gmsh")
    np.testing.assert_array_equal(nodes[tets], mesh.points[mesh.cells_dict["tetra"]] * 1e-3)
    assert tags.tolist() == mesh.cell_data_dict["gmsh:physical"]["tetra"].tolist()
    assert np.unique(tags).tolist() == [3, 4, 5]


@pytest.mark.parametrize("variant", [v for n, v in VARIANTS.items() if "sections" not in v], ids=lambda v: str(v))
def test_every_truncation_is_a_clear_error(tmp_path, variant):
    """A head cut at any byte before the end of its elements is refused: half a number is a number too."""
    content = written(**variant)
    path = tmp_path / "cut.msh"
    for size in range(0, content.index(b"$EndElements") + len(b"$EndElements"), 7):
        path.write_bytes(content[:size])
        with pytest.raises(MeshError, match=r"cut\.msh: .*(cut short|\$MeshFormat|damaged|format is|says|followed by)"):
            read_msh(path)
    path.write_bytes(content[:-1])
    assert_is_the_cube(path)


def test_every_truncation_of_a_gzip_file_is_a_clear_error(tmp_path):
    content = gzip.compress(written(binary=True))
    for size in range(2, len(content) - 1, 11):
        (tmp_path / "cut.msh.gz").write_bytes(content[:size])
        with pytest.raises(MeshError, match=r"cut\.msh\.gz: the gzip file is damaged"):
            read_msh(tmp_path / "cut.msh.gz")


def test_a_gzip_file_that_never_ends_is_stopped(tmp_path):
    (tmp_path / "bomb.msh.gz").write_bytes(gzip.compress(bytes(100_000_000)))
    with pytest.raises(MeshError, match=r"grows more than 200 times"):
        read_msh(tmp_path / "bomb.msh.gz")


@pytest.mark.parametrize("count", [b"99999999999999999999", b"2000000000", b"-5", b"1e3", b"", b"9" * 6000])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("section", [b"Nodes", b"Elements"])
def test_a_damaged_count_takes_no_memory(tmp_path, count, binary, section):
    content = written(binary=binary)
    start = content.index(b"$" + section) + len(section) + 2
    (tmp_path / "x.msh").write_bytes(content[:start] + count + content[content.index(b"\n", start) :])
    tracemalloc.start()
    try:
        with pytest.raises(MeshError, match=r"x\.msh: (cut short|line \d+: the number of)"):
            read_msh(tmp_path / "x.msh")
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_damaged_bytes_never_crash(tmp_path):
    write_msh(tmp_path / "head.msh", NODES, TETS, TAGS)
    good = {"binary": (tmp_path / "head.msh").read_bytes(), "ascii": ASCII.encode()}
    rng = np.random.default_rng(1)
    refused = 0
    for content in good.values():
        for _ in range(300):
            bad = bytearray(content)
            for place in rng.integers(0, len(bad), 3):
                bad[place] = rng.integers(0, 256)
            (tmp_path / "bad.msh").write_bytes(bytes(bad))
            try:
                read_msh(tmp_path / "bad.msh")
            except MeshError:
                refused += 1
    assert refused > 100


def test_a_damaged_gzip_file_is_told(tmp_path):
    write_msh(tmp_path / "head.msh", NODES, TETS, TAGS)
    good = gzip.compress((tmp_path / "head.msh").read_bytes(), mtime=0)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(60):
        bad = bytearray(good)
        for place in rng.integers(2, len(bad), 3):
            bad[place] = rng.integers(0, 256)
        (tmp_path / "bad.msh.gz").write_bytes(bytes(bad))
        try:
            same(tmp_path / "bad.msh.gz")  # harmless: bytes of the gzip header that say nothing of the mesh
        except MeshError as error:
            assert "gzip file is damaged" in str(error)
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (np.array([99, 1, 2], "<i4"), r"element block \[99, 1, 2\] .* after 0 of \d+ elements is not valid"),
        (np.array([2, -1, 2], "<i4"), r"element block \[2, -1, 2\]"),
        (np.array([2, 1, -2], "<i4"), r"element block \[2, 1, -2\]"),
        (np.array([2, 2_000_000_000, 2], "<i4"), r"element block"),
        (np.array([5, 1, 2], "<i4"), r"type 5 \(hexahedra\)"),
    ],
)
def test_a_damaged_element_block_is_told(tmp_path, block, words):
    content = written(binary=True, one_by_one=True)
    start = content.index(b"\n", content.index(b"$Elements\n") + 10) + 1
    (tmp_path / "x.msh").write_bytes(content[:start] + block.tobytes() + content[start + 12 :])
    with pytest.raises(MeshError, match=words):
        read_msh(tmp_path / "x.msh")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ASCII.replace("2.2 0 8", "2.2 7 8"), r"header says b'2.2 7 8'"),
        (ASCII.replace("2.2 0 8", "2.2 1 8"), r"header says .* neither text nor a binary mesh"),
        (ASCII.replace("3 0 10 0", "3 0 10"), r"x\.msh: line 8: b'3 0 10' is not a node"),
        (ASCII.replace("3 0 10 0", "3 0 ten 0"), r"line 8: b'3 0 ten 0' is not a node"),
        (ASCII.replace("40 0 0 10", "40 0 nan 10"), r"node 40 lies at \[0.0, nan, 10.0\] mm, which is not finite"),
        (ASCII.replace("40 0 0 10", "40 0 inf 10"), r"node 40 .* not finite"),
        (ASCII.replace("41 99", "40 99"), "node number 40 is there twice"),
        (ASCII.replace("2 4 2 1 1 1 2 3 40", "2 4 2 1 1 1 2 3"), r"line 16: element .* numbers of its type"),
        (ASCII.replace("2 4 2 1 1 1 2 3 40", "2 4 2 1 1 1 2 3 4O"), r"line 16: element .* is not whole numbers"),
        (ASCII.replace("2 4 2 1 1 1 2 3 40", "2 4 2 1 1 1 2 3 99999999999"), r"line 16: element .* whole numbers"),
        (ASCII.replace("2 4 2 1 1 1 2 3 40", "2 4 2 70000 1 1 2 3 40"), "tetrahedron 1 has tag 70000"),
        (ASCII.replace("2 4 2 1 1 1 2 3 40", "2 11 2 1 1 1 2 3 40 1 2 3 40 1 2"), "type 11 .second-order tetrahedra"),
        (ASCII.replace("$Elements\n3", "$Elements\n2"), r"\$Elements is followed by b'3 4 2"),
        (ASCII.replace("$Elements\n3", "$Elements\n4"), "cut short: 3 of 4 elements"),
        (ASCII.replace("$Nodes\n6", "$Nodes\n5"), "holds 6 nodes but states 5"),
        (ASCII.replace("$Nodes\n6", "$Nodes\n7"), "cut short: 6 of 7 nodes"),
        (ASCII.replace("$EndNodes\n", "$EndNodes\nstray\n"), r"line 13: a section was expected, found b'stray'"),
        (ASCII[: ASCII.index("$Elements")], "ends without a section .Elements"),
        (ASCII[: ASCII.index("$Elements")] + "$NodeData\n1\n", r"section \$NodeData of line 13 has no end"),
        (ASCII[ASCII.index("$Nodes") :], "does not begin with .MeshFormat"),
        ("$MeshFormat\n4.1 0 8\n", "format is 4.1, not 2.2"),
        ("hello", "MeshFormat"),
        (
            ASCII.replace("2 4 2 1 1 1 2 3 40", "2 2 2 1 1 1 2 3").replace("3 4 2 5 5 2 3 40 50", "3 2 2 5 5 2 3 40"),
            "no tet",
        ),
        (ASCII.replace("2 3 40 50", "2 3 40 51"), "names a node that the file does not hold"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, content, words):
    (tmp_path / "x.msh").write_text(content)
    with pytest.raises(MeshError, match=words):
        read_msh(tmp_path / "x.msh")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(MeshError, match="cannot be read"):
        read_msh(tmp_path / "no.msh")
