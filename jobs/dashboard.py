"""The command ``dashboard``: the study's page in the user's browser, and how to reach Dask's own pages."""

import asyncio
import os
import sys
import webbrowser

from ..hpc.dashboard import StudyServer
from ..hpc.dask_address import find_dashboard, ssh_line
from ..zarr_store.study import Study


def serve_dashboard(folder, *, port: int = 0, open_browser: bool = True) -> None:
    """Serve the page of a study on this machine's loopback until Ctrl-C.

    Parameters
    ----------
    folder : path-like
        Of the study; it need not exist yet.
    port : int
        0: any that is free.
    open_browser : bool
        Where there is a display.

    Raises
    ------
    InputError
        Where the port is taken.

    Examples
    --------
    >>> serve_dashboard("studies/quick", port=8080)          # doctest: +SKIP
    dashboard  http://127.0.0.1:8080/study  (Ctrl-C ends it)
    """
    try:
        asyncio.run(_serve(Study(folder), port, open_browser))
    except KeyboardInterrupt:  # also of SIGTERM: to be ended is how a page ends
        print(file=sys.stderr)  # ends the line that shows ^C


async def _serve(study, port, open_browser):
    server = StudyServer(study, port)
    try:
        print(f"dashboard  {server.address}  (Ctrl-C ends it)", flush=True)
        if os.environ.get("SSH_CONNECTION"):
            print(f"{'':<9}  from your own machine: {ssh_line('127.0.0.1', server.port)}", flush=True)
        for line in dask_lines(study):
            print(line, flush=True)
        if open_browser and _has_display():
            webbrowser.open(server.address)
        await asyncio.Event().wait()
    finally:
        await server.close()


def _has_display():
    if os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def dask_lines(study) -> list[str]:
    """Return where the Dask dashboard of a study is, and how to reach it from afar; one line that there is none.

    Parameters
    ----------
    study : Study

    Examples
    --------
    >>> dask_lines(Study("studies/nowhere"))
    ['dask       no Dask dashboard now: the study runs no stage on Dask workers']
    """
    found = find_dashboard(study)
    if found is None:
        return ["dask       no Dask dashboard now: the study runs no stage on Dask workers"]
    lines = [f"dask       {found.address}/status  (on {found.host}, process {found.pid}, since {found.time})"]
    if not found.is_here or os.environ.get("SSH_CONNECTION"):
        lines.append(f"{'':<9}  from your own machine: {found.tunnel()}")
    return lines
