"""The guard before all routes: host, origin, size, headers."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient, WebSocketDisconnect

from ui.security import BODY_LIMIT_BYTES, GuardMiddleware, host_name
from ui.server import create_server


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:7860", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:7860", "::1"),
        ("[::1]", "::1"),
        ("", None),
        ("localhost:x", None),
        ("localhost:99999", None),
        ("user@localhost", None),
        ("localhost/evil.example", None),
        ("localhost?x", None),
        ("[::1", None),
    ],
)
def test_the_name_of_a_host_header(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "10.0.0.1"]
)
def test_a_foreign_host_is_refused(client, host):
    answer = client.get("/api/health", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "wrong_host"


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860"])
def test_the_loopback_names_are_answered(client, host):
    assert client.get("/api/health", headers={"Host": host}).status_code == 200


def test_a_host_that_was_added_is_answered(app):
    server = create_server(app, hosts=["chat.example"], with_page=False)
    answer = TestClient(server).get("/api/health", headers={"Host": "chat.example"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:7860"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_foreign_page_cannot_change_anything(client, headers):
    for method, path in (
        ("POST", "/api/conversations"),
        ("DELETE", "/api/conversations/1"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/gradio_api/queue/join"),
    ):
        answer = client.request(method, path, json={}, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "foreign_origin"
    assert client.get("/api/conversations").json() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:7860"},
        {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_the_own_page_and_programs_can(client, headers):
    assert client.post("/api/conversations", json={}, headers=headers).status_code == 200


def test_no_other_origin_may_read(client):
    answer = client.get("/api/health", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    preflight = client.options(
        "/api/conversations",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert "access-control-allow-origin" not in preflight.headers


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(client):
    def parts():
        for _ in range(BODY_LIMIT_BYTES // 50_000 + 1):
            yield b" " * 50_000

    announced = client.post("/api/conversations", content=b" " * (BODY_LIMIT_BYTES + 1))
    unannounced = client.post("/api/conversations", content=parts())
    for answer in (announced, unannounced):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too_large"
    absurd = client.post("/api/conversations", headers={"Content-Length": "9" * 5000})
    assert absurd.status_code == 413


def test_every_answer_has_the_security_headers(client):
    for path in ("/api/health", "/api/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
    refused = client.get("/api/health", headers={"Host": "evil.example"})
    assert "content-security-policy" in refused.headers


def test_websockets_are_refused():
    async def inner(scope, receive, send):
        raise AssertionError("it must not get here")

    with (
        pytest.raises(WebSocketDisconnect),
        TestClient(GuardMiddleware(inner)).websocket_connect("/anything"),
    ):
        pass


def test_nothing_of_the_documentation_pages_is_served(client):
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    assert client.get("/api/openapi.json").status_code == 200
