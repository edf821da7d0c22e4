"""Branches, system prompts, and the history: found, renamed, deleted, brought back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]


@pytest.fixture
def ranked(open_chat, scripted):
    """A page at a turn whose second reply is ranked best."""
    scripted.engine.texts = ["one", "two", "three", "four"]
    chat = open_chat(scripted.ask("Name a number.")["conversation_id"])
    chat.keys("2", "1", "4")
    expect(chat.receipt).to_contain_text("Saved 2>1>4>3")
    return chat


def turns(server, chat):
    sql = "SELECT id, text, parent_reply_id FROM turns WHERE conversation_id = ? ORDER BY id"
    return server.rows(sql, chat.conversation_id)


def reply_id(server, turn_id, shown):
    sql = "SELECT id FROM replies WHERE turn_id = ? AND position = ?"
    return server.rows(sql, turn_id, shown - 1)[0]["id"]


def messages(chat):
    return chat.page.get_by_test_id("message")


def test_an_earlier_message_is_edited_in_a_branch_and_the_switcher_leads_back(ranked, scripted):
    ranked.send("And the next?")
    ranked.wait_written()
    first = ranked.page.locator(".turn").first
    first.get_by_test_id("message-edit").click()
    field = first.get_by_test_id("message-edit-text")
    expect(field).to_have_value("Name a number.")
    field.fill("Name a colour.")
    field.press("Enter")
    expect(messages(ranked)).to_have_text(["Name a colour."])
    ranked.wait_written()
    expect(ranked.page.get_by_test_id("branch")).to_have_text(["2 of 2"])
    parents = [row["parent_reply_id"] for row in turns(scripted, ranked)]
    assert parents[0] is None
    assert parents[2] is None
    ranked.page.get_by_role("button", name="The attempt before").click()
    expect(messages(ranked)).to_have_text(["Name a number.", "And the next?"])
    expect(ranked.page.get_by_test_id("branch")).to_have_text(["1 of 2"])
    ranked.page.reload()
    expect(messages(ranked)).to_have_text(["Name a number.", "And the next?"])


def test_an_edit_that_is_given_up_changes_nothing(ranked, scripted):
    ranked.turn.get_by_test_id("message-edit").click()
    field = ranked.turn.get_by_test_id("message-edit-text")
    field.fill("Something else")
    field.press("Escape")
    expect(messages(ranked)).to_have_text(["Name a number."])
    assert len(turns(scripted, ranked)) == 1


def test_the_chat_goes_on_from_another_reply_and_branches_there(ranked, scripted):
    first = ranked.turn_id
    ranked.send("On from the best.")
    ranked.wait_written()
    ranked.page.get_by_role("button", name="show 4 replies").click()
    third = ranked.page.get_by_test_id("reply-card").nth(2)
    third.get_by_test_id("go-on").click()
    expect(third.get_by_test_id("go-on")).to_have_attribute("aria-pressed", "true")
    expect(ranked.composer).to_have_attribute("placeholder", "Go on from reply 3")
    ranked.send("On from the third.")
    ranked.wait_written()
    rows = turns(scripted, ranked)
    best, third_reply = (reply_id(scripted, first, shown) for shown in (2, 3))
    assert [row["parent_reply_id"] for row in rows] == [None, best, third_reply]
    asked = [message.content for message in scripted.engine.requests[-1].messages]
    assert asked == ["Name a number.", "three", "On from the third."]
    expect(ranked.page.get_by_test_id("branch")).to_have_text(["2 of 2"])
    ranked.page.get_by_role("button", name="The attempt before").click()
    expect(messages(ranked)).to_have_text(["Name a number.", "On from the best."])


def test_a_message_in_an_older_branch_goes_on_there(ranked, scripted):
    first = ranked.turn_id
    ranked.keys("r")
    expect(ranked.turn).not_to_have_attribute("data-turn", str(first))
    ranked.wait_written()
    ranked.page.get_by_role("button", name="The attempt before").click()
    ranked.send("Here, please.")
    ranked.wait_written()
    assert turns(scripted, ranked)[-1]["parent_reply_id"] == reply_id(scripted, first, 2)


def test_a_system_prompt_is_sent_shown_and_changed_in_a_new_chat(open_chat, scripted):
    chat = open_chat()
    chat.page.get_by_text("System prompt").click()
    chat.page.get_by_test_id("system-prompt").fill("Speak like a pirate.")
    chat.send("Hello")
    chat.wait_written()
    assert scripted.engine.requests[-1].messages[0].content == "Speak like a pirate."
    shown = chat.page.get_by_test_id("system-prompt-shown")
    shown.get_by_text("System prompt").click()
    expect(shown).to_contain_text("Speak like a pirate.")
    old = chat.conversation_id
    shown.get_by_role("button", name="Change it in a new chat").click()
    expect(chat.page.get_by_test_id("system-prompt")).to_have_value("Speak like a pirate.")
    chat.page.get_by_test_id("system-prompt").fill("Speak like a judge.")
    chat.send("Hello")
    chat.wait_written()
    prompts = scripted.rows(
        "SELECT system_prompt FROM conversations WHERE id IN (?, ?) ORDER BY id",
        old, chat.conversation_id,
    )  # fmt: skip
    assert [row["system_prompt"] for row in prompts] == [
        "Speak like a pirate.", "Speak like a judge.",
    ]  # fmt: skip


def test_search_looks_into_the_texts_on_the_server(open_chat, scripted, screen):
    scripted.engine.texts = ["nothing special"]
    for number in range(8):
        scripted.ask(f"Chat number {number}")
    scripted.engine.texts = [f"The {screen} heron stands in the reeds."]
    wanted = scripted.ask("Which bird?")
    chat = open_chat()
    open_history(chat, screen)
    items = chat.page.get_by_test_id("conversation-item")
    chat.page.get_by_test_id("search").fill(f"heron {screen}")
    expect(items).to_have_count(1)
    expect(items.get_by_test_id("excerpt")).to_have_text(f"The {screen} heron stands in the reeds.")
    items.get_by_role("button").first.click()
    expect(messages(chat)).to_have_text(["Which bird?"])
    assert chat.conversation_id == wanted["conversation_id"]
    open_history(chat, screen)
    chat.page.get_by_test_id("search").fill("no such thing")
    expect(chat.page.get_by_text("Nothing found.")).to_be_visible()
    chat.page.get_by_test_id("search").fill("")
    expect(items.filter(has_text="Chat number 3").first).to_be_visible()


def test_a_conversation_is_renamed_in_its_place(open_chat, scripted, screen):
    made = scripted.ask("An unwieldy first message")
    chat = open_chat(made["conversation_id"])
    open_history(chat, screen)
    item = chat.page.locator(f"[data-id='{made['conversation_id']}']")
    item.hover()
    item.get_by_test_id("conversation-rename").click()
    field = item.get_by_test_id("conversation-title")
    expect(field).to_be_focused()
    field.fill("Not this")
    field.press("Escape")
    expect(item).to_contain_text("An unwieldy first message")
    item.get_by_test_id("conversation-rename").click()
    field.fill("Tidy")
    field.press("Enter")
    expect(item.get_by_role("button").first).to_have_text("Tidy")
    chat.page.reload()
    expect(item.get_by_test_id("conversation-open")).to_have_text("Tidy")
    sql = "SELECT title FROM conversations WHERE id = ?"
    assert scripted.rows(sql, made["conversation_id"]) == [{"title": "Tidy"}]


def test_a_deleted_conversation_is_brought_back_by_undo(open_chat, scripted, screen):
    made = scripted.ask("Not to be lost")
    chat = open_chat(made["conversation_id"])
    open_history(chat, screen)
    item = chat.page.locator(f"[data-id='{made['conversation_id']}']")
    item.hover()
    item.get_by_test_id("conversation-delete").click()
    expect(item).to_have_count(0)
    expect(chat.page.get_by_test_id("empty-state")).to_be_visible()
    chat.page.get_by_test_id("toast-action").click()
    expect(messages(chat)).to_have_text(["Not to be lost"])
    expect(chat.page).to_have_url(re.compile(f"#c={made['conversation_id']}$"))


def test_whoever_has_no_question_is_led_to_the_queue(open_chat):
    chat = open_chat()
    chat.page.get_by_test_id("to-queue").click()
    expect(chat.page.get_by_test_id("queue")).to_be_visible()
    expect(chat.page.get_by_role("tab", name="Queue").first).to_have_attribute(
        "aria-selected", "true"
    )


def open_history(chat, screen):
    if screen == "phone":
        chat.page.get_by_test_id("menu").tap()
        expect(chat.page.locator(".sidebar.is-open")).to_have_count(1)
