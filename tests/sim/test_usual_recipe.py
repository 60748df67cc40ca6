"""The benchmarks' reference, written apart from the solver, gives the same field: each is a check of the other."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from motorsweep.sim.coil import load_coil
from motorsweep.sim.pose import Pose
from motorsweep.sim.solve import FieldSolver, SolverConfig
from motorsweep.sim.sphere_field import sphere_field
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.sim.volume import VolumeGrid

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COIL = load_coil("magstim-70mm")
POSE = Pose(np.array([[0.8, 0.6, 0, 0.004], [0.6, -0.8, 0, -0.003], [0, 0, -1, 0.101], [0, 0, 0, 1]]))


@pytest.fixture(scope="module")
def both():
    head, grid = layered_sphere(3), VolumeGrid((0, 0, 0.05), 2e-3, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        from usual_recipe import UsualRecipe
    recipe = UsualRecipe(head, COIL, grid.points())
    return recipe, FieldSolver(head, COIL, SolverConfig(kind="direct", order=1)), grid


def test_potential_and_field_of_elements_are_those_of_the_solver(both):
    recipe, solver, _ = both
    means, load = recipe.load(recipe.dadt(POSE))
    potential = recipe.potential(load)
    expected = solver.solve([POSE])[0]
    assert np.linalg.norm(potential - expected) < 1e-6 * np.linalg.norm(expected)
    field, same = recipe.element_field(potential, means), solver.elements([POSE])[0]
    assert np.linalg.norm(field - same) < 1e-6 * np.linalg.norm(same)
    assert 3 < recipe.iterations < 100


def test_field_on_the_grid_is_that_of_the_solver(both):
    recipe, solver, grid = both
    dadt = recipe.dadt(POSE)
    field = recipe.recovered_beside_dadt(recipe.potential(recipe.load(dadt)[1]), dadt)
    same = solver.volumes(grid, [POSE])[0].reshape(-1, 3)
    assert np.linalg.norm(field - same) < 1e-6 * np.linalg.norm(same)


def test_recovery_of_dadt_too_costs_accuracy(both):
    """The usual recipe recovers E itself; the solver leaves dA/dt, which is known, as it is."""
    recipe, solver, grid = both
    truth = sphere_field(grid.points(), *COIL.placed(POSE))
    usual, ours = recipe.field(POSE), solver.volumes(grid, [POSE])[0].reshape(-1, 3)
    errors = [np.linalg.norm(field - truth) / np.linalg.norm(truth) for field in (usual, ours)]
    assert errors[1] < errors[0] < 0.06, f"edges of 10 mm; usual, ours: {errors}"


def test_field_is_linear_in_the_rate(both):
    recipe, *_ = both
    np.testing.assert_allclose(recipe.field(POSE, 2e6), 2 * recipe.field(POSE), rtol=1e-7, atol=1e-7)


@pytest.mark.slow
def test_the_benchmark_of_poses_prints_its_tables():
    few = ("--head", "sphere", "--coil", "magstim-70mm", "--poses", "2", "--reference", "1", "--repeats", "2")
    command = [sys.executable, BENCHMARKS / "poses.py", *few, "--ways", "usual", "exact"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for words in (r"\| seconds a pose \| usual recipe \| first order \|", r"\*\*all\*\*", "Largest memory"):
        assert re.search(words, printed), printed
    same = float(re.search(r"dA/dt left as it is: (\S+) in the cube", printed)[1])
    assert same < 1e-4, printed
