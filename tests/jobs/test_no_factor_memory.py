"""A study whose workers find no memory for a factor: it is solved all the same, and says so."""

import subprocess
import sys

import pytest
from motorsweep import open_volumes
from motorsweep.zarr_store.schema import Method

from .conftest import TINY, changed

pytestmark = pytest.mark.slow


def simulate(folder, command, text, code=0):
    (folder / "study.toml").write_text(text)
    line = [sys.executable, "-m", "motorsweep.jobs.cli", "simulate", "study.toml"]
    environment = {**command.environment, "PETSC_OPTIONS": "-mat_mumps_icntl_23 1"}  # MUMPS may take one megabyte
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


@pytest.mark.parametrize("executor", ["serial", "local"])
def test_study_goes_on_iteratively_and_says_so(executor, tmp_path, command):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    text = changed(TINY, poses__random="0", solver__poses_per_shard="3", executor__kind=f'"{executor}"')
    told = simulate(tmp_path, command, changed(text, executor__workers="2") if executor == "local" else text)
    assert "direct solver: its factor takes about" in told
    assert told.count("memory did not suffice for a factor (MUMPS INFOG(1) = -") == 1, told
    if executor == "local":
        assert "simulate  iterative in place of direct: memory did not suffice" in told
        log = (tmp_path / "studies/tiny/logs/simulate.log").read_text()
        assert "so poses are solved by conjugate gradients" in log
    volumes = open_volumes(tmp_path / "studies/tiny")
    assert (volumes["status"] == 1).all() and (volumes["method"] == int(Method.ITERATIVE)).all()
    assert (volumes["residual"] < 1e-10).all()
    planned = command("plan", "study.toml", folder=tmp_path).stdout
    assert "; 9 poses were solved iteratively" in planned


def test_direct_that_was_asked_for_fails_its_poses_with_the_reason(tmp_path, command):
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    text = changed(TINY, poses__random="0", poses__grid="1", solver__kind='"direct"')
    told = simulate(tmp_path, command, text, code=2)
    assert "pose 0, the hotspot that the motor threshold refers to, has no field (out_of_memory: factoring" in told
    (reason,) = open_volumes(tmp_path / "studies/tiny")["reason"].values
    assert str(reason).startswith("out_of_memory: factoring the stiffness matrix of ")
    assert 'Choose solver kind = "iterative", which needs none' in str(reason)
