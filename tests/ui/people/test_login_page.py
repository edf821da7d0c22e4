"""What a stranger gets: one page, its own files, a strict policy."""

from __future__ import annotations

import re

import pytest

from ui.board.board import ASSETS_DIR
from ui.login_page import FILES


@pytest.fixture
def client(team):
    return team.stranger()


def test_the_page_has_a_policy_of_its_own_and_no_inline_script(client):
    answer = client.get("/login")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert re.findall(r"<script(?![^>]* src=)", answer.text) == []
    assert " style=" not in answer.text


def test_its_files_are_served_and_no_other(client):
    for name in FILES:
        assert client.get(f"/login/{name}").status_code == 200, name
    others = [path.relative_to(ASSETS_DIR).as_posix() for path in ASSETS_DIR.rglob("*.*")]
    for name in set(others) - FILES:
        assert client.get(f"/login/{name}").status_code == 404, name
    for name in ("", "..%2fboard.py", "%2e%2e/roles.py", "languages/../board.js", "LOGIN.JS/"):
        assert client.get(f"/login/{name}").status_code in (401, 404), name


def test_it_has_all_that_it_asks_for_and_nothing_idle(client):
    asked = set(re.findall(r"/login/([a-z.]+)", client.get("/login").text))
    assert "login.js" in asked
    modules, read = {"login.js"}, set()
    while modules - read:
        name = min(modules - read)
        read.add(name)
        text = (ASSETS_DIR / name).read_text(encoding="utf-8")
        modules |= set(re.findall(r'(?:from|import) "\./([a-z_/]+\.js)"', text))
    languages = {f"languages/{path.name}" for path in (ASSETS_DIR / "languages").glob("*.js")}
    assert asked | modules | languages == FILES


def test_it_is_below_no_route_of_gradio(client):
    """Gradio has a /login of its own, which takes its kind of passwords."""
    assert client.post("/login", data={"username": "Ann", "password": "x"}).status_code in (
        401,
        405,
    )
    assert client.get("/login/").status_code == 404
