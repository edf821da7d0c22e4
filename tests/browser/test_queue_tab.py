"""The Queue tab: rating by keys and by touch, the pool, goals, at desktop and phone width."""

from __future__ import annotations

import json

import pytest
from chat_page import ChatPage
from playwright.sync_api import expect
from stored import rankings

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OWN = [f"Queue question {number}?" for number in range(1, 9)]


@pytest.fixture(scope="module")
def queue_server(tiny_server):
    """A pool of eight prompts; no hidden repeats come so early."""
    for prompt in tiny_server.get("/api/prompts"):
        assert tiny_server.http.delete(f"/api/prompts/{prompt['id']}").is_success
    tiny_server.post("/api/prompts", {"prompts": [{"text": text, "tags": ["own"]} for text in OWN]})
    return tiny_server


class QueuePage(ChatPage):
    """The Queue tab of one page."""

    def open_queue(self, view="rate"):
        self.open()
        self.tab("Queue")
        self.page.get_by_test_id(f"queue-view-{view}").click()
        if view == "rate":
            expect(self.prompt).to_be_visible()
        return self

    @property
    def prompt(self):
        return self.page.get_by_test_id("queue-prompt")

    @property
    def cards(self):
        return self.page.get_by_test_id("queue-body").get_by_test_id("reply-card")

    @property
    def receipt(self):
        return self.page.get_by_test_id("queue").get_by_test_id("receipt")

    @property
    def summary(self):
        return self.page.get_by_test_id("queue-summary")

    def in_queue(self, name):
        return self.page.get_by_test_id("queue").get_by_test_id(name)

    def wait_written(self):
        expect(self.cards).to_have_count(4)
        expect(self.page.get_by_test_id("queue").locator(".is-writing")).to_have_count(0)


@pytest.fixture(params=["desktop", "phone"])
def queue(request, new_page, queue_server):
    return QueuePage(new_page(request.param), queue_server.url).open_queue()


@pytest.fixture
def desktop(new_page, queue_server):
    return QueuePage(new_page(), queue_server.url).open_queue()


def held(server):
    """What the queue would give the person now."""
    return server.get("/api/queue/next")


def test_three_keys_rank_and_one_goes_on(desktop, queue_server):
    desktop.wait_written()
    before = held(queue_server)
    first = desktop.prompt.text_content()
    assert before["prompt"]["text"] == first
    assert desktop.in_queue("queue-next").is_disabled()
    desktop.keys("2", "1", "4")
    expect(desktop.receipt).to_contain_text("Saved 2>1>4>3")
    desktop.keys("Enter")
    expect(desktop.prompt).not_to_have_text(first)
    expect(desktop.summary).to_contain_text(f"{before['remaining'] - 1} left")
    (stored,) = rankings(queue_server, before["turn"]["turn_id"])
    assert (stored.ranks, stored.state) == ([2, 1, 4, 3], "active")
    desktop.wait_written()
    desktop.keys("1", "=", "2", "Enter")
    expect(desktop.receipt).to_contain_text("Saved 1=2>3=4")
    second = desktop.prompt.text_content()
    desktop.keys("n")
    expect(desktop.prompt).not_to_have_text(second)


def test_undo_goes_back_to_the_item_before(desktop, queue_server):
    desktop.wait_written()
    before = held(queue_server)
    desktop.keys("1", "2", "3", "Enter")
    expect(desktop.prompt).not_to_have_text(before["prompt"]["text"])
    desktop.wait_written()
    desktop.keys("1")
    desktop.keys("u", "u")  # the key that was pressed, then back
    expect(desktop.prompt).to_have_text(before["prompt"]["text"])
    expect(desktop.receipt).to_contain_text("Stored: 1>2>3>4")
    desktop.keys("u")
    expect(desktop.receipt).to_contain_text("Taken back")
    desktop.keys("4", "3", "2", "Enter")
    expect(desktop.prompt).not_to_have_text(before["prompt"]["text"])
    states = [one.state for one in rankings(queue_server, before["turn"]["turn_id"])]
    assert states == ["withdrawn", "active"]


