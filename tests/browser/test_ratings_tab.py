"""The Ratings tab: find, open, change, delete with undo, export, import; a reload loses nothing."""

from __future__ import annotations

import json

import pytest
import stored
from chat_page import ChatPage, click_twice
from page_server import PageServer
from playwright.sync_api import expect

from chatrlhf.settings import Settings

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAIR = {"prompt": "Which is best?", "chosen": "This one", "rejected": "That one"}


@pytest.fixture
def server(tmp_path, chromium):
    made = PageServer(Settings(data_dir=tmp_path / "data"))
    try:
        yield made
    finally:
        made.stop()


def ranked(server, text, ranks=(2, 1, 4, 3), **more) -> dict:
    """A turn of four replies that has been ranked; the ranking as JSON, and the turn's replies."""
    turn = server.ask(text)
    by_id = {str(r["id"]): rank for r, rank in zip(turn["replies"], ranks, strict=True)}
    made = server.post(f"/api/turns/{turn['turn_id']}/ranking", {"ranks": by_id, **more})
    return {**made, "replies": turn["replies"], "conversation_id": turn["conversation_id"]}


@pytest.fixture(params=["desktop", "phone"])
def screen(request):
    return request.param


@pytest.fixture
def tab(server, new_page, screen):
    def open_tab():
        chat = ChatPage(new_page(screen), server.url).open()
        chat.tab("Ratings")
        expect(chat.page.get_by_test_id("ratings-count")).not_to_have_text("")
        return chat.page

    return open_tab


def rows(page):
    return page.get_by_test_id("rating-row")


def open_row(page, text):
    rows(page).filter(has_text=text).get_by_role("button").click()
    expect(page.get_by_test_id("rating-prompt")).to_contain_text(text)


def leave(page):
    """Back to the list, where a phone shows one at a time."""
    back = page.get_by_test_id("rating-back")
    if back.is_visible():
        back.click()


def no_sideways_scrolling(page):
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]


def test_an_empty_list_says_what_to_do(tab):
    page = tab()
    expect(page.get_by_test_id("ratings-list")).to_contain_text("Nothing is ranked yet.")
    page.get_by_test_id("kind-demonstrations").click()
    expect(page.get_by_test_id("ratings-list")).to_contain_text("No reply is written yet.")
    no_sideways_scrolling(page)


def test_ratings_are_found_by_words_and_filters_which_survive_a_reload(tab, server):
    ranked(server, "How is tea made?", comment="Mild")
    ranked(server, "What is salt?", (1, 1, 1, 1), all_bad=True)
    ranked(server, "Who sang first?", strength=4)
    page = tab()
    expect(rows(page)).to_have_count(3)
    expect(rows(page).first).to_contain_text("Who sang first?")
    expect(rows(page).first).to_contain_text("2>1>4>3")
    expect(page.get_by_test_id("ratings-count")).to_have_text("3 rankings")
    page.get_by_test_id("ratings-search").fill("mil")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("How is tea made?")
    page.reload()
    expect(page.get_by_test_id("ratings-search")).to_have_value("mil")
    expect(rows(page)).to_have_count(1)
    page.get_by_test_id("clear-filters").click()
    expect(rows(page)).to_have_count(3)
    page.get_by_test_id("more-filters").locator("summary").click()
    page.get_by_test_id("filter-only").select_option("all_bad")
    expect(rows(page)).to_have_text([r for r in rows(page).all_text_contents() if "salt" in r])
    expect(page.get_by_test_id("ratings-count")).to_have_text("1 ranking")
    no_sideways_scrolling(page)
    page.get_by_test_id("filter-only").select_option("")
    page.get_by_test_id("filter-until").fill("2020-01-01")
    expect(page.get_by_test_id("ratings-list")).to_contain_text("Nothing is found.")


def test_a_rating_opened_while_a_word_is_typed_stays_open(tab, server):
    ranked(server, "How is tea made?", comment="Mild")
    ranked(server, "What is salt?")
    page = tab()
    expect(rows(page)).to_have_count(2)
    page.evaluate(
        """() => {
          const search = document.querySelector("[data-testid=ratings-search]");
          search.value = "mild";
          search.dispatchEvent(new Event("input"));
          document.querySelectorAll("[data-testid=rating-row] button")[1].click();
        }"""
    )
    expect(rows(page)).to_have_count(1)
    page.wait_for_timeout(500)  # longer than the search waits for more letters
    expect(page.get_by_test_id("rating-detail")).to_contain_text("How is tea made?")
    expect(page.get_by_test_id("rating-reply")).to_have_count(4)


def test_no_row_of_one_kind_is_left_while_those_of_the_other_come(tab, server):
    ranked(server, "How is tea made?")
    page = tab()
    expect(rows(page)).to_have_count(1)
    left = page.evaluate(
        """() => {
          document.querySelector("[data-testid=kind-demonstrations]").click();
          return document.querySelectorAll("[data-testid=rating-row]").length;
        }"""
    )
    assert left == 0
    expect(page.get_by_test_id("ratings-list")).to_contain_text("No reply is written yet.")


