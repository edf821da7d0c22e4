"""What is refused: with a 4xx, in the one error shape, without a row."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from ui.bodies import LARGEST_ID

TURN = "/api/conversations/{conversation}/turns"


def is_error(answer, status: int | None = None) -> bool:
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"]
    assert error["message"]
    assert 400 <= answer.status_code < 500
    return status is None or answer.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": "  \n\t "},
        {"text": "a\x00b"},
        {"text": "a" * 65_537},
        {"text": "é" * 40_000},
        {"text": None},
        {"text": 5},
        {"text": ["a"]},
        {"text": "a", "replies": 0},
        {"text": "a", "replies": 9},
        {"text": "a", "replies": "4"},
        {"text": "a", "replies": 2.5},
        {"text": "a", "replies": True},
        {"text": "a", "seed": -1},
        {"text": "a", "seed": 2**63},
        {"text": "a", "seed": "x"},
        {"text": "a", "max_new_tokens": 0},
        {"text": "a", "max_new_tokens": 100_000},
        {"text": "a", "temperature": -0.1},
        {"text": "a", "temperature": 6},
        {"text": "a", "top_p": 0},
        {"text": "a", "top_p": 1.5},
        {"text": "a", "parent_reply_id": 0},
        {"text": "a", "parent_reply_id": "1"},
        {"text": "a", "reply": 4},
        [],
        "text",
        None,
    ],
)
def test_a_turn_that_cannot_work_is_refused(client, conversation, body):
    answer = client.post(TURN.format(conversation=conversation), json=body)
    assert is_error(answer, 422), body
    assert client.get(f"/api/conversations/{conversation}").json()["turns"] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"not json",
        b'{"text": "\\ud800"}',
        b'{"text": "a", "temperature": NaN}',
        b'{"text": "a", "temperature": Infinity}',
        b'{"text": "a", "temperature": 1e999}',
        b'{"text": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"text": "a", "seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_is_refused(client, conversation, content):
    answer = client.post(
        TURN.format(conversation=conversation),
        content=content,
        headers={"Content-Type": "application/json"},
    )
    assert is_error(answer)
    assert client.get(f"/api/conversations/{conversation}").json()["turns"] == []


def test_json_under_another_content_type_is_refused(client, conversation):
    answer = client.post(
        TURN.format(conversation=conversation),
        content=b'{"text": "Hello"}',
        headers={"Content-Type": "text/plain"},
    )
    assert is_error(answer, 422)


def test_a_refusal_names_the_field_and_what_is_wrong(client, conversation):
    answer = client.post(TURN.format(conversation=conversation), json={"text": " "})
    assert answer.json()["error"] == {
        "code": "bad_input",
        "message": "text: it is blank; write something.",
    }


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/conversations/{id}", None),
        ("DELETE", "/api/conversations/{id}", None),
        ("PATCH", "/api/conversations/{id}", {"title": "New"}),
        ("POST", "/api/conversations/{id}/turns", {"text": "Hello"}),
        ("GET", "/api/turns/{id}", None),
        ("GET", "/api/turns/{id}/events", None),
        ("POST", "/api/turns/{id}/cancel", None),
        ("POST", "/api/turns/{id}/ranking", {"ranks": {"1": 1}}),
        ("POST", "/api/turns/{id}/demonstration", {"text": "Better"}),
        ("POST", "/api/replies/{id}/labels", {"label": "toxic", "value": True}),
        ("POST", "/api/replies/{id}/cancel", None),
        ("GET", "/api/rankings/{id}", None),
        ("PUT", "/api/rankings/{id}", {"ranks": {"1": 1}}),
        ("DELETE", "/api/rankings/{id}", None),
        ("GET", "/api/rounds/{id}", None),
        ("GET", "/api/rounds/{id}/metrics", None),
        ("GET", "/api/rounds/{id}/events", None),
        ("GET", "/api/rounds/{id}/samples", None),
        ("POST", "/api/rounds/{id}/cancel", None),
    ],
)
def test_an_unknown_id_is_not_found_and_an_impossible_one_refused(client, method, path, body):
    for unknown in (999_999, LARGEST_ID):
        assert is_error(client.request(method, path.format(id=unknown), json=body), 404)
    for impossible in (0, -1, LARGEST_ID + 1, "9" * 5000, "abc", "1.5", "%00"):
        answer = client.request(method, path.format(id=impossible), json=body)
        assert is_error(answer, 422), impossible


@pytest.mark.parametrize("name", ["v99", "../v0", "%2e%2e", "V0", "v-1", "live", "a" * 3000])
def test_an_unknown_version_is_not_found(client, name):
    for method, path in (
        ("GET", f"/api/versions/{name}"),
        ("POST", f"/api/versions/{name}/promote"),
    ):
        assert is_error(client.request(method, path), 404)


def ranks_of(turn, *values) -> dict[str, object]:
    return {str(r["id"]): rank for r, rank in zip(turn["replies"], values, strict=False)}


@pytest.mark.parametrize(
    "make",
    [
        lambda turn: ranks_of(turn, 1, 2, 3),
        lambda turn: ranks_of(turn, 0, 1, 2, 3),
        lambda turn: ranks_of(turn, 1, 2, 3, 5),
        lambda turn: ranks_of(turn, 1, 2, 3, -1),
        lambda turn: ranks_of(turn, 1, 2, 3, 10**30),
        lambda turn: ranks_of(turn, 1, 2, 3, "4"),
        lambda turn: ranks_of(turn, 1, 2, 3, 4.5),
        lambda turn: ranks_of(turn, 1, 2, 3, None),
        lambda turn: ranks_of(turn, 1, 2, 3, True),
        lambda turn: {**ranks_of(turn, 1, 2, 3, 4), "999": 1},
        lambda turn: {**ranks_of(turn, 1, 2, 3), "999": 4},
        lambda turn: {**ranks_of(turn, 1, 2, 3), "x": 4},
        lambda turn: {**ranks_of(turn, 1, 2, 3, 4), "01": 1},
        lambda _turn: {str(number): 1 for number in range(1, 1000)},
        lambda _turn: {},
        lambda _turn: [1, 2, 3, 4],
        lambda _turn: None,
    ],
)
def test_ranks_that_do_not_fit_the_turn_are_refused(client, turn, make):
    answer = client.post(f"/api/turns/{turn['turn_id']}/ranking", json={"ranks": make(turn)})
    assert is_error(answer, 422)
    assert client.get("/api/rankings").json() == []


def test_replies_of_another_turn_cannot_be_ranked(client, conversation, turn):
    url = TURN.format(conversation=conversation)
    other = client.post(url, json={"text": "Another"}).json()
    ranks = {**ranks_of(turn, 1, 2, 3), str(other["replies"][0]["id"]): 4}
    answer = client.post(f"/api/turns/{turn['turn_id']}/ranking", json={"ranks": ranks})
    assert is_error(answer, 422)


@pytest.mark.parametrize(
    "more",
    [
        {"strength": 0},
        {"strength": 6},
        {"strength": "2"},
        {"comment": "a\x00"},
        {"comment": "a" * 65_537},
        {"all_bad": "yes"},
        {"idempotency_key": ""},
        {"idempotency_key": "a" * 201},
        {"unknown": 1},
    ],
)
def test_extras_of_a_ranking_are_checked(client, turn, rank, more):
    assert is_error(rank(turn, **more), 422)
    assert client.get("/api/rankings").json() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/conversations", {"system_prompt": "a\x00"}),
        ("/api/conversations", {"title": "a" * 201}),
        ("/api/conversations", {"person_id": 2}),
        ("/api/turns/{turn}/demonstration", {"text": " "}),
        ("/api/turns/{turn}/demonstration", {}),
        ("/api/replies/{reply}/labels", {"label": "Not A Label", "value": True}),
        ("/api/replies/{reply}/labels", {"label": "toxic", "value": 1}),
        ("/api/prompts", {"prompts": []}),
        ("/api/prompts", {"prompts": [{"text": ""}]}),
        ("/api/prompts", {"prompts": [{"text": "a", "tags": [""]}]}),
        ("/api/prompts", {"text": "a"}),
        ("/api/rounds", {"stages": []}),
        ("/api/rounds", {"stages": ["everything"]}),
        ("/api/rounds", {"stages": "ppo"}),
    ],
)
def test_other_bodies_are_checked_too(client, turn, path, body):
    where = path.format(turn=turn["turn_id"], reply=turn["replies"][0]["id"])
    assert is_error(client.post(where, json=body), 422)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "after_id=-1", f"after_id={2**63}"])
def test_queries_are_checked(client, query):
    assert is_error(client.get(f"/api/rankings?{query}"), 422)


def test_an_unknown_path_and_a_wrong_method_answer_in_the_same_shape(client):
    assert is_error(client.get("/api/nothing"), 404)
    assert is_error(client.get("/api"), 404)
    answer = client.put("/api/health")
    assert is_error(answer, 405)
    assert "GET" in answer.json()["error"]["message"]


def test_an_error_nobody_foresaw_has_an_id_and_no_trace(app, client, monkeypatch, caplog):
    def broken(*_args):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(app, "health", broken)
    answer = client.get("/api/health")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "internal"
    assert "secret" not in answer.text
    name = error["message"].rstrip(".").split()[-1]
    assert name in caplog.text
    assert "secret detail" in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_client_that_repeats_after_a_refusal_succeeds(client: TestClient, conversation):
    url = TURN.format(conversation=conversation)
    assert client.post(url, json={"text": ""}).status_code == 422
    assert client.post(url, json={"text": "Hello"}).status_code == 200
