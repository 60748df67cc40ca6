"""How time and memory grow with the number of poses and with the number of nodes.

Run as ``python benchmarks/scaling.py``, or with one of ``poses nodes``; ``--quick`` is a trial of two minutes on
spheres. Every figure comes from a process of its own, so that the peaks of memory are honest; they count from the
set-up on, the head and the libraries included. Poses are counted from the matrix to |E| in Zarr; set-up includes
a first pose, which compiles. The usual recipe takes poses one by one, the iterative solver four, the others 64.

``poses``: one head, 10 to 10 000 poses, by each solver and by the usual recipe (see usual_recipe.py). What would take
longer than ``--budget`` seconds is projected from the median of the poses that were run, and marked with "~".

``nodes``: the template head from 50 k nodes to a million, by meshing and by refinement, and the head of others' data if
it is here; the solver is the one that "auto" takes. A head that needs more than ``--memory-gb`` is left out.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from dadt import DATA
from machine import describe, forget_peak, peak_gb, row, table
from motorsweep.sim.basis import make_basis
from motorsweep.sim.head import Head, load_head
from motorsweep.sim.label_mesh import MeshSizes
from motorsweep.sim.pose import random_poses
from motorsweep.sim.pose_region import region_of
from motorsweep.sim.refinement import refine
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.solver_memory import factor_bytes
from motorsweep.sim.sphere_mesh import layered_sphere, refined_sphere
from ways import coil_of, head_of, over_cortex, store, usual, write

BLOCKS = {"usual": 1, "iterative": 4}  # poses at a time; others 64
BATCH = 128
TOLERANCE = 1e-3  # of the modes
COUNTS = (10, 100, 1000, 10_000)
REAL_HEAD = DATA / "heads" / "ny_head_320k.msh.gz"
TITLES = {"usual": "usual recipe", "iterative": "iterative", "direct": "direct", "modes": "modes"}
# Fine, coarse edges and distance of facets in mm, and how often each element is cut into eight.
LADDER = {
    "template, coarse": (2.5, 8.0, 0.8, 0),
    "template": (2.0, 6.0, 0.5, 0),
    "template, coarse, edges halved": (2.5, 8.0, 0.8, 1),
    "template, finer, edges halved": (1.5, 4.0, 0.5, 1),
}
SPHERES = {"sphere": (3, 0), "sphere, edges halved": (3, 1)}


def main():
    arguments = parse()
    if arguments.child:
        print(json.dumps(child(**json.loads(arguments.child))))
        return
    print(describe(arguments.threads))
    for name in arguments.parts or ("poses", "nodes"):
        print(f"\n### {name}\n", flush=True)
        {"poses": poses, "nodes": nodes}[name](arguments)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], "poses", "nodes"], help="both by default")
    parser.add_argument(
        "--head", help="of the poses: mesh, 'template' or 'sphere' (default: 320 k nodes of others' data)"
    )
    parser.add_argument("--coil", default=str(DATA / "coils" / "MagStim_D70.ccd"), help="coil file or built-in name")
    parser.add_argument("--order", type=int, choices=(1, 2), default=2, help="of elements, for the poses (default 2)")
    parser.add_argument("--solvers", nargs="+", choices=TITLES, help="of the poses (default all, quick: no modes)")
    parser.add_argument("--budget", type=float, help="seconds to run poses by one solver (default 300, quick 10)")
    parser.add_argument("--memory-gb", type=float, default=18.0, help="that a process may take (default 18)")
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    parser.add_argument("--quick", action="store_true", help="spheres of 5 k to 38 k nodes; two minutes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.head = arguments.head or ("sphere" if arguments.quick else str(REAL_HEAD))
    arguments.budget = arguments.budget or (10.0 if arguments.quick else 300.0)
    arguments.solvers = arguments.solvers or [kind for kind in TITLES if kind != "modes" or not arguments.quick]
    return arguments


# ---- tables ---------------------------------------------------------------------------------------------------------


def poses(arguments):
    """Total seconds for more and more poses."""
    common = {"head": arguments.head, "order": arguments.order, "counts": COUNTS, "budget_s": arguments.budget}
    found = {kind: ask(arguments, kind=kind, **common) for kind in arguments.solvers}
    found = {kind: result for kind, result in found.items() if told(TITLES[kind], result)}
    auto = ask(arguments, kind="auto", **common | {"counts": ()})
    print(
        f"{auto['head']}, {auto['nodes']} nodes, order {arguments.order}; auto takes {auto['kind']}: {auto['reason']}."
    )
    table("poses: set-up and all", *(TITLES[kind] for kind in found))
    for count in COUNTS:
        row(count, *(total(result, count) for result in found.values()))
    row("set-up, s", *(f"{result['setup_s']:.1f}" for result in found.values()))
    row("seconds a pose, median (quartiles)", *(quartiles(result["seconds"]) for result in found.values()))
    row(
        "poses per second, over the usual recipe's", *(against(found.get("usual"), result) for result in found.values())
    )
    row("poses run", *(result["run"] for result in found.values()))
    row("largest memory, GB", *(f"{result['peak_gb']:.1f}" for result in found.values()))
    print("\n~: projected from the median of the poses run. " + break_even(found))


def nodes(arguments):
    """Seconds and memory for finer and finer heads."""
    heads = dict(SPHERES) if arguments.quick else dict(LADDER)
    if not arguments.quick and REAL_HEAD.is_file():
        heads[REAL_HEAD.name] = str(REAL_HEAD)
    rows, reasons = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, recipe) in enumerate(heads.items()):
            print(f"{name} ...", file=sys.stderr, flush=True)
            path = str(Path(folder) / f"{number}.npz")
            if not told(name, ask(arguments, kind="mesh", head=recipe, path=path)):
                continue
            common = {"head": path, "counts": (BATCH,), "budget_s": arguments.budget / 4}
            usual = ask(arguments, kind="usual", order=1, **common)
            for order, kind in ((1, "usual"), (1, "auto"), (2, "auto")):
                found = usual if kind == "usual" else ask(arguments, kind=kind, order=order, **common)
                if told(f"{name}, order {order}", found):
                    rows.append((found["nodes"], name, order, found, usual))
                    pose = np.median(found["seconds"])
                    told_now = f"{found['kind']}, order {order}: set-up {found['setup_s']:.0f} s, {pose:.3g} s a pose"
                    print(f"  {told_now}, {found['peak_gb']:.1f} GB", file=sys.stderr, flush=True)
                    reasons.append(f"{name}, order {order}: {found['kind']}, {found['reason']}")
            Path(path).unlink()
    titles = ("head", "nodes", "elements", "unknowns", "solver", "set-up, s", "s a pose, median (quartiles)")
    table(*titles, "over the usual recipe's poses per second", "largest memory, GB")
    for count, name, order, found, usual in sorted(rows, key=lambda each: each[0]):
        elements = "first order" if order == 1 else "second order in the cube"
        row(
            name, count, elements, found["unknowns"], TITLES[found["kind"]], f"{found['setup_s']:.1f}",
            quartiles(found["seconds"]), against(usual, found), f"{found['peak_gb']:.1f}",
        )  # fmt: skip
    print("\nWhy: " + "; ".join(reason for reason in reasons if "usual" not in reason) + ".")


def told(name, result):
    """Whether there is a result; if not, the reason is printed."""
    if "left_out" in result:
        print(f"{name}: left out, {result['left_out']}", flush=True)
    return "left_out" not in result


def total(result, count):
    seconds = result["totals"].get(str(count))
    projected = seconds is None
    seconds = result["setup_s"] + (count * float(np.median(result["seconds"])) if projected else seconds)
    amount = (
        f"{seconds:.1f} s"
        if seconds < 300
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
    return "~ " * projected + amount


def quartiles(seconds):
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def against(usual, result):
    return f"{np.median(usual['seconds']) / np.median(result['seconds']):.1f}" if usual and "seconds" in usual else ""


def break_even(found):
    """From how many poses on each set-up is paid back, against the solver with the shortest."""
    words = []
    ours = {kind: result for kind, result in found.items() if kind != "usual"}
    base = min(ours, key=lambda kind: ours[kind]["setup_s"], default=None)
    for kind, result in ours.items():
        saved = np.median(ours[base]["seconds"]) - np.median(result["seconds"])
        if kind != base and saved > 0:
            count = int(np.ceil((result["setup_s"] - ours[base]["setup_s"]) / saved))
            words.append(f"{TITLES[kind]} pays from {max(count, 1)} poses on, against {TITLES[base]}.")
    return " ".join(words)


# ---- one figure, in a process of its own ----------------------------------------------------------------------------


def ask(arguments, **task):
    """Result of `child` in a fresh process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), str(arguments.threads))
    task |= {"coil": arguments.coil, "memory_gb": arguments.memory_gb}
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    done = subprocess.run(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        how = "it was killed, most likely for want of memory" if done.returncode < 0 else "see the error above"
        return {"left_out": f"its process ended with {done.returncode}: {how}"}
    return json.loads(done.stdout.splitlines()[-1])


def child(kind, head, coil, memory_gb, order=1, counts=(), budget_s=0.0, path=None):
    """Set up one solver for one head, run poses, and tell what it took; {"left_out": why} where memory would not do."""
    if kind == "mesh":
        made(head).save(path)
        return {}
    model, name = (Head.load(head), None) if head.endswith(".npz") else head_of(head)
    _, grid = over_cortex(model)
    device = coil_of(coil)
    result = {"head": name or model.name, "nodes": len(model.nodes)}
    forget_peak()
    began = time.perf_counter()
    if kind == "usual":
        _, volumes, size = usual(model, device, grid)
        chosen = {"kind": "usual", "reason": ""}
    else:
        solver = solver_of("auto" if kind == "modes" else kind, model, device, grid, order, memory_gb)
        size, chosen = solver.space.size, {"kind": solver.kind, "reason": solver.reason}
        needed = needed_gb(solver)
        if needed > memory_gb:
            why = f"{size} unknowns would take {needed:.0f} GB, over {memory_gb:g} ({solver.kind})."
            return result | {"left_out": why}
        if counts:
            solver.prepare(grid)
            chosen = {"kind": solver.kind, "reason": solver.reason}
        volumes = functools.partial(solver.volumes, grid)
    norms = functools.partial(norms_of, volumes)
    if kind == "modes":
        chosen, norms = {"kind": "modes", "reason": ""}, by_modes(solver, model, device, grid)
    if counts:
        norms(random_poses(model, over_cortex(model)[0], 1, seed=1_000_000))
    result |= chosen | {"unknowns": size, "setup_s": time.perf_counter() - began}
    return result | timed(model, grid, norms, BLOCKS.get(chosen["kind"], 64), counts, budget_s) | {"peak_gb": peak_gb()}


def norms_of(volumes, poses):
    return np.linalg.norm(volumes(poses), axis=-1)


def by_modes(solver, head, coil, grid):
    """|E| from a basis for the poses that `timed` draws."""
    knob_m, _ = over_cortex(head)
    region = region_of(random_poses(head, knob_m, 100, seed=0), head, knob_m)
    basis = make_basis(solver, grid, region, TOLERANCE, head)
    return lambda poses: basis.norms(basis.coefficients(coil, poses))


def made(recipe):
    """A head of `LADDER` or `SPHERES`, or of a file."""
    if isinstance(recipe, str):
        return load_head(recipe)
    *sizes, halvings = recipe
    if len(sizes) == 1:
        head = layered_sphere(*sizes)
    else:
        fine, coarse, facets = (1e-3 * size for size in sizes)
        head = load_head("template", sizes=MeshSizes(fine_m=fine, coarse_m=coarse, facet_distance_m=facets))
    for _ in range(halvings):
        head = refined_sphere(head) if head.name == "sphere" else refine(head)
    return head


def solver_of(kind, head, coil, grid, order, memory_gb):
    memory = min(1e9 * memory_gb, psutil.virtual_memory().available)
    return FieldSolver(head, coil, SolverConfig(kind=kind, order=order, memory_bytes=memory), region=grid)


def needed_gb(solver):
    """Rough, for leaving out what would not fit: assembly and operators, a factor where there is one."""
    size = solver.space.size
    factor = 1.1 * factor_bytes(size, len(solver.head.nodes)) if solver.kind == "direct" else 0
    return 0.8 + (1500 * size + 350 * len(solver.head.tets) + factor) / 1e9


def timed(head, grid, norms, block, counts, budget_s):
    """Seconds for each count that the budget allows, seconds of a pose in each block, poses run."""
    knob_m, _ = over_cortex(head)
    totals, each, taken, run = {}, [], 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            while run < count and (run == 0 or taken + taken / run * min(block, count - run) <= budget_s):
                size = min(block, count - run)
                some = random_poses(head, knob_m, size, seed=run)
                study = store(Path(folder) / str(size), head, grid, some)
                began = time.perf_counter()
                write(study, norms(some))
                each += [(time.perf_counter() - began) / size] * size
                taken, run = taken + size * each[-1], run + size
            if run == count:
                totals[count] = taken
    return {"totals": totals, "seconds": each, "run": run}


if __name__ == "__main__":
    main()
