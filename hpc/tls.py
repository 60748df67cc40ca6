"""Encryption of what Dask's scheduler and workers say: certificates of one run, in files that only its user reads."""

import ipaddress
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from ..errors import MissingPackageError


def is_encrypted(tls: str, address: str) -> bool:
    """Return whether a scheduler at an address is to speak TLS.

    Without it, whoever reaches the scheduler's port can have its workers run anything.

    Parameters
    ----------
    tls : str
        ``tls`` of the [slurm] table.
    address : str
        IP address that the scheduler listens at.

    Examples
    --------
    >>> is_encrypted("auto", "127.0.0.1"), is_encrypted("auto", "10.1.2.3"), is_encrypted("off", "10.1.2.3")
    (False, True, False)
    """
    return tls == "on" or (tls == "auto" and not ipaddress.ip_address(address).is_loopback)


@contextmanager
def temporary_security(folder):
    """Make a certificate and a key for one run, and remove them at its end.

    One pair serves scheduler, workers and client: each proves that it can read the user's files.

    Parameters
    ----------
    folder : path-like
        That the workers' nodes see as well; a folder of mode 700 is made in it, with files of mode 600.

    Yields
    ------
    distributed.security.Security
        That names files and holds no key text, so that none gets into scripts or logs.

    Raises
    ------
    MissingPackageError
        Without cryptography.

    Examples
    --------
    >>> with temporary_security(study.scratch) as security:                       # doctest: +SKIP
    ...     SLURMCluster(security=security, ...)
    """
    from distributed.security import Security

    try:
        made = Security.temporary()
    except ImportError as error:
        raise MissingPackageError(
            "encrypting what scheduler and workers say needs cryptography: pip install 'motorsweep[cluster]'; or set "
            'tls = "off" in [slurm], if nobody else can reach the network between the nodes.'
        ) from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="tls-", dir=folder))
    try:
        certificate = _write(place / "certificate.pem", made.tls_scheduler_cert)
        key = _write(place / "key.pem", made.tls_scheduler_key)
        roles = ("client", "scheduler", "worker")
        files = {f"tls_{role}_cert": certificate for role in roles} | {f"tls_{role}_key": key for role in roles}
        yield Security(require_encryption=True, tls_ca_file=certificate, **files)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write(path, text):
    # Never readable by others, not even for a moment before a chmod.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return os.fspath(path)
