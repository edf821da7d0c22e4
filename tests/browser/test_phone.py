"""A narrow screen that is touched: one column, no sideways scrolling, three taps."""

from __future__ import annotations

import pytest
import stored
from chat_page import ChatPage
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.embedded, pytest.mark.slow]


@pytest.fixture
def phone(new_page, server):
    return ChatPage(new_page("phone"), server.url)


def test_a_phone_shows_one_column_and_three_taps_rank(phone, server):
    made = server.ask("Name a colour and " + "x" * 120, max_new_tokens=30)
    phone.open(made["conversation_id"])
    boxes = [card.bounding_box() for card in phone.cards.all()]
    assert len({box["x"] for box in boxes}) == 1
    assert [box["y"] for box in boxes] == sorted({box["y"] for box in boxes})
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert_no_sideways_scrolling(phone)
    for shown in (2, 1, 3):
        phone.card(shown).tap()
    expect(phone.receipt).to_contain_text("Saved 2>1>3>4 - 6 pairs")
    assert_no_sideways_scrolling(phone)
    assert [row.ranks for row in stored.rankings(server, made["turn_id"])] == [[2, 1, 3, 4]]


def test_a_phone_opens_the_history_and_every_control_is_in_reach(phone, server):
    server.ask("A turn to come back to.", max_new_tokens=2)
    phone.open()
    assert_no_sideways_scrolling(phone)
    item = phone.page.get_by_test_id("conversation-item").filter(has_text="A turn to come back to.")
    phone.page.get_by_test_id("menu").tap()
    item.get_by_role("button").first.tap()
    expect(phone.turn.get_by_test_id("message")).to_have_text("A turn to come back to.")
    expect(phone.page.locator(".sidebar.is-open")).to_have_count(0)
    for name in ("composer", "send", "write-own", "all-bad", "regenerate"):
        box = phone.page.get_by_test_id(name).bounding_box()
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= 390, name
        assert box["y"] + box["height"] <= 844, name
        assert box["height"] >= 28, name


def test_the_training_tab_fits_a_phone(phone):
    phone.open()
    phone.tab("Training")
    expect(phone.page.get_by_test_id("version").first).to_be_visible()
    assert_no_sideways_scrolling(phone)


def assert_no_sideways_scrolling(phone):
    elements = "[document.documentElement.scrollWidth, document.body.scrollWidth]"
    widths = phone.page.evaluate(elements)
    assert max(widths) <= 390
