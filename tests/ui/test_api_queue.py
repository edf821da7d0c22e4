"""The rating queue over HTTP: two people, leases, overlap, repeats, goals."""

from __future__ import annotations

import random
import time

import pytest
from fake_server import OWN_ADDRESS
from fastapi.testclient import TestClient

from storage import people, prompts, rankings
from ui import access
from ui.server import create_server

POOL = [f"Question {number}?" for number in range(1, 13)]


@pytest.fixture
def pool(app):
    """A pool of twelve prompts and nothing else; no repeats are drawn."""
    for prompt in prompts.list_prompts(app.db):
        prompts.delete_prompt(app.db, prompt.id)
    prompts.add_prompts(app.db, [(text, "", []) for text in POOL])
    app.queue._rng = random.Random(0)
    app.queue._rng.random = lambda: 1.0
    return prompts.list_prompts(app.db)


@pytest.fixture
def as_person(app):
    """A client of a person of this name."""

    def client_of(name):
        person = people.find_person(app.db, name) or people.create_person(app.db, name)
        server = create_server(app, with_page=False)
        server.dependency_overrides[access._person_of] = lambda: person
        return TestClient(server, base_url=OWN_ADDRESS, raise_server_exceptions=False)

    return client_of


@pytest.fixture
def ann(as_person, pool):
    return as_person("Ann")


@pytest.fixture
def bob(as_person, pool):
    return as_person("Bob")


