import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.learn.synergy import fit_nmf


def planted(seed=0, k=8, r=3, n=120):
    generator = np.random.default_rng(seed)
    basis = np.zeros((k, r))
    basis[:3, 0], basis[3:6, 1], basis[6:, 2] = 1.0, [0.5, 1, 0.2], [1, 0.3]
    return basis, generator.gamma(0.5, 1.0, (r, n)) * [[3.0], [2.0], [1.0]]


def test_finds_planted_synergies_up_to_scale():
    basis, activations = planted()
    found = fit_nmf(basis @ activations, 3, seed=1)
    assert found.vaf > 0.9999
    cosines = (found.basis / np.linalg.norm(found.basis, axis=0)).T @ (basis / np.linalg.norm(basis, axis=0))
    np.testing.assert_allclose(cosines, np.eye(3), atol=0.03)  # in the order of their contribution


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


def test_same_seed_same_bits():
    m = np.random.default_rng(2).random((6, 40))
    first, second = fit_nmf(m, 3, seed=5), fit_nmf(m, 3, seed=5)
    assert first.basis.tobytes() == second.basis.tobytes()
    assert first.activations.tobytes() == second.activations.tobytes()


def test_muscles_that_never_respond_are_no_trouble():
    m = np.zeros((4, 10))
    m[0] = np.arange(10)
    found = fit_nmf(m, 2, seed=0)
    assert np.isfinite(found.basis).all() and np.isfinite(found.activations).all()
    np.testing.assert_allclose(found.basis[1:], 0, atol=1e-6)
    assert fit_nmf(np.zeros((4, 10)), 2, seed=0).vaf == 1.0


def test_refuses_what_has_no_factors():
    with pytest.raises(InputError, match="negative or non-finite"):
        fit_nmf(np.full((3, 4), -1.0), 2, seed=0)
    with pytest.raises(InputError, match=r"5 synergies were asked of responses of shape \(3, 4\)"):
        fit_nmf(np.ones((3, 4)), 5, seed=0)
