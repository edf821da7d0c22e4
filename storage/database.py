"""One SQLite file: pragmas, checks, one connection a thread, immediate transactions.

SQLite 3.7.0 to 3.51.2 can lose acknowledged commits in WAL mode when two connections write or
checkpoint at once (fixed in 3.51.3, 3.50.7, 3.44.6), so such an engine gets a rollback journal.
Every part of the program takes ``sqlite3`` from sqlite_utils: two SQLite libraries on one file
would break each other's POSIX locks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlite_utils
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

from chatrlhf.errors import BadInputError, ConflictError, StorageError
from storage.locks import FileLock, lock_data_folder
from storage.migrations import migrate, refuse_newer

__all__ = ["Database", "insert", "lock_data_folder", "open_database", "wal_is_safe"]

log = logging.getLogger(__name__)
BUSY_TIMEOUT_SECONDS = 10
MIGRATION_TIMEOUT_SECONDS = 300
Parameters = Sequence[Any] | dict[str, Any]


def wal_is_safe(sqlite_version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the fix of the WAL-reset bug."""
    line, patch = sqlite_version[:2], sqlite_version[2]
    if line == (3, 50):
        return patch >= 7
    if line == (3, 44):
        return patch >= 6
    return sqlite_version[:3] >= (3, 51, 3)


def open_database(path: Path | str, *, check: bool = True) -> Database:
    """Open the file, made and migrated where needed.

    Args:
        path: the SQLite file; its folder is made too.
        check: look through all pages for damage first (``PRAGMA quick_check``).

    Raises:
        StorageError: the file is damaged, not ours, from a newer program, or cannot be written.
    """
    path = Path(path)
    with _translated_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error
        with FileLock(path.with_name(f"{path.name}.lock")) as lock:
            lock.acquire(MIGRATION_TIMEOUT_SECONDS)
            connection = _connect(path)
            try:
                if check:
                    _check_pages(connection, path)
                refuse_newer(connection, path)
                _set_journal(connection, path)
                migrate(connection, path)
            finally:
                connection.close()
    return Database(path)


