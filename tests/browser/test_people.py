"""Two people in two browsers, the login page, and the People screen."""

from __future__ import annotations

import re

import pytest
from chat_page import PATIENCE_MS, ChatPage, click_twice
from fake_engine import FakeEngine
from fake_server import open_fake, wait_until_loaded
from playwright.sync_api import expect
from team import CHEAP, ServedTeam, password_of

from chatrlhf.app import build_app
from chatrlhf.settings import Settings
from storage import accounts, conversations, people
from ui import passwords

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def team(tmp_path, chromium, monkeypatch):
    """A served app without accounts; add people by ``team.add``."""
    monkeypatch.setattr(passwords, "HASHER", CHEAP)
    monkeypatch.setattr(passwords, "_nobody", [])
    settings = Settings(data_dir=tmp_path / "data")
    app = build_app(settings, with_trainer=False, open_engine=open_fake(FakeEngine()))
    app.start()
    wait_until_loaded(app)
    made = ServedTeam(app)
    yield made
    made.stop()
    app.stop()


@pytest.fixture
def browser(chromium, team):
    """New browsers, each with cookies of its own."""
    contexts = []

    def make(screen=DESKTOP, **options):
        contexts.append(chromium.new_context(**{**screen, **options}))
        contexts[-1].set_default_timeout(PATIENCE_MS)
        return contexts[-1].new_page()

    yield make
    for context in contexts:
        context.close()


def sign_in(page, team, name, password=None):
    page.goto(team.url)
    page.get_by_test_id("login-name").fill(name)
    page.get_by_test_id("login-password").fill(password or password_of(name))
    page.get_by_test_id("login-submit").click()


def signed_in(page, team, name):
    sign_in(page, team, name)
    expect(page.get_by_test_id("account")).to_be_visible()
    expect(page.get_by_test_id("chip")).to_contain_text("live")
    return ChatPage(page, team.url)


def open_people(page):
    page.get_by_role("tab", name="People").click()
    expect(page.get_by_test_id("people")).to_be_visible()


def test_two_people_in_two_browsers_do_not_see_each_others_chats(team, browser):
    team.add("Ann", "admin")
    team.add("Rae")
    team.add("Bob")
    rae = signed_in(browser(), team, "Rae")
    bob = signed_in(browser(), team, "Bob")
    rae.send("The secret of Rae")
    rae.wait_written()
    rae.keys("1", "2", "3")
    expect(rae.receipt).to_contain_text("Saved")
    bob.send("The question of Bob")
    bob.wait_written()
    for mine, other in ((rae, "The question of Bob"), (bob, "The secret of Rae")):
        mine.page.reload()
        expect(mine.page.get_by_test_id("conversation-item")).to_have_count(1)
        expect(mine.page.locator("body")).not_to_contain_text(other)
    # Bob guesses the address of Rae's chat.
    bob.page.goto(f"{team.url}/#c={rae.conversation_id}")
    bob.page.reload()
    expect(bob.composer).to_be_visible()
    expect(bob.page.locator("body")).not_to_contain_text("The secret of Rae")
    owners = {row["name"] for row in team.app.db.rows(
        "SELECT people.name FROM conversations JOIN people ON people.id = person_id")}  # fmt: skip
    assert owners == {"Rae", "Bob"}


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page_lets_in_who_knows_the_password(team, browser, screen, scheme):
    team.add("Ann", "admin")
    page = browser(screen, color_scheme=scheme)
    problems = []
    page.on("console", lambda said: problems.append(said.text))
    page.on("request", lambda request: asked.append(request.url))
    asked: list[str] = []
    page.goto(team.url)
    expect(page).to_have_url(f"{team.url}/login")
    expect(page.get_by_test_id("login-name")).to_be_focused()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= screen["viewport"]["width"]
    assert problems == []
    paths = {url.removeprefix(team.url) for url in asked}
    assert all(re.fullmatch(r"/|/login(/.*)?|/api/health|data:.*", path) for path in paths), paths
    sign_in(page, team, "Ann", "not my password")
    expect(page.get_by_test_id("login-error")).to_have_text("The name or the password is wrong.")
    sign_in(page, team, "Ann")
    expect(page.get_by_test_id("account")).to_be_visible()
    expect(page).to_have_url(f"{team.url}/")


