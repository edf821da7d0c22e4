"""Sampling, when to be asked, light and dark, the language, and the page as an app."""

from __future__ import annotations

import struct

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]


def settings(chat, **values):
    """Fill the settings in as a person does."""
    chat.page.get_by_test_id("settings").click()
    for name, value in values.items():
        field = chat.page.get_by_test_id(f"setting-{name}")
        if field.evaluate("node => node.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(str(value))
    chat.page.get_by_test_id("settings-dialog").get_by_role("button", name="Close").click()


def test_sampling_settings_reach_the_engine_and_are_remembered(fresh, scripted):
    settings(fresh, replies=3, temperature=0.35, top_p=0.8, max_new_tokens=77, seed=12345)
    fresh.page.reload()
    expect(fresh.composer).to_be_visible()
    fresh.send("Hello")
    fresh.wait_written()
    expect(fresh.cards).to_have_count(3)
    request = scripted.engine.requests[-1]
    drawn = request.sampling
    assert (request.replies, request.seed) == (3, 12345)
    assert (drawn.temperature, drawn.top_p, drawn.max_new_tokens) == (0.35, 0.8, 77)
    settings(fresh, replies="", temperature="", top_p="", max_new_tokens="", seed="")
    fresh.send("Hello again")
    fresh.wait_written()
    expect(fresh.cards).to_have_count(4)
    assert scripted.engine.requests[-1].sampling.temperature == 0.9
    assert scripted.engine.requests[-1].seed != 12345


def test_a_value_out_of_range_is_told_and_not_used(fresh, scripted):
    settings(fresh, temperature=0.5)
    fresh.page.get_by_test_id("settings").click()
    field = fresh.page.get_by_test_id("setting-temperature")
    field.fill("9")
    expect(fresh.page.get_by_text("0 to 5, please")).to_be_visible()
    expect(field).to_have_attribute("aria-invalid", "true")
    fresh.keys("Escape")
    fresh.send("Hello")
    fresh.wait_written()
    assert scripted.engine.requests[-1].sampling.temperature == 0.5


def test_one_turn_in_two_is_ranked_and_the_others_are_plain_chat(fresh, scripted):
    scripted.ask("so that the next one is not due")
    settings(fresh, ask="sometimes", ask_one_in=2)
    counts = []
    for text in ("one", "two", "three"):
        fresh.send(text)
        fresh.wait_written()
        counts.append(fresh.cards.count())
    assert counts == [1, 4, 1]
    expect(fresh.receipt).to_have_text("One reply: nothing to rank. R asks for several.")
    fresh.page.get_by_test_id("board").last.focus()
    fresh.keys("r")
    expect(fresh.cards).to_have_count(4)


def test_when_unsure_the_page_widens_to_all_replies(fresh, scripted):
    scripted.engine.texts = ["short", "a longer reply", "mid size", "word"]
    scripted.post("/api/versions/v1/promote")
    try:
        settings(fresh, ask="unsure")
        scripted.engine.score = lambda text: 0.0
        fresh.send("Hard to tell")
        expect(fresh.cards).to_have_count(4)
        fresh.wait_written()
        expect(fresh.turn.get_by_test_id("choice")).to_have_text(
            "The reward model is 50% sure which reply is best, so you decide."
        )
        fresh.page.get_by_test_id("board").last.focus()
        fresh.keys("2", "1", "4")
        expect(fresh.receipt).to_contain_text("Saved 2>1>4>3")
        scripted.change(ask_anyway=0.0)
        scripted.engine.score = lambda text: 9.0 if text == "word" else 0.0
        fresh.send("Easy to tell")
        fresh.wait_written()
        expect(fresh.cards).to_have_count(1)
        expect(fresh.text(1)).to_have_text("word")
        expect(fresh.turn.get_by_test_id("choice")).to_contain_text("so it is shown alone")
    finally:
        scripted.change(ask_anyway=0.1)
        scripted.post("/api/versions/v0/promote")


def test_light_and_dark_follow_the_system_until_one_is_chosen(fresh):
    def background():
        return fresh.page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = "rgb(250, 249, 247)", "rgb(20, 21, 23)"
    fresh.page.emulate_media(color_scheme="dark")
    assert background() == dark
    fresh.page.emulate_media(color_scheme="light")
    assert background() == light
    settings(fresh, theme="dark")
    assert background() == dark
    fresh.page.reload()
    expect(fresh.composer).to_be_visible()
    assert background() == dark
    settings(fresh, theme="")
    assert background() == light


def test_a_default_system_prompt_is_in_each_new_chat(fresh, scripted):
    settings(fresh, systemPrompt="Be brief.")
    fresh.page.reload()
    expect(fresh.page.get_by_test_id("system-prompt")).to_have_value("Be brief.")
    fresh.send("Hello")
    fresh.wait_written()
    assert scripted.engine.requests[-1].messages[0].content == "Be brief."


def test_the_chat_speaks_german(fresh):
    fresh.page.get_by_test_id("settings").click()
    fresh.page.get_by_label("Language").select_option("de")
    expect(fresh.composer).to_have_attribute("placeholder", "Frag etwas")
    expect(fresh.page.locator("html")).to_have_attribute("lang", "de")


def test_the_page_can_be_installed(fresh, scripted):
    page = fresh.page
    devtools = page.context.new_cdp_session(page)
    manifest = devtools.send("Page.getAppManifest")
    assert manifest["url"] == f"{scripted.url}/manifest.json"
    assert manifest["errors"] == []
    found = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # A context without a profile cannot install anything; nothing else may be wrong.
    assert [error["errorId"] for error in found if error["errorId"] != "in-incognito"] == []
    answer = scripted.http.get("/manifest.json")
    assert answer.headers["content-type"] == "application/manifest+json"
    for icon in answer.json()["icons"]:
        served = scripted.http.get(f"/{icon['src']}")
        assert served.headers["content-type"] == icon["type"]
        if icon["type"] == "image/png":
            width, height = struct.unpack(">II", served.content[16:24])
            assert f"{width}x{height}" == icon["sizes"]


def test_everything_of_the_settings_is_reached_by_keys(fresh, screen):
    fresh.page.get_by_test_id("settings").focus()
    fresh.keys("Enter")
    dialog = fresh.page.get_by_test_id("settings-dialog")
    expect(dialog).to_be_visible()
    reached = set()
    for _ in range(16):
        fresh.keys("Tab")
        inside = "document.activeElement.closest('dialog') && document.activeElement.id"
        reached.add(fresh.page.evaluate(inside))
    wanted = {"replies", "temperature", "top_p", "max_new_tokens", "seed", "ask", "theme", "plain"}
    assert {f"setting-{name}" for name in wanted} <= reached
    fresh.keys("Escape")
    expect(dialog).to_have_count(0)
    expect(fresh.page.get_by_test_id("settings")).to_be_focused()
