import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from motorsweep.errors import PoseError
from motorsweep.sim.matlab_layout import LayoutError, check_layout
from motorsweep.sim.pose import read_poses
from scipy.io import savemat
from scipy.sparse import eye_array

POSE = np.array([[1.0, 0, 0, 20], [0, -1, 0, 30], [0, 0, -1, 90], [0, 0, 0, 1]])


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(class_, dims, name, *content):
    flags = element(6, struct.pack("<II", class_, 0))
    return element(14, flags + element(5, struct.pack(f"<{len(dims)}i", *dims)) + element(1, name) + b"".join(content))


def mat_file(*variables):
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + b"".join(variables)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
def test_what_matlab_writes_passes(tmp_path, options):
    content = {"matsimnibs": POSE, "text": "word", "empty": np.zeros((0, 3)), "complex": np.array([[1 + 2j]])}
    if "format" not in options:
        cells = np.empty(2, dtype=object)
        cells[:] = [POSE, "x"]
        session = {"pos": [{"matsimnibs": POSE, "didt": 1e6}, {"matsimnibs": POSE, "didt": 2e6}], "name": ""}
        content |= {"cells": cells, "sparse": eye_array(1000).tocsc(), "session": session, "none": {}}
    path = tmp_path / "session.mat"
    savemat(path, content, **options)
    check_layout(path.read_bytes())
    assert len(read_poses(path)) == (1 if "format" in options else 3)


def test_cells_of_matrices_are_read(tmp_path):
    cells = np.empty(2, dtype=object)
    cells[:] = [POSE, POSE]
    savemat(tmp_path / "cells.mat", {"matsimnibs": cells})
    assert len(read_poses(tmp_path / "cells.mat")) == 2


def test_the_layout_is_that_of_matlab(tmp_path):
    path = tmp_path / "own.mat"
    path.write_bytes(mat_file(array(6, (4, 4), b"matsimnibs", element(9, POSE.T.tobytes()))))
    assert np.array_equal(read_poses(path)[0].matrix[:3, 3], [0.02, 0.03, 0.09])


BOMB = zlib.compress(array(6, (1, 1 << 26), b"a", element(9, bytes(1 << 29))), 9)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (array(4, (1, 2_000_000_000), b"a", element(1, b"")), r"dimensions \(1, 2000000000\) with 0 bytes"),
        (array(1, (50_000, 50_000), b"a"), r"dimensions \(50000, 50000\) with 0 bytes"),
        (array(2, (1, 1 << 30), b"a", element(5, b"\x20\0\0\0"), element(1, b"x" * 64)), r"1073741824\) with 0 bytes"),
        (array(2, (1, 1), b"a", element(5, bytes(4)), element(1, b"x" * 64)), r"field names of length 0"),
        (array(6, (-4, 4), b"a", element(9, bytes(128))), r"dimensions \(-4, 4\)"),
        (array(99, (1, 1), b"a"), r"class 99"),
        (array(6, (1, 1), b"a", element(0x49, bytes(8))), r"an element of type 73"),
        (array(6, (1, 1), b"a", element(9, bytes(8))[:-4]), r"longer than its variable"),
        (element(15, BOMB), r"larger than 256 MiB"),
        (element(15, b"no zlib at all"), r"error"),
        (element(14, b""), r"bytes end"),
        (struct.pack("<II", 14, 1 << 31), r"longer than the file"),
    ],
)
def test_counts_that_are_not_borne_out_are_refused_without_allocation(tmp_path, variable, message):
    path = tmp_path / "bad.mat"
    path.write_bytes(mat_file(variable))
    tracemalloc.start()
    with pytest.raises(
        PoseError, match=rf"bad\.mat: not a MATLAB file that SciPy can read \(.*({message}).*-v7, or as"
    ):
        read_poses(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 30


def test_deep_nesting_is_refused():
    nested = array(1, (0, 0), b"")
    for _ in range(40):
        nested = array(1, (1, 1), b"", nested)
    with pytest.raises(LayoutError, match="30 deep"):
        check_layout(mat_file(nested))
