"""The Gradio page: what it lays out, what it must not need, and the files it is made of."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ui.blocks import build_blocks, mount_page
from ui.board.board import (
    ASSETS_DIR,
    CHAT_ID,
    ENTRY_MODULE,
    HEADER_ID,
    QUEUE_ID,
    RATINGS_ID,
    STYLESHEETS,
    TRAINING_ID,
)

MODULES = sorted(path.name for path in ASSETS_DIR.glob("*.js"))
MARKUP_WRITERS = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "eval(",
    "@import",
)
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}
FILES = sorted(path.name for path in ASSETS_DIR.iterdir() if path.suffix in {".js", ".css"})


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    mount_page(app)
    with TestClient(app) as client:
        yield client


def test_the_page_has_a_host_for_each_screen():
    config = build_blocks().get_config_file()
    hosts = {component["props"].get("elem_id") for component in config["components"]}
    assert {HEADER_ID, CHAT_ID, QUEUE_ID, RATINGS_ID, TRAINING_ID} <= hosts


def test_the_page_compiles_no_templates_and_listens_to_no_events():
    # gr.HTML would need 'unsafe-eval'; an event listener would open Gradio's own API.
    config = build_blocks().get_config_file()
    assert {component["type"] for component in config["components"]} <= {
        "column",
        "tabs",
        "tabitem",
    }
    assert config["dependencies"] == []


def test_the_page_loads_its_entry_and_every_stylesheet(client):
    head = client.get("/config").json()["head"]
    assert f"/board/{ENTRY_MODULE}" in head
    loaded = re.findall(r"/board/([a-z_]+\.css)", head)
    assert loaded == list(STYLESHEETS)
    assert sorted([*loaded, "login.css"]) == [name for name in FILES if name.endswith(".css")]


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_the_page_is_served_and_revalidated(client, name):
    answer = client.get(f"/board/{name}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    kind = "text/css" if name.endswith(".css") else "javascript"
    assert kind in answer.headers["content-type"]


@pytest.mark.parametrize("name", ["board.py", "__init__.py", "..%2fblocks.py", "", "none.js"])
def test_no_other_file_is_served(client, name):
    assert client.get(f"/board/{name}").status_code == 404


def test_every_import_of_the_page_is_one_of_its_modules_and_none_is_idle():
    imported = set()
    for name in MODULES:
        text = (ASSETS_DIR / name).read_text(encoding="utf-8")
        imported |= set(re.findall(r'from "\./([a-z_]+\.js)"', text))
    assert imported | {ENTRY_MODULE, "login.js"} == set(MODULES)


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_the_page_reaches_outside_or_writes_markup(name):
    text = (ASSETS_DIR / name).read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"' )]+", text)) <= NAMESPACES
    assert not [word for word in MARKUP_WRITERS if word in text]
