"""``/api``: turns and their replies."""

from __future__ import annotations

import dataclasses
import secrets
import textwrap
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from chatrlhf.app import App
from chatrlhf.engine.requests import Sampling
from chatrlhf.errors import BadInputError, NotFoundError
from chatrlhf.loop.live_turn import LiveTurn
from chatrlhf.loop.turn_events import (
    Ask,
    NewTurn,
    ReplyDelta,
    ReplyDone,
    TurnAsked,
    TurnChoosing,
    TurnDone,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from storage import asked, conversations, demonstrations, evidence, labels, rankings
from storage.records import DUEL, Person, Turn
from ui.access import IdInPath, TheApp, ThePerson
from ui.bodies import TurnBody
from ui.shapes import choice_json, turn_json
from ui.sse import KEEP_ALIVE, event_stream, event_text, follow

router = APIRouter(prefix="/api", tags=["chat"])

SEED_BITS = 63
TITLE_CHARACTERS = 60


@router.post("/conversations/{conversation_id}/turns")
async def create_turn(
    app: TheApp,
    person: ThePerson,
    conversation_id: IdInPath,
    body: TurnBody,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Ask for replies: as JSON when all have ended, or as a stream of events.

    The replies are finished and stored either way, also when the client goes away.
    """
    live = await run_in_threadpool(_start_turn, app, person, conversation_id, body)
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
def get_turn(
    app: TheApp, person: ThePerson, turn_id: IdInPath, *, reveal: bool = False
) -> dict[str, Any]:
    """A turn with its replies."""
    return rated_turn_json(
        app, person, conversations.get_turn(app.db, turn_id, person.id), reveal=reveal
    )


@router.get("/turns/{turn_id}/events")
async def follow_turn(app: TheApp, person: ThePerson, turn_id: IdInPath) -> Response:
    """The events of a turn from its start: what is there at once, then what comes."""
    turn = await run_in_threadpool(conversations.get_turn, app.db, turn_id, person.id)
    live = app.turns.live(turn_id) if app.status == "ok" else None
    if live is not None:
        return event_stream(_live_events(live))
    # It may have ended since it was read.
    turn = await run_in_threadpool(conversations.get_turn, app.db, turn_id, person.id)
    return event_stream(_stored_events(turn))


@router.post("/turns/{turn_id}/cancel")
def cancel_turn(app: TheApp, person: ThePerson, turn_id: IdInPath) -> dict[str, Any]:
    """Cut all replies of a turn that still stream; what came so far stays."""
    conversations.get_turn(app.db, turn_id, person.id)
    return {"turn_id": turn_id, "cancelled": app.turns.cancel(turn_id)}


@router.post("/replies/{reply_id}/cancel")
def cancel_reply(app: TheApp, person: ThePerson, reply_id: IdInPath) -> dict[str, Any]:
    """Cut one reply that still streams; what came so far stays."""
    reply = conversations.get_reply(app.db, reply_id, person.id)
    return {"reply_id": reply_id, "cancelled": app.turns.cancel(reply.turn_id, reply_id)}


def _start_turn(app: App, person: Person, conversation_id: int, body: TurnBody) -> LiveTurn:
    conversation = conversations.get_conversation(app.db, conversation_id, person.id)
    if body.parent_reply_id is not None:
        conversations.get_reply(app.db, body.parent_reply_id, person.id)
    chat = app.settings.chat
    sampling = Sampling(
        temperature=chat.temperature if body.temperature is None else body.temperature,
        top_p=chat.top_p if body.top_p is None else body.top_p,
        top_k=chat.top_k,
        max_new_tokens=body.max_new_tokens or chat.max_new_tokens,
    )
    replies = body.replies or chat.replies
    # A request for more replies than there are candidates by default is no mistake.
    usual = chat.candidates if chat.candidates > replies else 0
    wanted = NewTurn(
        text=body.text,
        replies=replies,
        seed=secrets.randbits(SEED_BITS) if body.seed is None else body.seed,
        sampling=sampling,
        parent_reply_id=body.parent_reply_id,
        from_root="parent_reply_id" in body.model_fields_set and body.parent_reply_id is None,
        candidates=usual if body.candidates is None else body.candidates,
        choose=body.choose or chat.choose,
        ask=Ask(
            policy=body.ask or chat.ask,
            one_in=body.ask_one_in or chat.ask_one_in,
            below=chat.ask_below,
            anyway=chat.ask_anyway,
        ),
    )
    live = _start_mixed(app, conversation_id, wanted, body) or app.turns.start(
        conversation_id, wanted
    )
    if not conversation.title:
        title = textwrap.shorten(body.text, TITLE_CHARACTERS, placeholder="...")
        conversations.rename_conversation(app.db, conversation_id, title)
    return live


def _start_mixed(
    app: App, conversation_id: int, wanted: NewTurn, body: TurnBody
) -> LiveTurn | None:
    """Start the turn as a duel, if one is asked for or due; None where it is an ordinary one."""
    # Who asks for candidates wants the live version's best ones; greedy replies would be twins.
    unfit = bool(body.candidates) or body.choose is not None or wanted.sampling.temperature == 0.0
    asked_for = False if unfit and body.duel is None else body.duel
    if body.duel and body.candidates:
        raise BadInputError(
            "A duel shows what each version writes, unchosen. Leave out candidates."
        )
    mixed = app.duels.versions_of(wanted.replies, wanted.seed, wanted=asked_for)
    if not mixed or not (body.duel or _is_to_be_ranked(app, conversation_id, wanted)):
        return None
    duel = dataclasses.replace(wanted, versions=mixed, slot_type=DUEL, candidates=0)
    try:
        return app.turns.start(conversation_id, duel)
    except NotFoundError:
        # A version may leave memory between the two steps; what else is missing is told below.
        if body.duel:
            raise
        return None


def _is_to_be_ranked(app: App, conversation_id: int, wanted: NewTurn) -> bool:
    """Whether a duel may take this turn, where not every turn is to be ranked.

    The doubt of a reward model is of the live version's candidates, which a duel does not write.
    """
    ask = wanted.ask
    if ask is None or ask.policy == "every":
        return True
    return asked.is_due(app.db, conversation_id, ask.one_in)


def rated_turn_json(app: App, person: Person, turn: Turn, *, reveal: bool) -> dict[str, Any]:
    """A turn with what the person made of it."""
    ranking = rankings.active_ranking(app.db, turn.id, person.id)
    if reveal and ranking is None and turn.is_duel:
        evidence.reveal(app.db, turn.id, person.id)
    written = [
        row
        for row in demonstrations.list_demonstrations(app.db, turn_id=turn.id)
        if row.person_id == person.id
    ]
    return turn_json(
        turn,
        reveal=reveal,
        ranking=ranking,
        demonstration=written[-1] if written else None,
        labels=labels.labels_of_turn(app.db, turn.id, person.id),
    )


async def _live_events(live: LiveTurn) -> AsyncIterator[str]:
    async for event in follow(live.log):
        yield KEEP_ALIVE if event is None else _event_text(event)


def _event_text(event: TurnEvent) -> str:
    match event:
        case TurnStarted():
            return _started_text(event.turn)
        case TurnAsked():
            return event_text(
                "turn.asked", {"turn_id": event.turn.id, "replies": _places(event.turn)}
            )
        case TurnChoosing():
            far = {"turn_id": event.turn_id, "written": event.written}
            of = {"candidates": event.candidates, "replies": event.replies}
            return event_text("turn.choosing", {**far, **of, "scoring": event.is_scoring})
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
        "replies": _places(turn),
        "choice": None if turn.choice is None else choice_json(turn.choice, is_ranked=False),
    }
    return event_text("turn.started", started)


def _places(turn: Turn) -> list[dict[str, int]]:
    return [{"id": reply.id, "position": reply.position} for reply in turn.replies]


async def _stored_events(turn: Turn) -> AsyncIterator[str]:
    yield _started_text(turn)
    for reply in turn.replies:
        done = ReplyDone(reply.id, reply.position, reply.text, reply.finish_reason or "interrupted")
        yield _event_text(done)
    yield _event_text(TurnDone(turn.id))
