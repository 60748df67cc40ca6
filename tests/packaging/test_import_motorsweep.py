"""``import motorsweep`` is quick, and every name of the public face is there."""

import subprocess
import sys
import tomllib
from pathlib import Path

import motorsweep
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_import_loads_no_heavy_package():
    script = "import sys, motorsweep; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "torch",
        "petsc4py",
        "mpi4py",
        "zarr",
        "xarray",
        "dask",
        "distributed",
        "numpy",
        "scipy",
        "numba",
        "matplotlib",
    }
    assert not heavy.intersection(loaded)


def test_version_is_that_of_pyproject():
    assert motorsweep.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("name", motorsweep.__all__)
def test_public_name_is_there(name):
    assert getattr(motorsweep, name) is not None


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'open_result'.*open_results"):
        motorsweep.open_result  # noqa: B018