def next_of(client):
    """What the person is to rate, with its replies written."""
    answer = client.get("/api/queue/next")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    deadline = time.monotonic() + 10
    while found["turn"] and any(r["state"] == "streaming" for r in found["turn"]["replies"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
        found["turn"] = client.get(f"/api/turns/{found['turn']['turn_id']}").json()
    return found


def rank(client, turn, ranks=(1, 2, 3, 4), **more):
    replies = sorted(turn["replies"], key=lambda reply: reply["text"])
    by_id = {str(reply["id"]): rank for reply, rank in zip(replies, ranks, strict=True)}
    return client.post(f"/api/turns/{turn['turn_id']}/ranking", json={"ranks": by_id, **more})


def test_a_person_gets_a_prompt_with_its_replies_until_they_rank_it(ann):
    found = next_of(ann)
    assert (found["state"], found["remaining"]) == ("ready", len(POOL))
    assert found["prompt"]["text"] == found["turn"]["text"] == POOL[0]
    assert len(found["turn"]["replies"]) == 4
    assert not any("version" in reply for reply in found["turn"]["replies"])  # blind
    assert next_of(ann)["turn"]["turn_id"] == found["turn"]["turn_id"]
    saved = rank(ann, found["turn"]).json()
    assert saved["comparisons"] == 6
    after = next_of(ann)
    assert (after["prompt"]["text"], after["remaining"]) == (POOL[1], len(POOL) - 1)
    assert ann.get("/api/conversations").json() == []


def test_two_people_never_hold_the_same_prompt_at_once(ann, bob):
    first, second = next_of(ann), next_of(bob)
    assert [one["prompt"]["text"] for one in (first, second)] == POOL[:2]
    for client, found in ((ann, second), (bob, first)):
        turn = found["turn"]
        assert client.get(f"/api/turns/{turn['turn_id']}").status_code == 404
        assert rank(client, turn).status_code == 404
        skipped = client.post("/api/queue/skip", json={"turn_id": turn["turn_id"]})
        assert skipped.status_code == 404


def test_with_an_overlap_both_rate_the_same_replies_and_their_agreement_shows(ann, bob, app):
    assert ann.put("/api/queue/settings", json={"overlap": 2}).json() == {"ahead": 4, "overlap": 2}
    for _ in range(3):
        mine, yours = next_of(ann), next_of(bob)
        assert mine["turn"]["turn_id"] == yours["turn"]["turn_id"]
        rank(ann, mine["turn"])
        assert ann.get("/api/queue/stats").json()["agreement"]["items"] in (0, 1, 2)
        rank(bob, yours["turn"])
    agreement = bob.get("/api/queue/stats").json()["agreement"]
    assert (agreement["alpha"], agreement["items"], agreement["people"]) == (1.0, 3, 2)
    assert "on 3 items that 2 people ranked: too few to rely on" in agreement["sentence"]
    assert len(rankings.ranked_turns(app.db)) == 6
    listed = {row["text"]: row for row in ann.get("/api/prompts").json()}
    assert (listed[POOL[0]]["ratings"], listed[POOL[0]]["replies"]) == (2, True)
    assert (listed[POOL[9]]["ratings"], listed[POOL[9]]["replies"]) == (0, False)


def test_what_one_has_rated_is_what_the_other_gets_first(ann, bob):
    ann.put("/api/queue/settings", json={"overlap": 2})
    first = next_of(ann)["turn"]
    ann.post("/api/queue/skip", json={"turn_id": first["turn_id"]})
    second = next_of(ann)["turn"]
    rank(ann, second)
    assert next_of(bob)["turn"]["turn_id"] == second["turn_id"]


def test_an_item_that_was_left_goes_to_another_when_its_lease_is_over(ann, bob, app):
    turn = next_of(ann)["turn"]
    with app.db.transaction() as connection:
        connection.execute("UPDATE queue_assignments SET leased_at = '2026-01-01T00:00:00.000Z'")
    assert next_of(bob)["turn"]["turn_id"] == turn["turn_id"]
    assert rank(ann, turn).status_code == 200  # late, but not lost
    assert next_of(bob)["prompt"]["text"] == POOL[1]


def test_others_holding_all_that_is_left_is_no_end(ann, bob, app, pool):
    for prompt in pool[1:]:
        prompts.delete_prompt(app.db, prompt.id)
    turn = next_of(ann)["turn"]
    held = next_of(bob)
    assert (held["state"], held["turn"], held["remaining"]) == ("held", None, 1)
    rank(ann, turn)
    assert next_of(bob)["state"] == next_of(ann)["state"] == "done"


def test_skipping_takes_a_reason_and_is_undone(ann, app):
    turn = next_of(ann)["turn"]
    body = {"turn_id": turn["turn_id"], "reason": "I know nothing of it"}
    assert ann.post("/api/queue/skip", json=body).json() == {"skipped": turn["turn_id"]}
    stored = app.db.row("SELECT reason FROM queue_assignments")
    assert stored == {"reason": body["reason"]}
    after = next_of(ann)
    assert (after["prompt"]["text"], after["remaining"]) == (POOL[1], len(POOL) - 1)
    assert ann.get("/api/queue/stats").json()["skipped"] == 1
    assert ann.delete(f"/api/queue/skip/{turn['turn_id']}").status_code == 200
    assert next_of(ann)["turn"]["turn_id"] == turn["turn_id"]
    ann.post("/api/queue/skip", json=body)
    assert ann.delete("/api/queue/skip").json() == {"restored": 1}
    rank(ann, turn)
    refused = ann.post("/api/queue/skip", json=body)
    assert refused.status_code == 409
    assert "undo the rating" in refused.json()["error"]["message"]


def test_hidden_repeats_are_like_other_items_and_train_nothing(ann, app):
    keys, kinds, turns = None, [], set()
    app.queue._rng = random.Random(11)
    app.queue._settings = app.settings  # the share is that of the settings
    while (found := next_of(ann))["state"] == "ready":
        shape = (sorted(found), sorted(found["turn"]), sorted(found["turn"]["replies"][0]))
        assert keys in (None, shape)
        keys = shape
        assert found["turn"]["turn_id"] not in turns
        turns.add(found["turn"]["turn_id"])
        kinds.append(found["prompt"]["text"])
        rank(ann, found["turn"])
    repeats = len(kinds) - len(set(kinds))
    assert set(kinds) == set(POOL)
    assert repeats > 0
    assert len(rankings.ranked_turns(app.db)) == len(POOL)
    stats = ann.get("/api/queue/stats").json()
    assert stats["today"] == len(kinds)
    assert (stats["consistency"]["share"], stats["consistency"]["repeats"]) == (1.0, repeats)
    assert 0 < stats["consistency"]["low"] < stats["consistency"]["high"] == 1.0


def test_goals_are_each_persons_own_and_stay(ann, bob):
    assert ann.get("/api/queue/goal").json() == {"goal": None}
    assert ann.put("/api/queue/goal", json={"goal": 30}).json() == {"goal": 30}
    assert bob.get("/api/queue/goal").json() == {"goal": None}
    rank(ann, next_of(ann)["turn"])
    stats = ann.get("/api/queue/stats?utc_offset_minutes=-300").json()
    assert (stats["goal"], stats["today"], stats["sitting"], stats["days_in_a_row"]) == (
        30,
        1,
        1,
        1,
    )
    assert stats["per_hour"] is None
    assert stats["remaining"] == len(POOL) - 1
    assert ann.put("/api/queue/goal", json={"goal": None}).json() == {"goal": None}


def test_statistics_of_nobody_say_what_to_do(bob):
    stats = bob.get("/api/queue/stats").json()
    assert (stats["today"], stats["agreement"]["alpha"]) == (0, None)
    assert "Let each prompt be rated by two" in stats["agreement"]["sentence"]
    assert stats["consistency"]["share"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/queue/goal", {"goal": 0}),
        ("PUT", "/api/queue/goal", {"goal": "many"}),
        ("PUT", "/api/queue/goal", {}),
        ("PUT", "/api/queue/settings", {"overlap": 0}),
        ("PUT", "/api/queue/settings", {"ahead": 65}),
        ("POST", "/api/queue/skip", {"turn_id": 0}),
        ("POST", "/api/queue/skip", {"turn_id": 1, "reason": "x" * 1001}),
        ("GET", "/api/queue/stats?utc_offset_minutes=900", None),
        ("DELETE", "/api/queue/skip/0", None),
    ],
)
def test_wrong_requests_are_refused_and_change_nothing(ann, method, path, body):
    answer = ann.request(method, path, json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]
    assert ann.get("/api/queue/settings").json() == {"ahead": 4, "overlap": 1}
    assert ann.get("/api/queue/goal").json() == {"goal": None}


def test_a_prompt_that_the_model_refuses_is_left_out(ann, engine):
    from chatrlhf.errors import ContextOverflowError

    submit = engine.submit

    def refuse_the_first(request):
        if request.messages[-1].content == POOL[0]:
            raise ContextOverflowError("It is too long.")
        return submit(request)

    engine.submit = refuse_the_first
    assert next_of(ann)["prompt"]["text"] == POOL[1]


def test_the_queue_is_described_for_programs(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    for path in ("next", "skip", "stats", "goal", "settings"):
        for operation in paths[f"/api/queue/{path}"].values():
            assert operation["responses"]["200"]["description"] != "Successful Response"
            assert operation["summary"]
    for path in ("", "/tags", "/templates", "/import", "/{prompt_id}", "/{prompt_id}/restore"):
        for operation in paths[f"/api/prompts{path}"].values():
            assert operation["responses"]["200"]["description"] != "Successful Response"
