"""dA/dt of a coil at the nodes of a head: the table at several tolerances, beside two direct sums in Numba.

Run as ``python benchmarks/dadt.py``; threads are those of NUMBA_NUM_THREADS. References, in the same process and
in the same repeats: "plain" is one parallel loop over points with an inner loop over dipoles; "blocked" is the
package's own sum (`tolerance=0`), whose inner loop over points uses the vector unit. The coil is held over the head at
4 to 6 mm in poses that differ for each repeat. "first" is the first call of all, which makes most of the table;
"new pose" makes the cubes that the pose still asks for, fewer with each pose; "made" is the same poses again, all
references and tolerances in turn: what is left after some hundred poses. Ratios are those of medians. Errors are of
the worst pose, against the blocked sum: in relative L2, at any point over the largest dA/dt of all, and at any point
over the dA/dt there.
"""

import argparse
import os
import time
from pathlib import Path

import numba
import numpy as np
from motorsweep.sim.coil import MU0_OVER_4PI, Coil, load_coil
from motorsweep.sim.pose import Pose
from numba import njit, prange

DATA = Path(os.environ.get("MOTORSWEEP_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
KNOB_M = np.array([-0.037, -0.021, 0.058])


@njit(parallel=True, fastmath=True)
def plain_sum(points, positions, moments, out):
    for i in prange(points.shape[0]):
        ax, ay, az = 0.0, 0.0, 0.0
        for d in range(positions.shape[0]):
            x, y, z = points[i, 0] - positions[d, 0], points[i, 1] - positions[d, 1], points[i, 2] - positions[d, 2]
            weight = 1.0 / (x * x + y * y + z * z) ** 1.5
            ax += (moments[d, 1] * z - moments[d, 2] * y) * weight
            ay += (moments[d, 2] * x - moments[d, 0] * z) * weight
            az += (moments[d, 0] * y - moments[d, 1] * x) * weight
        out[i, 0], out[i, 1], out[i, 2] = ax, ay, az


def plain(coil, points, pose):
    positions, moments = coil.placed(pose)
    out = np.empty_like(points)
    plain_sum(points, positions, moments * (MU0_OVER_4PI * 1e6), out)
    return out


def nodes_of(path, count):
    """Nodes of a head, m, or points in a ball of a head's size where there is no file."""
    if path and Path(path).is_file():
        from motorsweep.sim.head import load_head

        return load_head(str(path)).nodes, str(path)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 3))
    points *= 0.09 * rng.uniform(size=(count, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    return points + np.array([0, 0, 0.01]), f"{count} random points in a ball of 90 mm"


def poses_over(nodes, count, seed=1):
    """Poses whose casing stands 4 to 6 mm off the highest node below it, around the axis through the hand knob."""
    rng, poses = np.random.default_rng(seed), []
    for _ in range(count):
        inwards = -(KNOB_M + rng.normal(0, 0.01, 3))
        z = inwards / np.linalg.norm(inwards)
        y = np.cross(z, rng.normal(size=3))
        y /= np.linalg.norm(y)
        near = np.linalg.norm(nodes - (nodes @ z)[:, None] * z, axis=1) < 0.06
        height = (nodes[near] @ z).min() - rng.uniform(0.004, 0.006)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = np.stack([np.cross(y, z), y, z], axis=1), height * z
        poses.append(Pose(matrix))
    return poses


def seconds(function, *arguments, **keywords):
    start = time.perf_counter()
    result = function(*arguments, **keywords)
    return time.perf_counter() - start, result


def spread(times):
    low, middle, high = 1e3 * np.percentile(times, [25, 50, 75])
    return f"{middle:7.1f} ({low:.1f}-{high:.1f})"


def measure(coil, points, poses, tolerances):
    """Times of both references and of each tolerance, first calls, errors, and the tables."""
    tabled = {tolerance: Coil("table", coil.positions, coil.moments) for tolerance in tolerances}
    plain(coil, points, poses[0])
    for tolerance in (0, tolerances[0]):  # compile
        Coil("compile", coil.positions, coil.moments).dadt(points, poses[0], tolerance=tolerance)
    first = {t: seconds(c.dadt, points, poses[0], tolerance=t)[0] for t, c in tabled.items()}
    times = {name: [] for name in ("plain", "blocked", *tolerances, *(("new", t) for t in tolerances))}
    errors = {tolerance: np.zeros(3) for tolerance in tolerances}
    for pose in poses[1:]:
        exact = coil.dadt(points, pose, tolerance=0)
        size = np.linalg.norm(exact, axis=1)
        for tolerance, table in tabled.items():
            taken, field = seconds(table.dadt, points, pose, tolerance=tolerance)
            times["new", tolerance].append(taken)
            error = np.linalg.norm(field - exact, axis=1)
            these = np.linalg.norm(error) / np.linalg.norm(size), error.max() / size.max(), (error / size).max()
            errors[tolerance] = np.maximum(errors[tolerance], these)
    for pose in poses[1:]:
        times["plain"].append(seconds(plain, coil, points, pose)[0])
        times["blocked"].append(seconds(coil.dadt, points, pose, tolerance=0)[0])
        for tolerance, table in tabled.items():
            times[tolerance].append(seconds(table.dadt, points, pose, tolerance=tolerance)[0])
    return times, first, errors, tabled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default=DATA / "heads" / "ny_head_320k.msh.gz", help="head mesh")
    parser.add_argument("--nodes", type=int, default=320_000, help="points, where there is no head file")
    parser.add_argument("--coil", default=DATA / "coils" / "MagStim_D70.ccd", help="coil file or built-in name")
    parser.add_argument("--poses", type=int, default=16, help="poses, one a repeat, after the first")
    arguments = parser.parse_args()
    points, where = nodes_of(arguments.head, arguments.nodes)
    path = Path(arguments.coil)
    coil = load_coil(arguments.coil if path.is_file() or not path.suffix else "magstim-70mm")
    tolerances = (1e-3, 1e-4, 1e-5, 1e-6)
    times, first, errors, tabled = measure(coil, points, poses_over(points, 1 + arguments.poses), tolerances)
    print(f"{len(points)} points ({where}), {len(coil.positions)} dipoles ({coil.name}),")
    print(f"{numba.get_num_threads()} threads, {arguments.poses} poses; milliseconds a pose: median (quartiles)\n")
    for name in ("plain", "blocked"):
        print(f"{name:16s} {spread(times[name])}")
    heads = (
        "table",
        "made",
        "plain /",
        "blocked /",
        "new pose",
        "blocked /",
        "first",
        "memory",
        "error: L2",
        "of largest",
    )
    print("\n{:16s} {:>21s} {:>8s} {:>9s} {:>21s} {:>9s} {:>8s} {:>8s} {:>9s} {:>10s}   of local".format(*heads))
    for tolerance in tolerances:
        made, new = times[tolerance], times["new", tolerance]
        plainly, blocked = (np.median(times[name]) for name in ("plain", "blocked"))
        print(
            f"tolerance {tolerance:.0e}  {spread(made):>21s} {plainly / np.median(made):7.1f}x "
            f"{blocked / np.median(made):8.1f}x {spread(new):>21s} {blocked / np.median(new):8.1f}x "
            f"{1e3 * first[tolerance]:5.0f} ms {tabled[tolerance].table(tolerance).nbytes / 1e6:5.1f} MB "
            "{:9.1e} {:10.1e} {:10.1e}".format(*errors[tolerance])
        )


if __name__ == "__main__":
    main()
