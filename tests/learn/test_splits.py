import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn import splits

PAPER = np.repeat([110, 120, 130, 140], [300, 149, 150, 100])


def test_the_paper_s_trials_give_629_and_70():
    calibration, test = splits.test_split(PAPER, repeat=0, test_fraction=0.1, seed=1)
    assert (len(calibration), len(test)) == (629, 70)
    assert [int((PAPER[test] == i).sum()) for i in (110, 120, 130, 140)] == [30, 15, 15, 10]


def test_repeats_and_seeds_draw_other_trials_and_equal_ones_the_same():
    draws = {
        tuple(splits.test_split(PAPER, repeat=r, test_fraction=0.1, seed=s)[1]) for r in range(3) for s in range(3)
    }
    assert len(draws) == 9
    again = splits.test_split(PAPER, repeat=2, test_fraction=0.1, seed=2)[1]
    assert tuple(again) in draws


@given(
    st.lists(st.sampled_from([110, 120, 130]), min_size=20, max_size=80),
    st.integers(2, 10),
    st.integers(0, 99),
    st.integers(0, 2),
)
def test_folds_partition_the_calibration_trials(strata, folds, seed, repeat):
    strata = np.array(strata)
    calibration = np.arange(0, len(strata) - 5)
    parts = [splits.fold_split(calibration, strata, f, folds, seed, repeat) for f in range(folds)]
    everything = np.sort(np.concatenate([validation for _, validation in parts]))
    np.testing.assert_array_equal(everything, calibration)
    for train, validation in parts:
        np.testing.assert_array_equal(np.union1d(train, validation), calibration)
        assert not np.intersect1d(train, validation).size
    sizes = [len(v) for _, v in parts]
    assert max(sizes) - min(sizes) <= 1
    for value in np.unique(strata[calibration]):
        counts = [int((strata[v] == value).sum()) for _, v in parts]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("fraction", [0.0, 0.01, 1.0])
def test_an_empty_side_is_refused(fraction):
    with pytest.raises(InputError, match="both sets need trials"):
        splits.test_split(np.zeros(10), repeat=0, test_fraction=fraction, seed=1)


@pytest.mark.parametrize(("fold", "folds"), [(0, 1), (3, 3), (-1, 3), (0, 11)])
def test_impossible_folds_are_refused(fold, folds):
    with pytest.raises(InputError, match="cannot be made"):
        splits.fold_split(np.arange(10), np.zeros(10), fold, folds, seed=1, repeat=0)
