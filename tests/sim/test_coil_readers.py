"""Coil files of other formats than .ccd: what they hold in which unit, and what is refused."""

import base64
import gzip
import json
import zlib

import nibabel
import numpy as np
import pytest
from motorsweep.errors import CoilError
from motorsweep.sim.coil import COILS, Coil, load_coil
from motorsweep.sim.coil_files import READERS
from motorsweep.sim.pose import Pose
from scipy.spatial.transform import Rotation

HERE = Pose(np.eye(4))
POINTS = np.array([[0.0, 0.0, 0.02], [0.03, -0.02, 0.05], [-0.05, 0.04, 0.03]])
DIPOLE = {"type": 1, "stimulator": 0, "points": [[1.0, 2.0, -10.0]], "values": [[0.0, 0.0, 1e-3]]}
SQUARE = [[20.0, 20.0, -8.0], [-20.0, 20.0, -8.0], [-20.0, -20.0, -8.0], [20.0, -20.0, -8.0]]


def tcd(folder, *elements, name="coil.tcd", **rest):
    file = {"coilElementList": list(elements), "stimulatorList": [{"name": "box"}], **rest}
    path = folder / name
    path.write_text(json.dumps(file))
    return path


def field(coil):
    return coil.dadt(POINTS, HERE, tolerance=0)


def loop(corners_mm):
    corners = 1e-3 * np.asarray(corners_mm)
    return Coil("loop", segments=np.stack([corners, np.roll(corners, -1, axis=0)], axis=1))


def deflated(array, dtype=np.float64):
    return base64.b64encode(zlib.compress(np.asarray(array, dtype).tobytes())).decode()


# ---- .tcd


def test_tcd_dipoles_are_in_millimetres_and_ampere_square_metres(tmp_path):
    stimulators = [{"name": "Rapid", "brand": "Magstim", "maxdIdt": 1.2e8, "waveformList": []}, {"maxdIdt": 3.0}]
    extras = {"version": "1", "limits": [[-1, 1]] * 3, "resolution": [1, 1, 1], "selfIntersectionTest": [[0, 1]]}
    coil = load_coil(tcd(tmp_path, DIPOLE, stimulatorList=stimulators, brand="Maker", **extras))
    np.testing.assert_allclose(coil.positions, [[1e-3, 2e-3, -1e-2]])
    np.testing.assert_array_equal(coil.moments, [[0, 0, 1e-3]])
    assert (coil.name, coil.didt_max, coil.description) == ("coil", 1.2e8, "Maker, stimulator Rapid")
    # 1e-7 m × r / r³, 1e6 A/s
    r = POINTS - coil.positions
    expected = 0.1 * np.cross([0, 0, 1e-3], r) / np.linalg.norm(r, axis=1, keepdims=True) ** 3
    np.testing.assert_allclose(field(coil), expected, rtol=1e-12)


def test_tcd_and_ccd_of_the_same_dipoles_are_the_same_coil(tmp_path):
    ccd = tmp_path / "coil.ccd"
    ccd.write_text("# dIdtmax=100;\n1\n0.001 0.002 -0.01 0 0 1e-3\n")
    first, second = load_coil(ccd), load_coil(tcd(tmp_path, DIPOLE, stimulatorList=[{"maxdIdt": 1e8}]))
    np.testing.assert_allclose(first.positions, second.positions, rtol=1e-15)
    assert first.didt_max == second.didt_max == 1e8
    assert second.id == Coil("x", second.positions, second.moments).id


def test_tcd_encoded_arrays_are_those_in_plain(tmp_path):
    plain = load_coil(tcd(tmp_path, DIPOLE))
    points, values = DIPOLE["points"], DIPOLE["values"]
    for encode in (deflated, lambda a: base64.b64encode(np.asarray(a, float).tobytes()).decode()):
        encoded = load_coil(tcd(tmp_path, {**DIPOLE, "points": encode(points), "values": encode(values)}))
        assert encoded.id == plain.id


