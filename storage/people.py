"""People. One who has a password has an account; the others only gave ratings.

Where nobody has an account, the local person does everything without a login.
"""

from __future__ import annotations

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.audit import add_audit, append_audit, broken_audit_entry, list_audit
from storage.database import Database, insert
from storage.records import Person
from storage.values import checked_text, now

__all__ = [
    "LOCAL_NAME",
    "ROLES",
    "add_audit",
    "append_audit",
    "broken_audit_entry",
    "create_person",
    "ensure_local_person",
    "find_person",
    "get_person",
    "has_accounts",
    "list_audit",
    "list_people",
    "operator",
    "person_id_of",
]

LOCAL_NAME = "local"
ROLES = ("reader", "rater", "trainer", "admin")
_COLUMNS = "id, name, role, created_at"
_ACCOUNT = "password_hash IS NOT NULL"


def ensure_local_person(db: Database) -> Person:
    """The one person of a computer without accounts, made at the first call.

    Raises ConflictError once there are accounts.
    """
    known = find_person(db, LOCAL_NAME)
    if known is not None:
        return known
    with db.transaction() as connection:
        if has_accounts(db):
            raise ConflictError("there are accounts, so nobody is the local person any more")
        connection.execute(
            "INSERT INTO people (name, role, created_at) VALUES (?, 'admin', ?) "
            "ON CONFLICT (name) DO NOTHING",
            [LOCAL_NAME, now()],
        )
    return ensure_local_person(db)


def has_accounts(db: Database) -> bool:
    """Whether somebody has a password, so that everybody needs to sign in."""
    return db.row(f"SELECT 1 FROM people WHERE {_ACCOUNT} LIMIT 1") is not None


def operator(db: Database) -> Person:
    """Who uses the command line: the local person, or the first admin where there are accounts."""
    row = db.row(
        f"SELECT {_COLUMNS} FROM people WHERE {_ACCOUNT} AND role = 'admin' ORDER BY id LIMIT 1"
    )
    return ensure_local_person(db) if row is None else Person(**row)


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


def person_id_of(db: Database, name: str) -> int:
    """The person of this name, in the caller's transaction; a new one is a rater without login."""
    checked_text(name, "the name of a person", limit=100)
    known = find_person(db, name)
    if known is not None:
        return known.id
    row = {"name": name, "role": "rater", "password_hash": None, "created_at": now()}
    return insert(db.connection(), "people", row)


def get_person(db: Database, person_id: int) -> Person:
    """One person, or NotFoundError."""
    row = db.row(f"SELECT {_COLUMNS} FROM people WHERE id = ?", [person_id])
    if row is None:
        raise NotFoundError(f"there is no person {person_id}")
    return Person(**row)


def list_people(db: Database) -> list[Person]:
    """All people, in the order in which they came."""
    return [Person(**row) for row in db.rows(f"SELECT {_COLUMNS} FROM people ORDER BY id")]
