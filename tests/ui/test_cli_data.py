"""chatrlhf export, import, backup, restore, check and doctor."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from storage import demonstrations, people, rankings, runs
from storage.backup import verify_backup
from storage.database import Database, lock_data_folder, open_database
from storage.records import Message
from ui import cli

Capture = pytest.CaptureFixture[str]
GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def demonstrate(db: Database, text: str = "Hallo!") -> None:
    person = people.ensure_local_person(db).id
    messages = [Message("user", "Grüße?")]
    demonstrations.save_demonstration(db, person, text, messages=messages)


def test_export_goes_to_standard_output_or_a_file(
    db: Database, tmp_path: Path, capsys: Capture
) -> None:
    demonstrate(db)
    assert cli.main(["export"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["type"], row["text"]) == ("demonstration", "Hallo!")
    assert row["messages"] == [{"role": "user", "content": "Grüße?"}]
    output = tmp_path / "out.jsonl"
    assert cli.main(["export", "--output", str(output), "--format", "trl-sft", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": str(output), "format": "trl-sft", "records": 1}
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["completion"] == [{"role": "assistant", "content": "Hallo!"}]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_export_to_a_folder_that_is_not_there_is_explained(
    db: Database, tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["export", "--output", str(tmp_path / "no" / "out.jsonl")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_parquet_goes_from_one_folder_to_another(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    demonstrate(db)
    output = tmp_path / "out.parquet"
    assert cli.main(["export", "--format", "parquet", "--output", str(output)]) == 0
    monkeypatch.setenv("CHATRLHF_DATA", str(tmp_path / "other"))
    assert cli.main(["import", str(output)]) == 0
    assert "1 demonstrations; 0 were here already" in " ".join(capsys.readouterr().out.split())


def test_import_names_bad_lines_and_keeps_the_good_ones(
    db: Database, tmp_path: Path, capsys: Capture
) -> None:
    path = write(tmp_path / "pairs.jsonl", GOOD, {"tea": 1}, {**GOOD, "prompt": "q"})
    assert cli.main(["import", path]) == 1
    said = capsys.readouterr()
    assert f"{path}, line 2: it has tea, which is no known format" in said.err
    assert "2 rankings" in " ".join(said.out.split())
    assert cli.main(["import", path, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)[path]
    assert (report["duplicates"], report["failed"]) == (2, 1)
    assert len(rankings.list_rankings(db)) == 2


def test_import_of_a_file_that_is_not_there(data: Path, capsys: Capture) -> None:
    assert cli.main(["import", "nowhere.jsonl"]) == 2
    assert "nowhere.jsonl cannot be read" in capsys.readouterr().err


def test_a_backup_is_restored_and_what_stood_there_is_kept(
    db: Database, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    demonstrate(db, "before")
    assert cli.main(["backup", "--output", str(tmp_path), "--json"]) == 0
    backup = Path(json.loads(capsys.readouterr().out)["file"])
    assert backup.parent == tmp_path
    verify_backup(backup)
    demonstrate(db, "after")
    db.close()
    assert cli.main(["restore", str(backup), "--json"]) == 0
    aside = Path(json.loads(capsys.readouterr().out)["replaced"])
    for path, texts in ((data / "chatrlhf.db", ["before"]), (aside, ["before", "after"])):
        opened = open_database(path)
        assert [one.text for one in demonstrations.list_demonstrations(opened)] == texts
        opened.close()


def test_a_damaged_database_is_moved_aside_by_a_restore(
    db: Database, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    demonstrate(db)
    backup = tmp_path / "copy.db"
    assert cli.main(["backup", "--output", str(backup)]) == 0
    db.close()
    (data / "chatrlhf.db").write_bytes(b"no database at all" * 500)
    assert cli.main(["check"]) == 1
    assert cli.main(["restore", str(backup)]) == 0
    assert cli.main(["check"]) == 0
    (aside,) = (data / "backups").glob("*replaced*.db")
    assert aside.read_bytes().startswith(b"no database")
    capsys.readouterr()


def test_what_restore_refuses(db: Database, data: Path, tmp_path: Path, capsys: Capture) -> None:
    demonstrate(db)
    wrong = tmp_path / "wrong.db"
    wrong.write_bytes(b"SQLite format 3\x00 and nothing more")
    before = (data / "chatrlhf.db").read_bytes()
    assert cli.main(["restore", str(wrong)]) == 2
    assert cli.main(["restore", str(tmp_path / "missing.db")]) == 2
    assert "missing.db" in capsys.readouterr().err
    assert (data / "chatrlhf.db").read_bytes() == before
    with lock_data_folder(data):
        assert cli.main(["restore", str(wrong)]) == 2
    assert "already serves" in capsys.readouterr().err


def test_what_backup_refuses(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["backup"]) == 2
    assert "nothing to back up" in capsys.readouterr().err
    open_database(data / "chatrlhf.db").close()
    there = tmp_path / "there.db"
    there.write_text("mine")
    assert cli.main(["backup", "--output", str(there)]) == 2
    assert there.read_text() == "mine"


def test_check_finds_a_changed_reply_and_a_damaged_version(
    db: Database, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    cli.main(["import", write(tmp_path / "a.jsonl", GOOD)])
    assert cli.main(["check"]) == 0
    db.rows("UPDATE replies SET text = 'changed' WHERE position = 1")
    from storage import versions

    versions.register_version(db, "v0", None, None, "0" * 64, {}, "")
    capsys.readouterr()
    assert cli.main(["check", "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["database"]["state"] == "ok"
    assert found["replies"]["state"] == found["version v0"]["state"] == "failed"
    assert "1 replies are not what was stored" in found["replies"]["detail"]


def test_doctor_tells_what_is_wrong(data: Path, capsys: Capture) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["settings"]["state"] == found["data folder"]["state"] == "ok"
    assert (
        "none is running" in found["server"]["detail"] or "not started" in found["server"]["detail"]
    )
    data.mkdir()
    with lock_data_folder(data):
        cli.main(["doctor", "--json"])
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "is running" in found["server"]["detail"]
    (data / "chatrlhf.toml").write_text("[chat]\nreplies = 99\n")
    assert cli.main(["doctor", "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "chat.replies = 99" in found["settings"]["detail"]


def test_doctor_says_what_to_do_for_each_finding(
    data: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_database(data / "chatrlhf.db")
    run = runs.enqueue_run(db, ("reward",), "test", {}, 0)
    claimed = runs.claim_run(db, "worker", 1, "boot")
    assert claimed is not None
    runs.finish_run(db, run.id, claimed.fence, "failed", "It diverged.")
    db.close()
    monkeypatch.setenv("CHATRLHF_MODEL_NAME", "nothing-like-it")
    monkeypatch.setattr("chatrlhf.native.library.find_compiler", lambda: None)
    monkeypatch.setattr("chatrlhf.loop.doctor._LEAST_MEMORY_BYTES", 10**15)
    monkeypatch.setattr("chatrlhf.loop.doctor._LEAST_FREE_BYTES", 10**18)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("CHATRLHF_SERVE_PORT", str(taken.getsockname()[1]))
        assert cli.main(["doctor", "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(found) >= {
        *("Python", "packages", "torch", "GPU", "C++ compiler", "SQLite", "memory", "settings"),
        *("model files", "data folder", "model cache", "server", "port", "database", "accounts"),
        *("live version", "last round"),
    }
    advised = {
        "C++ compiler": "apt install",
        "memory": "Close programs",
        "model files": "--model",
        "data folder": "Free some space",
        "port": "--port",
        "last round": "chatrlhf train",
    }
    for name, words in advised.items():
        assert found[name]["state"] != "ok", name
        assert words in found[name]["advice"], name
    silent = [one for one in found.values() if one["state"] != "ok" and not one["advice"]]
    assert silent == []


def test_an_import_is_listed_and_taken_back(data: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(GOOD) + "\n")
    assert cli.main(["imports"]) == 0
    assert "Nothing was imported yet" in capsys.readouterr().out
    assert cli.main(["import", str(file)]) == 0
    assert "chatrlhf imports undo 1" in capsys.readouterr().out
    assert cli.main(["imports", "list"]) == 0
    assert "pairs.jsonl" in capsys.readouterr().out
    assert cli.main(["imports", "undo", "1"]) == 0
    assert "pairs.jsonl" in capsys.readouterr().out
    assert cli.main(["imports", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["state"], one["report"]["added"]["rankings"]) == ("undone", 1)
    db = open_database(data / "chatrlhf.db")
    assert rankings.list_rankings(db) == []
    db.close()
    assert cli.main(["imports", "undo", "1"]) == 2
    assert "already" in capsys.readouterr().err


def test_the_api_document_is_written_as_json_and_as_a_page(capsys: Capture) -> None:
    assert cli.main(["api"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "/api/turns/{turn_id}/ranking" in document["paths"]
    assert cli.main(["api", "--markdown"]) == 0
    assert "### `POST /api/turns/{turn_id}/ranking`" in capsys.readouterr().out
