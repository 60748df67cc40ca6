import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn import record_splits as module
from motorsweep.learn.record_splits import KINDS, record_splits

records = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["rest", "activity"])), min_size=12, max_size=80
)


def test_examples():
    assert doctest.testmod(module).failed == 0


@given(records, st.sampled_from(KINDS), st.integers(0, 2**31), st.integers(1, 3))
def test_disjoint_complete_seeded(labels, kind, seed, repeats):
    subjects, conditions = zip(*labels)
    if kind == "leave-one-subject-out" and len(set(subjects)) < 3:
        return
    try:
        splits = record_splits(kind, subjects, seed, conditions, repeats=repeats)
    except InputError as error:  # a subject that holds nearly all records
        assert kind == "leave-one-subject-out" and "left for training" in str(error)
        return
    again = record_splits(kind, subjects, seed, conditions, repeats=repeats)
    assert [split.fold for split in splits] == list(range(len(splits)))
    for split, other in zip(splits, again):
        parts = split.train, split.validation, split.test
        for part, same in zip(parts, (other.train, other.validation, other.test)):
            assert part.dtype == np.int64 and np.array_equal(part, same) and (np.diff(part) > 0).all()
        assert all(map(len, parts))
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(subjects)))


@given(records, st.sampled_from(["80-20", "70-10-20", "k-fold"]), st.integers(0, 2**31))
def test_each_subject_and_condition_gives_its_share_to_the_test_set(labels, kind, seed):
    subjects, conditions = map(np.array, zip(*labels))
    for split in record_splits(kind, subjects, seed, conditions):
        share = 1 / 5 if kind == "k-fold" else len(split.test) / len(subjects)
        for chosen in [subjects == each for each in set(subjects)] + [
            (subjects == a) & (conditions == b) for a, b in set(labels)
        ]:
            assert abs(chosen[split.test].sum() - share * chosen.sum()) < 1 + 1e-9


def test_shares_of_the_paper():
    subjects = np.repeat([f"s{i}" for i in range(10)], 100)
    sizes = {"80-20": (720, 80, 200), "70-10-20": (700, 100, 200), "k-fold": (720, 80, 200)}
    for kind, wanted in sizes.items():
        for split in record_splits(kind, subjects, 5):
            assert (len(split.train), len(split.validation), len(split.test)) == wanted


def test_k_fold_tests_each_record_once_a_repeat():
    splits = record_splits("k-fold", ["a"] * 11 + ["b"] * 12, 3, folds=4, repeats=2)
    assert len(splits) == 8
    for repeat in (splits[:4], splits[4:]):
        assert np.array_equal(np.sort(np.concatenate([split.test for split in repeat])), np.arange(23))
    assert any(not np.array_equal(a.test, b.test) for a, b in zip(splits[:4], splits[4:]))


def test_repeats_and_seeds_draw_anew():
    one, two = record_splits("80-20", ["a"] * 40, 1, repeats=2)
    (other,) = record_splits("80-20", ["a"] * 40, 2)
    assert not np.array_equal(one.test, two.test) and not np.array_equal(one.test, other.test)


def test_each_subject_tests_once_and_validates_once_whole():
    subjects = np.array(list("cabbacdde") * 4)
    splits = record_splits("leave-one-subject-out", subjects, 7)
    assert [set(subjects[split.test]) for split in splits] == [{"a"}, {"b"}, {"c"}, {"d"}, {"e"}]
    validating = [set(subjects[split.validation]) for split in splits]
    assert sorted(name for (name,) in validating) == list("abcde")
    for split in splits:
        for part in (split.validation, split.test):
            assert set(np.flatnonzero(np.isin(subjects, subjects[part]))) == set(part)


def test_with_two_subjects_records_of_the_other_validate():
    subjects = np.repeat(["a", "b"], 20)
    first, second = record_splits("leave-one-subject-out", subjects, 7)
    assert set(subjects[first.test]) == {"a"} and set(subjects[first.validation]) == {"b"}
    assert (len(first.train), len(first.validation)) == (18, 2) == (len(second.train), len(second.validation))


def test_twenty_one_subjects_validate_two_at_a_time():
    subjects = np.repeat([f"{i:02}" for i in range(21)], 3)
    counts = [len(set(subjects[split.validation])) for split in record_splits("leave-one-subject-out", subjects, 1)]
    assert counts == [2] * 21


@pytest.mark.parametrize("kind", KINDS)
def test_failed_records_are_in_no_part(kind):
    rows = np.setdiff1d(np.arange(40), [0, 7, 39])
    for split in record_splits(kind, list("abcd") * 10, 1, rows=rows):
        assert np.array_equal(np.sort(np.concatenate([split.train, split.validation, split.test])), rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("90-10", "abcde", 1), "split '90-10' is not known; choose .*80-20, 70-10-20, leave-one-subject-out, k-fold"),
        (("80-20", "abc", 1), "3 of 3 records can be used.*at least 4"),
        (("80-20", "abcdefg", 1, None, [1, 2, 9, 10]), "4 of 7 records"),
        (("k-fold", "abcde", 1, None, None, 6), "6 folds of 5 records cannot be made; there must be 2 to 5"),
        (("k-fold", "abcde", 1, None, None, 1), "1 folds of 5"),
        (("k-fold", "abcde", 1, None, None, 2.5), "2.5 folds of 5 records cannot be made"),
        (("leave-one-subject-out", "aaaaa", 1), "all 5 records .* subject 'a'.*at least 2 subjects"),
        (("leave-one-subject-out", "aaaab", 1), "fold 0: 0 records would be left for training and 1 for validation"),
        (("80-20", "abcde", -1), "the seed is -1; seeds are not negative"),
        (("80-20", "abcde", 1, ["rest"]), "5 subjects and 1 conditions"),
        (("80-20", "abcde", 1, None, None, 5, 0), "0 repeats"),
    ],
)
def test_bad_input(arguments, message):
    kind, subjects, *rest = arguments
    with pytest.raises(InputError, match=message):
        record_splits(kind, list(subjects), *rest)
