"""Lets the page run its own scripts only, and none that slipped into it.

Gradio's page starts from inline scripts. Allowing all inline scripts would also allow those that a
hostile reply might smuggle in, so each answer gets a fresh nonce: only the script tags that the
server itself sent carry it.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCRIPT_TAG = re.compile(rb"<script(?=[\s>])")


def page_policy(nonce: str | None = None) -> str:
    """The content security policy; inline scripts run only with the nonce."""
    scripts = "'self'" if nonce is None else f"'self' 'nonce-{nonce}'"
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src {scripts}",
            "style-src 'self' 'unsafe-inline'",  # Gradio and its components style by attribute
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "frame-ancestors 'none'",
            "form-action 'self'",
        )
    )


class PageNonce:
    """Middleware: marks the script tags of HTML answers with the nonce of their policy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; hold back an HTML answer until it is whole and marked."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        # A compressed page could not be marked.
        kept = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await self.app({**scope, "headers": kept}, receive, _Marker(send))


class _Marker:
    """Collects one answer, and sends it on with marked script tags."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if MutableHeaders(scope=message).get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._send_marked(self._start)
            return
        await self._send(message)

    async def _send_marked(self, start: Message) -> None:
        nonce = secrets.token_hex(16)
        # Unquoted, so that a match inside a script's string would not end the string.
        body = _SCRIPT_TAG.sub(b"<script nonce=" + nonce.encode(), b"".join(self._parts))
        headers = MutableHeaders(scope=start)
        headers["Content-Security-Policy"] = page_policy(nonce)
        headers["Cache-Control"] = "no-store"
        if body:  # a HEAD answer keeps the length it announced
            headers["Content-Length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
