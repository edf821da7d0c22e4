"""``/api``: people, their roles, invitations, and the audit log."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from chatrlhf.errors import BadInputError, ConflictError
from storage import accounts, audit, conversations, invitations, people
from ui import passwords
from ui.access import IdInPath, TheApp, TheCaller, ThePerson
from ui.api_me import person_json, signed_in
from ui.bodies import (
    LARGEST_ID,
    AcceptBody,
    InvitationBody,
    InvitationSecretBody,
    NewPersonBody,
    RoleBody,
)
from ui.callers import address_of
from ui.login_page import invitation_path
from ui.throttle import Throttle

router = APIRouter(prefix="/api", tags=["people"])


@router.get("/people")
def list_people(app: TheApp) -> list[dict[str, Any]]:
    """Everybody, with how much is theirs. Those without an account came with imported ratings."""
    return [dataclasses.asdict(row) for row in accounts.list_summaries(app.db)]


@router.post("/people")
def add_person(app: TheApp, me: TheCaller, body: NewPersonBody, request: Request) -> Response:
    """Add a person with a password. The first one is the local person, and signed in at once."""
    hashed = passwords.hash_password(body.password, body.name)
    if me.by == "local":
        if body.role != "admin":
            raise BadInputError("The first account must be an admin's: send the role admin.")
        return signed_in(app, accounts.add_first_account(app.db, body.name, hashed), request)
    added = accounts.add_account(app.db, body.name, body.role, hashed, me.person.id)
    return JSONResponse(person_json(added))


@router.patch("/people/{person_id}")
def change_role(app: TheApp, me: ThePerson, person_id: IdInPath, body: RoleBody) -> dict[str, Any]:
    """Give a person another role; it counts from their next request on."""
    return person_json(accounts.set_role(app.db, person_id, body.role, me.id))


@router.delete("/people/{person_id}")
def remove_person(app: TheApp, me: ThePerson, person_id: IdInPath) -> dict[str, Any]:
    """Erase a person with their chats and ratings; versions trained on these are marked."""
    if person_id == me.id:
        raise ConflictError("You cannot remove yourself. Ask another admin.")
    people.get_person(app.db, person_id)
    for conversation in conversations.list_conversations(app.db, person_id):
        app.cancel_conversation(conversation.id)
    gone = accounts.remove_person(app.db, person_id, me.id)
    return {"removed": dataclasses.asdict(gone)}


@router.get("/invitations")
def list_invitations(app: TheApp) -> list[dict[str, Any]]:
    """All invitations, newest first, and what became of them."""
    return [dataclasses.asdict(row) for row in invitations.list_invitations(app.db)]


@router.post("/invitations")
def invite(app: TheApp, me: TheCaller, body: InvitationBody) -> dict[str, Any]:
    """Invite somebody; only this answer ever holds the link's secret."""
    if me.by == "local":
        raise ConflictError("Make an account for yourself first, so that others can sign in too.")
    made, secret = invitations.invite(
        app.db, body.role, note=body.note, days=body.days, by=me.person.id
    )
    return {**dataclasses.asdict(made), "path": invitation_path(secret), "secret": secret}


@router.delete("/invitations/{invitation_id}")
def withdraw_invitation(app: TheApp, me: ThePerson, invitation_id: IdInPath) -> dict[str, Any]:
    """Withdraw an invitation that nobody has used."""
    return dataclasses.asdict(invitations.withdraw_invitation(app.db, invitation_id, me.id))


@router.post("/invitations/read")
def read_invitation(app: TheApp, body: InvitationSecretBody, request: Request) -> dict[str, Any]:
    """What an invitation offers, before it is accepted."""
    address = address_of(request.scope)
    throttle: Throttle = request.app.state.throttle
    throttle.take("", address)
    found = invitations.open_invitation(app.db, body.secret)
    throttle.give_back("", address)
    names = ("role", "note", "invited_by", "expires_at")
    return {name: getattr(found, name) for name in names}


@router.post("/invitations/accept")
def accept_invitation(app: TheApp, body: AcceptBody, request: Request) -> JSONResponse:
    """Make an account by an invitation, once; the answer sets the session's cookie."""
    address = address_of(request.scope)
    throttle: Throttle = request.app.state.throttle
    throttle.take("", address)
    invitations.open_invitation(app.db, body.secret)
    hashed = passwords.hash_password(body.password, body.name)
    person = invitations.accept_invitation(app.db, body.secret, body.name, hashed)
    throttle.give_back("", address)
    return signed_in(app, person, request)


@router.get("/audit")
def list_audit(
    app: TheApp,
    before_id: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[dict[str, Any]]:
    """The audit log, newest first; ``before_id`` is the last id of the page before."""
    return [dataclasses.asdict(row) for row in audit.newest_audit(app.db, before_id, limit)]


@router.get("/audit/verify")
def verify_audit(app: TheApp) -> dict[str, Any]:
    """Whether the chain of the log is whole, and the hash of its newest entry."""
    broken = audit.broken_audit_entry(app.db)
    return {"intact": broken is None, "broken_id": broken, "sha256": audit.newest_hash(app.db)}