class Database:
    """An open database. Safe to share between threads: each gets its own connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._writer = threading.Lock()  # queues this process's writers fairly, before SQLite's
        self._connections: weakref.WeakSet[sqlite_utils.Database] = weakref.WeakSet()
        self._registry = threading.Lock()
        self._closed = False

    def connection(self) -> sqlite_utils.Database:
        """This thread's connection."""
        if self._closed:
            raise StorageError(f"{self.path} has been closed; open it again")
        known: sqlite_utils.Database | None = getattr(self._local, "connection", None)
        if known is None:
            with _translated_errors(self.path):
                known = _connect(self.path)
            self._local.connection = known
            with self._registry:
                self._connections.add(known)
        return known

    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """All rows of a statement, inside this thread's transaction if there is one."""
        connection = self.connection()
        with _translated_errors(self.path):
            cursor = connection.execute(sql, parameters)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def row(self, sql: str, parameters: Parameters = ()) -> dict[str, Any] | None:
        """The first row of a query, or None."""
        return next(iter(self.rows(sql, parameters)), None)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite_utils.Database]:
        """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK when the block raises; cannot be nested.

        Raises:
            ConflictError: a constraint refused the rows.
            StorageError: nothing was saved: the disk is full, the file busy, damaged or newer.
        """
        connection = self.connection()
        if connection.conn.in_transaction:
            raise StorageError("a transaction is already open in this thread; they do not nest")
        if not self._writer.acquire(timeout=BUSY_TIMEOUT_SECONDS):
            raise StorageError(
                f"not saved: another write has taken {BUSY_TIMEOUT_SECONDS} s; try again"
            )
        try:
            with _translated_errors(self.path):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    refuse_newer(connection, self.path)
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.conn.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        finally:
            self._writer.release()

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside a transaction: take back what the block wrote when it raises."""
        connection = self.connection()
        with _translated_errors(self.path):
            connection.execute("SAVEPOINT part")
            try:
                yield
            except BaseException:
                if connection.conn.in_transaction:  # SQLite itself may have rolled all of it back
                    connection.execute("ROLLBACK TO part")
                    connection.execute("RELEASE part")
                raise
            connection.execute("RELEASE part")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of the block see one state; inside a transaction it adds nothing."""
        connection = self.connection()
        if connection.conn.in_transaction:
            yield
            return
        with _translated_errors(self.path):
            connection.execute("BEGIN")
            try:
                yield
            finally:
                if connection.conn.in_transaction:
                    connection.execute("COMMIT")

    def forget_erased(self) -> None:
        """After an erasure: move the log into the file and empty it, so no copy stays there."""
        with _translated_errors(self.path):
            self.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connections of all threads."""
        self._closed = True
        with self._registry:
            connections = list(self._connections)
            self._connections.clear()
        for connection in connections:
            connection.close()


def insert(connection: sqlite_utils.Database, table: str, row: dict[str, Any]) -> int:
    """Insert one row and return its new id; table and columns are names in the code."""
    # Not through sqlite_utils: it looks the table up each time, which takes longer than the insert.
    columns, places = ", ".join(row), ", ".join("?" * len(row))
    sql = f"INSERT INTO {table} ({columns}) VALUES ({places})"
    new_id: Any = connection.conn.execute(sql, list(row.values())).lastrowid
    return int(new_id)


def _connect(path: Path) -> sqlite_utils.Database:
    # isolation_level None leaves every BEGIN and COMMIT to us.
    raw = sqlite3.connect(
        str(path), isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS
    )
    connection = sqlite_utils.Database(raw, execute_plugins=False)
    for pragma in (
        "foreign_keys = ON",
        "synchronous = FULL",
        "secure_delete = ON",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _set_journal(connection: sqlite_utils.Database, path: Path) -> None:
    wanted = "wal"
    if not wal_is_safe(sqlite3.sqlite_version_info):
        wanted = "delete"
        log.warning(
            "SQLite %s can lose data in WAL mode, so %s uses a rollback journal, which is slower; "
            "install pysqlite3 or SQLite 3.51.3 or newer",
            sqlite3.sqlite_version,
            path,
        )
    got = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
    if got != wanted:
        raise StorageError(f"{path} stays in journal mode {got}; close other programs that use it")


def _check_pages(connection: sqlite_utils.Database, path: Path) -> None:
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
    if problems != ["ok"]:
        raise StorageError(_damaged(path, "; ".join(problems[:3])))


def _damaged(path: Path, detail: str) -> str:
    return (
        f"{path} is damaged ({detail}); nothing was changed; copy the file aside and restore the "
        f"newest backup from {path.parent / 'backups'}"
    )


@contextlib.contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except OverflowError as error:
        raise BadInputError("a number is too large; ids and seeds have at most 64 bits") from error
    except UnicodeEncodeError as error:
        raise BadInputError("text has half of a character; send valid Unicode") from error


def _translated(error: sqlite3.Error, path: Path) -> Exception:
    detail = str(error)
    if isinstance(error, sqlite3.IntegrityError):
        return ConflictError(f"not saved: the stored rows do not allow it ({detail})")
    if "full" in detail or "disk I/O" in detail:
        return StorageError(
            f"not saved: the disk of {path} is full or failing ({detail}); free some space and "
            "send it again"
        )
    if "locked" in detail or "busy" in detail:
        return StorageError(
            f"not saved: another program has held {path} for {BUSY_TIMEOUT_SECONDS} s; try again"
        )
    if "readonly" in detail or "unable to open" in detail:
        return StorageError(f"{path} cannot be written ({detail}); check its permissions")
    if "malformed" in detail or "not a database" in detail:
        return StorageError(_damaged(path, detail))
    return StorageError(f"the database {path} failed: {detail}")
