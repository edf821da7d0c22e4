"""Adapter versions, and the aliases live and previous that say which one speaks."""

from __future__ import annotations

import json
import re
from typing import Any

import sqlite_utils

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.database import Database, insert
from storage.people import append_audit, find_person
from storage.records import Version, VersionState
from storage.runs import require_fence
from storage.values import checked_text, now, to_json

_NAME = re.compile(r"v(0|[1-9][0-9]{0,8})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def next_version_name(db: Database) -> str:
    """``v0`` in an empty database, else one more than the greatest."""
    sql = "SELECT coalesce(max(CAST(substr(name, 2) AS INTEGER)), -1) + 1 AS next FROM versions"
    return f"v{db.rows(sql)[0]['next']}"


def register_version(  # noqa: PLR0913 - the columns of one row
    db: Database,
    name: str,
    parent: str | None,
    run_id: int | None,
    manifest_sha256: str,
    metrics: dict[str, Any],
    note: str,
    state: VersionState = "ready",
    fence: int | None = None,
) -> Version:
    """Add a version whose files are complete on disk.

    Args:
        db: the database.
        name: ``v`` and a number.
        parent: the version it was trained from, or None.
        run_id: the run that made it, or None.
        manifest_sha256: of its manifest; empty only for the bare base, which has no files.
        metrics: what to show of it.
        note: any text.
        state: ``ready`` may go live.
        fence: when given, the run must still be held with it.

    Raises:
        BadInputError: the name or hash has another form.
        NotFoundError: no such parent or run.
        ConflictError: the name is taken, or the fence is stale.
    """
    with db.transaction() as connection:
        if fence is not None:
            require_fence(db, _known_run(run_id), fence)
        fields = {"parent": parent, "run_id": run_id, "manifest_sha256": manifest_sha256}
        _insert(db, connection, name, state, metrics, note, fields)
    return get_version(db, name)


def publish(  # noqa: PLR0913 - the columns of one row
    db: Database,
    *,
    run_id: int,
    fence: int,
    name: str,
    parent: str | None,
    manifest_sha256: str,
    metrics: dict[str, Any],
    note: str,
    promote: bool,
    state: VersionState = "ready",
) -> Version:
    """In one transaction: check the run's fence, add the version, and let it go live if wanted.

    Raises:
        ConflictError: the fence is stale (another worker took the run over), the run has ended,
            the name is taken, or ``promote`` with a state other than ready.
    """
    with db.transaction() as connection:
        require_fence(db, run_id, fence)
        fields = {"parent": parent, "run_id": run_id, "manifest_sha256": manifest_sha256}
        _insert(db, connection, name, state, metrics, note, fields)
        if promote:
            _go_live(db, connection, name, "trainer")
    return get_version(db, name)


def _known_run(run_id: int | None) -> int:
    if run_id is None:
        raise BadInputError("a fence needs the run it belongs to")
    return run_id


def _insert(
    db: Database,
    connection: sqlite_utils.Database,
    name: str,
    state: VersionState,
    metrics: dict[str, Any],
    note: str,
    fields: dict[str, Any],
) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadInputError(f"version {name!r} must be v and a number, such as v3")
    manifest_sha256 = fields["manifest_sha256"]
    if manifest_sha256 and not _SHA256.fullmatch(manifest_sha256):
        raise BadInputError(f"manifest hash {manifest_sha256!r} must be 64 hexadecimal digits")
    checked_text(note, "the note", may_be_blank=True)
    if db.row("SELECT 1 FROM versions WHERE name = ?", [name]) is not None:
        raise ConflictError(f"there is a version {name} already; take the next name")
    if fields["parent"] is not None:
        get_version(db, fields["parent"])
    if fields["run_id"] is not None and not db.row(
        "SELECT 1 FROM runs WHERE id = ?", [fields["run_id"]]
    ):
        raise NotFoundError(f"there is no round {fields['run_id']}")
    row = {"name": name, "state": state, "metrics": to_json(metrics), "note": note, **fields}
    insert(connection, "versions", {**row, "created_at": now()})


def get_version(db: Database, name: str) -> Version:
    """One version by name, or NotFoundError."""
    row = db.row("SELECT * FROM versions WHERE name = ?", [name])
    if row is None:
        raise NotFoundError(f"there is no version {name!r}")
    return _version(row)


def list_versions(db: Database) -> list[Version]:
    """All versions, oldest first."""
    return [_version(row) for row in db.rows("SELECT * FROM versions ORDER BY id")]


def versions_of_run(db: Database, run_id: int) -> list[Version]:
    """What the run has published, so that a resumed run need not publish twice."""
    return [
        _version(row)
        for row in db.rows("SELECT * FROM versions WHERE run_id = ? ORDER BY id", [run_id])
    ]


def _version(row: dict[str, Any]) -> Version:
    return Version(**{**row, "metrics": json.loads(row["metrics"])})


def get_alias(db: Database, alias: str) -> str | None:
    """The name of the version that the alias (live, previous ...) stands for."""
    row = db.row("SELECT version FROM aliases WHERE alias = ?", [alias])
    return None if row is None else str(row["version"])


def list_aliases(db: Database) -> dict[str, str]:
    """Version name by alias."""
    return {row["alias"]: row["version"] for row in db.rows("SELECT * FROM aliases")}


def set_alias(db: Database, alias: str, name: str) -> None:
    """Let the alias stand for a version, whatever its state. `promote` is the way to go live."""
    checked_text(alias, "the alias", limit=40)
    with db.transaction() as connection:
        get_version(db, name)
        _point(connection, alias, name)


def promote(db: Database, name: str, person: str) -> Version:
    """Let a ready version go live; the one that was live becomes ``previous``.

    ``person`` is the name of who asked, for the audit log. Raises ConflictError when not ready.
    """
    with db.transaction() as connection:
        return _go_live(db, connection, name, person)


def rollback(db: Database, person: str) -> str:
    """Let ``previous`` go live again, and return its name; what was live becomes ``previous``.

    Raises:
        ConflictError: there is no previous version, or it is not ready any more.
    """
    with db.transaction() as connection:
        previous = get_alias(db, "previous")
        if previous is None:
            raise ConflictError("there is no previous version to roll back to; promote one by name")
        return _go_live(db, connection, previous, person, action="rollback").name


def quarantine(db: Database, name: str, reason: str) -> str | None:
    """Take a corrupt version out of use; returns the name of the version that is live now.

    If it was live, the previous one goes live, or else the newest ready version.
    """
    with db.transaction() as connection:
        was = get_version(db, name)
        note = f"{was.note}\nQuarantined: {reason}".strip()
        connection.execute(
            "UPDATE versions SET state = 'quarantined', note = ? WHERE name = ?", [note, name]
        )
        live, previous = get_alias(db, "live"), get_alias(db, "previous")
        append_audit(connection, None, "quarantine", {"version": name, "reason": reason})
        connection.execute("DELETE FROM aliases WHERE version = ?", [name])
        if live != name:
            return live
        connection.execute("DELETE FROM aliases WHERE alias = 'previous'")
        fallback = db.row(
            "SELECT name FROM versions WHERE state = 'ready' ORDER BY name = ? DESC, id DESC",
            [previous],
        )
        if fallback is None:
            return None
        _point(connection, "live", fallback["name"])
        return str(fallback["name"])


def retire(db: Database, name: str) -> Version:
    """Mark a version whose files may go. Raises ConflictError while an alias stands for it."""
    with db.transaction() as connection:
        get_version(db, name)
        held = [alias for alias, version in list_aliases(db).items() if version == name]
        if held:
            raise ConflictError(f"version {name} is {' and '.join(held)}; promote another first")
        connection.execute("UPDATE versions SET state = 'retired' WHERE name = ?", [name])
    return get_version(db, name)


def _go_live(
    db: Database,
    connection: sqlite_utils.Database,
    name: str,
    person: str,
    action: str = "promote",
) -> Version:
    version = get_version(db, name)
    if version.state != "ready":
        raise ConflictError(f"version {name} is {version.state}; only a ready one can go live")
    live = get_alias(db, "live")
    if live == name:
        return version
    if live is not None:
        _point(connection, "previous", live)
    _point(connection, "live", name)
    known = find_person(db, person)
    detail = {"by": person, "version": name, "instead_of": live}
    append_audit(connection, None if known is None else known.id, action, detail)
    return version


def _point(connection: sqlite_utils.Database, alias: str, name: str) -> None:
    connection.execute(
        "INSERT INTO aliases (alias, version, changed_at) VALUES (?, ?, ?) "
        "ON CONFLICT (alias) DO UPDATE SET version = excluded.version, "
        "changed_at = excluded.changed_at",
        [alias, name, now()],
    )
