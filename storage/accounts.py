"""Accounts: people who sign in. Each change of one is in the audit log, in the same transaction.

Passwords come here as hashes only; ``by`` is the id of who makes a change, None the command line.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import sqlite_utils

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.audit import append_audit
from storage.database import Database, insert
from storage.people import LOCAL_NAME, ROLES, ensure_local_person, get_person, has_accounts
from storage.rankings import COUNTED
from storage.records import Person
from storage.values import checked_text, now


@dataclass(frozen=True)
class PersonSummary:
    """A person as an admin sees them: with how much is theirs, and when they were last here."""

    id: int
    name: str
    role: str
    created_at: str
    has_account: bool
    conversations: int
    rankings: int
    last_used_at: str | None


def checked_name(name: str) -> str:
    """A name that an account can have, normalised, or BadInputError."""
    checked_text(name, "the name", limit=100)
    name = unicodedata.normalize("NFC", name.strip())
    if any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise BadInputError("the name has a character that cannot be seen; leave it out")
    if ":" in name or name.casefold() == LOCAL_NAME:
        raise BadInputError(
            f"an account cannot have the name {name!r}: names with a colon are of imported raters, "
            f"and {LOCAL_NAME!r} is the person before there are accounts; choose another"
        )
    return name


def checked_role(role: str) -> str:
    """The role itself, or BadInputError."""
    if role not in ROLES:
        raise BadInputError(f"role {role!r} is none of {', '.join(ROLES)}")
    return role


def add_first_account(db: Database, name: str, password_hash: str) -> Person:
    """Turn the local person into the first admin, who so keeps all chats and ratings.

    Raises:
        BadInputError: the name is refused.
        ConflictError: there are accounts already, or the name is taken.
    """
    local = None if has_accounts(db) else ensure_local_person(db)
    with db.transaction() as connection:
        if local is None or has_accounts(db):
            raise ConflictError("there are accounts already; sign in as an admin to add more")
        name = _free_name(db, name)
        connection.execute(
            "UPDATE people SET name = ?, role = 'admin', password_hash = ? WHERE id = ?",
            [name, password_hash, local.id],
        )
        detail = {"person": local.id, "name": name, "role": "admin"}
        append_audit(connection, local.id, "first_account", detail)
    return get_person(db, local.id)


def add_account(
    db: Database, name: str, role: str, password_hash: str, by: int | None = None
) -> Person:
    """Add a person who signs in. Raises BadInputError or ConflictError (the name is taken)."""
    with db.transaction() as connection:
        new_id = insert_account(db, connection, name, role, password_hash)
        person = get_person(db, new_id)
        detail = {"person": new_id, "name": person.name, "role": role}
        append_audit(connection, by, "add_person", detail)
    return person


def insert_account(
    db: Database, connection: sqlite_utils.Database, name: str, role: str, password_hash: str
) -> int:
    """The row of `add_account` in the caller's transaction; returns its id."""
    checked_role(role)
    row = {"name": _free_name(db, name), "role": role}
    row |= {"password_hash": password_hash, "created_at": now()}
    return insert(connection, "people", row)


def _free_name(db: Database, name: str) -> str:
    name = checked_name(name)
    # Case makes no difference: Ann and ann would be taken for one another.
    for row in db.rows("SELECT name FROM people"):
        if row["name"].casefold() == name.casefold():
            raise ConflictError(f"there is a person {row['name']!r} already; choose another name")
    return name


def find_login(db: Database, name: str) -> tuple[Person, str] | None:
    """The person of this name, in any case, and the hash of the password; None without either."""
    wanted = unicodedata.normalize("NFC", name.strip()).casefold()
    columns = "id, name, role, created_at, password_hash"
    for row in db.rows(f"SELECT {columns} FROM people WHERE password_hash IS NOT NULL"):
        password_hash = str(row.pop("password_hash"))
        if row["name"].casefold() == wanted:
            return Person(**row), password_hash
    return None


def password_hash_of(db: Database, person_id: int) -> str | None:
    """The hash of the person's password; None where they have no account."""
    row = db.row("SELECT password_hash FROM people WHERE id = ?", [person_id])
    return None if row is None else row["password_hash"]


def set_password(
    db: Database,
    person_id: int,
    password_hash: str,
    by: int | None = None,
    *,
    keep_session: int | None = None,
) -> None:
    """Give a person a new password, and end their sessions, except ``keep_session``."""
    with db.transaction() as connection:
        person = get_person(db, person_id)
        if person.name == LOCAL_NAME:
            raise ConflictError(
                "the local person has no password; make the first account: "
                "chatrlhf people add --admin NAME"
            )
        store_hash(connection, person_id, password_hash)
        connection.execute(
            "UPDATE sessions SET revoked_at = ? WHERE person_id = ? AND revoked_at IS NULL "
            "AND id IS NOT ?",
            [now(), person_id, keep_session],
        )
        append_audit(connection, by, "password", {"person": person_id, "name": person.name})


