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


def motor_mask(n):
    """A ball off the centre that touches one face: every kind of cell, empty and busy."""
    axis = torch.arange(n) - n / 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (x**2 + y**2 + (z + n / 4) ** 2 < (0.3 * n) ** 2).double()


def speckled_mask(n):
    return (torch.rand(n, n, n) > 0.4).double()


def values_and_gradients(net, volumes, mask, plain):
    """Code, rebuilt volumes and gradients, by the net or by the plain layers with its weights."""
    encoder, decoder = plain_autoencoder(net) if plain else (net.encode, net.decode)
    net.zero_grad()
    code = encoder(volumes)
    rebuilt = decoder(code) * mask if plain else decoder(code)
    ((rebuilt - volumes) ** 2).sum().backward()
    return code, rebuilt, *(p.grad.clone() for p in net.parameters())


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    ("n", "batch", "threads", "make_mask", "masked_input"),
    [
        (16, 3, 1, speckled_mask, True),
        (24, 2, 1, motor_mask, True),
        (24, 1, 1, motor_mask, False),
        (12, 6, 2, motor_mask, True),
        (4, 1, 2, speckled_mask, False),
    ],
)
def test_equals_the_plain_layers_in_values_and_gradients(n, batch, threads, make_mask, masked_input, kernel):
    torch.manual_seed(3)
    mask = make_mask(n)
    net = build_autoencoder(n, mask, kernel).double()
    for layer in net.convolutions():
        nn.init.normal_(layer.bias, std=0.3)
    volumes = torch.rand(batch, 1, n, n, n, dtype=torch.float64) * (mask if masked_input else 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fast = values_and_gradients(net, volumes, mask, plain=False)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for quick, slow in zip(fast, values_and_gradients(net, volumes, mask, plain=True), strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("form", ["plain", "transposed"])
def test_other_forms_give_the_same(form, kernel):
    torch.manual_seed(3)
    mask = speckled_mask(8)
    net = build_autoencoder(8, mask, kernel).double()
    volumes = torch.rand(2, 1, 8, 8, 8, dtype=torch.float64)
    expected = values_and_gradients(net, volumes, mask, plain=False)
    net.form = form
    for quick, slow in zip(values_and_gradients(net, volumes, mask, plain=False), expected, strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [1, 3])
def test_loss_in_float32_is_that_of_the_plain_layers(kernel):
    torch.manual_seed(1)
    mask = motor_mask(32).float()
    net = build_autoencoder(32, mask, kernel)
    volumes = torch.rand(2, 1, 32, 32, 32) * mask
    losses = []
    start = {name: value.clone() for name, value in net.state_dict().items()}
    for plain in (False, True):
        net.load_state_dict(start)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        encoder, decoder = plain_autoencoder(net) if plain else (net.encode, net.decode)
        losses.append([])
        for _ in range(4):
            optimizer.zero_grad()
            loss = ((decoder(encoder(volumes)) * mask - volumes) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_an_empty_volume_is_no_special_case():
    net = build_autoencoder(16, torch.zeros(16, 16, 16)).double()
    volumes = torch.zeros(1, 1, 16, 16, 16, dtype=torch.float64)
    for layer in net.convolutions():
        nn.init.normal_(layer.bias, std=0.3)
    torch.testing.assert_close(net.encode(volumes), plain_autoencoder(net)[0](volumes), rtol=1e-12, atol=1e-12)
    net(volumes).sum().backward()
    assert all((p.grad == 0).all() for p in net.parameters())


@pytest.mark.parametrize(("kernel", "parameters"), [(1, 113_474), (3, 115_970)])
def test_has_the_parameters_of_the_paper_and_of_the_released_code(kernel, parameters):
    assert sum(p.numel() for p in build_autoencoder(64, kernel=kernel).parameters()) == parameters


@pytest.mark.parametrize("kernel", [0, 2, 5])
def test_refuses_other_kernels(kernel):
    with pytest.raises(InputError, match="give 1 or 3"):
        build_autoencoder(8, kernel=kernel)


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

    for fast, slow in zip(gradient(lambda x, w, b: convolve_and_pool(x, w, b)[0]), gradient(plain), strict=True):
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
