"""Blind duels, what they say, then and now, and versions side by side, over HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest
from event_stream import events_of
from fake_server import http_client, open_fake, wait_until_loaded

from chatrlhf.app import build_app
from chatrlhf.settings import ChatSettings
from storage import evidence, versions
from storage.records import Prediction


@pytest.fixture
def newer(client):
    """v1 is live and v0 older."""
    client.post("/api/versions/v1/promote")


@pytest.fixture
def duel(client, conversation):
    def ask(text="Hello", **more):
        body = {"text": text, "duel": True, **more}
        answer = client.post(f"/api/conversations/{conversation}/turns", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def makers(app, turn):
    rows = app.db.rows(
        "SELECT version, slot_type FROM replies WHERE turn_id = ? ORDER BY position",
        [turn["turn_id"]],
    )
    return [row["version"] for row in rows], {row["slot_type"] for row in rows}


def prefer(rank, app, turn, version):
    """Rank the replies of a version before those of the other."""
    names, _ = makers(app, turn)
    ranks = [1 if name == version else 2 for name in names]
    assert rank(turn, ranks).status_code == 200


@pytest.mark.parametrize("replies", [2, 3, 4, 5])
def test_a_duel_mixes_both_versions_evenly_and_tells_nobody(newer, client, app, duel, replies):
    turn = duel(replies=replies)
    names, slots = makers(app, turn)
    assert slots == {"duel"}
    assert sorted({names.count("v0"), names.count("v1")}) in (
        [replies // 2],
        [replies // 2, -(-replies // 2)],
    )
    assert "v0" not in str(turn)
    assert not {"version", "slot_type"} & set(turn["replies"][0])
    again = client.get(f"/api/turns/{turn['turn_id']}").json()
    assert not {"version", "slot_type"} & set(again["replies"][0])


def test_ranking_a_duel_reveals_it_and_counts_it(newer, client, app, duel, rank):
    turn = duel()
    prefer(rank, app, turn, "v1")
    shown = client.get(f"/api/turns/{turn['turn_id']}").json()["replies"]
    assert {reply["slot_type"] for reply in shown} == {"duel"}
    assert {reply["version"] for reply in shown} == {"v0", "v1"}
    found = client.get("/api/evidence").json()
    assert found["live_version"] == "v1"
    (pair,) = found["pairs"]
    assert (pair["newer"], pair["older"]) == ("v1", "v0")
    assert (pair["wins"], pair["ties"], pair["losses"], pair["votes"]) == (1, 0, 0, 1)
    # Wilson at 1 of 1: 1 / (1 + z^2) is the lower end.
    assert pair["win_rate"]["low"] == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)
    assert pair["win_rate"]["high"] == 1.0
    assert found["sentence"].startswith("You preferred v1 in 1 of 1 blind turns")
    assert found["duels"] == {"share": 0.0, "turns": 1, "ranked": 1, "blind": 1}
    assert found["rollback_to"] is None


def test_whoever_looked_who_wrote_a_reply_has_no_vote(newer, client, app, duel, rank):
    for path in ("/api/turns/{turn_id}", "/api/conversations/{conversation_id}"):
        turn = duel()
        looked = client.get(path.format(**turn), params={"reveal": True})
        assert "v0" in looked.text
        prefer(rank, app, turn, "v1")
    found = client.get("/api/evidence").json()
    assert found["pairs"] == []
    assert (found["duels"]["ranked"], found["duels"]["blind"]) == (2, 0)


def test_a_version_that_loses_is_to_be_rolled_back(newer, client, app, duel, rank):
    for number in range(8):
        prefer(rank, app, duel(text=f"Question {number}"), "v0")
    found = client.get("/api/evidence").json()
    assert found["rollback_to"] == "v0"
    assert "worse than what was before it. Roll back" in found["sentence"]
    strengths = {row["version"]: row for row in found["strengths"]["versions"]}
    assert found["strengths"]["anchor"] == "v0"
    assert strengths["v0"]["estimate"] == 0.0
    assert strengths["v1"]["high"] < 0.0
    versions.set_alias(app.db, "live", "v0")
    versions.retire(app.db, "v1")  # the other way round, nothing is left to go back to
    assert client.get("/api/evidence").json()["rollback_to"] is None


def test_without_an_older_version_there_is_no_duel(client, conversation, app):
    url = f"/api/conversations/{conversation}/turns"
    refused = client.post(url, json={"text": "Hello", "duel": True})
    assert refused.status_code == 409
    assert "no version older than v0" in refused.json()["error"]["message"]
    assert app.db.rows("SELECT 1 FROM turns") == []


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"replies": 1}, 422, "two at least"),
        ({"candidates": 4}, 422, "Leave out candidates"),
    ],
)
def test_impossible_duels_are_refused_without_a_row(
    newer, client, conversation, app, more, status, words
):
    url = f"/api/conversations/{conversation}/turns"
    answer = client.post(url, json={"text": "Hello", "duel": True, **more})
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert app.db.rows("SELECT 1 FROM turns") == []


def test_the_setting_makes_some_turns_duels(settings, engine):
    often = replace(settings, chat=ChatSettings(duels=0.5, max_new_tokens=8))
    app = build_app(often, with_trainer=False, open_engine=open_fake(engine))
    app.start()
    wait_until_loaded(app)
    try:
        with http_client(app) as client:
            client.post("/api/versions/v1/promote")
            kinds = []
            for seed in range(24):
                made = client.post("/api/conversations", json={}).json()["id"]
                turn = client.post(
                    f"/api/conversations/{made}/turns", json={"text": "Hello", "seed": seed}
                ).json()
                names, slots = makers(app, turn)
                kinds.append((len(set(names)), *slots))
            assert set(kinds) == {(2, "duel"), (1, "policy")}
            assert 5 <= kinds.count((2, "duel")) <= 19
            calm = [{"duel": False}, {"replies": 1}, {"temperature": 0.0}, {"choose": "best"}]
            for more in calm:
                for seed in range(6):
                    made = client.post("/api/conversations", json={}).json()["id"]
                    body = {"text": "Hello", "seed": seed, **more}
                    turn = client.post(f"/api/conversations/{made}/turns", json=body).json()
                    assert makers(app, turn)[1] == {"policy"}, more
            # A broken opponent costs nothing: the turn is an ordinary one.
            engine.resident.pop("v0")
            engine.broken.add("v0")
            for seed in range(8):
                made = client.post("/api/conversations", json={}).json()["id"]
                body = {"text": "Hello", "seed": seed}
                turn = client.post(f"/api/conversations/{made}/turns", json=body).json()
                assert makers(app, turn) == (["v1"] * 4, {"policy"})
    finally:
        app.stop()


def test_positions_are_balanced_over_seeds(newer, app, duel):
    first = [makers(app, duel(seed=seed, replies=2))[0][0] for seed in range(40)]
    assert 10 <= first.count("v1") <= 30


def test_what_was_foretold_is_shown(newer, client, app, turn, rank):
    ranking_id = rank(turn).json()["ranking_id"]
    evidence.add_predictions(app.db, [Prediction(ranking_id, "v1", 4, 6)])
    found = client.get("/api/evidence").json()["foretold"]
    assert (found["rankings"], found["right"], found["pairs"]) == (1, 4, 6)
    assert found["points"][0]["so_far"]["estimate"] == pytest.approx(4 / 6)


def test_only_admins_see_all(newer, client, app, duel, rank):
    prefer(rank, app, duel(), "v1")
    assert client.get("/api/evidence").json()["scope"] == "team"
    assert client.get("/api/evidence", params={"scope": "own"}).json()["duels"]["ranked"] == 1
    with app.db.transaction() as connection:
        connection.execute("UPDATE people SET role = 'rater'")
    assert client.get("/api/evidence").json()["scope"] == "own"
    assert client.get("/api/evidence", params={"scope": "team"}).status_code == 403


def test_a_badly_rated_prompt_is_put_again_blind(client, app, engine, turn, rank):
    answer = client.post(f"/api/turns/{turn['turn_id']}/ranking", json={"all_bad": True})
    assert answer.status_code == 200
    client.post("/api/versions/v1/promote")
    (row,) = client.get("/api/evidence/then-and-now").json()["turns"]
    assert (row["turn_id"], row["version"], row["all_bad"]) == (turn["turn_id"], "v0", True)
    assert (row["can_be_blind"], row["preferred"], row["replay_turn_id"]) == (True, None, None)
    made = client.post("/api/evidence/replays", json={"turn_id": turn["turn_id"]}).json()
    assert made["conversation_id"] == turn["conversation_id"]
    again = wait_done(client, made["turn_id"])
    assert (again["text"], again["parent_reply_id"]) == (turn["text"], None)
    assert makers(app, again)[1] == {"replay"}
    prefer(rank, app, again, "v1")
    found = client.get("/api/evidence").json()
    assert found["pairs"] == []  # chosen prompts are no fair sample
    assert [(pair["wins"], pair["losses"]) for pair in found["replays"]] == [(1, 0)]
    (row,) = client.get("/api/evidence/then-and-now").json()["turns"]
    assert (row["replay_turn_id"], row["preferred"]) == (made["turn_id"], "newer")


def test_a_replay_against_a_retired_version_is_refused(client, app, turn, rank):
    client.post(f"/api/turns/{turn['turn_id']}/ranking", json={"all_bad": True})
    same = client.post("/api/evidence/replays", json={"turn_id": turn["turn_id"]})
    assert same.status_code == 409
    assert "answered by v0 itself" in same.json()["error"]["message"]
    client.post("/api/versions/v1/promote")
    versions.set_alias(app.db, "previous", "v1")
    versions.retire(app.db, "v0")
    refused = client.post("/api/evidence/replays", json={"turn_id": turn["turn_id"]})
    assert refused.status_code == 409
    assert "side by side" in refused.json()["error"]["message"]
    (row,) = client.get("/api/evidence/then-and-now").json()["turns"]
    assert row["can_be_blind"] is False
    assert client.post("/api/evidence/replays", json={"turn_id": 99}).status_code == 404


def test_versions_answer_side_by_side_with_one_seed(client, engine):
    body = {"versions": ["v0", "v1"], "text": "Hello", "seed": 5, "max_new_tokens": 9}
    found = client.post("/api/versions/compare", json=body).json()
    assert found["seed"] == 5
    assert {name: reply["text"] for name, reply in found["replies"].items()} == {
        "v0": "word0 word1 word2 0",
        "v1": "word0 word1 word2 0",
    }
    asked = engine.requests[-2:]
    # Each is row 0 of its own request, so both draw the same random numbers.
    assert [(one.versions, one.seed, one.replies) for one in asked] == [
        (("v0",), 5, 1),
        (("v1",), 5, 1),
    ]
    assert {one.sampling.max_new_tokens for one in asked} == {9}


def test_a_comparison_streams_the_events_of_both(client, app, turn):
    body = {"versions": ["v0", "v1"], "turn_id": turn["turn_id"], "stream": True}
    found = events_of(client.post("/api/versions/compare", json=body).text)
    names = [name for name, _ in found]
    assert names[0] == "started"
    assert names[-1] == "end"
    for version in ("v0", "v1"):
        deltas = [d["text"] for name, d in found if name == "delta" and d["version"] == version]
        done = [d for name, d in found if name == "done" and d["version"] == version]
        assert "".join(deltas) == done[0]["text"] == "word0 word1 word2 0"
    assert app.db.rows("SELECT count(*) AS n FROM turns")[0]["n"] == 1  # nothing is stored


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"versions": [], "text": "Hello"}, 422),
        ({"versions": ["live"], "text": "Hello"}, 422),
        ({"versions": ["v9"], "text": "Hello"}, 404),
        ({"versions": ["v0"]}, 422),
        ({"versions": ["v0"], "text": "Hello", "turn_id": 1}, 422),
        ({"versions": ["v0"], "turn_id": 99}, 404),
    ],
)
def test_impossible_comparisons_are_refused(client, body, status):
    answer = client.post("/api/versions/compare", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def wait_done(client, turn_id):
    with client.stream("GET", f"/api/turns/{turn_id}/events") as answer:
        for _ in answer.iter_text():
            pass
    return client.get(f"/api/turns/{turn_id}").json()
