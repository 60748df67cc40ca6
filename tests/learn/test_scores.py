import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.learn import scores
from sklearn.metrics import r2_score

TRIALS, MUSCLES = 629, 15
# p from the layers; BIC and AICc as printed in table 2 of the paper, in the order of its columns
TABLE_2 = [
    (140_175, 1.221, -7.266),
    (139_977, 1.219, -7.320),
    (280_152, 2.501, -7.269),
    (285_663, 2.552, -7.257),
    (285_465, 2.550, -7.239),
    (571_128, 5.164, -7.220),
]


def test_reproduces_table_2_of_the_paper():
    """The printed AICc implies a residual variance; with it, BIC must come out as printed.

    That holds for 11 of the 12 numbers; the last model's BIC is 5.165 for the printed 5.164.
    """
    agree = []
    for p, printed_bic, printed_aicc in TABLE_2:
        n = TRIALS * MUSCLES
        sigma = math.exp((printed_aicc * 1e4 - n * (p + n) / (n - p - 2)) / n / 2)
        assert 0.035 < sigma < 0.039
        residual = np.full((TRIALS, MUSCLES), sigma)
        agree.append(round(scores.aicc(residual, p) / 1e4, 3) == printed_aicc)
        agree.append(round(scores.bic(residual, p) / 1e6, 3) == printed_bic)
        assert not scores.criteria_valid(p, n)
    assert agree == [True] * 11 + [False]
    assert round(scores.bic(residual, p) / 1e6, 3) == 5.165


@given(st.floats(0.01, 100), st.integers(1, 5), st.integers(2, 20), st.integers(0, 10))
def test_criteria_of_constant_residuals_in_closed_form(sigma, k, n, p):
    residual = np.full((n, k), sigma)
    nk = n * k
    assert scores.bic(residual, p) == pytest.approx(2 * nk * math.log(sigma) + p * math.log(nk), rel=1e-9, abs=1e-9)
    if p != nk - 2:
        expected = 2 * nk * math.log(sigma) + nk * (p + nk) / (nk - p - 2)
        assert scores.aicc(residual, p) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_aicc_at_its_pole_and_beyond():
    residual = np.ones((4, 5))
    assert math.isnan(scores.aicc(residual, 18))
    assert [scores.criteria_valid(p, 20) for p in (17, 18, 19)] == [True, False, False]
    assert scores.aicc(residual, 17) > 0 > scores.aicc(residual, 19)


def test_perfect_prediction_has_minus_infinite_criteria():
    assert scores.bic(np.zeros((3, 2)), 1) == scores.aicc(np.zeros((3, 2)), 1) == -math.inf


def test_nrmse_of_constants_and_of_zero():
    measured = np.random.default_rng(0).random((7, 3))
    assert scores.nrmse(measured, measured) == 0
    assert scores.nrmse(measured, 0 * measured) == pytest.approx(1.0)
    assert scores.nrmse(measured, 0.5 * measured) == pytest.approx(0.5)
    assert math.isnan(scores.nrmse(np.zeros((2, 2)), np.ones((2, 2))))


@given(st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_nrmse_has_no_unit_and_knows_no_order(factor, random):
    generator = np.random.default_rng(random.randint(0, 99))
    measured, predicted = generator.random((2, 6, 3)) + 0.1
    order = generator.permutation(6)
    score = scores.nrmse(measured, predicted)
    assert scores.nrmse(factor * measured, factor * predicted) == pytest.approx(score)
    assert scores.nrmse(measured[order], predicted[order]) == pytest.approx(score)


def test_r2_is_scikit_learn_s_for_one_muscle_and_pooled_for_more():
    measured, predicted = np.random.default_rng(1).random((2, 9, 4))
    for m, p in zip(measured.T, predicted.T, strict=True):
        assert scores.r2(m[:, None], p[:, None]) == pytest.approx(r2_score(m, p))
    pooled = r2_score(measured, predicted, multioutput="variance_weighted")
    assert scores.r2(measured, predicted) == pytest.approx(pooled)
    assert math.isnan(scores.r2(np.ones((3, 2)), np.zeros((3, 2))))
