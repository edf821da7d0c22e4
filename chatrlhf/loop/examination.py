"""Is the data whole: for ``chatrlhf check``. What ``doctor`` looks at is in `doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chatrlhf.errors import StorageError, VersionError
from chatrlhf.settings import Settings
from storage import people, versions
from storage.backup import verify_backup
from storage.database import Database, open_database
from storage.replies import damaged_replies

State = Literal["ok", "warning", "failed"]
_IDS_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it."""

    name: str
    state: State
    detail: str
    advice: str = ""


def check_data(settings: Settings) -> Iterator[Finding]:
    """Look through the database and the versions' files, page by page and byte by byte."""
    path = settings.database_path
    if not path.exists():
        yield Finding("database", "ok", f"there is none yet in {settings.data_dir}")
        return
    try:
        verify_backup(path)
        db = open_database(path)
    except StorageError as error:
        yield Finding("database", "failed", f"{error}", _newest_backup(path))
        return
    yield Finding("database", "ok", f"{path}: every page and reference is in order")
    try:
        yield _replies(db)
        yield _audit(db)
        yield from _versions(db, settings)
    finally:
        db.close()


def _newest_backup(path: Path) -> str:
    backups = sorted(path.parent.glob("backups/*.db"), key=lambda file: file.stat().st_mtime)
    if not backups:
        return "There is no backup beside it: restore one of your own by `chatrlhf restore`."
    return f"The newest backup is {backups[-1]}; run: chatrlhf restore {backups[-1]}"


def _replies(db: Database) -> Finding:
    damaged = list(damaged_replies(db))
    if damaged:
        shown = ", ".join(map(str, damaged[:_IDS_SHOWN]))
        detail = f"{len(damaged)} replies are not what was stored (ids {shown})"
        return Finding("replies", "failed", detail, "Restore a backup: chatrlhf restore FILE")
    count = db.rows("SELECT count(*) AS n FROM replies")[0]["n"]
    return Finding("replies", "ok", f"{count:,} have the hash they were stored with")


def _audit(db: Database) -> Finding:
    broken = people.broken_audit_entry(db)
    if broken is not None:
        detail = f"entry {broken} was changed, or one before it was removed"
        return Finding("audit log", "failed", detail, "Ask who could do that.")
    return Finding("audit log", "ok", "its chain of hashes is whole")


def _versions(db: Database, settings: Settings) -> Iterator[Finding]:
    from chatrlhf.models.adapter_files import verify_folder

    for version in versions.list_versions(db):
        name = f"version {version.name}"
        if not version.manifest_sha256:
            continue
        try:
            verify_folder(settings.versions_dir / version.name, version.manifest_sha256)
        except VersionError as error:
            advice = "Train again, or roll back: chatrlhf versions rollback"
            yield Finding(name, "failed", f"{error}", advice)
        else:
            yield Finding(name, "ok", "its files have the hashes they were published with")
