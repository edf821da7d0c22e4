"""Examples and answer schemas of the OpenAPI document, from a server over the fake engine.

``python tests/support/api_examples.py`` tells the story of `api_scenario` to a new server, and
writes what came to ``ui/api_examples.json``, then ``docs/api.md``.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "ui" / "api_examples.json"
PAGE = ROOT / "docs" / "api.md"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# Values that are others each time; what stands for them in an example.
_VARYING = {
    "saved_in_ms": 3.2,
    "created": 1769860800,
    "settings": {},
    "model": "embedded",
    "boot_id": "boot",
    "manifest_sha256": "",
    "tokens_per_second": 60.0,
    "key": "crl_...",
    "hint": "crl_ab12",
    "secret": "...",
    "path": "/login#invitation=...",
    "sha256": "0" * 64,
    "previous_sha256": "0" * 64,
}
_NAMED = re.compile(r"(chatcmpl-|fp_v\d+_)[0-9a-f]+")
_LONGEST_LIST, _LONGEST_TEXT = 3, 400


def tell_story() -> Any:
    """The story, told to a server of its own."""
    from dataclasses import replace

    from api_scenario import tell
    from fake_engine import FakeEngine
    from fake_server import http_client, open_fake, wait_until_loaded

    from chatrlhf.app import build_app
    from chatrlhf.settings import RoundSettings, Settings
    from storage import runs

    with tempfile.TemporaryDirectory() as folder:
        settings = replace(
            Settings(data_dir=Path(folder) / "data"), round=RoundSettings(automatic=False)
        )
        app = build_app(settings, with_trainer=True, open_engine=open_fake(FakeEngine()))
        app.start()
        runs.set_state(app.db, "trainer", {"paused": True})
        wait_until_loaded(app)
        try:
            with http_client(app) as client:
                return tell(client, app)
        finally:
            app.stop()


def recorded(story: Any) -> dict[str, Any]:
    """What the document shows of a story, by route."""
    found: dict[str, Any] = {}
    for route, calls in sorted(story.calls.items()):
        shown = [{**call, "response": steady(call["response"])} for call in calls]
        entry: dict[str, Any] = {"calls": shown}
        if route in story.answers:
            entry["schema"] = merged([shape(answer) for answer in story.answers[route]])
        found[route] = entry
    return found


def steady(value: Any, name: str = "") -> Any:
    """An answer with what varies replaced, long lists and texts cut."""
    if name in _VARYING and value is not None and not isinstance(value, bool):
        return _VARYING[name]
    if isinstance(value, dict):
        return {key: steady(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [steady(item, name) for item in value[:_LONGEST_LIST]]
    if isinstance(value, str):
        text = _MOMENT.sub("2026-01-31T12:00:00.000Z", value)
        text = _NAMED.sub(r"\g<1>0123456789", text)
        return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."
    return value


# --- schemas ----------------------------------------------------------------------------------

_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_BY_ID = re.compile(r"\d+")
# Objects with names of what happens to be there, and the types of their values: a sentence's
# placeholders, the reward's terms.
_BY_NAME = {"values": ["integer", "string"], "terms": ["number"]}


def shape(value: Any, name: str = "") -> dict[str, Any]:
    """The JSON schema of one value; an object by ids has values of one schema."""
    if isinstance(value, dict):
        if name in _BY_NAME:
            return {"type": ["object"], "additionalProperties": {"type": _BY_NAME[name]}}
        if value and all(_BY_ID.fullmatch(key) for key in value):
            inner = merged([shape(item) for item in value.values()])
            return {"type": ["object"], "additionalProperties": inner}
        properties = {key: shape(item, key) for key, item in value.items()}
        return {"type": ["object"], "properties": properties, "required": sorted(value)}
    if isinstance(value, list):
        return {"type": ["array"], "items": merged([shape(item) for item in value])}
    return {"type": [_NAMES[type(value)]]}


def merged(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """The narrowest schema that takes whatever one of the schemas takes."""
    if not shapes:
        return {}
    types = sorted({name for one in shapes for name in one.get("type", ())})
    if "number" in types and "integer" in types:
        types.remove("integer")
    made: dict[str, Any] = {"type": types} if types else {}
    objects = [one for one in shapes if "properties" in one]
    by_id = [one["additionalProperties"] for one in shapes if "additionalProperties" in one]
    if objects:
        keys = dict.fromkeys(key for one in objects for key in one["properties"])
        made["properties"] = {
            key: merged([one["properties"][key] for one in objects if key in one["properties"]])
            for key in keys
        }
        made["required"] = sorted(set.intersection(*(set(one["required"]) for one in objects)))
    if by_id:
        made["additionalProperties"] = merged(by_id)
    items = [one["items"] for one in shapes if "items" in one]
    if items:
        made["items"] = merged([one for one in items if one])
    return made


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    found = recorded(tell_story())
    FILE.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    from chatrlhf.app import build_app
    from chatrlhf.settings import Settings
    from ui.api_document import examples
    from ui.api_markdown import markdown
    from ui.server import create_server

    examples.cache_clear()
    server = create_server(build_app(Settings(data_dir=Path("data"))), with_page=False)
    PAGE.write_text(markdown(server.openapi()), encoding="utf-8")


if __name__ == "__main__":
    main()
