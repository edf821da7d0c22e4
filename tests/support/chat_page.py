"""The chat page as a person uses it, and what its cards showed while they were written."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

# A machine may be busy; only a test that fails waits so long.
PATIENCE_MS = 30_000
WRITING_PATIENCE_MS = 120_000

# Records the texts of the current turn's cards at each change: [[length, is writing], ...].
WATCH_GROWTH = """
window.growth = [];
new MutationObserver(() => {
  const cards = [...document.querySelectorAll(".turn.is-current [data-testid=reply-card]")];
  const now = cards.map((card) => [
    card.querySelector("[data-testid=reply-text]").textContent.length,
    card.classList.contains("is-writing"),
  ]);
  const text = JSON.stringify(now);
  if (text !== window.growthText) window.growth.push(now);
  window.growthText = text;
}).observe(document, { childList: true, subtree: true, characterData: true, attributes: true });
"""


def click_twice(button: Locator) -> None:
    """Click again before anything could be answered."""
    button.evaluate("(node) => { node.click(); node.click(); }")


class ChatPage:
    """The Chat tab of one browser page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self, conversation: int | None = None) -> ChatPage:
        """Load the page, at a conversation or at a new one, and wait until it can be used."""
        self.page.goto(self.url + (f"/#c={conversation}" if conversation else "/"))
        expect(self.composer).to_be_visible()
        expect(self.page.get_by_test_id("chip")).to_contain_text("live")
        if conversation:
            expect(self.cards.first).to_be_visible()
        return self

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).first.click()

    @property
    def composer(self) -> Locator:
        return self.page.get_by_test_id("composer")

    @property
    def turn(self) -> Locator:
        """The newest turn."""
        return self.page.locator(".turn.is-current")

    @property
    def cards(self) -> Locator:
        return self.turn.get_by_test_id("reply-card")

    def card(self, shown: int) -> Locator:
        return self.cards.nth(shown - 1)

    def text(self, shown: int) -> Locator:
        return self.card(shown).get_by_test_id("reply-text")

    def texts(self) -> list[str]:
        """All that the cards show as plain text, the marks of invisible characters turned back."""
        script = """node => {
          const copy = node.cloneNode(true);
          for (const mark of copy.querySelectorAll(".unseen"))
            mark.replaceWith(String.fromCodePoint(parseInt(mark.textContent.slice(2), 16)));
          return copy.textContent;
        }"""
        self.prefer("plain", value=True)
        texts = [card.get_by_test_id("reply-text").evaluate(script) for card in self.cards.all()]
        self.prefer("plain", value=False)
        return texts

    def prefer(self, name: str, value: object) -> None:
        """Set a preference of this browser, as the settings do."""
        self.page.evaluate(
            "async ([name, value]) => (await import('/board/preferences.js')).prefer(name, value)",
            [name, value],
        )

    @property
    def receipt(self) -> Locator:
        return self.page.get_by_test_id("receipt")

    @property
    def conversation_id(self) -> int:
        return int(re.search(r"#c=(\d+)$", self.page.url).group(1))

    @property
    def turn_id(self) -> int:
        return int(self.turn.get_attribute("data-turn"))

    def send(self, text: str) -> None:
        """Type and press Enter; returns when the cards are there."""
        self.composer.fill(text)
        self.composer.press("Enter")
        expect(self.turn.get_by_test_id("message")).to_have_text(text)

    def wait_written(self) -> None:
        """Wait until no reply is written any more."""
        expect(self.cards.first).to_be_visible()
        writing = self.page.locator(".reply-card.is-writing")
        expect(writing).to_have_count(0, timeout=WRITING_PATIENCE_MS)

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def ranks(self) -> list[str | None]:
        """The rank on each card, in shown order."""
        return [card.get_attribute("data-rank") for card in self.cards.all()]

    def growth(self) -> list[list[tuple[int, bool]]]:
        """Length of text and whether it is being written, of each card, at each change."""
        return [[tuple(card) for card in moment] for moment in self.page.evaluate("window.growth")]
