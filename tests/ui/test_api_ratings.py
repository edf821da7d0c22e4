"""Rankings, undo, revisions, demonstrations and labels over HTTP."""

from __future__ import annotations

from storage import labels


def test_a_ranking_is_echoed_as_an_order_with_its_pairs(client, turn, rank):
    answer = rank(turn, (2, 1, 4, 3))
    assert answer.status_code == 200
    saved = answer.json()
    assert saved["order"] == "2>1>4>3"
    assert saved["comparisons"] == 6
    assert saved["next_refit_in"] == 2
    assert saved["revision"] is False
    listed = client.get("/api/rankings").json()
    assert [row["ranking_id"] for row in listed] == [saved["ranking_id"]]
    assert listed[0]["ranks"] == {
        str(reply["id"]): place for reply, place in zip(turn["replies"], (2, 1, 4, 3), strict=True)
    }


def test_ties_are_no_pairs(turn, rank):
    saved = rank(turn, (1, 2, 2, 4)).json()
    assert saved["order"] == "1>2=3>4"
    assert saved["comparisons"] == 5


def test_strength_comment_and_all_bad_are_kept(client, turn, rank):
    saved = rank(turn, (1, 1, 1, 1), strength=2, comment="All wrong", all_bad=True).json()
    kept = client.get(f"/api/rankings/{saved['ranking_id']}").json()
    assert (kept["strength"], kept["comment"], kept["all_bad"]) == (2, "All wrong", True)
    assert kept["comparisons"] == 0


def test_ranking_again_is_a_revision_and_counts_once(client, turn, rank):
    first = rank(turn, (1, 2, 3, 4)).json()
    second = rank(turn, (4, 3, 2, 1)).json()
    assert second["revision"] is True
    assert second["next_refit_in"] == first["next_refit_in"]
    assert [row["order"] for row in client.get("/api/rankings").json()] == ["4>3>2>1"]


def test_undo_brings_back_the_ranking_before(client, turn, rank):
    first = rank(turn, (1, 2, 3, 4)).json()
    second = rank(turn, (4, 3, 2, 1)).json()
    undone = client.delete(f"/api/rankings/{second['ranking_id']}").json()
    assert undone["ranking"]["ranking_id"] == first["ranking_id"]
    assert undone["ranking"]["order"] == "1>2>3>4"
    gone = client.delete(f"/api/rankings/{first['ranking_id']}").json()
    assert gone["ranking"] is None
    assert gone["next_refit_in"] == 3
    assert client.get("/api/rankings").json() == []
    assert client.delete(f"/api/rankings/{first['ranking_id']}").status_code == 409


def test_put_revises_a_ranking_by_its_id(client, turn, rank):
    first = rank(turn).json()
    ranks = {str(reply["id"]): 5 - reply["position"] - 1 for reply in turn["replies"]}
    revised = client.put(f"/api/rankings/{first['ranking_id']}", json={"ranks": ranks})
    assert revised.json()["order"] == "4>3>2>1"
    assert revised.json()["revision"] is True
    again = client.put(f"/api/rankings/{first['ranking_id']}", json={"ranks": ranks})
    assert again.status_code == 409


def test_a_repeated_key_gives_the_same_ranking_and_another_body_a_conflict(client, turn, rank):
    first = rank(turn, idempotency_key="a").json()
    assert rank(turn, idempotency_key="a").json()["ranking_id"] == first["ranking_id"]
    refused = rank(turn, (4, 3, 2, 1), idempotency_key="a")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "conflict"


def test_the_next_turn_continues_from_the_best_reply(client, conversation, turn, rank):
    rank(turn, (3, 1, 2, 4))
    url = f"/api/conversations/{conversation}/turns"
    following = client.post(url, json={"text": "And then?"}).json()
    assert following["parent_reply_id"] == turn["replies"][1]["id"]


def test_a_demonstration_and_a_label_are_stored(app, client, turn):
    written = client.post(
        f"/api/turns/{turn['turn_id']}/demonstration", json={"text": "A better reply."}
    )
    assert written.json()["text"] == "A better reply."
    reply = turn["replies"][0]["id"]
    for value in (True, False):
        labelled = client.post(
            f"/api/replies/{reply}/labels", json={"label": "toxic", "value": value}
        )
        assert labelled.json() == {"reply_id": reply, "label": "toxic", "value": value}
    assert [label.value for label in labels.labels_of(app.db, reply)] == [False]


def test_text_comes_back_byte_for_byte(client, conversation):
    text = "שלום \u202eabc\u202c 👩‍👩‍👧‍👦 e\u0301 \ufeff \t\r\n x"
    url = f"/api/conversations/{conversation}/turns"
    assert client.post(url, json={"text": text}).json()["text"] == text