def test_pages_turn_and_stay_where_they_were(tab, server):
    lines = "".join(json.dumps({**PAIR, "prompt": f"number {n}"}) + "\n" for n in range(60))
    server._json(server.http.post("/api/import", content=lines.encode()))
    page = tab()
    expect(rows(page)).to_have_count(25)
    expect(rows(page).first).to_contain_text("number 59")
    page.get_by_test_id("older").click()
    expect(rows(page).first).to_contain_text("number 34")
    page.reload()
    expect(rows(page).first).to_contain_text("number 34")
    page.get_by_test_id("older").click()
    expect(rows(page)).to_have_count(10)
    expect(page.get_by_test_id("older")).to_be_hidden()
    click_twice(page.get_by_test_id("newer"))
    expect(rows(page).first).to_contain_text("number 59")
    click_twice(page.get_by_test_id("older"))
    expect(rows(page)).to_have_count(10)


def test_an_open_rating_shows_its_replies_in_their_order_and_takes_another(tab, server):
    made = ranked(server, "How is tea made?")
    reply = made["replies"][0]["id"]
    server.post(f"/api/replies/{reply}/labels", {"label": "wrong", "value": True})
    page = tab()
    open_row(page, "How is tea made?")
    cards = page.get_by_test_id("rating-reply")
    assert [card.get_attribute("data-position") for card in cards.all()] == ["2", "1", "4", "3"]
    expect(cards.first).to_contain_text(made["replies"][1]["text"])
    expect(cards.first).to_contain_text("v0")
    expect(cards.nth(1).get_by_test_id("rating-labels")).to_have_text("wrong")
    no_sideways_scrolling(page)
    # Three keys or three clicks, as in the chat.
    if page.viewport_size["width"] > 800:
        for key in "341":
            page.keyboard.press(key)
    else:
        for place in "341":
            page.locator(f"[data-testid=rating-reply][data-position='{place}']").click()
    expect(page.get_by_test_id("rating-order")).to_have_text("3>4>1>2")
    expect(page.get_by_test_id("toast")).to_contain_text("Changed to 3>4>1>2.")
    found = stored.rankings(server, made["turn_id"])
    assert [(row.state, row.ranks) for row in found] == [
        ("superseded", [2, 1, 4, 3]),
        ("active", [3, 4, 1, 2]),
    ]
    page.get_by_test_id("toast").get_by_test_id("toast-action").click()
    expect(page.get_by_test_id("rating-order")).to_have_text("2>1>4>3")
    assert stored.rankings(server, made["turn_id"])[0].state == "active"
    page.reload()
    expect(page.get_by_test_id("rating-order")).to_have_text("2>1>4>3")


def test_replies_are_drawn_as_in_the_chat(tab, server):
    server.engine.texts = ["One:\n\n- red\n- *green*", "Two"]
    ranked(server, "Which colours are there?")
    page = tab()
    open_row(page, "Which colours")
    first = page.locator("[data-testid=rating-reply][data-position='1']")
    expect(first.locator("li")).to_have_text(["red", "green"])
    expect(first.locator("em")).to_have_text("green")


def test_ties_comment_and_strength_are_changed_too(tab, server):
    made = ranked(server, "How is tea made?", comment="old")
    page = tab()
    open_row(page, "How is tea made?")
    page.locator("[data-testid=rating-reply][data-position='4']").click()
    expect(page.get_by_test_id("rating-status")).to_contain_text("New order: 4>?")
    page.get_by_test_id("rating-rest").click()
    expect(page.get_by_test_id("rating-order")).to_have_text("4>1=2=3")
    page.get_by_test_id("rating-comment").fill("<b>new</b>")
    page.get_by_test_id("rating-strength").select_option("5")
    page.get_by_test_id("rating-save").click()
    expect(page.get_by_test_id("rating-save")).to_be_hidden()
    newest = server.get("/api/rankings?before_id=0")[0]
    assert (newest["order"], newest["comment"], newest["strength"]) == ("4>1=2=3", "<b>new</b>", 5)
    page.get_by_test_id("rating-bad").click()
    expect(page.get_by_test_id("rating-order")).to_have_text("All bad")
    now = server.get("/api/rankings?before_id=0")[0]
    assert (now["all_bad"], now["comment"], now["strength"]) == (True, "<b>new</b>", 5)
    assert len(stored.rankings(server, made["turn_id"])) == 4


