from dataclasses import fields

import numpy as np
import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn.autoencoder import build_autoencoder
from motorsweep.learn.cells import Cell, fit_cell
from motorsweep.learn.mappers import build_mapper, count_parameters
from motorsweep.learn.protocols import PROTOCOLS, AutoencoderTraining, MapperTraining, Protocol
from motorsweep.learn.training import fit_mapper
from torch import nn

BASIS = torch.rand(15, 9, generator=torch.Generator().manual_seed(0))


def test_the_protocols_differ_in_every_point_that_is_named():
    paper, released = PROTOCOLS["paper"], PROTOCOLS["released"]
    assert all(getattr(paper, each.name) != getattr(released, each.name) for each in fields(Protocol))


@pytest.mark.parametrize(("protocol", "autoencoder", "mapper"), [("paper", 32, 32), ("released", 4, 16)])
def test_batches_are_the_protocols_unless_given(protocol, autoencoder, mapper):
    assert AutoencoderTraining(protocol=protocol).batch == autoencoder
    assert MapperTraining(protocol=protocol).batch == mapper
    assert MapperTraining(protocol=protocol, batch=7).batch == 7


@pytest.mark.parametrize(("protocol", "parameters"), [("paper", 113_474), ("released", 115_970)])
def test_autoencoder_has_the_protocols_parameters(protocol, parameters):
    assert count_parameters(build_autoencoder(8, kernel=PROTOCOLS[protocol].code_kernel)) == parameters


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("depth", "direct", "synergy", "both"), [(3, 140_175, 139_977, 280_152), (6, 285_663, 285_465, 571_128)]
)
def test_mappers_of_both_protocols_have_the_parameters_of_table_2(protocol, depth, direct, synergy, both):
    nets = [build_mapper(depth, each, basis=BASIS, protocol=protocol) for each in ("direct", "synergy", "residual")]
    assert [count_parameters(net) for net in nets[:2]] == [direct, synergy]
    assert count_parameters(*nets[1:]) == both


def test_synergy_mapper_of_the_released_code_puts_the_sigmoid_after_the_basis():
    net = build_mapper(3, "synergy", basis=BASIS, protocol="released").eval()
    codes = torch.rand(4, 1, 16, 16, 16)
    activations = net.layers(codes)
    assert activations.shape == (4, 9) and (activations < 0).any()
    torch.testing.assert_close(net(codes), torch.sigmoid(activations @ BASIS.T))
    torch.testing.assert_close(net.outputs(codes), net(codes))


def test_residual_mapper_of_the_released_code_starts_glorot_uniform():
    last = build_mapper(3, "residual", protocol="released").weighted()[-1].weight
    bound = (6 / (32 + 15)) ** 0.5
    assert 0.9 * bound < last.abs().max() <= bound


def test_inner_activation_is_asked_for_and_linear_in_a_residual_mapper():
    kinds = {name: {type(layer) for layer in build_mapper(6, name, activation="elu").layers}
             for name in ("direct", "residual")}  # fmt: skip
    assert nn.ELU in kinds["direct"] and nn.ReLU not in kinds["direct"]
    assert not {nn.ELU, nn.ReLU} & kinds["residual"]
    with pytest.raises(InputError, match="activation 'tanh' is not known; choose from relu, elu"):
        build_mapper(3, "direct", activation="tanh")


def _one_step(protocol, l1):
    """Weights after one epoch of one batch, of a mapper whose error has no slope."""
    codes = np.zeros((4, 8, 8, 8), np.float32)
    torch.manual_seed(3)
    targets = build_mapper(3, "direct", 2, n=8, dropout=0).eval()(torch.zeros(4, 1, 8, 8, 8)).detach().numpy()
    config = MapperTraining(protocol=protocol, epochs=1, batch=4, l1=l1)
    build = lambda: build_mapper(3, "direct", 2, n=8, dropout=0.0, protocol=protocol)  # noqa: E731
    return fit_mapper(build, codes, targets, np.arange(4), config, seed=3)[0].weighted()


def test_l1_acts_on_dense_kernels_in_the_released_protocol_only():
    for protocol, acts in (("paper", False), ("released", True)):
        with_l1, without = _one_step(protocol, 1e-1), _one_step(protocol, 0.0)
        assert not torch.equal(with_l1[0].weight, without[0].weight), "a convolution, in both"
        # The dense layers' inputs are all zero for these codes but for biases: nothing else than L1 moves kernels.
        assert torch.equal(with_l1[3].weight, without[3].weight) == (not acts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batch_norm_statistics_are_running_ones_in_the_released_protocol(protocol):
    generator = np.random.default_rng(0)
    codes, targets = generator.random((6, 8, 8, 8)).astype(np.float32), generator.random((6, 2)).astype(np.float32)
    config = MapperTraining(protocol=protocol, epochs=1, batch=6, learning_rate=1e-9, l1=0.0)
    net, _ = fit_mapper(lambda: build_mapper(3, "direct", 2, n=8), codes, targets, np.arange(6), config, seed=1)
    norm = next(layer for layer in net.layers if isinstance(layer, nn.BatchNorm3d))
    inside = torch.relu(net.layers[0](torch.from_numpy(codes)[:, None]))
    mean = inside.mean((0, 2, 3, 4)).detach()
    # One step of momentum 0.01 towards the batch's mean, from zero; or the mean itself.
    expected = mean if protocol == "paper" else 0.01 * mean
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cell_is_fitted_under_either_protocol(protocol):
    generator = np.random.default_rng(0)
    codes, responses = generator.random((14, 8, 8, 8)).astype(np.float32), generator.random((14, 4))
    config = MapperTraining(protocol=protocol, epochs=2, synergies=2)
    train, test = np.arange(12), np.arange(12, 14)
    cells = [Cell(depth=3, connection=each) for each in ("direct", "synergy", "both")]
    direct, synergy = (fit_cell(codes, responses, train, test, each, config, seed=1) for each in cells[:2])
    both = fit_cell(codes, responses, train, test, cells[2], config, seed=1, synergy=synergy.arrays)
    residual = both.arrays["prediction"] - synergy.arrays["prediction"]
    assert np.abs(residual).max() <= 1 and np.abs(residual).max() > 0
    assert both.scores["n_parameters"] == synergy.scores["n_parameters"] + direct.scores["n_parameters"]


def test_number_of_synergies_follows_from_the_variance_asked_for():
    generator = np.random.default_rng(0)
    responses = generator.random((30, 2)) @ generator.random((2, 6))
    codes = generator.random((30, 8, 8, 8)).astype(np.float32)
    config = MapperTraining(epochs=1, synergies=0, synergy_vaf=0.999)
    result = fit_cell(
        codes, responses, np.arange(25), np.arange(25, 30), Cell(depth=3, connection="synergy"), config, 1
    )
    # Scaling to [0, 1] takes away each muscle's minimum, which may cost one more factor than the two planted.
    assert result.arrays["synergy_basis"].shape[1] in (2, 3)


def test_unknown_protocol_is_named():
    with pytest.raises(InputError, match="protocol 'papr' is not known; choose from paper, released"):
        MapperTraining(protocol="papr")
