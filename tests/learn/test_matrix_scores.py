import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from motorsweep.errors import InputError
from motorsweep.learn import matrix_comparison, matrix_scores
from motorsweep.learn.matrix_comparison import beats_mean, mean_interval, sign_test, unit_skills, verdict_of
from motorsweep.learn.matrix_scores import by_entry, pooled, skill, skill_by_entry, why_undefined
from scipy import stats
from sklearn import metrics

OFF = ~np.eye(6, dtype=bool)


@pytest.mark.parametrize("module", [matrix_scores, matrix_comparison])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.fixture(scope="module")
def matrices():
    generator = np.random.default_rng(0)
    measured = generator.gamma(2, 0.05, size=(30, 6, 6)) + generator.random((6, 6))
    measured[:, range(6), range(6)] = 0
    return measured, measured + 0.1 * generator.standard_normal(measured.shape)


@pytest.mark.parametrize("diagonal", [False, True])
def test_pooled_scores_are_those_of_scikit_learn_and_scipy(matrices, diagonal):
    measured, predicted = (part.reshape(30, -1)[:, diagonal | OFF.ravel()].ravel() for part in matrices)
    found = pooled(*matrices, diagonal=diagonal)
    assert found["r2"] == pytest.approx(metrics.r2_score(measured, predicted), abs=1e-12)
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(measured, predicted), rel=1e-12)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(measured, predicted), rel=1e-12)
    assert found["r"] == pytest.approx(stats.pearsonr(measured, predicted).statistic, rel=1e-12)


def test_scores_by_entry_are_those_of_scikit_learn_and_scipy(matrices):
    measured, predicted = matrices
    found = by_entry(measured, predicted)
    flat = measured.reshape(30, 36)[:, OFF.ravel()], predicted.reshape(30, 36)[:, OFF.ravel()]
    np.testing.assert_allclose(found["r2"][OFF], metrics.r2_score(*flat, multioutput="raw_values"), rtol=1e-9)
    np.testing.assert_allclose(found["r"][OFF], stats.pearsonr(*flat, axis=0).statistic, rtol=1e-9)
    np.testing.assert_allclose(found["mse"], ((measured - predicted) ** 2).mean(0))
    np.testing.assert_allclose(found["mae"], np.abs(measured - predicted).mean(0))
    assert np.isnan(found["r2"].diagonal()).all() and np.isnan(found["r"].diagonal()).all()
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(("r2", "mse", "mae", "r"), (6, 6))


def test_a_high_pooled_r2_can_be_no_prediction_at_all():
    """The trap that the skill is for: entries differ, records hardly do."""
    generator = np.random.default_rng(1)
    measured = 10 * generator.random((6, 6)) + generator.standard_normal((200, 6, 6))
    mean = measured[:100].mean(0)
    said = np.broadcast_to(mean, (100, 6, 6))
    assert pooled(measured[100:], said)["r2"] > 0.85 and pooled(measured[100:], said)["r"] > 0.9
    assert skill(measured[100:], said, mean) == 0.0
    assert np.nanmax(by_entry(measured[100:], said)["r2"]) <= 0


@given(arrays(float, (5, 3, 3), elements=st.floats(-10, 10)), arrays(float, (3, 3), elements=st.floats(-10, 10)))
def test_skill_is_one_minus_the_ratio_of_mean_squared_errors(measured, baseline):
    predicted = measured + 1
    off = ~np.eye(3, dtype=bool)
    against = ((measured - baseline)[:, off] ** 2).mean()
    value = skill(measured, predicted, baseline)
    if against == 0:
        assert np.isnan(value)
    else:
        assert value == pytest.approx(1 - ((measured - predicted)[:, off] ** 2).mean() / against, rel=1e-9)
        assert skill(measured, measured, baseline) == 1
    each = skill_by_entry(measured, predicted, baseline)
    assert np.array_equal(np.isnan(each), ((measured - baseline) ** 2).sum(0) == 0)


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_scores_do_not_depend_on_the_order_of_records_or_the_unit(seed, unit):
    generator = np.random.default_rng(seed)
    measured, predicted = generator.random((2, 8, 4, 4))
    order = generator.permutation(8)
    one, other = pooled(measured, predicted), pooled(unit * measured[order], unit * predicted[order])
    assert other["r2"] == pytest.approx(one["r2"], abs=1e-9) and other["r"] == pytest.approx(one["r"], abs=1e-9)
    assert other["mse"] == pytest.approx(unit**2 * one["mse"]) and other["mae"] == pytest.approx(unit * one["mae"])


def test_the_diagonal_counts_only_where_asked(matrices):
    measured, predicted = (part.copy() for part in matrices)
    before = pooled(measured, predicted)
    predicted[:, range(6), range(6)] = 5
    assert pooled(measured, predicted) == before
    assert pooled(measured, predicted, diagonal=True)["mse"] > before["mse"] + 4 - 1e-9