def test_tcd_wire_without_values_is_a_closed_loop(tmp_path):
    coil = load_coil(tcd(tmp_path, {"type": 2, "stimulator": 0, "points": SQUARE}))
    np.testing.assert_allclose(field(coil), field(loop(SQUARE)), rtol=1e-12, atol=1e-15)
    again = load_coil(tcd(tmp_path, {"type": 2, "stimulator": 0, "points": [*SQUARE, SQUARE[0]]}))
    assert again.id == coil.id  # a last point that repeats the first adds no piece


@pytest.mark.parametrize("place", ["middles", "starts"])
def test_tcd_wire_with_values(tmp_path, place):
    """SimNIBS writes the middles of pieces, its documentation says starts: told by which of them join."""
    turn = np.arange(12) * np.pi / 6
    corners = np.stack([30 * np.cos(turn), 20 * np.sin(turn), np.full(12, -7.0)], axis=1)
    lengths = np.roll(corners, -1, axis=0) - corners
    points = corners + lengths / 2 if place == "middles" else corners
    coil = load_coil(tcd(tmp_path, {"type": 2, "stimulator": 0, "points": points.tolist(), "values": lengths.tolist()}))
    np.testing.assert_allclose(field(coil), field(loop(corners)), rtol=1e-10, atol=1e-15)


def test_tcd_single_piece_of_wire_is_around_its_point(tmp_path):
    coil = load_coil(tcd(tmp_path, {"type": 2, "stimulator": 0, "points": [[1, 2, -9]], "values": [[4, 0, 0]]}))
    np.testing.assert_allclose(coil.segments, [[[-1e-3, 2e-3, -9e-3], [3e-3, 2e-3, -9e-3]]])


def grid_element(spacing_mm=10.0):
    """A of the square on a grid, per ampere, as SimNIBS has it."""
    count, low = (13, 13, 8), np.array([-60.0, -60.0, 5.0])
    index = np.stack(np.meshgrid(*map(np.arange, count), indexing="ij"), axis=-1)
    data = loop(SQUARE).dadt(1e-3 * (low + spacing_mm * index.reshape(-1, 3)), HERE, 1.0, tolerance=0)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = low
    return data.reshape(*count, 3), affine


def test_tcd_sampled_field_and_nifti_are_the_same(tmp_path):
    data, affine = grid_element()
    coil = load_coil(tcd(tmp_path, {"type": 3, "stimulator": 0, "data": data.tolist(), "affine": affine.tolist()}))
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "field.nii.gz")
    nifti = load_coil(tmp_path / "field.nii.gz")
    np.testing.assert_allclose(nifti.dadt(POINTS, HERE), coil.dadt(POINTS, HERE), rtol=1e-12)
    exact = field(loop(SQUARE))
    assert np.abs(coil.dadt(POINTS, HERE) - exact).max() < 0.05 * np.abs(exact).max()
    assert nifti.name == "field" and nifti.didt_max is None


def test_tcd_deformations_are_applied_in_order_at_their_initial_values(tmp_path):
    data, affine = grid_element()
    moves = [
        {"type": "rot2p", "deformRange": 0, "point1": [0, 0, -20], "point2": [0, 40, -20]},
        {"type": "x", "deformRange": 1},
        {"type": "z", "initial": 2.0, "range": [0, 5]},  # as older files have it
    ]
    ranges = [{"initial": 30, "range": [0, 90]}, {"initial": -5, "range": [-10, 10]}]
    elements = [
        DIPOLE,
        {"type": 2, "stimulator": 0, "points": SQUARE},
        {"type": 3, "stimulator": 0, "data": data.tolist(), "affine": affine.tolist()},
    ]
    turn = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = 1e-3 * (np.array([0, 0, -20]) - turn @ [0, 0, -20] + [-5, 0, 2])
    for element in elements:
        still = load_coil(tcd(tmp_path, element))
        element = {**element, "deformations": [0, 1, 2]}
        moved = load_coil(tcd(tmp_path, element, deformList=moves, deformRangeList=ranges))
        # to deform the coil is to pose it
        points = np.array([[0.0, 0.0, 0.03], [0.01, -0.02, 0.04]])
        np.testing.assert_allclose(
            moved.dadt(points, HERE, tolerance=0), still.dadt(points, Pose(matrix), tolerance=0), rtol=1e-9, atol=1e-14
        )
    swapped = load_coil(tcd(tmp_path, {**DIPOLE, "deformations": [1, 0]}, deformList=moves, deformRangeList=ranges))
    assert (
        swapped.id
        != load_coil(tcd(tmp_path, {**DIPOLE, "deformations": [0, 1]}, deformList=moves, deformRangeList=ranges)).id
    )


