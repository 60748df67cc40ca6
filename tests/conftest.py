import os
import signal
from pathlib import Path

import pytest

_CLUSTER = "tests/cluster/"
_LONGEST = (_CLUSTER, "tests/jobs/")


def pytest_configure():
    """A shell's `make test &` ignores SIGINT, and so would every process of the tests that are about Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """First what takes longest: nothing long is left to one process in the end while the others have no more to do."""
    items.sort(key=lambda item: [not item.nodeid.startswith(part) for part in _LONGEST])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand a whole file to one process, for what its tests share; those of the cluster together, for its SLURM."""
    from xdist.scheduler import LoadFileScheduling

    class FilesInOrder(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return _CLUSTER if nodeid.startswith(_CLUSTER) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return FilesInOrder(config, log)


@pytest.fixture(scope="session")
def mesh_cache(tmp_path_factory):
    """Meshes that the tests make, once for all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "heads"
    folder.mkdir(exist_ok=True)
    return folder


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
