from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.learn import scores
from motorsweep.learn.cells import Cell, fit_cell
from motorsweep.learn.training import MapperTraining

CONFIG = MapperTraining(epochs=3, batch=16, synergies=3)
TRIALS, MUSCLES = 40, 5
TRAIN, EVALUATE = np.arange(0, 32), np.arange(32, 40)


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    codes = generator.standard_normal((TRIALS, 8, 8, 8)).astype(np.float32)
    drive = np.exp(codes.reshape(TRIALS, -1)[:, :3])
    responses = 1e-3 * drive @ generator.random((3, MUSCLES)) + 1e-5
    responses[:, 4] = 2e-5  # never responds
    return codes, responses


def cell(connection, depth=3):
    return Cell(depth=depth, connection=connection, dropout=0.1, l1=1e-5)


@pytest.fixture(scope="module")
def fitted(data):
    synergy = fit_cell(*data, TRAIN, EVALUATE, cell("synergy"), CONFIG, seed=1)
    return {
        "direct": fit_cell(*data, TRAIN, EVALUATE, cell("direct"), CONFIG, seed=1),
        "synergy": synergy,
        "both": fit_cell(*data, TRAIN, EVALUATE, cell("both"), CONFIG, seed=1, synergy=synergy.arrays),
    }


@pytest.mark.parametrize("connection", ["direct", "synergy", "both"])
def test_scores_are_those_of_the_arrays(fitted, data, connection):
    result = fitted[connection]
    a = result.arrays
    low, span = data[1][TRAIN].min(0), np.ptp(data[1][TRAIN], axis=0)
    np.testing.assert_array_equal(a["response_minimum"], low)
    np.testing.assert_allclose(a["response_range"], np.where(span > 0, span, 1.0))
    measured = (data[1] - low) / a["response_range"]
    np.testing.assert_allclose(a["measured"], measured[EVALUATE])
    np.testing.assert_array_equal(a["prediction"], a["prediction_all"][EVALUATE])
    np.testing.assert_array_equal(a["evaluate"], EVALUATE)
    s = result.scores
    assert s["nrmse"] == scores.nrmse(measured[EVALUATE], a["prediction"])
    assert s["nrmse_train"] == scores.nrmse(measured[TRAIN], a["prediction_all"][TRAIN])
    residual = measured[TRAIN] - a["prediction_all"][TRAIN]
    assert s["residual_variance"] == pytest.approx((residual**2).mean())
    assert s["bic"] == scores.bic(residual, s["n_parameters"])
    assert s["aicc"] == scores.aicc(residual, s["n_parameters"])
    assert s["criteria_valid"] is False
    assert len(result.loss) == 3
    assert np.isnan(a["nrmse_muscle"][4])  # a muscle that never responds has no NRMSE, and spoils no other
    assert np.isfinite(a["nrmse_muscle"][:4]).all()
    assert ("synergy_basis" in a) == (connection != "direct")


def test_both_adds_the_residual_mapper_and_its_parameters(fitted):
    n = {name: result.scores["n_parameters"] for name, result in fitted.items()}
    residual = n["direct"]  # the residual mapper has the layers of a direct one
    assert n["both"] == n["synergy"] + residual
    difference = fitted["both"].arrays["prediction_all"] - fitted["synergy"].arrays["prediction_all"]
    assert 0 < np.abs(difference).max() <= 1  # within the tanh


def test_synergy_predictions_lie_in_the_cone_of_the_basis(fitted):
    a = fitted["synergy"].arrays
    activations, *_ = np.linalg.lstsq(a["synergy_basis"], a["prediction_all"].T, rcond=None)
    np.testing.assert_allclose(a["synergy_basis"] @ activations, a["prediction_all"].T, atol=1e-5)
    assert activations.min() > -1e-3 and activations.max() < 1 + 1e-3


