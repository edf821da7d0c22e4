"""The audit log: who changed what, append-only, each entry chained to the one before by a hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlite_utils

from storage.database import Database, insert
from storage.records import AuditEntry
from storage.values import checked_text, now, to_json

_FIRST_SHA256 = "0" * 64


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
    return [_entry(row) for row in rows]


def newest_audit(db: Database, before_id: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """Entries with an id below ``before_id``, if given; newest first."""
    rows = db.rows(
        "SELECT * FROM audit_log WHERE :before IS NULL OR id < :before "
        "ORDER BY id DESC LIMIT :limit",
        {"before": before_id, "limit": limit},
    )
    return [_entry(row) for row in rows]


def newest_hash(db: Database) -> str:
    """The hash of the newest entry, which covers all before it: note it, to compare it later."""
    row = db.row("SELECT sha256 FROM audit_log ORDER BY id DESC LIMIT 1")
    return _FIRST_SHA256 if row is None else str(row["sha256"])


def holds_hash(db: Database, sha256: str) -> bool:
    """Whether an entry has this hash, so that nothing up to it has changed since."""
    known = db.row("SELECT 1 FROM audit_log WHERE sha256 = ?", [sha256])
    return sha256 == _FIRST_SHA256 or known is not None


def broken_audit_entry(db: Database) -> int | None:
    """The id of the first entry that was changed or removed, or follows one that was; None if none.

    Who can write the file and knows this code could chain all of it anew; only a hash of
    `newest_hash` that was noted elsewhere tells that.
    """
    previous, last = _FIRST_SHA256, 0
    for row in db.rows("SELECT * FROM audit_log ORDER BY id"):
        if row["previous_sha256"] != previous or _chained(row) != row["sha256"]:
            return int(row["id"])
        previous, last = row["sha256"], int(row["id"])
    given = db.row("SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'")
    return last + 1 if given is not None and given["seq"] > last else None


def _entry(row: dict[str, Any]) -> AuditEntry:
    return AuditEntry(**{**row, "detail": json.loads(row["detail"])})


def _chained(row: dict[str, Any]) -> str:
    covered = ("previous_sha256", "person_id", "action", "detail", "created_at")
    return hashlib.sha256(to_json([row[name] for name in covered]).encode()).hexdigest()
