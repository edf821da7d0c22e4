"""``/api``: what the live version's reward model says of replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from chatrlhf.app import App
from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import BadInputError, ConflictError
from storage import conversations, rankings
from storage.records import Person
from ui.access import TheApp, ThePerson
from ui.bodies import ExplainBody, ScoreBody

router = APIRouter(prefix="/api", tags=["reward"])


@router.post("/reward/score")
def score(app: TheApp, body: ScoreBody) -> dict[str, Any]:
    """Score replies to a conversation; higher is better, 0 is the mean of the reference replies.

    ``terms`` says what each term adds to a score, ``spreads`` how far the ensemble is apart, and
    ``left_out`` which terms the server cannot compute (an external classifier that it cannot load).
    """
    if body.messages[-1].role != "user":
        raise BadInputError("The last message must be the user's. Send what was answered.")
    messages = [ChatMessage(message.role, message.content) for message in body.messages]
    version, scored = app.score_replies(messages, body.replies)
    return {
        "version": version,
        "scores": [one.total for one in scored.scores],
        "terms": [one.terms for one in scored.scores],
        "spreads": [one.spread for one in scored.scores],
        "left_out": list(scored.left_out),
    }


@router.post("/reward/explain")
def explain(app: TheApp, person: ThePerson, body: ExplainBody) -> dict[str, Any]:
    """Why these scores: the terms of each, the spread of the ensemble, and values by token.

    ``before`` is what is expected of a reply before its first token, and each token's ``value``
    what is expected once it stands. ``source`` says by whom: the version's ``critic``, or its
    ``reward`` model, which reads each beginning as if the reply ended there. A stored reply of a
    turn that the person has not ranked is refused: whoever knows its score does not rank blind.
    """
    messages, replies = _asked(app, person, body)
    version, scored, values = app.explain_replies(messages, replies, body.version)
    return {
        "version": version,
        "source": values.source,
        "left_out": list(scored.left_out),
        "replies": [
            {
                "text": text,
                "score": score.total,
                "terms": score.terms,
                "spread": score.spread,
                "before": own.before,
                "tokens": [{"text": token.text, "value": token.value} for token in own.tokens],
            }
            for text, score, own in zip(replies, scored.scores, values.replies, strict=True)
        ],
    }


def _asked(app: App, person: Person, body: ExplainBody) -> tuple[list[ChatMessage], Sequence[str]]:
    """The messages and replies that are asked for."""
    if (body.reply_id is None) == (body.messages is None):
        raise BadInputError("Name a reply_id, or give messages and replies; one of both.")
    if (body.messages is None) != (body.replies is None):
        raise BadInputError("messages and replies go together; replies answer the last message.")
    if body.messages is not None:
        if body.messages[-1].role != "user":
            raise BadInputError("The last message must be the user's. Send what was answered.")
        messages = [ChatMessage(message.role, message.content) for message in body.messages]
        return messages, body.replies or ()
    reply = conversations.get_reply(app.db, body.reply_id or 0, person.id)
    if rankings.active_ranking(app.db, reply.turn_id, person.id) is None:
        raise ConflictError(
            f"Turn {reply.turn_id} is not ranked yet: whoever knows the scores does not rank "
            "blind. Rank it first."
        )
    turn = conversations.get_turn(app.db, reply.turn_id, person.id)
    before = conversations.messages_before(app.db, turn.conversation_id, turn.parent_reply_id)
    messages = [ChatMessage(message.role, message.content) for message in before]
    return [*messages, ChatMessage("user", turn.text)], [reply.text]
