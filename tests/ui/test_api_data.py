"""Export and import over HTTP."""

from __future__ import annotations

import io
import json

import pyarrow.parquet
import pytest
from exchanged import lines

from storage import people, rankings
from ui.security import BODY_LIMIT_BYTES, IMPORT_LIMIT_BYTES

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def test_the_export_of_a_chat_goes_back_in_as_it_was(client, turn, rank):
    rank(turn, (1, 2, 2, 3), strength=3, comment="nice")
    client.post(f"/api/turns/{turn['turn_id']}/demonstration", json={"text": "Better"})
    answer = client.get("/api/export")
    assert answer.headers["content-type"] == "application/jsonl"
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["x-records"] == "1"
    (row,) = map(json.loads, answer.text.splitlines())
    (saved,) = row["turns"][0]["rankings"]
    assert (saved["strength"], saved["comment"]) == (3, "nice")
    assert [one["rank"] for one in saved["ranks"]] == [1, 2, 2, 3]
    assert {"version", "seed", "sampling", "token_ids"} <= row["turns"][0]["replies"][0].keys()
    report = client.post("/api/import", content=answer.content).json()
    assert (report["duplicates"], report["failed"], report["added"]["rankings"]) == (1, 0, 0)
    client.delete(f"/api/conversations/{row['id']}")
    assert client.get("/api/rankings").json() == []
    report = client.post("/api/import", content=answer.content).json()
    assert report["added"]["rankings"] == report["added"]["demonstrations"] == 1
    assert [one["comment"] for one in client.get("/api/rankings").json()] == ["nice"]


def test_trl_and_parquet_exports(client, turn, rank):
    rank(turn, (1, 2, 2, 3))
    pairs = [json.loads(line) for line in client.get("/api/export?format=trl").text.splitlines()]
    assert len(pairs) == 5
    assert set(pairs[0]) == {"prompt", "chosen", "rejected"}
    assert pairs[0]["prompt"][-1] == {"role": "user", "content": "Hello"}
    assert client.get("/api/export?format=trl-sft").text == ""
    table = pyarrow.parquet.read_table(io.BytesIO(client.get("/api/export?format=parquet").content))
    assert table.num_rows == 1


def test_an_unknown_format_is_refused_with_the_known_ones(client):
    answer = client.get("/api/export?format=xml")
    assert answer.status_code == 422
    assert "parquet" in answer.json()["error"]["message"]


@pytest.mark.parametrize("as_form", [False, True])
def test_an_upload_is_answered_with_counts_and_an_error_per_line(client, as_form):
    data = lines(GOOD, {"tea": 1}, {**GOOD, "prompt": "q"})
    how = {"files": {"file": ("a.jsonl", data)}} if as_form else {"content": data}
    report = client.post("/api/import", **how).json()
    assert (report["records"], report["failed"], report["duplicates"]) == (3, 1, 0)
    assert report["added"]["rankings"] == 2
    assert [error["line"] for error in report["errors"]] == [2]
    assert "tea" in report["errors"][0]["message"]
    assert len(client.get("/api/rankings").json()) == 2
    assert client.get("/api/conversations").json() == []


def test_progress_comes_as_events(client):
    data = lines(*({**GOOD, "prompt": f"{number}"} for number in range(250)))
    answer = client.post("/api/import", content=data, headers={"Accept": "text/event-stream"})
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in events]
    assert names[:2] == ["import.progress"] * 2
    assert names[-1] == "import.done"
    done = json.loads(events[-1][1].removeprefix("data: "))
    assert (done["records"], done["fraction"], done["added"]["rankings"]) == (250, 1.0, 250)


def test_a_file_that_is_none_is_refused_in_both_ways(client):
    answer = client.post("/api/import", content=b"")
    assert answer.status_code == 422
    assert "empty" in answer.json()["error"]["message"]
    streamed = client.post("/api/import", content=b"", headers={"Accept": "text/event-stream"})
    assert streamed.text.startswith("event: error\n")
    form = client.post("/api/import", files={"other": ("a", b"x")})
    assert form.status_code == 422
    assert "field named file" in form.json()["error"]["message"]


def test_imports_may_be_larger_than_other_requests_but_not_endless(client):
    big = lines({**GOOD, "chosen": "a" * 60_000}) + b"\n" * (BODY_LIMIT_BYTES + 1)
    assert client.post("/api/import", content=big).json()["added"]["rankings"] == 1
    answer = client.post("/api/import", content=b"\n" * (IMPORT_LIMIT_BYTES + 1))
    assert answer.status_code == 413
    assert "50,000,000" in answer.json()["error"]["message"]
    assert client.post("/api/prompts", content=big).status_code == 413


def test_raters_are_kept_apart_unless_they_are_mine(client, app):
    record = {
        "fields": {"prompt": "p", "r1": "a", "r2": "b"},
        "responses": {"order": [{"value": ["r2", "r1"], "user_id": "ann"}]},
    }
    client.post("/api/import", content=lines(record))
    assert people.find_person(app.db, "argilla:ann").role == "rater"
    assert client.get("/api/rankings").json() == []
    client.post("/api/import?mine=true", content=lines(record))
    assert len(client.get("/api/rankings").json()) == 1
    assert rankings.count_new(app.db, 0) == 2


def test_an_import_is_listed_and_undone(client):
    form = {"files": {"file": ("pairs.jsonl", lines(GOOD, {"tea": 1}))}}
    report = client.post("/api/import", **form).json()
    (listed,) = client.get("/api/imports").json()
    assert (listed["import_id"], listed["name"]) == (report["import_id"], "pairs.jsonl")
    assert listed["report"]["added"] == report["added"]
    assert len(client.get("/api/rankings").json()) == 1
    url = f"/api/imports/{report['import_id']}/undo"
    assert client.post(url).json()["state"] == "undone"
    assert client.get("/api/rankings").json() == []
    assert client.post(url).status_code == 409
    assert client.post("/api/imports/999/undo").status_code == 404


def test_the_size_of_an_export_is_told_before_it_is_made(client, turn, rank, monkeypatch):
    rank(turn)
    for name in ("jsonl", "trl", "trl-sft", "parquet"):
        size = client.get(f"/api/export/size?format={name}").json()
        whole = client.get(f"/api/export?format={name}").content
        assert size["exact"]
        assert size["records"] == (name != "trl-sft")
        assert size["bytes"] == len(whole), name
    client.delete(f"/api/rankings/{client.get('/api/rankings').json()[0]['ranking_id']}")
    client.post("/api/import", content=lines(*({**GOOD, "prompt": f"{n:04}"} for n in range(60))))
    monkeypatch.setattr("chatrlhf.loop.exchange.exports._ESTIMATE_SECONDS", 0.0)
    size = client.get("/api/export/size?format=trl").json()
    whole = len(client.get("/api/export?format=trl").content)
    assert (size["records"], size["exact"]) == (60, False)
    assert size["bytes"] == whole  # all records are alike
