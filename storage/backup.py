"""Copies of the database that are checked before they count."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import sqlite_utils
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

from chatrlhf.errors import StorageError


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
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"no backup was written to {target}: {error}; free some space or choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


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


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder to flush it
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
