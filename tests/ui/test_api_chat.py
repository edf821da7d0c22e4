"""Conversations and turns over HTTP."""

from __future__ import annotations

import threading

import pytest
from event_stream import events_of, stream
from waiting import wait_for

from chatrlhf.engine.requests import Failed
from chatrlhf.errors import ContextOverflowError, OverloadedError
from storage import conversations, people

TEXTS = [f"word0 word1 word2 {row}" for row in range(4)]


def test_health_says_what_is_live(client):
    health = client.get("/api/health").json()
    assert health["status"] == "ok"
    assert health["model"] == "embedded"
    assert health["live_version"] == "v0"
    assert health["loading"] is None
    assert health["trainer"]["state"] == "idle"
    assert health["trainer"]["next_refit_in"] == 3


def test_a_turn_as_json_has_the_replies_in_shown_order(client, conversation):
    answer = client.post(f"/api/conversations/{conversation}/turns", json={"text": "Hello"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["text"] == "Hello"
    assert [reply["position"] for reply in body["replies"]] == [0, 1, 2, 3]
    assert [reply["text"] for reply in body["replies"]] == TEXTS
    assert {reply["finish_reason"] for reply in body["replies"]} == {"stop"}
    assert not any("version" in reply for reply in body["replies"])


def test_a_turn_as_events_tells_start_text_and_ends(client, conversation):
    events = stream(client, conversation)
    name, started = events[0]
    assert name == "turn.started"
    assert started["conversation_id"] == conversation
    assert started["text"] == "Hello"
    assert started["parent_reply_id"] is None
    assert [reply["position"] for reply in started["replies"]] == [0, 1, 2, 3]
    assert events[-1] == ("turn.done", {"turn_id": started["turn_id"]})
    for reply in started["replies"]:
        own = [(name, data) for name, data in events if data.get("reply_id") == reply["id"]]
        text = "".join(data["text"] for name, data in own if name == "reply.delta")
        assert own[-1] == (
            "reply.done",
            {
                "reply_id": reply["id"],
                "position": reply["position"],
                "finish_reason": "stop",
                "text": TEXTS[reply["position"]],
            },
        )
        assert text == TEXTS[reply["position"]]


def test_options_of_a_turn_reach_the_engine_and_the_rows(client, conversation, engine, app):
    options = {"seed": 2**63 - 1, "max_new_tokens": 5, "temperature": 0.0, "top_p": 0.5}
    answer = client.post(
        f"/api/conversations/{conversation}/turns",
        json={"text": "Hello", "replies": 2, **options},
    )
    request = engine.requests[-1]
    assert (request.replies, request.seed) == (2, 2**63 - 1)
    assert (request.sampling.temperature, request.sampling.top_p) == (0.0, 0.5)
    assert request.sampling.max_new_tokens == 5
    stored = conversations.get_turn(app.db, answer.json()["turn_id"]).replies[0]
    assert stored.seed == 2**63 - 1
    assert stored.sampling["temperature"] == 0.0


def test_without_a_seed_each_turn_draws_another(client, conversation, engine):
    for text in ("one", "two"):
        client.post(f"/api/conversations/{conversation}/turns", json={"text": text})
    first, second = (request.seed for request in engine.requests)
    assert first != second
    assert 0 <= first < 2**63


def test_a_reload_reads_the_whole_turn_again(client, conversation, engine):
    engine.go.clear()
    url = f"/api/conversations/{conversation}/turns"
    sender = threading.Thread(target=client.post, args=(url,), kwargs={"json": {"text": "Hello"}})
    sender.start()
    wait_for(lambda: engine.streams, 30.0)
    history = f"/api/conversations/{conversation}"
    wait_for(lambda: client.get(history).json()["turns"], 30.0)
    turns = client.get(history).json()["turns"]
    turn_id = turns[0]["turn_id"]
    threading.Timer(0.2, engine.go.set).start()
    running = events_of(client.get(f"/api/turns/{turn_id}/events").text)
    sender.join()
    ended = events_of(client.get(f"/api/turns/{turn_id}/events").text)
    assert running[0] == ended[0]
    assert {name for name, _ in running} == {
        "turn.started",
        "reply.delta",
        "reply.done",
        "turn.done",
    }
    done = [event for event in running if event[0] in ("reply.done", "turn.done")]
    assert ended[1:] == done


def test_the_history_has_turns_rankings_and_demonstrations(client, conversation, turn, rank):
    rank(turn)
    client.post(f"/api/turns/{turn['turn_id']}/demonstration", json={"text": "Better."})
    history = client.get(f"/api/conversations/{conversation}").json()
    assert history["id"] == conversation
    shown = history["turns"][0]
    assert [reply["text"] for reply in shown["replies"]] == TEXTS
    assert shown["ranking"]["order"] == "1>2>3>4"
    assert shown["demonstration"]["text"] == "Better."
    assert {reply["version"] for reply in shown["replies"]} == {"v0"}


def test_versions_stay_hidden_until_the_turn_is_ranked(client, turn, rank):
    url = f"/api/turns/{turn['turn_id']}"
    assert not any("version" in reply for reply in client.get(url).json()["replies"])
    revealed = client.get(url, params={"reveal": 1}).json()["replies"]
    assert {reply["version"] for reply in revealed} == {"v0"}
    rank(turn)
    assert {reply["version"] for reply in client.get(url).json()["replies"]} == {"v0"}


def test_conversations_can_be_listed_renamed_and_erased(client, turn):
    made = client.post("/api/conversations", json={"system_prompt": "Be brief."}).json()
    assert made["system_prompt"] == "Be brief."
    renamed = client.patch(f"/api/conversations/{made['id']}", json={"title": "About bees"})
    assert renamed.json()["title"] == "About bees"
    listed = client.get("/api/conversations").json()
    assert [row["id"] for row in listed] == [made["id"], turn["conversation_id"]]
    assert client.delete(f"/api/conversations/{turn['conversation_id']}").status_code == 200
    assert client.get(f"/api/conversations/{turn['conversation_id']}").status_code == 404
    assert client.get(f"/api/turns/{turn['turn_id']}").status_code == 404


def test_the_first_prompt_names_a_conversation_without_a_title(client, conversation):
    url = f"/api/conversations/{conversation}"
    long = "Tell me about the tides.\n" + "And more. " * 20
    for text in (long, "Something else"):
        client.post(f"{url}/turns", json={"text": text})
    title = client.get(url).json()["title"]
    assert title.startswith("Tell me about the tides. And more.")
    assert len(title) <= 60
    named = client.post("/api/conversations", json={"title": "Mine"}).json()["id"]
    client.post(f"/api/conversations/{named}/turns", json={"text": "Hello"})
    assert client.get(f"/api/conversations/{named}").json()["title"] == "Mine"


def test_a_streaming_reply_can_be_cut_and_then_ranked(client, conversation, engine, rank):
    engine.go.clear()
    url = f"/api/conversations/{conversation}/turns"
    answers = []
    sender = threading.Thread(
        target=lambda: answers.append(client.post(url, json={"text": "Hello", "replies": 2}))
    )
    sender.start()
    history = f"/api/conversations/{conversation}"
    wait_for(lambda: client.get(history).json()["turns"], 30.0)
    turns = client.get(history).json()["turns"]
    reply = turns[0]["replies"][0]
    assert rank(turns[0], (1, 2)).status_code == 409
    assert client.post(f"/api/replies/{reply['id']}/cancel").json()["cancelled"] is True
    engine.go.set()
    sender.join()
    first, second = answers[0].json()["replies"]
    assert (first["state"], second["state"]) == ("cancelled", "complete")
    assert client.post(f"/api/turns/{turns[0]['turn_id']}/cancel").json()["cancelled"] is False
    assert rank(answers[0].json(), (2, 1)).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ContextOverflowError("The conversation has 3000 tokens."), 422, "context_overflow"),
        (OverloadedError("64 turns are waiting."), 503, "overloaded"),
    ],
)
def test_what_the_engine_refuses_is_an_error_without_a_row(
    client, conversation, engine, error, status, code
):
    engine.refuse = error
    answer = client.post(f"/api/conversations/{conversation}/turns", json={"text": "Hello"})
    assert answer.status_code == status
    assert answer.json() == {"error": {"code": code, "message": str(error)}}
    assert client.get(f"/api/conversations/{conversation}").json()["turns"] == []


