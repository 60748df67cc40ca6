import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from motorsweep.errors import InputError
from motorsweep.learn.scaling import fit_scaling
from sklearn.preprocessing import MinMaxScaler, StandardScaler

rows = arrays(np.float64, (7, 3), elements=st.floats(-1e3, 1e3).map(lambda v: round(v, 3)))


@given(rows, st.sampled_from(["minmax", "standard"]))
def test_agrees_with_scikit_learn_column_by_column(x, kind):
    oracle = (MinMaxScaler() if kind == "minmax" else StandardScaler()).fit(x)
    scaling = fit_scaling(x, kind, per="column")
    np.testing.assert_allclose(scaling.apply(x), oracle.transform(x), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(scaling.invert(scaling.apply(x)), x, rtol=1e-9, atol=1e-9)


def test_one_range_over_all_volumes_of_the_training_rows():
    x = np.stack([np.full((2, 2, 2), v, np.float32) for v in (1.0, 3.0, 100.0)])
    scaling = fit_scaling(x, rows=[0, 1])
    assert (scaling.offset, scaling.scale) == ((1.0,), (2.0,))
    scaled = scaling.apply(x)
    assert scaled.dtype == np.float32
    assert scaled[2, 0, 0, 0] == 49.5  # beyond the training range and not clipped


def test_standard_over_all_equals_numpy_on_float32_with_large_offset():
    x = (1e4 + np.random.default_rng(0).random((5, 6, 6, 6))).astype(np.float32)
    scaling = fit_scaling(x, "standard")
    np.testing.assert_allclose(scaling.offset[0], x.astype(np.float64).mean(), rtol=1e-12)
    np.testing.assert_allclose(scaling.scale[0], x.astype(np.float64).std(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["minmax", "standard"])
def test_a_constant_column_becomes_zero(kind):
    x = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]])
    scaling = fit_scaling(x, kind, per="column")
    assert scaling.scale[0] == 1.0
    np.testing.assert_allclose(scaling.apply(x)[:, 0], 0.0, atol=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_names_the_row_that_is_not_finite(bad):
    x = np.ones((3, 2))
    x[1, 1] = bad
    with pytest.raises(InputError, match="row 1 holds values that are not finite"):
        fit_scaling(x)


def test_unknown_kind_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'robust'.*minmax, standard"):
        fit_scaling(np.ones((2, 2)), "robust")
    with pytest.raises(InputError, match="no training rows"):
        fit_scaling(np.ones((2, 2)), rows=[])
