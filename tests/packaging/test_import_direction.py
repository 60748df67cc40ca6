"""Who may import whom, read from the sources: folders only import downwards, and only what is declared."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "sim": {"errors"},
    "learn": {"errors"},
    "zarr_store": {"errors", "sim"},
    "hpc": {"errors", "sim", "learn", "zarr_store"},
    "jobs": {"errors", "sim", "learn", "zarr_store", "hpc"},
}
# Not on any index as a wheel: Debian's package, linked into .venv by setup.sh.
FROM_THE_SYSTEM = {"pygalmesh"}


def imports_of(path):
    """Yield (line, level, module, whether it runs at import time) of every import in a file."""

    def walk(node, at_import):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, 0, alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                yield child.lineno, child.level, child.module, at_import
            elif isinstance(child, ast.ImportFrom):
                yield from ((child.lineno, child.level, alias.name, at_import) for alias in child.names)
            yield from walk(child, at_import and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    yield from walk(ast.parse(path.read_text()), True)


def imports_of_folder(folder):
    """Return (place, level, module, whether it runs at import time) of every import in a folder."""
    paths = sorted((ROOT / folder).glob("*.py"))
    return [(f"{folder}/{path.name}:{line}", *rest) for path in paths for line, *rest in imports_of(path)]


def absolute_imports(folder, modules):
    """Return those absolute imports of a folder whose top-level name is among ``modules``."""
    imports = imports_of_folder(folder)
    return [
        f"{place} imports {name}" for place, level, name, _ in imports if not level and name.split(".")[0] in modules
    ]


@pytest.mark.parametrize("folder", ALLOWED)
def test_folder_imports_only_what_lies_below_it(folder):
    allowed = ALLOWED[folder] | {"__version__"}
    upward = [
        f"{place} imports {module}"
        for place, level, module, _ in imports_of_folder(folder)
        if level > 2 or (level == 2 and module.split(".")[0] not in allowed)
    ]
    assert not upward


@pytest.mark.parametrize("folder", ALLOWED)
def test_our_own_folders_are_imported_relatively(folder):
    """A module imported as ``sim.head`` and as ``motorsweep.sim.head`` exists twice, with two sets of classes."""
    assert not absolute_imports(folder, {"motorsweep", "errors", *ALLOWED})


@pytest.mark.parametrize("folder", ["sim", "learn"])
def test_physics_and_training_know_no_engine(folder):
    assert not absolute_imports(folder, {"dask", "distributed", "dask_jobqueue", "zarr"})


def distribution_names(requirements):
    return {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in requirements}


@pytest.mark.parametrize("folder", ALLOWED)
def test_every_import_is_declared_and_extras_are_only_imported_at_the_point_of_use(folder):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = distribution_names(project["dependencies"])
    extras = {name for group in ("cluster", "eeg", "view") for name in project["optional-dependencies"][group]}
    installed = packages_distributions()
    undeclared = []
    for place, level, module, at_import in imports_of_folder(folder):
        top = module.split(".")[0]
        if level or top in sys.stdlib_module_names or (top in FROM_THE_SYSTEM and not at_import):
            continue
        names = distribution_names([top, *installed.get(top, [])])
        if not names & (base if at_import else base | extras):
            undeclared.append(f"{place} imports {top} ({'at import time' if at_import else 'in a function'})")
    assert not undeclared