def test_a_skip_is_undone_or_explained(desktop, queue_server):
    desktop.wait_written()
    first = held(queue_server)
    desktop.keys("s")
    expect(desktop.prompt).not_to_have_text(first["prompt"]["text"])
    expect(desktop.in_queue("skip-strip")).to_contain_text("Skipped.")
    desktop.in_queue("skip-undo").click()
    expect(desktop.prompt).to_have_text(first["prompt"]["text"])
    desktop.keys("s")
    expect(desktop.prompt).not_to_have_text(first["prompt"]["text"])
    desktop.in_queue("skip-reason").nth(1).click()
    expect(desktop.in_queue("skip-strip")).to_have_text("Skipped: It makes no sense.")
    (row,) = queue_server.rows("SELECT reason FROM queue_assignments WHERE skipped_at IS NOT NULL")
    assert row["reason"] == "It makes no sense"
    assert queue_server.http.delete("/api/queue/skip").json() == {"restored": 1}


def test_the_item_survives_a_reload_and_a_draft_too(desktop):
    desktop.wait_written()
    text = desktop.prompt.text_content()
    desktop.keys("3")
    desktop.page.reload()
    expect(desktop.prompt).to_have_text(text)
    expect(desktop.receipt).to_contain_text("3>?")
    desktop.keys("Escape")


def test_clicks_rank_and_go_on_and_it_fits(queue):
    queue.wait_written()
    text = queue.prompt.text_content()
    for shown in (1, 2, 3):
        queue.card(shown).click()
    expect(queue.receipt).to_contain_text("Saved 1>2>3>4")
    assert_fits(queue)
    queue.in_queue("queue-next").click()
    expect(queue.prompt).not_to_have_text(text)


def test_a_goal_is_kept_and_its_progress_shows(queue, queue_server):
    queue.in_queue("goal").click()
    queue.in_queue("goal-field").fill("40")
    queue.in_queue("goal-save").click()
    expect(queue.summary).to_contain_text("of 40 today")
    assert queue_server.get("/api/queue/goal") == {"goal": 40}
    queue.page.reload()
    expect(queue.summary).to_contain_text("of 40 today")
    queue.in_queue("goal").click()
    queue.in_queue("goal-field").fill("0")
    queue.in_queue("goal-save").click()
    queue.in_queue("goal-remove").click()
    expect(queue.in_queue("goal")).to_have_text("Set a daily goal")
    assert queue_server.get("/api/queue/goal") == {"goal": None}


def test_a_prompt_is_written_by_a_template_found_changed_deleted_and_brought_back(queue):
    page = queue.page
    queue.in_queue("queue-view-prompts").click()
    queue.in_queue("pool-write").click()
    queue.in_queue("prompt-save").click()
    expect(queue.in_queue("prompt-error")).to_contain_text("Write something first.")
    queue.in_queue("prompt-kind").select_option("rewrite")
    queue.in_queue("prompt-field-text").fill("<b>gimme the report</b>")
    queue.in_queue("prompt-field-manner").fill("more polite")
    queue.in_queue("prompt-tags").fill("work, work, short")
    queue.in_queue("prompt-save").click()
    expect(page.get_by_test_id("toast")).to_contain_text("is in the pool")
    queue.in_queue("prompt-close").click()
    queue.in_queue("pool-search").fill("gimme")
    row = queue.in_queue("pool-row")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Rewrite this text so that it is more polite.")
    expect(row).to_contain_text("<b>gimme the report</b>")
    assert_fits(queue)
    row.get_by_test_id("pool-edit").click()
    queue.in_queue("prompt-field-text").fill("gimme something else")
    queue.in_queue("prompt-save").click()
    expect(row).to_contain_text("gimme something else")
    row.get_by_test_id("pool-delete").click()
    expect(row).to_have_count(0)
    expect(queue.in_queue("pool-count")).to_contain_text("No prompt is like that")
    page.get_by_test_id("toast-action").click()
    expect(row).to_have_count(1)
    row.get_by_test_id("pool-delete").click()
    expect(row).to_have_count(0)
    queue.in_queue("pool-search").fill("")
    queue.in_queue("pool-tag").select_option("own")
    expect(row).to_have_count(len(OWN))


