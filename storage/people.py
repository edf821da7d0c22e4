"""People, and the audit log of what they did."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlite_utils

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.database import Database, insert
from storage.records import AuditEntry, Person
from storage.values import checked_text, now, to_json

LOCAL_NAME = "local"
ROLES = ("reader", "rater", "trainer", "admin")
_FIRST_SHA256 = "0" * 64
_COLUMNS = "id, name, role, created_at"


def ensure_local_person(db: Database) -> Person:
    """The one person of a computer without accounts, made at the first call."""
    known = find_person(db, LOCAL_NAME)
    if known is not None:
        return known
    with db.transaction() as connection:
        connection.execute(
            "INSERT INTO people (name, role, created_at) VALUES (?, 'admin', ?) "
            "ON CONFLICT (name) DO NOTHING",
            [LOCAL_NAME, now()],
        )
    return ensure_local_person(db)


def create_person(
    db: Database, name: str, role: str = "rater", password_hash: str | None = None
) -> Person:
    """Add a person. Raises BadInputError (name, role) or ConflictError (the name is taken)."""
    checked_text(name, "the name", limit=100)
    if role not in ROLES:
        raise BadInputError(f"role {role!r} is none of {', '.join(ROLES)}")
    with db.transaction() as connection:
        if find_person(db, name) is not None:
            raise ConflictError(f"there is a person {name!r} already; choose another name")
        row = {"name": name, "role": role, "password_hash": password_hash, "created_at": now()}
        new_id = insert(connection, "people", row)
    return get_person(db, new_id)


def find_person(db: Database, name: str) -> Person | None:
    """The person of this name, or None."""
    row = db.row(f"SELECT {_COLUMNS} FROM people WHERE name = ?", [name])
    return None if row is None else Person(**row)


def get_person(db: Database, person_id: int) -> Person:
    """One person, or NotFoundError."""
    row = db.row(f"SELECT {_COLUMNS} FROM people WHERE id = ?", [person_id])
    if row is None:
        raise NotFoundError(f"there is no person {person_id}")
    return Person(**row)


def list_people(db: Database) -> list[Person]:
    """All people, in the order in which they came."""
    return [Person(**row) for row in db.rows(f"SELECT {_COLUMNS} FROM people ORDER BY id")]


def add_audit(
    db: Database, person_id: int | None, action: str, detail: dict[str, Any]
) -> AuditEntry:
    """Append to the audit log; ``person_id`` None stands for the program itself."""
    with db.transaction() as connection:
        return append_audit(connection, person_id, action, detail)


def append_audit(
    connection: sqlite_utils.Database, person_id: int | None, action: str, detail: dict[str, Any]
) -> AuditEntry:
    """`add_audit` inside the caller's transaction."""
    newest = connection.execute("SELECT sha256 FROM audit_log ORDER BY id DESC LIMIT 1").fetchone()
    row = {
        "person_id": person_id,
        "action": checked_text(action, "the action", limit=100),
        "detail": to_json(detail),
        "created_at": now(),
        "previous_sha256": newest[0] if newest else _FIRST_SHA256,
    }
    row["sha256"] = _chained(row)
    new_id = insert(connection, "audit_log", row)
    return AuditEntry(id=new_id, **{**row, "detail": json.loads(str(row["detail"]))})


def list_audit(db: Database, after_id: int = 0, limit: int = 100) -> list[AuditEntry]:
    """Entries with an id above ``after_id``, oldest first."""
    rows = db.rows("SELECT * FROM audit_log WHERE id > ? ORDER BY id LIMIT ?", [after_id, limit])
    return [AuditEntry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]


def broken_audit_entry(db: Database) -> int | None:
    """The id of the first entry that was changed, or follows one that was removed; None if none.

    Entries removed from the end leave no trace here.
    """
    previous = _FIRST_SHA256
    for row in db.rows("SELECT * FROM audit_log ORDER BY id"):
        if row["previous_sha256"] != previous or _chained(row) != row["sha256"]:
            return int(row["id"])
        previous = row["sha256"]
    return None


def _chained(row: dict[str, Any]) -> str:
    covered = ("previous_sha256", "person_id", "action", "detail", "created_at")
    return hashlib.sha256(to_json([row[name] for name in covered]).encode()).hexdigest()
