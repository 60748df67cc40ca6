"""How far the simulated field is from the truth: closed form, second order everywhere, finer meshes.

Run as ``python benchmarks/accuracy.py``, or with some of ``sphere voxels head refinement``. Each part prints a table in
Markdown; docs/accuracy.md holds them. Errors are relative L2, |E - E_reference| / |E_reference| over points, in
per cent, the worst of the poses. ``head`` and ``refinement`` need the folder of others' data (MOTORSWEEP_DATA); second
order everywhere on the head of 320 k nodes takes some 12 GB and a few minutes.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from motorsweep.sim.coil import load_coil
from motorsweep.sim.head import load_head
from motorsweep.sim.label_mesh import MeshSizes
from motorsweep.sim.labels import sphere_labels
from motorsweep.sim.mesh_quality import boundary_triangles
from motorsweep.sim.pose import Pose, grid_poses
from motorsweep.sim.refinement import refine
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.space import EDGES
from motorsweep.sim.sphere_field import sphere_field
from motorsweep.sim.sphere_mesh import RADII_M, layered_sphere, refined_sphere
from motorsweep.sim.volume import VolumeGrid, locate
from scipy.spatial import cKDTree

DATA = Path(os.environ.get("MOTORSWEEP_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
KNOB_M = np.array([-0.037, -0.021, 0.058])
TISSUES = {1: "white matter", 2: "grey matter"}


def main():
    parts = {"sphere": sphere, "voxels": voxels, "head": head, "refinement": refinement}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help=f"of {', '.join(parts)}; all by default")
    for name in parser.parse_args().parts or parts:
        print(f"\n### {name}\n", flush=True)
        parts[name]()


def row(*cells):
    print(
        "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def table(*titles):
    row(*titles)
    row(*["---"] * len(titles))


def coil():
    path = DATA / "coils" / "MagStim_D70.ccd"
    return load_coil(path if path.exists() else "magstim-70mm")


def edge_mm(head, where=None):
    ends = head.nodes[(head.tets if where is None else head.tets[where])[:, EDGES]]
    return 1e3 * float(np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=2).mean())


def worst(fields, truth, where=None):
    where = slice(None) if where is None else where
    return 100 * max(float(np.linalg.norm((e - t)[where]) / np.linalg.norm(t[where])) for e, t in zip(fields, truth))


# ---- sphere ---------------------------------------------------------------------------------------------------------


def tangential(direction, distance_m, angle_deg):
    z = -np.asarray(direction, float) / np.linalg.norm(direction)
    y = np.cross(z, [1.0, 0.2, 0])
    y /= np.linalg.norm(y)
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.cross(y, z), y, z], axis=1) @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    matrix[:3, 3] = -z * (RADII_M[-1] + distance_m)
    return Pose(matrix)


def shell_points(count, low, high):
    """Points evenly in the volume of a shell, m."""
    x = np.random.default_rng(0).normal(size=(count, 3))
    radius = np.random.default_rng(1).uniform(low**3, high**3, (count, 1)) ** (1 / 3)
    return x * radius / np.linalg.norm(x, axis=1)[:, None]


def per_element(solver, points, poses):
    element, _ = locate(solver.head.nodes, solver.head.tets, points)
    return solver.elements(poses)[:, element]


def sphere():
    """Smooth layered sphere: nodes on the spheres, uniform refinement."""
    device = coil()
    poses = [
        tangential((0, 0, 1), 0.004, 0),
        tangential((0.5, -0.3, 0.8), 0.007, 45),
        tangential((-0.9, 0.2, 0.3), 0.01, 110),
    ]
    x = shell_points(20_000, 0.03, 0.0799)
    truth = [sphere_field(x, *device.placed(pose)) for pose in poses]
    print(f"{device.name}, {len(poses)} poses at 4 to 10 mm, E at {len(x)} points of the brain, closed form.\n")
    table("nodes", "mean edge, mm", "linear, per element, %", "linear, recovered, %", "second order, %", "rates")
    model, before = layered_sphere(2), None
    for level in range(3):
        linear = FieldSolver(model, device, SolverConfig(order=1))
        found = [worst(per_element(linear, x, poses), truth), worst(linear.at(x, poses), truth)]
        second = FieldSolver(model, device, SolverConfig(kind="iterative"))
        found.append(worst(second.at(x, poses), truth))
        rates = "" if before is None else ", ".join(f"{np.log2(a / b):.2f}" for a, b in zip(before, found))
        row(len(model.nodes), edge_mm(model), *found, rates)
        model, before = refined_sphere(model) if level < 2 else None, found


def voxels():
    """Layered sphere meshed from labels, as a head is: what rough borders cost."""
    device, grid = coil(), VolumeGrid((0, 0, 0.063))
    poses = [tangential((0, 0, 1), d, a) for d, a in ((0.004, 0), (0.006, 45), (0.01, 100))]
    x = shell_points(60_000, 0.05, 0.0799)
    truth, radius = [sphere_field(x, *device.placed(pose)) for pose in poses], np.linalg.norm(x, axis=1)
    cap = np.linalg.norm(x - [0, 0, 0.08], axis=1) < 0.035
    print("Points of the brain: whole shell / within 35 mm of the top / those deeper than 1 mm / than 4 mm.\n")
    table("voxels, mm", "fine edge, mm", "nodes", "linear, recovered, %", "second order in the volume, %")
    for voxel_mm, fine_mm in ((1.0, 2.0), (0.5, 4.0), (0.5, 2.0), (0.5, 1.5)):
        sizes = MeshSizes(fine_m=fine_mm * 1e-3, coarse_m=max(6.0, 2 * fine_mm) * 1e-3)
        model = sphere_of_voxels(voxel_mm, sizes)
        element, _ = locate(model.nodes, model.tets, x)
        brain, cells = (element >= 0) & (model.tissue[element] == 2), []
        for config in (SolverConfig(order=1), SolverConfig()):
            field = FieldSolver(model, device, config, region=grid).at(x, poses)
            parts = brain, brain & cap, brain & cap & (radius < 0.079), brain & cap & (radius < 0.076)
            cells.append(" / ".join(f"{worst(field, truth, part):.2f}" for part in parts))
        row(voxel_mm, fine_mm, len(model.nodes), *cells)


def sphere_of_voxels(voxel_mm, sizes):
    labels = sphere_labels(spacing_m=voxel_mm * 1e-3)
    folder = Path(tempfile.mkdtemp())
    np.savez(folder / "sphere.npz", labels=labels.labels, affine=labels.affine)
    return load_head(folder / "sphere.npz", sizes=sizes, hand_knob_m=(0, 0, RADII_M[-1]), cache=folder)


# ---- heads ----------------------------------------------------------------------------------------------------------


def cube_points(model, count=20_000):
    x = KNOB_M + np.random.default_rng(0).uniform(-0.032, 0.032, (count, 3))
    element, _ = locate(model.nodes, model.tets, x)
    return x, np.where(element >= 0, model.tissue[element], 0)


def head():
    """The head of 320 k nodes: second order everywhere on the same mesh is the reference."""
    model, device, grid = load_head(DATA / "heads" / "ny_head_320k.msh.gz"), coil(), VolumeGrid(tuple(KNOB_M))
    poses = grid_poses(model, KNOB_M, 3, 8e-3, 45, 6e-3)[::4]
    x, tissue = cube_points(model)
    rows, reference = [], None
    cases = [
        ("second order everywhere", SolverConfig(kind="iterative"), None),
        ("linear, per element", SolverConfig(order=1), None),
        ("linear, recovered", SolverConfig(order=1), None),
        *((f"second order in the volume and {m} mm around", SolverConfig(margin_m=m * 1e-3), grid) for m in (0, 4, 8)),
    ]
    for name, config, region in cases:
        solver = FieldSolver(model, device, config, region=region)
        field = per_element(solver, x, poses) if name.endswith("element") else solver.at(x, poses)
        reference = field if reference is None else reference
        off = [worst(field, reference, tissue == tag) for tag in TISSUES]
        rows.append((name, solver.space.size, solver.reports[0].iterations or "direct", *off))
        del solver
    print(f"{device.name} at 6 mm, {len(poses)} poses, E at {len(x)} points of the 64 mm cube.\n")
    table("elements", "unknowns", "iterations", *(f"{name}, %" for name in TISSUES.values()))
    for cells in rows:
        row(*cells)


def without_air(path):
    """The segmentation with its label 6, air in that file, as outside."""
    with np.load(path) as file:
        labels, affine = file["labels"], file["affine"]
    made = Path(tempfile.mkdtemp()) / path.name
    np.savez(made, labels=np.where(labels == 6, 0, labels), affine=affine)
    return made


def refinement():
    """What edges and borders still cost."""
    edges()
    borders()


def edges():
    """The default head with every element cut into eight: other edge lengths, the same borders."""
    device, grid = coil(), VolumeGrid(tuple(KNOB_M))
    model = load_head("template")
    poses = grid_poses(model, KNOB_M, 3, 8e-3, 45, 6e-3)[::4]
    x, tissue = cube_points(model)
    finer, rows = refine(model), []
    for name, each, config in (
        ("second order, edges halved", finer, SolverConfig(kind="iterative")),
        ("second order", model, SolverConfig()),
        ("linear, recovered, edges halved", finer, SolverConfig(order=1)),
        ("linear, recovered", model, SolverConfig(order=1)),
    ):
        solver = FieldSolver(each, device, config, region=grid)
        rows.append((name, len(each.nodes), solver.space.size, solver.at(x, poses)))
        del solver
    print("The template head; reference: second order in the volume with all edges halved, borders as they are.\n")
    table("elements", "nodes", "unknowns", *(f"{name}, %" for name in TISSUES.values()))
    for name, nodes, unknowns, field in rows:
        row(name, nodes, unknowns, *(worst(field, rows[0][3], tissue == tag) for tag in TISSUES))


def borders():
    """One segmentation of 1 mm voxels, meshed finer and finer: borders change as well."""
    device, grid, poses, meshes = coil(), VolumeGrid(tuple(KNOB_M)), None, []
    labels = without_air(DATA / "heads" / "nyhead_1mm.npz")
    for fine_mm in (1.1, 1.5, 2.0, 3.0):
        sizes = MeshSizes(fine_m=fine_mm * 1e-3, coarse_m=6e-3, fine_radius_m=0.04)
        model = load_head(labels, sizes=sizes, hand_knob_m=KNOB_M)
        poses = poses or grid_poses(model, KNOB_M, 3, 8e-3, 45, 6e-3)[::4]
        x, tissue = cube_points(model)
        solver = FieldSolver(model, device, SolverConfig(), region=grid)
        near = solver.space.second[model.tissue[solver.space.second] == 2]
        depth = depth_mm(model, x) if not meshes else meshes[0][3]
        meshes.append((fine_mm, len(model.nodes), edge_mm(model, near), depth, tissue, solver.at(x, poses)))
        del solver
    *_, depth, first, reference = meshes[0]
    print("\nThe New York head from labels of 1 mm; reference: the finest mesh; second order throughout; points that")
    print("lie in the same tissue in both, all of them / those 1.5 mm and more from a border.\n")
    table(
        "fine edge, mm", "nodes", "edge in grey matter, mm", *(f"{n}, %" for n in TISSUES.values()), "other tissue, %"
    )
    for fine_mm, nodes, edge, _, tissue, field in meshes:
        same = tissue == first
        off = [
            " / ".join(
                f"{worst(field, reference, same & (tissue == tag) & far):.2g}" for far in (depth >= 0, depth > 1.5)
            )
            for tag in TISSUES
        ]
        row(fine_mm, nodes, edge, *off, 100 * float((~same[np.isin(tissue, list(TISSUES))]).mean()))


def depth_mm(model, points):
    """Distance of points from the nearest corner or centre of a face between two tissues, mm."""
    places = []
    for tag in np.unique(model.tissue):
        faces = boundary_triangles(model.tets[model.tissue == tag])
        places += [model.nodes[np.unique(faces)], model.nodes[faces].mean(1)]
    return 1e3 * cKDTree(np.concatenate(places)).query(points)[0]


if __name__ == "__main__":
    main()
