"""``/api``: signing in and out, and what a person does with their own account."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from chatrlhf.app import App
from chatrlhf.errors import WrongPasswordError
from storage import accounts, people, sessions
from storage.records import Person
from ui import passwords
from ui.access import IdInPath, TheApp, TheCaller, TheCallerIfAny, TheOneSignedIn
from ui.bodies import KeyBody, NewPasswordBody, SignInBody
from ui.callers import address_of, clear_session_cookie, client_of, set_session_cookie
from ui.throttle import Throttle

router = APIRouter(prefix="/api", tags=["me"])

_WRONG = "The name or the password is wrong."


@router.post("/session")
def sign_in(
    app: TheApp, before: TheCallerIfAny, body: SignInBody, request: Request
) -> JSONResponse:
    """Sign in by name and password; the answer sets the session's cookie.

    Wrong passwords are slowed down, per name and per address.
    """
    throttle: Throttle = request.app.state.throttle
    address = address_of(request.scope)
    throttle.take(body.name, address)
    person = passwords.matching_person(app.db, body.name, body.password)
    if person is None:
        raise WrongPasswordError(_WRONG)
    throttle.give_back(body.name, address)
    if before is not None and before.session_id is not None:
        sessions.end_session(app.db, before.session_id, before.person.id)
    return signed_in(app, person, request)


@router.delete("/session")
def sign_out(app: TheApp, me: TheOneSignedIn, request: Request) -> JSONResponse:
    """Sign out of this browser."""
    assert me.session_id is not None
    sessions.end_session(app.db, me.session_id, me.person.id)
    return _signed_out(request, {"signed_out": 1})


@router.get("/me")
def who_am_i(app: TheApp, me: TheCaller) -> dict[str, Any]:
    """The person who asks, and how the server knows: local, by a session or by a key."""
    return {
        **person_json(me.person),
        "signed_in_by": me.by,
        "has_accounts": people.has_accounts(app.db),
    }


@router.put("/me/password")
def change_password(
    app: TheApp, me: TheOneSignedIn, body: NewPasswordBody, request: Request
) -> dict[str, Any]:
    """Change the own password; all other sessions end. API keys stay."""
    throttle: Throttle = request.app.state.throttle
    address = address_of(request.scope)
    throttle.take(me.person.name, address)
    if not passwords.is_password_of(app.db, me.person, body.old):
        raise WrongPasswordError("The old password is wrong.")
    throttle.give_back(me.person.name, address)
    hashed = passwords.hash_password(body.new, me.person.name)
    accounts.set_password(app.db, me.person.id, hashed, me.person.id, keep_session=me.session_id)
    return {"changed": True}


@router.get("/me/sessions")
def list_sessions(app: TheApp, me: TheCaller) -> list[dict[str, Any]]:
    """The browsers in which the person is signed in."""
    return [
        {**_without_person(row), "is_this_one": row.id == me.session_id}
        for row in sessions.list_sessions(app.db, me.person.id)
    ]


@router.delete("/me/sessions/{session_id}")
def end_session(app: TheApp, me: TheOneSignedIn, session_id: IdInPath) -> dict[str, Any]:
    """Sign out of one browser from another."""
    sessions.end_session(app.db, session_id, me.person.id)
    return {"signed_out": 1}


@router.delete("/me/sessions")
def sign_out_everywhere(app: TheApp, me: TheOneSignedIn, request: Request) -> JSONResponse:
    """Sign out of all browsers, this one too."""
    ended = sessions.end_all_sessions(app.db, me.person.id)
    return _signed_out(request, {"signed_out": ended})


@router.get("/me/keys")
def list_keys(app: TheApp, me: TheCaller) -> list[dict[str, Any]]:
    """The person's API keys: how they begin, and when they were last used."""
    return [_without_person(row) for row in sessions.list_keys(app.db, me.person.id)]


@router.post("/me/keys")
def make_key(app: TheApp, me: TheOneSignedIn, body: KeyBody) -> dict[str, Any]:
    """Make an API key; only this answer ever shows it."""
    made, key = sessions.make_key(app.db, me.person.id, body.name, me.person.id)
    return {**_without_person(made), "key": key}


@router.delete("/me/keys/{key_id}")
def revoke_key(app: TheApp, me: TheOneSignedIn, key_id: IdInPath) -> dict[str, Any]:
    """End an API key at once."""
    return _without_person(sessions.revoke_key(app.db, key_id, me.person.id, me.person.id))


def person_json(person: Person) -> dict[str, Any]:
    """A person as others may see them."""
    return {"id": person.id, "name": person.name, "role": person.role}


def signed_in(app: App, person: Person, request: Request) -> JSONResponse:
    """Open a session; the answer that gives the browser its cookie."""
    days = app.settings.serve.session_days
    token = sessions.open_session(
        app.db,
        person.id,
        client=client_of(request.headers),
        address=address_of(request.scope),
        days=days,
    )
    answer = JSONResponse(person_json(person), headers={"Cache-Control": "no-store"})
    set_session_cookie(answer, request.scope, token, days)
    return answer


def _signed_out(request: Request, content: dict[str, Any]) -> JSONResponse:
    answer = JSONResponse(content)
    clear_session_cookie(answer, request.scope)
    return answer


def _without_person(row: sessions.Session | sessions.ApiKey) -> dict[str, Any]:
    shown = dataclasses.asdict(row)
    del shown["person_id"]
    return shown
