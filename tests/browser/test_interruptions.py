"""Cutting, reloading in mid-stream, losing the page: nothing is lost and nothing comes twice."""

from __future__ import annotations

import json

import pytest
import stored
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.embedded, pytest.mark.slow]

# So hot that a reply hardly ever ends by itself before its limit.
RAMBLING = {"temperature": 5.0, "top_p": 1.0, "max_new_tokens": 160}


@pytest.fixture
def rambling(chat):
    """A page whose turns are long, so that something can happen while they are written."""

    def ask_for_more(route):
        body = json.loads(route.request.post_data)
        route.continue_(post_data=json.dumps({**body, **RAMBLING}))

    chat.page.route("**/api/conversations/*/turns", ask_for_more)
    return chat.open()


def test_a_reply_that_is_cut_stops_and_can_still_be_ranked(rambling, server):
    rambling.send("Go on for ever.")
    expect(rambling.text(2)).not_to_be_empty()
    rambling.card(2).hover()
    rambling.card(2).get_by_test_id("cut").click()
    expect(rambling.card(2)).not_to_have_class("is-writing")
    expect(rambling.card(2)).to_contain_text("cut")
    rambling.keys("x", "3")
    expect(rambling.card(3)).to_contain_text("cut")
    rambling.wait_written()
    written = stored.replies(server, rambling.turn_id)
    assert [reply["state"] for reply in written] == [
        "complete", "cancelled", "cancelled", "complete",
    ]  # fmt: skip
    whole, cut = len(written[0]["token_ids"]), len(written[1]["token_ids"])
    assert 0 < cut < whole
    rambling.keys("1", "4", "3")
    expect(rambling.receipt).to_contain_text("Saved 1>4>3>2 - 6 pairs")


def test_stop_cuts_all_replies(rambling, server):
    rambling.send("Go on for ever.")
    expect(rambling.text(1)).not_to_be_empty()
    rambling.page.get_by_test_id("stop").click()
    rambling.wait_written()
    states = {reply["state"] for reply in stored.replies(server, rambling.turn_id)}
    assert states == {"cancelled"}
    expect(rambling.page.get_by_test_id("send")).to_be_visible()


def test_a_reload_in_mid_stream_goes_on_without_duplicates(rambling, server):
    rambling.send("Go on for ever.")
    expect(rambling.text(1)).not_to_be_empty()
    conversation = rambling.conversation_id
    rambling.keys("2", "3")
    rambling.page.reload()
    expect(rambling.cards).to_have_count(4)
    expect(rambling.page.locator(".reply-card.is-writing").first).to_be_visible()
    assert rambling.ranks() == [None, "1", "2", None]
    rambling.wait_written()
    assert grew_after_reload(rambling.growth())
    assert rambling.conversation_id == conversation
    assert len(stored.turns(server, conversation)) == 1
    written = stored.replies(server, rambling.turn_id)
    assert [reply["state"] for reply in written] == ["complete"] * 4
    assert rambling.texts() == [reply["text"] for reply in written]
    expect(rambling.page.get_by_test_id("message")).to_have_text(["Go on for ever."])
    rambling.keys("1")
    expect(rambling.receipt).to_contain_text("Saved 2>3>1>4")


def test_a_second_page_follows_the_same_turn(rambling, server, new_page):
    rambling.send("Go on for ever.")
    expect(rambling.text(1)).not_to_be_empty()
    other = type(rambling)(new_page(), server.url).open(rambling.conversation_id)
    expect(other.cards).to_have_count(4)
    other.wait_written()
    rambling.wait_written()
    assert other.texts() == rambling.texts()


def test_everything_is_there_after_a_reload(chat, server):
    made = server.ask("Name a colour.", max_new_tokens=8)
    chat.open(made["conversation_id"])
    chat.keys("4", "1", "=", "2")
    expect(chat.receipt).to_contain_text("Saved 4>1=2>3")
    chat.composer.fill("not sent yet")
    chat.page.reload()
    expect(chat.cards).to_have_count(4)
    assert chat.conversation_id == made["conversation_id"]
    expect(chat.receipt).to_have_text("Stored: 4>1=2>3")
    assert chat.ranks() == ["2", "2", "3", "1"]
    expect(chat.composer).to_have_value("not sent yet")
    assert chat.texts() == [reply["text"] for reply in made["replies"]]
    current = chat.page.locator(".conversation-open[aria-current=page]")
    expect(current).to_have_text("Name a colour.")


def test_the_history_opens_and_deletes_conversations(chat, server):
    for text in ("The first of two.", "The second of two."):
        made = server.ask(text, max_new_tokens=2)
    chat.open()
    items = chat.page.get_by_test_id("conversation-item")
    items.filter(has_text="The first of two.").get_by_role("button").first.click()
    expect(chat.turn.get_by_test_id("message")).to_have_text("The first of two.")
    second = items.filter(has_text="The second of two.")
    second.hover()
    second.get_by_test_id("conversation-delete").click()
    expect(second).to_have_count(0)
    sql = "SELECT 1 FROM conversations WHERE id = ?"
    server.wait_for(lambda: not server.rows(sql, made["conversation_id"]))
    assert stored.replies(server, made["turn_id"]) == []


def grew_after_reload(moments) -> bool:
    """Whether a card that showed text grew while it was still being written."""
    lengths = [
        moment[card][0] for card in range(4) for moment in moments if len(moment) == 4
        and moment[card][1] and moment[card][0]
    ]  # fmt: skip
    return len(set(lengths)) > 1
