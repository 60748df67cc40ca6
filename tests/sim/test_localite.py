import numpy as np
import pytest
from motorsweep.errors import PoseError
from motorsweep.sim.markers import SkippedMarkerWarning
from motorsweep.sim.pose import read_markers, read_poses
from scipy.spatial.transform import Rotation

# Localite's x points into the head (down), y towards the handle (backwards), z to the left
PLAIN = np.array([[0.0, 0, -1, -38.5], [0, -1, 0, -20.25], [-1, 0, 0, 95.0], [0, 0, 0, 1]])
# by hand: x = z, y = -y, z = x
PLAIN_POSE = [[-1, 0, 0, -0.0385], [0, 1, 0, -0.02025], [0, 0, -1, 0.095], [0, 0, 0, 1]]


def matrix4d(matrix):
    return "<Matrix4D " + " ".join(f'data{i}{j}="{matrix[i][j]!r}"' for i in range(4) for j in range(4)) + "/>"


def instrument(matrix, name="M", is_set="true", index=0):
    return (
        f'<InstrumentMarker index="{index}" selected="false"><Marker description="{name}" set="{is_set}">\n'
        f"{matrix4d(np.asarray(matrix).tolist())}</Marker></InstrumentMarker>\n"
    )


def trigger(matrix, value="NaN", name="stim"):
    return (
        f'<TriggerMarker description="{name}" recordingTime="17"><ResponseValues><Value key="valueA" '
        f'response="{value}"/><Value key="amplitudeA" response="55"/></ResponseValues>\n'
        f"{matrix4d(np.asarray(matrix).tolist())}</TriggerMarker>\n"
    )


def write(tmp_path, *markers, space="RAS", root="InstrumentMarkerList", start="", encoding="UTF-8"):
    path = tmp_path / "markers.xml"
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{start}<{root} coordinateSpace="{space}">\n'
    path.write_bytes((text + "".join(markers) + f"</{root}>\n").encode(encoding))
    return path


def test_instrument_markers_become_simnibs_poses(tmp_path):
    (pose,) = read_poses(write(tmp_path, instrument(PLAIN, "Hotspot ü")))
    np.testing.assert_array_equal(pose.matrix, PLAIN_POSE)
    assert (pose.name, pose.didt) == ("Hotspot ü", None)


def test_lps_is_turned_into_ras(tmp_path):
    (pose,) = read_poses(write(tmp_path, instrument(PLAIN), space="lps"))
    expected = np.diag([-1, -1, 1, 1]) @ PLAIN_POSE
    np.testing.assert_allclose(pose.matrix, expected, atol=1e-15)
    assert pose.centre_m[0] == 0.0385  # what LPS counts to the left


@pytest.mark.parametrize(
    ("value", "didt"),
    [("72.5", 72.5e6), ("NaN", None), ("nan", None), ("0.0", None), ("0", None), ("", None)],
)
def test_stimuli_have_their_rate_of_current(tmp_path, value, didt):
    (pose,) = read_poses(write(tmp_path, trigger(PLAIN, value), root="TriggerMarkerList", encoding="UTF-16"))
    assert (pose.didt, pose.name) == (didt, "stim")
    np.testing.assert_array_equal(pose.matrix, PLAIN_POSE)
    raised = pose.raised(1e-3)
    assert (raised.didt, raised.name) == (didt, "stim")


def test_values_that_are_not_there_are_unknown(tmp_path):
    bare = trigger(PLAIN).replace('key="valueA"', "").replace('response="NaN"', "")
    assert read_poses(write(tmp_path, bare, root="TriggerMarkerList"))[0].didt is None


def test_untracked_and_unset_markers_are_skipped_and_named(tmp_path):
    stimuli = [np.eye(4), PLAIN, np.eye(4), PLAIN]
    path = write(
        tmp_path, *(trigger(m, name=str(i)) for i, m in enumerate(stimuli)), root="TriggerMarkerList", space="LPS"
    )
    with pytest.warns(SkippedMarkerWarning, match=r"2 of 4 markers have no pose \(0, 2\).*: not tracked \(identity"):
        assert [pose.name for pose in read_poses(path)] == ["1", "3"]
    path = write(tmp_path, instrument(PLAIN), instrument(PLAIN, is_set="false", index=1))
    with pytest.warns(SkippedMarkerWarning, match=r"1 of 2 markers has no pose \(1\): trials.*: not set"):
        assert len(read_poses(path)) == 1
    path = write(tmp_path, *(trigger(np.eye(4)) for _ in range(30)), trigger(PLAIN))
    with pytest.warns(SkippedMarkerWarning, match=r"30 of 31.*\(0, 1, .*, 19 and 10 more\): trials"):
        read_poses(path)


def test_a_rotation_without_translation_is_untracked(tmp_path):
    flipped = np.diag([-1.0, -1, 1, 1])
    path = write(tmp_path, trigger(PLAIN), trigger(flipped), trigger(PLAIN))
    with pytest.warns(SkippedMarkerWarning, match=r"1 of 3 markers has no pose \(1\).*rotation without translation"):
        markers = read_markers(path)
    assert [marker and marker.number for marker in markers] == [0, None, 2]
    with pytest.raises(PoseError, match="0 mm from the origin"):
        read_poses(write(tmp_path, trigger(PLAIN), trigger(np.diag([2.0, 1, 1, 1]))))


