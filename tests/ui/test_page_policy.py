"""The page's scripts carry the nonce of its policy; nothing else may run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import fake_server
import pytest
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


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_works_and_what_is_smuggled_into_it_does_not_run(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    process = subprocess.Popen(
        [sys.executable, fake_server.__file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "HOME": str(tmp_path)},
    )
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            check_page(browser.new_page(), url)
            browser.close()
    finally:
        process.terminate()
        process.wait(30)


def check_page(page, url: str) -> None:
    said, outside = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: outside.append(request.url))
    page.goto(url)
    page.locator("textarea:visible").first.wait_for(timeout=30_000)
    assert said == []
    assert [address for address in outside if not address.startswith((url, "data:"))] == []
    page.evaluate(
        """() => {
            const smuggled = document.createElement("div");
            smuggled.innerHTML = '<img src="data:," onerror="window.ran = 1">';
            const script = document.createElement("script");
            script.textContent = "window.ran = 2";
            document.body.append(smuggled, script);
        }"""
    )
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in said)
