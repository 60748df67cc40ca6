import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = """name = "tiny"
seed = 3
[head]
source = "sphere"
[head.mesh]
fine_mm = 6.0
coarse_mm = 10.0
fine_radius_mm = 40.0
[poses]
grid = 3
spacing_mm = 8.0
random = 3
random_radius_mm = 12.0
[volume]
n = 32
spacing_mm = 2.0
[solver]
poses_per_shard = 5
[stimulation]
intensities_percent_rmt = [110, 140]
trials = [14, 12]
[responses]
muscles = ["FDI", "APB", "ADM"]
[responses.synthetic]
synergies = 2
[autoencoder]
epochs = 2
batch = 8
[mappers]
depths = [3]
epochs = 4
batch = 8
synergies = 2
[validation]
repeats = 2
test_fraction = 0.2
[executor]
kind = "serial"
"""


def changed(text, **tables):
    """A study file with some keys of its tables set to other TOML values."""
    for place, value in tables.items():
        table, _, key = place.partition("__")
        lines = text.splitlines()
        header = f"[{table}]" if table != "top" else lines[0]
        if header not in lines:
            lines += [header]
        at = lines.index(header) + 1
        end = next((k for k in range(at, len(lines)) if lines[k].startswith("[")), len(lines))
        lines[at:end] = [line for line in lines[at:end] if line.partition("=")[0].strip() != key]
        lines.insert(at, f"{key} = {value}")
        text = "\n".join(lines) + "\n"
    return text


@pytest.fixture(scope="session")
def command(mesh_cache):
    """Run the motorsweep command in a folder; its meshes are kept for the session."""
    environment = {**os.environ, "MOTORSWEEP_CACHE": str(mesh_cache), "OMP_NUM_THREADS": "1"}

    def run(*words, folder, code=0, **kwargs):
        line = [sys.executable, "-m", "motorsweep.jobs.cli", *map(str, words)]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, **kwargs)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    run.environment = environment
    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory, command):
    """A tiny study on the layered sphere, run to its end; not to be changed."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(TINY)
    done = command("run", "study.toml", folder=folder)
    return Path(folder), done
