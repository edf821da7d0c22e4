"""What a route gets: the app, the person who asks, and ids that a row can have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from chatrlhf.app import App
from chatrlhf.errors import ForbiddenError, SignInError
from storage.records import Person
from ui.bodies import LARGEST_ID
from ui.callers import Caller


def _app_of(request: Request) -> App:
    app: App = request.app.state.chatrlhf
    return app


def _caller_if_any(request: Request) -> Caller | None:
    found: Caller | None = request.state.caller  # set by the gate for every request
    return found


def _caller_of(request: Request) -> Caller:
    found = _caller_if_any(request)
    if found is None:
        raise SignInError("Nobody is signed in. Sign in at /login.")
    return found


def _person_of(request: Request) -> Person:
    return _caller_of(request).person


def _caller_by_session(request: Request) -> Caller:
    caller = _caller_of(request)
    if caller.by != "session":
        raise ForbiddenError(
            "This is done on the page, signed in by name and password: so a key that was stolen "
            "cannot make itself at home. Where there are no accounts, there is nothing to do."
        )
    return caller


TheApp = Annotated[App, Depends(_app_of)]
ThePerson = Annotated[Person, Depends(_person_of)]
TheCaller = Annotated[Caller, Depends(_caller_of)]
TheCallerIfAny = Annotated[Caller | None, Depends(_caller_if_any)]
TheOneSignedIn = Annotated[Caller, Depends(_caller_by_session)]
IdInPath = Annotated[int, Path(ge=1, le=LARGEST_ID)]
