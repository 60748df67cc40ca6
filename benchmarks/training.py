"""Training steps as motorsweep computes them, beside plain torch modules in the same process, and what a study costs.

Run as ``python benchmarks/training.py``; some three minutes, ``--quick`` half a minute on smaller volumes. In each
repeat every way has its turn, so that whatever else the machine does disturbs all alike. Both ways start from the same
weights; how far their losses are from those in float64 is printed beside the times. Seconds are medians over repeats,
with the smallest and the largest.

A step is forward, mean squared error, L1 penalty, backward and optimizer. Plain torch modules are the layers in the
order of the paper with torch's defaults (contiguous memory), the output times the mask.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe, row, set_threads, table
from motorsweep.hpc.sweep import Sweep
from motorsweep.jobs.config import load_study_config
from motorsweep.learn.accelerator import Accelerator, accelerator_of
from motorsweep.learn.autoencoder import build_autoencoder
from motorsweep.learn.fused_layers import FusedMappers
from motorsweep.learn.mappers import build_mapper
from motorsweep.learn.protocols import protocol_of
from torch import nn
from torch.nn import functional

STUDY = Path(__file__).resolve().parent.parent / "examples" / "paper.toml"
CORES = 16
L1 = 1e-4
GOAL = 3.0


def main():
    arguments = parse()
    set_threads(max(arguments.threads))
    print(describe(" and ".join(map(str, arguments.threads))))
    print(f"- torch {torch.__version__}; {arguments.repeats} repeats")
    seconds_volume = autoencoders(arguments)
    seconds_code = mappers(arguments)
    fused(arguments)
    on_gpu(arguments)
    projection(seconds_volume, seconds_code, arguments)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="volumes of 32³, two repeats")
    parser.add_argument("--n", type=int, help="voxels along each axis of a volume (default 64)")
    parser.add_argument("--batch", type=int, default=4, help="volumes of an autoencoder's step (default 4)")
    parser.add_argument("--repeats", type=int, help="(default 4)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch (default 1 2)")
    arguments = parser.parse_args()
    arguments.n = arguments.n or (32 if arguments.quick else 64)
    arguments.repeats = arguments.repeats or (2 if arguments.quick else 4)
    return arguments


# ---- timing ---------------------------------------------------------------------------------------------------------


def in_turn(steps, repeats, synchronize=lambda: None):
    """Seconds (by the clock, of the processor) of each way's step in each repeat, and its losses.

    One round before the clock starts.
    """
    seconds, losses = {name: [] for name in steps}, {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            began = np.array([time.perf_counter(), time.process_time()])
            loss = step()
            synchronize()
            if repeat:
                seconds[name].append(np.array([time.perf_counter(), time.process_time()]) - began)
            losses[name].append(np.asarray(loss))
    return {name: np.array(values).T for name, values in seconds.items()}, losses


def apart(losses, reference):
    """Largest relative difference of any step's loss, as text."""
    return f"{max(np.max(np.abs(a / b - 1)) for a, b in zip(losses, reference)):.0e}"


def milliseconds(seconds):
    seconds, _ = seconds
    return f"{1e3 * np.median(seconds):.3g} ({1e3 * seconds.min():.3g} to {1e3 * seconds.max():.3g})"


def ratio(reference, seconds, clock=0):
    """Of the seconds by the clock, or (1) of the processor."""
    reference, seconds = reference[clock], seconds[clock]
    each = reference / seconds
    return f"**{np.median(reference) / np.median(seconds):.2f}** ({each.min():.2f} to {each.max():.2f})"


# ---- autoencoder ----------------------------------------------------------------------------------------------------


def motor_mask(n):
    """A ball of 30 of 64 voxels, cut by a brain of 70: as much of the cube as the template's motor cortex takes."""
    axis = (np.arange(n) + 0.5) * 64 / n - 32
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return torch.from_numpy((x**2 + y**2 + z**2 < 30**2) & (x**2 + y**2 + (z + 60) ** 2 < 70**2)).float()


