"""The tab "Is it better?", the comparison, the explanation of a score, and the tree of versions."""

from __future__ import annotations

import random
import re

import pytest
from chat_page import ChatPage
from duelled import duel, foretell, publish_copy, turn_of
from page_server import AppServer
from playwright.sync_api import expect
from serving import random_lora, reward_terms
from tiny_model import write_tiny_model

from chatrlhf.app import build_app
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.settings import load_settings
from storage import people, rankings, runs
from storage.database import open_database
from storage.records import Metric

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SETTINGS = {
    "chat": {"max_new_tokens": 12, "duels": 1.0},
    "round": {"automatic": False},
    "engine": {"resident_versions": 8},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A tiny model, and a reward model for it."""
    folder = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    base = load_base_model(folder, quantization="fp32")
    bank = LoraBank(base.model, 16, 16.0)
    return folder, (random_lora(bank, 2, 0.05), reward_terms(base))


@pytest.fixture
def served(tmp_path, parts, chromium):
    """A server of its own for each test, as each begins with nothing known."""
    model = {"model": {"name": str(parts[0])}}
    made = AppServer(build_app(load_settings(tmp_path / "data", SETTINGS | model)))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def new_page(served, new_page):
    """Pages that are closed before their server stops."""
    return new_page


@pytest.fixture
def rows(served):
    db = open_database(served.data_dir / "chatrlhf.db")
    yield db
    db.close()


@pytest.fixture
def me(rows):
    return people.ensure_local_person(rows).id


@pytest.fixture
def publish(rows, served, parts):
    """Publish a version with a reward model and wait until it is live."""

    def make(parent="v0", promote=True):
        folder = served.data_dir / "versions"
        name = publish_copy(rows, folder, parent, promote=promote, reward=parts[1])
        if promote:
            served.wait_for(lambda: served.health()["live_version"] == name)
        return name

    return make


def open_tab(new_page, served, name, screen="desktop"):
    chat = ChatPage(new_page(screen), served.url).open()
    chat.tab(name)
    return chat.page


def interval(page, name):
    return page.locator(f"[data-testid=interval][data-name='{name}']").first


def text_without(node, selector):
    script = """(node, selector) => {
      const copy = node.cloneNode(true);
      for (const part of copy.querySelectorAll(selector)) part.remove();
      return copy.textContent;
    }"""
    return node.evaluate(script, selector)


def letters(node):
    """What random weights wrote, without its invisible characters and their marks."""
    return re.sub(r"[^a-zA-Z]", "", text_without(node, ".unseen"))


def around_the_replies(turn):
    """What the page says of a turn; random weights may say anything."""
    return text_without(turn, "[data-testid=reply-text]")


def assert_fits(page, width):
    sizes = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert max(sizes) <= width


def test_nothing_is_known_at_first_and_the_page_says_what_to_do(new_page, served):
    page = open_tab(new_page, served, "Is it better?")
    expect(page.get_by_test_id("verdict")).to_contain_text("v0 is the only version")
    panel = page.get_by_test_id("evidence")
    for words in ("No duel was ranked yet", "once two versions have met", "No badly rated prompt"):
        expect(panel).to_contain_text(words)
    expect(page.get_by_test_id("evidence-rollback")).to_be_hidden()


def test_ranking_a_blind_duel_in_the_chat_becomes_a_vote(new_page, served, rows, publish):
    publish()
    chat = ChatPage(new_page(), served.url).open()
    chat.send("Tell me about the cat.")
    chat.wait_written()
    made = rows.rows("SELECT version, slot_type FROM replies ORDER BY position")
    assert {row["slot_type"] for row in made} == {"duel"}
    assert sorted(row["version"] for row in made) == ["v0", "v0", "v1", "v1"]
    assert not re.search(r"\bv[01]\b", around_the_replies(chat.turn))  # nobody can tell them apart
    order = sorted(range(4), key=lambda place: made[place]["version"] != "v1")
    chat.cards.first.focus()
    chat.keys(*[str(place + 1) for place in order[:3]])
    expect(chat.receipt).to_contain_text("Saved")
    expect(chat.card(order[0] + 1)).to_contain_text("v1")
    expect(chat.card(order[3] + 1)).to_contain_text("v0")
    chat.tab("Is it better?")
    page = chat.page
    expect(page.get_by_test_id("verdict")).to_contain_text(
        "You preferred v1 in 1 of 1 blind turns (100%, 95% interval 21-100)."
    )
    expect(page.get_by_test_id("verdict")).to_contain_text("more blind turns")
    expect(interval(page, "v1-v0")).to_contain_text("1 of 1: 100% (21–100%)")
    expect(interval(page, "v1")).to_contain_text(
        "(no interval yet)"
    )  # one vote resampled is itself
    expect(page.get_by_test_id("duel-counts")).to_have_text("Duels so far: 1 shown, 1 ranked.")


@pytest.mark.parametrize(("screen", "width"), [("desktop", 1280), ("phone", 390)])
def test_the_figures_stand_with_their_intervals(new_page, served, rows, me, publish, screen, width):
    publish()
    publish("v1")
    won = [duel(rows, me, "v2", "v1", int(i < 23), f"Question {i}", more=i % 5) for i in range(31)]
    for index in range(9):
        duel(rows, me, "v1", "v0", 0.5 if index < 2 else 1, f"Older question {index}")
    foretell(rows, [(one, 2 + index % 4) for index, one in enumerate(won)], "v1")
    page = open_tab(new_page, served, "Is it better?", screen)
    expect(page.get_by_test_id("verdict")).to_contain_text(
        "You preferred v2 in 23 of 31 blind turns (74%, 95% interval 57-86). So v2 is better"
    )
    expect(page.get_by_test_id("verdict")).to_contain_text("at equal length")
    row = interval(page, "v2-v1")
    expect(row).to_contain_text("23 of 31: 74% (57–86%)")
    expect(row.locator("svg")).to_have_attribute("aria-label", "v2 over v1: 23 of 31: 74% (57–86%)")
    expect(row.locator(".interval-whisker")).to_have_count(2)  # and that at equal length
    assert whisker_of(row) == pytest.approx((0.5671, 0.8629), abs=2e-3)
    expect(interval(page, "v1-v0")).to_contain_text("7 of 9, 2 tied")
    expect(interval(page, "v2")).to_contain_text("v2 over v0")
    expect(page.get_by_test_id("foretold")).to_contain_text("107 of 186 pairs in 31 rankings")
    expect(page.get_by_test_id("band-chart")).to_be_visible()
    shown = page.get_by_test_id("evidence").inner_text()
    assert not any(word in shown for word in ("false", "null", "undefined", "NaN"))
    assert_fits(page, width)


def whisker_of(row):
    """Where a drawn interval begins and ends, as shares of its axis."""
    line = row.locator(".interval-whisker").first
    return tuple(float(line.get_attribute(end)) / 300 for end in ("x1", "x2"))


def test_a_worse_version_is_rolled_back_by_the_button_and_back_again(
    new_page, served, rows, me, publish
):
    publish()
    for index in range(10):
        duel(rows, me, "v1", "v0", 0, f"Question {index}")
    page = open_tab(new_page, served, "Is it better?")
    expect(page.get_by_test_id("verdict")).to_contain_text("v1 is worse than what was before it")
    button = page.get_by_test_id("evidence-rollback")
    expect(button).to_have_text("Roll back to v0")
    button.click()
    expect(page.get_by_test_id("verdict")).to_contain_text("v0 is the only version")
    assert served.health()["live_version"] == "v0"
    page.get_by_test_id("toast").get_by_role("button", name="Undo").click()
    served.wait_for(lambda: served.health()["live_version"] == "v1")


def test_a_bad_prompt_is_put_again_blind_and_side_by_side(new_page, served, rows, me, publish):
    old = turn_of(rows, me, ["v0"] * 4, "Name a colour.", "policy")
    rankings.save_ranking(rows, old.id, me, {}, all_bad=True)
    publish()
    page = open_tab(new_page, served, "Is it better?")
    row = page.get_by_test_id("then-row")
    expect(row).to_contain_text("Name a colour.")
    expect(row).to_contain_text("v0: all bad")
    row.get_by_test_id("then-compare").click()
    expect(row.get_by_test_id("side-by-side")).to_contain_text("Reply 0 to Name a colour.")
    expect(row).to_contain_text("Side by side is not blind")
    expect(row.locator("[data-version=v1].is-writing")).to_have_count(0)
    row.get_by_test_id("replay").click()
    chat = ChatPage(page, served.url)
    expect(chat.turn.get_by_test_id("message")).to_have_text("Name a colour.")
    chat.wait_written()
    assert chat.turn_id != old.id
    made = rows.rows("SELECT version, slot_type FROM replies WHERE turn_id = ?", [chat.turn_id])
    assert {row["slot_type"] for row in made} == {"replay"}
    assert {row["version"] for row in made} == {"v0", "v1"}
    chat.cards.first.focus()
    chat.keys("0")
    expect(chat.receipt).to_contain_text("bad")
    chat.tab("Is it better?")
    expect(page.get_by_test_id("then-result")).to_have_text("A tie with v1.")
    expect(page.get_by_test_id("evidence")).to_contain_text("Replayed prompts, counted apart")
    expect(page.get_by_test_id("verdict")).to_contain_text("Nothing is known of v1 yet")


@pytest.mark.parametrize(("screen", "width"), [("desktop", 1280), ("phone", 390)])
def test_two_versions_answer_side_by_side_and_say_why(new_page, served, publish, screen, width):
    publish()
    page = open_tab(new_page, served, "Training", screen)
    expect(page.get_by_test_id("compare-first")).to_have_value("v1")
    expect(page.get_by_test_id("compare-second")).to_have_value("v0")
    page.get_by_test_id("compare-prompt").fill("Tell me about the cat.")
    comparison = page.get_by_test_id("comparison")
    texts = [""]
    while len(texts[0]) < 4:  # the seed is drawn each time, and random weights may end at once
        page.get_by_test_id("compare-run").click()
        expect(comparison).to_contain_text("nothing of this is counted")
        texts = comparison.get_by_test_id("side-text").all_inner_texts()
        assert texts[0] == texts[1]  # copies of one version, with one seed
    assert_fits(page, width)
    comparison.get_by_test_id("why").first.click()
    dialog = page.get_by_test_id("why-dialog")
    expect(dialog.get_by_test_id("why-score")).to_contain_text("v1 scores this reply")
    expect(dialog.get_by_test_id("why-terms").locator("li")).to_have_count(3)
    expect(dialog.get_by_test_id("why-terms")).to_contain_text("uncertainty")
    heat = dialog.get_by_test_id("heat")
    assert letters(heat) == letters(comparison.get_by_test_id("side-text").first)
    assert heat.locator(".heat-token").count() > 1
    expect(dialog).to_contain_text("reads each beginning")
    assert_fits(page, width)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_version_without_a_reward_model_says_so_in_the_dialog(new_page, served, rows):
    publish_copy(rows, served.data_dir / "versions", promote=False)
    page = open_tab(new_page, served, "Training")
    page.get_by_test_id("compare-prompt").fill("Tell me about the cat.")
    page.get_by_test_id("compare-run").click()
    page.get_by_test_id("why").first.click()
    expect(page.get_by_test_id("why-dialog")).to_contain_text("v0 has no reward model")
    # The refusal is an answer with status 409, which the console calls an error.
    new_page.problems.clear()


def test_the_versions_form_a_tree(new_page, served, rows, publish):
    publish()
    publish("v1", promote=False)
    publish("v0", promote=False)
    publish("v1", promote=False)
    page = open_tab(new_page, served, "Training")
    expect(page.get_by_test_id("version")).to_have_count(5)
    lanes = {}
    for row in page.get_by_test_id("version").all():
        dot = row.locator(".lineage-dot")
        lanes[row.get_attribute("data-name")] = dot.evaluate("node => node.offsetLeft")
    assert lanes["v4"] == lanes["v1"] == lanes["v0"]  # the newest line runs straight
    assert lanes["v3"] != lanes["v4"]
    assert lanes["v2"] not in (lanes["v4"], lanes["v3"])
    with page.expect_download() as download:
        page.get_by_test_id("export-version").first.click()
    assert download.value.suggested_filename == "v4.zip"


def test_constant_curves_and_gates_are_drawn_as_what_they_are(new_page, served, rows):
    run = runs.enqueue_run(rows, ("ppo",), "test", {}, 0)
    run = runs.claim_run(rows, "test", 1, "boot")
    constant = [Metric("ppo", step, "kl", 0.0) for step in range(5)]
    draws = random.Random(1)
    moving = [Metric("ppo", step, "score", draws.random()) for step in range(5)]
    gates = [Metric("gates", step, "score", value) for step, value in ((0, 0.25), (1, 0.75))]
    runs.add_metrics(rows, run.id, run.fence, [*constant, *moving, *gates])
    runs.finish_run(rows, run.id, run.fence, "failed", "Ended for a test.")
    page = open_tab(new_page, served, "Training")

    def chart(name):
        return page.locator(f"[data-testid=chart][data-name='{name}']")

    expect(chart("ppo/kl").locator(".axis.middle")).to_have_text("0")
    expect(chart("ppo/kl").locator(".axis.top")).to_be_empty()
    expect(chart("ppo/kl")).not_to_contain_text("-1")
    expect(chart("ppo/score").locator(".axis.top")).not_to_be_empty()
    expect(chart("gates/score")).to_be_visible()  # not folded away
    expect(chart("gates/score")).to_contain_text("0.25 → 0.75")
