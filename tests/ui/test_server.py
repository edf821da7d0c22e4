"""The address that is listened at, and the process around the server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_server
import httpx
import pytest

from chatrlhf.errors import SettingsError
from storage import conversations
from storage.database import open_database
from ui.server import is_loopback, listener_url, open_listener


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_that_others_reach_is_refused_without_accounts(host):
    with pytest.raises(SettingsError, match="accounts"):
        open_listener(host, 0)


def test_port_zero_takes_a_free_one_and_a_taken_one_is_named():
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert listener_url(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(SettingsError, match=rf"Port {port} .*--port"):
            open_listener("127.0.0.1", port)


@pytest.mark.slow
def test_a_signal_in_mid_stream_ends_the_server_in_order(tmp_path):
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, fake_server.__file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(tmp_path)},
    )
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        with httpx.Client(base_url=url, timeout=30) as client:
            wait_for(lambda: client.get("/api/health").json()["status"] == "ok")
            page = client.get("/")
            assert page.status_code == 200
            nonce = re.search(r"'nonce-(\w+)'", page.headers["content-security-policy"])[1]
            assert page.text.count("<script") == page.text.count(f"<script nonce={nonce}")
            made = client.post("/api/conversations", json={}).json()["id"]
            body = {"json": {"text": "Hello"}, "headers": {"Accept": "text/event-stream"}}
            with client.stream("POST", f"/api/conversations/{made}/turns", **body) as answer:
                lines = answer.iter_lines()
                while next(lines) != "event: reply.delta":
                    pass
                process.send_signal(signal.SIGTERM)
                last_events = [line for line in lines if line.startswith("event: ")][-5:]
            assert process.wait(30) == 0, process.stderr.read()
    finally:
        process.kill()
        errors = process.communicate()[1]
    assert errors == ""
    assert last_events == ["event: reply.done"] * 4 + ["event: turn.done"]

    db = open_database(tmp_path / "chatrlhf.db")
    replies = conversations.list_turns(db, made)[0].replies
    assert {reply.state for reply in replies} == {"interrupted"}
    assert {reply.text for reply in replies} == {"word0 "}
    db.close()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
