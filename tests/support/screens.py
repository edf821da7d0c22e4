"""The screens in the states that people meet, each opened by one function."""

from __future__ import annotations

from chat_page import ChatPage
from fake_engine import FakeEngine
from furnished import TITLES
from playwright.sync_api import Page, expect
from team import password_of

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


def sign_in(page: Page, name: str) -> None:
    """Sign in unless it is done, and wait until the page knows what is live."""
    expect(page.locator("[data-testid=login-name], [data-testid=account]")).to_be_visible()
    if page.get_by_test_id("login-name").is_visible():
        page.get_by_test_id("login-name").fill(name)
        page.get_by_test_id("login-password").fill(password_of(name))
        page.get_by_test_id("login-submit").click()
    expect(page.get_by_test_id("chip")).to_contain_text("v1")


def tab(page: Page, name: str) -> None:
    page.locator(f"[role=tab][data-tab-id={name}]").first.click()


# --- what the screens show before there is anything -------------------------------------------


def chat_when_new(page: Page) -> None:
    tab(page, "chat")
    expect(page.get_by_test_id("empty-state")).to_be_visible()


def queue_when_new(page: Page) -> None:
    tab(page, "queue")
    expect(page.get_by_test_id("queue-empty")).to_be_visible()


def ratings_when_new(page: Page) -> None:
    tab(page, "ratings")
    expect(page.get_by_test_id("ratings-list").locator(".none")).to_be_visible()


def training_when_new(page: Page) -> None:
    tab(page, "training")
    expect(page.get_by_test_id("round").locator(".hint")).to_be_visible()


def evidence_when_new(page: Page) -> None:
    tab(page, "evidence")
    expect(page.get_by_test_id("verdict")).not_to_be_empty()


def people_when_new(page: Page) -> None:
    tab(page, "people")
    expect(page.get_by_test_id("first-account")).to_be_visible()


WHEN_NEW = [
    chat_when_new,
    queue_when_new,
    ratings_when_new,
    training_when_new,
    evidence_when_new,
    people_when_new,
]


# --- what they show when there is something ---------------------------------------------------


def new_chat(page: Page) -> ChatPage:
    tab(page, "chat")
    page.evaluate("location.hash = ''")
    expect(page.get_by_test_id("empty-state")).to_be_visible()
    return ChatPage(page, "")


def written_chat(page: Page) -> ChatPage:
    chat = new_chat(page)
    chat.send("Why are there tides?")
    chat.wait_written()
    chat.cards.first.get_by_role("option").focus()
    return chat


def ranked_chat(page: Page) -> ChatPage:
    chat = written_chat(page)
    chat.keys("2", "1", "4")
    expect(chat.receipt).to_contain_text("2>1>4>3")
    return chat


def a_chat_being_written(page: Page, engine: FakeEngine) -> None:
    engine.go.clear()
    chat = new_chat(page)
    chat.send("Why are there tides?")
    expect(chat.turn.get_by_test_id("cut")).to_have_count(4)


def a_ranked_turn(page: Page, engine: FakeEngine) -> None:
    chat = ranked_chat(page)
    chat.send("And then?")
    chat.wait_written()
    expect(page.get_by_test_id("fold").first).to_be_visible()  # of the turn before


def one_reply_large(page: Page, engine: FakeEngine) -> None:
    written_chat(page).keys(" ")
    expect(page.get_by_test_id("large-view")).to_be_visible()


def the_settings(page: Page, engine: FakeEngine) -> None:
    new_chat(page)
    page.get_by_test_id("settings").click()
    expect(page.get_by_test_id("setting-temperature")).to_be_visible()


def the_history_searched(page: Page, engine: FakeEngine) -> None:
    new_chat(page)
    menu = page.get_by_test_id("menu")
    if menu.is_visible():
        menu.click()
    page.get_by_test_id("search").fill(TITLES[2])
    expect(page.get_by_test_id("conversation-item").first).to_contain_text(TITLES[2])


