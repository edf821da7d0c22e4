"""The page works under its own policy, and a script smuggled into it does not run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import fake_server
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake_url(tmp_path):
    """The page before a fake engine, in a process that knows nothing of this one's environment."""
    process = subprocess.Popen(
        [sys.executable, fake_server.__file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
    )
    try:
        yield re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait(30)


def test_what_is_smuggled_into_the_page_does_not_run(chromium, fake_url):
    said, requested = [], []
    page = chromium.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(fake_url)
    page.locator("textarea:visible").first.wait_for(timeout=30_000)
    assert said == []
    assert [url for url in requested if not url.startswith((fake_url, "data:"))] == []
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
    page.close()
