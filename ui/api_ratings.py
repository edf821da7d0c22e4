"""``/api``: what people say of replies as they come."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from chatrlhf.app import App
from storage import conversations, demonstrations, labels, rankings
from storage.records import Ranking
from ui.access import IdInPath, TheApp, ThePerson
from ui.bodies import DemonstrationBody, LabelBody, RankingBody
from ui.shapes import demonstration_json, ranking_json

router = APIRouter(prefix="/api", tags=["ratings"])


@router.post("/turns/{turn_id}/ranking")
def rank_turn(
    app: TheApp, person: ThePerson, turn_id: IdInPath, body: RankingBody
) -> dict[str, Any]:
    """Rank all replies of a turn; ranking it again is a revision.

    ``saved_in_ms`` is how long storing it took here.
    """
    started = time.perf_counter()
    conversations.get_turn(app.db, turn_id, person.id)
    saved = rankings.save_ranking(
        app.db,
        turn_id,
        person.id,
        body.ranks_by_id(),
        strength=body.strength,
        comment=body.comment,
        all_bad=body.all_bad,
        idempotency_key=body.idempotency_key,
    )
    return saved_json(app, saved, started)


@router.post("/turns/{turn_id}/demonstration")
def write_demonstration(
    app: TheApp, person: ThePerson, turn_id: IdInPath, body: DemonstrationBody
) -> dict[str, Any]:
    """Store the reply that the person would have wanted."""
    conversations.get_turn(app.db, turn_id, person.id)
    saved = demonstrations.save_demonstration(app.db, person.id, body.text, turn_id=turn_id)
    app.feedback_given()
    return demonstration_json(saved)


@router.post("/replies/{reply_id}/labels")
def label_reply(
    app: TheApp, person: ThePerson, reply_id: IdInPath, body: LabelBody
) -> dict[str, Any]:
    """Say whether a word such as ``toxic`` applies to a reply."""
    conversations.get_reply(app.db, reply_id, person.id)
    labels.save_label(app.db, reply_id, person.id, body.label, body.value)
    return {"reply_id": reply_id, "label": body.label, "value": body.value}


@router.delete("/replies/{reply_id}/labels/{label}")
def unlabel_reply(app: TheApp, person: ThePerson, reply_id: IdInPath, label: str) -> dict[str, Any]:
    """Take a label back, so that nothing is said."""
    conversations.get_reply(app.db, reply_id, person.id)
    labels.remove_label(app.db, reply_id, person.id, label)
    return {"reply_id": reply_id, "label": label, "value": None}


def saved_json(app: App, ranking: Ranking, started: float) -> dict[str, Any]:
    """A ranking that was just stored; ``started``: when its route began, by `perf_counter`."""
    seconds = time.perf_counter() - started
    app.feedback_given()
    return {
        **ranking_json(ranking),
        "next_refit_in": app.next_refit_in(),
        "saved_in_ms": round(1000 * seconds, 2),
    }
