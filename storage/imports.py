"""Imports as a whole: what each wrote, and how to take it back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import sqlite_utils

from chatrlhf.errors import ConflictError, NotFoundError
from storage.database import Database, insert
from storage.erasure import mark_versions_of_rankings, mark_versions_of_turns
from storage.people import append_audit
from storage.restore_values import Wrote
from storage.values import now, to_json

_TRANSACTION_SECONDS = 0.05
_PAUSE_SECONDS = 0.001
_NAME_LIMIT = 300
# Conversations take all that hangs on them along; rankings go before those they superseded return.
_ORDER = ("conversation", "turn", "ranking", "superseded", "demonstration", "label", "prompt")


@dataclass(frozen=True)
class Import:
    """One import: ``report`` is what it told; an import that broke off stays ``running``."""

    id: int
    person_id: int
    person: str
    name: str
    state: Literal["running", "done", "undone"]
    report: dict[str, Any]
    created_at: str


def start_import(db: Database, person_id: int, name: str) -> int:
    """Note an import that begins; its id. ``name`` is that of the file, for people."""
    row = {
        "person_id": person_id,
        "name": name[:_NAME_LIMIT],
        "state": "running",
        "report": "{}",
        "created_at": now(),
    }
    with db.transaction() as connection:
        return insert(connection, "imports", row)


def finish_import(db: Database, import_id: int, report: dict[str, Any]) -> None:
    """Note that an import has come to its end."""
    with db.transaction() as connection:
        connection.execute(
            "UPDATE imports SET state = 'done', report = ? WHERE id = ? AND state = 'running'",
            [to_json(report), import_id],
        )


def log_of(db: Database, import_id: int) -> Wrote:
    """Notes each row that the import writes, in the transaction that writes it."""

    def wrote(kind: str, row_id: int, detail: str = "") -> None:
        assert kind in _ORDER, kind
        db.connection().execute(
            "INSERT OR IGNORE INTO imported_rows (import_id, kind, row_id, detail) "
            "VALUES (?, ?, ?, ?)",
            [import_id, kind, row_id, detail],
        )

    return wrote


def list_imports(db: Database, person_id: int | None = None, limit: int = 100) -> list[Import]:
    """Imports, newest first; with ``person_id``, only that person's."""
    return _imports(
        db, ":person IS NULL OR person_id = :person", {"person": person_id, "limit": limit}
    )


def get_import(db: Database, import_id: int, person_id: int | None = None) -> Import:
    """One import; NotFoundError also when it is not of ``person_id``, if given."""
    where = "imports.id = :id AND (:person IS NULL OR person_id = :person)"
    found = _imports(db, where, {"id": import_id, "person": person_id, "limit": 1})
    if not found:
        raise NotFoundError(f"there is no import {import_id}")
    return found[0]


def _imports(db: Database, where: str, parameters: dict[str, Any]) -> list[Import]:
    rows = db.rows(
        "SELECT imports.*, people.name AS person FROM imports "
        f"JOIN people ON people.id = person_id WHERE {where} ORDER BY imports.id DESC LIMIT :limit",
        parameters,
    )
    return [Import(**{**row, "report": json.loads(row["report"])}) for row in rows]


def undo_import(
    db: Database, import_id: int, person_id: int | None = None, *, by: int | None = None
) -> Iterator[float]:
    """Erase the rows that an import wrote, and what people made of them since; yields how far.

    Versions that were trained on them are marked. In short transactions: one that breaks off is
    simply undone again.

    Raises:
        NotFoundError: no such import, or it is not of ``person_id``, if given.
        ConflictError: it is undone already.
    """
    if get_import(db, import_id, person_id).state == "undone":
        raise ConflictError(f"import {import_id} has been undone already")
    sql = "SELECT kind, row_id, detail FROM imported_rows WHERE import_id = ?"
    rows = sorted(db.rows(sql, [import_id]), key=lambda row: _ORDER.index(row["kind"]))
    done = 0
    while done < len(rows):
        with db.transaction() as connection:
            end = time.monotonic() + _TRANSACTION_SECONDS
            while True:
                _remove(connection, import_id, rows[done])
                done += 1
                if done == len(rows) or time.monotonic() >= end:
                    break
        yield done / len(rows)
        time.sleep(_PAUSE_SECONDS)  # lets somebody's rating in between
    with db.transaction() as connection:
        connection.execute("UPDATE imports SET state = 'undone' WHERE id = ?", [import_id])
        append_audit(connection, by, "undo import", {"import": import_id, "rows": len(rows)})
    db.forget_erased()
    yield 1.0


def _remove(connection: sqlite_utils.Database, import_id: int, row: dict[str, Any]) -> None:
    kind, row_id = row["kind"], row["row_id"]
    if kind == "conversation":
        mark_versions_of_turns(connection, "conversation_id = ?", row_id)
        connection.execute("DELETE FROM conversations WHERE id = ?", [row_id])
    elif kind == "turn":
        mark_versions_of_turns(connection, "id = ?", row_id)
        connection.execute("DELETE FROM turns WHERE id = ?", [row_id])
    elif kind == "ranking":
        _remove_ranking(connection, row_id)
    elif kind == "superseded":
        connection.execute(_ACTIVE_AGAIN, [row_id])
    elif kind == "label":
        person_id, label = row["detail"].split(" ", 1)
        connection.execute(
            "DELETE FROM labels WHERE reply_id = ? AND person_id = ? AND label = ?",
            [row_id, int(person_id), label],
        )
    else:
        table = {"demonstration": "demonstrations", "prompt": "prompts"}[kind]
        connection.execute(f"DELETE FROM {table} WHERE id = ?", [row_id])
    connection.execute(
        "DELETE FROM imported_rows WHERE import_id = ? AND kind = ? AND row_id = ? AND detail = ?",
        [import_id, kind, row_id, row["detail"]],
    )


def _remove_ranking(connection: sqlite_utils.Database, ranking_id: int) -> None:
    state = connection.execute("SELECT state FROM rankings WHERE id = ?", [ranking_id]).fetchone()
    if state is not None and state[0] == "active":
        mark_versions_of_rankings(connection, [ranking_id])
    connection.execute("DELETE FROM rankings WHERE id = ?", [ranking_id])


# Unless another order of the turn counts by now.
_ACTIVE_AGAIN = """
    UPDATE rankings SET state = 'active' WHERE id = ? AND state = 'superseded' AND NOT EXISTS (
        SELECT 1 FROM rankings AS other WHERE other.turn_id = rankings.turn_id
        AND other.person_id = rankings.person_id AND other.state = 'active')
"""
