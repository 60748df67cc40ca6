from pathlib import Path

import numpy as np
import pytest
from motorsweep.errors import MeshError
from motorsweep.sim.tissues import conductivity_of


def test_standard_values_and_overrides():
    tissue = np.array([1, 2, 3, 4, 5, 2])
    assert conductivity_of(tissue).tolist() == [0.126, 0.275, 1.654, 0.010, 0.465, 0.275]
    assert conductivity_of(tissue, {"bone": 0.02, 5: 0.3})[3:5].tolist() == [0.02, 0.3]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"gray_matter": 0.3}, "did you mean grey_matter"),
        ({"bone": -1.0}, "positive number in S/m"),
        ({"bone": float("nan")}, "positive number in S/m"),
        ({"white_matter": [1.0, 0.1, 0.1]}, "anisotropic"),
        ({"white_matter": {"tensor": "dti.nii.gz"}}, "anisotropic"),
        (
            {"white_matter": "dti.nii.gz"},
            r"'dti.nii.gz'; anisotropic .*diffusion-tensor volume.* are not built.*one number",
        ),
        ({"white_matter": "0.126"}, r"'0.126'; .*one number in S/m"),
        ({"white_matter": Path("dti.nii.gz")}, "anisotropic"),
        ({"white_matter": True}, r"white_matter is True; .*one number"),
        ({"white_matter": None}, "one number"),
        ({"white_matter": 1j}, "one number"),
        ({"9" * 6000: 0.1}, "is no tissue"),
        ({5.0: 0.1}, "is no tissue"),
        ("dti.nii.gz", "is no table"),
    ],
)
def test_an_unusable_override_is_told(overrides, words):
    with pytest.raises(MeshError, match=words):
        conductivity_of(np.array([1]), overrides)


def test_numbers_of_numpy_are_numbers():
    given = {"bone": np.float32(0.5), "csf": np.int64(2), np.int64(1): 0.25}
    assert conductivity_of(np.array([4, 3, 1]), given).tolist() == [0.5, 2.0, 0.25]


def test_a_tag_without_conductivity_is_told_and_can_be_given():
    with pytest.raises(MeshError, match=r"tag 77, which no tissue"):
        conductivity_of(np.array([1, 77]))
    assert conductivity_of(np.array([77]), {"77": 0.2}).tolist() == [0.2]
