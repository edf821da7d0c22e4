"""Whether who asks may: one middleware before every route, Gradio's included.

It finds the route of a request as the server's own routing does, and holds the route's least role
(`ui.roles`) against the person of the session or key.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import iter_route_contexts
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatrlhf.app import App
from chatrlhf.errors import ChatRLHFError, ForbiddenError, SignInError
from storage.audit import add_audit
from storage.sessions import KEY_PREFIX
from ui.callers import Caller, caller_of
from ui.errors import error_answer
from ui.roles import RULES, Rule

logger = logging.getLogger(__name__)

LOGIN_PATH = "/login"
_NO_ROUTE = Rule("reader")  # the answer will be that there is none


@dataclass(frozen=True)
class GuardedRoute:
    """A route of the server as the gate matches it; no methods stand for all of them."""

    name: str
    methods: frozenset[str]
    pattern: re.Pattern[str]
    rule: Rule


def route_names(server: FastAPI) -> Iterator[tuple[str, str, frozenset[str]]]:
    """All routes of a server in its order: name as in `ui.roles`, path, methods (none: all)."""
    for route in iter_route_contexts(server.routes):
        original = route.original_route
        if isinstance(original, Mount):
            yield f"MOUNT {original.path or '/'}", f"{original.path}/{{path:path}}", frozenset()
            continue
        methods = frozenset(route.methods or ())
        for method in sorted(methods - {"HEAD"}) or ["ANY"]:
            taken = {method} | ({"HEAD"} if method == "GET" else set())
            yield f"{method} {route.path}", str(route.path), frozenset(taken & methods)


def guarded_routes(server: FastAPI) -> tuple[GuardedRoute, ...]:
    """The routes with their rules, in the order in which the server tries them.

    Raises RuntimeError naming those that `ui.roles` does not know.
    """
    found = list(route_names(server))
    unknown = sorted({name for name, _, _ in found if name not in RULES})
    if unknown:
        raise RuntimeError(f"no role is declared in ui/roles.py for: {', '.join(unknown)}")
    return tuple(
        GuardedRoute(name, methods, compile_path(path)[0], RULES[name])
        for name, path, methods in found
    )


class Gate:
    """Middleware: lets through who may, with the caller in the scope's state."""

    def __init__(self, app: ASGIApp, server: FastAPI) -> None:
        self.app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it before any of its body is read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        rule, parameters = self._find(scope)
        app: App = self._server.state.chatrlhf
        try:
            caller = await run_in_threadpool(_caller, app, scope, rule)
        except ChatRLHFError as error:
            await _refused(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if rule.audited and caller is not None:
            note = partial(_note, app, caller, rule.audited, parameters)
            send = _Audited(send, note)
        await self.app(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Rule, dict[str, str]]:
        routes: tuple[GuardedRoute, ...] = self._server.state.guarded_routes
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        for route in routes:
            if route.methods and scope["method"] not in route.methods:
                continue
            match = route.pattern.match(path)
            if match:
                return route.rule, match.groupdict()
        return _NO_ROUTE, {}


def _caller(app: App, scope: Scope, rule: Rule) -> Caller | None:
    """Who asks, if they may; None only where nobody need be signed in.

    Raises SignInError or ForbiddenError.
    """
    if rule.needed == "nobody":
        try:
            return caller_of(app, scope)
        except ChatRLHFError:  # a session that ended locks nobody out of the login page
            return None
    caller = caller_of(app, scope)
    if caller is None:
        raise SignInError(
            f"Nobody is signed in. Sign in at {LOGIN_PATH}, or send an API key as "
            f"Authorization: Bearer {KEY_PREFIX}..."
        )
    if not rule.allows(caller.person.role):
        raise ForbiddenError(
            f"This needs the role {rule.needed}; yours is {caller.person.role}. Ask an admin."
        )
    return caller


def _refused(scope: Scope, error: ChatRLHFError) -> Response:
    path = scope["path"]
    if isinstance(error, SignInError):
        if path == "/" and scope["method"] in ("GET", "HEAD"):
            return RedirectResponse(LOGIN_PATH, 303, headers={"Cache-Control": "no-store"})
        answer = error_answer(path, error.http_status, error.code, str(error))
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
    return error_answer(path, error.http_status, error.code, str(error))


class _Audited:
    """Writes to the audit log before an answer that is no refusal begins."""

    def __init__(self, send: Send, note: Callable[[], None]) -> None:
        self._send = send
        self._note = note

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < 400:
            await run_in_threadpool(self._note)
        await self._send(message)


def _note(app: App, caller: Caller, action: str, parameters: dict[str, str]) -> None:
    try:
        add_audit(app.db, caller.person.id, action, {**parameters, "name": caller.person.name})
    except ChatRLHFError as error:  # it has happened: to say that it failed would be wrong
        logger.error("the audit log lacks %s by %s: %s", action, caller.person.name, error)
