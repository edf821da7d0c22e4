"""Best of N on the page: progress instead of text, then cards, and scores once they are ranked."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import stored
from chat_page import ChatPage
from playwright.sync_api import expect
from real_server import RealServer
from serving import random_lora, reward_terms
from tiny_model import write_tiny_model

from chatrlhf.loop.publish import base_fields, publish_starter
from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.settings import load_settings
from storage import versions
from storage.database import open_database

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHOOSING = {
    "CHATRLHF_CHAT_REPLIES": "3",
    "CHATRLHF_CHAT_CANDIDATES": "8",
    "CHATRLHF_CHAT_CHOOSE": "best",
    "CHATRLHF_CHAT_DUELS": "0",
    "CHATRLHF_CHAT_MAX_NEW_TOKENS": "380",
}


def publish_reward(data, model):
    """A data folder whose live ``v1`` has a reward model of random weights."""
    settings = load_settings(data, {"model": {"name": str(model)}}, environment={})
    data.mkdir()
    db = open_database(settings.database_path)
    base = load_base_model(model, quantization="fp32", device="cpu")
    bank = LoraBank(base.model, settings.model.lora_rank, settings.model.lora_alpha)
    publish_starter(db, settings, base, bank)
    reward = Component(random_lora(bank, 2), reward_terms(base).state())
    sha256 = write_version(
        settings.versions_dir,
        "v1",
        {"policy": Component(random_lora(bank, 1)), "reward": reward},
        AdapterShape(bank.rank, bank.alpha, bank.target_modules),
        {**base_fields(base, settings), "parent": "v0"},
    )
    versions.register_version(db, "v1", "v0", None, sha256, {}, "")
    versions.promote(db, "v1", "test")
    db.close()


@pytest.fixture(scope="module")
def choosing(tmp_path_factory, chromium):
    """A server that shows the best three of eight."""
    folder = tmp_path_factory.mktemp("choosing")
    # Slow enough that the page can be read while it chooses.
    model = write_tiny_model(folder / "model", hidden=128, layers=48)
    publish_reward(folder / "data", model)
    options = ("--model", str(model), "--quantize", "fp32", "--no-trainer")
    made = RealServer(folder / "data", *options, environment=CHOOSING)
    try:
        yield SimpleNamespace(server=made.wait_until_loaded())
    finally:
        made.stop()


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_page_says_what_it_chooses_from_and_hides_scores_until_then(new_page, choosing, screen):
    chat = ChatPage(new_page(screen), choosing.server.url).open()
    chat.send("Tell me about the cat.")
    expect(chat.cards).to_have_count(3)
    expect(chat.receipt).to_have_text(re.compile(r"^Choosing 3 of 8: (\d written|scoring them)$"))
    expect(chat.card(1)).to_contain_text("being chosen")
    expect(chat.card(1).get_by_test_id("cut")).to_be_hidden()
    chat.keys("1", "2")  # there is nothing to rank yet
    chat.wait_written()
    assert chat.ranks() == [None] * 3
    expect(chat.turn.get_by_test_id("choice")).to_have_text(
        "3 of 8 candidates, with the best scores"
    )
    expect(chat.turn.get_by_text(re.compile("score -?[0-9]"))).to_have_count(0)
    chat.keys("2", "1")
    expect(chat.receipt).to_contain_text("Saved 2>1>3")
    scores = [row["score"] for row in stored.replies(choosing.server, chat.turn_id)]
    for shown, score in enumerate(scores, start=1):
        expect(chat.card(shown)).to_contain_text(f"v1 - best - score {score:.2f}")
    assert chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_stop_shows_what_is_written(new_page, choosing):
    chat = ChatPage(new_page(), choosing.server.url).open()
    chat.send("Tell me about the dog.")
    expect(chat.receipt).to_contain_text("Choosing 3 of 8")
    chat.page.get_by_test_id("stop").click()
    chat.wait_written()
    expect(chat.turn.get_by_test_id("choice")).to_contain_text("Stopped before all 8 candidates")
    assert chat.cards.count() == 3
