import doctest

import numpy as np
import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn import emgnet
from motorsweep.learn.emgnet import build_emgnet
from motorsweep.learn.epochs import seeded
from torch import nn


def test_examples():
    assert doctest.testmod(emgnet).failed == 0


def test_parameters_and_shapes_of_table_1():
    net = build_emgnet()
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in net.layers if list(layer.parameters())]
    # kernels x (inputs x edge²) + biases, by hand
    by_hand = [25 * 5 * 49 + 25, 50 * 25 * 25 + 50, 100 * 50 * 9 + 100, 36 * 4900 + 36]
    assert sizes == by_hand
    assert sum(by_hand) == 258_986 == sum(p.numel() for p in net.parameters())
    x, seen = torch.zeros(2, 5, 19, 19), []
    for layer in net.layers:
        x = layer(x)
        seen.append(tuple(x.shape[1:]))
    assert seen == [(25, 13, 13), (25, 13, 13), (50, 9, 9), (50, 9, 9), (100, 7, 7), (100, 7, 7), (4900,), (36,)]


def test_same_outputs_as_an_independent_network_with_its_weights():
    net = seeded(3, build_emgnet)
    images = np.random.default_rng(0).normal(size=(7, 5, 19, 19))
    net.normalise(images[:5])
    twin = nn.Sequential(
        nn.Conv2d(5, 25, kernel_size=7, stride=1, padding=0),
        nn.ReLU(),
        nn.Conv2d(25, 50, kernel_size=5, stride=1, padding=0),
        nn.ReLU(),
        nn.Conv2d(50, 100, kernel_size=3, stride=1, padding=0),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4900, 36),
    )
    twin.load_state_dict({name: value for name, value in net.layers.state_dict().items()})
    x = torch.from_numpy(images - images[:5].mean(0)).float()
    with torch.no_grad():
        torch.testing.assert_close(
            net(torch.from_numpy(images).float()), twin(x).reshape(7, 6, 6), rtol=1e-5, atol=1e-6
        )


def test_row_major_output():
    """Entry [i, j] of the matrix is output 6 i + j."""
    net = build_emgnet()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.layers[-1].bias.copy_(torch.arange(36.0))
        assert net(torch.zeros(1, 5, 19, 19))[0, 2, 3] == 15


def test_normalisation_as_the_paper_and_scaled():
    generator = np.random.default_rng(1)
    images = generator.normal(3, [[[[1.0]], [[20.0]]]], size=(40, 2, 13, 13))
    targets = generator.normal(0.1, 0.02, size=(40, 3, 3))
    net = build_emgnet(2, 13, 3)
    net.normalise(images)
    np.testing.assert_allclose(net.centre, images.mean(0), rtol=1e-6)
    assert (net.spread == 1).all() and net.unit == 1 and (net.offset == 0).all()
    net.normalise(images, targets, spread=True)
    centred = images - images.mean(0)
    np.testing.assert_allclose(net.spread[:, 0, 0], centred.std((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(net.offset, targets.mean(0), rtol=1e-6)
    np.testing.assert_allclose(net.unit, (targets - targets.mean(0)).std(), rtol=1e-6)


def test_a_constant_measure_is_not_blown_up():
    images = np.full((4, 1, 13, 13), 0.1, np.float32)
    net = build_emgnet(1, 13, 2)
    net.normalise(images, np.full((4, 2, 2), 0.3), spread=True)
    assert net.spread.item() == 1 and net.unit.item() == 1


def test_biases_start_at_zero_and_kernels_glorot_uniform():
    net = seeded(0, build_emgnet)
    for layer in net.layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert (layer.bias == 0).all()
            area = layer.weight[0, 0].numel()
            bound = np.sqrt(6 / ((layer.weight.shape[0] + layer.weight.shape[1]) * area))
            assert 0.98 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("n_eeg", [1, 12])
def test_too_few_eeg_channels(n_eeg):
    with pytest.raises(InputError, match=f"for {n_eeg} EEG channels?: .* smaller than 13 x 13; give at least 13"):
        build_emgnet(5, n_eeg, 6)


def test_the_smallest_image_and_no_measure():
    assert build_emgnet(1, 13, 1)(torch.zeros(1, 1, 13, 13)).shape == (1, 1, 1)
    with pytest.raises(InputError, match="0 connectivity measures"):
        build_emgnet(0, 19, 6)
