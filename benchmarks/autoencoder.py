"""Time of one autoencoder training step, as motorsweep computes it and as the layers are written.

    python benchmarks/autoencoder.py [--n 64] [--batch 4] [--threads 1] [--steps 3]

Both steps are forward, mean squared error, L1 penalty on the kernels, backward and SGD with momentum, in float32.
Both start from the same weights; the loss of the first step is printed for both, as a check.
"""

import argparse
import time

import torch
from motorsweep.learn.autoencoder import build_autoencoder
from torch import nn


def plain_layers(net: nn.Module) -> nn.Module:
    """The same weights in plain torch layers, in the order of the paper."""
    e1, e2, code, d1, d2, out = net.convolutions()
    up = nn.Upsample(scale_factor=2, mode="nearest")
    elu, pool = nn.ELU(), nn.MaxPool3d(2)
    return nn.Sequential(e1, elu, pool, e2, elu, pool, code, d1, elu, up, d2, elu, up, out)


def seconds_per_step(forward, net: nn.Module, volumes: torch.Tensor, steps: int) -> tuple[float, float]:
    """(fastest step in seconds, loss of the first step); one step before the clock starts."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    kernels = [layer.weight for layer in net.convolutions()]
    best, first = float("inf"), None
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = ((forward(volumes) - volumes) ** 2).mean() + 1e-4 * sum(k.abs().sum() for k in kernels)
        loss.backward()
        optimizer.step()
        best = min(best, time.perf_counter() - start) if first is not None else best
        first = loss.item() if first is None else first
    return best, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("n", 64), ("batch", 4), ("threads", 1), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = {}
    for kind in ("fast", "plain"):
        torch.manual_seed(1)
        net = build_autoencoder(options.n)
        volumes = torch.rand(options.batch, 1, options.n, options.n, options.n)
        forward = net if kind == "fast" else plain_layers(net)
        times[kind], loss = seconds_per_step(forward, net, volumes, options.steps)
        print(f"{kind:5s}  {times[kind]:7.3f} s a step   loss of the first step {loss:.7f}")
    shape = f"batch {options.batch}, {options.n}³, {options.threads} thread(s)"
    print(f"ratio  {times['plain'] / times['fast']:7.2f}   ({shape})")


if __name__ == "__main__":
    main()
