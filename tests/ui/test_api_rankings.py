"""Rankings and demonstrations are found, looked at, changed, taken back and erased over HTTP."""

from __future__ import annotations

import pytest

from storage import people, rankings, runs, versions
from ui import callers


@pytest.fixture
def ask(client, conversation):
    def make(text: str, chat: int = conversation) -> dict:
        return client.post(f"/api/conversations/{chat}/turns", json={"text": text}).json()

    return make


@pytest.fixture
def become(app, monkeypatch):
    """Be a person of a role from now on."""

    def change(name: str, role: str = "rater"):
        now = people.find_person(app.db, name) or people.create_person(app.db, name, role)
        caller = callers.Caller(now, "local")
        monkeypatch.setattr(callers, "_local_caller", lambda _app, _headers: caller)
        return now

    return change


def ids(client, **query) -> list[int]:
    rows = client.get("/api/rankings", params={"before_id": 0, **query})
    assert rows.status_code == 200, rows.text
    counted = client.get("/api/rankings/count", params=query).json()["count"]
    assert counted == len(rows.json())
    return [row["ranking_id"] for row in rows.json()]


def refusal(answer) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json()["error"]) >= {"code", "message"}
    return answer.json()["error"]["message"]


def test_a_list_shows_what_was_asked_and_how_it_was_ranked(client, conversation, ask, rank):
    turn = ask("How is tea made?")
    client.post(f"/api/replies/{turn['replies'][0]['id']}/labels",
                json={"label": "wrong", "value": True})  # fmt: skip
    saved = rank(turn, (2, 1, 3, 4), comment="hm", strength=3).json()
    assert 0 < saved["saved_in_ms"] < 10_000
    (row,) = client.get("/api/rankings?before_id=0").json()
    assert row["person"] == "local"
    assert row["conversation_id"] == conversation
    assert row["prompt"] == "How is tea made?"
    assert row["best"] == turn["replies"][1]["text"]
    assert (row["versions"], row["labels"], row["order"]) == (["v0"], ["wrong"], "2>1>3>4")


