import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.sim.firing import firing_rate


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_no_field_gives_exactly_zero_and_the_type_is_kept(kind):
    rate = firing_rate(np.zeros((2, 3), kind), 69.0, 4.8)
    assert rate.dtype == kind
    assert (rate == 0).all()
    assert firing_rate(kind(1000), 69.0, 4.8) == 1


def test_values_of_the_logistic():
    e50, slope, field = 20.0, 8.0, np.array([10.0, 20.0, 35.0])
    logistic = 1 / (1 + np.exp(-(field - e50) / slope))
    rest = 1 / (1 + np.exp(e50 / slope))
    np.testing.assert_allclose(firing_rate(field, e50, slope), (logistic - rest) / (1 - rest), rtol=1e-14)


def test_integers_become_double_and_nan_stays():
    assert firing_rate([0, 70], 69.0, 4.8).dtype == np.float64
    assert np.isnan(firing_rate(np.nan, 69.0, 4.8))


def test_huge_fields_do_not_overflow():
    with np.errstate(all="raise"):
        assert firing_rate(np.float32(1e30), 69.0, 0.01) == 1


@given(low=st.floats(0, 200), step=st.floats(0, 200), e50=st.floats(1, 200), slope=st.floats(0.1, 50))
def test_rate_rises_within_zero_and_one(low, step, e50, slope):
    a, b = firing_rate([low, low + step], e50, slope)
    assert 0 <= a <= b <= 1


@pytest.mark.parametrize(
    ("e50", "slope", "name"), [(0, 1, "e50"), (-3, 1, "e50"), (1, 0, "slope"), (1, np.nan, "slope")]
)
def test_parameters_must_be_positive(e50, slope, name):
    with pytest.raises(InputError, match=rf"{name} is .*{name}_of_rmt"):
        firing_rate([1.0], e50, slope)
