"""Turns as streams of events, read as the specification of server-sent events says."""

from __future__ import annotations

import json


def events_of(text: str) -> list[tuple[str, dict]]:
    """The (name, data) pairs of an event stream, parsed as the specification says."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line[:1] not in ("", ":")
        )
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def stream(client, conversation, **body):
    """The events of a new turn."""
    answer = client.post(
        f"/api/conversations/{conversation}/turns",
        json={"text": "Hello", **body},
        headers={"Accept": "text/event-stream"},
    )
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    return events_of(answer.text)
