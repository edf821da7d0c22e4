"""Which versions' files may go, and their removal.

Rows stay: what a version was trained from and how it did is never forgotten, only its weights.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from chatrlhf.errors import BadInputError, ConflictError
from chatrlhf.models.adapter_files import version_folder
from chatrlhf.settings import Settings
from storage import versions
from storage.database import Database

KEEP = 10
_REMOVABLE = ("ready", "retired", "rejected")
_TEMPORARY = ".tmp-gone-"  # what a killed removal leaves is removed with other leftovers


@dataclass(frozen=True)
class OldVersion:
    """A version whose files may go. ``files_bytes``: what that frees."""

    name: str
    state: str
    files_bytes: int


def old_versions(db: Database, settings: Settings, keep: int = KEEP) -> list[OldVersion]:
    """The versions beyond the newest ``keep`` that have files and that nothing needs, oldest first.

    Never among them: what an alias names (live, previous), the parents of those, candidates, and
    quarantined versions, whose files show what went wrong.

    Raises:
        BadInputError: ``keep`` is negative.
    """
    if keep < 0:
        raise BadInputError(f"keep is {keep}; it must be 0 or more")
    rows = versions.list_versions(db)
    needed = set(versions.list_aliases(db).values())
    needed |= {row.parent for row in rows if row.name in needed and row.parent}
    newest = {row.name for row in rows[len(rows) - keep :]} if keep else set()
    found = []
    for row in rows:
        folder = version_folder(settings.versions_dir, row.name)
        removable = row.state in _REMOVABLE and row.name not in needed | newest
        if removable and folder.is_dir():
            found.append(OldVersion(row.name, row.state, _size(folder)))
    return found


def remove_old(db: Database, settings: Settings, old: OldVersion) -> None:
    """Retire a version, then remove its files; killed in between, nothing half is left in use.

    Raises:
        ConflictError: an alias has come to name it since.
    """
    if old.state == "ready":
        versions.retire(db, old.name)
    elif old.name in versions.list_aliases(db).values():
        raise ConflictError(f"version {old.name} is in use; nothing was removed")
    folder = version_folder(settings.versions_dir, old.name)
    aside = folder.with_name(f"{_TEMPORARY}{old.name}-{os.getpid()}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return  # another process was faster
    shutil.rmtree(aside, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
