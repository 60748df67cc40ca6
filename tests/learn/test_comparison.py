import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn import scores
from motorsweep.learn.comparison import bootstrap_nrmse, compare, within_chance
from scipy import stats


def simulated(generator, sds, trials=40, muscles=3, pool=None, repeats=3):
    """Repeats of test sets drawn from one pool of trials, and models that err by `sds`."""
    pool = pool or 2 * trials
    truth = generator.gamma(2.0, 0.2, (pool, muscles))
    ids = [np.sort(generator.permutation(pool)[:trials]) for _ in range(repeats)]
    noise = [generator.standard_normal(truth.shape) * generator.gamma(4.0, 0.25, (pool, 1)) for _ in sds]
    predicted = {f"model {i}": [(truth + sd * e)[t] for t in ids] for i, (sd, e) in enumerate(zip(sds, noise))}
    return [truth[t] for t in ids], predicted, ids


def nrmse_of_sums(squared, size, axis=-1):
    return np.sqrt(squared.sum(axis=axis) / size.sum(axis=axis))


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_one_repeat_agrees_with_scipy(method):
    measured, predicted, ids = simulated(np.random.default_rng(1), [0.2], trials=60, repeats=1)
    m, p = measured[0], predicted["model 0"][0]
    data = ((m - p) ** 2).sum(1), (m**2).sum(1)
    theirs = stats.bootstrap(
        data, nrmse_of_sums, paired=True, n_resamples=60_000, method=method, random_state=np.random.default_rng(2)
    )
    ours = bootstrap_nrmse(measured, predicted, ids, method=method, resamples=60_000, seed=3)
    assert ours.mean[0] == pytest.approx(scores.nrmse(m, p), rel=1e-12)
    assert np.isnan(ours.sd[0])
    spread = theirs.standard_error
    assert ours.resamples.std(ddof=1) == pytest.approx(spread, rel=0.02)
    np.testing.assert_allclose(ours.interval[0], theirs.confidence_interval, atol=0.04 * spread)


def test_expanded_intervals_are_student_s_where_resamples_are_normal():
    """Responses of 1: the squared NRMSE is a mean of squared errors, here few and evenly spread about 0.25."""
    squares = 0.25 + 0.01 * np.linspace(-1, 1, 12)
    size = np.ones((12, 1))
    found = bootstrap_nrmse([size], {"a": [size - np.sqrt(squares)[:, None]]}, [np.arange(12)], resamples=100_000)
    expected = np.sqrt(stats.t.interval(0.95, 11, squares.mean(), squares.std(ddof=1) / np.sqrt(12)))
    np.testing.assert_allclose(found.interval[0], expected, atol=0.03 * np.diff(expected)[0])
    plain = bootstrap_nrmse(
        [size], {"a": [size - np.sqrt(squares)[:, None]]}, [np.arange(12)], resamples=100_000, method="percentile"
    )
    assert np.diff(plain.interval[0]) < 0.87 * np.diff(expected)


def test_point_values_are_those_of_each_repeat():
    measured, predicted, ids = simulated(np.random.default_rng(4), [0.1, 0.3])
    found = compare(measured, predicted, ids, resamples=200)
    for i, name in enumerate(found.estimates.models):
        each = [scores.nrmse(m, p) for m, p in zip(measured, predicted[name])]
        np.testing.assert_allclose(found.estimates.nrmse[i], each)
        assert found.estimates.mean[i] == pytest.approx(np.mean(each))
        assert found.estimates.sd[i] == pytest.approx(np.std(each, ddof=1))
    np.testing.assert_allclose(found.difference, found.estimates.mean - found.estimates.mean[0])
    assert found.reference == "model 0"
    assert found.repeats_lower.tolist() == [0, 0]
    again = compare(measured, predicted, ids, resamples=200, reference="model 1")
    assert again.repeats_lower.tolist() == [3, 0]
    np.testing.assert_allclose(again.difference[0], -found.difference[1])


