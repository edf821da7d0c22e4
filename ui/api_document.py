"""The OpenAPI document: what FastAPI finds, the shape of errors, and answers that were recorded.

``api_examples.json`` holds, by route, calls that `tests/support/api_examples.py` made against a
server, with the shape of all answers it got. A test makes them again.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from importlib import metadata, resources
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

METHODS = ("get", "post", "put", "patch", "delete")
_DESCRIPTION = """
Everything that the page does, for programs. Bodies and answers are JSON unless a route says
otherwise. Types are strict: a number in quotes is no number, and a field that is not known is
refused.

An error is `{"error": {"code": "not_found", "message": "there is no turn 7"}}` with a 4xx status:
the code is for programs and stays, the message is for people. Under `/v1` it has the shape of
OpenAI's API. A 503 with the code `loading` or `overloaded` means: the same request may work later.

Times are ISO 8601 in UTC. Lists that can be long are paged by id: the last id of a page is the
bound of the next.

Routes that send events answer with `text/event-stream` where the request accepts it.
"""
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "For programs: a word that stays."},
                "message": {"type": "string", "description": "For people: what happened."},
            },
        }
    },
    "example": {"error": {"code": "not_found", "message": "there is no turn 7"}},
}
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_PARAMETERS = {
    "limit": "The most that one answer holds.",
    "after": "Those above this id: the last one that is known.",
    "after_id": "Those above this id: the last one that is known.",
    "reveal": "Also say which version wrote each reply of turns that are not ranked yet.",
    "stage": "Only of this stage of the round.",
    "split": "Only prompts to train on, or only those held out.",
    "accept": "text/event-stream for events as they come.",
    "name": "The name, such as v3.",
}


def install_document(server: FastAPI) -> None:
    """Have ``/api/openapi.json`` answer with `document`."""

    def openapi() -> dict[str, Any]:
        if server.openapi_schema is None:
            server.openapi_schema = document(server)
        return server.openapi_schema

    server.openapi = openapi  # type: ignore[method-assign]


def document(server: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of a server, which need not run."""
    made = get_openapi(
        title="chatrlhf",
        version=metadata.version("chatrlhf"),
        description=_DESCRIPTION.strip(),
        routes=server.routes,
    )
    made.setdefault("components", {}).setdefault("schemas", {})
    schemas = made["components"]["schemas"]
    schemas |= {"Error": _ERROR, "OpenAIError": _OPENAI_ERROR}
    for never in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape of a refusal
        schemas.pop(never, None)
    recorded = examples()
    for path, operations in made["paths"].items():
        for method in METHODS:
            if method in operations:
                route = f"{method.upper()} {path}"
                _complete(operations[method], path, recorded.get(route, {}))
    return made


@cache
def examples() -> dict[str, Any]:
    """What was recorded, by route such as ``GET /api/health``."""
    text = resources.files("ui").joinpath("api_examples.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _complete(operation: dict[str, Any], path: str, recorded: dict[str, Any]) -> None:
    text = inspect.cleandoc(operation.get("description", ""))
    first, _, rest = text.partition("\n\n")
    operation["summary"] = " ".join(first.split()).rstrip(".")
    operation["description"] = rest or " ".join(first.split())
    for parameter in operation.get("parameters", ()):
        _describe(parameter)
    responses = operation["responses"]
    responses.pop("422", None)
    error = "OpenAIError" if path.startswith("/v1") else "Error"
    responses["4XX"] = {
        "description": "Refused; the message says why and what to do.",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}},
    }
    if not recorded:
        return
    _fill_request(operation, recorded["calls"])
    _fill_answer(responses["200"], recorded)


def _describe(parameter: dict[str, Any]) -> None:
    name = parameter["name"]
    if "description" in parameter:
        return
    told = parameter.get("schema", {}).get("description")
    if name.endswith("_id") and parameter["in"] == "path":
        told = f"The id of the {name.removesuffix('_id').replace('run', 'round')}."
    parameter["description"] = told or _PARAMETERS.get(name, f"The {name.replace('_', ' ')}.")


def _fill_request(operation: dict[str, Any], calls: list[dict[str, Any]]) -> None:
    body = operation.get("requestBody", {}).get("content", {})
    for media_type in ("application/json", "application/octet-stream"):
        given = [call for call in calls if call["request"] is not None]
        if media_type in body and given:
            body[media_type]["examples"] = {
                call["name"]: {"summary": call["summary"], "value": call["request"]}
                for call in given
            }


def _fill_answer(answer: dict[str, Any], recorded: dict[str, Any]) -> None:
    if "schema" in recorded:
        schema = {**recorded["schema"], "title": "Answer"}
        content = answer.setdefault("content", {}).setdefault("application/json", {})
        content["schema"] = schema
        content["examples"] = {
            call["name"]: {"summary": call["summary"], "value": call["response"]}
            for call in recorded["calls"]
        }
    else:
        answer["content"] = {
            call["media_type"]: {"schema": {"type": "string"}, "example": call["response"]}
            for call in recorded["calls"]
        }
