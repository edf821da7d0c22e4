"""Scores of replies over HTTP."""

from __future__ import annotations

import pytest

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


def test_replies_are_scored_by_the_live_version(client, app, engine):
    client.post("/api/versions/v1/promote")
    answer = client.post(
        "/api/reward/score", json={"messages": ASKED, "replies": ["Hi", "", "Good day"]}
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "version": "v1",
        "scores": [2, 0, 8],
        "terms": [{"ranking": 2.0}, {"ranking": 0.0}, {"ranking": 8.0}],
        "spreads": [0.5, 0.5, 0.5],
        "left_out": ["classifier"],
    }
    ((version, messages, longest),) = engine.scored
    assert version == "v1"
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]
    assert longest == app.settings.reward.max_tokens


def test_a_version_without_a_reward_model_says_so(client):
    answer = client.post("/api/reward/score", json={"messages": ASKED, "replies": ["Hi"]})
    assert answer.status_code == 409
    assert "no reward model" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": ASKED, "replies": []},
        {"messages": [], "replies": ["Hi"]},
        {"messages": [*ASKED, {"role": "assistant", "content": "Hi"}], "replies": ["Hi"]},
        {"messages": [{"role": "tool", "content": "x"}], "replies": ["Hi"]},
        {"messages": [{"role": "user", "content": " "}], "replies": ["Hi"]},
        {"messages": ASKED, "replies": ["Hi"] * 65},
        {"messages": ASKED, "replies": ["a\x00"]},
        {"messages": ASKED, "replies": ["Hi"], "version": "v0"},
        {"prompt": "Hello", "replies": ["Hi"]},
    ],
)
def test_what_cannot_be_scored_is_refused(client, engine, body):
    client.post("/api/versions/v1/promote")
    assert client.post("/api/reward/score", json=body).status_code == 422
    assert engine.scored == []


def test_replies_are_explained_term_by_term_and_token_by_token(client):
    client.post("/api/versions/v1/promote")
    body = {"messages": ASKED, "replies": ["Good day", ""]}
    answer = client.post("/api/reward/explain", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "version": "v1",
        "source": "critic",
        "left_out": ["classifier"],
        "replies": [
            {
                "text": "Good day",
                "score": 8,
                "terms": {"ranking": 8.0},
                "spread": 0.5,
                "before": 0.0,
                "tokens": [{"text": "Good ", "value": 5.0}, {"text": "day", "value": 8.0}],
            },
            {
                "text": "",
                "score": 0,
                "terms": {"ranking": 0.0},
                "spread": 0.5,
                "before": 0.0,
                "tokens": [],
            },
        ],
    }


def test_a_stored_reply_is_explained_once_its_turn_is_ranked(client, engine, turn, rank):
    reply_id = turn["replies"][2]["id"]
    body = {"reply_id": reply_id, "version": "v1"}
    early = client.post("/api/reward/explain", json=body)
    assert early.status_code == 409
    assert "not ranked yet" in early.json()["error"]["message"]
    assert engine.scored == []
    rank(turn)
    (found,) = client.post("/api/reward/explain", json=body).json()["replies"]
    assert found["text"] == turn["replies"][2]["text"]
    ((_, messages, _),) = engine.scored
    assert [(message.role, message.content) for message in messages] == [("user", "Hello")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"reply_id": 1, "messages": ASKED, "replies": ["Hi"]}, 422),
        ({"messages": ASKED}, 422),
        ({"reply_id": 1, "replies": ["Hi"]}, 422),
        ({"messages": [*ASKED, {"role": "assistant", "content": "x"}], "replies": ["Hi"]}, 422),
        ({"messages": ASKED, "replies": ["Hi"] * 9}, 422),
        ({"messages": ASKED, "replies": ["Hi"], "version": "live"}, 422),
        ({"messages": ASKED, "replies": ["Hi"], "version": "v9"}, 404),
        ({"messages": ASKED, "replies": ["Hi"], "version": "v0"}, 409),
        ({"reply_id": 99}, 404),
    ],
)
def test_what_cannot_be_explained_is_refused(client, body, status):
    answer = client.post("/api/reward/explain", json=body)
    assert answer.status_code == status, answer.text
