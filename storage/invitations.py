"""Invitations: a link that lets one person make an account of a chosen role, once, for some days.

Only a hash of the link's secret is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from chatrlhf.errors import BadInputError, NotFoundError
from storage.accounts import checked_role, insert_account
from storage.audit import append_audit
from storage.database import Database, insert
from storage.people import get_person
from storage.records import Person
from storage.sessions import in_days, new_secret
from storage.values import checked_text, now, sha256_of

DAYS = 7
MAX_DAYS = 90


@dataclass(frozen=True)
class Invitation:
    """An invitation, and what became of it; ``invited_by`` and ``used_by`` are names."""

    id: int
    role: str
    note: str
    state: Literal["open", "used", "withdrawn", "expired"]
    invited_by: str | None
    used_by: str | None
    created_at: str
    expires_at: str


def invite(
    db: Database, role: str, *, note: str = "", days: float = DAYS, by: int | None = None
) -> tuple[Invitation, str]:
    """Make an invitation; its secret is returned once and stored nowhere.

    Raises BadInputError: an unknown role, no days or too many, a note that is too long.
    """
    checked_role(role)
    checked_text(note, "the note", may_be_blank=True, limit=200)
    if not 0 < days <= MAX_DAYS:
        raise BadInputError(f"an invitation lasts at most {MAX_DAYS} days, not {days:g}")
    secret = new_secret()
    with db.transaction() as connection:
        row = {
            "token_sha256": sha256_of(secret),
            "role": role,
            "note": note,
            "invited_by": by,
            "created_at": now(),
            "expires_at": in_days(days),
        }
        new_id = insert(connection, "invitations", row)
        append_audit(connection, by, "invite", {"invitation": new_id, "role": role, "note": note})
    return get_invitation(db, new_id), secret


def list_invitations(db: Database) -> list[Invitation]:
    """All invitations, newest first."""
    return _invitations(db, "1", [])


def get_invitation(db: Database, invitation_id: int) -> Invitation:
    """One invitation, or NotFoundError."""
    found = _invitations(db, "invitations.id = ?", [invitation_id])
    if not found:
        raise NotFoundError(f"there is no invitation {invitation_id}")
    return found[0]


def open_invitation(db: Database, secret: str) -> Invitation:
    """The invitation of a link, if it can still be used, else NotFoundError that says why not."""
    found = _invitations(db, "token_sha256 = ?", [sha256_of(secret)]) if secret.isascii() else []
    if not found:
        raise NotFoundError("there is no such invitation; check that the link is whole")
    if found[0].state != "open":
        reasons = {"used": "has been used", "withdrawn": "was withdrawn", "expired": "has expired"}
        raise NotFoundError(f"this invitation {reasons[found[0].state]}; ask for a new one")
    return found[0]


def accept_invitation(db: Database, secret: str, name: str, password_hash: str) -> Person:
    """Use an invitation up for a new account.

    Raises:
        NotFoundError: it cannot be used, or no more.
        BadInputError: the name is refused.
        ConflictError: the name is taken; the invitation is still open.
    """
    with db.transaction() as connection:
        invitation = open_invitation(db, secret)
        new_id = insert_account(db, connection, name, invitation.role, password_hash)
        connection.execute(
            "UPDATE invitations SET used_at = ?, used_by = ? WHERE id = ?",
            [now(), new_id, invitation.id],
        )
        person = get_person(db, new_id)
        detail = {"invitation": invitation.id, "name": person.name, "role": person.role}
        append_audit(connection, new_id, "accept_invitation", detail)
    return person


def withdraw_invitation(db: Database, invitation_id: int, by: int | None = None) -> Invitation:
    """End an open invitation. Raises NotFoundError when there is no such open one."""
    with db.transaction() as connection:
        if get_invitation(db, invitation_id).state != "open":
            raise NotFoundError(f"there is no open invitation {invitation_id}")
        connection.execute(
            "UPDATE invitations SET revoked_at = ? WHERE id = ?", [now(), invitation_id]
        )
        append_audit(connection, by, "withdraw_invitation", {"invitation": invitation_id})
    return get_invitation(db, invitation_id)


def _invitations(db: Database, where: str, parameters: list[Any]) -> list[Invitation]:
    rows = db.rows(
        "SELECT invitations.*, inviter.name AS inviter, user.name AS user FROM invitations "
        "LEFT JOIN people AS inviter ON inviter.id = invited_by "
        f"LEFT JOIN people AS user ON user.id = used_by WHERE {where} ORDER BY invitations.id DESC",
        parameters,
    )
    return [
        Invitation(
            row["id"],
            row["role"],
            row["note"],
            _state(row),
            row["inviter"],
            row["user"],
            row["created_at"],
            row["expires_at"],
        )
        for row in rows
    ]


def _state(row: dict[str, Any]) -> Literal["open", "used", "withdrawn", "expired"]:
    if row["used_at"] is not None:
        return "used"
    if row["revoked_at"] is not None:
        return "withdrawn"
    return "open" if row["expires_at"] > now() else "expired"