def rehash_password(db: Database, person_id: int, password_hash: str) -> None:
    """Store the same password hashed anew, because the parameters of hashing changed."""
    with db.transaction() as connection:
        store_hash(connection, person_id, password_hash)


def store_hash(connection: sqlite_utils.Database, person_id: int, password_hash: str) -> None:
    """Write the hash in the caller's transaction."""
    connection.execute(
        "UPDATE people SET password_hash = ? WHERE id = ?", [password_hash, person_id]
    )


def set_role(db: Database, person_id: int, role: str, by: int | None = None) -> Person:
    """Give a person another role. Raises ConflictError when no admin would be left."""
    checked_role(role)
    with db.transaction() as connection:
        before = get_person(db, person_id)
        if role != "admin":
            _require_another_admin(db, before, "give somebody else the role admin first")
        connection.execute("UPDATE people SET role = ? WHERE id = ?", [role, person_id])
        detail = {"person": person_id, "name": before.name, "from": before.role, "to": role}
        append_audit(connection, by, "role", detail)
    return get_person(db, person_id)


def remove_person(db: Database, person_id: int, by: int | None = None) -> PersonSummary:
    """Erase a person with their chats, ratings, sessions and keys; returns what went.

    Versions that were trained on their ratings, or on ratings of their chats, are marked.
    Raises ConflictError for the last admin, and where there are no accounts.
    """
    with db.transaction() as connection:
        gone = summary_of(db, person_id)
        if not has_accounts(db):
            raise ConflictError("the local person cannot be removed; delete the data folder")
        _require_another_admin(db, get_person(db, person_id), "make somebody else admin first")
        connection.execute(_MARK_VERSIONS, {"person": person_id})
        connection.execute("DELETE FROM people WHERE id = ?", [person_id])
        detail = {"person": person_id, "name": gone.name, "role": gone.role}
        detail |= {"conversations": gone.conversations, "rankings": gone.rankings}
        append_audit(connection, by, "remove_person", detail)
    db.forget_erased()
    return gone


# The queue's items go to another person, with what others said of them.
_MARK_VERSIONS = f"""
    UPDATE versions SET erased_rankings = erased_rankings + (
        SELECT count(*) FROM rankings
        WHERE {COUNTED}
        AND rankings.id <= (SELECT last_ranking_id FROM runs WHERE runs.id = versions.run_id)
        AND (rankings.person_id = :person OR rankings.turn_id IN (
            SELECT turns.id FROM turns
            JOIN conversations ON conversations.id = turns.conversation_id
            WHERE conversations.person_id = :person AND conversations.origin <> 'queue')))
    WHERE run_id IS NOT NULL
"""


def _require_another_admin(db: Database, person: Person, what_to_do: str) -> None:
    if person.role != "admin" or password_hash_of(db, person.id) is None:
        return
    others = "role = 'admin' AND password_hash IS NOT NULL AND id != ?"
    if db.row(f"SELECT 1 FROM people WHERE {others}", [person.id]) is None:
        raise ConflictError(f"{person.name} is the only admin; {what_to_do}")


def summary_of(db: Database, person_id: int) -> PersonSummary:
    """One person with what is theirs, or NotFoundError."""
    found = _summaries(db, person_id)
    if not found:
        raise NotFoundError(f"there is no person {person_id}")
    return found[0]


def list_summaries(db: Database) -> list[PersonSummary]:
    """All people with what is theirs, in the order in which they came."""
    return _summaries(db, None)


def _summaries(db: Database, person_id: int | None) -> list[PersonSummary]:
    rows = db.rows(
        """
        SELECT id, name, role, created_at, password_hash IS NOT NULL AS has_account,
            (SELECT count(*) FROM conversations WHERE person_id = people.id
                AND origin NOT IN ('queue', 'repeat')) AS conversations,
            (SELECT count(*) FROM rankings
                WHERE person_id = people.id AND state = 'active') AS rankings,
            (SELECT max(moment) FROM (
                SELECT coalesce(last_used_at, created_at) AS moment
                    FROM sessions WHERE person_id = people.id
                UNION ALL SELECT last_used_at FROM api_keys WHERE person_id = people.id
            )) AS last_used_at
        FROM people WHERE :person IS NULL OR id = :person ORDER BY id
        """,
        {"person": person_id},
    )
    return [PersonSummary(**{**row, "has_account": bool(row["has_account"])}) for row in rows]
