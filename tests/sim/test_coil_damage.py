"""Damaged coil files: whatever happened to the bytes, there is a coil or a CoilError, soon and in little memory."""

import base64
import gzip
import json
import time
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
from motorsweep.errors import CoilError
from motorsweep.sim.coil import Coil, load_coil

WORDS = [b"nan", b"-inf", b"1e999", b"1e308", b"-7", b"0", b"99999999999999999999", b"x", b"", b"\xff", b"null", b"{}"]
MUTATIONS = 150


def ccd():
    rows = "\n".join(f"{0.001 * k} 0.01 -0.01 0 0 {1e-5 * k}" for k in range(30))
    return f"# coil; dIdtmax=100;coilname=c;\n30\n# centers\n{rows}\n".encode()


def tcd():
    def packed(array):
        return base64.b64encode(zlib.compress(np.asarray(array, dtype=float).tobytes())).decode()

    rng = np.random.default_rng(1)
    return json.dumps(
        {
            "name": "coil",
            "coilElementList": [
                {"type": 1, "stimulator": 0, "points": rng.normal(size=(9, 3)).tolist(), "values": [[0, 0, 1e-3]] * 9},
                {
                    "type": 1,
                    "stimulator": 0,
                    "points": packed(rng.normal(size=(9, 3))),
                    "values": packed(np.ones((9, 3))),
                },
                {"type": 2, "stimulator": 0, "points": rng.normal(size=(9, 3)).tolist(), "deformations": [0, 1]},
                {
                    "type": 3,
                    "stimulator": 0,
                    "data": np.full((4, 4, 4, 3), 1e-6).tolist(),
                    "affine": np.eye(4).tolist(),
                },
            ],
            "stimulatorList": [{"name": "box", "maxdIdt": 1e8}],
            "deformList": [
                {"type": "x", "deformRange": 0},
                {"type": "rot2p", "deformRange": 0, "point1": [0, 0, 0], "point2": [0, 1, 0]},
            ],
            "deformRangeList": [{"initial": 1, "range": [0, 9]}],
            "coilModels": [{"points": [[0, 0, 0], [1, 0, 0], [0, 1, 0]], "faces": [[0, 1, 2]]}],
            "coilCasing": 0,
        },
        indent=0,
    ).encode()


def nifti():
    data = np.random.default_rng(2).normal(0, 1e-6, (5, 6, 7, 3)).astype(np.float32)
    return nibabel.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0])).to_bytes()


def truncated(data, rng):
    return data[: rng.integers(len(data))]


def flipped(data, rng):
    data = bytearray(data)
    for place in rng.integers(min(len(data), rng.choice([400, len(data)])), size=rng.integers(1, 6)):
        data[place] ^= 1 << rng.integers(8)
    return bytes(data)


def without_a_line(data, rng):
    lines = data.split(b"\n")
    del lines[rng.integers(len(lines))]
    return b"\n".join(lines)


def with_a_line_twice(data, rng):
    lines = data.split(b"\n")
    place = rng.integers(len(lines))
    return b"\n".join(lines[:place] + [lines[place]] * int(rng.integers(2, 5)) + lines[place:])


def with_a_word(data, rng):
    """A number replaced by what is none, or by one that is absurd."""
    lines = data.split(b"\n")
    place = rng.integers(len(lines))
    words = lines[place].split(b" ")
    words[rng.integers(len(words))] = WORDS[rng.integers(len(WORDS))]
    lines[place] = b" ".join(words)
    return b"\n".join(lines)


def with_a_value(data, rng):
    """A JSON value anywhere in the file replaced."""
    file = json.loads(data)
    parent, key = file, "coilElementList"
    while isinstance(parent[key], dict | list) and len(parent[key]) and rng.random() < 0.85:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else int(rng.integers(len(parent)))
    others = [None, -1, 10**30, 1e300, "text", [], {}, [[1.0]], True, [[0, 0, 1e9]], "AAAA", 0.5]
    parent[key] = others[rng.integers(len(others))]
    return json.dumps(file).encode()


def zipped(mutate):
    """Damage inside an archive that is whole."""
    return lambda data, rng: gzip.compress(mutate(data, rng), 1)


def damaged_archive(mutate):
    return lambda data, rng: mutate(gzip.compress(data, 1), rng)


KINDS = {
    "ccd": (".ccd", ccd, [truncated, flipped, without_a_line, with_a_line_twice, with_a_word]),
    "tcd": (".tcd", tcd, [truncated, flipped, without_a_line, with_a_line_twice, with_a_word, with_a_value]),
    "nii": (".nii", nifti, [truncated, flipped]),
    "nii.gz": (
        ".nii.gz", nifti,
        [zipped(truncated), zipped(flipped), damaged_archive(truncated), damaged_archive(flipped)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_a_coil_or_a_coil_error(tmp_path, kind):
    suffix, make, mutations = KINDS[kind]
    whole, rng, outcomes = make(), np.random.default_rng(20), {"coil": 0, "error": 0}
    path = tmp_path / f"coil{suffix}"
    path.write_bytes(gzip.compress(whole) if suffix == ".nii.gz" else whole)
    assert isinstance(load_coil(path), Coil)
    tracemalloc.start()
    start = time.monotonic()
    try:
        for mutate in mutations:
            for _ in range(MUTATIONS if suffix != ".tcd" or mutate is not with_a_value else 3 * MUTATIONS):
                path.write_bytes(mutate(whole, rng))
                try:
                    coil = load_coil(path)
                except CoilError as error:
                    outcomes["error"] += 1
                    assert f"coil{suffix}" in str(error) and len(str(error)) < 1500
                else:
                    outcomes["coil"] += 1
                    assert np.isfinite(coil.moments).all() and len(coil.id) == 16
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcomes["error"] > 100, outcomes
    assert time.monotonic() - start < 60
    assert peak < 100e6


@pytest.mark.parametrize("member", ["points", "values"])
def test_wire_of_ten_thousand_kilometres_is_refused(tmp_path, member):
    element = {"type": 2, "points": [[0, 0, 0], [1, 0, 0]], "values": [[1, 0, 0], [1, 0, 0]]}
    element[member][1][0] = 1e10
    path = tmp_path / "coil.tcd"
    path.write_text(json.dumps({"coilElementList": [element]}))
    with pytest.raises(CoilError, match=r"coil\.tcd.* m from the .*farther than any coil is wide"):
        load_coil(path)