def labels_comment_and_an_own_reply(page: Page, engine: FakeEngine) -> None:
    chat = ranked_chat(page)
    chat.keys("f")
    page.get_by_test_id("label-choice").first.click()
    expect(page.get_by_test_id("given-label")).to_be_visible()
    chat.keys("Escape", "c")
    page.get_by_test_id("comment-text").fill("Clear")
    page.get_by_test_id("write-own").click()
    expect(page.get_by_test_id("demonstration-text")).to_be_visible()


def the_keys(page: Page, engine: FakeEngine) -> None:
    written_chat(page).keys("?")
    expect(page.get_by_test_id("help-overlay")).to_be_visible()


def queue_view(page: Page, name: str) -> None:
    tab(page, "queue")
    page.get_by_test_id(f"queue-view-{name}").click()


def the_queue(page: Page, engine: FakeEngine) -> None:
    queue_view(page, "rate")
    queue = page.get_by_test_id("queue")
    expect(queue.get_by_test_id("reply-card")).to_have_count(4)
    expect(queue.locator(".is-writing")).to_have_count(0)
    queue.get_by_role("option").first.focus()
    page.keyboard.press("s")
    expect(page.get_by_test_id("skip-strip")).to_be_visible()
    queue.get_by_test_id("goal").click()
    expect(page.get_by_test_id("goal-field")).to_be_visible()


def the_keys_of_the_queue(page: Page, engine: FakeEngine) -> None:
    queue_view(page, "rate")
    page.get_by_test_id("queue").get_by_role("option").first.focus()
    page.keyboard.press("?")
    expect(page.get_by_test_id("help-overlay")).to_be_visible()


def writing_a_prompt(page: Page, engine: FakeEngine) -> None:
    queue_view(page, "prompts")
    expect(page.get_by_test_id("pool-row").first).to_be_visible()
    page.get_by_test_id("pool-write").click()
    page.get_by_test_id("prompt-kind").select_option("rewrite")
    page.get_by_test_id("prompt-save").click()
    expect(page.get_by_test_id("prompt-error")).not_to_be_empty()


def importing_prompts(page: Page, engine: FakeEngine) -> None:
    queue_view(page, "prompts")
    page.get_by_test_id("pool-import").click()
    page.get_by_test_id("prompt-import").get_by_test_id("import-text").fill("A prompt")
    expect(page.get_by_test_id("import-kind")).to_be_visible()


def the_team_in_the_queue(page: Page, engine: FakeEngine) -> None:
    queue_view(page, "agreement")
    expect(page.get_by_test_id("agreement")).not_to_be_empty()


def the_ratings(page: Page, engine: FakeEngine) -> None:
    tab(page, "ratings")
    expect(page.get_by_test_id("rating-row").first).to_be_visible()


def narrowed(page: Page, kind: str, words: str) -> None:
    """List the ratings of one kind that hold some words, with no panel open."""
    tab(page, "ratings")
    for panel in ("export", "import"):
        if page.get_by_test_id(f"{panel}-panel").is_visible():
            page.get_by_test_id(f"open-{panel}").click()
    back = page.get_by_test_id("rating-back")
    if back.is_visible():
        back.click()
    expect(page.get_by_test_id("rating-row").first).to_be_visible()
    page.get_by_test_id(f"kind-{kind}").click()
    page.get_by_test_id("ratings-search").fill(words)


def an_open_rating(page: Page, engine: FakeEngine) -> None:
    narrowed(page, "rankings", "colour")
    details = page.get_by_test_id("more-filters")
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    row = page.get_by_test_id("rating-row")
    expect(row).to_have_count(1)
    row.get_by_role("button").click()
    expect(page.get_by_test_id("rating-reply")).to_have_count(4)
    page.get_by_test_id("rating-reply").nth(1).click()


