import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn.synergy import (
    Synergies,
    VafCurve,
    choose_rank,
    fit_nmf,
    match_synergies,
    vaf_curve,
    variance_accounted_for,
)
from sklearn.decomposition import NMF
from threadpoolctl import threadpool_limits


def planted(seed=0, k=8, r=3, n=120):
    generator = np.random.default_rng(seed)
    basis = np.zeros((k, r))
    basis[:3, 0], basis[3:6, 1], basis[6:, 2] = 1.0, [0.5, 1, 0.2], [1, 0.3]
    return basis, generator.gamma(0.5, 1.0, (r, n)) * [[3.0], [2.0], [1.0]]


def overlapping(k=15, r=5, n=300, seed=3):
    """Responses of muscles that take part in several synergies, with noise: several local optima."""
    generator = np.random.default_rng(seed)
    m = generator.gamma(0.5, 1.0, (k, r)) @ generator.gamma(0.4, 1.0, (r, n))
    return m * np.exp(0.4 * generator.standard_normal(m.shape))


def test_finds_planted_synergies_up_to_permutation_and_scale():
    basis, activations = planted()
    found = fit_nmf(basis @ activations, 3, seed=1)
    assert found.vaf > 0.9999
    cosines = (found.basis / np.linalg.norm(found.basis, axis=0)).T @ (basis / np.linalg.norm(basis, axis=0))
    np.testing.assert_allclose(cosines, np.eye(3), atol=0.03)  # in the order of their contribution
    order, cosine = match_synergies(found.basis, basis[:, [2, 0, 1]] * [3.0, 0.1, 7.0])
    assert order.tolist() == [2, 0, 1] and cosine.min() > 0.999
    assert found.agreement > 0.999 and found.spread < 1e-4  # disjoint synergies: one answer, wherever it starts


def test_activations_fill_the_unit_interval():
    basis, activations = planted()
    found = fit_nmf(basis @ activations, 3, seed=1)
    assert found.activations.min() >= 0
    np.testing.assert_allclose(found.activations.max(axis=1), 1.0, rtol=1e-14)
    assert found.basis.min() >= 0


def test_vaf_is_that_of_the_factors():
    m = np.random.default_rng(2).random((6, 40))
    found = fit_nmf(m, 2, seed=1)
    residual = m - found.basis @ found.activations
    assert found.vaf == pytest.approx(1 - (residual**2).sum() / (m**2).sum(), rel=1e-12)
    assert fit_nmf(m, 4, seed=1).vaf > found.vaf
    by_muscle = variance_accounted_for(m, found.basis @ found.activations, axis=1)
    weights = (m**2).sum(axis=1) / (m**2).sum()
    assert weights @ by_muscle == pytest.approx(found.vaf, rel=1e-12)


def test_one_start_is_scikit_learns_and_several_are_never_worse():
    m = overlapping(n=630)
    m /= m.max(axis=1, keepdims=True)
    model = NMF(9, init="nndsvda", random_state=0, max_iter=5000, tol=1e-6)
    modelled = model.fit_transform(m) @ model.components_
    one, several = fit_nmf(m, 9, seed=0, starts=1), fit_nmf(m, 9, seed=0, starts=4)
    assert one.vaf == pytest.approx(float(variance_accounted_for(m, modelled)), abs=1e-9)
    assert (one.spread, one.agreement) == (0.0, 1.0)
    assert several.vaf_starts[0] == one.vaf and len(several.vaf_starts) == 4
    assert several.vaf >= several.vaf_starts.max() - 1e-9
    assert several.spread == several.vaf_starts.max() - several.vaf_starts.min() > 0
    assert 0 <= several.agreement < 0.99  # more synergies than there are: the starts do not agree, and that is told


def test_same_seed_same_bits_with_any_number_of_threads():
    m = overlapping(n=630)
    first = fit_nmf(m, 7, seed=5, starts=2)
    for threads in (1, 2):
        with threadpool_limits(threads):
            again = fit_nmf(m, 7, seed=5, starts=2)
        assert again.basis.tobytes() == first.basis.tobytes()
        assert again.activations.tobytes() == first.activations.tobytes()
    assert fit_nmf(m, 7, seed=6, starts=2).vaf_starts[1] != first.vaf_starts[1]


def test_muscles_that_never_respond_are_no_trouble():
    m = np.zeros((4, 10))
    m[0] = np.arange(10)
    found = fit_nmf(m, 2, seed=0)
    assert np.isfinite(found.basis).all() and np.isfinite(found.activations).all()
    np.testing.assert_allclose(found.basis[1:], 0, atol=1e-6)
    silent = fit_nmf(np.zeros((4, 10)), 2, seed=0)
    assert silent.vaf == 1.0 and silent.basis.shape == (4, 2) and not silent.activations.any()
    curve = vaf_curve(m, None, seed=0)
    assert np.isfinite(curve.vaf_muscle).all() and choose_rank(curve) == 1
    np.testing.assert_array_equal(curve.vaf_muscle[0, 1:], 1.0)


def test_one_muscle_and_constant_responses_have_one_synergy():
    m = np.random.default_rng(0).gamma(0.3, 1.0, (1, 50))
    found = fit_nmf(m, 1, seed=0)
    np.testing.assert_allclose(found.basis @ found.activations, m, atol=1e-6)
    assert choose_rank(vaf_curve(m, 9, seed=0)) == 1 and len(vaf_curve(m, 9, seed=0).rank) == 1
    constant = fit_nmf(np.full((3, 20), 0.5), 2, seed=0)
    assert constant.vaf == pytest.approx(1.0, abs=1e-6) and np.isfinite(constant.basis).all()
    assert choose_rank(vaf_curve(np.full((3, 20), 0.5), 3, seed=0)) == 1


