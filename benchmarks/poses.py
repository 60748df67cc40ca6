"""Volumes of many coil poses, everything counted: exact and by modes, beside the usual recipe in the same process.

Run as ``python benchmarks/poses.py``. The defaults are for the head of 320 k nodes among others' data
(MOTORSWEEP_DATA), some fifteen minutes and 12 GB; where it is absent, the template head is taken. ``--head sphere``
is a trial of two minutes, of half a minute without modes (``--ways usual exact``). In each repeat every way has its
turn, so that whatever else the machine does disturbs all alike, with new poses: the usual recipe (see
usual_recipe.py) with the first few of them, one after another, the others with all, in blocks. A pose is counted from
its matrix to |E| in Zarr. "First pose" belongs to the set-up: it compiles, and makes most of the table of dA/dt.
Seconds are medians over repeats, with the smallest and the largest.
"""

import argparse
import functools
import shutil
import tempfile
import time
from pathlib import Path

import numba
import numpy as np
from dadt import DATA
from machine import describe, held_gb, peak_gb, row, set_threads, table
from motorsweep.hpc.by_modes import ModesTask, serve_shard
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.sim.basis import make_basis
from motorsweep.sim.pose import random_poses
from motorsweep.sim.pose_region import PoseRegion
from motorsweep.sim.solve import SolverConfig
from motorsweep.sim.volume import locate
from motorsweep.zarr_store.bases import basis_path, write_basis
from ways import SHARD, Way, coil_of, coil_source, exact, head_of, over_cortex, store, usual, watch_all

PARTS = ("dA/dt", "load", "solve", "recovery, sampling", "Zarr", "other", "all")
GOALS = {"first": 25, "second": 15}
SECONDS_GOAL, SAME, GOALS_NODES = 0.4, 1e-4, 300_000
# Of the modes: radius, angles, distances, tilt.
REGION = (0.030, (-180.0, 180.0), (0.004, 0.010), 10.0)
UNSEEN_SEED, SERVED_SEED = 1, 2
SERVED_POSES, WARM, PART = 2048, 4, 8  # shards: of a worker before the clock, and timed together