def plain_autoencoder(net, mask):
    """The layers as the paper writes them, with the net's weights."""
    e1, e2, code, d1, d2, out = net.convolutions()
    up = nn.Upsample(scale_factor=2, mode="nearest")
    layers = nn.Sequential(e1, nn.ELU(), nn.MaxPool3d(2), e2, nn.ELU(), nn.MaxPool3d(2), code)
    layers.extend([d1, nn.ELU(), up, d2, nn.ELU(), up, out])
    return lambda x: layers(x) * mask


def autoencoder_step(net, forward, volumes):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    kernels = [layer.weight for layer in net.convolutions()]

    def step():
        optimizer.zero_grad()
        error = functional.mse_loss(forward(volumes), volumes)
        (error + L1 * sum(kernel.abs().sum() for kernel in kernels)).backward()
        optimizer.step()
        return error.item()

    return step


def autoencoders(arguments):
    """Processor's seconds a volume of a step on one thread, by kernel."""
    n, batch, found = arguments.n, arguments.batch, {}
    print(f"\n### Autoencoder: one step of {batch} volumes of {n}³, ms")
    print("\nLosses off: of all steps from those in float64, largest relative difference.")
    titles = ["plain torch", "motorsweep", f"ratio (goal {GOAL:g})", "of the processor's seconds", "losses off", ""]
    table("code and output", "mask", "threads", *titles)
    cases = [(1, "motor cortex"), (3, "motor cortex"), (1, "none")]
    for kernel, where in cases[:2] if arguments.quick else cases:
        mask = motor_mask(n) if where != "none" else torch.ones(n, n, n)
        torch.manual_seed(1)
        volumes, net = torch.rand(batch, 1, n, n, n) * mask, build_autoencoder(n, mask, kernel)
        exact = copy.deepcopy(net).double()
        exact = autoencoder_step(exact, exact, volumes.double())
        exact = [exact() for _ in range(arguments.repeats + 1)]
        for threads in arguments.threads if where != "none" else arguments.threads[:1]:
            torch.set_num_threads(threads)
            ours, theirs = copy.deepcopy(net), copy.deepcopy(net)
            steps = {
                "plain": autoencoder_step(theirs, plain_autoencoder(theirs, mask), volumes),
                "ours": autoencoder_step(ours, ours, volumes),
            }
            seconds, losses = in_turn(steps, arguments.repeats)
            share = f"{where} ({100 * mask.mean():.0f} %)"
            told = [milliseconds(seconds[name]) for name in steps]
            told += [ratio(seconds["plain"], seconds["ours"], clock) for clock in (0, 1)]
            row(f"{kernel}³", share, threads, *told, *(f"{name} {apart(losses[name], exact)}" for name in steps))
            if threads == 1 and where != "none":
                found[kernel] = np.median(seconds["ours"][1]) / batch * (64 / n) ** 3
        torch.set_num_threads(1)
    return found


# ---- mappers --------------------------------------------------------------------------------------------------------


def mapper_step(net, codes, targets, forward=None):
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.95, eps=1e-7)
    kernels = [layer.weight for layer in net.weighted()]

    def step():
        optimizer.zero_grad()
        error = functional.mse_loss((forward or net.outputs)(codes), targets)
        (error + L1 * sum(kernel.abs().sum() for kernel in kernels)).backward()
        optimizer.step()
        return error.item()

    return step


def data(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, 16, 16, 16, generator=generator), torch.rand(*shape, 15, generator=generator)