@pytest.mark.parametrize("connection", ["direct", "synergy", "both"])
def test_evaluation_trials_leave_no_trace_in_what_is_fitted(fitted, data, connection):
    """Garbage in the evaluation trials must change no weight, scale or synergy: training predictions are bit-equal."""
    codes, responses = data[0].copy(), data[1].copy()
    generator = np.random.default_rng(9)
    codes[EVALUATE] = 1e6 * generator.standard_normal(codes[EVALUATE].shape)
    responses[EVALUATE] = 1e3 * generator.random(responses[EVALUATE].shape)
    synergy = fitted["synergy"].arrays
    if connection == "both":
        synergy = {**synergy, "prediction_all": synergy["prediction_all"].copy()}
        synergy["prediction_all"][EVALUATE] = 1e3
    poisoned = fit_cell(codes, responses, TRAIN, EVALUATE, cell(connection), CONFIG, seed=1, synergy=synergy)
    clean = fitted[connection]
    assert poisoned.loss == clean.loss
    for name in ("response_minimum", "response_range", "synergy_basis"):
        if name in clean.arrays:
            assert poisoned.arrays[name].tobytes() == clean.arrays[name].tobytes()
    ours, theirs = (r.arrays["prediction_all"][TRAIN] for r in (poisoned, clean))
    assert ours.tobytes() == theirs.tobytes()
    for name in ("nrmse_train", "bic", "aicc", "residual_variance"):
        assert poisoned.scores[name] == clean.scores[name]


def test_cell_overrides_dropout_and_l1_of_the_configuration(fitted, data):
    other = replace(CONFIG, dropout=0.9, l1=1.0)
    again = fit_cell(*data, TRAIN, EVALUATE, cell("direct"), other, seed=1)
    assert again.loss == fitted["direct"].loss
    assert fit_cell(*data, TRAIN, EVALUATE, replace(cell("direct"), l1=1e-2), CONFIG, seed=1).loss != again.loss


def test_refuses_what_cannot_be_learned_from(data, fitted):
    codes, responses = data
    bad = responses.copy()
    bad[7, 2] = np.nan
    with pytest.raises(InputError, match="trial 7, muscle 2"):
        fit_cell(codes, bad, TRAIN, EVALUATE, cell("direct"), CONFIG, seed=1)
    bad_codes = codes.copy()
    bad_codes[33, 0, 0, 0] = np.inf
    with pytest.raises(InputError, match="code of trial 33"):
        fit_cell(bad_codes, responses, TRAIN, EVALUATE, cell("direct"), CONFIG, seed=1)
    with pytest.raises(InputError, match="1 of them in both sets"):
        fit_cell(codes, responses, TRAIN, np.array([3, 35]), cell("direct"), CONFIG, seed=1)
    with pytest.raises(InputError, match="'dirct' is not known; choose from direct, synergy, both"):
        fit_cell(codes, responses, TRAIN, EVALUATE, cell("dirct"), CONFIG, seed=1)
    with pytest.raises(InputError, match="was given nothing"):
        fit_cell(codes, responses, TRAIN, EVALUATE, cell("both"), CONFIG, seed=1)
    with pytest.raises(InputError, match=r"was given arrays \['measured'"):
        fit_cell(
            codes,
            responses,
            TRAIN,
            EVALUATE,
            cell("both"),
            CONFIG,
            1,
            {"measured": fitted["direct"].arrays["measured"]},
        )


def test_both_starts_from_the_synergy_mapper_and_does_not_undo_it(data):
    """The first epoch's loss is about the variance that synergy leaves over, and training does not end above it."""
    config = replace(CONFIG, epochs=12)
    synergy = fit_cell(*data, TRAIN, EVALUATE, cell("synergy"), config, seed=1)
    both = fit_cell(*data, TRAIN, EVALUATE, cell("both"), config, seed=1, synergy=synergy.arrays)
    assert both.loss[0] < 3 * synergy.scores["residual_variance"]
    assert both.scores["nrmse_train"] <= 1.02 * synergy.scores["nrmse_train"]
