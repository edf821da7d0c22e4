"""The page in German: each screen is translated, and fits a phone though German is longer."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from screens import IN_USE, PHONE, WHEN_NEW, sign_in, tab
from spoken import translations

pytestmark = [pytest.mark.browser, pytest.mark.slow]

GERMAN = {text: german for _, text, german in translations("de")}
# English that is no German of anything.
FOREIGN = sorted(set(GERMAN) - set(GERMAN.values()))

# Texts and labels that a person meets, less what models and people wrote.
SAID = """() => {
  const own = ".reply-text, .message, [dir=auto], code, pre, textarea, option[value^=v]";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    const isHidden = parent.closest("script, style, noscript") || !parent.checkVisibility();
    if (!isHidden && !parent.closest(own)) texts.push(node.data.trim());
  }
  for (const node of document.querySelectorAll(".chatrlhf *"))
    if (node.checkVisibility())
      for (const name of ["aria-label", "title", "placeholder"])
        if (node.hasAttribute(name)) texts.push(node.getAttribute(name).trim());
  return texts;
}"""
# The page itself, and what scrolls up and down in it.
WIDER = """() => [
  ...document.querySelectorAll(
    "html, body, dialog[open], .transcript, .queue-scroll, .ratings, .training, .people",
  ),
]
  .filter((node) => node.scrollWidth > node.clientWidth)
  .map((node) => node.className || node.tagName)"""


def left_in_english(page):
    return sorted(set(page.evaluate(SAID)) & set(FOREIGN))


def assert_german_and_fitting(page):
    assert page.locator("html").get_attribute("lang") == "de"
    assert left_in_english(page) == []
    assert page.evaluate("document.documentElement.clientWidth") == 390
    assert page.evaluate(WIDER) == []


@pytest.fixture
def alone(nothing_yet, browse):
    page = browse(nothing_yet.url, PHONE, "de-DE")
    expect(page.get_by_test_id("chip")).to_contain_text("v0 aktiv")
    return page


@pytest.fixture
def ann(furnished, browse):
    page = browse(furnished.url, PHONE, "de-DE")
    sign_in(page, "Ann")
    yield page
    furnished.app.engine.go.set()
    for _ in range(3):
        page.keyboard.press("Escape")


@pytest.mark.parametrize("show", WHEN_NEW, ids=lambda show: show.__name__)
def test_an_empty_screen_is_german_and_fits(alone, show):
    show(alone)
    assert_german_and_fitting(alone)


@pytest.mark.parametrize("show", IN_USE, ids=lambda show: show.__name__)
def test_a_screen_in_use_is_german_and_fits(ann, furnished, show):
    show(ann, furnished.app.engine)
    assert_german_and_fitting(ann)


def test_the_timeline_of_a_round_is_german(ann):
    tab(ann, "training")
    ann.get_by_test_id("round-picker").select_option(index=1)  # a round that is over
    events = ann.get_by_test_id("event")
    expect(events).to_contain_text(
        [
            "PPO geht mit Iteration 3 weiter.",
            "Das ist besser als Zufall.",
            "Verlust auf geschriebenen Antworten 2.500 \u2192 2.750 Nats je Token.",
        ]
    )


def test_the_login_page_is_german_and_fits(furnished, chromium):
    context = chromium.new_context(**PHONE, locale="de-DE")
    page = context.new_page()
    page.goto(furnished.url)
    expect(page.get_by_test_id("login-submit")).to_have_text("Anmelden")
    assert_german_and_fitting(page)
    context.close()


def test_the_tabs_are_german_and_the_open_one_survives_a_reload(alone):
    names = ["Chat", "Warteschlange", "Bewertungen", "Training", "Ist es besser?", "Leute"]
    expect(alone.get_by_role("tab")).to_have_text(names)
    alone.get_by_role("tab", name="Bewertungen").click()
    # The row is wider than the phone: what is beside the open tab can be reached.
    expect(alone.get_by_role("tab", name="Training")).to_be_in_viewport(ratio=0.9)
    alone.reload()
    expect(alone.get_by_test_id("ratings-list")).to_be_visible()
    expect(alone.get_by_role("tab", name="Bewertungen")).to_have_attribute("aria-selected", "true")