def mappers(arguments):
    """Processor's seconds a trial of a step on one thread, by depth."""
    found = {}
    torch.set_num_threads(1)
    print("\n### Mapper: one step on codes of 16³, one thread, ms")
    print("\nLoss off: of the first step from that in float64 (Adadelta lets rounding grow from step to step).")
    table("layers", "batch", "plain torch", "motorsweep", "ratio", "of the processor's seconds", "loss off", "")
    for depth in (3, 6):
        for batch in (16, 32):
            torch.manual_seed(1)
            net, (codes, targets) = build_mapper(depth, "direct", dropout=0.0), data(batch)
            exact = mapper_step(copy.deepcopy(net).double(), codes[:, None].double(), targets.double())()
            theirs = copy.deepcopy(net)
            steps = {
                "plain": mapper_step(theirs, codes[:, None], targets, theirs.layers),
                "ours": mapper_step(Accelerator().place(net), codes[:, None], targets),
            }
            seconds, losses = in_turn(steps, 3 * arguments.repeats)
            told = [milliseconds(seconds[name]) for name in steps]
            told += [ratio(seconds["plain"], seconds["ours"], clock) for clock in (0, 1)]
            row(depth, batch, *told, *(f"{name} {apart(losses[name][:1], [exact])}" for name in steps))
            found[depth] = np.median(seconds["ours"][1]) / batch
    return found


def fused_step(net, accelerator, codes, targets):
    net = net.to(accelerator.device)
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.95, eps=1e-7)
    codes, targets = accelerator.tensor(codes), accelerator.tensor(targets)
    noise = [torch.ones(*codes.shape[:2], units, device=accelerator.device) for units in (128, 32)]

    def loss(codes, targets, *noise):
        error = functional.mse_loss(net.outputs(codes, noise), targets, reduction="none").mean((1, 2))
        return error, L1 * net.absolute_weights(dense=True)

    gradients = accelerator.gradients(net.train(), loss)

    def step():
        error = gradients(codes, targets, *noise)
        optimizer.step()
        return error.cpu().numpy()

    return step


def side_by_side(depth, members, accelerator):
    """Steps of members in turn, and of all as one program, with the same weights."""
    torch.manual_seed(1)
    nets = [build_mapper(depth, "direct", dropout=0.0) for _ in range(members)]
    codes, targets = data(members, 32)
    steps = {"fused": fused_step(FusedMappers(nets), accelerator, codes, targets)}
    if accelerator.device.type == "cpu":
        placed = [accelerator.place(net) for net in nets]
        alone = [mapper_step(net, c[:, None], t) for net, c, t in zip(placed, codes, targets)]
    else:
        parts = zip(nets, codes[:, None], targets[:, None])
        alone = [fused_step(FusedMappers([net]), accelerator, c, t) for net, c, t in parts]
    steps["loop"] = lambda: np.hstack([step() for step in alone])
    return steps


def fused(arguments):
    print("\n### Several mappers, batch 32, one thread: one after another, and as one program, ms for all")
    table("layers", "mappers", "loop", "one program", "loop over program", "losses apart")
    for depth in (3,) if arguments.quick else (3, 6):
        for members in (4, 10):
            seconds, losses = in_turn(side_by_side(depth, members, Accelerator()), arguments.repeats)
            told = [milliseconds(seconds[name]) for name in ("loop", "fused")]
            differ = apart(losses["fused"][:1], losses["loop"][:1])
            row(depth, members, *told, ratio(seconds["loop"], seconds["fused"]), f"{differ} (first step)")


# ---- GPU ------------------------------------------------------------------------------------------------------------