def test_a_failure_of_the_engine_is_an_error_event(client, conversation, engine):
    engine.fail_before_start = Failed("overloaded", "No memory is free.", 503)
    events = stream(client, conversation)
    assert events[-1] == (
        "error",
        {"error": {"code": "overloaded", "message": "No memory is free."}},
    )
    assert client.get(f"/api/conversations/{conversation}").json()["turns"] == []


def test_rows_of_another_person_do_not_exist(client, app, engine, rank):
    other = people.create_person(app.db, "somebody else")
    foreign = conversations.create_conversation(app.db, other.id)
    row = conversations.NewReply(position=0, version="v0", seed=1, sampling={})
    turn = conversations.create_turn(app.db, foreign.id, "Secret", None, [row])
    conversations.finish_reply(
        app.db,
        turn.replies[0].id,
        text="Hush",
        token_ids=[1],
        logprobs=[-1.0],
        finish_reason="stop",
        state="complete",
    )
    reply_id = turn.replies[0].id
    paths = [
        ("GET", f"/api/conversations/{foreign.id}", None),
        ("DELETE", f"/api/conversations/{foreign.id}", None),
        ("PATCH", f"/api/conversations/{foreign.id}", {"title": "Mine"}),
        ("POST", f"/api/conversations/{foreign.id}/turns", {"text": "Hello"}),
        ("GET", f"/api/turns/{turn.id}", None),
        ("GET", f"/api/turns/{turn.id}/events", None),
        ("POST", f"/api/turns/{turn.id}/cancel", None),
        ("POST", f"/api/turns/{turn.id}/ranking", {"ranks": {str(reply_id): 1}}),
        ("POST", f"/api/turns/{turn.id}/demonstration", {"text": "Better"}),
        ("POST", f"/api/replies/{reply_id}/labels", {"label": "toxic", "value": True}),
        ("POST", f"/api/replies/{reply_id}/cancel", None),
    ]
    for method, path, body in paths:
        answer = client.request(method, path, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
        assert "Hush" not in answer.text
    assert client.get("/api/conversations").json() == []
