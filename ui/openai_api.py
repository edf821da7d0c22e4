"""``/v1``: the OpenAI-compatible API, over the same engine. Nothing of it is stored.

``model`` is ``chatrlhf`` for the live version, or the name of any version. docs/openai.md says what
is supported, ignored and refused.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from chatrlhf.app import App
from chatrlhf.engine.requests import (
    ChatMessage,
    Delta,
    DrawnToken,
    Failed,
    Finished,
    ReplyRequest,
    Sampling,
    Started,
)
from chatrlhf.errors import NotFoundError
from chatrlhf.loop.completions import Completion
from storage import people, versions
from ui.access import TheApp
from ui.openai_answers import DONE, Answer, failed_event
from ui.openai_bodies import LIVE_MODEL, CompletionBody
from ui.openai_errors import openai_error_answer
from ui.sse import KEEP_ALIVE, event_stream, follow

router = APIRouter(prefix="/v1", tags=["openai"])

SEED_MASK = 2**63 - 1
CLOSED_BY_CLIENT = 499
_GONE_SECONDS = 0.2


@router.get("/models")
def list_models(app: TheApp) -> dict[str, Any]:
    """The live version under the name ``chatrlhf``, and every version that can be asked for."""
    return {"object": "list", "data": _models(app)}


@router.get("/models/{name}")
def get_model(app: TheApp, name: str) -> dict[str, Any]:
    """One of the models that can be asked for."""
    for model in _models(app):
        if model["id"] == name:
            return model
    raise _no_such_model(name)


@router.post("/chat/completions")
async def complete(app: TheApp, body: CompletionBody, request: Request) -> Response:
    """Answer a conversation, at once or as a stream of chunks."""
    body.check()
    completion = await run_in_threadpool(_start, app, body)
    answer = Answer(body.model, with_logprobs=bool(body.logprobs), with_usage=body.wants_usage())
    if body.stream:
        return event_stream(_chunks(app, completion, answer))
    return await _unless_gone(_whole(app, completion, answer), request)


def _start(app: App, body: CompletionBody) -> Completion:
    try:
        return app.completions.start(_request(app, body))
    except NotFoundError as error:
        raise _no_such_model(body.model) from error


def _request(app: App, body: CompletionBody) -> ReplyRequest:
    chat = app.settings.chat
    replies = body.n or 1
    messages = tuple(
        ChatMessage("system" if message.role == "developer" else message.role, message.plain_text())
        for message in body.messages
    )
    sampling = Sampling(
        temperature=chat.temperature if body.temperature is None else body.temperature,
        top_p=chat.top_p if body.top_p is None else body.top_p,
        top_k=chat.top_k if body.top_k is None else body.top_k,
        max_new_tokens=body.max_completion_tokens or body.max_tokens or chat.max_new_tokens,
        stop=body.stop_strings(),
        top_logprobs=body.alternatives(),
    )
    return ReplyRequest(
        messages=messages,
        replies=replies,
        seed=secrets.randbits(63) if body.seed is None else body.seed & SEED_MASK,
        sampling=sampling,
        versions=() if body.model == LIVE_MODEL else (body.model,) * replies,
    )


async def _whole(app: App, completion: Completion, answer: Answer) -> Response:
    choices: dict[int, dict[str, Any]] = {}
    tokens: dict[int, list[DrawnToken]] = defaultdict(list)
    try:
        async for event in follow(completion.log):
            match event:
                case Started():
                    await _note_start(app, answer, event)
                case Delta():
                    tokens[event.row] += event.tokens
                case Finished():
                    answer.completion_tokens += len(event.token_ids)
                    drawn = [*tokens[event.row], *event.tokens]
                    choices[event.row] = answer.choice(event, drawn)
                case Failed():
                    return openai_error_answer(event.http_status, event.code, event.message)
                case _:
                    pass
    finally:
        completion.cancel()
    return JSONResponse(answer.whole([choices[row] for row in sorted(choices)]))


async def _chunks(app: App, completion: Completion, answer: Answer) -> AsyncIterator[str]:
    """Chunks as OpenAI's clients read them; a client that goes away ends its replies."""
    try:
        async for event in follow(completion.log):
            match event:
                case None:
                    yield KEEP_ALIVE
                case Started():
                    await _note_start(app, answer, event)
                    for row in range(len(event.versions)):
                        yield answer.chunk(row, {"role": "assistant", "content": ""})
                case Delta():
                    yield answer.chunk(event.row, {"content": event.text}, event.tokens)
                case Finished():
                    answer.completion_tokens += len(event.token_ids)
                    yield answer.chunk(event.row, {}, event.tokens, event)
                case Failed():
                    yield failed_event(event)
                    return
                case _:
                    pass
        if answer.with_usage:
            yield answer.usage_chunk()
        yield DONE
    finally:
        completion.cancel()


async def _unless_gone(answering: Coroutine[Any, Any, Response], request: Request) -> Response:
    """The answer, or an end to the work on it when its client goes away."""
    work = asyncio.ensure_future(answering)
    try:
        while not (await asyncio.wait({work}, timeout=_GONE_SECONDS))[0]:
            if await request.is_disconnected():
                return Response(status_code=CLOSED_BY_CLIENT)  # nobody reads it
        return work.result()
    finally:
        work.cancel()


async def _note_start(app: App, answer: Answer, event: Started) -> None:
    answer.prompt_tokens = event.prompt_tokens
    answer.fingerprint = await run_in_threadpool(_fingerprint, app, event.versions[0])


def _fingerprint(app: App, version: str) -> str:
    """Names what computed an answer: the same seed gives the same text while this is the same."""
    model = app.settings.model
    files = versions.get_version(app.db, version).manifest_sha256
    configuration = f"{model.name} {model.quantization} {model.device} {files}"
    return f"fp_{version}_{hashlib.sha256(configuration.encode()).hexdigest()[:10]}"


def _models(app: App) -> list[dict[str, Any]]:
    unusable = ("quarantined", "retired")
    usable = [row for row in versions.list_versions(app.db) if row.state not in unusable]
    models = [_model_json(row.name, row.created_at) for row in usable]
    live = versions.get_alias(app.db, "live")
    first = people.list_people(app.db)[0].created_at  # as old as the data folder
    since = next((row.created_at for row in usable if row.name == live), first)
    return [_model_json(LIVE_MODEL, since), *models]


def _model_json(name: str, created_at: str) -> dict[str, Any]:
    created = int(datetime.datetime.fromisoformat(created_at).timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": LIVE_MODEL}


def _no_such_model(name: str) -> NotFoundError:
    return NotFoundError(
        f"The model {name!r} does not exist. GET /v1/models lists those that do; {LIVE_MODEL} is "
        "the live version."
    )
