"""The page's scripts carry the nonce of its policy; nothing else may run."""

from __future__ import annotations

import re

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.testclient import TestClient

from ui.page_policy import PageNonce, page_policy

PAGE = '<script>let a = "<scripty>";</script><script type="module" src="x.js"></script>'


def served(response: Response) -> TestClient:
    return TestClient(PageNonce(response))


def test_each_script_tag_of_the_page_gets_the_nonce_of_the_header():
    answer = served(HTMLResponse(PAGE)).get("/")
    nonce = re.search(r"script-src 'self' 'nonce-(\w+)'", answer.headers["content-security-policy"])
    assert answer.text == PAGE.replace("<script>", f"<script nonce={nonce[1]}>").replace(
        "<script type", f"<script nonce={nonce[1]} type"
    )
    assert int(answer.headers["content-length"]) == len(answer.text)


def test_each_answer_has_another_nonce():
    client = served(HTMLResponse(PAGE))
    assert client.get("/").text != client.get("/").text


def test_other_answers_pass_untouched():
    assert served(HTMLResponse(PAGE)).get("/other").text == PAGE
    answer = served(JSONResponse({"html": PAGE})).get("/")
    assert answer.json() == {"html": PAGE}
    assert "content-security-policy" not in answer.headers


def test_without_a_nonce_no_inline_script_is_allowed():
    assert "script-src 'self';" in page_policy()
    assert "unsafe-eval" not in page_policy("x")
