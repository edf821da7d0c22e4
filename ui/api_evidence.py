"""``/api``: is it better? Blind win rates, forecasts, then and now, versions side by side."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from chatrlhf.app import App
from chatrlhf.engine.requests import ChatMessage, Delta, Failed, Finished, ReplyRequest, Sampling
from chatrlhf.errors import BadInputError, ConflictError, ForbiddenError
from chatrlhf.loop.completions import Completion
from chatrlhf.loop.evidence import (
    foretold,
    interval_json,
    pair_json,
    summarise,
    vote_of,
)
from chatrlhf.loop.evidence_words import verdict
from chatrlhf.loop.preferences import version_number
from chatrlhf.loop.sentences import joined
from chatrlhf.loop.turn_events import NewTurn
from storage import conversations, evidence, versions, worst_turns
from storage.records import REPLAY, Person
from storage.values import generated_text
from ui.access import TheApp, ThePerson
from ui.bodies import CompareBody, ReplayBody
from ui.sse import KEEP_ALIVE, event_stream, event_text, follow

router = APIRouter(prefix="/api", tags=["evidence"])

Scope = Literal["own", "team"]
SEED_BITS = 53  # the page's numbers hold no more
_OUTCOMES = {1.0: "newer", 0.5: "tie", 0.0: "older"}


@router.get("/evidence")
def get_evidence(app: TheApp, person: ThePerson, scope: Scope | None = None) -> dict[str, Any]:
    """Win rates of versions in blind turns with intervals, and what is known in words.

    ``scope`` team counts everybody's rankings; it is the default of admins, and theirs alone.
    """
    scope = _checked_scope(person, scope)
    whose = None if scope == "team" else person.id
    rankings = evidence.blind_rankings(app.db, whose)
    live = _live(app)
    summary = summarise(rankings, live)
    counts = evidence.duel_counts(app.db, whose)
    older = _usable_older(app, live)
    several = len({ranking.person_id for ranking in rankings} - {person.id}) > 0
    share = app.settings.chat.duels
    worse_than = summary.worse_than
    sentences = verdict(summary, older_versions=len(older), share=share, is_team=several)
    return {
        "live_version": live,
        "scope": scope,
        "sentence": joined(sentences),
        "sentences": [sentence.as_json() for sentence in sentences],
        "rollback_to": worse_than if worse_than in older else None,
        "against_older": summary.against_older and pair_json(summary.against_older),
        "duels": {"share": share, **dataclasses.asdict(counts)},
        "pairs": [pair_json(pair) for pair in summary.pairs],
        "replays": [pair_json(pair) for pair in summary.replays],
        "strengths": {
            "anchor": summary.anchor,
            "versions": [
                {"version": name, **(interval_json(one) or {})}
                for name, one in summary.strengths.items()
            ],
        },
        "foretold": foretold(evidence.list_predictions(app.db, whose)),
    }


@router.get("/evidence/then-and-now")
def then_and_now(app: TheApp, person: ThePerson) -> dict[str, Any]:
    """The person's worst-rated prompts, and what became of putting them to the live version."""
    live = _live(app)
    usable = _usable_older(app, live)
    votes = {
        ranking.turn_id: vote_of(ranking)
        for ranking in evidence.blind_rankings(app.db, person.id)
        if ranking.slot_type == REPLAY
    }
    rows = []
    for turn in worst_turns.worst_turns(app.db, person.id, live):
        vote = votes.get(turn.replay_turn_id or 0)
        rows.append(
            {
                **dataclasses.asdict(turn),
                "can_be_blind": turn.version in usable,
                "preferred": None if vote is None else _OUTCOMES[vote.outcome],
            }
        )
    return {"live_version": live, "turns": rows}


@router.post("/evidence/replays")
def replay(app: TheApp, person: ThePerson, body: ReplayBody) -> dict[str, Any]:
    """Put the prompt of a turn again to its version and to the live one, mixed and blind.

    The replies are a new turn beside the old one; it is ranked as any other.
    """
    old = conversations.get_turn(app.db, body.turn_id, person.id)
    live = app.engine.live_version
    then = next((reply.version for reply in old.replies if reply.version != live), None)
    if then is None:
        raise ConflictError(f"Turn {old.id} was answered by {live} itself. Choose an older one.")
    if then not in _usable_older(app, live):
        raise ConflictError(
            f"{then} cannot answer any more, so there is nothing to compare blind. Show the stored "
            "reply and the new one side by side."
        )
    chat = app.settings.chat
    replies, seed = max(chat.replies, 2), secrets.randbits(SEED_BITS)
    wanted = NewTurn(
        text=old.text,
        replies=replies,
        seed=seed,
        sampling=_sampling(app, None),
        parent_reply_id=old.parent_reply_id,
        from_root=old.parent_reply_id is None,
        versions=app.duels.between(live, then, replies, seed),
        slot_type=REPLAY,
    )
    turn = app.turns.start(old.conversation_id, wanted).turn
    return {"turn_id": turn.id, "conversation_id": turn.conversation_id}