def test_refuses_what_has_no_factors():
    with pytest.raises(InputError, match="negative or non-finite"):
        fit_nmf(np.full((3, 4), -1.0), 2, seed=0)
    with pytest.raises(InputError, match="negative or non-finite"):
        vaf_curve(np.array([[1.0, np.nan]]), 1, seed=0)
    with pytest.raises(InputError, match=r"5 synergies were asked of responses of shape \(3, 4\)"):
        fit_nmf(np.ones((3, 4)), 5, seed=0)
    with pytest.raises(InputError, match=r"shape \(3, 0\); they must be a table of muscles by trials"):
        fit_nmf(np.ones((3, 0)), 1, seed=0)
    with pytest.raises(InputError, match="0 starts were asked for"):
        fit_nmf(np.ones((3, 4)), 1, seed=0, starts=0)
    with pytest.raises(InputError, match="up to rank 0 against 2 shuffles"):
        vaf_curve(np.ones((3, 4)), 0, seed=0)
    assert np.isnan(vaf_curve(np.ones((3, 4)), 2, seed=0, shuffles=0).chance).all()


def test_vaf_never_falls_with_the_rank_and_is_above_chance_where_muscles_share_synergies():
    m = overlapping()
    curve = vaf_curve(m, 99, seed=1, starts=1, shuffles=1)
    assert curve.rank.tolist() == list(range(1, 16))
    assert curve.vaf_muscle.shape == (15, 15) and curve.chance.shape == (15,)
    assert (np.diff(curve.vaf) >= 0).all() and curve.vaf[-1] > 0.999
    assert (curve.vaf[1:8] > curve.chance[1:8]).all()
    again = vaf_curve(m, 4, seed=1, starts=1, shuffles=1)
    np.testing.assert_array_equal(again.vaf, curve.vaf[:4])
    assert again.vaf[2] == pytest.approx(fit_nmf(m, 3, seed=1, starts=1).vaf, abs=1e-4)


def test_planted_rank_is_chosen_by_every_criterion():
    basis, activations = planted()
    alike = activations / np.linalg.norm(activations, axis=1, keepdims=True) / np.linalg.norm(basis, axis=0)[:, None]
    curve = vaf_curve(basis @ alike, None, seed=0)
    assert curve.vaf[1] < 0.8 and curve.vaf[2] > 0.999
    assert choose_rank(curve, 0.999) == 3
    assert choose_rank(curve, 0.5) == 1
    assert choose_rank(curve, 0.5, muscle_threshold=0.99) == 3
    assert choose_rank(curve, criterion="knee") == 3


def a_curve(vaf):
    vaf = np.array(vaf)
    return VafCurve(rank=np.arange(1, len(vaf) + 1), vaf=vaf, vaf_muscle=vaf[:, None], chance=vaf / 2)


def test_knee_is_where_the_straight_line_begins(caplog):
    assert choose_rank(a_curve([0.5, 0.7, 0.85, 0.88, 0.91, 0.94, 0.97]), criterion="knee") == 3
    assert choose_rank(a_curve([0.4, 0.7, 0.9]), criterion="knee") == 2
    assert choose_rank(a_curve([0.9]), criterion="knee") == 1
    with caplog.at_level(logging.WARNING):
        assert choose_rank(a_curve([0.4, 0.6, 0.8]), 0.95) == 3
    assert "no rank up to 3 reaches 0.95" in caplog.text
    with pytest.raises(InputError, match=r"criterion 'elbow' .* must be 'threshold'"):
        choose_rank(a_curve([0.4]), criterion="elbow")
    with pytest.raises(InputError, match="thresholds 90 and 0"):
        choose_rank(a_curve([0.4]), 90)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 6))
def test_matching_undoes_a_permutation_whatever_the_scale(seed, k, r):
    generator = np.random.default_rng(seed)
    reference = generator.random((k, r)) + 1e-3
    shuffle, scale = generator.permutation(r), 10 ** generator.uniform(-200, 200, r)
    order, cosine = match_synergies((reference * scale)[:, shuffle], reference)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-12)
    if k > 2 or r == 1:  # in a plane two random columns may be parallel
        assert shuffle[order].tolist() == list(range(r))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_matching_is_the_best_assignment_and_tells_what_has_no_pair(seed, r, q):
    generator = np.random.default_rng(seed)
    basis, reference = generator.random((5, r)), generator.random((5, q))
    order, cosine = match_synergies(basis, reference)
    paired = order >= 0
    assert paired.sum() == min(r, q) == len(set(order[paired].tolist())) and np.isnan(cosine[~paired]).all()
    for column in np.flatnonzero(paired):
        a, b = basis[:, order[column]], reference[:, column]
        assert cosine[column] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)
    back, same = match_synergies(reference, basis)
    assert np.nansum(same) == pytest.approx(np.nansum(cosine), abs=1e-12)
    np.testing.assert_array_equal(order[back[back >= 0]], np.flatnonzero(back >= 0))


def test_columns_of_zeros_match_nothing_and_other_muscles_are_refused():
    order, cosine = match_synergies(np.array([[0.0, 0.0], [0.0, 1.0]]), np.eye(2))
    assert order.tolist() == [0, 1] and cosine.tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match=r"shapes \(2, 2\) and \(3, 3\) .* not of the same muscles"):
        match_synergies(np.eye(2), np.eye(3))
    with pytest.raises(InputError, match="not finite"):
        match_synergies(np.full((2, 2), np.nan), np.eye(2))


def test_a_result_without_starts_is_one_of_one_start():
    assert Synergies(basis=np.eye(1), activations=np.eye(1), vaf=1.0).spread == 0.0
