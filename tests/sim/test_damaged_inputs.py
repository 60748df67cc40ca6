"""Files of poses and responses that somebody's disk, mailer or editor has damaged, some hundred times each."""

import re
import time
import warnings

import numpy as np
import pytest
from motorsweep.errors import InputError, PoseError
from motorsweep.sim.markers import SkippedMarkerWarning
from motorsweep.sim.pose import Pose, read_poses, write_poses
from motorsweep.sim.response_files import read_responses
from scipy.io import savemat
from scipy.spatial.transform import Rotation

TIMES = 120
SECONDS = 5  # for one file of some KiB: a bound against loops, not a claim of speed
PIECES = ["nan", "inf", "-inf", "1e400", "-1e308", "1e-400", "x", "", "(null)", "0", "99999999999999999999", "\0", '"']
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")


def poses():
    rng, turns = np.random.default_rng(7), Rotation.random(6, random_state=7).as_matrix()
    matrices = np.tile(np.eye(4), (6, 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = turns, rng.uniform(-0.1, 0.1, (6, 3))
    return matrices


def in_mm():
    matrices = poses()
    matrices[:, :3, 3] *= 1e3
    return matrices


def brainsight(path):
    columns = ["Loc. X", "Loc. Y", "Loc. Z", *(f"m{m}n{n}" for m in range(3) for n in range(3))]
    lines = ["# Version: 14", "# Coordinate system: NIfTI:S:Aligned", "# Units: millimetres", "# Encoding: UTF-8"]
    for title in ("Target", "Sample"):
        lines.append("\t".join([f"# {title} Name", "Index", *columns, "Stim. Power"]))
        for i, matrix in enumerate(in_mm()):
            numbers = [*matrix[:3, 3], *matrix[:3, :3].T.ravel()]
            lines.append("\t".join([f"{title} {i}", str(i), *(f"{v:.3f}" for v in numbers), "(null)"]))
    path.write_text("\r\n".join(lines) + "\r\n")


def localite(path):
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<TriggerMarkerList coordinateSpace="LPS">']
    for i, matrix in enumerate(in_mm()):
        data = " ".join(f'data{r}{c}="{matrix[r, c]:.9f}"' for r in range(4) for c in range(4))
        lines += [
            f'<TriggerMarker description="stimulus {i}" recordingTime="{i}"><ResponseValues>',
            f'<Value key="valueA" response="{50 + i}"/><Value key="amplitudeA" response="{40 + i}"/></ResponseValues>',
            f"<Matrix4D {data}/></TriggerMarker>",
        ]
    path.write_text("\n".join([*lines, "</TriggerMarkerList>\n"]))


def table(path):
    write_poses(path, [Pose(matrix) for matrix in poses()])


def blocks(path):
    np.savetxt(path, in_mm().reshape(-1, 4), delimiter=",")


def matlab(path, **options):
    session = {"poslist": {"pos": [{"matsimnibs": m, "didt": 1e6, "name": f"p{i}"} for i, m in enumerate(in_mm())]}}
    savemat(path, {**session, "note": "word", "mask": np.eye(4, dtype=bool)}, **options)


def wide(path):
    rng = np.random.default_rng(1)
    rows = [f"{t},{110 + t},{rng.gamma(1, 300):.2f},{rng.gamma(1, 0.3):.4f}" for t in range(8)]
    path.write_text("\n".join(["pose,intensity_percent_rmt,FDI [uV],ADM [mV]", *rows]) + "\n")


def long(path):
    rng = np.random.default_rng(2)
    rows = [f"{t};{m};{rng.gamma(1, 300):.2f};{t};{60 + t}" for t in range(8) for m in ("FDI", "ADM", "APB")]
    path.write_text("\n".join(["trial;muscle;MEP [uV];pose;didt_a_per_us", *rows]) + "\n")


FORMS = {
    "brainsight.txt": (brainsight, read_poses),
    "localite.xml": (localite, read_poses),
    "table.csv": (table, read_poses),
    "blocks.csv": (blocks, read_poses),
    "plain.mat": (matlab, read_poses),
    "packed.mat": (lambda path: matlab(path, do_compression=True), read_poses),
    "old.mat": (lambda path: savemat(path, {f"p{i}": m for i, m in enumerate(in_mm())}, format="4"), read_poses),
    "wide.csv": (wide, read_responses),
    "long.csv": (long, read_responses),
}


def damaged(data, rng):
    """The bytes after one to three accidents."""
    for _ in range(rng.integers(1, 4)):
        data = ACCIDENTS[rng.integers(len(ACCIDENTS))](data, rng)
    return data


def truncated(data, rng):
    return data[: rng.integers(len(data) + 1)]


def flipped(data, rng):
    changed = bytearray(data)
    for at in rng.integers(len(data), size=rng.integers(1, 9)) if data else ():
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def overwritten(data, rng):
    at = rng.integers(len(data) + 1)
    return data[:at] + bytes(rng.choice([0, 255], 4).astype(np.uint8)) + data[at + 4 :]


def rearranged(data, rng):
    lines = data.split(b"\n")
    i, j = rng.integers(len(lines), size=2)
    kind = rng.integers(3)
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines.insert(j, lines[i])
    else:
        lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def renumbered(data, rng):
    found = list(NUMBER.finditer(data))
    if not found:
        return data
    match = found[rng.integers(len(found))]
    return data[: match.start()] + PIECES[rng.integers(len(PIECES))].encode() + data[match.end() :]


def unfielded(data, rng):
    """Without one field, attribute or element."""
    found = list(re.finditer(rb'\s\w+="[^"]*"|[\t,;][^\t,;\n]*|<[^>]*>', data))
    if not found:
        return data
    match = found[rng.integers(len(found))]
    return data[: match.start()] + data[match.end() :]


ACCIDENTS = [truncated, flipped, overwritten, rearranged, renumbered, unfielded]


def check(result):
    if isinstance(result, list):
        for pose in result:
            assert np.isfinite(pose.matrix).all()
            np.testing.assert_allclose(pose.matrix[:3, :3].T @ pose.matrix[:3, :3], np.eye(3), atol=1e-9)
            assert pose.didt is None or 0 < pose.didt < np.inf
        return
    t, k = result.response.shape
    assert (k, t) == (len(result.muscles), len(result.pose_index))
    assert (np.isfinite(result.response) & (result.response >= 0)).all()
    assert (result.pose_index >= 0).all()
    for values in (result.intensity_percent_rmt, result.didt):
        assert values is None or (np.isfinite(values) & (values > 0)).all()


@pytest.mark.parametrize("name", FORMS)
def test_damage_is_refused_or_does_no_harm(tmp_path, name):
    make, read = FORMS[name]
    path = tmp_path / name
    make(path)
    check(read(path))
    sound, rng = path.read_bytes(), np.random.default_rng(sum(name.encode()))
    error = PoseError if read is read_poses else InputError
    outcomes = []
    for _ in range(TIMES):
        path.write_bytes(damaged(sound, rng))
        began = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", SkippedMarkerWarning)
                check(read(path))
            outcomes.append("read")
        except error as refusal:
            assert name in str(refusal)
            assert len(str(refusal)) < 1500
            outcomes.append("refused")
        assert time.perf_counter() - began < SECONDS
    assert outcomes.count("refused") > TIMES / 4