@pytest.mark.parametrize(("method", "repeats"), [("expanded", 1), ("expanded", 3), ("bca", 3)])
def test_intervals_hold_the_truth_as_often_as_they_say(method, repeats):
    """400 studies of a known population: the count lies within what a binomial of 95 % (less 2 points) allows."""
    generator, sd, hits, studies = np.random.default_rng(5), 0.2, 0, 400
    # E(error²) = sd² E(scale²) and E(response²), from the gamma distributions of `simulated`
    truth = np.sqrt(sd**2 * (4 * 5 * 0.25**2) / (2 * 3 * 0.2**2))
    for study in range(studies):
        measured, predicted, ids = simulated(generator, [sd], trials=70, pool=10_000, repeats=repeats)
        low, high = bootstrap_nrmse(measured, predicted, ids, method=method, resamples=400, seed=study).interval[0]
        hits += low <= truth <= high
    assert stats.binom.ppf(0.001, studies, 0.93) <= hits <= stats.binom.ppf(0.999, studies, 0.95)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_order_of_trials_and_scale_change_nothing(seed, scale):
    generator = np.random.default_rng(seed)
    measured, predicted, ids = simulated(generator, [0.1, 0.12, 0.3], trials=12)
    one = compare(measured, predicted, ids, resamples=200, seed=1)
    orders = [generator.permutation(len(t)) for t in ids]
    other = compare(
        [scale * m[o] for m, o in zip(measured, orders)],
        {name: [scale * p[o] for p, o in zip(rows, orders)] for name, rows in predicted.items()},
        [t[o] for t, o in zip(ids, orders)],
        resamples=200,
        seed=1,
    )
    assert other.reference == one.reference
    for name in ("difference", "interval", "simultaneous", "p", "p_adjusted", "repeats_lower", "share_best"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-7, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(other.estimates.interval, one.estimates.interval, rtol=1e-7)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equal_models_differ_by_nothing_at_all(seed):
    measured, predicted, ids = simulated(np.random.default_rng(seed), [0.1, 0.2, 0.3], trials=17)
    predicted = {f"{name}{copy}": rows for name, rows in predicted.items() for copy in "ab"}
    found = compare(measured, predicted, ids, reference="model 1a", resamples=300)
    assert found.difference[3] == 0.0
    assert found.interval[3].tolist() == found.simultaneous[3].tolist() == [0.0, 0.0]
    assert found.p[3] == found.p_adjusted[3] == 1.0
    assert found.share_best[2] == found.share_best[3]
    assert found.share_best.sum() == pytest.approx(1.0)
    assert within_chance(found)["model 1b"]


def test_a_planted_difference_is_found_and_chance_is_not_mistaken_for_one():
    measured, predicted, ids = simulated(np.random.default_rng(6), [0.20, 0.20, 0.30], trials=70)
    found = compare(measured, predicted, ids, reference="model 0")
    assert within_chance(found) == {"model 1": True, "model 2": False}
    assert found.p[2] < 0.01 and found.p_adjusted[2] < 0.01
    assert found.p[1] > 0.05
    assert found.share_best[2] == 0.0
    assert found.interval[2, 0] > 0
    assert (found.simultaneous[:, 0] <= found.interval[:, 0] + 1e-3).all()  # wider, but for the shape
    assert found.repeats_lower[2] == 0


def test_pairs_find_what_single_intervals_blur():
    """Two models that share what makes a trial hard differ by far less than their own intervals are wide."""
    generator = np.random.default_rng(7)
    measured, predicted, ids = simulated(generator, [0.2], trials=70)
    shared = predicted["model 0"]
    predicted["close"] = [m + 1.03 * (p - m) for m, p in zip(measured, shared)]
    found = compare(measured, predicted, ids)
    low, high = found.estimates.interval[0]
    assert found.estimates.mean[1] < high  # own intervals overlap by far
    assert within_chance(found) == {"close": False}
    assert found.interval[1, 1] - found.interval[1, 0] < 0.1 * (high - low)


def test_p_values_are_uniform_where_nothing_differs():
    generator, values = np.random.default_rng(8), []
    for study in range(300):
        measured, predicted, ids = simulated(generator, [0.2, 0.2], trials=30, muscles=2)
        values.append(compare(measured, predicted, ids, reference="model 0", resamples=300, seed=study).p[1])
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert stats.binomtest(int(np.sum(np.array(values) <= 0.05)), 300, 0.05).pvalue > 0.01


def test_adjusted_p_keeps_the_error_of_all_models_together():
    generator, wrong = np.random.default_rng(9), {"p": 0, "p_adjusted": 0, "simultaneous": 0}
    for study in range(150):
        measured, predicted, ids = simulated(generator, [0.2] * 8, trials=60, muscles=2)
        found = compare(measured, predicted, ids, reference="model 0", resamples=200, seed=study)
        for name in ("p", "p_adjusted"):
            wrong[name] += (getattr(found, name) <= 0.05).any()
        wrong["simultaneous"] += not all(within_chance(found).values())
    limit = stats.binom.ppf(0.999, 150, 0.07)
    assert wrong["p_adjusted"] <= limit and wrong["simultaneous"] <= limit
    assert wrong["p"] > limit  # which is why there is an adjusted one


def test_a_reference_chosen_from_the_data_widens_the_intervals():
    measured, predicted, ids = simulated(np.random.default_rng(10), [0.2] * 6)
    chosen = compare(measured, predicted, ids)
    named = compare(measured, predicted, ids, reference=chosen.reference)
    ratio = np.diff(chosen.simultaneous)[:, 0] / np.maximum(np.diff(named.simultaneous)[:, 0], 1e-300)
    others = [i for i, name in enumerate(chosen.estimates.models) if name != chosen.reference]
    assert (ratio[others] > 1.02).all()
    np.testing.assert_array_equal(chosen.interval, named.interval)


def test_trials_that_repeats_share_count_once():
    generator = np.random.default_rng(11)
    measured, predicted, ids = simulated(generator, [0.2], trials=50, pool=50)  # three times the same trials
    together = bootstrap_nrmse(measured, predicted, ids).interval[0]
    apart = bootstrap_nrmse(measured, predicted, [t + 1000 * r for r, t in enumerate(ids)]).interval[0]
    assert np.diff(together)[0] == pytest.approx(np.sqrt(3) * np.diff(apart)[0], rel=0.1)


def test_trials_of_one_group_are_drawn_together():
    generator = np.random.default_rng(12)
    measured, predicted, ids = simulated(generator, [0.2], trials=20, pool=20, repeats=1)
    tripled = [np.tile(measured[0], (3, 1))], {"model 0": [np.tile(predicted["model 0"][0], (3, 1))]}
    pose_of = np.tile(np.arange(20), 3)
    once = bootstrap_nrmse(measured, predicted, ids)
    as_array = bootstrap_nrmse(*tripled, [np.arange(60)], pose_of)
    as_mapping = bootstrap_nrmse(*tripled, [np.arange(60)], dict(enumerate(pose_of)))
    np.testing.assert_allclose(as_array.interval, once.interval)
    np.testing.assert_array_equal(as_mapping.interval, as_array.interval)
    assert np.diff(bootstrap_nrmse(*tripled, [np.arange(60)]).interval[0]) < 0.75 * np.diff(once.interval[0])


def test_a_small_test_set_that_a_resample_misses_does_not_count_in_it():
    """Two repeats of which one has two trials: resamples without them score on the other repeat alone."""
    measured = [np.ones((2, 1)), np.ones((30, 1))]
    predicted = {"a": [m + 0.5 for m in measured]}
    found = bootstrap_nrmse(measured, predicted, [np.arange(2), np.arange(2, 32)], resamples=2000)
    np.testing.assert_allclose(found.resamples, 0.5)
    np.testing.assert_allclose(found.interval, 0.5)


def test_seed_and_size_of_work():
    measured, predicted, ids = simulated(np.random.default_rng(13), [0.2] * 30, trials=70, muscles=15, pool=700)
    began = time.process_time()
    one = compare(measured, predicted, ids, resamples=2000, seed=5)
    assert time.process_time() - began < 20  # about 1 s; a guard against loops over resamples
    other = compare(measured, predicted, ids, resamples=2000, seed=5)
    np.testing.assert_array_equal(one.estimates.resamples, other.estimates.resamples)
    np.testing.assert_array_equal(one.p, other.p)
    assert not np.array_equal(one.p, compare(measured, predicted, ids, resamples=2000, seed=6).p)


def test_refuses_what_cannot_be_compared():
    measured, predicted, ids = simulated(np.random.default_rng(14), [0.1, 0.2], trials=5)
    failed = {**predicted, "failed": [np.full_like(m, np.nan) for m in measured]}
    with pytest.raises(InputError, match=r"values of failed are not finite in repeat 0.*Leave out a model that failed"):
        compare(measured, failed, ids)
    with pytest.raises(InputError, match=r"values of short have shapes \[\(5, 3\)\]"):
        compare(measured, {**predicted, "short": measured[:1]}, ids)
    with pytest.raises(InputError, match="one number for each of its trials"):
        compare(measured, predicted, ids[:2])
    with pytest.raises(InputError, match="0 models"):
        compare(measured, {}, ids)
    with pytest.raises(InputError, match="reference 'model 7' is not among them; choose from model 0, model 1"):
        compare(measured, predicted, ids, reference="model 7")
    with pytest.raises(InputError, match=r"method 'basic'.*be one of expanded, percentile, bca"):
        bootstrap_nrmse(measured, predicted, ids, method="basic")
    with pytest.raises(InputError, match="confidence 95"):
        bootstrap_nrmse(measured, predicted, ids, confidence=95)
    with pytest.raises(InputError, match="hold 1 different trials"):
        bootstrap_nrmse([m[:1] for m in measured[:1]], {"a": [measured[0][:1]]}, [ids[0][:1]])
    with pytest.raises(InputError, match="all responses of repeat 1 are 0"):
        bootstrap_nrmse([measured[0], 0 * measured[1], measured[2]], predicted, ids)
    with pytest.raises(InputError, match=r"groups give none for a test trial \(KeyError"):
        bootstrap_nrmse(measured, predicted, ids, groups={0: 1})