def test_tcd_casings_are_joined_and_move_with_their_elements(tmp_path):
    model = {"points": [[0, 0, 0], [10, 0, 0], [0, 10, 0]], "faces": [[0, 1, 2]], "minDistancePoints": [[0, 0, 0]]}
    encoded = {"points": deflated(model["points"]), "faces": deflated(model["faces"], np.int64)}
    path = tcd(
        tmp_path, {**DIPOLE, "elementCasing": 1, "deformations": [0]}, coilModels=[model, encoded], coilCasing=0,
        deformList=[{"type": "y", "deformRange": 0}], deformRangeList=[{"initial": 7, "range": [0, 7]}],
    )  # fmt: skip
    points, triangles = load_coil(path).casing
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_allclose(points[3:] - points[:3], [[0, 7e-3, 0]] * 3)
    assert load_coil(tcd(tmp_path, DIPOLE)).casing is None


GRID = [[[[1e-6] * 3] * 4] * 4] * 4
AFFINE = np.eye(4).tolist()


@pytest.mark.parametrize(
    ("element", "rest", "message"),
    [
        ({"type": 4}, {}, r"coilElementList\.0\.type: Input should be 1, 2 or 3"),
        ({"weights": [1.0]}, {}, r"coilElementList\.0\.weights: Extra inputs are not permitted"),
        ({"stimulator": True}, {}, r"coilElementList\.0\.stimulator: Input should be a valid integer"),
        ({}, {"magnets": []}, r"magnets: Extra inputs are not permitted"),
        ({"stimulator": 1}, {}, r"its elements name stimulator 1, and the file lists 1 of them \(the first is 0\)"),
        ({}, {"stimulatorList": [{"maxdIdt": 0}]}, r"stimulatorList\.0\.maxdIdt: Input should be greater than 0"),
        ({"values": None}, {}, r"element 0 is of type 1 and lacks 'values'"),
        ({"affine": AFFINE}, {}, r"element 0 is of type 1 and has 'affine'"),
        ({"name": "left", "points": [[0, 0, 0]] * 2}, {}, r"element 0 \(left\) has 2 points and 1 values"),
        ({"points": [[0, 0]]}, {}, r"element 0: 'points' is \(1, 2\), but must be \(n, 3\)"),
        ({"points": [[0, 0, 0], [0, 0]]}, {}, r"element 0: 'points' cannot be read as an array"),
        ({"points": [[0, 0, "z"]]}, {}, r"element 0: 'points' cannot be read as an array \(not all of it is numbers"),
        ({"points": [[0, 0, 10**400]]}, {}, r"(points.*|'points').*"),
        ({"points": [[0, 0, 3000.0]]}, {}, r"element 0 has a point 3 m from the origin.*points are in millimetres"),
        ({"points": []}, {}, r"element 0: 'points' is \(0,\)"),
        ({"points": "not base64!"}, {}, r"'points' is not the Base64 text of an array"),
        ({"points": deflated([[0, 0, 0]])[:12]}, {}, r"'points' is not the Base64 text of an array"),
        ({"points": base64.b64encode(b"12345").decode()}, {}, r"decodes to 5 bytes, which are no whole number"),
        ({"points": deflated([[0, np.nan, 0]])}, {}, r"'points' holds NaN or infinity"),
        ({"type": 2, "values": [[0, 0, 0]]}, {}, r"element 0 is wire of no length"),
        (
            {"type": 3, "points": None, "values": None, "data": "gASV", "affine": AFFINE},
            {},
            r"a Python pickle, which cou",
        ),
        (
            {"type": 3, "points": None, "values": None, "data": GRID, "affine": [[1]]},
            {},
            r"element 0: .*affine is \[\[1",
        ),
        (
            {"type": 3, "points": None, "values": None, "data": GRID[:2], "affine": AFFINE},
            {},
            r"four and more along each",
        ),
        ({"deformations": [2]}, {}, r"element 0 names deformation 2, and the file lists 0"),
        ({"deformations": [0]}, {"deformList": [{"type": "x"}]}, r"deformation 0 has no initial value and range"),
        ({"deformations": [0]}, {"deformList": [{"type": "q"}]}, r"deformList\.0\.type: Input should be 'x', 'y', 'z'"),
        (
            {"deformations": [0]},
            {"deformList": [{"type": "x", "deformRange": 3}]},
            r"deformation 0 names range 3, and the file lists 0",
        ),
        (
            {"deformations": [0]},
            {"deformList": [{"type": "x", "initial": 9, "range": [0, 5]}]},
            r"deformation 0 begins at 9, outside its range \[0\.0, 5\.0\]",
        ),
        (
            {"deformations": [0]},
            {
                "deformList": [
                    {"type": "rot2p", "initial": 9, "range": [0, 9], "point1": [0, 0, 0], "point2": [0, 0, 0]}
                ]
            },
            r"turns about an axis that needs two different points",
        ),
        ({"elementCasing": 0}, {}, r"element 0 names coil model 0, and the file lists 0"),
        (
            {},
            {"coilCasing": 0, "coilModels": [{"points": [[0, 0, 0]] * 3, "faces": [[0, 1, 3]]}]},
            r"casing 0: a triangle has corner 3 of 3 points",
        ),
    ],
)
def test_tcd_that_is_not_understood_is_refused(tmp_path, element, rest, message):
    element = {key: value for key, value in {**DIPOLE, **element}.items() if value is not None}
    path = tcd(tmp_path, element, **rest)
    with pytest.raises(CoilError, match=r"reading coil .*coil\.tcd: .*" + message):
        load_coil(path)


