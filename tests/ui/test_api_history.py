"""Finding, renaming and prompting conversations; labels come back with their replies."""

from __future__ import annotations

import pytest

from storage import conversations, people


@pytest.fixture
def found(client):
    def search(words):
        answer = client.get("/api/conversations", params={"search": words})
        assert answer.status_code == 200, answer.text
        return [(row["id"], row["found"]) for row in answer.json()]

    return search


def test_search_reads_titles_messages_and_replies(client, turn, found):
    conversation = turn["conversation_id"]
    client.patch(f"/api/conversations/{conversation}", json={"title": "Of ships"})
    for words in ("SHIPS", "hello", "word1 hello", "of word2"):
        assert [row[0] for row in found(words)] == [conversation], words
    assert found("word1 nowhere") == []
    assert found("ships") == [(conversation, "Of ships")]


def test_search_takes_signs_as_they_are(client, conversation, found):
    text = "100% of it_s 'quoted' !bang"
    client.post(f"/api/conversations/{conversation}/turns", json={"text": text})
    for words in ("100%", "it_s", "'quoted'", "!bang"):
        assert [row[0] for row in found(words)] == [conversation], words
    assert found("1%0") == found("i__s") == []


def test_an_excerpt_shows_the_word_in_its_place(client, conversation, found):
    text = "a " * 50 + "needle" + " b" * 80
    client.post(f"/api/conversations/{conversation}/turns", json={"text": text})
    client.patch(f"/api/conversations/{conversation}", json={"title": "x"})
    [(_, excerpt)] = found("needle")
    assert excerpt.startswith("...")
    assert "a a needle b b" in excerpt
    assert excerpt.endswith("...")
    assert len(excerpt) < 120


def test_nobody_finds_the_chats_of_others(app, found):
    other = people.create_person(app.db, "other")
    conversations.create_conversation(app.db, other.id, title="secret plans")
    assert found("secret") == []


def test_a_blank_search_is_the_whole_list(client, conversation):
    assert (
        client.get("/api/conversations", params={"search": " "}).json()
        == client.get("/api/conversations").json()
    )


def test_a_system_prompt_changes_before_the_first_turn_only(client, conversation, engine):
    url = f"/api/conversations/{conversation}"
    assert client.patch(url, json={"system_prompt": "Be brief."}).json()["system_prompt"] == (
        "Be brief."
    )
    client.post(f"{url}/turns", json={"text": "Hi"})
    assert engine.requests[-1].messages[0].content == "Be brief."
    refused = client.patch(url, json={"system_prompt": "Be long."})
    assert refused.status_code == 409
    assert "start another conversation" in refused.json()["error"]["message"]
    assert client.get(url).json()["system_prompt"] == "Be brief."


def test_labels_come_back_with_the_reply_and_can_be_taken_back(client, turn):
    reply = turn["replies"][0]["id"]
    assert turn["replies"][0]["labels"] == {}
    for label, value in (("toxic", True), ("good", False)):
        client.post(f"/api/replies/{reply}/labels", json={"label": label, "value": value})
    shown = client.get(f"/api/turns/{turn['turn_id']}").json()
    assert shown["replies"][0]["labels"] == {"good": False, "toxic": True}
    assert shown["replies"][1]["labels"] == {}
    answer = client.delete(f"/api/replies/{reply}/labels/toxic")
    assert answer.json() == {"reply_id": reply, "label": "toxic", "value": None}
    again = client.delete(f"/api/replies/{reply}/labels/toxic")
    assert again.status_code == 404
    shown = client.get(f"/api/turns/{turn['turn_id']}").json()
    assert shown["replies"][0]["labels"] == {"good": False}