def test_undefined_scores_are_nan_and_have_a_reason():
    constant, varied = np.ones((3, 2, 2)), np.arange(12.0).reshape(3, 2, 2)
    assert np.isnan(pooled(constant, varied)["r2"]) and np.isnan(pooled(varied, constant)["r"])
    assert why_undefined(constant, varied) == dict.fromkeys(("r2", "r"), "the measured entries are all equal")
    assert why_undefined(varied, varied) == {}
    nobody = pooled(np.zeros((0, 6, 6)), np.zeros((0, 6, 6)))
    assert all(np.isnan(value) for value in nobody.values())
    assert set(why_undefined(np.zeros((0, 6, 6)), np.zeros((0, 6, 6)))) == set(nobody)
    each = by_entry(np.zeros((0, 6, 6)), np.zeros((0, 6, 6)))
    assert all(value.shape == (6, 6) and np.isnan(value).all() for value in each.values())
    alone = np.ones((3, 1, 1))
    assert why_undefined(alone, alone)["mse"] == "there are no entries" and np.isnan(pooled(alone, alone)["mse"])


def test_a_tiny_unit_does_not_underflow():
    measured = 1e-170 * np.random.default_rng(0).random((4, 3, 3))
    assert pooled(measured, measured)["r"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("measured", "predicted", "message"),
    [
        (np.zeros((3, 6, 6)), np.zeros((3, 36)), r"shape \(3, 6, 6\), predicted ones \(3, 36\)"),
        (np.zeros((3, 6, 5)), np.zeros((3, 6, 5)), "muscles, muscles"),
        (np.zeros((2, 2, 2)), np.full((2, 2, 2), np.nan), "2 of 2 predicted ones, first that of row 0"),
        (np.full((2, 2, 2), np.inf), np.zeros((2, 2, 2)), "measured ones"),
    ],
)
def test_bad_matrices(measured, predicted, message):
    for score in (pooled, by_entry, why_undefined):
        with pytest.raises(InputError, match=message):
            score(measured, predicted)
    with pytest.raises(InputError, match=message):
        skill(measured, predicted, np.zeros(measured.shape[1:]))


def study(gains, records=6, seed=0):
    """Records of subjects, predictions that take part of the way to the truth, and the mean matrix."""
    generator = np.random.default_rng(seed)
    measured = generator.standard_normal((len(gains) * records, 4, 4))
    gain = np.repeat(gains, records)[:, None, None]
    return measured, gain * measured, np.zeros_like(measured), np.repeat([f"s{i}" for i in range(len(gains))], records)


def test_skills_of_subjects_in_closed_form():
    names, skills = unit_skills(*study([0.5, 1.0, -1.0]))
    assert names == ("s0", "s1", "s2")
    np.testing.assert_allclose(skills, [0.75, 1.0, -3.0])


def test_a_model_that_beats_the_mean_matrix():
    found = beats_mean(*study([0.1, 0.2, 0.15, 0.3, 0.25, 0.2, 0.1, 0.3]), model="ridge")
    assert found.verdict == "beats" and found.wins == 8 and found.p == pytest.approx(2.0**-8)
    assert found.interval[0] < found.mean_skill < found.interval[1] and found.interval[0] > 0
    assert "Over 8 unseen subjects, ridge makes" in found.words and "less squared error" in found.words
    assert found.words.endswith("It beats the mean matrix on unseen subjects.")


def test_models_that_do_not():
    worse = beats_mean(*study([-0.2] * 4 + [-0.3] * 4))
    assert worse.verdict == "loses" and worse.p == 1 and "more squared error" in worse.words
    assert "does not beat the mean matrix on unseen subjects: it is worse" in worse.words
    unclear = beats_mean(*study([0.3, -0.3, 0.25, -0.25, 0.2, -0.2]))
    assert unclear.verdict == "unclear" and unclear.interval[0] < 0 < unclear.interval[1]
    assert "no proof that it beats" in unclear.words
    # A control that is shrunk to the mean matrix differs from it by nothing that counts, if in every subject.
    tiny = beats_mean(*study(1 - np.sqrt(1 - np.linspace(1e-6, 5e-6, 8))))
    assert 0 < tiny.interval[0] < 1e-5 and tiny.wins == 8 and tiny.verdict == "unclear"
    same = beats_mean(*study([0.0] * 6))
    assert same.verdict == "unclear" and same.p == 1 and same.mean_skill == 0


def test_few_subjects_prove_nothing():
    four = beats_mean(*study([0.5] * 4))
    assert four.verdict == "too few" and four.p > 0.05 and "4 unseen subjects are too few" in four.words
    one = beats_mean(*study([0.5]))
    assert one.verdict == "too few" and np.isnan(one.interval).all() and "1 unseen subject are" not in one.words


