"""Everybody can use each screen: what axe-core finds, the way of the focus, less motion."""

from __future__ import annotations

import re

import pytest
from axe_scan import findings
from playwright.sync_api import expect
from screens import (
    DESKTOP,
    IN_USE,
    PHONE,
    WHEN_NEW,
    a_chat_being_written,
    new_chat,
    queue_view,
    sign_in,
    the_keys_of_the_queue,
    written_chat,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZES = {"desktop": DESKTOP, "phone": PHONE}
# A change of the colour scheme reaches all elements with the next frames only.
SETTLED = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


@pytest.fixture(params=["desktop", "phone"])
def size(request):
    return request.param


@pytest.fixture
def alone(nothing_yet, browse, size):
    """The page of who has just begun."""
    page = browse(nothing_yet.url, SIZES[size])
    expect(page.get_by_test_id("chip")).to_contain_text("live")
    return page


@pytest.fixture
def ann(furnished, browse, size):
    """The page of Ann, signed in, with no dialog open."""
    page = browse(furnished.url, SIZES[size])
    sign_in(page, "Ann")
    yield page
    furnished.app.engine.go.set()
    for _ in range(3):
        page.keyboard.press("Escape")


def in_both_schemes(page, **how):
    """What is wrong with what the page shows, light and dark."""
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(SETTLED)
        lines = findings(page, only_colours=scheme == "dark", **how)
        found += [f"{scheme}: {line}" for line in lines]
    return "\n".join(found)


@pytest.mark.parametrize("show", WHEN_NEW, ids=lambda show: show.__name__)
def test_axe_finds_nothing_wrong_where_nothing_is_yet(alone, show):
    show(alone)
    assert in_both_schemes(alone) == ""


@pytest.mark.parametrize("show", IN_USE, ids=lambda show: show.__name__)
def test_axe_finds_nothing_wrong_where_a_team_is_at_work(ann, furnished, show):
    show(ann, furnished.app.engine)
    assert in_both_schemes(ann) == ""


def test_axe_finds_nothing_wrong_on_the_login_page(furnished, chromium, size):
    context = chromium.new_context(**SIZES[size])
    page = context.new_page()
    page.goto(furnished.url)
    page.get_by_test_id("login-name").fill("Ann")
    page.get_by_test_id("login-password").fill("wrong")
    page.get_by_test_id("login-submit").click()
    expect(page.get_by_test_id("login-error")).to_be_visible()
    found = in_both_schemes(page)
    context.close()
    assert found == ""


def test_what_is_wrong_is_found_and_told(alone):
    WHEN_NEW[0](alone)
    plant = "document.querySelector('[data-testid=transcript]').append({})"
    alone.evaluate(plant.format("document.createElement('button')"))
    try:
        (found,) = findings(alone)
    finally:
        alone.evaluate("document.querySelector('[data-testid=transcript] > button').remove()")
    rule, element, html, reason = found.split("\n")
    assert rule == "button-name (critical): Buttons must have discernible text"
    assert element.strip() == ".transcript > button"
    assert html.strip() == "<button></button>"
    assert "inner text" in reason


# --- keys -------------------------------------------------------------------------------------

STOP = """() => {
  const node = document.activeElement;
  if (node === document.body) return null;
  const rings = [node, node.closest(".reply-card"), node.closest(".composer-row")].filter(Boolean);
  const ring = (one) => getComputedStyle(one).outlineStyle + getComputedStyle(one).borderColor;
  const box = node.getBoundingClientRect();
  const before = rings.map(ring);
  node.blur();
  const isMarked = rings.some((one, index) => ring(one) !== before[index]);
  node.focus({focusVisible: true});
  return {
    name: node.dataset.testid ?? node.getAttribute("role") ?? node.tagName.toLowerCase(),
    isSeen: box.width > 0 && box.right > 0 && box.left < innerWidth && node.checkVisibility(),
    isMarked,
  };
}"""
HEADER = ["chip", "account", "tab"]
HISTORY = ["new-conversation", "search"]
ENTRY = ["conversation-open", "conversation-rename", "conversation-delete"]
DRAWER = ["menu", "new-conversation-phone"]
TURN = ["message-edit", "option", "a", "div", "copy-code", "pre"]
TOOLS = ["copy", "listen", "label", "go-on"]
DOCK = ["all-bad", "write-own", "regenerate", "skip", "help", "settings", "composer"]


def test_tab_leads_through_the_chat_in_the_order_of_the_page(ann, size):
    written_chat(ann)
    ann.evaluate("document.body.tabIndex = -1; document.body.focus()")
    stops = []
    while len(stops) < 60:
        ann.keyboard.press("Tab")
        if (stop := ann.evaluate(STOP)) is None:
            break
        stops.append(stop)
    left = [*HISTORY, *ENTRY] if size == "desktop" else DRAWER
    names = [stop["name"] for stop in stops if stop["name"] != "tab"]
    assert names == [*HEADER[:2], *left, *TURN, *TOOLS * 4, *DOCK]
    assert [stop["name"] for stop in stops].count("tab") == 6
    assert [stop for stop in stops if not (stop["isSeen"] and stop["isMarked"])] == []


def test_the_history_is_walked_by_arrows_and_keeps_the_focus(ann, size):
    if size == "phone":
        new_chat(ann)
        ann.get_by_test_id("menu").focus()
        ann.keyboard.press("Enter")
        expect(ann.locator(".sidebar.is-open")).to_be_visible()
    ann.get_by_test_id("search").fill("")
    entries = ann.get_by_test_id("conversation-open")
    expect(entries).not_to_have_count(1)
    entries.first.focus()
    ann.keyboard.press("ArrowDown")
    expect(entries.nth(1)).to_be_focused()
    ann.keyboard.press("End")
    expect(entries.last).to_be_focused()
    title = entries.last.text_content()
    ann.keyboard.press("Tab")
    expect(ann.get_by_test_id("conversation-rename").last).to_be_focused()
    ann.keyboard.press("Tab")
    ann.keyboard.press("Enter")  # delete
    expect(entries.filter(has_text=re.compile(f"^{title}$"))).to_have_count(0)
    expect(entries.last).to_be_focused()
    ann.get_by_test_id("toast-action").click()
    expect(entries.filter(has_text=re.compile(f"^{title}$"))).to_have_count(1)
    ann.keyboard.press("Escape")
    if size == "phone":
        expect(ann.locator(".sidebar.is-open")).to_have_count(0)
        expect(ann.get_by_test_id("menu")).to_be_focused()


def test_the_board_is_a_listbox_whose_options_keys_reach(ann):
    chat = written_chat(ann)
    board = chat.turn.get_by_role("listbox", name="Replies, to be ranked best first")
    owned = board.get_attribute("aria-owns").split()
    options = chat.turn.get_by_role("option")
    assert [option.get_attribute("id") for option in options.all()] == owned
    expect(options.nth(1)).to_have_accessible_name("Reply 2")
    expect(options.nth(1)).to_have_accessible_description("The moon.")
    expect(options.nth(1)).to_have_attribute("aria-selected", "false")
    expect(options.first).to_be_focused()
    chat.keys("ArrowRight")
    expect(options.nth(1)).to_be_focused()
    chat.keys("Enter")  # ranks it
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(options.nth(1)).to_have_accessible_name("Reply 2 1st")
    chat.keys("End")
    expect(options.last).to_be_focused()
    assert [option.get_attribute("tabindex") for option in options.all()].count("0") == 1


MOVING = """() => document.getAnimations().map(({effect}) =>
  effect.target.className + " " + (effect.pseudoElement ?? ""))"""


def test_less_motion_stops_all_of_it(ann, furnished):
    a_chat_being_written(ann, furnished.app.engine)
    assert ann.evaluate(MOVING) == []
    ann.emulate_media(reduced_motion="no-preference")
    try:
        ann.evaluate(SETTLED)
        moving = ann.evaluate(MOVING)
        assert len([name for name in moving if name.endswith("::after")]) >= 4  # a cursor each
    finally:
        ann.emulate_media(reduced_motion="reduce")


def test_the_queue_lists_its_own_keys(ann, furnished):
    the_keys_of_the_queue(ann, furnished.app.engine)
    overlay = ann.get_by_test_id("help-overlay")
    keys = overlay.locator("dt").all_inner_texts()
    assert {"N", "S", "U", "0"} <= set(keys)
    assert not {"R", "G", "/"} & set(keys)
    expect(overlay).to_contain_text("the next prompt")


def test_a_rater_is_told_who_changes_the_pool(furnished, browse):
    page = browse(furnished.url, DESKTOP, "en-GB")
    sign_in(page, "Rae")
    queue_view(page, "prompts")
    expect(page.get_by_test_id("pool-row").first).to_be_visible()
    expect(page.get_by_test_id("pool-note")).to_have_text(
        "Trainers and admins keep this pool; you rate what is in it."
    )
    for name in ("pool-write", "pool-import", "pool-edit", "pool-delete"):
        assert page.get_by_test_id(name).first.is_hidden(), name
    queue_view(page, "agreement")
    expect(page.get_by_test_id("queue-overlap")).to_be_disabled()
    expect(page.get_by_test_id("queue")).to_contain_text("Only trainers and admins change this.")
