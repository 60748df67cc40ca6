import os
import signal
from pathlib import Path

import pytest


def pytest_configure():
    """A shell's `make test &` ignores SIGINT, and so would every process of the tests that are about Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mesh_cache(tmp_path_factory):
    """Meshes that the tests make, once for a session."""
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="session")
def sphere_head(mesh_cache):
    """Layered sphere, finer under the coil at its top; about 24 k nodes."""
    pytest.importorskip("pygalmesh", reason="meshing needs CGAL (python3-pygalmesh)")
    from motorsweep.sim.head import MeshSizes, load_head

    sizes = MeshSizes(fine_m=4e-3, coarse_m=8e-3, fine_radius_m=0.05)
    return load_head("sphere", sizes=sizes, hand_knob_m=(0, 0, 0.08), cache=mesh_cache)


@pytest.fixture(scope="session")
def data_folder():
    """Data of others, beside the project or where MOTORSWEEP_DATA says."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("MOTORSWEEP_DATA") or here.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("others' data is not here: set MOTORSWEEP_DATA to its folder")
    return folder
