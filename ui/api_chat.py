"""``/api``: conversations and turns."""

from __future__ import annotations

import secrets
import textwrap
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from chatrlhf.app import App
from chatrlhf.engine.requests import Sampling
from chatrlhf.loop.turn_events import (
    NewTurn,
    ReplyDelta,
    ReplyDone,
    TurnDone,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from chatrlhf.loop.turns import LiveTurn
from storage import conversations, demonstrations, rankings
from storage.records import Turn
from ui.access import IdInPath, TheApp
from ui.bodies import NewConversationBody, RenameBody, TurnBody
from ui.shapes import conversation_json, turn_json
from ui.sse import KEEP_ALIVE, event_stream, event_text, follow

router = APIRouter(prefix="/api", tags=["chat"])

SEED_BITS = 63
TITLE_CHARACTERS = 60


@router.post("/conversations")
def create_conversation(app: TheApp, body: NewConversationBody | None = None) -> dict[str, Any]:
    """Start a conversation."""
    body = body or NewConversationBody()
    made = conversations.create_conversation(
        app.db, app.person.id, system_prompt=body.system_prompt, title=body.title
    )
    return conversation_json(made)


@router.get("/conversations")
def list_conversations(app: TheApp) -> list[dict[str, Any]]:
    """The person's conversations, without their turns."""
    return [
        conversation_json(row) for row in conversations.list_conversations(app.db, app.person.id)
    ]


@router.get("/conversations/{conversation_id}")
def get_conversation(
    app: TheApp, conversation_id: IdInPath, *, reveal: bool = False
) -> dict[str, Any]:
    """A conversation with its turns, replies, rankings and demonstrations."""
    conversation = conversations.get_conversation(app.db, conversation_id, app.person.id)
    turns = conversations.list_turns(app.db, conversation_id)
    shown = [_turn_json(app, turn, reveal=reveal) for turn in turns]
    return {**conversation_json(conversation), "turns": shown}


@router.patch("/conversations/{conversation_id}")
def rename_conversation(app: TheApp, conversation_id: IdInPath, body: RenameBody) -> dict[str, Any]:
    """Give a conversation another title."""
    return conversation_json(
        conversations.rename_conversation(app.db, conversation_id, body.title, app.person.id)
    )


@router.delete("/conversations/{conversation_id}")
def delete_conversation(app: TheApp, conversation_id: IdInPath) -> dict[str, Any]:
    """Erase a conversation with all its replies and rankings."""
    conversations.get_conversation(app.db, conversation_id, app.person.id)
    app.cancel_conversation(conversation_id)
    conversations.delete_conversation(app.db, conversation_id, app.person.id)
    return {"deleted": conversation_id}


@router.post("/conversations/{conversation_id}/turns")
async def create_turn(
    app: TheApp,
    conversation_id: IdInPath,
    body: TurnBody,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Ask for replies: as JSON when all have ended, or as a stream of events.

    The replies are finished and stored either way, also when the client goes away.
    """
    live = await run_in_threadpool(_start_turn, app, conversation_id, body)
    if "text/event-stream" in accept:
        return event_stream(_live_events(live))
    failure: TurnFailed | None = None
    async for event in follow(live.log):
        if isinstance(event, TurnFailed):
            failure = event
    if failure is not None:
        content = {"error": {"code": failure.code, "message": failure.message}}
        return JSONResponse(content, status_code=failure.http_status)
    turn = await run_in_threadpool(conversations.get_turn, app.db, live.turn.id)
    return JSONResponse(turn_json(turn, reveal=False))


@router.get("/turns/{turn_id}")
def get_turn(app: TheApp, turn_id: IdInPath, *, reveal: bool = False) -> dict[str, Any]:
    """A turn with its replies."""
    return _turn_json(app, conversations.get_turn(app.db, turn_id, app.person.id), reveal=reveal)


@router.get("/turns/{turn_id}/events")
async def follow_turn(app: TheApp, turn_id: IdInPath) -> Response:
    """The events of a turn from its start: what is there at once, then what comes."""
    turn = await run_in_threadpool(conversations.get_turn, app.db, turn_id, app.person.id)
    live = app.turns.live(turn_id) if app.status == "ok" else None
    if live is not None:
        return event_stream(_live_events(live))
    # It may have ended since it was read.
    turn = await run_in_threadpool(conversations.get_turn, app.db, turn_id, app.person.id)
    return event_stream(_stored_events(turn))


@router.post("/turns/{turn_id}/cancel")
def cancel_turn(app: TheApp, turn_id: IdInPath) -> dict[str, Any]:
    """Cut all replies of a turn that still stream; what came so far stays."""
    conversations.get_turn(app.db, turn_id, app.person.id)
    return {"turn_id": turn_id, "cancelled": app.turns.cancel(turn_id)}


@router.post("/replies/{reply_id}/cancel")
def cancel_reply(app: TheApp, reply_id: IdInPath) -> dict[str, Any]:
    """Cut one reply that still streams; what came so far stays."""
    reply = conversations.get_reply(app.db, reply_id, app.person.id)
    return {"reply_id": reply_id, "cancelled": app.turns.cancel(reply.turn_id, reply_id)}


def _start_turn(app: App, conversation_id: int, body: TurnBody) -> LiveTurn:
    conversation = conversations.get_conversation(app.db, conversation_id, app.person.id)
    if body.parent_reply_id is not None:
        conversations.get_reply(app.db, body.parent_reply_id, app.person.id)
    chat = app.settings.chat
    sampling = Sampling(
        temperature=chat.temperature if body.temperature is None else body.temperature,
        top_p=chat.top_p if body.top_p is None else body.top_p,
        top_k=chat.top_k,
        max_new_tokens=body.max_new_tokens or chat.max_new_tokens,
    )
    wanted = NewTurn(
        text=body.text,
        replies=body.replies or chat.replies,
        seed=secrets.randbits(SEED_BITS) if body.seed is None else body.seed,
        sampling=sampling,
        parent_reply_id=body.parent_reply_id,
        from_root="parent_reply_id" in body.model_fields_set and body.parent_reply_id is None,
    )
    live = app.turns.start(conversation_id, wanted)
    if not conversation.title:
        title = textwrap.shorten(body.text, TITLE_CHARACTERS, placeholder="...")
        conversations.rename_conversation(app.db, conversation_id, title)
    return live


def _turn_json(app: App, turn: Turn, *, reveal: bool) -> dict[str, Any]:
    ranking = rankings.active_ranking(app.db, turn.id, app.person.id)
    written = [
        row
        for row in demonstrations.list_demonstrations(app.db, turn_id=turn.id)
        if row.person_id == app.person.id
    ]
    return turn_json(
        turn,
        reveal=reveal or ranking is not None,
        ranking=ranking,
        demonstration=written[-1] if written else None,
    )


async def _live_events(live: LiveTurn) -> AsyncIterator[str]:
    async for event in follow(live.log):
        yield KEEP_ALIVE if event is None else _event_text(event)


def _event_text(event: TurnEvent) -> str:
    match event:
        case TurnStarted():
            return _started_text(event.turn)
        case ReplyDelta():
            where = {"reply_id": event.reply_id, "position": event.position}
            return event_text("reply.delta", {**where, "text": event.text})
        case ReplyDone():
            where = {"reply_id": event.reply_id, "position": event.position}
            ended = {"finish_reason": event.finish_reason, "text": event.text}
            return event_text("reply.done", {**where, **ended})
        case TurnDone():
            return event_text("turn.done", {"turn_id": event.turn_id})
        case TurnFailed():
            error = {"code": event.code, "message": event.message}
            return event_text("error", {"error": error})


def _started_text(turn: Turn) -> str:
    started = {
        "turn_id": turn.id,
        "conversation_id": turn.conversation_id,
        "text": turn.text,
        "parent_reply_id": turn.parent_reply_id,
        "replies": [{"id": reply.id, "position": reply.position} for reply in turn.replies],
    }
    return event_text("turn.started", started)


async def _stored_events(turn: Turn) -> AsyncIterator[str]:
    yield _started_text(turn)
    for reply in turn.replies:
        done = ReplyDone(reply.id, reply.position, reply.text, reply.finish_reason or "interrupted")
        yield _event_text(done)
    yield _event_text(TurnDone(turn.id))
