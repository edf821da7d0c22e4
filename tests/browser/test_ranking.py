"""Chatting and ranking on the real page, with what is stored read from the database file."""

from __future__ import annotations

import re

import pytest
import stored
from playwright.sync_api import expect
from stored import StoredRanking

pytestmark = [pytest.mark.browser, pytest.mark.embedded, pytest.mark.slow]


@pytest.fixture
def ranking(chat, server):
    """A page at a turn with four short replies that are done."""
    made = server.ask("Name a colour.", max_new_tokens=8)
    chat.open(made["conversation_id"])
    chat.wait_written()
    return chat


def test_four_replies_stream_together_and_three_keys_rank_them(chat, server):
    chat.open()
    chat.send("What should I cook tonight?")
    expect(chat.cards).to_have_count(4)
    chat.wait_written()
    assert grew_together(chat.growth())
    chat.keys("2", "1", "4")
    expect(chat.receipt).to_have_text(re.compile(r"^Saved 2>1>4>3 - 6 pairs - \d+ to the next"))
    assert chat.ranks() == ["2", "1", "4", "3"]
    active = StoredRanking("active", [2, 1, 4, 3], all_bad=False, revises=False)
    assert stored.rankings(server, chat.turn_id) == [active]
    written = stored.replies(server, chat.turn_id)
    assert [reply["state"] for reply in written] == ["complete"] * 4
    assert len({reply["text"] for reply in written}) > 1
    assert chat.texts() == [reply["text"] for reply in written]


def test_an_order_given_while_the_replies_are_written_is_stored_at_their_end(chat, server):
    chat.open()
    chat.send("Tell me about the moon.")
    expect(chat.cards).to_have_count(4)
    chat.keys("3", "1", "2")
    chat.wait_written()
    expect(chat.receipt).to_contain_text("Saved 3>1>2>4")
    assert [row.ranks for row in stored.rankings(server, chat.turn_id)] == [[2, 3, 1, 4]]


def test_typing_on_continues_from_the_top_ranked_reply(ranking, server):
    first = ranking.turn_id
    ranking.keys("3", "1", "2")
    expect(ranking.receipt).to_contain_text("Saved 3>1>2>4")
    expect(ranking.composer).to_have_attribute("placeholder", "Go on from reply 3")
    ranking.send("And another one?")
    expect(ranking.cards).to_have_count(4)
    ranking.wait_written()
    top = stored.replies(server, first)[2]
    assert stored.turns(server, ranking.conversation_id)[1]["parent_reply_id"] == top["id"]
    expect(ranking.page.get_by_text("reply 3 - 3>1>2>4 - v0")).to_be_visible()
    ranking.page.get_by_role("button", name="show 4 replies").click()
    expect(ranking.page.get_by_test_id("reply-card")).to_have_count(8)


def test_undo_is_stored(ranking, server):
    ranking.keys("1", "2", "3")
    expect(ranking.receipt).to_contain_text("Saved 1>2>3>4")
    ranking.keys("u")
    expect(ranking.receipt).to_have_text("Taken back. Nothing is stored for this turn.")
    assert ranking.ranks() == [None] * 4
    assert [row.state for row in stored.rankings(server, ranking.turn_id)] == ["withdrawn"]


def test_a_changed_ranking_is_a_revision_and_undo_brings_the_first_back(ranking, server):
    ranking.keys("1", "2", "3")
    expect(ranking.receipt).to_contain_text("Saved 1>2>3>4")
    ranking.keys("4", "3", "2")
    expect(ranking.receipt).to_contain_text("Changed to 4>3>2>1 - 6 pairs")
    first = StoredRanking("superseded", [1, 2, 3, 4], all_bad=False, revises=False)
    second = StoredRanking("active", [4, 3, 2, 1], all_bad=False, revises=True)
    assert stored.rankings(server, ranking.turn_id) == [first, second]
    ranking.page.get_by_test_id("undo").click()
    expect(ranking.receipt).to_have_text("Taken back. 1>2>3>4 is stored again.")
    states = [row.state for row in stored.rankings(server, ranking.turn_id)]
    assert states == ["active", "withdrawn"]
    assert ranking.ranks() == ["1", "2", "3", "4"]


def test_three_clicks_rank_four_replies(ranking, server):
    for shown in (4, 2, 1):
        ranking.card(shown).click()
    expect(ranking.receipt).to_contain_text("Saved 4>2>1>3 - 6 pairs")
    assert [row.ranks for row in stored.rankings(server, ranking.turn_id)] == [[3, 2, 4, 1]]


@pytest.mark.parametrize(
    ("keys", "receipt", "ranks"),
    [
        (["2", "1", "=", "4"], "Saved 2>1=4>3 - 5 pairs", [2, 1, 3, 2]),
        (["2", "Enter"], "Saved 2>1=3=4 - 3 pairs", [2, 1, 2, 2]),
        (["3", "=", "1", "2", "=", "4"], "to 1=3>2=4 - 4 pairs", [1, 2, 1, 2]),
    ],
)
def test_ties_are_stored_as_ties(ranking, server, keys, receipt, ranks):
    ranking.keys(*keys)
    expect(ranking.receipt).to_contain_text(receipt)
    assert stored.rankings(server, ranking.turn_id)[-1].ranks == ranks


def test_all_bad_is_stored_as_such(ranking, server):
    ranking.keys("0")
    expect(ranking.receipt).to_have_text(re.compile(r"^Saved all bad - \d+ to the next refit$"))
    expect(ranking.page.locator(".reply-card.is-bad")).to_have_count(4)
    stored_row = StoredRanking("active", [1, 1, 1, 1], all_bad=True, revises=False)
    assert stored.rankings(server, ranking.turn_id) == [stored_row]


def test_a_reply_of_ones_own_is_stored(ranking, server):
    ranking.keys("e")
    field = ranking.page.get_by_test_id("demonstration-text")
    field.fill("Blue, like the sea.\nOr is it green?")
    ranking.page.get_by_test_id("demonstration-save").click()
    shown = ranking.page.get_by_test_id("demonstration-stored")
    expect(shown).to_have_text("Blue, like the sea.\nOr is it green?", use_inner_text=True)
    field = ranking.page.get_by_test_id("demonstration-text")
    ranking.keys("e")
    expect(field).to_have_value("Blue, like the sea.\nOr is it green?")
    field.fill("Blue.")
    field.press("Control+Enter")
    expect(shown).to_have_text("Blue.")
    assert stored.demonstrations(server, ranking.turn_id)[-1] == "Blue."


def test_asking_again_makes_a_sibling(ranking, server):
    first = ranking.turn_id
    ranking.keys("r")
    expect(ranking.turn).not_to_have_attribute("data-turn", str(first))
    expect(ranking.cards).to_have_count(4)
    ranking.wait_written()
    parents = [row["parent_reply_id"] for row in stored.turns(server, ranking.conversation_id)]
    assert parents == [None, None]
    ranking.page.get_by_role("button", name="The attempt before").click()
    expect(ranking.turn).to_have_attribute("data-turn", str(first))


def grew_together(moments) -> bool:
    """Whether two cards had a part of their text at once, and both had more later."""
    for at, moment in enumerate(moments):
        partial = [card for card, (length, writing) in enumerate(moment) if writing and length]
        later = [
            card
            for card in partial
            if any(len(m) > card and m[card][0] > moment[card][0] for m in moments[at:])
        ]
        if len(later) >= 2:
            return True
    return False
