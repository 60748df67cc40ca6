import numpy as np
import pytest
from motorsweep.hpc.complete_results import complete_results
from motorsweep.learn.comparison import bootstrap_nrmse
from motorsweep.learn.scores import nrmse
from motorsweep.zarr_store.mocks import mock_results
from motorsweep.zarr_store.schema import Status

FILLED = [name for name in mock_results().data_vars if "_mean" in name or "above_best" in name or "share" in name]
FILLED += ["nrmse_interval", "nrmse_sd", "baseline_nrmse_interval", "baseline_nrmse_sd", "synergy_similarity"]


@pytest.fixture
def results():
    """Forty trials, of which each of two repeats tests twelve; what is filled in later is missing."""
    results = mock_results(n_test=12, repeats=(0, 1), n_synergies=2)
    for name in FILLED:
        results[name].values[...] = np.nan
    generator = np.random.default_rng(0)
    for repeat in (0, 1):
        results["test_trial"].values[repeat] = np.sort(generator.permutation(40)[:12])
    return results


def test_means_and_intervals_are_those_of_the_predictions(results):
    done = complete_results(results, np.arange(40))
    cell = {"input": "e_norm", "depth": 6, "connection": "both"}
    measured, predicted = done.measured.values, done.prediction.sel(cell).values
    scores = [nrmse(m, p) for m, p in zip(measured, predicted)]
    assert done.nrmse_mean.sel(cell).item() == pytest.approx(np.mean(scores), rel=1e-12)
    assert done.nrmse_sd.sel(cell).item() == pytest.approx(np.std(scores, ddof=1), rel=1e-9)
    alone = bootstrap_nrmse(list(measured), {"it": list(predicted)}, list(done.test_trial.values), np.arange(40))
    np.testing.assert_allclose(done.nrmse_interval.sel(cell), alone.interval[0], rtol=1e-9)
    assert all(np.isfinite(done[name].values).all() for name in FILLED if "baseline" not in name)


def test_the_best_model_is_above_itself_by_nothing_and_the_bound_is_no_model(results):
    results.baseline_prediction.loc[{"baseline": "best_possible"}] = results.measured
    done = complete_results(results, np.arange(40))
    above = np.concatenate([done.nrmse_above_best.values.ravel(), done.baseline_above_best.values.ravel()])
    assert np.nanmin(above) == 0 and (above == 0).sum() == 1
    bound = done.sel(baseline="best_possible")
    assert (bound.baseline_nrmse_mean == 0).all() and np.isnan(bound.baseline_above_best).all()
    shares = done.best_share.sum().item() + np.nansum(done.baseline_best_share)
    assert shares == pytest.approx(1)
    low, high = done.nrmse_above_best_interval.sel(bound="low"), done.nrmse_above_best_interval.sel(bound="high")
    assert ((low <= done.nrmse_above_best) & (done.nrmse_above_best <= high)).all()


def test_a_model_that_failed_in_one_repeat_is_left_out_and_the_rest_compared(results):
    results.status.loc[{"input": "e_norm", "depth": 3, "connection": "direct", "repeat": 1}] = Status.FAILED
    results.baseline_prediction.loc[{"baseline": "pls"}] = np.nan
    done = complete_results(results, np.arange(40))
    assert np.isnan(done.nrmse_mean.sel(input="e_norm", depth=3, connection="direct"))
    assert np.isfinite(done.nrmse_mean).sum() == done.nrmse_mean.size - 1
    assert np.isnan(done.baseline_nrmse_mean.sel(baseline="pls")).all()


def test_trials_of_one_pose_are_drawn_together(results):
    apart, together = (
        complete_results(results.copy(deep=True), poses) for poses in (np.arange(40), np.arange(40) // 4)
    )
    assert not np.allclose(apart.nrmse_interval, together.nrmse_interval)
    np.testing.assert_allclose(apart.nrmse_mean, together.nrmse_mean, rtol=1e-12)


def test_without_trials_or_with_one_pose_nothing_is_filled_in(results):
    pending = mock_results(n_test=0)
    before = pending.nrmse_mean.values.copy()
    np.testing.assert_array_equal(complete_results(pending, np.arange(40)).nrmse_mean, before)
    assert np.isnan(complete_results(results.copy(deep=True), np.zeros(40, int)).nrmse_mean).all()
    results.measured.values[1] = 0  # nobody responded
    assert np.isnan(complete_results(results, np.arange(40)).nrmse_mean).all()


def test_synergies_stand_in_the_order_of_the_first_repeat(results):
    first = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    results.synergy_basis.values[0], results.synergy_basis.values[1] = first, first[:, ::-1] * [3.0, 0.5]
    done = complete_results(results, np.arange(40))
    np.testing.assert_allclose(done.synergy_basis.values[1], first * [0.5, 3.0])
    np.testing.assert_allclose(done.synergy_similarity, 1)


def test_repeats_with_other_numbers_of_synergies_keep_all_of_them():
    results = mock_results(n_test=12, n_synergies=3)
    basis = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    results.synergy_basis.values[0] = np.where([True, True, False], basis, np.nan)
    results.synergy_basis.values[1] = basis[:, [2, 1, 0]]
    done = complete_results(results, np.arange(40))
    np.testing.assert_allclose(done.synergy_basis.values[1], basis)
    np.testing.assert_allclose(done.synergy_similarity.values[:, :2], 1)
