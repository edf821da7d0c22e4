"""The OpenAPI document: complete, true, and the page that is made from it up to date."""

from __future__ import annotations

import json

import api_examples
import jsonschema
import pytest
from fake_server import http_client

from chatrlhf.app import build_app
from chatrlhf.settings import Settings
from ui.api_document import METHODS, examples
from ui.api_markdown import markdown
from ui.server import create_server

# The server that the examples come from has no weights; tests/ui/test_api_evidence.py has these.
NEED_WEIGHTS = {
    "GET /api/versions/{name}/export",
    "POST /api/evidence/replays",
    "POST /api/reward/explain",
}
AGAIN = "run: python tests/support/api_examples.py"


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    app = build_app(Settings(data_dir=tmp_path_factory.mktemp("none")))
    return create_server(app, with_page=False).openapi()


@pytest.fixture(scope="module")
def story():
    return api_examples.tell_story()


def operations(document):
    for path, found in document["paths"].items():
        for method in METHODS:
            if method in found:
                yield f"{method.upper()} {path}", found[method]


def test_every_route_is_described_and_has_examples(document):
    silent = [
        (route, what)
        for route, operation in operations(document)
        for what in ("summary", "description", "tags")
        if not operation.get(what)
    ]
    assert silent == []
    undescribed = [
        (route, one["name"])
        for route, operation in operations(document)
        for one in operation.get("parameters", ())
        if len(one["description"]) < 10
    ]
    assert undescribed == []
    without = [route for route, _ in operations(document) if route not in examples()]
    without = [route for route in without if route not in NEED_WEIGHTS]
    assert without == [], f"add them to tests/support/api_scenario.py, then {AGAIN}"
    gone = set(examples()) - {route for route, _ in operations(document)}
    assert gone == set(), AGAIN


def test_every_route_tells_the_shape_of_its_errors(document, app):
    shapes = document["components"]["schemas"]
    for route, operation in operations(document):
        content = operation["responses"]["4XX"]["content"]["application/json"]
        name = "OpenAIError" if "/v1" in route else "Error"
        assert content["schema"]["$ref"].endswith(f"/{name}"), route
    with http_client(app) as client:
        refused = client.get("/api/turns/999")
        jsonschema.validate(refused.json(), shapes["Error"])
        refused = client.post("/v1/chat/completions", json={"model": "v99", "messages": []})
        jsonschema.validate(refused.json(), shapes["OpenAIError"])


def test_the_examples_are_what_a_server_answers(story):
    now = json.loads(json.dumps(api_examples.recorded(story)))
    written = examples()
    changed = [route for route in now if now[route] != written.get(route)]
    assert changed == [], AGAIN
    assert set(now) == set(written), AGAIN


def test_every_answer_and_request_has_the_shape_that_the_document_tells(story, document):
    checked = 0
    for route, operation in operations(document):
        for answer in story.answers.get(route, ()):
            content = operation["responses"]["200"]["content"]["application/json"]
            schema = {**content["schema"], "components": document["components"]}
            jsonschema.validate(answer, schema)
            checked += 1
        for call in story.calls.get(route, ()):
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None and call["request"] is not None:
                schema = {**body["schema"], "components": document["components"]}
                jsonschema.validate(call["request"], schema)
                checked += 1
    assert checked > 60


def test_a_schema_refuses_what_the_answers_never_were():
    schema = api_examples.merged(
        [api_examples.shape(one) for one in ({"a": 1, "b": None}, {"a": 2.5, "b": "x", "c": []})]
    )
    for good in ({"a": 1, "b": None}, {"a": 0.5, "b": "y", "c": [1]}):
        jsonschema.validate(good, schema)
    for bad in ({"a": "1", "b": None}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": "", "c": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_the_page_is_made_from_the_document(document):
    assert api_examples.PAGE.read_text(encoding="utf-8") == markdown(document), AGAIN
