import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn.mappers import MAPPERS, build_mapper, count_parameters
from torch import nn

BASIS = torch.rand(15, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("depth", "direct", "synergy", "both"), [(3, 140_175, 139_977, 280_152), (6, 285_663, 285_465, 571_128)]
)
def test_parameters_are_those_of_table_2(depth, direct, synergy, both):
    d, s, r = (build_mapper(depth, c, basis=BASIS) for c in ("direct", "synergy", "residual"))
    assert count_parameters(d) == direct
    assert count_parameters(s) == synergy
    assert count_parameters(s, r) == both


@pytest.mark.parametrize("depth", [3, 6])
def test_layers_are_in_the_order_of_the_paper_and_the_released_code(depth):
    names = [type(layer).__name__ for layer in build_mapper(depth, "direct").layers]
    block = ["Conv3d", "ReLU", "BatchNorm3d", "MaxPool3d"]
    block = block if depth == 3 else ["Conv3d", "BatchNorm3d", *block]
    head = ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear", "Sigmoid"]
    assert names == block * 3 + head


def test_synergy_mapper_is_the_basis_times_sigmoids():
    net = build_mapper(3, "synergy", basis=BASIS).eval()
    codes = torch.rand(4, 1, 16, 16, 16)
    activations = net.outputs(codes)
    assert activations.shape == (4, 9)
    assert ((activations > 0) & (activations < 1)).all()
    torch.testing.assert_close(net(codes), activations @ BASIS.T)
    assert "basis" in net.state_dict()
    assert not any(p.shape == BASIS.shape for p in net.parameters())


def test_residual_mapper_is_linear_inside_and_within_one():
    net = build_mapper(3, "residual").eval()
    assert not any(isinstance(layer, nn.ReLU) for layer in net.layers)
    codes = 100 * torch.randn(4, 1, 16, 16, 16)
    assert (net(codes) == 0).all(), "it starts as the synergy mapper alone"
    nn.init.xavier_uniform_(net.weighted()[-1].weight)
    out = net(codes)
    assert (out.abs() <= 1).all()
    assert (out < 0).any() and (out > 0).any()


def test_batch_norm_has_keras_settings():
    norms = [m for m in build_mapper(6, "direct").modules() if isinstance(m, nn.BatchNorm3d)]
    assert len(norms) == 6
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


def test_kernels_are_glorot_uniform_and_biases_zero():
    torch.manual_seed(0)
    dense = build_mapper(3, "direct").weighted()[3]
    bound = (6 / (512 + 128)) ** 0.5
    assert 0.999 * bound < dense.weight.abs().max() <= bound
    assert (dense.bias == 0).all()


def test_smaller_codes_have_smaller_flattened_layers():
    assert build_mapper(3, "direct", n=8)(torch.rand(2, 1, 8, 8, 8)).shape == (2, 15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 4, "connection": "direct"}, r"depth 4.*depths are 3, 6"),
        ({"depth": 3, "connection": "dirct"}, r"'dirct' is not known.*" + ", ".join(MAPPERS)),
        ({"depth": 3, "connection": "synergy"}, r"needs a basis of shape \(15, synergies\) and got none"),
        ({"depth": 3, "connection": "synergy", "basis": BASIS.T}, r"got one of shape \(9, 15\)"),
        ({"depth": 3, "connection": "direct", "n": 12}, "multiple of 8"),
        ({"depth": 3, "connection": "direct", "dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_says_what_cannot_be_built(arguments, message):
    with pytest.raises(InputError, match=message):
        build_mapper(**arguments)
