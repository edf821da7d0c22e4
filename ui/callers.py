"""Who a request comes from: the local person, or that of an API key or of a session's cookie."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Literal

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from chatrlhf.app import App
from chatrlhf.errors import SignInError, StorageError
from storage import people, sessions
from storage.database import Database
from storage.records import Person

logger = logging.getLogger(__name__)

_COOKIE = "chatrlhf_session"
_SECURE_COOKIE = "__Host-chatrlhf_session"  # browsers take it over https from this very host only
# A proxy adds these; without accounts, whoever is behind it must not be taken for the local person.
_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
# In this order: Edge also calls itself Chrome, and all of them call themselves Safari.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("Firefox", "Firefox"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


@dataclass(frozen=True)
class Caller:
    """The person who asks, and how that is known; the session's id where it is one."""

    person: Person
    by: Literal["local", "session", "key"]
    session_id: int | None = None


def caller_of(app: App, scope: Scope) -> Caller | None:
    """Who asks; None when the request shows neither key nor session.

    Raises SignInError: the key or session is not (or no longer) good.
    """
    headers = Headers(scope=scope)
    if not people.has_accounts(app.db):
        return _local_caller(app, headers)
    authorization = headers.get("authorization")
    if authorization is not None:
        return _caller_by_key(app.db, authorization)
    token = _token_in(scope, headers)
    return None if token is None else _caller_by_session(app.db, token)


def address_of(scope: Scope | dict[str, Any]) -> str:
    """Where the request comes from; behind a trusted proxy, who is behind it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def client_of(headers: Headers) -> str:
    """Browser and system in a few words, so that people tell their sessions apart."""
    agent = headers.get("user-agent", "")
    known = [
        next((name for mark, name in marks if mark in agent), "") for marks in (_BROWSERS, _SYSTEMS)
    ]
    return ", ".join(filter(None, known)) or agent[:60]


def set_session_cookie(response: Response, scope: Scope, token: str, days: int) -> None:
    """Hand a session to the browser: no script reads it, and no other site's request carries it."""
    is_secure = scope.get("scheme") == "https"
    response.set_cookie(
        _SECURE_COOKIE if is_secure else _COOKIE,
        token,
        max_age=days * 24 * 3600,
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="strict",
    )


def clear_session_cookie(response: Response, scope: Scope) -> None:
    """Have the browser forget the session."""
    is_secure = scope.get("scheme") == "https"
    name = _SECURE_COOKIE if is_secure else _COOKIE
    response.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="strict")


def _local_caller(app: App, headers: Headers) -> Caller:
    if app.settings.serve.is_for_this_computer and not any(name in headers for name in _FORWARDING):
        return Caller(people.ensure_local_person(app.db), "local")
    raise SignInError(
        "There are no accounts yet, so only this computer itself may ask, and no proxy. On the "
        "server, run: chatrlhf people add --admin NAME"
    )


def _caller_by_key(db: Database, authorization: str) -> Caller:
    scheme, _, key = authorization.partition(" ")
    found = sessions.find_key(db, key.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise SignInError(
            "The API key is not known, or was revoked. Make one on the page People, and send it as "
            f"Authorization: Bearer {sessions.KEY_PREFIX}..."
        )
    _note_use(db, found[0])
    return Caller(found[1], "key")


def _caller_by_session(db: Database, token: str) -> Caller:
    found = sessions.find_session(db, token)
    if found is None:
        raise SignInError("The session has ended. Sign in again at /login.")
    _note_use(db, found[0])
    return Caller(found[1], "session", found[0].id)


def _note_use(db: Database, used: sessions.Session | sessions.ApiKey) -> None:
    try:
        sessions.note_use(db, used)
    except StorageError as error:  # a full disk is no reason to show nothing
        logger.warning("when a session or key was last used is not stored: %s", error)


def _token_in(scope: Scope, headers: Headers) -> str | None:
    name = _SECURE_COOKIE if scope.get("scheme") == "https" else _COOKIE
    for header in headers.getlist("cookie"):
        try:
            found = SimpleCookie(header).get(name)
        except CookieError:
            continue
        if found is not None:
            return found.value
    return None
