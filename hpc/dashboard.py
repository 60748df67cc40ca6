"""The page of a study over HTTP: beside Dask's own pages on its scheduler, or by a server of its own on the loopback.

Only what :mod:`.study_page` says of the study is served, to read: no file, no path of the request, no other method.
"""

import asyncio
import base64
import hashlib
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from ..errors import InputError
from .study_page import StudyPage

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names that a browser may call our own server by. Another one is a page of a stranger's that had its name lead here
to read what only this machine may (DNS rebinding)."""

_LOOK_SECONDS = 1.0
_TEMPLATE = Path(__file__).parent / "templates" / "study.html"


class LivePage:
    """Looks at a study in a thread of its own, at most once a second however many browsers ask.

    Parameters
    ----------
    study : Study or path-like
    """

    def __init__(self, study):
        self._page = StudyPage(study)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="motorsweep-page")
        self._look, self._began, self._lock = None, 0.0, threading.Lock()

    async def text(self) -> str:
        """Return the snapshot as JSON."""
        with self._lock:
            if self._look is None or (self._look.done() and time.monotonic() - self._began > _LOOK_SECONDS):
                self._began, self._look = time.monotonic(), self._pool.submit(self._take)
            look = self._look
        return await asyncio.shield(asyncio.wrap_future(look))

    def _take(self):
        return json.dumps(self._page.snapshot(time.time()), ensure_ascii=False, allow_nan=False)


@lru_cache(maxsize=8)
def live_page(folder: str) -> LivePage:
    """Return the page of a study; it is kept, as a look at what was seen before is cheap."""
    return LivePage(folder)


class _Handler(RequestHandler):
    """Shared by the page and its values: whose study it is, who may ask, and what the browser may do with it."""

    def initialize(self, dask_server=None, study=None):
        self._scheduler, self._study = dask_server, study

    def prepare(self):
        if self._scheduler is None and self.request.host_name.lower() not in LOOPBACK_NAMES:
            raise HTTPError(403, reason="This page answers to the names localhost and 127.0.0.1 only")

    def set_default_headers(self):
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Content-Security-Policy", "default-src 'none'")

    @property
    def study(self):
        """Folder of the study; on a scheduler, what :func:`.dask_address.publish` has told it."""
        folder = self._study or getattr(self._scheduler, "motorsweep_study", None)
        if folder is None:
            raise HTTPError(404, reason="This scheduler serves no study")
        return str(folder)


class PageHandler(_Handler):
    """The page itself, the same for all studies."""

    def get(self):
        """Send it."""
        text, policy = _page_and_policy()
        self.set_header("Content-Security-Policy", policy)
        self.finish(text)


class SnapshotHandler(_Handler):
    """The values that the page shows."""

    async def get(self):
        """Send them as JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        if self._scheduler is not None:
            self.set_header("Motorsweep-Beside", "dask")  # whose address from the browser is that of this page
        self.finish(await live_page(self.study).text())


@lru_cache(maxsize=1)
def _page_and_policy():
    """The page, and a policy by which nothing runs in it but its own script, and which speaks to nobody else."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1].encode()).digest())
        for tag in ("script", "style")
    }
    script, style = (hashes[tag].decode() for tag in ("script", "style"))
    return text, (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src 'sha256-{script}'; "
        f"style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


routes = [(r"study", PageHandler, {}), (r"study\.json", SnapshotHandler, {})]
"""For Dask's ``distributed.scheduler.http.routes``."""


class StudyServer:
    """Serves the page of one study on this machine's loopback, to be used inside a running asyncio loop.

    Parameters
    ----------
    study : Study or path-like
    port : int
        0: any that is free.

    Raises
    ------
    InputError
        Where the port is taken or not allowed.

    Examples
    --------
    >>> server = StudyServer("studies/quick", port=0)        # doctest: +SKIP
    >>> server.address                                       # doctest: +SKIP
    'http://127.0.0.1:40519/study'
    """

    def __init__(self, study, port: int = 0):
        known = {"study": str(getattr(study, "folder", study))}
        handlers = [(f"/{path}", handler, known) for path, handler, _ in routes] + [("/", PageHandler, known)]
        try:
            if not 0 <= port <= 65535:
                raise OSError("there is no such port")
            sockets = bind_sockets(port, "127.0.0.1")
        except OSError as error:
            raise InputError(
                f"serving the dashboard on port {port} of this machine: {error}; give another --port, or leave it out "
                "to take any that is free."
            ) from error
        self._server = HTTPServer(Application(handlers, log_function=lambda handler: None))
        self._server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/study"

    async def close(self) -> None:
        """Stop listening and let go of the browsers."""
        self._server.stop()
        await self._server.close_all_connections()
