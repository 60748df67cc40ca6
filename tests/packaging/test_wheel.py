"""The wheel holds what the folders hold: setuptools drops a folder that is not listed without a word."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("hpc", "jobs", "learn", "sim", "zarr_store")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Names in a wheel built from a copy of the sources, so that nothing is left in the working tree."""
    source = tmp_path_factory.mktemp("source")
    for path in [*ROOT.glob("*.py"), *(ROOT / name for name in ("pyproject.toml", "README.md", "py.typed"))]:
        shutil.copy(path, source)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "dist"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (source / "dist").glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


@pytest.mark.slow
def test_wheel_holds_the_modules_of_the_root_and_of_the_five_folders(wheel_names):
    modules = {f"motorsweep/{path.name}" for path in ROOT.glob("*.py")}
    modules |= {f"motorsweep/{folder}/{path.name}" for folder in FOLDERS for path in (ROOT / folder).glob("*.py")}
    assert {name for name in wheel_names if name.endswith(".py")} == modules


@pytest.mark.slow
def test_wheel_holds_the_marker_of_types_and_the_templates_and_nothing_more(wheel_names):
    folders = [folder / "templates" for folder in (ROOT / "hpc", ROOT / "jobs")]
    templates = {f"motorsweep/{each.relative_to(ROOT)}" for folder in folders for each in folder.glob("*")}
    assert {name for name in wheel_names if not name.endswith(".py")} == {"motorsweep/py.typed"} | templates


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_flat_packages(folder):
    assert (ROOT / folder / "__init__.py").is_file()
    nested = [
        str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*/*.py") if path.parent.name != "__pycache__"
    ]
    assert not nested, f"subpackages are not listed in pyproject.toml, so the wheel would lack them: {nested}"


def test_pyproject_lists_the_root_and_the_five_folders():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(packages) == ["motorsweep", *(f"motorsweep.{folder}" for folder in FOLDERS)]
