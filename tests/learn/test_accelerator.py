import logging

import numpy as np
import pytest
import torch
from motorsweep.errors import InputError
from motorsweep.learn.accelerator import Accelerator, accelerator_of, device_of, timed_choice, trainings_at_once
from motorsweep.learn.autoencoder import build_autoencoder
from motorsweep.learn.mappers import build_mapper
from torch.nn import functional

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch.backends.mkldnn.flags on a CPU
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def losses_of(accelerator, steps=6, dropout=0.0):
    """Losses of a mapper's first steps on noise, the batch of the last step smaller."""
    torch.manual_seed(0)
    net = accelerator.place(build_mapper(3, "direct", 2, n=8, dropout=dropout)).train()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=0.1, eps=1e-7)

    def loss(x, y):
        penalty = 1e-5 * sum(layer.weight.abs().sum() for layer in net.weighted())
        return functional.mse_loss(net.outputs(x), y), penalty

    step, generator, losses = accelerator.gradients(net, loss), np.random.default_rng(0), []
    codes, targets = generator.random((12, 1, 8, 8, 8), np.float32), generator.random((12, 2), np.float32)
    torch.manual_seed(1)
    for k in range(steps):
        size = 12 if k < steps - 1 else 7
        losses.append(step(accelerator.tensor(codes[:size]), accelerator.tensor(targets[:size])).item())
        optimizer.step()
    return np.array(losses), net


def plain_losses(steps=6):
    torch.manual_seed(0)
    net = build_mapper(3, "direct", 2, n=8, dropout=0.0).to(memory_format=torch.channels_last_3d).train()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=0.1, eps=1e-7)
    generator, losses = np.random.default_rng(0), []
    codes, targets = generator.random((12, 1, 8, 8, 8), np.float32), generator.random((12, 2), np.float32)
    for k in range(steps):
        size = 12 if k < steps - 1 else 7
        optimizer.zero_grad()
        error = functional.mse_loss(net.outputs(torch.from_numpy(codes[:size])), torch.from_numpy(targets[:size]))
        (error + 1e-5 * sum(layer.weight.abs().sum() for layer in net.weighted())).backward()
        optimizer.step()
        losses.append(error.item())
    return np.array(losses)


def test_only_a_gpu_limits_the_trainings_at_once():
    assert trainings_at_once(torch.device("cpu")) is None


def test_a_step_on_the_cpu_changes_no_bit():
    np.testing.assert_array_equal(losses_of(accelerator_of("cpu"))[0], plain_losses())


@pytest.fixture
def torch_s_own_convolutions():
    """Without oneDNN, whose bfloat16 gradients of convolutions of 2³ voxels are infinite."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def test_bfloat16_follows_float32_within_its_rounding(torch_s_own_convolutions):
    exact = plain_losses(steps=3)
    rounded, net = losses_of(Accelerator(device=CPU, precision="bfloat16"), steps=3)
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}


def test_gradients_in_bfloat16_point_the_same_way(torch_s_own_convolutions):
    gradients = []
    for precision in ("float32", "bfloat16"):
        _, net = losses_of(Accelerator(device=CPU, precision=precision), steps=1)
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.98


def test_the_autoencoder_takes_plain_layers_under_autocast(torch_s_own_convolutions):
    torch.manual_seed(0)
    net = build_autoencoder(8, kernel=3)
    x = torch.rand(2, 1, 8, 8, 8)
    step = Accelerator(device=CPU, precision="bfloat16").gradients(net, lambda v: (functional.mse_loss(net(v), v), 0.0))
    assert step(x).item() == pytest.approx(functional.mse_loss(net(x), x).item(), rel=0.01)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_error_may_be_of_many_members_and_gradients_are_never_summed_over_calls():
    weight = torch.nn.Linear(1, 1, bias=False)
    step = Accelerator().gradients(weight, lambda x: (weight(x)[:, 0], 0.5 * weight.weight.sum()))
    for _ in range(2):
        error = step(torch.tensor([[1.0], [2.0]]))
        torch.testing.assert_close(error, weight(torch.tensor([[1.0], [2.0]]))[:, 0].detach())
        assert weight.weight.grad.item() == pytest.approx(1 + 2 + 0.5)


def test_words_for_devices():
    assert device_of("cpu") == CPU
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="'gpu' is not known; choose from auto, cpu, cuda"):
        device_of("gpu")
    with pytest.raises(InputError, match="precision 'half' is not known"):
        accelerator_of("cpu", precision="half")
    with pytest.raises(InputError, match='"bfloat16" was asked for on the CPU'):
        accelerator_of("cpu", precision="bfloat16")


@without_gpu
def test_a_gpu_that_is_not_there_is_said_so():
    with pytest.raises(InputError, match=r'torch finds no GPU here.*Give "auto" or "cpu"'):
        accelerator_of("cuda")


def test_the_cpu_is_never_captured_nor_rounded():
    accelerator = accelerator_of("cpu")
    assert (accelerator.precision, accelerator.capture, accelerator.generators()) == ("float32", False, [])


def test_timed_choice_takes_the_fastest_or_the_first(caplog):
    spins = {"slow": 200_000, "fast": 10}
    candidates = {name: lambda n=n: sum(range(n)) for name, n in spins.items()}
    with caplog.at_level(logging.INFO, logger="motorsweep.learn.accelerator"):
        assert timed_choice(candidates, Accelerator(deterministic=False)) == "fast"
    assert "timed on cpu: slow" in caplog.text
    assert timed_choice(candidates, Accelerator(deterministic=True)) == "slow"


def test_timed_choice_runs_nothing_when_there_is_nothing_to_choose():
    def never():
        raise AssertionError

    assert timed_choice({"only": never}, Accelerator(deterministic=False)) == "only"
    assert timed_choice({"first": never, "second": never}, Accelerator(deterministic=True)) == "first"


def test_scope_leaves_the_cpu_alone():
    with Accelerator(deterministic=True).scope():
        assert not torch.are_deterministic_algorithms_enabled()


@needs_gpu
def test_scope_restores_what_was():
    with accelerator_of("cuda").scope():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


@needs_gpu
@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(("precision", "rtol"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_a_gpu_follows_the_cpu(capture, precision, rtol, caplog):
    losses, _ = losses_of(accelerator_of("cuda", precision, capture))
    np.testing.assert_allclose(losses, plain_losses(), rtol=rtol)
    assert "cannot be captured" not in caplog.text


@needs_gpu
def test_dropout_of_captured_steps_changes_from_step_to_step_and_comes_back_with_the_seed():
    accelerator = accelerator_of("cuda")
    one, two = (losses_of(accelerator, dropout=0.5)[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert len(set(np.round(one, 6))) == len(one)


@needs_gpu
def test_a_step_that_cannot_be_captured_runs_without(caplog):
    accelerator = accelerator_of("cuda")
    net = accelerator.place(torch.nn.Linear(1, 1))

    def loss(x):
        value = net(x).square().mean()
        return value, 0.0 * value.item()  # reading a number back is what no graph can hold

    step = accelerator.gradients(net, loss)
    assert step(accelerator.tensor(np.ones((2, 1), np.float32))).isfinite()
    assert "cannot be captured" in caplog.text
