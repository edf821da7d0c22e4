"""``/api``: what the live version's reward model says of replies."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import BadInputError
from ui.access import TheApp
from ui.bodies import ScoreBody

router = APIRouter(prefix="/api", tags=["reward"])


@router.post("/reward/score")
def score(app: TheApp, body: ScoreBody) -> dict[str, Any]:
    """Score replies to a conversation; higher is better, 0 is the mean of the reference replies.

    ``terms`` says what each term adds to a score, ``spreads`` how far the ensemble is apart, and
    ``left_out`` which terms the server cannot compute (an external classifier).
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
