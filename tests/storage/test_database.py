from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

from chatrlhf.errors import (
    BadInputError,
    ConflictError,
    DataFolderBusyError,
    NotFoundError,
    StorageError,
)
from storage import database as database_module
from storage import runs
from storage.conversations import get_turn
from storage.database import Database, lock_data_folder, open_database, wal_is_safe


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_wal_is_for_engines_that_have_the_fix(version: tuple[int, ...], safe: bool) -> None:
    assert wal_is_safe(version) is safe


@pytest.mark.parametrize(("safe", "mode"), [(True, "wal"), (False, "delete")])
def test_journal_mode_follows_the_engine(
    safe: bool,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(database_module, "wal_is_safe", lambda version: safe)
    with caplog.at_level(logging.WARNING):
        db = open_database(tmp_path / "x.db")
    assert db.rows("PRAGMA journal_mode") == [{"journal_mode": mode}]
    assert bool(caplog.records) is not safe
    db.close()


def test_every_thread_has_a_connection_of_its_own_with_the_pragmas(db: Database) -> None:
    seen: list[tuple[int, dict[str, int]]] = []

    def look() -> None:
        names = ("foreign_keys", "synchronous", "secure_delete", "trusted_schema")
        pragmas = {name: db.rows(f"PRAGMA {name}")[0][name] for name in names}
        pragmas["busy_timeout"] = db.rows("PRAGMA busy_timeout")[0]["timeout"]
        seen.append((id(db.connection()), pragmas))
        barrier.wait()

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({identity for identity, _ in seen}) == 3
    wanted = {
        "foreign_keys": 1,
        "synchronous": 2,
        "secure_delete": 1,
        "trusted_schema": 0,
        "busy_timeout": 10_000,
    }
    assert [pragmas for _, pragmas in seen] == [wanted] * 3


def test_a_transaction_that_raises_leaves_nothing(db: Database) -> None:
    def write_and_fail() -> None:
        with db.transaction() as connection:
            connection.execute("INSERT INTO state VALUES ('a', '1', '')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert db.rows("SELECT * FROM state") == []
    runs.set_state(db, "a", 2)
    assert runs.get_state(db, "a") == 2


def test_transactions_do_not_nest(db: Database) -> None:
    with db.transaction(), pytest.raises(StorageError, match="do not nest"), db.transaction():
        pass
    with db.snapshot(), pytest.raises(StorageError, match="do not nest"), db.transaction():
        pass


def test_two_threads_that_read_then_write_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    databases = [open_database(path), open_database(path)]  # two locks, as in two processes
    runs.set_state(databases[0], "n", 0)
    failures: list[Exception] = []

    def count(db: Database) -> None:
        try:
            for _ in range(50):
                with db.transaction() as connection:
                    value = connection.execute("SELECT value FROM state").fetchone()[0]
                    connection.execute("UPDATE state SET value = ?", [str(int(value) + 1)])
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=count, args=[db]) for db in databases * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert runs.get_state(databases[0], "n") == 200
    for db in databases:
        db.close()


def test_a_snapshot_does_not_see_later_commits(db: Database) -> None:
    runs.set_state(db, "a", 1)

    def write() -> None:
        runs.set_state(db, "a", 2)

    with db.snapshot():
        assert runs.get_state(db, "a") == 1
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(timeout=0.5)  # with a rollback journal the writer waits for the reader
        assert runs.get_state(db, "a") == 1
    thread.join()
    assert runs.get_state(db, "a") == 2


def test_a_full_disk_saves_nothing_and_later_writes_work(db: Database) -> None:
    pages = db.rows("PRAGMA page_count")[0]["page_count"]
    db.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"not saved: the disk .* free some space"):
        runs.set_state(db, "a", "x" * 100_000)
    assert runs.get_state(db, "a") is None
    db.rows("PRAGMA max_page_count = 1000000")
    runs.set_state(db, "a", "x" * 100_000)
    assert runs.get_state(db, "a") == "x" * 100_000


def test_a_constraint_becomes_a_conflict(db: Database) -> None:
    with pytest.raises(ConflictError, match="not saved"), db.transaction() as connection:
        connection.execute("INSERT INTO state VALUES ('a', NULL, '')")


def test_ids_that_sqlite_cannot_hold_are_refused(db: Database) -> None:
    with pytest.raises(BadInputError, match="64 bits"):
        get_turn(db, 2**63)
    with pytest.raises(NotFoundError):
        get_turn(db, 2**63 - 1)


def test_tables_are_strict_and_foreign_keys_indexed(db: Database) -> None:
    tables = db.rows("PRAGMA table_list")
    ours = [
        row for row in tables if row["type"] == "table" and not row["name"].startswith("sqlite_")
    ]
    assert len(ours) >= 22
    assert all(row["strict"] for row in ours)
    for table in ours:
        indexed = set()
        for index in db.rows(f"PRAGMA index_list({table['name']})"):
            columns = db.rows(f"PRAGMA index_info({index['name']})")
            indexed.add(columns[0]["name"])
        for key in db.rows(f"PRAGMA foreign_key_list({table['name']})"):
            if key["seq"] == 0 and key["on_delete"] == "CASCADE":
                assert key["from"] in indexed, (table["name"], key["from"])


@pytest.mark.parametrize(
    "content", [b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_damaged_file_is_reported_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="restore the newest backup"):
        open_database(path)
    assert path.read_bytes() == content


def test_a_corrupt_page_is_found_at_the_start(db: Database, tmp_path: Path) -> None:
    for number in range(50):
        runs.set_state(db, f"key {number}", "x" * 500)
    db.forget_erased()
    db.close()
    content = bytearray(db.path.read_bytes())
    page = len(content) // 4096 - 2
    content[page * 4096 : page * 4096 + 400] = b"\xaa" * 400
    db.path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        open_database(db.path)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(str(path))
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match="another program"):
        open_database(path)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        open_database(tmp_path / "file" / "x.db")


def test_a_closed_database_says_so(db: Database) -> None:
    db.rows("SELECT 1")
    db.close()
    with pytest.raises(StorageError, match="closed"):
        db.rows("SELECT 1")


def test_the_file_is_for_its_owner_only(db: Database) -> None:
    assert db.path.stat().st_mode & 0o077 == 0


def test_the_data_folder_has_one_server_whose_pid_is_named(tmp_path: Path, start_python) -> None:
    script = (
        "import sys; from storage.database import lock_data_folder\n"
        "lock = lock_data_folder(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"
    )
    other = start_python(script, tmp_path)
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(DataFolderBusyError, match=f"process {other.pid} "):
        lock_data_folder(tmp_path)
    other.kill()
    other.wait()
    lock = lock_data_folder(tmp_path)
    with pytest.raises(DataFolderBusyError):
        lock_data_folder(tmp_path)
    lock.release()
    lock_data_folder(tmp_path).release()