@router.post("/versions/compare")
async def compare(app: TheApp, person: ThePerson, body: CompareBody) -> Response:
    """Have versions answer one prompt with the same seed; a stream of events of all of them.

    Events are ``delta`` and ``done``, each with its version, ``error``, and ``end``. Nothing is
    stored and nothing counted, as it is not blind.
    """
    messages = await run_in_threadpool(_messages, app, person, body)
    seed = secrets.randbits(SEED_BITS) if body.seed is None else body.seed
    sampling = _sampling(app, body)
    started: dict[str, Completion] = {}
    try:
        for name in dict.fromkeys(body.versions):
            request = ReplyRequest(messages, 1, seed, sampling, (name,))
            started[name] = await run_in_threadpool(app.completions.start, request)
    except BaseException:
        for completion in started.values():
            completion.cancel()
        raise
    if body.stream:
        return event_stream(_side_by_side(started, seed))
    answers: dict[str, Any] = {}
    async for name, event in _merged(started):
        if isinstance(event, Failed):
            error = {"code": event.code, "message": event.message}
            return JSONResponse({"error": error}, status_code=event.http_status)
        if isinstance(event, Finished):
            text = generated_text(event.text)
            answers[name] = {"text": text, "finish_reason": event.finish_reason}
    return JSONResponse({"seed": seed, "replies": answers})


def _messages(app: App, person: Person, body: CompareBody) -> tuple[ChatMessage, ...]:
    """The context of a turn of the person's, or the prompt alone."""
    if (body.turn_id is None) == (body.text is None):
        raise BadInputError("Name a turn_id, or give a text; one of both.")
    if body.turn_id is None:
        return (ChatMessage("user", str(body.text)),)
    turn = conversations.get_turn(app.db, body.turn_id, person.id)
    before = conversations.messages_before(app.db, turn.conversation_id, turn.parent_reply_id)
    messages = [ChatMessage(message.role, message.content) for message in before]
    return (*messages, ChatMessage("user", turn.text))


async def _side_by_side(started: dict[str, Completion], seed: int) -> AsyncIterator[str]:
    yield event_text("started", {"versions": list(started), "seed": seed})
    async for name, event in _merged(started):
        match event:
            case None:
                yield KEEP_ALIVE
            case Delta():
                yield event_text("delta", {"version": name, "text": event.text})
            case Finished():
                ended = {"text": generated_text(event.text), "finish_reason": event.finish_reason}
                yield event_text("done", {"version": name, **ended})
            case Failed():
                error = {"code": event.code, "message": event.message}
                yield event_text("error", {"version": name, "error": error})
            case _:
                pass
    yield event_text("end", {})


async def _merged(started: dict[str, Completion]) -> AsyncIterator[tuple[str, Any]]:
    """The events of all, as they come; a reader that goes away ends their replies."""
    queue: asyncio.Queue[tuple[str, Any, bool]] = asyncio.Queue()

    async def read(name: str, completion: Completion) -> None:
        async for event in follow(completion.log):
            await queue.put((name, event, False))
        await queue.put((name, None, True))

    readers = [asyncio.ensure_future(read(*item)) for item in started.items()]
    try:
        left = len(readers)
        while left:
            name, event, is_end = await queue.get()
            left -= is_end
            if not is_end:
                yield name, event
    finally:
        for reader in readers:
            reader.cancel()
        for completion in started.values():
            completion.cancel()


def _sampling(app: App, body: CompareBody | None) -> Sampling:
    chat = app.settings.chat
    temperature = chat.temperature if body is None else body.temperature
    limit = None if body is None else body.max_new_tokens
    return Sampling(
        temperature=chat.temperature if temperature is None else temperature,
        top_p=chat.top_p,
        top_k=chat.top_k,
        max_new_tokens=limit or chat.max_new_tokens,
    )


def _checked_scope(person: Person, scope: Scope | None) -> Scope:
    if person.role == "admin":
        return scope or "team"
    if scope == "team":
        raise ForbiddenError("Only an admin sees the rankings of all. Leave out scope.")
    return "own"


def _live(app: App) -> str:
    return versions.get_alias(app.db, "live") or app.engine.live_version


def _usable_older(app: App, live: str) -> list[str]:
    """Versions older than the live one that can still answer."""
    return [
        row.name
        for row in versions.list_versions(app.db)
        if row.state == "ready" and version_number(row.name) < version_number(live)
    ]
