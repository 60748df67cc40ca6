import os
import signal
import sys

import pytest

from ..jobs.conftest import TINY
from .cluster_study import MANY, SLURM_TABLES, ClusterStudy, run_serially
from .slurm_on_this_machine import SEARCHED, SlurmOnThisMachine, missing_programs

SSH = """#!/bin/bash
while [[ $1 == -* ]]; do  # options, and the values of those that have one
    if [[ $1 == -[oip] ]]; then shift; fi
    shift
done
shift  # the node
exec bash -c "$*"
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A SLURM of three nodes on this machine, for the session."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"a real SLURM needs {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    # What ends the tests from outside must not leave the processes of SLURM's jobs behind.
    before = signal.signal(signal.SIGTERM, lambda number, frame: pytest.exit("ended by SIGTERM", 143))
    try:
        with SlurmOnThisMachine(tmp_path_factory.mktemp("slurm")) as started:
            yield started
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def environment(mesh_cache):
    """Variables of every motorsweep command here, of the jobs too: sbatch hands them on."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    as_root = dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
    return {"MOTORSWEEP_CACHE": str(mesh_cache), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"} | as_root


@pytest.fixture
def ssh_to_nodes(tmp_path_factory, environment, monkeypatch):
    """An ssh that reaches the nodes, which are this machine: what shall run on one of them runs here."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setitem(environment, "PATH", f"{folder}{os.pathsep}{SEARCHED}")


@pytest.fixture
def on_cluster(slurm, environment, tmp_path):
    """Make studies whose commands run against the tests' SLURM; what a failed test leaves there is ended."""

    def make(text=TINY, folder=tmp_path, tables=SLURM_TABLES):
        return ClusterStudy(slurm, folder, text + tables, environment)

    yield make
    slurm.cancel_all()
    slurm.assert_nothing_left()


@pytest.fixture(scope="session")
def serial(tmp_path_factory, environment):
    """The tiny study, run to its end in one process; not to be changed."""
    folder = tmp_path_factory.mktemp("serial")
    return run_serially(folder, TINY, {**os.environ, **environment}, sys.executable, "run")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, environment):
    """The study by one process, up to its results."""
    folder = tmp_path_factory.mktemp("undisturbed")
    verbs = ("simulate", "encode", "train", "collect")
    return run_serially(folder, MANY, {**os.environ, **environment}, sys.executable, *verbs)