def test_an_import_tells_its_wrong_lines(queue, queue_server):
    before = len(queue_server.get("/api/prompts"))
    name = queue.page.viewport_size["width"]
    queue.in_queue("queue-view-prompts").click()
    queue.in_queue("pool-import").click()
    queue.in_queue("import-start").click()
    expect(queue.in_queue("import-result")).to_contain_text("Choose a file")
    lines = [json.dumps({"text": f"Imported {name}"}), "{", json.dumps(f"Another {name}")]
    queue.in_queue("import-file").set_input_files(
        {"name": "a.jsonl", "mimeType": "text/plain", "buffer": "\n".join(lines).encode()}
    )
    queue.in_queue("import-tags").fill("imported")
    queue.in_queue("import-start").click()
    expect(queue.in_queue("import-result")).to_have_text(
        "New: 2. In the pool already: 0. Refused lines: 1."
    )
    expect(queue.in_queue("import-errors").locator("li")).to_contain_text(
        ["Line 2: it is no valid"]
    )
    assert_fits(queue)
    found = queue_server.get("/api/prompts?tag=imported")
    assert len(queue_server.get("/api/prompts")) == before + 2
    for prompt in found:
        queue_server.http.delete(f"/api/prompts/{prompt['id']}")


def test_the_team_view_says_what_it_rests_on_and_sets_the_overlap(queue, queue_server):
    queue.in_queue("queue-view-agreement").click()
    expect(queue.in_queue("agreement")).to_contain_text("No two people have ranked the same")
    expect(queue.in_queue("consistency")).to_contain_text("asks you something again")
    queue.in_queue("queue-overlap").fill("2")
    queue.in_queue("queue-overlap").press("Enter")
    expect(queue.page.get_by_test_id("toast")).to_contain_text("Saved.")
    assert queue_server.get("/api/queue/settings")["overlap"] == 2
    assert_fits(queue)
    queue_server.http.put("/api/queue/settings", json={"overlap": 1})


def test_replies_are_ready_before_they_are_asked_for(desktop, queue_server):
    desktop.wait_written()

    def ready():
        rows = queue_server.get("/api/prompts")
        waiting = [row for row in rows if row["replies"] and not row["ratings"]]
        return len(waiting) >= min(4, len([row for row in rows if not row["ratings"]]))

    queue_server.wait_for(ready)
    desktop.keys("1", "2", "3")
    expect(desktop.receipt).to_contain_text("Saved 1>2>3>4")
    desktop.keys("Enter")
    expect(desktop.receipt).to_contain_text("Which is best?")
    assert desktop.page.get_by_test_id("queue").locator(".is-writing").count() == 0


def test_when_all_is_rated_it_says_what_to_do(desktop, queue_server):
    while (found := held(queue_server))["turn"]:
        turn = found["turn"]["turn_id"]
        queue_server.wait_for(
            lambda turn=turn: all(
                reply["state"] != "streaming"
                for reply in queue_server.get(f"/api/turns/{turn}")["replies"]
            )
        )
        ranks = {str(r["id"]): n for n, r in enumerate(found["turn"]["replies"], start=1)}
        queue_server.post(f"/api/turns/{turn}/ranking", {"ranks": ranks})
    desktop.page.reload()
    empty = desktop.in_queue("queue-empty")
    expect(empty).to_contain_text("All rated")
    expect(desktop.summary).to_contain_text("0 left")
    desktop.in_queue("to-pool").click()
    expect(desktop.in_queue("pool-row").first).to_be_visible()


def assert_fits(queue):
    elements = "[document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert max(queue.page.evaluate(elements)) <= queue.page.viewport_size["width"]
