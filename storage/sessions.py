"""Sessions of browsers and API keys of programs. Only hashes of their secrets are stored."""

from __future__ import annotations

import datetime
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

import sqlite_utils

from chatrlhf.errors import NotFoundError
from storage.audit import append_audit
from storage.database import Database, insert
from storage.people import get_person
from storage.records import Person
from storage.values import checked_text, now, sha256_of

SESSION_DAYS = 30
KEY_PREFIX = "crl_"
_SECRET_BYTES = 32
_LONGEST_SECRET = 200
_NOTED_EVERY = datetime.timedelta(minutes=1)  # each note is a write to the disk
_HINT_CHARACTERS = len(KEY_PREFIX) + 4
_ENDED_SHOWN = 20


@dataclass(frozen=True)
class Session:
    """A browser in which somebody is signed in."""

    id: int
    person_id: int
    client: str
    created_at: str
    expires_at: str
    last_used_at: str | None


@dataclass(frozen=True)
class ApiKey:
    """A key of a program; ``hint`` is how it begins."""

    id: int
    person_id: int
    name: str
    hint: str
    created_at: str
    last_used_at: str | None
    revoked_at: str | None


def in_days(days: float) -> str:
    """The moment so many days from now, written as `now` writes it."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_secret() -> str:
    """256 random bits, as text."""
    return secrets.token_urlsafe(_SECRET_BYTES)


# --- sessions -----------------------------------------------------------------------------------


def open_session(
    db: Database, person_id: int, *, client: str = "", address: str = "", days: float = SESSION_DAYS
) -> str:
    """Sign a person in; returns the token, which is stored nowhere."""
    token = new_secret()
    with db.transaction() as connection:
        person = get_person(db, person_id)
        row = {
            "person_id": person_id,
            "token_sha256": sha256_of(token),
            "client": client[:200],
            "created_at": now(),
            "last_used_at": now(),
            "expires_at": in_days(days),
        }
        session_id = insert(connection, "sessions", row)
        detail = {"name": person.name, "session": session_id, "address": address}
        append_audit(connection, person_id, "sign_in", detail)
    return token


def find_session(db: Database, token: str) -> tuple[Session, Person] | None:
    """The session of a token and its person; None once it ended."""
    row = _by_secret(db, "sessions", "token_sha256", token)
    if row is None or row["revoked_at"] is not None or row["expires_at"] <= now():
        return None
    return _session(row), get_person(db, row["person_id"])


def list_sessions(db: Database, person_id: int) -> list[Session]:
    """The person's open sessions, newest first."""
    rows = db.rows(
        "SELECT * FROM sessions WHERE person_id = ? AND revoked_at IS NULL AND expires_at > ? "
        "ORDER BY id DESC",
        [person_id, now()],
    )
    return [_session(row) for row in rows]


def end_session(db: Database, session_id: int, person_id: int) -> None:
    """Sign out of one session. Raises NotFoundError when the person has no such open one."""
    with db.transaction() as connection:
        ended = db.row(
            "UPDATE sessions SET revoked_at = ? WHERE id = ? AND person_id = ? "
            "AND revoked_at IS NULL RETURNING id",
            [now(), session_id, person_id],
        )
        if ended is None:
            raise NotFoundError(f"there is no open session {session_id}")
        append_audit(connection, person_id, "sign_out", {"session": session_id})


def end_all_sessions(db: Database, person_id: int) -> int:
    """Sign out everywhere; returns how many sessions ended."""
    with db.transaction() as connection:
        ended = db.rows(
            "UPDATE sessions SET revoked_at = ? WHERE person_id = ? AND revoked_at IS NULL "
            "RETURNING id",
            [now(), person_id],
        )
        append_audit(connection, person_id, "sign_out_everywhere", {"sessions": len(ended)})
    return len(ended)


