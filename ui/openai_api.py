"""``/v1``: the OpenAI-compatible API, over the same engine. Nothing of it is stored.

``model`` is ``chatrlhf`` for the live version, or the name of any version.
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from chatrlhf.app import App
from chatrlhf.engine.requests import (
    ChatMessage,
    Delta,
    Failed,
    Finished,
    ReplyRequest,
    Sampling,
    Started,
)
from chatrlhf.errors import BadInputError
from chatrlhf.loop.completions import Completion
from storage import versions
from ui.access import TheApp
from ui.bodies import CompletionBody
from ui.sse import KEEP_ALIVE, compact_json, event_stream, follow

router = APIRouter(prefix="/v1", tags=["openai"])

LIVE_MODEL = "chatrlhf"
SEED_MASK = 2**63 - 1


@dataclass
class _Answer:
    """What is the same in all parts of one answer, and the tokens counted so far."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def part(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """An object of the API with these choices."""
        frame = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**frame, "choices": choices}

    def usage(self) -> dict[str, int]:
        """Tokens of the prompt and of all replies."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@router.get("/models")
def list_models(app: TheApp) -> dict[str, Any]:
    """The live version under the name ``chatrlhf``, and every version that can be asked for."""
    usable = [row for row in versions.list_versions(app.db) if row.state != "quarantined"]
    models = [_model_json(row.name, row.created_at) for row in usable]
    live = versions.get_alias(app.db, "live")
    since = next((row.created_at for row in usable if row.name == live), app.person.created_at)
    return {"object": "list", "data": [_model_json(LIVE_MODEL, since), *models]}


@router.post("/chat/completions")
async def complete(app: TheApp, body: CompletionBody, request: Request) -> Response:
    """Answer a conversation, at once or as a stream of chunks."""
    completion = await run_in_threadpool(_start, app, body)
    answer = _Answer(model=body.model)
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return event_stream(_chunks(completion, answer, with_usage=with_usage))
    return await _whole(completion, answer, request)


def _start(app: App, body: CompletionBody) -> Completion:
    request = _request(app, body)
    for name in set(request.versions):
        app.live.ensure_resident(name)
    return app.completions.start(request)


def _request(app: App, body: CompletionBody) -> ReplyRequest:
    chat = app.settings.chat
    replies = body.n or 1
    messages = tuple(
        ChatMessage("system" if message.role == "developer" else message.role, message.plain_text())
        for message in body.messages
    )
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise BadInputError("The last message must be the user's, and not blank.")
    sampling = Sampling(
        temperature=chat.temperature if body.temperature is None else body.temperature,
        top_p=chat.top_p if body.top_p is None else body.top_p,
        top_k=chat.top_k,
        max_new_tokens=body.max_completion_tokens or body.max_tokens or chat.max_new_tokens,
        stop=body.stop_strings(),
    )
    return ReplyRequest(
        messages=messages,
        replies=replies,
        seed=secrets.randbits(63) if body.seed is None else body.seed & SEED_MASK,
        sampling=sampling,
        versions=() if body.model == LIVE_MODEL else (body.model,) * replies,
    )


async def _whole(completion: Completion, answer: _Answer, request: Request) -> Response:
    choices: dict[int, dict[str, Any]] = {}
    try:
        async for event in follow(completion.log):
            match event:
                case Started():
                    answer.prompt_tokens = event.prompt_tokens
                case Finished():
                    answer.completion_tokens += len(event.token_ids)
                    choices[event.row] = {
                        "index": event.row,
                        "message": {"role": "assistant", "content": event.text},
                        "finish_reason": _finish_reason(event),
                    }
                case None if await request.is_disconnected():
                    return Response(status_code=499)  # nobody reads it
                case Failed():
                    return JSONResponse(_error(event), status_code=event.http_status)
                case _:
                    pass
    finally:
        completion.cancel()
    ordered = [choices[row] for row in sorted(choices)]
    whole = answer.part("chat.completion", ordered)
    return JSONResponse({**whole, "usage": answer.usage()})


async def _chunks(
    completion: Completion, answer: _Answer, *, with_usage: bool
) -> AsyncIterator[str]:
    """Chunks as OpenAI's clients read them; a client that goes away ends its replies."""
    try:
        async for event in follow(completion.log):
            match event:
                case None:
                    yield KEEP_ALIVE
                case Started():
                    answer.prompt_tokens = event.prompt_tokens
                    for row in range(len(event.versions)):
                        yield _chunk(answer, row, {"role": "assistant", "content": ""})
                case Delta():
                    yield _chunk(answer, event.row, {"content": event.text})
                case Finished():
                    answer.completion_tokens += len(event.token_ids)
                    yield _chunk(answer, event.row, {}, _finish_reason(event))
                case Failed():
                    yield f"data: {compact_json(_error(event))}\n\n"
                    return
                case _:
                    pass
        if with_usage:
            last = {**answer.part("chat.completion.chunk", []), "usage": answer.usage()}
            yield f"data: {compact_json(last)}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        completion.cancel()


def _chunk(answer: _Answer, row: int, delta: dict[str, str], finish: str | None = None) -> str:
    choice = {"index": row, "delta": delta, "finish_reason": finish}
    return f"data: {compact_json(answer.part('chat.completion.chunk', [choice]))}\n\n"


def _finish_reason(event: Finished) -> str:
    """OpenAI knows no interruption; a reply that was cut is not finished, so ``length``."""
    return "stop" if event.finish_reason == "stop" else "length"


def _error(event: Failed) -> dict[str, Any]:
    return {"error": {"code": event.code, "message": event.message, "type": event.code}}


def _model_json(name: str, created_at: str) -> dict[str, Any]:
    created = int(datetime.datetime.fromisoformat(created_at).timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": LIVE_MODEL}
