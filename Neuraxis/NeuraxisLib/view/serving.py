"""From a path to a page: the application and its web server, until Ctrl-C or until the page is closed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuraxisLib.errors import InputError
from NeuraxisLib.view.case_folder import CaseFolder, kind_of_folder
from NeuraxisLib.view.gate import Gate, new_token

#: Name by which a computer means itself: nobody else can reach it there.
LOOPBACK = "127.0.0.1"
#: Seconds without an open page after which it counts as closed; a page that is loaded again is back sooner.
CLOSED_AFTER_S = 3.0


@dataclass(frozen=True)
class Request:
    """What to show, and to whom.

    Attributes:
        path: scan, result folder, or a folder of such, which is listed.
        image: of a result folder; None looks beside it.
        task: what a scan is for; empty finds out.
        root: folder from which further cases may be opened.
        host, port: where to listen; port 0 takes a free one.
        until_closed: end when the page is closed.
        device, threads: for computing.
    """

    path: Path
    image: Path | None = None
    task: str = ""
    root: Path = Path()
    host: str = LOOPBACK
    port: int = 0
    until_closed: bool = False
    device: str = "auto"
    threads: int | None = None

    @property
    def is_list(self) -> bool:
        """Whether the path is a folder with cases in it, and no case itself."""
        if self.task or self.image is not None or not self.path.is_dir() or kind_of_folder(self.path) != "folder":
            return False
        return bool(CaseFolder(self.path).entries())


def shown_host(host: str) -> str:
    """How an address names the computer that listens at ``host``: by name if that is all of its addresses."""
    if host in ("", "0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def serve(request: Request, say: Callable[[str], None]) -> None:
    """Show a case in a page until it is ended.

    Args:
        request: what to show.
        say: is given the address once the page can be opened.

    Raises:
        NeuraxisError: the case cannot be read.
        InputError: the port is taken.
    """
    from trame.app import get_server

    from NeuraxisLib.view.viewer import CaseViewer

    server = get_server("neuraxis", client_type="vue3")
    viewer = CaseViewer(server, request)
    try:
        viewer.open_first()
        _Door(server, request, viewer).open(say)
    finally:
        viewer.stop()


class _Door:
    """The web server: everything lies below the token, so that neither cookies nor the page's scripts carry it."""

    def __init__(self, server: Any, request: Request, viewer: Any):
        self._server, self._request, self._viewer = server, request, viewer
        self._token = new_token()
        self._gate = Gate(self._token, self._on_count)
        self._closing: asyncio.TimerHandle | None = None

    def open(self, say: Callable[[str], None]) -> None:
        """Serve until the end."""
        from trame_client import module

        server, request = self._server, self._request
        os.environ["TRAME_ARGS"] = ""  # the command line is ours, not trame's
        server.cli.set_defaults(ws=f"{self._token}/ws")
        server.enable_module(module)
        server.serve = {f"{self._token}/{name}": place for name, place in server.serve.items()}
        server.serve[self._token], server._www = server._www, ""
        server.controller.on_server_bind.add(self._bind)
        server.controller.on_server_ready.add(lambda **_: say(self.address))
        try:
            server.start(
                host=request.host, port=request.port, backend="aiohttp", timeout=0, open_browser=False,
                show_connection_info=False, disable_logging=True, exec_mode="main",
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"Port {request.port} of '{request.host}' cannot be opened ({(error.strerror or 'unknown fault')}); "
                "name another, or none for a free one."
            ) from error

    @property
    def address(self) -> str:
        """What to open."""
        return f"http://{shown_host(self._request.host)}:{self._server.port}/{self._token}/"

    def _bind(self, web_server: Any) -> None:
        from aiohttp import web

        async def page(_: web.Request) -> web.Response:
            raise web.HTTPFound(f"/{self._token}/index.html")

        async def report(_: web.Request) -> web.StreamResponse:
            file = self._viewer.report
            if file is None:
                return web.Response(status=404, text="There is no report yet; run the task first.\n")
            headers = {
                "Content-Disposition": 'attachment; filename="report.html"',
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
            }
            return web.FileResponse(file, headers=headers)

        app = web_server.app
        app.middlewares.append(self._gate.middleware())
        app.add_routes([web.get(f"/{self._token}/", page), web.get(f"/{self._token}/report", report)])

    def _on_count(self, count: int) -> None:
        """A page was opened or closed."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if count == 0 and self._request.until_closed:
            self._closing = asyncio.get_running_loop().call_later(CLOSED_AFTER_S, _leave)


def _leave() -> None:
    """End as Ctrl-C does: at once, without waiting for browsers that keep their connections open."""
    from aiohttp.web_runner import GracefulExit

    raise GracefulExit