def forget_old_sessions(db: Database) -> None:
    """Delete sessions that ended a month ago."""
    old = in_days(-SESSION_DAYS)
    with db.transaction() as connection:
        connection.execute("DELETE FROM sessions WHERE expires_at < ? OR revoked_at < ?", [old] * 2)


def _session(row: dict[str, Any]) -> Session:
    return Session(**{name: row[name] for name in Session.__dataclass_fields__})


# --- keys ---------------------------------------------------------------------------------------


def make_key(db: Database, person_id: int, name: str, by: int | None = None) -> tuple[ApiKey, str]:
    """Make a key for a program; the key itself is returned once and stored nowhere."""
    checked_text(name, "the name of the key", limit=100)
    key = KEY_PREFIX + new_secret()
    with db.transaction() as connection:
        person = get_person(db, person_id)
        row = {
            "person_id": person_id,
            "name": name,
            "key_sha256": sha256_of(key),
            "hint": key[:_HINT_CHARACTERS],
            "created_at": now(),
        }
        new_id = insert(connection, "api_keys", row)
        detail = {"key": new_id, "label": name, "person": person_id, "name": person.name}
        append_audit(connection, by, "make_key", detail)
    return _get_key(db, new_id), key


def find_key(db: Database, key: str) -> tuple[ApiKey, Person] | None:
    """The key and its person; None when there is none, or it was revoked."""
    row = _by_secret(db, "api_keys", "key_sha256", key)
    if row is None or row["revoked_at"] is not None:
        return None
    return _key(row), get_person(db, row["person_id"])


def list_keys(db: Database, person_id: int) -> list[ApiKey]:
    """The person's keys, newest first; of revoked ones, the latest."""
    rows = db.rows("SELECT * FROM api_keys WHERE person_id = ? ORDER BY id DESC", [person_id])
    usable = [_key(row) for row in rows if row["revoked_at"] is None]
    return usable + [_key(row) for row in rows if row["revoked_at"] is not None][:_ENDED_SHOWN]


def revoke_key(db: Database, key_id: int, person_id: int, by: int | None = None) -> ApiKey:
    """End a key. Raises NotFoundError when the person has no such usable one."""
    with db.transaction() as connection:
        ended = db.row(
            "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND person_id = ? "
            "AND revoked_at IS NULL RETURNING id",
            [now(), key_id, person_id],
        )
        if ended is None:
            raise NotFoundError(f"there is no usable key {key_id}")
        append_audit(connection, by, "revoke_key", {"key": key_id, "person": person_id})
    return _get_key(db, key_id)


def _get_key(db: Database, key_id: int) -> ApiKey:
    return _key(db.rows("SELECT * FROM api_keys WHERE id = ?", [key_id])[0])


def _key(row: dict[str, Any]) -> ApiKey:
    return ApiKey(**{name: row[name] for name in ApiKey.__dataclass_fields__})


# --- both ---------------------------------------------------------------------------------------


def note_use(db: Database, used: Session | ApiKey) -> None:
    """Store that a session or key was used just now, at most once a minute."""
    moment = datetime.datetime.now(datetime.UTC)
    if used.last_used_at is not None:
        before = datetime.datetime.fromisoformat(used.last_used_at)
        if abs(moment - before) < _NOTED_EVERY:
            return
    table = "sessions" if isinstance(used, Session) else "api_keys"
    with db.transaction() as connection:
        _note(connection, table, used.id)


def _note(connection: sqlite_utils.Database, table: str, row_id: int) -> None:
    connection.execute(f"UPDATE {table} SET last_used_at = ? WHERE id = ?", [now(), row_id])


def _by_secret(db: Database, table: str, column: str, secret: str) -> dict[str, Any] | None:
    if not 0 < len(secret) <= _LONGEST_SECRET or not secret.isascii():
        return None
    wanted = sha256_of(secret)
    row = db.row(f"SELECT * FROM {table} WHERE {column} = ?", [wanted])
    if row is None or not hmac.compare_digest(str(row[column]), wanted):
        return None
    return row
