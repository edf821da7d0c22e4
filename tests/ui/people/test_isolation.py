"""Two people on one server: neither sees or changes what is the other's, whatever ids come."""

from __future__ import annotations

import json

import pytest
from team import Team

from storage import runs
from storage.records import Sample

SECRET = "the recipe of my grandmother"


@pytest.fixture
def rae(team):
    return team.browser("Rae")


@pytest.fixture
def bob(team):
    return team.browser("Bob")


@pytest.fixture
def turn(rae):
    """A ranked, labelled turn of Rae's, with a demonstration."""
    chat = rae.post("/api/conversations", json={}).json()["id"]
    asked = rae.post(f"/api/conversations/{chat}/turns", json={"text": SECRET}).json()
    ranks = {str(reply["id"]): place for place, reply in enumerate(asked["replies"], start=1)}
    saved = rae.post(f"/api/turns/{asked['turn_id']}/ranking", json={"ranks": ranks})
    assert saved.status_code == 200, saved.text
    reply = asked["replies"][0]["id"]
    path = f"/api/turns/{asked['turn_id']}/demonstration"
    assert rae.post(path, json={"text": "With butter."}).status_code == 200
    label = {"label": "wrong", "value": True}
    assert rae.post(f"/api/replies/{reply}/labels", json=label).status_code == 200
    return {
        "chat": chat,
        "turn": asked["turn_id"],
        "reply": reply,
        "ranks": ranks,
        "ranking": saved.json()["ranking_id"],
    }


def of_another(turn):
    ranks = {"ranks": turn["ranks"]}
    return [
        ("GET", f"/api/conversations/{turn['chat']}", None),
        ("PATCH", f"/api/conversations/{turn['chat']}", {"title": "mine"}),
        ("DELETE", f"/api/conversations/{turn['chat']}", None),
        ("POST", f"/api/conversations/{turn['chat']}/turns", {"text": "Hello"}),
        ("GET", f"/api/turns/{turn['turn']}", None),
        ("GET", f"/api/turns/{turn['turn']}?reveal=true", None),
        ("GET", f"/api/turns/{turn['turn']}/events", None),
        ("POST", f"/api/turns/{turn['turn']}/cancel", None),
        ("POST", f"/api/replies/{turn['reply']}/cancel", None),
        ("POST", f"/api/turns/{turn['turn']}/ranking", ranks),
        ("GET", f"/api/rankings/{turn['ranking']}", None),
        ("PUT", f"/api/rankings/{turn['ranking']}", ranks),
        ("DELETE", f"/api/rankings/{turn['ranking']}", None),
        ("POST", f"/api/turns/{turn['turn']}/demonstration", {"text": "With oil."}),
        ("POST", f"/api/replies/{turn['reply']}/labels", {"label": "good", "value": True}),
        ("POST", "/api/evidence/replays", {"turn_id": turn["turn"]}),
        ("POST", "/api/versions/compare", {"versions": ["v0"], "turn_id": turn["turn"]}),
        ("POST", "/api/reward/explain", {"reply_id": turn["reply"]}),
    ]


