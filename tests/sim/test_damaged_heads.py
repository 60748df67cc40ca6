"""Head files damaged at random, some hundreds: each is read, or refused by an error that names it; nothing else.

In a process of its own, whose memory and time are limited by the kernel, so that a crash, an endless loop or a huge
allocation fails the test and not the session.
"""

import gzip
import io
import itertools
import json
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import meshio
import nibabel
import numpy as np
import pytest
from motorsweep.sim.head import Head
from motorsweep.sim.mesh_quality import tet_volumes

CASES = 120
LIMIT_S = 5.0
READER = """
    import json, logging, resource, sys, time, warnings
    from motorsweep.errors import InputError
    from motorsweep.sim.head import Head, load_head
    from motorsweep.sim.labels import read_labels

    logging.disable()
    warnings.simplefilter("ignore")
    reader, good, *paths = sys.argv[1:]
    read = {"load_head": load_head, "read_labels": read_labels, "Head.load": Head.load}[reader]
    read(good)  # compiles, imports: not what is measured
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, resource.RLIM_INFINITY))
    for path in paths:
        start = time.monotonic()
        try:
            value = read(path)
            if reader == "read_labels":
                value.top_m()
            outcome = "read"
        except InputError as error:
            outcome = str(error)
        except BaseException as error:
            outcome = f"RAW {type(error).__name__}: {error}"
        print(json.dumps([path, outcome, time.monotonic() - start]), flush=True)
"""


