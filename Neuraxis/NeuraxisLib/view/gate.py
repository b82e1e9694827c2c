"""The door of the page: only who knows the token in the address comes in, to the page and to its socket alike."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

#: Nothing is fetched from elsewhere, framed, kept by the browser, or told to other sites. The page's templates are
#: compiled in the browser, which needs ``unsafe-eval``.
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host}; "
    "frame-ancestors 'none'"
)


def from_another_site(headers: Any) -> bool:
    """Whether a page of another site asks, for its own use; browsers say so, and a link that is followed is none."""
    return headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate"


def new_token() -> str:
    """192 random bits that can stand in an address."""
    return secrets.token_urlsafe(24)


class Gate:
    """Refuses requests whose path does not begin with the token, and counts the pages that are open.

    Args:
        token: first part of every path.
        on_count: called with the number of open pages whenever it changes.
    """

    def __init__(self, token: str, on_count: Callable[[int], None] = lambda count: None):
        self._token, self._on_count = token.encode(), on_count
        self._open = 0

    def admits(self, path: str) -> bool:
        """Whether a path begins with the token; takes as long for one that nearly does as for any other."""
        first = path.lstrip("/").partition("/")[0]
        return hmac.compare_digest(first.encode("utf-8", "replace"), self._token)

    def middleware(self) -> Callable[[Any, Any], Awaitable[Any]]:
        """The gate as a middleware of aiohttp."""
        from aiohttp import web

        @web.middleware
        async def gate(request: web.Request, handler: Callable) -> web.StreamResponse:
            if not self.admits(request.path):
                return web.Response(status=403, text="Open the whole address that 'neuraxis view' printed.\n")
            if from_another_site(request.headers):
                return web.Response(status=403, text="Another page may not ask for this one.\n")
            if request.path.endswith("/ws"):
                return await self._counted(handler, request)
            response = await handler(request)
            policy = _PAGE_POLICY.format(host=request.host)
            for name, value in {**_HEADERS, "Content-Security-Policy": policy}.items():
                response.headers.setdefault(name, value)
            return response

        return gate

    async def _counted(self, handler: Callable, request: Any) -> Any:
        self._count(1)
        try:
            return await handler(request)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._open += change
        self._on_count(self._open)