@pytest.mark.parametrize("name", ["Bob", "Tom", "Ann"])
def test_what_is_anothers_is_not_there(team, rae, turn, name):
    before = rae.get(f"/api/conversations/{turn['chat']}").json()
    other = team.browser(name)
    for method, path, body in of_another(turn):
        if name == "Ann" and path.startswith("/api/rankings/") and method != "PUT":
            continue  # an admin sees the team's ratings, and may delete them
        answer = other.request(method, path, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
        assert SECRET not in answer.text
    assert rae.get(f"/api/conversations/{turn['chat']}").json() == before


def test_the_refusal_of_anothers_is_that_of_what_never_was(bob, turn):
    """So that nobody learns which ids there are."""
    ids = {"chat": 10**6, "turn": 10**6, "reply": 10**6, "ranking": 10**6, "ranks": {str(10**6): 1}}
    for (method, path, body), (_, unknown, its_body) in zip(
        of_another(turn), of_another(ids), strict=True
    ):
        known, never = (
            bob.request(method, path, json=body),
            bob.request(method, unknown, json=its_body),
        )
        assert known.status_code == never.status_code
        known_text, never_text = known.text, never.text
        for number in sorted(map(str, turn.values()), key=len, reverse=True):
            known_text = known_text.replace(number, "N")
        assert known_text == never_text.replace(str(10**6), "N"), path


def test_a_turn_cannot_continue_anothers_reply(bob, turn):
    mine = bob.post("/api/conversations", json={}).json()["id"]
    body = {"text": "Go on", "parent_reply_id": turn["reply"]}
    assert bob.post(f"/api/conversations/{mine}/turns", json=body).status_code == 404


@pytest.mark.parametrize("name", ["Bob", "Tom", "Rex"])
def test_evidence_is_of_the_own_rankings_only(team, rae, turn, name):
    rae.post(f"/api/turns/{turn['turn']}/ranking", json={"all_bad": True})
    team.browser("Tom").post("/api/versions/v1/promote")
    asked = rae.post(f"/api/conversations/{turn['chat']}/turns", json={"text": "b", "duel": True})
    asked = asked.json()
    ranks = {str(reply["id"]): place for place, reply in enumerate(asked["replies"], start=1)}
    rae.post(f"/api/turns/{asked['turn_id']}/ranking", json={"ranks": ranks})
    assert rae.get("/api/evidence").json()["duels"]["ranked"] == 1
    (worst,) = rae.get("/api/evidence/then-and-now").json()["turns"]
    assert worst["text"] == SECRET
    other = team.browser(name)
    mine = other.get("/api/evidence").json()
    assert (mine["scope"], mine["duels"]["ranked"], mine["pairs"]) == ("own", 0, [])
    assert other.get("/api/evidence?scope=team").status_code == 403
    assert other.get("/api/evidence/then-and-now").json()["turns"] == []
    ann = team.browser("Ann")
    team_wide = ann.get("/api/evidence").json()
    assert (team_wide["scope"], team_wide["duels"]["ranked"]) == ("team", 1)
    assert team_wide["sentence"].startswith("The team preferred v1")
    assert ann.get("/api/evidence/then-and-now").json()["turns"] == []


@pytest.mark.parametrize("name", ["Bob", "Tom", "Rex"])
def test_lists_and_exports_hold_the_own_only(team, turn, name):
    other = team.browser(name)
    for path in ("/api/conversations", "/api/rankings"):
        assert other.get(path).json() == []
    for form in ("jsonl", "trl", "trl-sft"):
        answer = other.get(f"/api/export?format={form}")
        assert answer.status_code == 200
        assert answer.text == ""
    assert other.get("/api/queue/stats").json()["remaining"] > 0


def test_an_admin_exports_the_teams(team, turn):
    lines = team.browser("Ann").get("/api/export").text.splitlines()
    (record,) = map(json.loads, lines)
    assert record["person"] == "Rae"
    assert record["turns"][0]["text"] == SECRET


def test_samples_of_training_show_prompts_of_the_pool_and_the_own(team, app, turn):
    run = runs.enqueue_run(app.db, ("ppo",), "test", {}, 0)
    claimed = runs.claim_run(app.db, "test", 1, "boot")
    shared = team.browser("Rex").get("/api/prompts").json()[0]["text"]
    samples = [Sample("ppo", 1, text, "r", 0.5, terms={}) for text in (shared, SECRET)]
    runs.add_samples(app.db, run.id, claimed.fence, samples)

    def seen(name):
        answer = team.browser(name).get(f"/api/rounds/{run.id}/samples")
        return [sample["prompt"] for sample in answer.json()]

    assert seen("Bob") == seen("Tom") == [shared]
    assert seen("Rae") == seen("Ann") == [shared, SECRET]


def test_the_same_idempotency_key_of_two_people_is_two_rankings(team):
    made = []
    for name in ("Rae", "Bob"):
        client = team.browser(name)
        chat = client.post("/api/conversations", json={}).json()["id"]
        asked = client.post(f"/api/conversations/{chat}/turns", json={"text": "Hi"}).json()
        ranks = {str(reply["id"]): 1 for reply in asked["replies"]}
        body = {"ranks": ranks, "idempotency_key": "same"}
        answer = client.post(f"/api/turns/{asked['turn_id']}/ranking", json=body)
        assert answer.status_code == 200
        made.append(answer.json()["ranking_id"])
    assert len(set(made)) == 2


def test_a_reader_chats_but_teaches_nothing(team):
    rex = team.browser("Rex")
    chat = rex.post("/api/conversations", json={}).json()["id"]
    asked = rex.post(f"/api/conversations/{chat}/turns", json={"text": "Hi"}).json()
    ranks = {str(reply["id"]): 1 for reply in asked["replies"]}
    answer = rex.post(f"/api/turns/{asked['turn_id']}/ranking", json={"ranks": ranks})
    assert answer.status_code == 403
    message = "This needs the role rater; yours is reader. Ask an admin."
    assert answer.json()["error"] == {"code": "forbidden", "message": message}


def test_the_first_admin_has_the_local_persons_chats(app):
    team = Team(app)
    local = team.stranger()
    chat = local.post("/api/conversations", json={"title": "old"}).json()["id"]
    team.add("Ann", "admin")
    team.add("Bob", "rater")
    assert local.get("/api/conversations").status_code == 401
    assert [row["id"] for row in team.browser("Ann").get("/api/conversations").json()] == [chat]
    assert team.browser("Bob").get("/api/conversations").json() == []
