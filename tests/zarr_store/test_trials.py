import numpy as np
import pytest
import xarray as xr
from motorsweep.errors import InputError, StoreError
from motorsweep.zarr_store.mocks import mock_trials
from motorsweep.zarr_store.trials import TRIAL_VARIABLES, open_trials, write_trials


def test_trials_come_back_as_they_were_with_units(study):
    trials = mock_trials()
    write_trials(study, trials)
    found = open_trials(study)
    for name in trials.data_vars:
        np.testing.assert_array_equal(found[name], trials[name])
        assert found[name].attrs["units"] == TRIAL_VARIABLES[name].units
    np.testing.assert_array_equal(found.response.sel(muscle="APB"), trials.response[:, 1])
    assert found.attrs["e50_v_per_m"] == 69.0
    assert found.attrs["id"] == trials.attrs["id"]
    assert {"title", "Conventions", "source", "motorsweep_schema"} <= found.attrs.keys()
    assert all({"units", "long_name"} <= variable.attrs.keys() for variable in found.variables.values())
    assert trials.response.attrs == {}  # the caller's own Dataset is left alone


def test_new_trials_replace_the_old_ones_whole(study):
    write_trials(study, mock_trials(trials=20))
    write_trials(study, mock_trials(trials=7).drop_vars("expected_response"))
    found = open_trials(study)
    assert found.sizes["trial"] == 7
    assert "expected_response" not in found
    assert list(study.making.iterdir()) == []
    xr.testing.assert_identical(open_trials(study.folder).load(), found.load())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop_vars("didt"), "the trials lack didt"),
        (lambda t: t.drop_vars("muscle"), "the trials lack muscle"),
        (lambda t: t.drop_attrs(), "the trials lack the attribute id"),
        (lambda t: t.assign(response=t.response.T), r"response has dims \('muscle', 'trial'\)"),
        (lambda t: t.assign(response=t.response.where(t.trial != 3)), "response of trial 3 is not finite"),
        (lambda t: t.assign(pose_index=t.pose_index.astype(float)), "pose_index must hold indices from 0.*float64"),
        (lambda t: t.assign(pose_index=t.pose_index - 9), "pose_index must hold indices from 0"),
    ],
)
def test_trials_that_cannot_be_trained_on_are_refused(study, spoil, message):
    write_trials(study, mock_trials())
    with pytest.raises(InputError, match=message):
        write_trials(study, spoil(mock_trials(seed=1)))
    np.testing.assert_array_equal(open_trials(study).response, mock_trials().response)


def test_no_trials_yet(study):
    with pytest.raises(StoreError, match=r"`motorsweep simulate STUDY.toml` makes it"):
        open_trials(study)
