import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from motorsweep.hpc.prepare import head_path
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.plan import make_plan
from motorsweep.jobs.plan_solver import plan_solver
from motorsweep.sim.solver_memory import factor_bytes
from motorsweep.zarr_store.schema import Method
from motorsweep.zarr_store.study import Study


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text):
        (tmp_path / "study.toml").write_text('name = "a"\n' + text)
        config = load_study_config(tmp_path / "study.toml")
        return Study(config.folder), config

    return load


def keep_head_of(study, config, nodes):
    path = head_path(study, config)
    path.parent.mkdir(parents=True)
    np.savez(path, nodes=np.zeros((nodes, 3)))


def test_ten_poses_are_not_charged_for_a_basis(study):
    plan = plan_solver(*study("[poses]\ngrid = 3\nrandom = 1"))
    assert (plan.method, plan.kind, plan.basis_seconds) == ("exact", "", 0.0)
    assert (plan.factor_seconds, plan.memory_gb) == (None, None)
    assert plan.lines() == [
        "solver    exact: 10 poses are fewer than the 1234 from which a basis saves half of the time; a basis pays off "
        "at 617"
    ]


def test_thousands_of_poses_are_told_what_the_basis_takes(study):
    folder, config = study("[poses]\nrandom = 1951")
    plan = plan_solver(folder, config)
    assert (plan.method, plan.basis_seconds, plan.pose_seconds) == ("modes", 180.0, 0.008)
    assert (
        plan.lines()[-1]
        == "          set-up: basis 3.0 core-minutes, unless one is found; kept for every study like it"
    )
    simulate = make_plan(config).stages[0]
    assert simulate.pending == 2000
    assert simulate.core_hours == pytest.approx((2000 * 0.008 + 180) / 3600)
    assert make_plan(config).as_dict()["solver"]["method"] == "modes"
    assert any(line.startswith("solver    modes: ") for line in make_plan(config).lines())


def test_size_of_a_head_that_is_kept_decides_before_it_is_used(study):
    folder, config = study("[solver]\norder = 1")
    keep_head_of(folder, config, 50_000)
    plan = plan_solver(folder, config)
    assert plan.sizes == "some 50,000 unknowns, estimated"
    assert plan.kind == "direct"
    assert plan.factor_seconds == pytest.approx(1.35e-6 * 50_000 ** (4 / 3))
    assert plan.memory_gb > 1.1 * factor_bytes(50_000, 50_000) / 1e9
    second = plan_solver(folder, replace(config, solver=replace(config.solver, order=2)))
    assert second.sizes == "some 306,000 unknowns, estimated"
    assert second.factor_seconds > 5 * plan.factor_seconds
    iterative = plan_solver(folder, replace(config, solver=replace(config.solver, kind="iterative")))
    assert (iterative.kind, iterative.kind_reason, iterative.factor_seconds) == ("iterative", "asked for", 0.0)
    assert iterative.memory_gb < plan.memory_gb
    head_path(folder, config).write_bytes(b"PK torn")
    assert plan_solver(folder, config).sizes == ""


def test_sizes_and_seconds_come_from_the_store_where_there_is_one(finished):
    config = load_study_config(finished[0] / "study.toml")
    folder = Study(finished[0] / "studies" / "tiny")
    plan = plan_solver(folder, config)
    assert plan.kind == "direct"
    assert plan.kind_reason.startswith("its factor takes about 0.")
    assert plan.sizes.endswith(" unknowns")
    assert 0 < plan.pose_seconds < 5
    modes = plan_solver(folder, replace(config, solver=replace(config.solver, kind="modes")))
    assert (modes.method, modes.kind) == ("modes", "direct")
    assert modes.basis_seconds == pytest.approx(600 * plan.pose_seconds)


def test_memory_to_make_a_basis_is_told_until_there_is_one(study, tmp_path, monkeypatch):
    monkeypatch.setattr("motorsweep.hpc.study_solver.machine_bytes", lambda: 24e9)
    folder, config = study('[solver]\norder = 1\nkind = "modes"')
    keep_head_of(folder, config, 300_000)
    plan = plan_solver(folder, config)
    # factor and operators 3.5 + 1.4, fields and modes 2.8, a block 1.3
    assert plan.basis_memory_gb == pytest.approx(9.5, abs=0.5)
    assert plan.basis_memory_gb > plan.memory_gb
    assert f"basis 3.0 core-minutes and {plan.basis_memory_gb:.1f} GB, unless one is found; kept" in plan.lines()[-1]
    folder.basis.write_text(f'{{"path": "{tmp_path}"}}')
    found = plan_solver(folder, config)
    assert (found.basis_memory_gb, found.basis_seconds) == (None, 0.0)
    assert "basis" not in found.lines()[-1]


@pytest.mark.parametrize("count, words", [(1, "1 pose was"), (2, "2 poses were")])
def test_poses_without_a_factor_are_told_without_a_guess_at_the_reason(count, words, finished, tmp_path):
    """Two that modes left are solved iteratively since a factor does not pay for them."""
    shutil.copytree(finished[0], tmp_path / "copy")
    config = load_study_config(tmp_path / "copy" / "study.toml")
    folder = Study(tmp_path / "copy" / "studies" / "tiny")
    method = zarr.open_group(folder.volumes, mode="r+")["method"]
    method[:count] = int(Method.ITERATIVE)
    assert plan_solver(folder, config).kind_reason.endswith(f"; {words} solved iteratively")
