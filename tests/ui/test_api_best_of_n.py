"""Best of N over HTTP: what is asked, told while candidates are written, and kept blind."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from event_stream import events_of, stream
from fake_server import http_client, open_fake, wait_until_loaded
from waiting import wait_for

from chatrlhf.app import build_app
from chatrlhf.settings import ChatSettings

SECRETS = ("slot_type", "score", "propensity", "candidate")


@pytest.fixture
def best_of_n(client, conversation):
    """A finished turn of three chosen among eight; longer rows score higher."""
    client.post("/api/versions/v1/promote")
    body = {"text": "Hello", "replies": 3, "candidates": 8, "choose": "best", "seed": 3}
    answer = client.post(f"/api/conversations/{conversation}/turns", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(autouse=True)
def scores(engine):
    engine.score = lambda text: float(text[-1])


def test_the_best_are_shown(best_of_n):
    texts = {reply["text"] for reply in best_of_n["replies"]}
    assert texts == {f"word0 word1 word2 {row}" for row in (5, 6, 7)}
    assert [reply["position"] for reply in best_of_n["replies"]] == [0, 1, 2]
    assert best_of_n["choice"] == {"policy": "best", "candidates": 8, "note": ""}


def test_scores_and_slots_are_hidden_until_the_turn_is_ranked(client, best_of_n, rank):
    url = f"/api/turns/{best_of_n['turn_id']}"
    history = f"/api/conversations/{best_of_n['conversation_id']}"
    for path in (url, f"{url}?reveal=true", history, f"{history}?reveal=true"):
        body = client.get(path).json()
        turn = body["turns"][0] if "turns" in body else body
        assert not any(secret in reply for reply in turn["replies"] for secret in SECRETS)
        assert turn["choice"].keys() == {"policy", "candidates", "note"}
    events = events_of(client.get(f"{url}/events").text)
    assert not any(secret in json.dumps(events) for secret in (*SECRETS[:3], "scores"))

    ranking = rank(best_of_n, (1, 2, 3)).json()
    shown = client.get(url).json()
    for reply in shown["replies"]:
        row = int(reply["text"][-1])
        assert (reply["candidate"], reply["score"]) == (row, float(row))
        assert (reply["slot_type"], reply["propensity"]) == ("best", 1.0)
    assert shown["choice"]["version"] == "v1"
    assert shown["choice"]["scores"] == [float(row) for row in range(8)]
    assert client.get(history).json()["turns"][0]["replies"] == shown["replies"]

    client.delete(f"/api/rankings/{ranking['ranking_id']}")
    again = client.get(url).json()
    assert not any("score" in reply for reply in again["replies"])


def test_events_tell_how_far_the_candidates_are(client, conversation):
    client.post("/api/versions/v1/promote")
    events = stream(client, conversation, replies=3, candidates=5, seed=1)
    assert events[0][0] == "turn.started"
    turn_id = events[0][1]["turn_id"]
    assert events[0][1]["choice"] == {"policy": "best-and-random", "candidates": 5, "note": ""}
    told = [data for name, data in events if name == "turn.choosing"]
    assert told[0] == {
        "turn_id": turn_id,
        "written": 0,
        "candidates": 5,
        "replies": 3,
        "scoring": False,
    }
    assert [data["written"] for data in told] == [0, 1, 2, 3, 4, 5, 5]
    assert told[-1]["scoring"] is True
    names = [name for name, _ in events]
    assert names.index("reply.delta") > max(
        place for place, name in enumerate(names) if name == "turn.choosing"
    )
    assert names[-1] == "turn.done"
    done = [data for name, data in events if name == "reply.done"]
    assert "word0 word1 word2 4" in [data["text"] for data in done]


def test_a_page_that_reloads_meanwhile_hears_the_progress(client, conversation, engine):
    client.post("/api/versions/v1/promote")
    engine.go.clear()
    url = f"/api/conversations/{conversation}"
    body = {"text": "Hello", "candidates": 6}
    sender = threading.Thread(target=client.post, args=(f"{url}/turns",), kwargs={"json": body})
    sender.start()
    wait_for(lambda: client.get(url).json()["turns"], 30.0)
    turns = client.get(url).json()["turns"]
    assert turns[0]["choice"]["candidates"] == 6
    assert [reply["text"] for reply in turns[0]["replies"]] == [""] * 4
    reply_id = turns[0]["replies"][0]["id"]
    assert client.post(f"/api/replies/{reply_id}/cancel").json()["cancelled"] is False
    threading.Timer(0.2, engine.go.set).start()
    names = [
        name for name, _ in events_of(client.get(f"/api/turns/{turns[0]['turn_id']}/events").text)
    ]
    sender.join()
    assert names[:2] == ["turn.started", "turn.choosing"]
    assert names.count("reply.done") == 4


def test_a_turn_that_is_stopped_shows_what_there_is(client, conversation, engine):
    client.post("/api/versions/v1/promote")
    engine.go.clear()
    url = f"/api/conversations/{conversation}"
    answers = []
    body = {"text": "Hello", "candidates": 6}
    sender = threading.Thread(target=lambda: answers.append(client.post(f"{url}/turns", json=body)))
    sender.start()
    wait_for(lambda: client.get(url).json()["turns"], 30.0)
    turns = client.get(url).json()["turns"]
    assert client.post(f"/api/turns/{turns[0]['turn_id']}/cancel").json()["cancelled"] is True
    engine.go.set()
    sender.join()
    turn = answers[0].json()
    assert {reply["state"] for reply in turn["replies"]} == {"cancelled"}
    assert "Stopped before all 6 candidates" in turn["choice"]["note"]


def test_without_a_reward_model_the_turn_says_so(client, conversation, engine):
    body = {"text": "Hello", "candidates": 8}
    turn = client.post(f"/api/conversations/{conversation}/turns", json=body).json()
    assert len(turn["replies"]) == engine.requests[-1].replies == 4
    assert turn["choice"]["note"].startswith("v0 has no reward model.")


def test_without_candidates_a_turn_has_no_choice(client, turn, rank, engine):
    assert turn["choice"] is None
    assert engine.requests[-1].replies == 4
    rank(turn)
    shown = client.get(f"/api/turns/{turn['turn_id']}").json()
    assert shown["choice"] is None
    for reply in shown["replies"]:
        assert (reply["slot_type"], reply["score"], reply["propensity"]) == ("policy", None, None)
        assert reply["candidate"] == reply["position"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"candidates": 3}, "fewer than the 4 replies"),
        ({"candidates": 9}, "candidates"),
        ({"candidates": -1}, "candidates"),
        ({"candidates": "8"}, "candidates"),
        ({"candidates": 8, "choose": "worst"}, "choose"),
    ],
)
def test_impossible_choices_are_refused_without_a_row(client, conversation, body, words):
    url = f"/api/conversations/{conversation}"
    answer = client.post(f"{url}/turns", json={"text": "Hello", **body})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    assert client.get(url).json()["turns"] == []


def test_settings_choose_for_every_turn_unless_it_says_otherwise(settings, engine):
    chat = ChatSettings(replies=2, candidates=5, choose="best", duels=0.0)
    app = build_app(replace(settings, chat=chat), with_trainer=False, open_engine=open_fake(engine))
    app.start()
    try:
        wait_until_loaded(app)
        with http_client(app) as client:
            client.post("/api/versions/v1/promote")
            made = client.post("/api/conversations", json={}).json()["id"]

            def ask(**body):
                url = f"/api/conversations/{made}/turns"
                turn = client.post(url, json={"text": "Hello", **body}).json()
                return engine.requests[-1].replies, turn["choice"] and turn["choice"]["policy"]

            assert ask() == (5, "best")
            assert ask(choose="random") == (5, "random")
            assert ask(candidates=8) == (8, "best")
            assert ask(candidates=0) == (2, None)
            assert ask(replies=6) == (6, None)
    finally:
        app.stop()
