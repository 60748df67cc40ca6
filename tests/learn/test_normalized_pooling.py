from copy import deepcopy

import pytest
import torch
from motorsweep.learn.mappers import build_mapper
from motorsweep.learn.normalized_pooling import run_layers
from torch import nn


def outcome(run, layers, x, seen):
    """Values, gradients and running statistics after one step of training."""
    x = x.clone().requires_grad_()
    y = run(layers, x)
    (y * seen).sum().backward()
    return y.detach(), x.grad, *(p.grad for p in layers.parameters()), *(b.double() for b in layers.buffers())


def plainly(layers, x):
    return layers(x)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Identity])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_block_equals_its_layers(activation, layout, threads):
    torch.manual_seed(0)
    block = nn.Sequential(activation(), nn.BatchNorm3d(5, eps=1e-3, momentum=0.01), nn.MaxPool3d(2)).double()
    nn.init.normal_(block[1].weight)  # of either sign: pooling then takes the smallest
    nn.init.normal_(block[1].bias)
    assert (block[1].weight < 0).any()
    x = torch.randn(3, 5, 4, 6, 8, dtype=torch.float64).contiguous(memory_format=layout)
    seen = torch.randn(3, 5, 2, 3, 4, dtype=torch.float64)
    expected = outcome(plainly, deepcopy(block), x, seen)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = outcome(run_layers, deepcopy(block), x, seen)
    finally:
        torch.set_num_threads(before)
    for fast, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("depth", [3, 6])
@pytest.mark.parametrize("connection", ["direct", "residual"])
def test_a_mapper_in_training_equals_its_layers(depth, connection):
    torch.manual_seed(0)
    net = build_mapper(depth, connection, 3, n=8, dropout=0.0)
    nn.init.xavier_uniform_(net.weighted()[-1].weight)
    net, x = net.double().train(), torch.rand(4, 1, 8, 8, 8, dtype=torch.float64)
    seen = torch.randn(4, 3, dtype=torch.float64)
    found, expected = (outcome(run, deepcopy(net.layers), x, seen) for run in (run_layers, plainly))
    for fast, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


def test_float32_statistics_are_those_of_float64():
    torch.manual_seed(0)
    x = (3 + torch.randn(16, 4, 16, 16, 16)).contiguous(memory_format=torch.channels_last_3d)
    norm = nn.BatchNorm3d(4, momentum=1.0)
    run_layers(nn.Sequential(nn.Identity(), norm, nn.MaxPool3d(2)), x)
    torch.testing.assert_close(norm.running_mean.double(), x.double().mean((0, 2, 3, 4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var.double(), x.double().var((0, 2, 3, 4)), rtol=1e-6, atol=0)


def test_evaluation_takes_the_running_statistics():
    net = build_mapper(3, "direct", 2, n=8).eval()
    x = torch.rand(2, 1, 8, 8, 8)
    assert torch.equal(run_layers(net.layers, x), net.layers(x))


def test_nan_is_not_lost():
    block = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(2), nn.MaxPool3d(2))
    x = torch.rand(1, 2, 4, 4, 4)
    x[0, 0, 1, 1, 1] = torch.nan
    pooled = run_layers(block, x)
    assert pooled[0, 0].isnan().all()
    assert pooled[0, 1].isfinite().all()


def test_a_constant_channel_is_its_bias():
    block = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(1), nn.MaxPool3d(2))
    nn.init.constant_(block[1].bias, 0.25)
    torch.testing.assert_close(run_layers(block, torch.full((2, 1, 4, 4, 4), 7.0)), torch.full((2, 1, 2, 2, 2), 0.25))