def outcomes(reader, good, paths):
    """What became of each file: path, "read" or the message, seconds."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is read as Linux tells it")
    command = [sys.executable, "-c", textwrap.dedent(READER), reader, str(good), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    last = rows[-1][0] if rows else "none"
    assert done.returncode == 0, f"the process died (last file read: {last}): {done.stderr[-2000:]}"
    assert len(rows) == len(paths)
    return rows


def assert_read_or_told(reader, good, paths, least_refused):
    rows = outcomes(reader, good, paths)
    for path, outcome, seconds in rows:
        assert not outcome.startswith("RAW"), f"{path}: {outcome}"
        assert outcome == "read" or path in outcome, f"the file is not named: {outcome}"
        assert seconds < LIMIT_S, f"{path} took {seconds:.1f} s: {outcome}"
        assert len(outcome) < 1500
    assert sum(outcome != "read" for _, outcome, _ in rows) >= least_refused


def cube():
    places = np.array(list(itertools.product(range(4), repeat=3))) * 20.0
    paths = [np.cumsum([(0, 0, 0), *np.eye(3, dtype=int)[list(p)]], axis=0) for p in itertools.permutations(range(3))]
    tets = np.array([(path + cell) @ [16, 4, 1] for cell in itertools.product(range(3), repeat=3) for path in paths])
    inverted = tet_volumes(places, tets) < 0
    tets[inverted] = tets[inverted][:, [1, 0, 2, 3]]
    return places, tets, (1 + np.arange(len(tets)) % 5).astype(np.int32)


def mesh_file(folder, binary):
    places, tets, tags = cube()
    marks = {"gmsh:physical": [tags[:9], tags], "gmsh:geometrical": [tags[:9], tags]}
    mesh = meshio.Mesh(places, [("triangle", tets[:9, :3]), ("tetra", tets)], cell_data=marks)
    mesh.write(folder / "good.msh", file_format="gmsh22", binary=binary)
    return (folder / "good.msh").read_bytes()


def flipped(rng, content):
    """Some bytes replaced, most of them near the start, where the counts and sizes stand."""
    bad = bytearray(content)
    reach = len(bad) if rng.random() < 0.5 else min(len(bad), 600)
    for place in rng.integers(0, reach, rng.integers(1, 5)):
        bad[place] = rng.integers(0, 256) if rng.random() < 0.6 else bad[place] ^ (1 << rng.integers(8))
    return bytes(bad)


def cut(rng, content):
    return content[: rng.integers(0, len(content))]


def spliced(rng, content):
    """A stretch left out, doubled, zeroed or filled with noise."""
    start, size = rng.integers(0, len(content)), rng.integers(1, 200)
    stretch = content[start : start + size]
    new = [b"", stretch * 2, bytes(len(stretch)), b"\xff" * len(stretch), rng.bytes(len(stretch))][rng.integers(5)]
    return content[:start] + new + content[start + size :]


def enlarged(rng, content):
    """A 4-byte number that means a size or an index, made impossible."""
    place = 4 * rng.integers(0, min(len(content) // 4, 400 if rng.random() < 0.5 else len(content)))
    value = [-1, 2**31 - 1, -(2**31), 2**30, 65536, 0][rng.integers(6)]
    return content[:place] + np.array(value, "<i4").tobytes() + content[place + 4 :]


def lines_moved(rng, content):
    lines = content.split(b"\n")
    a, b = rng.integers(0, len(lines), 2)
    kind = rng.integers(4)
    if kind == 0:
        del lines[a]
    elif kind == 1:
        lines.insert(a, lines[b])
    elif kind == 2:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines[a] = b""
    return b"\n".join(lines)


def numbers_changed(rng, content):
    words = [b"nan", b"inf", b"-inf", b"1e308", b"-1", b"0", b"99999999999999999999", b"abc", b"2147483647", b"1e-300"]
    words += [b"\xff\xfe", b"$Nodes", b"$EndElements", b"9" * 5000, b"0x10", b"1_0", b"--1", b"1.5"]
    lines = content.split(b"\n")
    for _ in range(rng.integers(1, 4)):
        row = rng.integers(0, len(lines)) if rng.random() < 0.7 else rng.integers(0, min(12, len(lines)))
        fields = lines[row].split()
        if fields:
            fields[rng.integers(len(fields))] = words[rng.integers(len(words))]
            lines[row] = b" ".join(fields)
    return b"\n".join(lines)


BINARY = (flipped, cut, spliced, enlarged)
TEXT = (flipped, cut, spliced, lines_moved, numbers_changed, numbers_changed)


def damaged(folder, content, suffix, ways, seed, pack=None):
    """Files of `CASES` damages; with `pack`, half of them before packing and half after."""
    rng = np.random.default_rng(seed)
    paths = []
    for k in range(CASES):
        way = ways[k % len(ways)]
        if pack is None:
            bad = way(rng, content)
        else:
            bad = pack(way(rng, content)) if (k // len(ways)) % 2 else way(rng, pack(content))
        paths.append(folder / f"case-{k}-{way.__name__}{suffix}")
        paths[-1].write_bytes(bad)
    return paths


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_damaged_meshes_are_read_or_told(tmp_path, binary):
    content = mesh_file(tmp_path, binary)
    paths = damaged(tmp_path, content, ".msh", BINARY if binary else TEXT, 11 + binary)
    assert_read_or_told("load_head", tmp_path / "good.msh", paths, CASES // 2)


def test_damaged_packed_meshes_are_read_or_told(tmp_path):
    content = mesh_file(tmp_path, True)
    paths = damaged(tmp_path, content, ".msh.gz", BINARY, 13, gzip.compress)
    assert_read_or_told("load_head", tmp_path / "good.msh", paths, CASES // 2)


def layers():
    labels = np.zeros((14, 12, 10), np.uint8)
    for tag, depth in ((5, 1), (4, 2), (3, 3), (2, 4)):
        labels[depth:-depth, depth:-depth, depth:-depth] = tag
    return labels, np.diag([1.5, 1.5, 2.0, 1.0])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image], ids=["nifti1", "nifti2"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_damaged_nifti_volumes_are_read_or_told(tmp_path, kind, packed):
    content = kind(layers()[0].astype(np.int16), layers()[1]).to_bytes()
    suffix, pack = (".nii.gz", gzip.compress) if packed else (".nii", None)
    good = tmp_path / f"good{suffix}"
    good.write_bytes(pack(content) if pack else content)
    paths = damaged(tmp_path, content, suffix, BINARY, 17 + packed, pack)
    assert_read_or_told("read_labels", good, paths, CASES // 4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_label_arrays_are_read_or_told(tmp_path, save):
    labels, affine = layers()
    save(tmp_path / "good.npz", labels=labels, affine=affine)
    paths = damaged(tmp_path, (tmp_path / "good.npz").read_bytes(), ".npz", BINARY, 19)
    assert_read_or_told("read_labels", tmp_path / "good.npz", paths, CASES // 2)


def archive(**members):
    """A zip whose sums are right, of arrays whose headers say anything."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array))
    return content.getvalue()