def on_gpu(arguments):
    print("\n### GPU")
    if not torch.cuda.is_available():
        print("\nno GPU here")
        return
    kinds = {
        "float32": accelerator_of("cuda", "float32", capture=False),
        "bfloat16": accelerator_of("cuda", "bfloat16", capture=False),
        "bfloat16, captured": accelerator_of("cuda", "bfloat16"),
    }
    print(f"\n{torch.cuda.get_device_name()}; one autoencoder step of 32 volumes of {arguments.n}³, ms")
    table("layers", *kinds, "loss of the first step")
    for form in ("plain", "transposed"):
        steps = {name: gpu_autoencoder_step(arguments.n, form, accelerator) for name, accelerator in kinds.items()}
        seconds, losses = in_turn(steps, 5 * arguments.repeats, torch.cuda.synchronize)
        row(form, *(milliseconds(seconds[name]) for name in kinds), ", ".join(f"{losses[n][0]:.5f}" for n in kinds))
    print("\nmappers, batch 32, captured, bfloat16: one after another, and as one program, ms for all")
    table("layers", "mappers", "loop", "one program", "loop over program")
    for depth in (3, 6):
        for members in (10, 40):
            steps = side_by_side(depth, members, kinds["bfloat16, captured"])
            seconds, _ = in_turn(steps, 5 * arguments.repeats, torch.cuda.synchronize)
            told = [milliseconds(seconds[name]) for name in ("loop", "fused")]
            row(depth, members, *told, ratio(seconds["loop"], seconds["fused"]))


def gpu_autoencoder_step(n, form, accelerator):
    torch.manual_seed(1)
    mask = motor_mask(n)
    net = accelerator.place(build_autoencoder(n, mask))
    net.form = form
    volumes = accelerator.tensor(torch.rand(32, 1, n, n, n) * mask)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def loss(x):
        penalty = L1 * sum(layer.weight.abs().sum() for layer in net.convolutions())
        return functional.mse_loss(net(x), x), penalty

    gradients = accelerator.gradients(net, loss)

    def step():
        error = gradients(volumes)
        optimizer.step()
        return error.item()

    return step


# ---- projection -----------------------------------------------------------------------------------------------------


def projection(seconds_volume, seconds_code, arguments):
    """What the paper's study costs with these steps, from the runs that its file asks for."""
    config = load_study_config(STUDY)
    sweep = Sweep(config, "projection")
    trials, folds = sum(config.stimulation.trials), config.validation.folds
    calibration = trials - round(trials * config.validation.test_fraction)
    kernel = protocol_of(config.protocol).code_kernel
    finals = finals_of(sweep)
    kinds = {"cross-validation": sweep.validation, "final": finals}
    print(f"\n### {STUDY.name}: {trials} trials, {calibration} to calibrate, {folds} folds; core-hours by these steps")
    table("", "trainings", "epochs", "core-hours")
    seen = [seen_by(run, calibration, folds) for run in sweep.autoencoders]
    hours = [sum(seen) * config.autoencoder.epochs * seconds_volume[kernel] / 3600]
    row(f"autoencoders ({kernel}³)", len(seen), config.autoencoder.epochs, f"{hours[0]:.1f}")
    for name, runs in kinds.items():
        for depth in sweep.depths:
            seen = [seen_by(run, calibration, folds) for run in runs if run.cell.depth == depth]
            hours.append(sum(seen) * config.mappers.epochs * seconds_code[depth] / 3600)
            row(f"mappers, {depth} layers, {name}", len(seen), config.mappers.epochs, f"{hours[-1]:.1f}")
    print(
        f"\nIn all {sum(hours):.1f} core-hours: **{sum(hours) / CORES:.1f} hours on {CORES} cores**, if they are as "
        "fast as this one, each process has one thread, and none waits for another. Not counted: the fields, reading "
        "and scaling volumes, encoding, baselines, and the start of processes. Of a step the processor's seconds are "
        "taken, which other work on the machine disturbs less."
        + (f" Steps of {arguments.n}³ were scaled to 64³ by the number of voxels." if arguments.n != 64 else "")
    )


def finals_of(sweep):
    """The runs of the test table and of the learning curve, with what they need."""
    chosen = sweep.choose(lambda run_id: 0.0)
    runs = [run for count in (None, *sweep.curve_trials) for run in sweep.final(chosen, count).values()]
    return list({run.id: run for run in [*runs, *sweep.below(runs)]}.values())


def seen_by(run, calibration, folds):
    """Trials that a run trains on."""
    if run.fold is None:
        return getattr(run, "trials", None) or calibration
    return calibration * (folds - 1) / folds


if __name__ == "__main__":
    main()
