import numpy as np
import pytest
from motorsweep.learn.scores import nrmse
from motorsweep.learn.stacking import clearly_better, held_out_stack, score, stack_weights, tempered_weights


def _predictors(n, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.gamma(2.0, size=(n, 2))
    noisy = np.stack([np.maximum(truth + sd * generator.normal(size=truth.shape), 0.01) for sd in (0.3, 0.3, 3.0)])
    return noisy, truth


def test_many_trials_give_the_weights_of_least_squares():
    parts, truth = _predictors(20_000)
    weights = stack_weights(parts, truth)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.0], atol=0.02)
    errors = [nrmse(truth, part) for part in parts]
    assert nrmse(truth, np.tensordot(weights, parts, 1)) < min(errors)


def test_few_trials_keep_near_the_prior():
    parts, truth = _predictors(8)
    prior = tempered_weights(parts, truth)
    assert np.abs(stack_weights(parts, truth) - prior).max() < 0.2
    assert prior[2] < prior[0]


def test_equal_predictors_weigh_the_same_and_one_alone_all():
    parts, truth = _predictors(50)
    np.testing.assert_allclose(stack_weights(np.stack([parts[0]] * 4), truth), np.full(4, 0.25), atol=1e-6)
    assert stack_weights(parts[:1], truth).tolist() == [1.0]


def test_weights_do_not_hang_on_the_unit():
    parts, truth = _predictors(60)
    np.testing.assert_allclose(stack_weights(parts * 1e-4, truth * 1e-4), stack_weights(parts, truth), atol=1e-6)


def test_held_out_stack_never_sees_its_own_trial():
    parts, truth = _predictors(25)
    before = held_out_stack(parts, truth, np.random.default_rng(1))
    fold = np.random.default_rng(1).permutation(25) % 5
    changed = truth.copy()
    changed[fold == 2] *= 100
    after = held_out_stack(parts, changed, np.random.default_rng(1))
    np.testing.assert_array_equal(after[fold == 2], before[fold == 2])
    assert not np.array_equal(after, before)


def test_clearly_better_needs_evidence():
    parts, truth = _predictors(400)
    assert clearly_better(parts[0], parts[2], truth)
    assert not clearly_better(parts[0], parts[1], truth)
    assert not clearly_better(parts[2], parts[0], truth)


def test_score_counts_muscles_alike():
    parts, truth = _predictors(50)
    assert score(truth, parts[0]) == pytest.approx(score(truth * [1, 1000], parts[0] * [1, 1000]))
    silent = np.zeros((50, 1))
    assert score(np.hstack([truth, silent]), np.hstack([parts[0], silent])) == pytest.approx(score(truth, parts[0]))