def test_a_deleted_rating_can_be_undone_and_is_then_erased(tab, server):
    made = ranked(server, "How is tea made?")
    page = tab()
    open_row(page, "How is tea made?")
    page.get_by_test_id("rating-delete").click()
    expect(rows(page)).to_have_count(0)
    assert stored.rankings(server, made["turn_id"])[0].state == "withdrawn"
    page.get_by_test_id("toast-action").click()
    expect(rows(page)).to_have_count(1)
    assert stored.rankings(server, made["turn_id"])[0].state == "active"
    leave(page)
    open_row(page, "How is tea made?")
    page.get_by_test_id("rating-delete").click()
    expect(rows(page)).to_have_count(0)
    page.close()  # without waiting for the undo to pass
    server.wait_for(lambda: stored.rankings(server, made["turn_id"]) == [], 20)


def test_a_list_that_could_not_be_read_comes_when_the_server_answers_again(tab, new_page):
    page = tab()
    page.route("**/api/demonstrations/count*", lambda route: route.abort())
    with page.expect_request_finished(lambda request: "/api/health" in request.url):
        page.get_by_test_id("kind-demonstrations").click()
    page.unroute("**/api/demonstrations/count*")
    expect(page.get_by_test_id("ratings-list")).to_contain_text("No reply is written yet")
    new_page.problems[:] = [said for said in new_page.problems if "net::ERR_FAILED" not in said]


def test_written_replies_are_listed_changed_and_deleted(tab, server):
    turn = server.ask("How is tea made?")
    server.post(f"/api/turns/{turn['turn_id']}/demonstration", {"text": "With hot water."})
    page = tab()
    page.get_by_test_id("kind-demonstrations").click()
    open_row(page, "How is tea made?")
    expect(page.get_by_test_id("written-text")).to_have_value("With hot water.")
    page.get_by_test_id("written-text").fill("With boiling water.")
    page.get_by_test_id("written-save").click()
    expect(page.get_by_test_id("written-save")).to_be_hidden()
    assert stored.demonstrations(server, turn["turn_id"]) == ["With boiling water."]
    page.get_by_test_id("rating-delete").click()
    expect(rows(page)).to_have_count(0)
    page.get_by_test_id("toast-action").click()
    expect(page.get_by_test_id("written-text")).to_have_value("With boiling water.")
    assert stored.demonstrations(server, turn["turn_id"]) == ["With boiling water."]


def test_an_export_says_its_size_and_is_saved(tab, server, tmp_path):
    ranked(server, "How is tea made?")
    page = tab()
    page.get_by_test_id("open-export").click()
    expect(page.get_by_test_id("size-trl")).to_contain_text("1 record")
    expect(page.get_by_test_id("size-trl-sft")).to_have_text("nothing yet")
    page.get_by_test_id("format-trl").check()
    with page.expect_download() as saved:
        page.get_by_test_id("export-start").click()
    name = saved.value.suggested_filename
    assert name.startswith("chatrlhf-trl-")
    saved.value.save_as(tmp_path / name)
    pairs = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    assert len(pairs) == 6
    assert pairs[0]["prompt"][-1]["content"] == "How is tea made?"
    expect(page.get_by_test_id("export-text")).to_contain_text("is saved")
    no_sideways_scrolling(page)


def test_an_import_tells_its_lines_and_is_taken_back(tab, server, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR) + '\n{"tea": 1}\n')
    page = tab()
    page.get_by_test_id("open-import").click()
    page.get_by_test_id("import-file").set_input_files(file)
    expect(page.get_by_test_id("import-text")).to_contain_text("pairs.jsonl: 2 records read.")
    expect(page.get_by_test_id("import-text")).to_contain_text("New: 1 ranking.")
    expect(page.get_by_test_id("import-errors")).to_contain_text("Line 2")
    expect(rows(page)).to_have_count(1)
    no_sideways_scrolling(page)
    page.reload()
    past = page.get_by_test_id("past-import")
    expect(past).to_contain_text("pairs.jsonl")
    past.get_by_test_id("undo-import").click()
    expect(past).to_have_attribute("data-state", "undone")
    expect(rows(page)).to_have_count(0)
    assert server.get("/api/rankings/count") == {"count": 0}


def test_a_dropped_file_is_imported_and_a_wrong_one_explained(tab, server):
    page = tab()
    page.get_by_test_id("open-import").click()
    drop = """(zone, [name, text]) => {
      const data = new DataTransfer();
      data.items.add(new File([text], name));
      zone.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
    }"""
    zone = page.get_by_test_id("drop-zone")
    zone.evaluate(drop, ["empty.jsonl", ""])
    expect(page.get_by_test_id("import-text")).to_contain_text("Not imported: ")
    zone.evaluate(drop, ["pairs.jsonl", json.dumps(PAIR)])
    expect(page.get_by_test_id("import-text")).to_contain_text("1 records read.")
    expect(rows(page)).to_have_count(1)


def test_hostile_text_is_shown_as_text(tab, server):
    text = '<img src=x onerror="document.title=1"> \u202eabc'
    ranked(server, text, comment=text)
    page = tab()
    open_row(page, "<img src=x")
    expect(page.get_by_test_id("rating-prompt")).to_contain_text("U+202E")
    assert page.get_by_test_id("rating").locator("img").count() == 0
    assert page.title() != "1"
