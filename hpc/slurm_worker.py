"""What a SLURM job of Dask workers runs: ``python -m motorsweep.hpc.slurm_worker tcp://SCHEDULER ...``.

Dask's own ``dask worker``, which listens on one address instead of all, and whose workers end between two tasks.
"""

import asyncio
import socket
import sys

import dask
from distributed import Status, Worker
from distributed.utils import get_ip, get_ip_interface

from ..errors import ConfigError
from .dask_executor import SETTINGS

_POLL_SECONDS = 0.2


class PatientWorker(Worker):
    """Finishes the task that it runs, and waits until its result is taken, before it ends at its lifetime.

    Dask's own worker gives up the running task, whose hour of work another worker then does again.
    """

    async def close_gracefully(self, restart=None, reason="worker-close-gracefully"):
        """Leave the cluster between two tasks."""
        if self.status is not Status.running:
            await super().close_gracefully(restart=restart, reason=reason)
            return
        self.status = Status.closing_gracefully  # no further task comes
        while self.status is Status.closing_gracefully and (self.state.executing or self.data):
            await asyncio.sleep(_POLL_SECONDS)
        if self.status is Status.closing_gracefully:
            await self.scheduler.retire_workers(workers=[self.address], close_workers=False, remove=True)
            await self.close(nanny=not (self.lifetime_restart if restart is None else restart), reason=reason)


def node_address(interface: str = "") -> str:
    """Return this node's IP address on an interface, or the one that its name leads to.

    Parameters
    ----------
    interface : str
        Such as ``"ib0"``; empty: by the name.

    Raises
    ------
    ConfigError
        If there is no such interface here.

    Examples
    --------
    >>> node_address("lo")
    '127.0.0.1'
    """
    if interface:
        try:
            return get_ip_interface(interface)
        except ValueError as error:
            raise ConfigError(f'[slurm] interface is "{interface}", but on {socket.gethostname()}: {error}') from error
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return get_ip()
    # Debian's /etc/hosts gives a machine's own name an address of the loopback, which other nodes cannot reach.
    return get_ip() if address.startswith("127.") else address


def worker_arguments(arguments: list) -> list:
    """Return the arguments of ``dask worker``: as given, with the one address to listen at.

    Parameters
    ----------
    arguments : list of str

    Returns
    -------
    list of str

    Examples
    --------
    >>> worker_arguments(["tcp://127.0.0.1:8786", "--interface", "lo"])[3:6]
    ['--dashboard-address', '127.0.0.1:0', '--no-dashboard']
    """
    interface = arguments[arguments.index("--interface") + 1] if "--interface" in arguments else ""
    address = node_address(interface)
    listen = [] if interface else ["--host", address]
    # Without the second, workers would serve their health page on all interfaces.
    listen += ["--dashboard-address", f"{address}:0", "--no-dashboard"]
    return [*arguments, *listen, "--worker-class", f"{PatientWorker.__module__}.{PatientWorker.__name__}"]


def main() -> None:
    """Run the workers of a job until they end."""
    from distributed.cli.dask_worker import main as dask_worker

    dask.config.set(SETTINGS)
    dask_worker(worker_arguments(sys.argv[1:]))


if __name__ == "__main__":
    main()
