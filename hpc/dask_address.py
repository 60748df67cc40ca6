"""Where the Dask dashboard of a running study is: written by its coordinator, found by `motorsweep dashboard`."""

import getpass
import json
import os
import re
import socket
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from ..zarr_store.study import Study, atomic_write_text
from .coordinator import is_alive
from .events import utc_now

_ADDRESS = re.compile(r"https?://(\[[0-9A-Fa-f:]+\]|[0-9A-Za-z][0-9A-Za-z.-]*):[0-9]{1,5}")
_HOST = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")


@dataclass(frozen=True, kw_only=True)
class DaskAddress:
    """Where a Dask dashboard is.

    Attributes
    ----------
    address : str
        ``http://HOST:PORT``.
    host : str
        Machine that serves it.
    pid : int
        Process that serves it.
    time : str
        Since when, UTC.
    """

    address: str
    host: str
    pid: int
    time: str

    @property
    def is_here(self) -> bool:
        """Whether it is served by this machine."""
        return self.host == socket.gethostname()

    def tunnel(self) -> str:
        """Return the command that brings the dashboard to the machine of a user who can log in to this one."""
        place = urlsplit(self.address)
        return ssh_line(place.hostname, place.port, node=self.host)


def ssh_line(host: str, port: int, node: str = "") -> str:
    """Return the command, for the user's own machine, that makes a port of this one or of a node one of its own.

    Parameters
    ----------
    host : str
        Address that the port is bound to.
    port : int
    node : str
        Machine whose port it is, where the address is its loopback; empty: this one.

    Examples
    --------
    >>> ssh_line("10.1.2.3", 8787).startswith("ssh -N -L 8787:10.1.2.3:8787 ")
    True
    """
    user, login = getpass.getuser(), os.environ.get("SLURM_SUBMIT_HOST") or socket.getfqdn()
    to = f"{user}@{login}"
    if host in ("127.0.0.1", "localhost", "::1") and node not in ("", socket.gethostname()):
        to = f"-J {user}@{login} {user}@{node}"
    return f"ssh -N -L {port}:{f'[{host}]' if ':' in host else host}:{port} {to}"


@contextmanager
def publish(study, executor):
    """Let Dask's scheduler serve the page of a study while the block runs, and tell other processes where.

    Parameters
    ----------
    study : Study, path-like or None
        None: Dask's own dashboard only.
    executor
        With ``dashboard``: the address of Dask's, or None.

    Yields
    ------
    str or None
        The address for people: of the study's page, which leads to Dask's dashboard; of that if there is no study.
    """
    if study is None or not executor.dashboard:
        yield executor.dashboard
        return
    study = study if isinstance(study, Study) else Study(study)
    executor.scheduler.motorsweep_study = str(study.folder)
    place = urlsplit(executor.dashboard)
    found = DaskAddress(
        address=f"{place.scheme}://{place.netloc}", host=socket.gethostname(), pid=os.getpid(), time=utc_now()
    )
    atomic_write_text(study.dashboard, json.dumps(asdict(found)))
    try:
        yield f"{found.address}/study"
    finally:
        study.dashboard.unlink(missing_ok=True)


def find_dashboard(study) -> DaskAddress | None:
    """Return where the dashboard of a running study is; None where there is none.

    What the file says is taken only if it is an address and the name of a host: it goes into a command line.
    """
    try:
        found = DaskAddress(**json.loads(study.dashboard.read_text()))
        valid = _ADDRESS.fullmatch(found.address) and _HOST.fullmatch(found.host) and int(found.pid) > 0
    except (OSError, ValueError, TypeError):
        return None
    return found if valid and not (found.is_here and not is_alive(found.pid)) else None
