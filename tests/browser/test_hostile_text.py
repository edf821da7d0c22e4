"""Text of people and models is only ever text: it runs nothing, fetches nothing, hides nothing."""

from __future__ import annotations

import hashlib

import pytest
import stored
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.embedded, pytest.mark.slow]

CANARY = (
    '<img src=x onerror="window.canary=1"><svg onload="window.canary=2"><script>window.canary=3'
    "</script><a href=\"javascript:window.canary=4\">x</a>{{constructor.constructor('canary=5')()}}"
    "${window.canary=6} ![](https://canary.example/x.png)"
)


def test_a_hostile_prompt_shows_as_text_everywhere_and_runs_nothing(chat, server):
    chat.open()
    chat.send(CANARY)
    chat.wait_written()
    chat.keys("e")
    chat.page.get_by_test_id("demonstration-text").fill(CANARY)
    chat.page.get_by_test_id("demonstration-save").click()
    expect(chat.page.get_by_test_id("demonstration-stored")).to_have_text(CANARY)
    chat.page.reload()
    expect(chat.turn.get_by_test_id("message")).to_have_text(CANARY)
    expect(chat.page.get_by_test_id("demonstration-stored")).to_have_text(CANARY)
    title = chat.page.locator(".conversation-open[aria-current=page]")
    expect(title).to_contain_text("<img src=x")
    assert stored.turns(server, chat.conversation_id)[0]["text"] == CANARY
    assert_nothing_ran(chat)


def test_a_hostile_reply_shows_as_text_and_invisible_characters_are_marked(chat, server):
    made = server.ask("Name a colour.", max_new_tokens=2)
    hostile = f"{CANARY}\u202egnp.exe\u200b"
    write_reply(server, made["replies"][0]["id"], hostile)
    chat.open(made["conversation_id"])
    expect(chat.text(1)).to_have_text(f"{CANARY}U+202Egnp.exeU+200B")
    assert chat.texts()[0] == hostile
    chat.card(1).focus()
    chat.keys(" ")
    expect(chat.page.get_by_test_id("large-view")).to_contain_text("<svg onload")
    chat.keys("Escape")
    chat.keys("1", "Enter")
    expect(chat.receipt).to_contain_text("Saved 1>2=3=4")
    chat.send("Go on.")
    expect(chat.page.get_by_test_id("chosen-reply").first).to_contain_text("<svg onload")
    chat.wait_written()
    assert_nothing_ran(chat)


def test_a_blank_prompt_is_not_sent_and_stays(chat, server):
    chat.open()
    before = server.rows("SELECT count(*) AS n FROM turns")[0]["n"]
    expect(chat.page.get_by_test_id("send")).to_be_disabled()
    chat.composer.fill("  \n ")
    expect(chat.page.get_by_test_id("send")).to_be_disabled()
    chat.composer.press("Enter")
    expect(chat.composer).to_have_value("  \n ")
    chat.composer.press("End")
    chat.composer.type("Hi")
    expect(chat.page.get_by_test_id("send")).to_be_enabled()
    assert server.rows("SELECT count(*) AS n FROM turns")[0]["n"] == before


def test_a_prompt_that_is_too_long_is_refused_in_words_and_stays(chat, server, new_page):
    chat.open()
    text = "far too long " * 4000
    chat.composer.fill(text)
    chat.composer.press("Enter")
    expect(chat.page.get_by_test_id("error-banner").first).to_contain_text("tokens")
    expect(chat.composer).to_have_value(text)
    assert stored.turns(server, chat.conversation_id) == []
    # Chromium reports each refused request; it is the only thing that it may report here.
    assert ["status of 4" in problem for problem in new_page.problems] == [True]
    new_page.problems.clear()


def write_reply(server, reply_id, text):
    """Put a text into the mouth of the model."""
    server.write(
        "UPDATE replies SET text = ?, text_sha256 = ? WHERE id = ?",
        text,
        hashlib.sha256(text.encode()).hexdigest(),
        reply_id,
    )


def assert_nothing_ran(chat):
    assert chat.page.evaluate("typeof window.canary") == "undefined"
    active = "img, svg, script, iframe, a[href^=javascript]"
    inside = chat.page.locator(".chat-main").locator(active)
    expect(inside).to_have_count(0)
