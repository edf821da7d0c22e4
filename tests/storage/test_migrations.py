from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chatrlhf.errors import StorageError
from storage import migrations, runs
from storage.backup import verify_backup, write_backup
from storage.database import Database, open_database
from storage.records import Sample


def add_column(connection) -> None:
    connection.execute("ALTER TABLE prompts ADD COLUMN language TEXT")


def with_step(monkeypatch: pytest.MonkeyPatch, step) -> None:
    steps = (*migrations.MIGRATIONS, step)
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)


def test_three_racing_processes_make_one_schema(tmp_path: Path, start_python) -> None:
    script = (
        "import sys; from storage.database import open_database\n"
        "from storage.people import ensure_local_person\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "db = open_database(sys.argv[1]); print(ensure_local_person(db).id)"
    )
    path = tmp_path / "new" / "x.db"
    processes = [start_python(script, path) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [output for output, _ in answers] == ["1\n"] * 3, answers
    verify_backup(path)


def test_a_new_step_runs_after_a_verified_backup(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.set_state(db, "kept", [1, 2])
    db.close()
    with_step(monkeypatch, add_column)
    newer = open_database(db.path)
    assert "language" in newer.connection().table("prompts").columns_dict
    assert runs.get_state(newer, "kept") == [1, 2]
    backups = list((db.path.parent / "backups").iterdir())
    assert len(backups) == 1
    verify_backup(backups[0])
    monkeypatch.undo()
    older = open_database(backups[0])
    assert runs.get_state(older, "kept") == [1, 2]
    newer.close()
    older.close()


def test_samples_of_the_first_schema_have_no_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old" / "chatrlhf.db"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        old = open_database(path)
        run = runs.enqueue_run(old, ["ppo"], "local", {}, 0)
        with old.transaction() as connection:
            connection.execute(
                "INSERT INTO run_samples (run_id, stage, step, prompt, reply, score) "
                "VALUES (?, 'ppo', 1, 'p', 'r', 0.5)",
                [run.id],
            )
        old.close()
    db = open_database(path)
    (sample,) = runs.list_samples(db, run.id)
    assert (sample.prompt, sample.reply, sample.score, sample.terms) == ("p", "r", 0.5, {})
    claimed = runs.claim_run(db, "worker", 1, "boot")
    assert claimed is not None
    added = Sample("ppo", 2, "p", "r", 0.25, terms={"ranking": 1.0, "label:toxic": -0.75})
    runs.add_samples(db, run.id, claimed.fence, [added])
    assert runs.list_samples(db, run.id)[1].terms == added.terms
    db.close()


def test_a_fresh_database_needs_no_backup(db: Database) -> None:
    assert not (db.path.parent / "backups").exists()


def test_a_step_that_fails_leaves_the_old_schema(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(connection) -> None:
        add_column(connection)
        raise ZeroDivisionError

    db.close()
    with_step(monkeypatch, fails)
    with pytest.raises(ZeroDivisionError):
        open_database(db.path)
    monkeypatch.undo()
    again = open_database(db.path)
    assert "language" not in again.connection().table("prompts").columns_dict
    again.close()


def test_a_step_that_leaves_stray_rows_is_undone(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strays(connection) -> None:
        connection.execute(
            "INSERT INTO sessions (person_id, token_sha256, created_at, expires_at) "
            "VALUES (99, printf('%064d', 1), '', '')"
        )

    db.close()
    with_step(monkeypatch, strays)
    with pytest.raises(StorageError, match=r"step \d+ \(strays\) would leave 1 stray"):
        open_database(db.path)
    monkeypatch.undo()
    again = open_database(db.path)
    assert again.rows("SELECT * FROM conversations") == []
    again.close()


def test_a_newer_database_is_not_written(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Database(db.path)
    runs.set_state(other, "a", 1)
    db.close()
    with monkeypatch.context() as patch:
        with_step(patch, add_column)
        open_database(db.path).close()
    with pytest.raises(StorageError, match="update this program"):
        open_database(db.path)
    with pytest.raises(StorageError, match="update this program"):
        runs.set_state(other, "a", 2)  # opened before the newer program came
    assert runs.get_state(other, "a") == 1
    other.close()


def test_a_backup_is_complete_while_the_log_is_not_in_the_file(
    db: Database, tmp_path: Path
) -> None:
    runs.set_state(db, "a", 1)
    copy = write_backup(db.connection(), tmp_path / "copies" / "b.db")
    assert [path.name for path in copy.parent.iterdir()] == ["b.db"]
    restored = open_database(copy)
    assert runs.get_state(restored, "a") == 1
    restored.close()


def test_a_damaged_backup_is_found(db: Database, tmp_path: Path) -> None:
    copy = write_backup(db.connection(), tmp_path / "b.db")
    content = copy.read_bytes()
    copy.write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match=r"b\.db"):
        verify_backup(copy)


def test_a_backup_that_cannot_be_written_leaves_the_older_one(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_backup(db.connection(), tmp_path / "b.db")
    before = target.read_bytes()
    monkeypatch.setattr("storage.backup.os.replace", _no_space)
    with pytest.raises(StorageError, match="no backup was written"):
        write_backup(db.connection(), target)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "data"]
    shutil.rmtree(tmp_path / "data")


def _no_space(source: object, target: object) -> None:
    raise OSError(28, "No space left on device")