def a_written_reply(page: Page, engine: FakeEngine) -> None:
    narrowed(page, "demonstrations", "")
    page.get_by_test_id("rating-row").first.get_by_role("button").click()
    expect(page.get_by_test_id("written-text")).to_be_visible()


def the_export(page: Page, engine: FakeEngine) -> None:
    narrowed(page, "rankings", "")
    page.get_by_test_id("open-export").click()
    expect(page.get_by_test_id("size-trl")).not_to_be_empty()


def the_import(page: Page, engine: FakeEngine) -> None:
    narrowed(page, "rankings", "")
    page.get_by_test_id("open-import").click()
    lines = b'{"prompt": "Which?", "chosen": "This", "rejected": "That"}\n{"tea": 1}\n'
    page.get_by_test_id("import-panel").get_by_test_id("import-file").set_input_files(
        {"name": "pairs.jsonl", "mimeType": "text/plain", "buffer": lines}
    )
    panel = page.get_by_test_id("import-panel")
    expect(panel.get_by_test_id("import-errors").locator("li")).to_have_count(1)
    expect(page.get_by_test_id("past-import").first).to_be_visible()


def the_training(page: Page, engine: FakeEngine) -> None:
    tab(page, "training")
    expect(page.get_by_test_id("chart").first).to_be_visible()
    page.get_by_test_id("compare-prompt").fill("Name a colour.")
    page.get_by_test_id("compare-run").click()
    comparison = page.get_by_test_id("comparison")
    expect(comparison.get_by_test_id("side-text")).to_have_count(2)
    expect(comparison.locator(".is-writing")).to_have_count(0)
    for fold in page.get_by_test_id("training").locator("details:not([open]) summary").all():
        fold.click()


def why_a_score(page: Page, engine: FakeEngine) -> None:
    tab(page, "training")
    page.get_by_test_id("round-picker").select_option(index=1)  # a round that is over
    fold = page.get_by_test_id("samples").locator("xpath=..")
    expect(fold).not_to_have_attribute("open", "")
    fold.locator("summary").click()
    page.get_by_test_id("samples").get_by_test_id("why").first.click()
    expect(page.get_by_test_id("heat")).to_be_visible()


def the_evidence(page: Page, engine: FakeEngine) -> None:
    tab(page, "evidence")
    expect(page.get_by_test_id("interval").first).to_be_visible()
    page.get_by_test_id("then-compare").first.click()
    expect(page.get_by_test_id("then-row").locator(".side-column")).to_have_count(2)
    expect(page.get_by_test_id("then-row").locator(".is-writing")).to_have_count(0)
    page.get_by_test_id("then-compare").first.scroll_into_view_if_needed()


def the_people(page: Page, engine: FakeEngine) -> None:
    tab(page, "people")
    page.get_by_test_id("invite").click()
    expect(page.get_by_test_id("invite-link")).to_be_visible()
    page.get_by_test_id("key-name").fill("notebook")
    page.get_by_test_id("make-key").click()
    expect(page.get_by_test_id("new-key")).to_be_visible()


def removing_somebody(page: Page, engine: FakeEngine) -> None:
    tab(page, "people")
    page.get_by_test_id("remove-person").first.click()
    expect(page.get_by_test_id("ask-remove")).to_be_visible()


def the_account(page: Page, engine: FakeEngine) -> None:
    tab(page, "chat")
    page.get_by_test_id("account").click()
    expect(page.get_by_test_id("account-menu")).to_be_visible()


IN_USE = [
    a_chat_being_written,
    a_ranked_turn,
    one_reply_large,
    the_settings,
    the_history_searched,
    labels_comment_and_an_own_reply,
    the_keys,
    the_queue,
    the_keys_of_the_queue,
    writing_a_prompt,
    importing_prompts,
    the_team_in_the_queue,
    the_ratings,
    an_open_rating,
    a_written_reply,
    the_export,
    the_import,
    the_training,
    why_a_score,
    the_evidence,
    the_people,
    removing_somebody,
    the_account,
]
