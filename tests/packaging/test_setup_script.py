"""setup.sh: what it says where something is missing; what is pinned; nothing of one machine in the tracked files."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def fresh(tmp_path):
    """Return a function that runs setup.sh in a fresh copy which has no .venv, with these variables."""
    for name in ("setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def run(**variables):
        environment = {**os.environ, "MOTORSWEEP_CACHE": str(tmp_path / "cache"), **variables}
        options = {"text": True, "capture_output": True, "timeout": 120, "stdin": subprocess.DEVNULL}
        return subprocess.run(["bash", "setup.sh"], cwd=tmp_path, env=environment, **options)

    return run


def test_petsc_dir_without_petsc_is_refused_before_anything_is_made(fresh, tmp_path):
    done = fresh(PETSC_DIR=str(tmp_path))
    assert done.returncode == 2
    assert re.search(
        r"PETSC_DIR=\S+ holds no include/petscversion\.h: it must name the folder of a built PETSc", done.stderr
    )
    assert not (tmp_path / ".venv").exists()


def test_complex_petsc_is_refused(fresh, tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "petscversion.h").write_text(
        "#define PETSC_VERSION_MAJOR 3\n#define PETSC_VERSION_MINOR 20\n"
    )
    (tmp_path / "include" / "petscconf.h").write_text("#define PETSC_USE_COMPLEX 1\n")
    done = fresh(PETSC_DIR=str(tmp_path))
    assert done.returncode == 2
    assert re.search(r"computes with complex numbers: a real build is needed", done.stderr)


def test_python_that_does_not_run_is_named(fresh):
    done = fresh(PYTHON="no-such-python")
    assert done.returncode == 2
    assert "PYTHON=no-such-python does not run, or is older than 3.11" in done.stderr


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_everything_declared_is_pinned():
    declared = [
        *PROJECT["dependencies"],
        *(text for texts in PROJECT["optional-dependencies"].values() for text in texts),
    ]
    names = {re.match(r"[\w.-]+", text)[0].lower() for text in declared}
    assert names <= {name.lower() for name in pins()}


def test_base_install_is_free_of_what_clusters_eeg_and_views_need():
    base = {re.match(r"[\w.-]+", text)[0].lower() for text in PROJECT["dependencies"]}
    assert not base & {"horovod", "mpi4py", "dask-jobqueue", "mne", "statsmodels", "pyvista", "vtk", "pytest", "ruff"}


def test_no_tracked_file_names_a_registry_host_or_a_path_of_one_machine():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    hosts = [("pypi", "org"), ("files", "pythonhosted", "org"), ("registry", "npmjs", "org"), ("deb", "debian", "org")]
    pattern = re.compile(r"/(work|root)/|/tmp/[a-z0-9]|" + "|".join(re.escape(".".join(host)) for host in hosts))
    found = []
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or b"\0" in path.read_bytes():
            continue
        lines = path.read_text(errors="replace").splitlines()
        found += [
            f"{name}:{number}: {line.strip()[:80]}" for number, line in enumerate(lines, 1) if pattern.search(line)
        ]
    assert not found