def test_damaged_headers_of_arrays_are_read_or_told(tmp_path):
    """Behind the sums of the zip, so that the headers are reached; shapes, types and text of all kinds in them."""
    labels, affine = layers()
    good, rng, paths = npy(labels), np.random.default_rng(23), []
    (tmp_path / "good.npz").write_bytes(archive(labels=good, affine=npy(affine)))
    words = [b"(99999999999, 12, 10)", b"(-1, 12, 10)", b"(14, 12)", b"()", b"(14, 12, 10" + b"," * 40, b"(" * 60]
    words += [b"(1e9, 1, 1)", b"(True, 12, 10)", b"None", b"'a'", b"__import__('os')", b"(14, 12, 10, 0)", b"[14]"]
    bad = [good.replace(b"(14, 12, 10)", word) for word in words]
    bad += [
        good.replace(b"'|u1'", word) for word in (b"'O'", b"'<f8'", b"'|V9'", b"'<M8[s]'", b"'<c16'", b"'x'", b"[]")
    ]
    bad += [way(rng, good) for way in BINARY for _ in range(20)]
    for k, content in enumerate(bad):
        paths.append(tmp_path / f"case-{k}.npz")
        paths[-1].write_bytes(archive(labels=content, affine=npy(affine)))
    assert_read_or_told("read_labels", tmp_path / "good.npz", paths, 40)


def test_damaged_kept_heads_are_read_or_told(tmp_path):
    places, tets, tags = cube()
    Head(places * 1e-3, tets, tags, np.ones(len(tets))).save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as file:
        members = {name: npy(file[name]) for name in file}
    rng, paths = np.random.default_rng(29), []
    for k in range(CASES):
        name = list(members)[k % len(members)]
        changed = dict(members)
        changed[name] = BINARY[k % len(BINARY)](rng, members[name])
        paths.append(tmp_path / f"case-{k}-{name}.npz")
        paths[-1].write_bytes(archive(**changed))
    assert_read_or_told("Head.load", tmp_path / "good.npz", paths, CASES // 4)


def test_bombs_are_told_in_bounded_memory(tmp_path):
    """Files of some hundred kB that would unpack to gigabytes."""
    labels, affine = layers()
    np.savez(tmp_path / "good.npz", labels=labels, affine=affine)
    zeros = b"".join(itertools.repeat(gzip.compress(bytes(1 << 24), 9), 100))
    (tmp_path / "bomb.msh.gz").write_bytes(zeros)
    header = nibabel.Nifti1Header()
    header.set_data_shape((1000, 1000, 1600))
    header.set_data_dtype(np.uint8)
    header["vox_offset"], header["magic"], header["sform_code"] = 352, b"n+1", 1
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)) + zeros)
    start = time.monotonic()
    for reader, name in (("load_head", "bomb.msh.gz"), ("read_labels", "bomb.nii.gz")):
        ((_, outcome, _),) = outcomes_of_bomb(tmp_path, reader, name)
        assert name in outcome and ("more memory" in outcome or "grows more" in outcome), outcome
    assert time.monotonic() - start < 60


def outcomes_of_bomb(folder, reader, name):
    """The good file that warms up the reader has to be one of its own kind."""
    if reader == "load_head":
        mesh_file(folder, True)
    return outcomes(reader, folder / ("good.msh" if reader == "load_head" else "good.npz"), [folder / name])