def test_filters_words_and_pages(client, ask, rank):
    tea = rank(ask("How is tea made?")).json()["ranking_id"]
    bad = rank(ask("What is salt?"), (1, 1, 1, 1), all_bad=True).json()["ranking_id"]
    told = rank(ask("Who sang?"), comment="Because of TEA").json()["ranking_id"]
    assert ids(client) == [told, bad, tea]
    assert ids(client, q="tea") == [told, tea]
    assert ids(client, q="tea", commented=False) == [tea]
    assert ids(client, all_bad=True) == [bad]
    assert ids(client, version="v0", limit=1000) == [told, bad, tea]
    assert ids(client, version="v9") == []
    assert ids(client, label="toxic") == []
    assert ids(client, since="2999-01-01") == []
    assert ids(client, until="2999-01-01T00:00:00+02:00", since="2020-01-01") == [told, bad, tea]
    first = client.get("/api/rankings?before_id=0&limit=2").json()
    assert [row["ranking_id"] for row in first] == [told, bad]
    rest = client.get(f"/api/rankings?before_id={bad}&limit=2").json()
    assert [row["ranking_id"] for row in rest] == [tea]
    oldest = client.get("/api/rankings?limit=1").json()
    assert [row["ranking_id"] for row in oldest] == [tea]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("q=%3F%3F", "letters or digits"),
        ("since=yesterday", "since"),
        ("since=0001-01-01T00:00:00%2B23:00", "out of range"),
        ("before_id=-1", "before_id"),
        ("limit=0", "limit"),
        ("person=nobody", "nobody"),
        ("person=local&everybody=true", "not both"),
        ("conversation=99999999999999999999", "conversation"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_in_words(client, query, word):
    assert word in refusal(client.get(f"/api/rankings?{query}"))


def test_one_ranking_is_opened_with_all_that_belongs_to_it(client, conversation, ask, rank):
    first = ask("Hello")
    rank(first)
    second = ask("And then?")
    reply = second["replies"][2]["id"]
    client.post(f"/api/replies/{reply}/labels", json={"label": "toxic", "value": False})
    old = rank(second, (1, 2, 3, 4)).json()
    new = rank(second, (4, 3, 2, 1), comment="better so").json()
    url = f"/api/rankings/{new['ranking_id']}"
    assert "turn" not in client.get(url).json()
    opened = client.get(url, params={"details": True}).json()
    assert [message["role"] for message in opened["before"]] == ["user", "assistant"]
    assert opened["before"][1]["content"] == first["replies"][0]["text"]
    assert opened["turn"]["text"] == "And then?"
    assert [reply["version"] for reply in opened["turn"]["replies"]] == ["v0"] * 4
    assert "score" in opened["turn"]["replies"][0]
    assert opened["labels"] == [{"reply_id": reply, "label": "toxic", "value": False}]
    assert [one["ranking_id"] for one in opened["earlier"]] == [old["ranking_id"]]
    assert (opened["person"], opened["conversation_id"]) == ("local", conversation)


def test_a_rating_is_withdrawn_restored_and_erased(app, client, turn, rank):
    rank(turn)
    made = rank(turn, (4, 3, 2, 1)).json()["ranking_id"]
    run = runs.enqueue_run(app.db, ("reward",), "test", {}, made)
    versions.register_version(app.db, "v7", None, run.id, "0" * 64, {}, "")
    url = f"/api/rankings/{made}"
    assert client.delete(url, params={"mode": "withdraw"}).json()["ranking"] is None
    assert ids(client) == []
    assert client.post(f"{url}/restore").json()["order"] == "4>3>2>1"
    assert "nothing is to undo" in refusal(client.post(f"{url}/restore"))
    client.delete(url, params={"mode": "withdraw"})
    assert client.delete(url, params={"mode": "erase"}).json()["versions"] == ["v7"]
    assert client.get(url).status_code == 404
    assert rankings.list_rankings(app.db, state=None) == []
    assert client.get("/api/versions/v7").json()["erased_rankings"] == 1
    assert "mode" in refusal(client.delete(url, params={"mode": "burn"}))


def test_people_see_and_delete_their_own_and_admins_everybodys(client, become, turn, rank):
    mine = rank(turn).json()["ranking_id"]
    assert client.get("/api/rankings/choices").json()["people"] == ["local"]
    become("ann")
    assert ids(client) == []
    assert ids(client, everybody=True) == []
    assert "local" in refusal(client.get("/api/rankings?person=local"))
    for call in (
        client.get(f"/api/rankings/{mine}"),
        client.delete(f"/api/rankings/{mine}?mode=erase"),
        client.post(f"/api/rankings/{mine}/restore"),
    ):
        assert call.status_code == 404
    become("boss", "admin")
    assert ids(client) == []
    assert ids(client, everybody=True) == [mine]
    assert ids(client, person="local") == [mine]
    opened = client.get(f"/api/rankings/{mine}?details=true").json()
    assert (opened["person"], opened["turn"]["text"]) == ("local", "Hello")
    # An order is its rater's own.
    ranks = {str(reply["id"]): 1 for reply in turn["replies"]}
    assert client.put(f"/api/rankings/{mine}", json={"ranks": ranks}).status_code == 404
    assert client.delete(f"/api/rankings/{mine}?mode=withdraw").status_code == 200
    assert ids(client, everybody=True) == []


def test_demonstrations_are_found_changed_and_deleted(client, turn, become):
    url = f"/api/turns/{turn['turn_id']}/demonstration"
    made = client.post(url, json={"text": "Good morning"}).json()["demonstration_id"]
    (row,) = client.get("/api/demonstrations?q=morn").json()
    assert (row["demonstration_id"], row["person"]) == (made, "local")
    assert row["messages"] == [{"role": "user", "content": "Hello"}]
    assert client.get("/api/demonstrations/count?q=evening").json() == {"count": 0}
    changed = client.put(f"/api/demonstrations/{made}", json={"text": "Good evening"}).json()
    assert changed["text"] == "Good evening"
    assert client.get(f"/api/demonstrations/{made}").status_code == 404
    now = changed["demonstration_id"]
    assert client.get(f"/api/demonstrations/{now}").json() == changed
    assert client.get(f"/api/demonstrations?before_id={now}").json() == []
    become("ann")
    assert client.get(f"/api/demonstrations/{now}").status_code == 404
    assert client.delete(f"/api/demonstrations/{now}").status_code == 404
    become("local")
    assert client.delete(f"/api/demonstrations/{now}").json() == {"deleted": now}
    assert client.get("/api/demonstrations/count").json() == {"count": 0}
