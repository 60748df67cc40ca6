import numpy as np
import pytest
import torch
from motorsweep.errors import ConvergenceError, InputError
from motorsweep.learn.accelerator import Accelerator
from motorsweep.learn.epochs import seeded, train_epochs
from motorsweep.learn.fused_layers import FusedMappers
from motorsweep.learn.fused_mappers import Member, fit_fused_mappers, fused_pays
from motorsweep.learn.mappers import build_mapper
from motorsweep.learn.protocols import MapperTraining, protocol_of
from motorsweep.learn.training import fit_mapper, settle_batch_norm
from torch.nn import functional

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch.backends.mkldnn.flags on a CPU
BASIS = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))


def members_of(depth=3, connection="direct", count=3, protocol="paper", dropout=0.0, **config):
    """Members with trials, seeds, targets, L1 and (where dropout is on) dropout of their own."""
    generator, members = np.random.default_rng(0), []
    for k in range(count):
        share = dropout and dropout + 0.1 * k
        codes = generator.random((20, 8, 8, 8)).astype(np.float32)
        outputs = 2 if connection == "synergy" and protocol == "paper" else 3
        how = {"basis": BASIS, "dropout": share, "n": 8, "protocol": protocol}
        member = Member(
            build=lambda how=how: build_mapper(depth, connection, 3, **how),
            codes=codes,
            targets=np.stack([codes[:, o : o + 2].mean((1, 2, 3)) for o in range(outputs)], axis=1),
            train=generator.permutation(20)[:14],
            config=MapperTraining(
                protocol=protocol,
                **{"epochs": 4, "batch": 6, "decay_every": 2, "l1": 10.0 ** -(3 + k), "dropout": share} | config,
            ),
            seed=5 + k,
        )
        members.append(member)
    return members


def alone(member):
    """The member's own training, in the loop of all trainings, in float64."""
    module, config = seeded(member.seed, member.build).double(), member.config
    x = torch.from_numpy(member.codes[member.train]).double()[:, None]
    y = torch.from_numpy(member.targets[member.train]).double()
    dense = protocol_of(config.protocol).l1_dense
    kernels = [layer.weight for layer in module.weighted() if dense or isinstance(layer, torch.nn.Conv3d)]
    optimizer = torch.optim.Adadelta(module.parameters(), lr=config.learning_rate, rho=config.rho, eps=1e-7)

    def inputs(batch):
        return x[batch], y[batch]

    def error(codes, wanted):
        return functional.mse_loss(module.outputs(codes), wanted)

    rows = np.arange(len(x))
    loss = train_epochs(module, optimizer, kernels, inputs, error, rows, config, member.seed, "", None, None)
    if protocol_of(config.protocol).settle_batch_norm:
        settle_batch_norm(module.eval(), x)
    return module.eval(), loss


def in_float64(member):
    return Member(**{**vars(member), "build": lambda: member.build().double()})


@pytest.mark.parametrize(
    ("depth", "connection", "protocol", "dropout"),
    [
        (3, "direct", "paper", 0.0),
        (3, "direct", "released", 0.3),
        (6, "synergy", "released", 0.0),
        (3, "synergy", "paper", 0.2),
        (3, "residual", "paper", 0.1),
    ],
)
def test_each_member_ends_where_it_ends_alone(depth, connection, protocol, dropout):
    members = members_of(depth, connection, protocol=protocol, dropout=dropout)
    for member, fitted in zip(members, fit_fused_mappers([in_float64(m) for m in members]), strict=True):
        module, loss = alone(member)
        assert fitted.error is None
        np.testing.assert_allclose(fitted.loss, loss, rtol=1e-10)
        for name, values in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            torch.testing.assert_close(fitted.module.state_dict()[name], values, rtol=1e-7, atol=1e-9)


def test_float32_follows_fit_mapper():
    """At a low rate: with Adadelta's small epsilon a rate of 1 lets rounding grow tenfold a step."""
    members = members_of(dropout=0.2, learning_rate=0.02)
    for member, fitted in zip(members, fit_fused_mappers(members), strict=True):
        arguments = (member.build, member.codes, member.targets, member.train, member.config, member.seed)
        np.testing.assert_allclose(fitted.loss, fit_mapper(*arguments)[1], rtol=1e-4)


