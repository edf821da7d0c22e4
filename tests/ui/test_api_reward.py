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