def main():
    arguments = parse()
    set_threads(arguments.threads)
    head, note = head_of(arguments.head)
    knob_m, grid = over_cortex(head)
    coil = functools.partial(coil_of, arguments.coil)
    print(describe(arguments.threads))
    print(f"- head: {note}, {len(head.nodes)} nodes, {len(head.tets)} tetrahedra; coil: {coil().name}")
    usually = f", of which {arguments.reference} by the usual recipe" if "usual" in arguments.ways else ""
    print(f"- {arguments.repeats} repeats of {arguments.poses} poses{usually}")
    count = arguments.poses * arguments.repeats
    poses = random_poses(head, knob_m, count + 1, seed=arguments.seed)
    folder = Path(tempfile.mkdtemp())
    try:
        ways = set_up(arguments, head, coil, grid, poses, folder)
        for repeat in range(arguments.repeats):
            block = poses[1 + repeat * arguments.poses :][: arguments.poses]
            for way in ways.values():
                way.run(block[: way.poses], repeat)
        report(ways, arguments.threads)
        if "usual" in ways:
            compare(ways, head, grid, poses[1 : 1 + arguments.reference])
        if "modes" in arguments.ways:
            modes(arguments, head, coil(), grid, knob_m, ways, folder)
    finally:
        shutil.rmtree(folder)
    print(f"\nLargest memory of the process, all ways together: {peak_gb():.1f} GB.")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default=DATA / "heads" / "ny_head_320k.msh.gz", help="mesh, 'template' or 'sphere'")
    parser.add_argument("--coil", default=DATA / "coils" / "MagStim_D70.ccd", help="coil file or built-in name")
    parser.add_argument("--poses", type=int, default=64, help="poses of a repeat (default 64)")
    parser.add_argument("--reference", type=int, default=2, help="of these by the usual recipe (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="(default 5)")
    parser.add_argument("--order", type=int, choices=(1, 2), help="elements of this order alone, not of both")
    parser.add_argument("--kind", default="direct", help="solver of the exact ways: direct (default), iterative, auto")
    parser.add_argument("--ways", nargs="+", default=["usual", "exact", "modes"], choices=["usual", "exact", "modes"])
    parser.add_argument("--unseen", type=int, default=200, help="poses that test the modes (default 200)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of the modes (default 0.001)")
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the poses")
    arguments = parser.parse_args()
    arguments.reference = min(arguments.reference, arguments.poses)
    if (arguments.poses % SHARD and arguments.poses > SHARD) or (
        arguments.reference % SHARD and arguments.reference > SHARD
    ):
        parser.error(f"over {SHARD} poses must be whole shards of {SHARD}")
    return arguments


# ---- ways -----------------------------------------------------------------------------------------------------------


def set_up(arguments, head, coil, grid, poses, folder):
    """The ways that were asked for, each after its first pose."""
    watch_all()
    makers, ways = {}, {}
    if "usual" in arguments.ways:
        makers["usual"] = ("usual recipe", lambda: usual(head, coil(), grid), arguments.reference)
    for name, title, order in (("first", "first order", 1), ("second", "second order in the cube", 2)):
        if "exact" in arguments.ways and arguments.order in (None, order):
            config = SolverConfig(kind=arguments.kind, order=order)
            makers[name] = (title, functools.partial(exact, head, coil, grid, config), arguments.poses)
    for name, (title, make, count) in makers.items():
        held, began = held_gb(), time.perf_counter()
        solver, volumes, unknowns = make()
        taken = time.perf_counter() - began
        study = store(folder / name, head, grid, poses[: count * arguments.repeats], min(count, SHARD))
        ways[name] = Way(title, solver, volumes, study, count, unknowns, taken, held_gb() - held)
        began = time.perf_counter()
        volumes(poses[:1])
        ways[name].first_s = time.perf_counter() - began
    return ways


# ---- report ---------------------------------------------------------------------------------------------------------


def report(ways, threads):
    table("seconds a pose", *(way.title for way in ways.values()))
    for name in PARTS[:-1]:
        row(name, *(f"{np.median(way.seconds(name)):.3f}" for way in ways.values()))
    row("**all**", *(spread(way.seconds()) for way in ways.values()))
    if "usual" in ways:
        usual_s = ways["usual"].seconds()
        row("poses per second, over the usual recipe's", *(ratio(usual_s, way.seconds()) for way in ways.values()))
    row("set-up, s", *(f"{way.setup_s:.1f}" for way in ways.values()))
    row("first pose, s", *(f"{way.first_s:.2f}" for way in ways.values()))
    row("unknowns", *(way.unknowns for way in ways.values()))
    row("memory that the set-up left, GB", *(f"{way.memory_gb:.1f}" for way in ways.values()))
    print()
    for name, goal in GOALS.items():
        if name in ways and "usual" in ways:
            tell_goal(ways[name], ways["usual"], goal, threads)


def tell_goal(way, reference, goal, threads):
    taken, usual_s = np.median(way.seconds()), np.median(reference.seconds())
    summed = np.median(reference.seconds("dA/dt"))
    ideal = summed + (usual_s - summed) / threads
    large = way.unknowns >= GOALS_NODES
    told = [f" (goal {goal})", f" (goal {SECONDS_GOAL})"] if large else [" (goals are for the head of 320 k nodes)", ""]
    print(
        f"- {way.title}: {usual_s / taken:.1f} times the usual recipe's poses per second{told[0]}; {ideal / taken:.1f} "
        f"times if all that has one thread there were spread over {threads} without loss; {taken:.3f} s a volume"
        f"{told[1]}; {way.solver.kind}, largest residual {max(r.residual for r in way.solver.reports):.0e}"
    )


def spread(seconds):
    return f"**{np.median(seconds):.3f}** ({seconds.min():.3f} to {seconds.max():.3f})"


def ratio(reference, seconds):
    each = reference / seconds
    return f"**{np.median(reference) / np.median(seconds):.1f}** ({each.min():.1f} to {each.max():.1f})"


def compare(ways, head, grid, poses):
    """What the fields of the ways have in common, in the voxels of the head and of its brain."""
    recipe = ways["usual"].solver
    tissue = tissue_of(head, grid)
    brain = np.isin(tissue, (1, 2))
    fields = {name: way.volumes(poses).reshape(len(poses), -1, 3) for name, way in ways.items()}
    dadt = [recipe.dadt(pose) for pose in poses]
    beside = [recipe.recovered_beside_dadt(recipe.potential(recipe.load(each)[1]), each) for each in dadt]
    print(f"\nThe usual recipe took {recipe.iterations} iterations. Differences, relative L2, of {len(poses)} poses:\n")
    if "first" in ways:
        same, recovered = apart(fields["first"], beside), apart(fields["first"], fields["usual"])
        print(f"- first order from the usual recipe, dA/dt left as it is: {same:.1e} in the cube (goal {SAME:.0e})")
        print(f"- and where dA/dt is recovered too, as the usual recipe does: {recovered:.1e}")
    if "second" in ways:
        for name in ("usual", "first"):
            if name in ways:
                off = apart(fields[name], fields["second"], brain)
                print(f"- {ways[name].title} from second order in the cube, white and grey matter: {100 * off:.1f} %")


def apart(fields, truth, where=slice(None)):
    return max(np.linalg.norm((f - t)[where]) / np.linalg.norm(t[where]) for f, t in zip(fields, truth))


def tissue_of(head, grid):
    element, _ = locate(head.nodes, head.tets, grid.points())
    return np.where(element >= 0, head.tissue[element], 0)


# ---- modes ----------------------------------------------------------------------------------------------------------


def modes(arguments, head, coil, grid, knob_m, ways, folder):
    """Basis made, volumes per second written, errors on unseen poses beside their estimates."""
    print("\n### by modes\n", flush=True)
    region = PoseRegion(tuple(knob_m), *REGION, bool(knob_m[0] <= 0))
    solver = next((ways[name].solver for name in ("second", "first") if name in ways), None)
    if solver is None:
        solver, *_ = exact(head, lambda: coil, grid, SolverConfig(kind=arguments.kind, order=arguments.order or 2))
    began = time.perf_counter()
    basis = make_basis(solver, grid, region, arguments.tolerance, head)
    print(
        f"- basis of {basis.rank} modes, dA/dt at {len(basis.points)} points, {basis.fields.nbytes / 1e6:.0f} MB, for"
    )
    print(f"  {region.as_dict()}")
    print(f"- made in {time.perf_counter() - began:.0f} s (goal: under 180), the exact solver being set up")
    unseen = region.draw(head, arguments.unseen, seed=UNSEEN_SEED, coil=coil)
    estimates = alone(basis, coil, unseen)
    served(arguments, basis, coil, head, grid, region, folder, ways.get("usual"))
    errors = unseen_errors(solver, basis, coil, grid, unseen)
    over = (estimates > arguments.tolerance).sum()
    print(
        f"- relative L2 in white and grey matter of {len(unseen)} unseen poses: largest {errors.max():.1e} (goal 1e-3),"
    )
    print(f"  median {np.median(errors):.1e}; estimate over error: {spread_of(estimates / errors)}")
    print(f"- estimated over the tolerance of {arguments.tolerance:g}, to be solved exactly: {over}; really: ", end="")
    print((errors > arguments.tolerance).sum())


def served(arguments, basis, coil, head, grid, region, folder, reference):
    """Tell the volumes per second from matrix to Zarr, by as many workers of one thread as there are threads."""
    poses = region.draw(head, SERVED_POSES, seed=SERVED_SEED, coil=coil)
    study = store(folder / "modes", head, grid, poses)
    head.save(folder / "head.npz")
    spec = {
        "head": head.id,
        "coil": coil.id,
        "grid": {"centre_m": list(grid.centre_m), "spacing_m": float(grid.spacing_m), "n": int(grid.n)},
        "region": region.as_dict(),
        "tolerance": arguments.tolerance,
    }
    write_basis(folder, basis.arrays(), spec)
    common = {
        "study": str(study.folder), "head": str(folder / "head.npz"), "basis": str(basis_path(folder, spec)),
        "grid": grid, "coil": str(coil_source(arguments.coil)), "coil_id": coil.id, "tolerance": arguments.tolerance,
    }  # fmt: skip
    tasks = [ModesTask(start=start, stop=start + SHARD, **common) for start in range(0, len(poses), SHARD)]
    workers = ExecutorConfig(kind="local", workers=arguments.threads, dashboard=False)
    ended = []
    with open_executor(workers, scratch=folder / "workers") as executor:
        for _, outcome in executor.run(serve_alone, tasks):
            ended.append((time.perf_counter(), outcome.value.done))
    ended = ended[WARM * arguments.threads :]  # before, workers start, read the basis and compile
    parts = [ended[k : k + PART + 1] for k in range(0, len(ended) - PART, PART)]
    speed = [sum(done for _, done in part[1:]) / (part[-1][0] - part[0][0]) for part in parts]
    low, middle, high = np.percentile(speed, [0, 50, 100])
    told = f"{middle:.0f} ({low:.0f} to {high:.0f}; goal 200)"
    print(f"- volumes per second, written by {arguments.threads} workers of one thread: {told}")
    if reference:
        print(f"- {np.median(reference.seconds()) * middle:.0f} times the usual recipe's poses per second")


def serve_alone(task):
    # A worker of a script first reads the script, and so numba, before it is told to take one thread.
    numba.set_num_threads(1)
    return serve_shard(task)


def alone(basis, coil, poses):
    """Tell what one process takes; the error estimates."""
    basis.norms(basis.coefficients(coil, poses[:SHARD]))
    coefficients, runs = [], []
    for start in range(0, len(poses), SHARD):
        block, began = poses[start : start + SHARD], time.perf_counter()
        coefficients.append(basis.coefficients(coil, block))
        between = time.perf_counter()
        basis.norms(coefficients[-1])
        runs.append(((between - began) / len(block), (time.perf_counter() - between) / len(block)))
    functionals, sums = 1e3 * np.median(runs, 0)
    print(f"- milliseconds a volume in one process: dA/dt and coefficients {functionals:.1f}, modes summed {sums:.1f}")
    return basis.estimates(np.concatenate(coefficients))


def unseen_errors(solver, basis, coil, grid, poses):
    """Relative L2 in white and grey matter of each pose, against exact solves."""
    brain, errors = np.isin(tissue_of(solver.head, grid), (1, 2)), []
    for start in range(0, len(poses), SHARD):
        block = poses[start : start + SHARD]
        pairs = zip(basis.volumes(basis.coefficients(coil, block)), solver.volumes(grid, block))
        errors += [apart([e.reshape(-1, 3)], [truth.reshape(-1, 3)], brain) for e, truth in pairs]
    return np.array(errors)


def spread_of(values):
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{middle:.2g} ({low:.2g} to {high:.2g})"


if __name__ == "__main__":
    main()
