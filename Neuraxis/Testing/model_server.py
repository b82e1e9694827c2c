"""A small real HTTP server on loopback that serves model files well and badly, for tests of downloads."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ModelServer:
    """What the server does.

    Attributes:
        files: path -> content.
        cut_after: bytes of the next answers after which the connection is closed, in order; None sends all.
        redirects: path -> address.
        takes_ranges: whether it knows Range.
        resume: event to wait for in the middle of an answer; None for no waiting.
        requests: (path, Range header) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int | None] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    takes_ranges: bool = True
    resume: threading.Event | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.end_headers()
            return
        content = self.files.get(handler.path)
        if content is None:
            handler.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.takes_ranges else 0
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        self._send(handler, content[start:])

    def _send(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        limit = self.cut_after.pop(0) if self.cut_after else None
        if self.resume is not None:
            handler.wfile.write(content[: len(content) // 2])
            handler.wfile.flush()
            self.resume.wait(20)
            content = content[len(content) // 2 :]
        with suppress(OSError):  # the other side may have gone
            handler.wfile.write(content if limit is None else content[:limit])
        handler.close_connection = True


@contextmanager
def serving(**files: bytes) -> Iterator[ModelServer]:
    """A running server with these files (``name`` is served as ``/name``)."""
    shown = ModelServer({f"/{name}": content for name, content in files.items()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.answer(self)

        def log_message(self, *arguments) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shown.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield shown
    finally:
        if shown.resume is not None:
            shown.resume.set()
        server.shutdown()
        server.server_close()
