"""Every route of the app, Gradio's mount included, asked by everybody."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient
from team import OWN_ADDRESS, Team

from storage.people import ROLES
from ui.gate import guarded_routes, route_names
from ui.roles import AUDITED, LEAST_ROLES, RULES
from ui.server import create_server

NAMES = {"reader": "Rex", "rater": "Rae", "trainer": "Tom", "admin": "Ann"}
REFUSALS = (401, 403)
PAGES = {("GET", "/"), ("HEAD", "/")}


def addresses(server: FastAPI) -> list[tuple[str, str, str]]:
    """(name, method, path) of each route, parameters filled with what does not exist."""
    found = []
    for name, path, methods in route_names(server):
        address = re.sub(r"\{[a-z_]+(:path)?\}", "999999", path)
        found += [(name, method, address) for method in sorted(methods or {"GET", "POST"})]
    return found


def test_every_route_has_a_role_and_every_role_a_route(app):
    server = create_server(app, with_page=True)
    names = {name for name, _, _ in route_names(server)}
    assert names == set(RULES)
    assert set(AUDITED) <= names


def test_the_walk_finds_what_the_server_has(app):
    """Against the walk itself: it counts routes by other means than `route_names`."""
    server = create_server(app, with_page=True)
    schema = {
        f"{method.upper()} {path}"
        for path, methods in server.openapi()["paths"].items()
        for method in methods
    }
    mounts = {f"MOUNT {route.path or '/'}" for route in server.routes if isinstance(route, Mount)}
    hidden = {"GET /login", "GET /api/openapi.json", "GET /manifest.json"}
    assert {name for name, _, _ in route_names(server)} == schema | mounts | hidden
    assert len(schema) > 40
    assert mounts == {"MOUNT /", "MOUNT /api", "MOUNT /v1", "MOUNT /board", "MOUNT /login"}


def test_a_route_without_a_role_keeps_the_server_from_starting(app):
    server = create_server(app, with_page=False)
    server.get("/api/forgotten")(lambda: {})
    with pytest.raises(RuntimeError, match=r"ui/roles.py for: GET /api/forgotten"):
        guarded_routes(server)


def test_strangers_get_nothing_but_what_signing_in_takes(app, team):
    page = Team(app, with_page=True)
    client = page.stranger()
    allowed = []
    for name, method, address in addresses(page.server):
        answer = client.request(method, address, json={})
        if answer.status_code not in (*REFUSALS, 303):
            allowed.append(name)
        elif RULES[name].needed != "nobody":
            assert answer.status_code == (303 if (method, address) in PAGES else 401), name
            assert answer.text == "" or answer.json().keys() == {"error"}
    assert set(allowed) == set(LEAST_ROLES["nobody"].strip().split("\n        "))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", ["browser", "program"])
def test_a_role_may_what_is_declared_and_no_more(app, team, role, kind):
    page = Team(app, with_page=True)
    page.ids = team.ids
    refused = set()
    for name, method, address in addresses(page.server):
        if name in ("DELETE /api/session", "DELETE /api/me/sessions"):
            continue  # they would end the walk
        client = made_client(page, kind, role)
        answer = client.request(method, address, json={})
        message = answer.text
        if answer.status_code == 403 and "This needs the role" in message:
            refused.add(name)
        else:
            assert answer.status_code != 401 or "wrong" in message, (name, message)
            assert answer.status_code < 500 or answer.status_code == 503, (name, message)
    higher = ROLES[ROLES.index(role) + 1 :]
    assert refused == {name for name, rule in RULES.items() if rule.needed in higher}


_clients: dict[tuple[int, str, str], object] = {}


def made_client(page, kind, role):
    key = (id(page), kind, role)
    if key not in _clients:
        _clients[key] = getattr(page, kind)(NAMES[role])
    return _clients[key]


def test_no_data_of_gradio_is_shown_to_strangers(app, team):
    page = Team(app, with_page=True)
    gradio = next(route for route in page.server.routes if getattr(route, "path", None) == "")
    paths = {route.path for route in iter_route_contexts(gradio.app.routes) if route.path}
    assert len(paths) > 20
    client = page.stranger()
    for path in paths:
        address = re.sub(r"\{[a-z_]+(:path)?\}", "x", path)
        for method in ("GET", "POST"):
            answer = client.request(method, address)
            known = RULES.get(f"{method} {path}")
            if path == "/" and method == "GET":
                assert (answer.status_code, answer.headers["location"]) == (303, "/login")
            elif known is None and not address.startswith("/login"):
                assert answer.status_code == 401, (path, answer.text)
    inside = page.browser("Ann").get("/config")
    assert inside.status_code == 200
    assert inside.json()["components"]


def test_a_prefix_of_a_proxy_leads_around_no_rule(team):
    async def prefixed(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/x", "path": "/x" + scope["path"]}
        await team.server(scope, receive, send)

    client = TestClient(prefixed, base_url=OWN_ADDRESS)
    client.cookies = team.browser("Rex").cookies
    assert client.get("/api/me").json()["name"] == "Rex"
    answer = client.post("/api/trainer/pause")
    assert answer.status_code == 403
    assert "This needs the role trainer" in answer.text
