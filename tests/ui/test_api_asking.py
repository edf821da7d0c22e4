"""Asking every turn, one in N, or when the reward model is unsure."""

from __future__ import annotations

import pytest
from event_stream import stream


@pytest.fixture
def send(client, conversation):
    def post(**body):
        answer = client.post(
            f"/api/conversations/{conversation}/turns", json={"text": "Hi", **body}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


@pytest.fixture
def scored(client, engine):
    """A live version with a reward model; row by row, set ``engine.score``."""
    client.post("/api/versions/v1/promote")
    return engine


def test_one_turn_in_three_is_asked_and_the_others_get_one_reply(send):
    counts = [len(send(ask="sometimes", ask_one_in=3)["replies"]) for _ in range(7)]
    assert counts == [4, 1, 1, 4, 1, 1, 4]


def test_a_turn_that_is_asked_for_counts(send):
    counts = [
        len(send(ask=ask, ask_one_in=2)["replies"])
        for ask in ("sometimes", "sometimes", "every", "sometimes", "sometimes")
    ]
    assert counts == [4, 1, 4, 1, 4]


def test_without_a_word_every_turn_is_asked(send):
    assert [len(send()["replies"]) for _ in range(3)] == [4, 4, 4]


def test_without_a_reward_model_unsure_becomes_one_in_n_and_says_so(send):
    first, second = (send(ask="unsure", ask_one_in=2) for _ in range(2))
    assert [len(first["replies"]), len(second["replies"])] == [4, 1]
    for turn in (first, second):
        assert "v0 has no reward model" in turn["choice"]["note"]
        assert "One turn in 2" in turn["choice"]["note"]


def test_a_sure_reward_model_shows_its_best_alone(send, scored, settings, app):
    scored.score = lambda text: 100.0 if text.endswith("2") else 0.0
    notes = set()
    for seed in range(20):
        turn = send(ask="unsure", seed=seed)
        notes.add(turn["choice"]["note"])
        if len(turn["replies"]) == 1:
            assert turn["replies"][0]["text"] == "word0 word1 word2 2"
            assert turn["choice"]["note"].endswith("so it is shown alone.")
            assert turn["choice"]["candidates"] == 4
    assert len(notes) == 2  # alone, or by chance


def test_an_unsure_reward_model_asks(send, scored):
    scored.score = lambda text: 1.0
    turn = send(ask="unsure")
    assert len(turn["replies"]) == 4
    assert turn["choice"]["note"] == (
        "The reward model is 50% sure which reply is best, so you decide."
    )
    assert sorted(reply["position"] for reply in turn["replies"]) == [0, 1, 2, 3]
    assert len({reply["text"] for reply in turn["replies"]}) == 4


def test_readers_hear_that_a_turn_is_asked_after_all(client, conversation, scored):
    scored.score = lambda text: 1.0
    events = stream(client, conversation, ask="unsure")
    names = [name for name, _ in events]
    assert len(dict(events)["turn.started"]["replies"]) == 1
    asked = dict(events)["turn.asked"]
    assert [reply["position"] for reply in asked["replies"]] == [0, 1, 2, 3]
    assert asked["replies"][0] == dict(events)["turn.started"]["replies"][0]
    assert names.index("turn.asked") < names.index("reply.delta")
    done = {data["reply_id"] for name, data in events if name == "reply.done"}
    assert done == {reply["id"] for reply in asked["replies"]}


def test_a_reward_model_that_fails_does_not_cost_the_ranking(send, scored):
    scored.fail_scoring = RuntimeError("broken")
    turn = send(ask="unsure")
    assert len(turn["replies"]) == 4
    assert "could not be scored" in turn["choice"]["note"]


@pytest.mark.parametrize("body", [{"ask": "never"}, {"ask": "sometimes", "ask_one_in": 1}])
def test_a_wrong_way_of_asking_is_refused(client, conversation, body):
    answer = client.post(f"/api/conversations/{conversation}/turns", json={"text": "Hi", **body})
    assert answer.status_code == 422
    assert "ask" in answer.json()["error"]["message"]


def test_the_page_learns_the_defaults_and_the_labels(client):
    found = client.get("/api/chat/settings").json()
    assert (found["replies"], found["ask"], found["ask_one_in"]) == (4, "every", 4)
    assert found["labels"] == ["good", "toxic", "wrong", "off-topic", "too-long"]
