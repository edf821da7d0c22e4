"""The pool of prompts over HTTP: written, found, changed, deleted, imported."""

from __future__ import annotations

import pytest
from event_stream import events_of

TEXT = "What is a quokka, exactly?"


def add(client, *bodies):
    return client.post("/api/prompts", json={"prompts": list(bodies)})


@pytest.fixture
def quokka(client):
    add(client, {"text": TEXT, "tags": ["animals"]})
    return client.get("/api/prompts", params={"containing": "QUOKKA"}).json()[0]


def test_the_pool_comes_with_prompts_and_takes_more_once(client):
    before = client.get("/api/prompts").json()
    assert len(before) >= 100
    assert {prompt["split"] for prompt in before} == {"train", "held_out"}
    body = {"text": TEXT, "tags": ["animals"]}
    assert add(client, body).json() == {"added": 1}
    assert add(client, body).json() == {"added": 0}
    assert len(client.get("/api/prompts").json()) == len(before) + 1
    newest = client.get("/api/prompts", params={"after_id": before[-1]["id"]}).json()
    assert [prompt["text"] for prompt in newest] == [TEXT]


def test_prompts_are_found_by_tag(client, quokka):
    found = client.get("/api/prompts", params={"tag": "animals"}).json()
    assert found == [quokka]
    assert {"tag": "animals", "prompts": 1} in client.get("/api/prompts/tags").json()


def test_a_prompt_is_changed_in_part(client, quokka):
    path = f"/api/prompts/{quokka['id']}"
    changed = client.patch(path, json={"tags": ["animals", "easy"]}).json()
    assert changed == {**quokka, "tags": ["animals", "easy"]}
    twin = client.get("/api/prompts?limit=1").json()[0]["text"]
    refused = client.patch(path, json={"text": twin})
    assert refused.status_code == 409
    assert client.patch("/api/prompts/999999", json={"text": "a"}).status_code == 404
    for body in ({"text": " "}, {"tags": [""]}, {"split": "train"}, {"tags": ["x" * 41]}):
        assert client.patch(path, json=body).status_code == 422


def test_deleting_is_undone(client, quokka):
    path = f"/api/prompts/{quokka['id']}"
    assert client.delete(path).json() == {"deleted": quokka["id"]}
    assert client.delete(path).status_code == 404
    assert client.get("/api/prompts", params={"containing": "quokka"}).json() == []
    assert client.post(f"{path}/restore").json() == quokka
    assert client.get("/api/prompts", params={"containing": "quokka"}).json() == [quokka]


def test_a_template_makes_the_prompt_and_adds_its_tag(client):
    names = [one["name"] for one in client.get("/api/prompts/templates").json()]
    assert names == ["chat", "summarise", "rewrite", "classify", "answer"]
    body = {"text": "I am so glad.", "template": "classify", "fields": {"classes": "sad, glad"}}
    assert add(client, {**body, "tags": ["mood"]}).json() == {"added": 1}
    (made,) = client.get("/api/prompts", params={"tag": "classify"}).json()
    assert made["text"].startswith("Which of these fits the text best: sad, glad?")
    assert made["tags"] == ["mood", "classify"]
    assert add(client, {**body, "template": "poem"}).status_code == 422
    assert add(client, {**body, "fields": {"colour": "red"}}).status_code == 422


def upload(client, content, **options):
    headers = options.pop("headers", {})
    return client.post("/api/prompts/import", params=options, content=content, headers=headers)


def test_a_file_is_imported_with_an_error_for_each_wrong_line(client):
    content = 'text,tags\n"First, of all",a\n,b\nSecond,a;b\n'
    report = upload(client, content, name="mine.csv", tag=["team", "x"]).json()
    assert (report["added"], report["failed"], report["fraction"]) == (2, 1, 1.0)
    assert report["errors"] == [
        {"line": 3, "message": "the prompt is empty; write something first."}
    ]
    found = client.get("/api/prompts", params={"tag": "team"}).json()
    assert [one["text"] for one in found] == ["First, of all", "Second"]
    assert found[1]["tags"] == ["a", "b", "team", "x"]
    assert upload(client, content, name="mine.csv").json()["duplicates"] == 2


def test_progress_comes_as_events(client):
    content = "\n".join(f"Prompt number {number}" for number in range(500))
    answer = upload(client, content, template="summarise", headers={"Accept": "text/event-stream"})
    events = events_of(answer.text)
    assert [name for name, _ in events] == ["import.progress"] * 3 + ["import.done"]
    assert [data["lines"] for _, data in events] == [200, 400, 500, 500]
    assert events[-1][1]["added"] == 500
    wrong = upload(client, "a,b", kind="csv", headers={"Accept": "text/event-stream"})
    ((name, data),) = events_of(wrong.text)
    assert name == "error"
    assert "names no column" in data["error"]["message"]


@pytest.mark.parametrize(
    ("content", "options"),
    [("", {}), ("a", {"kind": "xml"}), ("a", {"template": "poem"}), ("a", {"tag": "x" * 41})],
)
def test_a_file_that_cannot_be_read_adds_nothing(client, content, options):
    before = len(client.get("/api/prompts").json())
    assert upload(client, content, **options).status_code == 422
    assert len(client.get("/api/prompts").json()) == before


def test_a_file_may_be_larger_than_other_requests(client):
    content = "\n".join(f"{number} {'x' * 2000}" for number in range(600))
    assert upload(client, content).json()["added"] == 600
