"""What stands before every route, Gradio's included: host, origin and size checks, headers.

Gradio checks no Host header, so a page of a foreign site could reach it by DNS rebinding, and its
routes accept cross-origin posts. One middleware guards all routes, because a check that each
route must remember is a check that one route forgets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.errors import error_answer
from ui.page_policy import page_policy

BODY_LIMIT_BYTES = 1_000_000
IMPORT_LIMIT_BYTES = 50_000_000
BODY_LIMITS = {"/api/import": IMPORT_LIMIT_BYTES, "/api/prompts/import": IMPORT_LIMIT_BYTES}
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    "Content-Security-Policy": page_policy(),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class GuardMiddleware:
    """Refuse requests for foreign hosts and from foreign pages.

    With ``any_address``, any IP address is a known host: a foreign page can have the browser take
    its own name for this server, but not an address.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str] = (), *, any_address: bool = False
    ) -> None:
        self.app = app
        self.hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}
        self.any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, then pass it on with the security headers added to its answer."""
        if scope["type"] == "websocket":
            # Nothing here speaks WebSocket; browsers send them across origins without asking.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        path = scope["path"]
        refusal = self._foreign_host(path, headers) or _foreign_page(path, scope["method"], headers)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _foreign_host(self, path: str, headers: Headers) -> JSONResponse | None:
        host = host_name(headers.get("host", ""))
        if host in self.hosts or (self.any_address and host and _is_address(host)):
            return None
        known = ", ".join(sorted(self.hosts))
        message = (
            f"This server does not answer for host {host!r}, only for {known}. Name it in the "
            "setting serve.hosts if it is yours."
        )
        return error_answer(path, 400, "wrong_host", message)


class BodyLimit:
    """Middleware: refuse requests of too large a body, after it is known who asks."""

    def __init__(self, app: ASGIApp, body_limit: int = BODY_LIMIT_BYTES) -> None:
        self.app = app
        self.body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of one request, and pass it on in one piece."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        limit = max(self.body_limit, BODY_LIMITS.get(path, 0))
        body = await _read_body(Headers(scope=scope), receive, limit)
        if body is None:
            message = f"The request is larger than {limit:,} bytes. Send less at once."
            await error_answer(path, 413, "too_large", message)(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_name(host_header: str) -> str | None:
    """The name in a Host header, lower case, without its port; None when it is malformed."""
    try:
        parts = urlsplit(f"//{host_header}")
        parts.port  # noqa: B018  (reading it checks it)
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname


def _foreign_page(path: str, method: str, headers: Headers) -> JSONResponse | None:
    """A browser says where a request comes from; programs say nothing and pass."""
    if method in SAFE_METHODS:
        return None
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    own = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if own and site in (None, "same-origin", "none"):
        return None
    return error_answer(
        path,
        403,
        "foreign_origin",
        f"The request comes from another site ({origin or site}). Use this server's own page.",
    )


async def _read_body(headers: Headers, receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when it is larger than ``limit`` bytes."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > limit:
        return None
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
