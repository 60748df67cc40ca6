import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn import splits

PAPER = np.repeat([110, 120, 130, 140], [300, 149, 150, 100])
QUICK = np.repeat([110, 120, 130, 140], 40)


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


def test_the_splits_of_the_examples_stay_what_they_were():
    """Drawn before strata of a few trials were dealt together; stored runs of these studies rest on them."""
    quick = {
        0: [0, 4, 5, 36, 40, 41, 64, 75, 86, 108, 111, 119, 129, 135, 147, 154],
        2: [1, 2, 25, 26, 40, 52, 78, 79, 101, 104, 109, 118, 129, 139, 140, 147],
    }
    paper = {0: "8c980649ce4efcad", 2: "198a4e14383e0ce8"}
    for repeat in (0, 2):
        assert splits.test_split(QUICK, repeat, 0.1, seed=1)[1].tolist() == quick[repeat]
        test = splits.test_split(PAPER, repeat, 0.1, seed=1)[1]
        assert test.dtype == np.int64
        assert hashlib.sha256(test.tobytes()).hexdigest()[:16] == paper[repeat]


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


@given(st.lists(st.integers(1, 8), min_size=2, max_size=60), st.sampled_from([0.05, 0.1, 0.2, 0.5]), st.integers(0, 2))
def test_rare_intensities_leave_neither_set_empty_nor_the_test_set_short(sizes, fraction, repeat):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    calibration, test = splits.test_split(strata, repeat, fraction, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([calibration, test])), np.arange(len(strata)))
    assert (np.diff(test) > 0).all() and len(calibration) > 0
    due = fraction * len(strata)
    rounded = sum(abs(round(fraction * n) - fraction * n) for n in sizes if fraction * n >= 1)
    assert max(1, round(due)) <= len(test) <= max(1, due + rounded + 0.5)
    assert test.tolist() == splits.test_split(strata, repeat, fraction, seed=1)[1].tolist()


def test_intensities_that_all_differ_are_spread_over_the_test_set():
    intensity = np.random.default_rng(0).permutation(np.linspace(100, 140, 200))
    draws = [splits.test_split(intensity, repeat, 0.1, seed=1)[1] for repeat in range(3)]
    for test in draws:
        # one of each ten neighbours in intensity
        ranks = np.sort(np.argsort(np.argsort(intensity))[test])
        assert (ranks // 10).tolist() == list(range(20))
    assert len({tuple(test) for test in draws}) == 3


@pytest.mark.parametrize(("fraction", "size"), [(0.01, 1), (0.1, 1), (0.99, 9)])
def test_both_sets_hold_a_trial_at_least(fraction, size):
    calibration, test = splits.test_split(np.zeros(10), repeat=0, test_fraction=fraction, seed=1)
    assert (len(calibration), len(test)) == (10 - size, size)


@pytest.mark.parametrize(("trials", "fraction"), [(10, 0.0), (10, 1.0), (1, 0.1), (0, 0.1)])
def test_what_cannot_be_split_is_refused(trials, fraction):
    with pytest.raises(InputError, match="both sets need trials"):
        splits.test_split(np.zeros(trials), repeat=0, test_fraction=fraction, seed=1)


@pytest.mark.parametrize(("fold", "folds"), [(0, 1), (3, 3), (-1, 3), (0, 11)])
def test_impossible_folds_are_refused(fold, folds):
    with pytest.raises(InputError, match="cannot be made"):
        splits.fold_split(np.arange(10), np.zeros(10), fold, folds, seed=1, repeat=0)


@given(
    seed=st.integers(0, 2**32), repeat=st.integers(0, 9), counts=st.lists(st.integers(1, 629), min_size=2, max_size=4)
)
def test_labelled_subsets_are_nested_and_hold_every_intensity_in_its_share(seed, repeat, counts):
    calibration, _ = splits.test_split(PAPER, repeat, 0.1, seed)
    before = np.array([], int)
    for count in sorted(counts):
        rows = splits.labelled_subset(calibration, PAPER, count, seed, repeat)
        assert len(rows) == count and (np.diff(rows) > 0).all() and set(before) <= set(rows) <= set(calibration)
        for intensity in np.unique(PAPER):
            share = (PAPER[calibration] == intensity).mean()
            assert abs((PAPER[rows] == intensity).sum() - share * count) <= 1.5
        before = rows


def test_labelled_subsets_differ_by_seed_and_repeat_and_refuse_more_than_there_is():
    calibration, _ = splits.test_split(PAPER, 0, 0.1, seed=1)
    draws = {tuple(splits.labelled_subset(calibration, PAPER, 50, s, r)) for s in (1, 2) for r in (0, 1)}
    assert len(draws) == 4
    np.testing.assert_array_equal(splits.labelled_subset(calibration, PAPER, 629, 1, 0), calibration)
    with pytest.raises(InputError, match=r"630 trials were asked of 629 .* curve_trials"):
        splits.labelled_subset(calibration, PAPER, 630, 1, 0)
