"""Somebody who has read nothing, at the page: what they do, and a rater who works beside them."""

from __future__ import annotations

import io
import re
from concurrent.futures import Future, ThreadPoolExecutor

from chat_page import ChatPage
from playwright.sync_api import Locator, expect
from rich.console import Console

from chatrlhf.loop.raters import find_rater, word_count
from chatrlhf.loop.simulate import Plan, simulate
from chatrlhf.loop.simulate_client import ApiClient, http_client

# A round on a busy machine; what is waited for tells when it failed earlier.
ROUND_MS = 1_800_000
VERSION = re.compile(r"^v\d+$")


class Newcomer(ChatPage):
    """The page in the hands of somebody who likes short replies."""

    @property
    def chip(self) -> Locator:
        return self.page.get_by_test_id("chip")

    @property
    def receipt(self) -> Locator:
        """Of the chat: the queue has one too."""
        return self.page.locator(".chat").get_by_test_id("receipt")

    @property
    def training_state(self) -> Locator:
        return self.page.get_by_test_id("training-state")

    @property
    def timeline(self) -> Locator:
        return self.page.get_by_test_id("timeline")

    @property
    def verdict(self) -> Locator:
        return self.page.get_by_test_id("verdict")

    def version(self, name: str) -> Locator:
        return self.page.locator(f"[data-testid=version][data-name={name}]")

    def click_example(self, number: int) -> str:
        """Click a suggested prompt and wait for its replies; returns the prompt."""
        example = self.page.get_by_test_id("example").nth(number - 1)
        text = example.inner_text()
        example.click()
        expect(self.turn.get_by_test_id("message")).to_have_text(text)
        self.wait_written()
        return text

    def shortest_first(self) -> list[int]:
        """The numbers of the replies, the one with the fewest words first."""
        words = [word_count(text) for text in self.texts()]
        return sorted(range(1, len(words) + 1), key=lambda shown: words[shown - 1])

    def rank(self, order: list[int]) -> None:
        """Press the keys of an order; the last reply is implied."""
        self.keys(*(str(shown) for shown in order[:-1]))
        expect(self.receipt).to_contain_text("Saved " + ">".join(map(str, order)))

    def authors(self) -> list[str]:
        """The versions that wrote the replies, in shown order; told once the turn is ranked."""
        tags = [card.locator(".version-tag") for card in self.cards.all()]
        for tag in tags:
            expect(tag).to_have_text(VERSION)
        return [tag.inner_text() for tag in tags]

    def start_over(self) -> None:
        """A new conversation."""
        self.tab("Chat")
        self.page.get_by_role("button", name="New chat").first.click()
        expect(self.page.get_by_test_id("empty-state")).to_be_visible()


class Rater:
    """The product's simulated rater in a thread: the same server, over the same HTTP API."""

    def __init__(self, url: str, rankings: int, *, name: str = "shorter", seed: int = 7) -> None:
        self._plan = Plan(find_rater(name), rankings, seed, rounds="none", eval_prompts=0)
        self._url = url
        self._pool = ThreadPoolExecutor(1)
        self._report: Future[dict] = self._pool.submit(self._rank)

    def _rank(self) -> dict:
        with http_client(self._url) as http:
            return simulate(self._plan, ApiClient(http), Console(file=io.StringIO()))

    def done(self) -> dict:
        """Its report, once it has ranked them all; raises what went wrong."""
        try:
            return self._report.result()
        finally:
            self._pool.shutdown()
