"""The address that is listened at, and the process around the server."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fake_server
import httpx
import psutil
import pytest
from fake_engine import FakeEngine
from fake_server import open_fake
from fastapi.testclient import TestClient
from waiting import wait_for

from chatrlhf.app import App
from chatrlhf.errors import SettingsError
from chatrlhf.settings import ServeSettings, Settings, is_loopback, load_settings
from storage import accounts, conversations
from storage.audit import list_audit
from storage.database import open_database
from ui import passwords
from ui.server import create_server, listener_url, open_listener, own_hosts, require_accounts


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


def test_an_address_of_this_computer_needs_no_accounts(tmp_path):
    for host in ("127.0.0.1", "::1", "localhost"):
        require_accounts(Settings(data_dir=tmp_path / "none", serve=ServeSettings(host=host)))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "serve",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "192.168.1.5"},
        {"host": "example.org"},
        {"hosts": ("chat.example",)},
        {"trusted_proxies": ("127.0.0.1",)},
    ],
)
def test_where_others_reach_it_there_must_be_accounts(tmp_path, serve):
    settings = Settings(data_dir=tmp_path, serve=ServeSettings(**serve))
    with pytest.raises(SettingsError, match=r"no accounts .*chatrlhf people add --admin NAME"):
        require_accounts(settings)
    with contextlib.closing(open_database(settings.database_path)) as db:
        accounts.add_first_account(db, "Ann", "a hash")
    require_accounts(settings)


def test_which_hosts_a_server_that_others_reach_answers_for(tmp_path):
    app = App(
        Settings(tmp_path, serve=ServeSettings(host="0.0.0.0", hosts=("chat.example",))),
        with_trainer=False,
        open_engine=open_fake(FakeEngine()),
    )
    client = TestClient(create_server(app, hosts=own_hosts(app.settings), with_page=False))
    for host, is_known in (
        ("chat.example:80", True),
        ("192.168.1.5:7860", True),
        ("[2001:db8::1]:7860", True),
        (socket.gethostname(), True),
        ("evil.example", False),
        ("192.168.1.5.evil.example", False),
    ):
        answer = client.get("/login", headers={"Host": host})
        assert (answer.status_code == 200) is is_known, host


def test_names_in_the_environment_are_separated_by_commas(tmp_path):
    environment = {"CHATRLHF_SERVE_HOSTS": "chat.example, b.example"}
    assert load_settings(tmp_path, environment=environment).serve.hosts == (
        "chat.example",
        "b.example",
    )


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_headers():
    """Asyncio switches Nagle's algorithm off only where the protocol is named."""
    with open_listener("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_port_zero_takes_a_free_one_and_a_taken_one_is_named():
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert listener.proto == socket.IPPROTO_TCP  # without it asyncio delays each answer
        assert listener_url(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(SettingsError, match=rf"Port {port} .*--port"):
            open_listener("127.0.0.1", port)


def started(data_dir):
    """A server process over the fake engine; its first line has its address."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, fake_server.__file__, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(data_dir)},
    )


@pytest.mark.slow
def test_a_server_that_nobody_asks_sleeps(tmp_path):
    process = started(tmp_path)
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        assert httpx.get(url, timeout=30).status_code == 200
        server = psutil.Process(process.pid)

        def wakes_in_a_second():
            before = server.num_ctx_switches().voluntary
            time.sleep(1.0)
            return server.num_ctx_switches().voluntary - before

        wait_for(lambda: wakes_in_a_second() < 100, 30.0)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_signal_in_mid_stream_ends_the_server_in_order(tmp_path):
    process = started(tmp_path)
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        with httpx.Client(base_url=url, timeout=30) as client:
            wait_for(lambda: client.get("/api/health").json()["status"] == "ok", 30.0)
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


@pytest.mark.slow
def test_behind_a_trusted_proxy_the_session_is_for_https_and_the_address_is_who_asks(tmp_path):
    with contextlib.closing(open_database(tmp_path / "chatrlhf.db")) as db:
        accounts.add_first_account(db, "Ann", passwords.hash_password("four words of Ann", "Ann"))
    root = Path(__file__).parents[2]
    environment = {
        "PYTHONPATH": str(root),
        "PATH": "",
        "HOME": str(tmp_path),
        "CHATRLHF_SERVE_HOSTS": "chat.example",
        "CHATRLHF_SERVE_TRUSTED_PROXIES": "127.0.0.1",
    }
    process = subprocess.Popen(
        [sys.executable, fake_server.__file__, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root, env=environment,
    )  # fmt: skip
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        forwarded = {
            "Host": "chat.example",
            "Origin": "https://chat.example",
            "X-Forwarded-For": "203.0.113.7",
            "X-Forwarded-Proto": "https",
        }
        with httpx.Client(base_url=url, timeout=30, headers=forwarded) as client:
            assert client.get("/api/conversations").status_code == 401
            body = {"name": "Ann", "password": "four words of Ann"}
            answer = client.post("/api/session", json=body)
            cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-chatrlhf_session=")
        assert "; Secure" in cookie
        with contextlib.closing(open_database(tmp_path / "chatrlhf.db")) as db:
            assert list_audit(db)[-1].detail["address"] == "203.0.113.7"
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