def test_who_is_signed_in_is_led_past_the_login_page(team, browser):
    team.add("Ann", "admin")
    page = signed_in(browser(), team, "Ann").page
    page.goto(f"{team.url}/login#c=3")
    page.wait_for_url(lambda url: "/login" not in url)
    expect(page.get_by_test_id("account")).to_be_visible()


def test_signing_out_leads_to_the_login_page_and_back_shows_nothing(team, browser):
    team.add("Ann", "admin")
    page = signed_in(browser(), team, "Ann").page
    page.get_by_test_id("composer").fill("not for the next one")
    page.get_by_test_id("account").click()
    expect(page.get_by_test_id("account-menu")).to_contain_text("admin")
    page.get_by_test_id("sign-out").click()
    expect(page.get_by_test_id("login-name")).to_be_visible()
    page.go_back()
    expect(page.get_by_test_id("login-name")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_session_that_ends_leads_to_the_login_page_and_back_to_the_chat(team, browser):
    team.add("Ann", "admin")
    chat = signed_in(browser(), team, "Ann")
    chat.send("Hello")
    chat.wait_written()
    chat.composer.fill("half a thought")
    number = chat.conversation_id
    with team.app.db.transaction() as connection:
        connection.execute("UPDATE sessions SET expires_at = created_at")
    expect(chat.page.get_by_test_id("login-name")).to_be_visible()
    chat.page.get_by_test_id("login-name").fill("Ann")
    chat.page.get_by_test_id("login-password").fill(password_of("Ann"))
    chat.page.get_by_test_id("login-submit").click()
    expect(chat.page).to_have_url(f"{team.url}/#c={number}")
    expect(chat.cards).to_have_count(4)
    expect(chat.composer).to_have_value("half a thought")


def test_alone_nobody_signs_in_and_the_page_makes_the_first_account(team, browser):
    page = browser()
    chat = ChatPage(page, team.url).open()
    expect(page.get_by_test_id("account")).to_have_count(0)
    chat.send("Before there were accounts")
    chat.wait_written()
    open_people(page)
    expect(page.get_by_test_id("first-account")).to_contain_text("nobody needs to sign in")
    page.get_by_test_id("first-name").fill("Ann")
    page.get_by_test_id("first-password").fill("four words of Ann")
    page.get_by_test_id("first-submit").click()
    expect(page.get_by_test_id("account")).to_contain_text("Ann")
    expect(page.get_by_test_id("person")).to_have_count(1)
    page.get_by_role("tab", name="Chat").click()
    expect(page.get_by_test_id("conversation-item")).to_contain_text("Before there were accounts")
    stranger = browser()
    stranger.goto(team.url)
    expect(stranger.get_by_test_id("login-name")).to_be_visible()


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_an_admin_invites_somebody_who_joins_once(team, browser, screen):
    team.add("Ann", "admin")
    ann = signed_in(browser(screen), team, "Ann").page
    open_people(ann)
    ann.get_by_test_id("invite-role").select_option("trainer")
    ann.get_by_test_id("invite-note").fill("Kim")
    ann.get_by_test_id("invite").click()
    link = ann.get_by_test_id("invite-link").input_value()
    assert link.startswith(f"{team.url}/login#invitation=")
    kim = browser(screen)
    kim.goto(link)
    expect(kim.locator("main")).to_contain_text("Ann invites you.")
    kim.get_by_test_id("login-name").fill("Kim")
    kim.get_by_test_id("login-password").fill("four words of Kim")
    kim.get_by_test_id("login-password-again").fill("four words of Tim")
    kim.get_by_test_id("login-submit").click()
    expect(kim.get_by_test_id("login-error")).to_contain_text("differ")
    kim.get_by_test_id("login-password-again").fill("four words of Kim")
    kim.get_by_test_id("login-submit").click()
    expect(kim.get_by_test_id("account")).to_be_visible()
    open_people(kim)
    expect(kim.get_by_test_id("who")).to_contain_text("You are Kim, trainer.")
    for testid in ("team", "invitations", "audit"):
        expect(kim.get_by_test_id(testid)).to_have_count(0)
    late = browser(screen)
    late.goto(link)
    expect(late.get_by_test_id("login-error")).to_contain_text("has been used")
    assert people.find_person(team.app.db, "Kim").role == "trainer"


def test_an_admin_changes_a_role_undoes_it_and_removes_a_person(team, browser):
    team.add("Ann", "admin")
    rae = team.add("Rae")
    conversations.create_conversation(team.app.db, rae, title="one")
    page = signed_in(browser(), team, "Ann").page
    open_people(page)
    row = page.locator("[data-testid=person][data-name=Rae]")
    row.get_by_test_id("person-role").select_option("trainer")
    expect(page.get_by_test_id("toast").last).to_contain_text("Rae is trainer now.")
    assert people.find_person(team.app.db, "Rae").role == "trainer"
    page.get_by_test_id("toast-action").last.click()
    expect(row.get_by_test_id("person-role")).to_have_value("rater")
    expect(page.locator("[data-testid=audit-entry][data-action=role]")).to_have_count(2)
    row.get_by_test_id("remove-person").click()
    expect(page.get_by_test_id("ask-remove")).to_contain_text("Chats that are erased: 1.")
    page.get_by_test_id("keep-person").click()
    expect(page.get_by_test_id("ask-remove")).to_have_count(0)
    row.get_by_test_id("remove-person").click()
    page.get_by_test_id("really-remove").click()
    expect(row).to_have_count(0)
    assert people.find_person(team.app.db, "Rae") is None
    own = page.locator("[data-testid=person][data-name=Ann]")
    expect(own.get_by_test_id("remove-person")).to_have_count(0)
    own.get_by_test_id("person-role").select_option("rater")
    expect(page.get_by_test_id("people-error")).to_contain_text("only admin")
    expect(own.get_by_test_id("person-role")).to_have_value("admin")


def test_keys_sessions_and_the_password_are_managed(team, browser):
    team.add("Ann", "admin")
    page = signed_in(browser(), team, "Ann").page
    other = signed_in(browser(), team, "Ann").page
    open_people(page)
    page.get_by_test_id("key-name").fill("notebook")
    page.get_by_test_id("make-key").click()
    key = page.get_by_test_id("new-key").input_value()
    headers = {"Authorization": f"Bearer {key}"}
    assert team.stranger().get("/api/me", headers=headers).json()["name"] == "Ann"
    page.get_by_test_id("revoke-key").click()
    expect(page.get_by_test_id("key")).to_have_count(0)
    assert team.stranger().get("/api/me", headers=headers).status_code == 401
    page.reload()
    expect(page.get_by_test_id("new-key")).to_have_count(0)
    expect(page.get_by_test_id("session")).to_have_count(2)
    page.get_by_test_id("end-session").click()
    expect(other.get_by_test_id("login-name")).to_be_visible()
    before = accounts.password_hash_of(team.app.db, team.ids["Ann"])
    page.get_by_test_id("old-password").fill("wrong")
    page.get_by_test_id("new-password").fill("five words for Ann now")
    page.get_by_test_id("change-password").click()
    expect(page.get_by_test_id("people-error")).to_contain_text("old password is wrong")
    page.get_by_test_id("old-password").fill(password_of("Ann"))
    page.get_by_test_id("change-password").click()
    expect(page.get_by_test_id("toast").last).to_contain_text("password is changed")
    assert accounts.password_hash_of(team.app.db, team.ids["Ann"]) != before


def test_the_audit_log_is_paged_and_its_chain_checked(team, browser):
    team.add("Ann", "admin")
    for number in range(60):
        people.add_audit(team.app.db, None, "act", {"n": number})
    page = signed_in(browser(), team, "Ann").page
    open_people(page)
    entries = page.get_by_test_id("audit-entry")
    expect(entries).to_have_count(25)
    expect(entries.first).to_contain_text("signed in")
    click_twice(page.get_by_test_id("audit-older"))
    expect(entries).to_have_count(12)
    expect(page.get_by_test_id("audit-older")).to_be_disabled()
    expect(entries.last).to_contain_text("made the first account")
    click_twice(page.get_by_test_id("audit-newer"))
    expect(entries.first).to_contain_text("signed in")
    page.get_by_test_id("audit-verify").click()
    expect(page.get_by_test_id("audit-state")).to_contain_text("The log is whole.")
    with team.app.db.transaction() as connection:
        connection.execute("DROP TRIGGER audit_log_never_changes")
        connection.execute("UPDATE audit_log SET action = 'x' WHERE id = 7")
    page.get_by_test_id("audit-verify").click()
    expect(page.get_by_test_id("audit-state")).to_contain_text("Entry 7 was changed")


def test_nothing_moves_under_the_pointer_while_the_people_are_read(team, browser):
    team.add("Ann", "admin")
    page = signed_in(browser(), team, "Ann").page
    page.route(re.compile("/api/people$"), lambda route: None)
    with page.expect_request(re.compile("/api/people$")):
        open_people(page)
    expect(page.get_by_test_id("invite")).to_have_count(0)
    page.unroute_all()  # lets those go on that were held
    expect(page.get_by_test_id("person")).to_have_count(1)
    expect(page.get_by_test_id("invite")).to_be_visible()


def test_the_scope_chosen_last_is_the_one_shown(team, browser):
    team.add("Ann", "admin")
    chat = signed_in(browser(), team, "Ann")
    chat.tab("Is it better?")
    scope = chat.page.get_by_test_id("scope")
    scope.select_option("own")
    held = []
    chat.page.route(re.compile("/api/evidence[?]scope=team"), lambda route: held.append(route))
    with chat.page.expect_request(re.compile("scope=team")):
        scope.select_option("team")
    with chat.page.expect_response(re.compile("scope=own")):
        scope.select_option("own")
    with chat.page.expect_response(re.compile("scope=team")):
        held[0].continue_()
    chat.page.wait_for_timeout(300)
    expect(scope).to_have_value("own")


def test_hostile_names_and_notes_are_text(team, browser):
    team.add("Ann", "admin")
    team.add("<img src=x onerror=alert(1)>")
    page = signed_in(browser(), team, "Ann").page
    alerts = []
    page.on("dialog", lambda dialog: alerts.append(dialog.message) or dialog.dismiss())
    open_people(page)
    page.get_by_test_id("invite-note").fill("<script>alert(2)</script>")
    page.get_by_test_id("invite").click()
    expect(page.get_by_test_id("invitation").first).to_contain_text("<script>alert(2)</script>")
    expect(page.get_by_test_id("person").last).to_contain_text("<img src=x")
    assert alerts == []


def test_who_may_not_train_has_no_buttons_for_it(team, browser):
    team.add("Ann", "admin")
    team.add("Tom", "trainer")
    team.add("Rae", "rater")
    for name, may in (("Tom", True), ("Rae", False)):
        chat = signed_in(browser(), team, name)
        chat.tab("Training")
        expect(chat.page.get_by_test_id("training-state")).to_be_visible()
        expect(chat.page.get_by_test_id("train-now")).to_be_visible(visible=may)
        expect(chat.page.get_by_test_id("version").first).to_be_visible()
        expect(chat.page.get_by_test_id("use-version")).to_have_count(1)
        expect(chat.page.get_by_test_id("use-version")).to_be_visible(visible=may)


def test_a_reader_is_told_why_a_ranking_is_not_saved(team, browser):
    team.add("Ann", "admin")
    team.add("Rex", "reader")
    chat = signed_in(browser(), team, "Rex")
    chat.send("Hello")
    chat.wait_written()
    chat.keys("1", "2", "3")
    expect(chat.page.get_by_text("This needs the role rater; yours is reader.")).to_be_visible()
