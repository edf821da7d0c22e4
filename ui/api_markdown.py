"""The OpenAPI document as a page to read: ``docs/api.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ui.api_document import METHODS

_TITLES = {
    "chat": "Chat",
    "ratings": "Ratings",
    "data": "Data in and out",
    "reward": "Reward",
    "training": "Training",
    "openai": "OpenAI-compatible",
}


def markdown(document: dict[str, Any]) -> str:
    """The document as Markdown, routes in groups, each with an example."""
    parts = ["# HTTP API", "", document["info"]["description"], ""]
    parts += [
        "This page is made from the OpenAPI document (`GET /api/openapi.json`, `chatrlhf api`) by "
        "`chatrlhf api --markdown`. The examples are answers of a server, which a test asks again.",
        "",
    ]
    for tag, routes in _grouped(document).items():
        parts += [f"## {_TITLES.get(tag, tag.replace('_', ' ').capitalize())}", ""]
        for method, path, operation in routes:
            parts += [*_operation(method, path, operation), ""]
    return "\n".join(parts).rstrip() + "\n"


def _grouped(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                operation = operations[method]
                tag = operation.get("tags", ["other"])[0]
                groups.setdefault(tag, []).append((method.upper(), path, operation))
    return groups


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`"
    yield operation["summary"] + "."
    if operation["description"].rstrip(".") != operation["summary"]:
        yield ""
        yield operation["description"]
    parameters = [one for one in operation.get("parameters", ()) if one["in"] != "header"]
    if parameters:
        yield ""
        yield "| parameter | | |"
        yield "|---|---|---|"
        for one in parameters:
            told = one["description"].replace("|", "\\|").replace("\n", " ")
            yield f"| `{one['name']}` | {one['in']}, {_type(one['schema'])} | {told} |"
    yield from _example("Request", operation.get("requestBody", {}).get("content", {}))
    yield from _example("Answer", operation["responses"].get("200", {}).get("content", {}))


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    return str(schema.get("format", schema.get("type", "any")))


def _example(title: str, content: dict[str, Any]) -> Iterator[str]:
    for media_type, body in content.items():
        named = next(iter(body.get("examples", {}).values()), None)
        value = body.get("example") if named is None else named["value"]
        if value is None:
            continue
        of = "" if media_type == "application/json" else f" ({media_type})"
        told = f": {named['summary']}" if named is not None and title == "Request" else ""
        yield ""
        yield f"{title}{of}{told}"
        yield ""
        if isinstance(value, str):
            yield from ("```", value.rstrip("\n"), "```")
        else:
            yield from ("```json", json.dumps(value, ensure_ascii=False, indent=1), "```")
