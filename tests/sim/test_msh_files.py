import gzip

import numpy as np
import pytest
from motorsweep.errors import MeshError
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


def test_every_truncation_is_a_clear_error(tmp_path):
    write_msh(tmp_path / "head.msh", NODES, TETS, TAGS)
    end = (tmp_path / "head.msh").read_bytes().index(b"\n$EndElements")
    for source in ((tmp_path / "head.msh").read_bytes()[:end], ASCII.encode()[: ASCII.index("\n$EndElements")]):
        for size in range(0, len(source) - 1, 3):
            (tmp_path / "cut.msh").write_bytes(source[:size])
            with pytest.raises(MeshError, match=r"cut\.msh"):
                read_msh(tmp_path / "cut.msh")


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
    ("content", "words"),
    [
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