@pytest.mark.parametrize("depth", [3, 6])
def test_values_and_gradients_are_those_of_the_members_in_float64(depth):
    torch.manual_seed(0)
    modules = [build_mapper(depth, "direct", 3, n=8, dropout=0.0).double() for _ in range(3)]
    fused = FusedMappers(modules)
    codes = torch.rand(3, 5, 8, 8, 8, dtype=torch.float64)
    targets = torch.rand(3, 5, 3, dtype=torch.float64)
    ones = [torch.ones(3, 5, units, dtype=torch.float64) for units in (128, 32)]
    outputs = fused.outputs(codes, ones)
    ((outputs - targets) ** 2).sum().backward()
    for parameter in fused.parameters():
        parameter.data = parameter.grad
    gradients = [build_mapper(depth, "direct", 3, n=8).double() for _ in modules]
    fused.copy_to(gradients)
    for member, (module, gradient) in enumerate(zip(modules, gradients, strict=True)):
        output = module.outputs(codes[member][:, None])
        ((output - targets[member]) ** 2).sum().backward()
        torch.testing.assert_close(outputs[member], output, rtol=1e-10, atol=1e-12)
        for own, copied in zip(module.parameters(), gradient.parameters(), strict=True):
            torch.testing.assert_close(copied, own.grad, rtol=1e-9, atol=1e-11)
        assert (fused.absolute_weights(True)[member] > fused.absolute_weights(False)[member]).item()


def test_dropout_is_drawn_as_torch_draws_it():
    modules = [build_mapper(3, "direct", 3, n=8, dropout=share) for share in (0.2, 0.5)]
    noise = FusedMappers(modules).draw_dropout([torch.Generator().manual_seed(k) for k in (3, 4)], 7)
    assert [tuple(n.shape) for n in noise] == [(2, 7, 128), (2, 7, 32)]
    for member, (share, seed) in enumerate([(0.2, 3), (0.5, 4)]):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer, units in enumerate((128, 32)):
                expected = functional.dropout(torch.ones(7, units), share, training=True)
                assert torch.equal(noise[layer][member], expected)


def test_a_lost_member_is_lost_alone():
    members = members_of()
    expected = [fitted.loss for fitted in fit_fused_mappers(members)]
    poisoned = members[1].codes.copy()
    poisoned[members[1].train[0]] = np.nan
    members[1] = Member(**{**vars(members[1]), "codes": poisoned})
    fitted = fit_fused_mappers(members)
    assert isinstance(fitted[1].error, ConvergenceError)
    assert "epoch 1 of 4: the loss or some weights are no longer finite" in str(fitted[1].error)
    for k in (0, 2):
        assert fitted[k].error is None
        assert fitted[k].loss == expected[k]
        assert all(torch.isfinite(p).all() for p in fitted[k].module.parameters())


def test_what_cannot_be_fused_is_said():
    three, six = members_of()[0], members_of(depth=6)[0]
    with pytest.raises(InputError, match="2 mappers: they are of 2 architectures"):
        fit_fused_mappers([three, six])
    fewer = Member(**{**vars(three), "train": three.train[:10]})
    with pytest.raises(InputError, match="10 and 14 training trials and 1 protocols"):
        fit_fused_mappers([three, fewer])
    longer = members_of(epochs=5)[0]
    with pytest.raises(InputError, match="14 training trials and 2 protocols"):
        fit_fused_mappers([three, longer])
    with pytest.raises(InputError, match="fused training of 0 mappers"):
        fit_fused_mappers([])


def test_bfloat16_members_follow_float32():
    members = members_of(epochs=2, learning_rate=0.02)
    exact = [fitted.loss for fitted in fit_fused_mappers(members)]
    with torch.backends.mkldnn.flags(enabled=False):  # see test_accelerator.py
        rounded = [fitted.loss for fitted in fit_fused_mappers(members, Accelerator(precision="bfloat16"))]
    np.testing.assert_allclose(rounded, exact, rtol=0.05)


def test_on_the_cpu_the_loop_is_kept():
    assert not fused_pays(members_of(), Accelerator(deterministic=False))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
def test_on_a_gpu_members_follow_the_cpu():
    from motorsweep.learn.accelerator import accelerator_of

    members = members_of(dropout=0.2, learning_rate=0.02)
    expected = [fitted.loss for fitted in fit_fused_mappers(members)]
    for precision, rtol in (("float32", 1e-3), ("bfloat16", 0.1)):
        found = [fitted.loss for fitted in fit_fused_mappers(members, accelerator_of("cuda", precision))]
        np.testing.assert_allclose(found, expected, rtol=rtol)
    assert isinstance(fused_pays(members, accelerator_of("cuda", deterministic=False)), bool)
