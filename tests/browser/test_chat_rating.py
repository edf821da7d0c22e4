"""All that is said of replies besides their order by keys: labels, strength, comments, dragging."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]


@pytest.fixture
def rating(open_chat, scripted):
    """A page at a finished turn of four replies."""
    scripted.engine.texts = ["First reply.", "Second reply.", "Third reply.", "Fourth reply."]
    return open_chat(scripted.ask("Name a colour.")["conversation_id"])


def stored_rankings(server, chat):
    sql = "SELECT strength, comment, state FROM rankings WHERE turn_id = ? ORDER BY id"
    return [tuple(row.values()) for row in server.rows(sql, chat.turn_id)]


def test_a_ranking_of_four_takes_three_keys(rating, scripted):
    rating.page.evaluate("addEventListener('keydown', () => (window.presses ??= []).push(1), true)")
    rating.keys("2", "1", "4")
    expect(rating.receipt).to_have_text(re.compile(r"^Saved 2>1>4>3 - 6 pairs"))
    assert rating.page.evaluate("window.presses.length") == 3
    assert len(stored_rankings(scripted, rating)) == 1


def test_a_ranking_of_four_takes_three_clicks_or_taps(rating, scripted, screen):
    rating.page.evaluate("addEventListener('click', () => (window.clicks ??= []).push(1), true)")
    for shown in (3, 1, 2):
        card = rating.card(shown).get_by_test_id("reply-text")
        card.tap() if screen == "phone" else card.click()
    expect(rating.receipt).to_have_text(re.compile(r"^Saved 3>1>2>4 - 6 pairs"))
    assert rating.page.evaluate("window.clicks.length") == 3
    expect(rating.receipt).to_have_attribute("title", re.compile(r"stored in \d+\.\d ms"))


def test_strength_and_comment_amend_the_ranking_and_show_in_the_receipt(rating, scripted):
    rating.keys("2", "1", "4")
    expect(rating.receipt).to_contain_text("Saved 2>1>4>3")
    rating.keys("+", "+")
    expect(rating.receipt).to_contain_text("Changed to 2>1>4>3 - 6 pairs - strength 5")
    assert stored_rankings(scripted, rating) == [(None, "", "superseded"), (5, "", "active")]
    rating.keys("c")
    field = rating.page.get_by_test_id("comment-text")
    field.fill("Two is kind.")
    field.press("Enter")
    expect(rating.receipt).to_contain_text("strength 5 - with a comment")
    expect(rating.page.get_by_test_id("comment")).to_have_text("Two is kind.")
    assert stored_rankings(scripted, rating)[-1] == (5, "Two is kind.", "active")
    rating.page.reload()
    expect(rating.receipt).to_have_text("Stored: 2>1>4>3 - strength 5 - with a comment")
    expect(rating.page.get_by_test_id("comment")).to_have_text("Two is kind.")
    expect(rating.page.get_by_test_id("strength")).to_have_text("by far better")


def test_strength_before_the_order_goes_with_it(rating, scripted):
    rating.keys("-", "3", "1", "2")
    expect(rating.receipt).to_contain_text("Saved 3>1>2>4 - 6 pairs - strength 2")
    assert stored_rankings(scripted, rating) == [(2, "", "active")]


def test_undo_takes_an_amendment_back_first(rating, scripted):
    rating.keys("1", "2", "3")
    expect(rating.receipt).to_contain_text("Saved 1>2>3>4")
    rating.keys("+")
    expect(rating.receipt).to_contain_text("strength 4")
    rating.keys("u")
    expect(rating.receipt).to_have_text("Taken back. 1>2>3>4 is stored again.")
    expect(rating.page.get_by_test_id("strength")).to_have_text("strength")
    states = [row[2] for row in stored_rankings(scripted, rating)]
    assert states == ["active", "withdrawn"]


def test_an_amendment_survives_a_reload_in_its_first_moment(rating, scripted):
    rating.keys("1", "2", "3")
    expect(rating.receipt).to_contain_text("Saved 1>2>3>4")
    rating.keys("+")
    rating.page.reload()
    expect(rating.receipt).to_contain_text("strength 4")
    assert stored_rankings(scripted, rating)[-1] == (4, "", "active")


def test_labels_are_given_and_taken_back_by_keys(rating, scripted):
    rating.card(2).get_by_role("option").focus()
    rating.keys("f")
    choices = rating.card(2).get_by_test_id("label-choice")
    expect(choices).to_have_text(["good", "toxic", "wrong", "off-topic", "too long"])
    expect(choices.first).to_be_focused()
    rating.keys("ArrowRight", "Enter", "ArrowLeft", "ArrowLeft", "Enter", "Escape")
    given = rating.card(2).get_by_test_id("given-label")
    expect(given).to_have_text(["too long", "toxic"])
    expect(rating.card(2).get_by_role("option")).to_be_focused()
    sql = "SELECT label, value FROM labels JOIN replies ON replies.id = reply_id WHERE turn_id = ?"
    kept = {row["label"]: row["value"] for row in scripted.rows(sql, rating.turn_id)}
    assert kept == {"toxic": 1, "too-long": 1}
    rating.page.reload()
    expect(given).to_have_text(["too long", "toxic"])
    given.filter(has_text="toxic").click()
    expect(given).to_have_text(["too long"])
    assert [row["label"] for row in scripted.rows(sql, rating.turn_id)] == ["too-long"]
    assert rating.ranks() == [None] * 4  # a click on a label ranks nothing


def test_writing_starts_from_the_best_reply_or_from_nothing(rating, scripted):
    field = rating.page.get_by_test_id("demonstration-text")
    rating.keys("e")
    expect(field).to_have_value("")
    field.press("Escape")
    rating.keys("3", "1", "2")
    expect(rating.receipt).to_contain_text("Saved 3>1>2>4")
    rating.keys("e")
    expect(field).to_have_value("Third reply.")
    field.fill("Third reply, bettered.")
    field.press("Control+Enter")
    expect(rating.page.get_by_test_id("demonstration-stored")).to_have_text(
        "Third reply, bettered."
    )
    sql = "SELECT text FROM demonstrations WHERE turn_id = ?"
    assert scripted.rows(sql, rating.turn_id) == [{"text": "Third reply, bettered."}]


def test_a_skipped_turn_stays_skipped(rating, scripted):
    rating.keys("s")
    expect(rating.receipt).to_contain_text("Skipped")
    rating.page.reload()
    expect(rating.receipt).to_contain_text("Skipped")
    assert stored_rankings(scripted, rating) == []
    rating.page.get_by_test_id("board").focus()
    rating.keys("1", "2", "3")
    expect(rating.receipt).to_contain_text("Saved 1>2>3>4")


def test_dragging_by_the_handle_gives_ranks(rating, scripted, screen):
    drag(rating, 3, 1, screen)
    assert rating.ranks() == [None, None, "1", None]
    drag(rating, 1, 4, screen)
    assert rating.ranks() == ["4", None, "1", None]
    assert stored_rankings(scripted, rating) == []
    drag(rating, 4, 2, screen)
    expect(rating.receipt).to_contain_text("Saved 3>4>2>1 - 6 pairs")
    drag(rating, 1, 1, screen)
    expect(rating.receipt).to_contain_text("Changed to 1>3>4>2")
    expect(rating.page.get_by_test_id("drag-rail")).to_have_count(0)


def test_a_drag_that_ends_beside_the_places_or_by_escape_changes_nothing(rating):
    x, y = centre(rating.card(2).get_by_test_id("handle"))
    rating.page.mouse.move(x, y)
    rating.page.mouse.down()
    expect(rating.page.get_by_test_id("drag-place")).to_have_count(4)
    rating.page.mouse.move(30, 120)
    rating.page.mouse.up()
    expect(rating.page.get_by_test_id("drag-rail")).to_have_count(0)
    rating.page.mouse.move(x, y)
    rating.page.mouse.down()
    rating.page.mouse.move(*centre(rating.page.get_by_test_id("drag-place").first))
    rating.keys("Escape")
    expect(rating.page.get_by_test_id("drag-rail")).to_have_count(0)
    rating.page.mouse.up()
    assert rating.ranks() == [None] * 4


def test_only_the_handle_keeps_a_finger_from_scrolling(rating):
    action = "node => getComputedStyle(node).touchAction"
    assert rating.card(1).get_by_test_id("handle").evaluate(action) == "none"
    assert rating.card(1).get_by_test_id("reply-text").evaluate(action) == "auto"
    assert rating.card(1).evaluate(action) == "auto"


def test_the_focus_view_moves_and_ranks(rating):
    rating.card(2).get_by_role("option").focus()
    rating.keys(" ")
    large = rating.page.get_by_test_id("large-text")
    expect(large).to_have_text("Second reply.")
    rating.keys("ArrowRight")
    expect(large).to_have_text("Third reply.")
    rating.keys("3")
    expect(rating.page.get_by_test_id("large-end")).to_have_text("1st")
    rating.keys("ArrowLeft", "ArrowLeft", "1", "Escape")
    expect(rating.page.get_by_test_id("large-view")).to_have_count(0)
    assert rating.ranks() == ["2", None, "1", None]
    expect(rating.card(1).get_by_role("option")).to_be_focused()


def test_the_replies_are_options_of_a_listbox_and_arrows_move(rating, screen):
    listbox = rating.page.get_by_role("listbox", name="Replies, to be ranked best first")
    options = rating.page.get_by_role("option")
    expect(options).to_have_count(4)
    owned = listbox.get_attribute("aria-owns").split()
    assert owned == [options.nth(index).get_attribute("id") for index in range(4)]
    described = options.nth(1).get_attribute("aria-describedby")
    expect(rating.page.locator(f"#{described}")).to_have_text("Second reply.")
    options.first.focus()
    rating.keys("ArrowDown")
    expect(options.nth(1 if screen == "phone" else 2)).to_be_focused()
    rating.keys("Home", "End")
    expect(options.nth(3)).to_be_focused()
    rating.keys("1", "2")
    expect(options.nth(0)).to_have_attribute("aria-selected", "true")
    expect(options.nth(3)).to_have_attribute("aria-selected", "false")


def drag(chat, shown, rank, screen):
    """Take a card by its handle to a place: by mouse, or by a finger as the browser reports it."""
    handle = chat.card(shown).get_by_test_id("handle")
    handle.scroll_into_view_if_needed()
    if screen == "desktop":
        chat.page.mouse.move(*centre(handle))
        chat.page.mouse.down()
        place = chat.page.get_by_test_id("drag-place").nth(rank - 1)
        chat.page.mouse.move(*centre(place), steps=4)
        expect(place).to_have_class(re.compile("is-over"))
        chat.page.mouse.up()
        return
    touch = chat.page.context.new_cdp_session(chat.page)
    x, y = centre(handle)
    send = "Input.dispatchTouchEvent"
    touch.send(send, {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    place = chat.page.get_by_test_id("drag-place").nth(rank - 1)
    to_x, to_y = centre(place)
    for part in (0.3, 0.6, 1.0):
        point = {"x": x + (to_x - x) * part, "y": y + (to_y - y) * part}
        touch.send(send, {"type": "touchMove", "touchPoints": [point]})
    expect(place).to_have_class(re.compile("is-over"))
    touch.send(send, {"type": "touchEnd", "touchPoints": []})
    touch.detach()


def centre(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