def test_stimuli_come_before_marks_and_either_can_be_asked_for(tmp_path):
    path = write(tmp_path, instrument(PLAIN, "mark"), trigger(PLAIN, name="stimulus"))
    assert [pose.name for pose in read_poses(path)] == ["stimulus"]
    assert [pose.name for pose in read_poses(path, section="targets")] == ["mark"]
    with pytest.raises(PoseError, match=r"no 'samples' in it \(it holds 0 samples and 1 targets\)"):
        read_poses(write(tmp_path, instrument(PLAIN)), section="samples")


def test_rotations_are_kept_to_the_last_digits(tmp_path):
    matrices = np.tile(PLAIN, (20, 1, 1))
    matrices[:, :3, :3] = Rotation.random(20, random_state=1).as_matrix()
    for pose, matrix in zip(read_poses(write(tmp_path, *map(instrument, matrices))), matrices):
        x, y, z = matrix[:3, :3].T
        np.testing.assert_allclose(pose.matrix[:3, :3], np.transpose([z, -y, x]), atol=1e-15)


SHEARED = PLAIN + np.array([[0, 0.05, 0, 0], [0] * 4, [0] * 4, [0] * 4])
MIRRORED = PLAIN * [1, -1, 1, 1]
DOCTYPE = '<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n'


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            [instrument(PLAIN), instrument(SHEARED, "P+45")],
            {},
            r"instrument marker 1 \('P\+45'\) at line 5: .*[Ss]heared",
        ),
        ([trigger(MIRRORED)], {}, r"trigger marker 0 \('stim'\) at line 3: .*left-handed"),
        ([instrument(PLAIN)], {"space": ""}, r"coordinateSpace of <InstrumentMarkerList> is ''.*RAS nor LPS"),
        ([instrument(PLAIN)], {"space": "MNI"}, r"coordinateSpace of <InstrumentMarkerList> is 'MNI'"),
        ([instrument(PLAIN)], {"start": DOCTYPE}, r"line 2: the file declares a document type or entities"),
        ([instrument(PLAIN)], {"start": '<!DOCTYPE l SYSTEM "file:///etc/passwd">'}, r"line 2: .*document type"),
        (["&lol;"], {}, r"line 3: damaged XML \(undefined entity"),
        (["<a>" * 200_000], {}, r"line 3: <a> is nested as Localite nests nothing"),
        ([trigger(PLAIN).replace("</TriggerMarker>", "")], {}, r"line 5: damaged XML"),
        ([], {}, r"neither a TriggerMarker nor an InstrumentMarker in <InstrumentMarkerList>"),
        ([], {"root": "GUMMarkerList"}, r"in <GUMMarkerList>"),
        ([instrument(PLAIN).replace('data12="0.0"', "")], {}, r"marker 0 \('M'\) at line 3, data12: found None"),
        ([instrument(PLAIN).replace('"95.0"', '"NaN"')], {}, r"data23: found 'NaN', not a finite number"),
        ([trigger(PLAIN, "fast")], {}, r"valueA: found 'fast'.*write NaN for unknown"),
        ([trigger(PLAIN, "inf")], {}, r"valueA: found 'inf'"),
        ([trigger(PLAIN, "-60")], {}, r"valueA: found -60 A/µs, but a stimulus has a positive one"),
        (["<TriggerMarker/>"], {}, r"trigger marker 0 at line 3: found 0 elements Matrix4D"),
        (["<TriggerMarker><InstrumentMarker/></TriggerMarker>"], {}, r"line 3: <InstrumentMarker> is nested"),
    ],
)
def test_what_cannot_be_used_is_refused_by_marker(tmp_path, content, options, message):
    with pytest.raises(PoseError, match=r"markers\.xml.*" + message):
        read_poses(write(tmp_path, *content, **options))


@pytest.mark.parametrize("encoding", ["none-such", "utf-7", "hex"])
def test_unknown_encodings_are_refused(tmp_path, encoding):
    path = write(tmp_path, instrument(PLAIN))
    path.write_text(path.read_text().replace("UTF-8", encoding))
    with pytest.raises(PoseError, match=r"markers\.xml, line \d+: damaged XML"):
        read_poses(path)


def test_real_markers_point_into_the_head(data_folder):
    poses = read_poses(data_folder / "nav" / "RAS_InstrumentMarker20170316160859032.xml")
    assert [pose.name for pose in poses] == ["M0", "M+45", "M-45", "P0", "P-45", "P+45"]
    # by hand from the file's first marker: x is its third column, y its second negated, z its first
    expected = [[-0.454281, 0.515501, 0.726594], [0.782925, 0.620186, 0.049492], [-0.425099, 0.591337, -0.685320]]
    np.testing.assert_allclose(poses[0].matrix[:3, :3], expected, atol=5e-5)  # the file's axes are 1.00003 long
    np.testing.assert_allclose(poses[0].centre_m, [-0.0418377, -0.0341116, 0.0886092], atol=1e-7)
    for pose in poses:  # left motor and parietal cortex
        towards = np.array([0, -0.02, 0.02]) - pose.centre_m
        assert pose.matrix[:3, 2] @ towards / np.linalg.norm(towards) > 0.85
    # "M+45" and "M-45" are M0 with the handle turned by 45 degrees either way
    y = [pose.matrix[:3, 1] for pose in poses[:3]]
    assert np.rad2deg(np.arccos([y[0] @ y[1], y[0] @ y[2]])) == pytest.approx([45, 45], abs=20)
