"""Server-sent events: from event logs, which threads write, to the HTTP answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse

from chatrlhf.loop.relay import EventLog

Item = TypeVar("Item")

KEEP_ALIVE_SECONDS = 15.0
KEEP_ALIVE = ": keep-alive\n\n"


def event_text(name: str, data: Any) -> str:
    """One event as it goes over the wire."""
    return f"event: {name}\ndata: {compact_json(data)}\n\n"


def compact_json(data: Any) -> str:
    """JSON without spaces; it holds no line end, so it fits one data line."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def event_stream(texts: AsyncIterator[str]) -> StreamingResponse:
    """The answer that sends events as they come; no proxy may hold them back."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(texts, media_type="text/event-stream", headers=headers)


async def follow(log: EventLog[Item]) -> AsyncIterator[Item | None]:
    """All items of a log, from the first to its end; None at times when nothing happens."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            loop.call_soon_threadsafe(changed.set)

    index = 0
    with log.listening(wake):
        while True:
            changed.clear()
            items, ended = log.since(index)
            index += len(items)
            for item in items:
                yield item
            if ended:
                return
            try:
                await asyncio.wait_for(changed.wait(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield None
