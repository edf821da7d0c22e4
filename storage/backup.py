"""Copies of the database that are checked before they count."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import sqlite_utils
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

from chatrlhf.errors import StorageError
from chatrlhf.flushing import flush


def write_backup(connection: sqlite_utils.Database, target: Path) -> Path:
    """Copy the open database to ``target``: temporary file, fsync, full check, rename.

    Raises:
        StorageError: the copy could not be written or is damaged; ``target`` is then untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        connection.execute("VACUUM INTO ?", [str(temporary)])
        os.chmod(temporary, 0o600)
        verify_backup(temporary)
        flush(temporary)
        os.replace(temporary, target)
        flush(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"no backup was written to {target}: {error}; free some space or choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def restore_backup(backup: Path, database: Path) -> Path | None:
    """Put a verified copy of ``backup`` in the place of ``database``, which no program may use.

    Returns where the database that stood there was moved, with its log if it was not in order;
    None if there was none.

    Raises:
        StorageError: the backup is damaged or cannot be copied; the database is then untouched.
    """
    verify_backup(backup)
    temporary = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(backup, temporary)
        os.chmod(temporary, 0o600)
        verify_backup(temporary)
        flush(temporary)
        aside = _move_aside(database)
        os.replace(temporary, database)
        flush(database.parent)
    except OSError as error:
        raise StorageError(f"{backup} was not restored: {error}; free some space") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return aside


def _move_aside(database: Path) -> Path | None:
    """Move the database into ``backups``; a log beside another database would damage that."""
    if not database.exists():
        return None
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(str(database))) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()  # the log goes into the file
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = database.parent / "backups" / f"{database.stem}-replaced-{moment}{database.suffix}"
    aside.parent.mkdir(exist_ok=True)
    for ending in ("-wal", "-shm", "-journal", ""):
        part = database.with_name(database.name + ending)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + ending))
    return aside


def verify_backup(path: Path) -> None:
    """Check every page and foreign key of a database file.

    Raises:
        StorageError: the file is no database, or a damaged one.
    """
    try:
        with _reading(path) as connection:
            problems = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            strays = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be read as a database: {error}") from error
    if problems != ["ok"] or strays:
        raise StorageError(f"{path} is damaged: {problems[:3]}, {len(strays)} stray rows")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        yield connection