def test_tcd_of_two_stimulators_is_refused(tmp_path):
    path = tcd(tmp_path, DIPOLE, {**DIPOLE, "stimulator": 1}, stimulatorList=[{"name": "a"}, {"name": "b"}])
    with pytest.raises(CoilError, match=r"hang on 2 stimulators, whose currents are independent.*a file of their own"):
        load_coil(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"coilElementList": []}', "NaN", "\xff\xfe"])
def test_tcd_that_is_no_json_of_a_coil_is_refused(tmp_path, text):
    path = tmp_path / "bad.tcd"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CoilError, match=r"reading coil .*bad\.tcd: .*no \.tcd file that gives the field"):
        load_coil(path)


def test_tcd_never_unpacks_a_bomb(tmp_path, monkeypatch):
    from motorsweep.sim import tcd_arrays

    monkeypatch.setattr(tcd_arrays, "_LARGEST", 1_000_000)
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    with pytest.raises(CoilError, match=r"1000000 bytes and no end"):
        load_coil(tcd(tmp_path, {**DIPOLE, "points": bomb}))


# ---- NIfTI


def save(folder, data, affine=None, name="field.nii.gz", **header):
    image = nibabel.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    path = folder / name
    nibabel.save(image, path)
    return path


def test_nifti_of_one_stimulator_may_have_five_dimensions(tmp_path):
    data, affine = grid_element()
    four = load_coil(save(tmp_path, data.astype(np.float32), affine, "four.nii"))
    five = load_coil(save(tmp_path, data.astype(np.float32)[:, :, :, None], affine, "five.nii.gz"))
    assert four.id == five.id
    assert (four.name, five.name) == ("four", "five")


