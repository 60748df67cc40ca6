import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn.autoencoder import build_autoencoder
from motorsweep.learn.pooled_convolution import convolve_and_pool
from torch import nn


def plain_autoencoder(net):
    """The layers as the paper writes them, with the same weights."""
    e1, e2, code, d1, d2, out = net.convolutions()
    up = nn.Upsample(scale_factor=2, mode="nearest")
    encoder = nn.Sequential(e1, nn.ELU(), nn.MaxPool3d(2), e2, nn.ELU(), nn.MaxPool3d(2), code)
    return encoder, nn.Sequential(d1, nn.ELU(), up, d2, nn.ELU(), up, out)


@pytest.mark.parametrize(("n", "batch", "threads"), [(16, 3, 1), (12, 6, 2), (4, 1, 2)])
def test_equals_the_plain_layers_in_values_and_gradients(n, batch, threads):
    torch.manual_seed(3)
    mask = (torch.rand(n, n, n) > 0.4).double()
    net = build_autoencoder(n, mask).double()
    for layer in net.convolutions():
        nn.init.normal_(layer.bias, std=0.3)
    volumes = torch.rand(batch, 1, n, n, n, dtype=torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net.zero_grad()
        fast_code = net.encode(volumes)
        fast = net.decode(fast_code)
        ((fast - volumes) ** 2).sum().backward()
        fast_gradients = [p.grad.clone() for p in net.parameters()]
    finally:
        torch.set_num_threads(before)
    encoder, decoder = plain_autoencoder(net)
    net.zero_grad()
    code = encoder(volumes)
    rebuilt = decoder(code) * mask
    ((rebuilt - volumes) ** 2).sum().backward()
    torch.testing.assert_close(fast_code, code, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast, rebuilt, rtol=1e-12, atol=1e-12)
    for quick, slow in zip(fast_gradients, [p.grad for p in net.parameters()], strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-10, atol=1e-10)


def test_has_the_parameters_of_the_paper():
    assert sum(p.numel() for p in build_autoencoder(64).parameters()) == 113_474


def test_ties_inside_the_mask_go_to_the_first_voxel_as_in_torch():
    weight, bias = torch.rand(32, 1, 3, 3, 3, dtype=torch.float64), torch.rand(32, dtype=torch.float64)
    x = torch.zeros(1, 1, 8, 8, 8, dtype=torch.float64)
    x[..., 5, 5, 5] = 1.0  # everywhere else the eight candidates of a cell are equal

    def gradient(function):
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        (function(x, w, b) * torch.arange(64.0).reshape(4, 4, 4)).sum().backward()
        return w.grad, b.grad

    def plain(x, w, b):
        return torch.nn.functional.max_pool3d(torch.nn.functional.conv3d(x, w, b, padding=1), 2)

    for fast, slow in zip(gradient(convolve_and_pool), gradient(plain), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


def test_gradient_of_the_volume_itself_falls_back_to_torch():
    x = torch.rand(1, 1, 8, 8, 8, requires_grad=True)
    build_autoencoder(8)(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


def test_nan_is_not_lost_in_pooling():
    net = build_autoencoder(8)
    x = torch.zeros(1, 1, 8, 8, 8)
    x[..., 3, 3, 3] = torch.nan
    assert torch.isnan(net(x)).any()


def test_output_is_zero_outside_the_mask():
    mask = torch.zeros(8, 8, 8)
    mask[2:5] = 1
    rebuilt = build_autoencoder(8, mask)(torch.rand(2, 1, 8, 8, 8))
    assert (rebuilt[:, 0][:, mask == 0] == 0).all()
    assert (rebuilt[:, 0][:, mask == 1] != 0).any()


def test_initial_kernels_are_glorot_uniform():
    torch.manual_seed(0)
    kernel = build_autoencoder(8).encoder_2.weight
    bound = (6 / (27 * (32 + 64))) ** 0.5
    assert 0.99 * bound < kernel.abs().max() <= bound
    assert abs(kernel.std() - bound / 3**0.5) < 0.01 * bound


@pytest.mark.parametrize("n", [0, 6, 30])
def test_refuses_sizes_that_cannot_be_halved_twice(n):
    with pytest.raises(InputError, match="multiple of 4"):
        build_autoencoder(n)


def test_refuses_a_mask_on_another_grid():
    with pytest.raises(InputError, match=r"mask has shape \(4, 4, 4\)"):
        build_autoencoder(8, torch.ones(4, 4, 4))