def test_sign_test_is_scipys():
    found = beats_mean(*study([0.2, 0.2, 0.3, 0.1, 0.2, 0.1, -0.1, 0.2, 0.3]))
    wanted = stats.binomtest(8, 9, 0.5, alternative="greater").pvalue
    assert (found.wins, found.p) == (8, pytest.approx(wanted))


def verdicts(skills):
    interval = mean_interval(skills, resamples=2000)
    return verdict_of(skills.shape[1], skills.mean(axis=1), interval, *sign_test(skills))


def test_neither_the_interval_nor_the_sign_test_is_proof_alone():
    found = beats_mean(*study([0.2, 0.1, 0.3, 0.25, 0.15, -0.0005]))
    assert found.interval[0] > 0.02 and (found.wins, found.p) == (5, pytest.approx(7 / 64)), "five wins of six"
    assert found.verdict == "unclear" and "no proof that it beats" in found.words
    assert verdicts(-found.skill[None]) == "unclear", "the same the other way round"
    ruined = beats_mean(*study([0.2] * 3 + [0.25] * 3 + [0.3] * 3 + [-0.5]))
    assert ruined.p < 0.02 and ruined.mean_skill > 0.2 and ruined.interval[0] < 0 and ruined.verdict == "unclear"


# Of 4000 studies each; behind the line, in per cent, what percentiles of the bootstrapped mean said.
NOTHING_KNOWN = {
    "mean 0, even": (lambda generator, shape: generator.normal(0, 0.2, shape), (0.035, 0.025, 0.02)),
    "mean 0, skewed": (lambda generator, shape: 1 - generator.exponential(1, shape), (0.08, 0.065, 0.04)),  # 13, 11, 8
    "median 0, skewed": (
        lambda generator, shape: 1 - generator.exponential(1 / np.log(2), shape), (0.035, 0.025, 0.015),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING_KNOWN)
def test_a_model_that_knows_nothing_seldom_beats_the_mean_matrix(name):
    draw, most = NOTHING_KNOWN[name]
    shares = [(verdicts(draw(np.random.default_rng(units), (4000, units))) == "beats").mean() for units in (5, 6, 10)]
    assert all(share <= limit for share, limit in zip(shares, most)), shares


def test_a_model_that_knows_something_beats_it():
    draws = {units: np.random.default_rng(units).normal(0.4, 0.2, (2000, units)) for units in (5, 6, 10)}
    shares = [(verdicts(draw) == "beats").mean() for draw in draws.values()]
    assert all(share > least for share, least in zip(shares, (0.7, 0.79, 0.95))), shares
    assert not (verdicts(-draws[10]) == "beats").any() and (verdicts(-draws[10]) == "loses").mean() > 0.95


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_covers_about_as_often_as_it_says(skewed):
    """Skills of 8 subjects drawn about 0.1: 2000 studies; Student's interval would cover 90 % of the skewed ones."""
    drawn = np.random.default_rng(0)
    skills = 1.1 - drawn.exponential(1, (2000, 8)) if skewed else drawn.normal(0.1, 0.2, (2000, 8))
    low, high = mean_interval(skills, resamples=2000).T
    assert 0.92 < ((low <= 0.1) & (high >= 0.1)).mean() < 0.97


def test_the_interval_follows_the_skills_scale_and_skew():
    skills = np.array([0.1, 0.5, 0.6, 0.6, 0.7, 0.7])
    low, high = mean_interval(skills)
    np.testing.assert_allclose(mean_interval(-1 + 0.5 * skills), [-1 + 0.5 * low, -1 + 0.5 * high], rtol=1e-9)
    np.testing.assert_allclose(mean_interval(-skills), [-high, -low], atol=0.03)
    assert skills.mean() - low > 2 * (high - skills.mean()), "one bad subject may stand for more of them"
    np.testing.assert_allclose(mean_interval(np.full(6, 0.3)), 0.3)
    assert mean_interval(np.array([0.8, 0.9, 0.99, 0.7, 0.2]))[1] <= 1
    ties, (low, high) = np.array([0.5, 0.5, 0.5, 0.5, 0.1]), mean_interval(np.array([0.5, 0.5, 0.5, 0.5, 0.1]))
    assert ties.mean() - 5 * ties.std() < low < 0.1 and high < 0.6
    assert np.isnan(mean_interval(np.array([0.5, 0.6, 0.7, 0.8]))).all(), "four values do not tell their spread"


def test_bad_comparisons():
    measured, predicted, baseline, units = study([0.5] * 5)
    with pytest.raises(InputError, match=r"each record needs its subject"):
        beats_mean(measured, predicted, baseline, units[:-1])
    with pytest.raises(InputError, match="confidence 95"):
        beats_mean(measured, predicted, baseline, units, confidence=95)
    with pytest.raises(InputError, match="it makes no error in s0"):
        beats_mean(measured, predicted, measured, units)
    with pytest.raises(InputError, match="there are no records"):
        beats_mean(measured[:0], predicted[:0], baseline[:0], units[:0])