DATA = np.full((5, 5, 5, 3), 1e-6)


@pytest.mark.parametrize(
    ("data", "header", "message"),
    [
        (np.full((5, 5, 5, 2, 3), 1e-6), {}, r"the fields of 2 stimulators, whose currents are independent"),
        (np.ones((5, 5, 5)), {}, r"one vector per voxel.*Give the A-field of the coil, not a picture"),
        (np.ones((5, 5, 5, 6)), {}, r"one vector per voxel"),
        (np.full((5, 5, 5, 3), 1e-6 + 1j), {}, r"type complex128, but a vector potential is real"),
        (DATA, {"xyzt_units": 1}, r"affine is in metres or micrometres"),
        (DATA * 1e7, {}, r"largest component is 10,.*Values in V/m"),
        (DATA * np.nan, {}, r"largest component is nan"),
        (DATA[:3], {}, r"four and more along each axis"),
    ],
)
def test_nifti_that_is_no_field_is_refused(tmp_path, data, header, message):
    with pytest.raises(CoilError, match=r"reading coil .*field\.nii\.gz: .*" + message):
        load_coil(save(tmp_path, data, **header))


@pytest.mark.parametrize(
    ("offset", "numbers", "message"),
    [
        (252, [0, 0], r"neither sform nor qform is set"),
        (40, [4, 5000, 5000, 500, 3], r"header announces \(5000, 5000, 500, 3\) values, more than the file can hold"),
        (40, [4, -5, 5, 5, 3], r"not a whole NIfTI file|is \(-5, 5, 5, 3\)|cannot be|announces"),
    ],
)
def test_nifti_with_a_header_that_lies_is_refused(tmp_path, offset, numbers, message):
    whole = bytearray(nibabel.Nifti1Image(DATA, np.eye(4)).to_bytes())
    whole[offset : offset + 2 * len(numbers)] = np.array(numbers, "<i2").tobytes()
    for name, data in (("field.nii", bytes(whole)), ("field.nii.gz", gzip.compress(bytes(whole)))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CoilError, match=rf"reading coil .*{name}: .*({message})"):
            load_coil(tmp_path / name)


def test_truncated_nifti_is_refused(tmp_path):
    for name in ("field.nii", "field.nii.gz"):
        path = save(tmp_path, np.random.default_rng(0).normal(0, 1e-6, (9, 9, 9, 3)), name=name)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(CoilError, match=r"reading coil .*(not a whole NIfTI file|more than the file can hold)"):
            load_coil(path)


# ---- all


@pytest.mark.parametrize(
    ("header", "message"),
    [("dIdtmax=fast;", "'fast'"), ("dIdtmax=-3;", "'-3'"), ("dIdtmax=nan", "'nan'"), ("dIdtmax=1e8;", "'1e8'")],
)
def test_ccd_of_a_rate_that_is_none_is_refused(tmp_path, header, message):
    path = tmp_path / "bad.ccd"
    path.write_text(f"# version 1; {header}\n1\n0 0 -0.01 0 0 1e-3\n")
    with pytest.raises(CoilError, match=rf"header's dIdtmax is {message}.*positive number of A/µs"):
        load_coil(path)


def test_ccd_in_millimetres_is_refused(tmp_path):
    path = tmp_path / "bad.ccd"
    path.write_text("1\n10 0 -5 0 0 1e-3\n")
    with pytest.raises(
        CoilError, match=r"line 2: the dipole lies at \[10\.0, 0\.0, -5\.0\] m.*Divide millimetres by 1000"
    ):
        load_coil(path)


def test_unknown_files_name_all_formats(tmp_path):
    path = tmp_path / "coil.stl"
    path.write_text("")
    with pytest.raises(CoilError, match=rf"a file of type '\.stl'.*{', '.join(COILS)}.*{', '.join(READERS)}"):
        load_coil(path)
    assert list(READERS) == [".ccd", ".tcd", ".nii.gz", ".nii"]
