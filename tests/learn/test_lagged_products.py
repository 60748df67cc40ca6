"""Products of channels with their pasts, against the design matrix of all lags, over the ends of blocks."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.learn.connectivity_arrays import Arrays
from motorsweep.learn.lagged_products import centred_products, first_row, floats_of_products
from numpy.testing import assert_allclose

BLOCK = 64  # of records from 1 025 to 4 096 samples, and of shorter ones with orders from 17 to 32


def by_design(z, order, centre):
    """Sums of products of all lags (lag, i, lag, j), a copy of the record for each."""
    instants = range(order, z.shape[-1])
    lagged = np.stack([z[:, [t - k for t in instants]] for k in range(order + 1)])
    if centre:
        lagged = lagged - lagged.mean(axis=-1, keepdims=True)
    return np.einsum("ait,bjt->aibj", lagged, lagged)


@given(
    seed=st.integers(0, 99),
    channels=st.integers(1, 4),
    order=st.integers(1, 40),
    samples=st.one_of(st.integers(42, 600), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 1500, 4 * BLOCK + 5])),
)
@settings(max_examples=60, deadline=None)
def test_products_are_those_of_the_design_matrix(seed, channels, order, samples):
    z = np.random.default_rng(seed).normal(size=(2, channels, samples)) + 0.5
    found = centred_products(z, order, Arrays(np))
    for one, record in zip(found, z, strict=True):
        assert_allclose(one, by_design(record, order, centre=True), rtol=0, atol=1e-11 * samples)


@pytest.mark.parametrize("instants", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 20 * BLOCK])
@pytest.mark.parametrize("order", [1, 7, 20, 32])
def test_whole_numbers_give_whole_sums_over_the_ends_of_blocks(instants, order):
    z = np.random.default_rng(3).integers(-9, 9, size=(1, 3, instants + order)).astype(float)
    found = first_row(z, order, Arrays(np))[0]
    assert (np.round(found) == by_design(z[0], order, centre=False)[0]).all()
    assert_allclose(found, np.round(found), rtol=0, atol=1e-9)


def test_a_transient_before_the_first_whole_past_takes_no_digits():
    """It is in the later lags only: sums over all instants, less those without a past, would be off by 1e-8."""
    order, z = 10, np.random.default_rng(6).normal(size=(1, 2, 6000))
    z[0, 0, 5] += 1e6
    expected = by_design(z[0].astype(np.longdouble), order, centre=True)
    size = np.sqrt(np.einsum("aiai->ai", expected))
    error = (centred_products(z, order, Arrays(np))[0] - expected) / (size[:, :, None, None] * size)
    assert abs(error).max() < 1e-14


@pytest.mark.parametrize(("channels", "samples", "order"), [(19, 200, 2), (64, 300, 1), (4, 5000, 30)])
def test_numbers_held_at_once_are_foretold(channels, samples, order):
    z = np.random.default_rng(7).normal(size=(100, channels, samples))
    tracemalloc.start()
    first_row(z, order, Arrays(np))
    held = tracemalloc.get_traced_memory()[1] / 8 + z.size
    tracemalloc.stop()
    assert 0.6 < held / (100 * floats_of_products(channels, samples, order)) < 1.2


def test_orders_up_to_the_record_itself():
    z = np.random.default_rng(4).normal(size=(1, 2, 30))
    assert_allclose(centred_products(z, 28, Arrays(np))[0], by_design(z[0], 28, centre=True), rtol=0, atol=1e-12)


def test_torch_is_numpy():
    z = np.random.default_rng(5).normal(size=(3, 4, 700))
    there = centred_products(torch.from_numpy(z), 9, Arrays(torch, torch.device("cpu")))
    assert_allclose(there.numpy(), centred_products(z, 9, Arrays(np)), rtol=0, atol=1e-10)
