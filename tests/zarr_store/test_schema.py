import numpy as np
import pytest
from motorsweep.zarr_store.datasets import publish_dataset
from motorsweep.zarr_store.mocks import mock_results, mock_volumes
from motorsweep.zarr_store.result_variables import CURVE_VARIABLES, CV_VARIABLES, RESULT_VARIABLES
from motorsweep.zarr_store.results import collect, open_results
from motorsweep.zarr_store.schema import VOLUME_DIMS, Status


def test_the_axis_order_and_the_codes_are_said_once():
    assert VOLUME_DIMS == ("pose", "x", "y", "z")
    assert [(s.name, int(s)) for s in Status] == [("PENDING", 0), ("DONE", 1), ("FAILED", 2)]


@pytest.mark.parametrize(("folds", "trials"), [((), ()), ((0, 1), ()), ((), (20, 40))])
def test_mock_results_have_the_schema_of_real_ones(study, small, folds, trials):
    mock = mock_results(folds=folds, trials=trials)
    grid = {"dropout": (0.15,), "l1": (1e-4,), "activation": ("relu",), "scaling": ("minmax",)}
    real = collect(study, small.make_plan(folds=folds, grid=grid, trials=trials))
    expected = RESULT_VARIABLES | (CV_VARIABLES if folds else {}) | (CURVE_VARIABLES if trials else {})
    assert list(mock.data_vars) == list(expected)
    for name, variable in expected.items():
        assert mock[name].dims == real[name].dims == variable.dims
        assert mock[name].attrs == real[name].attrs
        assert mock[name].attrs["units"] and mock[name].attrs["long_name"]
        assert mock[name].dtype == real[name].dtype == variable.dtype
    assert set(mock.coords) == set(real.coords)
    assert (mock.status == Status.DONE).all()


def test_mock_results_can_be_stored_and_opened(study):
    mock = mock_results(seed=3)
    publish_dataset(mock, study.results, study.making, "writing a mock")
    found = open_results(study)
    np.testing.assert_array_equal(found.nrmse, mock.nrmse)
    assert [str(run_id) for run_id in found.run_id.values.flat] == list(mock.run_id.values.flat)
    assert mock_results(seed=3).identical(mock)
    assert not mock_results(seed=4).identical(mock)


def test_mock_volumes_look_like_volumes(study, small):
    from motorsweep.zarr_store.volumes import open_volumes

    small.make_volumes(study)
    real, mock = open_volumes(study), mock_volumes()
    for name in mock.data_vars:
        assert (mock[name].dims, mock[name].dtype) == (real[name].dims, real[name].dtype)
